package capture

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/datatest"
)

// wire makes the frames of a test in the order of time.
type wire struct {
	now    int64 // ns
	gap    int64 // ns between packets; 0: 1 ms
	frames []Frame
	id     int // of IPv4 headers
}

func (w *wire) wait(d time.Duration) { w.now += int64(d) }

// put adds a frame, and its copies d later each, as how makes them.
func (w *wire) put(b []byte, copies ...func([]byte) Frame) {
	w.frames = append(w.frames, Frame{Data: b, Time: w.now, WireLen: len(b), Link: LinkEthernet})
	for i, how := range copies {
		f := how(b)
		f.Time, f.WireLen, f.Link = w.now+int64(i+1)*8000, len(f.Data), LinkEthernet
		w.frames = append(w.frames, f)
	}
	w.now += cmp.Or(w.gap, 1e6)
}

// alike is the copy that a mirror of both ports makes.
func alike(b []byte) Frame { return Frame{Data: b} }

// routed is the copy behind a router: TTL one lower, other hardware addresses.
func routed(b []byte) Frame {
	b = at(b, 0, 2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 0x98)
	b[14+8]--
	sum := binary.BigEndian.Uint16(b[14+10:])
	binary.BigEndian.PutUint16(b[14+10:], sum+0x100)
	return Frame{Data: b}
}

// elsewhere is the copy that another interface of a router sees.
func elsewhere(b []byte) Frame {
	f := routed(b)
	f.Interface = 1
	return f
}

// packet is an IPv4 packet between two of a few hosts, each with an identifier of its own.
func (w *wire) packet(src, dst byte, proto uint8, payload ...[]byte) []byte {
	w.id++
	return etherFrame(0x0800, ip4Packet(proto, func(h []byte) {
		binary.BigEndian.PutUint16(h[4:], uint16(w.id))
		h[15], h[19] = src, dst
	}, payload...))
}

// ordinary adds n packets of five hosts.
func (w *wire) ordinary(n int, copies ...func([]byte) Frame) {
	for i := range n {
		w.put(w.packet(byte(1+i%5), 100, ProtoUDP, udpDatagram("query")), copies...)
	}
}

// frames is a Source of them.
type frameSource struct{ frames []Frame }

func (s *frameSource) Next(f *Frame) error {
	if len(s.frames) == 0 {
		return io.EOF
	}
	*f, s.frames = s.frames[0], s.frames[1:]
	return nil
}

func (s *frameSource) Close() error { return nil }

// readMirror returns how many packets were taken of the ones that matter, those whose time
// is from from on, and what is known of the interfaces.
func readMirror(t testing.TB, src Source, from int64) (taken int, all []Mirror) {
	t.Helper()
	var d Decoder
	err := Read(context.Background(), src, &d, func(f *Frame, p *Packet, o Outcome) error {
		if f.Time >= from && (o.HasPacket() || p.ARP != nil) {
			taken++
		}
		return nil
	}, nil)
	if err != io.EOF {
		t.Error(err)
	}
	all = d.Mirrors.Stats()
	copies := uint64(0)
	for _, m := range all {
		copies += m.Copies
	}
	if copies != d.Counts[Copy] {
		t.Errorf("%d copies, outcome %d", copies, d.Counts[Copy])
	}
	return taken, all
}

// TestDuplicates checks which copies are left out. Each case has a beginning that proves
// something or not, and packets behind it of which so many must be taken.
func TestDuplicates(t *testing.T) {
	same := func(w *wire, n int, every time.Duration, b []byte, copies ...func([]byte) Frame) {
		for range n {
			w.put(b, copies...)
			w.wait(every - time.Millisecond)
		}
	}
	ping := func(w *wire, seq int, copies ...func([]byte) Frame) {
		w.put(w.packet(1, 100, ProtoICMP, x("0800 0000 beef"), be16(seq), []byte("ping")), copies...)
		w.put(w.packet(100, 1, ProtoICMP, x("0000 0000 beef"), be16(seq), []byte("ping")), copies...)
	}
	arp := etherFrame(0x0806, x("0001 0800 06 04 0001 020000000002 0a000001 000000000000 0a000002"))
	datagram := (&wire{}).packet(7, 100, ProtoUDP, udpDatagram("flood"))
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		name        string
		before      func(*wire)
		then        func(*wire)
		taken       int
		duplicating bool
	}{
		{"ordinary traffic, a flood of 300 identical datagrams", func(w *wire) { w.ordinary(200) },
			func(w *wire) { same(w, 300, 100*us, datagram) }, 300, false},
		{"ordinary traffic, identical datagrams each 3 ms", func(w *wire) { w.ordinary(200) },
			func(w *wire) { same(w, 300, 3*ms, datagram) }, 300, false},
		{"nothing but a flood of identical datagrams", func(*wire) {},
			func(w *wire) { same(w, 300, 100*us, datagram) }, 300, false},
		{"nothing but a flood that sends each datagram twice", func(*wire) {},
			func(w *wire) {
				for range 150 {
					same(w, 2, 100*us, w.packet(7, 100, ProtoUDP, udpDatagram("flood")))
				}
			}, 300, false},
		{"ordinary traffic, pings and duplicate acknowledgements", func(w *wire) { w.ordinary(200) },
			func(w *wire) {
				for i := range 20 {
					ping(w, i)
					same(w, 4, 100*us, w.packet(7, 100, ProtoTCP, tcpSegment(ACK, "")))
				}
			}, 20*2 + 20*4, false},
		{"multicast twice, as access points repeat it", func(w *wire) { w.ordinary(50) },
			func(w *wire) {
				for i := range 100 {
					b := w.packet(byte(1+i%5), 251, ProtoUDP, udpDatagram("mdns"))
					copy(b[14+16:], []byte{224, 0, 0})
					w.put(b, alike)
				}
			}, 200, false},
		{"every packet twice", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) { w.ordinary(100, alike) }, 100, true},
		{"each datagram again after 8 ms", func(w *wire) {
			for i := range 100 {
				same(w, 2, 8*ms, w.packet(byte(1+i%5), 100, ProtoUDP, udpDatagram("query")))
			}
		}, func(w *wire) { same(w, 300, 100*us, datagram) }, 300, false},
		{"every packet twice, 100,000 a second", func(w *wire) { w.gap = 1e4; w.ordinary(5000, alike); w.gap = 0 },
			func(w *wire) { w.ordinary(100, alike) }, 100, true},
		{"every packet twice, after a second of 100,000 ordinary ones", func(w *wire) { w.gap = 1e4; w.ordinary(1e5); w.ordinary(5000, alike); w.gap = 0 },
			func(w *wire) { w.ordinary(100, alike) }, 100, true},
		{"100,000 ordinary packets a second", func(w *wire) { w.gap = 1e4; w.ordinary(1e5); w.gap = 0 },
			func(w *wire) { same(w, 300, 100*us, datagram) }, 300, false},
		{"every packet three times", func(w *wire) { w.ordinary(50, alike, alike) },
			func(w *wire) { w.ordinary(100, alike, alike) }, 300, false},
		{"every packet twice, ARP", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) { w.put(arp, alike) }, 1, true},
		{"every packet twice, a flood of 300 identical datagrams", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) { same(w, 300, 100*us, datagram, alike) }, 300, true},
		{"every packet twice, a flood as bursts ahead of its copies", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) { same(w, 600, 1*us, datagram) }, 300, true},
		{"every packet twice, pings and duplicate acknowledgements", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) {
				for i := range 20 {
					ping(w, i, alike)
					same(w, 4, 100*us, w.packet(7, 100, ProtoTCP, tcpSegment(ACK, "")), alike)
				}
			}, 20*2 + 20*4, true},
		{"every packet twice, a copy that comes after 6 ms is none", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) { same(w, 10, 6*ms, datagram) }, 10, true},
		{"copies behind a router", func(w *wire) { w.ordinary(50, routed) },
			func(w *wire) { w.ordinary(100, routed) }, 100, true},
		{"copies behind a router, a flood at this side of it", func(w *wire) { w.ordinary(50, routed) },
			func(w *wire) { same(w, 300, 100*us, datagram) }, 300, true},
		{"copies behind a router, a flood through it", func(w *wire) { w.ordinary(50, routed) },
			func(w *wire) { same(w, 300, 100*us, datagram, routed) }, 300, true},
		{"copies on the router's other interface", func(w *wire) { w.ordinary(50, elsewhere) },
			func(w *wire) { w.ordinary(100, elsewhere) }, 100, true},
		{"a traceroute", func(w *wire) { w.ordinary(50, alike) },
			func(w *wire) {
				b := w.packet(7, 100, ProtoUDP, udpDatagram("trace"))
				for ttl := range byte(20) {
					w.put(at(b, 14+8, ttl+1))
				}
			}, 20, true},
		{"the mirror stops to duplicate", func(w *wire) { w.ordinary(50, alike); w.ordinary(200) },
			func(w *wire) { same(w, 300, 100*us, datagram) }, 300, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wire{now: 1e18}
			c.before(&w)
			w.wait(time.Second)
			from := w.now
			c.then(&w)
			taken, all := readMirror(t, &frameSource{w.frames}, from)
			_, again := readMirror(t, &frameSource{w.frames}, from)
			duplicating := slices.ContainsFunc(all, func(m Mirror) bool { return m.Duplicating })
			if taken != c.taken || duplicating != c.duplicating {
				t.Errorf("%d packets taken, want %d; duplicating %v, want %v: %+v", taken, c.taken, duplicating, c.duplicating, all)
			}
			if !reflect.DeepEqual(all, again) {
				t.Errorf("%+v, then %+v", all, again)
			}
		})
	}
}

// TestMirrorProof says what a proof takes: the first packets of a mirror that
// duplicates are taken twice, those behind them once.
func TestMirrorProof(t *testing.T) {
	w := wire{now: 1e18}
	w.ordinary(100, alike)
	taken, all := readMirror(t, &frameSource{w.frames}, 0)
	// 16 packets prove it, 10 ms after the last of them; each pair of addresses brings 4
	// at most, of which there are five.
	if before := taken - 100; before < proofBlock || before > proofBlock+12 {
		t.Errorf("%d copies were taken: %+v", before, all)
	}
}

// TestMirrorBounds checks that no packet allocates, and that interfaces are bounded.
func TestMirrorBounds(t *testing.T) {
	w := wire{now: 1e18}
	w.ordinary(500, alike)
	for i := range w.frames {
		w.frames[i].Interface = i % 1000
	}
	var d Decoder
	var p Packet
	pass := func() {
		for i := range w.frames {
			d.Mirrors.see(&w.frames[i], &p, d.Decode(&w.frames[i], &p))
		}
	}
	pass()
	if n := testing.AllocsPerRun(5, pass); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := len(d.Mirrors.Stats()); n != maxMirrors {
		t.Errorf("%d interfaces", n)
	}
	for range 3 * maxMirrors {
		d.Mirrors.begin()
		pass()
	}
}

// TestMirrorSources checks that a source is judged without the ones before it, of which
// the verdicts stay.
func TestMirrorSources(t *testing.T) {
	var d Decoder
	w := wire{now: 1e18}
	w.ordinary(50, alike)
	for _, frames := range [][]Frame{nil, w.frames, nil, w.frames[:1], w.frames[:1]} {
		if err := Read(context.Background(), &frameSource{frames}, &d, func(*Frame, *Packet, Outcome) error { return nil }, nil); err != io.EOF {
			t.Error(err)
		}
	}
	all := d.Mirrors.Stats()
	if len(all) != 2 || !all[0].Duplicating || all[1].Duplicating || all[0].Source == all[1].Source {
		t.Errorf("%+v", all)
	}
}

// only passes those frames of a capture that a test wants.
type only struct {
	*File
	d    Decoder
	p    Packet
	want func(*Packet, Outcome) bool
}

func (s *only) Next(f *Frame) error {
	for {
		if err := s.File.Next(f); err != nil {
			return err
		}
		if o := s.d.Decode(f, &s.p); s.want(&s.p, o) {
			return nil
		}
	}
}

// end is one of a TCP connection.
type end struct {
	addr Addr
	port uint16
}

// tcpEnds returns who sent a SYN in a capture, to whom, and how many of these connections
// carried data both ways.
func tcpEnds(t *testing.T, path string) (clients map[[2]end]bool, talks int) {
	clients = map[[2]end]bool{}
	data := map[[2]end]bool{}
	read(t, path, func(_ int, o Outcome, p *Packet) {
		if o != Decoded || p.Proto != ProtoTCP {
			return
		}
		k := [2]end{{p.Src, p.SrcPort}, {p.Dst, p.DstPort}}
		if p.Flags&(SYN|ACK) == SYN {
			clients[k] = true
		}
		if p.PayloadLen > 0 {
			data[k] = true
		}
	})
	for k := range clients {
		if data[k] && data[[2]end{k[1], k[0]}] {
			talks++
		}
	}
	return clients, talks
}

// TestOneWayFloods checks that floods and their echoes, all of them one-way by nature, are
// no evidence of a one-way mirror.
func TestOneWayFloods(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	segment := func(flags uint8, port, seq, ack int) []byte {
		b := tcpSegment(flags, "")
		binary.BigEndian.PutUint16(b, uint16(port))
		binary.BigEndian.PutUint32(b[4:], uint32(seq))
		binary.BigEndian.PutUint32(b[8:], uint32(ack))
		return b
	}
	for _, c := range []struct {
		name string
		next func(i int) []byte
	}{
		{"SYN", func(i int) []byte { return segment(SYN, i, i, 0) }},
		{"SYN again and again", func(i int) []byte { return segment(SYN, i%50, i%50, 0) }},
		{"SYN-ACK again and again, as an echo", func(i int) []byte { return segment(SYN|ACK, i%50, i%50, 1) }},
		{"RST-ACK, as an echo", func(i int) []byte { return segment(RST|ACK, i%50, 0, random.Int()) }},
		{"ACK from ports that change", func(i int) []byte { return segment(ACK, i, random.Int(), random.Int()) }},
		{"ACK from 50 ports, numbers at random", func(i int) []byte { return segment(ACK, i%50, random.Int(), random.Int()) }},
		{"ACK from 50 ports, one number", func(i int) []byte { return segment(ACK|PSH, i%50, 1, 1) }},
		{"SYN, then ACK at random", func(i int) []byte { return segment([]uint8{SYN, ACK}[i/50%2], i%50, 1, random.Int()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wire{now: 1e18}
			for i := range 1000 {
				w.put(w.packet(7, 100, ProtoTCP, c.next(i)))
			}
			_, all := readMirror(t, &frameSource{w.frames}, 0)
			if len(all) != 1 || all[0].OneWay {
				t.Errorf("%+v", all)
			}
		})
	}
}

// oneWayCaptures are those of the data folder that hold one direction only, as one sees
// by reading them.
var oneWayCaptures = []string{"ntop__ocs.pcap"}

// TestOneWay checks on the captures to train with that only those which show one direction
// of their connections are one-way: as they are, with three packets of ten lost, and with
// the answers or the questions alone.
func TestOneWay(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(datatest.Data(t, "captures", "train"), "*", "*.pcap*"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	verdict := func(path string, want func(*Packet, Outcome) bool) (oneWay bool, flows string) {
		f, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, all := readMirror(t, &only{File: f, want: want}, 0)
		for _, m := range all {
			oneWay = oneWay || m.OneWay
			flows += fmt.Sprintf(" %d/%d", m.OneWayFlows, m.WholeFlows)
		}
		return oneWay, flows
	}
	answers, asked, halves := 0, 0, 0
	for _, path := range paths {
		name := filepath.Base(path)
		truly := slices.Contains(oneWayCaptures, name)
		if is, flows := verdict(path, func(*Packet, Outcome) bool { return true }); is != truly {
			t.Errorf("%s: one-way %v:%s", name, is, flows)
		}
		if truly {
			continue
		}
		random := rand.New(rand.NewPCG(1, 1))
		if is, flows := verdict(path, func(*Packet, Outcome) bool { return random.IntN(10) >= 3 }); is {
			t.Errorf("%s, with loss: one-way:%s", name, flows)
		}
		clients, talks := tcpEnds(t, path)
		side := func(client bool) func(p *Packet, o Outcome) bool {
			return func(p *Packet, o Outcome) bool {
				k := [2]end{{p.Src, p.SrcPort}, {p.Dst, p.DstPort}}
				if !client {
					k[0], k[1] = k[1], k[0]
				}
				return o == Decoded && p.Proto == ProtoTCP && clients[k]
			}
		}
		down, downFlows := verdict(path, side(false))
		up, upFlows := verdict(path, side(true))
		switch {
		case talks >= 2*minFlows:
			halves++
			if down {
				answers++
			}
			if up {
				asked++
			}
			if !down || !up {
				t.Logf("%s, %d connections: answers one-way %v:%s, questions %v:%s", name, talks, down, downFlows, up, upFlows)
			}
		case talks == 0 && (down || up): // floods and scans are one-way by nature
			t.Errorf("%s, no connection with data: answers one-way %v:%s, questions %v:%s", name, down, downFlows, up, upFlows)
		}
	}
	t.Logf("%d captures; of %d with %d connections or more, %d are one-way by their answers alone, %d by their questions alone",
		len(paths), halves, 2*minFlows, answers, asked)
	if answers < halves*9/10 || asked < halves*9/10 || halves < 20 {
		t.Error("too few")
	}
}
