package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/picket-ids/picket/features"
)

// identity are the columns of extract that say where a row is from and what it is of.
// None is a feature.
var identity = []string{"capture", "start", "end", "source", "source_port", "destination", "destination_port", "protocol", "community_id", "ended"}

// A rowWriter writes rows in one format. It holds a bounded part of them.
type rowWriter interface {
	write(capture string, r *features.Row) error
	close() error
}

// newRowWriter returns the writer of a format: csv or parquet.
func newRowWriter(format string, w io.Writer, columns []string) (rowWriter, error) {
	switch format {
	case "csv":
		return newCSV(w, columns)
	case "parquet":
		return newParquet(w, columns)
	}
	return nil, fmt.Errorf("no format %q: csv or parquet", format)
}

// csvRows writes RFC 4180, times as RFC 3339 in UTC with nanoseconds.
type csvRows struct {
	buffer *bufio.Writer
	out    *csv.Writer
	record []string
}

func newCSV(w io.Writer, columns []string) (*csvRows, error) {
	c := &csvRows{buffer: bufio.NewWriterSize(w, 1<<16)}
	c.out = csv.NewWriter(c.buffer)
	return c, c.out.Write(append(slices.Clone(identity), columns...))
}

func (c *csvRows) write(capture string, r *features.Row) error {
	c.record = append(c.record[:0], capture, stamp(r.Start), stamp(r.End), r.Src.String(), strconv.Itoa(int(r.SrcPort)),
		r.Dst.String(), strconv.Itoa(int(r.DstPort)), strconv.Itoa(int(r.Proto)), r.CommunityID(), strconv.FormatBool(r.Ended))
	for _, v := range r.Values {
		c.record = append(c.record, strconv.FormatFloat(float64(v), 'g', -1, 32))
	}
	return c.out.Write(c.record)
}

func (c *csvRows) close() error {
	c.out.Flush()
	return errors.Join(c.out.Error(), c.buffer.Flush())
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
