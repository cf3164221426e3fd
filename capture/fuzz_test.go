package capture

import (
	"bytes"
	"errors"
	"io"
	"math"
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
	if len(whole) == 0 {
		return false
	}
	a, b := uintptr(unsafe.Pointer(&part[0])), uintptr(unsafe.Pointer(&whole[0]))
	return a >= b && a+uintptr(len(part)) <= b+uintptr(len(whole))
}

// withinAny reports whether part lies inside the frame or a datagram that d put
// together.
func withinAny(part []byte, f *Frame, d *Decoder) bool {
	ok := within(part, f.Data)
	if d.fragments != nil {
		for i := range d.fragments.wholes {
			ok = ok || within(part, d.fragments.wholes[i][:])
		}
	}
	return ok
}

func check(t *testing.T, f *Frame, d *Decoder, p *Packet, o Outcome) {
	t.Helper()
	if o >= NumOutcomes {
		t.Fatalf("outcome %d", o)
	}
	if a := p.ARP; a != nil && (o != ARP || a.Op == 0 || p.Version != 0 || !a.Sender.Netip().Is4() || !a.Target.Netip().Is4()) {
		t.Fatalf("%v with %+v", o, *a)
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
		{p.Time == f.Time, "time is the frame's"},
		{p.WireLen == f.WireLen || p.WireLen >= min(f.WireLen, math.MaxInt32) && d.fragments != nil, "length is the frame's, or of orphans too"},
		{p.Version == 4 || p.Version == 6, "version"},
		{withinAny(p.Payload, f, d), "payload within the frame or a whole"},
		{len(p.Payload) == cap(p.Payload) || len(p.Payload) == 0, "payload is capped"},
		{p.PayloadLen >= len(p.Payload), "payload length on the wire ≥ captured"},
		{p.PayloadLen <= max(f.WireLen, len(f.Data)) || p.Tunnels > 0 && p.PayloadLen < maxDatagram ||
			p.Fragment && p.FragmentOffset == 0 && p.PayloadLen < (maxFragments+1)*maxDatagram, "payload length ≤ frame, or of orphans too"},
		{withinAny(p.Whole, f, d) && len(p.Whole) == cap(p.Whole), "whole is the decoder's"},
		{p.Whole == nil || p.Fragment && !p.WrongFragment && len(p.Whole) <= maxDatagram, "whole is a fragment's"},
		{p.Tunnels <= maxTunnels && (p.Tunnels > 0) == (p.Tunnel != TunnelNone), "tunnels"},
		{p.Tunnel != TunnelNone || p.TunnelID == 0 && p.OuterSrc == Addr{} && p.OuterDst == Addr{}, "outer addresses"},
		{p.Version == 6 || p.Src.Netip().Is4() && p.Dst.Netip().Is4(), "IPv4 addresses are mapped"},
		{p.VLAN < 4096, "VLAN"},
		{o != Decoded || transport, "decoded is a transport"},
		{o != OtherTransport || !transport, "other transport is none of ours"},
		{o != LaterFragment || p.Fragment, "later fragment is a fragment"},
		{o == Decoded || o == LaterFragment || p.SrcPort|p.DstPort == 0, "no ports without a transport"},
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

// FuzzDecode decodes the frames that data holds one after the other: each leads
// with two octets of its length, and one of the seconds since the one before.
func FuzzDecode(f *testing.F) {
	one := func(after byte, frame []byte) []byte { return join(be16(len(frame)), []byte{after}, frame) }
	for _, c := range append(decodeCases(), tunnelCases()...) {
		f.Add(uint32(c.link), one(0, c.data), c.wire)
	}
	tunnelled := udpTo(portGTPU, gtpPDU(0x30, 7, frag4(1, 0, 16, ProtoUDP, udpDatagram("sixteen octets.."))))
	f.Add(uint32(LinkRaw), join(one(0, frag4(1, 0, 24, ProtoUDP, tunnelled)), one(1, frag4(1, 24, len(tunnelled), ProtoUDP, tunnelled)),
		one(0, frag4(1, 24, len(tunnelled), ProtoUDP, tunnelled)), one(9, frag4(1, 8, 32, ProtoUDP, tunnelled))), 0)
	f.Add(uint32(LinkRaw), join(one(0, frag6(1, 24, len(tunnelled), ProtoUDP, tunnelled)), one(1, frag6(1, 0, 24, ProtoUDP, tunnelled))), 0)
	f.Fuzz(func(t *testing.T, link uint32, data []byte, wire int) {
		var d, again Decoder
		var p Packet
		frames := uint64(0)
		for now := int64(0); len(data) >= 3; frames++ {
			n := min(int(data[0])<<8|int(data[1]), len(data)-3)
			now += int64(data[2]) * 1e9
			fr := Frame{Data: data[3 : 3+n], Time: now, WireLen: wire, Link: LinkType(link)}
			data = data[3+n:]
			o := d.Decode(&fr, &p)
			check(t, &fr, &d, &p, o)
			dirty := Packet{HasQuote: true, Flags: 1, VLAN: 1, Fragment: true, FragmentOffset: 8, Version: 6, SrcPort: 1,
				Whole: []byte("x"), Tunnels: 1, Tunnel: TunnelGRE, TunnelID: 1, OuterSrc: v6a}
			if o2 := again.Decode(&fr, &dirty); o2 != o || !same(&p, &dirty) {
				t.Fatalf("%v, then %v: %+v, then %+v", o, o2, p, dirty)
			}
		}
		var sum uint64
		for _, n := range d.Counts {
			sum += n
		}
		s := d.Defrag()
		if sum != frames || s.Begun < s.Whole+s.Wrong+s.Cut+s.TooMany+s.Evicted+s.TimedOut || d.Counts != again.Counts {
			t.Fatal(d.Counts, s)
		}
		if f := d.fragments; f != nil && (f.level != 0 || f.end-f.first > maxDatagrams || f.first < f.end && f.head-f.at(f.first).start > fragmentLog) {
			t.Fatalf("level %d, %d datagrams", f.level, f.end-f.first)
		}
	})
}

// same compares packets of the same frame.
func same(a, b *Packet) bool {
	x, y := *a, *b
	if !bytes.Equal(x.Payload, y.Payload) || !bytes.Equal(x.Whole, y.Whole) {
		return false
	}
	x.Payload, y.Payload, x.Whole, y.Whole = nil, nil, nil, nil
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
			o := d.Decode(&fr, &p)
			check(t, &fr, &d, &p, o)
			d.Mirrors.see(&fr, &p, o)
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
