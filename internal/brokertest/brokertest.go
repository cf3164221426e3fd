// Package brokertest starts real MQTT brokers and subscribers for tests.
package brokertest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait on another process, on a machine that is busy.
const Patience = 20 * time.Second

// Tool finds a program of the mosquitto packages, or skips the test.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if p, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
				return p
			}
		}
		const reason = "%s is not installed (apt install mosquitto mosquitto-clients)"
		if os.Getenv("CI_REQUIRE_MOSQUITTO") == "1" {
			t.Fatalf(reason, name)
		}
		t.Skipf(reason, name)
	}
	return path
}

// subscriberID is the client identifier of a Subscriber.
const subscriberID = "subscriber"

// Mosquitto is a broker of its own process on a loopback port.
type Mosquitto struct {
	server
	t    testing.TB
	Addr string // host:port of its listener
	conf string

	suback chan struct{} // receives when the broker has granted the Subscriber its subscription
}

// Start starts a broker whose listener has the given further lines of
// configuration, "allow_anonymous true" unless one of them says otherwise.
func Start(t testing.TB, lines ...string) *Mosquitto {
	t.Helper()
	Tool(t, "mosquitto")
	more := strings.Join(lines, "\n")
	if !strings.Contains(more, "allow_anonymous") {
		more += "\nallow_anonymous true"
	}
	dir := t.TempDir()
	m := &Mosquitto{t: t, suback: make(chan struct{}, 1), conf: filepath.Join(dir, "mosquitto.conf")}
	t.Cleanup(m.Kill)
	var err error
	for range 5 { // the free port may be taken before mosquitto binds it
		m.Addr = FreeAddr(t)
		_, port, _ := net.SplitHostPort(m.Addr)
		conf := "log_dest stderr\nlog_type all\npersistence true\npersistence_location " + dir + "/\n" +
			"max_queued_messages 0\nlistener " + port + " 127.0.0.1\n" + more + "\n"
		if os.Geteuid() == 0 {
			conf = "user root\n" + conf // else it drops to a user who cannot read dir
		}
		if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if err = m.Restart(); err == nil {
			return m
		}
	}
	t.Fatal(err)
	return nil
}

// Restart starts the broker again and returns when the broker says that it runs.
func (m *Mosquitto) Restart() error {
	m.t.Helper()
	var log strings.Builder
	up := false
	return m.start(exec.Command(Tool(m.t, "mosquitto"), "-c", m.conf), func(line string) bool {
		if !up {
			log.WriteString(line + "\n")
			up = strings.HasSuffix(line, " running")
			return up
		}
		if strings.HasSuffix(line, ": Sending SUBACK to "+subscriberID) {
			select {
			case m.suback <- struct{}{}:
			default: // it comes back more often than anybody waits for it
			}
		}
		return false
	}, log.String)
}

// Stop ends the broker so that it saves its sessions.
func (m *Mosquitto) Stop() {
	m.t.Helper()
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.gone:
	case <-time.After(Patience):
		m.Kill()
		m.t.Error("mosquitto did not end on SIGTERM")
	}
}

// server is a process that is a server.
type server struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended
}

// start runs cmd and returns when ready says of a line of its standard error that it
// serves. ready gets all lines, from one goroutine that ends before gone is closed; log
// is for the error of a process that does not come so far, and called once it ended.
func (s *server) start(cmd *exec.Cmd, ready func(line string) bool, log func() string) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.gone = cmd, make(chan struct{})
	serves := make(chan struct{})
	go func(gone chan struct{}) {
		defer close(gone)
		defer cmd.Wait()
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			if ready(sc.Text()) {
				close(serves)
			}
		}
	}(s.gone)
	name := filepath.Base(cmd.Path)
	select {
	case <-serves:
		return nil
	case <-s.gone:
		return fmt.Errorf("%s ended at its start:\n%s", name, log())
	case <-time.After(Patience):
		s.Kill()
		return fmt.Errorf("%s does not start within %v:\n%s", name, Patience, log())
	}
}

// Kill ends the process as a power cut does, but for what its system had in memory.
func (s *server) Kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		<-s.gone
	}
}

// FreeAddr returns a loopback address that nothing listened on just now.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Subscriber is a mosquitto_sub with a persistent session at QoS 1.
type Subscriber struct {
	Payloads chan string // "<retained> <topic> <payload>"
	Stop     func()      // ends it before the test does; the broker keeps its session
}

// Subscribe starts one and returns when the broker has granted the subscription.
func (m *Mosquitto) Subscribe(t testing.TB, topic string) *Subscriber {
	t.Helper()
	host, port, _ := net.SplitHostPort(m.Addr)
	cmd := exec.Command(Tool(t, "mosquitto_sub"), "-h", host, "-p", port,
		"-i", subscriberID, "-c", "-q", "1", "-t", topic, "-F", "MESSAGE %r %t %p")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Subscriber{Payloads: make(chan string, 1<<16)}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cmd.Wait()
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			if p, ok := strings.CutPrefix(sc.Text(), "MESSAGE "); ok {
				s.Payloads <- p
			}
		}
	}()
	s.Stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		<-gone
	})
	t.Cleanup(s.Stop)
	select {
	case <-m.suback:
	case <-gone:
		t.Fatal("mosquitto_sub ended before its subscription")
	case <-time.After(Patience):
		t.Fatal("mosquitto_sub got no subscription")
	}
	return s
}

// Want reads until n different messages have come and returns how many came twice
// or more; what arrives is checked by ok.
func (s *Subscriber) Want(t testing.TB, n int, ok func(string) bool) (duplicates int) {
	t.Helper()
	seen := map[string]bool{}
	for deadline := time.After(Patience); len(seen) < n; {
		select {
		case p := <-s.Payloads:
			if !ok(p) {
				t.Fatalf("unexpected message %q", p)
			}
			if seen[p] {
				duplicates++
			}
			seen[p] = true
		case <-deadline:
			t.Fatalf("%d of %d messages arrived", len(seen), n)
		}
	}
	return duplicates
}

// Publish has mosquitto_pub publish one message at QoS 1.
func (m *Mosquitto) Publish(t testing.TB, topic, payload string, retained bool) {
	t.Helper()
	host, port, _ := net.SplitHostPort(m.Addr)
	args := []string{"-h", host, "-p", port, "-q", "1", "-t", topic, "-m", payload}
	if retained {
		args = append(args, "-r")
	}
	if out, err := exec.Command(Tool(t, "mosquitto_pub"), args...).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}
