// Sbom writes the software bill of materials of a target, CycloneDX 1.6, to standard output:
//
//	sbom DIR VERSION ARCH
//
// DIR is where build.sh left the target. Go modules come from the build information of the program and of the one
// file's launchers, ONNX Runtime from its file, the other libraries from the list of Debian packages that they were
// taken from.
package main

import (
	"bufio"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Purl    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type document struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("usage: sbom DIR VERSION ARCH")
	}
	dir, version, arch := args[0], args[1], args[2]
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	info, err := buildinfo.ReadFile(filepath.Join(dir, "picket"))
	if err != nil {
		return err
	}
	program, err := sum(filepath.Join(dir, "picket"))
	if err != nil {
		return err
	}
	library, err := sum(filepath.Join(dir, "folder", "libonnxruntime.so"))
	if err != nil {
		return err
	}
	doc := document{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{
		Timestamp: time.Unix(epoch, 0).UTC().Format(time.RFC3339),
		Component: component{Type: "application", Ref: "picket", Name: "picket", Version: version,
			Purl: "pkg:golang/" + info.Main.Path + "@" + version + "?goarch=" + arch + "&goos=linux", Hashes: program},
	}}
	add := func(c component) { doc.Components = append(doc.Components, c) }
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	add(component{Type: "library", Ref: "pkg:golang/std@" + goVersion, Name: "std", Version: goVersion, Purl: "pkg:golang/std@" + goVersion})
	launchers, err := filepath.Glob(filepath.Join(dir, "one", "launcher-*"))
	if err != nil {
		return err
	}
	modules := info.Deps
	for _, path := range launchers {
		launcher, err := buildinfo.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range launcher.Deps {
			if !slices.ContainsFunc(modules, func(have *debug.Module) bool { return have.Path == m.Path }) {
				modules = append(modules, m)
			}
		}
	}
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, Purl: purl}
		if b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(b) == sha256.Size {
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(b)}}
		}
		add(c)
	}
	add(component{Type: "library", Ref: "onnxruntime", Name: "onnxruntime", Version: "1.21.0",
		Purl: "pkg:github/microsoft/onnxruntime@v1.21.0", Hashes: library})
	if err := debian(filepath.Join(dir, "debian", "packages"), add); err != nil {
		return err
	}
	refs := dependency{Ref: "picket"}
	for _, c := range doc.Components {
		refs.DependsOn = append(refs.DependsOn, c.Ref)
	}
	doc.Dependencies = []dependency{refs}
	e := json.NewEncoder(out)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(doc)
}

// debian adds the packages of a list: name, version and SHA-256 in a line.
func debian(list string, add func(component)) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		p := strings.Fields(lines.Text())
		if len(p) != 3 {
			return fmt.Errorf("%s: what is %q?", list, lines.Text())
		}
		purl := "pkg:deb/debian/" + url.PathEscape(p[0]) + "@" + url.QueryEscape(p[1]) + "?distro=trixie"
		add(component{Type: "library", Ref: purl, Name: p[0], Version: p[1], Purl: purl, Hashes: []hash{{"SHA-256", p[2]}}})
	}
	return lines.Err()
}

func sum(path string) ([]hash, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := sha256.Sum256(data)
	return []hash{{"SHA-256", hex.EncodeToString(s[:])}}, nil
}
