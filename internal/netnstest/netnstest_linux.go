// Package netnstest gives tests a network of their own.
package netnstest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait, on a machine that is busy.
const patience = 20 * time.Second

// Enter moves the test, its goroutine alone, to a network namespace of its own, which
// ends with it. Processes that it starts are there, too.
func Enter(t testing.TB) {
	t.Helper()
	skip := func(format string, args ...any) {
		t.Helper()
		if os.Getenv("CI_REQUIRE_NETNS") == "1" {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	if os.Geteuid() != 0 {
		skip("needs root for a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		skip("needs ip (apt install iproute2): %v", err)
	}
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		skip("needs network namespaces: %v", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		home.Close()
		runtime.UnlockOSThread()
		skip("needs a network namespace: %v", err)
	}
	before := Files(t)
	t.Cleanup(func() {
		if now := Files(t); now > before {
			t.Errorf("%d files open, %d before", now, before)
		}
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		home.Close()
		runtime.UnlockOSThread()
	})
	os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) // no traffic of its own
}

// Files counts the files that the process has open.
func Files(t testing.TB) int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// Run runs a command that must succeed.
func Run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Veth makes a pair of interfaces, up.
func Veth(t testing.TB, a, b string) {
	t.Helper()
	Run(t, "ip", "link", "add", a, "mtu", "9000", "type", "veth", "peer", "name", b, "mtu", "9000")
	Run(t, "ip", "link", "set", "dev", a, "up")
	Run(t, "ip", "link", "set", "dev", b, "up")
	Carrier(t, a)
	Carrier(t, b)
}

// Carrier waits until an interface sends: one whose other end just came up swallows
// what it is given.
func Carrier(t testing.TB, name string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		out, err := exec.Command("ip", "-o", "link", "show", "dev", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		if s := string(out); strings.Contains(s, "state UP") && !strings.Contains(s, "qdisc noop ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s has no carrier: %s", name, out)
		}
	}
}
