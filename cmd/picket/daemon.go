package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/metrics"
	"github.com/picket-ids/picket/runtime/mqtt"
	"github.com/picket-ids/picket/runtime/sdnotify"
	"github.com/picket-ids/picket/runtime/spool"
)

const (
	// tick is how often the packet clock moves when nothing else moves it, and how
	// long a row waits for others to be scored with.
	tick = 50 * time.Millisecond
	// maxWaiting events wait in memory for the disk.
	maxWaiting = 1024
	// maxOwn conversations with brokers, the last ones, are left out of the capture: the
	// kernel bounds the memory of its filter.
	maxOwn = 4
	// slow is how long a worker may take to answer before it counts as stuck.
	slow = 5 * time.Second
	// farewell is how long the end may take while the broker acknowledges.
	farewell = 5 * time.Second
)

// daemon is what runs behind run: workers that detect, one goroutine that puts
// their events in the queue, and one that publishes what is in it.
type daemon struct {
	flags   *runFlags
	log     *slog.Logger
	std     stdio
	started time.Time
	clock   *clock

	workers  []*worker
	events   chan *detect.Event // from the workers, which never wait for it
	queue    *spool.Queue       // nil without a broker
	client   *mqtt.Client       // likewise
	server   *metrics.Server    // nil without --listen
	watchdog *sdnotify.Watchdog

	ctx     context.Context // ends with the daemon
	cancel  context.CancelFunc
	wg      sync.WaitGroup // all goroutines but the workers
	ending  chan struct{}  // closed when the end begins
	broken  chan struct{}  // closed by fail
	failure atomic.Pointer[error]

	info      atomic.Pointer[[]byte]
	published atomic.Int64  // incidents that are open and told of
	lost      atomic.Uint64 // events that found no room in memory
	lostAt    atomic.Int64  // s, when the last was
	lostTold  atomic.Int64  // s, when that was logged
	unqueued  atomic.Uint64 // published past a queue that could not be written
	refused   atomic.Uint64 // given up, as no broker takes them
}

// worker is a Live and the Detector that reads it.
type worker struct {
	*capture.Live
	detector    *detect.Detector
	models      []detect.Model
	closeModels func()
	asked       atomic.Bool
	ask         chan func() // done between two frames
	ended       chan struct{}
}

// Next implements capture.Source. Whatever touches the Detector from outside is done
// here, between two frames.
func (w *worker) Next(f *capture.Frame) error {
	if w.asked.Load() {
		w.asked.Store(false)
		w.answer()
	}
	return w.Live.Next(f)
}

func (w *worker) answer() {
	for {
		select {
		case fn := <-w.ask:
			fn()
		default:
			return
		}
	}
}

// post has fn done in w's goroutine, or in its place when that has ended.
func (w *worker) post(fn func()) {
	select {
	case w.ask <- fn:
		w.asked.Store(true)
		select {
		case <-w.ended:
			w.answer()
		default:
		}
	case <-w.ended:
		fn()
	}
}

// end says that w's goroutine is done. What was posted before is answered here, later
// questions by who asks: each is, whatever the order.
func (w *worker) end() {
	close(w.ended)
	w.answer()
}

// do posts fn and waits for it, until ctx ends: false, and what fn would have set must
// not be looked at.
func (w *worker) do(ctx context.Context, fn func()) bool {
	done := make(chan struct{})
	go w.post(func() {
		fn()
		close(done)
	})
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// start sets the goroutines going.
func (d *daemon) start() {
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.ending, d.broken = make(chan struct{}), make(chan struct{})
	for _, w := range d.workers {
		go d.work(w)
	}
	d.wg.Go(d.keep)
	d.wg.Go(d.lookout)
	if d.client != nil {
		d.wg.Go(d.publish)
		if d.flags.healthEvery > 0 {
			d.wg.Go(d.report)
		}
	}
}

// work detects until the capture is closed.
func (d *daemon) work(w *worker) {
	defer w.end()
	err := w.detector.Run(context.Background(), w)
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	// Both: what a model cannot score is said by the first.
	d.fail(errors.Join(err, w.detector.Finish()))
}

// fail ends the daemon with the first error that it gets.
func (d *daemon) fail(err error) {
	if err != nil && d.failure.CompareAndSwap(nil, &err) {
		close(d.broken)
	}
}

// failed returns the error that ended it.
func (d *daemon) failed() error {
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// pause runs fn while no worker detects. Packets wait in the rings.
func (d *daemon) pause(fn func()) {
	var still sync.WaitGroup
	release := make(chan struct{})
	defer close(release)
	for _, w := range d.workers {
		still.Add(1)
		w.post(func() {
			still.Done()
			select {
			case <-w.ended:
			case <-release:
			}
		})
	}
	still.Wait()
	fn()
}

// alive reports whether all workers answer.
func (d *daemon) alive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	for _, w := range d.workers {
		if !w.do(ctx, func() {}) {
			return false
		}
	}
	return true
}

// lookout logs what becomes of the interfaces, and once a minute that packets are lost.
func (d *daemon) lookout() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	away := map[string]string{}
	var told time.Time
	var dropped, known uint64
	for {
		dropped = 0
		for n, w := range d.workers {
			for _, s := range w.Live.Stats() {
				dropped += s.Dropped
				why := ""
				if s.Away != nil {
					why = s.Away.Error()
				}
				if n > 0 || away[s.Name] == why {
					continue
				}
				if away[s.Name] = why; why != "" {
					d.log.Warn("interface is away", "interface", s.Name, "error", why)
				} else {
					d.log.Info("interface is back", "interface", s.Name)
				}
			}
		}
		if dropped > known && time.Since(told) > time.Minute {
			d.log.Warn("packets dropped by the kernel: more workers, a filter or a larger ring", "packets", dropped-known, "total", dropped)
			known, told = dropped, time.Now()
		}
		select {
		case <-t.C:
		case <-d.ending:
			return
		}
	}
}

// emit takes an event of a worker, which must not wait.
func (d *daemon) emit(e *detect.Event) {
	if now := time.Now().UTC(); e.Timestamp.After(now) {
		e.Timestamp = now // what ends with the daemon, before its time
	}
	e.Picket.Clock = d.clock.word()
	var open int64
	switch e.Picket.Phase {
	case detect.PhaseNew:
		open = d.published.Add(1)
	case detect.PhaseEnd:
		open = d.published.Add(-1)
	}
	select {
	case d.events <- e:
	default:
		d.lose("the queue on disk does not keep up", e, nil)
	}
	if d.client != nil && (e.Picket.Phase == detect.PhaseNew && open == 1 || e.Picket.Phase == detect.PhaseEnd && open == 0) {
		d.client.Announce(d.client.Topic(mqtt.TopicProblem))
	}
}

// keep puts events in the queue, in their order, until the workers have ended.
func (d *daemon) keep() {
	lines, printed := make(chan []byte, maxWaiting), make(chan struct{})
	go func() {
		defer close(printed)
		d.print(lines)
	}()
	defer func() {
		close(lines)
		select {
		case <-printed:
		case <-time.After(farewell): // who reads does not
		}
	}()
	for event := range d.events {
		if d.queue != nil {
			d.enqueue(event)
		}
		if !d.flags.json {
			continue
		}
		line, err := json.Marshal(event)
		if err != nil {
			continue // the queue has said so
		}
		select {
		case lines <- append(line, '\n'):
		default: // who reads there is too slow; without a broker it is lost
			if d.queue == nil {
				d.lose("standard output does not keep up", event, nil)
			}
		}
	}
}

// print writes lines to standard output, on which nothing else waits.
func (d *daemon) print(lines <-chan []byte) {
	for line := range lines {
		if _, err := d.std.out.Write(line); err != nil {
			err = fmt.Errorf("write events to standard output: %w", err)
			d.log.Error("no more events go there", "error", err)
			if d.queue == nil {
				d.fail(err)
			}
			for range lines {
			}
			return
		}
	}
}

// enqueue adds an event to the queue. While that cannot be written, it is published at
// once, without a number, and kept in memory while there is no broker either.
func (d *daemon) enqueue(event *detect.Event) {
	for {
		_, err := d.queue.Append(func(seq uint64) ([]byte, error) {
			event.Event.Sequence = seq
			return json.Marshal(event)
		})
		if err == nil {
			return
		}
		event.Event.Sequence = 0
		payload, broken := json.Marshal(event)
		if broken != nil || errors.Is(err, spool.ErrTooLarge) {
			d.lose("it has no place in the queue", event, errors.Join(broken, err))
			return
		}
		if d.client.Stats().Connected {
			ctx, cancel := context.WithTimeout(d.ctx, time.Second)
			broken = d.client.Publish(ctx, mqtt.Message{Topic: d.client.Topic(mqtt.TopicEvent), Payload: payload, QoS: 1,
				Dropped: func(error) { d.refused.Add(1) }})
			cancel()
			if broken == nil {
				d.unqueued.Add(1)
				return
			}
		}
		if !d.rest() {
			d.lose("neither disk nor broker takes it", event, err)
			return
		}
	}
}

// rest waits before another try, and reports whether there is to be one.
func (d *daemon) rest() bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-d.ctx.Done():
		return false
	}
}

// lose counts an event that is lost, and says so once a minute at most.
func (d *daemon) lose(why string, event *detect.Event, err error) {
	n := d.lost.Add(1)
	now, last := time.Now().Unix(), d.lostTold.Load()
	d.lostAt.Store(now)
	if now-last >= 60 && d.lostTold.CompareAndSwap(last, now) {
		d.log.Error("event lost: "+why, "error", err, "message", event.Message, "total", n)
	}
}

// publish gives the client what is in the queue, in order.
func (d *daemon) publish() {
	topic := d.client.Topic(mqtt.TopicEvent)
	for {
		e, err := d.queue.Next(d.ctx)
		switch {
		case d.ctx.Err() != nil || errors.Is(err, spool.ErrClosed):
			return
		case err != nil:
			d.log.Error("the queue cannot be read", "error", err)
			d.rest()
			continue
		}
		err = d.client.Publish(d.ctx, mqtt.Message{Topic: topic, Payload: e.Payload, QoS: 1,
			Acked:   func() { d.queue.Ack(e.Seq) },
			Dropped: func(error) { d.refused.Add(1); d.queue.Ack(e.Seq) },
		})
		if err != nil {
			d.queue.Return(e.Seq)
			if d.ctx.Err() != nil || errors.Is(err, mqtt.ErrClosed) {
				return
			}
			d.log.Error("event not published, it stays in the queue", "sequence", e.Seq, "error", err)
			d.rest()
		}
	}
}

// session says how to speak to the broker.
func (d *daemon) session() mqtt.Config {
	r := d.flags
	c := r.broker
	topic := func(kind, payload string) mqtt.Message {
		return mqtt.Message{Topic: c.Topic(kind), Payload: []byte(payload), QoS: 1, Retained: true}
	}
	offline := topic(mqtt.TopicStatus, mqtt.Offline)
	c.Will, c.Farewell = &offline, []mqtt.Message{offline}
	c.Birth = func() []mqtt.Message {
		problem := "OFF"
		if d.published.Load() > 0 {
			problem = "ON"
		}
		return []mqtt.Message{topic(mqtt.TopicStatus, mqtt.Online), topic(mqtt.TopicInfo, string(*d.info.Load())), topic(mqtt.TopicProblem, problem)}
	}
	own := ownTraffic{log: d.log}
	for _, w := range d.workers {
		own.lives = append(own.lives, w.Live)
	}
	c.OnConnect, c.Logger = own.leaveOut, d.log
	return c
}

// ownTraffic leaves the conversations with brokers out of captures.
type ownTraffic struct {
	mu    sync.Mutex
	lives []*capture.Live
	peers []capture.Peer
	log   *slog.Logger
}

// leaveOut is called with each new conversation.
func (o *ownTraffic) leaveOut(local, remote netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.peers = append(o.peers, capture.Peer{Local: local, Remote: remote})
	o.peers = o.peers[max(0, len(o.peers)-maxOwn):]
	for _, l := range o.lives {
		if err := l.Exclude(o.peers...); err != nil {
			o.log.Warn("the conversation with the broker is not left out of the capture", "error", err)
		}
	}
}

// close ends what open has begun, from the packets to the broker.
func (d *daemon) close() error {
	var errs []error
	if d.watchdog != nil {
		d.watchdog.Stop()
	}
	if d.ctx != nil {
		close(d.ending)
	}
	for _, w := range d.workers {
		if w.Live != nil {
			errs = append(errs, w.Live.Close())
		}
	}
	if d.ctx != nil {
		for _, w := range d.workers {
			<-w.ended
		}
	}
	for _, w := range d.workers {
		w.closeModels()
	}
	if d.events != nil {
		close(d.events)
	}
	if d.ctx != nil {
		d.settle()
		d.cancel()
		d.wg.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if d.client != nil {
		// What is not acknowledged stays in the queue.
		if !d.client.Stats().Connected {
			cancel()
		}
		if n, _ := d.client.Close(ctx); n > 0 && d.unqueued.Load() > 0 {
			d.log.Warn("events that went past the queue may be lost with it", "unacknowledged", n)
		}
	}
	if d.queue != nil {
		if n := d.queue.Stats().Pending; n > 0 {
			d.log.Info("events stay in the queue for the next start", "events", n)
		}
		errs = append(errs, d.queue.Close())
	}
	if d.server != nil {
		d.server.Close(ctx) // who asks slowly is cut off
	}
	return errors.Join(errs...)
}

// settle waits until the broker has what is in the queue, as long as it takes it.
func (d *daemon) settle() {
	if d.queue == nil {
		return
	}
	for end := time.Now().Add(farewell); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !d.client.Stats().Connected || d.queue.Stats().Pending == 0 && len(d.events) == 0 {
			return
		}
	}
}
