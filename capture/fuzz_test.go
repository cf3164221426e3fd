package capture

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

// within reports whether part lies inside whole.
func within(part, whole []byte) bool {
	if len(part) == 0 {
		return true
	}
	a, b := uintptr(unsafe.Pointer(&part[0])), uintptr(unsafe.Pointer(&whole[0]))
	return a >= b && a+uintptr(len(part)) <= b+uintptr(len(whole))
}

func check(t *testing.T, f *Frame, p *Packet, o Outcome) {
	t.Helper()
	if o >= NumOutcomes {
		t.Fatalf("outcome %d", o)
	}
	if !o.HasPacket() {
		return
	}
	transport := p.Proto == ProtoTCP || p.Proto == ProtoUDP || p.Proto == ProtoSCTP ||
		p.Proto == ProtoICMP && p.Version == 4 || p.Proto == ProtoICMPv6 && p.Version == 6
	for _, c := range []struct {
		ok   bool
		what string
	}{
		{p.Time == f.Time && p.WireLen == f.WireLen, "time and length are the frame's"},
		{p.Version == 4 || p.Version == 6, "version"},
		{within(p.Payload, f.Data), "payload within the frame"},
		{len(p.Payload) == cap(p.Payload) || len(p.Payload) == 0, "payload is capped"},
		{p.PayloadLen >= len(p.Payload), "payload length on the wire ≥ captured"},
		{p.PayloadLen <= max(f.WireLen, len(f.Data)), "payload length ≤ frame"},
		{p.Version == 6 || p.Src.Netip().Is4() && p.Dst.Netip().Is4(), "IPv4 addresses are mapped"},
		{p.VLAN < 4096, "VLAN"},
		{o != Decoded || transport, "decoded is a transport"},
		{o != OtherTransport || !transport, "other transport is none of ours"},
		{o != LaterFragment || p.Fragment, "later fragment is a fragment"},
		{o == Decoded || p.SrcPort|p.DstPort == 0, "no ports without a transport"},
		{p.Proto == ProtoTCP || p.Flags == 0, "flags are TCP's"},
		{p.Fragment || p.FragmentOffset == 0 && p.FragmentLen == 0 && !p.MoreFragments && !p.WrongFragment && p.FragmentID == 0, "fragment fields"},
		{p.FragmentOffset%8 == 0 && p.FragmentLen >= 0, "fragment offset"},
		{!p.HasQuote || p.Proto == ProtoICMP || p.Proto == ProtoICMPv6, "quotes are ICMP's"},
	} {
		if !c.ok {
			t.Fatalf("%s: %v %+v", c.what, o, *p)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range decodeCases() {
		f.Add(uint32(c.link), c.data, c.wire)
	}
	f.Fuzz(func(t *testing.T, link uint32, data []byte, wire int) {
		fr := Frame{Data: data, Time: 1, WireLen: wire, Link: LinkType(link)}
		dirty := Packet{HasQuote: true, Flags: 1, VLAN: 1, Fragment: true, FragmentOffset: 8, Version: 6, SrcPort: 1}
		var d Decoder
		var p Packet
		o := d.Decode(&fr, &p)
		check(t, &fr, &p, o)
		if again := d.Decode(&fr, &dirty); again != o || !same(&p, &dirty) {
			t.Fatalf("%v, then %v: %+v, then %+v", o, again, p, dirty)
		}
		if d.Counts[o] != 2 {
			t.Fatal(d.Counts)
		}
	})
}

// same compares packets of the same frame.
func same(a, b *Packet) bool {
	x, y := *a, *b
	if !bytes.Equal(x.Payload, y.Payload) {
		return false
	}
	x.Payload, y.Payload = nil, nil
	return reflect.DeepEqual(x, y)
}

func FuzzFile(f *testing.F) {
	for _, o := range []order{le, be} {
		pcap := join(pcapHead(o, 0xa1b2c3d4, 1), pcapRecord(o, 3, 7, 60, "first"), pcapRecord(o, 4, 0, 6, "second"))
		ng := join(shb(o), idb(o, 1, 4, option(o, optIfTsresol, 9), option(o, optIfTsoffset, make([]byte, 8)...)),
			epb(o, 0, 3e9, 60, "first"), block(o, blockSimple, words(o, 60), []byte("abcd")), block(o, 5, make([]byte, 8)),
			block(o, blockPacket, halves(o, 0, 9), words(o, 0, 3e6, 3, 60), []byte("abc")))
		f.Add(pcap)
		f.Add(ng)
		f.Add(zip(pcap))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := NewFile(bytes.NewReader(data), "fuzz")
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatal(err)
			}
			return
		}
		var fr Frame
		var p Packet
		var d Decoder
		frames := 0
		for err = file.Next(&fr); err == nil; err = file.Next(&fr) {
			frames++
			if !within(fr.Data, file.buf) || len(fr.Data) > maxRecord || fr.WireLen < len(fr.Data) || fr.Interface < 0 {
				t.Fatalf("%d octets of %d, interface %d", len(fr.Data), fr.WireLen, fr.Interface)
			}
			check(t, &fr, &p, d.Decode(&fr, &p))
		}
		if err != io.EOF && (!strings.Contains(err.Error(), "the packets before it were read") || errors.Is(err, io.EOF)) {
			t.Fatal(err)
		}
		if n, _ := file.Progress(); n != int64(len(data)) && err == io.EOF && data[0] != 0x1f {
			t.Fatalf("%d of %d octets read", n, len(data))
		}
		if cap(file.buf) != bufSize || cap(file.ifaces) > 2*maxIfaces {
			t.Fatalf("%d octets, %d interfaces", cap(file.buf), cap(file.ifaces))
		}
	})
}
