// Package checks compares what Picket computes with other programs. It has only
// tests and scripts; docs/checks.md has their figures.
package checks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/internal/datatest"
)

// way is one direction of a conversation.
type way struct {
	src, dst         string
	srcPort, dstPort int
	proto            int
}

// total counts its packets: packets, bytes on the wire, and the eight TCP flags.
type total [10]uint64

var flagNames = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"}

// talk is what one program says of a capture.
type talk struct {
	ways map[way]*total
	// handshakes lists the times that the openings of TCP took, by the
	// originator's way; NaN where none was seen.
	handshakes map[way][]float64
	fragments  map[[2]string]bool // addresses that sent IP fragments
	frames     int
}

func newTalk() *talk {
	return &talk{ways: map[way]*total{}, handshakes: map[way][]float64{}, fragments: map[[2]string]bool{}}
}

func (k *talk) of(w way) *total {
	if k.ways[w] == nil {
		k.ways[w] = &total{}
	}
	return k.ways[w]
}

// picket sums the last rows of the connections of a capture.
func picket(t *testing.T, path string) *talk {
	k := newTalk()
	columns := []string{"handshake_time"}
	for _, side := range []string{"fwd_", "bwd_"} {
		for _, c := range append([]string{"packets", "bytes"}, flagNames...) {
			columns = append(columns, side+c)
		}
	}
	tr, err := features.NewExtractor(features.ConnectionRow, features.Config{Columns: columns, MaxConnections: 1 << 20}, func(r *features.Row) {
		if !r.Ended || r.Proto != capture.ProtoTCP && r.Proto != capture.ProtoUDP && r.Proto != capture.ProtoSCTP {
			return
		}
		fwd := way{r.Src.String(), r.Dst.String(), int(r.SrcPort), int(r.DstPort), int(r.Proto)}
		bwd := way{fwd.dst, fwd.src, fwd.dstPort, fwd.srcPort, fwd.proto}
		for side, w := range []way{fwd, bwd} {
			for i, v := range r.Values[1+10*side:][:10] {
				if v > 0 {
					k.of(w)[i] += uint64(v)
				}
			}
		}
		if r.Proto == capture.ProtoTCP {
			k.handshakes[fwd] = append(k.handshakes[fwd], float64(r.Values[0]))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var d capture.Decoder
	err = capture.Read(context.Background(), f, &d, func(_ *capture.Frame, p *capture.Packet, o capture.Outcome) error {
		if o.HasPacket() {
			if p.Fragment {
				k.fragments[[2]string{p.Src.String(), p.Dst.String()}] = true
			}
			tr.Add(p)
		}
		return nil
	}, nil)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Logf("%s: %v", path, err) // tshark too reads what comes before the damage
	}
	tr.Flush()
	return k
}

// fields are those of tshark, all occurrences of each.
var fields = []string{"frame.protocols", "frame.len", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport", "tcp.flags",
	"udp.srcport", "udp.dstport", "sctp.srcport", "sctp.dstport", "ip.flags.mf", "ip.frag_offset", "ipv6.fraghdr.ident", "tcp.stream", "tcp.analysis.initial_rtt"}

// tshark sums the innermost transport of every frame but ICMP errors.
func tshark(t *testing.T, path string) *talk {
	args := []string{"-n", "-r", path, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,",
		"-o", "tcp.desegment_tcp_streams:FALSE"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	k := newTalk()
	type stream struct {
		way         way // of its first packet
		syn, synAck bool
		rtt         float64
	}
	streams := map[string]*stream{}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		k.frames++
		v := map[string]string{}
		for i, s := range strings.Split(lines.Text(), "\t") {
			v[fields[i]] = s
		}
		last := func(name string) string {
			_, s := v[name][:0], v[name]
			return s[strings.LastIndexByte(s, ',')+1:]
		}
		layers := strings.Split(v["frame.protocols"], ":")
		if slices.Contains(layers, "icmp") || slices.Contains(layers, "icmpv6") {
			continue
		}
		var w way
		var flags uint64
		ip, layer := "ip", ""
		for _, l := range layers {
			switch l {
			case "ip", "ipv6":
				ip, layer = l, ""
			case "tcp", "udp", "sctp":
				layer = l
			}
		}
		w.src, w.dst = last(ip+".src"), last(ip+".dst")
		if strings.Contains(v["ip.flags.mf"], "1") || strings.Trim(v["ip.frag_offset"], "0,") != "" || v["ipv6.fraghdr.ident"] != "" {
			k.fragments[[2]string{w.src, w.dst}] = true
		}
		if layer == "" {
			continue
		}
		w.srcPort, _ = strconv.Atoi(last(layer + ".srcport"))
		w.dstPort, _ = strconv.Atoi(last(layer + ".dstport"))
		w.proto = map[string]int{"tcp": 6, "udp": 17, "sctp": 132}[layer]
		n := k.of(w)
		octets, _ := strconv.ParseUint(v["frame.len"], 10, 64)
		n[0]++
		n[1] += octets
		if layer != "tcp" {
			continue
		}
		flags, _ = strconv.ParseUint(last("tcp.flags"), 0, 16)
		for i := range flagNames {
			n[2+i] += flags >> i & 1
		}
		s := streams[last("tcp.stream")]
		if s == nil {
			s = &stream{way: w, rtt: math.NaN()}
			streams[last("tcp.stream")] = s
			if flags&0x12 == 0x12 { // a SYN-ACK first: its receiver is the originator
				s.way = way{w.dst, w.src, w.dstPort, w.srcPort, w.proto}
			}
		}
		// Its initial_rtt ends at the first ACK of any kind, so of a scan it is the
		// time to the reset: taken here only for an ACK that follows a SYN-ACK.
		switch rtt := last("tcp.analysis.initial_rtt"); {
		case flags&0x12 == 0x02 && w == s.way:
			s.syn = true
		case flags&0x12 == 0x12 && w != s.way:
			s.synAck = s.syn
		case s.synAck && math.IsNaN(s.rtt) && rtt != "" && w == s.way && flags&0x16 == 0x10:
			s.rtt, _ = strconv.ParseFloat(rtt, 64)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Logf("tshark %s: %v", path, err)
	}
	for _, s := range streams {
		k.handshakes[s.way] = append(k.handshakes[s.way], s.rtt)
	}
	return k
}

// sample returns the captures of the lab and one of every second label.
func sample(t *testing.T) (paths []string) {
	root := datatest.Data(t, "captures")
	for _, pattern := range []string{"train/*", "test/*"} {
		dirs, _ := filepath.Glob(filepath.Join(root, pattern))
		for i, dir := range dirs {
			if i%2 == 0 {
				files, _ := filepath.Glob(filepath.Join(dir, "*cap*"))
				if len(files) > 0 {
					paths = append(paths, files[len(files)/2])
				}
			}
		}
	}
	lab, _ := filepath.Glob(filepath.Join(root, "lab", "*.pcap"))
	return append(paths, lab...)
}

// TestTshark: packets, bytes, TCP flags and handshake times of every conversation
// are tshark's. Its 4.0.17 was the first compared.
func TestTshark(t *testing.T) {
	version, err := exec.Command("tshark", "-v").Output()
	if err != nil {
		t.Skipf("no tshark: %v", err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	t.Log(first)
	paths := sample(t)
	if len(paths) < 20 {
		t.Fatalf("%d captures", len(paths))
	}
	var ways, same, fragmented, frames, handshakes, completed, alike int
	var agree [10]int
	for _, path := range paths {
		name := path[strings.Index(path, "captures"):]
		ours, theirs := picket(t, path), tshark(t, path)
		frames += theirs.frames
		all := map[way]bool{}
		for w := range ours.ways {
			all[w] = true
		}
		for w := range theirs.ways {
			all[w] = true
		}
		shown := 0
		for w := range all {
			if a := [2]string{w.src, w.dst}; ours.fragments[a] || theirs.fragments[a] {
				fragmented++
				continue
			}
			ways++
			a, b := *ours.of(w), *theirs.of(w)
			for i := range a {
				if a[i] == b[i] {
					agree[i]++
				}
			}
			if a == b {
				same++
			} else if shown++; shown <= 3 {
				t.Logf("%s: %v: %v, tshark %v", name, w, a, b)
			}
		}
		shown = 0
		for w, a := range ours.handshakes {
			b := theirs.handshakes[w]
			if len(a) != 1 || len(b) != 1 {
				continue // connections that share their ports may be cut otherwise
			}
			if a[0] > 0 {
				completed++
			}
			if handshakes++; math.IsNaN(b[0]) && a[0] == 0 || math.Abs(a[0]-b[0]) <= 1e-6+1e-6*b[0] {
				alike++
			} else if shown++; shown <= 3 {
				t.Logf("%s: %v: handshake %v, tshark %v", name, w, a[0], b[0])
			}
		}
	}
	t.Logf("%d captures, %d frames, %d directions of conversations, %d with fragments left out", len(paths), frames, ways, fragmented)
	for i, name := range append([]string{"packets", "bytes"}, flagNames...) {
		t.Logf("%-10s %d of %d", name, agree[i], ways)
	}
	t.Logf("all        %d of %d", same, ways)
	t.Logf("handshake  %d of %d, of which %d were completed", alike, handshakes, completed)
	if same < ways*99/100 || alike < handshakes*99/100 {
		t.Error("less than 99 % alike")
	}
	if os.Getenv("CI_REQUIRE_DATA") == "1" && ways < 10_000 {
		t.Error(fmt.Sprint("only ", ways))
	}
}
