package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
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
	// Dropped, when not nil, is called instead of Acked, and under the same rules, for
	// a message of QoS 1 that the client gives up: one at which brokers close the
	// connection while they take others.
	Dropped func(reason error)
}

// Client publishes over one connection at a time and opens the next when one is
// lost, after a growing, jittered delay. It is safe for concurrent use.
type Client struct {
	config  Config
	targets []*target
	filters map[string]func(topic string, payload []byte, retained bool)
	timing  timing
	log     *slog.Logger

	slots   chan struct{} // an element per accepted message, so that Publish blocks when full
	closing chan struct{} // closed by the first Close
	idle    chan struct{} // closed when closing and nothing is left to acknowledge
	stop    context.CancelFunc
	done    chan struct{} // closed when run has ended

	// run's own.
	turn  int             // index in targets of the one to connect to next
	told  map[string]bool // causes of trouble logged since all was well
	quiet bool            // nothing was logged since "connected"

	mu         sync.Mutex
	pending    []*entry        // accepted and not acknowledged, in order of Publish
	next       int             // index in pending of the first not yet given to session
	suspect    bool            // the last connection was closed by the broker before it acknowledged anything
	alone      bool            // one at a time, to find the message at which brokers close connections
	session    *session        // nil while there is no connection
	wake       chan struct{}   // tells the session's writer that there is something to do
	due        bool            // Birth's messages are to be published
	dueTopics  []string        // these of them; nil: all
	strikes    map[string]int  // connections that ended at an announcement, by topic
	refused    map[string]bool // topics of announcements given up
	reannounce *time.Timer     // runs after Home Assistant has come up
	down       error           // why there is no connection
	closed     bool
	stats      Stats
}

// Stats are counters since the start, but for the first three fields.
type Stats struct {
	Connected      bool
	Broker         string // host:port of the present or last connection or attempt
	Unacknowledged int    // messages of QoS 1 accepted and neither acknowledged nor dropped
	Attempts       uint64 // to connect
	Connections    uint64 // of these, that a broker accepted
	Acknowledged   uint64 // messages of Publish at QoS 1
	Dropped        uint64 // given up, see Message.Dropped
	Err            error  // why there is no connection; nil when Connected
}

// kind says where an entry comes from.
type kind uint8

const (
	queued       kind = iota // Publish; holds a slot
	farewell                 // Config.Farewell
	announcement             // Config.Birth
	subscription
)

// entry is a message on its way, or a subscription.
type entry struct {
	Message
	kind    kind
	filters map[string]func(topic string, payload []byte, retained bool) // of a subscription
	strikes int                                                          // connections that the broker closed at this one
}

// maxStrikes is how many connections in a row a broker must close at a message
// before others are tried without it.
const maxStrikes = 5

// subscribeKey stands for the subscription among topics, which are never empty.
const subscribeKey = ""

// timing is what tests shorten.
type timing struct {
	backoffMin, backoffMax time.Duration // between attempts to reconnect
	ack                    time.Duration // silence while acknowledgements are due, after which a connection is given up
	write                  time.Duration // for one packet to leave
	settle                 time.Duration // of quiet before a suspected message is tried again
	spread                 time.Duration // the longest wait before a newly started Home Assistant is answered
}

var defaultTiming = timing{
	backoffMin: 500 * time.Millisecond,
	backoffMax: time.Minute,
	ack:        30 * time.Second,
	write:      10 * time.Second,
	settle:     2 * time.Second,
	spread:     10 * time.Second,
}

// Dial tries each broker once and returns the errors when all fail; later failures
// are retried until Close. The end of ctx ends Dial, not the Client.
func Dial(ctx context.Context, c Config) (*Client, error) {
	targets, err := c.resolve(os.Getenv, os.Args)
	if err != nil {
		return nil, err
	}
	return dial(ctx, c, targets, defaultTiming)
}

// Start returns at once and connects in the background, for as long as it takes.
// Its error is Config's.
func Start(c Config) (*Client, error) {
	begin, err := Prepare(c)
	if err != nil {
		return nil, err
	}
	return begin(), nil
}

// Prepare reads the files that c names, for whoever gives up the rights to, and returns
// what Start does besides.
func Prepare(c Config) (begin func() *Client, err error) {
	targets, err := c.resolve(os.Getenv, os.Args)
	if err != nil {
		return nil, err
	}
	return func() *Client { return start(c, targets, defaultTiming) }, nil
}

func dial(ctx context.Context, config Config, targets []*target, tm timing) (*Client, error) {
	c := newClient(config, targets, tm)
	s, err := c.round(ctx)
	if err != nil {
		return nil, err
	}
	c.goRun(s)
	return c, nil
}

func start(config Config, targets []*target, tm timing) *Client {
	c := newClient(config, targets, tm)
	c.down = errNotYet
	c.goRun(nil)
	return c
}

func newClient(config Config, targets []*target, tm timing) *Client {
	c := &Client{
		config:  config,
		targets: targets,
		filters: maps.Clone(config.Subscribe),
		timing:  tm,
		log:     config.Logger,
		slots:   make(chan struct{}, config.inFlight()),
		closing: make(chan struct{}),
		idle:    make(chan struct{}),
		done:    make(chan struct{}),
		told:    map[string]bool{},
		strikes: map[string]int{},
		refused: map[string]bool{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.filters == nil {
		c.filters = map[string]func(string, []byte, bool){}
	}
	if h := config.HomeAssistant; h != nil {
		c.filters[h.statusTopic()] = c.homeAssistantIs
	}
	if w := config.Will; w != nil && config.Birth != nil {
		// The node of a cluster that has lost this client may say so after the next
		// node has heard its birth.
		c.filters[w.Topic] = func(_ string, payload []byte, retained bool) {
			if !retained && bytes.Equal(payload, w.Payload) {
				c.Announce(w.Topic)
			}
		}
	}
	for filter, handler := range c.filters {
		c.filters[filter] = func(topic string, payload []byte, retained bool) {
			select {
			case <-c.closing:
			default:
				handler(topic, payload, retained)
			}
		}
	}
	for _, t := range targets {
		if t.password != "" && t.tls == nil && !isLoopback(t.url.Hostname()) {
			c.log.Warn("the MQTT password crosses the network in clear text: write mqtts:// or wss://", "broker", t.addr)
		}
	}
	return c
}

func (c *Client) goRun(s *session) {
	running, stop := context.WithCancel(context.Background())
	c.stop = stop
	if s != nil {
		c.attach(s)
	}
	go c.run(running, s)
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
		if m.QoS == 0 && !c.Stats().Connected {
			return fmt.Errorf("publish to %s: %w", m.Topic, ErrOffline)
		}
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
	case m.QoS == 0 && (c.session == nil || c.alone):
		err = ErrOffline
	}
	if err != nil {
		<-c.slots
		return fmt.Errorf("publish to %s: %w", m.Topic, err)
	}
	c.pending = append(c.pending, &entry{Message: m})
	c.wakeWriter()
	return nil
}

// Announce publishes Birth's messages to the given topics again, all of them when
// none is given. Without a connection it does nothing: the next one carries them.
// It never blocks.
func (c *Client) Announce(topics ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.closed {
		return
	}
	switch {
	case len(topics) == 0:
		c.dueTopics = nil
	case !c.due:
		c.dueTopics = slices.Clone(topics)
	case c.dueTopics != nil:
		for _, t := range topics {
			if !slices.Contains(c.dueTopics, t) {
				c.dueTopics = append(c.dueTopics, t)
			}
		}
	}
	c.due = true
	c.wakeWriter()
}

// homeAssistantIs hears the birth and will of Home Assistant. It answers a birth
// after a while, as Home Assistant asks, since every device of the site does.
func (c *Client) homeAssistantIs(_ string, payload []byte, retained bool) {
	if retained || string(payload) != Online {
		return // what is retained was so before this connection's announcement
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reannounce != nil {
		c.reannounce.Stop()
	}
	c.reannounce = time.AfterFunc(rand.N(c.timing.spread), func() { c.Announce(c.config.HomeAssistant.configTopic(&c.config)) })
}

// wakeWriter needs mu.
func (c *Client) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
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

// Unacknowledged returns how many QoS 1 messages were accepted and neither
// acknowledged nor dropped.
func (c *Client) Unacknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unacknowledged()
}

func (c *Client) unacknowledged() int {
	n := 0
	for _, e := range c.pending {
		if e.QoS > 0 && e.kind == queued {
			n++
		}
	}
	return n
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Connected, s.Unacknowledged, s.Err = c.session != nil, c.unacknowledged(), c.down
	return s
}

// Close refuses new messages, waits until all accepted ones are acknowledged, then
// the farewell, or until ctx ends, and disconnects. It returns how many accepted
// ones were not acknowledged, with an error that says why when that is not 0. When ctx
// ends first, the connection does so without DISCONNECT, and the broker publishes the
// will. It is safe to call twice.
func (c *Client) Close(ctx context.Context) (unacknowledged int, err error) {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.closing)
		if c.reannounce != nil {
			c.reannounce.Stop()
		}
		for _, m := range c.config.Farewell {
			c.pending = append(c.pending, &entry{Message: m, kind: farewell})
		}
		c.wakeWriter()
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
	if c.session == nil {
		return c.down.Error()
	}
	return "connected to MQTT broker " + c.session.target.addr
}

// checkIdle needs mu.
func (c *Client) checkIdle() {
	if !c.closed || c.unacknowledged() > 0 || c.session != nil && len(c.pending) > 0 {
		return
	}
	select {
	case <-c.idle:
	default:
		close(c.idle)
	}
}

// backoff doubles delays from min to max, each shortened at random by up to a
// half, so that a fleet does not return to its broker in one instant.
type backoff struct{ min, max, next time.Duration }

func (b *backoff) delay() time.Duration {
	d := max(b.next, b.min)
	b.next = min(2*d, b.max)
	return d/2 + rand.N(d/2+1)
}
