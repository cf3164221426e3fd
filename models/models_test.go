package models

import (
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	if !slices.Contains(Names(), Default) {
		t.Errorf("%q is not among %q", Default, Names())
	}
	for _, name := range Names() {
		if data, err := Read(name); err != nil || len(data) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
	for _, name := range []string{"", "no-such", "../go", Default + ".onnx"} {
		if _, err := Read(name); err == nil || !strings.Contains(err.Error(), Default) {
			t.Errorf("Read(%q): %v, want an error that lists the models", name, err)
		}
	}
}
