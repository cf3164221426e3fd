package features

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// dnsMessage builds a header and questions; flags are its octets 2 and 3.
func dnsMessage(flags uint16, questions ...string) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint16(b[4:], uint16(len(questions)))
	for _, q := range questions {
		b = append(b, dnsQuestion(q)...)
	}
	return b
}

// dnsQuestion asks for the A record of a name.
func dnsQuestion(name string) (b []byte) {
	for label := range strings.SplitSeq(name, ".") {
		if label != "" {
			b = append(append(b, byte(len(label))), label...)
		}
	}
	return append(b, 0, 0, 1, 0, 1)
}

const (
	query    = 0x0100
	answer   = 0x8180
	noDomain = 0x8183
)

// dnsPacket is one between the client and port 53 of the server.
func dnsPacket(seconds float64, fromServer bool, message []byte) capture.Packet {
	p := packet(seconds, capture.ProtoUDP, fromServer, len(message))
	p.Payload = message
	if fromServer {
		p.SrcPort = 53
	} else {
		p.DstPort = 53
	}
	return p
}

func TestDNS(t *testing.T) {
	long := strings.Repeat("a", 63)
	longest := long + "." + long + "." + long + "." + long[:61] // 253 octets, 255 on the wire
	ask := func(m []byte) []capture.Packet { return []capture.Packet{dnsPacket(0, false, m)} }
	tcp := dnsPacket(0, false, dnsMessage(query, "www.example.com"))
	tcp.Proto = capture.ProtoTCP
	answerOf := func(flags uint16, names ...string) []byte {
		return append(dnsMessage(flags, names...), make([]byte, 100)...)
	}
	cut := func(p capture.Packet, n int) capture.Packet {
		p.Payload = p.Payload[:n]
		return p
	}
	fragment := func(p capture.Packet, whole []byte, offset uint16) capture.Packet {
		p.Fragment, p.FragmentOffset, p.Whole = true, offset, whole
		return p
	}
	big := answerOf(noDomain, "www.example.com")
	const none = "dns_name_length 0 dns_name_entropy 0 dns_names_under_parent 0 dns_answer_bytes 0 dns_queries_600s 0 dns_nxdomain_share 0"
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    string
	}{
		{"query and answer", append(ask(dnsMessage(query, "abc.example.com")), dnsPacket(0, true, answerOf(answer, "abc.example.com"))),
			"dns_name_length 15 dns_name_entropy 1.5849625 dns_names_under_parent 1 dns_answer_bytes 133 dns_nxdomain_share 0"},
		{"no such name", append(ask(dnsMessage(query, "abc.example.com")), dnsPacket(0, true, answerOf(noDomain, "abc.example.com"))), "dns_nxdomain_share 1"},
		{"half of the names", append(ask(dnsMessage(query, "a.example.com")), dnsPacket(0, true, answerOf(noDomain, "a.example.com")),
			dnsPacket(0, false, dnsMessage(query, "b.example.com")), dnsPacket(0, true, answerOf(answer, "b.example.com"))),
			"dns_nxdomain_share .5 dns_names_under_parent 2"},
		{"more answers than questions", append(ask(dnsMessage(query, "a.b.c")), dnsPacket(0, true, big), dnsPacket(0, true, big)), "dns_nxdomain_share 1"},
		{"the root", ask(dnsMessage(query, "")), "dns_name_length 0 dns_name_entropy 0 dns_names_under_parent 1"},
		{"one label", ask(dnsMessage(query, "localhost")), "dns_name_length 9 dns_name_entropy 0 dns_names_under_parent 1"},
		{"two labels", ask(dnsMessage(query, "example.com")), "dns_name_length 11 dns_name_entropy 0 dns_names_under_parent 1"},
		{"the longest name", ask(dnsMessage(query, longest)), "dns_name_length 253 dns_name_entropy .06634397"}, // "a"×63 "." "a"×63
		{"upper case is the same name", append(ask(dnsMessage(query, "AbC.Example.COM")), dnsPacket(1, false, dnsMessage(query, "aBc.eXample.com"))),
			"dns_names_under_parent 1 dns_name_entropy 1.5849625"},
		{"names of one parent", append(ask(dnsMessage(query, "a.example.com")), dnsPacket(1, false, dnsMessage(query, "b.example.com")), dnsPacket(1, false, dnsMessage(query, "x.y.example.com"))),
			"dns_names_under_parent 3 dns_name_length 15 dns_name_entropy 1.5849625"}, // x . y
		{"names of two parents", append(ask(dnsMessage(query, "a.example.com")), dnsPacket(1, false, dnsMessage(query, "a.example.org"))), "dns_names_under_parent 1"},
		{"the longest counts", append(ask(dnsMessage(query, "abcd.example.com")), dnsPacket(1, false, dnsMessage(query, "aa.example.com"))), "dns_name_length 16 dns_name_entropy 2"},
		{"a pointer in the question", ask(append(dnsMessage(query, "")[:12], 1, 'a', 0xc0, 12, 0, 1, 0, 1)[:20]), "dns_name_length 0 dns_names_under_parent 0"},
		{"a label of 64", ask(dnsMessage(query, strings.Repeat("b", 64))), "dns_name_length 0"},
		{"a name of 300", ask(dnsMessage(query, longest+".aaaaaaaa")), "dns_name_length 0"},
		{"two questions", ask(dnsMessage(query, "a.b.c", "d.e.f")), none},
		{"no question", ask(dnsMessage(query)), none},
		{"an update", ask(dnsMessage(0x2800, "a.b.c")), none},
		{"a response from the client", ask(dnsMessage(answer, "a.b.c")), none},
		{"a query from the server", append(ask(dnsMessage(query, "a.b.c")), dnsPacket(0, true, dnsMessage(query, "x.y.example.com"))), "dns_name_length 5 dns_answer_bytes 0"},
		{"TCP", []capture.Packet{tcp}, none},
		{"empty", ask(nil), none},
		{"cut in the header", []capture.Packet{cut(dnsPacket(0, false, dnsMessage(query, "a.b.c")), 11)}, none},
		{"cut in the name", []capture.Packet{cut(dnsPacket(0, false, dnsMessage(query, "www.example.com")), 20)}, "dns_name_length 0 dns_names_under_parent 0"},
		{"answer cut behind its header", append(ask(dnsMessage(query, "a.b.c")), cut(dnsPacket(0, true, big), 12)), "dns_answer_bytes 133 dns_nxdomain_share 1"},
		{"answer in fragments", append(ask(dnsMessage(query, "a.b.c")), fragment(dnsPacket(0, true, big[:64]), nil, 0), fragment(dnsPacket(0, true, big[64:]), big, 72)),
			"dns_answer_bytes 133 dns_nxdomain_share 1"},
		{"a fragment like a query", append(ask(dnsMessage(query, "a.b.c")), fragment(dnsPacket(0, false, dnsMessage(query, "evil.example.com")), nil, 1480)), "dns_name_length 5"},
		{"an answer past 64 KiB", append(ask(dnsMessage(query, "a.b.c")), func() capture.Packet {
			p := dnsPacket(0, true, big)
			p.PayloadLen = 1 << 20
			return p
		}()), "dns_answer_bytes 65535"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rows := measured(t, names(dnsFeatures), tc.packets...)
			row := rows[len(rows)-1]
			wants(t, row, tc.want)
			for name, v := range row {
				if !(v >= 0) || math.IsInf(v, 0) {
					t.Errorf("%s is %v", name, v)
				}
			}
		})
	}
}

// TestDNSTunnel: the names under one parent are told from those under others,
// per source, and the counts decay.
func TestDNSTunnel(t *testing.T) {
	columns := []string{"dns_names_under_parent", "dns_queries_600s", "dns_name_length"}
	rng := newRand(7)
	last := map[capture.Addr][]float32{}
	tr := newTracker(t, Config{Columns: columns}, func(r *Row) { last[r.Src] = append([]float32(nil), r.Values...) })
	const n = 300
	normal := []string{"www.example.com", "mail.example.com", "ntp.example.org", "a.example.net"}
	for i := range n {
		at := float64(i) / 10
		label := make([]byte, 30)
		for k := range label {
			label[k] = byte('a' + rng.IntN(26))
		}
		p := dnsPacket(at, false, dnsMessage(query, string(label)+".tunnel.example"))
		p.SrcPort = uint16(5000 + i)
		tr.Add(&p)
		p = dnsPacket(at, false, dnsMessage(query, normal[i%len(normal)]))
		p.Src[15], p.SrcPort = 77, uint16(5000+i)
		tr.Add(&p)
	}
	tr.Flush()
	other := client
	other[15] = 77
	if v := last[client]; math.Abs(float64(v[0])-n) > 3*.13*n || v[2] != 45 {
		t.Errorf("tunnel: %v", v)
	}
	if v := last[other]; v[0] > 2 {
		t.Errorf("others: %v", v)
	}
	// At the last row all queries have faded by the 60 s timeout and their age.
	want := 0.0
	for i := range n {
		want += math.Exp(-(60 + float64(n-1-i)/10) / 600)
	}
	if got := float64(last[client][1]); math.Abs(got-want) > 1e-4*want {
		t.Errorf("%v queries, want %v", got, want)
	}
}

func TestDNSForgets(t *testing.T) {
	d := newDNS()
	d.conns.begin(0)
	for i := range 2 * maxParents {
		p := dnsPacket(0, false, dnsMessage(query, "www.d"+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676))+".com"))
		p.Src[13], p.Src[14] = byte(i>>8), byte(i)
		d.add(&p, 0, epoch)
	}
	if n, m := d.sources.table.len(), d.parents.table.len(); n != maxParents || m != maxParents || d.parents.evicted != maxParents {
		t.Errorf("%d sources, %d parents, %d evicted", n, m, d.parents.evicted)
	}
	d.reset()
	if n, m := d.sources.table.len(), d.parents.table.len(); n != 0 || m != 0 {
		t.Errorf("%d sources, %d parents after reset", n, m)
	}
}

func FuzzDNS(f *testing.F) {
	f.Add(dnsMessage(query, "www.example.com"))
	f.Add(dnsMessage(noDomain, "a.b"))
	f.Add([]byte{})
	d := newDNS()
	d.conns.begin(0)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := capture.Packet{Proto: capture.ProtoUDP, Src: client, DstPort: portDNS, Payload: b, PayloadLen: len(b)}
		d.add(&p, 0, epoch)
		p.Src, p.Dst, p.SrcPort, p.DstPort = server, client, portDNS, 0
		d.add(&p, 0, epoch)
		v := d.view(0, &client, epoch)
		if v.length > 253 || !(v.entropy >= 0 && v.entropy <= 8) || !(v.names >= 0) || !(v.nxdomainShare >= 0 && v.nxdomainShare <= 1) {
			t.Fatalf("%+v", v)
		}
	})
}
