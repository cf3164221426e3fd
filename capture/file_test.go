package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

var le, be = binary.LittleEndian, binary.BigEndian

type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func words(o order, v ...uint32) (b []byte) {
	for _, v := range v {
		b = o.AppendUint32(b, v)
	}
	return b
}

func halves(o order, v ...uint16) (b []byte) {
	for _, v := range v {
		b = o.AppendUint16(b, v)
	}
	return b
}

func pcapHead(o order, magic, link uint32) []byte {
	return join(words(o, magic), halves(o, 2, 4), words(o, 0, 0, maxRecord, link))
}

// pcapRecord is a record of wire octets of which data was captured.
func pcapRecord(o order, sec, frac, wire uint32, data string) []byte {
	return join(words(o, sec, frac, uint32(len(data)), wire), []byte(data))
}

func block(o order, typ uint32, body ...[]byte) []byte {
	b := join(body...)
	b = append(b, make([]byte, -len(b)&3)...)
	size := uint32(len(b) + 12)
	return join(words(o, typ, size), b, words(o, size))
}

func shb(o order) []byte {
	return block(o, blockSection, words(o, byteOrderMagic), halves(o, 1, 0), words(o, math.MaxUint32, math.MaxUint32))
}

func idb(o order, link uint16, snaplen uint32, options ...[]byte) []byte {
	return block(o, blockInterface, halves(o, link, 0), words(o, snaplen), join(options...))
}

func option(o order, code uint16, value ...byte) []byte {
	return join(halves(o, code, uint16(len(value))), value, make([]byte, -len(value)&3))
}

func epb(o order, id uint32, ts uint64, wire uint32, data string) []byte {
	return block(o, blockEnhanced, words(o, id, uint32(ts>>32), uint32(ts), uint32(len(data)), wire), []byte(data))
}

func zip(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

type got struct {
	data  string
	time  int64
	wire  int
	link  LinkType
	iface int
}

// readAll returns the frames of f and the error that ended them, nil at the end.
func readAll(t testing.TB, f *File) (all []got, err error) {
	var fr Frame
	for {
		if err = f.Next(&fr); err != nil {
			break
		}
		if cap(fr.Data) != len(fr.Data) {
			t.Errorf("frame %d has room to append into the buffer", len(all))
		}
		all = append(all, got{string(fr.Data), fr.Time, fr.WireLen, fr.Link, fr.Interface})
	}
	if again := f.Next(&fr); again != err {
		t.Errorf("%v after %v", again, err)
	}
	if err == io.EOF {
		err = nil
	}
	return all, err
}

func TestFile(t *testing.T) {
	const s = int64(1e9)
	two := []got{{"first", 3*s + 7000, 60, 1, 0}, {"second", 4 * s, 6, 1, 0}}
	pcap := func(o order) []byte {
		return join(pcapHead(o, 0xa1b2c3d4, 1), pcapRecord(o, 3, 7, 60, "first"), pcapRecord(o, 4, 0, 6, "second"))
	}
	ng := func(o order) []byte {
		return join(shb(o), idb(o, 1, 0), epb(o, 0, 3000007, 60, "first"), epb(o, 0, 4000000, 6, "second"))
	}
	huge := bytes.Repeat([]byte("x"), maxRecord)
	for _, c := range []struct {
		name string
		data []byte
		want []got
		err  string // what its message holds; cut ones wrap ErrCut
	}{
		{"pcap, little-endian", pcap(le), two, ""},
		{"pcap, big-endian", pcap(be), two, ""},
		{"pcap, nanoseconds", join(pcapHead(le, 0xa1b23c4d, 1), pcapRecord(le, 3, 7, 60, "first")), []got{{"first", 3*s + 7, 60, 1, 0}}, ""},
		{"pcap, nanoseconds, big-endian", join(pcapHead(be, 0xa1b23c4d, 1), pcapRecord(be, 3, 7, 60, "first")), []got{{"first", 3*s + 7, 60, 1, 0}}, ""},
		{"pcap of no packets", pcapHead(le, 0xa1b2c3d4, 1), nil, ""},
		{"pcap with a frame check sequence noted", pcapHead(le, 0xa1b2c3d4, 0x24000001), nil, ""},
		{"pcap after 2038", join(pcapHead(le, 0xa1b2c3d4, 1), pcapRecord(le, math.MaxUint32, 999999, 1, "x")), []got{{"x", math.MaxUint32*s + 999999000, 1, 1, 0}}, ""},
		{"pcap, raw IP by a system's own number", join(pcapHead(le, 0xa1b2c3d4, 12), pcapRecord(le, 1, 0, 1, "x")), []got{{"x", s, 1, LinkRaw, 0}}, ""},
		{"pcap, unsupported link type is read", join(pcapHead(le, 0xa1b2c3d4, 105), pcapRecord(le, 1, 0, 1, "x")), []got{{"x", s, 1, 105, 0}}, ""},
		{"pcap, wire length below the captured", join(pcapHead(le, 0xa1b2c3d4, 1), pcapRecord(le, 1, 0, 0, "abc")), []got{{"abc", s, 3, 1, 0}}, ""},
		{"pcap 2.3, lengths the other way round", join(at(pcapHead(le, 0xa1b2c3d4, 1), 6, 3), words(le, 1, 0, 60, 3), []byte("abc")), []got{{"abc", s, 60, 1, 0}}, ""},
		{"pcap, the largest record", join(pcapHead(le, 0xa1b2c3d4, 1), pcapRecord(le, 1, 0, maxRecord, string(huge)), pcapRecord(le, 1, 0, 1, "x")), []got{{string(huge), s, maxRecord, 1, 0}, {"x", s, 1, 1, 0}}, ""},
		{"pcap, a larger one", join(pcap(le), words(le, 1, 0, maxRecord+1, maxRecord+1), huge), two, "damaged at octet 67: a record of 262145 octets"},
		{"pcap, 4 GiB claimed", join(pcap(le), words(le, 1, 0, math.MaxUint32, math.MaxUint32)), two, "damaged at octet 67"},
		{"pcap cut in a record", pcap(le)[:66], two[:1], "cut off inside the record at octet 45"},
		{"pcap cut in a record header", pcap(le)[:50], two[:1], "cut off inside the record at octet 45"},
		{"pcap, zeros where a power cut lost the end", join(pcap(le), make([]byte, 4096)), two, "cut off inside the record at octet 67"},

		{"pcapng, little-endian", ng(le), two, ""},
		{"pcapng, big-endian", ng(be), two, ""},
		{"pcapng, sections of either byte order", join(ng(le), ng(be)), []got{two[0], two[1], {"first", 3*s + 7000, 60, 1, 1}, {"second", 4 * s, 6, 1, 1}}, ""},
		{"pcapng, interfaces of their own link types and units", join(shb(le),
			idb(le, 1, 0, option(le, 2, 'e', 't', 'h', '0', '.'), option(le, optIfTsresol, 9)),
			idb(le, 113, 0, option(le, optIfTsresol, 0x80|10), option(le, optEnd)),
			idb(be, 0, 0)[:0], idb(le, 101, 0, option(le, optIfTsresol, 3), option(le, optIfTsoffset, le.AppendUint64(nil, 1000)...)),
			epb(le, 1, 3<<10|512, 1, "b"), epb(le, 0, 3e9+7, 1, "a"), epb(le, 2, 1500, 1, "c")),
			[]got{{"b", 3*s + s/2, 1, 113, 1}, {"a", 3*s + 7, 1, 1, 0}, {"c", 1001*s + s/2, 1, 101, 2}}, ""},
		{"pcapng, big-endian offset into the past", join(shb(be), idb(be, 1, 0, option(be, optIfTsoffset, x("ffffffffffffffff")...)), epb(be, 0, 3e6, 1, "a")), []got{{"a", 2 * s, 1, 1, 0}}, ""},
		{"pcapng, picoseconds", join(shb(le), idb(le, 1, 0, option(le, optIfTsresol, 12)), epb(le, 0, 3e12+7999, 1, "a")), []got{{"a", 3*s + 7, 1, 1, 0}}, ""},
		{"pcapng, whole seconds", join(shb(le), idb(le, 1, 0, option(le, optIfTsresol, 0)), epb(le, 0, 3, 1, "a")), []got{{"a", 3 * s, 1, 1, 0}}, ""},
		{"pcapng, 2^-63 s", join(shb(le), idb(le, 1, 0, option(le, optIfTsresol, 0xff-64)), epb(le, 0, 1<<63, 1, "a")), []got{{"a", s, 1, 1, 0}}, ""},
		{"pcapng, a time beyond 2262", join(shb(le), idb(le, 1, 0), epb(le, 0, math.MaxUint64, 1, "a")), []got{{"a", math.MaxInt64, 1, 1, 0}}, ""},
		{"pcapng, simple packets take the last time", join(shb(le), idb(le, 1, 4), block(le, blockSimple, words(le, 60), []byte("abcd")),
			epb(le, 0, 3e6, 1, "a"), block(le, blockSimple, words(le, 3), []byte("abc"))), []got{{"abcd", 0, 60, 1, 0}, {"a", 3 * s, 1, 1, 0}, {"abc", 3 * s, 3, 1, 0}}, ""},
		{"pcapng, the obsolete packet block", join(shb(be), idb(be, 1, 0), block(be, blockPacket, halves(be, 0, 9), words(be, 0, 3e6, 3, 60), []byte("abc"))), []got{{"abc", 3 * s, 60, 1, 0}}, ""},
		{"pcapng, other blocks are skipped", join(shb(le), idb(le, 1, 0), block(le, 5, make([]byte, 40)), block(le, 0xbad, make([]byte, 2<<20)), epb(le, 0, 3e6, 1, "a")), []got{{"a", 3 * s, 1, 1, 0}}, ""},
		{"pcapng, comments behind the packet", join(shb(le), idb(le, 1, 0), block(le, blockEnhanced, words(le, 0, 0, 3e6, 4, 4), []byte("abcd"), option(le, 1, 'h', 'i'), option(le, optEnd))), []got{{"abcd", 3 * s, 4, 1, 0}}, ""},
		{"pcapng cut", ng(le)[:len(ng(le))-1], two[:1], "cut off inside the record at octet 88"},
		{"pcapng cut in the section header", shb(le)[:20], nil, "cut off inside the record at octet 0"},
		{"pcapng cut in a skipped block", join(ng(le), block(le, 5, make([]byte, 2<<20))[:1<<20]), two, "cut off inside the record at octet 128"},
		{"pcapng, zeros at the end", join(ng(le), make([]byte, 64)), two, "cut off"},
		{"pcapng, garbage in the middle", join(ng(le), []byte("garbage garbage!")), two, "damaged at octet 128: a block of"},
		{"pcapng, block lengths differ", join(ng(le), words(le, 5, 16, 0, 20)), two, "a block of 16 octets that ends as one of 20"},
		{"pcapng, block too short", join(ng(le), words(le, 6, 8, 8)), two, "a block of 8 octets"},
		{"pcapng, a skipped block beyond the bound", join(ng(le), words(le, 5, maxBlock+4, 0)), two, "damaged"},
		{"pcapng, a packet block beyond the bound", join(ng(le), words(le, 6, maxBlock+4, 0)), two, "damaged at octet 128"},
		{"pcapng, interface block beyond the buffer", join(ng(le), words(le, 1, bufSize+4, 0)), two, "at most 1048576"},
		{"pcapng, interface block too short", join(shb(le), block(le, blockInterface, make([]byte, 4))), nil, "an interface description of 4 octets"},
		{"pcapng, section block too short", join(ng(le), block(le, blockSection, words(le, byteOrderMagic))), two, "a section header of 4 octets"},
		{"pcapng, section without byte order", join(ng(le), block(le, blockSection, make([]byte, 16))), two, "no byte order"},
		{"pcapng of version 2", block(le, blockSection, words(le, byteOrderMagic), halves(le, 2, 0), words(le, 0, 0)), nil, "version 2.0"},
		{"pcapng, option beyond its block", join(shb(le), idb(le, 1, 0, halves(le, 2, 99))), nil, "an interface option of 99 octets"},
		{"pcapng, resolution 10^-20", join(shb(le), idb(le, 1, 0, option(le, optIfTsresol, 20))), nil, "time resolution"},
		{"pcapng, offset of 2^62 s", join(shb(le), idb(le, 1, 0, option(le, optIfTsoffset, x("0000000000000040")...))), nil, "time offset"},
		{"pcapng, a flood of interfaces", join(shb(le), bytes.Repeat(idb(le, 1, 0), maxIfaces+1)), nil, "more than 4096 interfaces"},

		{"gzip", zip(pcap(le)), two, ""},
		{"gzip of several members", join(zip(ng(le)[:50]), zip(ng(le)[50:])), two, ""},
		{"gzip cut", zip(pcap(le))[:len(zip(pcap(le)))-4], two, "cut off inside the record at octet 67"},
		{"gzip with a wrong checksum", at(zip(pcap(le)), len(zip(pcap(le)))-8, 1, 2, 3, 4), two, "gzip: invalid checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(c.data), iotest.OneByteReader(bytes.NewReader(c.data)), iotest.DataErrReader(bytes.NewReader(c.data))} {
				if _, one := r.(*bytes.Reader); !one && len(c.data) > 1<<19 {
					continue
				}
				f, err := NewFile(r, "x.pcap")
				if err != nil {
					t.Fatal(err)
				}
				frames, err := readAll(t, f)
				if fmt.Sprint(frames) != fmt.Sprint(c.want) {
					t.Errorf("got  %.300v\nwant %.300v", frames, c.want)
				}
				switch {
				case c.err == "" && err != nil, c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
					t.Errorf("error %v, want %q", err, c.err)
				case errors.Is(err, ErrCut) != strings.HasPrefix(c.err, "cut off"):
					t.Errorf("%v: ErrCut %v", err, errors.Is(err, ErrCut))
				}
				if n, _ := f.Progress(); c.err == "" && n != int64(len(c.data)) {
					t.Errorf("read %d of %d octets", n, len(c.data))
				}
			}
		})
	}
}

// TestOddRecords checks that a record with a field that cannot be does not end the
// reading, and is counted.
func TestOddRecords(t *testing.T) {
	const s = int64(1e9)
	const gib = 1 << 30
	huge := strings.Repeat("x", maxRecord+1)
	pcap := func(magic uint32, records ...[]byte) []byte {
		return join(pcapHead(le, magic, 1), pcapRecord(le, 3, 0, 60, "before"), join(records...), pcapRecord(le, 5, 0, 60, "behind"))
	}
	ng := func(blocks ...[]byte) []byte {
		return join(shb(le), idb(le, 1, 0), epb(le, 0, 3e6, 60, "before"), join(blocks...), epb(le, 0, 5e6, 60, "behind"))
	}
	before, behind := got{"before", 3 * s, 60, 1, 0}, got{"behind", 5 * s, 60, 1, 0}
	around := []got{before, behind}
	odd := func(g got) []got { return []got{before, g, behind} }
	for _, c := range []struct {
		name string
		data []byte
		want []got
		odd  OddRecords
	}{
		{"pcap, 4 GiB on the wire", pcap(0xa1b2c3d4, pcapRecord(le, 4, 0, math.MaxUint32, "odd")), odd(got{"odd", 4 * s, 3, 1, 0}), OddRecords{1, 0, 46}},
		{"pcap, 1 GiB on the wire", pcap(0xa1b2c3d4, pcapRecord(le, 4, 0, gib, "odd")), odd(got{"odd", 4 * s, 3, 1, 0}), OddRecords{1, 0, 46}},
		{"pcap, nothing captured of 1 GiB", pcap(0xa1b2c3d4, pcapRecord(le, 4, 0, gib, "")), odd(got{"", 4 * s, 0, 1, 0}), OddRecords{1, 0, 46}},
		{"pcap, a jumbogram of 512 KiB", pcap(0xa1b2c3d4, pcapRecord(le, 4, 0, 512<<10, "big")), odd(got{"big", 4 * s, 512 << 10, 1, 0}), OddRecords{}},
		{"pcap, a fraction of 4,294 s", pcap(0xa1b2c3d4, pcapRecord(le, 4, math.MaxUint32, 60, "odd")), odd(got{"odd", 5*s - 1, 60, 1, 0}), OddRecords{1, 0, 46}},
		{"pcap, a fraction of 1 s in nanoseconds", pcap(0xa1b23c4d, pcapRecord(le, 4, 1e9, 60, "odd")), odd(got{"odd", 5*s - 1, 60, 1, 0}), OddRecords{1, 0, 46}},
		{"pcapng, 4 GiB on the wire", ng(epb(le, 0, 4e6, math.MaxUint32, "odd")), odd(got{"odd", 4 * s, 3, 1, 0}), OddRecords{1, 0, 88}},
		{"pcapng, simple packet of 4 GiB on the wire", ng(block(le, blockSimple, words(le, math.MaxUint32), []byte("odd!"))), odd(got{"odd!", 3 * s, 4, 1, 0}), OddRecords{1, 0, 88}},
		{"pcapng, of no interface", ng(epb(le, 1, 4e6, 60, "odd")), around, OddRecords{0, 1, 88}},
		{"pcapng, of an interface of the section before", join(ng(), shb(le), epb(le, 0, 4e6, 1, "odd")), around, OddRecords{0, 1, 156}},
		{"pcapng, a packet larger than its block", ng(block(le, blockEnhanced, words(le, 0, 0, 0, 9, 9), make([]byte, 8))), around, OddRecords{0, 1, 88}},
		{"pcapng, a packet larger than any", ng(epb(le, 0, 0, 1, huge)), around, OddRecords{0, 1, 88}},
		{"pcapng, a block larger than the buffer", ng(epb(le, 0, 0, 1, strings.Repeat("x", bufSize))), around, OddRecords{0, 1, 88}},
		{"pcapng, packet block too short", ng(block(le, blockEnhanced, make([]byte, 8))), around, OddRecords{0, 1, 88}},
		{"pcapng, several", ng(epb(le, 1, 4e6, 60, "odd"), epb(le, 0, 4e6, gib, "odd"), epb(le, 7, 4e6, 60, "odd")), odd(got{"odd", 4 * s, 3, 1, 0}), OddRecords{1, 2, 88}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := NewFile(bytes.NewReader(c.data), "x.pcap")
			if err != nil {
				t.Fatal(err)
			}
			frames, err := readAll(t, f)
			if err != nil || fmt.Sprint(frames) != fmt.Sprint(c.want) {
				t.Errorf("got  %.300v, %v\nwant %.300v", frames, err, c.want)
			}
			if f.Odd() != c.odd {
				t.Errorf("%+v, want %+v", f.Odd(), c.odd)
			}
		})
	}
}

// TestOpen tells what is said about files that cannot be read.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, data, want string }{
		{"empty", "", "empty file"},
		{"text", "#!/bin/sh\necho hello\n", "not a capture; pcap and pcapng are read"},
		{"one octet", "\xd4", "ends within its header"},
		{"header cut", string(pcapHead(le, 0xa1b2c3d4, 1)[:23]), "ends within its header"},
		{"pcapng header cut", string(shb(le)[:11]), "ends within its header"},
		{"line feeds that look like pcapng", "\n\r\r\n and some more text", "not a capture"},
		{"gzip cut", string(zip(pcapHead(le, 0xa1b2c3d4, 1))[:12]), "ends within its header"},
		{"gzip of nothing", string(zip(nil)), "ends within its header"},
		{"gzip of text", string(zip([]byte("hello, world"))), "not a capture"},
		{"gzip of gzip", string(zip(zip(pcapHead(le, 0xa1b2c3d4, 1)))), "gzip twice over"},
		{"modified, Kuznetzov", string(words(le, 0xa1b2cd34, 0, 0)), "Kuznetzov's header); convert it with: editcap"},
		{"modified, big-endian", string(words(be, 0xa1b2cd34, 0, 0)), "Kuznetzov's header)"},
		{"modified, Mesquita", string(words(le, 0xa1b234cd, 0, 0)), "Mesquita's header)"},
		{"modified, Navtel", string(words(le, 0xa12b3c4d, 0, 0)), "Navtel's header)"},
		{"modified, Ixia", string(words(le, 0x1c0001ac, 0, 0)), "Ixia's header)"},
		{"snoop", "snoop\x00\x00\x00\x00\x00\x00\x02", "snoop capture"},
		{"zstd", "\x28\xb5\x2f\xfd\x00\x00\x00\x00", "decompress it with unzstd"},
		{"xz", "\xfd7zXZ\x00\x00\x00", "decompress it with unxz"},
		{"zip", "PK\x03\x04\x00\x00\x00\x00", "unpack it with unzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, "x.pcap")
			if err := os.WriteFile(path, []byte(c.data), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenFile(path)
			if err == nil || !strings.HasPrefix(err.Error(), "open capture "+path+": ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := OpenFile(filepath.Join(dir, "none.pcap")); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "none.pcap") != 1 {
		t.Errorf("missing file: %v", err)
	}
	if _, err := OpenFile(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pcap")
	data := join(pcapHead(le, 0xa1b2c3d4, 1), pcapRecord(le, 1, 0, 1, "x"))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, size := f.Progress(); size != int64(len(data)) {
		t.Errorf("size %d", size)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := f.Next(&Frame{}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestNextDoesNotWait reads a record from a pipe that holds no more than it.
func TestNextDoesNotWait(t *testing.T) {
	r, w := io.Pipe()
	go w.Write(join(pcapHead(le, 0xa1b2c3d4, 1), pcapRecord(le, 1, 0, 1, "x")))
	f, err := NewFile(r, "standard input")
	if err != nil {
		t.Fatal(err)
	}
	var fr Frame
	if err := f.Next(&fr); err != nil || string(fr.Data) != "x" {
		t.Fatal(fr, err)
	}
	w.Close()
	if err := f.Next(&fr); err != io.EOF {
		t.Fatal(err)
	}
}

func TestNextAllocates(t *testing.T) {
	for name, data := range map[string][]byte{
		"pcap":   join(pcapHead(le, 0xa1b2c3d4, 1), bytes.Repeat(pcapRecord(le, 1, 0, 60, "octets"), 10000)),
		"pcapng": join(shb(le), idb(le, 1, 0), bytes.Repeat(epb(le, 0, 1, 60, "octets"), 10000)),
	} {
		f, err := NewFile(bytes.NewReader(data), name)
		if err != nil {
			t.Fatal(err)
		}
		var fr Frame
		f.Next(&fr)
		if n := testing.AllocsPerRun(9000, func() {
			if err := f.Next(&fr); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per frame", name, n)
		}
	}
}
