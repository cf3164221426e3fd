package onnx

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestBefore(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		args int
		want []string
	}{
		"plain":       {"picket\x00version\x00", 2, nil},
		"by a loader": {"picket\x00--library-path\x00/lib\x00/lib/picket.bin\x00version\x00", 2, []string{"--library-path", "/lib", "/lib/picket.bin"}},
		"no argument": {"picket\x00/lib/picket.bin\x00", 1, []string{"/lib/picket.bin"}},
		"empty ones":  {"picket\x00/lib/picket.bin\x00\x00\x00", 3, []string{"/lib/picket.bin"}},
		"no /proc":    {"", 3, nil},
	} {
		if got := before([]byte(c.line), c.args); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A test binary that was started by the system's dynamic loader starts itself again by way of it.
func TestSelf(t *testing.T) {
	switch os.Getenv("ONNX_TEST_SELF") {
	case "outer":
		exe, args := Self()
		cmd := exec.Command(exe, append(args, "-test.run", "^TestSelf$")...)
		cmd.Env = append(os.Environ(), "ONNX_TEST_SELF=inner")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", exe, args, err, out)
		}
		os.Stdout.Write(out)
		return
	case "inner":
		os.Stdout.WriteString("here again\n")
		return
	}
	run := func(name string, args ...string) {
		cmd := exec.Command(name, append(args, "-test.run", "^TestSelf$")...)
		cmd.Env = append(os.Environ(), "ONNX_TEST_SELF=outer")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "here again\n") {
			t.Errorf("%s %q: %v: %s", name, args, err, out)
		}
	}
	run(os.Args[0])
	loader := interpreter(t)
	if loader == "" {
		t.Skip("the test binary is static")
	}
	run(loader, "--library-path", "/nonexistent", os.Args[0])
}

// interpreter is the dynamic loader that the running program names, "" if it is static.
func interpreter(t *testing.T) string {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				t.Fatal(err)
			}
			return string(bytes.TrimRight(b, "\x00"))
		}
	}
	return ""
}
