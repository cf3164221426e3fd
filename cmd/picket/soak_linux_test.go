package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/brokertest"
	"github.com/picket-ids/picket/internal/netnstest"
	"github.com/picket-ids/picket/runtime/detect"
)

// traffic is what the measurements below replay: the bundled captures, attacks and all.
func traffic(t *testing.T) (files []string) {
	for _, name := range []string{"benign", "scan", "flood", "brute", "udp-scan", "sip-flood"} {
		file := t.TempDir() + "/" + name + ".pcap"
		if err := os.WriteFile(file, unpacked(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// spent is what a process has used: CPU time and memory, now and at most.
type spent struct {
	at             time.Time
	cpu            time.Duration
	resident, peak int // KiB
}

func (p *process) usage() (u spent) {
	p.t.Helper()
	u.at = time.Now()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	for _, f := range fields[11:13] { // utime, stime in 1/100 s
		n, _ := strconv.Atoi(f)
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d", &u.resident)
		fmt.Sscanf(line, "VmHWM: %d", &u.peak)
	}
	return u
}

func (u spent) since(before spent) string {
	return fmt.Sprintf("%.1f %% of a CPU, %.1f MiB resident, %.1f at most", 100*float64(u.cpu-before.cpu)/float64(u.at.Sub(before.at)),
		float64(u.resident)/1024, float64(u.peak)/1024)
}

// gateway is a picket run between a veth and a broker.
type gateway struct {
	*process
	broker *brokertest.Mosquitto
	sub    *brokertest.Subscriber
	health health
	events ledger
	came   map[string]time.Time // new events by source
}

func startGateway(t *testing.T, flags ...string) *gateway {
	wires(t)
	g := &gateway{broker: brokertest.Start(t), events: ledger{ids: map[uint64]string{}}, came: map[string]time.Time{}}
	g.sub = g.broker.Subscribe(t, "picket/gw/+")
	g.process = daemonProcess(t, append([]string{"-i", "vb", "--promiscuous", "--gateway", "gw", "--mqtt", "mqtt://" + g.broker.Addr,
		"--state-dir", t.TempDir(), "--health-every", "1s"}, flags...)...)
	return g
}

// watch takes messages until ok, for as long as said.
func (g *gateway) watch(during time.Duration, ok func() bool) bool {
	deadline := time.After(during)
	for !ok() {
		select {
		case m := <-g.sub.Payloads:
			_, payload, _ := strings.Cut(m, "{")
			switch {
			case strings.Contains(m, "picket/gw/health"):
				g.health = health{}
				if err := json.Unmarshal([]byte("{"+payload), &g.health); err != nil {
					g.t.Fatal(err)
				}
			case strings.Contains(m, "picket/gw/event"):
				if e := g.events.take(g.t, m); e.Picket.Phase == detect.PhaseNew {
					g.came[e.Source.IP] = time.Now()
				}
			}
		case <-deadline:
			return false
		}
	}
	return true
}

// load replays captures at a rate (0: as fast as it goes) until stopped.
func load(t *testing.T, pps int, files []string) (stop func()) {
	rate := "--topspeed"
	if pps > 0 {
		rate = fmt.Sprintf("--pps=%d", pps)
	}
	cmd := exec.Command("tcpreplay", slices.Concat([]string{"-q", "-i", "va", "--preload-pcap", rate, "--loop=0"}, files)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	t.Cleanup(stop)
	return stop
}

func never() bool { return false }

// TestMeasureRun measures run on an interface (PICKET_MEASURE=1): use of CPU and memory by
// rate, how many packets a second it sees without a loss, and how long an event takes.
func TestMeasureRun(t *testing.T) {
	if os.Getenv("PICKET_MEASURE") != "1" {
		t.Skip("a measurement; PICKET_MEASURE=1 runs it")
	}
	files := traffic(t)
	g := startGateway(t)
	g.watch(3*time.Second, never)
	for _, pps := range []int{-1, 1000, 20000} {
		stop := func() {}
		if pps > 0 {
			stop = load(t, pps, files)
			g.watch(3*time.Second, never)
		}
		before := g.usage()
		g.watch(15*time.Second, never)
		t.Logf("%6d packets/s: %s; %d dropped", max(pps, 0), g.usage().since(before), g.health.Dropped)
		stop()
	}
	for _, pps := range []int{50_000, 100_000, 150_000, 200_000, 0} {
		g.watch(2*time.Second, never)
		before, seen, dropped := g.usage(), g.health.Packets, g.health.Dropped
		stop := load(t, pps, files)
		g.watch(8*time.Second, never)
		stop()
		after := g.usage()
		g.watch(2500*time.Millisecond, never)
		n, lost := g.health.Packets-seen, g.health.Dropped-dropped
		t.Logf("asked for %6d packets/s: %.0f a second seen, %d dropped (%.3f %%), %s", pps, float64(n)/8, lost, 100*float64(lost)/float64(n+lost), after.since(before))
	}
	if code := g.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestMeasureLatency measures the time from the last packet of an attack to its event at a
// subscriber (PICKET_MEASURE=1).
func TestMeasureLatency(t *testing.T) {
	if os.Getenv("PICKET_MEASURE") != "1" {
		t.Skip("a measurement; PICKET_MEASURE=1 runs it")
	}
	g := startGateway(t)
	var late []time.Duration
	for n := range 60 {
		file := attackersFrom(t, n+1, 1, 30)
		netnstest.Run(t, "tcpreplay", "-q", "--topspeed", "-i", "va", file)
		last := time.Now()
		source := fmt.Sprintf("10.1.0.%d", n+1)
		if !g.watch(10*time.Second, func() bool { return !g.came[source].IsZero() }) {
			t.Fatalf("no event of %s", source)
		}
		late = append(late, g.came[source].Sub(last))
	}
	slices.Sort(late)
	t.Logf("last packet to event at a subscriber, %d attacks: p50 %v, p99 %v, most %v", len(late), late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
	if code := g.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSoak runs for PICKET_SOAK, such as 60m, at 20,000 packets a second: memory must stay
// flat after the first tenth, and no event may be missing.
func TestSoak(t *testing.T) {
	during, err := time.ParseDuration(os.Getenv("PICKET_SOAK"))
	if err != nil {
		t.Skip("PICKET_SOAK=60m runs it, for as long as said")
	}
	g := startGateway(t)
	began := g.usage()
	stop := load(t, 20_000, traffic(t))
	var base spent
	const parts = 20
	for part := range parts {
		g.watch(during/parts, never)
		now := g.usage()
		t.Logf("%v: %s, %d packets, %d dropped, %d events, queue %d", now.at.Sub(began.at).Round(time.Second), now.since(began),
			g.health.Packets, g.health.Dropped, g.events.most, g.health.Queue.Pending)
		if part == parts/10-1 {
			base = now
		}
	}
	stop()
	end := g.usage()
	if most := base.resident + base.resident/10; end.resident > most {
		t.Errorf("memory grew from %d to %d KiB", base.resident, end.resident)
	}
	if code := g.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !g.watch(brokertest.Patience, func() bool { return g.events.most > 0 && len(g.events.missing()) == 0 }) {
		t.Errorf("%d events, missing %v", g.events.most, g.events.missing())
	}
}
