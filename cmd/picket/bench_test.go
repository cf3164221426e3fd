package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/internal/datatest"
	"github.com/picket-ids/picket/runtime/detect"
)

// benchCapture is what the stages read: the lab's capture of a gateway's LAN
// side, 97,312 packets of devices and attacks, 18,614 connections.
func benchCapture(b *testing.B) string { return datatest.Data(b, "captures", "lab", "A-lan.pcap") }

// BenchmarkStages measures, in one run and on one capture, what each stage adds
// to the time of a packet. floor is a loop in C that keeps nothing.
func BenchmarkStages(b *testing.B) {
	path := benchCapture(b)
	b.Run("floor", func(b *testing.B) { benchFloor(b, path) })
	b.Run("read", func(b *testing.B) {
		eachFile(b, path, func(f *capture.File) (n int) {
			var frame capture.Frame
			for f.Next(&frame) == nil {
				n++
			}
			return n
		})
	})
	b.Run("decode", func(b *testing.B) {
		var d capture.Decoder
		eachFile(b, path, func(f *capture.File) int {
			return readAll(b, f, &d, func(*capture.Packet) {})
		})
	})
	columns := defaultColumns(b)
	hostColumns, err := chooseColumns(features.HostRow, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, stage := range []struct {
		name    string
		kind    features.RowKind
		columns []string
	}{
		{"decode+track", features.ConnectionRow, nil}, {"decode+track+rows", features.ConnectionRow, columns},
		{"decode+hosts", features.HostRow, hostColumns},
	} {
		b.Run(stage.name, func(b *testing.B) {
			t, err := features.NewExtractor(stage.kind, features.Config{Columns: stage.columns}, func(*features.Row) {})
			if err != nil {
				b.Fatal(err)
			}
			var d capture.Decoder
			eachFile(b, path, func(f *capture.File) int {
				n := readAll(b, f, &d, t.Add)
				t.Flush()
				return n
			})
		})
	}
	b.Run("decode+track+rows+scores", func(b *testing.B) {
		flags := modelFlags{names: []string{"nslkdd-xgboost"}}
		models, closeAll, err := flags.open(context.Background())
		defer closeAll()
		if err != nil {
			b.Skip(err)
		}
		eachFile(b, path, func(f *capture.File) int {
			d, err := detect.New(detect.Config{Models: models, Emit: func(*detect.Event) {}})
			if err != nil {
				b.Fatal(err)
			}
			if err := d.Run(context.Background(), f); !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
			if err := d.Finish(); err != nil {
				b.Fatal(err)
			}
			return int(d.Stats().Frames)
		})
	})
}

// eachFile runs read on the capture again and again and reports the time of a
// packet.
func eachFile(b *testing.B, path string, read func(*capture.File) int) {
	b.ReportAllocs()
	packets := 0
	for b.Loop() {
		f, err := capture.OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		packets += read(f)
		f.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
}

func readAll(b *testing.B, f *capture.File, d *capture.Decoder, take func(*capture.Packet)) (n int) {
	err := capture.Read(context.Background(), f, d, func(_ *capture.Frame, p *capture.Packet, o capture.Outcome) error {
		n++
		if o.HasPacket() {
			take(p)
		}
		return nil
	}, nil)
	if !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
	return n
}

func defaultColumns(b *testing.B) []string {
	m, err := readModel("nslkdd-xgboost")
	if err != nil {
		b.Fatal(err)
	}
	return m.Features
}

// benchFloor compiles and runs floor.c, where there is a C compiler and libpcap.
func benchFloor(b *testing.B, path string) {
	program := filepath.Join(b.TempDir(), "floor")
	if out, err := exec.Command("cc", "-O2", "-o", program, "testdata/floor.c", "-lpcap").CombinedOutput(); err != nil {
		b.Skipf("no C compiler with libpcap (apt-get install gcc libpcap-dev): %v\n%s", err, out)
	}
	for b.Loop() {
		out, err := exec.Command(program, path, "10").Output()
		if err != nil {
			b.Fatal(err)
		}
		var packets, ns float64
		if _, err := fmt.Sscan(string(out), &packets, &ns); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(ns/packets, "ns/packet")
	}
}

// BenchmarkSYNFlood scans a SYN flood of 1,000,000 distinct 5-tuples in a
// process of its own, on one core, and reports its CPU time and peak memory.
func BenchmarkSYNFlood(b *testing.B) {
	path := filepath.Join(b.TempDir(), "flood.pcap")
	if err := writeFlood(path, 1_000_000); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cmd := exec.Command(os.Args[0], "scan", "--json", "--gateway", "gw", path)
		cmd.Env = append(os.Environ(), asPicket+"=1", "GOMAXPROCS=1")
		out, err := cmd.Output()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitFound {
			b.Fatalf("scan: %v", err)
		}
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		b.ReportMetric(float64(u.Maxrss)/1024, "peak-MiB")
		b.ReportMetric((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), "CPU-s")
		b.ReportMetric(float64(strings.Count(string(out), `"incident-new"`)), "incidents")
		b.ReportMetric(float64(strings.Count(string(out), "\n")-1), "events") // and a summary
	}
}

// writeFlood writes a capture of n SYNs in 10 s from random sources to one host.
func writeFlood(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	w.Write(pcap(1))
	record := make([]byte, 16+54)
	binary.LittleEndian.PutUint32(record[8:], 54)
	binary.LittleEndian.PutUint32(record[12:], 54)
	frame := record[16:]
	frame[12] = 8
	copy(frame[14:], []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, capture.ProtoTCP})
	copy(frame[30:], []byte{10, 0, 0, 1, 0, 0, 0, 80})
	frame[46], frame[47] = 0x50, capture.SYN
	for k := range n {
		us := uint32(k * 10)
		binary.LittleEndian.PutUint32(record, 1_700_000_000+us/1e6)
		binary.LittleEndian.PutUint32(record[4:], us%1e6)
		source := uint32(k) * 2654435761 // distinct for distinct k
		binary.BigEndian.PutUint32(frame[26:], source)
		binary.BigEndian.PutUint16(frame[34:], uint16(1024+k%60000))
		binary.BigEndian.PutUint32(frame[38:], source^0x5bd1e995)
		w.Write(record)
	}
	return w.Flush()
}
