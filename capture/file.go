package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
)

const (
	// maxRecord bounds the captured octets of one frame: MAXIMUM_SNAPLEN of
	// libpcap and tcpdump.
	maxRecord = 262144
	// maxWire bounds the bytes of a frame on the wire. Segmentation offload makes
	// frames of 512 KiB at most.
	maxWire = 16 << 20
	// bufSize is all the memory a File needs to hold frames, whatever it reads.
	bufSize = 1 << 20
	// readSize is how much of it is used unless a block is larger: what stays
	// in the processor's cache is decoded faster.
	readSize = 256 << 10
)

// ErrCut is wrapped by the error of Next when the capture ends inside a record,
// as it does after a power cut or when the capturing program was killed. All
// records before it were read.
var ErrCut = errors.New("capture cut off")

// File is a Source that reads pcap and pcapng, plain or compressed by gzip. It
// needs about 1 MiB of memory whatever the file claims, and allocates nothing
// per frame. It is not safe for concurrent use.
//
// Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
type File struct {
	name string
	own  io.Closer // what Close closes, nil for a reader of the caller's
	in   counter   // the file itself
	size int64
	src  io.Reader // in, decompressed

	buf  []byte
	r, w int   // buf[r:w] is read but not consumed
	base int64 // offset of buf[0] in src
	at   int64 // offset of the current record in src

	next func(*File, *Frame) error
	err  error // sticky
	odd  OddRecords
	swap bool // the file is big-endian

	// pcap
	link  LinkType
	unit  int64 // nanoseconds per unit of the fraction
	minor uint16

	// pcapng
	ifaces   []iface // of the current section
	ifaceOff int     // interfaces of the sections before it
	last     int64   // time of the last frame that had one
}

// OpenFile opens a capture file. Its errors name what is wrong with the file.
func OpenFile(path string) (*File, error) {
	h, err := os.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("open capture %s: %w", path, err)
	}
	f, err := NewFile(h, path)
	if err != nil {
		h.Close()
		return nil, err
	}
	f.own = h
	return f, nil
}

// NewFile returns a File that reads a capture from r, standard input for
// example; name stands for r in errors. It waits for the file header, later
// calls of Next for no more than their record. Close leaves r open.
func NewFile(r io.Reader, name string) (*File, error) {
	f := &File{name: name, in: counter{r: r}}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("open capture %s: %w", name, err)
	}
	return f, nil
}

// OddRecords counts the records with a field that cannot be, but whose end is known. Where
// a record ends is told by the captured length alone in pcap, and by the length that
// leads and ends a block in pcapng; what is wrong in another field is wrong in that record
// alone, so the reading goes on behind it.
type OddRecords struct {
	// Corrected frames were read. A length on the wire above 16 MiB was replaced by
	// the captured one, a fraction of a second that is a second or more by the end of
	// that second.
	Corrected uint64
	Skipped   uint64 // pcapng: what is captured, or of which interface, cannot be
	First     int64  // byte of the decompressed data at which the first of both begins
}

// Odd returns the counts so far.
func (f *File) Odd() OddRecords { return f.odd }

// noteOdd adds one to count, which is one of f.odd, for the current record.
func (f *File) noteOdd(count *uint64) {
	if f.odd.Corrected+f.odd.Skipped == 0 {
		f.odd.First = f.at
	}
	*count++
}

// Close ends the reading. It may be called twice.
func (f *File) Close() error {
	f.err = fmt.Errorf("read %s: %w", f.name, fs.ErrClosed)
	own := f.own
	f.own = nil
	if own == nil {
		return nil
	}
	return own.Close()
}

// Next implements Source. At the end of a capture that was cut it returns an
// error that wraps ErrCut; any other error names the octet (of the decompressed
// data) at which the file is damaged. The frames before either are sound.
// Errors are final: Next repeats them.
func (f *File) Next(fr *Frame) error {
	if f.err != nil {
		return f.err
	}
	if err := f.next(f, fr); err != nil {
		f.err = err
		return err
	}
	return nil
}

// Progress returns the octets read so far and the size of the file, both
// compressed if the file is; size is 0 when it is not known, as of a pipe.
func (f *File) Progress() (read, size int64) { return f.in.n, f.size }

func (f *File) open() error {
	if s, ok := f.in.r.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if st, err := s.Stat(); err == nil {
			if st.IsDir() {
				return errors.New("is a directory; name the capture files in it")
			}
			if st.Mode().IsRegular() {
				f.size = st.Size()
			}
		}
	}
	// Read of a bufio.Reader goes straight to its source once what was peeked
	// at is consumed, so it costs a plain file nothing.
	br := bufio.NewReaderSize(&f.in, 32<<10)
	f.src = br
	head, err := br.Peek(4)
	if len(head) == 0 {
		if err == io.EOF {
			return errors.New("empty file: not even a header was written; capture again")
		}
		return err
	}
	if bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		if f.src, err = gzip.NewReader(br); err != nil {
			return headerError(err)
		}
	}
	f.buf = make([]byte, bufSize)
	if err := f.need(4); err != nil {
		return headerError(err)
	}
	if bytes.Equal(f.buf[:4], []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		return f.openNG()
	}
	return f.openPcap()
}

// headerError is the error of a file whose header cannot be read.
func headerError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, ErrCut) {
		return errors.New("ends within its header; copy it again or capture again")
	}
	return err
}

// foreign says what a file is that starts with head and is no capture.
func foreign(head []byte) error {
	for _, k := range []struct{ magic, is string }{
		{"\xa1\xb2\xcd\x34", "modified pcap (Kuznetzov's header)" + convert},
		{"\x34\xcd\xb2\xa1", "modified pcap (Kuznetzov's header)" + convert},
		{"\xa1\xb2\x34\xcd", "modified pcap (Mesquita's header)" + convert},
		{"\xcd\x34\xb2\xa1", "modified pcap (Mesquita's header)" + convert},
		{"\xa1\x2b\x3c\x4d", "modified pcap (Navtel's header)" + convert},
		{"\x4d\x3c\x2b\xa1", "modified pcap (Navtel's header)" + convert},
		{"\x1c\x00\x01\xac", "modified pcap (Ixia's header)" + convert},
		{"\xac\x01\x00\x1c", "modified pcap (Ixia's header)" + convert},
		{"\x1c\x00\x01\xab", "modified pcap (Ixia's header)" + convert},
		{"\xab\x01\x00\x1c", "modified pcap (Ixia's header)" + convert},
		{"snoop", "a snoop capture" + convert},
		{"GMBU", "a Network Monitor capture" + convert},
		{"RTSS", "a Network Monitor capture" + convert},
		{"\x1f\x8b", "gzip twice over; decompress it once with gunzip"},
		{"\x28\xb5\x2f\xfd", "compressed by zstd; decompress it with unzstd"},
		{"\xfd7zXZ", "compressed by xz; decompress it with unxz"},
		{"BZh", "compressed by bzip2; decompress it with bunzip2"},
		{"\x04\x22\x4d\x18", "compressed by lz4; decompress it with unlz4"},
		{"PK\x03\x04", "a zip archive; unpack it with unzip"},
	} {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return errors.New(k.is)
		}
	}
	return errors.New("not a capture; pcap and pcapng are read, plain or compressed by gzip")
}

const convert = "; convert it with: editcap -F pcap IN OUT"

// need makes n ≤ bufSize octets available at f.buf[f.r:]. It may move them,
// which ends the life of the last frame. It returns io.EOF at the start of a
// record only.
func (f *File) need(n int) error {
	if f.w-f.r >= n {
		return nil
	}
	return f.fill(n)
}

func (f *File) fill(n int) error {
	f.base += int64(f.r)
	f.w = copy(f.buf, f.buf[f.r:f.w])
	f.r = 0
	k, err := io.ReadAtLeast(f.src, f.buf[f.w:max(n, readSize)], n-f.w)
	f.w += k
	switch {
	case err == nil:
		return nil
	case err == io.EOF && f.base+int64(f.w) == f.at:
		return io.EOF
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return f.cut()
	}
	return fmt.Errorf("read %s: record at octet %d: %w; the packets before it were read", f.name, f.at, err)
}

// skip consumes n octets, however many they are.
func (f *File) skip(n int) error {
	for n > 0 {
		if err := f.need(1); err != nil {
			return err
		}
		k := min(n, f.w-f.r)
		f.r += k
		n -= k
	}
	return nil
}

func (f *File) cut() error {
	return fmt.Errorf("read %s: %w inside the record at octet %d; the packets before it were read", f.name, ErrCut, f.at)
}

// damaged is the error of a record that cannot be, in the words of what.
func (f *File) damaged(what string, args ...any) error {
	return fmt.Errorf("read %s: damaged at octet %d: %s; the packets before it were read",
		f.name, f.at, fmt.Sprintf(what, args...))
}

func (f *File) u16(b []byte) uint16 {
	v := binary.LittleEndian.Uint16(b)
	if f.swap {
		v = bits.ReverseBytes16(v)
	}
	return v
}

func (f *File) u32(b []byte) uint32 {
	v := binary.LittleEndian.Uint32(b)
	if f.swap {
		v = bits.ReverseBytes32(v)
	}
	return v
}

// counter counts what is read from r.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
