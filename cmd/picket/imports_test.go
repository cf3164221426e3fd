package main

import (
	"go/build"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/picket-ids/picket/"

// only lists who may import what; no one else does.
var only = map[string][]string{
	"github.com/yalue/onnxruntime_go": {"runtime/onnx"},
	"github.com/eclipse/paho.mqtt.":   {"runtime/mqtt"},
	"github.com/google/gopacket":      nil, // tests alone
	"github.com/prometheus/":          nil,
	"github.com/landlock-lsm/":        {"runtime/sandbox"},
	"kernel.org/pub/linux/libs/":      {"runtime/sandbox"},
	"github.com/coreos/go-systemd/":   {"runtime/sdnotify"},
	"github.com/pelletier/go-toml/":   {"cmd/picket"},
	"aead.dev/minisign":               {"cmd/picket"},
	module + "runtime/onnx":           {"cmd/picket"},
	module + "runtime/mqtt":           {"cmd/picket"},
	module + "runtime/report":         {"cmd/picket"},
	module + "runtime/spool":          {"cmd/picket"},
	module + "runtime/anonymize":      {"cmd/picket"},
	module + "runtime/sandbox":        {"cmd/picket"},
	module + "runtime/metrics":        {"cmd/picket"},
	module + "runtime/sdnotify":       {"cmd/picket"},
	module + "runtime/detect":         {"cmd/picket", "runtime/report"},
	module + "models":                 {"cmd/picket"},
	module + "features":               {"cmd/picket", "runtime/detect", "runtime/report"},
	module + "internal/":              nil, // tests alone
}

// TestImports holds the architecture: arrows point one way.
func TestImports(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if n := d.Name(); n == "build" || n == "testdata" || len(n) > 2 && n[0] == '.' {
			return fs.SkipDir
		}
		p, err := build.ImportDir(path, 0)
		if err != nil {
			return nil // no Go files
		}
		from := strings.TrimPrefix(filepath.ToSlash(path), "../../")
		for _, imported := range p.Imports {
			for what, who := range only {
				if !strings.HasPrefix(imported, what) {
					continue
				}
				seen[what] = true
				if !slices.Contains(who, from) && !strings.HasPrefix(from, "internal/") {
					t.Errorf("%s imports %s; only %v may", from, imported, who)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"github.com/yalue/onnxruntime_go", "github.com/eclipse/paho.mqtt.", module + "features"} {
		if !seen[what] {
			t.Errorf("nobody imports %s: this test looks in the wrong place", what)
		}
	}
}
