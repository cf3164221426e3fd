package features

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// slowWindow keeps all ended connections and counts the last of them anew for
// each one.
type slowWindow struct {
	span  int64
	max   int
	ended []seen
}

type seen struct {
	time         int64
	host         capture.Addr
	proto        uint8
	serv, source uint16
	err          errorKind
}

func (w *slowWindow) measure(v seen, ended bool) (s windowStats) {
	all := append(w.ended[max(0, len(w.ended)-(w.max-1)):len(w.ended):len(w.ended)], v)
	hosts, servs := map[capture.Addr]bool{}, map[string]bool{}
	for _, o := range all {
		if w.span > 0 && o.time < v.time-w.span {
			continue
		}
		sameHost, sameServ := o.host == v.host, o.serv == v.serv && o.proto == v.proto
		if sameHost {
			s.host.add(o.err, 1)
			servs[fmt.Sprint(o.proto, o.serv)] = true
			if o.source == v.source {
				s.sameSrcPort++
			}
		}
		if sameServ {
			s.serv.add(o.err, 1)
			hosts[o.host] = true
		}
		if sameHost && sameServ {
			s.sameServ++
		}
	}
	s.host.distinct, s.serv.distinct = int32(len(servs)), int32(len(hosts))
	if ended {
		w.ended = append(w.ended, v)
	}
	return s
}

func TestWindow(t *testing.T) {
	for _, size := range []struct {
		span int64
		max  int
	}{{timeWindowSpan, timeWindowMax}, {0, hostWindowMax}, {timeWindowSpan, 7}, {0, 2}, {0, 1}} {
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(seed, uint64(size.max)))
			// Few hosts and services, so that they meet often; in some runs so
			// many that hardly any do.
			hosts, ports, pause := 1+rng.IntN(1<<rng.IntN(9)), 1+rng.IntN(1<<rng.IntN(9)), 1+rng.Int64N(1<<(10+rng.IntN(20)))
			fast, slow := newWindow(size.span, size.max, true), &slowWindow{span: size.span, max: size.max}
			now := epoch
			for i := range 1500 {
				switch rng.IntN(200) {
				case 0:
					now += rng.Int64N(4 * second)
				case 1:
					now += second // the edge of 2 s is met
				case 2:
					fast.reset()
					slow.ended = nil
				default:
					now += rng.Int64N(pause)
				}
				proto := []uint8{capture.ProtoTCP, capture.ProtoUDP, capture.ProtoICMP}[rng.IntN(3)]
				v := seen{now, capture.Addr{15: byte(rng.IntN(hosts)), 3: byte(rng.IntN(2))}, proto, uint16(rng.IntN(ports)), uint16(rng.IntN(3)), errorKind(rng.IntN(3))}
				c := conn{key: connKey{lo: v.host, loPort: v.serv, hiPort: v.source, proto: proto}, hiFirst: true}
				if c.isICMP() {
					c.icmpType, c.icmpCode, v.source = uint8(v.serv>>8), uint8(v.serv), 0
				}
				ended := rng.IntN(4) > 0
				want, got := slow.measure(v, ended), fast.measure(&c, now, v.err, ended)
				if got != want {
					t.Fatalf("%+v, seed %d, connection %d:\n%+v, want\n%+v", size, seed, i, got, want)
				}
			}
			fast.reset()
			if n := fast.hosts.len() + fast.servs.len() + fast.pairs.len() + fast.ports.len(); n != 0 {
				t.Fatalf("%+v, seed %d: %d counters left", size, seed, n)
			}
		}
	}
}

// TestRate compares with the way NSL-KDD's rates were made.
func TestRate(t *testing.T) {
	for n := int32(1); n <= timeWindowMax; n++ {
		for part := range n + 1 {
			want, _ := strconv.ParseFloat(fmt.Sprintf("%.2f", float32(part)/float32(n)), 64)
			if got := rate(part, n); got != want {
				t.Fatalf("%d/%d: %v, want %v", part, n, got, want)
			}
		}
	}
	for _, tc := range []struct {
		part, n int32
		want    float64
	}{{1, 8, .12}, {3, 40, .08}, {1, 200, 0}, {2, 3, .67}, {0, 0, 0}} {
		if got := rate(tc.part, tc.n); got != tc.want {
			t.Errorf("%d/%d: %v, want %v", tc.part, tc.n, got, tc.want)
		}
	}
	if got := distinctRate(1, 1); got != 0 {
		t.Errorf("one service of one: %v", got)
	}
	if got := distinctRate(2, 2); got != 1 {
		t.Errorf("two services of two: %v", got)
	}
}
