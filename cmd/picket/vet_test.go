package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/picket-ids/picket/models"
	"github.com/picket-ids/picket/runtime/onnx"
)

// The test program is the child of a vetting, and what a test makes of one.
func init() {
	if len(os.Args) < 2 || os.Args[1] == "model" && (len(os.Args) < 3 || os.Args[2] != "vet") {
		return
	}
	switch os.Args[1] {
	case "model":
		main()
	case "crash": // as C code does: it ends in Go's signal handler
		syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	case "limits":
		if err := limitProcess(vetData); err != nil {
			fmt.Println(err)
		}
		b, _ := os.ReadFile("/proc/self/limits")
		os.Stdout.Write(b)
		os.Exit(0)
	case "vetting": // of the model, by the stand-in, that follow
		v := vetting{library: os.Args[2], picket: os.Args[3]}
		_, err := v.open(context.Background(), os.Args[4])
		fmt.Println(err)
		os.Exit(0)
	}
}

// script writes a stand-in for picket as the child. $PICKET in it is the test program.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "child")
	text = fmt.Sprintf("#!/bin/sh\nPICKET='%s'\n%s\n", executable(t), text)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// bundledModel returns the file of a bundled model.
func bundledModel(t *testing.T, name string) []byte {
	t.Helper()
	b, err := models.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const small = "nslkdd-autoencoder" // the bundled model whose golden rows reach every weight

func TestVetting(t *testing.T) {
	needLibrary(t)
	for _, name := range models.Names() {
		data := bundledModel(t, name)
		m, err := new(vetting).open(t.Context(), write(t, "model.onnx", data))
		if err != nil {
			t.Error(err)
			continue
		}
		in, err := (&vetting{picket: "/nonexistent"}).open(t.Context(), name) // needs no child
		if err != nil || in.SHA256 != m.SHA256 || in.Name != name {
			t.Errorf("%s: bundled: %v", name, err)
		}
	}
}

// TestVettingRefuses holds what the structural check lets through and the child refuses.
func TestVettingRefuses(t *testing.T) {
	needLibrary(t)
	good := bundledModel(t, small)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		path string
		want string
	}{
		{"golden score", write(t, "m", edited(t, good, "scores", 1)), "golden row 1: scores 0."},
		{"golden row", write(t, "m", edited(t, good, "rows", 1)), "golden row "},
		{"memory", write(t, "m", bomb(t, good, "Concat", 24)), "it wants more memory than the 256 MiB that it is tried with"},
		{"structure", write(t, "m", bytes.Replace(good, []byte("MatMul"), []byte("NatMul"), 1)), "not an operator that a model may use"},
		{"feature", write(t, "m", bytes.ReplaceAll(good, []byte(`"srv_count"`), []byte(`"srv_cuont"`))), `"srv_cuont"`},
		{"cut", write(t, "m", good[:len(good)/2]), "open model "},
		{"empty", write(t, "m", nil), "open model "},
		{"directory", t.TempDir(), "not a regular file"},
		{"fifo", fifo, "not a regular file"},
		{"device", "/dev/zero", "not a regular file"},
		{"too large", write(t, "m", make([]byte, maxModel+1)), "larger than 64 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := new(vetting).open(t.Context(), tt.path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// edited returns a model with a digit of its golden rows or scores changed.
func edited(t *testing.T, model []byte, field string, n int) []byte {
	t.Helper()
	golden := bytes.Index(model, []byte("picket.golden"))
	at := bytes.Index(model[golden:], []byte(`"`+field+`"`))
	if golden < 0 || at < 0 {
		t.Fatal("no golden rows")
	}
	at += golden + len(field) + 3
	for at < len(model) {
		if c := model[at]; c >= '1' && c <= '8' {
			model = bytes.Clone(model)
			model[at] = '9'
			return model
		}
		at += n
	}
	t.Fatal("no digit to change")
	return nil
}

// bomb adds to a model a constant of 16 MiB, and n nodes that each apply op to what the one before gave, twice.
func bomb(t *testing.T, model []byte, op string, n int) []byte {
	t.Helper()
	field := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	number := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	name := func(i int) []byte { return fmt.Appendf(nil, "bomb%d", i) }
	var attributes []byte
	if op == "Concat" {
		attributes = field(5, slices.Concat(field(1, []byte("axis")), number(3, 0), number(20, 2)))
	}
	extra := field(5, slices.Concat(number(1, 2048), number(1, 2048), number(2, 1), field(8, name(0)), field(9, make([]byte, 16<<20))))
	for i := range n {
		extra = append(extra, field(1, slices.Concat(field(1, name(i)), field(1, name(i)), field(2, name(i+1)), field(4, []byte(op)), attributes))...)
	}
	dim := field(1, field(2, []byte("n")))
	extra = append(extra, field(12, slices.Concat(field(1, name(n)), field(2, field(1, slices.Concat(number(1, 1), field(2, slices.Concat(dim, dim)))))))...)
	return inGraph(t, model, extra)
}

// rewrite returns a model with another value in the place of each field that change gives one for.
func rewrite(t *testing.T, model []byte, change func(num protowire.Number, value []byte) []byte) []byte {
	t.Helper()
	var out []byte
	for len(model) > 0 {
		num, typ, n := protowire.ConsumeTag(model)
		all := n + protowire.ConsumeFieldValue(num, typ, model[max(n, 0):])
		if n < 0 || all < n {
			t.Fatal("not a model")
		}
		value, _ := protowire.ConsumeBytes(model[n:all])
		if other := change(num, value); other != nil {
			out = protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), other)
		} else {
			out = append(out, model[:all]...)
		}
		model = model[all:]
	}
	return out
}

// inGraph adds fields to the graph of a model.
func inGraph(t *testing.T, model, extra []byte) []byte {
	t.Helper()
	return rewrite(t, model, func(num protowire.Number, graph []byte) []byte {
		if num != 7 {
			return nil
		}
		return append(slices.Clip(graph), extra...)
	})
}

// withProperty returns a model with another value of a metadata property.
func withProperty(t *testing.T, model []byte, key, value string) []byte {
	t.Helper()
	old := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	return rewrite(t, model, func(num protowire.Number, property []byte) []byte {
		if num != 14 || !bytes.Contains(property, old) {
			return nil
		}
		return protowire.AppendString(protowire.AppendTag(slices.Clip(old), 2, protowire.BytesType), value)
	})
}

// TestModelText checks that what a model says of itself does not reach the terminal as a command.
func TestModelText(t *testing.T) {
	needLibrary(t)
	model := bundledModel(t, small)
	const evil = "x\x1b]0;owned\a\u009b2J\nplant-7 1: good."
	model = withProperty(t, model, "picket.name", evil)
	model = withProperty(t, model, "picket.version", evil)
	model = withProperty(t, model, "picket.training", "{\n  \"data\": \"x\u009b2J\x7f\"\n}")
	check := good(t, "model", "check", write(t, "m.onnx", model))
	m, err := onnx.Parse(model, "")
	if err != nil {
		t.Fatal(err)
	}
	m.Features[0] = evil
	var b strings.Builder
	if err := showModel(m, false, stdio{out: &b}); err != nil {
		t.Fatal(err)
	}
	show := b.String()
	for verb, out := range map[string]string{"check": check, "show": show} {
		if strings.ContainsAny(strings.ReplaceAll(out, "\n", ""), "\a\x1b\x7f\u009b") || !strings.HasPrefix(out, "x?]0;owned??2J?plant-7 1: good. x?]0;") {
			t.Errorf("%s: %q", verb, out)
		}
	}
	if lines := strings.Count(check, "\n"); lines != 5 {
		t.Errorf("check: %d lines: %q", lines, check)
	}
	if !strings.Contains(show, `{"data":"x?2J?"}`+"\n") || strings.Count(show, "\n") != 9+len(m.Features) {
		t.Errorf("show: %q", show)
	}
}

// TestModelsPage trains, checks and runs the model of docs/models.md as the page tells, and compares what it tells.
func TestModelsPage(t *testing.T) {
	needLibrary(t)
	python, err := filepath.Abs("../../build/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		if os.Getenv("CI_REQUIRE_VENV") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: make build/venv/done", err)
	}
	page, err := os.ReadFile("../../docs/models.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(begin string) string {
		_, text, _ := strings.Cut(string(page), begin)
		text, _, found := strings.Cut(text, "```\n")
		if !found {
			t.Fatalf("no block on the page that begins with %q", begin)
		}
		return text
	}
	library, err := onnx.FindLibrary("")
	if err == nil {
		library, err = filepath.Abs(library)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(onnx.EnvLibrary, library)
	dir := t.TempDir()
	for _, name := range []string{"scan.pcap.gz", "brute.pcap.gz", "benign.pcap.gz"} {
		b, err := os.ReadFile("../../testdata/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	good(t, strings.Fields(block("```console\n$ picket "))...)
	if out, err := exec.Command(python, "-c", block("```python\n")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	told, _, _ := strings.Cut(block("$ picket model check plant-7.onnx\n"), ", ONNX Runtime")
	if out := good(t, "model", "check", "plant-7.onnx"); !strings.HasPrefix(out, told) {
		t.Errorf("the page says %s\ncheck %s", told, out)
	}
	told = block("$ picket scan brute.pcap.gz --model plant-7.onnx --model-key plant.pub\n")
	if _, out, stderr := picket(t, nil, "scan", "brute.pcap.gz", "--model", "plant-7.onnx"); out != told {
		t.Errorf("the page says\n%s\nscan\n%s%s", told, out, stderr)
	}
}

// compile makes a library that does what body says when it is loaded.
func compile(t *testing.T, path, body string) {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc to make libraries with")
	}
	cmd := exec.Command(gcc, "-shared", "-fPIC", "-o", path, "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <fcntl.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\n" +
		"__attribute__((constructor)) static void load(void) { " + body + "; }\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestLibraryThatCannotRun loads libraries that end the process which loads them: picket survives and says what to do.
func TestLibraryThatCannotRun(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"for a newer processor", "raise(SIGILL)", "it cannot run here (signal: illegal instruction"},
		{"aborts", "abort()", "it cannot run here (signal: abort"},
		{"ends the process", "_exit(0)", "it cannot run here (it ends the process without an error)"},
		{"ends the process and fails", "_exit(3)", "it cannot run here (exit status 3)"},
		{"is something else", "0", "a shared library, but not ONNX Runtime"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "libonnxruntime.so")
			compile(t, path, tt.body)
			for _, args := range [][]string{
				{"scan", "../../testdata/benign.pcap.gz"},
				{"model", "check", write(t, "m.onnx", bundledModel(t, small))}, // the model is not to blame
			} {
				// A process of its own: the test's has a library already.
				picket := exec.Command(executable(t), append(args, "--onnxruntime", path)...)
				picket.Env = append(os.Environ(), asPicket+"=1")
				out, err := picket.CombinedOutput()
				if picket.ProcessState == nil || picket.ProcessState.ExitCode() != exitError {
					t.Errorf("%q: %v", args, err)
				}
				text := strings.ReplaceAll(string(out), "\n", " ")
				if !strings.Contains(text, "load ONNX Runtime "+path+": "+tt.want) || !strings.Contains(text, onnx.EnvLibrary) {
					t.Errorf("%q says %s", args, out)
				}
			}
		})
	}
}

// TestLibraryThatHangs tells run to end while a child tries a library that never comes back: it ends at once.
func TestLibraryThatHangs(t *testing.T) {
	dir := t.TempDir()
	path, mark := filepath.Join(dir, "libonnxruntime.so"), filepath.Join(dir, "tried")
	compile(t, path, fmt.Sprintf("creat(%q, 0600); for (;;) pause()", mark))
	picket := exec.Command(executable(t), "run", "-i", "lo", "--json", "--state-dir", dir, "--onnxruntime", path)
	picket.Env = append(os.Environ(), asPicket+"=1")
	var out bytes.Buffer
	picket.Stdout, picket.Stderr = &out, &out
	if err := picket.Start(); err != nil {
		t.Fatal(err)
	}
	defer picket.Process.Kill()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("the library is not tried")
		}
	}
	picket.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- picket.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v: %s", err, out.String())
		}
	case <-time.After(vetWait / 2):
		t.Error("it waits for the library")
	}
}

// TestVettingChild holds what becomes of a child that goes wrong.
func TestVettingChild(t *testing.T) {
	needLibrary(t)
	path := write(t, "m.onnx", bundledModel(t, small))
	for _, tt := range []struct {
		name, script, want string
	}{
		{"hangs", "exec sleep 1000", "longer than 300ms"},
		{"hangs with children", "sleep 1000 & sleep 1000", "longer than 300ms"},
		{"reads and hangs", "cat >/dev/null; exec sleep 1000", "longer than 300ms"},
		{"floods", "exec yes", "longer than 300ms"},
		{"floods the other", "exec yes >&2", "longer than 300ms"},
		{"crashes", "kill -SEGV $$", "the model crashed ONNX Runtime (signal: segmentation fault"},
		{"crashes in Go's hands", `exec "$PICKET" crash`, "the model crashed ONNX Runtime (signal: segmentation violation)"},
		{"is killed", "kill -KILL $$", "the model crashed ONNX Runtime (signal: killed: exceeded 10s of CPU time"},
		{"ends", "exit 7", "the model crashed ONNX Runtime (exit status 7)"},
		{"says nothing", "exit 0", "not picket's answer"},
		{"speaks of another model", "echo good: 0123456789", "not picket's answer"},
		{"refuses", "echo 'refused: it is ugly'; exit 2", "it is ugly"},
		{"good but fails", `"$PICKET" "$@"; kill -BUS $$`, "the model crashed ONNX Runtime (signal: bus error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := vetting{picket: script(t, tt.script), timeout: 300 * time.Millisecond}
			if !strings.Contains(tt.want, "longer") {
				v.timeout = 0
			}
			_, err := v.open(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := (&vetting{picket: "/nonexistent"}).open(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&vetting{picket: script(t, "exec sleep 1000")}).open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestVettingEndless checks that a model which computes for hours does not.
func TestVettingEndless(t *testing.T) {
	needLibrary(t)
	path := write(t, "m.onnx", bomb(t, bundledModel(t, small), "MatMul", 2000))
	_, err := (&vetting{timeout: 300 * time.Millisecond}).open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), "took longer than 300ms") {
		t.Error(err)
	}
}

// TestVettingLeavesNothing checks that the end of a vetting is the end of the child and of its children, and that the end
// of the process that vets is the end of the child.
func TestVettingLeavesNothing(t *testing.T) {
	needLibrary(t)
	lib, err := onnx.FindLibrary("")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "m.onnx", bundledModel(t, small))
	fifo := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// Who lives holds the fifo open for writing: reading ends when nobody does.
	open := func() *os.File {
		fd, err := syscall.Open(fifo, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), fifo)
	}
	here := make([]byte, 5)
	awaitHere := func(f *os.File) {
		for n := 0; n == 0; runtime.Gosched() { // a fifo that nobody has opened yet is at its end
			n, _ = f.Read(here)
		}
	}
	alive := open()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		awaitHere(alive)
		cancel()
	}()
	v := vetting{picket: script(t, "exec 9>"+fifo+"; echo here >&9; sleep 1000 & sleep 1000")}
	if _, err := v.open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if b, err := io.ReadAll(alive); len(b) != 0 || err != nil { // blocks while one lives
		t.Errorf("%q, %v", b, err)
	}
	alive.Close()

	alive = open()
	defer alive.Close()
	cmd := exec.Command(executable(t), "vetting", lib, script(t, "exec 9>"+fifo+"; echo here >&9; exec sleep 1000"), path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitHere(alive)
	cmd.Process.Kill()
	cmd.Wait()
	if b, err := io.ReadAll(alive); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestVettingLimits(t *testing.T) {
	out, err := exec.Command(executable(t), "limits").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 4 {
			got[strings.Join(f[:3], " ")] = strings.Join(f[3:5], " ")
		}
	}
	for what, want := range map[string]string{
		"Max cpu time": "10 10", "Max file size": "0 0", "Max core file": "size 0", "Max open files": "64 64",
	} {
		if got[what] != want {
			t.Errorf("%s is %q, want %q", what, got[what], want)
		}
	}
	var soft, hard uint64
	if _, err := fmt.Sscan(got["Max data size"], &soft, &hard); err != nil || soft != hard || hard < vetData {
		t.Errorf("Max data size is %q, want %d and more: %v", got["Max data size"], vetData, err)
	}
}

// TestVettingReadsOnce checks that what is loaded is what was vetted, whatever becomes of the file.
func TestVettingReadsOnce(t *testing.T) {
	needLibrary(t)
	good := bundledModel(t, small)
	path, other := write(t, "m.onnx", good), write(t, "other.onnx", bundledModel(t, "nslkdd-xgboost"))
	v := vetting{picket: script(t, fmt.Sprintf(`cp %s %s; exec "$PICKET" "$@"`, other, path))}
	m, err := v.open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := onnx.Parse(good, "")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); bytes.Equal(b, good) {
		t.Fatal("the stand-in has not replaced the file")
	}
	if m.SHA256 != want.SHA256 {
		t.Errorf("loaded %s, which was not vetted", m.Name)
	}
	opened, closeAll, err := sessions(t.Context(), "", []*onnx.Model{m}, 0)
	defer closeAll()
	if err != nil {
		t.Fatal(err)
	}
	if err := opened[0].Scorer.(*onnx.Session).CheckGolden(want.Golden); err != nil {
		t.Error(err)
	}
}

// variant returns the model with one to three places damaged as files are: bits, octets, runs of octets.
func variant(model []byte, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 5))
	b := bytes.Clone(model)
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b[at] = byte(r.Uint32())
		case 1:
			b = slices.Delete(b, at, min(len(b), at+1+r.IntN(8)))
		case 2:
			b = slices.Insert(b, at, byte(r.Uint32()))
		case 3:
			copy(b[at:], b[r.IntN(len(b)):][:1])
		default:
			b[at] ^= 1 << r.IntN(8)
		}
	}
	return b
}

// mixed returns n rows whose values come from any of the golden rows.
func mixed(g onnx.Golden, n int) (rows []float32) {
	r := rand.New(rand.NewPCG(1, 1))
	for range n {
		for column := range g.Rows[0] {
			rows = append(rows, g.Rows[r.IntN(len(g.Rows))][column])
		}
	}
	return rows
}

// TestVettingVariants damages models in many ways: none may end this process, and what loads scores the rows
// that the undamaged model promises as it does. It counts what becomes of them for docs/models.md.
func TestVettingVariants(t *testing.T) {
	needLibrary(t)
	n := uint64(500)
	if testing.Short() {
		n = 60
	}
	lib, err := onnx.OpenLibrary("", nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{small, "nslkdd-xgboost"}
	var good []*onnx.Model
	var data [][]byte
	var rows, want [][]float32
	for _, name := range names {
		data = append(data, bundledModel(t, name))
		m, err := onnx.Parse(data[len(data)-1], name)
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, m)
		s, err := onnx.OpenSession(lib, m)
		if err != nil {
			t.Fatal(err)
		}
		x, scores := mixed(m.Golden, 2000), make([]float32, 2000)
		if err := s.Score(x, scores); err != nil {
			t.Error(err)
		}
		s.Close()
		rows, want = append(rows, x), append(want, scores)
	}
	dir := t.TempDir()
	var mu sync.Mutex
	counts := map[string]int{}
	next, work := make(chan uint64), sync.WaitGroup{}
	for range 2 {
		work.Go(func() {
			for seed := range next {
				which := seed % uint64(len(names))
				path := filepath.Join(dir, fmt.Sprintf("%d.onnx", seed))
				b := variant(data[which], seed)
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Error(err)
				}
				m, err := new(vetting).open(t.Context(), path)
				what := "refused by the structure"
				_, unsound := onnx.Parse(b, path)
				switch {
				case err == nil:
					what = "loaded"
				case unsound == nil && strings.Contains(err.Error(), "crashed"):
					what = "crashed the child"
				case unsound == nil:
					what = "refused by the child"
				}
				if err == nil {
					if s, err := onnx.OpenSession(lib, m); err != nil {
						t.Errorf("seed %d: vetted, but %v", seed, err)
					} else {
						if err := s.CheckGolden(good[which].Golden); err != nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						scores := make([]float32, len(want[which]))
						if err := s.Score(rows[which], scores); err != nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						if !slices.Equal(scores, want[which]) {
							what = "loaded, scores some rows otherwise"
						}
						s.Close()
					}
				}
				mu.Lock()
				counts[names[which]+" "+what]++
				mu.Unlock()
			}
		})
	}
	for seed := range n {
		next <- seed
	}
	close(next)
	work.Wait()
	t.Log(counts)
	if counts[small+" refused by the child"] == 0 || counts[small+" loaded"]+counts[small+" loaded, scores some rows otherwise"] == 0 {
		t.Errorf("the variants are too tame or too wild: %v", counts)
	}
}

// TestSessionsShareModels checks that several goroutines score with sessions of the same models.
func TestSessionsShareModels(t *testing.T) {
	needLibrary(t)
	flags := modelFlags{names: []string{small, write(t, "m.onnx", bundledModel(t, "nslkdd-xgboost"))}, threshold: 0.75}
	if got := flags.unsigned(); len(got) != 1 || got[0] != flags.names[1] {
		t.Errorf("unsigned %q", got)
	}
	loaded, err := flags.load(t.Context())
	if err != nil || len(loaded) != 2 {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for range 3 {
		work.Go(func() {
			opened, closeAll, err := sessions(t.Context(), "", loaded, flags.threshold)
			if err != nil {
				t.Error(err)
				return
			}
			for i, d := range opened {
				if err := d.Scorer.(*onnx.Session).CheckGolden(loaded[i].Golden); err != nil || d.Threshold != 0.75 || d.SHA256 != loaded[i].SHA256 {
					t.Error(err, d.Threshold, d.SHA256)
				}
			}
			if n := badScores(opened); n > 0 {
				t.Errorf("%d bad scores", n)
			}
			closeAll()
			closeAll()
		})
	}
	work.Wait()
}
