package spool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,"+options); err != nil {
		if os.Getenv("CI_REQUIRE_ROOT") != "" {
			t.Fatal(err)
		}
		t.Skipf("mounting a small tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// A real file system without room: what is there can be read, what does not fit
// is refused and never half there, and then there is room again.
func TestNoSpace(t *testing.T) {
	for _, sync := range []Sync{SyncAlways, SyncEverySecond} {
		t.Run(sync.String(), func(t *testing.T) {
			mount := mountTmpfs(t, "size=192k")
			dir := filepath.Join(mount, "queue")
			q := openTest(t, dir, Config{Sync: sync})
			other := filepath.Join(mount, "other")
			if err := os.WriteFile(other, make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			n := uint64(0)
			for {
				seq, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 700), nil })
				if errors.Is(err, syscall.ENOSPC) {
					t.Log(err)
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				n = seq
			}
			if n < 100 {
				t.Errorf("only %d fit", n)
			}
			if err := q.Stats().Err; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("stats say %v", err)
			}
			q.Close()
			q = openTest(t, dir, Config{Sync: sync})
			equal(t, "full", drain(t, q, 700), upTo(1, n))
			if _, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 4200), nil }); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("append: %v", err)
			}
			if err := os.Remove(other); err != nil {
				t.Fatal(err)
			}
			q.retry.at = q.lastSync // not in a second
			add(t, q, 50, 700)
			if err := q.Stats().Err; err != nil {
				t.Errorf("stats say %v", err)
			}
			q.Close()
			q = openTest(t, dir, Config{Sync: sync})
			equal(t, "then", drain(t, q, 700), upTo(1, n+50))
			q.Close()
		})
	}
}

// A real file system smaller than the queue may be: the oldest go.
func TestNoSpaceDrops(t *testing.T) {
	mount := mountTmpfs(t, "size=4m")
	if err := os.WriteFile(filepath.Join(mount, "other"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	q := openTest(t, filepath.Join(mount, "queue"), Config{})
	if n := q.Stats().MaxBytes; n != 2<<20 {
		t.Errorf("at most %d bytes", n)
	}
	add(t, q, 3000, 700)
	st := q.Stats()
	got := drain(t, q, 700)
	if len(got) < 800 {
		t.Fatalf("%d left", len(got))
	}
	equal(t, "left", got, upTo(got[0], 3000))
	if want := []Gap{{1, got[0] - 1, Full}}; !slices.Equal(st.Gaps, want) || st.Err != nil {
		t.Errorf("stats %+v, want gaps %v", st, want)
	}
}

// What is planted in a directory is not written through, and one that others can
// write is refused.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, newName)); err != nil {
		t.Fatal(err)
	}
	refused := func(want string) {
		t.Helper()
		if q, err := Open(dir, Config{}); err == nil {
			q.Close()
			t.Errorf("opened, want %s", want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, mode := range []os.FileMode{0o777, 0o770, 0o777 | os.ModeSticky, 0o702} {
		os.Chmod(dir, mode)
		refused("chmod go-w " + dir)
	}
	os.Chmod(dir, 0o755)
	if os.Geteuid() == 0 {
		os.Chown(dir, 65534, 65534)
		refused("chown -R 0 " + dir)
		os.Chown(dir, 0, 0)
	} else if os.Getenv("CI_REQUIRE_ROOT") != "" {
		t.Fatal("a directory of another user needs root")
	}
	q := openTest(t, dir, Config{})
	add(t, q, 1, 0)
	if b, err := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("the victim is now %d bytes, %v", len(b), err)
	}
	equal(t, "left", drain(t, q, 0), upTo(1, 1))
}

// A file system that has gone read-only, as ext4 does after errors.
func TestReadOnly(t *testing.T) {
	mount := mountTmpfs(t, "size=1m")
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", mount, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if _, err := Open(filepath.Join(mount, "queue"), Config{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("open where nothing is: %v", err)
	}
	remount(0)
	q := openTest(t, mount, Config{})
	add(t, q, 5, 0)
	q.Close()
	remount(syscall.MS_RDONLY)
	q = openTest(t, mount, Config{})
	if err := q.Stats().Err; !errors.Is(err, syscall.EROFS) {
		t.Errorf("stats say %v before an event comes", err)
	}
	equal(t, "read-only", drain(t, q, 0), upTo(1, 5))
	_, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 0), nil })
	if !errors.Is(err, syscall.EROFS) {
		t.Errorf("append: %v", err)
	}
	t.Log(err)
	remount(0)
	q.retry.at = q.lastSync
	add(t, q, 1, 0)
	equal(t, "writable again", drain(t, q, 0), upTo(6, 6))
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}
