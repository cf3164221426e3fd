package mqtt

import (
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
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/picket-ids/picket/internal/brokertest"
)

const patience = brokertest.Patience

// fast reconnects within milliseconds.
var fast = timing{
	backoffMin: 5 * time.Millisecond,
	backoffMax: 100 * time.Millisecond,
	ack:        patience,
	write:      time.Second,
	settle:     50 * time.Millisecond,
	spread:     5 * time.Millisecond,
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

func config(m *brokertest.Mosquitto) Config {
	return Config{URLs: []string{"mqtt://" + m.Addr}, Gateway: "gw-17"}
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
	targets, err := config.resolve(noEnv, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return dial(ctx, config, targets, tm)
}

// pki is a certificate authority in a directory.
type pki struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t testing.TB) *pki {
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
