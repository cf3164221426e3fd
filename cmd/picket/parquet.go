//go:build !noparquet

package main

import (
	"io"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/picket-ids/picket/features"
)

// parquetRows writes Apache Parquet with zstd: features as FLOAT, start and end as
// TIMESTAMP in nanoseconds, columns in the order of their names.
type parquetRows struct {
	out   *parquet.GenericWriter[any]
	index map[string]int // of a column in the file
	names []string       // of features
	row   parquet.Row
}

// rowGroup bounds the rows that are held before they are written.
const rowGroup = 1 << 15

func newParquet(w io.Writer, columns []string) (rowWriter, error) {
	group := parquet.Group{
		"capture": parquet.Encoded(parquet.String(), &parquet.RLEDictionary), "start": parquet.Timestamp(parquet.Nanosecond), "end": parquet.Timestamp(parquet.Nanosecond),
		"source": parquet.String(), "source_port": parquet.Int(32), "destination": parquet.String(), "destination_port": parquet.Int(32),
		"protocol": parquet.Int(32), "community_id": parquet.String(), "ended": parquet.Leaf(parquet.BooleanType),
	}
	for _, name := range columns {
		group[name] = parquet.Leaf(parquet.FloatType)
	}
	schema := parquet.NewSchema("row", group)
	p := &parquetRows{
		out:   parquet.NewGenericWriter[any](w, schema, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(rowGroup)),
		index: map[string]int{}, names: columns,
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
	p.set("capture", parquet.ByteArrayValue([]byte(capture)))
	p.set("start", parquet.Int64Value(r.Start))
	p.set("end", parquet.Int64Value(r.End))
	p.set("source", parquet.ByteArrayValue([]byte(r.Src.String())))
	p.set("source_port", parquet.Int32Value(int32(r.SrcPort)))
	p.set("destination", parquet.ByteArrayValue([]byte(r.Dst.String())))
	p.set("destination_port", parquet.Int32Value(int32(r.DstPort)))
	p.set("protocol", parquet.Int32Value(int32(r.Proto)))
	p.set("community_id", parquet.ByteArrayValue([]byte(r.CommunityID())))
	p.set("ended", parquet.BooleanValue(r.Ended))
	for k, v := range r.Values {
		p.set(p.names[k], parquet.FloatValue(v))
	}
	_, err := p.out.WriteRows([]parquet.Row{p.row})
	return err
}

func (p *parquetRows) close() error { return p.out.Close() }
