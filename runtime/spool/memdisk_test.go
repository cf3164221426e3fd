package spool

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// memDisk is a disk that knows what is durable: crash returns what a power cut
// could leave of it.
type memDisk struct {
	mu      sync.Mutex
	names   map[string]*inode
	durable map[string]*inode // as of the last Sync of the directory
	full    int64             // bytes that all files may have, 0: no limit
	total   int64             // that the file system says it has
	fail    func(op string) error
}

type inode struct {
	data   []byte
	synced []byte // as of the last Sync
	holes  []hole // what a Sync failed for, which no later one writes
	bad    []hole // what cannot be read
}

type hole struct{ from, to int64 }

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*inode{}, durable: map[string]*inode{}}
}

func (d *memDisk) failing(op string) error {
	if d.fail == nil {
		return nil
	}
	return d.fail(op)
}

func (d *memDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.names)), nil
}

func (d *memDisk) Open(name string, flag int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := "reopen"
	if flag != os.O_RDONLY {
		op = "open"
	}
	if err := d.failing(op); err != nil {
		return nil, err
	}
	n := d.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, fs.ErrNotExist
		}
		n = &inode{}
		d.names[name] = n
	} else if flag&os.O_EXCL != 0 {
		return nil, fs.ErrExist
	}
	if flag&os.O_TRUNC != 0 {
		n.data = nil
		n.forget(0)
	}
	return &memFile{d, n}, nil
}

func (d *memDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("rename"); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *memDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("remove"); err != nil {
		return err
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("syncdir"); err != nil {
		return err
	}
	d.durable = maps.Clone(d.names)
	return nil
}

func (d *memDisk) Capacity() int64 { return d.total }
func (d *memDisk) Close() error    { return nil }

func (d *memDisk) size() (n int64) {
	for _, f := range d.names {
		n += int64(len(f.data))
	}
	return n
}

type memFile struct {
	d *memDisk
	n *inode
}

var (
	errFull  = error(syscall.ENOSPC)
	errFault = errors.New("fault")
	errPower = errors.New("power is out") // nothing happens any more
)

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.failing("read"); err != nil {
		return 0, err
	}
	for _, h := range f.n.bad {
		if h.from < off+int64(len(b)) && off < h.to {
			return 0, syscall.EIO
		}
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.d.failing("write")
	if err == errPower {
		return 0, err
	}
	if err != nil {
		b = b[:rand.IntN(len(b)+1)] // a short write
	}
	if room := f.d.full - f.d.size(); f.d.full > 0 && int64(len(b)) > room {
		b, err = b[:max(room, 0)], errFull
	}
	if grow := off + int64(len(b)) - int64(len(f.n.data)); grow > 0 {
		f.n.data = append(f.n.data, make([]byte, grow)...)
	}
	f.n.forget(off)
	return copy(f.n.data[off:], b), err
}

func (f *memFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.failing("truncate"); err != nil {
		return err
	}
	f.n.data = f.n.data[:size]
	f.n.forget(size)
	return nil
}

func (n *inode) hole(i int) bool {
	for _, h := range n.holes {
		if h.from <= int64(i) && int64(i) < h.to {
			return true
		}
	}
	return false
}

// forget ends all holes at off, from where the file is written anew.
func (n *inode) forget(off int64) {
	for i := range n.holes {
		n.holes[i].to = min(n.holes[i].to, off)
		n.holes[i].from = min(n.holes[i].from, n.holes[i].to)
	}
}

// Sync, when it fails, leaves what Linux does: the data readable and not durable,
// and the next Sync content with that.
func (f *memFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.failing("sync"); err != nil {
		if err == errPower {
			return err
		}
		f.n.holes = append(f.n.holes, hole{int64(len(f.n.synced)), int64(len(f.n.data))})
		return err
	}
	f.n.synced = slices.Clone(f.n.data)
	for _, h := range f.n.holes {
		clear(f.n.synced[min(h.from, int64(len(f.n.synced))):min(h.to, int64(len(f.n.synced)))])
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Close() error { return nil }

// crash returns the disk after a power cut: each name is as it was or as it was
// at the last Sync, what was synced of a file is there, and the rest in part, cut
// off, or with pages that are zero or hold something else.
func (d *memDisk) crash(r *rand.Rand) *memDisk {
	after := newMemDisk()
	was := map[*inode]*inode{}
	// A directory operation is undone only with all later ones, as a journal does it,
	// or each for itself, as nothing forbids.
	from := d.names
	if r.IntN(2) == 0 {
		from = d.durable
	}
	each := r.IntN(2) == 0
	names := slices.Collect(maps.Keys(d.names))
	for name := range d.durable {
		if d.names[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if each {
			from = d.names
			if r.IntN(2) == 0 {
				from = d.durable
			}
		}
		n := from[name]
		if n == nil {
			continue
		}
		if was[n] == nil {
			was[n] = n.crash(r)
		}
		after.names[name] = was[n]
	}
	after.durable = maps.Clone(after.names)
	return after
}

func (n *inode) crash(r *rand.Rand) *inode {
	const page = 512 // smaller than real ones, for more of them
	data := slices.Clone(n.data)
	if len(data) < len(n.synced) { // a truncation that may not have come to the disk
		if r.IntN(2) == 0 {
			data = slices.Clone(n.synced)
		}
	}
	common := 0
	for common < len(data) && common < len(n.synced) && (data[common] == n.synced[common] || n.hole(common)) {
		common++
	}
	for _, h := range n.holes {
		if r.IntN(2) == 0 {
			clear(data[min(h.from, int64(common)):min(h.to, int64(common))])
		}
	}
	switch tail := data[common:]; r.IntN(5) {
	case 0:
		data = data[:common]
	case 1:
		data = data[:common+r.IntN(len(tail)+1)]
	case 2: // some pages
		for i := 0; i < len(tail); i += page {
			p := tail[i:min(i+page, len(tail))]
			switch r.IntN(3) {
			case 0:
				clear(p)
			case 1:
				for j := range p {
					p[j] = byte(r.Uint32())
				}
			}
		}
	case 3:
		for range r.IntN(2 * page) {
			data = append(data, byte(r.Uint32()))
		}
	}
	return &inode{data: data, synced: slices.Clone(data)}
}

func TestMemDiskCrash(t *testing.T) {
	d := newMemDisk()
	f, _ := d.Open("a", os.O_CREATE|os.O_RDWR)
	f.WriteAt([]byte("durable"), 0)
	f.Sync()
	d.Sync()
	f.WriteAt([]byte(" not"), 7)
	for seed := range uint64(50) {
		got := d.crash(rand.New(rand.NewPCG(seed, 1))).names["a"].data
		if string(got[:7]) != "durable" {
			t.Fatalf("seed %d: a synced file became %q", seed, got)
		}
	}
}
