package features

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

// segmentOf makes a packet of "10.0.0.9:4000" or "[ff02::fb]:5353" to another end.
func segmentOf(seconds float64, proto uint8, from, to string, payload int) capture.Packet {
	p := packet(seconds, proto, false, payload)
	p.Src, p.SrcPort = splitEnd(from)
	p.Dst, p.DstPort = splitEnd(to)
	return p
}

func splitEnd(s string) (a capture.Addr, port uint16) {
	at := strings.LastIndexByte(s, ':')
	fmt.Sscan(s[at+1:], &port)
	return addr(strings.Trim(s[:at], "[]")), port
}

func udp(seconds float64, from, to string, payload int) capture.Packet {
	return segmentOf(seconds, capture.ProtoUDP, from, to, payload)
}

func tcp(seconds float64, from, to string, flags uint8, payload int) capture.Packet {
	p := segmentOf(seconds, capture.ProtoTCP, from, to, payload)
	p.Flags, p.Seq, p.Ack = flags, 5000, 7000
	return p
}

// saysBytes gives p the first octets of a payload.
func saysBytes(p capture.Packet, payload ...byte) capture.Packet {
	p.Payload = payload
	p.PayloadLen = max(p.PayloadLen, len(payload))
	return p
}

// unreach is the ICMP error of the destination about p.
func unreach(seconds float64, p capture.Packet) capture.Packet {
	e := packet(seconds, capture.ProtoICMP, false, 28)
	e.Src, e.Dst, e.SrcPort, e.DstPort, e.ICMPType, e.ICMPCode, e.HasQuote = p.Dst, p.Src, 0, 0, 3, 3, true
	e.Quoted = capture.Quote{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto}
	return e
}

// roleRows returns a line for the first row of each connection, as a live gateway makes them.
func roleRows(t testing.TB, ps ...capture.Packet) (lines []string, s Stats) {
	t.Helper()
	tr := newTracker(t, Config{Early: time.Second}, func(r *Row) {
		if r.Serial == 0 {
			line := fmt.Sprintf("%v:%d>%v:%d %v", r.Src, r.SrcPort, r.Dst, r.DstPort, r.Role)
			if r.Unsure {
				line += " unsure"
			}
			lines = append(lines, line)
		}
	})
	for i := range ps {
		tr.Add(&ps[i])
	}
	tr.Flush()
	return lines, tr.Stats()
}

const (
	ack  = capture.ACK
	push = capture.ACK | capture.PSH
)

func TestRoles(t *testing.T) {
	const a, b = "10.0.0.9:40000", "10.0.0.1:1883"
	qr := func(p capture.Packet) capture.Packet { return saysBytes(p, 0, 0, 0x84) }
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    []string
	}{
		{"a broker pushes, seen from the middle", []capture.Packet{tcp(0, b, a, push, 16), tcp(.1, a, b, ack, 0)},
			[]string{"10.0.0.9:40000>10.0.0.1:1883 port"}},
		{"the same, unanswered", []capture.Packet{tcp(0, b, a, push, 16)},
			[]string{"10.0.0.9:40000>10.0.0.1:1883 port unsure"}},
		{"neither port is known", []capture.Packet{tcp(0, "10.0.0.1:40001", a, push, 16), tcp(.1, a, "10.0.0.1:40001",
			ack, 0)}, []string{"10.0.0.1:40001>10.0.0.9:40000 first unsure"}},
		{"a registered port against an ephemeral one", []capture.Packet{tcp(0, "10.0.0.1:7531", a, push, 16), tcp(.1, a,
			"10.0.0.1:7531", ack, 0)}, []string{"10.0.0.9:40000>10.0.0.1:7531 port unsure"}},
		{"a SYN-ACK before its SYN", []capture.Packet{tcp(0, b, a, capture.SYN|ack, 0), tcp(0, a, b, capture.SYN, 0),
			tcp(.1, a, b, ack, 0)}, []string{"10.0.0.9:40000>10.0.0.1:1883 handshake"}},
		{"a SYN behind the data of an unknown server", func() []capture.Packet {
			first, syn := tcp(.1, "10.0.0.1:40001", a, push, 16), tcp(0, a, "10.0.0.1:40001", capture.SYN, 0)
			back := tcp(.2, a, "10.0.0.1:40001", ack, 0)
			back.Seq = syn.Seq + 1
			return []capture.Packet{first, back, syn}
		}(), []string{"10.0.0.9:40000>10.0.0.1:40001 handshake"}},
		{"only SYN-ACKs", []capture.Packet{tcp(0, b, a, capture.SYN|ack, 0)},
			[]string{"10.0.0.9:40000>10.0.0.1:1883 handshake unsure"}},
		{"only a reset", []capture.Packet{tcp(0, a, b, capture.RST, 0)},
			[]string{"10.0.0.1:1883>10.0.0.9:40000 rejected unsure"}},
		{"only an ICMP error", []capture.Packet{unreach(0, udp(0, a, b, 9))},
			[]string{"10.0.0.9:0>10.0.0.1:0 rejected unsure"}},
		{"an echo reply before its request", func() []capture.Packet {
			p, q := packet(0, capture.ProtoICMP, true, 56), packet(0, capture.ProtoICMP, false, 56)
			q.ICMPType = 8
			return []capture.Packet{p, q}
		}(), []string{"10.0.0.9:0>10.0.0.1:0 handshake"}},
		{"an SCTP INIT ACK before its INIT", []capture.Packet{
			saysBytes(segmentOf(0, capture.ProtoSCTP, "10.0.0.1:38412", "10.0.0.9:38412", 0), sctpInitAck),
			saysBytes(segmentOf(0, capture.ProtoSCTP, "10.0.0.9:38412", "10.0.0.1:38412", 0), sctpInit)},
			[]string{"10.0.0.9:38412>10.0.0.1:38412 handshake"}},
		{"an answer of DNS before its query", []capture.Packet{udp(0, "10.0.0.1:53", a, 90), udp(.01, a, "10.0.0.1:53",
			30)}, []string{"10.0.0.9:40000>10.0.0.1:53 port"}},
		{"the same, an hour later", []capture.Packet{udp(0, a, "10.0.0.1:123", 48), udp(3600, "10.0.0.1:53", a, 90),
			udp(3600.01, a, "10.0.0.1:53", 30)},
			[]string{"10.0.0.9:40000>10.0.0.1:123 port", "10.0.0.9:40000>10.0.0.1:53 port"}},
		{"an answer of an unknown service, stored before its query", []capture.Packet{udp(100, a, b, 1), udp(200.01,
			"10.0.0.1:40001", a, 90), udp(200, a, "10.0.0.1:40001", 30)},
			[]string{"10.0.0.9:40000>10.0.0.1:1883 port", "10.0.0.9:40000>10.0.0.1:40001 first"}},
		{"pushes after a timeout, of an unknown service", []capture.Packet{udp(0, b, b, 1), udp(70, a, "10.0.0.1:40001",
			9), udp(70.1, "10.0.0.1:40001", a, 9), udp(200, "10.0.0.1:40001", a, 9), udp(330, "10.0.0.1:40001", a, 9)},
			[]string{"10.0.0.1:1883>10.0.0.1:1883 first", "10.0.0.9:40000>10.0.0.1:40001 first",
				"10.0.0.9:40000>10.0.0.1:40001 kept unsure", "10.0.0.9:40000>10.0.0.1:40001 kept unsure"}},
		{"a push of what answered a SYN with data", []capture.Packet{
			tcp(0, "10.0.0.8:50000", "10.0.0.1:40001", capture.SYN, 0), tcp(.1, "10.0.0.1:40001", "10.0.0.8:50000",
				capture.SYN|ack, 0), tcp(.2, "10.0.0.1:40001", "10.0.0.8:50000", push, 9),
			tcp(1, "10.0.0.1:40001", a, push, 9), tcp(1.1, a, "10.0.0.1:40001", ack, 0)},
			[]string{"10.0.0.8:50000>10.0.0.1:40001 handshake", "10.0.0.9:40000>10.0.0.1:40001 served"}},
		{"a push of what two others use", []capture.Packet{udp(0, b, b, 1),
			udp(70, "10.0.0.7:50000", "10.0.0.1:40001", 9), udp(70, "10.0.0.1:40001", "10.0.0.7:50000", 9), udp(70,
				"10.0.0.8:50000", "10.0.0.1:40001", 9), udp(70, "10.0.0.1:40001", "10.0.0.8:50000", 9),
			udp(80, "10.0.0.1:40001", a, 9)},
			[]string{"10.0.0.1:1883>10.0.0.1:1883 first", "10.0.0.7:50000>10.0.0.1:40001 served",
				"10.0.0.8:50000>10.0.0.1:40001 served", "10.0.0.9:40000>10.0.0.1:40001 served unsure"}},
		{"a trap is sent by its client", []capture.Packet{udp(0, a, "10.0.0.1:162", 80)},
			[]string{"10.0.0.9:40000>10.0.0.1:162 port"}},
		{"DHCP", []capture.Packet{udp(0, "0.0.0.0:68", "255.255.255.255:67", 300), udp(.1, "10.0.0.1:67", "10.0.0.9:68",
			300), udp(.2, "0.0.0.0:68", "255.255.255.255:67", 300), udp(.3, "10.0.0.1:67", "255.255.255.255:68", 300)},
			[]string{"0.0.0.0:68>255.255.255.255:67 group"}},
		{"NBNS", []capture.Packet{udp(0, "10.0.0.9:137", "10.0.0.255:137", 50), udp(.1, "10.0.0.1:137", "10.0.0.9:137",
			60), udp(.2, "10.0.0.66:50000", "10.0.0.9:137", 50)},
			[]string{"10.0.0.9:137>10.0.0.255:137 group", "10.0.0.66:50000>10.0.0.9:137 port"}},
		{"mDNS, answered to the group", []capture.Packet{udp(0, "10.0.0.9:5353", "224.0.0.251:5353", 50), qr(udp(.1,
			"10.0.0.1:5353", "224.0.0.251:5353", 60)), qr(udp(.1, "10.0.0.2:5353", "224.0.0.251:5353", 60))},
			[]string{"10.0.0.9:5353>224.0.0.251:5353 group"}},
		{"mDNS, announced", []capture.Packet{qr(udp(.1, "10.0.0.1:5353", "224.0.0.251:5353", 60))},
			[]string{"10.0.0.1:5353>224.0.0.251:5353 group unsure"}},
		{"LLMNR over IPv6", []capture.Packet{udp(0, "[fe80::9]:50000", "[ff02::1:3]:5355", 50), udp(.1,
			"[fe80::1]:5355", "[fe80::9]:50000", 60)}, []string{"fe80::9:50000>ff02::1:3:5355 group"}},
		{"WS-Discovery, answered from another port", []capture.Packet{udp(0, "10.0.0.9:50000", "239.255.255.250:3702",
			50), udp(.1, "10.0.0.1:49999", "10.0.0.9:50000", 60)}, []string{"10.0.0.9:50000>239.255.255.250:3702 group"}},
		{"too late for an answer", []capture.Packet{udp(0, "10.0.0.9:50000", "239.255.255.250:3702", 50), udp(10.1,
			"10.0.0.66:49999", "10.0.0.9:50000", 60)},
			[]string{"10.0.0.9:50000>239.255.255.250:3702 group", "10.0.0.66:49999>10.0.0.9:50000 first"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _ := roleRows(t, tc.packets...)
			equal(t, got, tc.want...)
		})
	}
}

// TestScannersAreClients: a scan from the port of a service, nmap -g, names the scanner.
func TestScannersAreClients(t *testing.T) {
	const scanner = "10.0.0.66"
	ports := []int{9, 53, 123, 161, 443, 1900, 5353, 8080, 17185, 31337, 32768, 33459, 40001, 49152, 50000, 60000}
	for port := range 100 {
		ports = append(ports, 34000+97*port)
	}
	for _, tc := range []struct {
		name  string
		from  int
		probe func(at float64, from, to string) []capture.Packet
	}{
		{"-g 53 -sU, closed", 53, func(at float64, from, to string) []capture.Packet {
			p := udp(at, from, to, 0)
			return []capture.Packet{p, unreach(at+.0001, p)}
		}},
		{"-g 53 -sU, filtered", 53, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{udp(at,
				from, to, 12)}
		}},
		{"-g 53 -sU, one in three answers", 53, func(at float64, from, to string) []capture.Packet {
			ps := []capture.Packet{udp(at, from, to, 12)}
			if int(at*200+.5)%3 == 0 {
				ps = append(ps, udp(at+.0001, to, from, 30))
			}
			return ps
		}},
		{"-g 443 -sA, unfiltered", 443, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{tcp(at, from, to, ack, 0), tcp(at+.0001, to, from, capture.RST, 0)}
		}},
		{"-g 443 -sA, filtered", 443, func(at float64, from,
			to string) []capture.Packet {
			return []capture.Packet{tcp(at, from, to, ack, 0)}
		}},
		{"-g 443 -sF, closed", 443, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{tcp(at, from, to, capture.FIN, 0), tcp(at+.0001, to, from, capture.RST|ack, 0)}
		}},
		{"-g 443 -sF, open or filtered", 443, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{tcp(at, from, to, capture.FIN, 0)}
		}},
		{"-g 443 -sM, filtered", 443, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{tcp(at, from, to, capture.FIN|ack, 0)}
		}},
		{"-g 443 -sN", 443, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{tcp(at, from,
				to, 0, 0)}
		}},
		{"-g 443 -sS", 443, func(at float64, from, to string) []capture.Packet {
			return []capture.Packet{tcp(at, from, to, capture.SYN, 0)}
		}},
	} {
		for _, sweep := range []bool{false, true} {
			for _, later := range []float64{0, 3600} {
				t.Run(fmt.Sprintf("%s, sweep %v, at %v s", tc.name, sweep, later), func(t *testing.T) {
					ps := []capture.Packet{tcp(0, "10.0.0.5:50000", "10.0.0.6:22", capture.SYN, 0)}
					from := fmt.Sprintf("%s:%d", scanner, tc.from)
					for i, port := range ports {
						to := fmt.Sprintf("10.0.0.1:%d", port)
						if sweep {
							to = fmt.Sprintf("10.0.1.%d:40000", 1+i)
						}
						ps = append(ps, tc.probe(later+float64(i)/200, from, to)...)
					}
					slices.SortStableFunc(ps, func(a, b capture.Packet) int { return int(a.Time - b.Time) })
					got, _ := roleRows(t, ps...)
					for _, line := range got {
						if strings.HasPrefix(line, "10.0.0.5:") {
							continue
						}
						if !strings.HasPrefix(line, scanner+":") || strings.Contains(line, "unsure") {
							t.Errorf("%s", line)
						}
					}
					if len(got) != len(ports)+1 {
						t.Errorf("%d rows", len(got))
					}
				})
			}
		}
	}
}

// TestAmplification: servers that send to one who asked none of them are the sources, and
// the answers to a search that began before the capture are nobody's attack.
func TestAmplification(t *testing.T) {
	for _, tc := range []struct{ servers, named int }{{300, 230}, {41, 0}} {
		var ps []capture.Packet
		for i := range tc.servers {
			ps = append(ps, udp(float64(i)/1000, fmt.Sprintf("198.51.%d.%d:1900", i/250, 1+i%250), "10.0.0.1:40000", 300))
		}
		got, s := roleRows(t, ps...)
		named := 0
		for _, line := range got {
			if strings.HasPrefix(line, "198.51.") && !strings.HasSuffix(line, "unsure") {
				named++
			} else if !strings.HasSuffix(line, "unsure") {
				t.Errorf("%s", line)
			}
		}
		if named < tc.named || tc.named == 0 && named > 0 {
			t.Errorf("%d of %d servers named", named, tc.servers)
		}
		if s.Unsure != uint64(tc.servers-named) || s.Roles[RoleFirst]+s.Roles[RolePort] != uint64(tc.servers) {
			t.Errorf("%+v", s)
		}
	}
}

// TestSearchAnswers: whatever number of devices answers a search, it is one connection.
func TestSearchAnswers(t *testing.T) {
	ps := []capture.Packet{udp(0, "10.0.0.9:50000", "239.255.255.250:1900", 94)}
	for i := range 1000 {
		ps = append(ps, udp(float64(i)/500, fmt.Sprintf("10.0.%d.%d:1900", 1+i/250, 1+i%250), "10.0.0.9:50000", 300))
	}
	rows := 0
	tr := newTracker(t, Config{}, func(r *Row) {
		if rows++; r.Packets != [2]uint64{1, 1000} || r.Refused || r.Unsure {
			t.Errorf("%+v", r)
		}
	})
	for i := range ps {
		tr.Add(&ps[i])
	}
	tr.Flush()
	if rows != 1 {
		t.Errorf("%d rows", rows)
	}
}

// TestUnanswered: who asks by UDP or ping and has no answer for a second failed; groups and
// what was never asked have nothing to answer. The columns of NSL-KDD do not say so.
func TestUnanswered(t *testing.T) {
	echo := packet(0, capture.ProtoICMP, false, 56)
	echo.ICMPType = 8
	reply := packet(.5, capture.ProtoICMP, true, 56)
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    bool
	}{
		{"UDP", []capture.Packet{udp(0, "10.0.0.9:40000", "10.0.0.1:53", 30)}, true},
		{"UDP, answered", []capture.Packet{udp(0, "10.0.0.9:40000", "10.0.0.1:53", 30), udp(.9, "10.0.0.1:53",
			"10.0.0.9:40000", 30)}, false},
		{"UDP to a group", []capture.Packet{udp(0, "10.0.0.9:40000", "239.255.255.250:1900", 30)}, false},
		{"a push", []capture.Packet{udp(0, "10.0.0.1:53", "10.0.0.9:40000", 30)}, false},
		{"ping", []capture.Packet{echo}, true},
		{"ping, answered", []capture.Packet{echo, reply}, false},
		{"a reply alone", []capture.Packet{reply}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTracker(t, Config{Columns: []string{"flag", "src_failed_share_60s", "serror_rate", "rerror_rate"},
				Early: time.Second}, func(r *Row) {
				if want := []float32{0, float32(oneIf(tc.want)), 0,
					0}; r.Refused != tc.want || r.Serial == 0 && !slices.Equal(r.Values, want) {
					t.Errorf("row %d: refused %v, %v", r.Serial, r.Refused, r.Values)
				}
			})
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Flush()
		})
	}
}

// TestStoredLate: the rows of a connection are the same when its SYN or its SYN-ACK is stored
// after packets that they came before.
func TestStoredLate(t *testing.T) {
	ps := script(t,
		"0 > S 1000, .01 < SA 9000, .012 > A 1001, .02 > PA 1001+18, .03 < PA 9001+900, .035 > A 1019, .2 > FA 1019, .21 < FA 9901, .22 > A 1020")
	for i := range ps {
		if ps[i].Flags&(capture.SYN|capture.ACK) == capture.SYN|capture.ACK {
			ps[i].Ack = 1001
		}
	}
	columns := slices.DeleteFunc(allColumns(), func(name string) bool { return strings.Contains(name, "_gap_") })
	run := func(order ...int) (got []string) {
		tr := newTracker(t, Config{Columns: columns}, record(&got))
		for _, k := range order {
			tr.Add(&ps[k])
		}
		tr.Flush()
		return got
	}
	want := run(0, 1, 2, 3, 4, 5, 6, 7, 8)
	if len(want) != 1 {
		t.Fatalf("%d rows", len(want))
	}
	for _, order := range [][]int{
		{1, 0, 2, 3, 4, 5, 6, 7, 8}, // the SYN-ACK first
		{1, 2, 0, 3, 4, 5, 6, 7, 8},
		{0, 2, 1, 3, 4, 5, 6, 7, 8}, // an ACK before what it acknowledges
		{2, 0, 1, 3, 4, 5, 6, 7, 8},
		{1, 2, 3, 4, 5, 6, 7, 8, 0}, // the SYN last
	} {
		got := run(order...)
		if order[8] == 0 { // its size is at another place among the sizes
			got, want = measuredFlow(t, ps, order), measuredFlow(t, ps, []int{0, 1, 2, 3, 4, 5, 6, 7, 8})
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v:\n%v\nwant\n%v", order, got, want)
		}
	}
}

// shuffled is a Source of frames of which one in three has changed places with the next,
// if that comes within 2 ms.
type shuffled struct {
	frames []capture.Frame
	next   int
}

func (s *shuffled) Next(f *capture.Frame) error {
	if s.next == len(s.frames) {
		return io.EOF
	}
	*f = s.frames[s.next]
	s.next++
	return nil
}

func (s *shuffled) Close() error { return nil }

// TestSwappedPackets: packets that are stored out of order, within 2 ms, change no row.
func TestSwappedPackets(t *testing.T) {
	fs := mixedTraffic(20_000)
	rows := func(fs []capture.Frame) (got []string) {
		tr := newTracker(t, Config{Columns: allColumns(), Early: time.Second}, record(&got))
		var d capture.Decoder
		err := capture.Read(context.Background(), &shuffled{frames: fs}, &d,
			func(_ *capture.Frame, p *capture.Packet, o capture.Outcome) error {
				if o.HasPacket() {
					tr.Add(p)
				}
				return nil
			}, nil)
		if err != io.EOF {
			t.Fatal(err)
		}
		tr.Flush()
		return got
	}
	want := rows(fs)
	swapped, rng := slices.Clone(fs), newRand(1)
	for i := 0; i+1 < len(fs); i++ {
		if d := fs[i+1].Time - fs[i].Time; d > 0 && d < 2e6 && rng.IntN(3) == 0 {
			swapped[i], swapped[i+1] = fs[i+1], fs[i]
			i++
		}
	}
	if got := rows(swapped); !slices.Equal(got, want) || len(want) < 100 {
		t.Errorf("%d rows, want the %d of packets in order", len(got), len(want))
	}
}

// measuredFlow returns what of a row does not depend on the order of packets.
func measuredFlow(t *testing.T, ps []capture.Packet, order []int) (got []string) {
	columns := []string{"flag", "src_bytes", "dst_bytes", "duration", "handshake_time", "answer_time",
		"flow_duration", "fwd_packets", "bwd_packets", "fwd_gap_mean"}
	tr := newTracker(t, Config{Columns: columns}, record(&got))
	for _, k := range order {
		tr.Add(&ps[k])
	}
	tr.Flush()
	return got
}

// TestRolesOfCutCaptures cuts off the first 40 % of the packets of 60 captures and compares
// the roles of the TCP connections that go on with the SYN or SYN-ACK in what was cut off.
// The captures are the 60 of captures/train with the most such connections.
func TestRolesOfCutCaptures(t *testing.T) {
	const share, captures = .4, 60
	f, err := os.Open(datatest.Data(t, "captures", "catalogue.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		name                                     string
		flows, right, known, knownRight, accused int
		wrong                                    []string
	}
	var all []outcome
	for _, line := range lines[1:] {
		if !strings.HasPrefix(line[0], "train/") {
			continue
		}
		fs := readFrames(t, datatest.Data(t, "captures", filepath.FromSlash(line[0])))
		cut := int(share * float64(len(fs)))
		var d capture.Decoder
		var p capture.Packet
		clients := map[connKey]end{} // by the handshake in what was cut off
		o := outcome{name: line[0]}
		tr := newTracker(t, Config{Early: time.Second}, func(r *Row) {
			var k connKey
			src, dst := end{r.Src, r.SrcPort}, end{r.Dst, r.DstPort}
			k.set(&src, &dst, &capture.Packet{}, r.Proto)
			client, ok := clients[k]
			if !ok || r.Role == RoleHandshake && !r.Unsure || r.Serial > 0 || r.Proto != capture.ProtoTCP {
				return
			}
			delete(clients, k)
			o.flows++
			right := client == src
			if right {
				o.right++
			} else {
				o.wrong = append(o.wrong, fmt.Sprint(r.Src, ":", r.SrcPort, ">", r.Dst, ":", r.DstPort, " ", r.Role))
			}
			if !right && !r.Unsure {
				o.accused++
			}
			if max(portRanks[r.SrcPort], portRanks[r.DstPort]) >= knownPort {
				o.known++
				if right {
					o.knownRight++
				}
			}
		})
		for i := range fs {
			if !d.Decode(&fs[i], &p).HasPacket() {
				continue
			}
			if i >= cut {
				tr.Add(&p)
			} else if flags := p.Flags & (capture.SYN | capture.ACK | capture.RST); p.Proto == capture.ProtoTCP && flags&capture.SYN != 0 && flags&capture.RST == 0 {
				client, server := end{p.Src, p.SrcPort}, end{p.Dst, p.DstPort}
				if flags&capture.ACK != 0 {
					client, server = server, client
				}
				var k connKey
				k.set(&client, &server, &capture.Packet{}, p.Proto)
				clients[k] = client
			}
		}
		tr.Flush()
		all = append(all, o)
	}
	slices.SortStableFunc(all, func(a, b outcome) int { return b.flows - a.flows })
	var sum outcome
	for _, o := range all[:captures] {
		sum.flows, sum.right, sum.known, sum.knownRight, sum.accused = sum.flows+o.flows, sum.right+o.right,
			sum.known+o.known, sum.knownRight+o.knownRight, sum.accused+o.accused
		if len(o.wrong) > 0 {
			t.Logf("%s: %d of %d right, wrong: %v", o.name, o.right, o.flows, o.wrong)
		}
	}
	t.Logf("%d captures, the last with %d flows: right %d of %d flows (%.2f %%), of those with a known port %d of %d (%.2f %%); wrong and not unsure: %d",
		captures, all[captures-1].flows,
		sum.right, sum.flows, 100*float64(sum.right)/float64(sum.flows), sum.knownRight, sum.known,
		100*float64(sum.knownRight)/float64(sum.known), sum.accused)
	if sum.known < 100 || float64(sum.knownRight) < .99*float64(sum.known) {
		t.Errorf("%d right of %d flows with a known port, want 99 %%", sum.knownRight, sum.known)
	}
}
