// Package mqtt publishes messages to an MQTT 3.1.1 broker, at least once: it
// keeps every message until the broker's PUBACK, across lost connections.
package mqtt

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// Environment variables for credentials, which on a command line every user of
// the machine could read.
const (
	EnvUsername = "PICKET_MQTT_USERNAME"
	EnvPassword = "PICKET_MQTT_PASSWORD"
)

// TopicEvent is the kind of topic that events are published to, at QoS 1.
const TopicEvent = "event"

const (
	defaultPrefix         = "picket"
	defaultKeepAlive      = 30 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultInFlight       = 256
	maxInFlight           = 16384               // a quarter of MQTT's 65,535 packet identifiers
	maxKeepAlive          = 65535 * time.Second // MQTT 3.1.1, section 3.1.2.10
	maxString             = 65535               // octets of an MQTT string; paho cuts longer ones off silently
)

// Config says which broker to publish to, and as whom. A zero field means its
// default; URL and Gateway have none.
type Config struct {
	// URL is scheme://[user[:password]@]host[:port]. The schemes mqtt and tcp
	// (port 1883) and ws (80) are clear text; mqtts, ssl and tls (8883) and wss
	// (443) are TLS 1.2 or newer. WebSocket URLs may have a path, else it is /mqtt.
	URL string

	// Credentials: Username wins over the URL's, which wins over EnvUsername; the
	// first line of PasswordFile wins over the URL's, which wins over EnvPassword.
	Username     string
	PasswordFile string

	// PEM files. With CAFile only its authorities are trusted, without it the
	// system's; CertFile and KeyFile are shown to brokers that ask.
	CAFile   string
	CertFile string
	KeyFile  string

	TopicPrefix string // first level or levels of every topic; default "picket"
	Gateway     string // the topics' second level

	// ClientID must be unique on the broker, which drops the older of two clients
	// with the same one. Default: "picket-<gateway>-<random>", new at each Dial.
	ClientID string

	KeepAlive      time.Duration // silence after which the broker is probed; default 30 s
	ConnectTimeout time.Duration // for name, TCP, TLS and CONNACK together; default 10 s
	InFlight       int           // messages accepted and not yet acknowledged; default 256

	Logger *slog.Logger // one line per change of connection; nil: silent
}

// AddFlags adds flags for all fields but Gateway, which more than MQTT needs,
// InFlight and Logger.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.URL, "mqtt", c.URL, "publish events to this broker: mqtt[s]://[user@]host[:port] or ws[s]://host/path (empty: do not publish)")
	fs.StringVar(&c.Username, "mqtt-username", c.Username, "user name at the broker (empty: the URL's, or $"+EnvUsername+")")
	fs.StringVar(&c.PasswordFile, "mqtt-password-file", c.PasswordFile, "file whose first line is the password (empty: the URL's, or $"+EnvPassword+")")
	fs.StringVar(&c.CAFile, "mqtt-ca-file", c.CAFile, "PEM file of the authorities that may sign the broker's certificate (empty: the system's)")
	fs.StringVar(&c.CertFile, "mqtt-cert-file", c.CertFile, "PEM file of this client's certificate (empty: none)")
	fs.StringVar(&c.KeyFile, "mqtt-key-file", c.KeyFile, "PEM file of the key of --mqtt-cert-file (empty: none)")
	fs.StringVar(&c.TopicPrefix, "mqtt-topic-prefix", cmp.Or(c.TopicPrefix, defaultPrefix), "topics are <prefix>/<gateway>/event and so on")
	fs.StringVar(&c.ClientID, "mqtt-client-id", c.ClientID, "client identifier, unique on the broker (empty: picket-<gateway>-<random>)")
	fs.DurationVar(&c.KeepAlive, "mqtt-keepalive", cmp.Or(c.KeepAlive, defaultKeepAlive), "silence after which the broker is probed (0: 30s)")
	fs.DurationVar(&c.ConnectTimeout, "mqtt-connect-timeout", cmp.Or(c.ConnectTimeout, defaultConnectTimeout), "limit for connecting to the broker, its answer included (0: 10s)")
}

// Topic returns "<prefix>/<gateway>/<kind>".
func (c *Config) Topic(kind string) string {
	return cmp.Or(c.TopicPrefix, defaultPrefix) + "/" + c.Gateway + "/" + kind
}

// Validate reads the files that c names and returns every mistake it finds,
// joined. It does not touch the network.
func (c *Config) Validate() error {
	_, err := c.resolve(os.Getenv)
	return err
}

// target is a Config made ready to connect with.
type target struct {
	url                *url.URL // without user and password
	addr               string   // host:port
	tls                *tls.Config
	username, password string
	clientID           string
	keepAlive          time.Duration
	connectTimeout     time.Duration
	inFlight           int
}

func (t *target) webSocket() bool { return t.url.Scheme == "ws" || t.url.Scheme == "wss" }

var schemes = map[string]struct {
	port string
	tls  bool
}{
	"mqtt": {"1883", false}, "tcp": {"1883", false}, "ws": {"80", false},
	"mqtts": {"8883", true}, "ssl": {"8883", true}, "tls": {"8883", true}, "wss": {"443", true},
}

func (c *Config) resolve(getenv func(string) string) (*target, error) {
	t := &target{
		clientID:       c.ClientID,
		keepAlive:      cmp.Or(c.KeepAlive, defaultKeepAlive),
		connectTimeout: cmp.Or(c.ConnectTimeout, defaultConnectTimeout),
		inFlight:       cmp.Or(c.InFlight, defaultInFlight),
	}
	var errs []error
	mistake := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }

	u, err := parseURL(c.URL)
	if err != nil {
		errs = append(errs, err)
		u = &url.URL{}
	}
	secure := schemes[u.Scheme].tls
	t.addr = net.JoinHostPort(u.Hostname(), u.Port())
	bare := *u
	bare.User = nil
	t.url = &bare

	t.username = cmp.Or(c.Username, u.User.Username(), getenv(EnvUsername))
	inURL, _ := u.User.Password()
	t.password = cmp.Or(inURL, getenv(EnvPassword))
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		line, _, _ := bytes.Cut(b, []byte("\n"))
		t.password = strings.TrimSuffix(string(line), "\r")
		switch {
		case err != nil:
			mistake("read MQTT password file: %w", err)
		case t.password == "":
			mistake("MQTT password file %s: its first line is empty", c.PasswordFile)
		}
	}
	if t.password != "" && t.username == "" {
		mistake("MQTT password without a user name: set --mqtt-username or %s", EnvUsername)
	}
	if len(t.username) > maxString || len(t.password) > maxString {
		mistake("MQTT user name and password must have at most %d octets each", maxString)
	}

	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	if secure {
		t.tls = conf
	} else if err == nil && (c.CAFile != "" || c.CertFile != "" || c.KeyFile != "") {
		mistake("TLS files given but %s:// is clear text: write mqtts:// or wss://", u.Scheme)
	}
	if c.CAFile != "" {
		conf.RootCAs = x509.NewCertPool()
		if pem, err := os.ReadFile(c.CAFile); err != nil {
			mistake("read MQTT CA file: %w", err)
		} else if !conf.RootCAs.AppendCertsFromPEM(pem) {
			mistake("MQTT CA file %s: no PEM certificate in it", c.CAFile)
		}
	}
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		mistake("MQTT client certificate and key belong together: give both --mqtt-cert-file and --mqtt-key-file")
	case c.CertFile != "":
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			mistake("read MQTT client certificate %s and key %s: %w", c.CertFile, c.KeyFile, err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}

	if err := checkLevel("gateway name", c.Gateway); err != nil {
		errs = append(errs, err)
	}
	prefix := cmp.Or(c.TopicPrefix, defaultPrefix)
	for level := range strings.SplitSeq(prefix, "/") {
		if err := checkLevel("MQTT topic prefix", level); err != nil {
			errs = append(errs, err)
			break
		}
	}
	if strings.HasPrefix(prefix, "$") {
		mistake("MQTT topic prefix %q: topics starting with $ belong to the broker", prefix)
	}

	if c.ClientID == "" {
		t.clientID = "picket-" + c.Gateway + "-" + randomHex(4)
	}
	if len(t.clientID) > maxString || !utf8.ValidString(t.clientID) || strings.ContainsRune(t.clientID, 0) {
		mistake("MQTT client id must be UTF-8 without NUL, at most %d octets", maxString)
	}
	if t.keepAlive < time.Second || t.keepAlive > maxKeepAlive {
		mistake("MQTT keepalive %v: must be from 1s to %v", t.keepAlive, maxKeepAlive)
	}
	if t.connectTimeout < 0 {
		mistake("MQTT connect timeout %v: must not be negative", t.connectTimeout)
	}
	if t.inFlight < 1 || t.inFlight > maxInFlight {
		mistake("MQTT messages in flight %d: must be from 1 to %d", t.inFlight, maxInFlight)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// parseURL fills in the default port and path. Its errors never show a password.
func parseURL(raw string) (*url.URL, error) {
	shown := raw
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		shown = "…" + raw[i:]
	}
	switch {
	case raw == "":
		return nil, errors.New("no MQTT URL: write mqtt://host or mqtts://host")
	case !strings.Contains(raw, "://"):
		return nil, fmt.Errorf("MQTT URL %q has no scheme: write mqtt://%s", shown, strings.TrimPrefix(shown, "…@"))
	}
	u, err := url.Parse(raw)
	if err != nil {
		// url.Error repeats the URL, and its causes quote the part that holds the password.
		if shown != raw {
			return nil, fmt.Errorf("MQTT URL %q: malformed; escape special characters of user and password as %%XX", shown)
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("MQTT URL %q: %w", shown, err)
	}
	s, ok := schemes[u.Scheme]
	web := u.Scheme == "ws" || u.Scheme == "wss"
	switch {
	case !ok:
		return nil, fmt.Errorf("MQTT URL %q: unknown scheme %q: use mqtt, mqtts, tcp, ssl, tls, ws or wss", shown, u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("MQTT URL %q has no host: write %s://host", shown, u.Scheme)
	case !web && (u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != ""):
		return nil, fmt.Errorf("MQTT URL %q: nothing may follow host and port: topics are set by --mqtt-topic-prefix", shown)
	}
	switch port := u.Port(); {
	case port == "":
		u.Host = net.JoinHostPort(u.Hostname(), s.port)
	default:
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("MQTT URL %q: port %s is not from 1 to 65535", shown, port)
		}
	}
	if web && (u.Path == "" || u.Path == "/") {
		u.Path = "/mqtt" // where EMQX, HiveMQ, VerneMQ and AWS listen; mosquitto takes any
	}
	return u, nil
}

// checkLevel refuses what cannot stand as one level of a topic to publish to
// (MQTT 3.1.1, section 4.7).
func checkLevel(what, s string) error {
	if s == "" {
		return fmt.Errorf("%s is empty or has an empty level: set it", what)
	}
	if len(s) > 1024 {
		return fmt.Errorf("%s has %d octets: at most 1024", what, len(s))
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s %q is not UTF-8", what, s)
	}
	for _, r := range s {
		if r == '/' || r == '+' || r == '#' || unicode.IsControl(r) {
			return fmt.Errorf("%s %q must not contain %q: use letters, digits, '-' and '_'", what, s, r)
		}
	}
	return nil
}

func randomHex(octets int) string {
	b := make([]byte, octets)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
