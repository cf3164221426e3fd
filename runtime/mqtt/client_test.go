package mqtt

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/picket-ids/picket/internal/brokertest"
)

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing within %v", what, patience)
		panic("unreachable")
	}
}

func TestRoundTripToIndependentSubscriber(t *testing.T) {
	t.Parallel()
	const n = 1000
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/gw-17/event")
	c := mustDial(t, config(m), fast)
	var acked atomic.Int64
	ctx := within(t, patience)
	for i := range n {
		msg := Message{Topic: c.Topic(TopicEvent), Payload: fmt.Appendf(nil, "%d", i), QoS: 1, Acked: func() { acked.Add(1) }}
		if err := c.Publish(ctx, msg); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
	if acked.Load() != n {
		t.Errorf("%d of %d messages acknowledged", acked.Load(), n)
	}
	next := 0
	if dup := sub.Want(t, n, func(p string) bool {
		ok := p == fmt.Sprintf("0 picket/gw-17/event %d", next)
		next++
		return ok // in order, none twice
	}); dup != 0 {
		t.Errorf("%d duplicates on a connection that was never lost", dup)
	}
	if err := c.Publish(ctx, Message{Topic: "t", QoS: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish after Close = %v, want ErrClosed", err)
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Errorf("second Close = %d, %v", left, err)
	}
}

func TestRetainedAndQoS0(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	c := mustDial(t, config(m), fast)
	ctx := within(t, patience)
	for _, msg := range []Message{
		{Topic: c.Topic("a"), Payload: []byte("kept"), QoS: 1, Retained: true},
		{Topic: c.Topic("b"), Payload: []byte("kept"), QoS: 0, Retained: true, Acked: func() { t.Error("QoS 0 acknowledged") }},
		{Topic: c.Topic("c"), Payload: []byte("not kept"), QoS: 1},
	} {
		if err := c.Publish(ctx, msg); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
	m.Subscribe(t, "picket/#").Want(t, 2, func(p string) bool {
		return p == "1 picket/gw-17/a kept" || p == "1 picket/gw-17/b kept"
	})
}

func TestBrokerRestartLosesNothing(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/#")
	c := mustDial(t, config(m), fast)
	ctx := within(t, patience)
	var acked atomic.Int64
	some, stopped := make(chan struct{}), make(chan struct{})
	type result struct {
		n   int
		err error
	}
	published := make(chan result, 1)
	go func() { // without a pause, until 500 messages after the broker has gone
		for n, last := 0, -1; n != last; n++ {
			if last < 0 {
				select {
				case <-stopped:
					last = n + 500
				default:
				}
			}
			err := c.Publish(ctx, Message{Topic: c.Topic(TopicEvent), Payload: fmt.Append(nil, n), QoS: 1, Acked: func() {
				if acked.Add(1) == 1000 {
					close(some)
				}
			}})
			if err != nil {
				published <- result{n, err}
				return
			}
			if n+1 == last {
				published <- result{last, nil}
			}
		}
	}()
	receive(t, "acknowledgements", some)
	m.Stop()
	before := acked.Load()
	close(stopped)
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	all := receive(t, "Publish of all", published)
	if all.err != nil {
		t.Fatal(all.err)
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
	if acked.Load() != int64(all.n) {
		t.Errorf("%d acknowledgements of %d messages", acked.Load(), all.n)
	}
	dup := sub.Want(t, all.n, func(p string) bool { return strings.HasPrefix(p, "0 picket/gw-17/event ") })
	t.Logf("%d messages, the broker stopped after %d acknowledgements; %d duplicates at the subscriber", all.n, before, dup)
}

func TestBrokerNeverBack(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t)
	config := config(m)
	config.InFlight = 10
	c := mustDial(t, config, fast)
	m.Stop()
	for i := range 10 {
		err := c.Publish(within(t, patience), Message{Topic: c.Topic(TopicEvent), Payload: fmt.Append(nil, i), QoS: 1,
			Acked: func() { t.Error("acknowledged by a broker that is gone") }})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The window is full: Publish waits for its context, no longer.
	err := c.Publish(within(t, 200*time.Millisecond), Message{Topic: "t", QoS: 1})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), m.Addr) {
		t.Errorf("Publish with a full window = %v", err)
	}
	began := time.Now()
	left, err := c.Close(within(t, 300*time.Millisecond))
	if left != 10 || err == nil {
		t.Errorf("Close = %d, %v; want 10", left, err)
	}
	t.Log(err)
	if !strings.Contains(err.Error(), "10 MQTT messages not acknowledged") || !strings.Contains(err.Error(), "connection refused") ||
		!errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Close says %q", err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
	if again, err := c.Close(context.Background()); again != 10 || err == nil {
		t.Errorf("second Close = %d, %v", again, err)
	}
}

// A connection that dies with messages unacknowledged reports none of them, and
// the next one carries them all again, in order.
func TestNoFalseAcknowledgement(t *testing.T) {
	t.Parallel()
	const n = 20
	var acked atomic.Int64
	proceed := make(chan struct{})
	addr := fakeBroker(t,
		func(c net.Conn) {
			connack(c, 0)
			for range n {
				readPublish(c)
			}
		},
		func(c net.Conn) { // out of order, and then the connection ends
			connack(c, 0)
			if acked.Load() != 0 {
				t.Errorf("%d messages reported as acknowledged that were not", acked.Load())
			}
			var ids []uint16
			for range n {
				if p := readPublish(c); p != nil {
					ids = append(ids, p.MessageID)
				}
			}
			if len(ids) < n {
				t.Errorf("%d of %d messages sent again", len(ids), n)
				return
			}
			puback(c, ids[4])
			puback(c, ids[2])
		},
		func(c net.Conn) {
			connack(c, 0)
			if acked.Load() != 2 {
				t.Errorf("%d messages reported as acknowledged, want 2", acked.Load())
			}
			for i := range n {
				if i == 2 || i == 4 {
					continue
				}
				p := readPublish(c)
				if p == nil {
					t.Error("connection ended")
					return
				}
				if want := fmt.Sprint(i); string(p.Payload) != want {
					t.Errorf("resent %s, want %s", p.Payload, want)
				}
				puback(c, p.MessageID)
			}
			close(proceed)
			untilClosed(c)
		})
	c := mustDial(t, Config{URLs: []string{"mqtt://" + addr}, Gateway: "g"}, fast)
	for i := range n {
		if err := c.Publish(within(t, patience), Message{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1, Acked: func() { acked.Add(1) }}); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, "third connection", proceed)
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
	if acked.Load() != n {
		t.Errorf("%d acknowledgements, want %d", acked.Load(), n)
	}
}

// A broker that stays connected but stops acknowledging is left.
func TestSilentBrokerIsLeft(t *testing.T) {
	t.Parallel()
	addr := fakeBroker(t,
		func(c net.Conn) { connack(c, 0); untilClosed(c) },
		func(c net.Conn) {
			connack(c, 0)
			if p := readPublish(c); p != nil {
				puback(c, p.MessageID)
			}
			untilClosed(c)
		})
	tm := fast
	tm.ack = 50 * time.Millisecond
	c := mustDial(t, Config{URLs: []string{"mqtt://" + addr}, Gateway: "g"}, tm)
	ctx := within(t, patience)
	if err := c.Publish(ctx, Message{Topic: "t", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
}

// A broker that takes messages but never acknowledges holds Close no longer than
// its context.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	addr := fakeBroker(t, func(c net.Conn) { connack(c, 0); untilClosed(c) })
	c := mustDial(t, Config{URLs: []string{"mqtt://" + addr}, Gateway: "g"}, fast)
	if err := c.Publish(within(t, patience), Message{Topic: "t", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	left, err := c.Close(within(t, 50*time.Millisecond))
	if left != 1 || err == nil || !strings.HasPrefix(err.Error(), "1 MQTT message not") {
		t.Errorf("Close = %d, %v; want 1", left, err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

// A peer that reads nothing blocks paho in a write; neither Publish nor Close may
// hang with it.
func TestPeerThatReadsNothing(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	addr := fakeBroker(t, func(c net.Conn) { connack(c, 0); <-release })
	t.Cleanup(func() { close(release) })
	c := mustDial(t, Config{URLs: []string{"mqtt://" + addr}, Gateway: "g"}, fast)
	big := make([]byte, 8<<20)
	for range 3 {
		if err := c.Publish(within(t, patience), Message{Topic: "t", Payload: big, QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if left, _ := c.Close(within(t, 100*time.Millisecond)); left != 3 {
		t.Errorf("Close = %d, want 3", left)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

func TestQoS0Offline(t *testing.T) {
	t.Parallel()
	lost := make(chan struct{})
	addr := fakeBroker(t, func(c net.Conn) { connack(c, 0); <-lost })
	c := mustDial(t, Config{URLs: []string{"mqtt://" + addr}, Gateway: "g"}, fast)
	close(lost)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := c.Publish(context.Background(), Message{Topic: "t"})
		if errors.Is(err, ErrOffline) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("Publish at QoS 0 without a connection = %v, want ErrOffline", err)
		}
	}
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v: QoS 0 is not waited for", left, err)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, "protocol websockets",
		"listener "+strings.TrimPrefix(brokertest.FreeAddr(t), "127.0.0.1:")+" 127.0.0.1") // mosquitto 2.0.11 ends without a plain one
	config := config(m)
	config.URLs = []string{"ws://" + m.Addr}
	config.KeepAlive = time.Second
	c := mustDial(t, config, fast)
	ctx := within(t, patience)
	for i := range 100 {
		if err := c.Publish(ctx, Message{Topic: c.Topic(TopicEvent), Payload: fmt.Append(nil, i), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	t.Parallel()
	addr := fakeBroker(t, func(c net.Conn) { connack(c, 0); untilClosed(c) })
	c := mustDial(t, Config{URLs: []string{"mqtt://" + addr}, Gateway: "g"}, fast)
	for name, m := range map[string]Message{
		"no topic":   {QoS: 1},
		"wildcard":   {Topic: "a/#", QoS: 1},
		"NUL":        {Topic: "a\x00", QoS: 1},
		"not UTF-8":  {Topic: "a\xff", QoS: 1},
		"long topic": {Topic: strings.Repeat("a", maxString+1), QoS: 1},
		"QoS 2":      {Topic: "a", QoS: 2},
	} {
		if err := c.Publish(context.Background(), m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Publish(cancelled, Message{Topic: "a", QoS: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled context: %v", err)
	}
	if n := c.Unacknowledged(); n != 0 {
		t.Errorf("%d messages accepted", n)
	}
}

// Every way in which a connection fails is one line that names the way out.
func TestDialErrors(t *testing.T) {
	t.Parallel()
	file := func(t *testing.T, content string) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	withPassword := func(t *testing.T) Config {
		passwords := filepath.Join(t.TempDir(), "passwords")
		if out, err := exec.Command(brokertest.Tool(t, "mosquitto_passwd"), "-b", "-c", passwords, "gw", "secret").CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
		return config(brokertest.Start(t, "allow_anonymous false", "password_file "+passwords))
	}
	withTLS := func(t *testing.T, more ...string) (Config, *pki) {
		p := newPKI(t)
		p.issueServer("server", x509.Certificate{})
		c := config(brokertest.Start(t, p.listener("server", more...)...))
		c.URLs[0] = strings.Replace(c.URLs[0], "mqtt:", "mqtts:", 1)
		c.CAFile = p.path("ca.crt")
		return c, p
	}
	listener := func(t *testing.T, scheme string, script func(net.Conn)) Config {
		return Config{URLs: []string{scheme + "://" + fakeBroker(t, script)}, Gateway: "g"}
	}
	tests := []struct {
		name   string
		config func(t *testing.T) Config
		want   []string // all in the error; none: Dial succeeds
	}{
		{"connection refused", func(t *testing.T) Config {
			return Config{URLs: []string{"mqtt://" + brokertest.FreeAddr(t)}, Gateway: "g"}
		}, []string{"connection refused", "start the broker"}},
		{"password right, from a file", func(t *testing.T) Config {
			c := withPassword(t)
			c.Username, c.PasswordFile = "gw", file(t, "secret\n")
			return c
		}, nil},
		{"password right, in the URL", func(t *testing.T) Config {
			c := withPassword(t)
			c.URLs[0] = strings.Replace(c.URLs[0], "//", "//gw:secret@", 1)
			return c
		}, nil},
		{"password wrong", func(t *testing.T) Config {
			c := withPassword(t)
			c.Username, c.PasswordFile = "gw", file(t, "wrong")
			return c
		}, []string{`user "gw" refused (CONNACK code 5)`, "check the user name, the password"}},
		{"password missing", withPassword, []string{"without user name and password (CONNACK code 5)", EnvPassword}},
		{"TLS with our CA", func(t *testing.T) Config { c, _ := withTLS(t); return c }, nil},
		{"TLS with another CA", func(t *testing.T) Config {
			c, _ := withTLS(t)
			c.CAFile = newPKI(t).path("ca.crt")
			return c
		}, []string{"not signed by an authority in --mqtt-ca-file"}},
		{"TLS with the system's CAs", func(t *testing.T) Config {
			c, _ := withTLS(t)
			c.CAFile = ""
			return c
		}, []string{"unknown authority", "--mqtt-ca-file"}},
		{"TLS, expired certificate", func(t *testing.T) Config {
			p := newPKI(t)
			p.issueServer("old", x509.Certificate{NotBefore: time.Unix(1e9, 0), NotAfter: time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)})
			c := config(brokertest.Start(t, p.listener("old")...))
			c.URLs[0] = strings.Replace(c.URLs[0], "mqtt:", "mqtts:", 1)
			c.CAFile = p.path("ca.crt")
			return c
		}, []string{"certificate expired on 2020-02-03 04:05:06 UTC", "clock"}},
		{"TLS, certificate for another name", func(t *testing.T) Config {
			c, _ := withTLS(t)
			c.URLs[0] = strings.Replace(c.URLs[0], "127.0.0.1", "localhost", 1)
			return c
		}, []string{"for another name"}},
		{"TLS, client certificate required and not given", func(t *testing.T) Config {
			c, _ := withTLS(t, "require_certificate true")
			return c
		}, []string{"client certificate", "--mqtt-cert-file"}},
		{"TLS 1.2, client certificate required and not given", func(t *testing.T) Config {
			c, _ := withTLS(t, "require_certificate true", "tls_version tlsv1.2")
			return c
		}, []string{"client certificate", "--mqtt-cert-file"}},
		{"TLS, client certificate required and given", func(t *testing.T) Config {
			c, p := withTLS(t, "require_certificate true")
			p.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			c.CertFile, c.KeyFile = p.path("client.crt"), p.path("client.key")
			return c
		}, nil},
		{"TLS, client certificate of another CA", func(t *testing.T) Config {
			c, _ := withTLS(t, "require_certificate true")
			p := newPKI(t)
			p.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			c.CertFile, c.KeyFile = p.path("client.crt"), p.path("client.key")
			return c
		}, []string{"certificate"}},
		{"clear text to a TLS port", func(t *testing.T) Config {
			c, _ := withTLS(t)
			c.URLs[0], c.CAFile = strings.Replace(c.URLs[0], "mqtts:", "mqtt:", 1), ""
			return c
		}, []string{"write mqtts://"}},
		{"TLS to a clear text port", func(t *testing.T) Config {
			c := config(brokertest.Start(t))
			c.URLs[0] = strings.Replace(c.URLs[0], "mqtt:", "mqtts:", 1)
			return c
		}, []string{"no TLS on this port", "write mqtt://"}},
		{"accepts and never answers", func(t *testing.T) Config {
			c := listener(t, "mqtt", untilClosed)
			c.ConnectTimeout = 300 * time.Millisecond
			return c
		}, []string{"connected, but no MQTT answer within "}},
		{"accepts and never answers, TLS", func(t *testing.T) Config {
			c := listener(t, "mqtts", untilClosed)
			c.ConnectTimeout = 300 * time.Millisecond
			return c
		}, []string{"connected, but no TLS answer within "}},
		{"accepts and never answers, WebSocket", func(t *testing.T) Config {
			c := listener(t, "ws", untilClosed)
			c.ConnectTimeout = 300 * time.Millisecond
			return c
		}, []string{"no answer within "}},
		{"closes at once", func(t *testing.T) Config {
			return listener(t, "mqtt", func(net.Conn) {})
		}, []string{"closed the connection without an answer", "mqtts://"}},
		{"bad user name, code 4", func(t *testing.T) Config {
			c := listener(t, "mqtt", func(c net.Conn) { connack(c, packets.ErrRefusedBadUsernameOrPassword) })
			c.Username = "gw"
			return c
		}, []string{`user "gw" refused (CONNACK code 4)`}},
		{"client id refused", func(t *testing.T) Config {
			return listener(t, "mqtt", func(c net.Conn) { connack(c, packets.ErrRefusedIDRejected) })
		}, []string{"--mqtt-client-id"}},
		{"unknown refusal, which paho takes for success", func(t *testing.T) Config {
			return listener(t, "mqtt", func(c net.Conn) { connack(c, 42) })
		}, []string{"CONNACK code unknown"}},
		{"not WebSocket", func(t *testing.T) Config {
			return listener(t, "ws", func(c net.Conn) {
				buf := make([]byte, 1<<12)
				c.Read(buf)
				fmt.Fprint(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			})
		}, []string{"does not speak MQTT over WebSocket at /mqtt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := tt.config(t)
			c, err := dialWith(config, fast)
			if c != nil {
				c.Close(within(t, patience))
			}
			if len(tt.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("connected")
			}
			t.Log(err)
			for _, want := range append(tt.want, "connect to MQTT broker ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q", err)
			}
		})
	}
}

func TestDialObeysContext(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"mqtt", "mqtts", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			// Cancelled once the connection stands: nothing more would come.
			addr := fakeBroker(t, func(c net.Conn) { cancel(); untilClosed(c) })
			_, err := Dial(ctx, Config{URLs: []string{scheme + "://" + addr}, Gateway: "g", ConnectTimeout: time.Second})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Dial = %v, want context.Canceled", err)
			}
		})
	}
}

func BenchmarkPublishQoS1(b *testing.B) {
	m := brokertest.Start(b)
	for _, window := range []int{16, 64, 256, 1024} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			config := config(m)
			config.InFlight = window
			c := mustDial(b, config, defaultTiming)
			payload := make([]byte, 1000) // about an event
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				if err := c.Publish(context.Background(), Message{Topic: c.Topic(TopicEvent), Payload: payload, QoS: 1}); err != nil {
					b.Fatal(err)
				}
			}
			if left, err := c.Close(within(b, patience)); left != 0 {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
