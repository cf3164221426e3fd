package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picket-ids/picket/runtime/detect"
)

// TestClock: events say that the clock was not set as long as that is known, never again after it was.
func TestClock(t *testing.T) {
	const none, no, yes = 0, 1, 2 // what the kernel says, if anything
	sane, old := programDate.Add(time.Hour), time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC)
	type step struct {
		now  time.Time
		says int
		want string
	}
	for _, tc := range []struct {
		name  string
		kept  bool
		steps []step
	}{
		{"a board without a clock, then NTP, then NTP lost", false, []step{{old, no, detect.Unsynchronised}, {sane, yes, ""}, {sane, no, ""}, {old, no, ""}}},
		{"the time of the last shutdown", false, []step{{sane, no, detect.Unsynchronised}, {sane, no, detect.Unsynchronised}, {sane, yes, ""}}},
		{"a board with a clock and without NTP", true, []step{{sane, no, ""}, {sane, no, ""}}},
		{"its battery is empty", true, []step{{old, no, detect.Unsynchronised}, {sane, no, ""}}},
		{"nobody says, and the time is possible", false, []step{{sane, none, ""}, {sane, none, ""}}},
		{"nobody says, and the time is impossible", false, []step{{old, none, detect.Unsynchronised}, {sane, none, ""}}},
	} {
		at := tc.steps[0]
		c := &clock{kept: tc.kept, now: func() time.Time { return at.now },
			synchronised: func() (bool, bool) { return at.says == yes, at.says != none }}
		d := &daemon{clock: c, events: make(chan *detect.Event, 1)}
		for i, s := range tc.steps {
			at = s
			d.emit(&detect.Event{})
			b, err := json.Marshal(<-d.events)
			if err != nil {
				t.Fatal(err)
			}
			want := `"clock":"` + s.want + `"`
			if s.want == "" {
				want = `"clock"`
			}
			if strings.Contains(string(b), want) == (s.want == "") {
				t.Errorf("%s, step %d: want %q: %s", tc.name, i, s.want, b)
			}
		}
	}
}

func TestKeepsTime(t *testing.T) {
	for name, tc := range map[string]struct {
		rtc, arch string
		want      bool
	}{
		"no clock":              {"", "arm64", false},
		"a clock":               {"1800000000\n", "arm64", true},
		"one without a battery": {"946684800\n", "arm", false}, // 2000-01-01
		"one that is broken":    {"?", "riscv64", false},
		"a PC":                  {"", "amd64", true},
	} {
		dir := t.TempDir()
		if tc.rtc != "" {
			if err := os.Mkdir(filepath.Join(dir, "rtc0"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "rtc0", "since_epoch"), []byte(tc.rtc), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := keepsTime(dir, tc.arch); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
