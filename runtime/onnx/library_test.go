package onnx

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFindLibrary(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	given, env := file("given.so"), file("env.so")
	t.Setenv(EnvLibrary, env)
	t.Setenv("LD_LIBRARY_PATH", "")

	if got, err := FindLibrary(given); got != given || err != nil {
		t.Errorf("with a path: %q, %v", got, err)
	}
	if got, err := FindLibrary(""); got != env || err != nil {
		t.Errorf("with the variable: %q, %v", got, err)
	}
	t.Setenv(EnvLibrary, filepath.Join(dir, "no.so"))
	_, err := FindLibrary("")
	if !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "no.so (from PICKET_ONNXRUNTIME): no such file or directory: install ") {
		t.Errorf("with a wrong variable: %v", err)
	}
	t.Setenv(EnvLibrary, "")
	t.Setenv("LD_LIBRARY_PATH", filepath.Join(dir, "lib"))
	for _, name := range []string{"libonnxruntime.so.1.9.0", "libonnxruntime.so.1.21", "libonnxruntime.so.1.23.2", "libonnxruntime.so.1.23.2.sha256", "libonnxruntime.so.1", "libonnxruntime.so"} {
		path := file("lib/" + name)
		if strings.HasSuffix(name, ".sha256") || strings.Contains(name, ".9") {
			continue
		}
		if got, err := FindLibrary(""); got != path && !besideTest(got) || err != nil {
			t.Errorf("in a folder: %q, %v, want %q", got, err, path)
		}
	}
}

// besideTest says that a library is where the test binary runs or installed, and so comes first.
func besideTest(path string) bool {
	exe, _ := os.Executable()
	return strings.HasPrefix(path, filepath.Dir(exe))
}

// A library that is cut short, changed or not one at all is refused before the dynamic loader sees it.
func TestOpenLibraryDamaged(t *testing.T) {
	testLibrary(t)
	whole, err := os.ReadFile(loaded.Path)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "libonnxruntime.so")
	foreign := bytes.Clone(whole)
	foreign[18], foreign[19] = byte(elf.EM_S390), 0 // e_machine
	for name, c := range map[string]struct {
		data []byte
		sum  string
		want string
	}{
		"empty":         {nil, "", "not a shared library"},
		"text":          {[]byte("version https://git-lfs\n"), "", "not a shared library"},
		"half a header": {whole[:40], "", "not a shared library"},
		"half":          {whole[:len(whole)/2], "", "reinstall"},
		"a byte short":  {whole[:len(whole)-1], "", "reinstall"},
		"other machine": {foreign, "", "built for S390, this program for "},
		"wrong hash":    {whole, strings.Repeat("0", 64) + "  libonnxruntime.so\n", "damaged: its SHA-256 is "},
		"empty hash":    {whole, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, c.data, 0o644); err != nil {
				t.Fatal(err)
			}
			os.Remove(path + ".sha256")
			if c.sum != "" {
				if err := os.WriteFile(path+".sha256", []byte(c.sum), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := checkLibrary(path)
			if c.want == "" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that contains %q", err, c.want)
			}
		})
	}
	os.Remove(path + ".sha256")
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	for cut := int64(len(whole)) - 1; cut > 0; cut -= int64(len(whole)) / 50 {
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
		if _, err := checkLibrary(path); err == nil {
			t.Errorf("accepted with %d bytes of %d", cut, len(whole))
		}
	}
}

func TestOpenLibraryOnce(t *testing.T) {
	lib := testLibrary(t)
	if !strings.HasPrefix(lib.Version, "1.") {
		t.Errorf("version %q", lib.Version)
	}
	for _, path := range []string{"", lib.Path} {
		if again, err := OpenLibrary(path, nil); again != lib || err != nil {
			t.Errorf("OpenLibrary(%q): %v, %v", path, again, err)
		}
	}
	if _, err := OpenLibrary(os.Args[0], nil); err == nil || !strings.Contains(err.Error(), "already uses") {
		t.Errorf("another one: %v", err)
	}
}

func TestWithoutSchemaErrors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	saved, err := syscall.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(saved)
	if err := syscall.Dup3(int(w.Fd()), 2, 0); err != nil {
		t.Fatal(err)
	}
	withoutSchemaErrors(func() {
		for i := range 2000 { // more than a pipe holds
			fmt.Fprintf(os.Stderr, "Schema error: Trying to register schema with name Operator%04d (domain: ai.onnx) version 1\n\n", i)
		}
		fmt.Fprintln(os.Stderr, "something else")
	})
	fmt.Fprintln(os.Stderr, "afterwards")
	syscall.Dup3(saved, 2, 0)
	w.Close()
	if got, err := io.ReadAll(r); string(got) != "something else\nafterwards\n" || err != nil {
		t.Errorf("standard error got %.200q, %v", got, err)
	}
}
