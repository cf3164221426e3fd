package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/runtime/report"
)

var errNoCapture = errors.New("no capture named: give a pcap or pcapng file, or - for standard input")

// readCapture passes the capture of the given name to take; "-" is standard input. It
// returns why the capture was not read to its end: context.Canceled, or an error that
// wraps capture.ErrCut, or another.
func readCapture(ctx context.Context, name string, std stdio, quiet bool, take func(capture.Source) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of a pipe that is not read to its end
	f, err := openCapture(ctx, name, std)
	if err != nil {
		return err
	}
	defer f.Close()
	var src capture.Source = f
	if !quiet && terminal(std.err) > 0 {
		src = &progress{File: f, w: std.err, name: report.Printable(filepath.Base(name)), from: time.Now()}
		defer fmt.Fprintf(std.err, "\r\x1b[K")
	}
	err = take(src)
	if o := f.Odd(); o.Corrected+o.Skipped > 0 {
		fmt.Fprintf(std.err, "picket: warning: %s: %d damaged records, the first at byte %d: %d were read by their sound fields, %d skipped\n",
			report.Printable(name), o.Corrected+o.Skipped, o.First, o.Corrected, o.Skipped)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// scanCaptures passes the captures of the given names to take, in their order, and
// returns what of them was not read. A capture that cannot be read does not keep those
// after it from being read; that take gives up does.
func scanCaptures(ctx context.Context, names []string, std stdio, quiet bool,
	take func(capture.Source) (giveUp bool, err error)) ([]report.Gap, error) {
	var lost []report.Gap
	for k, name := range names {
		opened, over := false, false
		err := readCapture(ctx, name, std, quiet, func(src capture.Source) (err error) {
			opened = true
			over, err = take(src)
			return err
		})
		if err == nil {
			continue
		}
		if over {
			return lost, err
		}
		g := report.Gap{Reason: report.FileSkipped, Name: report.Printable(displayName(name)), Major: true, Failed: true,
			Sentence: oneLine(err)}
		switch {
		case errors.Is(err, context.Canceled):
			g.Reason, g.Sentence = report.Interrupted, "interrupted while reading "+g.Name
			if rest := len(names) - k - 1; rest > 0 {
				g.Sentence += fmt.Sprintf("; captures not read: %d", rest)
			}
			return append(lost, g), nil
		case errors.Is(err, capture.ErrCut):
			g.Reason, g.Failed = report.FileCut, false
		case opened:
			g.Reason = report.FileFailed
		}
		lost = append(lost, g)
	}
	return lost, nil
}

// openCapture opens a capture. Where a read, or opening it, may wait for ever, as of a
// pipe, another goroutine does, and what waits for that ends with ctx.
func openCapture(ctx context.Context, name string, std stdio) (*capture.File, error) {
	open := func() (io.ReadCloser, error) { return os.Open(name) }
	if name == "-" {
		name = displayName(name)
		if f, ok := std.in.(*os.File); ok && regular(f.Stat()) {
			return capture.NewFile(f, name)
		}
		open = func() (io.ReadCloser, error) { return io.NopCloser(std.in), nil }
	} else if info, err := os.Stat(name); err != nil || info.IsDir() || info.Mode().IsRegular() {
		return capture.OpenFile(name)
	}
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() {
		in, err := open()
		if err == nil {
			_, err = io.Copy(w, in)
			in.Close()
		}
		w.CloseWithError(err)
	}()
	return capture.NewFile(r, name)
}

// displayName is a capture's name for people.
func displayName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

func regular(info fs.FileInfo, err error) bool { return err == nil && info.Mode().IsRegular() }

// mirrorGaps says what is wrong with how the interfaces showed their traffic. The names
// are those of the captures, or of live interfaces.
func mirrorGaps(all []capture.Mirror, names []string, live bool) (gaps []report.Gap) {
	for k := range all {
		m := &all[k]
		name := fmt.Sprintf("interface %d", m.Interface)
		switch {
		case live && m.Interface < len(names):
			name = names[m.Interface]
		case !live && m.Source < len(names):
			name = report.Printable(displayName(names[m.Source]))
			if m.Interface > 0 {
				name += fmt.Sprintf(", interface %d", m.Interface)
			}
		}
		gaps = append(gaps, report.Mirror(name, m)...)
	}
	return gaps
}

// readLive passes live to take, for as long as said (0: until ctx ends), and closes it.
// It returns what was not read.
func readLive(ctx context.Context, live *capture.Live, during time.Duration, std stdio, quiet bool,
	take func(capture.Source) error) ([]report.Gap, error) {
	stopped, from := ctx, time.Now()
	if during > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, during)
		defer cancel()
	}
	defer context.AfterFunc(ctx, func() { live.Close() })()
	var src capture.Source = live
	if !quiet && terminal(std.err) > 0 {
		src = &watched{Live: live, w: std.err, from: from, during: during}
		defer fmt.Fprintf(std.err, "\r\x1b[K")
	}
	err := take(src)
	var lost []report.Gap
	for _, s := range live.Stats() {
		if s.Dropped > 0 {
			lost = append(lost, report.Dropped(s.Name, s.Dropped, s.Received))
		}
		away := report.Gap{Reason: report.InterfaceAway, Name: s.Name, Major: true}
		switch {
		case s.Away != nil:
			away.Sentence = fmt.Sprintf("interface %s is away: %s", s.Name, oneLine(s.Away))
		case s.Returns > 0:
			away.Sentence = fmt.Sprintf("interface %s was away for a part of the time", s.Name)
		default:
			continue
		}
		lost = append(lost, away)
	}
	if during > 0 && stopped.Err() != nil {
		lost = append(lost, report.Gap{Reason: report.Interrupted, Major: true,
			Sentence: fmt.Sprintf("interrupted after %v of %v", time.Since(from).Round(time.Second), during)})
	}
	if errors.Is(err, fs.ErrClosed) || errors.Is(err, io.EOF) {
		return lost, nil
	}
	return lost, err
}

// watched is a Live that shows on a terminal what it has read.
type watched struct {
	*capture.Live
	w           io.Writer
	from, shown time.Time
	during      time.Duration
	packets     int
}

func (s *watched) Next(f *capture.Frame) error {
	err := s.Live.Next(f)
	if err == nil {
		s.packets++
	}
	if err == capture.ErrQuiet || s.packets%4096 == 0 {
		if now := time.Now(); now.Sub(s.shown) >= time.Second {
			s.shown = now
			of := ""
			if s.during > 0 {
				of = fmt.Sprintf(" of %v", s.during)
			}
			fmt.Fprintf(s.w, "\r\x1b[Kwatching: %v%s, %d packets", now.Sub(s.from).Round(time.Second), of, s.packets)
		}
	}
	return err
}

// limited is a Source that ends after a number of frames.
type limited struct {
	capture.Source
	left *uint64
}

func (s *limited) Next(f *capture.Frame) error {
	if *s.left == 0 {
		return io.EOF
	}
	err := s.Source.Next(f)
	if err == nil {
		*s.left--
	}
	return err
}

// trackFlags say how packets become rows.
type trackFlags struct {
	connections int
	early       time.Duration
	homeNets    []string
}

// home returns the networks that are inside.
func (t *trackFlags) home() (features.Home, error) {
	var nets []netip.Prefix
	for _, s := range t.homeNets {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			return features.Home{}, fmt.Errorf("--home-net %s: give an address and a length, as in 192.168.0.0/16", s)
		}
		nets = append(nets, n)
	}
	return features.NewHome(nets), nil
}

func (t *trackFlags) addFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&t.homeNets, "home-net", nil, "network that is inside, for rows of hosts; may be repeated (none: the private, shared, unique local and link-local ones)")
	fs.IntVar(&t.connections, "max-connections", 0, "connections tracked at a time; beyond, the one idle longest is judged early (0: 32768)")
	fs.DurationVar(&t.early, "early", time.Second, "judge a connection that is not established when it is quiet for so long, not only at its timeout (0: only then, as in KDD'99)")
}

// filtered is a Source that leaves out the frames which a tcpdump expression does
// not match.
type filtered struct {
	capture.Source
	expr    string
	filters map[capture.LinkType]*capture.Filter
}

func newFiltered(src capture.Source, expr string) capture.Source {
	if expr == "" {
		return src
	}
	return &filtered{src, expr, map[capture.LinkType]*capture.Filter{}}
}

func (s *filtered) Next(f *capture.Frame) error {
	for {
		if err := s.Source.Next(f); err != nil {
			return err
		}
		filter := s.filters[f.Link]
		if filter == nil {
			var err error
			if filter, err = capture.NewFilter(s.expr, f.Link); err != nil {
				return err
			}
			s.filters[f.Link] = filter
		}
		if filter.Match(f) {
			return nil
		}
	}
}

// progress is a File that shows on a terminal how far it has been read.
type progress struct {
	*capture.File
	w       io.Writer
	name    string
	from    time.Time
	shown   time.Time
	packets int
}

func (p *progress) Next(f *capture.Frame) error {
	p.packets++
	if p.packets%4096 == 0 {
		if now := time.Now(); now.Sub(p.shown) > 200*time.Millisecond {
			p.shown = now
			p.show(now.Sub(p.from))
		}
	}
	return p.File.Next(f)
}

func (p *progress) show(elapsed time.Duration) {
	read, size := p.Progress()
	if size > 0 {
		p.line(fmt.Sprintf(": %d %%, %d packets, %.0f packets/s", 100*read/size, p.packets, float64(p.packets)/elapsed.Seconds()), terminal(p.w))
		return
	}
	p.line(fmt.Sprintf(": %d packets, %d MiB", p.packets, read>>20), terminal(p.w))
}

// line writes name and tail over the line before. What does not fit the columns, of the
// name first, is cut: a line that the terminal wrapped could not be written over.
func (p *progress) line(tail string, columns int) {
	name := []rune(p.name)
	if room := max(columns-1-len(tail), 0); len(name) > room {
		name = append(name[:max(room-1, 0)], '…')
	}
	all := append(name, []rune(tail)...)
	fmt.Fprintf(p.w, "\r\x1b[K%s", string(all[:min(len(all), max(columns-1, 0))]))
}
