package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/report"
)

// extraction is what the flags of extract ask for.
type extraction struct {
	captures []string
	row      string // kind
	columns  []string
	track    trackFlags
	quiet    bool
}

func extract(ctx context.Context, args []string, std stdio) (int, error) {
	var x extraction
	fs := flagSet("extract", std)
	files := fs.StringArrayP("read", "r", nil, "capture to read, as an argument does")
	output := fs.StringP("output", "o", "-", "file to write (-: standard output)")
	format := fs.String("format", "", "csv or parquet (empty: by the ending of --output, else csv)")
	fs.StringVar(&x.row, "row", string(features.Kinds()[0]), "what a row is of: "+kindNames())
	names := fs.StringSlice("features", nil, "columns to write, by name (empty: all of the groups)")
	groups := fs.StringSlice("group", nil, "groups to write (empty: all)")
	fs.BoolVarP(&x.quiet, "quiet", "q", false, "show no progress, only warnings and errors")
	x.track.addFlags(fs)
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	var err error
	if x.columns, err = chooseColumns(features.RowKind(x.row), *names, *groups); err != nil {
		return 0, err
	}
	if x.captures = append(*files, fs.Args()...); len(x.captures) == 0 {
		return 0, errNoCapture
	}
	if *format == "" && strings.HasSuffix(*output, ".parquet") {
		*format = "parquet"
	}
	write := func(w io.Writer) error {
		rows, err := newRowWriter(cmp.Or(*format, "csv"), w, features.RowKind(x.row), x.columns)
		if err != nil {
			return err
		}
		return errors.Join(x.run(ctx, rows, std), rows.close())
	}
	if *output == "-" {
		return exitNothing, write(std.out)
	}
	return exitNothing, writeFile(*output, x.captures, write)
}

// kindNames returns the names of all kinds of rows, in words.
func kindNames() string {
	var names []string
	for _, k := range features.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, " or ")
}

// chooseColumns returns the named columns, or all of the named groups, of a kind of
// row.
func chooseColumns(row features.RowKind, names, groups []string) ([]string, error) {
	if !slices.Contains(features.Kinds(), row) {
		return nil, fmt.Errorf("no rows of a %q: %s", row, kindNames())
	}
	if len(names) > 0 && len(groups) > 0 {
		return nil, errors.New("--features and --group exclude each other")
	}
	if len(names) > 0 {
		return names, features.Check(row, names)
	}
	var known, columns []string
	for _, f := range features.All() {
		if f.Row != row {
			continue
		}
		if !slices.Contains(known, f.Group) {
			known = append(known, f.Group)
		}
		if len(groups) == 0 || slices.Contains(groups, f.Group) {
			columns = append(columns, f.Name)
		}
	}
	for _, g := range groups {
		if !slices.Contains(known, g) {
			return nil, fmt.Errorf("no group %q: there are %s", g, strings.Join(known, ", "))
		}
	}
	return columns, nil
}

// writeFile lets write fill the file at path, which changes only when all of it is
// there. Its mode stays, a new one's is what the umask leaves. What is no regular file,
// a device or a pipe, is written as it goes. None of the inputs may be the file itself.
func writeFile(path string, inputs []string, write func(io.Writer) error) error {
	if path == "" {
		return errors.New("no name for the output: give a file, or - for standard output")
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	info, err := os.Stat(path)
	if err == nil {
		for _, in := range inputs {
			if other, err := os.Stat(in); err == nil && os.SameFile(info, other) {
				return fmt.Errorf("write %s: it is also an input; name another file", path)
			}
		}
		if info.IsDir() {
			return fmt.Errorf("write %s: is a directory; name a file in it", path)
		}
		if !info.Mode().IsRegular() {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(write(f), f.Close())
		}
	}
	mode := os.FileMode(0o666)
	if info != nil {
		mode = info.Mode().Perm()
	}
	name := filepath.Join(filepath.Dir(path), fmt.Sprintf(".picket-%x", rand.Uint64()))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(name)
	if info != nil {
		err = f.Chmod(mode) // what the umask took of the old one's
	}
	if err := errors.Join(err, write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(name, path)
}

// run writes the rows that scan would judge of all captures, each as if it were alone.
func (x *extraction) run(ctx context.Context, rows rowWriter, std stdio) error {
	var name string
	var writeErr error
	home, err := x.track.home()
	if err != nil {
		return err
	}
	cfg := features.Config{Columns: x.columns, MaxConnections: x.track.connections, Early: x.track.early, Home: home}
	t, err := features.NewExtractor(features.RowKind(x.row), cfg, func(r *features.Row) {
		if r.Silent() {
			return
		}
		if err := rows.write(name, r); writeErr == nil {
			writeErr = err
		}
	})
	if err != nil {
		return err
	}
	for _, name = range x.captures {
		var decoder capture.Decoder
		var stats detect.Stats
		err := readCapture(ctx, name, std, x.quiet, func(src capture.Source) error {
			return capture.Read(ctx, src, &decoder, func(f *capture.Frame, p *capture.Packet, o capture.Outcome) error {
				if stats.Frames++; o.HasPacket() || p.ARP != nil {
					t.Add(p)
				} else if o == capture.UnsupportedLink {
					stats.Links = append(stats.Links[:0], f.Link)
				}
				return writeErr
			}, nil)
		})
		t.Flush()
		stats.Outcomes = decoder.Counts
		warning := func(what string) { fmt.Fprintf(std.err, "picket: warning: %s\n", what) }
		switch {
		case writeErr != nil:
			return writeErr
		case errors.Is(err, context.Canceled):
			return fmt.Errorf("interrupted while reading %s", name)
		case errors.Is(err, capture.ErrCut):
			warning(oneLine(err))
		case err != nil:
			return err
		}
		if stats.Frames == 0 { // no rows is what there is to write
			warning(report.Printable(name) + " holds no packets")
			continue
		}
		for _, g := range mirrorGaps(decoder.Mirrors.Stats(), []string{name}, false) {
			warning(g.Sentence)
		}
		// Of the counters of scan, these are known here.
		for _, g := range (&report.Scan{Stats: stats}).Gaps() {
			switch {
			case g.Reason == report.NotDecoded && stats.Outcomes[capture.UnsupportedLink] == stats.Frames:
				return fmt.Errorf("%s: %s", name, g.Sentence)
			case g.Reason == report.NotDecoded || g.Reason == report.NotIP:
				if g.Major {
					warning(report.Printable(name) + ": " + g.Sentence)
				}
			}
		}
	}
	return nil
}
