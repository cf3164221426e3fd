//go:build nohtml

package report

import (
	"errors"
	"io"
)

// HTML refuses: the tag nohtml saves 2 MB of binary on gateways.
func (s *Scan) HTML(io.Writer) error {
	return errors.New("this build writes no HTML (tag nohtml): take the table, or --json")
}
