package capture

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Block types of pcapng that hold frames or what is needed to read them.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockSection   = 0x0a0d0d0a // a palindrome: the same in both byte orders
)

const (
	byteOrderMagic = 0x1a2b3c4d

	maxBlock  = 16 << 20 // of blocks that are skipped; Wireshark's bound too
	maxIfaces = 4096     // of one section

	second = int64(1e9) // in nanoseconds

	optEnd        = 0
	optIfTsresol  = 9
	optIfTsoffset = 14
)

// iface is what an interface description block tells.
type iface struct {
	link    LinkType
	snaplen uint32
	nanos   uint64 // a timestamp × nanos / div is nanoseconds
	div     uint64
	offset  int64 // nanoseconds to add
}

func (f *File) openNG() error {
	if err := f.need(12); err != nil {
		return headerError(err)
	}
	if m := binary.LittleEndian.Uint32(f.buf[8:]); m != byteOrderMagic && m != bits.ReverseBytes32(byteOrderMagic) {
		return foreign(f.buf[:f.w])
	}
	f.next = (*File).nextBlock
	return nil
}

// nextBlock reads blocks up to and including the next frame.
func (f *File) nextBlock(fr *Frame) error {
	for {
		f.at = f.base + int64(f.r)
		if err := f.need(12); err != nil {
			return err
		}
		b := f.buf[f.r:f.w]
		typ := f.u32(b)
		if typ == blockSection {
			switch binary.LittleEndian.Uint32(b[8:]) {
			case byteOrderMagic:
				f.swap = false
			case bits.ReverseBytes32(byteOrderMagic):
				f.swap = true
			default:
				return f.damaged("a section of no byte order")
			}
		}
		size := f.u32(b[4:])
		if typ == 0 && size == 0 {
			return f.cut() // zeros, see nextRecord
		}
		if size < 12 || size%4 != 0 || size > maxBlock {
			return f.damaged("a block of %d octets", size)
		}
		n := int(size)
		packet := typ == blockPacket || typ == blockSimple || typ == blockEnhanced
		switch {
		case n <= bufSize && (packet || typ == blockSection || typ == blockInterface):
			if err := f.need(n); err != nil {
				return err
			}
		case typ == blockSection || typ == blockInterface:
			return f.damaged("a block of %d octets, at most %d can be", n, bufSize)
		default:
			if err := f.skip(n - 4); err != nil {
				return err
			}
			n = 4
			if err := f.need(n); err != nil {
				return err
			}
		}
		b = f.buf[f.r : f.r+n : f.r+n]
		f.r += n
		if end := f.u32(b[n-4:]); end != size {
			return f.damaged("a block of %d octets that ends as one of %d", size, end)
		}
		if n == 4 {
			if packet {
				f.noteOdd(&f.odd.Skipped)
			}
			continue
		}
		b = b[8 : n-4 : n-4]
		switch typ {
		case blockSection:
			if err := f.section(b); err != nil {
				return err
			}
		case blockInterface:
			if err := f.addInterface(b); err != nil {
				return err
			}
		default:
			if f.packet(typ, b, fr) {
				return nil
			}
			f.noteOdd(&f.odd.Skipped)
		}
	}
}

func (f *File) section(b []byte) error {
	if len(b) < 16 {
		return f.damaged("a section header of %d octets", len(b))
	}
	if major := f.u16(b[4:]); major != 1 {
		return f.damaged("pcapng of version %d.%d, this reader knows 1.0", major, f.u16(b[6:]))
	}
	f.ifaceOff += len(f.ifaces)
	f.ifaces = f.ifaces[:0]
	return nil
}

func (f *File) addInterface(b []byte) error {
	if len(b) < 8 {
		return f.damaged("an interface description of %d octets", len(b))
	}
	if len(f.ifaces) == maxIfaces {
		return f.damaged("more than %d interfaces", maxIfaces)
	}
	i := iface{link: linkType(f.u16(b)), snaplen: f.u32(b[4:])}
	i.setResolution(1e6)
	for b = b[8:]; len(b) >= 4; {
		code, n := f.u16(b), int(f.u16(b[2:]))
		b = b[4:]
		if code == optEnd {
			break
		}
		if n > len(b) {
			return f.damaged("an interface option of %d octets", n)
		}
		switch {
		case code == optIfTsresol && n == 1:
			res := b[0]
			switch {
			case res <= 19:
				i.setResolution(pow10(res))
			case res >= 0x80 && res < 0x80+64:
				i.setResolution(1 << (res & 0x7f))
			default:
				return f.damaged("a time resolution of code %d", res)
			}
		case code == optIfTsoffset && n == 8:
			hi, lo := f.u32(b), f.u32(b[4:])
			if !f.swap {
				hi, lo = lo, hi
			}
			sec := int64(uint64(hi)<<32 | uint64(lo))
			if sec > math.MaxInt64/second || sec < math.MinInt64/second {
				return f.damaged("a time offset of %d s", sec)
			}
			i.offset = sec * second
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	f.ifaces = append(f.ifaces, i)
	return nil
}

// packet fills fr from the body b of a packet block, and reports whether it could.
func (f *File) packet(typ uint32, b []byte, fr *Frame) bool {
	head := 20
	if typ == blockSimple {
		head = 4
	}
	if len(b) < head {
		return false
	}
	var id int
	switch typ {
	case blockEnhanced:
		id = int(min(f.u32(b), maxIfaces))
	case blockPacket:
		id = int(f.u16(b))
	}
	if id >= len(f.ifaces) {
		return false
	}
	i := &f.ifaces[id]
	captured, wire := uint32(len(b)-head), f.u32(b[head-4:])
	if typ == blockSimple {
		captured = min(captured, wire)
		if i.snaplen > 0 {
			captured = min(captured, i.snaplen)
		}
	} else {
		room := captured
		captured = f.u32(b[12:])
		if captured > room {
			return false
		}
		f.last = i.time(uint64(f.u32(b[4:]))<<32 | uint64(f.u32(b[8:])))
	}
	if captured > maxRecord {
		return false
	}
	if wire > maxWire {
		f.noteOdd(&f.odd.Corrected)
		wire = captured
	}
	end := head + int(captured)
	fr.Data = b[head:end:end]
	fr.Time = f.last
	fr.WireLen = int(max(wire, captured))
	fr.Link = i.link
	fr.Interface = f.ifaceOff + id
	return true
}

// time converts a timestamp to nanoseconds since the epoch; one too large for
// that (after the year 2262) becomes the largest.
func (i *iface) time(ts uint64) int64 {
	var ns uint64
	hi, lo := bits.Mul64(ts, i.nanos)
	switch {
	case hi >= i.div:
		return math.MaxInt64
	case i.div == 1:
		ns = lo
	default:
		ns, _ = bits.Div64(hi, lo, i.div)
	}
	if ns > math.MaxInt64 || i.offset > math.MaxInt64-int64(ns) {
		return math.MaxInt64
	}
	return int64(ns) + i.offset
}

// setResolution sets the unit of i's timestamps to 1/perSec of a second.
func (i *iface) setResolution(perSec uint64) {
	i.nanos, i.div = 1e9, perSec
	if 1e9%perSec == 0 {
		i.nanos, i.div = 1e9/perSec, 1
	}
}

func pow10(n byte) uint64 {
	p := uint64(1)
	for ; n > 0; n-- {
		p *= 10
	}
	return p
}
