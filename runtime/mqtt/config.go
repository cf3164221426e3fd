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
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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

// EnvCredentials names the directory in which systemd passes files to a service (LoadCredential=, systemd.exec(5)),
// Credential the file of it whose first line is the password.
const (
	EnvCredentials = "CREDENTIALS_DIRECTORY"
	Credential     = "mqtt-password"
)

// The kinds of topic; Config.Topic completes them.
const (
	TopicStatus  = "status"  // QoS 1, retained, and the will: Online or Offline
	TopicInfo    = "info"    // QoS 1, retained: version, models, interfaces, thresholds
	TopicEvent   = "event"   // QoS 1
	TopicProblem = "problem" // QoS 1, retained: ON while an incident is open, else OFF
	TopicHealth  = "health"  // QoS 0: counters
)

// The payloads of TopicStatus.
const (
	Online  = "online"
	Offline = "offline"
)

const (
	defaultPrefix         = "picket"
	defaultKeepAlive      = 60 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultInFlight       = 256
	maxInFlight           = 16384               // a quarter of MQTT's 65,535 packet identifiers
	maxKeepAlive          = 65535 * time.Second // MQTT 3.1.1, section 3.1.2.10
	maxString             = 65535               // octets of an MQTT string; paho cuts longer ones off silently
)

// Config says which brokers to publish to, and as whom. A zero field means its
// default; URLs and Gateway have none.
type Config struct {
	// URLs are scheme://[user[:password]@]host[:port] of one broker or of the nodes
	// of a cluster, tried in turn; when a connection is lost, the next of them is.
	// The schemes mqtt and tcp (port 1883) and ws (80) are clear text; mqtts, ssl and tls
	// (8883) and wss (443) are TLS 1.2 or newer. WebSocket URLs may have a path, else it is /mqtt.
	URLs []string

	// Credentials: Username wins over the URL's, which wins over EnvUsername; the
	// first line of PasswordFile wins over the URL's, which wins over EnvPassword, which
	// wins over that of the file Credential in the directory EnvCredentials.
	// A password in a URL of the command line is refused.
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
	// with the same one. Default: "picket-<gateway>-<random>", new at each Dial or Start.
	ClientID string

	KeepAlive      time.Duration // silence after which the broker is probed (BenchmarkIdle says what it costs); default 60 s
	ConnectTimeout time.Duration // for name, TCP, TLS and CONNACK together; default 10 s
	InFlight       int           // messages accepted and not yet acknowledged; default 256

	// Will is what the broker publishes when the connection ends without a farewell. With
	// Birth, the client subscribes to its topic: a will that arrives late is answered with
	// Birth's message to that topic.
	Will *Message
	// Birth returns what is published at each new connection before what is pending,
	// and by Client.Announce. It is called from a goroutine of the client: it must
	// not block, nor call Publish or Close. Its Messages' Dropped is not called.
	Birth func() []Message
	// Farewell is what Close publishes last, since a DISCONNECT discards the will.
	Farewell []Message
	// Subscribe maps topic filters to what to call with their messages, one at a time,
	// from a goroutine of the client: it must not block, nor call Publish or Close.
	// retained is true for what the broker had kept before the subscription, which
	// is made anew at each connection.
	Subscribe map[string]func(topic string, payload []byte, retained bool)
	// HomeAssistant, when not nil, announces the gateway to Home Assistant: with Birth's
	// messages, and again when Home Assistant comes up.
	HomeAssistant *HomeAssistant

	// OnConnect is told the two ends of each TCP connection: on Linux before its
	// first packet, and again in case the system chose another local address than
	// foreseen; elsewhere once it stands. It may be called by several goroutines.
	OnConnect func(local, remote netip.AddrPort)

	Logger *slog.Logger // one line per change of connection and cause; nil: silent
}

// AddFlags adds a flag for each field that a person sets and only MQTT needs.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&c.URLs, "mqtt", c.URLs, "publish events to this broker: mqtt[s]://[user@]host[:port] or ws[s]://host/path; may be given again for the nodes of a cluster, of which one is used at a time (none: do not publish)")
	fs.StringVar(&c.Username, "mqtt-username", c.Username, "user name at the broker (empty: the URL's, or $"+EnvUsername+")")
	fs.StringVar(&c.PasswordFile, "mqtt-password-file", c.PasswordFile, "file whose first line is the password (empty: the URL's, $"+EnvPassword+", or systemd's credential "+Credential+")")
	fs.StringVar(&c.CAFile, "mqtt-ca-file", c.CAFile, "PEM file of the authorities that may sign the broker's certificate (empty: the system's)")
	fs.StringVar(&c.CertFile, "mqtt-cert-file", c.CertFile, "PEM file of this client's certificate (empty: none)")
	fs.StringVar(&c.KeyFile, "mqtt-key-file", c.KeyFile, "PEM file of the key of --mqtt-cert-file (empty: none)")
	fs.StringVar(&c.TopicPrefix, "mqtt-topic-prefix", cmp.Or(c.TopicPrefix, defaultPrefix), "topics are <prefix>/<gateway>/event and so on")
	fs.StringVar(&c.ClientID, "mqtt-client-id", c.ClientID, "client identifier, unique on the broker (empty: picket-<gateway>-<random>)")
	fs.DurationVar(&c.KeepAlive, "mqtt-keepalive", cmp.Or(c.KeepAlive, defaultKeepAlive), "silence after which the broker is probed; at 60s an idle connection costs 10 kB an hour, 12 kB with TLS (0: 60s)")
	fs.DurationVar(&c.ConnectTimeout, "mqtt-connect-timeout", cmp.Or(c.ConnectTimeout, defaultConnectTimeout), "limit for connecting to the broker, its answer included (0: 10s)")
}

// Topic returns "<prefix>/<gateway>/<kind>".
func (c *Config) Topic(kind string) string {
	return cmp.Or(c.TopicPrefix, defaultPrefix) + "/" + c.Gateway + "/" + kind
}

// Validate reads the files that c names and returns every mistake it finds,
// joined. It does not touch the network.
func (c *Config) Validate() error {
	_, err := c.resolve(os.Getenv, os.Args)
	return err
}

// target is one broker of a Config, made ready to connect to.
type target struct {
	url                *url.URL // without user and password
	addr               string   // host:port
	tls                *tls.Config
	username, password string
	clientID           string
	keepAlive          time.Duration
	connectTimeout     time.Duration
	will               *Message
	onConnect          func(local, remote netip.AddrPort)
}

func (t *target) webSocket() bool { return t.url.Scheme == "ws" || t.url.Scheme == "wss" }

var schemes = map[string]struct {
	port string
	tls  bool
}{
	"mqtt": {"1883", false}, "tcp": {"1883", false}, "ws": {"80", false},
	"mqtts": {"8883", true}, "ssl": {"8883", true}, "tls": {"8883", true}, "wss": {"443", true},
}

// resolve returns a target for each URL; commandLine is where no password may be.
func (c *Config) resolve(getenv func(string) string, commandLine []string) ([]*target, error) {
	var errs []error
	mistake := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }

	common := target{
		clientID:       cmp.Or(c.ClientID, "picket-"+c.Gateway+"-"+randomHex(4)),
		keepAlive:      cmp.Or(c.KeepAlive, defaultKeepAlive),
		connectTimeout: cmp.Or(c.ConnectTimeout, defaultConnectTimeout),
		will:           c.Will,
		onConnect:      c.OnConnect,
	}
	fromFile, credential := "", ""
	var err error
	if c.PasswordFile != "" {
		fromFile, err = firstLine(c.PasswordFile)
		switch {
		case err != nil:
			mistake("read MQTT password file: %w", err)
		case fromFile == "":
			mistake("MQTT password file %s: its first line is empty", c.PasswordFile)
		}
	} else if dir := getenv(EnvCredentials); dir != "" {
		// The unit passes an empty one while there is no password.
		if credential, err = firstLine(filepath.Join(dir, Credential)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			mistake("read the MQTT password from systemd: %w", err)
		}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
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

	var targets []*target
	if len(c.URLs) == 0 {
		mistake("no MQTT URL: write mqtt://host or mqtts://host")
	}
	for _, raw := range c.URLs {
		u, err := parseURL(raw)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t := common
		t.addr = net.JoinHostPort(u.Hostname(), u.Port())
		bare := *u
		bare.User = nil
		t.url = &bare
		if schemes[u.Scheme].tls {
			t.tls = conf.Clone()
			t.tls.ServerName = u.Hostname()
		} else if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
			mistake("TLS files given but %s:// is clear text: write mqtts:// or wss://", u.Scheme)
		}

		inURL, _ := u.User.Password()
		if inURL != "" && slices.ContainsFunc(commandLine, func(arg string) bool { return strings.Contains(arg, raw) }) {
			mistake("MQTT URL of %s: every user of this machine can read a password on the command line: use --mqtt-password-file or %s", t.addr, EnvPassword)
		}
		t.username = cmp.Or(c.Username, u.User.Username(), getenv(EnvUsername))
		t.password = cmp.Or(fromFile, inURL, getenv(EnvPassword), credential)
		if t.password != "" && t.username == "" {
			mistake("MQTT password without a user name: set --mqtt-username or %s", EnvUsername)
		}
		if len(t.username) > maxString || len(t.password) > maxString {
			mistake("MQTT user name and password must have at most %d octets each", maxString)
		}
		targets = append(targets, &t)
	}

	if err := checkLevel("gateway name", c.Gateway); err != nil {
		errs = append(errs, err)
	}
	for what, topic := range c.topicPrefixes() {
		for level := range strings.SplitSeq(topic, "/") {
			if err := checkLevel(what, level); err != nil {
				errs = append(errs, err)
				break
			}
		}
		if strings.HasPrefix(topic, "$") {
			mistake("%s %q: topics starting with $ belong to the broker", what, topic)
		}
	}
	for filter := range c.Subscribe {
		if err := checkFilter(filter); err != nil {
			errs = append(errs, err)
		}
	}
	for _, m := range c.lastWords() {
		if err := m.check(); err != nil {
			mistake("MQTT will or farewell to %q: %w", m.Topic, err)
		}
	}
	if c.Will != nil && len(c.Will.Payload) > maxString {
		mistake("MQTT will of %d octets: at most %d", len(c.Will.Payload), maxString)
	}

	if id := common.clientID; len(id) > maxString || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		mistake("MQTT client id must be UTF-8 without NUL, at most %d octets", maxString)
	}
	if common.keepAlive < time.Second || common.keepAlive > maxKeepAlive {
		mistake("MQTT keepalive %v: must be from 1s to %v", common.keepAlive, maxKeepAlive)
	}
	if common.connectTimeout < 0 {
		mistake("MQTT connect timeout %v: must not be negative", common.connectTimeout)
	}
	if n := c.inFlight(); n < 1 || n > maxInFlight {
		mistake("MQTT messages in flight %d: must be from 1 to %d", n, maxInFlight)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return targets, nil
}

// firstLine returns the first line of a file, without its end.
func firstLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r"), err
}

func (c *Config) inFlight() int { return cmp.Or(c.InFlight, defaultInFlight) }

// lastWords returns the messages that c itself holds.
func (c *Config) lastWords() []Message {
	if c.Will == nil {
		return c.Farewell
	}
	return append([]Message{*c.Will}, c.Farewell...)
}

func (c *Config) topicPrefixes() map[string]string {
	m := map[string]string{"MQTT topic prefix": cmp.Or(c.TopicPrefix, defaultPrefix)}
	if c.HomeAssistant != nil {
		m["Home Assistant topic prefix"] = c.HomeAssistant.prefix()
	}
	return m
}

// parseURL fills in the default port and path. Its errors never show a password.
func parseURL(raw string) (*url.URL, error) {
	shown := raw
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		shown = "…" + raw[i:]
	}
	switch {
	case raw == "":
		return nil, errors.New("empty MQTT URL: write mqtt://host or mqtts://host")
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

// checkFilter refuses what no broker takes for a topic filter (MQTT 3.1.1, section 4.7.1).
func checkFilter(filter string) error {
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && i < len(levels)-1 {
			return fmt.Errorf("MQTT topic filter %q: + and # stand for whole levels, # for the last ones", filter)
		}
	}
	if filter == "" || len(filter) > maxString || !utf8.ValidString(filter) || strings.ContainsRune(filter, 0) {
		return fmt.Errorf("MQTT topic filter %q must be UTF-8 without NUL, from 1 to %d octets", filter, maxString)
	}
	return nil
}

func randomHex(octets int) string {
	b := make([]byte, octets)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
