package features

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

// benchColumns are those of the largest model that ships.
var benchColumns = append(append([]string{}, kdd28...), "burstiness", "symmetry_ratio",
	"service_10_traffic", "service_11_traffic", "service_12_traffic", "service_13_traffic", "is_signaling")

// frame returns an Ethernet frame with an IPv4 packet between hosts of 10/8.
func frame(proto uint8, src, dst uint32, srcPort, dstPort uint16, flags uint8, seq uint32, payload int) []byte {
	head := map[uint8]int{capture.ProtoTCP: 20, capture.ProtoUDP: 8, capture.ProtoICMP: 8}[proto]
	b := make([]byte, 34+head+payload)
	be := binary.BigEndian
	be.PutUint16(b[12:], 0x0800)
	b[14], b[22], b[23] = 0x45, 64, proto
	be.PutUint16(b[16:], uint16(len(b)-14))
	be.PutUint32(b[26:], 10<<24|src)
	be.PutUint32(b[30:], 10<<24|dst)
	t := b[34:]
	switch proto {
	case capture.ProtoICMP:
		t[0] = flags // the type
		be.PutUint16(t[4:], srcPort)
		return b
	case capture.ProtoUDP:
		be.PutUint16(t[4:], uint16(head+payload))
	case capture.ProtoTCP:
		be.PutUint32(t[4:], seq)
		t[12], t[13] = 5<<4, flags
	}
	be.PutUint16(t, srcPort)
	be.PutUint16(t[2:], dstPort)
	return b
}

// mixedTraffic generates what some 200 devices behind a gateway send in n frames:
// MQTT and web sessions, lookups, GTP-U streams, pings, and one in 20
// conversations a refused or unanswered SYN.
func mixedTraffic(n int) []capture.Frame {
	rng := rand.New(rand.NewPCG(1, 2))
	talks := make([][][]byte, 150) // going on at a time
	for i := range talks {
		talks[i] = conversation(rng)
	}
	fs, octets, now := make([]capture.Frame, n), make([]byte, 0, 1500*n), epoch
	for i := range fs {
		now += rng.Int64N(2 * second / 5000)
		talk := &talks[rng.IntN(len(talks))]
		if len(*talk) == 0 {
			*talk = conversation(rng)
		}
		b := (*talk)[0]
		*talk = (*talk)[1:]
		octets = append(octets, b...) // side by side, as a ring buffer has them
		b = octets[len(octets)-len(b):]
		fs[i] = capture.Frame{Data: b, Time: now, WireLen: len(b), Link: capture.LinkEthernet}
	}
	return fs
}

func conversation(rng *rand.Rand) (fs [][]byte) {
	device, host, port := uint32(rng.IntN(200)), 1<<16|uint32(rng.IntN(12)), uint16(1024+rng.IntN(60000))
	to := func(proto uint8, dst uint16, flags uint8, seq uint32, n int) {
		fs = append(fs, frame(proto, device, host, port, dst, flags, seq, n))
	}
	from := func(proto uint8, dst uint16, flags uint8, seq uint32, n int) {
		fs = append(fs, frame(proto, host, device, dst, port, flags, seq, n))
	}
	const tcp, udp, icmp, a, pa = capture.ProtoTCP, capture.ProtoUDP, capture.ProtoICMP, capture.ACK, capture.ACK | capture.PSH
	switch k := rng.IntN(20); {
	case k == 0:
		to(tcp, 23, capture.SYN, 1, 0)
		if rng.IntN(2) == 0 {
			from(tcp, 23, capture.RST|a, 0, 0)
		}
	case k < 8:
		to(udp, 53, 0, 0, 40)
		from(udp, 53, 0, 0, 120)
	case k < 10:
		to(icmp, 0, 8, 0, 56)
		fs = append(fs, frame(icmp, host, device, port, 0, 0, 0, 56))
	case k < 12:
		for range 5 + rng.IntN(40) {
			to(udp, portGTPU, 0, 0, 200+rng.IntN(1000))
		}
	default:
		service, up, down := []uint16{80, 443, 1883, 8883}[rng.IntN(4)], uint32(2), uint32(2)
		to(tcp, service, capture.SYN, 1, 0)
		from(tcp, service, capture.SYN|a, 1, 0)
		to(tcp, service, a, 2, 0)
		for range 1 + rng.IntN(6) {
			n := 20 + rng.IntN(400)
			to(tcp, service, pa, up, n)
			up += uint32(n)
			for range 1 + rng.IntN(3) {
				from(tcp, service, pa, down, 1448)
				down += 1448
				to(tcp, service, a, up, 0)
			}
		}
		to(tcp, service, capture.FIN|a, up, 0)
		from(tcp, service, capture.FIN|a, down, 0)
		to(tcp, service, a, up+1, 0)
	}
	return fs
}

// readFrames returns the frames of a capture.
func readFrames(t testing.TB, path string) (fs []capture.Frame) {
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fr capture.Frame
	for f.Next(&fr) == nil {
		fr.Data = bytes.Clone(fr.Data)
		fs = append(fs, fr)
	}
	return fs
}

// BenchmarkTraffic measures the stages on frames in memory: generated ones, and
// the lab's.
func BenchmarkTraffic(b *testing.B) {
	for _, source := range []string{"mixed", "lab"} {
		b.Run(source, func(b *testing.B) {
			var fs []capture.Frame
			if source == "lab" {
				fs = readFrames(b, datatest.Data(b, "captures", "lab", "A-lan.pcap"))
			} else {
				fs = mixedTraffic(20_000)
			}
			b.Run("decode", func(b *testing.B) { benchmark(b, fs, false, nil) })
			b.Run("decode+track", func(b *testing.B) { benchmark(b, fs, true, nil) })
			b.Run("decode+track+rows", func(b *testing.B) { benchmark(b, fs, true, benchColumns) })
		})
	}
}

func benchmark(b *testing.B, fs []capture.Frame, track bool, columns []string) {
	var d capture.Decoder
	var p capture.Packet
	rows := 0
	tr := newTracker(b, Config{Columns: columns}, func(*Row) { rows++ })
	span := fs[len(fs)-1].Time - fs[0].Time
	offset := int64(0) // each pass comes later than the one before
	octets := 0
	for i := range fs {
		octets += len(fs[i].Data)
	}
	pass := func() {
		for i := range fs {
			f := fs[i]
			f.Time += offset
			if d.Decode(&f, &p).HasPacket() && track {
				tr.Add(&p)
			}
		}
		offset += span + second
	}
	pass()
	rows = 0
	b.ReportAllocs()
	b.SetBytes(int64(octets))
	for b.Loop() {
		pass()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(fs)), "ns/packet")
	b.ReportMetric(float64(rows)/float64(b.N*len(fs)), "rows/packet")
}

// BenchmarkSYNFlood tracks a million SYNs, each of its own source, that come
// within 10 s of packet time.
func BenchmarkSYNFlood(b *testing.B) {
	const n = 1_000_000
	data := frame(capture.ProtoTCP, 0, 1<<16, 4000, 80, capture.SYN, 1, 0)
	f := capture.Frame{Data: data, WireLen: 60, Link: capture.LinkEthernet, Time: epoch}
	for _, columns := range [][]string{nil, benchColumns} {
		name := "track"
		if columns != nil {
			name = "track+rows"
		}
		b.Run(name, func(b *testing.B) {
			var d capture.Decoder
			var p capture.Packet
			rows := 0
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			tr := newTracker(b, Config{Columns: columns}, func(*Row) { rows++ })
			b.ReportAllocs()
			for b.Loop() {
				for i := range uint32(n) {
					x := (i * 0x9e3779b1) & 0xffffff // a permutation: every source once in 2^24
					data[27], data[28], data[29] = byte(x>>16), byte(x>>8), byte(x)
					f.Time += 10 * second / n
					if d.Decode(&f, &p).HasPacket() {
						tr.Add(&p)
					}
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
			b.ReportMetric(float64(rows)/float64(b.N), "rows")
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1e6, "heap-MB")
			runtime.KeepAlive(tr)
		})
	}
}

// BenchmarkCollide tracks SYNs of many sources to ports that, crafted, are the octets
// of their addresses too: no dearer than random ones.
func BenchmarkCollide(b *testing.B) {
	for _, crafted := range []bool{false, true} {
		name, step := "random", uint16(7919)
		if crafted {
			name, step = "crafted", 1
		}
		b.Run(name, func(b *testing.B) {
			tr := newTracker(b, Config{Columns: kdd28}, func(*Row) {})
			p := capture.Packet{Time: epoch, Version: 6, Proto: capture.ProtoTCP, Flags: capture.SYN, WireLen: 74, SrcPort: 1024,
				Src: addr("fd00::1"), Dst: addr("fd00::1:0:0:9")}
			b.ReportAllocs()
			for b.Loop() {
				p.Time += second / 5000
				p.DstPort++
				x := p.DstPort * step
				p.Src[12], p.Src[13] = byte(x), byte(x>>8)
				tr.Add(&p)
			}
			b.ReportMetric(float64(tr.Open()), "open")
		})
	}
}

// BenchmarkLive tracks packets of so many live TCP connections, in turn, 20,000 a second.
func BenchmarkLive(b *testing.B) {
	for _, n := range []uint32{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rows := 0
			tr := newTracker(b, Config{Columns: allColumns(), Early: 1e9}, func(*Row) { rows++ })
			p := packet(0, capture.ProtoTCP, false, 100)
			p.Flags = capture.ACK | capture.PSH
			now := p.Time
			packets := 0
			pass := func() {
				for i := range n {
					p.Src, p.Dst, p.SrcPort, p.DstPort, p.Seq = client, server, 0, 80, 0
					binary.BigEndian.PutUint32(p.Src[12:], 10<<24|i*2654435761>>12)
					p.SrcPort = uint16(40000 + i%20000)
					if (packets+int(i))/int(n)%2 == 1 {
						p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
					}
					now += second / 20_000
					p.Time = now
					p.Seq = uint32(packets) / n * 100
					tr.Add(&p)
				}
				packets += int(n)
			}
			for range 3 {
				pass()
			}
			rows, packets = 0, 0
			b.ReportAllocs()
			for b.Loop() {
				pass()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
			b.ReportMetric(float64(rows)/float64(packets), "rows/packet")
			b.ReportMetric(float64(tr.Stats().Evicted), "evicted")
		})
	}
}
