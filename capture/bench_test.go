package capture

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/picket-ids/picket/internal/datatest"
)

// BenchmarkReadFile reads and decodes a whole capture, as scan does.
func BenchmarkReadFile(b *testing.B) {
	path := datatest.Data(b, "captures", "lab", "A-lan.pcap")
	st, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	var d Decoder
	var p Packet
	var fr Frame
	packets := 0
	b.ReportAllocs()
	b.SetBytes(st.Size())
	for b.Loop() {
		f, err := OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		for err = f.Next(&fr); err == nil; err = f.Next(&fr) {
			d.Decode(&fr, &p)
			packets++
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		f.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
}

// memory returns frames of a capture.
func memory(b *testing.B) (frames []Frame) {
	path := datatest.Data(b, "captures", "lab", "A-lan.pcap")
	f, err := OpenFile(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var fr Frame
	for len(frames) < 4096 && f.Next(&fr) == nil {
		fr.Data = bytes.Clone(fr.Data)
		frames = append(frames, fr)
	}
	return frames
}

// BenchmarkDecode decodes the frames of a capture that lie in memory.
func BenchmarkDecode(b *testing.B) {
	frames := memory(b)
	octets := 0
	for i := range frames {
		octets += len(frames[i].Data)
	}
	var d Decoder
	var p Packet
	b.ReportAllocs()
	b.SetBytes(int64(octets))
	for b.Loop() {
		for i := range frames {
			d.Decode(&frames[i], &p)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/packet")
}

// BenchmarkDecodeTunnel decodes a TCP segment in GTP-U, the usual packet of a
// mobile network's user plane.
func BenchmarkDecodeTunnel(b *testing.B) {
	data := etherFrame(0x0800, outer4(ProtoUDP, udpTo(portGTPU, gtpPDU(0x34, 7, x("0000 00 85 01 100900"), ip4Packet(ProtoTCP, nil, tcpSegment(ACK, "hello"))))))
	f := Frame{Data: data, WireLen: len(data), Link: LinkEthernet}
	var d Decoder
	var p Packet
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		d.Decode(&f, &p)
	}
}

// BenchmarkMirror decodes them as BenchmarkDecode does, and watches for copies and for
// missing directions: 500 and 100,000 packets a second, and all of them twice.
func BenchmarkMirror(b *testing.B) {
	for _, c := range []struct {
		name  string
		every int64
		twice bool
	}{{"slow", 2e6, false}, {"fast", 1e4, false}, {"duplicating", 1e4, true}} {
		b.Run(c.name, func(b *testing.B) {
			frames := memory(b)
			var d Decoder
			var p Packet
			now, packets := int64(1e18), 0
			b.ReportAllocs()
			for b.Loop() {
				for i := range frames {
					f := &frames[i]
					f.Time = now
					now += c.every
					d.Mirrors.see(f, &p, d.Decode(f, &p))
					packets++
					if c.twice {
						d.Mirrors.see(f, &p, d.Decode(f, &p))
						packets++
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
		})
	}
}
