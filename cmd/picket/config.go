package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/runtime/detect"
)

const (
	maxConfig   = 1 << 20 // octets of a file
	maxMistakes = 20      // told of one file
)

// notInFile lists the flags that are for the command line only.
var notInFile = []string{"config", "config-sample", "check", "check-as", "help", "version"}

// config is what files say beyond flags.
type config struct {
	Suppress []detect.Suppression
	Files    []string // that were read
}

// readConfig sets the flags of set that a TOML file and those in conf.d beside it name and marks them Changed. Of files
// that name the same flag the last one wins; what is Changed already was given on the command line and stays. A list
// replaces another one, suppressions add up. So each FlagSet takes one config, after it was parsed. The error joins
// every mistake, as FILE:LINE: what; some flags may be set all the same.
func readConfig(path string, set *pflag.FlagSet) (*config, error) {
	more, err := dropIns(path)
	cfg := &config{Files: append([]string{path}, more...)}
	errs := []error{err}
	var named []*pflag.Flag // by files: the next one may name them anew
	given := map[string]bool{}
	set.VisitAll(func(f *pflag.Flag) { given[f.Name] = f.Changed })
	for _, name := range cfg.Files {
		data, err := readBounded(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("read config: %w", err))
			continue
		}
		c, err := parseConfig(name, data, set)
		if errs = append(errs, err); err == nil {
			cfg.Suppress = append(cfg.Suppress, c.Suppress...)
		}
		set.VisitAll(func(f *pflag.Flag) {
			if f.Changed && !given[f.Name] {
				f.Changed = false
				named = append(named, f)
			}
		})
	}
	for _, f := range named {
		f.Changed = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return cfg, nil
}

// confDir is the directory beside a config file whose files are read after it.
func confDir(path string) string { return filepath.Join(filepath.Dir(path), "conf.d") }

// dropIns returns the files in conf.d, in the order of their names. Hidden ones are those of editors.
func dropIns(path string) (files []string, err error) {
	dir := confDir(path)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read config: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") && e.Name()[0] != '.' {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, nil
	}
	if err := ownDropIns(dir, path); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return files, nil
}

// ownDropIns refuses a conf.d of others: beside a config in /tmp anybody can make one, and it may name a library. It
// must be root's, this user's, or of whom the config is; so must be a link to it.
func ownDropIns(dir, config string) error {
	of, err := os.Stat(config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // which is told when it is read
	}
	link, linkErr := os.Lstat(dir)
	info, dirErr := os.Stat(dir)
	if err := errors.Join(err, linkErr, dirErr); err != nil {
		return err
	}
	for _, i := range []fs.FileInfo{link, info} {
		if uid := owner(i); uid != 0 && uid != os.Geteuid() && uid != owner(of) {
			return fmt.Errorf("%s belongs to user %d, not to root or the owner of %s", dir, uid, config)
		}
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s: anybody may write there: chmod o-w %[1]s", dir)
	}
	return nil
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s: larger than %d octets: is it the right file?", path, maxConfig)
	}
	return data, err
}

// configFile is a file on its way into a FlagSet. Only the parser of the TOML
// library is used: its decoder tells neither where a key stands nor all mistakes.
type configFile struct {
	name     string
	data     []byte
	fs       *pflag.FlagSet
	cfg      config
	seen     map[string]int // keys of the table at hand, and their lines
	mistakes []error

	offset, newlines int // counted so far
}

func parseConfig(name string, data []byte, fs *pflag.FlagSet) (*config, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors write it
	c := &configFile{name: name, data: data, fs: fs, seen: map[string]int{}}
	var p unstable.Parser
	p.Reset(data)
	set, end := c.setFlag, func() {} // what takes the keys of the table at hand, and its end
	for len(c.mistakes) < maxMistakes && p.NextExpression() {
		e := p.Expression()
		key, line := c.key(e)
		switch {
		case e.Kind == unstable.KeyValue && set == nil: // of a table that is refused already
			continue
		case e.Kind == unstable.KeyValue:
			if before, ok := c.seen[key]; ok {
				c.mistake(line, "%s stands in line %d already: remove one; several values are a list, %[1]s = [\"a\", \"b\"]", key, before)
				continue
			}
			c.seen[key] = line
			set(key, line, e.Value())
			continue
		case e.Kind == unstable.ArrayTable && key == "suppress":
			end()
			set, end = c.suppression(line)
		default:
			end()
			set, end = nil, func() {}
			if key == "suppress" {
				c.mistake(line, "write [[suppress]], as there may be several")
			} else {
				c.mistake(line, "no table %s: flags stand above the first table, only suppressions are tables: [[suppress]]", key)
			}
		}
		c.seen = map[string]int{}
	}
	end()
	if err := p.Error(); err != nil {
		c.syntax(err)
	}
	if len(c.mistakes) >= maxMistakes {
		c.mistakes = append(c.mistakes[:maxMistakes], fmt.Errorf("%s: too many mistakes: what follows was not read", name))
	}
	if err := errors.Join(c.mistakes...); err != nil {
		return nil, err
	}
	return &c.cfg, nil
}

func (c *configFile) mistake(line int, format string, a ...any) {
	c.mistakes = append(c.mistakes, fmt.Errorf("%s:%d: %w", c.name, line, fmt.Errorf(format, a...)))
}

// line returns the line of an octet. Asked for ever later ones, it counts each once.
func (c *configFile) line(offset int) int {
	if offset < c.offset {
		c.offset, c.newlines = 0, 0
	}
	c.newlines += bytes.Count(c.data[c.offset:offset], []byte("\n"))
	c.offset = offset
	return c.newlines + 1
}

// syntax tells of what is no TOML. The parser's own words show one character at
// most, no value.
func (c *configFile) syntax(err error) {
	line := c.line(len(c.data))
	var where *unstable.ParserError
	if errors.As(err, &where) {
		line = c.line(min(max(cap(c.data)-cap(where.Highlight), 0), len(c.data)))
	}
	c.mistake(line, "%v; write one key a line: key = 10, key = true, key = \"text\" or key = [\"one\", \"two\"]", err)
}

// key returns the key of a key-value or a table, and its line.
func (c *configFile) key(n *unstable.Node) (string, int) {
	var parts []string
	line := 0
	for it := n.Key(); it.Next(); {
		if parts = append(parts, string(it.Node().Data)); line == 0 {
			line = c.line(int(it.Node().Raw.Offset))
		}
	}
	key := strings.Join(parts, ".")
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == '"' || r > '~' }) {
		key = strconv.Quote(key)
	}
	if len(key) > 64 {
		key = key[:64] + "…"
	}
	return key, line
}

// lineOf returns the line of a value, that of its key if the parser does not say.
func (c *configFile) lineOf(n *unstable.Node, key int) int {
	if n.Raw.Length == 0 {
		return key
	}
	return c.line(int(n.Raw.Offset))
}

func (c *configFile) setFlag(key string, line int, n *unstable.Node) {
	f := c.fs.Lookup(key)
	switch {
	case slices.Contains(notInFile, key):
		c.mistake(line, "%s is for the command line only: remove it", key)
		return
	case key == "suppress":
		c.mistake(line, "suppressions are tables: write [[suppress]] in a line of its own, its keys below")
		return
	case f == nil:
		c.mistake(line, "no key %s%s", key, c.didYouMean(key))
		return
	}
	list, isList := f.Value.(pflag.SliceValue)
	values := []*unstable.Node{n}
	if isList {
		values = tomlElements(n)
	}
	var texts []string
	for _, v := range values {
		text, ok := tomlText(v, tomlKinds(f))
		if !ok {
			c.mistake(c.lineOf(v, line), "%s wants %s, not %s: write %s", key, kindName(tomlKinds(f)[0]), kindName(v.Kind), tomlForm(f))
			return
		}
		texts = append(texts, text)
	}
	if f.Changed {
		return
	}
	var err error
	if isList {
		err = list.Replace(texts)
	} else {
		err = f.Value.Set(texts[0])
	}
	if err != nil {
		c.mistake(line, "%s: %s: write %s", key, refusal(err, texts), tomlForm(f))
		return
	}
	f.Changed = true
}

// refusal returns what a flag says against values, without those that may hold a password.
func refusal(err error, values []string) string {
	var number *strconv.NumError
	switch {
	case slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "@") }):
		return "the value, not shown as it may hold a password, is refused"
	case errors.As(err, &number):
		return fmt.Sprintf("%s: %v", number.Num, number.Err)
	}
	return err.Error()
}

// tomlElements returns those of an array, or the one value that is none.
func tomlElements(n *unstable.Node) []*unstable.Node {
	if n.Kind != unstable.Array {
		return []*unstable.Node{n}
	}
	var all []*unstable.Node
	for it := n.Children(); it.Next(); {
		all = append(all, it.Node())
	}
	return all
}

// tomlKinds returns the kinds of TOML value that a flag, or each element of its list, may have.
func tomlKinds(f *pflag.Flag) []unstable.Kind {
	switch strings.TrimSuffix(f.Value.Type(), "Slice") {
	case "bool":
		return []unstable.Kind{unstable.Bool}
	case "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64", "count":
		return []unstable.Kind{unstable.Integer}
	case "float32", "float64":
		return []unstable.Kind{unstable.Float, unstable.Integer}
	}
	return []unstable.Kind{unstable.String}
}

// tomlText returns a value of one of the kinds as on the command line.
func tomlText(n *unstable.Node, kinds []unstable.Kind) (string, bool) {
	s := string(n.Data)
	switch n.Kind {
	case unstable.Integer:
		if v, err := strconv.ParseInt(s, 0, 64); err == nil { // 0x10, 10_000
			s = strconv.FormatInt(v, 10)
		}
	case unstable.Float:
		s = strings.ReplaceAll(s, "_", "")
	}
	return s, slices.Contains(kinds, n.Kind)
}

// kindName says what a TOML value is.
func kindName(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "text in quotes"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a number"
	case unstable.Bool:
		return "true or false"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	}
	return "a date or time"
}

// tomlForm shows how the flag is written in TOML.
func tomlForm(f *pflag.Flag) string {
	value := f.DefValue
	_, isList := f.Value.(pflag.SliceValue)
	switch kind := tomlKinds(f)[0]; {
	case kind == unstable.String && (isList || value == ""):
		value = `"…"`
	case kind == unstable.String:
		value = strconv.Quote(value)
	case kind == unstable.Bool:
		value = "true"
	case isList:
		value = "1"
	}
	if isList {
		value = "[" + value + "]"
	}
	return f.Name + " = " + value
}

// suppression begins a [[suppress]] table: set takes its keys, end its end.
func (c *configFile) suppression(line int) (set func(string, int, *unstable.Node), end func()) {
	var s detect.Suppression
	before := len(c.mistakes)
	set = func(key string, line int, n *unstable.Node) {
		if err := c.suppressKey(&s, key, n); err != nil {
			c.mistake(c.lineOf(n, line), "%w", err)
		}
	}
	end = func() {
		if len(c.mistakes) == before { // else what is missing may be what is wrong
			if err := s.Validate(); err != nil {
				for _, what := range strings.Split(err.Error(), "\n") {
					c.mistake(line, "%s", what)
				}
			}
		}
		c.cfg.Suppress = append(c.cfg.Suppress, s)
	}
	return set, end
}

var suppressKeys = []string{"reason", "until", "source", "destination", "port", "protocol", "model"}

func (c *configFile) suppressKey(s *detect.Suppression, key string, n *unstable.Node) error {
	var err error
	switch key {
	case "reason":
		s.Reason, err = tomlWord(n)
	case "protocol":
		s.Protocol, err = tomlWord(n)
	case "model":
		s.Model, err = tomlWord(n)
	case "source":
		s.Source, err = tomlPrefix(n)
	case "destination":
		s.Destination, err = tomlPrefix(n)
	case "port":
		s.Ports, err = tomlPorts(n)
	case "until":
		s.Until, err = tomlTime(n)
	default:
		if c.fs.Lookup(key) != nil {
			return fmt.Errorf("%s is no part of a suppression: write it above the first [[suppress]]", key)
		}
		return fmt.Errorf("no key %s in a suppression%s", key, nearest(key, suppressKeys))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func tomlWord(n *unstable.Node) (string, error) {
	s, ok := tomlText(n, []unstable.Kind{unstable.String})
	switch {
	case !ok:
		return "", fmt.Errorf("want %s, not %s", kindName(unstable.String), kindName(n.Kind))
	case s == "":
		return "", errors.New("empty: write it, or leave out the key")
	}
	return s, nil
}

// tomlPrefix returns the network, or that of one address alone, that a value names.
func tomlPrefix(n *unstable.Node) (netip.Prefix, error) {
	s, err := tomlWord(n)
	if err != nil {
		return netip.Prefix{}, err
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%.64q is no address or network: write one such as 10.0.0.5, 10.0.0.0/24 or fd00::/8", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func tomlPorts(n *unstable.Node) ([]uint16, error) {
	var all []uint16
	for _, e := range tomlElements(n) {
		s, ok := tomlText(e, []unstable.Kind{unstable.Integer})
		v, err := strconv.ParseUint(s, 10, 16)
		if !ok || err != nil {
			return nil, errors.New("want a number from 1 to 65535, or a list of them: port = 22 or port = [80, 443]")
		}
		all = append(all, uint16(v))
	}
	if all == nil {
		return nil, errors.New("an empty list: leave out the key for any port")
	}
	return all, nil
}

func tomlTime(n *unstable.Node) (time.Time, error) {
	s := strings.ToUpper(string(n.Data))
	var t time.Time
	err := errors.New("no date")
	switch n.Kind {
	case unstable.LocalDate:
		t, err = time.Parse(time.DateOnly, s)
	case unstable.DateTime:
		t, err = time.Parse(time.RFC3339, strings.Replace(s, " ", "T", 1))
	case unstable.LocalDateTime:
		return t, errors.New("a time without its zone: add Z for UTC, or as in +01:00")
	}
	if err != nil {
		return t, errors.New("want a date or a time with its zone, without quotes: 2026-12-31 or 2026-12-31T18:00:00Z")
	}
	return t, nil
}

// didYouMean says which flag may have been meant.
func (c *configFile) didYouMean(key string) string {
	if len(key) == 1 {
		if f := c.fs.ShorthandLookup(key); f != nil {
			return fmt.Sprintf(": write %s", f.Name)
		}
	}
	var names []string
	c.fs.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(notInFile, f.Name) {
			names = append(names, f.Name)
		}
	})
	if s := nearest(key, names); s != "" {
		return s
	}
	return fmt.Sprintf(": keys are the flags of picket %s --help, without dashes in front", c.fs.Name())
}

// nearest says which of names is a few letters from key, nothing if none is.
func nearest(key string, names []string) string {
	best, least := "", max(1, len(key)/3)+1
	if len(key) > 64 {
		return ""
	}
	for _, n := range names {
		if d := distance(key, n); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// distance is the number of octets to insert, remove or replace (Levenshtein 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// changed returns the names of the flags of now whose value is another than before.
func changed(before, now *pflag.FlagSet) []string {
	var names []string
	now.VisitAll(func(f *pflag.Flag) {
		old := before.Lookup(f.Name)
		if old == nil || !slices.Equal(flagValues(old), flagValues(f)) {
			names = append(names, f.Name)
		}
	})
	return names
}

func flagValues(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	return []string{f.Value.String()}
}

const sampleHead = `# Picket's configuration: picket run --config FILE. Each key is a flag of picket run and
# shown with its default. Files conf.d/*.toml beside this one are read after it; where
# several name a key the last one wins, and the command line wins over all. SIGHUP reads
# them again.

`

const sampleSuppress = `# Anomalous traffic that is expected: it becomes part of no incident, but is counted. A
# table for each; reason and until are required, and one at least of source, destination,
# port, protocol and model. All that is given must fit.
#[[suppress]]
#reason = "nightly inventory scan"
#until = 2027-12-31T00:00:00Z   # from then on it no longer acts; a date is its 00:00 UTC
#source = "10.0.0.5"            # who opens the connections: an address or a network
#destination = "10.0.0.0/24"
#port = [22, 2222]              # of the destination; one or several
#protocol = "tcp"               # tcp, udp, sctp, icmp, ipv6-icmp or ip-<number>
`

// writeSample writes all keys with their meaning and default, commented out. fs must
// not be parsed yet.
func writeSample(w io.Writer, fs *pflag.FlagSet) error {
	var b strings.Builder
	b.WriteString(sampleHead)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || slices.Contains(notInFile, f.Name) {
			return
		}
		_, usage := pflag.UnquoteUsage(f)
		for _, line := range wrapped(usage, 88) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "#%s = %s\n\n", f.Name, tomlDefault(f))
	})
	b.WriteString(sampleSuppress)
	_, err := io.WriteString(w, b.String())
	return err
}

// tomlDefault returns the flag's default in TOML.
func tomlDefault(f *pflag.Flag) string {
	quote := func(s string) string {
		if tomlKinds(f)[0] == unstable.String {
			return strconv.Quote(s)
		}
		return s
	}
	list, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return quote(f.DefValue)
	}
	var all []string
	for _, s := range list.GetSlice() {
		all = append(all, quote(s))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// wrapped returns the words of s in lines of at most width octets, if no word is longer.
func wrapped(s string, width int) (lines []string) {
	for _, w := range strings.Fields(s) {
		if n := len(lines) - 1; n >= 0 && len(lines[n])+1+len(w) <= width {
			lines[n] += " " + w
		} else {
			lines = append(lines, w)
		}
	}
	return lines
}
