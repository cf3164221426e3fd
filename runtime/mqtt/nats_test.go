package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/brokertest"
)

func natsConfig(c *brokertest.NATS) Config {
	config := Config{Gateway: "gw-17"}
	for _, n := range c.Nodes {
		config.URLs = append(config.URLs, "mqtt://gw-17:pw-17@"+n.Addr)
	}
	return config
}

// A node of the cluster that dies under load, the one that the client is on, takes
// nothing with it that was acknowledged.
func TestNATSNodeKilledLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: takes some 20 s, of which the cluster's elections are most")
	}
	cluster := brokertest.StartNATS(t, 3)
	config := daemon(natsConfig(cluster))
	var log records
	config.Logger = log.logger()
	c := mustStart(t, config, fast)
	until(t, "connection", func() bool { return c.Stats().Connected })
	var on, other *brokertest.NATSNode
	for _, n := range cluster.Nodes {
		if n.Addr == c.Stats().Broker {
			on = n
		} else {
			other = n
		}
	}
	sub := other.Subscribe(t, "picket/+/event")
	ctx := within(t, 6*patience)

	const half = 3000
	var acked atomic.Int64
	n := 0
	publish := func(until int64) { // without a pause, hence with the window full of the unacknowledged
		t.Helper()
		for ; acked.Load() < until; n++ {
			err := c.Publish(ctx, Message{Topic: c.Topic(TopicEvent), Payload: fmt.Appendf(nil, "%d %0900d", n, 0), QoS: 1,
				Acked: func() { acked.Add(1) }})
			if err != nil {
				t.Fatalf("%v\n%s", err, log.buf.String())
			}
		}
	}
	publish(half)
	on.Kill()
	began, atKill := time.Now(), acked.Load()
	publish(atKill + 1)
	t.Logf("killed after %d acknowledgements, the next after %v", atKill, time.Since(began).Round(time.Millisecond))
	publish(atKill + half)
	if now := c.Stats().Broker; now == on.Addr {
		t.Errorf("the client is on %s, which was killed", now)
	}
	if err := on.Restart(); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Fatalf("Close = %d, %v", left, err)
	}
	if acked.Load() != int64(n) || c.Stats().Dropped != 0 {
		t.Errorf("%d of %d acknowledged: %+v", acked.Load(), n, c.Stats())
	}
	dup := sub.Want(t, n, func(p string) bool { return strings.HasPrefix(p, "0 picket/gw-17/event ") })
	t.Logf("%d messages, %d duplicates at the subscriber", n, dup)
}

// What docs/fleet.md says of users: a gateway cannot speak for another.
func TestNATSPermissions(t *testing.T) {
	cluster := brokertest.StartNATS(t, 1)
	sub := cluster.Nodes[0].Subscribe(t, "picket/#")
	config := daemon(natsConfig(cluster))
	c := mustStart(t, config, fast)
	sequence(t, sub, "0 picket/gw-17/status online", "0 picket/gw-17/problem OFF")
	ctx := within(t, patience)
	for _, topic := range []string{"picket/gw-18/event", c.Topic(TopicEvent)} {
		if err := c.Publish(ctx, Message{Topic: topic, Payload: []byte("e"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	sequence(t, sub, "0 picket/gw-17/event e")
	if left, err := c.Close(ctx); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	sequence(t, sub, "0 picket/gw-17/status offline")
	if s := c.Stats(); s.Acknowledged != 2 || s.Dropped != 0 {
		t.Errorf("%+v: NATS acknowledges what it discards for want of permission", s)
	}

	config.URLs = []string{"mqtt://gw-17:wrong@" + cluster.Nodes[0].Addr}
	if _, err := dialWith(config, fast); err == nil || !strings.Contains(err.Error(), "check the user name, the password") {
		t.Errorf("wrong password: %v", err)
	}
}

// NATS closes the connection at a topic with a space, and before 2.10 with a dot.
func TestNATSTopicThatClosesTheConnection(t *testing.T) {
	cluster := brokertest.StartNATS(t, 1)
	tm := fast
	tm.backoffMax = 20 * time.Millisecond
	c := mustStart(t, daemon(natsConfig(cluster)), tm)
	_, none := numbered(t, c, 5, nil)
	dropped := make(chan error, 1)
	if err := c.Publish(within(t, patience), Message{Topic: c.Topic("a b"), QoS: 1, Dropped: func(err error) { dropped <- err }}); err != nil {
		t.Fatal(err)
	}
	acked, _ := numbered(t, c, 5, nil)
	if err := receive(t, "message given up", dropped); !errors.Is(err, errPoison) {
		t.Error(err)
	}
	if left, err := c.Close(within(t, patience)); left != 0 || err != nil {
		t.Errorf("Close = %d, %v", left, err)
	}
	if len(*acked) != 5 || len(none) != 0 {
		t.Errorf("acknowledged %v", *acked)
	}
}

// BenchmarkNATSIdle holds b.N idle gateways on the first node, each with will,
// retained messages and a subscription, and reports what they add to its memory.
func BenchmarkNATSIdle(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			cluster := brokertest.StartNATS(b, nodes)
			first := cluster.Nodes[0]
			var clients []*Client
			open := func(i int) {
				config := daemon(Config{URLs: []string{"mqtt://load:load@" + first.Addr}, Gateway: fmt.Sprintf("gw-%d", i)})
				config.HomeAssistant = &HomeAssistant{}
				clients = append(clients, mustStart(b, config, fast))
			}
			open(0) // the streams exist from now on
			until(b, "connection", func() bool { return clients[0].Stats().Connected })
			before := first.RSS()
			for i := 0; b.Loop(); i++ {
				open(i + 1)
				if i%50 == 49 { // NATS makes a session at a time
					until(b, "connections", func() bool { return clients[i].Stats().Connected })
				}
			}
			for _, c := range clients {
				until(b, "connection", func() bool { return c.Stats().Connected })
			}
			b.ReportMetric(float64(first.RSS()-before)/float64(b.N), "B/gateway")
			b.ReportMetric(float64(first.RSS()), "B-RSS")
		})
	}
}

// BenchmarkNATSStored publishes 1,000-byte events while their subscriber is away,
// and reports what each takes on the disk of the first of three nodes.
func BenchmarkNATSStored(b *testing.B) {
	cluster := brokertest.StartNATS(b, 3)
	cluster.Nodes[0].Subscribe(b, "picket/+/event").Stop()
	c := mustStart(b, Config{URLs: []string{"mqtt://load:load@" + cluster.Nodes[0].Addr}, Gateway: "gw-17"}, fast)
	before := cluster.Nodes[0].Stored()
	payload := []byte(strings.Repeat("x", 1000))
	for b.Loop() {
		if err := c.Publish(context.Background(), Message{Topic: c.Topic(TopicEvent), Payload: payload, QoS: 1}); err != nil {
			b.Fatal(err)
		}
	}
	if left, err := c.Close(within(b, patience)); left != 0 {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cluster.Nodes[0].Stored()-before)/float64(b.N), "B/event")
}

// BenchmarkNATS publishes with 1,000-byte events through one node, of a single
// server and of a cluster of three replicas.
func BenchmarkNATS(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, gateways := range []int{1, 8} {
			b.Run(fmt.Sprintf("nodes=%d/gateways=%d", nodes, gateways), func(b *testing.B) {
				cluster := brokertest.StartNATS(b, nodes)
				cluster.Nodes[0].Subscribe(b, "picket/+/event") // without interest nothing is stored
				var clients []*Client
				for i := range gateways {
					clients = append(clients, mustStart(b, Config{
						URLs: []string{"mqtt://load:load@" + cluster.Nodes[i%nodes].Addr}, Gateway: fmt.Sprintf("gw-%d", i)}, defaultTiming))
				}
				for _, c := range clients {
					until(b, "connection", func() bool { return c.Stats().Connected })
				}
				payload := make([]byte, 1000)
				for i := range payload {
					payload[i] = 'x'
				}
				for i := 0; b.Loop(); i++ {
					c := clients[i%len(clients)]
					if err := c.Publish(context.Background(), Message{Topic: c.Topic(TopicEvent), Payload: payload, QoS: 1}); err != nil {
						b.Fatal(err)
					}
				}
				for _, c := range clients {
					if left, err := c.Close(within(b, 3*patience)); left != 0 {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}
