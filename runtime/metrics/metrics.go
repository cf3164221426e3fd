// Package metrics answers a monitoring system over HTTP: /metrics in the text format
// of Prometheus, version 0.0.4, and /health in JSON.
package metrics

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Kind says how values of a metric go together.
type Kind uint8

const (
	Gauge   Kind = iota
	Counter      // only grows; its name ends in _total
)

func (k Kind) String() string {
	if k == Counter {
		return "counter"
	}
	return "gauge"
}

// Label tells one series of a metric from another.
type Label struct{ Name, Value string }

// Metric is one series. Those of the same Name have the same Help and Kind; their
// Labels differ. Names are not checked.
type Metric struct {
	Name, Help string
	Kind       Kind
	Labels     []Label
	Value      float64
}

const (
	maxConns  = 16
	maxHeader = 8 << 10 // octets
	readTime  = 5 * time.Second
	writeTime = 10 * time.Second
)

// Server answers until Close.
type Server struct {
	http http.Server
	ln   net.Listener
	done chan struct{}

	mu      sync.Mutex // one question at a time
	collect func() ([]Metric, []string)
}

// Address completes an address to listen on: "HOST:PORT", or, for loopback alone,
// ":PORT" or "PORT".
func Address(listen string) (string, error) {
	if !strings.Contains(listen, ":") {
		listen = ":" + listen
	}
	host, port, err := net.SplitHostPort(listen)
	if err == nil {
		if _, number := strconv.ParseUint(port, 10, 16); number != nil {
			err = fmt.Errorf("port %q: want a number to 65535", port)
		}
	}
	if _, ip := netip.ParseAddr(host); err == nil && ip != nil && host != "" && host != "localhost" {
		err = fmt.Errorf("host %q: want an address", host)
	}
	if err != nil {
		return "", fmt.Errorf("listen on %q: %w (HOST:PORT; without a host on loopback)", listen, err)
	}
	return net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port), nil
}

// Listen answers GET and HEAD of /metrics and /health at an address in the form of
// Address. Nobody is asked who they are, and nothing is encrypted: whoever reaches the
// address may read.
//
// Collect returns the metrics and the problems that there are. Metrics of this process
// are added, and picket_healthy. Health is 200 when there is no problem, else 503.
// Collect is called once for each request, one at a time, and must not wait.
func Listen(listen string, collect func() ([]Metric, []string)) (*Server, error) {
	addr, err := Address(listen)
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().Is4() {
		network = "tcp4" // else 0.0.0.0 would be IPv6's addresses too
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, err // names the address
	}
	s := &Server{ln: ln, done: make(chan struct{}), collect: collect}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /health", s.health)
	s.http = http.Server{
		Handler:        mux,
		ReadTimeout:    readTime,
		WriteTimeout:   writeTime,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	// Who asks every 15 s need not hold one of the few connections meanwhile.
	s.http.SetKeepAlivesEnabled(false)
	go func() {
		defer close(s.done)
		if err := s.http.Serve(netutil.LimitListener(ln, maxConns)); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("metrics and health are no longer served", "error", err)
		}
	}()
	return s, nil
}

// Addr is where it listens, with the port that 0 became.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close stops listening and waits for the answers under way; when ctx ends it cuts
// them off. It is safe twice.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

func (s *Server) ask() ([]Metric, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.collect()
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	collected, problems := s.ask()
	healthy := Metric{Name: "picket_healthy", Help: "Whether /health has no problems to tell."}
	if len(problems) == 0 {
		healthy.Value = 1
	}
	var b bytes.Buffer
	Write(&b, append(append(process(), collected...), healthy))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(b.Bytes())
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	_, problems := s.ask()
	problems = append([]string{}, problems...) // [] in JSON, not null
	body, err := json.Marshal(struct {
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
	}{len(problems) == 0, problems})
	if err != nil {
		panic(err) // words only
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if len(problems) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	w.Write(append(body, '\n'))
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeValue = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Write writes metrics in the text format of Prometheus, those of one name together.
// It sorts all by name.
func Write(w io.Writer, all []Metric) error {
	slices.SortStableFunc(all, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	var b []byte
	for i, m := range all {
		if i == 0 || all[i-1].Name != m.Name {
			b = fmt.Appendf(b, "# HELP %s %s\n# TYPE %s %s\n", m.Name, escapeHelp.Replace(m.Help), m.Name, m.Kind)
		}
		b = append(b, m.Name...)
		for k, l := range m.Labels {
			sep := byte(',')
			if k == 0 {
				sep = '{'
			}
			b = append(b, sep)
			b = fmt.Appendf(b, `%s="%s"`, l.Name, escapeValue.Replace(strings.ToValidUTF8(l.Value, "\uFFFD")))
		}
		if len(m.Labels) > 0 {
			b = append(b, '}')
		}
		b = append(b, ' ')
		b = strconv.AppendFloat(b, m.Value, 'g', -1, 64)
		b = append(b, '\n')
	}
	_, err := w.Write(b)
	return err
}
