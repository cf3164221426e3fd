package mqtt

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// patience bounds every wait on another process, on a machine that is busy.
const patience = 20 * time.Second

// fast reconnects within milliseconds.
var fast = timing{
	backoffMin: 5 * time.Millisecond,
	backoffMax: 100 * time.Millisecond,
	ack:        patience,
	write:      time.Second,
}

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked waits for goroutines of this package and of paho to end, and returns
// the stacks of those that do not.
func leaked() string {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		var left []string
		for i, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if i > 0 && (strings.Contains(g, "picket/runtime/mqtt") || strings.Contains(g, "paho.mqtt")) {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
	}
}

// tool finds a program of the mosquitto packages, or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if p, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
				return p
			}
		}
		const reason = "%s is not installed (apt install mosquitto mosquitto-clients)"
		if os.Getenv("CI_REQUIRE_MOSQUITTO") == "1" {
			t.Fatalf(reason, name)
		}
		t.Skipf(reason, name)
	}
	return path
}

// mosquitto is a broker of its own process on a loopback port.
type mosquitto struct {
	t    testing.TB
	addr string
	conf string
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended

	suback chan struct{} // receives when the broker has granted a subscription
}

// startMosquitto starts a broker whose listener has the given further lines of
// configuration, "allow_anonymous true" unless one of them says otherwise.
func startMosquitto(t testing.TB, lines ...string) *mosquitto {
	t.Helper()
	tool(t, "mosquitto")
	more := strings.Join(lines, "\n")
	if !strings.Contains(more, "allow_anonymous") {
		more += "\nallow_anonymous true"
	}
	dir := t.TempDir()
	m := &mosquitto{t: t, suback: make(chan struct{}, 100), conf: filepath.Join(dir, "mosquitto.conf")}
	t.Cleanup(m.kill)
	var err error
	for range 5 { // the free port may be taken before mosquitto binds it
		m.addr = freeAddr(t)
		_, port, _ := net.SplitHostPort(m.addr)
		conf := "log_dest stderr\nlog_type all\npersistence true\npersistence_location " + dir + "/\n" +
			"max_queued_messages 0\nlistener " + port + " 127.0.0.1\n" + more + "\n"
		if os.Geteuid() == 0 {
			conf = "user root\n" + conf // else it drops to a user who cannot read dir
		}
		if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if err = m.start(); err == nil {
			return m
		}
	}
	t.Fatal(err)
	return nil
}

// start returns when the broker says that it runs.
func (m *mosquitto) start() error {
	m.t.Helper()
	cmd := exec.Command(tool(m.t, "mosquitto"), "-c", m.conf)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.cmd, m.gone = cmd, make(chan struct{})
	running := make(chan struct{})
	var log strings.Builder
	go func(gone chan struct{}) {
		defer close(gone)
		defer cmd.Wait()
		up := false
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			if up {
				if strings.Contains(sc.Text(), ": Sending SUBACK to ") {
					m.suback <- struct{}{}
				}
				continue
			}
			log.WriteString(sc.Text() + "\n")
			if up = strings.HasSuffix(sc.Text(), " running"); up {
				close(running)
			}
		}
	}(m.gone)
	select {
	case <-running:
		return nil
	case <-m.gone:
		return fmt.Errorf("mosquitto ended at its start:\n%s", log.String())
	case <-time.After(patience):
		m.kill()
		return fmt.Errorf("mosquitto does not start within %v", patience)
	}
}

// shutDown ends the broker so that it saves its sessions.
func (m *mosquitto) shutDown() {
	m.t.Helper()
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.gone:
	case <-time.After(patience):
		m.kill()
		m.t.Error("mosquitto did not end on SIGTERM")
	}
}

func (m *mosquitto) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		<-m.gone
	}
}

func (m *mosquitto) config() Config {
	return Config{URL: "mqtt://" + m.addr, Gateway: "gw-17"}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// subscriber is a mosquitto_sub with a persistent session at QoS 1.
type subscriber struct {
	payloads chan string
}

// subscribe returns when the broker has granted the subscription.
func subscribe(t testing.TB, m *mosquitto, topic string) *subscriber {
	t.Helper()
	host, port, _ := net.SplitHostPort(m.addr)
	cmd := exec.Command(tool(t, "mosquitto_sub"), "-h", host, "-p", port,
		"-i", "subscriber", "-c", "-q", "1", "-t", topic, "-F", "MESSAGE %r %t %p")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &subscriber{payloads: make(chan string, 1<<16)}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cmd.Wait()
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			if p, ok := strings.CutPrefix(sc.Text(), "MESSAGE "); ok {
				s.payloads <- p
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-gone
	})
	select {
	case <-m.suback:
	case <-gone:
		t.Fatal("mosquitto_sub ended before its subscription")
	case <-time.After(patience):
		t.Fatal("mosquitto_sub got no subscription")
	}
	return s
}

// want reads until n different messages have come and returns how many came twice
// or more; what arrives is checked by ok.
func (s *subscriber) want(t *testing.T, n int, ok func(string) bool) (duplicates int) {
	t.Helper()
	seen := map[string]bool{}
	for deadline := time.After(patience); len(seen) < n; {
		select {
		case p := <-s.payloads:
			if !ok(p) {
				t.Fatalf("unexpected message %q", p)
			}
			if seen[p] {
				duplicates++
			}
			seen[p] = true
		case <-deadline:
			t.Fatalf("%d of %d messages arrived", len(seen), n)
		}
	}
	return duplicates
}

// fakeBroker serves each connection with one of the scripts, in turn.
func fakeBroker(t *testing.T, scripts ...func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, script := range scripts {
			c, err := l.Accept()
			if err != nil {
				return
			}
			script(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return l.Addr().String()
}

// untilClosed reads and ignores.
func untilClosed(c net.Conn) { io.Copy(io.Discard, c) }

// connack reads the CONNECT and answers it.
func connack(c net.Conn, code byte) {
	if p, err := packets.ReadPacket(c); err == nil && p != nil {
		ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
		ack.ReturnCode = code
		ack.Write(c)
	}
}

// readPublish returns nil when the connection ends.
func readPublish(c net.Conn) *packets.PublishPacket {
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return nil
		}
		if pub, ok := p.(*packets.PublishPacket); ok {
			return pub
		}
	}
}

func puback(c net.Conn, id uint16) {
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = id
	ack.Write(c)
}

// mustDial connects with timing tm; the client is closed at the end of the test.
func mustDial(t testing.TB, config Config, tm timing) *Client {
	t.Helper()
	c, err := dialWith(config, tm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c.Close(ctx)
	})
	return c
}

func dialWith(config Config, tm timing) (*Client, error) {
	tg, err := config.resolve(func(string) string { return "" })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return dial(ctx, config, tg, tm)
}

// pki is a certificate authority in a directory.
type pki struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir()}
	p.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return p
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// issue writes <name>.crt and <name>.key, valid for a day unless template says
// otherwise. The first certificate is the authority's own.
func (p *pki) issue(name string, template *x509.Certificate) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	if p.cert == nil {
		p.cert, p.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, &key.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	if template.IsCA {
		if p.cert, err = x509.ParseCertificate(der); err != nil {
			p.t.Fatal(err)
		}
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(p.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pki) issueServer(name string, template x509.Certificate) {
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	p.issue(name, &template)
}

// listener returns mosquitto's lines for TLS with the named certificate.
func (p *pki) listener(name string, more ...string) []string {
	return append([]string{
		"cafile " + p.path("ca.crt"), "certfile " + p.path(name+".crt"), "keyfile " + p.path(name+".key"),
	}, more...)
}
