// Package models carries the models that are built into picket.
package models

import (
	"archive/zip"
	_ "embed"
	"fmt"
	"io"
	"strings"
)

// Default is the model that is used unless another is named.
const Default = "captures-xgboost"

// bundle holds the .onnx files beside it, to a quarter of their size: trees of
// numbers repeat themselves. "go test ./models -update" packs it anew.
//
//go:embed bundle.zip
var bundle string

func open() *zip.Reader {
	z, err := zip.NewReader(strings.NewReader(bundle), int64(len(bundle)))
	if err != nil {
		panic(err) // a test reads all of it
	}
	return z
}

// Names are the models, in alphabetical order.
func Names() []string {
	var names []string
	for _, f := range open().File {
		names = append(names, strings.TrimSuffix(f.Name, ".onnx"))
	}
	return names
}

// Read returns the ONNX file of a model, in memory of the caller's own.
func Read(name string) ([]byte, error) {
	f, err := open().Open(name + ".onnx")
	if err != nil {
		return nil, fmt.Errorf("no built-in model %q: there are %s", name, strings.Join(Names(), ", "))
	}
	defer f.Close()
	return io.ReadAll(f)
}
