package detect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picket-ids/picket/capture"
)

// live is a Source of traffic that says at each step of a clock that it is quiet.
type live struct {
	traffic
	now, step int64
	between   func() // called on each tick
}

func (s *live) Next(f *capture.Frame) error {
	if s.next == len(s.frames) && s.now > s.frames[s.next-1].Time+int64(400*time.Second) {
		return io.EOF
	}
	if s.next < len(s.frames) && s.frames[s.next].Time < s.now+s.step {
		return s.traffic.Next(f)
	}
	s.now += s.step
	f.Time = s.now
	if s.between != nil {
		s.between()
	}
	return capture.ErrQuiet
}

// mixed builds ordinary and refused connections of ten minutes.
func mixed(seed uint64) (s traffic) {
	rng := rand.New(rand.NewPCG(seed, 9))
	us := int64(0)
	for range 3000 {
		us += rng.Int64N(400e3)
		src, dst, port := fmt.Sprintf("10.0.0.%d", 1+rng.IntN(12)), fmt.Sprintf("10.0.1.%d", 1+rng.IntN(3)), uint16(1+rng.IntN(40))
		sport := uint16(1024 + rng.IntN(3000))
		s.syn(us, src, dst, sport, port)
		switch rng.IntN(3) {
		case 0:
			s.tcp(us+50, dst, src, port, sport, capture.RST|capture.ACK)
		case 1:
			s.tcp(us+50, dst, src, port, sport, capture.SYN|capture.ACK)
			s.tcp(us+90, src, dst, sport, port, capture.ACK)
		}
	}
	slices.SortStableFunc(s.frames, func(a, b capture.Frame) int { return cmp.Compare(a.Time, b.Time) })
	return s
}

// TestLiveEqualsFile: ticks of any length and a limit to waiting change when events
// come, not what they are.
func TestLiveEqualsFile(t *testing.T) {
	texts := func(src capture.Source, wait time.Duration) (all []string) {
		cfg := config(rule(refusals), func(e *Event) {
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		})
		cfg.MaxWait, cfg.Early = wait, time.Second
		if err := watch(t, cfg, src).Finish(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for seed := range uint64(3) {
		s := mixed(seed)
		want := texts(&traffic{frames: s.frames}, 0)
		if len(want) < 30 {
			t.Fatalf("only %d events", len(want))
		}
		for _, step := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 7 * time.Second} {
			got := texts(&live{traffic: traffic{frames: s.frames}, now: s.frames[0].Time - 1, step: int64(step)}, 50*time.Millisecond)
			if !slices.Equal(got, want) {
				for k := range min(len(got), len(want)) {
					if got[k] != want[k] {
						t.Fatalf("seed %d, tick %v, event %d:\n%s\nwant\n%s", seed, step, k, got[k], want[k])
					}
				}
				t.Fatalf("seed %d, tick %v: %d events, want %d", seed, step, len(got), len(want))
			}
		}
	}
}

// TestEventsOnTime: an attack's first event comes within two seconds of its last
// packet, on the packet clock, and the incident ends though nothing more comes.
func TestEventsOnTime(t *testing.T) {
	for name, flags := range map[string]uint8{"refused": capture.RST | capture.ACK, "unanswered": 0} {
		t.Run(name, func(t *testing.T) {
			s := &live{step: 20e6}
			for p := range 40 {
				s.syn(int64(p)*1000, "10.0.0.1", "10.0.0.9", 1024, uint16(p+1))
				if flags != 0 {
					s.tcp(int64(p)*1000+100, "10.0.0.9", "10.0.0.1", uint16(p+1), 1024, flags)
				}
			}
			last := s.frames[len(s.frames)-1].Time
			s.now = s.frames[0].Time - 1
			var got []string
			cfg := config(rule(refusals), func(e *Event) {
				got = append(got, fmt.Sprint(e.Picket.Phase, " ", e.Picket.Connections))
				if late := time.Duration(s.now - last); e.Picket.Phase == PhaseNew && late > 2*time.Second {
					t.Errorf("new %v after the last packet", late)
				}
			})
			cfg.MaxWait, cfg.Early = 50*time.Millisecond, time.Second
			watch(t, cfg, s)
			if !slices.Equal(got, []string{"new 40", "end 40"}) {
				t.Errorf("events %q", got)
			}
		})
	}
}

// TestClockJumps: ticks that run back or far ahead end what is open, once, and what
// comes after is seen.
func TestClockJumps(t *testing.T) {
	for name, jump := range map[string]int64{"an hour back": -3600e9, "a year ahead": 31536000e9} {
		t.Run(name, func(t *testing.T) {
			var got []string
			cfg := config(rule(refusals), func(e *Event) { got = append(got, e.Picket.Phase) })
			cfg.MaxWait, cfg.Early = 50*time.Millisecond, time.Second
			d, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var s traffic
			s.syn(0, "10.0.0.1", "10.0.0.9", 1024, 22)
			s.syn(100, "10.0.0.1", "10.0.0.9", 1025, 22)
			if err := d.Run(context.Background(), &s); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			for k := range 40 {
				d.Tick(s.frames[0].Time + int64(k)*50e6)
			}
			for k := range 40 {
				d.Tick(s.frames[0].Time + jump + int64(k)*50e6)
			}
			for k := range s.frames {
				s.frames[k].Time += jump + 3e9
			}
			s.next = 0
			d.fresh = false
			for range s.frames {
				var f capture.Frame
				var p capture.Packet
				s.Next(&f)
				if err := d.take(&f, &p, d.decoder.Decode(&f, &p)); err != nil {
					t.Fatal(err)
				}
			}
			for k := range 40 {
				d.Tick(s.frames[0].Time + int64(k)*50e6)
			}
			if !slices.Equal(got, []string{"new", "end", "new"}) {
				t.Errorf("events %q", got)
			}
		})
	}
}

// TestStepBack: after a clock was set back by more than StepBack events are as soon as ever.
func TestStepBack(t *testing.T) {
	for _, step := range []int64{0, -2e9, -50e9, -70e9} {
		var first, now int64
		cfg := config(rule(refusals), func(e *Event) {
			if e.Source.IP == "10.0.0.66" && first == 0 {
				first = now
			}
		})
		cfg.MaxWait, cfg.Early, cfg.StepBack = 50*time.Millisecond, time.Second, time.Second
		var s traffic
		s.syn(0, "10.0.0.1", "10.0.0.9", 1024, 22)
		d := watch(t, cfg, &s)
		for k := range int64(30) {
			d.Tick(1e18 + k*50e6)
		}
		d.fresh = false
		for p := range 40 {
			s.syn(step/1000+2e6+int64(p)*1000, "10.0.0.66", "10.0.0.9", 1024, uint16(p+1))
			var f capture.Frame
			var p capture.Packet
			s.Next(&f)
			if err := d.take(&f, &p, d.decoder.Decode(&f, &p)); err != nil {
				t.Fatal(err)
			}
		}
		last := s.frames[len(s.frames)-1].Time
		for now = last; first == 0 && now < last+60e9; now += 50e6 {
			d.Tick(now)
		}
		if late := time.Duration(first - last); first == 0 || late > 2*time.Second {
			t.Errorf("clock set back by %v: the first event %v after the last packet", time.Duration(-step), late)
		}
	}
}

// TestSwap: an incident goes on under other models, and says what the model said that
// gave its score.
func TestSwap(t *testing.T) {
	var s live
	for p := range 60 {
		s.syn(int64(p)*2e6, "10.0.0.1", "10.0.0.9", 1024, uint16(p+1))
	}
	s.now, s.step = s.frames[0].Time-1, 100e6
	var events []*Event
	cfg := config(rule(refusals), func(e *Event) { events = append(events, e) })
	cfg.Early = time.Second
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	low := cfg.Models[0]
	low.Name, low.SHA256, low.Features, low.Typical = "low", "01", columns[:2], []float32{0, 0}
	low.Scorer = rule(func(row []float32) float32 { return (row[0] + row[1]) / 4 })
	low.Threshold = 0.2
	half := s.frames[30].Time
	s.between = func() {
		if half > 0 && s.now > half {
			half = 0
			if err := Swap([]*Detector{d}, [][]Model{{low, cfg.Models[0]}}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Run(context.Background(), &s); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	last := events[len(events)-1]
	if n := len(slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, e := range events {
			yield(e.Picket.Incident)
		}
	}))); n != 1 || last.Picket.Connections != 60 || last.Picket.Phase != PhaseEnd {
		t.Errorf("%d incidents, %s, %d connections", n, last.Picket.Phase, last.Picket.Connections)
	}
	// Both models count from the swap on; the highest score is from the same rule.
	if len(last.Picket.Models) != 2 || last.Picket.Models[0].Score != .25 || last.Picket.Model.Name != "rule" || len(last.Picket.Why) == 0 {
		t.Errorf("%+v", last.Picket)
	}

	// A column that was not computed so far: all begins anew, nothing is lost.
	more := cfg.Models[0]
	more.Features = []string{"flag=S0", "flag=REJ", "count", "dst_bytes"}
	rows := d.Stats().Judged
	if err := Swap([]*Detector{d}, [][]Model{{more}}, []Suppression{{Reason: "test", Until: time.Unix(4e9, 0), Protocol: "tcp"}}); err != nil {
		t.Fatal(err)
	}
	s.traffic.next, s.between = 0, nil
	for k := range s.frames {
		s.frames[k].Time += 1000e9
	}
	seen := len(events)
	if err := d.Run(context.Background(), &s.traffic); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	d.Finish()
	st := d.Stats()
	if st.Judged-rows != 60 || len(events) != seen || !slices.Equal(st.Suppressed, []uint64{60}) {
		t.Errorf("%d rows, %d events, suppressed %v", st.Judged-rows, len(events)-seen, st.Suppressed)
	}

	bad := low
	bad.Features = []string{"flag=S0", "rev_bytes"}
	if err := Swap([]*Detector{d}, [][]Model{{bad}}, nil); err == nil || d.models[0].Name != "rule" {
		t.Errorf("a model that wants what is not computed: %v, %s", err, d.models[0].Name)
	}
}

// TestCommonTable: two Detectors that see halves of a scan tell of one incident.
func TestCommonTable(t *testing.T) {
	var got []string // the table's lock guards it
	table := NewIncidents()
	var halves [2]*Detector
	for half := range halves {
		cfg := config(rule(refusals), func(e *Event) {
			got = append(got, fmt.Sprint(e.Event.Sequence, " ", e.Picket.Phase, " ", e.Source.IP, " ", e.Picket.Connections))
		})
		cfg.Incidents, cfg.Early = table, time.Second
		var err error
		if halves[half], err = New(cfg); err != nil {
			t.Fatal(err)
		}
	}
	for second := range 300 {
		var wg sync.WaitGroup
		for half, d := range halves {
			wg.Go(func() {
				var s traffic
				for p := range 400 {
					if p%2 == half && second == 0 {
						s.syn(int64(p)*1000, "10.0.0.1", "10.0.0.9", 1024, uint16(p+1))
					}
				}
				if err := d.Run(context.Background(), &s); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				d.Tick(int64(1e18) + int64(second)*1e9)
			})
		}
		wg.Wait()
	}
	// One of them may be a tick behind when the first event is due.
	if n := len(got); n < 2 || n > 3 || got[n-1] != fmt.Sprintf("%d end 10.0.0.1 400", n) || table.total != 1 {
		t.Errorf("%d incidents, events %q", table.total, got)
	}
}

// veil is an Anonymizer by a rule that a test can follow.
type veil struct{}

func (veil) Addr(a capture.Addr) capture.Addr { a[0], a[12] = 0xfd, 99; return a }
func (veil) Sum(data []byte) (sum [32]byte)   { sum[0] = 0xab; return sum }

// TestAnonymizer: no field of an event tells an address, nor what could be guessed from.
func TestAnonymizer(t *testing.T) {
	var s traffic
	s.syn(0, "10.0.0.1", "10.0.0.9", 1024, 22)
	var events []*Event
	plain := config(rule(refusals), func(e *Event) { events = append(events, e) })
	detect(t, plain, &s)
	s.next = 0
	hidden := plain
	hidden.Anonymizer = veil{}
	detect(t, hidden, &s)
	a, b := events[0], events[2]
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "10.0.0.") || b.Source.IP != "fd00::ffff:6300:1" || !strings.Contains(b.Message, b.Source.IP+" acts unusually towards "+b.Destination.IP) || b.Network.Type != "ipv4" {
		t.Errorf("%s", text)
	}
	if a.Network.CommunityID == b.Network.CommunityID || !strings.HasPrefix(b.Picket.Incident, "ab00") {
		t.Errorf("community id %s, incident %s", b.Network.CommunityID, b.Picket.Incident)
	}
}

// TestSwapCommonTable: rows that wait in one Detector are judged by its old models before
// the table knows the new ones, and what all have open ends once.
func TestSwapCommonTable(t *testing.T) {
	cfg := config(rule(refusals), nil)
	two := []Model{cfg.Models[0], cfg.Models[0]}
	two[1].Name = "second"
	more := cfg.Models[0]
	more.Features = []string{"flag=S0", "flag=REJ", "count", "dst_bytes"}
	for _, next := range [][]Model{two[:1], {more}} {
		var got []*Event // the table's lock guards it
		cfg := cfg
		cfg.Models, cfg.Incidents, cfg.Early = two, NewIncidents(), time.Second
		cfg.Emit = func(e *Event) { got = append(got, e) }
		all := make([]*Detector, 2)
		for k := range all {
			var err error
			if all[k], err = New(cfg); err != nil {
				t.Fatal(err)
			}
			var s traffic
			for p := range 40 {
				s.syn(int64(p)*1000, "10.0.0.1", "10.0.0.9", uint16(1024+k), uint16(p+1))
				s.tcp(int64(p)*1000+100, "10.0.0.9", "10.0.0.1", uint16(p+1), uint16(1024+k), capture.RST|capture.ACK)
			}
			if err := all[k].Run(context.Background(), &s); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if err := Swap(all, [][]Model{next, next}, nil); err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			if err := d.Finish(); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(got); n != 2 || got[0].Picket.Phase != PhaseNew || got[1].Picket.Phase != PhaseEnd || got[1].Picket.Connections != 80 {
			t.Errorf("%d events", n)
		}
	}
}
