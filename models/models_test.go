package models

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "pack bundle.zip anew")

// TestBundle checks that the bundle is the .onnx files beside it, no more and no less.
func TestBundle(t *testing.T) {
	files, err := filepath.Glob("*.onnx")
	if err != nil || len(files) == 0 {
		t.Fatalf("no models: %v", err)
	}
	if *update {
		pack(t, files)
		return
	}
	var names []string
	for _, file := range files {
		name := strings.TrimSuffix(file, ".onnx")
		names = append(names, name)
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Read(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs in bundle.zip (%v): go test ./models -update", file, err)
		}
	}
	if !slices.Equal(Names(), names) {
		t.Errorf("bundle.zip has %v, the folder %v: go test ./models -update", Names(), names)
	}
}

func TestRead(t *testing.T) {
	if !slices.Contains(Names(), Default) {
		t.Errorf("%q is not among %q", Default, Names())
	}
	for _, name := range []string{"", "no-such", "../go", Default + ".onnx"} {
		if _, err := Read(name); err == nil || !strings.Contains(err.Error(), Default) {
			t.Errorf("Read(%q): %v, want an error that lists the models", name, err)
		}
	}
}

// pack gives the same bytes for the same files.
func pack(t *testing.T, files []string) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: file, Method: zip.Deflate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("bundle.zip", b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
