package onnx

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// EnvLibrary is the environment variable that names the ONNX Runtime library to use.
const EnvLibrary = "PICKET_ONNXRUNTIME"

const (
	minMinor = 21 // ONNX Runtime 1.21: the C API level that onnxruntime_go v1.19.0 asks for
	wayOut   = "install libonnxruntime1.21 (Debian 13 or newer) or set " + EnvLibrary + " to a libonnxruntime.so of version 1.21 or newer"
)

// ErrNoLibrary says that ONNX Runtime is not installed; the error that wraps it names the way out.
var ErrNoLibrary = errors.New("no ONNX Runtime library")

// A Library is ONNX Runtime, loaded into this process. Any number of sessions and goroutines may use it.
type Library struct {
	Path    string
	Version string // its own, such as 1.21.0

	noisy bool // it writes to standard error when the first session is made
}

// loaded is the one library of the process. It is never unloaded: nothing is gained by it, and C++ libraries are
// not written for it.
var loaded struct {
	sync.Mutex
	*Library
}

// OpenLibrary finds ONNX Runtime as FindLibrary does, checks the file and loads it. The first library that loads
// stays for the life of the process; later calls return it, or an error if they name another one. try, unless nil,
// is asked just before the file is loaded whether it runs on this machine: a library that does not ends the process.
// After an error a new call tries again. The error for a library that is absent is an ErrNoLibrary.
func OpenLibrary(path string, try func(path string) error) (*Library, error) {
	loaded.Lock()
	defer loaded.Unlock()
	if loaded.Library != nil && (path == "" || path == loaded.Path) {
		return loaded.Library, nil
	}
	path, err := FindLibrary(path)
	if err != nil {
		return nil, err
	}
	if loaded.Library != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: this process already uses %s", path, loaded.Path)
	}
	noisy, err := checkLibrary(path)
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: %w", path, err)
	}
	if try != nil {
		if err := try(path); err != nil {
			return nil, fmt.Errorf("load ONNX Runtime %s: %w", path, err)
		}
	}
	if !strings.Contains(path, "/") {
		path = "./" + path // dlopen looks a bare name up elsewhere
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: %w: %s", path, loadCause(err), wayOut)
	}
	loaded.Library = &Library{Path: path, Version: ort.GetVersion(), noisy: noisy}
	return loaded.Library, nil
}

// CrashRemedy says what to do about a library that ends the process which loads it. ONNX Runtime on ARM reads what
// the processors are, and crashes where it may not.
func CrashRemedy() string {
	if strings.HasPrefix(runtime.GOARCH, "arm") {
		for file, remedy := range map[string]string{
			"/sys/devices/system/cpu/possible": "mount /sys",
			"/proc/cpuinfo":                    "mount /proc, and in a systemd unit leave out ProcSubset=pid",
		} {
			if b, err := os.ReadFile(file); err != nil || len(b) == 0 {
				return fmt.Sprintf("it needs %s: %s", file, remedy)
			}
		}
	}
	return "use the library that picket is packed with, or set " + EnvLibrary + " to another build, of version 1.22 or newer"
}

// loadCause takes out of what the wrapper says the part that helps.
func loadCause(err error) error {
	s := err.Error()
	if strings.HasSuffix(s, "Error setting ORT API base: 2") {
		return fmt.Errorf("older than 1.%d", minMinor)
	}
	if strings.Contains(s, "OrtGetApiBase") {
		return errors.New("a shared library, but not ONNX Runtime")
	}
	if _, said, ok := strings.Cut(s, `": `); ok { // the dynamic loader's own words
		return errors.New(said)
	}
	return err
}

// FindLibrary says which ONNX Runtime to load, without loading it: the file given; else the one that
// PICKET_ONNXRUNTIME names; else one beside the executable, in lib beside it or in ../lib/picket; else one in
// LD_LIBRARY_PATH or the system's usual folders. The dynamic loader's own search is left out: what it finds
// could not be checked before it is loaded.
func FindLibrary(path string) (string, error) {
	from := ""
	if path == "" {
		path, from = os.Getenv(EnvLibrary), " (from "+EnvLibrary+")"
	}
	if path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w at %s%s: %w: %s", ErrNoLibrary, path, from, cause(err), wayOut)
		}
		return path, nil
	}
	for _, dir := range libraryDirs() {
		if f := libraryIn(dir); f != "" {
			return f, nil
		}
	}
	return "", fmt.Errorf("%w: %s", ErrNoLibrary, wayOut)
}

// libraryIn is the library in a folder, or "": the development link, the soname, else the newest version that will do.
func libraryIn(dir string) string {
	for _, name := range []string{"libonnxruntime.so", "libonnxruntime.so.1"} {
		f := filepath.Join(dir, name)
		if i, err := os.Stat(f); err == nil && i.Mode().IsRegular() {
			return f
		}
	}
	best, newest := "", minMinor-1
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		v, ok := strings.CutPrefix(e.Name(), "libonnxruntime.so.1.")
		v, _, _ = strings.Cut(v, ".")
		if n, err := strconv.Atoi(v); ok && err == nil && n > newest && !strings.HasSuffix(e.Name(), ".sha256") {
			best, newest = filepath.Join(dir, e.Name()), n
		}
	}
	return best
}

func libraryDirs() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		dirs = append(dirs, dir, filepath.Join(dir, "lib"), filepath.Join(dir, "..", "lib", "picket"))
	}
	dirs = append(dirs, filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))...)
	multiarch := map[string]string{
		"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf", "riscv64": "riscv64-linux-gnu",
	}[runtime.GOARCH]
	return append(dirs, "/usr/local/lib", filepath.Join("/usr/lib", multiarch), "/usr/lib64", "/usr/lib")
}

// checkLibrary refuses a file that must not be loaded: a truncated library kills the process with SIGBUS. A file
// FILE.sha256 beside it, as the build and the packages leave it, must hold its hash; in any case
// it must be a whole shared library for this machine. noisy says that it is a build against the shared
// libonnx, as Debian's is, which registers its operators twice and says so 567 times.
func checkLibrary(path string) (noisy bool, err error) {
	if err := checkHash(path); err != nil {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, cause(err)
	}
	e, err := elf.NewFile(f)
	if err != nil || len(e.Progs) == 0 {
		return false, errors.New("not a shared library, or damaged: reinstall it")
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM, "riscv64": elf.EM_RISCV}
	if want, ok := machine[runtime.GOARCH]; ok && e.Machine != want || e.Type != elf.ET_DYN {
		return false, fmt.Errorf("built for %s, this program for %s", strings.TrimPrefix(e.Machine.String(), "EM_"), runtime.GOARCH)
	}
	size := uint64(info.Size())
	for _, p := range e.Progs {
		if p.Filesz > size || p.Off > size-p.Filesz {
			return false, errors.New("truncated: reinstall it")
		}
	}
	for _, s := range e.Sections {
		if s.Type != elf.SHT_NOBITS && (s.FileSize > size || s.Offset > size-s.FileSize) {
			return false, errors.New("truncated: reinstall it")
		}
	}
	if v := symbolVersion(e); v >= 0 && v < minMinor {
		return false, fmt.Errorf("version 1.%d is older than 1.%d: %s", v, minMinor, wayOut)
	}
	needed, err := e.ImportedLibraries()
	if err != nil {
		return false, errors.New("damaged: reinstall it")
	}
	return slices.ContainsFunc(needed, func(s string) bool { return strings.HasPrefix(s, "libonnx.so") }), nil
}

// symbolVersion is the minor version that ONNX Runtime's symbols carry (21 for VERS_1.21.0), -1 if they do not.
func symbolVersion(e *elf.File) int {
	versions, _ := e.DynamicVersions()
	for _, v := range versions {
		if minor, ok := strings.CutPrefix(v.Name, "VERS_1."); ok {
			minor, _, _ = strings.Cut(minor, ".")
			if n, err := strconv.Atoi(minor); err == nil {
				return n
			}
		}
	}
	return -1
}

// checkHash compares a file with the SHA-256 in FILE.sha256 beside it, if there is one.
func checkHash(path string) error {
	line, err := os.ReadFile(path + ".sha256")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	want, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	f, err := os.Open(path)
	if err != nil {
		return cause(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return cause(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("damaged: its SHA-256 is %.12s…, %s.sha256 says %.12s…: reinstall it", got, filepath.Base(path), want)
	}
	return nil
}
