package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/brokertest"
	"golang.org/x/sys/unix"
)

// BenchmarkIdle reports what a connection without messages costs in bytes of IP
// packets (20 octets of IP header and 32 of TCP with timestamps each), from the
// kernel's counts of segments.
func BenchmarkIdle(b *testing.B) {
	for _, scheme := range []string{"mqtt", "mqtts"} {
		b.Run(scheme, func(b *testing.B) {
			p := newPKI(b)
			p.issueServer("server", x509.Certificate{})
			var lines []string
			if scheme == "mqtts" {
				lines = p.listener("server")
			}
			config := config(brokertest.Start(b, lines...))
			config.KeepAlive = time.Second
			if scheme == "mqtts" {
				config.URLs[0] = strings.Replace(config.URLs[0], "mqtt:", "mqtts:", 1)
				config.CAFile = p.path("ca.crt")
			}
			c := mustDial(b, config, defaultTiming)
			info := func() *unix.TCPInfo {
				inner := c.session.conn.Conn
				if t, ok := inner.(*tls.Conn); ok {
					inner = t.NetConn()
				}
				raw, err := inner.(*net.TCPConn).SyscallConn()
				if err != nil {
					b.Fatal(err)
				}
				var info *unix.TCPInfo
				if err := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || info == nil {
					b.Fatal(err)
				}
				return info
			}
			probed := func() *unix.TCPInfo {
				now := info()
				for next := now; ; time.Sleep(10 * time.Millisecond) {
					if next = info(); next.Bytes_received > now.Bytes_received {
						time.Sleep(100 * time.Millisecond) // the last acknowledgement
						return info()
					}
				}
			}
			before, n := probed(), uint64(0)
			after := before
			for b.Loop() {
				after = probed()
				n++
			}
			segments := uint64(after.Segs_out-before.Segs_out) + uint64(after.Segs_in-before.Segs_in)
			bytes := segments*52 + after.Bytes_acked - before.Bytes_acked + after.Bytes_received - before.Bytes_received
			b.ReportMetric(float64(bytes)/float64(n), "B/probe")
			b.ReportMetric(float64(bytes)/float64(n)*60, "B/hour")
			b.ReportMetric(0, "ns/op")
		})
	}
}
