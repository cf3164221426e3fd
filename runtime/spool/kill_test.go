package spool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	envChild = "PICKET_SPOOL_CHILD" // directory and policy of the child that gets killed
	envKills = "PICKET_KILL_CYCLES"

	killBytes = 1 << 30 // never full
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// killPayload is what the child appends as entry seq.
func killPayload(seq uint64) []byte {
	r := rand.New(rand.NewPCG(seq, 7))
	p := make([]byte, r.IntN(3000))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// child appends, reads and acknowledges until it is killed. What it prints is in
// the pipe at once: "open <next>", "a <seq>" after an append, "k <seq>" before an
// acknowledgement.
func child(dir string) {
	var c Config
	dir, policy, _ := strings.Cut(dir, "=")
	err := c.Sync.Set(policy)
	var q *Queue
	if err == nil {
		c.MaxBytes = killBytes
		q, err = Open(dir, c)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	q.segmentBytes = 100_000 // so that many begin and end
	fmt.Println("open", q.Stats().Next)
	go func() {
		for {
			e, err := q.Next(context.Background())
			if err == nil && !bytes.Equal(e.Payload, killPayload(e.Seq)) {
				err = fmt.Errorf("entry %d has a wrong payload", e.Seq)
			}
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			if e.Seq%50 != 0 { // these stay until the end
				fmt.Println("k", e.Seq)
				q.Ack(e.Seq)
			}
		}
	}()
	for {
		seq, err := q.Append(func(seq uint64) ([]byte, error) { return killPayload(seq), nil })
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("a", seq)
	}
}

// TestKill kills a child with SIGKILL again and again. $PICKET_KILL_CYCLES says how
// often for both policies together.
func TestKill(t *testing.T) {
	cycles := 100
	if s := os.Getenv(envKills); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		cycles = n
	}
	for _, policy := range []Sync{SyncAlways, SyncEverySecond} {
		t.Run(policy.String(), func(t *testing.T) {
			t.Parallel()
			kill(t, policy, cycles/2)
		})
	}
}

func kill(t *testing.T, policy Sync, cycles int) {
	dir := t.TempDir()
	var (
		next  = uint64(1) // all below was reported as appended
		acked = map[uint64]bool{}
		torn  uint64
		again int
	)
	for cycle := range cycles {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envChild+"="+dir+"="+policy.String())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From the start of the child, so that it dies while it opens, too.
		var opened atomic.Bool
		delay := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		if cycle%2 == 0 {
			delay += 20 * time.Millisecond
		}
		timer := time.AfterFunc(delay, func() { cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			what, rest, _ := strings.Cut(lines.Text(), " ")
			seq, err := strconv.ParseUint(rest, 10, 64)
			switch {
			case what == "error":
				t.Fatalf("cycle %d: %s", cycle, lines.Text())
			case err != nil: // the line in which it was killed
			case what == "open":
				// The append during which it was killed may have come through.
				if opened.Store(true); seq != next && seq != next+1 {
					t.Fatalf("cycle %d: opened with next %d, want %d", cycle, seq, next)
				}
				next = seq
			case what == "a":
				if seq != next {
					t.Fatalf("cycle %d: appended %d after %d", cycle, seq, next-1)
				}
				next++
			case what == "k":
				acked[seq] = true
			}
		}
		cmd.Wait()
		timer.Stop()
		if cycle%10 != 9 && cycle != cycles-1 {
			continue
		}

		q, err := Open(dir, Config{Sync: policy, MaxBytes: killBytes})
		if err != nil {
			t.Fatal(err)
		}
		st := q.Stats()
		if st.Next != next && st.Next != next+1 {
			t.Fatalf("cycle %d: next %d, want %d", cycle, st.Next, next)
		}
		next = st.Next
		torn += st.Torn
		want := uint64(1)
		skip := func(upTo uint64) {
			for ; want < upTo; want++ {
				if !acked[want] {
					t.Fatalf("cycle %d: entry %d is lost: %+v", cycle, want, q.Stats())
				}
			}
		}
		for {
			e, err := q.Next(done)
			if errors.Is(err, context.Canceled) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			skip(e.Seq)
			if e.Seq != want || !bytes.Equal(e.Payload, killPayload(e.Seq)) {
				t.Fatalf("cycle %d: entry %d, want %d", cycle, e.Seq, want)
			}
			if acked[e.Seq] {
				again++
			}
			want++
			q.Ack(e.Seq)
			acked[e.Seq] = true
		}
		skip(next)
		if st := q.Stats(); st.Dropped+st.Corrupt+st.SyncErrors != 0 {
			t.Fatalf("cycle %d: stats %+v", cycle, st)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if next < uint64(cycles) {
		t.Errorf("only %d entries were appended", next-1)
	}
	t.Logf("%d kills, %d entries, none lost, %d came twice, %d torn tails", cycles, next-1, again, torn)
}
