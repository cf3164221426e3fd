package features

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/picket-ids/picket/capture"
)

// dissect says what p is by itself: protocol, core function, what is counted of
// it, TEID.
func dissect(p *capture.Packet) string {
	var s signallingState
	if len(p.Payload) > 0 {
		s.inspect(p, originator)
	}
	n, teid := uint32(0), uint32(0)
	switch s.protocol {
	case gtpU, gtpC, gtpPrime:
		n, teid = gtpCount(p)
	case pfcp:
		n = pfcpCount(p)
	case sip:
		n = sipCount(p)
	case diameter:
		n = diameterCount(p)
	}
	return fmt.Sprint(s.protocol, " ", s.core(), " ", n, " ", teid)
}

// decoded calls yield with each packet of a capture and its number, from 1.
func decoded(t testing.TB, path string, yield func(n int, p *capture.Packet)) {
	var d capture.Decoder
	var p capture.Packet
	for i, f := range readFrames(t, path) {
		if d.Decode(&f, &p).HasPacket() {
			yield(i+1, &p)
		}
	}
}

// TestSignallingScapy: recognition agrees with what scapy built, see
// testdata/scapy_signalling.py.
func TestSignallingScapy(t *testing.T) {
	f, err := os.Open("testdata/signalling.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, lines := map[int]string{}, bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.SplitN(lines.Text(), " ", 6)
		want[len(want)+1] = strings.Join(field[1:5], " ")
	}
	n := 0
	decoded(t, "testdata/signalling.pcap", func(i int, p *capture.Packet) {
		n++
		if got := dissect(p); got != want[i] {
			t.Errorf("packet %d: %s, want %s", i, got, want[i])
		}
	})
	if n != len(want) || n < 90 {
		t.Errorf("%d packets, %d lines", n, len(want))
	}
}

// message makes a packet with the given payload.
func message(proto uint8, port uint16, payload string) capture.Packet {
	p := packet(0, proto, false, len(payload))
	p.DstPort, p.Payload = port, []byte(payload)
	return p
}

// data makes an SCTP DATA chunk that holds a whole message.
func dataOf(ppid uint32, message string) string {
	b := []byte{0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(16+len(message)))
	b = append(binary.BigEndian.AppendUint32(b, ppid), message...)
	return string(append(b, make([]byte, -len(b)&3)...))
}

const (
	gtpEcho    = "\x32\x01\x00\x04\x00\x00\x00\x00\x00\x07\x00\x00"
	gtpPDU     = "\x30\xff\x00\x04\x00\x00\x10\x01abcd"
	gtpSession = "\x48\x20\x00\x08\x00\x00\x00\x63\x00\x00\x01\x00"
	pfcpModify = "\x21\x34\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x01\x00"
	sipInvite  = "INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n"
	diamCER    = "\x01\x00\x00\x20\x80\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x01\x08\x40\x00\x00\x0cmme1"
	ngSetup    = "\x00\x15\x00\x33\x00\x00\x04\x00\x1b\x00\x08"
	m3uaUp     = "\x01\x00\x03\x01\x00\x00\x00\x08"
)

func TestRecognise(t *testing.T) {
	const tcp, udp, sctp = capture.ProtoTCP, capture.ProtoUDP, capture.ProtoSCTP
	for _, tc := range []struct {
		name    string
		proto   uint8
		port    uint16
		payload string
		want    string
	}{
		{"GTP-U echo", udp, 2152, gtpEcho, "gtp-u 12 1 0"},
		{"G-PDU", udp, 2152, gtpPDU, "gtp-u 12 0 4097"},
		{"GTP-C type on GTP-U's port", udp, 2152, "\x32\x10" + gtpEcho[2:], "none 99 0 0"},
		{"GTP without its port", udp, 2153, gtpEcho, "none 99 0 0"},
		{"GTP over TCP", tcp, 2152, gtpEcho, "none 99 0 0"},
		{"GTPv1-C echo", udp, 2123, gtpEcho, "gtp-c 99 1 0"},
		{"GTPv2 create session", udp, 2123, gtpSession, "gtp-c 99 1 99"},
		{"GTPv2 shorter than its header", udp, 2123, "\x48\x20\x00\x04\x00\x00\x00\x63", "none 99 0 0"},
		{"GTPv2 longer than its datagram", udp, 2123, "\x48\x20\x00\x09" + gtpSession[4:], "none 99 0 0"},
		{"GTPv2, spare bits", udp, 2123, "\x49" + gtpSession[1:], "none 99 0 0"},
		{"GTPv2 on GTP-U's port", udp, 2152, gtpSession, "none 99 0 0"},
		{"GTP' echo", udp, 3386, "\x4e\x01\x00\x02\x00\x01\x0d\x00", "gtp-prime 99 1 0"},
		{"GTPv0 echo on GTP' port", udp, 3386, "\x1e\x01\x00\x02" + strings.Repeat("\x00", 18), "gtp-c 99 1 0"},
		{"GTP', unknown type", udp, 3386, "\x4e\x20\x00\x02\x00\x01\x0d\x00", "none 99 0 0"},
		{"PFCP", udp, 8805, pfcpModify, "pfcp 11 1 0"},
		{"PFCP bundle", udp, 8805, "\x25" + pfcpModify[1:] + "\x21\x36" + pfcpModify[2:], "pfcp 11 2 0"},
		{"PFCP of another version", udp, 8805, "\x41" + pfcpModify[1:], "none 99 0 0"},
		{"SIP", udp, 5060, sipInvite, "sip 99 1 0"},
		{"SIP on any port", tcp, 443, sipInvite, "sip 99 1 0"},
		{"SIP cut in its line", udp, 5060, sipInvite[:20], "sip 99 1 0"},
		{"SIP response", udp, 9, "SIP/2.0 404 Not Found\r\n", "sip 99 0 0"},
		{"SIP response, bad status", udp, 5060, "SIP/2.0 4x4 Not Found\r\n", "none 99 0 0"},
		{"SIP of another version", udp, 5060, "INVITE sip:a SIP/3.0\r\n\r\n", "none 99 0 0"},
		{"HTTP about SIP", tcp, 80, "GET /sip:a HTTP/1.1\r\n\r\n", "none 99 0 0"},
		{"SIP over SCTP", sctp, 5060, dataOf(0, sipInvite), "sip 99 1 0"},
		{"Diameter", tcp, 3868, diamCER, "diameter 99 1 0"},
		{"Diameter answer and request", tcp, 3868, diamCER[:4] + "\x00" + diamCER[5:] + diamCER, "diameter 99 1 0"},
		{"Diameter on any port", tcp, 13868, diamCER, "diameter 99 1 0"},
		{"Diameter header only, any port", tcp, 13868, diamCER[:20], "none 99 0 0"},
		{"Diameter of a length not in words", tcp, 3868, "\x01\x00\x00\x21" + diamCER[4:], "none 99 0 0"},
		{"Diameter answer over SCTP", sctp, 3868, dataOf(0, diamCER[:4]+"\x00"+diamCER[5:]), "diameter 99 0 0"},
		{"PFCP heartbeat with an SEID", udp, 8805, "\x21\x01" + pfcpModify[2:], "pfcp 11 0 0"},
		{"the same with more behind", udp, 8805, "\x21\x01" + pfcpModify[2:] + "x", "none 99 0 0"},
		{"Diameter over SCTP", sctp, 3868, dataOf(0, diamCER), "diameter 99 1 0"},
		{"NGAP", sctp, 38412, dataOf(60, ngSetup), "ngap 10 0 0"},
		{"NGAP in the second chunk", sctp, 38412, "\x03\x00\x00\x10" + strings.Repeat("\x00", 12) + dataOf(60, ngSetup), "ngap 10 0 0"},
		{"NGAP by port only", sctp, 38412, dataOf(0, "no APER at all"), "none 99 0 0"},
		{"NGAP by identifier only", sctp, 1, dataOf(60, "no APER at all"), "none 99 0 0"},
		{"APER only", sctp, 1, dataOf(0, ngSetup), "none 99 0 0"},
		{"S1AP by identifier and header", sctp, 1, dataOf(18, ngSetup), "s1ap 99 0 0"},
		{"I-DATA", sctp, 38412, "\x40\x03\x00\x1f\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x3c" + ngSetup, "ngap 10 0 0"},
		{"chunk without length", sctp, 38412, "\x00\x03\x00\x00" + dataOf(60, ngSetup), "none 99 0 0"},
		{"M3UA", sctp, 2905, dataOf(3, m3uaUp), "ss7 99 0 0"},
		{"M3UA on another port", sctp, 2906, dataOf(3, m3uaUp), "ss7 99 0 0"},
		{"HTTP/1.1 AUSF", tcp, 8000, "POST /nausf-auth/v1/ue-authentications HTTP/1.1\r\n", "sbi 13 0 0"},
		{"HTTP/1.1 AMF's callback", tcp, 8000, "POST http://amf/namf-callback/v1/sm HTTP/1.1\r\n", "sbi 10 0 0"},
		{"HTTP/1.1 NRF", tcp, 8000, "GET /nnrf-disc/v1/nf-instances HTTP/1.1\r\n", "sbi 99 0 0"},
		{"a web site's path", tcp, 80, "GET /node-red/v1 HTTP/1.1\r\n", "none 99 0 0"},
		{"the path of another field", tcp, 80, "GET / HTTP/1.1\r\nReferer: /nausf-auth/v1\r\n", "none 99 0 0"},
		{"HTTP/2, path as it is", tcp, 7777, "\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x83\x04\x0c/nsmf-pdu/v1", "sbi 11 0 0"},
		{"HTTP/2, padding and priority", tcp, 7777, "\x00\x00\x15\x01\x2d\x00\x00\x00\x01\x01\x00\x00\x00\x00\x10\x83\x04\x0c/namf-pdu/v1\x00", "sbi 10 0 0"},
		{"HTTP/2, even stream", tcp, 7777, "\x00\x00\x0f\x01\x05\x00\x00\x00\x02\x83\x04\x0c/nsmf-pdu/v1", "none 99 0 0"},
		{"HTTP/2, path / of the table", tcp, 7777, "\x00\x00\x02\x01\x05\x00\x00\x00\x01\x83\x84", "none 99 0 0"},
		{"DNS", udp, 53, "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", "none 99 0 0"},
	} {
		p := message(tc.proto, tc.port, tc.payload)
		if got := dissect(&p); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		// The same from the port, and in a capture that cut off all but what is
		// in front of the payload.
		p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
		if got := dissect(&p); got != tc.want {
			t.Errorf("%s, from the port: %s, want %s", tc.name, got, tc.want)
		}
		p.Payload = nil
		if got := dissect(&p); got != "none 99 0 0" {
			t.Errorf("%s, cut off: %s", tc.name, got)
		}
	}
}

// TestSnaplen: a protocol of fixed header is recognised from its first 8 to 32 octets.
func TestSnaplen(t *testing.T) {
	for _, p := range []capture.Packet{
		message(capture.ProtoUDP, 2152, gtpPDU), message(capture.ProtoUDP, 2123, gtpSession), message(capture.ProtoUDP, 8805, pfcpModify),
		message(capture.ProtoTCP, 3868, diamCER), message(capture.ProtoUDP, 5060, sipInvite), message(capture.ProtoSCTP, 38412, dataOf(60, ngSetup)),
	} {
		whole, _ := recognise(&p)
		all := p.Payload
		for n := 20; n <= len(all); n++ {
			p.Payload = all[:n]
			if got, _ := recognise(&p); got != whole {
				t.Errorf("%s cut to %d octets: %s", whole, n, got)
			}
		}
	}
}

// TestHPACK compares the reader with golang.org/x/net's encoder.
func TestHPACK(t *testing.T) {
	rng := newRand(31)
	for range 2000 {
		path := make([]byte, 1+rng.IntN(maxPath))
		for i := range path {
			path[i] = byte(rng.IntN(256))
			if rng.IntN(4) > 0 {
				path[i] = "/-_abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(39)]
			}
		}
		var decoded [maxPath]byte
		code := hpack.AppendHuffmanString(nil, string(path))
		if n := unHuffman(decoded[:], code); string(decoded[:n]) != string(path) {
			t.Fatalf("%q decoded to %q", path, decoded[:n])
		}
		var block bytes.Buffer
		e := hpack.NewEncoder(&block)
		if rng.IntN(3) == 0 {
			e.SetMaxDynamicTableSize(rng.Uint32N(5000))
		}
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: []string{"POST", "GET", "PUT", "PATCH"}[rng.IntN(4)]}, {Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: "10.0.0.1:7777"}, {Name: "3gpp-sbi-target-apiroot", Value: strings.Repeat("x", rng.IntN(300)), Sensitive: rng.IntN(2) == 0},
			{Name: ":path", Value: string(path), Sensitive: rng.IntN(2) == 0}, {Name: "accept", Value: "*/*"},
		} {
			if err := e.WriteField(f); err != nil {
				t.Fatal(err)
			}
		}
		if got := http2Path(block.Bytes(), &decoded); string(got) != string(path) {
			t.Fatalf("path %q, read %q", path, got)
		}
	}
}

// TestSignallingWindow compares the rate with the messages of the last 5 s, one
// by one: the same when they come evenly, within the oldest half window's otherwise.
func TestSignallingWindow(t *testing.T) {
	tb := newSignallingTable(10)
	var peak signallingRates
	for i := range 1000 { // 10/s for 100 s
		peak = signallingRates{}
		tb.add(&client, pfcpRequests, 1, epoch+int64(i)*second/10, &peak)
		if i >= 50 && math.Abs(float64(peak.perSecond[pfcpRequests])-10) > .2001 || i == 20 && peak.perSecond[pfcpRequests] != 21./5 {
			t.Fatalf("%v/s after %d messages", peak.perSecond[pfcpRequests], i+1)
		}
	}
	rng := newRand(32)
	for range 200 {
		tb.reset()
		var times []int64
		now := rng.Int64N(20*second) - 10*second
		for range 200 {
			now += rng.Int64N(second) * rng.Int64N(3) * rng.Int64N(3)
			peak = signallingRates{}
			tb.add(&client, sipRequests, 1, now, &peak)
			times = append(times, now)
			exact, oldest := 0, 0
			for _, at := range times {
				if at > now-5*second {
					exact++
				}
				if halfOf(at) == halfOf(now)-2 {
					oldest++
				}
			}
			if got := float64(peak.perSecond[sipRequests]) * 5; math.Abs(got-float64(exact)) > float64(oldest)+1e-3 {
				t.Fatalf("%v messages in 5 s, of %d; %d in the oldest half window", got, exact, oldest)
			}
		}
	}
}

// TestDistinct: the count of TEIDs is within 5 standard errors, and forgets.
func TestDistinct(t *testing.T) {
	for _, n := range []int{0, 1, 2, 10, 100, 500, 1000, 2000, 3000} {
		tb := newSignallingTable(1)
		var peak signallingRates
		for teid := range n {
			for range 2 {
				tb.addTEID(&client, &server, uint32(teid+1), epoch, &peak)
			}
		}
		got := float64(peak.teids)
		ratio := float64(n) / distinctBits
		sigma := math.Sqrt(distinctBits * (math.Exp(ratio) - ratio - 1))
		t.Logf("%d TEIDs: %v", n, got)
		if math.Abs(got-float64(n)) > 5*sigma+.5 {
			t.Errorf("%v TEIDs, want %d", got, n)
		}
		for _, later := range []struct {
			after int64
			want  uint32
		}{{halfWindow, peak.teids}, {2 * halfWindow, 1}} {
			var now signallingRates
			tb.addTEID(&client, &server, 1, epoch+later.after, &now)
			if now.teids != max(later.want, 1) {
				t.Errorf("%v after %d ns, want %d", now.teids, later.after, later.want)
			}
		}
	}
	if linearCount[distinctBits] != 7098 {
		t.Errorf("at most %d", linearCount[distinctBits])
	}
}

// TestSignallingSources: the table holds no more than its limit, forgets the source
// idle longest and counts it.
func TestSignallingSources(t *testing.T) {
	const limit = 50
	tb := newSignallingTable(limit)
	rate := func(i int) float32 {
		var peak signallingRates
		tb.add(&capture.Addr{15: byte(i)}, sipRequests, 1, epoch, &peak)
		return peak.perSecond[sipRequests] * 5
	}
	for i := range limit {
		rate(i)
	}
	for _, step := range []struct {
		source  int
		want    float32 // messages so far
		evicted uint64
	}{{0, 2, 0}, {limit, 1, 1}, {0, 3, 1}, {1, 1, 2}, {2, 1, 3}, {limit, 2, 3}} {
		if got := rate(step.source); got != step.want || tb.sources.evicted != step.evicted || tb.sources.table.len() != limit {
			t.Errorf("source %d: %v messages, %d evicted, %d held, want %v", step.source, got, tb.sources.evicted, tb.sources.table.len(), step)
		}
	}
	if tb.reset(); tb.sources.table.len() != 0 || tb.sources.evicted != 3 || rate(0) != 1 {
		t.Error("reset left some")
	}
}

// signallingColumns are all columns of the group's names.
var signallingColumns = append([]string{"protocol_type"}, names(signallingGroup)...)

// signallingRows returns the values of each row by name, those that are not 0.
func signallingRows(t testing.TB, ps []capture.Packet) (rows []string) {
	tr := newTracker(t, Config{Columns: signallingColumns}, func(r *Row) {
		line := ""
		for i, v := range r.Values {
			if v != 0 {
				line += fmt.Sprintf(" %s %v", signallingColumns[i], v)
			}
		}
		rows = append(rows, line)
	})
	for i := range ps {
		tr.Add(&ps[i])
	}
	tr.Flush()
	return rows
}

func TestSignallingFeatures(t *testing.T) {
	at := func(seconds float64, p capture.Packet) capture.Packet {
		p.Time += int64(seconds * 1e9)
		return p
	}
	back := func(p capture.Packet) capture.Packet {
		p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
		return p
	}
	inTunnel := func(p capture.Packet, teid uint32) capture.Packet {
		p.Tunnel, p.TunnelID, p.OuterSrc, p.OuterDst = capture.TunnelGTPU, teid, addr("10.9.0.1"), addr("10.9.0.2")
		return p
	}
	const udp, tcp = capture.ProtoUDP, capture.ProtoTCP
	session := message(udp, 8805, pfcpModify)
	plain := message(udp, 53, "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00")
	fragment := message(udp, 5060, sipInvite)
	fragment.Fragment, fragment.MoreFragments, fragment.FragmentLen = true, true, 8+len(sipInvite)
	later := fragment
	later.FragmentOffset, later.MoreFragments, later.Payload = uint16(later.FragmentLen), false, []byte("INVITE sip:a SIP/2.0\r\n")
	for _, tc := range []struct {
		name string
		ps   []capture.Packet
		want []string
	}{
		{"no telecom", []capture.Packet{plain}, []string{" protocol_type 1 core_function 99"}},
		{"PFCP, 2 requests of 3 messages by the source",
			[]capture.Packet{session, back(session), at(1, session), at(1, back(message(udp, 8805, "\x21\x35"+pfcpModify[2:])))},
			[]string{" protocol_type 1 service_11_traffic 32 is_signaling 1 telecom_protocol 4 core_function 11 pfcp_session_rate 0.4"}},
		{"a storm's peak is forgotten with the row",
			[]capture.Packet{session, session, session, session, session, at(59, session), at(118, session)},
			[]string{
				" protocol_type 1 service_11_traffic 96 is_signaling 1 telecom_protocol 4 core_function 11 pfcp_session_rate 1",
				" protocol_type 1 service_11_traffic 112 is_signaling 1 telecom_protocol 4 core_function 11 pfcp_session_rate 0.2",
				" protocol_type 1 service_11_traffic 112 is_signaling 1 telecom_protocol 4 core_function 11"}},
		{"three TEIDs, one of them twice",
			[]capture.Packet{message(udp, 2152, gtpPDU), message(udp, 2152, "\x30\xff\x00\x04\x00\x00\x10\x02abcd"), message(udp, 2152, "\x30\xff\x00\x04\x00\x00\x10\x03abcd"), message(udp, 2152, gtpPDU)},
			[]string{" protocol_type 3 service_12_traffic 48 telecom_protocol 1 core_function 12 gtp_teid_count 3"}},
		{"inside GTP-U", []capture.Packet{inTunnel(plain, 7), inTunnel(back(plain), 8)},
			[]string{" protocol_type 1 service_12_traffic 12 telecom_protocol 1 core_function 12 gtp_teid_count 1"}},
		{"a SYN inside GTP-U", []capture.Packet{inTunnel(packet(0, tcp, false, 0), 7)},
			[]string{" telecom_protocol 1 core_function 12 gtp_teid_count 1"}},
		{"SIP inside GTP-U", []capture.Packet{inTunnel(message(udp, 5060, sipInvite), 7)},
			[]string{" protocol_type 4 service_12_traffic 58 is_signaling 1 telecom_protocol 5 core_function 12 gtp_teid_count 1 sip_method_rate 0.2"}},
		{"the ninth packet is too late",
			append(bytesTimes(inspectPackets, plain), func() capture.Packet { p := plain; p.Payload = []byte(sipInvite); return p }()),
			[]string{" protocol_type 1 core_function 99"}},
		{"junk before GTP-C hides nothing", append(bytesTimes(2*inspectPackets, message(udp, 2123, "\xffjunkjunk")), message(udp, 2123, gtpSession)),
			[]string{" protocol_type 3 is_signaling 1 telecom_protocol 2 core_function 99 gtp_teid_count 1 gtp_message_rate 0.2"}},
		{"nor before NGAP", append(bytesTimes(2*inspectPackets, message(capture.ProtoSCTP, 38412, dataOf(60, "junkjunk")[:8])), message(capture.ProtoSCTP, 38412, dataOf(60, ngSetup))),
			[]string{" protocol_type 6 service_10_traffic 156 is_signaling 1 telecom_protocol 7 core_function 10"}},
		{"two sources' requests", []capture.Packet{message(udp, 5060, sipInvite), func() capture.Packet {
			p := message(udp, 5060, sipInvite)
			p.Src = addr("10.0.0.77")
			return p
		}()}, []string{
			" protocol_type 4 is_signaling 1 telecom_protocol 5 core_function 99 sip_method_rate 0.2",
			" protocol_type 4 is_signaling 1 telecom_protocol 5 core_function 99 sip_method_rate 0.2"}},
		{"two connections of a source", []capture.Packet{message(udp, 5060, sipInvite), func() capture.Packet {
			p := message(udp, 5060, sipInvite)
			p.SrcPort = 4001
			return p
		}()}, []string{
			" protocol_type 4 is_signaling 1 telecom_protocol 5 core_function 99 sip_method_rate 0.2",
			" protocol_type 4 is_signaling 1 telecom_protocol 5 core_function 99 sip_method_rate 0.4"}},
		{"a datagram's later fragment counts nothing", []capture.Packet{fragment, later},
			[]string{" protocol_type 4 is_signaling 1 telecom_protocol 5 core_function 99 sip_method_rate 0.2"}},
		{"Diameter", []capture.Packet{message(tcp, 3868, diamCER+diamCER)},
			[]string{" protocol_type 5 is_signaling 1 telecom_protocol 6 core_function 99 diameter_request_rate 0.4"}},
		{"Diameter sent again", []capture.Packet{message(tcp, 3868, diamCER), message(tcp, 3868, diamCER)},
			[]string{" protocol_type 5 is_signaling 1 telecom_protocol 6 core_function 99 diameter_request_rate 0.2"}},
		{"GTP-C", []capture.Packet{message(udp, 2123, gtpSession)},
			[]string{" protocol_type 3 is_signaling 1 telecom_protocol 2 core_function 99 gtp_teid_count 1 gtp_message_rate 0.2"}},
		{"NGAP", []capture.Packet{message(capture.ProtoSCTP, 38412, dataOf(60, ngSetup))},
			[]string{" protocol_type 6 service_10_traffic 28 is_signaling 1 telecom_protocol 7 core_function 10"}},
		{"AUSF", []capture.Packet{message(tcp, 8000, "POST /nausf-auth/v1/a HTTP/1.1\r\n")},
			[]string{" service_13_traffic 32 is_signaling 1 telecom_protocol 10 core_function 13"}},
	} {
		got := signallingRows(t, tc.ps)
		if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
}

func bytesTimes(n int, p capture.Packet) (ps []capture.Packet) {
	for range n {
		ps = append(ps, p)
	}
	return ps
}

// TestSignallingUnasked: without its columns nothing is kept.
func TestSignallingUnasked(t *testing.T) {
	for _, tc := range []struct{ columns, want string }{
		{"duration count symmetry_ratio", "[*features.window]"}, {"telecom_protocol", "[*features.signalling]"},
		{"sip_method_rate", "[*features.signalling *features.rates]"},
	} {
		var types []reflect.Type
		for _, g := range newTracker(t, Config{Columns: strings.Fields(tc.columns)}, nil).rows.groups {
			types = append(types, reflect.TypeOf(g))
		}
		if got := fmt.Sprint(types); got != tc.want {
			t.Errorf("%s: groups %s, want %s", tc.columns, got, tc.want)
		}
	}
}

// signallingTraffic makes n packets of all protocols between few hosts, and some
// of none.
func signallingTraffic(rng *rand.Rand, n int) (ps []capture.Packet) {
	const udp, tcp, sctp = capture.ProtoUDP, capture.ProtoTCP, capture.ProtoSCTP
	kinds := []capture.Packet{
		message(udp, 2152, gtpEcho), message(udp, 2152, gtpPDU), message(udp, 2123, gtpSession), message(udp, 8805, pfcpModify),
		message(udp, 5060, sipInvite), message(tcp, 3868, diamCER), message(sctp, 3868, dataOf(46, diamCER)), message(sctp, 38412, dataOf(60, ngSetup)),
		message(sctp, 2905, dataOf(3, m3uaUp)), message(tcp, 7777, "\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x83\x04\x0c/nsmf-pdu/v1"), message(udp, 53, "\x00\x01\x01\x00\x00\x01\x00\x00"),
		message(tcp, 80, "GET / HTTP/1.1\r\n"),
	}
	for i := range n {
		p := kinds[rng.IntN(len(kinds))]
		p.Src[15], p.Dst[15], p.SrcPort = byte(rng.IntN(20)), byte(100+rng.IntN(4)), uint16(4000+rng.IntN(10))
		p.Time += int64(i) * second / 1000
		if rng.IntN(5) == 0 {
			p.Tunnel, p.TunnelID, p.OuterSrc = capture.TunnelGTPU, rng.Uint32N(50), p.Src
		}
		ps = append(ps, p)
	}
	return ps
}

func TestSignallingNoAllocations(t *testing.T) {
	ps := signallingTraffic(newRand(34), 3000)
	tr := newTracker(t, Config{Columns: signallingColumns, MaxConnections: 200}, func(*Row) {})
	pass := func() {
		for i := range ps {
			ps[i].Time += 4 * second
			tr.Add(&ps[i])
		}
	}
	pass()
	if n := testing.AllocsPerRun(5, pass); n != 0 {
		t.Errorf("%v allocations per %d packets", n, len(ps))
	}
}

// FuzzSignalling: no payload, cut anywhere, panics or is counted beyond bounds;
// the part of a message that the capture kept is recognised as the same or not at all.
func FuzzSignalling(f *testing.F) {
	for _, p := range signallingTraffic(newRand(35), 100) {
		f.Add(p.Proto, p.SrcPort, p.DstPort, len(p.Payload), p.PayloadLen, p.Payload)
	}
	f.Add(capture.ProtoTCP, uint16(1), uint16(7777), 500, 500, append([]byte(string(http2Preface)), "\x00\x00\x1e\x01\x05\x00\x00\x00\x01\x83\x44\x95\x62\x72\xd1\x41\xfc\x1e\xca\x24\x5f\x15\x85\x2a\x4b\x63\x1b\x87\xeb\x19\x68\xa0\xff"...))
	f.Fuzz(func(t *testing.T, proto uint8, src, dst uint16, cut, wire int, b []byte) {
		b = b[:min(len(b), 1<<16)]
		p := capture.Packet{Proto: proto, SrcPort: src, DstPort: dst, Payload: b[:len(b):len(b)], PayloadLen: max(len(b), wire&0xffff)}
		var whole, part signallingState
		if len(b) > 0 {
			whole.inspect(&p, originator)
		}
		if whole.protocol >= numTelecom || ValueName("telecom_protocol", float64(whole.protocol)) == "" {
			t.Fatalf("protocol %d", whole.protocol)
		}
		counts := func() (all uint32) {
			n, _ := gtpCount(&p)
			if n > 2 || pfcpCount(&p) > maxMessages || sipCount(&p) > uint32(1+len(b)/20) || diameterCount(&p) > uint32(len(b)/8+1) {
				t.Fatalf("counted %d, %d, %d, %d", n, pfcpCount(&p), sipCount(&p), diameterCount(&p))
			}
			return n + pfcpCount(&p) + diameterCount(&p)
		}
		all := counts()
		p.Payload = b[:uint(cut)%uint(len(b)+1)]
		if kept := counts(); kept > all {
			t.Fatalf("%d counted, of the part %d", all, kept)
		}
		if len(p.Payload) > 0 {
			part.inspect(&p, originator)
		}
		if n := len(p.Payload); part.protocol != noTelecom && part.protocol != whole.protocol && part.protocol != sip && whole.protocol != sip {
			t.Fatalf("%s, its first %d octets %s", whole.protocol, n, part.protocol)
		}
	})
}

// BenchmarkSignalling measures what the group adds to a packet: those of a
// connection in which nothing is found, and of some in which something is.
func BenchmarkSignalling(b *testing.B) {
	const tcp, udp = capture.ProtoTCP, capture.ProtoUDP
	tunnelled := message(udp, 53, "\x00\x01\x01\x00\x00\x01\x00\x00")
	tunnelled.Tunnel, tunnelled.TunnelID, tunnelled.OuterSrc = capture.TunnelGTPU, 7, client
	for _, tc := range []struct {
		name string
		p    capture.Packet
	}{
		{"none/TLS", message(tcp, 443, "\x17\x03\x03\x04\x00"+strings.Repeat("x", 1000))},
		{"none/DNS", message(udp, 53, "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00")},
		{"none/HTTP", message(tcp, 80, "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n")},
		{"gtp-u", message(udp, 2152, gtpPDU)},
		{"gtp-u-tunnel", tunnelled},
		{"gtp-c", message(udp, 2123, gtpSession)},
		{"pfcp", message(udp, 8805, pfcpModify)},
		{"sip", message(udp, 5060, sipInvite)},
		{"diameter", message(tcp, 3868, diamCER)},
		{"sbi", message(tcp, 7777, "\x00\x00\x1e\x01\x05\x00\x00\x00\x01\x83\x44\x95"+string(hpack.AppendHuffmanString(nil, "/nausf-auth/v1/ue-authentications")))},
	} {
		p := tc.p
		b.Run(tc.name+"/first", func(b *testing.B) {
			b.ReportAllocs()
			var s signallingState
			for b.Loop() {
				s = signallingState{}
				s.inspect(&p, originator)
			}
		})
		b.Run(tc.name+"/later", func(b *testing.B) {
			b.ReportAllocs()
			tr := newTracker(b, Config{Columns: names(signallingGroup)}, nil)
			tr.rows.begin(0)
			for i := range int64(inspectPackets) {
				tr.rows.packet(0, nil, &p, originator, epoch+i, 1)
			}
			now := epoch
			for b.Loop() {
				now += 1000
				tr.rows.packet(0, nil, &p, originator, now, 1)
			}
		})
	}
}
