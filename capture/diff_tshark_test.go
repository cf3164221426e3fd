package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tsharkFields are read in this order, every occurrence of each.
var tsharkFields = []string{
	"frame.protocols", "ip.src", "ip.dst", "ip.proto", "ipv6.src", "ipv6.dst",
	"tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport", "sctp.srcport", "sctp.dstport",
	"eth.src", "eth.dst", "sll.src.eth",
	"arp.opcode", "arp.src.hw_mac", "arp.dst.hw_mac", "arp.src.proto_ipv4", "arp.dst.proto_ipv4",
}

// linkFields returns the frame's own hardware addresses of a line of tshark's, and
// the ARP message that it is, in the words of linkOf.
func linkFields(line string) string {
	v := map[string]string{}
	for i, s := range strings.Split(line, "\t") {
		v[tsharkFields[i]], _, _ = strings.Cut(s, ",")
	}
	src, dst := v["eth.src"], v["eth.dst"]
	if protocols := v["frame.protocols"]; !strings.HasPrefix(protocols, "eth:") {
		src, dst = v["sll.src.eth"], ""
	}
	zero := (MAC{}).String()
	s := strings.TrimPrefix(src, zero) + ">" + strings.TrimPrefix(dst, zero)
	if strings.HasSuffix(v["frame.protocols"], ":ethertype:arp") {
		s += fmt.Sprintf(" ARP %s %s %s > %s %s", v["arp.opcode"], v["arp.src.hw_mac"], v["arp.src.proto_ipv4"], v["arp.dst.hw_mac"], v["arp.dst.proto_ipv4"])
	}
	return s
}

// linkOf has no address where the link has none.
func linkOf(p *Packet) string {
	name := func(m MAC) string {
		if m == (MAC{}) {
			return ""
		}
		return m.String()
	}
	s := name(p.SrcMAC) + ">" + name(p.DstMAC)
	if a := p.ARP; a != nil {
		s += fmt.Sprintf(" ARP %d %v %v > %v %v", a.Op, a.SenderMAC, a.Sender, a.TargetMAC, a.Target)
	}
	return s
}

// innermost returns addresses, transport and ports of the innermost packet of a
// line of tshark's, in the words of flowOf. It is the last in the chain of
// protocols; an ICMP message ends the chain, because it quotes a packet.
func innermost(line string) string {
	v := map[string][]string{}
	for i, s := range strings.Split(line, "\t") {
		v[tsharkFields[i]] = strings.Split(s, ",")
	}
	n := map[string]int{} // occurrences of each protocol so far
	net, transport := "", ""
	at := func(field string) string {
		if i := n[strings.SplitN(field, ".", 2)[0]] - 1; i < len(v[field]) {
			return v[field][i]
		}
		return "?"
	}
	for _, p := range strings.Split(v["frame.protocols"][0], ":") {
		n[p]++
		switch p {
		case "ip", "ipv6":
			net, transport = p, ""
		case "tcp", "udp", "sctp":
			if transport == "" {
				transport = p
			}
		case "icmp", "icmpv6":
			if net != "" && transport == "" {
				return fmt.Sprintf("%s>%s %s", at(net+".src"), at(net+".dst"), p)
			}
		}
	}
	switch {
	case net == "":
		return ""
	case transport != "":
		return fmt.Sprintf("%s>%s %s %s>%s", at(net+".src"), at(net+".dst"), transport, at(transport+".srcport"), at(transport+".dstport"))
	}
	return fmt.Sprintf("%s>%s", at(net+".src"), at(net+".dst"))
}

// flowOf has no transport for what tshark does not decode: fragments but the one
// that completes a datagram.
func flowOf(o Outcome, p *Packet) string {
	if !o.HasPacket() {
		return ""
	}
	s := fmt.Sprintf("%v>%v", p.Src, p.Dst)
	if o == OtherTransport || p.Fragment && p.Whole == nil {
		return s
	}
	switch p.Proto {
	case ProtoICMP:
		return s + " icmp"
	case ProtoICMPv6:
		return s + " icmpv6"
	}
	name, ok := map[uint8]string{ProtoTCP: "tcp", ProtoUDP: "udp", ProtoSCTP: "sctp"}[p.Proto]
	if !ok {
		return s
	}
	return s + " " + name + " " + strconv.Itoa(int(p.SrcPort)) + ">" + strconv.Itoa(int(p.DstPort))
}

// tsharkDisagreements are the classes of frames on which tshark differs for a
// reason that is known.
var tsharkDisagreements = []struct {
	name string
	is   func(theirs, ours string, o Outcome, p *Packet) bool
}{
	{"a later fragment whose first was not captured has addresses in tshark", func(theirs, ours string, o Outcome, _ *Packet) bool {
		return o == OrphanFragment && !strings.Contains(theirs, " ")
	}},
	{"a tunnel that carried nothing but later fragments is none here", func(theirs, _ string, o Outcome, p *Packet) bool {
		return o == Decoded && isTunnelPort(p.DstPort) && !p.Fragment && theirs != "" && !strings.Contains(theirs, " ")
	}},
	// Captures of "any" see a datagram on every hop of its path; each is another
	// tunnel.
	{"tshark puts a datagram together once, this package once in each tunnel", func(theirs, ours string, _ Outcome, p *Packet) bool {
		return p.Whole != nil && strings.HasPrefix(ours, theirs+" ")
	}},
	{"tshark believes a GTP-U length beyond the datagram", func(_, _ string, _ Outcome, p *Packet) bool {
		return p.DstPort == portGTPU && p.Tunnel == TunnelNone && int(binary.BigEndian.Uint16(p.Payload[2:]))+8 > p.PayloadLen
	}},
}

// tsharkFrames of each capture are compared: tshark needs a minute for all of the lab's.
const tsharkFrames = 20000

// TestDecodeAgainstTshark compares the hardware addresses and ARP messages of the
// captures that hold ARP, tunnels or fragments with Wireshark's dissection, and the
// innermost packet of every frame of those that hold tunnels or fragments, which
// Wireshark puts together too. Checked with tshark 4.0.17.
func TestDecodeAgainstTshark(t *testing.T) {
	if testing.Short() {
		t.Skip("tshark takes half a minute")
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed: apt install tshark")
	}
	count := map[string]int{}
	unexplained := 0
	for _, path := range captures(t) {
		var flows, arp bool
		read(t, path, func(_ int, o Outcome, p *Packet) {
			flows = flows || o == OrphanFragment || p.Tunnels > 0 || p.Fragment
			arp = arp || p.ARP != nil
		})
		if !flows && !arp {
			continue
		}
		args := []string{"-n", "-r", path, "-c", strconv.Itoa(tsharkFrames), "-T", "fields", "-o", "tcp.desegment_tcp_streams:FALSE"}
		for _, f := range tsharkFields {
			args = append(args, "-e", f)
		}
		cmd := exec.Command(tshark, args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		frames := 0
		read(t, path, func(n int, o Outcome, p *Packet) {
			if n > tsharkFrames || !lines.Scan() {
				return
			}
			frames++
			if p.ARP != nil {
				count["ARP"]++
			}
			if theirs, ours := linkFields(lines.Text()), linkOf(p); theirs != ours && (o.HasPacket() || p.ARP != nil) {
				if unexplained++; unexplained <= 40 {
					t.Errorf("%s, frame %d: %v %q, tshark %q: %.300s", filepath.Base(path), n, o, ours, theirs, lines.Text())
				}
			}
			if !flows {
				return
			}
			theirs, ours := innermost(lines.Text()), flowOf(o, p)
			if o.HasPacket() && p.Tunnels > 0 {
				count["tunnelled: "+p.Tunnel.String()]++
			}
			if theirs == ours {
				if o.HasPacket() && p.Whole != nil {
					count["agreed, put together"]++
				}
				return
			}
			for _, c := range tsharkDisagreements {
				if c.is(theirs, ours, o, p) {
					count[c.name]++
					return
				}
			}
			if unexplained++; unexplained <= 40 {
				t.Errorf("%s, frame %d: %v %q, tshark %q: %.300s", filepath.Base(path), n, o, ours, theirs, lines.Text())
			}
		})
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Logf("%s: tshark: %v", filepath.Base(path), err)
		}
		t.Logf("%7d frames of %s", frames, filepath.Base(path))
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%7d %s", count[name], name)
	}
	t.Logf("%7d unexplained", unexplained)
}

// read decodes a capture.
func read(t *testing.T, path string, take func(n int, o Outcome, p *Packet)) {
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var d Decoder
	var fr Frame
	var p Packet
	for n := 1; f.Next(&fr) == nil; n++ {
		o := d.Decode(&fr, &p)
		if !o.HasPacket() && p.ARP == nil {
			p = Packet{}
		}
		take(n, o, &p)
	}
}
