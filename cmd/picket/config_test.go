package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/spool"
)

// chatty is a flag that repeats in its errors what it was given, which is never right.
type chatty struct{}

func (chatty) String() string { return "" }
func (chatty) Type() string   { return "url" }
func (chatty) Set(s string) error {
	if s == "" {
		return nil
	}
	return fmt.Errorf("cannot parse %s", s)
}

// gatewayFlags returns flags of every kind that verbs have, parsed from args.
func gatewayFlags(t testing.TB, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.String("config", "", "file that says what flags say")
	fs.Bool("check", false, "read the configuration and leave")
	fs.StringArrayP("interface", "i", nil, "interface to watch; may be repeated")
	fs.StringArrayP("model", "m", []string{"nslkdd-xgboost"}, "model to score with: a file, or a bundled one by name, "+
		"which is a sentence so long that it goes on in the line below; may be repeated")
	fs.StringSlice("mqtt", nil, "brokers")
	fs.IntSlice("core", nil, "cores to run on")
	fs.String("filter", "", "tcpdump `expression`")
	fs.String("mqtt-topic-prefix", "picket", "first level of topics")
	fs.Int("max-connections", 32768, "connections tracked")
	fs.Int64("queue-max-bytes", 64<<20, "the queue's")
	fs.Uint16("port", 0, "to listen on")
	fs.Float64("threshold", 0, "score")
	fs.Duration("mqtt-keepalive", 30*time.Second, "probe the broker")
	fs.Bool("homeassistant", false, "announce to Home Assistant")
	var sync spool.Sync
	fs.Var(&sync, "sync", "when to fsync")
	fs.Var(chatty{}, "proxy", "URL")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

// settings writes the flags that are Changed.
func settings(fs *pflag.FlagSet) string {
	var all []string
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			all = append(all, fmt.Sprintf("%s=%q", f.Name, flagValues(f)))
		}
	})
	return strings.Join(all, " ")
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name, file, args, want string
	}{
		{"nothing", "", "", ``},
		{"text", `filter = "not port 22"`, "", `filter=["not port 22"]`},
		{"text in single quotes", `filter = 'not port 22'`, "", `filter=["not port 22"]`},
		{"text with escapes", `filter = "\u00e9\t\"\\"`, "", `filter=["é\t\"\\"]`},
		{"key in quotes", `"filter" = "tcp"`, "", `filter=["tcp"]`},
		{"list", `interface = ["eth0", "wwan0"]`, "", `interface=["eth0" "wwan0"]`},
		{"list in lines", "interface = [\n  'eth0', # LAN\n  'wwan0',\n]\n", "", `interface=["eth0" "wwan0"]`},
		{"list of one, without brackets", `interface = "eth0"`, "", `interface=["eth0"]`},
		{"list with commas inside", `mqtt = ["a,b", 'c"d']`, "", `mqtt=["a,b" "c\"d"]`},
		{"list replaces the default", `model = ["site.onnx"]`, "", `model=["site.onnx"]`},
		{"empty list", `model = []`, "", `model=[]`},
		{"list of numbers", `core = [0, 0x2]`, "", `core=["0" "2"]`},
		{"whole numbers", "max-connections = 10_000\nqueue-max-bytes = 0x100000\nport = +8080", "", `max-connections=["10000"] queue-max-bytes=["1048576"] port=["8080"]`},
		{"number", "threshold = 0.7_5", "", `threshold=["0.75"]`},
		{"whole number for a number", "threshold = 1", "", `threshold=["1"]`},
		{"duration", `mqtt-keepalive = "60s"`, "", `mqtt-keepalive=["1m0s"]`},
		{"true", "homeassistant = true", "", `homeassistant=["true"]`},
		{"false", "homeassistant = false", "", `homeassistant=["false"]`},
		{"a flag's own type", `sync = "1s"`, "", `sync=["1s"]`},
		{"command line wins", `filter = "tcp"`, "--filter=udp", `filter=["udp"]`},
		{"command line wins with the default", "max-connections = 10", "--max-connections=32768", `max-connections=["32768"]`},
		{"command line wins over a list", `interface = ["eth0", "wwan0"]`, "-i lo", `interface=["lo"]`},
		{"command line and file", "homeassistant = true", "-i lo", `interface=["lo"] homeassistant=["true"]`},
		{"lines of Windows", "filter = 'tcp'\r\nport = 1\r\n", "", `filter=["tcp"] port=["1"]`},
		{"byte order mark", "\ufefffilter = 'tcp'", "", `filter=["tcp"]`},
	}
	for _, test := range tests {
		fs := gatewayFlags(t, strings.Fields(test.args)...)
		if _, err := parseConfig("picket.toml", []byte(test.file), fs); err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if got := settings(fs); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestConfigSuppressions(t *testing.T) {
	const file = `
interface = "eth0"

[[suppress]]
reason = "nightly inventory scan"
until = 2026-12-31T18:00:00+01:00
source = "10.0.0.5"
port = [22, 2222]
protocol = "tcp"

[[suppress]] # cameras
reason = "firmware of 2019"
until = 2026-12-31
source = "10.0.8.0/24"
destination = "2001:db8::/32"
port = 443
model = "nslkdd-autoencoder"

[[suppress]]
reason = 'neighbour'
until = 2026-12-31 18:00:00.5z
source = "fd00::7"
`
	fs := gatewayFlags(t)
	got, err := parseConfig("picket.toml", []byte(file), fs)
	if err != nil {
		t.Fatal(err)
	}
	want := []detect.Suppression{
		{Reason: "nightly inventory scan", Until: time.Date(2026, 12, 31, 17, 0, 0, 0, time.UTC),
			Source: netip.MustParsePrefix("10.0.0.5/32"), Ports: []uint16{22, 2222}, Protocol: "tcp"},
		{Reason: "firmware of 2019", Until: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC),
			Source: netip.MustParsePrefix("10.0.8.0/24"), Destination: netip.MustParsePrefix("2001:db8::/32"),
			Ports: []uint16{443}, Model: "nslkdd-autoencoder"},
		{Reason: "neighbour", Until: time.Date(2026, 12, 31, 18, 0, 0, 5e8, time.UTC), Source: netip.MustParsePrefix("fd00::7/128")},
	}
	for i := range got.Suppress {
		got.Suppress[i].Until = got.Suppress[i].Until.UTC()
	}
	if !reflect.DeepEqual(got.Suppress, want) {
		t.Errorf("got  %+v\nwant %+v", got.Suppress, want)
	}
	if settings(fs) != `interface=["eth0"]` {
		t.Error(settings(fs))
	}
}

func TestConfigMistakes(t *testing.T) {
	const suppress = "[[suppress]]\nreason = \"x\"\nuntil = 2026-12-31\n"
	tests := []struct {
		name, file string
		want       []string // each line of the error, as a regular expression
	}{
		{"misspelt key", "\nmax-conections = 1", []string{`:2: no key max-conections: did you mean max-connections\?`}},
		{"underscore", "max_connections = 1", []string{`:1: no key max_connections: did you mean max-connections\?`}},
		{"letter of a flag", `i = "eth0"`, []string{`:1: no key i: write interface`}},
		{"unheard-of key", `colour = "red"`, []string{`:1: no key colour: keys are the flags of picket run --help, without dashes in front`}},
		{"key for the command line", "check = true\nconfig = 'b.toml'", []string{`:1: check is for the command line only: remove it`, `:2: config is for`}},
		{"key with dots", `mqtt.keepalive = "1s"`, []string{`:1: no key mqtt.keepalive: did you mean mqtt-keepalive\?`}},
		{"key with escapes", `"\u001b[2J" = 1`, []string{`:1: no key "\\x1b\[2J": `}},
		{"long key", strings.Repeat("k", 5000) + " = 1", []string{`:1: no key k{64}…: keys are`}},
		{"table", "filter = 'tcp'\n[mqtt]\nkeepalive = 'x'\nkeepalive = 'y'", []string{`:2: no table mqtt: flags stand above the first table, only suppressions are tables: \[\[suppress\]\]`}},
		{"tables", "[[mqtt]]\nurl = 'x'", []string{`:1: no table mqtt: `}},
		{"the same twice", "port = 1\n\nport = 1", []string{`:3: port stands in line 1 already: remove one; several values are a list, port = \["a", "b"\]`}},
		{"the same twice in quotes", "port = 1\n'port' = 2", []string{`:2: port stands in line 1 already`}},
		{"number for text", "filter = 5", []string{`:1: filter wants text in quotes, not a whole number: write filter = "…"`}},
		{"text for a number", `max-connections = "many"`, []string{`:1: max-connections wants a whole number, not text in quotes: write max-connections = 32768`}},
		{"fraction for a whole number", "max-connections = 1.5", []string{`:1: max-connections wants a whole number, not a number: write`}},
		{"text for yes", `homeassistant = "yes"`, []string{`:1: homeassistant wants true or false, not text in quotes: write homeassistant = true`}},
		{"number for a duration", "mqtt-keepalive = 60", []string{`:1: mqtt-keepalive wants text in quotes, not a whole number: write mqtt-keepalive = "30s"`}},
		{"date for text", "filter = 2026-12-31", []string{`:1: filter wants text in quotes, not a date or time: `}},
		{"list for one", "port = [1, 2]", []string{`:1: port wants a whole number, not a list: write port = 0`}},
		{"number in a list of text", "\ninterface = [\n 'eth0',\n 5]", []string{`:4: interface wants text in quotes, not a whole number: write interface = \["…"\]`}},
		{"list in a list", "interface = [['eth0']]", []string{`:1: interface wants text in quotes, not a list: `}},
		{"table for text", "filter = {a = 1}", []string{`:1: filter wants text in quotes, not a table: `}},
		{"text in a list of numbers", "core = ['a']", []string{`:1: core wants a whole number, not text in quotes: write core = \[1\]`}},
		{"too large", "port = 65536\nmax-connections = 99999999999999999999", []string{`:1: port: 65536: value out of range: write port = 0`, `:2: max-connections: 99999999999999999999: value out of range`}},
		{"too large in a list", "core = [1, 99999999999999999999]", []string{`:1: core: 99999999999999999999: value out of range: write core = \[1\]`}},
		{"negative", "port = -1", []string{`:1: port: -1: invalid syntax`}},
		{"no duration", `mqtt-keepalive = "soon"`, []string{`:1: mqtt-keepalive: .*invalid duration "soon": write mqtt-keepalive = "30s"`}},
		{"not among the choices", `sync = "never"`, []string{`:1: sync: sync policy "never": want always or 1s: write sync = "always"`}},
		{"wrong though the command line wins", "threshold = 'x'", []string{`:1: threshold wants a number, not text in quotes: write threshold = 0`}},

		{"no quotes", "filter = 'tcp'\nmqtt = tls://broker", []string{`:2: .*; write one key a line: key = 10, key = true, key = "text" or key = \["one", "two"\]`}},
		{"no value", "port =", []string{`:1: .*write one key a line`}},
		{"no equals sign", "\n\nport: 1\n", []string{`:3: expected '=' after key; write`}},
		{"two keys in a line", "port = 1 threshold = 2", []string{`:1: expected newline`}},
		{"open quotes", "port = 1\nfilter = \"tcp\nthreshold = 1", []string{`:2: .*strings cannot have new lines`}},
		{"open list", "port = 1\ninterface = [\n'eth0'\n", []string{`:[34]: array is incomplete`}},
		{"unit", "mqtt-keepalive = 60s", []string{`:1: strings must be quoted`}},
		{"lists without end", "core = " + strings.Repeat("[", 20000), []string{`:1: arrays and inline tables are nested more than the maximum`}},
		{"binary", "\x7fELF\x02\x01", []string{`:1: invalid character at start of key`}},
		{"Latin-1", "filter = 'caf\xe9'", []string{`:1: invalid UTF-8`}},
		{"several, the last no TOML", "a = 1\nport = 'x'\n[b]\nc: 1", []string{`:1: no key a: `, `:2: port wants`, `:3: no table b`, `:4: expected '='`}},

		{"suppress without brackets", "[suppress]\nreason = 'x'", []string{`:1: write \[\[suppress\]\], as there may be several`}},
		{"suppress as a key", "suppress = [{reason = 'x'}]", []string{`:1: suppressions are tables: write \[\[suppress\]\]`}},
		{"suppress of nothing", "port = 1\n[[suppress]]\n", []string{`:2: suppression without a reason: say why`, `:2: suppression without an end`, `:2: suppression of everything: give at least one of source, destination, port, protocol and model`}},
		{"flag in suppress", suppress + "source = '10.0.0.1'\nfilter = 'tcp'", []string{`:5: filter is no part of a suppression: write it above the first \[\[suppress\]\]`}},
		{"misspelt in suppress", suppress + "sorce = '10.0.0.1'", []string{`:4: no key sorce in a suppression: did you mean source\?`}},
		{"unheard-of in suppress", suppress + "colour = 'red'", []string{`:4: no key colour in a suppression$`}},
		{"the same twice in suppress", suppress + "until = 2026-12-31", []string{`:4: until stands in line 3 already`}},
		{"the same in two is right", suppress + "port = 1\n" + suppress + "port = 0", []string{`:5: port 0: ports are from 1 to 65535`}},
		{"table in suppress", suppress + "port = 1\n[suppress.where]\nport = 2", []string{`:5: no table suppress.where`}},
		{"name for an address", suppress + "source = 'camera-7'", []string{`:4: source: "camera-7" is no address or network: write one such as 10.0.0.5, 10.0.0.0/24 or fd00::/8`}},
		{"address with its zone", suppress + "source = 'fe80::1%eth0'", []string{`:4: source: "fe80::1%eth0" is no address`}},
		{"number for an address", suppress + "source = 10", []string{`:4: source: want text in quotes, not a whole number`}},
		{"empty address", suppress + "source = ''", []string{`:4: source: empty: write it, or leave out the key`}},
		{"host in a network", suppress + "source = '10.0.0.5/24'", []string{`:1: source 10.0.0.5/24: bits are set beyond the first 24: write 10.0.0.0/24`}},
		{"ports in quotes", suppress + "port = '22'", []string{`:4: port: want a number from 1 to 65535, or a list of them`}},
		{"port too large", suppress + "port = [22, 65536]", []string{`:4: port: want a number from 1 to 65535`}},
		{"no ports", suppress + "port = []", []string{`:4: port: an empty list: leave out the key for any port`}},
		{"until in quotes", "[[suppress]]\nuntil = '2026-12-31'", []string{`:2: until: want a date or a time with its zone, without quotes: 2026-12-31 or`}},
		{"until without a zone", "[[suppress]]\nuntil = 2026-12-31T18:00:00", []string{`:2: until: a time without its zone: add Z for UTC`}},
		{"no such day", "[[suppress]]\nuntil = 2026-02-30", []string{`:2: until: want a date`}},
		{"no such hour", "[[suppress]]\nuntil = 2026-12-31T25:00:00Z", []string{`:2: until: want a date`}},
		{"time of day", "[[suppress]]\nuntil = 18:00:00", []string{`:2: until: want a date`}},
		{"two wrong", "[[suppress]]\nport = 0\n[[suppress]]\nmodel = 1\n", []string{`:1: suppression without a reason`, `:1: suppression without an end`, `:1: port 0`, `:4: model: want text`}},
	}
	for _, test := range tests {
		_, err := parseConfig("picket.toml", []byte(test.file), gatewayFlags(t, "--threshold=1"))
		if err == nil {
			t.Errorf("%s: taken", test.name)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(test.want) {
			t.Errorf("%s: %d mistakes, want %d:\n%v", test.name, len(lines), len(test.want), err)
			continue
		}
		for i, want := range test.want {
			if !regexp.MustCompile("^picket.toml" + want).MatchString(lines[i]) {
				t.Errorf("%s: %s\nwant %s", test.name, lines[i], want)
			}
		}
	}
}

// TestConfigManyMistakes checks that a file of other contents does not flood the log.
func TestConfigManyMistakes(t *testing.T) {
	for _, file := range []string{strings.Repeat("a = 1\n", 1000), strings.Repeat("[[suppress]]\n", 1000)} {
		_, err := parseConfig("picket.toml", []byte(file), gatewayFlags(t))
		if err == nil {
			t.Fatal("taken")
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != maxMistakes+1 || lines[maxMistakes] != "picket.toml: too many mistakes: what follows was not read" {
			t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
	}
}

// TestConfigPasswords checks that no mistake makes a password visible.
func TestConfigPasswords(t *testing.T) {
	const url = "tls://gw:hunter2@broker:8883"
	for _, file := range []string{
		"proxy = '" + url + "'", "proxy = ['" + url + "']", "port = '" + url + "'", "mqqt = ['" + url + "']", "mqtt = '" + url, "mqtt = " + url,
		"mqtt = ['" + url + "', 5]", "mqtt = '" + url + "' x", "mqtt: '" + url + "'", "mqtt = \"" + url + "\\q\"", "core = '" + url + "'",
		"sync = '" + url + "'", "mqtt-keepalive = '" + url + "'", "[mqtt]\nurl = '" + url + "'", "mqtt = ['" + url, "mqtt = {url = '" + url + "'}",
		"[[suppress]]\nmqtt = '" + url + "'", "mqtt = ['" + url + "']\nmqtt = ['" + url + "']",
	} {
		_, err := parseConfig("picket.toml", []byte(file), gatewayFlags(t))
		if err == nil {
			t.Errorf("%s: taken", file)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "picket.toml")
	if err := os.WriteFile(path, []byte("threshold = 0.9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fs := gatewayFlags(t)
	if _, err := readConfig(path, fs); err != nil || settings(fs) != `threshold=["0.9"]` {
		t.Errorf("%v, %s", err, settings(fs))
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#\n"), maxConfig/2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "is a directory",
		large:                      "larger than 1048576 octets",
	} {
		if _, err := readConfig(path, gatewayFlags(t)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := os.Truncate(large, maxConfig); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(large, gatewayFlags(t)); err != nil {
		t.Errorf("of the largest size: %v", err)
	}
}

// TestConfigDropIns: files of conf.d are read after the file that it lies beside, in the order of their names.
func TestConfigDropIns(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		args  string
		want  string // settings, or a regular expression for each line of the error
		count int    // suppressions
		wrong bool
	}{
		{"none", map[string]string{"conf.d/": ""}, "", `port=["1"]`, 0, false},
		{"another key", map[string]string{"conf.d/a.toml": "filter = 'tcp'"}, "", `filter=["tcp"] port=["1"]`, 0, false},
		{"the last wins", map[string]string{"conf.d/10-b.toml": "port = 2\nfilter = 'tcp'", "conf.d/9-a.toml": "filter = 'udp'"}, "", `filter=["udp"] port=["2"]`, 0, false},
		{"with the default", map[string]string{"conf.d/a.toml": "port = 0"}, "", `port=["0"]`, 0, false},
		{"a list replaces another", map[string]string{"conf.d/a.toml": "interface = ['b', 'c']", "conf.d/b.toml": "interface = 'd'"}, "", `interface=["d"] port=["1"]`, 0, false},
		{"the command line wins", map[string]string{"conf.d/a.toml": "port = 2"}, "--port=3", `port=["3"]`, 0, false},
		{"suppressions add up", map[string]string{"conf.d/a.toml": suppressOne, "conf.d/b.toml": "port = 2\n" + suppressOne + suppressOne}, "", `port=["2"]`, 3, false},
		{"other names", map[string]string{"conf.d/a.toml~": "port = 2", "conf.d/.a.toml": "port = 2", "conf.d/a.conf": "port = 2", "conf.d/a.toml.dpkg-old": "port = 2"}, "", `port=["1"]`, 0, false},
		{"mistakes of all", map[string]string{"picket.toml": "prot = 1", "conf.d/a.toml": "\nport = 'x'", "conf.d/b.toml": "port = 1\nport = 1"}, "",
			"picket.toml:1: no key prot\n.*conf.d/a.toml:2: port wants\n.*conf.d/b.toml:2: port stands in line 1 already", 0, true},
		{"a directory", map[string]string{"conf.d/a.toml/": ""}, "", "read config: .*conf.d/a.toml: is a directory", 0, true},
		{"no directory", map[string]string{"conf.d": ""}, "", "read config: .*conf.d: not a directory", 0, true},
	} {
		dir := t.TempDir()
		for name, text := range tc.files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "/") {
				os.Mkdir(path, 0o700)
			} else if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		main := filepath.Join(dir, "picket.toml")
		if tc.files["picket.toml"] == "" {
			if err := os.WriteFile(main, []byte("port = 1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fs := gatewayFlags(t, strings.Fields(tc.args)...)
		cfg, err := readConfig(main, fs)
		switch {
		case tc.wrong && err == nil:
			t.Errorf("%s: taken", tc.name)
		case tc.wrong:
			want := strings.Split(tc.want, "\n")
			lines := strings.Split(err.Error(), "\n")
			for i := range want {
				if len(lines) != len(want) || !regexp.MustCompile(want[i]).MatchString(lines[i]) {
					t.Errorf("%s: %q, want %q", tc.name, lines, want)
				}
			}
		case err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case settings(fs) != tc.want || len(cfg.Suppress) != tc.count:
			t.Errorf("%s: %s and %d suppressions, want %s and %d", tc.name, settings(fs), len(cfg.Suppress), tc.want, tc.count)
		}
	}
}

// TestConfigDropInsOfOthers: who may write beside a config, as in /tmp, is not to add to it.
func TestConfigDropInsOfOthers(t *testing.T) {
	dir := t.TempDir()
	main, more := filepath.Join(dir, "picket.toml"), filepath.Join(dir, "conf.d")
	if err := errors.Join(os.WriteFile(main, []byte("port = 1\n"), 0o600), os.Mkdir(more, 0o755),
		os.WriteFile(filepath.Join(more, "a.toml"), []byte("port = 2\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	check := func(name, want string, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		_, err := readConfig(main, gatewayFlags(t))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	check("own", "")
	check("anybody's", "chmod o-w "+more, os.Chmod(more, 0o777))
	check("own again", "", os.Chmod(more, 0o755))
	if os.Geteuid() != 0 {
		return
	}
	check("another user's", "conf.d belongs to user 12345, not to root", os.Chown(more, 12345, -1))
	check("of the config's owner", "", os.Chown(main, 12345, -1))
	elsewhere := filepath.Join(dir, "elsewhere")
	check("another user's link", "conf.d belongs to user 12346, not to root",
		os.Rename(more, elsewhere), os.Symlink(elsewhere, more), os.Lchown(more, 12346, -1))
}

const suppressOne = "[[suppress]]\nreason = 'x'\nuntil = 2027-12-31\nport = 22\n"

func TestChanged(t *testing.T) {
	read := func(file string, args ...string) *pflag.FlagSet {
		fs := gatewayFlags(t, args...)
		if _, err := parseConfig("picket.toml", []byte(file), fs); err != nil {
			t.Fatal(err)
		}
		return fs
	}
	before := read("interface = ['eth0', 'eth1']\nthreshold = 0.5\nmax-connections = 32768", "--filter=tcp")
	for _, test := range []struct {
		file string
		want string
	}{
		{"interface = ['eth0', 'eth1']\nthreshold = 0.5", ""},
		{"interface = ['eth0', 'eth1']\nthreshold = 0.5\nfilter = 'udp'\nsync = 'always'", ""},
		{"interface = ['eth1', 'eth0']\nthreshold = 0.5", "interface"},
		{"interface = ['eth0,eth1']\nthreshold = 0.5", "interface"},
		{"interface = 'eth0'\nhomeassistant = true\nmodel = 'site.onnx'\nsync = '1s'", "interface model threshold homeassistant sync"},
	} {
		if got := strings.Join(changed(before, read(test.file, "--filter=tcp")), " "); got != test.want {
			t.Errorf("%q: %q, want %q", test.file, got, test.want)
		}
	}
	if got := changed(pflag.NewFlagSet("", 0), gatewayFlags(t)); len(got) != 16 {
		t.Errorf("all flags are new: %v", got)
	}
}

// uncommented returns a sample with all its keys in force.
func uncommented(sample string) string {
	return regexp.MustCompile(`(?m)^#(\S)`).ReplaceAllString(sample, "$1")
}

// TestConfigSample checks that a sample names every key, and that with all of them in
// force nothing is other than by default.
func TestConfigSample(t *testing.T) {
	var b bytes.Buffer
	if err := writeSample(&b, gatewayFlags(t)); err != nil {
		t.Fatal(err)
	}
	sample := b.String()
	for _, want := range []string{
		"\n# tcpdump expression\n#filter = \"\"\n", "\n#model = [\"nslkdd-xgboost\"]\n", "\n#interface = []\n", "\n#max-connections = 32768\n",
		"\n#mqtt-keepalive = \"30s\"\n", "\n#homeassistant = false\n", "\n#sync = \"always\"\n", "\n#[[suppress]]\n",
	} {
		if !strings.Contains(sample, want) {
			t.Errorf("lacks %q:\n%s", want, sample)
		}
	}
	for _, line := range strings.Split(sample, "\n") {
		if len(line) > 90 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	fs := gatewayFlags(t)
	if cfg, err := parseConfig("sample", []byte(sample), fs); err != nil || cfg.Suppress != nil || settings(fs) != "" {
		t.Errorf("as it is: %v, %s", err, settings(fs))
	}
	checkUncommented(t, sample, gatewayFlags(t), gatewayFlags(t))
}

// checkUncommented reads a sample with all keys in force into fs, which must then still
// be as fresh.
func checkUncommented(t *testing.T, sample string, fs, fresh *pflag.FlagSet) {
	t.Helper()
	cfg, err := parseConfig("sample", []byte(uncommented(sample)), fs)
	if err != nil {
		t.Fatal(err)
	}
	if other := changed(fresh, fs); other != nil {
		t.Errorf("other than by default: %v", other)
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed == slices.Contains(notInFile, f.Name) {
			t.Errorf("%s: in the sample %v", f.Name, f.Changed)
		}
	})
	if len(cfg.Suppress) != 1 || len(cfg.Suppress[0].Ports) != 2 {
		t.Errorf("suppressions %+v", cfg.Suppress)
	}
}

// TestConfigPage checks that docs/config.md ends with the sample of run. -update
// writes it anew.
func TestConfigPage(t *testing.T) {
	code, sample, stderr := picket(t, nil, "run", "--config-sample")
	if code != exitNothing || stderr != "" {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	fresh := func() *pflag.FlagSet { return newRunFlags(stdio{out: io.Discard, err: io.Discard}).set }
	checkUncommented(t, sample, fresh(), fresh())
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(page), "```toml\n# Picket's configuration")
	if !ok {
		t.Fatal("docs/config.md has no sample")
	}
	golden(t, "../docs/config.md", []byte(head+"```toml\n"+sample+"```\n"))
}

// TestConfigPageMistakes checks that docs/config.md shows what run says of such a file.
func TestConfigPageMistakes(t *testing.T) {
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	const file = "max-conections = 10_000\nmqtt-keepalive = 60\nhomeassistant = \"yes\"\n\n" +
		"[[suppress]]\nreason = \"x\"\nuntil = 2027-12-31T00:00:00\nsource = \"10.0.0.5\"\nfilter = \"tcp\"\n"
	if err := os.WriteFile("picket.toml", []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := picket(t, nil, "run", "--config", "picket.toml")
	if code != exitError || strings.Count(stderr, "\n") != 5 || !strings.Contains(string(page), "```\n"+stderr+"```\n") {
		t.Errorf("exit %d, not on the page:\n%s", code, stderr)
	}
}

func FuzzConfig(f *testing.F) {
	var sample bytes.Buffer
	if err := writeSample(&sample, gatewayFlags(f)); err != nil {
		f.Fatal(err)
	}
	f.Add(sample.Bytes())
	f.Add([]byte(uncommented(sample.String())))
	for _, s := range []string{
		"interface = [\n'eth0',\n5]", "a.b.'c' = {d = [1, {e = 2}]}\n", "[[suppress]]\nuntil = 2026-12-31 18:00:00.5z\nport = [22]\nsource = '::/1'\nreason = \"\"\"x\"\"\"",
		"port = 0x1_0\nthreshold = -inf\nmax-connections = +1", "filter = '''\n\\'''", "\ufeff[x]\r\n[[suppress]]\r\n", "[[[[", "until = 9999-12-31",
	} {
		f.Add([]byte(s))
	}
	where := regexp.MustCompile(`^f\.toml:([0-9]+): .`)
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := gatewayFlags(t)
		cfg, err := parseConfig("f.toml", data, fs)
		if err == nil {
			again := gatewayFlags(t)
			cfg2, err := parseConfig("f.toml", data, again)
			if err != nil || changed(fs, again) != nil || !reflect.DeepEqual(cfg, cfg2) {
				t.Errorf("read again: %v, %v", err, changed(fs, again))
			}
			for i := range cfg.Suppress {
				if err := cfg.Suppress[i].Validate(); err != nil {
					t.Error(err)
				}
			}
			return
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) > maxMistakes {
			lines = lines[:maxMistakes]
		}
		for _, line := range lines {
			m := where.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("%q does not begin with file and line", line)
			}
			if n, _ := strconv.Atoi(m[1]); n < 1 || n > bytes.Count(data, []byte("\n"))+1 {
				t.Errorf("line %d: %s", n, line)
			}
		}
	})
}
