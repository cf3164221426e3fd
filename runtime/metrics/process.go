package metrics

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
)

// clockTicks is USER_HZ, in which Linux tells times, on all machines that Go knows.
const clockTicks = 100

// stat are fields of /proc/self/stat by their numbers in proc_pid_stat(5), less 3.
// There are none elsewhere than on Linux.
func stat() [][]byte {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil
	}
	// The second field is a name, which may hold anything.
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
}

func field(fields [][]byte, number int) float64 {
	if number-3 >= len(fields) {
		return 0
	}
	n, _ := strconv.ParseFloat(string(fields[number-3]), 64)
	return n
}

// Resident returns how much memory the process has, in octets; 0: not known.
func Resident() uint64 { return resident(stat()) }

func resident(fields [][]byte) uint64 {
	return uint64(field(fields, 24)) * uint64(os.Getpagesize())
}

// process returns the metrics of the process, under the names that
// Prometheus's own library gives them.
func process() []Metric {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	all := []Metric{
		{Name: "go_info", Help: "Version of Go.", Labels: []Label{{"version", runtime.Version()}}, Value: 1},
		{Name: "go_goroutines", Help: "Goroutines.", Value: float64(runtime.NumGoroutine())},
		{Name: "go_memstats_heap_alloc_bytes", Help: "Octets of objects on Go's heap.", Value: float64(samples[0].Value.Uint64())},
		{Name: "go_memstats_sys_bytes", Help: "Octets that Go's runtime has from the system.", Value: float64(samples[1].Value.Uint64())},
		{Name: "go_gc_cycles_total_gc_cycles_total", Help: "Collections of garbage.", Kind: Counter, Value: float64(samples[2].Value.Uint64())},
	}
	fields := stat()
	if fields == nil {
		return all
	}
	all = append(all,
		Metric{Name: "process_cpu_seconds_total", Help: "Time on processors, user's and system's.", Kind: Counter, Value: (field(fields, 14) + field(fields, 15)) / clockTicks},
		Metric{Name: "process_resident_memory_bytes", Help: "Octets of memory.", Value: float64(resident(fields))},
		Metric{Name: "process_virtual_memory_bytes", Help: "Octets of address space.", Value: field(fields, 23)},
	)
	if booted, ok := bootTime(); ok {
		all = append(all, Metric{Name: "process_start_time_seconds", Help: "Start, in seconds since 1970.", Value: booted + field(fields, 22)/clockTicks})
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		all = append(all, Metric{Name: "process_open_fds", Help: "Open files.", Value: float64(len(open) - 1)}) // one is of the directory
	}
	if limits, err := os.ReadFile("/proc/self/limits"); err == nil {
		for line := range strings.Lines(string(limits)) {
			if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
				if n, err := strconv.ParseFloat(strings.Fields(rest + " -")[0], 64); err == nil {
					all = append(all, Metric{Name: "process_max_fds", Help: "Open files that are allowed.", Value: n})
				}
			}
		}
	}
	return all
}

// bootTime is in seconds since 1970.
func bootTime() (float64, bool) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			t, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return t, err == nil
		}
	}
	return 0, false
}
