//go:build noparquet

package main

import (
	"errors"
	"io"
)

// newParquet refuses: the tag noparquet saves 6.7 MB of binary on gateways.
func newParquet(io.Writer, []string, []string) (rowWriter, error) {
	return nil, errors.New("this build writes no Parquet (tag noparquet): write CSV")
}
