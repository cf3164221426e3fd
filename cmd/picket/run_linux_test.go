package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/brokertest"
	"github.com/picket-ids/picket/internal/netnstest"
	"github.com/picket-ids/picket/runtime/detect"
)

// process is a picket that runs.
type process struct {
	*exec.Cmd
	t     testing.TB
	out   bytes.Buffer
	log   lockedBuffer
	ended chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// daemonProcess starts picket run and returns when it watches.
func daemonProcess(t testing.TB, args ...string) *process {
	t.Helper()
	return daemonBehind(t, nil, args...)
}

// daemonBehind has another program start it.
func daemonBehind(t testing.TB, starter []string, args ...string) *process {
	t.Helper()
	line := slices.Concat(starter, []string{os.Args[0], "run", "--log-format", "json"}, args)
	p := &process{Cmd: exec.Command(line[0], line[1:]...), t: t, ended: make(chan struct{})}
	p.Env = append(os.Environ(), asPicket+"=1")
	p.Stdout, p.Stderr = &p.out, &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("picket said:\n%s", p.log.String())
		}
	})
	p.until(`"msg":"watching"`)
	return p
}

// until waits for a text in the log.
func (p *process) until(text string) {
	p.t.Helper()
	for end := time.Now().Add(brokertest.Patience); !strings.Contains(p.log.String(), text); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			p.t.Fatalf("picket ended before it said %s:\n%s", text, p.log.String())
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("picket did not say %s:\n%s", text, p.log.String())
		}
	}
}

// end ends it as systemd does and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(brokertest.Patience):
		p.t.Fatal("picket did not end on SIGTERM")
	}
	return p.ProcessState.ExitCode()
}

func tool(t testing.TB, name, env string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv(env) == "1" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed (apt install %s)", name, name)
	}
}

// wires moves the test to a network of its own: loopback, for a broker, and what is
// replayed into va comes out of vb.
func wires(t testing.TB) {
	t.Helper()
	tool(t, "tcpreplay", "CI_REQUIRE_NETNS")
	netnstest.Enter(t)
	netnstest.Run(t, "ip", "link", "set", "lo", "up")
	netnstest.Veth(t, "va", "vb")
}

// replay sends a bundled capture, or one by path, into an interface.
func replay(t testing.TB, name, iface string, flags ...string) {
	t.Helper()
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, unpacked(t.(*testing.T), name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	netnstest.Run(t, slices.Concat([]string{"tcpreplay", "-q", "-i", iface}, flags, []string{path})...)
}

// TestRunEqualsScan: of the same packets at the same times, run on an interface and scan
// of what tcpdump wrote beside it tell the same, field by field.
func TestRunEqualsScan(t *testing.T) {
	tool(t, "tcpdump", "CI_REQUIRE_TCPDUMP")
	wires(t)
	for _, tc := range []struct {
		name  string
		flags []string
	}{
		{"scan", nil},
		{"flood", []string{"--multiplier=4"}},
		{"brute", []string{"--multiplier=8"}},
		{"gtp-u", []string{"--multiplier=8"}},
	} {
		runBesideDump(t, tc.name, tc.flags)
	}
}

// runBesideDump is no subtest, whose goroutine would be outside of the namespace.
func runBesideDump(t *testing.T, name string, flags []string) {
	file := filepath.Join(t.TempDir(), "seen.pcap")
	dump := exec.Command("tcpdump", "-i", "vb", "-U", "-w", file, "--immediate-mode", "--time-stamp-precision=nano", "-Z", "root", "-B", "65536")
	var said lockedBuffer
	dump.Stderr = &said
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	defer dump.Process.Kill()
	for end := time.Now().Add(brokertest.Patience); !strings.Contains(said.String(), "listening on"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("tcpdump: %s", said.String())
		}
	}
	p := daemonProcess(t, "-i", "vb", "--promiscuous", "--json", "--gateway", "gw", "--ring-mib", "32")
	replay(t, name, "va", flags...)
	for size, still := int64(-1), 0; still < 10; time.Sleep(50 * time.Millisecond) { // both are done
		now, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if still++; now.Size() != size {
			size, still = now.Size(), 0
		}
	}
	if code := p.end(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	dump.Process.Signal(os.Interrupt)
	dump.Wait()
	_, want, stderr := picket(t, nil, "scan", "--json", "--gateway", "gw", file)
	_, events := lastLine(t, want)
	a, b := eventLines(t, p.out.String()), eventLines(t, strings.Join(events, "\n"))
	if len(a) < 2 || len(a) != len(b) {
		t.Fatalf("%s: run tells of %d events, scan of %d: %s\n%s", name, len(a), len(b), stderr, said.String())
	}
	for k := range a {
		if a[k] != b[k] {
			t.Fatalf("%s: event %d\n%s\nscan\n%s", name, k, a[k], b[k])
		}
	}
}

// eventLines returns events as text, without the time that the daemon's own end brings
// forward.
func eventLines(t *testing.T, lines string) (all []string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var e detect.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		e.Timestamp = time.Time{}
		e.Picket.Clock = "" // of a test machine without NTP
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return all
}

// attackers writes a capture of n sources that each probe ports of a host, refused.
func attackers(t testing.TB, n, ports int) string { return attackersFrom(t, 1, n, ports) }

// attackersFrom numbers them from first.
func attackersFrom(t testing.TB, first, n, ports int) string {
	t.Helper()
	var b bytes.Buffer
	word := func(v uint32) { b.Write([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}) }
	for _, v := range []uint32{0xa1b2c3d4, 4<<16 | 2, 0, 0, 65535, 1} {
		word(v)
	}
	us := uint32(0)
	frame := func(from, to [4]byte, sport, dport uint16, flags byte) {
		f := make([]byte, 54)
		f[0], f[6], f[12] = 2, 2, 8
		f[14], f[17], f[22], f[23] = 0x45, 40, 64, 6
		copy(f[26:], from[:])
		copy(f[30:], to[:])
		f[34], f[35], f[36], f[37] = byte(sport>>8), byte(sport), byte(dport>>8), byte(dport)
		f[46], f[47] = 0x50, flags
		us += 20
		for _, v := range []uint32{1_700_000_000, us, 54, 54} {
			word(v)
		}
		b.Write(f)
	}
	for port := range ports {
		for s := first; s < first+n; s++ {
			from, to := [4]byte{10, 1, byte(s / 250), byte(s % 250)}, [4]byte{10, 2, byte(s / 250), byte(s % 250)}
			frame(from, to, 40000, uint16(port+1), 2)
			frame(to, from, uint16(port+1), 40000, 0x14)
		}
	}
	path := filepath.Join(t.TempDir(), "attackers.pcap")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ledger takes what a subscriber of the event topic gets.
type ledger struct {
	ids  map[uint64]string // of events by sequence number
	most uint64
	dups int
}

func (l *ledger) take(t testing.TB, message string) *detect.Event {
	t.Helper()
	_, payload, _ := strings.Cut(message, "{")
	var e detect.Event
	if err := json.Unmarshal([]byte("{"+payload), &e); err != nil {
		t.Fatalf("%v: %s", err, message)
	}
	seq := e.Event.Sequence
	switch id, ok := l.ids[seq]; {
	case ok && id != e.Event.ID:
		t.Errorf("number %d of %s and of %s", seq, id, e.Event.ID)
	case ok:
		l.dups++
	}
	l.ids[seq] = e.Event.ID
	l.most = max(l.most, seq)
	return &e
}

func (l *ledger) drain(t testing.TB, s *brokertest.Subscriber) {
	for {
		select {
		case m := <-s.Payloads:
			l.take(t, m)
		default:
			return
		}
	}
}

// missing are the numbers from 1 to the highest that never came.
func (l *ledger) missing() (gaps []uint64) {
	for n := uint64(1); n <= l.most; n++ {
		if _, ok := l.ids[n]; !ok {
			gaps = append(gaps, n)
		}
	}
	return gaps
}

// wary is a model that finds all that the tests send anomalous.
const wary = "nslkdd-xgboost"

// TestRunKilled kills run at random moments while attacks go on, the broker now and then
// too: no number is missing at a subscriber in the end, none stands for two events.
// PICKET_KILLS sets how often.
func TestRunKilled(t *testing.T) {
	kills := 12
	if n, err := strconv.Atoi(os.Getenv("PICKET_KILLS")); err == nil {
		kills = n
	} else if testing.Short() {
		kills = 3
	}
	wires(t)
	broker := brokertest.Start(t, "autosave_interval 1", "autosave_on_changes true")
	sub := broker.Subscribe(t, "picket/gw/event")
	capture := attackers(t, 3, 10)
	state := t.TempDir()
	args := []string{"-i", "vb", "--promiscuous", "--gateway", "gw", "--mqtt", "mqtt://" + broker.Addr, "--state-dir", state, "--model", wary, "--early", "200ms"}
	rng := rand.New(rand.NewPCG(7, uint64(kills)))
	l := ledger{ids: map[uint64]string{}}
	load := exec.Command("tcpreplay", "-q", "-i", "va", "--pps=600", "--loop=0", "--unique-ip", capture)
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { load.Process.Kill(); load.Wait() })
	for range kills {
		p := daemonProcess(t, args...)
		time.Sleep(time.Second + time.Duration(rng.IntN(1000))*time.Millisecond)
		p.Process.Kill()
		<-p.ended
		l.drain(t, sub)
	}
	p := daemonProcess(t, args...)
	time.Sleep(2 * time.Second)
	if code := p.end(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for end := time.Now().Add(brokertest.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if l.drain(t, sub); len(l.missing()) == 0 && l.most > uint64(kills) {
			break
		}
	}
	t.Logf("%d kills, %d events, %d came twice", kills, l.most, l.dups)
	if gaps := l.missing(); len(gaps) > 0 || l.most < uint64(kills) {
		t.Errorf("%d events, missing %v", l.most, gaps)
	}
}

// TestRunBroker: without a broker events wait on the disk, over a restart of picket; they
// arrive when there is one, and again when it was away; the topics say how things are.
func TestRunBroker(t *testing.T) {
	wires(t)
	broker := brokertest.Start(t)
	all := broker.Subscribe(t, "picket/gw/+")
	args := []string{"-i", "vb", "--promiscuous", "--gateway", "gw", "--mqtt", "mqtt://" + broker.Addr, "--state-dir", t.TempDir(), "--model", wary, "--health-every", "1s"}
	l := ledger{ids: map[uint64]string{}}
	last := map[string]string{}
	settle := func(ok func() bool, what string) {
		t.Helper()
		for deadline := time.After(brokertest.Patience); !ok(); {
			select {
			case m := <-all.Payloads:
				_, rest, _ := strings.Cut(m, " ")
				topic, payload, _ := strings.Cut(rest, " ")
				if topic == "picket/gw/event" {
					l.take(t, m)
					continue
				}
				last[strings.TrimPrefix(topic, "picket/gw/")] = payload
			case <-deadline:
				t.Fatalf("no %s; last %v, %d events", what, last, l.most)
			}
		}
	}

	p := daemonProcess(t, args...)
	settle(func() bool { return last["status"] == "online" && last["problem"] == "OFF" && last["info"] != "" }, "birth")
	replay(t, attackers(t, 10, 5), "va")
	settle(func() bool {
		return len(l.ids) == 10 && last["problem"] == "ON" && strings.Contains(last["health"], `"packets":100,`)
	}, "events of ten attackers")
	var info struct{ Models []modelInfo }
	if err := json.Unmarshal([]byte(last["info"]), &info); err != nil || len(info.Models) != 1 || info.Models[0].Threshold <= 0 {
		t.Errorf("info %s: %v", last["info"], err)
	}
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	settle(func() bool { return last["status"] == "offline" && last["problem"] == "OFF" && len(l.ids) == 20 }, "ends and farewell")

	broker.Stop()
	p = daemonProcess(t, args...)
	replay(t, attackers(t, 10, 5), "va")
	time.Sleep(2500 * time.Millisecond)
	p.Process.Kill()
	<-p.ended
	p = daemonProcess(t, args...)
	if err := broker.Restart(); err != nil {
		t.Fatal(err)
	}
	settle(func() bool { return len(l.ids) == 30 && last["status"] == "online" }, "events of before")

	p.Process.Kill() // the will speaks
	settle(func() bool { return last["status"] == "offline" }, "will")
	if gaps := l.missing(); len(gaps) > 0 || l.dups > 0 {
		t.Errorf("missing %v, %d came twice", gaps, l.dups)
	}
}

// TestRunDiskFull: with a full disk and a broker, events arrive all the same, without a
// number; with neither they wait in memory.
func TestRunDiskFull(t *testing.T) {
	wires(t)
	state := t.TempDir()
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI_REQUIRE_NETNS") == "1" {
			t.Fatal(err)
		}
		t.Skipf("needs to mount a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(state, 0) })
	broker := brokertest.Start(t)
	sub := broker.Subscribe(t, "picket/gw/event")
	p := daemonProcess(t, "-i", "vb", "--promiscuous", "--gateway", "gw", "--mqtt", "mqtt://"+broker.Addr, "--model", wary, "--state-dir", state)
	if err := os.WriteFile(filepath.Join(state, "full"), make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	seen := map[string]bool{}
	take := func(n int) {
		t.Helper()
		for deadline := time.After(brokertest.Patience); len(seen) < n; {
			select {
			case m := <-sub.Payloads:
				_, payload, _ := strings.Cut(m, "{")
				var e detect.Event
				if err := json.Unmarshal([]byte("{"+payload), &e); err != nil {
					t.Fatal(err)
				}
				seen[e.Event.ID] = true
			case <-deadline:
				t.Fatalf("%d events of %d", len(seen), n)
			}
		}
	}
	replay(t, attackers(t, 10, 5), "va")
	take(10)
	os.Remove(filepath.Join(state, "full"))
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	take(20)
}

// TestRunReload: SIGHUP under load loses no packet; a bad model or config leaves all as
// it was; suppressions act from then on.
func TestRunReload(t *testing.T) {
	wires(t)
	broker := brokertest.Start(t)
	sub := broker.Subscribe(t, "picket/gw/health")
	file := filepath.Join(t.TempDir(), "picket.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("threshold = 0.5\n")
	p := daemonProcess(t, "-i", "vb", "--promiscuous", "--gateway", "gw", "--mqtt", "mqtt://"+broker.Addr, "--state-dir", t.TempDir(),
		"--health-every", "1s", "--config", file, "--workers", "2", "--ring-mib", "64", "--listen", "9090")
	capture := attackers(t, 20, 500)
	load := exec.Command("tcpreplay", "-q", "-i", "va", "--pps=5000", capture) // 4 s
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { load.Process.Kill() })
	hup := func(text, want string) {
		t.Helper()
		before := strings.Count(p.log.String(), want)
		write(text)
		p.Process.Signal(syscall.SIGHUP)
		for end := time.Now().Add(brokertest.Patience); strings.Count(p.log.String(), want) == before; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after SIGHUP picket did not say %s", want)
			}
		}
	}
	const good = `"msg":"reloaded"`
	hup("threshold = 0.4\n", good)
	hup("model = [\"nslkdd-xgboost\", \"nslkdd-isolation-forest\"]\n", good)
	hup("model = \"none-such\"\n", "none-such")
	hup("threshhold = 0.4\n", `threshold`)
	dropIn := filepath.Join(filepath.Dir(file), "conf.d", "site.toml") // of a directory that comes after the start
	if err := os.Mkdir(filepath.Dir(dropIn), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"threshhold = 0.4": "site.toml:1: no key threshhold", "model = 'none-in-conf.d'": "none-in-conf.d"} {
		if err := os.WriteFile(dropIn, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		hup("threshold = 0.4\n", want)
	}
	if err := os.Remove(dropIn); err != nil {
		t.Fatal(err)
	}
	hup("max-connections = 500\n", "need a restart")
	hup("onnxruntime = \"/none/such.so\"\n", "need a restart")
	hup("[[suppress]]\nreason = \"test\"\nuntil = 2100-01-01\nsource = \"10.1.0.0/16\"\n", good)
	before := scrape(t, "127.0.0.1:9090", "go_goroutines")
	for range 5 {
		hup("threshold = 0.3\n[[suppress]]\nreason = \"test\"\nuntil = 2100-01-01\nsource = \"10.1.0.0/16\"\n", good)
	}
	load.Wait()
	if after := scrape(t, "127.0.0.1:9090", "go_goroutines"); after > before+2 {
		t.Errorf("%v goroutines after five reloads, %v before", after, before)
	}
	replay(t, attackers(t, 20, 3), "va")
	var h health
	for deadline := time.After(brokertest.Patience); h.Packets != 20*500*2+20*3*2; {
		select {
		case m := <-sub.Payloads:
			_, payload, _ := strings.Cut(m, "{")
			if err := json.Unmarshal([]byte("{"+payload), &h); err != nil {
				t.Fatal(err)
			}
			if h.Dropped > 0 {
				t.Skipf("the machine is too busy: the kernel dropped %d packets", h.Dropped)
			}
		case <-deadline:
			t.Fatalf("%d packets", h.Packets)
		}
	}
	time.Sleep(2 * time.Second)
	for {
		m := <-sub.Payloads
		_, payload, _ := strings.Cut(m, "{")
		if err := json.Unmarshal([]byte("{"+payload), &h); err != nil {
			t.Fatal(err)
		}
		if len(sub.Payloads) == 0 {
			break
		}
	}
	if len(h.Rows.Suppressed) != 1 || h.Rows.Suppressed[0] < 60 {
		t.Errorf("suppressed %v", h.Rows.Suppressed)
	}
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// scrape reads a metric. It dials in this goroutine, which alone is in the namespace.
func scrape(t *testing.T, addr, name string) float64 {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(brokertest.Patience))
	fmt.Fprintf(c, "GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n", addr)
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s in\n%s", name, b)
	return 0
}

// TestRunTold checks what run refuses, and with what words.
func TestRunTold(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.toml")
	os.WriteFile(bad, []byte("interface = \"lo\"\njson = true\n\nmax-conections = 5\n"), 0o600)
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "no interface: name one with -i"},
		{"no outlet", []string{"-i", "lo"}, "nowhere to send events"},
		{"an argument", []string{"lo"}, `an interface is named by -i`},
		{"a bad filter", []string{"-i", "lo", "--json", "-f", "tcp and prot 5"}, "prot"},
		{"no such interface", []string{"-i", "nope0", "--json"}, "nope0"},
		{"a bad level", []string{"-i", "lo", "--json", "--log-level", "loud"}, "loud"},
		{"a bad key in the file", []string{"--config", bad}, "bad.toml:4: "},
		{"no such file", []string{"--config", filepath.Join(dir, "none")}, "none"},
		{"a clear-text URL with TLS files", []string{"-i", "lo", "--mqtt", "mqtt://h", "--mqtt-ca-file", bad}, "clear text"},
		{"too many workers", []string{"-i", "lo", "--json", "--workers", "0"}, "--workers 0"},
		{"a key without a mode", []string{"-i", "lo", "--json", "--anonymize", "hash"}, "anonymize-key-file"},
		{"a key nobody uses", []string{"-i", "lo", "--json", "--check", "--anonymize-key-file", bad}, "without a way to anonymize"},
		{"a bad topic of Home Assistant", []string{"-i", "lo", "--mqtt", "mqtt://h", "--homeassistant", "--homeassistant-prefix", "home/#", "--check"}, "Home Assistant topic prefix"},
		{"a long interface", []string{"-i", "0123456789abcdef", "--json", "--check"}, "1 to 15 octets"},
		{"two mistakes", nil, "eth0\npicket: nowhere"},
		{"an unsigned model", []string{"-i", "lo", "--json", "--check-as", "root", "--model", "../../models/nslkdd-lof.onnx", "--model-key", "RWQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "minisig"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, stderr := picket(t, nil, append([]string{"run"}, tc.args...)...)
			if code != exitError || !strings.Contains(stderr, tc.want) || out != "" {
				t.Errorf("exit %d, %q, want %q", code, stderr, tc.want)
			}
		})
	}
	if _, err := readFlags([]string{"-i", "lo", "--json", "--anonymize", "none", "--anonymize-key-file", bad}, stdio{}, false); err != nil {
		t.Errorf("a key kept for later: %v", err)
	}
	code, out, stderr := picket(t, nil, "run", "-i", "eth7", "--json", "--check", "--model", "nslkdd-lof")
	if code != 0 || !strings.Contains(out, "good: ") || !strings.Contains(out, "eth7 with nslkdd-lof 1") {
		t.Errorf("--check: exit %d, %s%s", code, out, stderr)
	}
}

// TestRunQuiet: on a quiet interface it ends soon after SIGTERM; how soon is logged.
func TestRunQuiet(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	p := daemonProcess(t, "-i", "vb", "-i", "va", "--json")
	from := time.Now()
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("ended after %v", time.Since(from).Round(time.Millisecond))
	if strings.Contains(p.log.String(), "is away") {
		t.Errorf("closed interfaces are called away:\n%s", p.log.String())
	}
}

// TestWorkerEnds: what a worker is asked is answered, also when it ends meanwhile.
func TestWorkerEnds(t *testing.T) {
	for range 200 {
		w := &worker{ask: make(chan func(), 4), ended: make(chan struct{})}
		answered := make(chan struct{})
		w.post(func() { close(answered) })
		ctx, cancel := context.WithTimeout(context.Background(), slow)
		done := make(chan bool, 6)
		for range cap(done) {
			go func() { done <- w.do(ctx, func() {}) }()
		}
		w.end()
		select {
		case <-answered:
		case <-ctx.Done():
			t.Fatal("not what was asked before")
		}
		for range cap(done) {
			if !<-done {
				t.Fatal("not what was asked at the end")
			}
		}
		d := &daemon{workers: []*worker{w}}
		d.pause(func() {})
		cancel()
	}
}

// TestRunInUnit: it starts, tries a model in a child at a reload, and ends with no more
// than the rights and system calls that its systemd unit leaves it.
func TestRunInUnit(t *testing.T) {
	skip := t.Skipf
	if os.Getenv("CI_REQUIRE_UNIT") == "1" {
		skip = t.Fatalf
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import seccomp").CombinedOutput(); err != nil {
		skip("needs apt install python3-seccomp: %s", out)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		skip("needs apt install systemd: %v", err)
	}
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	file := filepath.Join(t.TempDir(), "picket.toml")
	if err := os.WriteFile(file, []byte("model = \"../../models/nslkdd-autoencoder.onnx\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := daemonBehind(t, []string{"setpriv", "--bounding-set", "-all,+net_raw", "--inh-caps", "-all,+net_raw", "--ambient-caps", "-all,+net_raw",
		"--no-new-privs", "/usr/bin/python3", "../../cross/unit.py", "../../cross/files/picket.service"},
		"-i", "vb", "--config", file, "--mqtt", "mqtt://127.0.0.1:1", "--state-dir", t.TempDir(), "--listen", "9090")
	p.Process.Signal(syscall.SIGHUP)
	p.until(`"msg":"reloaded"`)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestScanInterface: scan -i ends after its time, or its packets, with an answer.
func TestScanInterface(t *testing.T) {
	tool(t, "tcpreplay", "CI_REQUIRE_NETNS")
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	path := attackers(t, 3, 40)
	load := exec.Command("tcpreplay", "-q", "-i", "va", "--pps=1000", "--loop=0", path)
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { load.Process.Kill(); load.Wait() }()
	code, out, stderr := picket(t, nil, "scan", "-i", "vb", "--promiscuous", "--for", "30s", "-c", "600", "--threshold", "0.5")
	if code != exitFound || !strings.Contains(out, "vb: 600 packets") || !strings.Contains(out, "10.1.0.1") {
		t.Errorf("exit %d\n%s%s", code, out, stderr)
	}
	code, out, _ = picket(t, nil, "scan", "-i", "vb", "--promiscuous", "--for", "300ms", "-f", "udp")
	if code != exitError || out != "" {
		t.Errorf("nothing seen: exit %d, %s", code, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var line, log bytes.Buffer
	code = run(ctx, []string{"scan", "-i", "vb", "--promiscuous", "--for", "30s", "--json"}, nil, &line, &log)
	l, _ := lastLine(t, line.String())
	if s := l.Picket.Summary; code == exitError || s.Complete || s.Packets < 100 || reasons(s.NotJudged) != "INTERRUPTED" || !strings.Contains(log.String(), "interrupted after 1s of 30s") {
		t.Errorf("interrupted: exit %d, %+v\n%s", code, s, log.String())
	}
}

// TestInterrupted: what reads a pipe in which nothing comes ends when it is told to, with
// an answer of what it has.
func TestInterrupted(t *testing.T) {
	needLibrary(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	all := unpacked(t, "scan")
	for _, tc := range []struct {
		name string
		args []string
		sent []byte
		code int
		want string
	}{
		{"nobody writes", []string{"extract", fifo}, nil, exitError, "capture,"},
		{"silent", []string{"extract", "-"}, nil, exitError, "capture,"},
		{"nothing to judge yet", []string{"scan", "--json", "-"}, nil, exitError, `"not_judged":[{"reason":"interrupted"`},
		{"silent in the middle", []string{"scan", "-"}, all[:len(all)/2], exitFound, "ANOMALOUS"},
		{"nothing anomalous yet", []string{"scan", "--json", "-", "gone.pcap"}, unpacked(t, "benign")[:9000], exitError, "captures not read: 1"},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		if tc.sent == nil {
			cancel()
		}
		in := readerFunc(func(p []byte) (int, error) {
			if len(tc.sent) == 0 {
				cancel()
				select {}
			}
			n := copy(p, tc.sent)
			tc.sent = tc.sent[n:]
			return n, nil
		})
		var out, log bytes.Buffer
		ended := make(chan int)
		go func() { ended <- run(ctx, tc.args, in, &out, &log) }()
		select {
		case code := <-ended:
			if code != tc.code || !strings.Contains(log.String(), "interrupted while reading") || !strings.Contains(out.String(), tc.want) {
				t.Errorf("%s: exit %d\n%s%s", tc.name, code, out.String(), log.String())
			}
		case <-time.After(brokertest.Patience):
			t.Fatalf("%s: it goes on", tc.name)
		}
	}
}
