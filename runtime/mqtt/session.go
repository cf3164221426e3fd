package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
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
	paho paho.Client
	conn *conn
	lost chan error // receives one error when paho notices that the connection is gone
}

// connect opens one connection, CONNACK included. It returns soon after ctx ends.
func connect(ctx context.Context, t *target, writeTimeout time.Duration) (*session, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, t.connectTimeout)
	defer cancel()

	s := &session{lost: make(chan error, 1)}
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

// publish hands m to the connection. It may block for the write timeout.
func (s *session) publish(m *Message) paho.Token {
	return s.paho.Publish(m.Topic, m.QoS, m.Retained, m.Payload)
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
	c, err := new(net.Dialer).DialContext(ctx, "tcp", t.addr)
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

// openWebSocket lets go of paho's dialer, which knows no context, when ctx ends;
// the dialer itself gives up at the connect timeout.
func openWebSocket(ctx context.Context, t *target) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := paho.NewWebsocket(t.url.String(), t.tls, t.connectTimeout, nil, nil)
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		return r.c, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.c.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// conn gives every write a deadline, keepalive probes too, to which paho gives
// none, and serialises writes with the setting of that deadline, which races in
// paho's WebSocket connection.
type conn struct {
	net.Conn
	writeTimeout time.Duration
	mu           sync.Mutex
	closed       atomic.Bool
}

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
