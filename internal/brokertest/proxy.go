package brokertest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy forwards TCP connections to an address, and ends or holds them as a bad
// network does.
type Proxy struct {
	Addr     string // host:port to connect to instead
	Accepted atomic.Int64

	mu   sync.Mutex
	to   string
	open map[*proxied]bool
}

type proxied struct {
	client, server *net.TCPConn
	held           atomic.Bool
}

// StartProxy starts one that ends with the test.
func StartProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), to: to, open: map[*proxied]bool{}}
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.Accepted.Add(1)
			p.mu.Lock()
			to := p.to
			p.mu.Unlock()
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
				continue
			}
			pair := &proxied{client: c.(*net.TCPConn), server: s.(*net.TCPConn)}
			p.mu.Lock()
			p.open[pair] = true
			p.mu.Unlock()
			ended.Go(func() { pair.copy(pair.client, pair.server) })
			ended.Go(func() { pair.copy(pair.server, pair.client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.Cut()
		ended.Wait()
	})
	return p
}

func (p *proxied) copy(to, from *net.TCPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if p.held.Load() {
			if err != nil {
				return
			}
			continue // into nothing
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err == io.EOF {
			to.CloseWrite()
			return
		}
		if err != nil {
			to.SetLinger(0)
			to.Close()
			return
		}
	}
}

// Redirect makes further connections go to another address.
func (p *Proxy) Redirect(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

// Cut resets all present connections, on both sides.
func (p *Proxy) Cut() {
	p.each(func(c *proxied) {
		c.client.SetLinger(0)
		c.server.SetLinger(0)
		c.client.Close()
		c.server.Close()
	})
}

// Hold leaves the present connections open and forwards nothing more on them.
func (p *Proxy) Hold() { p.each(func(c *proxied) { c.held.Store(true) }) }

func (p *Proxy) each(do func(*proxied)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		do(c)
	}
}
