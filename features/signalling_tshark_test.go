package features

import (
	"bufio"
	"fmt"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

// tsharkFrame is what tshark makes of a frame.
type tsharkFrame struct {
	protocol telecomProtocol // outermost
	stream   string          // TCP connection
	fragment bool            // tshark names the protocol in the last, we in the first
	counts   [numMessages]int
}

// telecomCapture matches the labels of captures with telecom traffic. Of the
// others each eighth is read: little of theirs must be taken for telecom.
var telecomCapture = regexp.MustCompile(`^(lab|telecom_fault|ngap_fuzz|benign_(sip|5g_core|lte_ims|lte_nsa|gtp|diameter))$`)

var servicePath = regexp.MustCompile(`/n(5g|[a-z]+)-[a-z-]+/v[0-9]`)

// tsharkFields are, after the frame's number: protocols, outer ports, TCP
// connection, request paths, and what is counted.
var tsharkFields = []string{"frame.number", "frame.protocols", "udp.srcport", "udp.dstport", "tcp.stream", "http2.headers.path", "http.request.uri",
	"gtp.message", "gtpv2.message_type", "pfcp.msg_type", "sip.Method", "diameter.flags.request", "ip.flags.mf", "ip.frag_offset"}

// http2Ports are the ports of HTTP/2 in some captures, which tshark has to be told.
var http2Ports = map[string][]string{
	"5g-roaming-hr":    {"7777", "80"},
	"5GSA-Reg-PDUEst":  {"8080"},
	"telekom__free5gc": {"29502", "29503", "29504", "29507", "29509", "29510", "29518", "29531"},
}

// readTshark runs tshark over a capture. It is told the captures' own ports of
// HTTP/2 and Diameter, and to decode what SCTP sends again.
func readTshark(t *testing.T, path string) []tsharkFrame {
	args := []string{"-r", path, "-T", "fields", "-o", "sctp.tsn_analysis:FALSE", "-d", "tcp.port==3871,diameter"}
	for name, ports := range http2Ports {
		for _, port := range ports {
			if strings.Contains(path, name) {
				args = append(args, "-d", "tcp.port=="+port+",http2")
			}
		}
	}
	for _, f := range tsharkFields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []tsharkFrame
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		field := strings.Split(lines.Text(), "\t")
		if len(field) != len(tsharkFields) {
			t.Fatalf("tshark: %q", lines.Text())
		}
		all = append(all, tsharkFrame{})
		all[len(all)-1].set(field)
	}
	if err := cmd.Wait(); err != nil && len(all) == 0 {
		t.Fatal(path, err)
	}
	return all
}

func (f *tsharkFrame) set(field []string) {
	first := func(i int) string { v, _, _ := strings.Cut(field[i], ","); return v }
	f.stream = first(4)
	for _, v := range strings.Split(field[13], ",") {
		f.fragment = f.fragment || v != "" && v != "0"
	}
	f.fragment = f.fragment || strings.Contains(field[12], "1")
	gtp := map[string]telecomProtocol{"2152": gtpU, "2123": gtpC, "3386": gtpPrime}
	protocols := strings.Split(field[1], ":")
search:
	for _, name := range protocols {
		switch name {
		case "icmp", "icmpv6": // what an error quotes is no message
			break search
		case "gtp", "gtpv2", "gtpprime":
			if f.protocol = gtp[first(3)]; f.protocol == noTelecom {
				f.protocol = gtp[first(2)]
			}
		case "pfcp":
			f.protocol = pfcp
		case "sip":
			f.protocol = sip
		case "diameter":
			f.protocol = diameter
		case "ngap":
			f.protocol = ngap
		case "s1ap":
			f.protocol = s1ap
		case "m3ua", "m2ua", "m2pa", "sua":
			f.protocol = ss7
		case "http2":
			if servicePath.MatchString(field[5]) {
				f.protocol = sbi
			}
			break search // and what it carries is no message of its own
		case "http":
			if servicePath.MatchString(field[6]) {
				f.protocol = sbi
			}
			break search
		}
		if f.protocol != noTelecom {
			break search
		}
	}
	values := func(i int) []string {
		return strings.FieldsFunc(field[i], func(r rune) bool { return r == ',' })
	}
	switch f.protocol {
	case gtpC, gtpPrime, gtpU:
		// The first: those inside are not this packet's.
		if v := append(values(7), values(8)...); len(v) > 0 && v[0] != "255" && v[0] != "0xff" {
			f.counts[gtpMessages]++
		}
	case pfcp:
		for _, v := range values(9) {
			if v == "50" || v == "52" || v == "54" {
				f.counts[pfcpRequests]++
			}
		}
	case sip:
		f.counts[sipRequests] = min(len(values(10)), 1)
	case diameter:
		for _, v := range values(11) {
			if v == "1" || v == "True" {
				f.counts[diameterRequests]++
			}
		}
	}
}

// TestSignallingTshark compares with tshark: each frame over UDP and SCTP, each
// connection over TCP, and how many messages are counted. With tshark 4.0.17 the
// differences are: the later parts of messages that SCTP splits are theirs to us,
// and to tshark only the last; CoAP from port 2123 or 2152 is GTP to tshark; so is
// a G-PDU of 2,096 octets in a datagram of 208.
func TestSignallingTshark(t *testing.T) {
	root := datatest.Data(t, "captures")
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("no tshark to compare with")
	}
	if testing.Short() {
		t.Skip("tshark reads 80 MB")
	}
	version, _ := exec.Command("tshark", "--version").Output()
	line, _, _ := strings.Cut(string(version), "\n")
	t.Log(line)

	agreed, seen := [numTelecom]int{}, [numTelecom]int{}
	mine, theirs := [numMessages]int{}, [numMessages]int{}
	differ := map[string]int{}
	frames, fragments, others := 0, 0, 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch filepath.Ext(path) {
		case ".pcap", ".pcapng", ".pcap_", ".cap":
		default:
			return err
		}
		if label := filepath.Base(filepath.Dir(path)); !telecomCapture.MatchString(label) {
			if others++; others%8 != 0 {
				return nil
			}
		}
		tshark := readTshark(t, path)
		name := filepath.Base(path)
		type tcpState struct {
			signallingState
			dirs   [2]direction
			theirs telecomProtocol
		}
		streams := map[string]*tcpState{} // by tshark's number
		note := func(what string, ours, theirs telecomProtocol) {
			seen[theirs]++
			if ours == theirs {
				agreed[theirs]++
				return
			}
			differ[fmt.Sprintf("%s: %s %s, tshark %s", name, what, ours, theirs)]++
		}
		count := func(protocol telecomProtocol, p *capture.Packet) {
			switch protocol {
			case gtpU, gtpC, gtpPrime:
				n, _ := gtpCount(p)
				mine[gtpMessages] += int(n)
			case pfcp:
				mine[pfcpRequests] += int(pfcpCount(p))
			case sip:
				mine[sipRequests] += int(sipCount(p))
			case diameter:
				mine[diameterRequests] += int(diameterCount(p))
			}
		}
		decoded(t, path, func(i int, p *capture.Packet) {
			if i > len(tshark) {
				return
			}
			f := &tshark[i-1]
			if f.fragment || p.Fragment {
				fragments++
				return
			}
			frames++
			for kind, n := range f.counts {
				theirs[kind] += n
			}
			if p.Tunnel == capture.TunnelGTPU {
				note("frame", gtpU, f.protocol)
				return
			}
			if p.Proto != capture.ProtoTCP || f.stream == "" {
				var s signallingState
				if len(p.Payload) > 0 {
					s.inspect(p, originator)
				}
				count(s.protocol, p)
				note("frame", s.protocol, f.protocol)
				return
			}
			s := streams[f.stream]
			if s == nil {
				s = new(tcpState)
				streams[f.stream] = s
			}
			if len(p.Payload) > 0 && s.inspected < inspectPackets {
				s.inspect(p, originator)
			}
			if f.protocol != noTelecom {
				s.theirs = f.protocol
			}
			d := &s.dirs[0]
			if p.SrcPort > p.DstPort {
				d = &s.dirs[1]
			}
			if d.sequence(p) > 0 {
				count(s.protocol, p)
			}
		})
		for _, s := range streams {
			note("connection", s.protocol, s.theirs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range slices.Sorted(maps.Keys(differ)) {
		t.Log(differ[d], d)
	}
	for p := range numTelecom {
		t.Logf("%-10s %6d agreed of tshark's %d", p, agreed[p], seen[p])
		if float64(agreed[p]) < .995*float64(seen[p]) {
			t.Errorf("%s: agreed on too few", p)
		}
	}
	for kind, name := range [...]string{"GTP messages", "PFCP session requests", "SIP requests", "Diameter requests"} {
		t.Logf("%s: %d, tshark %d", name, mine[kind], theirs[kind])
		// Some of Diameter's come again in captures that lost what came first;
		// tshark sees from the other side's ACK that they did.
		if ratio := float64(mine[kind]) / float64(theirs[kind]); ratio < .99 || ratio > 1.01 && kind != diameterRequests || ratio > 1.2 {
			t.Errorf("%s: %d, tshark %d", name, mine[kind], theirs[kind])
		}
	}
	if frames < 200_000 {
		t.Errorf("only %d frames", frames)
	}
	t.Logf("%d frames, and %d fragments left out", frames, fragments)
}
