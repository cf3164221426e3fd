package onefile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A compression is a program, as build.sh calls it, and what undoes its work.
type compression struct {
	Decompression
	command []string
}

var (
	byXZ   = compression{XZ, []string{"xz", "--check=crc32", "--x86", "--lzma2=dict=8MiB"}}
	byZstd = compression{Zstd, []string{"zstd", "-q", "-19"}}
)

// packed packs a folder of a few files and opens the result.
func packed(t *testing.T, content string) (*pack, []byte) { return packedBy(t, byXZ, content) }

func packedBy(t *testing.T, c compression, content string) (*pack, []byte) {
	t.Helper()
	if _, err := exec.LookPath(c.command[0]); err != nil {
		if os.Getenv("CI_REQUIRE_XZ") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", c.command[0])
	}
	folder := t.TempDir()
	for name, data := range map[string]string{Loader: "loader", Program: content, Library: strings.Repeat("library ", 100_000), Library + ".sha256": "no"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := Write(&out, strings.NewReader("launcher"), folder, c.command...); err != nil {
		t.Fatal(err)
	}
	p, err := reopen(t, c, out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return p, out.Bytes()
}

func reopen(t *testing.T, c compression, data []byte) (*pack, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "picket")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return open(f, c.Decompression)
}

// ownFolder is a folder that only this user can write to.
func ownFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := private(dir, false); err != nil {
		t.Fatalf("the tests' temporary folder will not do: %v", err)
	}
	return dir
}

func TestUnpackedOnceAndMended(t *testing.T) {
	p, _ := packed(t, "program")
	place := ownFolder(t)
	dir, err := p.in(place)
	if err != nil {
		t.Fatal(err)
	}
	program, elsewhere := filepath.Join(dir, Program), filepath.Join(ownFolder(t), "files")
	before, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.in(place); again != dir || err != nil {
		t.Errorf("the second time: %q, %v", again, err)
	}
	if after, err := os.Stat(program); err != nil || !os.SameFile(before, after) {
		t.Errorf("unpacked twice: %v", err)
	}
	for name, damage := range map[string]func() error{
		"a bit":           func() error { return os.WriteFile(program, []byte("prograM"), 0o755) },
		"cut":             func() error { return os.Truncate(program, 3) },
		"gone":            func() error { return os.Remove(program) },
		"a link":          func() error { return errors.Join(os.Remove(program), os.Symlink("/bin/sh", program)) },
		"others write":    func() error { return os.Chmod(program, 0o777) },
		"not executable":  func() error { return os.Chmod(program, 0o444) },
		"a file, no more": func() error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644)) },
		// A folder of files that is a link, or that others may write to, is not used.
		"a linked folder":            func() error { return errors.Join(os.Rename(dir, elsewhere), os.Symlink(elsewhere, dir)) },
		"others write there":         func() error { return os.Chmod(dir, 0o777) },
		"others write there, sticky": func() error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"others write, sticky":       func() error { return os.Chmod(program, 0o777|os.ModeSticky) },
	} {
		if err := os.Chmod(program, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if p.check(dir) == nil {
			t.Errorf("%s: not noticed", name)
		}
		if _, err := p.in(place); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(program); string(got) != "program" || err != nil {
			t.Errorf("%s: not mended: %q, %v", name, got, err)
		}
		if err := p.check(dir); err != nil {
			t.Errorf("%s: not mended: %v", name, err)
		}
	}
	if left, err := os.ReadDir(place); len(left) != 1 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTogether(t *testing.T) {
	p, _ := packed(t, "program")
	place := ownFolder(t)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			dir, err := p.in(place)
			if err != nil {
				t.Error(err)
			} else if err := p.check(dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(place); len(left) != 1 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A new version deletes an old one, but not while that runs, and nothing else.
func TestTidy(t *testing.T) {
	place := ownFolder(t)
	if err := os.WriteFile(filepath.Join(place, "notes"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	old, _ := packed(t, "old")
	dir, err := old.in(place) // and keeps its lock, as a running program does
	if err != nil {
		t.Fatal(err)
	}
	stale, _ := packed(t, "stale")
	if err := stale.replace(place, filepath.Join(place, stale.id)); err != nil {
		t.Fatal(err)
	}
	// What a kill left, and what somebody unpacks into.
	killed, busy := filepath.Join(place, ".new-killed"), filepath.Join(place, ".new-busy")
	half := filepath.Join(place, strings.Repeat("0", len(old.id)))
	if err := errors.Join(os.MkdirAll(filepath.Join(killed, "fresh"), 0o700), os.Mkdir(busy, 0o700), os.Mkdir(half, 0o755)); err != nil {
		t.Fatal(err)
	}
	unpacking, err := lock(busy, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer unpacking.Close()
	fresh, _ := packed(t, "new")
	if _, err := fresh.in(place); err != nil {
		t.Fatal(err)
	}
	if err := old.check(dir); err != nil {
		t.Errorf("the one that runs: %v", err)
	}
	if _, err := os.Stat(filepath.Join(place, stale.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the one that does not run: %v", err)
	}
	for _, dir := range []string{killed, half} {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what a kill left, %s: %v", dir, err)
		}
	}
	if _, err := os.Stat(busy); err != nil {
		t.Errorf("what somebody unpacks into: %v", err)
	}
	// Not only when it unpacks: the one that ran at the upgrade has ended.
	if err := stale.replace(place, filepath.Join(place, stale.id)); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.in(place); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(place, stale.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the one that ended since: %v", err)
	}
	if _, err := os.Stat(filepath.Join(place, "notes")); err != nil {
		t.Error(err)
	}
}

func TestPrivate(t *testing.T) {
	dir := ownFolder(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "mine")
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, below} {
		if err := private(d, true); err == nil || !strings.Contains(err.Error(), "others can write to "+dir) {
			t.Errorf("%s: %v", d, err)
		}
	}
	p, _ := packed(t, "program")
	if _, err := p.in(below); err == nil {
		t.Error("unpacked where others can write")
	}
	// Sticky, as /tmp is: what lies in it will do, and it itself will not.
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := p.in(below); err != nil {
		t.Errorf("below a sticky folder: %v", err)
	}
	if _, err := p.in(filepath.Join(dir, "new")); err != nil {
		t.Errorf("a new folder below a sticky one: %v", err)
	}
	if _, err := p.in(dir); err == nil {
		t.Error("unpacked into a sticky folder")
	}
}

// Where it may not unpack it leaves nothing.
func TestNoTrace(t *testing.T) {
	p, _ := packed(t, "program")
	place := ownFolder(t)
	if err := os.Chmod(place, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := p.in(filepath.Join(place, ".cache/picket")); err == nil {
		t.Error("unpacked where others can write")
	}
	if left, err := os.ReadDir(place); len(left) != 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPlaces(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/home/user/.cache")
	t.Setenv("CACHE_DIRECTORY", "/given")
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("TMPDIR", "/tmp")
	for euid, want := range map[int][]string{
		0:    {"/given/program", "/var/cache/picket/program", "/home/user/.cache/picket", "/tmp/picket-0"},
		1000: {"/given/program", "/home/user/.cache/picket", "/var/cache/picket/program", "/tmp/picket-1000"},
	} {
		if got := places(euid); !slices.Equal(got, want) {
			t.Errorf("user %d: %q, want %q", euid, got, want)
		}
	}
}

// Whoever can read the files can lock them, and is not to keep others from starting.
func TestLockedByAnother(t *testing.T) {
	p, _ := packed(t, "program")
	place := ownFolder(t)
	if err := p.replace(place, filepath.Join(place, p.id)); err != nil {
		t.Fatal(err)
	}
	held, err := lock(filepath.Join(place, p.id, Loader), unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := p.in(place)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits")
	}
	held.Close()
}

// Whatever byte is changed: the files come out as they went in, or not at all.
func TestDamaged(t *testing.T) {
	for _, c := range []compression{byXZ, byZstd} {
		t.Run(c.command[0], func(t *testing.T) {
			_, whole := packedBy(t, c, "program")
			unpack := func(data []byte) (map[string]*memoryFile, error) {
				files := map[string]*memoryFile{}
				p, err := reopen(t, c, data)
				if err != nil {
					return nil, err
				}
				return files, p.unpack(func(name string) (io.WriteCloser, error) {
					files[name] = new(memoryFile)
					return files[name], nil
				})
			}
			want, err := unpack(whole)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) != 3 || want[Program].String() != "program" || want[Library].Len() != 800_000 {
				t.Fatalf("unpacked %d files, %v", len(want), want[Program])
			}
			for _, n := range []int{0, 3, trailerLen, len(whole) / 2, len(whole) - 1} {
				if _, err := unpack(whole[:n]); err == nil {
					t.Errorf("cut to %d bytes of %d: accepted", n, len(whole))
				}
			}
			for i := len("launcher"); i < len(whole); i++ {
				data := bytes.Clone(whole)
				data[i] ^= 0x10
				got, err := unpack(data)
				if err != nil {
					continue
				}
				for name := range want {
					if got[name] == nil || got[name].String() != want[name].String() {
						t.Errorf("byte %d of %d changed: another %s", i, len(whole), name)
					}
				}
			}
		})
	}
}

type memoryFile struct{ bytes.Buffer }

func (*memoryFile) Close() error { return nil }

func TestManifestNames(t *testing.T) {
	p, whole := packed(t, "program")
	start := int64(len("launcher")) + p.data.Size()
	for _, name := range []string{"../x", "/etc/x", ".", "..", "a/b"} {
		line := fmt.Sprintf("%064x 0 %s\n", 0, name)
		data := append(append(bytes.Clone(whole[:start]), line...), whole[len(whole)-trailerLen:]...)
		sum := sha256.Sum256([]byte(line))
		copy(data[len(data)-trailerLen+16:], sum[:])
		if _, err := reopen(t, byXZ, data); !errors.Is(err, errDamaged) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
