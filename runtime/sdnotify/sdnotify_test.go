package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds every wait, on a machine that is busy.
const patience = 20 * time.Second

// systemd listens as the service manager does.
func systemd(t *testing.T, name string) func() string {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	return func() string {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotify(t *testing.T) {
	names := map[string]string{"path": filepath.Join(t.TempDir(), "notify")}
	if runtime.GOOS == "linux" {
		names["abstract"] = fmt.Sprintf("@picket-notify-%d", os.Getpid())
	}
	for kind, name := range names {
		t.Run(kind, func(t *testing.T) {
			received := systemd(t, name)
			for _, c := range []struct {
				err  error
				want string
			}{
				{Ready("watching eth0"), "READY=1\nSTATUS=watching eth0"},
				{Status("two\r\nlines\nREADY=1"), "STATUS=two  lines READY=1"},
				{Stopping("ending"), "STOPPING=1\nSTATUS=ending"},
			} {
				if got := received(); c.err != nil || got != c.want {
					t.Errorf("%q, %v; want %q", got, c.err, c.want)
				}
			}
		})
	}
}

func TestReloading(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no systemd on " + runtime.GOOS)
	}
	received := systemd(t, filepath.Join(t.TempDir(), "notify"))
	var last int64
	for range 2 {
		if err := Reloading(); err != nil {
			t.Fatal(err)
		}
		var usec int64
		got := received()
		if _, err := fmt.Sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec <= last {
			t.Errorf("%q after %d: %v", got, last, err)
		}
		last = usec
	}
	// The kernel's own word for the same clock.
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var up float64
	if _, err := fmt.Sscan(string(b), &up); err != nil {
		t.Fatal(err)
	}
	if s := float64(last) / 1e6; s > up+1 || s < up-patience.Seconds() && s < up/2 {
		t.Errorf("%v s, up for %v s", s, up)
	}
}

func TestNoSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	w, err := StartWatchdog(func() bool { t.Error("asked though nobody waits"); return true })
	if err != nil {
		t.Fatal(err)
	}
	if w.Interval() != 0 {
		t.Errorf("interval %v", w.Interval())
	}
	w.Stop()
	for _, err := range []error{Ready("x"), Status("x"), Reloading(), Stopping("x")} {
		if err != nil {
			t.Error(err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := Ready("x"); err == nil || !strings.HasPrefix(err.Error(), "tell systemd: ") {
		t.Errorf("a socket that is not there: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	received := systemd(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "4000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	const dead = 5
	var asked, fed atomic.Int64
	w, err := StartWatchdog(func() bool {
		if asked.Add(1) <= dead {
			return false
		}
		fed.Add(1)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.Interval() != 4*time.Millisecond {
		t.Errorf("interval %v, want 4ms", w.Interval())
	}
	for n := range int64(3) {
		if got := received(); got != "WATCHDOG=1" {
			t.Fatalf("%q", got)
		}
		if a, f := asked.Load(), fed.Load(); f <= n || a <= dead {
			t.Errorf("sign of life %d after %d questions, %d answered by yes", n+1, a, f)
		}
	}
	w.Stop()
	signs := int64(3)
	if err := Stopping("ending"); err != nil {
		t.Fatal(err)
	}
	for received() == "WATCHDOG=1" {
		signs++
	}
	if signs != fed.Load() {
		t.Errorf("%d signs of life for %d times yes", signs, fed.Load())
	}
}

func TestWatchdogOfAnother(t *testing.T) {
	systemd(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", "1")
	w, err := StartWatchdog(func() bool { t.Error("asked"); return true })
	if err != nil {
		t.Fatal(err)
	}
	if w.Interval() != 0 {
		t.Errorf("interval %v for another process", w.Interval())
	}
	w.Stop()
	for _, bad := range []string{"x", "-1", "0"} {
		t.Setenv("WATCHDOG_USEC", bad)
		if _, err := StartWatchdog(nil); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
