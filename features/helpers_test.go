package features

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// epoch is when the tests' packets begin.
const epoch = 1_700_000_000 * second

// kdd28 are the columns of NSL-KDD that need no look into the payload, in its order.
var kdd28 = append(append(names(basicGroup), names(timeGroup)...), names(hostGroup)...)

func names(fs []Feature) (all []string) {
	for _, f := range fs {
		all = append(all, f.Name)
	}
	return all
}

func addr(s string) capture.Addr { return capture.AddrFrom(netip.MustParseAddr(s)) }

var client, server = addr("10.0.0.9"), addr("10.0.0.1")

// packet is one of proto between ports 4000 of the client and 80 of the server.
func packet(seconds float64, proto uint8, fromServer bool, payload int) capture.Packet {
	p := capture.Packet{
		Time: epoch + int64(math.Round(seconds*1e9)), Version: 4, Proto: proto, WireLen: 54 + payload, PayloadLen: payload,
		Src: client, Dst: server, SrcPort: 4000, DstPort: 80,
	}
	if fromServer {
		p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	}
	return p
}

// script makes the TCP packets of a text of the form "seconds side flags
// seq+payload, ..." in which side is > from the client and < from the server.
func script(t testing.TB, text string) (ps []capture.Packet) {
	t.Helper()
	for line := range strings.SplitSeq(text, ",") {
		f := strings.Fields(line)
		if len(f) != 4 {
			t.Fatalf("line %q", line)
		}
		seq, payload, _ := strings.Cut(f[3], "+")
		n, _ := strconv.Atoi(payload)
		number, err := strconv.ParseUint(seq, 10, 32)
		at, err2 := strconv.ParseFloat(f[0], 64)
		if err != nil || err2 != nil {
			t.Fatalf("line %q: %v %v", line, err, err2)
		}
		p := packet(at, capture.ProtoTCP, f[1] == "<", n)
		p.Seq = uint32(number)
		for _, c := range f[2] {
			p.Flags |= map[rune]uint8{'F': capture.FIN, 'S': capture.SYN, 'R': capture.RST, 'P': capture.PSH, 'A': capture.ACK, 'U': capture.URG, '-': 0}[c]
		}
		ps = append(ps, p)
	}
	return ps
}

// newTracker fails the test rather than return an error.
func newTracker(t testing.TB, cfg Config, emit func(*Row)) *Tracker {
	t.Helper()
	tr, err := NewExtractor(ConnectionRow, cfg, emit)
	if err != nil {
		t.Fatal(err)
	}
	return tr.(*Tracker)
}

// rows returns a line per row: initiator, flag, payload of both sides, the row's
// time in seconds since epoch; ~ before that of a connection that goes on.
func rows(t testing.TB, ps ...capture.Packet) (lines []string) {
	t.Helper()
	tr := newTracker(t, Config{Columns: []string{"src_bytes", "dst_bytes"}}, func(r *Row) {
		lines = append(lines, describe(r))
	})
	for i := range ps {
		tr.Add(&ps[i])
	}
	tr.Flush()
	if tr.Open() != 0 {
		t.Errorf("%d connections left after Flush", tr.Open())
	}
	return lines
}

func describe(r *Row) string {
	from, open := r.Src.String(), ""
	switch r.Src {
	case client:
		from = "client"
	case server:
		from = "server"
	}
	if !r.Ended {
		open = "~"
	}
	return fmt.Sprintf("%s %s%s %v %v @%v", from, open, r.Flag, r.Values[0], r.Values[1], float64(r.Time-epoch)/1e9)
}

func equal(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("rows\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// featuresOf returns those of a kind of row.
func featuresOf(row RowKind) []Feature {
	return slices.DeleteFunc(All(), func(f Feature) bool { return f.Row != row })
}

// allColumns names every column that a connection's row can have.
func allColumns() (all []string) {
	for _, f := range featuresOf(ConnectionRow) {
		all = append(all, f.Columns()...)
	}
	return all
}

// randomPackets makes n packets of few hosts and ports, so that they meet often.
func randomPackets(rng *rand.Rand, n int) []capture.Packet {
	protos := []uint8{capture.ProtoTCP, capture.ProtoTCP, capture.ProtoTCP, capture.ProtoUDP, capture.ProtoICMP, capture.ProtoICMPv6, capture.ProtoSCTP, 47}
	ports := []uint16{22, 53, 80, 2152, 4000, 5060, 8805, 38412, 50000}
	host := func() capture.Addr {
		return capture.Addr{10: 0xff, 11: 0xff, 12: 10, 15: byte(rng.IntN(4))}
	}
	port := func() uint16 { return ports[rng.IntN(len(ports))] }
	now := epoch
	ps := make([]capture.Packet, n)
	for i := range ps {
		switch rng.IntN(100) {
		case 0:
			now += rng.Int64N(400) * second
		case 1:
			now -= rng.Int64N(70) * second
		case 2, 3, 4, 5:
			now += rng.Int64N(10) * second // whole seconds: deadlines that fall together
		default:
			now += rng.Int64N(second / 10)
		}
		p := &ps[i]
		*p = capture.Packet{
			Time: now, WireLen: 60 + rng.IntN(1400), PayloadLen: rng.IntN(3) * rng.IntN(500),
			Src: host(), Dst: host(), Proto: protos[rng.IntN(len(protos))],
		}
		switch p.Proto {
		case capture.ProtoTCP:
			p.SrcPort, p.DstPort = port(), port()
			flags := []uint8{capture.SYN, capture.SYN | capture.ACK, capture.ACK, capture.ACK | capture.PSH, capture.FIN | capture.ACK, capture.RST, 0, uint8(rng.Uint32())}
			p.Flags, p.Seq = flags[rng.IntN(len(flags))], rng.Uint32N(2000)
			p.Payload = []byte("GET /nausf-auth/v1 HTTP/1.1")[:rng.IntN(28)]
		case capture.ProtoUDP, capture.ProtoSCTP:
			p.SrcPort, p.DstPort = port(), port()
		case capture.ProtoICMP:
			p.ICMPType, p.ICMPID = []uint8{0, 8, 3, 11}[rng.IntN(4)], uint16(rng.IntN(2))
			if p.ICMPType == 3 {
				p.HasQuote = true
				p.Quoted = capture.Quote{Src: p.Dst, Dst: host(), SrcPort: port(), DstPort: port(), Proto: protos[rng.IntN(4)]}
			}
		case capture.ProtoICMPv6:
			p.ICMPType = uint8(128 + rng.IntN(2))
		}
		if rng.IntN(10) == 0 {
			p.Fragment, p.MoreFragments, p.FragmentID = true, rng.IntN(2) == 0, rng.Uint32N(3)
			p.FragmentOffset, p.FragmentLen = uint16(rng.IntN(3)*64), 64
			if p.FragmentOffset > 0 {
				p.SrcPort, p.DstPort, p.Flags, p.HasQuote = 0, 0, 0, false
			}
		}
	}
	return ps
}

// record keeps a copy of each row.
func record(to *[]string) func(*Row) {
	return func(r *Row) {
		bits := make([]uint32, len(r.Values))
		for i, v := range r.Values {
			bits[i] = math.Float32bits(v)
		}
		head := *r
		head.Values = nil
		*to = append(*to, fmt.Sprint(head, bits))
	}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
