package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/runtime/report"
)

var errNoCapture = errors.New("no capture named: give a pcap or pcapng file, or - for standard input")

// readCaptures passes the captures of the given names to take, in their order;
// "-" is standard input. A capture that was cut off counts as far as it goes,
// with a warning; any other error ends the reading.
func readCaptures(ctx context.Context, names []string, std stdio, quiet bool, take func(capture.Source) error) error {
	if len(names) == 0 {
		return errNoCapture
	}
	show := !quiet && terminal(std.err) > 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of a pipe that is not read to its end
	for _, name := range names {
		f, err := openCapture(ctx, name, std)
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("interrupted while reading %s", name)
		}
		if err != nil {
			return err
		}
		var src capture.Source = f
		if show {
			src = &progress{File: f, w: std.err, name: report.Printable(filepath.Base(name)), from: time.Now()}
		}
		err = take(src)
		f.Close()
		if show {
			fmt.Fprintf(std.err, "\r\x1b[K")
		}
		switch {
		case errors.Is(err, io.EOF):
		case errors.Is(err, capture.ErrCut):
			fmt.Fprintf(std.err, "picket: warning: %s; what was read counts\n", oneLine(err))
		case errors.Is(err, context.Canceled):
			return fmt.Errorf("interrupted while reading %s", name)
		default:
			return err
		}
	}
	return nil
}

// openCapture opens a capture. Where a read, or opening it, may wait for ever, as of a
// pipe, another goroutine does, and what waits for that ends with ctx.
func openCapture(ctx context.Context, name string, std stdio) (*capture.File, error) {
	open := func() (io.ReadCloser, error) { return os.Open(name) }
	if name == "-" {
		name = "standard input"
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

func regular(info fs.FileInfo, err error) bool { return err == nil && info.Mode().IsRegular() }

// readLive passes live to take, for as long as said (0: until ctx ends), and closes it.
func readLive(ctx context.Context, live *capture.Live, during time.Duration, std stdio, quiet bool, take func(capture.Source) error) error {
	if during > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, during)
		defer cancel()
	}
	defer context.AfterFunc(ctx, func() { live.Close() })()
	var src capture.Source = live
	if !quiet && terminal(std.err) > 0 {
		src = &watched{Live: live, w: std.err, from: time.Now(), during: during}
		defer fmt.Fprintf(std.err, "\r\x1b[K")
	}
	err := take(src)
	for _, s := range live.Stats() {
		if s.Dropped > 0 {
			fmt.Fprintf(std.err, "picket: warning: the kernel dropped %d of %d packets of %s, as they came too fast\n", s.Dropped, s.Received, s.Name)
		}
		if s.Away != nil {
			fmt.Fprintf(std.err, "picket: warning: interface %s is away: %v\n", s.Name, s.Away)
		}
	}
	if errors.Is(err, fs.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
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
}

func (t *trackFlags) addFlags(fs *pflag.FlagSet) {
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
