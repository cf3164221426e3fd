package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/internal/datatest"
	"github.com/picket-ids/picket/models"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/onnx"
	"github.com/picket-ids/picket/runtime/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// asPicket in the environment makes the test program be picket.
const asPicket = "PICKET_TEST_AS_PICKET"

// TestMain finds the ONNX Runtime that make has put into the build folder.
func TestMain(m *testing.M) {
	if os.Getenv(asPicket) != "" {
		main()
	}
	flag.Parse()
	if os.Getenv(onnx.EnvLibrary) == "" {
		if path, err := filepath.Abs("../../build/lib/libonnxruntime.so"); err == nil {
			if _, err := os.Stat(path); err == nil {
				os.Setenv(onnx.EnvLibrary, path)
			}
		}
	}
	os.Exit(m.Run())
}

// needLibrary skips the test where there is no ONNX Runtime.
func needLibrary(t *testing.T) {
	t.Helper()
	if _, err := onnx.OpenLibrary("", nil); err != nil {
		if os.Getenv("CI_REQUIRE_ORT") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v (make fetches it)", err)
	}
}

// picket runs the program and returns what it answered.
func picket(t *testing.T, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, stdin, &out, &err)
	return code, out.String(), err.String()
}

// unpacked returns a bundled capture without its compression.
func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open("../../testdata/" + name + ".pcap.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write puts a file into the test's folder and returns its path.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pcap returns the header of an empty capture of the given link type.
func pcap(link byte) []byte {
	return []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, link, 0, 0, 0}
}

func TestErrors(t *testing.T) {
	needLibrary(t)
	scanPcap := unpacked(t, "scan")
	oneFrame := append(pcap(105), 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4)
	good := "../../testdata/scan.pcap.gz"
	tests := []struct {
		name string
		args []string
		want string // in standard error
	}{
		{"no verb", nil, "picket scan"},
		{"unknown verb", []string{"sacn"}, `no verb "sacn"`},
		{"unknown flag", []string{"scan", "--jsno", good}, "see picket scan --help"},
		{"no capture", []string{"scan"}, "no capture named"},
		{"missing file", []string{"scan", "gone.pcap"}, "open capture gone.pcap: no such file"},
		{"directory", []string{"scan", t.TempDir()}, "is a directory"},
		{"empty file", []string{"scan", write(t, "empty.pcap", nil)}, "empty"},
		{"not a capture", []string{"scan", write(t, "notes.txt", []byte("these are not packets, nor were they ever"))}, "pcapng"},
		{"no packets", []string{"scan", write(t, "none.pcap", pcap(1))}, "holds no packets"},
		{"unsupported link type", []string{"scan", write(t, "wifi.pcap", oneFrame)}, "IEEE802_11 (105)"},
		{"unsupported link type of rows", []string{"extract", "-o", filepath.Join(t.TempDir(), "rows.csv"), write(t, "wifi.pcap", oneFrame)}, "IEEE802_11 (105)"},
		{"a filter that matches nothing", []string{"scan", "-f", "udp port 9999", good}, `no packet that matches the filter "udp port 9999"`},
		{"missing model", []string{"scan", "--model", "gone.onnx", good}, "gone.onnx"},
		{"missing model names the bundled", []string{"scan", "--model", "gone.onnx", good}, "nslkdd-xgboost"},
		{"garbage for a model", []string{"scan", "--model", write(t, "bad.onnx", scanPcap[:4096]), good}, "bad.onnx"},
		{"model check of garbage", []string{"model", "check", write(t, "bad.onnx", []byte("x"))}, "bad.onnx"},
		{"threshold out of range", []string{"scan", "--threshold", "7", good}, "between 0 and 1"},
		{"filter", []string{"scan", "-f", "tcp prot 80", good}, "prot"},
		{"threshold no number", []string{"scan", "--threshold", "nan", good}, "between 0 and 1"},
		{"library missing", []string{"scan", "--onnxruntime", "/nonexistent/libonnxruntime.so", good}, "libonnxruntime"},
		{"no such group", []string{"extract", "--group", "tiem", good}, `no group "tiem"`},
		{"no such feature", []string{"extract", "--features", "count,cuont", good}, `column 2: "cuont"`},
		{"features and groups", []string{"extract", "--features", "count", "--group", "time", good}, "exclude each other"},
		{"bad table size", []string{"extract", "--max-connections", "-3", good}, "from 1 to"},
		{"broker URL", []string{"scan", "--mqtt", "http://broker", good}, "http"},
		{"broker not there", []string{"scan", "--mqtt", "mqtt://127.0.0.1:1", good}, "127.0.0.1:1"},
		{"model verb", []string{"model", "train"}, "show or check"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := picket(t, nil, tt.args...)
			if code != exitError || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d, standard error %q; want 2 and %q", code, stderr, tt.want)
			}
			if tt.args != nil && strings.Count(stderr, "\n") != 1 {
				t.Errorf("standard error is not one line: %q", stderr)
			}
			if tt.args != nil && tt.args[0] == "scan" && stdout != "" {
				t.Errorf("standard output: %q", stdout)
			}
			if strings.Contains(stdout+stderr, "goroutine ") {
				t.Errorf("a stack trace:\n%s%s", stdout, stderr)
			}
		})
	}
}

// record returns a record of a capture at a time of 2030: of wire bytes, as many of
// them captured as there are in data.
func record(data []byte, wire int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 1_900_000_000)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(binary.LittleEndian.AppendUint32(b, uint32(wire)), data...)
}

// ether returns an Ethernet frame of the given type.
func ether(typ uint16, payload ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 12), typ), payload...)
}

// summaryLine is what the last line of scan --json holds.
type summaryLine struct {
	Picket struct {
		Summary *struct {
			Verdict     string
			Complete    bool
			Files       int
			Packets     uint64
			Connections uint64
			Rows        struct{ Judged uint64 }
			Incidents   struct {
				Total      uint64
				BySeverity map[string]uint64 `json:"by_severity"`
			}
			NotJudged []report.Gap `json:"not_judged"`
		}
	}
}

// lastLine returns the summary of scan --json, and the events before it.
func lastLine(t *testing.T, stdout string) (s summaryLine, events []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	d := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	if err := d.Decode(&s); err != nil || s.Picket.Summary == nil {
		t.Fatalf("no summary at the end: %v\n%s", err, stdout)
	}
	return s, lines[:len(lines)-1]
}

// reasons joins those of gaps, the major ones in capitals.
func reasons(gaps []report.Gap) string {
	var all []string
	for _, g := range gaps {
		if g.Major {
			g.Reason = strings.ToUpper(g.Reason)
		}
		all = append(all, g.Reason)
	}
	return strings.Join(all, " ")
}

// TestJudged checks for captures that could not be judged, or only in part, that the exit
// code, standard error, the summary, the page and the table all say so.
func TestJudged(t *testing.T) {
	needLibrary(t)
	benign, attack := unpacked(t, "benign"), unpacked(t, "scan")
	wifi := append(pcap(105), record([]byte{1, 2, 3, 4}, 4)...)
	broken := ether(0x0800, 0x45) // an IP header of one byte
	// 543 packets, of them 10 ARP, and the given ones
	with := func(n int, frame []byte, wire int) []byte {
		return append(bytes.Clone(benign), bytes.Repeat(record(frame, wire), n)...)
	}
	file := func(data []byte) string { return write(t, "in.pcap", data) }
	gone := filepath.Join(t.TempDir(), "gone.pcap")
	for _, tt := range []struct {
		name    string
		args    []string
		code    int
		verdict string
		reasons string
		stderr  string // in it; empty: nothing at all
	}{
		{"all", []string{file(benign)}, exitNothing, report.Clean, "not_ip", ""},
		{"no packets", []string{file(pcap(1))}, exitError, report.NotJudged, "NO_PACKETS", "nothing could be judged: the capture holds no packets"},
		{"no packets that match", []string{"-f", "udp port 9999", file(benign)}, exitError, report.NotJudged, "NO_PACKETS", `no packet that matches the filter "udp port 9999"`},
		{"another link type", []string{file(wifi)}, exitError, report.NotJudged, "NOT_DECODED", "IEEE802_11 (105)"},
		{"only ARP", []string{"-f", "arp", file(benign)}, exitError, report.NotJudged, "NOT_IP", "nothing could be judged: 10 of 10 packets (100 %)"},
		{"only LLC", []string{file(append(pcap(1), record(ether(38, 0x42, 0x42, 3), 60)...))}, exitError, report.NotJudged, "NOT_IP", "1 of other protocols"},
		{"only a cut header", []string{file(append(pcap(1), record(broken, 60)...))}, exitError, report.NotJudged, "NOT_DECODED", "larger snaplen"},
		{"less than 1 % broken", []string{file(with(5, broken, 15))}, exitNothing, report.Clean, "not_decoded not_ip", ""},
		{"1 % broken", []string{file(with(6, broken, 15))}, exitNothing, report.Clean, "NOT_DECODED not_ip", "warning: 6 of 549 packets (1.1 %) could not be decoded: 6 with a length that cannot be"},
		{"less than 10 % without IP", []string{file(with(49, ether(0x888e), 60))}, exitNothing, report.Clean, "not_ip", ""},
		{"10 % without IP", []string{file(with(50, ether(0x888e), 60))}, exitNothing, report.Clean, "NOT_IP", "warning: 60 of 593 packets (10 %) held no form of IP that Picket knows: 10 ARP, 50 of other protocols"},
		{"cut", []string{file(benign[:len(benign)-7])}, exitNothing, report.Clean, "FILE_CUT not_ip", "warning: read "},
		{"cut, with anomalies", []string{file(attack[:len(attack)-7])}, exitFound, report.Anomalous, "FILE_CUT not_ip", "cut off"},
		{"damaged", []string{file(append(bytes.Clone(benign), bytes.Repeat([]byte{0xff}, 16)...))}, exitError, report.Clean, "FILE_FAILED not_ip", "damaged at octet"},
		{"damaged, with anomalies", []string{file(append(bytes.Clone(attack), bytes.Repeat([]byte{0xff}, 16)...))}, exitFound, report.Anomalous, "FILE_FAILED not_ip", "damaged at octet"},
		{"missing", []string{gone}, exitError, report.NotJudged, "FILE_SKIPPED", "no such file"},
		{"one missing", []string{gone, file(benign)}, exitError, report.Clean, "FILE_SKIPPED not_ip", "no such file"},
		{"one missing, anomalies in the next", []string{gone, file(attack)}, exitFound, report.Anomalous, "FILE_SKIPPED not_ip", "no such file"},
		{"one missing, one of ARP", []string{gone, "-f", "arp", file(benign)}, exitError, report.NotJudged, "FILE_SKIPPED NOT_IP", "nothing could be judged: 10 of 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := filepath.Join(t.TempDir(), "report.html")
			for _, quiet := range [][]string{nil, {"-q"}} {
				code, stdout, stderr := picket(t, nil, append(append([]string{"scan", "--json", "--report", page}, quiet...), tt.args...)...)
				if code != tt.code || !strings.Contains(stderr, tt.stderr) || (stderr == "") != (tt.stderr == "") {
					t.Errorf("exit %d, want %d; standard error, want %q in it:\n%s", code, tt.code, tt.stderr, stderr)
				}
				l, _ := lastLine(t, stdout)
				s := l.Picket.Summary
				if s.Verdict != tt.verdict || reasons(s.NotJudged) != tt.reasons || s.Complete != (strings.ToLower(tt.reasons) == tt.reasons) {
					t.Errorf("verdict %s, complete: %t, %s", s.Verdict, s.Complete, reasons(s.NotJudged))
				}
				for _, g := range s.NotJudged {
					if g.Major && !strings.Contains(stderr, g.Sentence) {
						t.Errorf("not on standard error: %s", g.Sentence)
					}
				}
			}
			b, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			green := bytes.Contains(b, []byte(`class="verdict"`))
			if green != (tt.verdict == report.Clean && tt.stderr == "") || (tt.verdict == report.NotJudged) != bytes.Contains(b, []byte("Nothing could be judged.")) {
				t.Errorf("page is green: %t\n%s", green, b)
			}
			_, stdout, _ := picket(t, nil, append([]string{"scan"}, tt.args...)...)
			if (stdout == "") != (tt.verdict == report.NotJudged) || strings.Contains(strings.ToUpper(stdout), "NOT ALL COULD BE JUDGED") != (stdout != "" && tt.stderr != "") {
				t.Errorf("table:\n%s", stdout)
			}
		})
	}
}

// TestSkipped checks that the captures after one that cannot be read are judged.
func TestSkipped(t *testing.T) {
	needLibrary(t)
	_, stdout, _ := picket(t, nil, "scan", "--json", "--gateway", "gw", "../../testdata/scan.pcap.gz")
	alone, want := lastLine(t, stdout)
	notes := write(t, "notes.txt", []byte("these are not packets, nor were they ever"))
	_, stdout, stderr := picket(t, nil, "scan", "--json", "--gateway", "gw", notes, "gone.pcap", "../../testdata/scan.pcap.gz")
	among, got := lastLine(t, stdout)
	if !slices.Equal(got, want) || among.Picket.Summary.Packets != alone.Picket.Summary.Packets || among.Picket.Summary.Files != 3 {
		t.Errorf("%d events of %d files, %d without the others", len(got), among.Picket.Summary.Files, len(want))
	}
	if strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "notes.txt") || !strings.Contains(stderr, "gone.pcap") {
		t.Error(stderr)
	}
}

// TestSummary checks the counters of the summary against the events before it.
func TestSummary(t *testing.T) {
	needLibrary(t)
	_, stdout, _ := picket(t, nil, "scan", "--json", "--threshold", "0.01", "../../testdata/scan.pcap.gz", "../../testdata/flood.pcap.gz")
	l, events := lastLine(t, stdout)
	severities := map[string]uint64{"informational": 0, "low": 0, "medium": 0, "high": 0}
	for _, line := range events {
		var e detect.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Picket.Phase == detect.PhaseEnd {
			severities[[]string{"informational", "low", "medium", "high"}[e.Event.Severity]]++
		}
	}
	s := l.Picket.Summary
	sum := s.Incidents.BySeverity["low"] + s.Incidents.BySeverity["medium"] + s.Incidents.BySeverity["high"]
	if !maps.Equal(s.Incidents.BySeverity, severities) || sum != s.Incidents.Total || s.Incidents.Total < 3 {
		t.Errorf("%+v; %v in the events", s.Incidents, severities)
	}
}

// TestReasons checks that docs/scan.md explains every reason.
func TestReasons(t *testing.T) {
	source, err := os.ReadFile("../../runtime/report/judged.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/scan.md")
	if err != nil {
		t.Fatal(err)
	}
	source, _, _ = bytes.Cut(source, []byte("// Verdicts"))
	all := regexp.MustCompile(`(?m)^\t\w+ += "(\w+)" +// `).FindAllSubmatch(source, -1)
	for _, m := range all {
		if !bytes.Contains(page, []byte("| `"+string(m[1])+"` |")) {
			t.Errorf("no %s in docs/scan.md", m[1])
		}
	}
	if len(all) < 17 {
		t.Errorf("%d reasons in judged.go", len(all))
	}
}

// TestExtractUnjudged checks that extract says of which captures no rows can come.
func TestExtractUnjudged(t *testing.T) {
	for _, tt := range []struct {
		data []byte
		want string
	}{
		{pcap(1), "none.pcap holds no packets"},
		{append(pcap(1), record(ether(0x0806), 60)...), "1 of 1 packets (100 %)"},
	} {
		code, stdout, stderr := picket(t, nil, "extract", "-q", "--features", "count", write(t, "none.pcap", tt.data))
		if code != exitNothing || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, tt.want) {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
	}
	b := unpacked(t, "scan")
	if code, _, stderr := picket(t, nil, "extract", "-q", "--features", "count", write(t, "cut.pcap", b[:len(b)-7])); code != exitNothing || !strings.Contains(stderr, "cut off") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestOddRecord checks that a record of 4 GiB on the wire does not end the reading, and
// that a warning says so.
func TestOddRecord(t *testing.T) {
	b := unpacked(t, "scan")
	const wireLen = 24 + 12
	copy(b[wireLen:], "\xff\xff\xff\xff")
	code, _, stderr := picket(t, nil, "extract", "-q", "--features", "count", write(t, "odd.pcap", b))
	if code != exitNothing || !strings.Contains(stderr, "odd.pcap: 1 damaged records, the first at byte 24: 1 were read by their sound fields, 0 skipped") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestDuplicatingMirror checks that the same traffic, seen twice, gives the same rows
// from the connection on that follows the proof. Those before it count double.
func TestDuplicatingMirror(t *testing.T) {
	const doubled = 4
	rows := func(name string) (all [][]string, stderr string) {
		code, stdout, stderr := picket(t, nil, "extract", "-q", datatest.Data(t, "..", "cases", name))
		all, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
		if code != exitNothing || err != nil {
			t.Fatalf("exit %d, %v\n%s", code, err, stderr)
		}
		return all, stderr
	}
	plain, stderr := rows("10-plain.pcap.gz")
	if stderr != "" {
		t.Error(stderr)
	}
	twice, stderr := rows("10b-every-packet-twice.pcap.gz")
	if !strings.Contains(stderr, "10b-every-packet-twice.pcap.gz shows packets twice: 401 copies were left out; those before this was certain count double") {
		t.Error(stderr)
	}
	if len(plain) != len(twice) {
		t.Fatalf("%d rows, %d of the doubled ones", len(plain), len(twice))
	}
	for i := 1 + doubled; i < len(plain); i++ {
		for c, name := range plain[0] {
			a, b := plain[i][c], twice[i][c]
			if a == b || name == "capture" {
				continue
			}
			// What decays with time remembers when the first rows ended, 8 µs later.
			x, errX := strconv.ParseFloat(a, 64)
			y, errY := strconv.ParseFloat(b, 64)
			if errX != nil || errY != nil || math.Abs(x-y) > 1e-5*math.Abs(x) {
				t.Errorf("row %d, %s: %s, doubled %s", i, name, a, b)
			}
		}
	}
}

// TestOneWayMirror checks that a capture of one direction is said to be one, whatever
// is written, and that another is not.
func TestOneWayMirror(t *testing.T) {
	for name, want := range map[string]string{
		"13b-asymmetric-downstream-only.pcap.gz": "13b-asymmetric-downstream-only.pcap.gz shows only one direction: 240 of 240 TCP connections (100 %) acknowledge data that never came",
		"10-plain.pcap.gz":                       "",
	} {
		path := datatest.Data(t, "..", "cases", name)
		for _, args := range [][]string{{"scan", "-q", path}, {"scan", "--json", path}, {"extract", "-q", "-o", filepath.Join(t.TempDir(), "rows.csv"), path}} {
			if args[0] == "scan" {
				needLibrary(t)
			}
			_, _, stderr := picket(t, nil, args...)
			if want == "" && stderr != "" || !strings.Contains(stderr, want) {
				t.Errorf("%v: %s", args, stderr)
			}
		}
	}
}

// TestMouths checks that the same packets give the same events as a file, as a
// compressed file and on standard input.
func TestMouths(t *testing.T) {
	needLibrary(t)
	plain := unpacked(t, "scan")
	args := []string{"scan", "--json", "--gateway", "gw"}
	code, want, stderr := picket(t, nil, append(args, "../../testdata/scan.pcap.gz")...)
	if code != exitFound || want == "" || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	if _, got, _ := picket(t, nil, append(args, write(t, "scan.pcap", plain))...); got != want {
		t.Error("the plain file gives other events")
	}
	if _, got, _ := picket(t, bytes.NewReader(plain), append(args, "-")...); got != want {
		t.Error("standard input gives other events")
	}
	if _, got, _ := picket(t, iotest(plain), append(args, "-")...); got != want {
		t.Error("standard input in small pieces gives other events")
	}
}

// iotest reads b in pieces of 1 to 97 octets.
func iotest(b []byte) io.Reader {
	n := 0
	return readerFunc(func(p []byte) (int, error) {
		if len(b) == 0 {
			return 0, io.EOF
		}
		n = n%97 + 1
		k := copy(p[:min(len(p), n)], b)
		b = b[k:]
		return k, nil
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestGolden compares the events and rows of every bundled capture with those
// kept beside it. -update writes them anew.
func TestGolden(t *testing.T) {
	needLibrary(t)
	captures, err := filepath.Glob("../../testdata/*.pcap.gz")
	if err != nil || len(captures) < 5 {
		t.Fatalf("%d captures: %v", len(captures), err)
	}
	for _, path := range captures {
		name := strings.TrimSuffix(filepath.Base(path), ".pcap.gz")
		t.Run(name, func(t *testing.T) {
			_, events, stderr := picket(t, nil, "scan", "--json", "--gateway", "gw", path)
			if stderr != "" {
				t.Error(stderr)
			}
			golden(t, name+".events.golden", []byte(events))
			code, rows, stderr := picket(t, nil, "extract", "-q", path)
			if code != exitNothing || stderr != "" {
				t.Fatalf("extract: exit %d, %s", code, stderr)
			}
			golden(t, name+".rows.golden.gz", pack([]byte(rows)))
		})
	}
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "../../testdata/" + name
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b := text(t, got), text(t, want)
	if a == b {
		return
	}
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for k := range min(len(x), len(y)) {
		if x[k] != y[k] {
			t.Fatalf("%s, line %d:\n got %s\nwant %s", name, k+1, x[k], y[k])
		}
	}
	t.Fatalf("%s: %d lines, want %d", name, len(x), len(y))
}

// text unpacks b if it is compressed.
func text(t *testing.T, b []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return string(b)
	}
	s, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(s)
}

// TestScanTable checks what a person reads of the bundled port scan.
func TestScanTable(t *testing.T) {
	needLibrary(t)
	code, stdout, stderr := picket(t, nil, "scan", "../../testdata/scan.pcap.gz")
	if code != exitFound || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"2,264 packets", "note: 12 of 2,264 packets (0.5 %)", "10.77.1.66", "998 tcp ports", "ANOMALOUS:"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code, stdout, stderr = picket(t, nil, "scan", "-q", "../../testdata/scan.pcap.gz"); code != exitFound || stdout+stderr != "" {
		t.Errorf("quiet: exit %d, %q", code, stdout+stderr)
	}
}

// TestReport checks that the HTML page holds what the table says, and nothing that
// a capture's name could smuggle in.
func TestReport(t *testing.T) {
	needLibrary(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "<script>alert(1)</script>.pcap")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, unpacked(t, "scan"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "report.html")
	if code, _, stderr := picket(t, nil, "scan", "-q", "--report", path, name); code != exitFound {
		t.Fatal(stderr)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.77.1.66", "998 tcp ports", "ANOMALOUS", "victim_ports_60s 32", "<svg"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, unwanted := range []string{"<script", "http://", "https://"} {
		if bytes.Contains(b, []byte(unwanted)) {
			t.Errorf("%q in the page", unwanted)
		}
	}
	if code, _, stderr := picket(t, nil, "scan", "-q", "--report", filepath.Join(dir, "no", "such.html"), name); code != exitError || !strings.Contains(stderr, "no such file") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// TestReportWorst checks that of too many incidents the worst are listed, and that table
// and page say how many are not.
func TestReportWorst(t *testing.T) {
	const n = 2*maxListed + 600
	var o outlets
	for k := range n {
		e := &detect.Event{}
		if err := json.Unmarshal([]byte(`{"source": {}, "destination": {}}`), e); err != nil {
			t.Fatal(err)
		}
		e.Picket.Phase, e.Picket.Score = detect.PhaseEnd, float64(k*7919%n)/n
		o.emit(t.Context(), e)
	}
	listed := o.worst()
	for _, e := range listed {
		if len(listed) != maxListed || e.Picket.Score < float64(n-maxListed)/n {
			t.Fatalf("%d listed, score %v among them", len(listed), e.Picket.Score)
		}
	}
	r := report.Scan{Name: "many", Stats: detect.Stats{Incidents: n, First: 1_700_000_000e9, Last: 1_700_000_000e9 + 72*int64(time.Hour)}, Incidents: listed}
	var table, page strings.Builder
	if err := errors.Join(r.Write(&table, 0), r.HTML(&page)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{table.String(), page.String()} {
		if !strings.Contains(s, "and 1,600 more, none of them worse") {
			t.Error("the rest is not told of")
		}
	}
	if !strings.Contains(page.String(), ">2023-11-16 10:13:20</text>") {
		t.Error("the axis of three days has no dates")
	}
}

// TestProgressLine checks that a line is shorter than the terminal, whatever the name.
func TestProgressLine(t *testing.T) {
	for _, columns := range []int{0, 1, 10, 40, 80} {
		var b strings.Builder
		p := progress{w: &b, name: strings.Repeat("ü", 75) + ".pcap"}
		p.line(": 12 %, 4096 packets", columns)
		line := strings.TrimPrefix(b.String(), "\r\x1b[K")
		if n := utf8.RuneCountInString(line); n != max(columns-1, 0) || columns > 30 && !strings.HasSuffix(line, "…: 12 %, 4096 packets") {
			t.Errorf("%d columns: %d, %q", columns, n, line)
		}
	}
}

// TestFilter checks that -f judges what tcpdump would show.
func TestFilter(t *testing.T) {
	needLibrary(t)
	_, stdout, stderr := picket(t, nil, "scan", "-f", "host 10.77.1.66 and host 10.77.1.12 and tcp", "../../testdata/scan.pcap.gz")
	if !strings.Contains(stdout, "2,001 packets") || stderr != "" { // as labels.csv of the lab counts them
		t.Errorf("%s%s", stdout, stderr)
	}
}

func TestExtract(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.csv")
	code, stdout, stderr := picket(t, nil, "extract", "--features", "count,flag=S0,flag=REJ", "-o", path, "../../testdata/scan.pcap.gz")
	if code != exitNothing || stdout+stderr != "" {
		t.Fatalf("exit %d: %s", code, stdout+stderr)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(rows[0], ","), strings.Join(features.Identity(features.ConnectionRow), ",")+",count,flag=S0,flag=REJ"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	refused := 0
	for _, r := range rows[1:] {
		if r[3] == "10.77.1.66" && r[len(r)-1] == "1" {
			refused++
		}
	}
	if refused < 950 {
		t.Errorf("%d refused connections of the scanner, want its 1000 ports but the open ones", refused)
	}
	if code, _, _ := picket(t, nil, "extract", "-o", path, "gone.pcap"); code != exitError {
		t.Errorf("exit %d for a missing capture", code)
	}
	if after, err := os.Stat(path); err != nil || after.Size() == 0 {
		t.Error("a failed extract has destroyed the file before it")
	}
}

// TestExtractFormats checks that Parquet and CSV hold the same rows.
func TestExtractFormats(t *testing.T) {
	args := []string{"extract", "-q", "../../testdata/scan.pcap.gz", "../../testdata/brute.pcap.gz", "-o"}
	dir := t.TempDir()
	for _, name := range []string{"rows.csv", "rows.parquet"} {
		if code, _, stderr := picket(t, nil, append(args, filepath.Join(dir, name))...); code != exitNothing {
			t.Fatal(stderr)
		}
	}
	f, err := os.Open(filepath.Join(dir, "rows.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.Open(filepath.Join(dir, "rows.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r := parquet.NewReader(p)
	defer r.Close()
	if r.NumRows() != int64(len(want)-1) || len(want) < 1000 {
		t.Fatalf("%d rows in Parquet, %d in CSV", r.NumRows(), len(want)-1)
	}
	for k := 1; k < len(want); k++ {
		got := map[string]any{}
		if err := r.Read(&got); err != nil {
			t.Fatal(err)
		}
		for c, name := range want[0] {
			if a, b := fmt.Sprint(got[name]), want[k][c]; a != b && !sameTime(got[name], b) {
				t.Fatalf("row %d, %s: %v in Parquet, %v in CSV", k, name, a, b)
			}
		}
	}
}

// sameTime reports whether v is the nanoseconds since the epoch, or the time, of s.
func sameTime(v any, s string) bool {
	at, err := time.Parse(time.RFC3339Nano, s)
	switch v := v.(type) {
	case int64:
		return err == nil && at.UnixNano() == v
	case time.Time:
		return err == nil && at.Equal(v)
	}
	return false
}

// TestExtractTwice checks that captures are extracted each as if it were alone.
func TestExtractTwice(t *testing.T) {
	for _, row := range []string{"connection", "packet"} {
		args := []string{"extract", "-q", "--row", row, "../../testdata/scan.pcap.gz"}
		_, once, _ := picket(t, nil, args...)
		_, twice, _ := picket(t, nil, append(args, args[len(args)-1])...)
		header, rows, _ := strings.Cut(once, "\n")
		if twice != header+"\n"+rows+rows {
			t.Errorf("rows of a %s differ the second time", row)
		}
	}
}

// TestOutputs checks that an output destroys nothing that is not its own.
func TestOutputs(t *testing.T) {
	dir := t.TempDir()
	in := write(t, "in.pcap", unpacked(t, "brute"))
	link := filepath.Join(dir, "link.csv")
	target := filepath.Join(dir, "target.csv")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ out, want string }{
		{in, "also an input"}, {dir, "is a directory"}, {"", "no name"}, {link, ""}, {"/dev/null", ""},
	} {
		code, _, stderr := picket(t, nil, "extract", "-q", "--features", "count", in, "-o", tt.out)
		if tt.want == "" && code != exitNothing || !strings.Contains(stderr, tt.want) {
			t.Errorf("-o %q: exit %d, %s", tt.out, code, stderr)
		}
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("a link was replaced")
	}
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Error("a device was replaced")
	}
	if st, err := os.Stat(target); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v; the mode of a file that was there is now %v", err, st.Mode())
	}
	for umask, want := range map[int]os.FileMode{0o077: 0o600, 0o022: 0o644, 0o002: 0o664} {
		before := syscall.Umask(umask)
		fresh := filepath.Join(dir, fmt.Sprintf("%o.csv", umask))
		picket(t, nil, "extract", "-q", "--features", "count", in, "-o", fresh)
		syscall.Umask(before)
		if st, err := os.Stat(fresh); err != nil || st.Mode().Perm() != want {
			t.Errorf("umask %03o: %v, %v", umask, st.Mode(), err)
		}
	}
	if b, err := os.ReadFile(target); err != nil || !bytes.HasPrefix(b, []byte("capture,")) {
		t.Error("nothing was written through the link")
	}
	if b, err := os.ReadFile(in); err != nil || len(b) < 1000 {
		t.Error("the input was destroyed")
	}
}

// TestPrintable checks that a file's name cannot command the terminal.
func TestPrintable(t *testing.T) {
	needLibrary(t)
	name := write(t, "a\x1b[31m\nNothing anomalous\xff.pcap", unpacked(t, "brute"))
	_, stdout, stderr := picket(t, nil, "scan", name)
	_, _, missing := picket(t, nil, "scan", name+"x")
	if s := stdout + stderr + missing; strings.Contains(s, "\x1b") || !utf8.ValidString(s) || strings.Contains(s, "\nNothing") || strings.Count(missing, "\n") != 1 {
		t.Errorf("%q", s)
	}
}

func TestFeatures(t *testing.T) {
	code, stdout, _ := picket(t, nil, "features", "--json")
	var all []map[string]any
	if err := json.Unmarshal([]byte(stdout), &all); code != exitNothing || err != nil || len(all) < 35 {
		t.Fatalf("exit %d, %d features, %v", code, len(all), err)
	}
	code, stdout, _ = picket(t, nil, "features")
	for _, line := range strings.Split(stdout, "\n") {
		if len([]rune(line)) > 80 {
			t.Errorf("longer than 80 columns: %s", line)
		}
	}
	if code != exitNothing || !strings.Contains(stdout, "dst_host_srv_diff_host_rate") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
}

// TestFeaturesPage checks that docs/features.md is what the registry says. -update
// writes it anew.
func TestFeaturesPage(t *testing.T) {
	code, stdout, stderr := picket(t, nil, "features", "--markdown")
	if code != exitNothing {
		t.Fatal(stderr)
	}
	golden(t, "../docs/features.md", []byte(stdout))
}

func TestModel(t *testing.T) {
	needLibrary(t)
	code, stdout, stderr := picket(t, nil, "model", "check")
	if code != exitNothing || !strings.Contains(stdout, "good") {
		t.Errorf("check: exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = picket(t, nil, "model", "show")
	if code != exitNothing || !strings.Contains(stdout, "threshold") || !strings.Contains(stdout, "dst_host_count") {
		t.Errorf("show: exit %d\n%s", code, stdout)
	}
	code, stdout, _ = picket(t, nil, "model", "show", "--json")
	var m onnx.Metadata
	if err := json.Unmarshal([]byte(stdout), &m); code != exitNothing || err != nil || m.Name != models.Default {
		t.Errorf("show --json: exit %d, %v", code, err)
	}
}

func TestHelp(t *testing.T) {
	for _, v := range verbs {
		code, stdout, stderr := picket(t, nil, v.name, "--help")
		if code != exitNothing || !strings.HasPrefix(stdout, "Usage: picket "+v.name) || stderr != "" {
			t.Errorf("%s: exit %d, %q, %q", v.name, code, stdout, stderr)
		}
	}
	if code, stdout, _ := picket(t, nil, "version"); code != exitNothing || !strings.HasPrefix(stdout, "picket ") {
		t.Errorf("version: exit %d, %q", code, stdout)
	}
	code, stdout, _ := picket(t, nil, "version", "--onnxruntime", write(t, "library.so", []byte("none")))
	if code != exitError || !strings.Contains(stdout, "\nONNX Runtime: load ONNX Runtime ") {
		t.Errorf("version with a library that does not load: exit %d, %q", code, stdout)
	}
	code, stdout, _ = picket(t, nil, "version", "--onnxruntime", filepath.Join(t.TempDir(), "none"))
	if code != exitNothing || !strings.Contains(stdout, "\nONNX Runtime: no ONNX Runtime library at ") {
		t.Errorf("version without a library: exit %d, %q", code, stdout)
	}
}

// TestExtractHosts checks that a scanner has a row of its own by its hardware address, and what --home-net changes.
func TestExtractHosts(t *testing.T) {
	scanner := func(args ...string) (host string, ports string) {
		out := good(t, append([]string{"extract", "--row", "host", "--features", "tcp_refused_10s,tcp_ports_10s", "../../testdata/scan.pcap.gz"}, args...)...)
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Join(rows[0], ","), "capture,start,end,host,source,tcp_refused_10s,tcp_ports_10s"; got != want {
			t.Errorf("header %s, want %s", got, want)
		}
		for _, r := range rows[1:] {
			if r[4] == "10.77.1.66" && r[5] != "0" {
				return r[3], r[6]
			}
		}
		t.Fatalf("no row of the scanner:\n%s", out)
		return "", ""
	}
	host, ports := scanner()
	if n, _ := strconv.Atoi(ports); host != "02:aa:00:00:00:42" || n < 800 || n > 1200 {
		t.Errorf("%s tried %s ports, want 02:aa:00:00:00:42 and about 1,000", host, ports)
	}
	if host, _ := scanner("--home-net", "192.0.2.0/24"); host != "10.77.1.66" {
		t.Errorf("outside, the scanner is %s, want its address", host)
	}
	if code, _, stderr := picket(t, nil, "extract", "--row", "host", "--home-net", "home", "../../testdata/scan.pcap.gz"); code != exitError || !strings.Contains(stderr, "as in 192.168.0.0/16") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
