// Sbom writes the software bill of materials of a target, CycloneDX 1.6, to standard output:
//
//	sbom DIR VERSION ARCH
//
// DIR is where build.sh left the target. Go modules come from the build information of the program and of the one
// file's launchers, ONNX Runtime from its file, the other libraries from the list of Debian packages that they were
// taken from. Licences are read from the modules' own files and from Debian's copyright files. A module's sum in go.sum
// is a hash of a list of hashes, which no algorithm of CycloneDX names: it is a property.
package main

import (
	"bufio"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

type named struct {
	Name string `json:"name"`
}

// license is one by name, or an SPDX expression of several.
type license struct {
	License    *named `json:"license,omitempty"`
	Expression string `json:"expression,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type component struct {
	Type        string     `json:"type"`
	Ref         string     `json:"bom-ref"`
	Supplier    named      `json:"supplier"`
	Name        string     `json:"name"`
	Version     string     `json:"version"`
	Description string     `json:"description,omitempty"`
	Hashes      []hash     `json:"hashes,omitempty"`
	Licenses    []license  `json:"licenses"`
	Purl        string     `json:"purl,omitempty"`
	Properties  []property `json:"properties,omitempty"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Authors   []named   `json:"authors"`
	Component component `json:"component"`
	Supplier  named     `json:"supplier"`
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
	nohtml, err := sum(filepath.Join(dir, "folder-nohtml", "picket.bin"))
	if err != nil {
		return err
	}
	libraryVersion, err := os.ReadFile(filepath.Join(dir, "onnxruntime.version"))
	if err != nil {
		return err
	}
	library, err := sum(filepath.Join(dir, "folder", "libonnxruntime.so"))
	if err != nil {
		return err
	}
	picket := component{Type: "application", Ref: "picket", Supplier: ours, Name: "picket", Version: version, Hashes: program,
		Licenses: expression("Apache-2.0"), Purl: "pkg:golang/" + info.Main.Path + "@" + version + "?goarch=" + arch + "&goos=linux"}
	doc := document{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{
		Timestamp: time.Unix(epoch, 0).UTC().Format(time.RFC3339), Authors: []named{ours}, Supplier: ours, Component: picket,
	}}
	add := func(c component) { doc.Components = append(doc.Components, c) }
	picket.Ref, picket.Hashes, picket.Description = "picket-nohtml", nohtml, "the program in the ipk, built without HTML reports"
	add(picket)
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return err
	}
	stdLicense, err := licenseOf(strings.TrimSpace(string(root)))
	if err != nil {
		return err
	}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	add(component{Type: "library", Ref: "pkg:golang/std@" + goVersion, Supplier: named{"The Go Authors"}, Name: "std", Version: goVersion,
		Licenses: stdLicense, Purl: "pkg:golang/std@" + goVersion})
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
		c, err := module(m)
		if err != nil {
			return err
		}
		add(c)
	}
	number, supplier := strings.TrimSpace(string(libraryVersion)), "Microsoft"
	if _, err := os.Stat(filepath.Join(dir, "libonnxruntime.so")); err != nil {
		supplier = "Debian" // its build is one of the packages
	}
	add(component{Type: "library", Ref: "onnxruntime", Supplier: named{supplier}, Name: "onnxruntime", Version: number, Hashes: library,
		Licenses: expression("MIT"), Purl: "pkg:github/microsoft/onnxruntime@v" + number})
	if err := debian(filepath.Join(dir, "debian"), add); err != nil {
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

var ours = named{"Picket developers"}

func expression(spdx string) []license { return []license{{Expression: spdx}} }

func output(command ...string) ([]byte, error) {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return out, nil
}

// module is the component of a Go module, supplied by the organisation or the site in its path.
func module(m *debug.Module) (component, error) {
	out, err := output("go", "mod", "download", "-json", m.Path+"@"+m.Version)
	if err != nil {
		return component{}, err
	}
	var at struct{ Dir string }
	if err := json.Unmarshal(out, &at); err != nil {
		return component{}, err
	}
	licenses, err := licenseOf(at.Dir)
	if err != nil {
		return component{}, err
	}
	parts := strings.Split(m.Path, "/")
	supplier := parts[0]
	switch supplier {
	case "github.com":
		supplier = parts[1]
	case "golang.org", "google.golang.org":
		supplier = "The Go Authors"
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	return component{Type: "library", Ref: purl, Supplier: named{supplier}, Name: m.Path, Version: m.Version, Licenses: licenses,
		Purl: purl, Properties: []property{{"go.sum", m.Sum}}}, nil
}

// marks are phrases of licences.
var marks = []struct{ phrase, spdx string }{
	{"Eclipse Public License v2.0 and Eclipse Distribution License v1.0", "EPL-2.0 OR BSD-3-Clause"},
	{"Apache License Version 2.0", "Apache-2.0"},
	{"is hereby granted, free of charge, to any person", "MIT"},
	{"for any purpose with or without fee is hereby granted, provided that", "ISC"},
	{"for any purpose with or without fee is hereby granted.", "0BSD"},
	{"Neither the name", "BSD-3-Clause"},
	{"Redistribution and use in source and binary forms", "BSD-2-Clause"},
}

var (
	spaces     = regexp.MustCompile(`\s+`)
	identifier = regexp.MustCompile(`SPDX-License-Identifier: ([A-Za-z0-9.+ -]+?) \*/`)
)

// licenseOf reads the licence file in a folder.
func licenseOf(dir string) ([]license, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if name := strings.ToLower(f.Name()); !strings.HasPrefix(name, "licen") && !strings.HasPrefix(name, "copying") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		text := spaces.ReplaceAllString(string(data), " ")
		if m := identifier.FindStringSubmatch(text); m != nil {
			return expression(m[1]), nil
		}
		var found []string
		for _, m := range marks {
			if strings.Contains(text, m.phrase) && !(m.spdx == "BSD-2-Clause" && slices.Contains(found, "BSD-3-Clause")) {
				found = append(found, m.spdx)
			}
		}
		if len(found) > 0 {
			return expression(strings.Join(found, " AND ")), nil
		}
	}
	return nil, fmt.Errorf("%s: no licence file that this program knows", dir)
}

// gcc is the licence of the libraries of GCC, whose copyright file no program can read.
const gcc = "GPL-3.0-or-later WITH GCC-exception-3.1"

// debian adds the packages of a list: name, version, SHA-256, source package and its version in a line.
func debian(dir string, add func(component)) error {
	list, err := os.Open(filepath.Join(dir, "packages"))
	if err != nil {
		return err
	}
	defer list.Close()
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		p := strings.Fields(lines.Text())
		if len(p) != 5 {
			return fmt.Errorf("%s: what is %q? make clean has it made anew", list.Name(), lines.Text())
		}
		c := component{Type: "library", Supplier: named{"Debian"}, Name: p[0], Version: p[1], Hashes: []hash{{"SHA-256", p[2]}},
			Purl:       "pkg:deb/debian/" + url.PathEscape(p[0]) + "@" + url.QueryEscape(p[1]) + "?distro=trixie",
			Properties: []property{{"debian:source", p[3] + " " + p[4]}}}
		c.Ref = c.Purl
		copyright, err := os.ReadFile(filepath.Join(dir, "root/usr/share/doc", p[0], "copyright"))
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(copyright)) {
			if name, ok := strings.CutPrefix(line, "License:"); ok && strings.HasPrefix(string(copyright), "Format:") {
				names = append(names, strings.TrimSpace(name))
			}
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if name != "" {
				c.Licenses = append(c.Licenses, license{License: &named{name}})
			}
		}
		switch {
		case c.Licenses != nil:
		case strings.HasPrefix(p[3], "gcc-"):
			c.Licenses = expression(gcc)
		default:
			return fmt.Errorf("%s: this program cannot read the licences of %s", list.Name(), p[0])
		}
		add(c)
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
