package brokertest

import (
	"bufio"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// NATS is a cluster of nats-server processes on loopback ports, with JetStream and
// MQTT, configured as docs/fleet.md says.
type NATS struct {
	Nodes []*NATSNode
}

// NATSNode is one process.
type NATSNode struct {
	Addr string // host:port of MQTT

	server
	t    testing.TB
	conf string

	mu  sync.Mutex
	log strings.Builder
}

// natsConf is the configuration of docs/fleet.md but for addresses, TLS and the
// users, of whom each gateway has its own there.
const natsConf = `server_name: n%d
listen: 127.0.0.1:-1
jetstream { store_dir: %q }
cluster { name: fleet, listen: %q, routes: [%s] }
mqtt { listen: %q, stream_replicas: %d, consumer_replicas: %[6]d, max_ack_pending: 1024 }
accounts {
  FLEET {
    jetstream: enabled
    users: [
      { user: "gw-17", password: "pw-17", allowed_connection_types: ["MQTT"], permissions: {
          publish: ["picket.gw-17.>"], subscribe: ["$MQTT.sub.>", "picket.gw-17.status", "homeassistant.status"] } }
      { user: "load", password: "load", allowed_connection_types: ["MQTT"], permissions: {
          publish: ["picket.>", "homeassistant.>"], subscribe: ["$MQTT.sub.>", "picket.>", "homeassistant.status"] } }
      { user: "reader", password: "pw-r", allowed_connection_types: ["MQTT"], permissions: {
          publish: [], subscribe: ["picket", "picket.>", "$MQTT.sub.>"] } }
    ]
  }
}
`

// StartNATS starts a cluster of n nodes and returns when they listen; a node
// takes MQTT connections when the cluster has elected its leader, seconds later.
// Users are gw-17 (password pw-17), who may publish to picket/gw-17/#, load (load)
// to picket/# and homeassistant/#, and reader (pw-r), who may subscribe to that.
func StartNATS(t testing.TB, n int) *NATS {
	t.Helper()
	if _, err := natsServer(); err != nil {
		const reason = "nats-server is not installed (apt install nats-server)"
		if os.Getenv("CI_REQUIRE_NATS") == "1" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	dir := t.TempDir()
	var routes []string
	for range n {
		routes = append(routes, FreeAddr(t))
	}
	c := &NATS{}
	for i := range n {
		node := &NATSNode{t: t, Addr: FreeAddr(t), conf: filepath.Join(dir, fmt.Sprintf("n%d.conf", i+1))}
		conf := fmt.Sprintf(natsConf, i+1, filepath.Join(dir, fmt.Sprintf("n%d", i+1)), routes[i],
			`"nats://`+strings.Join(routes, `", "nats://`)+`"`, node.Addr, min(n, 3))
		if n == 1 {
			conf = strings.Replace(conf, "cluster {", "# cluster {", 1)
		}
		if err := os.WriteFile(node.conf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(node.Kill)
		if err := node.Restart(); err != nil {
			t.Fatal(err)
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c
}

func natsServer() (string, error) {
	if path, err := exec.LookPath("nats-server"); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/nats-server")
}

// Restart starts the node again and returns when it listens.
func (n *NATSNode) Restart() error {
	path, err := natsServer()
	if err != nil {
		return err
	}
	return n.start(exec.Command(path, "-c", n.conf), func(line string) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.log.WriteString(line + "\n")
		return strings.HasSuffix(line, "Server is ready")
	}, n.Log)
}

// Log returns what the node has logged.
func (n *NATSNode) Log() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

// RSS returns the node's resident memory in bytes.
func (n *NATSNode) RSS() int64 {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Stored returns the bytes of the node's JetStream files.
func (n *NATSNode) Stored() int64 {
	n.t.Helper()
	var sum int64
	err := filepath.WalkDir(strings.TrimSuffix(n.conf, ".conf"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return sum
}

// Subscribe starts a mosquitto_sub with a persistent session at QoS 1 as user
// reader, and returns when the node has granted the subscription. Payloads have
// the form of Mosquitto.Subscribe's.
func (n *NATSNode) Subscribe(t testing.TB, topic string) *Subscriber {
	t.Helper()
	host, port, _ := net.SplitHostPort(n.Addr)
	var failure string
	for deadline := time.Now().Add(3 * Patience); time.Now().Before(deadline); {
		// stdbuf: debug lines, unlike messages, are not flushed.
		cmd := exec.Command("stdbuf", "-oL", Tool(t, "mosquitto_sub"), "-d", "-h", host, "-p", port, "-u", "reader", "-P", "pw-r",
			"-i", subscriberID, "-c", "-q", "1", "-t", topic, "-F", "MESSAGE %r %t %p")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s := &Subscriber{Payloads: make(chan string, 1<<20)}
		gone, granted := make(chan struct{}), make(chan bool, 1)
		go func() {
			defer close(gone)
			defer cmd.Wait()
			for sc := bufio.NewScanner(stdout); sc.Scan(); {
				if p, ok := strings.CutPrefix(sc.Text(), "MESSAGE "); ok {
					s.Payloads <- p
				}
				if _, code, ok := strings.Cut(sc.Text(), "Subscribed (mid: 1): "); ok {
					select {
					case granted <- code == "1":
					default:
					}
				}
			}
		}()
		end := func() {
			cmd.Process.Kill()
			<-gone
		}
		select {
		case ok := <-granted:
			s.Stop = sync.OnceFunc(end)
			t.Cleanup(s.Stop)
			if !ok {
				t.Fatal("the subscription was refused")
			}
			return s
		case <-gone: // no leader yet
			failure = "mosquitto_sub ended"
		case <-time.After(Patience / 2):
			end()
			failure = "no answer"
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("no subscription: %s\n%s", failure, n.Log())
	return nil
}
