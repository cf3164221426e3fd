package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
)

// identity are the columns of extract that say which connection a row is of.
// None is a feature.
var identity = []string{"start", "end", "source", "source_port", "destination", "destination_port", "protocol", "ended"}

func extract(ctx context.Context, args []string, std stdio) (int, error) {
	fs := flagSet("extract", std)
	files := fs.StringArrayP("read", "r", nil, "capture to read, as an argument does")
	output := fs.StringP("output", "o", "-", "CSV file to write (-: standard output)")
	names := fs.StringSlice("features", nil, "columns to write, by name (empty: all of the groups)")
	groups := fs.StringSlice("group", nil, "groups to write (empty: all)")
	quiet := fs.BoolP("quiet", "q", false, "show no progress")
	connections := fs.Int("max-connections", 0, "connections tracked at a time (0: 65536)")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	columns, err := chooseColumns(*names, *groups)
	if err != nil {
		return 0, err
	}
	write := func(w io.Writer) error {
		return extractCSV(ctx, append(*files, fs.Args()...), w, columns, *connections, *quiet, std)
	}
	if *output == "-" {
		return exitNothing, write(std.out)
	}
	return exitNothing, writeFile(*output, write)
}

// chooseColumns returns the named columns, or all of the named groups.
func chooseColumns(names, groups []string) ([]string, error) {
	if len(names) > 0 && len(groups) > 0 {
		return nil, errors.New("--features and --group exclude each other")
	}
	if len(names) > 0 {
		return names, features.Check(names)
	}
	var known, columns []string
	for _, f := range features.All() {
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

// writeFile lets write fill a new file, which replaces path only when all of it
// is there.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer os.Remove(path + ".part")
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func extractCSV(ctx context.Context, captures []string, w io.Writer, columns []string, connections int, quiet bool, std stdio) error {
	buffer := bufio.NewWriterSize(w, 1<<16)
	out := csv.NewWriter(buffer)
	record := append(slices.Clone(identity), columns...)
	if err := out.Write(record); err != nil {
		return err
	}
	var writeErr error
	t, err := features.NewTracker(features.Config{Columns: columns, MaxConnections: connections}, func(r *features.Row) {
		record = append(record[:0], stamp(r.Start), stamp(r.End), r.Src.String(), strconv.Itoa(int(r.SrcPort)),
			r.Dst.String(), strconv.Itoa(int(r.DstPort)), strconv.Itoa(int(r.Proto)), strconv.FormatBool(r.Ended))
		for _, v := range r.Values {
			record = append(record, strconv.FormatFloat(float64(v), 'g', -1, 32))
		}
		if err := out.Write(record); err != nil && writeErr == nil {
			writeErr = err
		}
	})
	if err != nil {
		return err
	}
	var decoder capture.Decoder
	readErr := readCaptures(ctx, captures, std, quiet, func(src capture.Source) error {
		return capture.Read(ctx, src, &decoder, func(_ *capture.Frame, p *capture.Packet, o capture.Outcome) error {
			if o.HasPacket() {
				t.Add(p)
			}
			return writeErr
		})
	})
	t.Flush()
	out.Flush()
	return errors.Join(readErr, writeErr, out.Error(), buffer.Flush())
}

// stamp writes a time as RFC 3339 in UTC.
func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
