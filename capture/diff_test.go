package capture

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"

	"github.com/picket-ids/picket/internal/datatest"
)

// captures returns every capture of the data folder, each eighth with -short.
func captures(t testing.TB) []string {
	var all []string
	err := filepath.WalkDir(datatest.Data(t, "captures"), func(path string, e fs.DirEntry, err error) error {
		switch filepath.Ext(path) {
		case ".pcap", ".pcapng", ".pcap_", ".cap", ".gz":
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		var few []string
		for i := 0; i < len(all); i += 8 {
			few = append(few, all[i])
		}
		all = few
	}
	return all
}

// reference is what google/gopacket makes of the innermost IP packet of a frame.
type reference struct {
	ip               bool
	whole            bool // put together by ip4defrag
	tunnels          uint8
	tunnel           TunnelKind // of what was decoded last
	outer            *reference // the packet of the tunnel
	fragment         bool       // later
	src, dst         Addr
	proto            uint8
	transport        bool // header decoded
	srcPort, dstPort uint16
	flags            uint8
	seq, ack         uint32
	window           uint16
	icmpType         uint8
	captured         []byte // payload in the frame
	wire             int    // and by the length fields
	ipEnd            int    // in the frame, by the IP header's length field
	ttl              uint8
	vlan             uint16
	fragID           uint32
	more             bool
	srcMAC, dstMAC   MAC // of the frame
	arp              *ARPMessage
	panicked         bool // in any layer; the layers before it stand
}

// refer decodes f, and what it completes if it is a fragment of IPv4.
func refer(f *Frame, defrag *ip4defrag.IPv4Defragmenter) (r reference) {
	var first gopacket.Decoder
	switch f.Link {
	case LinkEthernet:
		first = layers.LayerTypeEthernet
	case LinkSLL:
		first = layers.LayerTypeLinuxSLL
	case LinkNull, LinkLoop:
		first = layers.LayerTypeLoopback
	default:
		first = layers.LayerTypeIPv4
		if len(f.Data) > 0 && f.Data[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	// NewPacket recovers from panics of its layers and notes them as failures.
	packet := gopacket.NewPacket(f.Data, first, gopacket.DecodeOptions{NoCopy: true})
	if ip, ok := packet.NetworkLayer().(*layers.IPv4); ok && (ip.FragOffset > 0 || ip.Flags&layers.IPv4MoreFragments != 0) {
		in := *ip
		in.Payload = bytes.Clone(ip.Payload) // kept by the defragmenter
		if out, err := defrag.DefragIPv4(&in); err == nil && out != nil {
			b := join(ip.Contents, out.Payload)
			copy(b[2:], be16(len(b)))
			copy(b[6:], be16(0))
			r = refer(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, nil)
			r.whole = true
			return r
		}
	}
	if e := packet.ErrorLayer(); e != nil {
		fail, ok := e.(*gopacket.DecodeFailure)
		r.panicked = ok && fail.Dump() != ""
	}
	if all := packet.Layers(); len(all) > 0 {
		r.addressed(all[0])
	}
	before := 0 // octets of the layers so far
	left := 0   // octets of the IP payload by its length field
	for _, layer := range packet.Layers() {
		switch l := layer.(type) {
		case *layers.Dot1Q:
			if r.vlan == 0 && r.tunnel == TunnelNone {
				r.vlan = l.VLANIdentifier
			}
		case *layers.IPv4:
			r.enter(TunnelIPIP)
			r.ip, r.ttl, r.more = true, l.TTL, l.Flags&layers.IPv4MoreFragments != 0
			if r.fragment = l.FragOffset > 0; r.fragment || r.more {
				r.fragID = uint32(l.Id)
			}
			r.ipEnd = before + int(l.Length)
			r.src, r.dst = addr(l.SrcIP), addr(l.DstIP)
			r.proto = uint8(l.Protocol)
			left = int(l.Length) - int(l.IHL)*4
			r.captured, r.wire = l.Payload, left
		case *layers.IPv6:
			r.enter(Tunnel6in4)
			r.ip, r.ttl = true, l.HopLimit
			r.ipEnd = before + ipv6Header + int(l.Length)
			r.src, r.dst = addr(l.SrcIP), addr(l.DstIP)
			r.proto = uint8(l.NextHeader)
			left = int(l.Length)
			r.captured, r.wire = l.Payload, left
		case *layers.IPv6HopByHop:
			r.extension(uint8(l.NextHeader), len(l.Contents), l.Payload, &left)
		case *layers.IPv6Destination:
			r.extension(uint8(l.NextHeader), len(l.Contents), l.Payload, &left)
		case *layers.IPv6Routing:
			r.extension(uint8(l.NextHeader), len(l.Contents), l.Payload, &left)
		case *layers.IPv6Fragment:
			r.extension(uint8(l.NextHeader), len(l.Contents), l.Payload, &left)
			r.fragment, r.more = l.FragmentOffset > 0, l.MoreFragments
			if r.fragment || r.more {
				r.fragID = l.Identification
			}
		case *layers.IPSecAH:
			r.extension(uint8(l.NextHeader), len(l.Contents), l.Payload, &left)
		case *layers.TCP:
			r.ports(uint16(l.SrcPort), uint16(l.DstPort), l.Payload, left-int(l.DataOffset)*4)
			for i, set := range []bool{l.FIN, l.SYN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR} {
				if set {
					r.flags |= 1 << i
				}
			}
			r.seq, r.ack, r.window = l.Seq, l.Ack, l.Window
			return r
		case *layers.UDP:
			r.ports(uint16(l.SrcPort), uint16(l.DstPort), l.Payload, int(l.Length)-8)
		case *layers.ARP:
			if !r.ip && l.AddrType == layers.LinkTypeEthernet && l.Protocol == layers.EthernetTypeIPv4 {
				r.arp = &ARPMessage{l.Operation, MAC(l.SourceHwAddress), MAC(l.DstHwAddress), addr(l.SourceProtAddress), addr(l.DstProtAddress)}
			}
		case *layers.GRE:
			r.tunnel = TunnelGRE
		case *layers.GTPv1U:
			if r.tunnel = TunnelGTPU; l.MessageType != 255 {
				return r
			}
		case *layers.VXLAN:
			r.tunnel = TunnelVXLAN
		case *layers.Geneve:
			r.tunnel = TunnelGeneve
		case *layers.ERSPANII:
			r.tunnel = TunnelERSPAN
		case *layers.Ethernet, *layers.MPLS, *layers.PPPoE, *layers.PPP:
			// What they carry, if IP, is still to come.
		case *layers.SCTP:
			r.ports(uint16(l.SrcPort), uint16(l.DstPort), l.Payload, left-12)
			return r
		case *layers.ICMPv4:
			r.ports(0, 0, l.Payload, left-8)
			r.icmpType = l.TypeCode.Type()
			return r
		case *layers.ICMPv6:
			// Its header in gopacket is 4 octets, the other 4 lead the payload.
			r.ports(0, 0, l.Payload[min(4, len(l.Payload)):], left-8)
			r.icmpType = l.TypeCode.Type()
			return r
		default:
			if r.ip {
				return r
			}
		}
		before += len(layer.LayerContents())
	}
	return r
}

// addressed takes the hardware addresses of a link layer.
func (r *reference) addressed(link gopacket.Layer) {
	switch l := link.(type) {
	case *layers.Ethernet:
		r.srcMAC, r.dstMAC = MAC(l.SrcMAC), MAC(l.DstMAC)
	case *layers.LinuxSLL:
		if l.AddrLen == 6 {
			r.srcMAC = MAC(l.Addr)
		}
	}
}

func addr(ip []byte) Addr {
	a, _ := netip.AddrFromSlice(ip)
	return AddrFrom(a)
}

// enter starts anew for an IP packet, which is in a tunnel if r has one already:
// of the given kind unless a layer between them had its own.
func (r *reference) enter(kind TunnelKind) {
	if !r.ip {
		return
	}
	if r.tunnel == TunnelNone || r.transportless() {
		r.tunnel = kind
	}
	outer := *r
	*r = reference{tunnels: r.tunnels + 1, tunnel: r.tunnel, outer: &outer, vlan: r.vlan, srcMAC: r.srcMAC, dstMAC: r.dstMAC, panicked: r.panicked}
}

// transportless reports whether IP follows IP directly.
func (r *reference) transportless() bool { return r.proto == protoIPIP || r.proto == proto6in4 }

func (r *reference) extension(next uint8, header int, payload []byte, left *int) {
	*left -= header
	r.proto, r.captured, r.wire = next, payload, *left
}

func (r *reference) ports(src, dst uint16, captured []byte, wire int) {
	r.transport, r.srcPort, r.dstPort, r.captured, r.wire = true, src, dst, captured, wire
}

// differs names the first thing in which p and r differ, "" if nothing.
func (r *reference) differs(o Outcome, p *Packet) string {
	switch {
	case r.ip != o.HasPacket():
		return "packet"
	case (r.ip || r.arp != nil) && !r.whole && (r.srcMAC != p.SrcMAC || r.dstMAC != p.DstMAC):
		return "hardware address"
	case (r.arp != nil) != (p.ARP != nil) || r.arp != nil && *r.arp != *p.ARP:
		return "ARP"
	case !r.ip:
		return ""
	case r.tunnels != p.Tunnels:
		return "tunnels"
	case r.tunnels > 0 && (r.tunnel != p.Tunnel || r.outer.src != p.OuterSrc || r.outer.dst != p.OuterDst):
		return "tunnel"
	case r.src != p.Src || r.dst != p.Dst:
		return "address"
	case r.proto != p.Proto:
		return "protocol"
	case r.ttl != p.TTL:
		return "TTL"
	case r.vlan != p.VLAN:
		return "VLAN"
	case r.whole && r.tunnels == 0 && (p.Whole == nil || !p.Fragment):
		return "whole"
	case !r.whole && (r.fragment != (p.FragmentOffset > 0) || r.more != p.MoreFragments || r.fragID != p.FragmentID):
		return "fragment"
	case r.transport != (o == Decoded) && !(r.whole && o == LaterFragment):
		return "transport"
	case r.srcPort != p.SrcPort || r.dstPort != p.DstPort:
		return "ports"
	case r.flags != p.Flags || r.seq != p.Seq || r.ack != p.Ack || r.window != p.Window:
		return "tcp"
	case r.icmpType != p.ICMPType:
		return "icmp type"
	case !bytes.Equal(r.captured, p.Payload) && !(r.whole && bytes.Equal(r.captured, p.Whole)):
		return "captured payload"
	case r.wire != p.PayloadLen && !(r.whole && r.wire == len(p.Whole)):
		return "payload length"
	}
	return ""
}

// A disagreement is a class of packets on which google/gopacket v1.1.19 differs
// for a reason that is known.
type disagreement struct {
	name string
	is   func(what string, o Outcome, f *Frame, p *Packet, r *reference) bool
}

var disagreements = []disagreement{
	// gopacket passes no fragment on to a transport (IPv4.NextLayerType), this
	// package decodes the first, which has the ports.
	{"gopacket leaves the transport of first fragments undecoded", func(what string, o Outcome, _ *Frame, p *Packet, r *reference) bool {
		return what == "transport" && o == Decoded && p.MoreFragments && p.FragmentOffset == 0 && !r.transport
	}},
	// It has no memory of what the first fragment said, this package does.
	{"gopacket has no ports for later fragments", func(what string, o Outcome, _ *Frame, p *Packet, r *reference) bool {
		return (what == "ports" || what == "icmp type") && o == LaterFragment && r.fragment && r.srcPort|r.dstPort == 0
	}},
	{"a later fragment whose first was not captured is a packet to gopacket", func(what string, o Outcome, _ *Frame, _ *Packet, r *reference) bool {
		return what == "packet" && o == OrphanFragment && r.fragment
	}},
	{"a tunnel that carried nothing but later fragments is none here", func(what string, o Outcome, _ *Frame, p *Packet, r *reference) bool {
		return what == "tunnels" && o == Decoded && isTunnelPort(p.DstPort) && r.fragment && r.tunnels == p.Tunnels+1 && r.outer.dst == p.Dst
	}},
	// gopacket notes the packet as truncated and decodes on; no host would take
	// it. ntop__telnet.pcap had its payload removed and its wire length too.
	{"gopacket believes an IP length beyond the wire", func(what string, o Outcome, f *Frame, _ *Packet, r *reference) bool {
		return what == "packet" && o == BadLength && r.ip && r.transport && r.ipEnd > f.WireLen
	}},
	// A protocol scan sends IP headers of every protocol and nothing behind
	// them; gopacket keeps the IP layer of those whose next header is missing.
	{"gopacket keeps the IP layer of a packet without its SCTP or AH header", func(what string, o Outcome, _ *Frame, _ *Packet, r *reference) bool {
		return what == "packet" && o == BadLength && r.ip && !r.transport && r.wire == 0 &&
			(r.proto == ProtoSCTP || r.proto == extAH)
	}},
}

func TestDecodeAgainstGopacket(t *testing.T) {
	count := map[string]int{}
	packets, decoded, panics, unexplained := 0, 0, 0, 0
	for _, path := range captures(t) {
		file, err := OpenFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		defrag := ip4defrag.NewIPv4Defragmenter()
		var d Decoder
		var f Frame
		var p Packet
		for n := 1; ; n++ {
			if err := file.Next(&f); err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				break
			}
			packets++
			o := d.Decode(&f, &p)
			r := refer(&f, defrag)
			if o.HasPacket() {
				decoded++
			}
			if p.Tunnels > 0 && o.HasPacket() {
				count["tunnelled: "+p.Tunnel.String()]++
			}
			if r.arp != nil {
				count["ARP"]++
			}
			if r.whole {
				count["put together by both"]++
			}
			if r.panicked {
				panics++
			}
			what := r.differs(o, &p)
			if what == "" {
				continue
			}
			class := slices.IndexFunc(disagreements, func(c disagreement) bool { return c.is(what, o, &f, &p, &r) })
			if class < 0 {
				if unexplained++; unexplained <= 20 {
					t.Errorf("%s, frame %d: %s differs: %v %+v; gopacket %+v", filepath.Base(path), n, what, o, p, r)
				}
				continue
			}
			count[disagreements[class].name]++
		}
		file.Close()
	}
	t.Logf("%d frames, %d IP packets; gopacket panicked on %d; %d unexplained", packets, decoded, panics, unexplained)
	for _, name := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%7d %s", count[name], name)
	}
}

// tunnelDisagreements are the frames that the tests build on which google/gopacket
// differs, by what it does. In each frame whose name ends in "is kept" it may also
// believe a tunnel that this package does not: it checks no version, no inner
// length, no bound.
var tunnelDisagreements = map[string][]string{
	"takes next extension 0 for an extension":    {"GTP-U, extension flag without one"},
	"does not peel what the capture cut":         {"GTP-U cut by snaplen behind the inner header"},
	"knows only ERSPAN type II":                  {"ERSPAN type I", "ERSPAN type III", "ERSPAN type III with a subheader"},
	"has no notion of a tunnel's identity":       {"GRE without a key in GTP-U: the TEID stays"},
	"has no bound on labels":                     {"MPLS, nine labels"},
	"checks neither version nor length of PPPoE": {"PPPoE that ends before its packet", "PPPoE of version 2"},
}

// TestTunnelsAgainstGopacket compares the tunnels that no capture of the data
// folder has.
func TestTunnelsAgainstGopacket(t *testing.T) {
	agreed, differ := map[string]int{}, 0
	for _, c := range tunnelCases() {
		f := Frame{Data: c.data, WireLen: max(c.wire, len(c.data)), Link: c.link}
		var d Decoder
		var p Packet
		o := d.Decode(&f, &p)
		r := refer(&f, nil)
		what := r.differs(o, &p)
		named := strings.HasSuffix(c.name, "is kept") && what == "tunnels" && r.tunnels > p.Tunnels
		for _, names := range tunnelDisagreements {
			named = named || slices.Contains(names, c.name)
		}
		switch {
		case named && what == "":
			t.Errorf("%s: agrees by now", c.name)
		case named:
			differ++
		case what != "":
			t.Errorf("%s: %s differs: %v %+v; gopacket %+v", c.name, what, o, p, r)
		case p.Tunnels > 0:
			agreed[p.Tunnel.String()]++
		}
	}
	t.Logf("agreed: %v; differ: %d", agreed, differ)
}
