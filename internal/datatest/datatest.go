// Package datatest finds the data that tests measure against but that the
// repository does not carry: data sets and captures of other licences.
package datatest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Data returns the path of elem inside the data folder: $PICKET_DATA, or
// shared/data beside the repository. A test whose data is absent is skipped
// with that reason, and fails when CI_REQUIRE_DATA=1.
func Data(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("PICKET_DATA")
	if root == "" {
		_, self, _, _ := runtime.Caller(0)
		root = filepath.Join(filepath.Dir(self), "..", "..", "..", "shared", "data")
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		const way = "no test data: %v; set PICKET_DATA to its folder"
		if os.Getenv("CI_REQUIRE_DATA") == "1" {
			t.Fatalf(way, err)
		}
		t.Skipf(way, err)
	}
	return path
}
