package capture

import "encoding/binary"

const (
	pcapHeader   = 24
	recordHeader = 16
)

func (f *File) openPcap() error {
	switch magic := binary.LittleEndian.Uint32(f.buf); magic {
	case 0xa1b2c3d4, 0xd4c3b2a1:
		f.unit, f.swap = 1e3, magic == 0xd4c3b2a1
	case 0xa1b23c4d, 0x4d3cb2a1:
		f.unit, f.swap = 1, magic == 0x4d3cb2a1
	default:
		f.need(8) // a magic may be longer than 4 octets
		return foreign(f.buf[:f.w])
	}
	if err := f.need(pcapHeader); err != nil {
		return headerError(err)
	}
	h := f.buf[:pcapHeader]
	f.minor = f.u16(h[6:])
	f.link = linkType(uint16(f.u32(h[20:]))) // the upper half tells of a frame check sequence
	f.r = pcapHeader
	f.next = (*File).nextRecord
	return nil
}

func (f *File) nextRecord(fr *Frame) error {
	f.at = f.base + int64(f.r)
	if err := f.need(recordHeader); err != nil {
		return err
	}
	h := f.buf[f.r : f.r+recordHeader : f.r+recordHeader]
	sec, frac, captured, wire := f.u32(h), f.u32(h[4:]), f.u32(h[8:]), f.u32(h[12:])
	if f.minor < 4 && captured > wire {
		captured, wire = wire, captured // their order before pcap 2.4
	}
	switch {
	case captured > maxRecord:
		return f.damaged("a record of %d octets, at most %d can be", captured, maxRecord)
	case sec|frac|captured|wire == 0:
		return f.cut() // a file system's zeros in place of what a power cut lost
	}
	n := recordHeader + int(captured)
	if err := f.need(n); err != nil {
		return err
	}
	fr.Data = f.buf[f.r+recordHeader : f.r+n : f.r+n]
	fr.Time = int64(sec)*second + int64(frac)*f.unit
	fr.WireLen = int(max(wire, captured))
	if wire > maxWire || int64(frac)*f.unit >= second {
		f.noteOdd(&f.odd.Corrected)
		fr.Time = min(fr.Time, int64(sec)*second+second-1)
		if wire > maxWire {
			fr.WireLen = int(captured)
		}
	}
	fr.Link = f.link
	fr.Interface = 0
	f.r += n
	return nil
}
