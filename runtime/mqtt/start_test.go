package mqtt

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/brokertest"
)

// mustStart is Start with timing tm; the client is closed at the end of the test.
func mustStart(t testing.TB, config Config, tm timing) *Client {
	t.Helper()
	targets, err := config.resolve(noEnv, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := start(config, targets, tm)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c.Close(ctx)
	})
	return c
}

// until waits for what is seen by asking only.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// daemon adds to config what a daemon has.
func daemon(config Config) Config {
	state := func(kind, payload string) Message {
		return Message{Topic: config.Topic(kind), Payload: []byte(payload), QoS: 1, Retained: true}
	}
	will := state(TopicStatus, Offline)
	config.Will = &will
	config.Farewell = []Message{state(TopicStatus, Offline)}
	config.Birth = func() []Message {
		return []Message{state(TopicStatus, Online), state(TopicProblem, "OFF")}
	}
	return config
}

// sequence fails unless the next messages are these: "0 <topic> <payload>". What
// was retained comes again when the subscriber has reconnected.
func sequence(t *testing.T, s *brokertest.Subscriber, want ...string) {
	t.Helper()
	for _, w := range want {
		got := receive(t, w, s.Payloads)
		for strings.HasPrefix(got, "1 ") {
			got = receive(t, w, s.Payloads)
		}
		if got != w {
			t.Fatalf("message %q, want %q", got, w)
		}
	}
}

// records collects log lines.
type records struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *records) lines(containing string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for l := range strings.Lines(r.buf.String()) {
		if strings.Contains(l, containing) {
			found = append(found, l)
		}
	}
	return found
}

func (r *records) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func TestStartWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/#")
	m.Stop()
	var log records
	config := daemon(config(m))
	config.InFlight = 3
	config.Logger = log.logger()
	c := mustStart(t, config, fast)
	for i := range 3 {
		if err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), Payload: fmt.Append(nil, i), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Publish(within(t, 50*time.Millisecond), Message{Topic: "t", QoS: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish with a full window = %v", err)
	}
	if err := c.Publish(within(t, patience), Message{Topic: "t"}); !errors.Is(err, ErrOffline) {
		t.Errorf("Publish at QoS 0 = %v, want ErrOffline", err)
	}
	until(t, "three attempts", func() bool { return c.Stats().Attempts >= 3 })
	if s := c.Stats(); s.Connected || s.Unacknowledged != 3 || s.Connections != 0 || s.Err == nil || s.Broker != m.Addr {
		t.Errorf("%+v", s)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	sequence(t, sub, "0 picket/gw-17/status online", "0 picket/gw-17/problem OFF",
		"0 picket/gw-17/event 0", "0 picket/gw-17/event 1", "0 picket/gw-17/event 2")
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	sequence(t, sub, "0 picket/gw-17/status offline")
	if s := c.Stats(); s.Acknowledged != 3 || s.Connections != 1 || s.Connected {
		t.Errorf("%+v", s)
	}
	if n := len(log.lines("unreachable")); n != 1 {
		t.Errorf("%d lines say that the broker is unreachable, want 1:\n%s", n, log.buf.String())
	}
}

// Close without a broker, and with nothing to lose, does not wait.
func TestCloseWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	config := daemon(Config{URLs: []string{"mqtt://" + brokertest.FreeAddr(t)}, Gateway: "g"})
	c := mustStart(t, config, fast)
	ctx := within(t, patience)
	if left, err := c.Close(ctx); left != 0 || err != nil || ctx.Err() != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
}

func TestWillAndBirth(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		cut func(*brokertest.Proxy)
	}{
		"reset":  {(*brokertest.Proxy).Cut},
		"silent": {(*brokertest.Proxy).Hold},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := brokertest.Start(t)
			sub := m.Subscribe(t, "picket/#")
			p := brokertest.StartProxy(t, m.Addr)
			config := daemon(config(m))
			config.URLs = []string{"mqtt://" + p.Addr}
			config.KeepAlive, config.ConnectTimeout = time.Second, time.Second
			c := mustStart(t, config, fast)
			ctx := within(t, patience)
			birth := []string{"0 picket/gw-17/status online", "0 picket/gw-17/problem OFF"}
			sequence(t, sub, birth...)
			end.cut(p)
			if err := c.Publish(ctx, Message{Topic: c.Topic(TopicEvent), Payload: []byte("e"), QoS: 1}); err != nil {
				t.Fatal(err)
			}
			// The next connection has the same client identifier, so that the broker ends
			// the former one, with its will, before the birth of the next.
			sequence(t, sub, "0 picket/gw-17/status offline")
			sequence(t, sub, append(birth, "0 picket/gw-17/event e")...)
			c.Announce(c.Topic(TopicProblem))
			sequence(t, sub, "0 picket/gw-17/problem OFF")
			c.Announce()
			sequence(t, sub, birth...)
			if left, err := c.Close(ctx); left != 0 || err != nil {
				t.Errorf("Close = %d, %v", left, err)
			}
			sequence(t, sub, "0 picket/gw-17/status offline")
			// Nothing came after the farewell: neither the will nor another birth.
			m.Publish(t, "picket/end", "x", false)
			sequence(t, sub, "0 picket/end x")
		})
	}
}

// A Close that runs out of time leaves the last word to the will.
func TestCloseInHasteLeavesTheWill(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/#")
	p := brokertest.StartProxy(t, m.Addr)
	config := daemon(config(m))
	config.URLs = []string{"mqtt://" + p.Addr}
	c := mustStart(t, config, fast)
	sequence(t, sub, "0 picket/gw-17/status online", "0 picket/gw-17/problem OFF")
	p.Hold()
	if err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Close(within(t, 20*time.Millisecond)); left != 1 || err == nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	p.Cut()
	sequence(t, sub, "0 picket/gw-17/status offline")
}

func TestFailover(t *testing.T) {
	t.Parallel()
	a, b := brokertest.Start(t), brokertest.Start(t)
	subA, subB := a.Subscribe(t, "picket/#"), b.Subscribe(t, "picket/#")
	config := daemon(config(a))
	config.URLs = append([]string{"mqtt://" + brokertest.FreeAddr(t)}, "mqtt://"+a.Addr, "mqtt://"+b.Addr)
	dialed := mustDial(t, config, fast) // as scan does
	if s := dialed.Stats(); s.Broker != a.Addr || s.Attempts != 2 {
		t.Errorf("%+v, want %s at the second attempt", s, a.Addr)
	}
	if _, err := dialed.Close(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	sequence(t, subA, "0 picket/gw-17/status online", "0 picket/gw-17/problem OFF", "0 picket/gw-17/status offline")

	c := mustStart(t, config, fast)
	publish := func(payload string) {
		t.Helper()
		if err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), Payload: []byte(payload), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	birth := []string{"0 picket/gw-17/status online", "0 picket/gw-17/problem OFF"}
	publish("1")
	sequence(t, subA, append(birth, "0 picket/gw-17/event 1")...)
	until(t, "acknowledgement", func() bool { return c.Unacknowledged() == 0 }) // else it comes again
	a.Kill()
	publish("2")
	sequence(t, subB, append(birth, "0 picket/gw-17/event 2")...)
	until(t, "acknowledgement", func() bool { return c.Unacknowledged() == 0 })
	if err := a.Restart(); err != nil {
		t.Fatal(err)
	}
	b.Kill()
	publish("3")
	until(t, "acknowledgement of all", func() bool { return c.Unacknowledged() == 0 })
	if s := c.Stats(); s.Acknowledged != 3 || s.Broker != a.Addr {
		t.Errorf("%+v", s)
	}
}

func TestDialSaysAllFailures(t *testing.T) {
	t.Parallel()
	a, b := brokertest.FreeAddr(t), brokertest.FreeAddr(t)
	_, err := dialWith(Config{URLs: []string{"mqtt://" + a, "mqtt://" + b}, Gateway: "g"}, fast)
	if err == nil || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Dial = %v, want both brokers in one line", err)
	}
}

// Packets go into nothing on a connection that neither end has closed.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/#")
	p := brokertest.StartProxy(t, m.Addr)
	config := config(m)
	config.URLs = []string{"mqtt://" + p.Addr}
	tm := fast
	tm.ack = 300 * time.Millisecond
	c := mustStart(t, config, tm)
	until(t, "connection", func() bool { return c.Stats().Connected })
	p.Hold()
	for i := range 100 {
		if err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), Payload: fmt.Append(nil, i), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		sequence(t, sub, fmt.Sprintf("0 picket/gw-17/event %d", i))
	}
}

// A will that arrives after the birth of the next connection, as in a cluster,
// does not stand.
func TestLateWillIsCorrected(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/gw-17/status")
	c := mustStart(t, daemon(config(m)), fast)
	sequence(t, sub, "0 picket/gw-17/status online")
	m.Publish(t, "picket/gw-17/status", Offline, true)
	sequence(t, sub, "0 picket/gw-17/status offline", "0 picket/gw-17/status online")
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	m.Publish(t, "picket/gw-17/status", "end", false)
	sequence(t, sub, "0 picket/gw-17/status offline", "0 picket/gw-17/status end")
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	m.Publish(t, "site/mode", "kept", true)
	p := brokertest.StartProxy(t, m.Addr)
	got := make(chan string, 10)
	hear := func(topic string, payload []byte, retained bool) {
		got <- fmt.Sprintf("%t %s %s", retained, topic, payload)
	}
	config := config(m)
	config.URLs = []string{"mqtt://" + p.Addr}
	config.Subscribe = map[string]func(string, []byte, bool){"site/+": hear}
	c := mustStart(t, config, fast)
	for range 2 {
		if g := receive(t, "retained message", got); g != "true site/mode kept" {
			t.Errorf("%q", g)
		}
		m.Publish(t, "site/x", "now", false)
		if g := receive(t, "message", got); g != "false site/x now" {
			t.Errorf("%q", g)
		}
		p.Cut()
	}
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
}

func TestHomeAssistantBirthAnnouncesAgain(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "homeassistant/device/#")
	m.Publish(t, "homeassistant/status", "online", true) // of before: answered by the birth
	config := daemon(config(m))
	config.HomeAssistant = &HomeAssistant{Version: "1.2"}
	want := "0 homeassistant/device/picket_gw-17/config " + string(config.HomeAssistant.message(&config).Payload)
	c := mustStart(t, config, fast)
	sequence(t, sub, want)
	until(t, "subscription", func() bool { return c.Unacknowledged() == 0 })
	m.Publish(t, "homeassistant/status", "offline", false)
	m.Publish(t, "homeassistant/status", "online", false)
	sequence(t, sub, want)
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	m.Publish(t, "homeassistant/device/end", "x", false)
	sequence(t, sub, "0 homeassistant/device/end x") // neither "offline" nor the retained "online" was answered
}

// What a broker will not take is asked again slowly, and said once.
func TestRefusedForGood(t *testing.T) {
	t.Parallel()
	const secret = "Geheim-ftK3"
	tm := fast
	tm.backoffMin, tm.backoffMax = 20*time.Millisecond, 80*time.Millisecond
	const attempts = 6
	atLeast := tm.backoffMin/2 + tm.backoffMin + (attempts-3)*tm.backoffMax/2 // jitter takes up to a half

	withTLS := func(t *testing.T, template x509.Certificate) Config {
		p := newPKI(t)
		p.issueServer("server", template)
		c := config(brokertest.Start(t, p.listener("server")...))
		c.URLs[0] = strings.Replace(c.URLs[0], "mqtt:", "mqtts:", 1)
		c.CAFile = p.path("ca.crt")
		return c
	}
	for name, tt := range map[string]struct {
		config func(t *testing.T) Config
		want   string
	}{
		"wrong password": {func(t *testing.T) Config {
			passwords := filepath.Join(t.TempDir(), "passwords")
			if out, err := exec.Command(brokertest.Tool(t, "mosquitto_passwd"), "-b", "-c", passwords, "gw", "right").CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_passwd: %v: %s", err, out)
			}
			c := config(brokertest.Start(t, "allow_anonymous false", "password_file "+passwords))
			c.URLs[0] = strings.Replace(c.URLs[0], "//", "//gw:"+secret+"@", 1)
			return c
		}, "check the user name, the password"},
		"expired certificate": {func(t *testing.T) Config {
			return withTLS(t, x509.Certificate{NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(1.5e9, 0)})
		}, "certificate expired on 2017-07-14"},
		"unknown authority": {func(t *testing.T) Config {
			c := withTLS(t, x509.Certificate{})
			c.CAFile = newPKI(t).path("ca.crt")
			return c
		}, "not signed by an authority in --mqtt-ca-file"},
		"connection refused": {func(t *testing.T) Config {
			return Config{URLs: []string{"mqtt://" + brokertest.FreeAddr(t)}, Gateway: "g"}
		}, "connection refused: start the broker"},
		"unknown host": {func(t *testing.T) Config {
			return Config{URLs: []string{"mqtt://broker.invalid"}, Gateway: "g"}
		}, "host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := tt.config(t)
			var log records
			config.Logger = log.logger()
			began := time.Now()
			c := mustStart(t, config, tm)
			until(t, "attempts", func() bool { return c.Stats().Attempts >= attempts })
			if d := time.Since(began); d < atLeast {
				t.Errorf("%d attempts within %v, want %v or more", attempts, d, atLeast)
			}
			until(t, "the cause", func() bool { return c.Stats().Err != errNotYet })
			err := c.Stats().Err
			t.Log(err)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q does not say %q", err, tt.want)
			}
			if n := len(log.lines("unreachable")); n != 1 {
				t.Errorf("logged %d times, want once:\n%s", n, log.buf.String())
			}
			if found := log.lines(secret); found != nil || strings.Contains(err.Error(), secret) {
				t.Errorf("the password is shown: %v %q", err, found)
			}
			if _, err := c.Close(within(t, patience)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNoPasswordOnTheCommandLine(t *testing.T) {
	t.Parallel()
	c := Config{URLs: []string{"mqtt://broker", "mqtts://gw:secret@broker2"}, Gateway: "g"}
	if _, err := c.resolve(noEnv, []string{"picket", "run"}); err != nil {
		t.Errorf("from a file: %v", err)
	}
	for _, line := range [][]string{
		{"picket", "run", "--mqtt=mqtts://gw:secret@broker2"},
		{"picket", "run", "--mqtt", "mqtts://gw:secret@broker2"},
	} {
		_, err := c.resolve(noEnv, line)
		if err == nil || !strings.Contains(err.Error(), "--mqtt-password-file") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", line, err)
		}
	}
}

// A different certificate name stands in each URL.
func TestEachBrokerHasItsOwnServerName(t *testing.T) {
	t.Parallel()
	c := Config{URLs: []string{"mqtts://a.example", "mqtts://b.example:1", "wss://c.example"}, Gateway: "g"}
	targets, err := c.resolve(noEnv, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a.example", "b.example", "c.example"} {
		if got := targets[i].tls.ServerName; got != want {
			t.Errorf("server name %q, want %q", got, want)
		}
	}
	if targets[0].clientID != targets[2].clientID {
		t.Error("client id differs from broker to broker")
	}
}

// The two ends of a connection are known before its first packet.
func TestOnConnect(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var told [][2]netip.AddrPort
			seen := make(chan [2]netip.AddrPort, 1)
			known := make(chan bool, 1)
			addr := fakeBroker(t, func(c net.Conn) {
				pair := [2]netip.AddrPort{addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())}
				mu.Lock()
				known <- slices.Contains(told, pair)
				mu.Unlock()
				seen <- pair
			})
			c := mustStart(t, Config{URLs: []string{scheme + "://" + addr}, Gateway: "g", OnConnect: func(local, remote netip.AddrPort) {
				mu.Lock()
				told = append(told, [2]netip.AddrPort{local, remote})
				mu.Unlock()
			}}, fast)
			pair := receive(t, "connection", seen)
			if !receive(t, "told", known) {
				mu.Lock()
				t.Errorf("%v is not among %v", pair, told)
				mu.Unlock()
			}
			c.Close(within(t, patience))
		})
	}
}

// numbered publishes n messages of size octets, but for those in sizes.
func numbered(t *testing.T, c *Client, n int, sizes map[int]int) (acked *[]int, dropped chan int) {
	t.Helper()
	acked, dropped = new([]int), make(chan int, n)
	for i := range n {
		size := max(sizes[i], 20)
		m := Message{Topic: c.Topic(TopicEvent), Payload: fmt.Appendf(nil, "%0*d", size, i), QoS: 1,
			Acked:   func() { *acked = append(*acked, i) },
			Dropped: func(error) { dropped <- i },
		}
		if err := c.Publish(within(t, patience), m); err != nil {
			t.Fatal(err)
		}
	}
	return acked, dropped
}

func TestPoisonMessageIsGivenUp(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, "max_packet_size 2000")
	var log records
	config := daemon(config(m))
	config.Logger = log.logger()
	tm := fast
	tm.backoffMax = 20 * time.Millisecond
	c := mustStart(t, config, tm)
	acked, dropped := numbered(t, c, 50, map[int]int{10: 5000, 11: 3000, 49: 2100})
	for _, want := range []int{10, 11} {
		if i := receive(t, "message given up", dropped); i != want {
			t.Errorf("message %d given up, want %d", i, want)
		}
	}
	// The last one has none behind it that would show that it is at fault.
	until(t, "acknowledgements", func() bool { return c.Stats().Acknowledged >= 47 })
	until(t, "more attempts", func() bool { return c.Stats().Unacknowledged == 1 })
	if err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), Payload: []byte("50"), QoS: 1,
		Acked: func() { *acked = append(*acked, 50) }}); err != nil {
		t.Fatal(err)
	}
	if i := receive(t, "message given up", dropped); i != 49 {
		t.Errorf("message %d given up, want 49", i)
	}
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	if s := c.Stats(); s.Dropped != 3 || s.Acknowledged != 48 || len(*acked) != 48 || !slices.IsSorted(*acked) {
		t.Errorf("%+v, acknowledged %v", s, *acked)
	}
	if found := log.lines("given up"); len(found) != 3 || !strings.Contains(found[0], "octets=5000") {
		t.Errorf("logged %q", found)
	}
}

// While the broker takes nothing, the fault may be its settings: all is kept.
func TestNothingIsGivenUpWhileNothingIsTaken(t *testing.T) {
	t.Parallel()
	const n = 3
	m, better := brokertest.Start(t, "max_packet_size 200"), brokertest.Start(t)
	sub, betterSub := m.Subscribe(t, "picket/+/status"), better.Subscribe(t, "picket/+/event")
	p := brokertest.StartProxy(t, m.Addr)
	config := daemon(config(m))
	config.URLs = []string{"mqtt://" + p.Addr}
	tm := fast
	tm.backoffMax = 10 * time.Millisecond
	c := mustStart(t, config, tm)
	acked, dropped := numbered(t, c, n, map[int]int{0: 500, 1: 500, 2: 500})
	until(t, "trying all", func() bool { return c.Stats().Connections > n*maxStrikes && c.Stats().Connected })
	sequence(t, sub, "0 picket/gw-17/status online") // announcements get through
	p.Redirect(better.Addr)
	until(t, "acknowledgement", func() bool { // a cut may hit an announcement instead of a quiet connection
		p.Cut()
		for range 100 {
			if time.Sleep(5 * time.Millisecond); c.Unacknowledged() == 0 {
				return true
			}
		}
		return false
	})
	if len(dropped) != 0 || c.Stats().Dropped != 0 {
		t.Errorf("%d messages given up", len(dropped))
	}
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil || len(*acked) != n {
		t.Errorf("Close = %d, %v; acknowledged %v", left, err, *acked)
	}
	betterSub.Want(t, n, func(p string) bool { return strings.HasPrefix(p, "0 picket/gw-17/event 0") })
}

func TestPoisonAnnouncementIsGivenUp(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, "max_packet_size 2000")
	sub := m.Subscribe(t, "picket/+/event")
	config := daemon(config(m))
	birth := config.Birth
	config.Birth = func() []Message {
		return append([]Message{{Topic: config.Topic(TopicInfo), Payload: make([]byte, 5000), QoS: 1, Retained: true}}, birth()...)
	}
	var log records
	config.Logger = log.logger()
	tm := fast
	tm.backoffMax = 20 * time.Millisecond
	c := mustStart(t, config, tm)
	if err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), Payload: []byte("e"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	sequence(t, sub, "0 picket/gw-17/event e")
	until(t, "giving up", func() bool { return len(log.lines("announcement given up")) == 1 })
	until(t, "connection", func() bool { return c.Stats().Connected })
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	if s := c.Stats(); s.Dropped != 0 || s.Acknowledged != 1 {
		t.Errorf("%+v", s)
	}
}

// A network that resets connections all the time loses nothing, and no message
// is taken for poison.
func TestLossyNetworkLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 500
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/+/event")
	p := brokertest.StartProxy(t, m.Addr)
	config := daemon(config(m))
	config.URLs = []string{"mqtt://" + p.Addr}
	tm := fast
	tm.backoffMax = 10 * time.Millisecond
	c := mustStart(t, config, tm)
	stop, stopped := make(chan struct{}), make(chan struct{})
	var cuts atomic.Int64
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			whole := time.Duration(i%9) * time.Millisecond
			if i%20 == 19 {
				whole = 200 * time.Millisecond // for machines too slow to connect in 8 ms
			}
			select {
			case <-stop:
				return
			case <-time.After(whole):
				p.Cut()
				cuts.Add(1)
			}
		}
	}()
	acked, dropped := numbered(t, c, n, nil)
	close(stop)
	<-stopped
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
	if len(dropped) != 0 || len(*acked) != n {
		t.Errorf("%d given up, %d acknowledged", len(dropped), len(*acked))
	}
	dup := sub.Want(t, n, func(p string) bool { return strings.HasPrefix(p, "0 picket/gw-17/event 0") })
	t.Logf("%d cuts, %d connections, %d duplicates", cuts.Load(), c.Stats().Connections, dup)
}

func TestHomeAssistantConfig(t *testing.T) {
	t.Parallel()
	c := Config{Gateway: "gw-17", HomeAssistant: &HomeAssistant{Version: "1.2.3", Health: []Sensor{
		{Path: "packets", Name: "Packets", Unit: "packets", Total: true},
		{Path: "queue.pending", Name: "Events waiting", Unit: "events"},
	}}}
	got := c.HomeAssistant.message(&c)
	if got.Topic != "homeassistant/device/picket_gw-17/config" || got.QoS != 1 || !got.Retained {
		t.Errorf("%+v", got)
	}
	golden(t, "homeassistant.golden", got.Payload)

	// The fields that Home Assistant knows, of its schemas.py and the pages of binary_sensor.mqtt,
	// sensor.mqtt and event.mqtt of home-assistant.io.
	entity := []string{"platform", "unique_id", "name", "state_topic", "value_template", "device_class", "entity_category", "icon"}
	known := map[string][]string{
		"":              {"device", "origin", "components", "availability_topic"},
		"device":        {"identifiers", "name", "manufacturer", "model", "sw_version"},
		"origin":        {"name", "sw_version", "support_url"},
		"binary_sensor": entity,
		"sensor":        append([]string{"state_class", "unit_of_measurement"}, entity...),
		"event":         append([]string{"event_types"}, entity...),
	}
	check := func(where string, object map[string]any) {
		for k := range object {
			if !slices.Contains(known[where], k) {
				t.Errorf("%q of %q is not known", k, where)
			}
		}
	}
	var root map[string]any
	if err := json.Unmarshal(got.Payload, &root); err != nil {
		t.Fatal(err)
	}
	check("", root)
	check("device", root["device"].(map[string]any))
	check("origin", root["origin"].(map[string]any))
	for _, e := range root["components"].(map[string]any) {
		e := e.(map[string]any)
		check(e["platform"].(string), e)
	}
}

func TestDeviceID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range []Config{{Gateway: "gw-17"}, {Gateway: "gw.17"}, {Gateway: "gw 17"}, {Gateway: "gw_17"}, {Gateway: "Küche"}, {Gateway: "gw-17", TopicPrefix: "site2"}} {
		id := deviceID(&c)
		if seen[id] || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			t.Errorf("gateway %q: %q", c.Gateway, id)
		}
		seen[id] = true
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares JSON with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s differs:\n%s", path, b.Bytes())
	}
}
