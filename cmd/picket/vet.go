package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"aead.dev/minisign"
	"golang.org/x/sys/unix"

	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/models"
	"github.com/picket-ids/picket/runtime/onnx"
)

const (
	maxModel = 64 << 20 // octets of a file, what onnx.Parse takes
	// vetTime is what the child may take of the processor. Bundled models take 0.1 s on amd64.
	vetTime = 10 * time.Second
	// vetWait is what it may take by the clock: on a busy board it may wait for the processor for long.
	vetWait = time.Minute
	// vetData is the writable memory that the child may map beyond what it has when it has read the model, in octets, beside
	// 8 times the model. The bundled models need 48 MiB (ONNX Runtime 1.21, amd64), a network of 56 MiB less than 256.
	vetData = 128 << 20
)

// vetting is what a model from outside the binary passes before ONNX Runtime sees it in this process:
// the signature, the structural check, and a child process with limits that loads it and re-runs its golden rows. All
// of them see the same octets, which are read once. Its zero value loads unsigned models.
type vetting struct {
	key     *minisign.PublicKey // who must have signed it; nil: nobody
	library string              // ONNX Runtime for the child; empty: look for one
	picket  string              // program that is the child; empty: this one
	timeout time.Duration       // of the child; 0: vetWait
}

// newVetting returns the vetting that flags ask for; an empty key asks for no signature.
func newVetting(key, library string) (*vetting, error) {
	v := &vetting{library: library}
	if key == "" {
		return v, nil
	}
	var err error
	v.key, err = parseKey(key)
	return v, err
}

// open returns a model that is fit to run here: a bundled one of that name, else the one in the file.
func (v *vetting) open(ctx context.Context, name string) (*onnx.Model, error) {
	m, data, err := v.read(name)
	if err != nil {
		return nil, err
	}
	if err := features.Check(features.RowKind(m.Row), m.Features); err != nil {
		return nil, fmt.Errorf("open model %s: %w", name, err)
	}
	if bundled(name) {
		return m, nil
	}
	if err := v.run(ctx, data, m.SHA256); err != nil {
		return nil, fmt.Errorf("open model %s: %w", name, err)
	}
	return m, nil
}

// bundled says whether a model of this name is in the binary. A path, or a name with an ending, never is.
func bundled(name string) bool {
	return !strings.ContainsAny(name, "/.") && slices.Contains(models.Names(), name)
}

// read returns a model that is signed, if it must be, and whose structure is sound; and its octets.
func (v *vetting) read(name string) (*onnx.Model, []byte, error) {
	if bundled(name) {
		data, err := models.Read(name)
		if err != nil {
			return nil, nil, err
		}
		m, err := onnx.Parse(data, name)
		return m, data, err
	}
	data, err := readFile(name, maxModel+1)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("open model %s: %w; bundled models: %s", name, err, strings.Join(models.Names(), ", "))
	}
	if err == nil && v.key != nil {
		_, err = verifyFile(*v.key, data, name+signatureSuffix)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open model %s: %w", name, err)
	}
	m, err := onnx.Parse(data, name)
	return m, data, err
}

// readFile reads up to most octets of a regular file: what else there is could block for ever.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, withoutPath(err)
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	var b bytes.Buffer // as large as the file: one that grows would take twice its octets
	b.Grow(int(min(st.Size(), most)) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(f, most))
	return b.Bytes(), withoutPath(err)
}

// withoutPath takes operation and path off an error that is about to say both.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// vetArgs are the arguments that make picket the child; the library follows. Not in the help: it is for run.
var vetArgs = []string{"model", "vet", "--onnxruntime"}

// run has a child process load the model and score with it.
func (v *vetting) run(ctx context.Context, data []byte, sum string) error {
	library, err := onnx.FindLibrary(v.library)
	if err != nil {
		return err
	}
	said, err := v.child(ctx, library, data)
	refused, isRefused := strings.CutPrefix(said, "refused: ")
	crashed := new(crash)
	switch {
	case err != nil && !errors.As(err, &crashed):
		return err
	case err == nil && said == "good: "+sum:
		return nil
	case isRefused && strings.Contains(refused, "bad_alloc"):
		return fmt.Errorf("it wants more memory than the %d MiB that it is tried with: %s", vetMemory(len(data))>>20, refused)
	case isRefused:
		return errors.New(refused)
	}
	// A library that cannot run here crashes with any model.
	if err := new(vetting).tryLibrary(ctx, library); err != nil {
		return fmt.Errorf("load ONNX Runtime %s: %w", library, err)
	}
	if err != nil {
		return fmt.Errorf("the model crashed ONNX Runtime (%w)", crashed)
	}
	return fmt.Errorf("try it in a process of its own: the child answers %.40q, which is not picket's answer", said)
}

// openLibrary loads ONNX Runtime after a child process has loaded it and scored with it: a build for a newer processor
// would end this process by a signal.
func openLibrary(ctx context.Context, library string) (*onnx.Library, error) {
	return onnx.OpenLibrary(library, func(path string) error { return new(vetting).tryLibrary(ctx, path) })
}

// tryLibrary says whether the library runs on this machine. Where the child cannot be started, or is killed because
// memory is short, nothing speaks against the library.
func (v *vetting) tryLibrary(ctx context.Context, path string) error {
	data, err := models.Read(models.Default)
	if err != nil {
		return err
	}
	said, err := v.child(ctx, path, data)
	crashed := new(crash)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &crashed) && crashed.signal != syscall.SIGKILL:
		return fmt.Errorf("it cannot run here (%w): %s", crashed, onnx.CrashRemedy())
	case errors.Is(err, errSlow):
		return fmt.Errorf("it cannot run here: %w", err)
	case err != nil || strings.HasPrefix(said, "good: "):
		return nil
	}
	if refused, ok := strings.CutPrefix(said, "refused: "); ok {
		return errors.New(strings.TrimPrefix(refused, "load ONNX Runtime "+path+": "))
	}
	return fmt.Errorf("it cannot run here (it ends the process without an error): %s", onnx.CrashRemedy())
}

// child has a child process load the library, then the model, and score with it. It returns the line that the child
// answers; a *crash when there is none.
func (v *vetting) child(ctx context.Context, library string, data []byte) (said string, err error) {
	limit := cmp.Or(v.timeout, vetWait)
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// The kernel kills the child with the thread that started it, which must live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	program, before := onnx.Self()
	if v.picket != "" {
		program, before = v.picket, nil
	}
	cmd := exec.CommandContext(timed, program, slices.Concat(before, vetArgs, []string{library})...)
	cmd.Env = []string{"GOMAXPROCS=1", "GOTRACEBACK=none"}
	if path := os.Getenv("LD_LIBRARY_PATH"); path != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+path)
	}
	var answer, words head
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &answer, &words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for what holds its output open beyond its end
	err = cmd.Run()
	said, _, _ = strings.Cut(answer.String(), "\n")
	exit := new(exec.ExitError)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case timed.Err() != nil:
		return "", fmt.Errorf("%w than %v", errSlow, limit)
	case strings.HasPrefix(said, "refused: "):
		return said, nil
	case errors.As(err, &exit):
		return "", newCrash(exit, words.String())
	case err != nil:
		return "", fmt.Errorf("try it in a process of its own: %w", err)
	}
	return said, nil
}

var errSlow = errors.New("loading and test scoring took longer")

// A crash is the end of a child that gave no answer.
type crash struct {
	signal syscall.Signal // 0: it ended by itself
	text   string
}

func (c *crash) Error() string { return c.text }

// goSignal finds the signal in what Go says of a crash in C code, which it ends with an exit status of its own.
var goSignal = regexp.MustCompile(`(?m)^(?:\[signal )?(SIG[A-Z]+): ([a-z ]+)`)

func newCrash(exit *exec.ExitError, words string) *crash {
	status, ok := exit.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return &crash{syscall.SIGKILL, fmt.Sprintf("signal: killed: exceeded %v of CPU time or the memory limit", vetTime)}
	}
	if m := goSignal.FindStringSubmatch(words); m != nil {
		return &crash{unix.SignalNum(m[1]), "signal: " + m[2]}
	}
	if ok && status.Signaled() {
		return &crash{status.Signal(), exit.String()}
	}
	return &crash{0, exit.String()}
}

// head keeps the first octets that are written to it and drops the rest.
type head struct{ kept []byte }

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), 16<<10-len(h.kept))]...)
	return len(p), nil
}

func (h *head) String() string { return string(h.kept) }

// vet is the child: it reads a model from standard input and says what it found in one line on standard output.
func vet(_ context.Context, args []string, std stdio) (int, error) {
	fs := modelFlagSet("vet", std)
	library := fs.String("onnxruntime", "", "ONNX Runtime library to use")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	sum, err := try(std.in, *library)
	if err != nil {
		fmt.Fprintf(std.out, "refused: %s\n", oneLine(err))
		return exitError, nil
	}
	fmt.Fprintf(std.out, "good: %s\n", sum)
	return exitNothing, nil
}

// try limits this process for good, then loads a model and scores with it. It returns the model's SHA-256.
func try(in io.Reader, library string) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxModel+1))
	if err != nil {
		return "", err
	}
	if err := limitProcess(vetMemory(len(data))); err != nil {
		return "", fmt.Errorf("limit the process that tries it: %w", err)
	}
	m, err := onnx.Parse(data, "-")
	if err != nil {
		return "", err
	}
	lib, err := onnx.OpenLibrary(library, nil)
	if err != nil {
		return "", err
	}
	s, err := onnx.OpenSession(lib, m)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := s.CheckGolden(m.Golden); err != nil {
		return "", err
	}
	return m.SHA256, tryBatch(s, m)
}

// tryBatch scores a full batch of the golden rows, and of rows at the ends of what a float holds: whatever the
// wire brings, a score may be wrong, but scoring may not fail.
func tryBatch(s *onnx.Session, m *onnx.Model) error {
	var rows []float32
	golden := min(len(m.Golden.Rows), onnx.MaxBatch-4)
	for _, row := range m.Golden.Rows[:golden] {
		rows = append(rows, row...)
	}
	for _, x := range []float32{0, -1, math.MaxFloat32, -math.MaxFloat32} {
		rows = append(rows, slices.Repeat([]float32{x}, len(m.Features))...)
	}
	for len(rows) < onnx.MaxBatch*len(m.Features) {
		rows = append(rows, m.Typical...)
	}
	scores := make([]float32, onnx.MaxBatch)
	if err := s.Score(rows, scores); err != nil {
		return err
	}
	for i, want := range m.Golden.Scores[:golden] {
		if d := math.Abs(float64(scores[i] - want)); !(d <= 1e-5) {
			return fmt.Errorf("model %s, golden row %d: scores %.7f among other rows, %.7f alone", m.Name, i+1, scores[i], want)
		}
	}
	return nil
}

// vetMemory is what the child may map for a model of so many octets.
func vetMemory(size int) uint64 { return vetData + 8*uint64(size) }

// limitProcess takes from this process, for good, what no model needs; it may map so many octets more than it
// does now. RLIMIT_AS would not do: Go and the C library reserve gigabytes that they never touch.
func limitProcess(data uint64) error {
	// If memory runs out the kernel is to end this process, not the one that watches the wire.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var size, resident, shared, text, lib, pages uint64
	if _, err := fmt.Sscan(string(b), &size, &resident, &shared, &text, &lib, &pages); err != nil {
		return err
	}
	for _, l := range []struct {
		what int
		most uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, 0},
		{unix.RLIMIT_NOFILE, 64},
		{unix.RLIMIT_CPU, uint64(vetTime / time.Second)},
		{unix.RLIMIT_DATA, pages*uint64(os.Getpagesize()) + data},
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.what, &now); err != nil {
			return err
		}
		most := min(l.most, now.Max)
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return err
		}
	}
	return nil
}
