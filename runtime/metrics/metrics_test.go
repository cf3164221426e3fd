package metrics

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	dto "github.com/prometheus/client_model/go"
)

// patience bounds every wait, on a machine that is busy.
const patience = 20 * time.Second

func none() []string { return nil }

func listen(t *testing.T, collect func() []Metric, problems func() []string) *Server {
	t.Helper()
	s, err := Listen("0", func() ([]Metric, []string) { return collect(), problems() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func request(t *testing.T, s *Server, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Timeout: patience}
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

// parse reads the text as Prometheus does, and as its linter likes it.
func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	var p expfmt.TextParser
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	complaints, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range complaints {
		t.Errorf("%s: %s", c.Metric, c.Text)
	}
	return families
}

func TestWrite(t *testing.T) {
	odd := "a \\ back, a \"quote\",\na line, and µ"
	in := []Metric{
		{Name: "picket_packets_total", Help: "Packets read, \\ and\nmore.", Kind: Counter, Labels: []Label{{"interface", odd}, {"worker", "1"}}, Value: 1 << 53},
		{Name: "picket_queue_bytes", Help: "Queue.", Value: 0.1},
		{Name: "picket_packets_total", Help: "Packets read, \\ and\nmore.", Kind: Counter, Labels: []Label{{"interface", "bro\xffken"}, {"worker", "2"}}, Value: 7},
		{Name: "picket_least", Help: "Least.", Value: math.Inf(-1)},
		{Name: "picket_most", Help: "Most.", Value: math.Inf(1)},
		{Name: "picket_nothing", Help: "Not a number.", Value: math.NaN()},
	}
	var b bytes.Buffer
	if err := Write(&b, slices.Clone(in)); err != nil {
		t.Fatal(err)
	}
	got := parse(t, b.String())
	if len(got) != 5 {
		t.Errorf("%d metrics, want 5\n%s", len(got), b.String())
	}
	at := map[string]int{}
	for _, m := range in {
		f := got[m.Name]
		if f == nil || f.GetHelp() != m.Help || strings.ToLower(f.GetType().String()) != m.Kind.String() {
			t.Errorf("%s: read as %v", m.Name, f)
			continue
		}
		series := f.Metric[at[m.Name]]
		at[m.Name]++
		value := series.GetGauge().GetValue()
		if m.Kind == Counter {
			value = series.GetCounter().GetValue()
		}
		if value != m.Value && !(math.IsNaN(value) && math.IsNaN(m.Value)) {
			t.Errorf("%s: %v, want %v", m.Name, value, m.Value)
		}
		for i, l := range m.Labels {
			if p := series.Label[i]; p.GetName() != l.Name || p.GetValue() != strings.ToValidUTF8(l.Value, "\uFFFD") {
				t.Errorf("%s: label %v, want %v", m.Name, p, l)
			}
		}
	}
}

func TestServer(t *testing.T) {
	var trouble atomic.Bool
	s := listen(t, func() []Metric {
		return []Metric{{Name: "picket_rows_total", Help: "Rows.", Kind: Counter, Value: 12}}
	}, func() []string {
		if trouble.Load() {
			return []string{"not connected to a broker", "disk <full>"}
		}
		return nil
	})
	health := func() (int, string, float64) {
		r, body := request(t, s, "GET", "/health")
		if typ := r.Header.Get("Content-Type"); typ != "application/json" {
			t.Errorf("health is %s", typ)
		}
		_, text := request(t, s, "GET", "/metrics")
		return r.StatusCode, body, parse(t, text)["picket_healthy"].Metric[0].GetGauge().GetValue()
	}
	if code, body, up := health(); code != 200 || body != `{"ok":true,"problems":[]}`+"\n" || up != 1 {
		t.Errorf("%d %s %v", code, body, up)
	}
	trouble.Store(true)
	code, body, up := health()
	var h struct {
		OK       bool
		Problems []string
	}
	if err := json.Unmarshal([]byte(body), &h); err != nil || code != 503 || h.OK || up != 0 ||
		!slices.Equal(h.Problems, []string{"not connected to a broker", "disk <full>"}) {
		t.Errorf("%d %s %v", code, body, up)
	}

	r, text := request(t, s, "GET", "/metrics")
	if typ := r.Header.Get("Content-Type"); r.StatusCode != 200 || typ != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("%d %s", r.StatusCode, typ)
	}
	all := parse(t, text)
	if v := all["picket_rows_total"].Metric[0].GetCounter().GetValue(); v != 12 {
		t.Errorf("picket_rows_total %v, want 12", v)
	}
	if v := all["go_goroutines"].Metric[0].GetGauge().GetValue(); v < 2 {
		t.Errorf("%v goroutines", v)
	}
	if r, body := request(t, s, "HEAD", "/metrics"); r.StatusCode != 200 || body != "" {
		t.Errorf("HEAD: %d %q", r.StatusCode, body)
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/metrics", 405}, {"DELETE", "/health", 405}, {"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"GET", "/metrics/", 404},
	} {
		if r, _ := request(t, s, c.method, c.path); r.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, r.StatusCode, c.want)
		}
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"9090", "127.0.0.1:9090"},
		{":9090", "127.0.0.1:9090"},
		{"0.0.0.0:9090", "0.0.0.0:9090"},
		{"[::]:9090", "[::]:9090"},
		{"localhost:0", "localhost:0"},
		{"[fe80::1%eth0]:80", "[fe80::1%eth0]:80"},
		{"", ""}, {"localhost", ""}, {"::1", ""}, {"127.0.0.1", ""}, {":http", ""}, {"1:65536", ""}, {"1:-1", ""},
	} {
		got, err := Address(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "HOST:PORT") {
			t.Errorf("%q: %v names no way out", c.in, err)
		}
	}
}

func TestLoopbackUnlessTold(t *testing.T) {
	for _, c := range []struct {
		listen string
		want   netip.Addr
	}{
		{"0", netip.MustParseAddr("127.0.0.1")},
		{":0", netip.MustParseAddr("127.0.0.1")},
		{"0.0.0.0:0", netip.IPv4Unspecified()},
	} {
		s, err := Listen(c.listen, func() ([]Metric, []string) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Addr().(*net.TCPAddr).AddrPort().Addr(); got != c.want {
			t.Errorf("%s: listens on %v, want %v", c.listen, got, c.want)
		}
		if _, err := Listen(s.Addr().String(), nil); err == nil || !strings.Contains(err.Error(), s.Addr().String()) {
			t.Errorf("a port in use: %v", err)
		}
		for range 2 {
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
			c.Close()
			t.Error("it listens after Close")
		}
	}
}

// TestOneAtATime asks from many sides, one of which panics.
func TestOneAtATime(t *testing.T) {
	var inside, calls atomic.Int32
	enter := func() {
		if inside.Add(1) != 1 {
			t.Error("asked while asked")
		}
		runtime.Gosched()
		inside.Add(-1)
		if calls.Add(1) == 3 {
			panic("the third")
		}
	}
	s := listen(t, func() []Metric { enter(); return nil }, func() []string { enter(); return nil })
	var wg sync.WaitGroup
	var failed atomic.Int32
	for i := range 2 * maxConns {
		wg.Go(func() {
			c := http.Client{Timeout: patience}
			r, err := c.Get("http://" + s.Addr().String() + []string{"/health", "/metrics"}[i%2])
			if err != nil {
				failed.Add(1)
				return
			}
			r.Body.Close()
		})
	}
	wg.Wait()
	if failed.Load() != 1 {
		t.Errorf("%d requests failed, want the one that panicked", failed.Load())
	}
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestBounds(t *testing.T) {
	s := listen(t, func() []Metric { return nil }, none)

	c := dial(t, s)
	fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", maxHeader+4096))
	if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header too long: %v, %v", r, err)
	}
	c.Close()

	// Every connection that may be is taken.
	var held []net.Conn
	for range maxConns {
		c := dial(t, s)
		fmt.Fprint(c, "GET /hea")
		held = append(held, c)
	}
	more := dial(t, s)
	fmt.Fprint(more, "GET /health HTTP/1.0\r\n\r\n")
	more.SetReadDeadline(time.Now().Add(readTime / 10))
	if n, err := more.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one connection more: %d octets, %v; want no answer yet", n, err)
	}
	held[0].Close()
	more.SetReadDeadline(time.Now().Add(patience))
	if r, err := http.ReadResponse(bufio.NewReader(more), nil); err != nil || r.StatusCode != 200 {
		t.Errorf("when one is free: %v, %v", r, err)
	}
	if testing.Short() {
		return
	}
	// Who does not finish a request is left.
	if n, err := io.Copy(io.Discard, held[1]); err != nil {
		t.Errorf("a slow request: %d octets, %v; want the end", n, err)
	}
}

// TestCloseCutsOff has an answer under way that does not end.
func TestCloseCutsOff(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	s, err := Listen("0", func() ([]Metric, []string) { close(asked); <-release; return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	fmt.Fprint(c, "GET /health HTTP/1.0\r\n\r\n")
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v, want %v", err, context.Canceled)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d octets from a closed server", n)
	}
	close(release)
}
