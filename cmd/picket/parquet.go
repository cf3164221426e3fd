//go:build !noparquet

package main

import (
	"io"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/picket-ids/picket/features"
)

// parquetRows writes Apache Parquet with zstd: features as FLOAT, start and end as
// TIMESTAMP in nanoseconds, columns in the order of their names.
type parquetRows struct {
	out      *parquet.GenericWriter[any]
	index    map[string]int // of a column in the file
	names    []string       // of the identity
	features []string
	row      parquet.Row
}

// rowGroup bounds the rows that are held before they are written.
const rowGroup = 1 << 15

func newParquet(w io.Writer, names, columns []string) (rowWriter, error) {
	group := parquet.Group{}
	for _, name := range names {
		switch identity[name]("", &features.Row{}).(type) {
		case string:
			group[name] = parquet.String()
		case time.Time:
			group[name] = parquet.Timestamp(parquet.Nanosecond)
		case int32:
			group[name] = parquet.Int(32)
		case bool:
			group[name] = parquet.Leaf(parquet.BooleanType)
		}
	}
	group["capture"] = parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	for _, name := range columns {
		group[name] = parquet.Leaf(parquet.FloatType)
	}
	schema := parquet.NewSchema("row", group)
	p := &parquetRows{
		out:   parquet.NewGenericWriter[any](w, schema, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(rowGroup)),
		index: map[string]int{}, names: names, features: columns,
	}
	for i, path := range schema.Columns() {
		p.index[strings.Join(path, ".")] = i
	}
	p.row = make(parquet.Row, len(p.index))
	return p, nil
}

func (p *parquetRows) set(name string, v parquet.Value) {
	i := p.index[name]
	p.row[i] = v.Level(0, 0, i)
}

func (p *parquetRows) write(capture string, r *features.Row) error {
	for _, name := range p.names {
		switch v := identity[name](capture, r).(type) {
		case string:
			p.set(name, parquet.ByteArrayValue([]byte(v)))
		case time.Time:
			p.set(name, parquet.Int64Value(v.UnixNano()))
		case int32:
			p.set(name, parquet.Int32Value(v))
		case bool:
			p.set(name, parquet.BooleanValue(v))
		}
	}
	for k, v := range r.Values {
		p.set(p.features[k], parquet.FloatValue(v))
	}
	_, err := p.out.WriteRows([]parquet.Row{p.row})
	return err
}

func (p *parquetRows) close() error { return p.out.Close() }
