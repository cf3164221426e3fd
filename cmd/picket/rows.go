package main

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/picket-ids/picket/features"
)

// identity says where a row is from and what it is of, by the names that features.Identity gives. None is a feature.
// A value is a string, a time.Time, an int32 or a bool.
var identity = map[string]func(capture string, r *features.Row) any{
	"capture":          func(capture string, _ *features.Row) any { return capture },
	"start":            func(_ string, r *features.Row) any { return time.Unix(0, r.Start).UTC() },
	"end":              func(_ string, r *features.Row) any { return time.Unix(0, r.End).UTC() },
	"host":             func(_ string, r *features.Row) any { return cmp.Or(r.Host.String(), r.Src.String()) },
	"source":           func(_ string, r *features.Row) any { return r.Src.String() },
	"source_port":      func(_ string, r *features.Row) any { return int32(r.SrcPort) },
	"destination":      func(_ string, r *features.Row) any { return r.Dst.String() },
	"destination_port": func(_ string, r *features.Row) any { return int32(r.DstPort) },
	"protocol":         func(_ string, r *features.Row) any { return int32(r.Proto) },
	"community_id":     func(_ string, r *features.Row) any { return r.CommunityID() },
	"ended":            func(_ string, r *features.Row) any { return r.Ended },
}

// A rowWriter writes rows in one format. It holds a bounded part of them.
type rowWriter interface {
	write(capture string, r *features.Row) error
	close() error
}

// newRowWriter returns the writer of a format, csv or parquet, for rows of a kind.
func newRowWriter(format string, w io.Writer, kind features.RowKind, columns []string) (rowWriter, error) {
	switch format {
	case "csv":
		return newCSV(w, features.Identity(kind), columns)
	case "parquet":
		return newParquet(w, features.Identity(kind), columns)
	}
	return nil, fmt.Errorf("no format %q: csv or parquet", format)
}

// csvRows writes RFC 4180, times as RFC 3339 in UTC with nanoseconds.
type csvRows struct {
	buffer *bufio.Writer
	out    *csv.Writer
	names  []string // of the identity
	record []string
}

func newCSV(w io.Writer, names, columns []string) (*csvRows, error) {
	c := &csvRows{buffer: bufio.NewWriterSize(w, 1<<16), names: names}
	c.out = csv.NewWriter(c.buffer)
	return c, c.out.Write(slices.Concat(names, columns))
}

func (c *csvRows) write(capture string, r *features.Row) error {
	c.record = c.record[:0]
	for _, name := range c.names {
		switch v := identity[name](capture, r).(type) {
		case time.Time:
			c.record = append(c.record, v.Format(time.RFC3339Nano))
		default:
			c.record = append(c.record, fmt.Sprint(v))
		}
	}
	for _, v := range r.Values {
		c.record = append(c.record, strconv.FormatFloat(float64(v), 'g', -1, 32))
	}
	return c.out.Write(c.record)
}

func (c *csvRows) close() error {
	c.out.Flush()
	return errors.Join(c.out.Error(), c.buffer.Flush())
}
