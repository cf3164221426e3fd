package spool

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var modelRuns = flag.Int("model-runs", 60, "random histories that TestModel tries")

// TestModel runs random histories of appending, reading, acknowledging, closing,
// faults and power cuts, the last also in the middle of an operation, and holds
// the queue to its promises.
func TestModel(t *testing.T) {
	for _, sync := range []Sync{SyncAlways, SyncEverySecond} {
		t.Run(sync.String(), func(t *testing.T) {
			t.Parallel()
			var total tally
			for seed := range uint64(*modelRuns) {
				h := newHistory(t, sync, seed)
				h.run()
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
				total.add(h.tally)
			}
			t.Logf("%+v", total)
			if total.cuts == 0 || total.kills == 0 || total.dropped == 0 || total.failed == 0 || total.torn == 0 || total.back == 0 {
				t.Error("the histories do not reach everything")
			}
		})
	}
}

type tally struct{ appended, failed, dropped, cuts, kills, reopened, torn, again, back, damaged uint64 }

func (a *tally) add(b tally) {
	a.appended += b.appended
	a.failed += b.failed
	a.dropped += b.dropped
	a.cuts += b.cuts
	a.kills += b.kills
	a.reopened += b.reopened
	a.torn += b.torn
	a.again += b.again
	a.back += b.back
	a.damaged += b.damaged
}

// history is the model: all that was ever appended, kept in the simplest way.
type history struct {
	t    *testing.T
	r    *rand.Rand
	sync Sync
	disk *memDisk
	q    *Queue
	now  time.Time
	tally

	next     uint64
	entries  map[uint64][]byte   // appended
	attempts map[uint64][][]byte // payloads of appends that failed
	seen     map[uint64][]byte   // handed out, ever
	acked    map[uint64]bool
	out      []uint64 // handed out by this queue, not acknowledged, ascending
	returned []uint64 // to it, ascending
	high     uint64   // handed out by it, the last

	filled  bool     // the disk was full at some time: an entry may be told as damaged that went for others
	faults  float64  // probability that an operation of the disk fails
	cutIn   int      // operations until the power cut, -1: none
	killed  bool     // else the power was cut
	rescued *memDisk // what that left
}

func newHistory(t *testing.T, sync Sync, seed uint64) *history {
	h := &history{
		t: t, r: rand.New(rand.NewPCG(seed, uint64(sync))), sync: sync,
		now: time.Unix(1e9, 0), next: 1, cutIn: -1,
		entries: map[uint64][]byte{}, attempts: map[uint64][][]byte{}, seen: map[uint64][]byte{}, acked: map[uint64]bool{},
	}
	h.use(newMemDisk())
	return h
}

func (h *history) use(d *memDisk) {
	h.disk = d
	d.fail = func(op string) error {
		if h.rescued != nil {
			return errPower
		}
		if op == "read" {
			return nil
		}
		if h.cutIn >= 0 && op != "reopen" {
			if h.cutIn--; h.cutIn < 0 {
				h.cut()
				return errPower
			}
		}
		if h.r.Float64() < h.faults && op != "reopen" {
			return errFault
		}
		return nil
	}
}

// cut ends the process, and in half the cases the power.
func (h *history) cut() {
	h.killed = h.r.IntN(2) == 0
	if h.killed {
		h.rescued = h.disk
	} else {
		h.rescued = h.disk.crash(h.r)
	}
}

func (h *history) open() {
	q, err := open(h.disk, "mem", Config{Sync: h.sync, MaxBytes: minMaxBytes}, timing{
		now: func() time.Time { return h.now }, interval: time.Hour, retry: time.Minute})
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	q.kept = minMaxBytes / 4
	h.q, h.out, h.returned, h.high = q, nil, nil, 0
	h.torn += q.Stats().Torn
}

func (h *history) run() {
	h.open()
	for range 8 + h.r.IntN(8) {
		h.faults = 0
		if h.r.IntN(3) == 0 {
			h.faults = []float64{0.02, 0.3, 1}[h.r.IntN(3)]
		}
		if h.r.IntN(2) == 0 {
			h.cutIn = h.r.IntN(200)
		}
		if h.disk.full = 0; h.r.IntN(4) == 0 {
			h.disk.full = h.disk.size() + h.r.Int64N(minMaxBytes/2)
			h.filled = true
		}
		big := h.r.IntN(4) == 0
		for range h.r.IntN(150) {
			h.step(big)
			if h.rescued != nil || h.t.Failed() {
				break
			}
		}
		h.reopen()
		if h.t.Failed() {
			break
		}
	}
	h.q.Close()
}

func (h *history) step(big bool) {
	h.now = h.now.Add(time.Duration(h.r.Int64N(int64(30 * time.Minute))))
	switch n := h.r.IntN(20); {
	case n < 9:
		h.append(big)
	case n < 14:
		h.take(1 + h.r.IntN(5))
	case n < 18:
		for range h.r.IntN(6) {
			if len(h.out) == 0 {
				return
			}
			i := 0
			if h.r.IntN(3) == 0 {
				i = h.r.IntN(len(h.out))
			}
			h.ack(h.out[i])
			h.out = append(h.out[:i:i], h.out[i+1:]...)
		}
	case n < 19:
		h.q.tick()
	case h.r.IntN(2) == 0:
		for range h.r.IntN(4) {
			if len(h.out) == 0 {
				return
			}
			i := h.r.IntN(len(h.out))
			seq := h.out[i]
			h.q.Return(seq)
			h.out = slices.Delete(h.out, i, i+1)
			i, _ = slices.BinarySearch(h.returned, seq)
			h.returned = slices.Insert(h.returned, i, seq)
		}
	default:
		h.ack(1 + h.r.Uint64N(h.next)) // not handed out, or twice
	}
}

func (h *history) append(big bool) {
	size := h.r.IntN(600)
	if big {
		size = h.r.IntN(30_000)
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(h.r.Uint32())
	}
	var given uint64
	seq, err := h.q.Append(func(seq uint64) ([]byte, error) {
		given = seq
		return payload, nil
	})
	if given != h.next {
		h.t.Errorf("append was given %d, want %d", given, h.next)
	}
	if err != nil {
		if h.faults == 0 && h.disk.full == 0 && h.rescued == nil && h.q.retry.at.Before(h.now) {
			h.t.Errorf("append: %v", err)
		}
		h.failed++
		h.attempts[given] = append(h.attempts[given], payload)
		return
	}
	if seq != given {
		h.t.Errorf("append returned %d, gave %d", seq, given)
	}
	h.appended++
	h.entries[seq] = payload
	h.next++
	if size := h.disk.size(); h.faults == 0 && size > minMaxBytes && h.q.Stats().SyncErrors == 0 {
		h.t.Errorf("queue of %d bytes", size)
	}
}

func (h *history) ack(seq uint64) {
	// Only what this queue has handed out counts.
	st := h.q.Stats()
	h.q.mu.Lock()
	valid := seq >= st.Oldest && seq < h.q.taken
	h.q.mu.Unlock()
	if valid {
		h.acked[seq] = true
	}
	h.q.Ack(seq)
}

// done has ended: with it Next returns what is there.
var done = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// take reads what is there, at most n entries.
func (h *history) take(n int) {
	for range n {
		e, err := h.q.Next(done)
		if errors.Is(err, context.Canceled) {
			return
		}
		if err != nil {
			if h.rescued == nil {
				h.t.Errorf("next: %v", err)
			}
			return
		}
		// What was returned comes first, unless it is done with by now.
		h.q.mu.Lock()
		for len(h.returned) > 0 && h.returned[0] != e.Seq && (h.returned[0] < h.q.state.cursor || h.q.state.done.contains(h.returned[0])) {
			h.returned = h.returned[1:]
		}
		h.q.mu.Unlock()
		at, twice := slices.BinarySearch(h.out, e.Seq)
		switch {
		case twice:
			h.t.Errorf("entry %d came twice", e.Seq)
		case len(h.returned) > 0:
			if e.Seq != h.returned[0] {
				h.t.Errorf("entry %d came before %v, which were returned", e.Seq, h.returned)
			}
			h.returned = h.returned[1:]
			h.back++
		case e.Seq <= h.high:
			h.t.Errorf("entry %d came after %d", e.Seq, h.high)
		}
		h.high = max(h.high, e.Seq)
		if old, ok := h.seen[e.Seq]; ok {
			h.again++
			if !bytes.Equal(old, e.Payload) {
				h.t.Errorf("entry %d came again with another payload", e.Seq)
			}
		}
		if want, ok := h.entries[e.Seq]; !ok || !bytes.Equal(want, e.Payload) {
			h.t.Errorf("entry %d (appended: %v) has a wrong payload of %d bytes", e.Seq, ok, len(e.Payload))
		}
		h.seen[e.Seq] = e.Payload
		h.out = slices.Insert(h.out, at, e.Seq)
		h.count()
	}
}

// count checks how many entries the queue says are with the reader.
func (h *history) count() {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	n := uint64(0)
	for _, seq := range h.out {
		if seq >= h.q.state.cursor && !h.q.state.done.contains(seq) {
			n++
		}
	}
	if got := h.q.inFlight(); got != n {
		h.t.Errorf("%d in flight, want %d", got, n)
	}
}

// reopen closes the queue or lets the power fail, and checks what is there.
func (h *history) reopen() {
	clean := h.rescued == nil && h.r.IntN(2) == 0
	if h.rescued == nil {
		h.cutIn = -1
	}
	var before Stats
	if clean {
		h.faults, h.disk.full = 0, 0
		if err := h.q.Close(); err != nil {
			h.t.Errorf("close: %v", err)
		}
		before = h.q.Stats()
	} else {
		before = h.q.Stats()
		if h.rescued == nil {
			h.cut()
		}
		if h.killed {
			h.kills++
		} else {
			h.cuts++
		}
	}
	durable := h.q.durable
	if h.sync == SyncAlways && durable != h.next {
		h.t.Errorf("appended up to %d, durable to %d", h.next, durable)
	}
	if !clean {
		h.q.Close() // with the power out
		h.use(h.rescued)
	}
	h.rescued, h.faults, h.cutIn, h.disk.full = nil, 0, -1, 0
	h.open()
	h.reopened++

	// What comes out is what was durable, and of the rest a beginning.
	after := h.q.Stats()
	if clean && after.Next != before.Next {
		h.t.Errorf("closed with next %d, opened with %d", before.Next, after.Next)
	}
	if !clean && h.killed && after.Next < h.next {
		h.t.Errorf("opened with next %d after a kill; %d were appended", after.Next-1, h.next-1)
	}
	if after.Next < durable || after.Next > h.next+1 {
		h.t.Errorf("opened with next %d; %d were durable, %d appended", after.Next-1, durable-1, h.next-1)
	}
	if after.Corrupt != 0 && !h.filled {
		h.t.Errorf("%d entries were found damaged: %v", after.Corrupt, after.Gaps)
	}
	if after.Dropped < before.Dropped && clean {
		h.t.Errorf("dropped: %d before, %d after", before.Dropped, after.Dropped)
	}
	resurrected := map[uint64]bool{}
	for seq := durable; seq < after.Next; seq++ {
		resurrected[seq] = true
	}
	for seq := after.Next; seq < h.next; seq++ {
		delete(h.entries, seq)
	}
	h.next = after.Next
	missing := map[uint64]bool{}
	for seq := range h.entries {
		missing[seq] = !h.acked[seq]
	}
	last := uint64(0)
	var got []Entry
	for {
		e, err := h.q.Next(done)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				h.t.Errorf("next: %v", err)
			}
			break
		}
		got = append(got, e)
		if e.Seq <= last {
			h.t.Errorf("entry %d after %d", e.Seq, last)
		}
		last = e.Seq
		if clean && h.acked[e.Seq] {
			h.t.Errorf("entry %d was acknowledged before a clean close", e.Seq)
		}
		if want, ok := h.entries[e.Seq]; resurrected[e.Seq] && !(ok && bytes.Equal(want, e.Payload)) {
			found := false
			for _, p := range h.attempts[e.Seq] {
				found = found || bytes.Equal(p, e.Payload)
			}
			if !found {
				h.t.Errorf("entry %d, not durable, is none that was appended", e.Seq)
			}
			h.entries[e.Seq] = e.Payload
		} else if !ok || !bytes.Equal(want, e.Payload) {
			h.t.Errorf("entry %d (appended: %v) has a wrong payload", e.Seq, ok)
		}
		if old, ok := h.seen[e.Seq]; ok && !bytes.Equal(old, e.Payload) {
			h.t.Errorf("entry %d came again with another payload", e.Seq)
		}
		h.seen[e.Seq] = e.Payload
		delete(missing, e.Seq)
		delete(h.acked, e.Seq) // the queue has forgotten, and must not remember later
		h.out, h.high = append(h.out, e.Seq), e.Seq
	}
	st := h.q.Stats()
	if st.InFlight != uint64(len(got)) || st.Pending != uint64(len(got)) {
		h.t.Errorf("%d entries came out; stats: %+v", len(got), st)
	}
	if st.Corrupt != 0 && !h.filled {
		h.t.Errorf("%d entries were found damaged: %v", st.Corrupt, st.Gaps)
	}
	lost := uint64(0)
	for seq, m := range missing {
		if !m {
			continue
		}
		lost++
		explained := len(st.Gaps) == maxGaps && seq < st.Gaps[0].First
		for _, g := range st.Gaps {
			explained = explained || g.First <= seq && seq <= g.Last
		}
		if !explained {
			h.t.Errorf("entry %d is lost, not acknowledged, not in %v", seq, st.Gaps)
		}
	}
	if st.Dropped+st.Corrupt < lost {
		h.t.Errorf("%d entries are gone, %d counted", lost, st.Dropped+st.Corrupt)
	}
	h.damaged = max(h.damaged, st.Corrupt)
	h.dropped = max(h.dropped, st.Dropped)
	for seq := range h.attempts {
		if seq < h.next {
			delete(h.attempts, seq)
		}
	}
	if h.t.Failed() {
		h.t.Logf("clean %v, durable %d, before %+v, after %+v", clean, durable, before, st)
	}
}
