package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

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

// TestUnjudged checks that a capture of which nothing was judged is not called clean.
func TestUnjudged(t *testing.T) {
	needLibrary(t)
	page := filepath.Join(t.TempDir(), "report.html")
	wifi := write(t, "wifi.pcap", append(pcap(105), 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4))
	code, stdout, _ := picket(t, nil, "scan", "--report", page, wifi)
	if _, err := os.Stat(page); code != exitError || stdout != "" || err == nil {
		t.Errorf("exit %d, page: %v\n%s", code, err, stdout)
	}
	code, stdout, stderr := picket(t, nil, "extract", "-q", "--features", "count", write(t, "none.pcap", pcap(1)))
	if code != exitNothing || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "none.pcap holds no packets") {
		t.Errorf("no packets: exit %d\n%s%s", code, stdout, stderr)
	}
}

// TestCutCapture checks that a capture that ends inside a record is judged by
// what there is of it, with a warning.
func TestCutCapture(t *testing.T) {
	needLibrary(t)
	b := unpacked(t, "scan")
	code, stdout, stderr := picket(t, nil, "scan", write(t, "cut.pcap", b[:len(b)-7]))
	if code != exitFound || !strings.Contains(stderr, "warning") || !strings.Contains(stderr, "cut off") || !strings.Contains(stdout, "2,263 packets") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
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
	for _, want := range []string{"2,264 packets", "not decoded: 12 ARP", "10.77.1.66", "998 tcp ports", "ANOMALOUS:"} {
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
	if got, want := strings.Join(rows[0], ","), strings.Join(identity, ",")+",count,flag=S0,flag=REJ"; got != want {
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
}
