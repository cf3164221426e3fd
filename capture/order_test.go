package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

// frames is a Source of one-byte frames, each with its number.
type frames struct {
	times []int64 // ns; a negative one is a quiet time
	next  int
	large bool
}

func (s *frames) Next(f *Frame) error {
	if s.next == len(s.times) {
		return io.EOF
	}
	*f = Frame{Data: []byte{byte(s.next)}, Time: s.times[s.next], WireLen: 1}
	if s.large {
		f.Data = make([]byte, largestHeld+1)
	}
	s.next++
	if f.Time < 0 {
		f.Time = -f.Time
		return ErrQuiet
	}
	return nil
}

func (s *frames) Close() error { return nil }

func TestOrder(t *testing.T) {
	const us = 1000
	for _, tc := range []struct {
		name  string
		times []int64
		want  string
	}{
		{"in order", []int64{1 * us, 2 * us, 2 * us, 9000 * us}, "[1 2 2 9000]"},
		{"swapped", []int64{2 * us, 1 * us, 4 * us, 3 * us}, "[1 2 3 4]"},
		{"far apart in number", []int64{1000 * us, 1001 * us, 1002 * us, 1003 * us, 999 * us}, "[999 1000 1001 1002 1003]"},
		{"2 ms back", []int64{2001 * us, 1 * us}, "[1 2001]"},
		{"further back", []int64{2002 * us, 1 * us, 2003 * us}, "[2002 1 2003]"},
		{"a quiet time", []int64{2 * us, -5 * us, 1 * us}, "[2 -5 1]"},
	} {
		var got []int64
		var d Decoder
		err := Read(context.Background(), &frames{times: tc.times}, &d, func(f *Frame, _ *Packet, _ Outcome) error {
			if n := slices.Index(tc.times, f.Time); int(f.Data[0]) < n {
				t.Errorf("%s: frame %d has the data of %d", tc.name, n, f.Data[0])
			}
			got = append(got, f.Time/us)
			return nil
		}, func(now int64) error {
			got = append(got, -now/us)
			return nil
		})
		if err != io.EOF || fmt.Sprint(got) != tc.want {
			t.Errorf("%s: %v, %v, want %s", tc.name, got, err, tc.want)
		}
	}
	// Many frames at a time, and large ones, do not wait.
	times := make([]int64, 10*maxHeld)
	for i := range times {
		times[i] = int64(i)
	}
	for _, large := range []bool{false, true} {
		var d Decoder
		src, n := &frames{times: times, large: large}, 0
		err := Read(context.Background(), src, &d, func(*Frame, *Packet, Outcome) error {
			if n++; src.next-n > maxHeld || large && src.next != n {
				t.Fatalf("%d frames wait", src.next-n)
			}
			return nil
		}, nil)
		if err != io.EOF || n != len(times) {
			t.Errorf("%d frames, %v", n, err)
		}
	}
	// An interrupt and an error of take end it; what was read before an interrupt is taken.
	ctx, cancel := context.WithCancel(context.Background())
	src, n := &frames{times: times}, 0
	err := Read(ctx, src, new(Decoder), func(*Frame, *Packet, Outcome) error {
		cancel()
		n++
		return nil
	}, nil)
	if !errors.Is(err, context.Canceled) || n != src.next {
		t.Errorf("%v after %d of %d frames", err, n, src.next)
	}
	broken := errors.New("broken")
	if err := Read(context.Background(), &frames{times: times[:2]}, new(Decoder), func(*Frame, *Packet, Outcome) error { return broken }, nil); err != broken {
		t.Error(err)
	}
}

func TestOrderAllocates(t *testing.T) {
	var o sorter
	f := Frame{Data: make([]byte, 1500)}
	take := func(*Frame) error { return nil }
	add := func() {
		f.Time += 10_000
		o.add(&f, take)
	}
	for range 2 * maxHeld {
		add()
	}
	if n := testing.AllocsPerRun(1000, add); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkOrder(b *testing.B) {
	for _, size := range []int{64, 500, 1500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var o sorter
			f := Frame{Data: make([]byte, size)}
			take := func(*Frame) error { return nil }
			b.ReportAllocs()
			for b.Loop() {
				f.Time += 200_000
				o.add(&f, take)
			}
		})
	}
}
