package mqtt

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func noEnv(string) string { return "" }

func TestURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]struct {
		addr, url string
		tls       bool
		err       string
	}{
		"mqtt://broker":                {addr: "broker:1883"},
		"tcp://broker:1884":            {addr: "broker:1884"},
		"MQTT://broker/":               {addr: "broker:1883"},
		"mqtts://broker":               {addr: "broker:8883", tls: true},
		"ssl://10.0.0.1":               {addr: "10.0.0.1:8883", tls: true},
		"tls://[2001:db8::1]":          {addr: "[2001:db8::1]:8883", tls: true},
		"mqtt://[fe80::1%25eth0]:99":   {addr: "[fe80::1%eth0]:99"},
		"ws://broker":                  {addr: "broker:80", url: "ws://broker:80/mqtt"},
		"wss://u:p@broker/x?y=1":       {addr: "broker:443", url: "wss://broker:443/x?y=1", tls: true},
		"":                             {err: "empty MQTT URL"},
		"broker:1883":                  {err: "has no scheme: write mqtt://broker:1883"},
		"u:secret@broker":              {err: `"…@broker" has no scheme: write mqtt://broker`},
		"http://broker":                {err: `unknown scheme "http": use mqtt, mqtts`},
		"mqtt://":                      {err: "has no host"},
		"mqtt://:1883":                 {err: "has no host"},
		"mqtt://broker:0":              {err: "port 0 is not from 1 to 65535"},
		"mqtt://broker:70000":          {err: "port 70000 is not from 1 to 65535"},
		"mqtt://broker/topic":          {err: "--mqtt-topic-prefix"},
		"mqtt://broker:x":              {err: "invalid port"},
		"mqtt://u:sec%ret@broker:1883": {err: "escape special characters"},
	} {
		c := Config{URLs: []string{raw}, Gateway: "g"}
		targets, err := c.resolve(noEnv, nil)
		if want.err != "" {
			if err == nil || !strings.Contains(err.Error(), want.err) {
				t.Errorf("%q: error %v, want %q", raw, err, want.err)
			} else if strings.Contains(err.Error(), "sec") {
				t.Errorf("%q: the error shows the password: %v", raw, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		if tg := targets[0]; tg.addr != want.addr || (tg.tls != nil) != want.tls || want.url != "" && tg.url.String() != want.url {
			t.Errorf("%q: %+v", raw, tg)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("file's own \r\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{EnvUsername: "eu", EnvPassword: "ep"}
	systemd, empty, broken := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{systemd: "sp\n", empty: "\n"} {
		if err := os.WriteFile(filepath.Join(dir, Credential), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(broken, Credential), 0o700); err != nil {
		t.Fatal(err)
	}
	with := func(dir string) map[string]string {
		return map[string]string{EnvUsername: "eu", EnvCredentials: dir}
	}
	for name, tt := range map[string]struct {
		config             Config
		env                map[string]string
		username, password string
		err                string
	}{
		"none":                     {},
		"environment":              {env: env, username: "eu", password: "ep"},
		"URL over environment":     {config: Config{URLs: []string{"mqtt://u%40x:p%3A@h"}}, env: env, username: "u@x", password: "p:"},
		"user in URL, rest in env": {config: Config{URLs: []string{"mqtt://u@h"}}, env: env, username: "u", password: "ep"},
		"file over all":            {config: Config{URLs: []string{"mqtt://u:p@h"}, Username: "n", PasswordFile: file}, env: env, username: "n", password: "file's own "},
		"password alone":           {env: map[string]string{EnvPassword: "p"}, err: "password without a user name"},
		"systemd's":                {env: with(systemd), username: "eu", password: "sp"},
		"systemd's, empty":         {env: map[string]string{EnvCredentials: empty}},
		"systemd's, none":          {env: with(t.TempDir()), username: "eu"},
		"systemd's, a directory":   {env: with(broken), err: "read the MQTT password from systemd"},
		"systemd's without a user": {env: map[string]string{EnvCredentials: systemd}, err: "password without a user name"},
		"environment over systemd's": {env: map[string]string{EnvUsername: "eu", EnvPassword: "ep", EnvCredentials: systemd},
			username: "eu", password: "ep"},
		"URL over systemd's":  {config: Config{URLs: []string{"mqtt://u:p@h"}}, env: with(systemd), username: "u", password: "p"},
		"file over systemd's": {config: Config{PasswordFile: file}, env: with(broken), username: "eu", password: "file's own "},
		"no such file":        {config: Config{Username: "n", PasswordFile: file + "x"}, err: "no such file"},
		"empty file":          {config: Config{Username: "n", PasswordFile: os.DevNull}, err: "first line is empty"},
	} {
		c := tt.config
		c.Gateway = "g"
		if c.URLs == nil {
			c.URLs = []string{"mqtt://h"}
		}
		targets, err := c.resolve(func(k string) string { return tt.env[k] }, nil)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case targets[0].username != tt.username || targets[0].password != tt.password:
			t.Errorf("%s: %q, %q", name, targets[0].username, targets[0].password)
		}
	}
}

func TestValidateJoinsAllMistakes(t *testing.T) {
	t.Parallel()
	c := Config{
		URLs: []string{"mqtt://broker"}, Gateway: "a/b", TopicPrefix: "$x//y", CAFile: "/nowhere/ca", CertFile: "/nowhere/crt",
		ClientID: "\xff", KeepAlive: time.Millisecond, ConnectTimeout: -1, InFlight: 1 << 20,
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"clear text: write mqtts://", "read MQTT CA file", "belong together", `gateway name "a/b" must not contain '/'`,
		"empty level", "starting with $", "client id must be", "keepalive 1ms", "connect timeout", "in flight 1048576",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	for _, gateway := range []string{"", "a+", "#", "a\x00", "a\n", "\xff"} {
		if err := (&Config{URLs: []string{"mqtt://h"}, Gateway: gateway}).Validate(); err == nil {
			t.Errorf("gateway %q accepted", gateway)
		}
	}
	if err := (&Config{URLs: []string{"mqtt://h"}, Gateway: "Küche 1", TopicPrefix: "site/picket"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestTopicAndFlags(t *testing.T) {
	t.Parallel()
	var c Config
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := fs.Parse([]string{"--mqtt", "mqtt://h", "--mqtt-keepalive", "5s"}); err != nil {
		t.Fatal(err)
	}
	c.Gateway = "gw-17"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := c.Topic(TopicEvent); got != "picket/gw-17/event" || c.KeepAlive != 5*time.Second {
		t.Errorf("Topic = %q, KeepAlive = %v", got, c.KeepAlive)
	}
	if got := (&Config{Gateway: "g"}).Topic("status"); got != "picket/g/status" {
		t.Errorf("Topic = %q", got)
	}
}

// What no broker on this machine gives.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	c := Config{URLs: []string{"mqtt://broker.example"}, Gateway: "g"}
	targets, err := c.resolve(noEnv, nil)
	if err != nil {
		t.Fatal(err)
	}
	tg := targets[0]
	early := &x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"unknown host":    {&net.DNSError{Name: "broker.example", IsNotFound: true}, `unknown host "broker.example": correct the name`},
		"no name server":  {&net.DNSError{Name: "broker.example", Err: "server misbehaving"}, "check the network and its name server"},
		"no route":        {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no route to the host"},
		"clock is behind": {x509.CertificateInvalidError{Cert: early, Reason: x509.Expired}, "not valid before"},
		"timeout":         {context.DeadlineExceeded, "no answer within 2s: check address, port and firewall"},
		"reset":           {syscall.ECONNRESET, "closed the connection"},
		"other":           {errors.New("first\nsecond"), "broker.example:1883: first second"},
	} {
		got := explain(tg, false, 2*time.Second, tt.err)
		if !strings.Contains(got.Error(), tt.want) || !errors.Is(got, tt.err) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if err := lostError(tg, io.EOF); !errors.Is(err, errLost) || !strings.Contains(err.Error(), "closed by the broker") {
		t.Error(err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := backoff{min: 100, max: 1000}
	for _, limit := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		if d := b.delay(); d < limit/2 || d > limit {
			t.Errorf("delay %d, want from %d to %d", d, limit/2, limit)
		}
	}
}
