package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is the directory of a queue; tests have one in memory that loses what was
// not synced.
type disk interface {
	List() (names []string, err error)
	Open(name string, flag int) (file, error) // flag as of os.OpenFile
	Rename(from, to string) error
	Remove(name string) error
	Sync() error     // makes creations, renames and removals durable
	Capacity() int64 // of the file system, in bytes; 0: unknown
	Close() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
}

var errLocked = errors.New("another process has it open")

// directory is a disk on a file system. It is locked as long as it is open.
type directory struct {
	root *os.Root // so that all happens in the directory that was looked at
	dir  *os.File // for the lock and for Sync
}

// openDirectory makes the directory path if need be. sync is syncDirectory.
func openDirectory(path string, sync func(string) error) (d *directory, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeDirectory(path, sync); err != nil {
		return nil, err
	}
	d = &directory{}
	if d.root, err = os.OpenRoot(path); err != nil {
		return nil, err
	}
	if d.dir, err = d.root.Open("."); err != nil {
		d.root.Close()
		return nil, err
	}
	if err = private(path, d.dir); err == nil {
		// The lock is on the directory, not on a file in it, so that a queue on a
		// file system that went read-only can still be opened.
		if err = lock(d.dir); err != nil {
			err = fmt.Errorf("lock %s: %w", path, err)
		}
	}
	if err != nil {
		d.dir.Close()
		d.root.Close()
		return nil, err
	}
	return d, nil
}

// makeDirectory makes path and what is missing above it, all of it durable: also
// what another made a moment ago, of which nobody can tell whether it was synced.
func makeDirectory(path string, sync func(string) error) error {
	var above []string
	missing := 0
	for child := path; child != filepath.Dir(child); child = filepath.Dir(child) {
		if _, err := os.Stat(child); errors.Is(err, fs.ErrNotExist) {
			missing++
		}
		above = append(above, filepath.Dir(child))
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for i, dir := range above {
		// A directory that was there may not be ours to open, or be of a kind that
		// cannot be synced.
		if err := sync(dir); err != nil && i < missing && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (d *directory) List() ([]string, error) {
	dir, err := d.root.Open(".") // d.dir is at its end after the first time
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d *directory) Open(name string, flag int) (file, error) {
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *directory) Rename(from, to string) error { return d.root.Rename(from, to) }
func (d *directory) Remove(name string) error     { return d.root.Remove(name) }
func (d *directory) Sync() error                  { return d.dir.Sync() }
func (d *directory) Capacity() int64              { return capacity(d.dir) }

func (d *directory) Close() error {
	unlock(d.dir)
	return errors.Join(d.dir.Close(), d.root.Close())
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
