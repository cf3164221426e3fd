package mqtt

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

var (
	// ErrClosed is returned by Publish after Close.
	ErrClosed = errors.New("client is closed")
	// ErrOffline is returned by Publish at QoS 0 while there is no connection.
	ErrOffline = errors.New("not connected to the broker")
)

var (
	errNoAck  = errors.New("the broker stopped acknowledging")
	errLost   = errors.New("connection lost")
	errNotYet = errors.New("not connected yet")
	errPoison = errors.New("the broker closes the connection at this message, but takes others")
)

// tlsError is a failure of the TLS handshake.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// connectError says in one line what went wrong and what to do about it; the
// cause below it is for errors.Is and errors.As.
type connectError struct {
	text  string
	cause string // text without what differs from one attempt to the next
	err   error
}

func (e *connectError) Error() string { return e.text }
func (e *connectError) Unwrap() error { return e.err }

// attemptErrors are those of one attempt at each of several brokers, nil: none.
type attemptErrors []error

func (e attemptErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e attemptErrors) Unwrap() []error { return e }

// causeOf is the same text for the same trouble.
func causeOf(err error) string {
	if e := (*connectError)(nil); errors.As(err, &e) {
		return e.cause
	}
	return err.Error()
}

// plain leaves out of a network error its addresses, since this end's port differs each time.
func plain(err error) string {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		return e.Op + ": " + e.Err.Error()
	}
	return err.Error()
}

// explain turns the error of an attempt to connect into one for a person.
// accepted: the broker's side had taken the connection, TLS included.
func explain(t *target, accepted bool, waited time.Duration, err error) error {
	what, hint := diagnose(t, accepted, waited, time.Now(), err)
	cause := strings.ReplaceAll("connect to MQTT broker "+t.addr+": "+what, "\n", " ")
	text := cause
	if hint != "" {
		text += ": " + hint
	}
	return &connectError{text, cause, err}
}

func diagnose(t *target, accepted bool, waited time.Duration, now time.Time, err error) (what, hint string) {
	var (
		dns       *net.DNSError
		host      x509.HostnameError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		handshake *tlsError
		netError  net.Error
		is        = func(target error) bool { return errors.Is(err, target) }
		says      = func(s string) bool { return strings.Contains(err.Error(), s) }
	)
	inHandshake := errors.As(err, &handshake)
	switch {
	case is(context.Canceled):
		return "cancelled", ""

	case is(packets.ErrorRefusedBadProtocolVersion):
		return "MQTT 3.1.1 refused (CONNACK code 1)", "let the broker accept MQTT 3.1.1"
	case is(packets.ErrorRefusedIDRejected):
		return fmt.Sprintf("client id %q refused (CONNACK code 2)", t.clientID), "choose one with --mqtt-client-id"
	case is(packets.ErrorRefusedServerUnavailable):
		return "service unavailable (CONNACK code 3)", "try again later"
	case is(packets.ErrorRefusedBadUsernameOrPassword), is(packets.ErrorRefusedNotAuthorised):
		code := 4
		if is(packets.ErrorRefusedNotAuthorised) {
			code = 5
		}
		if t.username == "" {
			return fmt.Sprintf("refused without user name and password (CONNACK code %d)", code),
				"set " + EnvUsername + " and " + EnvPassword + ", or --mqtt-username and --mqtt-password-file"
		}
		return fmt.Sprintf("user %q refused (CONNACK code %d)", t.username, code), "check the user name, the password and the broker's access list"
	case is(errUnknownCode):
		return err.Error(), "read the broker's log"

	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		clock := "set this device's clock, which says " + now.UTC().Format(time.DateTime) + " UTC"
		if now.Before(invalid.Cert.NotBefore) {
			return "the broker's certificate is not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateTime) + " UTC", clock
		}
		return "the broker's certificate expired on " + invalid.Cert.NotAfter.UTC().Format(time.DateTime) + " UTC", "renew it, or " + clock
	case errors.As(err, &unknown):
		if t.tls != nil && t.tls.RootCAs != nil {
			return "the broker's certificate is not signed by an authority in --mqtt-ca-file", "give the file of the authority that signed it"
		}
		return "the broker's certificate is signed by an unknown authority", "give that authority's certificate with --mqtt-ca-file"
	case errors.As(err, &host):
		return "the broker's certificate is for another name (" + host.Error() + ")", "use a name of the certificate in the URL"
	case errors.As(err, &invalid):
		return "the broker's certificate is not acceptable (" + invalid.Error() + ")", "issue it anew"
	case says("first record does not look like a TLS handshake"), inHandshake && closedByPeer(err):
		return "no TLS on this port", "write mqtt:// or the port for TLS, usually 8883"
	case says("tls: certificate required"),
		t.tls != nil && len(t.tls.Certificates) == 0 && (says("tls: bad certificate") || says("tls: handshake failure")):
		return "the broker wants a client certificate", "give --mqtt-cert-file and --mqtt-key-file"
	case says("remote error: tls: "):
		_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ")
		return "the broker refused TLS (" + alert + ")", "check --mqtt-cert-file, its date and its authority, and the broker's log"

	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("unknown host %q", dns.Name), "correct the name in the URL"
	case errors.As(err, &dns):
		return fmt.Sprintf("cannot look up host %q (%s)", dns.Name, dns.Err), "check the network and its name server"
	case is(syscall.ECONNREFUSED):
		return "connection refused", "start the broker, or correct host and port in the URL"
	case is(syscall.EHOSTUNREACH), is(syscall.ENETUNREACH):
		return "no route to the host", "check the network and the address in the URL"
	case is(context.DeadlineExceeded), is(os.ErrDeadlineExceeded), errors.As(err, &netError) && netError.Timeout():
		if accepted {
			return fmt.Sprintf("connected, but no MQTT answer within %v", waited.Round(100*time.Millisecond)), "check that this port is an MQTT broker's"
		}
		if inHandshake {
			return fmt.Sprintf("connected, but no TLS answer within %v", waited.Round(100*time.Millisecond)), "check that this port speaks TLS"
		}
		return fmt.Sprintf("no answer within %v", waited.Round(100*time.Millisecond)), "check address, port and firewall, or raise --mqtt-connect-timeout"
	case says("websocket: bad handshake"):
		return "the server does not speak MQTT over WebSocket at " + t.url.Path, "correct port and path in the URL"
	case closedByPeer(err):
		switch {
		case t.tls == nil:
			return "the broker closed the connection without an answer", "check that this port is an MQTT broker's; if it is one for TLS, write mqtts://"
		case len(t.tls.Certificates) == 0:
			return "the broker closed the connection without an answer", "it may want a client certificate: --mqtt-cert-file and --mqtt-key-file"
		}
		return "the broker closed the connection without an answer", "check that it accepts this client's certificate"
	}
	return strings.TrimPrefix(plain(err), packets.ErrorNetworkError.Error()+" : "), ""
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
