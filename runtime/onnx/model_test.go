package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

const features = 5

// accepted parses a model that must be good.
func accepted(t testing.TB, f *fake) *Model {
	t.Helper()
	m, err := Parse(f.bytes(), "fake")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// refused parses a model that must not be, for a reason that contains want.
func refused(t *testing.T, data []byte, want string) {
	t.Helper()
	m, err := Parse(data, "fake.onnx")
	if err == nil {
		t.Fatal("accepted")
	}
	if m != nil {
		t.Error("a model beside an error")
	}
	if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "open model fake.onnx: ") {
		t.Errorf("error %q, want one that contains %q", err, want)
	}
	if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("error is not one short line: %q", err)
	}
}

func TestParse(t *testing.T) {
	data := fakeTrees(newForest(3, 2, features, 1), features).bytes()
	path := filepath.Join(t.TempDir(), "fake.onnx")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "fake" || m.Version != "1.2" || m.Contract != 1 || m.Row != "connection" || m.Threshold != 0.25 {
		t.Errorf("metadata %+v", m.Metadata)
	}
	if len(m.Features) != features || m.Features[4] != "feature_4" || len(m.Typical) != features || len(m.Golden.Rows) != 2 {
		t.Errorf("columns %q, %v, %d golden rows", m.Features, m.Typical, len(m.Golden.Rows))
	}
	if string(m.Training) != `{"data":"none"}` || !strings.Contains(string(m.Calibration), "quantiles") {
		t.Errorf("training %s, calibration %s", m.Training, m.Calibration)
	}
	if m.Size != len(data) || len(m.SHA256) != 64 {
		t.Errorf("size %d of %d, hash %q", m.Size, len(data), m.SHA256)
	}
}

func TestOpenMissing(t *testing.T) {
	_, err := Open("no-such.onnx")
	if want := "open model no-such.onnx: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("a folder was accepted")
	}
}

func TestContract(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"features", "", `picket.features is empty`},
		{"features", "-", `no picket.features: not a Picket model (see "picket model show")`},
		{"features", "[]", "picket.features names 0 columns, not 1 to 4096"},
		{"features", "null", "picket.features names 0 columns"},
		{"features", `{"a":1}`, "picket.features is not a JSON array of names"},
		{"features", `["a","b","a","d","e"]`, `picket.features has "a" again or empty in column 3`},
		{"features", `["a","b","c","d"]`, "picket.typical has 5 values for 4 features"},
		{"contract", "2", "update picket"},
		{"contract", "-", "picket.contract is missing"},
		{"name", "-", "picket.name is missing"},
		{"version", "-", "picket.version is missing"},
		{"row", "-", "picket.row is missing"},
		{"row", "flow", `picket.row is "flow", not connection or packet`},
		{"input", "-", "picket.input is missing"},
		{"input", "x", `picket.input`},
		{"score", "-", "picket.score is missing"},
		{"score", "sum", `picket.score names "sum", the graph has no such output`},
		{"threshold", "-", "picket.threshold is missing"},
		{"threshold", "high", `picket.threshold is "high"`},
		{"threshold", "1.01", `picket.threshold is "1.01", not a number from 0 to 1`},
		{"threshold", "NaN", `picket.threshold is "NaN"`},
		{"typical", "-", "picket.typical is missing"},
		{"typical", "[0,0,0,0]", "picket.typical has 4 values for 5 features"},
		{"typical", "[0,0,0,0,1e99]", "picket.typical is not a JSON array of numbers"},
		{"typical", "[0,0,0,0,null]", "picket.typical is not a JSON array of numbers"},
		{"calibration", "-", "picket.calibration is missing"},
		{"calibration", "[1]", "picket.calibration is not a JSON object"},
		{"training", "-", "picket.training is missing"},
		{"golden", "-", "picket.golden is missing"},
		{"golden", `{"rows":[],"scores":[]}`, "picket.golden has 0 rows and 0 scores"},
		{"golden", `{"rows":[[1,2,3,4,5]],"scores":[]}`, "picket.golden has 1 rows and 0 scores"},
		{"golden", `{"rows":[[1,2,3,4]],"scores":[0.5]}`, "picket.golden row 1 has 4 values for 5 features"},
	} {
		t.Run(c.key+"="+c.value, func(t *testing.T) {
			f := fakeTrees(newForest(1, 1, features, 1), features)
			f.meta["picket."+c.key] = c.value
			if c.value == "-" {
				delete(f.meta, "picket."+c.key)
			}
			refused(t, f.bytes(), c.want)
		})
	}
	t.Run("all mistakes in one line", func(t *testing.T) {
		f := fakeTrees(newForest(1, 1, features, 1), features)
		delete(f.meta, "picket.name")
		f.meta["picket.threshold"] = "2"
		refused(t, f.bytes(), `picket.name is missing; picket.threshold is "2"`)
	})
}

func TestTensors(t *testing.T) {
	n := int64(features)
	for name, c := range map[string]struct {
		change func(*fake)
		want   string
	}{
		"one column more":     {func(f *fake) { f.inputs[0] = value("input", typeFloat, -1, n+1) }, "is float32 [N, 6], want float32 [N, 5]"},
		"fixed batch":         {func(f *fake) { f.inputs[0] = value("input", typeFloat, 1, n) }, "is float32 [1, 5]"},
		"double input":        {func(f *fake) { f.inputs[0] = value("input", 11, -1, n) }, "is float64 [N, 5]"},
		"input without shape": {func(f *fake) { f.inputs[0] = pbString(1, "input") }, "without a shape"},
		"no input":            {func(f *fake) { f.inputs = nil }, `picket.input names "input", the graph has no such input`},
		"second input":        {func(f *fake) { f.inputs = append(f.inputs, value("more", typeFloat, -1, 1)) }, `input "more" is not the one`},
		"label as score":      {func(f *fake) { f.outputs[0] = value("score", typeInt64, -1) }, "is int64 [N], want float32 [N] or [N, 1]"},
		"two columns":         {func(f *fake) { f.outputs[0] = value("score", typeFloat, -1, 2) }, "is float32 [N, 2]"},
		"default input":       {func(f *fake) { f.initializers = append(f.initializers, floats("input", make([]float32, n), 1, n)) }, "has a default value"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeTrees(newForest(1, 1, features, 1), features)
			c.change(f)
			refused(t, f.bytes(), c.want)
		})
	}
}

func TestWire(t *testing.T) {
	good := fakeTrees(newForest(1, 1, features, 1), features).bytes()
	refused(t, nil, "no graph: not an ONNX model")
	refused(t, []byte("#!/bin/sh\n"), errWire.Error())
	refused(t, good[:len(good)-3], errWire.Error())
	refused(t, append(bytes.Clone(good), pbBytes(7, nil)...), "occurs twice")
	refused(t, append(bytes.Clone(good), pbInt(7, 1)...), errWire.Error())
	refused(t, append(bytes.Clone(good), protowire.AppendTag(nil, 99, protowire.StartGroupType)...), errWire.Error())
	refused(t, append(bytes.Clone(good), pbBytes(14, pbString(1, "picket.name"))...), "occurs twice")
	refused(t, make([]byte, maxFile+1), "larger than 64 MiB")

	many := bytes.Repeat(pbBytes(1, nil), maxNodes+1)
	refused(t, pbBytes(7, many), "more than 10000 entries")
}
