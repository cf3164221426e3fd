package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

const netRaw = 1 << unix.CAP_NET_RAW // of the first 32 capabilities

// Drop leaves all threads of the process, C's too, without capabilities but
// CAP_NET_RAW, which capture needs again when an interface comes back, and without a
// way to get others (no_new_privs). With user, in the form of Lookup, it first
// becomes that user without supplementary groups.
//
// Without root it keeps of CAP_NET_RAW what it has, and user may be but the present
// one. After an error the process may have lost a part: end it.
func Drop(user string) error {
	if err := drop(user); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	return nil
}

func drop(user string) error {
	if err := threadsListed(); err != nil {
		return err
	}
	var have [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &have[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	may := func(c int) bool { return have[0].Effective&(1<<c) != 0 }
	become := func() error { return nil }
	if user != "" {
		uid, gid, err := Lookup(user)
		if err != nil {
			return err
		}
		if uid != os.Getuid() || uid != os.Geteuid() || gid != os.Getgid() || gid != os.Getegid() {
			if !may(unix.CAP_SETUID) || !may(unix.CAP_SETGID) {
				return fmt.Errorf("become %s: %w", user, errNotRoot)
			}
			become = func() error { return setUser(uid, gid) }
		}
	}
	if may(unix.CAP_SETPCAP) {
		for c := uintptr(0); ; c++ {
			if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
				break // past the last one
			}
			if c == unix.CAP_NET_RAW {
				continue
			}
			if err := prctl(unix.PR_CAPBSET_DROP, c); err != nil {
				return fmt.Errorf("bound the capabilities: %w", err)
			}
		}
	}
	if err := become(); err != nil {
		return fmt.Errorf("become %s: %w", user, err)
	}
	// Nothing is inheritable, so nothing stays ambient.
	var want [2]unix.CapUserData
	want[0].Permitted = have[0].Permitted & netRaw
	want[0].Effective = want[0].Permitted
	if _, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&want[0])), 0); errno != 0 {
		return fmt.Errorf("set the capabilities: %w", errno)
	}
	if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// setUser keeps the permitted capabilities.
//
// libcap's Go package would call setuid(2), whose ids have 16 bits on 32-bit ARM; Go's
// syscall has libc do it, for all threads that libc knows, or does it itself.
func setUser(uid, gid int) error {
	if err := prctl(unix.PR_SET_KEEPCAPS, 1); err != nil {
		return fmt.Errorf("keep the capabilities: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("clear the groups: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("set the group: %w", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("set the user: %w", err)
	}
	return prctl(unix.PR_SET_KEEPCAPS, 0)
}

// As runs fn with the rights to files that Drop would leave a user, in a thread that ends with it; what fn starts
// elsewhere, goroutines too, has those of the process. It needs root.
func As(uid, gid int, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread has lost its rights
		err := setFileUser(uid, gid)
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// setFileUser acts on this thread alone, as its system calls are not libc's. A user that is not root's takes the
// capabilities about files with it (capabilities(7)).
func setFileUser(uid, gid int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno == unix.EPERM {
		return errNotRoot
	} else if errno != 0 {
		return fmt.Errorf("clear the groups: %w", errno)
	}
	// These tell of no error but by what they return: the id of before.
	unix.SetfsgidRetGid(gid)
	unix.SetfsuidRetUid(uid)
	haveGID, _ := unix.SetfsgidRetGid(-1)
	if haveUID, _ := unix.SetfsuidRetUid(-1); haveUID != uid || haveGID != gid {
		return errNotRoot
	}
	return nil
}

// prctl acts on all threads: libc's, and syscall.AllThreadsSyscall in a program with
// C, would act on one or refuse.
func prctl(option int, arg ...uintptr) error {
	var a [4]uintptr
	copy(a[:], arg)
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, uintptr(option), a[0], a[1], a[2], a[3], 0); errno != 0 {
		return errno
	}
	return nil
}

// threadsListed is because psx kills a process without /proc.
func threadsListed() error {
	if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", os.Getpid())); err != nil {
		return fmt.Errorf("list the threads: %w; mount /proc", err)
	}
	return nil
}

const (
	readAccess  = ll.AccessFSReadFile | ll.AccessFSReadDir
	writeAccess = readAccess | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
	fileAccess = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSExecute
)

// Restrict takes the file system but p away from all threads of the process and from
// the processes they start, with Landlock; files that are open stay so. This program can
// still be executed, and what lies beside its C library; through the loader there, so
// can whatever may be read. It returns the version of Landlock's interface in the
// kernel: with 0 there is none, and nothing is restricted.
//
// To rename or link from one directory to another is refused, in ReadWrite too.
// Network and sockets are left alone. It sets no_new_privs.
func Restrict(p Paths) (abi int, err error) {
	abi, err = ll.LandlockGetABIVersion()
	if err != nil || abi <= 0 {
		return 0, nil // not in the kernel, not switched on, or hidden by a container
	}
	if err := restrict(p); err != nil {
		return abi, fmt.Errorf("restrict the file system: %w", err)
	}
	return abi, nil
}

func restrict(p Paths) error {
	if err := threadsListed(); err != nil {
		return err
	}
	var rules []landlock.Rule
	allow := func(path string, access landlock.AccessFSSet) error {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		if inMemory(path, fi) { // a rule would be an error, and it may be executed without
			return nil
		}
		if !fi.IsDir() { // a directory's rights would be an error
			access &= fileAccess
		}
		rules = append(rules, landlock.PathAccess(access, path).IgnoreIfMissing())
		return nil
	}
	for _, path := range p.ReadWrite {
		if err := allow(path, writeAccess); err != nil {
			return err
		}
	}
	for _, path := range p.ReadOnly {
		_ = allow(path, readAccess) // what is not there, or not for this user, need not be allowed
	}
	for _, path := range runnable() {
		_ = allow(path, readAccess|ll.AccessFSExecute)
	}
	_ = allow(os.DevNull, ll.AccessFSReadFile|ll.AccessFSWriteFile)
	// Version 5 has all of the file system but the right to connect to named
	// sockets, which systemd's and the resolver's would need.
	return landlock.V5.BestEffort().RestrictPaths(rules...)
}

// inMemory tells whether this is a file of memfd_create, as the program is that the one file starts where nothing can be
// written. Landlock leaves these alone.
func inMemory(path string, fi os.FileInfo) bool {
	var fs unix.Statfs_t
	return fi.Sys().(*syscall.Stat_t).Nlink == 0 && unix.Statfs(path, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// runnable returns what executing this program again takes: its file, and the
// directory of the loader and the C library, as an upgrade puts new files there.
func runnable() []string {
	all := []string{"/proc/self/exe"}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return all
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(maps)) {
		_, path, ok := strings.Cut(strings.TrimSpace(line), "/")
		dir, base := filepath.Split("/" + path)
		if !ok || seen[dir] || !strings.HasPrefix(base, "ld") && !strings.HasPrefix(base, "libc.") {
			continue
		}
		seen[dir] = true
		all = append(all, dir)
	}
	return all
}

// SystemReadable returns what any program of this kind reads, for Paths.ReadOnly: the
// configuration of name resolution, certificate authorities, time zones, libraries,
// and what the kernel tells of the process and the processor.
func SystemReadable() []string {
	all := []string{
		// Whole, because resolv.conf and such are renamed into their place.
		"/etc",
		"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki", "/var/lib/ca-certificates",
		"/usr/share/zoneinfo",
		"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib",
		// Whole, because the directory of a process is made anew, for Landlock another
		// one, when memory is short.
		"/proc",
		"/sys/devices/system/cpu",
		"/dev/random", "/dev/urandom", "/dev/zero",
	}
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime"} {
		all = append(all, Dirs(file)...)
	}
	return all
}
