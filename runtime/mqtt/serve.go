package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// run owns the connection: it serves one until it is lost, then opens the next.
func (c *Client) run(ctx context.Context, s *session) {
	defer close(c.done)
	b := backoff{min: c.timing.backoffMin, max: c.timing.backoffMax}
	for {
		if s == nil {
			if s = c.reconnect(ctx, &b); s == nil {
				return
			}
			c.attach(s)
		}
		if !c.quiet {
			c.quiet = true
			c.log.Info("connected to MQTT broker", "broker", s.target.addr, "client", s.target.clientID, "unacknowledged", c.Unacknowledged())
		}
		began := time.Now()
		err := c.serve(ctx, s)
		if ctx.Err() != nil {
			return
		}
		// A broker that accepts a connection and then drops it at the first message
		// must not be asked again at once, so being connected is not progress.
		if s.acked || time.Since(began) > b.max {
			b.next = 0
			clear(c.told)
		}
		c.quiet = !c.warn("MQTT connection lost", err) && c.quiet
		c.turn = (c.turn + 1) % len(c.targets)
		s = nil
		if !sleep(ctx, b.delay()) {
			return
		}
	}
}

// reconnect tries until it has a connection, or returns nil when ctx ends.
func (c *Client) reconnect(ctx context.Context, b *backoff) *session {
	for {
		s, err := c.round(ctx)
		if ctx.Err() != nil {
			if err == nil {
				s.hangUp(disconnectGrace)
			}
			return nil
		}
		if err == nil {
			return s
		}
		for _, e := range err {
			c.quiet = !c.warn("MQTT broker unreachable, retrying", e) && c.quiet
		}
		c.mu.Lock()
		c.down = err
		c.mu.Unlock()
		if !sleep(ctx, b.delay()) {
			return nil
		}
	}
}

// round tries every broker once, from the one whose turn it is.
func (c *Client) round(ctx context.Context) (*session, attemptErrors) {
	var failures attemptErrors
	for range c.targets {
		t := c.targets[c.turn]
		c.mu.Lock()
		c.stats.Attempts++
		c.stats.Broker = t.addr
		c.mu.Unlock()
		s, err := connect(ctx, t, c.timing.write)
		if err == nil {
			return s, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
		c.turn = (c.turn + 1) % len(c.targets)
	}
	return nil, failures
}

// warn logs each cause once until all was well again, and reports whether it did.
func (c *Client) warn(what string, err error) bool {
	cause := causeOf(err)
	if c.told[cause] {
		return false
	}
	if len(c.told) > 100 { // no cause is known to have so many forms
		clear(c.told)
	}
	c.told[cause] = true
	c.log.Warn(what, "error", err, "unacknowledged", c.Unacknowledged())
	return true
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.next, c.down = s, 0, nil
	c.stats.Connections++
	c.due, c.dueTopics = true, nil
	if len(c.filters) > 0 && !c.refused[subscribeKey] {
		s.opening = []*entry{{kind: subscription, filters: c.filters, strikes: c.strikes[subscribeKey]}}
	}
	c.wake = make(chan struct{}, 1)
	c.wake <- struct{}{} // all that is pending is sent again
}

// detach forgets the connection, and what was to be sent at most once with it.
// byPeer: the broker closed it, rather than the network or this client.
func (c *Client) detach(s *session, why error, byPeer bool) {
	c.mu.Lock()
	c.session, c.next, c.down = nil, 0, why
	var given *entry
	switch e := s.last; {
	case s.flying == 0: // another broker may come, or the same with other settings
		c.suspect, c.alone = false, false
		clear(c.strikes)
		for _, e := range c.pending {
			e.strikes = 0
		}
	case !c.alone && byPeer && !s.acked:
		c.alone = c.suspect
		c.suspect = true
	case !c.alone:
		c.suspect = false
	default:
		given = c.judge(e, byPeer)
	}
	c.pending = slices.DeleteFunc(c.pending, func(e *entry) bool {
		if e.QoS == 0 && e.kind == queued || e == given {
			<-c.slots
			return true
		}
		return false
	})
	c.checkIdle()
	c.mu.Unlock()

	if given == nil || given.kind != queued {
		return
	}
	if given.Dropped != nil {
		given.Dropped(fmt.Errorf("publish %d octets to %s: %w", len(given.Payload), given.Topic, errPoison))
	}
}

// A message at which a broker closes the connection each time (too large for it, or
// to a topic it forbids) must not hold up all others for ever. So after two connections
// that the broker closed before it acknowledged anything of the queue, entries go
// alone, each after the one before it was acknowledged. One at which maxStrikes
// connections in a row were closed is set aside and the next tried. A set-aside
// one is sent again after another was acknowledged on the same connection: if
// the broker closes that one too, it is given up. As long as the broker acknowledges
// nothing, nothing is given up; nor does a connection count that ended otherwise, and
// one that ends while nothing is under way begins all anew.

// judge notes that a connection ended while e alone was under way, and returns e
// when it is to be given up. It needs mu.
func (c *Client) judge(e *entry, byPeer bool) (given *entry) {
	if !byPeer {
		e.strikes = 0
	} else {
		e.strikes++
	}
	if e.kind != queued && e.kind != farewell {
		c.strikes[e.Topic] = e.strikes
	}
	log := c.log.With("topic", e.Topic, "octets", len(e.Payload))
	if e.kind == subscription {
		log = c.log.With("subscription", true)
	}
	switch {
	case e.strikes == maxStrikes:
		log.Warn("the MQTT broker closes the connection at this message each time, trying others first", "times", maxStrikes)
	case e.strikes > maxStrikes && e.kind == queued:
		c.stats.Dropped++
		log.Error("MQTT message given up: the broker closes the connection at it, but takes others: raise its limit of sizes, or allow the topic")
		return e
	case e.strikes > maxStrikes && e.kind != farewell:
		c.refused[e.Topic] = true
		log.Error("MQTT announcement given up until a restart: the broker closes the connection at it: raise its limit of sizes, or allow the topic")
	}
	return nil
}

func (e *entry) setAside() bool { return e.strikes >= maxStrikes }

// single returns what to send next while entries go alone. It needs mu.
func (c *Client) single(s *session) *entry {
	// A set-aside entry goes out on a quiet connection only, so that what ends one
	// at random (a flapping link, a reset on the way) is hardly taken for the broker's answer.
	wait := c.timing.settle - time.Since(s.completed)
	if wait > 0 && s.answered {
		time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.wakeWriter()
		})
	}
	for _, aside := range []bool{false, true} {
		i := slices.IndexFunc(s.opening, func(e *entry) bool { return e.setAside() == aside })
		if i >= 0 && (!aside || s.answered && wait <= 0) {
			e := s.opening[i]
			s.opening = slices.Delete(s.opening, i, i+1)
			return e
		}
	}
	fresh := slices.IndexFunc(c.pending, func(e *entry) bool { return !e.setAside() })
	aside := slices.IndexFunc(c.pending, (*entry).setAside)
	switch {
	case aside >= 0 && s.acked && wait > 0:
	case aside >= 0 && s.acked:
		return c.pending[aside]
	case fresh >= 0 && (c.pending[fresh].kind == queued || aside < 0):
		return c.pending[fresh]
	}
	return nil
}

// sent is an entry given to paho.
type sent struct {
	entry *entry
	token paho.Token
}

// serve publishes what is pending and takes the acknowledgements, in the order
// in which brokers must give them (MQTT 3.1.1, section 4.6), until the connection
// is lost or ctx ends.
func (c *Client) serve(ctx context.Context, s *session) (err error) {
	flight := make(chan sent, c.config.inFlight()+16)
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
					c.complete(s, head)
					head = sent{}
					continue
				}
				select { // paho fails tokens before it tells the cause
				case err = <-s.lost:
				case <-time.After(disconnectGrace):
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
	if ctx.Err() != nil && c.finished() {
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
		if head.entry != nil {
			select {
			case <-head.token.Done():
				if head.token.Error() == nil {
					c.complete(s, head)
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
	lost := lostError(s.target, err)
	if ctx.Err() != nil {
		lost = ErrClosed
	}
	c.detach(s, lost, closedByPeer(err))
	return lost
}

// finished reports whether Close has nothing left to send.
func (c *Client) finished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed && len(c.pending) == 0
}

// lostError says why a connection ended.
func lostError(t *target, err error) error {
	cause := plain(err)
	if errors.Is(err, io.EOF) {
		cause = "closed by the broker"
	}
	return fmt.Errorf("%w: MQTT broker %s: %s", errLost, t.addr, cause)
}

// write gives s what is to be sent, in order, until stop.
func (c *Client) write(s *session, flight chan<- sent, wake, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-wake:
		}
		for {
			e, announce := c.take(s)
			if announce != nil {
				announce()
				continue
			}
			if e == nil {
				break
			}
			select {
			case flight <- sent{e, s.send(e)}:
			case <-stop:
				return
			}
		}
	}
}

// take returns the next entry for s, nil when there is none now or s is over; or
// what to call first.
func (c *Client) take(s *session) (e *entry, announce func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != s {
		return nil, nil
	}
	if c.due {
		topics := c.dueTopics
		c.due = false
		return nil, func() { c.announce(s, topics) }
	}
	if c.alone && s.flying == 0 && s.acked && !slices.ContainsFunc(c.pending, (*entry).setAside) && len(s.opening) == 0 {
		c.alone, c.suspect = false, false
	}
	switch {
	case c.alone && s.flying > 0:
	case c.alone:
		e = c.single(s)
	case len(s.opening) > 0:
		e, s.opening = s.opening[0], s.opening[1:]
	case c.next < len(c.pending):
		e = c.pending[c.next]
		c.next++
	}
	if e != nil {
		s.flying++
		s.last = e
	}
	return e, nil
}

// announce puts Birth's messages to the given topics, nil: all, before the queue.
func (c *Client) announce(s *session, topics []string) {
	var messages []Message
	if c.config.Birth != nil {
		messages = c.config.Birth()
	}
	if h := c.config.HomeAssistant; h != nil {
		messages = append(messages, h.message(&c.config))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		if c.refused[m.Topic] || topics != nil && !slices.Contains(topics, m.Topic) {
			continue
		}
		if err := m.check(); err != nil {
			c.refused[m.Topic] = true
			c.log.Error("MQTT announcement left out", "topic", m.Topic, "error", err)
			continue
		}
		s.opening = append(s.opening, &entry{Message: m, kind: announcement, strikes: c.strikes[m.Topic]})
	}
}

// complete forgets an entry that is acknowledged or, at QoS 0, sent.
func (c *Client) complete(s *session, done sent) {
	e := done.entry
	if t, ok := done.token.(*paho.SubscribeToken); ok {
		for filter, code := range t.Result() {
			if code > 2 { // 0x80, MQTT 3.1.1, section 3.9.3
				c.warn("MQTT subscription refused", fmt.Errorf("subscribe to %s: refused by the broker: let its access list allow it", filter))
			}
		}
	}
	if e.QoS > 0 && e.Acked != nil {
		e.Acked()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.flying--
	s.completed = time.Now()
	if e.QoS > 0 || e.kind == subscription {
		s.answered = true
		delete(c.strikes, e.Topic)
	}
	if i := slices.Index(c.pending, e); i >= 0 {
		c.pending = slices.Delete(c.pending, i, i+1)
		if i < c.next {
			c.next--
		}
		if e.kind == queued {
			<-c.slots
		}
	}
	if e.kind == queued && e.QoS > 0 {
		s.acked = true
		c.stats.Acknowledged++
	}
	if c.alone {
		c.wakeWriter()
	}
	c.checkIdle()
}
