package spool

import (
	"errors"
	"fmt"
	"io"
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
	Sync() error // makes creations, renames and removals durable
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
	path string
	dir  *os.File // for the lock and for Sync
}

func openDirectory(path string) (*directory, error) {
	_, err := os.Stat(path)
	absent := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if absent {
		if parent, err := os.Open(filepath.Dir(path)); err == nil {
			err = parent.Sync()
			parent.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// The lock is on the directory, not on a file in it, so that a queue on a
	// file system that went read-only can still be opened.
	if err := lock(dir); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &directory{path, dir}, nil
}

func (d *directory) List() ([]string, error) {
	entries, err := os.ReadDir(d.path)
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
	f, err := os.OpenFile(filepath.Join(d.path, name), flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *directory) Rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *directory) Remove(name string) error { return os.Remove(filepath.Join(d.path, name)) }
func (d *directory) Sync() error              { return d.dir.Sync() }

func (d *directory) Close() error {
	unlock(d.dir)
	return d.dir.Close()
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
