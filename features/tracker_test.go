package features

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/picket-ids/picket/capture"
)

// TestDeadlines ticks to the last nanosecond before each deadline, then to it.
func TestDeadlines(t *testing.T) {
	const handshake = "0 > S 1, 0 < SA 1, 0 > A 2, "
	udp := packet(0, capture.ProtoUDP, false, 10)
	icmpEcho := packet(0, capture.ProtoICMP, false, 10)
	icmpEcho.ICMPType = 8
	sctp := packet(0, capture.ProtoSCTP, false, 10)
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		timeout int64
	}{
		{"SYN only", script(t, "0 > S 1"), 5},
		{"SYN answered, not acknowledged", script(t, "0 > S 1, 0 < SA 1"), 120},
		{"from the middle", script(t, "0 > A 1"), 120},
		{"established", script(t, handshake+"0 > PA 2+5"), 300},
		{"closed by FINs", script(t, handshake+"0 > FA 2, 0 < FA 2"), 2},
		{"reset", script(t, handshake+"0 > R 2"), 2},
		{"UDP", []capture.Packet{udp}, 60},
		{"SCTP", []capture.Packet{sctp}, 60},
		{"ICMP", []capture.Packet{icmpEcho}, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var at []int64
			tr := newTracker(t, Config{}, func(r *Row) {
				if r.Ended {
					at = append(at, r.Time)
				}
			})
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Tick(epoch + tc.timeout*second - 1)
			if len(at) != 0 {
				t.Fatalf("ended early")
			}
			tr.Tick(epoch + tc.timeout*second)
			if !slices.Equal(at, []int64{epoch + tc.timeout*second}) {
				t.Fatalf("ended at %v", at)
			}
		})
	}
}

func TestActiveTimeout(t *testing.T) {
	lookup := []capture.Packet{packet(0, capture.ProtoUDP, false, 30), packet(29, capture.ProtoUDP, true, 90)}
	equal(t, rows(t, lookup...), "client SF 30 90 @89") // silent for half of its timeout
	stream := append(lookup, packet(31, capture.ProtoUDP, false, 7))
	equal(t, rows(t, stream...), "client ~SF 37 90 @60", "client SF 37 90 @91")
	ps := script(t, "0 > S 1, 0 < SA 1, 0 > A 2, 60 > PA 2+5, 150 > PA 7+5, 400 > PA 12+5, 420 < R 2")
	// The packet at 60 s comes behind the row of the first minute; minutes
	// without a packet have no row.
	equal(t, rows(t, ps...), "client ~S1 0 0 @60", "client ~S1 5 0 @120", "client ~S1 10 0 @180", "client ~S1 15 0 @420", "client RSTR 15 0 @422")
	var got []string
	tr := newTracker(t, Config{}, func(r *Row) { got = append(got, fmt.Sprint(r.Serial, r.Packets, r.Octets, r.Ended)) })
	for i := range ps {
		tr.Add(&ps[i])
	}
	tr.Flush()
	equal(t, got, "0 [2 1] [108 54] false", "1 [1 0] [59 0] false", "2 [1 0] [59 0] false", "3 [1 0] [59 0] false", "4 [0 1] [0 54] true")
}

// TestEarly: what is quiet for a second gives a row then, once before its close and
// once after; the windows count it once.
func TestEarly(t *testing.T) {
	const handshake = "0 > S 1, 0 < SA 1, 0 > A 2, "
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    []string // serial, time, flag, count, packets; ~ goes on
	}{
		{"SYN alone", script(t, "0 > S 1"), []string{"~0 @1 S0 1 [1 0]", "1 @5 S0 1 [0 0]"}},
		{"SYN repeated", script(t, "0 > S 1, .9 > S 1, 3 > S 1"), []string{"~0 @1.9 S0 1 [2 0]", "1 @8 S0 1 [1 0]"}},
		{"refused", script(t, "0 > S 1, .1 < RA 0"), []string{"~0 @1.1 REJ 1 [1 1]", "1 @2.1 REJ 2 [0 0]"}},
		{"session", script(t, handshake+"20 > FA 2, 20 < FA 2, 20.5 > A 3"), []string{"~0 @21.5 SF 1 [4 2]", "1 @22 SF 2 [0 0]"}},
		{"long session", script(t, handshake+"61 > FA 2, 61 < FA 2"), []string{"~0 @60 S1 1 [2 1]", "~1 @62 SF 1 [1 1]", "2 @63 SF 2 [0 0]"}},
		{"lookup", []capture.Packet{packet(0, capture.ProtoUDP, false, 30), packet(.2, capture.ProtoUDP, true, 90)}, []string{"~0 @1.2 SF 1 [1 1]", "1 @60.2 SF 1 [0 0]"}},
		{"stream", func() (ps []capture.Packet) {
			for i := range 100 {
				ps = append(ps, packet(.9*float64(i), capture.ProtoUDP, false, 30))
			}
			return ps
		}(), []string{"~0 @60 SF 1 [67 0]", "~1 @90.1 SF 1 [33 0]", "2 @149.1 SF 1 [0 0]"}},
		{"answered late", script(t, "0 > S 1, 2 < SA 1, 2 > A 2, 3 > R 2"), []string{"~0 @1 S0 1 [1 0]", "~1 @4 RSTO 1 [2 1]", "2 @5 RSTO 1 [0 0]"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			tr := newTracker(t, Config{Columns: []string{"count"}, Early: time.Second}, func(r *Row) {
				goes := "~"
				if r.Ended {
					goes = ""
				}
				got = append(got, fmt.Sprintf("%s%d @%v %v %v %v", goes, r.Serial, float64(r.Time-epoch)/1e9, r.Flag, r.Values[0], r.Packets))
			})
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Flush()
			equal(t, got, tc.want...)
		})
	}
}

func TestConnections(t *testing.T) {
	tcp := func(text string) []capture.Packet { return script(t, text) }
	udp := func(at float64, answer bool, n int) capture.Packet { return packet(at, capture.ProtoUDP, answer, n) }
	icmp := func(at float64, typ uint8, id uint16, n int) capture.Packet {
		p := packet(at, capture.ProtoICMP, typ == 0, n)
		p.SrcPort, p.DstPort, p.ICMPType, p.ICMPID = 0, 0, typ, id
		return p
	}
	unreachable := func(at float64, of capture.Packet) capture.Packet {
		p := packet(at, capture.ProtoICMP, true, 28)
		p.SrcPort, p.DstPort, p.ICMPType, p.ICMPCode, p.HasQuote = 0, 0, 3, 3, true
		p.Quoted = capture.Quote{Src: of.Src, Dst: of.Dst, SrcPort: of.SrcPort, DstPort: of.DstPort, Proto: of.Proto, ICMPType: of.ICMPType, ICMPID: of.ICMPID}
		return p
	}
	other := udp(0, false, 1)
	other.SrcPort = 4001
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    []string
	}{
		{"UDP question and answer", []capture.Packet{udp(0, false, 30), udp(1, true, 90)}, []string{"client SF 30 90 @61"}},
		{"UDP pause", []capture.Packet{udp(0, false, 30), udp(60, true, 90)}, []string{"client SF 30 0 @60", "server SF 90 0 @120"}},
		{"two source ports", []capture.Packet{udp(0, false, 30), other}, []string{"client SF 30 0 @60", "client SF 1 0 @60"}},
		{"ping", []capture.Packet{icmp(0, 8, 7, 56), icmp(.1, 0, 7, 56), icmp(1, 8, 7, 56)}, []string{"client SF 112 56 @11"}},
		{"two pings", []capture.Packet{icmp(0, 8, 7, 56), icmp(.5, 8, 8, 64)}, []string{"client SF 56 0 @10", "client SF 64 0 @10.5"}},
		{"port unreachable", []capture.Packet{udp(0, false, 30), unreachable(1, udp(0, false, 30))}, []string{"client SF 30 0 @60"}},
		{"port unreachable of an answer", []capture.Packet{udp(0, true, 30), udp(.5, false, 3), unreachable(1, udp(0, false, 3))}, []string{"client SF 3 30 @60.5"}},
		{"ping to a host that is down", []capture.Packet{icmp(0, 8, 7, 56), unreachable(1, icmp(0, 8, 7, 0))}, []string{"client SF 56 0 @10"}},
		{"unreachable to a SYN", append(tcp("0 > S 1"), unreachable(1, tcp("0 > S 1")[0])), []string{"client S0 0 0 @5"}},
		{"error about an unknown connection", []capture.Packet{unreachable(0, other)}, []string{"client SF 0 28 @10"}},
	} {
		t.Run(tc.name, func(t *testing.T) { equal(t, rows(t, tc.packets...), tc.want...) })
	}
}

func TestUnreachableIsRefused(t *testing.T) {
	q := packet(0, capture.ProtoUDP, false, 30)
	e := packet(1, capture.ProtoICMP, true, 28)
	e.HasQuote, e.ICMPType, e.Quoted = true, 3, capture.Quote{Src: q.Src, Dst: q.Dst, SrcPort: q.SrcPort, DstPort: q.DstPort, Proto: q.Proto}
	answer := packet(2, capture.ProtoUDP, true, 9)
	about := func(typ, code uint8, q capture.Packet) capture.Packet {
		e := e
		e.ICMPType, e.ICMPCode, e.Quoted.Proto = typ, code, q.Proto
		return e
	}
	v6 := about(1, 4, q)
	v6.Proto = capture.ProtoICMPv6
	tooBig := v6
	tooBig.ICMPType, tooBig.ICMPCode = 2, 0
	data := script(t, "0 > A 1+9")
	upload := script(t, "0 > S 1, .1 < SA 1, .2 > A 2, .3 > A 2+9")
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    string
	}{
		{"error only", []capture.Packet{q, e}, "true [1 1] [84 82]"},
		{"no answer", []capture.Packet{q}, "true [1 0] [84 0]"},
		{"error, then an answer", []capture.Packet{q, e, answer}, "false [1 2] [84 145]"},
		{"fragmentation needed", []capture.Packet{q, about(3, 4, q)}, "true [1 1] [84 82]"},
		{"redirect", []capture.Packet{q, about(5, 1, q)}, "true [1 1] [84 82]"},
		{"IPv6", []capture.Packet{q, v6}, "true [1 1] [84 82]"},
		{"IPv6, packet too big", []capture.Packet{q, tooBig}, "true [1 1] [84 82]"},
		{"TCP from its middle", append(data, about(3, 1, data[0])), "true [1 1] [63 82]"},
		{"upload, its route lost once", append(upload, about(3, 0, upload[0])), "false [3 2] [171 136]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got string
			tr := newTracker(t, Config{}, func(r *Row) {
				if r.Serial == 0 {
					got = fmt.Sprint(r.Refused, r.Packets, r.Octets)
				}
			})
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Flush()
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestFragments feeds fragments as the decoder leaves them: with the ports of the
// datagram's first one.
func TestFragments(t *testing.T) {
	fragment := func(at float64, proto uint8, offset, n int, wrong bool) capture.Packet {
		p := packet(at, proto, false, n)
		p.Fragment, p.FragmentOffset, p.FragmentLen, p.WrongFragment = true, uint16(offset), n, wrong
		return p
	}
	ping, rest := fragment(0, capture.ProtoICMP, 0, 1480, false), fragment(0, capture.ProtoICMP, 1480, 100, false)
	pong := packet(.1, capture.ProtoICMP, true, 56)
	for _, p := range []*capture.Packet{&ping, &rest, &pong} {
		p.ICMPType, p.ICMPID = 8, 77
	}
	pong.ICMPType = 0
	tcpLater := script(t, "0 > S 1, .1 < RA 0, 20 > - 0+100")
	tcpLater[2].Fragment, tcpLater[2].FragmentOffset = true, 1480
	tiny := script(t, "0 > - 0, 0 > S 1, .1 < RA 0") // nmap -f: the flags come with the last fragment
	tiny[0].Fragment, tiny[0].FragmentOffset, tiny[0].PayloadLen = true, 0, 0
	tiny[1].Fragment, tiny[1].FragmentOffset, tiny[1].Whole = true, 8, []byte{}
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    string // wrong_fragment, payload and flag of each row
	}{
		{"joined, and the answer", []capture.Packet{fragment(0, capture.ProtoUDP, 0, 1480, false), fragment(0, capture.ProtoUDP, 1480, 40, false), packet(2, capture.ProtoUDP, true, 10)}, "0 1520 10 SF"},
		{"teardrop", []capture.Packet{fragment(0, capture.ProtoUDP, 0, 40, false), fragment(0, capture.ProtoUDP, 24, 8, true)}, "1 48 0 SF"},
		{"TCP, whose connection has ended since", tcpLater, "0 0 0 REJ 0 100 0 OTH"},
		{"SYN in tiny fragments", tiny, "0 0 0 REJ"},
		{"long ping", []capture.Packet{ping, rest, pong}, "0 1580 56 SF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			tr := newTracker(t, Config{Columns: []string{"wrong_fragment", "src_bytes", "dst_bytes"}}, func(r *Row) {
				got = append(got, fmt.Sprint(r.Values[0], r.Values[1], r.Values[2], r.Flag))
			})
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Flush()
			equal(t, []string{strings.Join(got, " ")}, tc.want)
		})
	}
}

// TestTunnel checks that a VNI tells connections apart, that a TEID does not, and
// that a row names its tunnel.
func TestTunnel(t *testing.T) {
	through := func(kind capture.TunnelKind, id uint32, back bool) capture.Packet {
		p := packet(0, capture.ProtoUDP, back, 10)
		p.Tunnel, p.TunnelID, p.OuterSrc = kind, id, server
		return p
	}
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    string
	}{
		{"GTP-U, a TEID for each direction", []capture.Packet{through(capture.TunnelGTPU, 1, false), through(capture.TunnelGTPU, 2, true)}, "GTP-U 1"},
		{"VXLAN, one VNI", []capture.Packet{through(capture.TunnelVXLAN, 7, false), through(capture.TunnelVXLAN, 7, true)}, "VXLAN 7"},
		{"VXLAN, two VNIs", []capture.Packet{through(capture.TunnelVXLAN, 7, false), through(capture.TunnelVXLAN, 8, false)}, "VXLAN 7 VXLAN 8"},
		{"none", []capture.Packet{packet(0, capture.ProtoUDP, false, 10)}, "none 0"},
	} {
		var got []string
		tr := newTracker(t, Config{}, func(r *Row) {
			got = append(got, fmt.Sprint(r.Tunnel, " ", r.TunnelID))
			if (r.OuterSrc == server) != (r.Tunnel != capture.TunnelNone) {
				t.Errorf("%s: outer source %v", tc.name, r.OuterSrc)
			}
		})
		for i := range tc.packets {
			tr.Add(&tc.packets[i])
		}
		tr.Flush()
		equal(t, []string{strings.Join(got, " ")}, tc.want)
	}
}

func TestLandAndUrgent(t *testing.T) {
	land := script(t, "0 > S 1, .1 > SA 5")
	for i := range land {
		land[i].Src, land[i].SrcPort = land[i].Dst, land[i].DstPort
	}
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    string
	}{
		{"land", land, "[1 0] S0"},
		{"same address, other port", func() []capture.Packet {
			ps := script(t, "0 > S 1, .1 < RA 0")
			for i := range ps {
				ps[i].Src, ps[i].Dst = server, server
			}
			return ps
		}(), "[0 0] REJ"},
		{"urgent", script(t, "0 > S 1, .1 < SA 1, .2 > UA 2+1, .3 < UA 2+1, .4 < R 3"), "[0 2] RSTR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			tr := newTracker(t, Config{Columns: []string{"land", "urgent"}}, func(r *Row) {
				if r.Ended {
					got = append(got, fmt.Sprint(r.Values, r.Flag))
				}
			})
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Flush()
			equal(t, got, tc.want)
		})
	}
}

func TestEviction(t *testing.T) {
	var got []string
	tr := newTracker(t, Config{Columns: []string{"src_bytes", "dst_bytes"}, MaxConnections: 3}, func(r *Row) { got = append(got, describe(r)) })
	add := func(p capture.Packet) { tr.Add(&p) }
	from := func(at float64, proto uint8, port uint16) capture.Packet {
		p := packet(at, proto, false, int(port))
		p.SrcPort = port
		return p
	}
	add(from(0, capture.ProtoUDP, 1))
	add(from(1, capture.ProtoTCP, 2)) // idle longer allowed than UDP
	add(from(2, capture.ProtoUDP, 3))
	add(from(3, capture.ProtoUDP, 1)) // renewed
	add(from(4, capture.ProtoUDP, 4)) // evicts 2
	add(from(5, capture.ProtoUDP, 5)) // evicts 3
	equal(t, got, "client OTH 2 0 @4", "client SF 3 0 @5")
	if s := tr.Stats(); s.Evicted != 2 || s.Connections != 5 || s.Rows != 2 || tr.Open() != 3 {
		t.Errorf("%+v, %d open", s, tr.Open())
	}
	// A timeout that is due makes room without an eviction.
	add(from(64.5, capture.ProtoUDP, 6))
	if s := tr.Stats(); s.Evicted != 2 {
		t.Errorf("%+v", s)
	}
	for _, n := range []int{-1, 1<<24 + 1} {
		if _, err := NewExtractor(ConnectionRow, Config{MaxConnections: n}, nil); err == nil {
			t.Errorf("a cap of %d is accepted", n)
		}
	}
}

// TestReturned: an evicted connection that comes back gives no new row, until it has lasted
// for another minute.
func TestReturned(t *testing.T) {
	var got []string
	tr := newTracker(t, Config{Columns: []string{"src_bytes", "dst_bytes"}, MaxConnections: 2}, func(r *Row) { got = append(got, describe(r)) })
	for i := range 400 { // three take turns
		p := packet(float64(i), capture.ProtoUDP, false, 10)
		p.SrcPort = uint16(40000 + i%3)
		if i >= 200 {
			p.SrcPort = 40000 // two give up
		}
		tr.Add(&p)
	}
	want := []string{"client SF 10 0 @2", "client SF 10 0 @3", "client SF 10 0 @4"}
	equal(t, got[:3], want...)
	for _, line := range got[3:] {
		if !strings.Contains(line, "~") {
			t.Errorf("%s", line)
		}
	}
	if s := tr.Stats(); len(got) < 5 || len(got) > 7 || s.Returned != s.Connections-3 || s.Returned < 190 {
		t.Errorf("%q, %+v", got, s)
	}
	// A SYN begins a new connection.
	got = nil
	tr = newTracker(t, Config{Columns: []string{"src_bytes", "dst_bytes"}, MaxConnections: 1}, func(r *Row) { got = append(got, describe(r)) })
	for i, p := range script(t, "0 > S 1, .1 < SA 9, .2 > A 2, 1 > S 1, 2 > A 2, 3 > S 100, 3.1 < RA 0") {
		if i == 3 {
			p.SrcPort = 5000 // evicts
		}
		tr.Add(&p)
	}
	tr.Flush()
	equal(t, got, "client S1 0 0 @1", "client S0 0 0 @2", "client REJ 0 0 @5.1")
}

func TestClock(t *testing.T) {
	udp := func(at float64, port uint16) capture.Packet {
		p := packet(at, capture.ProtoUDP, false, 1)
		p.SrcPort = port
		return p
	}
	for _, tc := range []struct {
		name    string
		back    time.Duration
		packets []capture.Packet
		want    string
		steps   uint64
	}{
		{"a second back on a live clock", time.Second, []capture.Packet{udp(100, 1), udp(99, 1), udp(99, 2)}, "client SF 2 0 @160, client SF 1 0 @160", 0},
		{"further back on a live clock", time.Second, []capture.Packet{udp(100, 1), udp(98.999, 1), udp(99, 2)}, "client SF 1 0 @160, client SF 1 0 @158.999, client SF 1 0 @159", 1},
		{"a minute back is out of order", 0, []capture.Packet{udp(100, 1), udp(40, 1), udp(40, 2)}, "client SF 2 0 @160, client SF 1 0 @160", 0},
		{"further back is a new time", 0, []capture.Packet{udp(100, 1), udp(39.999, 1), udp(40, 2)}, "client SF 1 0 @160, client SF 1 0 @99.999, client SF 1 0 @100", 1},
		{"a year ahead", 0, []capture.Packet{udp(0, 1), udp(365*86400, 1)}, "client SF 1 0 @60, client SF 1 0 @3.153606e+07", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			tr := newTracker(t, Config{Columns: []string{"src_bytes", "dst_bytes"}, StepBack: tc.back}, func(r *Row) { got = append(got, describe(r)) })
			for i := range tc.packets {
				tr.Add(&tc.packets[i])
			}
			tr.Flush()
			equal(t, got, strings.Split(tc.want, ", ")...)
			if tr.Stats().ClockSteps != tc.steps {
				t.Errorf("%d steps, want %d", tr.Stats().ClockSteps, tc.steps)
			}
		})
	}
	if _, err := NewExtractor(ConnectionRow, Config{StepBack: -1}, nil); err == nil {
		t.Error("a negative step is accepted")
	}
	// Times that no clock shows end, and end all connections.
	n := 0
	tr := newTracker(t, Config{Columns: kdd28}, func(r *Row) { n++ })
	for i, at := range []int64{math.MaxInt64, math.MinInt64, 0, -1, math.MaxInt64 - 1, math.MinInt64 + 1, 1 << 62, -1 << 62} {
		p := udp(0, uint16(i))
		p.Time = at
		tr.Add(&p)
	}
	tr.Flush()
	if n != 8 || tr.Open() != 0 {
		t.Errorf("%d rows, %d open", n, tr.Open())
	}
}

// TestTicksChangeNothing: rows depend on the packets alone, not on when the clock was
// looked at, and Flush is the clock running on for ever.
func TestTicksChangeNothing(t *testing.T) {
	columns := names(featuresOf(ConnectionRow))
	for seed := range uint64(30) {
		ps := randomPackets(newRand(seed), 1500)
		run := func(limit int, ticks bool) (got []string) {
			rng := rand.New(rand.NewPCG(seed, 3))
			tr := newTracker(t, Config{Columns: columns, MaxConnections: limit}, record(&got))
			now := ps[0].Time
			for i := range ps {
				if p := &ps[i]; ticks && p.Time > now {
					for range rng.IntN(4) {
						now += rng.Int64N(p.Time - now + 1)
						tr.Tick(now)
					}
					tr.Tick(now - second) // back, and so without effect
				}
				now = max(now, ps[i].Time)
				if ps[i].Time < now-int64(DefaultStepBack) {
					now = ps[i].Time
				}
				tr.Add(&ps[i])
			}
			for range 1000 * int(oneIf(ticks)) { // past the last deadline, before Flush
				now += second
				tr.Tick(now)
			}
			tr.Flush()
			if s := tr.Stats(); int(s.Rows) != len(got) || tr.Open() != 0 {
				t.Fatalf("%+v, %d rows, %d open", s, len(got), tr.Open())
			}
			return got
		}
		for _, limit := range []int{1, 7, 1000} {
			plain, ticked := run(limit, false), run(limit, true)
			if len(plain) != len(ticked) {
				t.Fatalf("seed %d, %d connections: %d rows, with ticks %d", seed, limit, len(plain), len(ticked))
			}
			for i := range plain {
				if plain[i] != ticked[i] {
					t.Fatalf("seed %d, %d connections, row %d:\n%s\n%s", seed, limit, i, plain[i], ticked[i])
				}
			}
		}
	}
}

// TestRowTimes: rows come in the order of time, each with the number of its
// connection, and no packet is lost or counted twice.
func TestRowTimes(t *testing.T) {
	for seed := range uint64(40) {
		ps := slices.DeleteFunc(randomPackets(rand.New(rand.NewPCG(seed, 4)), 2000), func(p capture.Packet) bool {
			return p.Fragment && p.FragmentOffset > 0
		})
		slices.SortStableFunc(ps, func(a, b capture.Packet) int { return cmp.Compare(a.Time, b.Time) })
		last, packets, octets, ended := int64(0), uint64(0), uint64(0), uint64(0)
		serials := map[uint64]int{}
		var tr *Tracker
		// With room for 50 some are evicted, come back, and give no row.
		limit := []int{50, 10_000}[seed/2%2]
		tr = newTracker(t, Config{MaxConnections: limit, Early: time.Duration(seed%2) * time.Second}, func(r *Row) {
			if r.Time < last || r.End > r.Time || r.Start > r.End {
				t.Fatalf("seed %d: row before at %d, %+v", seed, last, r)
			}
			last = r.Time
			if r.Connection == 0 || r.Connection > tr.Stats().Connections || r.Serial != serials[r.Connection] {
				t.Fatalf("seed %d: row %d of connection %d, want row %d", seed, r.Serial, r.Connection, serials[r.Connection])
			}
			if serials[r.Connection]++; r.Ended {
				serials[r.Connection] = -1 // none follows
			}
			packets += r.Packets[0] + r.Packets[1]
			octets += r.Octets[0] + r.Octets[1]
			if r.Ended {
				ended++
			}
		})
		want := uint64(0)
		for i := range ps {
			tr.Add(&ps[i])
			want += uint64(ps[i].WireLen)
		}
		tr.Flush()
		returned := tr.Stats().Returned
		if returned > 0 != (limit == 50) || ended > tr.Stats().Connections || ended+returned < tr.Stats().Connections {
			t.Fatalf("seed %d: %d ended, %+v", seed, ended, tr.Stats())
		}
		if limit > 50 && (packets != uint64(len(ps)) || octets != want) {
			t.Fatalf("seed %d: %d packets of %d, %d octets of %d, %d ended, %+v", seed, packets, len(ps), octets, want, ended, tr.Stats())
		}
	}
}

// TestTable compares a table with a map, also when most keys hash alike.
func TestTable(t *testing.T) {
	for name, hash := range map[string]func(uint64) uint64{
		"hashUint64": hashUint64,
		"colliding":  func(k uint64) uint64 { return hashUint64(k) & (7<<61 | 3<<32) },
		"constant":   func(uint64) uint64 { return math.MaxUint64 },
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 6))
			for _, limit := range []int{1, 2, 3, 255, 600} {
				tb, want, where := newTable[uint64, uint64](limit), map[uint64]uint64{}, map[uint64]int32{}
				for range 20_000 {
					k := rng.Uint64N(uint64(2 * limit))
					i := tb.find(&k, hash(k))
					if at, ok := where[k]; ok != (i >= 0) || ok && (at != i || *tb.at(i) != want[k]) {
						t.Fatalf("limit %d: key %d at %d, want %d", limit, k, i, at)
					}
					switch {
					case i >= 0 && rng.IntN(2) == 0:
						tb.remove(i)
						delete(want, k)
						delete(where, k)
					case i >= 0 || !tb.full():
						i, isNew := tb.put(&k, hash(k))
						if _, ok := want[k]; ok == isNew || isNew && *tb.at(i) != 0 {
							t.Fatalf("limit %d: put %d: new %v, value %d", limit, k, isNew, *tb.at(i))
						}
						want[k], where[k] = rng.Uint64(), i
						*tb.at(i) = want[k]
					}
					if tb.len() != len(want) || tb.full() != (len(want) == limit) {
						t.Fatalf("limit %d: %d entries, want %d", limit, tb.len(), len(want))
					}
				}
				if n := len(tb.chunks) * chunkLen; n > limit+chunkLen-1 {
					t.Errorf("limit %d: room for %d", limit, n)
				}
			}
		})
	}
}

func TestHashSpreads(t *testing.T) {
	tb := newTable[connKey, conn](1 << 16)
	for i := range 1 << 16 {
		var k connKey
		k.set(&end{server, 80}, &end{capture.Addr{10: 0xff, 11: 0xff, 12: 10, 14: byte(i >> 8), 15: byte(i)}, 4000}, &capture.Packet{}, 6)
		tb.put(&k, hashKey(&k))
	}
	longest, run := 0, 0
	for _, s := range tb.slots {
		if run++; s == 0 {
			run = 0
		}
		longest = max(longest, run)
	}
	if longest > 200 { // linear probing at load 1/2: about 60
		t.Errorf("%d slots in a row are taken", longest)
	}
}

// TestCraftedKeys: no bits of an address, which a sender may choose, undo those of
// another field, so that connections would hash alike whatever the seed.
func TestCraftedKeys(t *testing.T) {
	seen := map[uint64]connKey{}
	for _, undo := range []func(k *connKey, x uint16){
		func(k *connKey, x uint16) { k.loPort ^= x },
		func(k *connKey, x uint16) { k.hiPort ^= x },
		func(k *connKey, x uint16) { k.vni ^= uint32(x) },
		func(k *connKey, x uint16) { k.vni ^= uint32(x) << 8 },
		func(k *connKey, x uint16) { k.proto ^= uint8(x) },
	} {
		for at := range 2 * 15 { // of both addresses
			for x := range uint16(512) {
				k := connKey{lo: client, hi: server, loPort: 4000, hiPort: 80, proto: capture.ProtoTCP}
				b := [2]*capture.Addr{&k.lo, &k.hi}[at/15][at%15:]
				x *= 129 // in both octets
				b[0] ^= byte(x)
				b[1] ^= byte(x >> 8)
				undo(&k, x)
				h := hashKey(&k)
				if other, ok := seen[h]; ok && other != k {
					t.Fatalf("%v and %v hash alike", other, k)
				}
				seen[h] = k
			}
		}
	}
}

// TestKey: the key of a connection is the same in both directions.
func TestKey(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 10_000 {
		side := func() end {
			return end{capture.Addr{0: byte(rng.IntN(2)), 9: byte(rng.IntN(2)), 15: byte(rng.IntN(3))}, uint16(rng.IntN(3))}
		}
		a, b := side(), side()
		var ab, ba connKey
		aHi, bHi := ab.set(&a, &b, &capture.Packet{}, 6), ba.set(&b, &a, &capture.Packet{}, 6)
		if ab != ba || aHi == bHi && a != b || hashKey(&ab) != hashKey(&ba) {
			t.Fatalf("%v %v: %v %v, %v %v", a, b, ab, aHi, ba, bHi)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	ps := randomPackets(rand.New(rand.NewPCG(9, 9)), 5000)
	rows := 0
	tr := newTracker(t, Config{Columns: allColumns(), MaxConnections: 300}, func(*Row) { rows++ })
	pass := func() {
		for i := range ps {
			tr.Add(&ps[i])
		}
		tr.Tick(tr.now)
	}
	pass()
	rows = 0
	if n := testing.AllocsPerRun(5, pass); n != 0 {
		t.Errorf("%v allocations per %d packets", n, len(ps))
	}
	if rows < len(ps)/4 {
		t.Errorf("only %d rows", rows)
	}
}

// TestMemory fills a tracker past its cap.
func TestMemory(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	// As the doc of DefaultMaxConnections has it.
	for _, tc := range []struct {
		name    string
		columns []string
		most    float64
	}{{"KDD", kdd28, 12e6}, {"all groups", allColumns(), 36e6}} {
		before := heap()
		tr := newTracker(t, Config{Columns: tc.columns}, func(*Row) {})
		for i := range 3 * DefaultMaxConnections {
			p := packet(float64(i)*1e-5, capture.ProtoUDP, false, 0)
			p.Src[12], p.Src[13], p.Src[14] = byte(i>>16), byte(i>>8), byte(i)
			tr.Add(&p)
		}
		if tr.Open() != DefaultMaxConnections {
			t.Errorf("%s: %d connections", tc.name, tr.Open())
		}
		used := heap() - before
		t.Logf("%s: %d octets, %d an entry", tc.name, used, unsafe.Sizeof(entry[connKey, conn]{}))
		if float64(used) > tc.most {
			t.Errorf("%s: %d octets when full", tc.name, used)
		}
		runtime.KeepAlive(tr)
	}
}

// TestARP checks that an ARP message makes no row and moves no clock.
func TestARP(t *testing.T) {
	p := capture.Packet{Time: 1e12, ARP: &capture.ARPMessage{Op: 1}}
	rows := 0
	tr := newTracker(t, Config{Columns: allColumns()}, func(*Row) { rows++ })
	tr.Add(&p)
	tr.Flush()
	packets := newPacketTracker(t, Config{Columns: packetColumns()}, func(*Row) { rows++ })
	packets.Add(&p)
	packets.Flush()
	if rows > 0 || tr.Stats().Connections > 0 || tr.now == p.Time {
		t.Errorf("%d rows, %+v", rows, tr.Stats())
	}
}
