package features

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// hostRow is a row of a test: the host, the end of its window in seconds since epoch, and the columns that are not 0.
type hostRow struct {
	host   string
	at     float64
	values map[string]float64
}

// hostRows returns the rows of packets.
func hostRows(t testing.TB, cfg Config, ps ...capture.Packet) (all []hostRow) {
	t.Helper()
	for _, f := range featuresOf(HostRow) {
		cfg.Columns = append(cfg.Columns, f.Name)
	}
	x, err := NewExtractor(HostRow, cfg, func(r *Row) {
		row := hostRow{cmp.Or(r.Host.String(), r.Src.String()), float64(r.Time-epoch) / 1e9, map[string]float64{}}
		for c, v := range r.Values {
			if v != 0 {
				row.values[cfg.Columns[c]] = float64(v)
			}
		}
		all = append(all, row)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range ps {
		x.Add(&ps[i])
	}
	x.Flush()
	return all
}

// find returns the row of a host whose window ends at a time.
func find(t testing.TB, rows []hostRow, host string, at float64) map[string]float64 {
	t.Helper()
	for _, r := range rows {
		if r.host == host && r.at == at {
			return r.values
		}
	}
	var have []string
	for _, r := range rows {
		have = append(have, fmt.Sprintf("%s @%v", r.host, r.at))
	}
	t.Fatalf("no row of %s at %v; there are %s", host, at, strings.Join(have, ", "))
	return nil
}

func wantValues(t testing.TB, got map[string]float64, want string) {
	t.Helper()
	for f := range strings.FieldsSeq(want) {
		name, text, _ := strings.Cut(f, "=")
		var v float64
		if _, err := fmt.Sscan(text, &v); err != nil {
			t.Fatal(err)
		}
		if got[name] != v {
			t.Errorf("%s %v, want %v", name, got[name], v)
		}
	}
}

// syn is a SYN of the client to a port, refused or not.
func probe(seconds float64, port uint16, refused bool) (ps []capture.Packet) {
	p := packet(seconds, capture.ProtoTCP, false, 0)
	p.SrcPort, p.DstPort, p.Flags, p.Seq = 40000+port, port, capture.SYN, 7
	ps = append(ps, p)
	if refused {
		p = packet(seconds+.001, capture.ProtoTCP, true, 0)
		p.DstPort, p.SrcPort, p.Flags, p.Ack = 40000+port, port, capture.RST|capture.ACK, 8
		ps = append(ps, p)
	}
	return ps
}

// TestHostWindow follows a scan: what it counts in its window, in the long span, and when that is over.
func TestHostWindow(t *testing.T) {
	var ps []capture.Packet
	for port := range uint16(20) { // epoch is a multiple of 10 s
		ps = append(ps, probe(1+float64(port)/100, port+1, port < 15)...)
	}
	ps = append(ps, probe(25, 30, true)...)
	ps = append(ps, probe(700, 31, true)...)
	ps = append(ps, probe(2000, 32, true)...)
	rows := hostRows(t, Config{}, ps...)
	wantValues(t, find(t, rows, "10.0.0.9", 10), `tcp_tried_10s=20 tcp_tried_600s=20 tcp_ports_10s=20 tcp_peers_10s=1 tcp_refused_10s=15
		tcp_refused_services_600s=15 tcp_half_open_10s=5 tcp_unanswered_10s=5 tcp_most_service_10s=1 tcp_most_peer_10s=20`)
	wantValues(t, find(t, rows, "10.0.0.1", 10), `in_tcp_tried_10s=20 in_tcp_ports_10s=20 in_tcp_peers_10s=1 in_tcp_refused_10s=15
		in_tcp_unanswered_10s=5 tcp_tried_10s=0`)
	wantValues(t, find(t, rows, "10.0.0.9", 30), "tcp_tried_10s=1 tcp_tried_600s=21 tcp_ports_10s=1 tcp_ports_600s=21")
	wantValues(t, find(t, rows, "10.0.0.9", 710), "tcp_tried_10s=1 tcp_tried_600s=1 tcp_ports_600s=1")
	wantValues(t, find(t, rows, "10.0.0.9", 2010), "tcp_tried_600s=1 tcp_ports_600s=1 tcp_most_peer_600s=1")
}

// TestHostDistinct checks that distinct counts are exact up to 32 and then within four standard errors, in both spans.
func TestHostDistinct(t *testing.T) {
	for _, n := range []int{1, 2, 31, 32, 33, 100, 1000, 5000} {
		var ps []capture.Packet
		for port := range n {
			ps = append(ps, probe(1+float64(port)/1e6, uint16(port+1), false)...)
			ps = append(ps, probe(1+float64(port)/1e6, uint16(port+1), false)...)
		}
		got := find(t, hostRows(t, Config{}, ps...), "10.0.0.9", 10)
		for _, column := range []string{"tcp_ports_10s", "tcp_ports_600s", "tcp_services_10s"} {
			if off := math.Abs(got[column] - float64(n)); n <= exactItems && off > 0 || off > 4*.092*float64(n) {
				t.Errorf("%s %v of %d ports", column, got[column], n)
			}
		}
	}
}

// TestHostTicks checks that it does not matter when the clock is moved between packets.
func TestHostTicks(t *testing.T) {
	ps := randomPackets(newRand(3), 20000)
	slices.SortStableFunc(ps, func(a, b capture.Packet) int { return int(a.Time - b.Time) })
	run := func(tick bool) (lines []string) {
		var columns []string
		for _, f := range featuresOf(HostRow) {
			columns = append(columns, f.Name)
		}
		x, err := NewExtractor(HostRow, Config{Columns: columns}, record(&lines))
		if err != nil {
			t.Fatal(err)
		}
		rng := newRand(4)
		for i := range ps {
			if tick && i > 0 && rng.IntN(2) == 0 {
				x.Tick(ps[i-1].Time + rng.Int64N(ps[i].Time-ps[i-1].Time+1))
			}
			x.Add(&ps[i])
		}
		x.Flush()
		return lines
	}
	plain, ticked := run(false), run(true)
	if len(plain) < 100 {
		t.Fatalf("%d rows", len(plain))
	}
	for i := range plain {
		if i >= len(ticked) || plain[i] != ticked[i] {
			t.Fatalf("row %d of %d and %d\n%s\nticked\n%s", i, len(plain), len(ticked), plain[i], ticked[min(i, len(ticked)-1)])
		}
	}
}

// TestHostARP follows hosts that look for others, answer, and take an address.
func TestHostARP(t *testing.T) {
	a, b := capture.MAC{2, 0, 0, 0, 0, 1}, capture.MAC{2, 0, 0, 0, 0, 2}
	arp := func(seconds float64, op uint16, from capture.MAC, sender, target capture.Addr) capture.Packet {
		return capture.Packet{Time: epoch + int64(seconds*1e9), WireLen: 42, SrcMAC: from,
			ARP: &capture.ARPMessage{Op: op, SenderMAC: from, Sender: sender, Target: target}}
	}
	gateway := addr("10.0.0.254")
	ps := []capture.Packet{
		arp(1, 1, a, client, gateway), arp(1.1, 2, b, gateway, client), // an ordinary exchange
		arp(11, 2, a, gateway, addr("10.0.0.3")), // a says that it is the gateway, unasked
	}
	for k := range 40 {
		ps = append(ps, arp(21+float64(k)/100, 1, b, gateway, addr(fmt.Sprintf("10.0.0.%d", 10+k))))
	}
	rows := hostRows(t, Config{}, ps...)
	wantValues(t, find(t, rows, a.String(), 10), "arp_requests_10s=1 arp_targets_10s=1 arp_claims_10s=1 arp_unasked_10s=0 arp_taken_10s=0")
	wantValues(t, find(t, rows, b.String(), 10), "arp_reply_targets_10s=1 arp_unasked_10s=0")
	wantValues(t, find(t, rows, a.String(), 20), "arp_unasked_10s=1 arp_taken_10s=1 arp_claims_600s=2")
	wantValues(t, find(t, rows, b.String(), 20), "in_address_taken_10s=1")
	if n := find(t, rows, b.String(), 30)["arp_targets_10s"]; n < 40*.63 || n > 40*1.37 {
		t.Errorf("%v targets of 40", n)
	}
}

// TestHostSpoofed sends packets of more made-up sources than there is room for, while one host scans slowly: the
// scanner keeps its place, memory stays, and the rest is in one row.
func TestHostSpoofed(t *testing.T) {
	var ps []capture.Packet
	scanner, victim := addr("203.0.113.5"), addr("10.0.0.1")
	for k := range 30000 {
		p := packet(1+float64(k)/1000, capture.ProtoTCP, false, 0)
		n := uint32(k) * 2654435761 // each once
		p.Src, p.Dst, p.Flags = capture.Addr{10: 0xff, 11: 0xff, 12: 99, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}, victim, capture.SYN
		if k%1500 == 0 {
			p.Src, p.DstPort = scanner, uint16(k/1500)
		}
		ps = append(ps, p)
	}
	x, err := NewExtractor(HostRow, Config{}, func(*Row) {})
	if err != nil {
		t.Fatal(err)
	}
	for i := range ps {
		x.Add(&ps[i])
	}
	if s := x.Stats(); s.Forgotten < 10000 {
		t.Errorf("%d forgotten", s.Forgotten)
	}
	rows := hostRows(t, Config{}, ps...)
	if got := find(t, rows, scanner.String(), 40)["tcp_ports_600s"]; got != 20 {
		t.Errorf("the scanner tried %v ports, want 20", got)
	}
	if got := find(t, rows, "rest", 20)["tcp_tried_10s"]; got < 1000 {
		t.Errorf("the rest tried %v", got)
	}
	if got := find(t, rows, "10.0.0.1", 20)["in_tcp_tried_10s"]; got != 10000 {
		t.Errorf("the victim: %v tried, want 10000", got)
	}
}

// TestHostAllocations checks that packets allocate nothing once memory is made.
func TestHostAllocations(t *testing.T) {
	var columns []string
	for _, f := range featuresOf(HostRow) {
		columns = append(columns, f.Name)
	}
	x, err := NewExtractor(HostRow, Config{Columns: columns}, func(*Row) {})
	if err != nil {
		t.Fatal(err)
	}
	ps := randomPackets(newRand(5), 30000)
	slices.SortStableFunc(ps, func(a, b capture.Packet) int { return int(a.Time - b.Time) })
	add := func() {
		for i := range ps {
			x.Add(&ps[i])
		}
		x.Flush()
	}
	add()
	if n := testing.AllocsPerRun(2, add); n != 0 {
		t.Errorf("%v allocations of %d packets", n, len(ps))
	}
}

// BenchmarkHosts takes the packets of the mixed benchmark.
func BenchmarkHosts(b *testing.B) {
	var columns []string
	for _, f := range featuresOf(HostRow) {
		columns = append(columns, f.Name)
	}
	x, err := NewExtractor(HostRow, Config{Columns: columns}, func(*Row) {})
	if err != nil {
		b.Fatal(err)
	}
	ps := randomPackets(newRand(5), 30000)
	slices.SortStableFunc(ps, func(a, b capture.Packet) int { return int(a.Time - b.Time) })
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if x.Add(&ps[n]); n == len(ps)-1 {
			x.Flush()
			n = -1
		}
		n++
	}
}

// FuzzHostApps lets connections to the ports of all applications say what the data says: none may end in a panic, and
// every value is a count.
func FuzzHostApps(f *testing.F) {
	f.Add([]byte("\x00\x35\x00GET / HTTP/1.1\r\n\r\n"), uint8(0))
	f.Add([]byte("\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd\x30\x05\x00\x01t12"), uint8(1))
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x10\x00\x01"), uint8(2))
	var ports []servicePort
	for _, k := range appKinds {
		ports = append(ports, k.ports[0])
	}
	ports = append(ports, servicePort{capture.ProtoUDP, portDHCPServer}, servicePort{capture.ProtoICMPv6, 136})
	columns := names(hostFeatures)
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		x, err := NewExtractor(HostRow, Config{Columns: columns}, func(r *Row) {
			for c, v := range r.Values {
				if v < 0 || v != float32(math.Trunc(float64(v))) {
					t.Errorf("%s is %v", columns[c], v)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		to := ports[int(which)%len(ports)]
		syn := packet(0, to.proto, false, 0)
		syn.DstPort, syn.Flags = to.port, capture.SYN
		x.Add(&syn)
		seq := [2]uint32{1, 1}
		for k := 0; len(data) > 0 && k < 64; k++ {
			n := min(len(data), 1+int(data[0])%97)
			p := packet(float64(k)/10, to.proto, data[0]&1 == 1, n)
			p.Payload, p.Flags, p.Seq = data[:n], capture.ACK, seq[data[0]&1]
			seq[data[0]&1] += uint32(n)
			p.SrcMAC, p.ICMPType = capture.MAC{2, 0, 0, 0, 0, 1}, 136
			if p.Src == client {
				p.DstPort = to.port
			} else {
				p.SrcPort = to.port
			}
			data = data[n:]
			x.Add(&p)
		}
		x.Flush()
	})
}

// TestHostClockStep sets the clock back by more than StepBack: rows go on at the new time.
func TestHostClockStep(t *testing.T) {
	ps := slices.Concat(probe(1000, 1, true), probe(100, 2, true), probe(121, 3, true))
	rows := hostRows(t, Config{}, ps...)
	wantValues(t, find(t, rows, "10.0.0.9", 1010), "tcp_tried_10s=1 tcp_refused_10s=1")
	wantValues(t, find(t, rows, "10.0.0.9", 110), "tcp_tried_10s=1 tcp_tried_600s=1")
	wantValues(t, find(t, rows, "10.0.0.9", 130), "tcp_tried_10s=1 tcp_tried_600s=2")
}

// TestHostDNSTwoAtOnce asks for A and AAAA from one port before either is answered, as resolvers do.
func TestHostDNSTwoAtOnce(t *testing.T) {
	var ps []capture.Packet
	message := func(seconds float64, answer bool, id, kind byte) {
		p := packet(seconds, capture.ProtoUDP, answer, 0)
		p.SrcPort, p.DstPort = 40000, portDNS
		p.Payload = []byte{0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 2, 'b', 'c', 0, 0, kind, 0, 1}
		if answer {
			p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
			p.Payload[2] |= 0x80
		}
		p.PayloadLen = len(p.Payload)
		ps = append(ps, p)
	}
	for _, at := range []float64{1, 21} {
		message(at, false, 1, 1)
		message(at, false, 2, 28)
		message(at+.1, true, 2, 28)
		message(at+.1, true, 1, 1)
	}
	message(22, true, 9, 1) // of another query
	rows := hostRows(t, Config{}, ps...)
	wantValues(t, find(t, rows, "10.0.0.9", 30), "dns_queries_10s=2 in_dns_unasked_10s=1")
}

// TestHostMQTTConnect sends CONNECTs that are in order, of which one comes in two segments and one has long properties,
// and one whose protocol has no such name.
func TestHostMQTTConnect(t *testing.T) {
	properties := append([]byte{38, 0, 1, 'k', 0, 150}, make([]byte, 150)...) // a user property
	long := slices.Concat([]byte("\x00\x04MQTT\x05\x02\x00\x3c\x9c\x01"), properties, []byte("\x00\x02id"))
	for _, tc := range []struct {
		name     string
		segments []string
		want     string
	}{
		{"one segment", []string{"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"}, "mqtt_connects_10s=1 mqtt_clients_10s=1 mqtt_malformed_10s=0"},
		{"two segments", []string{"\x10\x0e\x00\x04MQ", "TT\x04\x02\x00\x3c\x00\x02id"}, "mqtt_connects_10s=1 mqtt_malformed_10s=0"},
		{"long properties", []string{"\x10\xac\x01" + string(long)}, "mqtt_connects_10s=1 mqtt_clients_10s=1 mqtt_malformed_10s=0"},
		{"no such name", []string{"\x10\x0e\x00\x04MQXT\x04\x02\x00\x3c\x00\x02id"}, "mqtt_connects_10s=1 mqtt_clients_10s=0 mqtt_malformed_10s=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			syn := packet(1, capture.ProtoTCP, false, 0)
			syn.DstPort, syn.Flags = 1883, capture.SYN
			ps, seq := []capture.Packet{syn}, uint32(1)
			for k, s := range tc.segments {
				p := packet(2+float64(k), capture.ProtoTCP, false, len(s))
				p.DstPort, p.Flags, p.Seq, p.Payload = 1883, capture.ACK, seq, []byte(s)
				seq += uint32(len(s))
				ps = append(ps, p)
			}
			wantValues(t, find(t, hostRows(t, Config{}, ps...), "10.0.0.9", 10), tc.want)
		})
	}
}

// TestHostReturned has room for 4 connections: one that is evicted and comes back is no new try, its server's answers
// were asked for, and its segments are no orphans.
func TestHostReturned(t *testing.T) {
	var ps []capture.Packet
	for round := range 4 {
		for port := range uint16(8) {
			at := 10*float64(round) + float64(port)/10
			for _, answer := range []bool{false, true} {
				u := packet(at, capture.ProtoUDP, answer, 10)
				s := packet(at, capture.ProtoTCP, answer, 0)
				s.Flags = capture.ACK
				if round == 0 {
					s.Flags |= capture.SYN
					if !answer {
						s.Flags = capture.SYN
					}
				} else {
					s.Seq, s.Ack = 1, 1
				}
				if answer {
					u.DstPort, u.SrcPort, s.DstPort = 50000+port, 9999, 50000+port
				} else {
					u.SrcPort, u.DstPort, s.SrcPort = 50000+port, 9999, 50000+port
				}
				u.Time, s.Time = u.Time+int64(port), s.Time+int64(port)
				ps = append(ps, u, s)
			}
			if round == 0 {
				a := packet(at, capture.ProtoTCP, false, 0)
				a.SrcPort, a.Flags, a.Seq, a.Ack = 50000+port, capture.ACK, 1, 1
				ps = append(ps, a)
			}
		}
	}
	rows := hostRows(t, Config{MaxConnections: 4}, ps...)
	for _, at := range []float64{20, 30, 40} {
		wantValues(t, find(t, rows, "10.0.0.9", at), `udp_tried_10s=0 udp_tried_600s=8 udp_answered_600s=8 udp_unanswered_600s=0
			in_udp_unasked_10s=0 tcp_tried_600s=8 tcp_orphan_10s=0`)
	}
}

// TestHostRedirect sends redirects of a connection that is known, and of one that is not.
func TestHostRedirect(t *testing.T) {
	p := packet(2, capture.ProtoICMP, false, 28)
	p.Src, p.ICMPType, p.ICMPCode, p.SrcPort, p.DstPort = addr("10.0.0.66"), 5, 1, 0, 0
	p.HasQuote, p.Quoted = true, capture.Quote{Src: client, Dst: server, SrcPort: 40080, DstPort: 80, Proto: capture.ProtoTCP}
	other := p
	other.Time, other.Quoted.SrcPort = p.Time+1e9, 40081
	rows := hostRows(t, Config{}, append(probe(1, 80, false), p, other)...)
	wantValues(t, find(t, rows, "10.0.0.66", 10), "icmp_redirects_10s=2 icmp_unreachable_10s=0")
}

// TestHostEchoSides lets two hosts ping each other with one identifier, as Windows does, and then one of them send a
// reply that the other did not ask for.
func TestHostEchoSides(t *testing.T) {
	echo := func(seconds float64, fromServer bool, typ uint8, id uint16, data string) capture.Packet {
		p := packet(seconds, capture.ProtoICMP, fromServer, len(data))
		p.ICMPType, p.ICMPID, p.SrcPort, p.DstPort, p.Payload = typ, id, 0, 0, []byte(data)
		return p
	}
	rows := hostRows(t, Config{},
		echo(1, false, 8, 1, "abcdefghijklmnopqrstuvw"), echo(1.1, true, 8, 1, "0123456789012345678901"),
		echo(1.2, true, 0, 1, "abcdefghijklmnopqrstuvw"), echo(1.3, false, 0, 1, "0123456789012345678901"),
		echo(11, false, 8, 2, "abc"), echo(11.1, true, 0, 2, "abc"), echo(11.2, false, 0, 2, "abc"))
	wantValues(t, find(t, rows, "10.0.0.9", 10), "echo_requests_10s=1 echo_replied_10s=1 in_echo_differing_10s=0 echo_differing_10s=0")
	wantValues(t, find(t, rows, "10.0.0.1", 10), "echo_requests_10s=1 echo_replied_10s=1 in_echo_differing_10s=0 echo_differing_10s=0")
	wantValues(t, find(t, rows, "10.0.0.9", 20), "echo_replied_10s=1 in_echo_unasked_10s=0")
	wantValues(t, find(t, rows, "10.0.0.1", 20), "echo_replied_10s=0 in_echo_unasked_10s=1")
}

// TestHostRenamed tries ports from an address whose hardware address comes to be known only later: the tries fail as
// those of the hardware address.
func TestHostRenamed(t *testing.T) {
	m := capture.MAC{2, 0, 0, 0, 0, 1}
	var ps []capture.Packet
	for port := range uint16(5) {
		p := probe(1, port+1, false)[0]
		p.SrcMAC, p.TTL = m, 41 // no system begins with that
		ps = append(ps, p)
	}
	ps = append(ps, capture.Packet{Time: epoch + 2e9, WireLen: 42, SrcMAC: m,
		ARP: &capture.ARPMessage{Op: 1, SenderMAC: m, Sender: client, Target: server}})
	wantValues(t, find(t, hostRows(t, Config{}, ps...), m.String(), 10), "tcp_tried_10s=5 tcp_unanswered_10s=5")
}

// TestHostKept holds a connection open while more hosts than there is room for are met: it keeps its host's place.
func TestHostKept(t *testing.T) {
	ps := append(probe(1, 30, true), probe(1, 80, false)...)
	for k := range 3 * maxInside {
		at := 2 + float64(k)/100
		p := packet(at, capture.ProtoUDP, false, 0)
		p.Src, p.Dst = capture.Addr{10: 0xff, 11: 0xff, 12: 10, 13: 1, 14: byte(k >> 8), 15: byte(k)}, addr("10.9.9.9")
		ps = append(ps, p)
		if k%100 == 0 {
			s := probe(at, 80, false)[0]
			s.Flags, s.Seq, s.Ack = capture.ACK, 8, 1
			ps = append(ps, s)
		}
	}
	wantValues(t, find(t, hostRows(t, Config{}, ps...), "10.0.0.9", 120), "tcp_tried_600s=2 tcp_refused_600s=1")
}

// TestHostSeed gives more sources than there is room for: which of them have a row does not depend on the process.
func TestHostSeed(t *testing.T) {
	rng := newRand(6)
	var ps []capture.Packet
	for k := range 30000 {
		p := packet(1+float64(k)/1000, capture.ProtoTCP, false, 0)
		n := rng.IntN(9000)
		p.Src, p.Flags, p.SrcPort = capture.Addr{10: 0xff, 11: 0xff, 12: 99, 14: byte(n >> 8), 15: byte(n)}, capture.SYN, uint16(k)
		ps = append(ps, p)
	}
	run := func() string { return fmt.Sprint(hostRows(t, Config{}, ps...)) }
	first, was := run(), seed
	defer func() { seed = was }()
	seed = [2]uint64{12345, 678}
	if run() != first {
		t.Error("the rows differ")
	}
}

// TestHostPools lets made-up outside sources use all that they can of what counts, with TCP, UDP, pings and DNS and many
// ports each: an inside host that begins to scan afterwards is counted as ever.
func TestHostPools(t *testing.T) {
	var ps []capture.Packet
	for k := range 3 * 40 * 1000 {
		n, step := k%1000, k/1000
		p := packet(1+float64(k)/1e5, []uint8{capture.ProtoTCP, capture.ProtoUDP, capture.ProtoICMP}[step%3], false, 0)
		p.Src, p.Flags = capture.Addr{10: 0xff, 11: 0xff, 12: 99, 14: byte(n >> 8), 15: byte(n)}, capture.SYN
		if p.DstPort = uint16(100 + step/3); p.Proto == capture.ProtoICMP {
			p.Flags, p.SrcPort, p.DstPort, p.ICMPType, p.ICMPID = 0, 0, 0, 8, uint16(step)
			p.PayloadLen = step
		}
		ps = append(ps, p)
	}
	for port := range uint16(200) {
		ps = append(ps, probe(3, port+1, true)...)
	}
	got := find(t, hostRows(t, Config{}, ps...), "10.0.0.9", 10)
	if n := got["tcp_ports_10s"]; n < 200*.63 || got["tcp_refused_10s"] != 200 {
		t.Errorf("%v ports and %v refused of 200", n, got["tcp_refused_10s"])
	}
}

// TestHostServer asks a server that only answers: its row has its hardware address.
func TestHostServer(t *testing.T) {
	ps := probe(1, 80, true)
	ps[1].SrcMAC, ps[1].TTL = capture.MAC{2, 0, 0, 0, 0, 1}, 64
	wantValues(t, find(t, hostRows(t, Config{}, ps...), "02:00:00:00:00:01", 10), "in_tcp_tried_10s=1 in_tcp_refused_10s=1")
}

// TestHostDHCPFlow renews a lease: the flow was answered.
func TestHostDHCPFlow(t *testing.T) {
	ask, answer := packet(1, capture.ProtoUDP, false, 300), packet(1.1, capture.ProtoUDP, true, 300)
	ask.SrcPort, ask.DstPort = portDHCPClient, portDHCPServer
	answer.SrcPort, answer.DstPort = portDHCPServer, portDHCPClient
	wantValues(t, find(t, hostRows(t, Config{}, ask, answer), "10.0.0.9", 10), "udp_tried_10s=1 udp_answered_10s=1")
}

// TestDNSAddresses checks that the order of a message's addresses does not matter, and what they are does.
func TestDNSAddresses(t *testing.T) {
	sum := func(last ...byte) uint64 {
		b := []byte{0, 1, 0x81, 0x80, 0, 1, 0, byte(len(last)), 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1}
		for _, l := range last {
			b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, l)
		}
		s, _ := dnsAddresses(b)
		return s
	}
	if sum(1, 2, 3) != sum(3, 1, 2) || sum(1, 2) == sum(1, 3) {
		t.Errorf("%x %x, %x %x", sum(1, 2, 3), sum(3, 1, 2), sum(1, 2), sum(1, 3))
	}
}

// TestHostTakenFromIP claims an address by ARP whose owner was seen by its IP packets alone: it is taken, and what the
// owner does goes on to be its own.
func TestHostTakenFromIP(t *testing.T) {
	m, evil := capture.MAC{2, 0, 0, 0, 0, 1}, capture.MAC{2, 0, 0, 0, 0, 0x66}
	ps := slices.Concat(probe(1, 80, false), probe(31, 81, false))
	for k := range ps {
		ps[k].SrcMAC, ps[k].TTL = m, 64
	}
	claim := capture.Packet{Time: epoch + 20e9, WireLen: 42, SrcMAC: evil,
		ARP: &capture.ARPMessage{Op: 2, SenderMAC: evil, Sender: client, Target: server}}
	rows := hostRows(t, Config{}, ps[0], claim, ps[1])
	wantValues(t, find(t, rows, evil.String(), 30), "arp_taken_10s=1")
	wantValues(t, find(t, rows, m.String(), 40), "tcp_tried_10s=1 in_address_taken_600s=1")
}
