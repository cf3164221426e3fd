// Package report writes what a scan found, and what it could not judge: a table or a
// page for a person, JSON lines for a program.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/runtime/detect"
)

// JSON writes e as one line.
func JSON(w io.Writer, e *detect.Event) error { return line(w, e) }

func line(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// Scan is what one scan read and found.
type Scan struct {
	Name             string // of what was read
	Version, Gateway string // as in events
	Files            int    // to read, whether or not they could be
	Interfaces       int
	Filter           string
	Stats            detect.Stats
	Lost             []Gap  // what Stats does not tell
	BadScores        uint64 // that were no numbers from 0 to 1
	Models           []detect.Model
	Incidents        []*detect.Event // the last event of each, or of the worst
	Severities       [4]uint64       // of all incidents
}

// Write writes the scan for a person whose terminal has the given number of
// columns; 0 means that lines may be of any length.
func (s *Scan) Write(w io.Writer, columns int) error {
	var b strings.Builder
	paragraph(&b, s.read(), "", columns)
	for _, g := range s.Gaps() {
		paragraph(&b, g.level()+": "+g.Sentence, "  ", columns)
	}
	if len(s.Incidents) > 0 {
		b.WriteByte('\n')
		s.table(&b, columns)
	}
	if more := s.more(); more != "" {
		fmt.Fprintln(&b, more)
	}
	b.WriteByte('\n')
	paragraph(&b, s.verdict(), "", columns)
	_, err := io.WriteString(w, b.String())
	return err
}

// more says how many incidents are not listed, nothing when all are.
func (s *Scan) more() string {
	listed := uint64(len(s.Incidents))
	if listed == 0 || listed >= s.Stats.Incidents {
		return ""
	}
	return fmt.Sprintf("and %s more, none of them worse", thousands(s.Stats.Incidents-listed))
}

// paragraph writes the lines of text, broken to the given columns if not 0.
func paragraph(b *strings.Builder, text, indent string, columns int) {
	for _, line := range strings.Split(text, "\n") {
		lines := []string{line}
		if columns > 0 {
			lines = wrap(line, columns-len(indent))
		}
		for k, l := range lines {
			if k > 0 {
				l = indent + l
			}
			fmt.Fprintln(b, l)
		}
	}
}

// read says what was read.
func (s *Scan) read() string {
	var b strings.Builder
	st := &s.Stats
	fmt.Fprintf(&b, "%s: %s, %s", Printable(s.Name), count(st.Frames, "packet"), count(st.Features.Connections, "connection"))
	if st.Frames > 0 {
		fmt.Fprintf(&b, " in %s from %s", duration(max(st.Last-st.First, 0)), utc(st.First).Format("2006-01-02 15:04:05 MST"))
	}
	return b.String()
}

// table writes a line for each incident, the worst first; where the terminal is
// narrow, what drove it stands below.
func (s *Scan) table(b *strings.Builder, columns int) {
	var lines strings.Builder
	t := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "WHEN\tWHO\tWHOM\tSERVICE\tCONNS\tSCORE\n")
	incidents := slices.SortedStableFunc(slices.Values(s.Incidents), Worse)
	for _, e := range incidents {
		d := &e.Picket
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%.3f\n", s.When(e), several(d.Sources, e.Source.IP, "sources"),
			several(d.Targets, e.Destination.IP, "hosts"), service(e), d.Connections, d.Score)
	}
	t.Flush()
	head, rest, _ := strings.Cut(lines.String(), "\n")
	rows := strings.Split(strings.TrimRight(rest, "\n"), "\n")
	width := 0
	for _, line := range append(rows, head) {
		width = max(width, utf8.RuneCountInString(line))
	}
	whys := make([]string, len(rows))
	whyWidth := 0
	for k, e := range incidents {
		whys[k] = why(e.Picket.Why)
		whyWidth = max(whyWidth, utf8.RuneCountInString(whys[k]))
	}
	if columns == 0 || width+2+whyWidth <= columns {
		fmt.Fprintf(b, "%-*s  WHY\n", width, head)
		for k, line := range rows {
			fmt.Fprintf(b, "%-*s  %s\n", width, line, whys[k])
		}
		return
	}
	fmt.Fprintln(b, head)
	for k, line := range rows {
		fmt.Fprintln(b, line)
		paragraph(b, "  why: "+whys[k], "       ", columns)
	}
}

// Worse orders incidents by severity, then by score.
func Worse(a, b *detect.Event) int {
	return cmp.Or(cmp.Compare(b.Event.Severity, a.Event.Severity), cmp.Compare(b.Picket.Score, a.Picket.Score))
}

func (s *Scan) verdict() string {
	var names []string
	for _, m := range s.Models {
		names = append(names, fmt.Sprintf("%s %s, threshold %.3g", Printable(m.Name), Printable(m.Version), m.Threshold))
	}
	by := strings.Join(names, "; ")
	partly := anyMajor(s.Gaps())
	switch s.Verdict() {
	case NotJudged:
		return "Nothing could be judged."
	case Clean:
		if partly {
			return fmt.Sprintf("NOT ALL COULD BE JUDGED. Nothing anomalous in the rest (%s).", by)
		}
		return fmt.Sprintf("Nothing anomalous (%s).", by)
	}
	found := fmt.Sprintf("ANOMALOUS: %s, %s of %s anomalous (%s).", count(s.Stats.Incidents, "incident"),
		thousands(s.Stats.Anomalous), count(s.Stats.Judged, "row"), by)
	if partly {
		found += " Not all could be judged."
	}
	return found
}

// When tells when an incident began, with its date if the capture has several, and
// how long it lasted.
func (s *Scan) When(e *detect.Event) string {
	return fmt.Sprintf("%s +%s", e.Event.Start.Format(s.layout()), duration(e.Event.End.Sub(e.Event.Start).Nanoseconds()))
}

// layout is that of times.
func (s *Scan) layout() string {
	if utc(s.Stats.First).YearDay() != utc(s.Stats.Last).YearDay() || s.Stats.Last-s.Stats.First > int64(24*time.Hour) {
		return "2006-01-02 15:04:05"
	}
	return "15:04:05"
}

func utc(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// Printable returns s without what a terminal would obey: control characters, and
// octets that are no UTF-8, become question marks.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func several(n int, one, many string) string {
	if n > 1 {
		return fmt.Sprintf("%d %s", n, many)
	}
	return one
}

func service(e *detect.Event) string {
	switch {
	case e.Picket.Ports > 1:
		return fmt.Sprintf("%d %s ports", e.Picket.Ports, e.Network.Transport)
	case e.Network.Protocol != "":
		return e.Network.Protocol
	case e.Destination.Port != 0:
		return fmt.Sprintf("%s/%d", e.Network.Transport, e.Destination.Port)
	}
	return e.Network.Transport
}

func why(evidence []detect.Evidence) string {
	words := make([]string, len(evidence))
	for k, e := range evidence {
		words[k] = e.String()
	}
	return strings.Join(words, ", ")
}

// duration formats nanoseconds in three digits or whole seconds.
func duration(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= 10*time.Second:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(time.Millisecond)
	default:
		d = d.Round(time.Microsecond)
	}
	return d.String()
}

func count(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// thousands writes n in groups of three digits.
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Dictionary writes features for a person.
func Dictionary(w io.Writer, all []features.Feature) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	group := ""
	for _, f := range all {
		if f.Group != group {
			if group != "" {
				fmt.Fprintln(t)
			}
			group = f.Group
			fmt.Fprintf(t, "%s (%s rows; %s)\n", strings.ToUpper(group), f.Row, f.Source)
		}
		doc := f.Doc
		if n := len(f.OneHot); n > 0 {
			doc += fmt.Sprintf("; %d columns %s=%s …", n, f.Name, f.OneHot[0])
		}
		for k, line := range wrap(doc, 80-2-30-2-7) {
			if k == 0 {
				fmt.Fprintf(t, "  %-28s\t%-6s\t%s\n", f.Name, f.Unit, line)
			} else {
				fmt.Fprintf(t, "  \t\t%s\n", line)
			}
		}
	}
	return t.Flush()
}

// DictionaryMarkdown writes features as a page of the documentation.
func DictionaryMarkdown(w io.Writer, all []features.Feature) error {
	var b strings.Builder
	b.WriteString("# Features\n\nWritten by `picket features --markdown`; a test fails when it is out of date. A feature with\n" +
		"values in its last column also has a column `name=value` for each of them, 1 or 0.\n")
	group := ""
	for _, f := range all {
		if title := fmt.Sprintf("%s, a row for each %s", f.Group, f.Row); title != group {
			group = title
			fmt.Fprintf(&b, "\n## %s\n\nSource: %s.\n\n| name | unit | meaning | values |\n|---|---|---|---|\n", title, f.Source)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Unit, f.Doc, strings.Join(f.OneHot, " "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks text into lines of at most width runes where words allow.
func wrap(text string, width int) []string {
	lines := []string{text[:len(text)-len(strings.TrimLeft(text, " "))]}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case strings.TrimSpace(*last) == "":
			*last += word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return slices.Clip(lines)
}
