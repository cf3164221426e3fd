package onefile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start unpacks what stands behind the running executable, where that was not done before, checks it, and becomes the
// program in it with the same arguments. It returns only an error.
func Start(decompress Decompression) error {
	exe, err := os.Open("/proc/self/exe") // the right file also when it was replaced; needs /proc
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p, err := open(exe, decompress)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var why []error
	for _, place := range places() {
		dir, err := p.in(place)
		if err == nil {
			return run(filepath.Join(dir, Loader), []string{"--library-path", dir}, filepath.Join(dir, Program), os.Environ())
		}
		if errors.Is(err, errDamaged) {
			return fmt.Errorf("start: %w", err)
		}
		why = append(why, fmt.Errorf("%s: %w", place, err))
	}
	if err := p.inMemory(); err != nil {
		return fmt.Errorf("start: no place to unpack to: %w", errors.Join(append(why, err)...))
	}
	return nil
}

// run becomes the program, started by the loader in the files rather than by the system's. The loader leaves its own
// arguments in /proc/self/cmdline, where onnx.Self finds them.
func run(loader string, options []string, program string, env []string) error {
	args := append([]string{os.Args[0]}, options...)
	args = append(args, "--inhibit-cache", "--argv0", os.Args[0], program)
	return fmt.Errorf("start %s: %w", loader, unix.Exec(loader, append(args, os.Args[1:]...), env))
}

// places are the folders to unpack into, best first: the package's own, what systemd gave to the service, the user's
// cache, the system's, temporary files.
func places() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		own := filepath.Join(filepath.Dir(exe), "../lib/picket")
		if info, err := os.Stat(own); err == nil && info.IsDir() {
			dirs = append(dirs, own)
		}
	}
	for _, name := range []string{"CACHE_DIRECTORY", "STATE_DIRECTORY"} {
		if dir, _, _ := strings.Cut(os.Getenv(name), ":"); dir != "" {
			dirs = append(dirs, filepath.Join(dir, "program"))
		}
	}
	if dir, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "picket"))
	}
	return append(dirs, "/var/cache/picket/program", filepath.Join(os.TempDir(), "picket-"+strconv.Itoa(os.Geteuid())))
}

// in returns the folder below place that holds the files, checked; it unpacks them if need be. Any number of processes
// may do so at once: a folder appears whole, by rename. The folder stays locked while the program runs, which keeps the
// next version, when it tidies up, from deleting it.
func (p *pack) in(place string) (string, error) {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return "", cause(err)
	}
	place, err := filepath.EvalSymlinks(place)
	if err != nil {
		return "", cause(err)
	}
	if err := private(place); err != nil {
		return "", err
	}
	dir := filepath.Join(place, p.id)
	for range 3 { // a second process may win, or mend, between two steps
		err := p.check(dir)
		if err == nil {
			return dir, lock(dir, unix.LOCK_SH, true)
		}
		if err := p.replace(place, dir); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("the files in %s change while they are read", dir)
}

// replace unpacks into dir, out of which damaged files are moved first.
func (p *pack) replace(place, dir string) error {
	tmp, err := os.MkdirTemp(place, ".new-")
	if err != nil {
		return cause(err)
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, "fresh")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return cause(err)
	}
	err = p.unpack(func(name string) (io.WriteCloser, error) {
		return os.OpenFile(filepath.Join(fresh, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o555)
	})
	if err != nil {
		return cause(err)
	}
	if p.check(dir) == nil { // somebody was faster
		return nil
	}
	if err := os.Rename(dir, filepath.Join(tmp, "damaged")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return cause(err)
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return cause(err)
	}
	p.tidy(place)
	return nil
}

// tidy deletes other versions that no process runs: flash is small.
func (p *pack) tidy(place string) {
	entries, _ := os.ReadDir(place)
	for _, e := range entries {
		if len(e.Name()) != len(p.id) || e.Name() == p.id || strings.Trim(e.Name(), "0123456789abcdef") != "" {
			continue
		}
		dir := filepath.Join(place, e.Name())
		if lock(dir, unix.LOCK_EX|unix.LOCK_NB, false) == nil {
			os.RemoveAll(dir)
		}
	}
}

// lock locks a folder of files; with keep the lock outlives exec and ends with the process.
func lock(dir string, how int, keep bool) error {
	fd, err := unix.Open(filepath.Join(dir, Loader), unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if !keep {
		defer unix.Close(fd)
	}
	return unix.Flock(fd, how)
}

// check reads every file of a folder and compares hashes, on all cores.
func (p *pack) check(dir string) error {
	results := make(chan error)
	for _, f := range p.files {
		go func() { results <- checkFile(filepath.Join(dir, f.name), f) }()
	}
	var failed error
	for range p.files {
		if err := <-results; err != nil {
			failed = err
		}
	}
	return failed
}

func checkFile(path string, want file) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != want.size || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s was changed", path)
	}
	if err := trusted(path, info); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != want.sum {
		return fmt.Errorf("%s was changed", path)
	}
	return nil
}

// private says why others than this user and root could change what lies in dir, or that nothing can be run from there.
func private(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		return errors.New("mounted noexec")
	}
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if err != nil {
			return cause(err)
		}
		if err := trusted(path, info); err != nil {
			return err
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

// trusted says why others than root and this user could change a file, or replace one in a folder that is not sticky.
func trusted(path string, info os.FileInfo) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user", path)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("others can write to %s", path)
	}
	return nil
}

// inMemory becomes the program from files in memory. They cannot be given up under memory pressure: the last resort.
func (p *pack) inMemory() error {
	at := map[string]string{}
	var preload []string
	var sealed []int
	err := p.unpack(func(name string) (io.WriteCloser, error) {
		fd, err := unix.MemfdCreate(name, unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
		if errors.Is(err, unix.EINVAL) { // before Linux 6.3
			fd, err = unix.MemfdCreate(name, unix.MFD_ALLOW_SEALING)
		}
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		sealed = append(sealed, fd)
		path := "/proc/self/fd/" + strconv.Itoa(fd)
		at[name] = path
		if name != Loader && name != Program && name != Library {
			preload = append(preload, path)
		}
		return memory(fd), nil
	})
	if err != nil {
		return cause(err)
	}
	for _, fd := range sealed {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	env := os.Environ()
	if os.Getenv("PICKET_ONNXRUNTIME") == "" {
		env = append(env, "PICKET_ONNXRUNTIME="+at[Library])
	}
	// There is no folder to search: the libraries are loaded first, and found by the names inside them.
	return run(at[Loader], []string{"--library-path", "/proc/self/fd", "--preload", strings.Join(preload, ":")}, at[Program], env)
}

// memory is a file that stays open when it is closed: it has no other name.
type memory int

func (m memory) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n, err := unix.Write(int(m), p[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, &os.PathError{Op: "write", Path: "memory", Err: err}
		}
		done += n
	}
	return len(p), nil
}

func (memory) Close() error { return nil }

// cause takes path and operation off an error that is about to be told with a path.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
