package metrics

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProcess compares with what the kernel says elsewhere.
func TestProcess(t *testing.T) {
	values := func() map[string]float64 {
		all := process()
		var b bytes.Buffer
		if err := Write(&b, all); err != nil {
			t.Fatal(err)
		}
		parse(t, b.String())
		v := map[string]float64{}
		for _, m := range all {
			v[m.Name] = m.Value
		}
		return v
	}
	cpu := func() float64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
	}
	const ticks = 3.0 / clockTicks // two roundings, and what is not accounted yet
	for end := cpu() + 0.1; cpu() < end; {
	}
	before := cpu()
	v := values()
	after := cpu()
	if got := v["process_cpu_seconds_total"]; got < before-ticks || got > after+ticks {
		t.Errorf("%v s on processors, want %v to %v", got, before, after)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		for key, name := range map[string]string{"VmRSS": "process_resident_memory_bytes", "VmSize": "process_virtual_memory_bytes"} {
			var kib float64
			if n, _ := fmt.Sscanf(line, key+": %f kB", &kib); n == 1 && (v[name] < kib*1024/2 || v[name] > kib*1024*2) {
				t.Errorf("%s %v, want about %v", name, v[name], kib*1024)
			}
		}
	}
	if r := Resident(); r < 1<<20 {
		t.Errorf("%d octets of memory", r)
	}
	self, err := os.Stat("/proc/self") // made when the process was
	if err != nil {
		t.Fatal(err)
	}
	if got := v["process_start_time_seconds"]; got > float64(time.Now().Unix()+1) || got < float64(self.ModTime().Add(-time.Hour).Unix()) {
		t.Errorf("start %v, now %v", got, time.Now().Unix())
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got := v["process_max_fds"]; got != float64(limit.Cur) {
		t.Errorf("%v files allowed, want %d", got, limit.Cur)
	}
	for range 5 {
		f, err := os.Open("/proc/self/stat")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if got := values()["process_open_fds"]; got != v["process_open_fds"]+5 {
		t.Errorf("%v files open, want 5 more than %v", got, v["process_open_fds"])
	}
}
