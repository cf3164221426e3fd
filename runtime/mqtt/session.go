package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// disconnectGrace is how long a DISCONNECT packet may take to leave.
const disconnectGrace = 250 * time.Millisecond

// errUnknownCode stands for CONNACK codes above 5, which paho v1.5.1 takes for
// success on a connection that it has closed.
var errUnknownCode = errors.New("CONNACK code unknown to MQTT 3.1.1")

// session is one connection. paho's own reconnecting and storing are off: after
// a reconnect it completes tokens of messages that were never delivered (v1.5.1,
// messageIds.claimID), so each connection gets a paho client of its own.
type session struct {
	target *target
	paho   paho.Client
	conn   *conn
	lost   chan error // receives one error when paho notices that the connection is gone

	// The rest is Client's, under its lock.
	opening   []*entry  // what comes before the queue: subscriptions and announcements
	flying    int       // entries sent and not completed
	last      *entry    // the one sent last
	completed time.Time // when the last one was acknowledged, or sent at QoS 0
	answered  bool      // something was acknowledged
	acked     bool      // something of the queue was
}

// connect opens one connection, CONNACK included. It returns soon after ctx ends.
func connect(ctx context.Context, t *target, writeTimeout time.Duration) (*session, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, t.connectTimeout)
	defer cancel()

	s := &session{target: t, lost: make(chan error, 1)}
	var stopped func() bool
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{t.url}
	o.ClientID = t.clientID
	o.Username, o.Password = t.username, t.password
	o.CleanSession = true
	o.SetProtocolVersion(4) // else paho answers every refusal with a second attempt as MQTT 3.1
	o.AutoReconnect = false
	o.ConnectRetry = false
	o.KeepAlive = int64(t.keepAlive / time.Second)
	o.PingTimeout = t.connectTimeout
	o.ConnectTimeout = t.connectTimeout
	o.WriteTimeout = writeTimeout
	o.Store = noStore{}
	if w := t.will; w != nil {
		o.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retained)
	}
	o.OnConnectionLost = func(_ paho.Client, err error) { s.lost <- err }
	o.CustomOpenConnectionFn = func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		c, err := open(limited, t)
		if err != nil {
			return nil, err
		}
		s.conn = &conn{Conn: c, writeTimeout: writeTimeout}
		stopped = context.AfterFunc(limited, func() { s.conn.Close() })
		return s.conn, nil
	}
	s.paho = paho.NewClient(o)

	token := s.paho.Connect()
	<-token.Done() // within ctx: open obeys it, and its end closes the connection
	err := token.Error()
	switch {
	case limited.Err() != nil && !errors.Is(err, limited.Err()):
		err = limited.Err()
	case err != nil:
	case !stopped():
		err = limited.Err()
	case s.conn.closed.Load():
		err = errUnknownCode
	}
	if err != nil {
		if s.conn != nil {
			s.hangUp(0)
		}
		return nil, explain(t, s.conn != nil, time.Since(began), err)
	}
	return s, nil
}

// send hands e to the connection. It may block for the write timeout.
func (s *session) send(e *entry) paho.Token {
	if e.kind != subscription {
		return s.paho.Publish(e.Topic, e.QoS, e.Retained, e.Payload)
	}
	filters := map[string]byte{}
	for filter, handler := range e.filters {
		filters[filter] = 0
		s.paho.AddRoute(filter, func(_ paho.Client, m paho.Message) { handler(m.Topic(), m.Payload(), m.Retained()) })
	}
	return s.paho.SubscribeMultiple(filters, nil)
}

// hangUp ends the connection: politely when it gets the time, else at once. It
// is safe on a connection already lost.
func (s *session) hangUp(grace time.Duration) {
	if grace == 0 {
		s.conn.Close()
	}
	s.paho.Disconnect(uint(grace / time.Millisecond))
	s.conn.Close()
}

// open makes the connection that MQTT is spoken on: TCP, TLS or WebSocket.
func open(ctx context.Context, t *target) (net.Conn, error) {
	if t.webSocket() {
		return openWebSocket(ctx, t)
	}
	c, err := dialTCP(ctx, "tcp", t.addr, t.onConnect)
	if err != nil || t.tls == nil {
		return c, err
	}
	tc := tls.Client(c, t.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, &tlsError{err}
	}
	return tc, nil
}

// dialTCP tells onConnect the ends of each connection that it attempts.
func dialTCP(ctx context.Context, network, addr string, onConnect func(local, remote netip.AddrPort)) (net.Conn, error) {
	var d net.Dialer
	var mu sync.Mutex // the dialer tries IPv6 and IPv4 at once
	told := map[netip.AddrPort]bool{}
	if onConnect != nil {
		d.Control = func(_, address string, raw syscall.RawConn) error {
			remote, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil // a proxy's name: told below
			}
			if local, ok := bindFirst(raw, remote); ok {
				mu.Lock()
				told[local] = true
				mu.Unlock()
				onConnect(local, remote)
			}
			return nil
		}
	}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil || onConnect == nil {
		return c, err
	}
	local, remote := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	mu.Lock()
	known := told[local]
	mu.Unlock()
	if !known {
		onConnect(local, remote)
	}
	return c, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// openWebSocket does not use paho's dialer, which knows neither a context nor ours.
func openWebSocket(ctx context.Context, t *target) (net.Conn, error) {
	d := websocket.Dialer{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: t.tls,
		Subprotocols:    []string{"mqtt"},
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialTCP(ctx, network, addr, t.onConnect)
		},
	}
	c, _, err := d.DialContext(ctx, t.url.String(), nil)
	if err != nil {
		return nil, err
	}
	return &webSocket{Conn: c}, nil
}

// webSocket makes a stream of a WebSocket's messages: MQTT packets do not keep to
// their bounds (MQTT 3.1.1, section 6). It is for one reader and one writer.
type webSocket struct {
	*websocket.Conn
	message io.Reader // what is left of the current one; nil: none
}

func (c *webSocket) Read(b []byte) (int, error) {
	for {
		if c.message == nil {
			_, r, err := c.NextReader()
			if err != nil {
				return 0, endOfStream(err)
			}
			c.message = r
		}
		n, err := c.message.Read(b)
		if err == io.EOF {
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, endOfStream(err)
		}
	}
}

// endOfStream makes the peer's closing of a WebSocket look like that of a socket.
func endOfStream(err error) error {
	if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) {
		return io.EOF
	}
	return err
}

func (c *webSocket) Write(b []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetDeadline is for net.Conn; conn never calls it.
func (c *webSocket) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// conn gives every write a deadline, keepalive probes too, to which paho gives
// none, and serialises writes with the setting of that deadline, which races in
// a WebSocket.
type conn struct {
	net.Conn
	writeTimeout time.Duration
	mu           sync.Mutex
	closed       atomic.Bool

	// Of reading: paho makes room for a whole packet, 256 MiB, when its length has come.
	header int    // octets of the fixed header that were read
	left   uint32 // of the packet, in its header: so far
}

// maxIncoming bounds packets of brokers, octets. The longest that is expected is the
// status of a Home Assistant.
const maxIncoming = 64 << 10

var errTooLong = errors.New("the broker sends a packet longer than any that was asked for")

// Read keeps packets from being longer than maxIncoming.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		if c.header == headerDone {
			skip := min(uint32(len(rest)), c.left)
			rest, c.left = rest[skip:], c.left-skip
			if c.left == 0 {
				c.header = 0
			}
			continue
		}
		o := rest[0]
		rest = rest[1:]
		if c.header++; c.header == 1 { // the packet's type; its length follows
			continue
		}
		c.left |= uint32(o&0x7f) << (7 * (c.header - 2))
		if c.left > maxIncoming || c.header > 5 {
			c.Close()
			return 0, errTooLong
		}
		if o&0x80 == 0 {
			if c.header = headerDone; c.left == 0 {
				c.header = 0
			}
		}
	}
	return n, err
}

const headerDone = -1

func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// SetDeadline sets the deadline of reads only; writes have their own.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline does nothing; Write sets its own.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// noStore keeps nothing: Client does.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
