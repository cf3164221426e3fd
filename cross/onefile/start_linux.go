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
	"time"

	"golang.org/x/sys/unix"
)

// Main is the main of a launcher.
func Main(decompress Decompression) {
	fmt.Fprintln(os.Stderr, "picket:", Start(decompress))
	os.Exit(2)
}

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
	for _, place := range places(os.Geteuid()) {
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

// system is for root, who may become another user, and read a model there again that only this one may read.
const system = "/var/cache/picket/program"

// places are the folders to unpack into, best first: the package's own, what systemd gave to the service, for root the
// system's cache, the user's, the system's, temporary files.
func places(euid int) []string {
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
	if euid == 0 {
		dirs = append(dirs, system)
	}
	if dir, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "picket"))
	}
	if euid != 0 {
		dirs = append(dirs, system)
	}
	return append(dirs, filepath.Join(os.TempDir(), "picket-"+strconv.Itoa(euid)))
}

// in returns the folder below place that holds the files, checked; it unpacks them if need be. Any number of processes
// may do so at once: a folder appears whole, by rename. The folder stays locked while the program runs, which keeps the
// next version, when it tidies up, from deleting it.
func (p *pack) in(place string) (string, error) {
	if err := private(existing(place), true); err != nil { // or root would leave a folder in the home of another
		return "", err
	}
	if err := os.MkdirAll(place, 0o755); err != nil {
		return "", cause(err)
	}
	place, err := filepath.EvalSymlinks(place)
	if err != nil {
		return "", cause(err)
	}
	if err := private(place, false); err != nil {
		return "", err
	}
	dir := filepath.Join(place, p.id)
	for range 3 { // a second process may win, or mend, between two steps
		running := hold(dir)
		if p.check(dir) == nil {
			tidy(place, p.id)
			return dir, nil
		}
		running.Close()
		if err := p.replace(place, dir); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("the files in %s change while they are read", dir)
}

// existing is what there is of a path, without links.
func existing(path string) string {
	for {
		if real, err := filepath.EvalSymlinks(path); err == nil || path == filepath.Dir(path) {
			return real
		}
		path = filepath.Dir(path)
	}
}

// hold locks a folder for the time that the program runs. It goes on without the lock where it cannot have it soon:
// whoever may read a file may lock it, and is not to keep this from starting.
func hold(dir string) folder {
	for range 5 {
		f, err := lock(filepath.Join(dir, Loader), unix.LOCK_SH)
		if err == nil {
			unix.FcntlInt(uintptr(f), unix.F_SETFD, 0) // outlives exec
			return f
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(20 * time.Millisecond) // as long as somebody needs to tidy up
	}
	return -1
}

// replace unpacks into dir, out of which damaged files are moved first.
func (p *pack) replace(place, dir string) error {
	tmp, using, err := temporary(place)
	if err != nil {
		return cause(err)
	}
	defer using.Close()
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
	return nil
}

const unfinished = ".new-" // begins the name of a folder that is being unpacked into, and is locked meanwhile

// temporary makes such a folder. A process that tidies may delete it before it is locked.
func temporary(place string) (string, folder, error) {
	for range 10 {
		dir, err := os.MkdirTemp(place, unfinished)
		if err != nil {
			return "", -1, err
		}
		using, err := lock(dir, unix.LOCK_EX)
		if err == nil {
			if _, err = os.Lstat(dir); err == nil {
				return dir, using, nil
			}
			using.Close()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist) {
			os.Remove(dir)
			return "", -1, err
		}
	}
	return "", -1, fmt.Errorf("%s is tidied all the time", place)
}

// tidy deletes other versions than id that no process runs, and what a process left that was killed while it unpacked:
// flash is small.
func tidy(place, id string) {
	entries, _ := os.ReadDir(place)
	for _, e := range entries {
		dir := filepath.Join(place, e.Name())
		locked := dir
		if !strings.HasPrefix(e.Name(), unfinished) {
			if len(e.Name()) != len(id) || e.Name() == id || strings.Trim(e.Name(), "0123456789abcdef") != "" {
				continue
			}
			locked = filepath.Join(dir, Loader)
		}
		// Without the loader it is what a kill left of tidying up.
		if f, err := lock(locked, unix.LOCK_EX); err == nil || errors.Is(err, os.ErrNotExist) {
			os.RemoveAll(dir)
			f.Close()
		}
	}
}

// A folder is a lock on one, by its descriptor; negative: none.
type folder int

func (f folder) Close() {
	if f >= 0 {
		unix.Close(int(f))
	}
}

// lock locks a file or folder, or says that it is locked.
func lock(path string, how int) (folder, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Flock(fd, how|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return folder(fd), nil
}

// check reads every file of a folder and compares hashes, on all cores.
func (p *pack) check(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	if err := trusted(dir, info, false); err != nil {
		return err
	}
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
	if err := trusted(path, info, false); err != nil {
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
// A folder in which everybody may make files, but touch only their own, will do above it; as dir itself only with sticky.
func private(dir string, sticky bool) error {
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
		if err := trusted(path, info, sticky || path != dir); err != nil {
			return err
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

// trusted says why others than root and this user could change a file, or what is in a folder; with sticky it is enough
// that they cannot replace there what is not theirs.
func trusted(path string, info os.FileInfo, sticky bool) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user", path)
	}
	if info.Mode().Perm()&0o022 != 0 && !(sticky && info.Mode()&os.ModeSticky != 0) {
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
		switch name {
		case Loader, Program, Library, Licences:
		default:
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
