// Package models carries the models that are built into picket.
package models

import (
	"embed"
	"fmt"
	"strings"
)

// Default is the model that is used unless another is named.
const Default = "nslkdd-xgboost"

//go:embed *.onnx
var files embed.FS

// Names are the models, in alphabetical order.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // an embedded root cannot fail
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".onnx")
	}
	return names
}

// Read returns the ONNX file of a model, in memory of the caller's own.
func Read(name string) ([]byte, error) {
	data, err := files.ReadFile(name + ".onnx")
	if err != nil {
		return nil, fmt.Errorf("no built-in model %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return data, nil
}
