package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/cthread"
)

// patience bounds every wait, on a machine that is busy.
const patience = 20 * time.Second

// children are what the test binary does when a test starts it again, as what is
// dropped is gone for the process.
var children = map[string]func(args []string) error{
	"drop": dropped, "capture": recapture, "refused": refused, "restrict": restricted, "noop": func([]string) error { return nil },
}

func TestMain(m *testing.M) {
	if name := os.Getenv("SANDBOX_CHILD"); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(name string, args ...string) *exec.Cmd {
	// Not by its path, which another user may not reach.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = childEnv(name)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// childEnv takes the second away that the race detector waits at the end.
func childEnv(name string) []string {
	return append(os.Environ(), "SANDBOX_CHILD="+name, "GORACE=atexit_sleep_ms=0")
}

func runChild(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root")
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI_REQUIRE_SANDBOX") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// state is what the kernel says of a thread.
type state struct{ uid, gid, groups, inherited, permitted, effective, bound, ambient, noNewPrivs string }

func stateOf(status []byte) (s state) {
	into := map[string]*string{
		"Uid": &s.uid, "Gid": &s.gid, "Groups": &s.groups, "CapInh": &s.inherited, "CapPrm": &s.permitted,
		"CapEff": &s.effective, "CapBnd": &s.bound, "CapAmb": &s.ambient, "NoNewPrivs": &s.noNewPrivs,
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		if p := into[key]; p != nil {
			*p = strings.Join(strings.Fields(value), " ")
		}
	}
	return s
}

const (
	rawOnly = "0000000000002000"
	none    = "0000000000000000"
)

// busy starts threads of Go and of C, and returns the number there are at least.
func busy() (int, error) {
	for range 4 {
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			select {}
		}()
		go func() {
			for n := 0; ; n++ {
				time.Sleep(time.Microsecond)
			}
		}()
		<-locked
		if err := cthread.Start(); err != nil {
			return 0, err
		}
	}
	return 4 + 4, nil
}

// dropped calls Drop(args[0]) and looks at each thread: args[1:] are its uid, gid, groups
// and permitted and bounding capabilities.
func dropped(args []string) error {
	least, err := busy()
	if err != nil {
		return err
	}
	if err := Drop(args[0]); err != nil {
		return err
	}
	if _, err := busy(); err != nil { // and of the threads that come after
		return err
	}
	want := state{args[1], args[2], args[3], none, args[4], args[4], args[5], none, "1"}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	if len(tasks) < 2*least {
		return fmt.Errorf("%d threads, want %d at least", len(tasks), 2*least)
	}
	for _, file := range tasks {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // this thread ended
		}
		if got := stateOf(status); got != want {
			return fmt.Errorf("%s:\n got %+v\nwant %+v", file, got, want)
		}
	}
	// What it starts has no more.
	status, err := exec.Command("cat", "/proc/self/status").Output()
	if err != nil {
		return err
	}
	if got := stateOf(status); got.uid != want.uid || got.noNewPrivs != "1" || got.effective != none && (got.effective != rawOnly || os.Getuid() != 0) {
		return fmt.Errorf("a child process: %+v", got)
	}
	if os.Getuid() != 0 && syscall.Setuid(0) == nil {
		return errors.New("it can become root again")
	}
	if err := unix.Chroot("/"); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("chroot: %v, want EPERM", err)
	}
	return nil
}

func TestDrop(t *testing.T) {
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		skip(t, "needs the user nobody")
	}
	// Real, effective, saved, and of the file system.
	all := func(id string) string { return strings.Join([]string{id, id, id, id}, " ") }
	as := func(uid, gid uint32) *syscall.Credential { return &syscall.Credential{Uid: uid, Gid: gid} }
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	bound := stateOf(own).bound
	for _, c := range []struct {
		name    string
		cred    *syscall.Credential
		ambient []uintptr
		args    []string
	}{
		{"root to a user", &syscall.Credential{Groups: []uint32{4, 27}}, nil,
			[]string{"nobody", all(nobody.Uid), all(nobody.Gid), "", rawOnly, rawOnly}},
		{"root to a user and group", nil, nil, []string{"nobody:root", all(nobody.Uid), all("0"), "", rawOnly, rawOnly}},
		// Ids above 16 bits would become root in calls of old.
		{"root to numbers", nil, nil, []string{"65536:131072", all("65536"), all("131072"), "", rawOnly, rawOnly}},
		{"root stays", &syscall.Credential{Groups: []uint32{4}}, nil, []string{"", all("0"), all("0"), "4", rawOnly, rawOnly}},
		{"a service with CAP_NET_RAW", as(12345, 54321), []uintptr{unix.CAP_NET_RAW},
			[]string{"", all("12345"), all("54321"), "", rawOnly, bound}},
		{"a service that names its own user", as(12345, 54321), []uintptr{unix.CAP_NET_RAW},
			[]string{"12345:54321", all("12345"), all("54321"), "", rawOnly, bound}},
		{"a service with more than it needs", as(12345, 54321), []uintptr{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP},
			[]string{"", all("12345"), all("54321"), "", rawOnly, rawOnly}},
		{"a service that may change its user", as(12345, 54321), []uintptr{unix.CAP_NET_RAW, unix.CAP_SETUID, unix.CAP_SETGID},
			[]string{"23456:1", all("23456"), all("1"), "", rawOnly, bound}},
		{"nobody special", as(12345, 54321), nil, []string{"", all("12345"), all("54321"), "", none, bound}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd := child("drop", c.args...)
			cmd.SysProcAttr.Credential, cmd.SysProcAttr.AmbientCaps = c.cred, c.ambient
			runChild(t, cmd)
		})
	}
}

// refused calls Drop(args[0]), which has to fail with the words args[1].
func refused(args []string) error {
	err := Drop(args[0])
	if err == nil || !strings.Contains(err.Error(), args[1]) {
		return fmt.Errorf("drop to %q: %v, want %s", args[0], err, args[1])
	}
	return nil
}

func TestDropErrors(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		cred       *syscall.Credential
		user, want string
	}{
		{&syscall.Credential{Uid: 12345, Gid: 54321}, "root", "drop privileges: become root: this process may not change its user; start it as root"},
		{&syscall.Credential{Uid: 12345, Gid: 54321}, "12345:1", "may not change its user"},
		{nil, "no-such-user", `user "no-such-user": no such user`},
		{nil, "12345", `user "12345": its group is not known; name it: 12345:GROUP`},
		{nil, "12345:no-such-group", `group "no-such-group": no such group`},
		{nil, "4294967295:0", "no such user"},
		{nil, "-1:0", "no such user"},
		{nil, ":0", "no such user"},
	} {
		cmd := child("refused", c.user, c.want)
		cmd.SysProcAttr.Credential = c.cred
		runChild(t, cmd)
	}
}

// recapture drops to args[0], sees loopback go away and come back, and captures a
// frame from it.
func recapture(args []string) error {
	l, err := capture.Listen([]string{"lo"}, capture.LiveConfig{Promiscuous: true, Fanout: 7})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := Drop(args[0]); err != nil {
		return err
	}
	if _, err := os.ReadFile(args[1]); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read a file of root: %v, want permission denied", err)
	}
	fmt.Println("dropped")
	var f capture.Frame
	until := time.Now().Add(patience)
	for l.Stats()[0].Up {
		if l.Next(&f); time.Now().After(until) {
			return errors.New("the interface stays up")
		}
	}
	fmt.Println("away")
	mark := []byte("after the interface came back")
	for time.Now().Before(until) {
		if c, err := net.Dial("udp", "127.0.0.1:9"); err == nil {
			c.Write(mark)
			c.Close()
		}
		if l.Next(&f) == nil && bytes.Contains(f.Data, mark) && l.Stats()[0].Returns == 1 {
			// One that was not there before, too.
			again, err := capture.Listen([]string{"lo"}, capture.LiveConfig{})
			if err != nil {
				return err
			}
			return again.Close()
		}
	}
	return fmt.Errorf("nothing captured: %+v", l.Stats()[0])
}

// TestDropCapture is why CAP_NET_RAW is kept.
func TestDropCapture(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("nsenter"); err != nil {
		skip(t, "needs nsenter (apt install util-linux)")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// sh sets the interface up before the program starts, in a namespace of its own.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ip link set lo up && exec "$0" "$@"`, exe, "nobody", secret)
	cmd.Env = childEnv("capture")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		skip(t, "needs a network namespace: "+err.Error())
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		to := map[string]string{"dropped": "down", "away": "up"}[lines.Text()]
		enter := exec.Command("nsenter", "-t", fmt.Sprint(cmd.Process.Pid), "-n", "ip", "link", "set", "lo", to)
		if text, err := enter.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", enter, err, text)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}

// restricted drops to args[0], restricts itself to the directories args[1] (to
// read) and args[2] (to write), and tries.
func restricted(args []string) error {
	if _, err := busy(); err != nil {
		return err
	}
	if err := Drop(args[0]); err != nil {
		return err
	}
	ro, rw := args[1], args[2]
	abi, err := Restrict(Paths{ReadOnly: append(SystemReadable(), ro, "/not/there"), ReadWrite: []string{rw}})
	if err != nil {
		return err
	}
	if abi < 1 {
		return fmt.Errorf("version %d", abi)
	}
	outside := filepath.Join(filepath.Dir(ro), "outside", "file")
	try := func() error {
		var errs []error
		must := func(what string, err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
			}
		}
		refused := func(what string, err error) {
			if !errors.Is(err, fs.ErrPermission) {
				errs = append(errs, fmt.Errorf("%s: %v, want permission denied", what, err))
			}
		}
		read := func(file string) error { _, err := os.ReadFile(file); return err }
		write := func(file string) error { return os.WriteFile(file, []byte("new"), 0o600) }
		refused("read outside", read(outside))
		refused("write outside", write(outside))
		refused("list outside", func() error { _, err := os.ReadDir(filepath.Dir(outside)); return err }())
		refused("remove outside", os.Remove(outside))
		refused("write what is read-only", write(filepath.Join(ro, "file")))
		refused("execute another program", exec.Command("/bin/true").Run())
		refused("execute what may be read", exec.Command(filepath.Join(ro, "true")).Run())
		refused("execute what may be written", exec.Command(filepath.Join(rw, "true")).Run())
		must("read", read(filepath.Join(ro, "file")))
		must("write and rename", func() error {
			name := filepath.Join(rw, fmt.Sprint("file-", unix.Gettid()))
			if err := write(name + ".new"); err != nil {
				return err
			}
			if err := os.Rename(name+".new", name); err != nil {
				return err
			}
			if err := os.Truncate(name, 1); err != nil {
				return err
			}
			return os.Remove(name)
		}())
		must("/dev/null", write(os.DevNull))
		must("/proc/self/stat", read("/proc/self/stat"))
		must("list open files", func() error { _, err := os.ReadDir("/proc/self/fd"); return err }())
		for _, file := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo/UTC"} {
			if err := read(file); !errors.Is(err, fs.ErrNotExist) {
				must("what systems have", err)
			}
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = childEnv("noop")
		if text, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("execute itself: %w %s", err, text))
		}
		return errors.Join(errs...)
	}
	// From several threads, as each is restricted by itself.
	all := make(chan error)
	for range 8 {
		go func() {
			runtime.LockOSThread()
			all <- try()
		}()
	}
	for range 8 {
		err = errors.Join(err, <-all)
	}
	return err
}

func TestRestrict(t *testing.T) {
	needRoot(t)
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		if got, err := Restrict(Paths{}); got != 0 || err != nil {
			t.Errorf("without Landlock: %d, %v", got, err)
		}
		skip(t, "needs a kernel with Landlock: "+errno.Error())
	}
	t.Logf("Landlock version %d", abi)
	for _, user := range []string{"", "nobody"} {
		t.Run("user "+user, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("/var/tmp", "picket-sandbox-") // the test's own is not for other users
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			for _, name := range []string{"", "ro", "rw", "outside"} {
				name = filepath.Join(dir, name)
				os.Mkdir(name, 0o777)
				if err := os.Chmod(name, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			program, err := os.ReadFile("/bin/true")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"ro/file", "ro/true", "rw/true", "outside/file"} {
				name = filepath.Join(dir, name)
				if err := os.WriteFile(name, program, 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(name, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			runChild(t, child("restrict", user, filepath.Join(dir, "ro"), filepath.Join(dir, "rw")))
			// The same, when the program has no file but in memory.
			cmd := child("restrict", user, filepath.Join(dir, "ro"), filepath.Join(dir, "rw"))
			cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{copyInMemory(t)}
			runChild(t, cmd)
		})
	}
}

// copyInMemory is this program in a file that has no name.
func copyInMemory(t *testing.T) *os.File {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "program")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(program); err != nil {
		t.Fatal(err)
	}
	// Not the one that is open to write: the kernel would not execute it.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return again
}

func TestRestrictMissing(t *testing.T) {
	abi, err := Restrict(Paths{ReadWrite: []string{"/not/there"}})
	if abi > 0 != errors.Is(err, fs.ErrNotExist) {
		t.Errorf("version %d: %v", abi, err)
	}
}

func TestDirs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"live/gw", "archive/gw", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"etc/cert.pem":     filepath.Join(dir, "current/gw/cert.pem"),
		"current":          "live",
		"live/gw/cert.pem": "../../archive/gw/cert1.pem",
		"etc/loop":         "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		file string
		want []string
	}{
		{filepath.Join(dir, "etc/cert.pem"), []string{filepath.Join(dir, "etc"), filepath.Join(dir, "current/gw"), filepath.Join(dir, "archive/gw")}},
		{filepath.Join(dir, "etc/new"), []string{filepath.Join(dir, "etc")}},
		{filepath.Join(dir, "etc/loop"), []string{filepath.Join(dir, "etc")}},
		{"/picket.toml", []string{"/picket.toml"}},
		{"picket.toml", []string{"."}},
	} {
		got := Dirs(c.file)
		if got = slices.Compact(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.file, got, c.want)
		}
	}
}
