package features

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	const handshake = "0 > S 100, .1 < SA 900, .2 > A 101, "
	for _, tc := range []struct{ name, packets, rows string }{
		{"SF: request, answer, FIN of both", handshake + ".3 > PA 101+10, .4 < PA 901+20, .5 > FA 111, .6 < FA 921, .7 > A 112",
			"client SF 10 20 @2.6"},
		{"SF: the server closes first", handshake + ".5 < FA 901, .6 > FA 101, .7 < A 902",
			"client SF 0 0 @2.6"},
		{"SF: RST after both FINs", handshake + ".5 > FA 101, .6 < FA 901, .7 > R 102",
			"client SF 0 0 @2.7"},
		{"S0: one SYN", "0 > S 100", "client S0 0 0 @5"},
		{"S0: SYN retried", "0 > S 100, 1 > S 100, 3 > S 100", "client S0 0 0 @8"},
		{"S0: fast open data that nobody took", "0 > S 100+50", "client S0 0 0 @5"},
		{"S0: originator's side only", "0 > S 100, .2 > A 101, .3 > PA 101+10", "client ~S0 0 0 @60, client S0 0 0 @120.3"},
		{"S0: SYN again after data", "0 > S 100, .3 > PA 101+10, .4 > S 100", "client ~S0 0 0 @60, client S0 0 0 @120.4"},
		{"S1: not closed", handshake + ".3 > PA 101+10", "client ~S1 10 0 @60, client S1 10 0 @300.3"},
		{"S1: no ACK of the originator's", "0 > S 100, .1 < SA 900", "client ~S1 0 0 @60, client S1 0 0 @120.1"},
		{"S1: keep-alives, without and with an octet", handshake + ".3 > PA 101+10, 9 > A 110, 10 > A 110+1, 11 < A 901",
			"client ~S1 10 0 @60, client S1 10 0 @311"},
		{"S2: closed by the originator", handshake + ".3 > FA 101+5, .4 < A 901", "client ~S2 5 0 @60, client S2 5 0 @300.4"},
		{"S3: closed by the responder", handshake + ".3 < FA 901+5, .4 > A 101", "client ~S3 0 5 @60, client S3 0 5 @300.4"},
		{"REJ", "0 > S 100, .1 < RA 0", "client REJ 0 0 @2.1"},
		{"REJ: Windows tries again, same number", "0 > S 100, .1 < RA 0, .6 > S 100, .7 < RA 0", "client REJ 0 0 @2.7"},
		{"REJ: tried again with another number", "0 > S 100, .1 < RA 0, .6 > S 200, .7 < RA 0",
			"client REJ 0 0 @0.6, client REJ 0 0 @2.7"},
		{"REJ: a reset with a text", "0 > S 100, .1 < RA 0+12", "client REJ 0 0 @2.1"},
		{"REJ: reset with another number", "0 > S 100, .1 < R 77777777", "client REJ 0 0 @2.1"},
		{"RSTO", handshake + ".3 > PA 101+10, .4 > RA 111", "client RSTO 10 0 @2.4"},
		{"RSTO: SYN scan of an open port", "0 > S 100, .1 < SA 900, .2 > R 101", "client RSTO 0 0 @2.2"},
		{"RSTO: FIN, then reset for what still comes", handshake + ".3 > FA 101, .4 < PA 901+30, .5 > R 102", "client RSTO 0 30 @2.5"},
		{"RSTO: both reset, originator first", handshake + ".3 > R 101, .4 < R 901", "client RSTO 0 0 @2.4"},
		{"RSTR", handshake + ".3 > PA 101+10, .4 < RA 901", "client RSTR 10 0 @2.4"},
		{"RSTR: the answer is no SYN-ACK", "0 > S 100, .1 < A 555, .2 < R 900", "client RSTR 0 0 @2.2"},
		{"RSTOS0", "0 > S 100, .1 > R 101", "client RSTOS0 0 0 @2.1"},
		{"SH", "0 > S 100, .1 > F 101", "client ~SH 0 0 @60, client SH 0 0 @120.1"},
		{"SH: SYN and FIN in one", "0 > SF 100", "client SH 0 0 @120"},
		{"SH for Bro's SHR: SYN-ACK and FIN of the responder", "0 < SA 900, .1 < FA 901", "client ~SH 0 0 @60, client SH 0 0 @120.1"},
		{"OTH for Bro's RSTRH: SYN-ACK and RST of the responder", "0 < SA 900, .1 < RA 901", "client OTH 0 0 @2.1"},
		{"OTH: SYN-ACK reflection, the victim resets", "0 < SA 900, .1 > R 1", "client OTH 0 0 @2.1"},
		{"OTH: responder's side only", "0 < SA 900, .1 < PA 901+40, .2 < FA 941, .3 < RA 942", "client OTH 0 40 @2.3"},
		{"OTH: from the middle", "0 < PA 5000+40, .1 > A 7000", "client ~OTH 0 40 @60, client OTH 0 40 @120.1"},
		{"OTH: ACK scan", "0 > A 1, .1 < R 5", "client OTH 0 0 @2.1"},
		{"OTH: null scan", "0 > - 1, .1 < RA 0", "client OTH 0 0 @2.1"},
		{"OTH: FIN scan of an open port", "0 > F 1, 1 > F 1", "client ~OTH 0 0 @60, client OTH 0 0 @121"},
		{"OTH: XMAS scan", "0 > FPU 1, .1 < RA 0", "client OTH 0 0 @2.1"},
		{"OTH: both FINs from the middle", "0 > FA 5000, .1 < FA 7000, .2 > A 5001", "client OTH 0 0 @2.1"},

		{"SYN-ACK seen before the SYN", "0 < SA 900, 0 > S 100, .2 > A 101, .3 > FA 101, .4 < FA 901", "client SF 0 0 @2.4"},
		{"a new connection behind one from the middle", "0 < FA 5000, 9 > S 100, 9.1 < RA 0", "client OTH 0 0 @9, client REJ 0 0 @11.1"},
		{"simultaneous open", "0 > S 100, .1 < S 900, .2 > SA 100, .3 < SA 900, .4 > FA 101, .5 < FA 901", "client SF 0 0 @2.5"},
		{"port used again after close", handshake + ".3 > FA 101, .4 < FA 901, 1 > S 5000, 1.1 < RA 0",
			"client SF 0 0 @1, client REJ 0 0 @3.1"},
		{"port used again from the other end", handshake + ".3 > R 101, 1 < S 5000", "client RSTO 0 0 @1, server S0 0 0 @6"},
		{"RSTO: SYN-ACK behind the reset, which it does not renew", "0 > S 100, .1 > R 101, 1 < SA 900", "client RSTO 0 0 @2.1"},
		{"the last ACK renews nothing", handshake + ".3 > FA 101, .4 < FA 901, 2 > A 102", "client SF 0 0 @2.4"},
		{"a FIN sent again renews", handshake + ".3 > FA 101, .4 < FA 901, 2 < FA 901, 3.9 < FA 901", "client SF 0 0 @5.9"},
		{"a late ACK makes a new one", handshake + ".3 > FA 101, .4 < FA 901, 3 > A 102",
			"client SF 0 0 @2.4, client OTH 0 0 @123"},

		{"retransmissions counted once", handshake + ".3 > PA 101+10, .5 > PA 101+10, 1 > PA 101+10, 1.1 < RA 901", "client RSTR 10 0 @3.1"},
		{"longer retransmission", handshake + ".3 > PA 101+10, .5 > PA 101+25, 1.1 < RA 901", "client RSTR 25 0 @3.1"},
		{"overlapping half", handshake + ".3 > PA 101+10, .5 > PA 106+10, 1.1 < RA 901", "client RSTR 15 0 @3.1"},
		{"out of order", handshake + ".3 > PA 111+10, .4 > PA 121+10, .5 > PA 101+10, 1.1 < RA 901", "client RSTR 30 0 @3.1"},
		{"out of order, filled once", handshake + ".3 > PA 121+10, .4 > PA 101+20, .5 > PA 101+20, 1.1 < RA 901", "client RSTR 30 0 @3.1"},
		{"a gap the capture missed", handshake + ".3 > PA 101+10, .4 > PA 1101+10, 1.1 < RA 901", "client RSTR 20 0 @3.1"},
		{"sequence wraps", "0 > S 4294967290, .1 < SA 4294967295, .2 > PA 4294967291+10, .3 > PA 5+10, .4 > PA 5+10, .5 < PA 0+7, .6 < RA 7",
			"client RSTR 20 7 @2.6"},
		{"the data comes again after its FIN was acknowledged", handshake + ".3 > FPA 101+10, .4 < PA 901+5, .5 > A 112, .6 > FPA 101+10, .7 < RA 906",
			"client RSTR 10 5 @2.7"},
		{"an ACK overtakes the FIN", handshake + ".3 > A 112, .4 > FPA 101+10, .5 > FPA 101+10, .7 < RA 906", "client RSTR 10 0 @2.7"},
		{"fast open data counted with the answer", "0 > S 100+50, .1 < SA 900, .2 > PA 151+10, .3 < RA 901", "client RSTR 60 0 @2.3"},
		{"fast open data refused and sent again", "0 > S 100+50, .1 < SA 900, .2 > PA 101+50, .3 < RA 901", "client RSTR 50 0 @2.3"},
		{"one-way request", "0 > PA 5000+10, .1 > PA 5010+10, .2 > FA 5020", "client ~OTH 20 0 @60, client OTH 20 0 @120.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			equal(t, rows(t, script(t, tc.packets)...), strings.Split(tc.rows, ", ")...)
		})
	}
}

// TestOrderOfSegments sends the segments of a stream in any order and some twice: the
// octets are counted once as long as what comes again has come before what
// follows is missing.
func TestOrderOfSegments(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		start, total := rng.Uint32(), 0
		var ps []segment
		for range 1 + rng.IntN(40) {
			n := rng.IntN(1461)
			ps = append(ps, segment{start + uint32(total), n})
			total += n
		}
		d := direction{sequenced: true, next: start}
		rng.Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
		got := 0
		for _, s := range ps {
			p := packet(0, 6, false, s.n)
			p.Seq = s.seq
			got += d.sequence(&p)
		}
		for _, s := range ps { // nothing is missing now: all of it is old
			p := packet(0, 6, false, s.n)
			p.Seq = s.seq
			got += d.sequence(&p)
		}
		if got != total {
			t.Fatalf("seed %d: %d octets of %d", seed, got, total)
		}
	}
}

// TestMissing: more octets may be missing than an int of 32 bits counts.
func TestMissing(t *testing.T) {
	d := direction{sequenced: true}
	p := packet(0, 6, false, 100)
	for d.missing < 1<<31 {
		p.Seq = d.next + maxGap - 100
		if n := d.sequence(&p); n != 100 {
			t.Fatalf("%d new octets of 100 ahead", n)
		}
	}
	if p.Seq = d.next - 5000; d.sequence(&p) != 100 || d.missing < 1<<31-100 {
		t.Errorf("%d octets missing", d.missing)
	}
}

type segment struct {
	seq uint32
	n   int
}
