package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// maxPayload leaves room for the topic in the largest packet of MQTT 3.1.1,
// section 2.2.3.
const maxPayload = 256<<20 - 1 - 5 - maxString

// Message is what one Publish sends.
type Message struct {
	Topic    string
	Payload  []byte // the client's until the message is acknowledged or the client closed
	QoS      byte   // 0 or 1
	Retained bool

	// Acked, when not nil, is called once, when the broker's PUBACK for the message
	// has come; never at QoS 0, and never after Close has returned. Calls come one
	// at a time, from a goroutine of the client: Acked must not block, nor call Publish
	// or Close.
	//
	// A PUBACK says that the broker has the message, not that somebody reads it:
	// MQTT 3.1.1 brokers also acknowledge what their access list then discards.
	Acked func()
}

// Client publishes over one connection at a time and opens the next when one is
// lost, after a growing, jittered delay. It is safe for concurrent use.
type Client struct {
	config Config
	target *target
	timing timing
	log    *slog.Logger

	slots   chan struct{} // an element per accepted message, so that Publish blocks when full
	closing chan struct{} // closed by the first Close
	idle    chan struct{} // closed when closing and nothing is left to acknowledge
	stop    context.CancelFunc
	done    chan struct{} // closed when run has ended

	mu      sync.Mutex
	pending []*Message    // accepted and not acknowledged, in order of Publish
	next    int           // index in pending of the first not yet given to session
	session *session      // nil while there is no connection
	wake    chan struct{} // tells the session's writer that pending has grown
	down    error         // why there is no connection
	closed  bool
}

// timing is what tests shorten.
type timing struct {
	backoffMin, backoffMax time.Duration // between attempts to reconnect
	ack                    time.Duration // silence while acknowledgements are due, after which a connection is given up
	write                  time.Duration // for one packet to leave
}

var defaultTiming = timing{
	backoffMin: 500 * time.Millisecond,
	backoffMax: 30 * time.Second,
	ack:        30 * time.Second,
	write:      10 * time.Second,
}

// Dial connects once and returns the error of that when it fails; later failures
// are retried until Close. The end of ctx ends Dial, not the Client.
func Dial(ctx context.Context, c Config) (*Client, error) {
	t, err := c.resolve(os.Getenv)
	if err != nil {
		return nil, err
	}
	return dial(ctx, c, t, defaultTiming)
}

func dial(ctx context.Context, config Config, t *target, tm timing) (*Client, error) {
	c := &Client{
		config:  config,
		target:  t,
		timing:  tm,
		log:     config.Logger,
		slots:   make(chan struct{}, t.inFlight),
		closing: make(chan struct{}),
		idle:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	s, err := connect(ctx, t, tm.write)
	if err != nil {
		return nil, err
	}
	c.log.Info("connected to MQTT broker", "broker", t.addr, "client", t.clientID)
	if t.password != "" && t.tls == nil && !isLoopback(t.url.Hostname()) {
		c.log.Warn("the MQTT password crosses the network in clear text: write mqtts:// or wss://", "broker", t.addr)
	}
	running, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.attach(s)
	go c.run(running, s)
	return c, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Topic returns "<prefix>/<gateway>/<kind>".
func (c *Client) Topic(kind string) string { return c.config.Topic(kind) }

// Publish accepts m for publishing. At QoS 1 it returns nil once the client has
// undertaken to send m, again after every lost connection, until it is
// acknowledged or the client closed. At QoS 0 m is sent at most once: ErrOffline
// without a connection, and lost with the connection it was queued for.
//
// While Config.InFlight messages are unacknowledged Publish blocks, until ctx
// ends. After an error m was not accepted.
func (c *Client) Publish(ctx context.Context, m Message) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("publish to %q: %w", m.Topic, err)
	}
	select {
	case <-c.closing:
		return fmt.Errorf("publish to %s: %w", m.Topic, ErrClosed)
	default:
	}
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-c.closing:
			return fmt.Errorf("publish to %s: %w", m.Topic, ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("publish to %s: %w (%s)", m.Topic, ctx.Err(), c.state())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	switch {
	case c.closed:
		err = ErrClosed
	case ctx.Err() != nil:
		err = ctx.Err()
	case m.QoS == 0 && c.session == nil:
		err = ErrOffline
	}
	if err != nil {
		<-c.slots
		return fmt.Errorf("publish to %s: %w", m.Topic, err)
	}
	c.pending = append(c.pending, &m)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

func (m *Message) check() error {
	switch {
	case m.Topic == "":
		return errors.New("no topic")
	case len(m.Topic) > maxString:
		return fmt.Errorf("topic of %d octets: at most %d", len(m.Topic), maxString)
	case strings.ContainsAny(m.Topic, "+#\x00"), !utf8.ValidString(m.Topic):
		return errors.New("topic must be UTF-8 without '+', '#' and NUL")
	case len(m.Payload) > maxPayload:
		return fmt.Errorf("payload of %d octets: at most %d", len(m.Payload), maxPayload)
	case m.QoS > 1:
		return fmt.Errorf("QoS %d: 0 and 1 are supported", m.QoS)
	}
	return nil
}

// Unacknowledged returns how many QoS 1 messages were accepted and not acknowledged.
func (c *Client) Unacknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacknowledged()
}

func (c *Client) unacknowledged() int {
	n := 0
	for _, m := range c.pending {
		if m.QoS > 0 {
			n++
		}
	}
	return n
}

// Close refuses new messages, waits until all accepted ones are acknowledged or
// ctx ends, and disconnects. It returns how many were not acknowledged, with
// an error that says why when that is not 0. It is safe to call twice.
func (c *Client) Close(ctx context.Context) (unacknowledged int, err error) {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.closing)
		c.checkIdle()
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
	case <-ctx.Done():
	case <-c.done: // by another Close
	}
	state := c.state()
	c.stop()
	<-c.done // soon: stop ends every wait of run

	if n := c.Unacknowledged(); n > 0 {
		cause := ctx.Err()
		if cause == nil {
			cause = ErrClosed
		}
		noun := "messages"
		if n == 1 {
			noun = "message"
		}
		return n, fmt.Errorf("%d MQTT %s not acknowledged: %s: %w", n, noun, state, cause)
	}
	return 0, nil
}

// state describes the connection, for errors.
func (c *Client) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil && c.down != nil {
		return c.down.Error()
	}
	return "connected to MQTT broker " + c.target.addr
}

// checkIdle needs mu.
func (c *Client) checkIdle() {
	if c.closed && len(c.pending) == 0 {
		select {
		case <-c.idle:
		default:
			close(c.idle)
		}
	}
}

// run owns the connection: it serves one until it is lost, then opens the next.
func (c *Client) run(ctx context.Context, s *session) {
	defer close(c.done)
	b := backoff{min: c.timing.backoffMin, max: c.timing.backoffMax}
	for {
		began := time.Now()
		acked, err := c.serve(ctx, s)
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("MQTT connection lost", "error", err, "unacknowledged", c.Unacknowledged())
		// A broker that accepts a connection and then drops it at the first message
		// must not be asked again at once, so being connected is not progress.
		if acked || time.Since(began) > b.max {
			b.next = 0
		}
		if s = c.reconnect(ctx, &b); s == nil {
			return
		}
		c.attach(s)
	}
}

// reconnect tries until it has a connection, or returns nil when ctx ends.
func (c *Client) reconnect(ctx context.Context, b *backoff) *session {
	began, attempts := time.Now(), 0
	for last := ""; ; {
		select {
		case <-time.After(b.delay()):
		case <-ctx.Done():
			return nil
		}
		attempts++
		s, err := connect(ctx, c.target, c.timing.write)
		if ctx.Err() != nil {
			if err == nil {
				s.hangUp(disconnectGrace)
			}
			return nil
		}
		if err == nil {
			c.log.Info("reconnected to MQTT broker", "broker", c.target.addr,
				"after", time.Since(began).Round(time.Millisecond), "attempts", attempts, "unacknowledged", c.Unacknowledged())
			return s
		}
		if err.Error() != last {
			last = err.Error()
			c.log.Warn("MQTT broker unreachable, retrying", "error", err)
		}
		c.mu.Lock()
		c.down = err
		c.mu.Unlock()
	}
}

func (c *Client) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.next, c.down = s, 0, nil
	c.wake = make(chan struct{}, 1)
	c.wake <- struct{}{} // all that is pending is sent again
}

// detach forgets the connection, and what was to be sent at most once with it.
func (c *Client) detach(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.next, c.down = nil, 0, why
	c.pending = slices.DeleteFunc(c.pending, func(m *Message) bool {
		if m.QoS == 0 {
			<-c.slots
		}
		return m.QoS == 0
	})
	c.checkIdle()
}

// sent is a message given to paho.
type sent struct {
	message *Message
	token   paho.Token
}

// serve publishes what is pending and takes the acknowledgements, in the order
// in which brokers must give them (MQTT 3.1.1, section 4.6), until the connection
// is lost or ctx ends. It reports whether any came.
func (c *Client) serve(ctx context.Context, s *session) (acked bool, err error) {
	flight := make(chan sent, c.target.inFlight+1) // never full: a message in it is pending
	stop, written := make(chan struct{}), make(chan struct{})
	c.mu.Lock()
	wake := c.wake
	c.mu.Unlock()
	go func() {
		defer close(written)
		c.write(s, flight, wake, stop)
	}()
	silence := time.NewTimer(c.timing.ack)
	defer silence.Stop()

	var head sent
	for err == nil {
		select {
		case head = <-flight:
			silence.Reset(c.timing.ack)
			select {
			case <-head.token.Done():
				if err = head.token.Error(); err == nil {
					acked = true
					c.complete(head.message)
					head = sent{}
				}
			case err = <-s.lost:
			case <-silence.C:
				err = errNoAck
			case <-ctx.Done():
				err = ctx.Err()
			}
		case err = <-s.lost:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}

	close(stop)
	if ctx.Err() != nil && c.Unacknowledged() == 0 {
		s.hangUp(disconnectGrace)
	} else {
		s.hangUp(0)
	}
	// The writer may hang in paho for the write timeout when the connection was
	// lost at that moment; what it still gives to paho comes to nothing.
	select {
	case <-written:
	case <-time.After(disconnectGrace):
	}
	// paho settles all tokens before it reports a loss, so that what was
	// acknowledged behind head is known.
	for {
		if m := head.message; m != nil {
			select {
			case <-head.token.Done():
				if head.token.Error() == nil {
					acked = true
					c.complete(m)
				}
			default:
			}
		}
		select {
		case head = <-flight:
			continue
		default:
		}
		break
	}
	err = lostError(c.target, err)
	c.detach(err)
	return acked, err
}

// lostError says why a connection ended.
func lostError(t *target, err error) error {
	cause := err.Error()
	if errors.Is(err, io.EOF) {
		cause = "closed by the broker"
	}
	return fmt.Errorf("%w: MQTT broker %s: %s", errLost, t.addr, cause)
}

// write gives pending messages to s, in order, until stop.
func (c *Client) write(s *session, flight chan<- sent, wake, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-wake:
		}
		for m := c.take(s); m != nil; m = c.take(s) {
			flight <- sent{m, s.publish(m)}
			select {
			case <-stop:
				return
			default:
			}
		}
	}
}

// take returns the next message for s, nil when there is none or s is over.
func (c *Client) take(s *session) *Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s || c.next == len(c.pending) {
		return nil
	}
	c.next++
	return c.pending[c.next-1]
}

// complete forgets m, which is acknowledged or, at QoS 0, sent.
func (c *Client) complete(m *Message) {
	if m.QoS > 0 && m.Acked != nil {
		m.Acked()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.pending, m); i >= 0 {
		c.pending = slices.Delete(c.pending, i, i+1)
		if i < c.next {
			c.next--
		}
		<-c.slots
	}
	c.checkIdle()
}

// backoff doubles delays from min to max, each shortened at random by up to a
// half, so that a fleet does not return to its broker in one instant.
type backoff struct{ min, max, next time.Duration }

func (b *backoff) delay() time.Duration {
	d := max(b.next, b.min)
	b.next = min(2*d, b.max)
	return d/2 + rand.N(d/2+1)
}
