package onnx

import (
	"bytes"
	"fmt"
	"runtime"
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
	m, err := Parse(data, "fake")
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
		{"name", strings.Repeat("x", 201), "picket.name has 201 bytes, more than 200"},
		{"version", "-", "picket.version is missing"},
		{"version", strings.Repeat("x", 201), "picket.version has 201 bytes, more than 200"},
		{"row", "-", "picket.row is missing"},
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
		{"calibration", "null", "picket.calibration is not a JSON object"},
		{"training", "-", "picket.training is missing"},
		{"training", `{"data"}`, "picket.training is not a JSON object"},
		{"golden", "-", "picket.golden is missing"},
		{"golden", `{"rows":[],"scores":[]}`, "picket.golden has 0 rows and 0 scores"},
		{"golden", `{"rows":[[1,2,3,4,5]],"scores":[]}`, "picket.golden has 1 rows and 0 scores"},
		{"golden", `{"rows":[[1,2,3,4]],"scores":[0.5]}`, "picket.golden row 1 has 4 values for 5 features"},
		{"golden", `{"rows":[[1,2,3,4,5]],"scores":[2]}`, "picket.golden row 1 scores 2, not 0 to 1: end the graph with a Sigmoid or a Clip"},
		{"golden", `{"rows":[[1,2,3,4,5]],"scores":[-0.5]}`, "picket.golden row 1 scores -0.5, not 0 to 1"},
	} {
		t.Run(fmt.Sprintf("%s=%.40s", c.key, c.value), func(t *testing.T) {
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

// Metadata may not make who reads it take much memory: it is read before a child process tries the model.
func TestMetadataBounds(t *testing.T) {
	long := func(before, part, after string, size int) string {
		return before + strings.Repeat(part, (size-len(before)-len(after))/len(part)) + after
	}
	for name, c := range map[string]struct {
		key  string
		text func(size int) string
	}{
		"golden":   {"golden", func(n int) string { return long(`{"rows":[[]`, `,[]`, `],"scores":[1]}`, n) }},
		"features": {"features", func(n int) string { return long(`[""`, `,""`, `]`, n) }},
		"typical":  {"typical", func(n int) string { return long(`[0`, `,0`, `]`, n) }},
		"training": {"training", func(n int) string {
			var b strings.Builder
			for i := 0; b.Len() < n-20; i++ {
				fmt.Fprintf(&b, `,"%x":0`, i)
			}
			return "{" + b.String()[1:] + "}"
		}},
		"unknown": {"more", func(n int) string { return strings.Repeat("x", n) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeTrees(newForest(1, 1, features, 1), features)
			f.meta["picket."+c.key] = c.text(6 << 20)
			data := f.bytes()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			refused(t, data, `metadata property "picket.`+c.key+`" has 6291`)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
				t.Errorf("%d bytes were allocated for a property that is too long", took)
			}
			f.meta["picket."+c.key] = c.text(maxProperty - 100) // may be wrong, but is read
			data = f.bytes()
			runtime.ReadMemStats(&before)
			Parse(data, "fake")
			runtime.ReadMemStats(&after)
			took := after.TotalAlloc - before.TotalAlloc
			t.Logf("1 MiB takes %.1f", float64(took)/(1<<20))
			if took > 64<<20 {
				t.Errorf("%d bytes were allocated for 1 MiB", took)
			}
		})
	}
	t.Run("sum", func(t *testing.T) {
		f := fakeTrees(newForest(1, 1, features, 1), features)
		for i := range 4 {
			f.meta[fmt.Sprintf("picket.x%d", i)] = strings.Repeat("x", maxProperty)
		}
		refused(t, f.bytes(), `metadata property "picket.x3" brings those of picket.* to more than 4 MiB`)
	})
	t.Run("others", func(t *testing.T) { // are nobody's business
		f := fakeTrees(newForest(1, 1, features, 1), features)
		f.meta["notes"] = strings.Repeat("x", 5<<20)
		accepted(t, f)
	})
}

// Nor may a graph: a few octets of it may become large structures.
func TestGraphBounds(t *testing.T) {
	for name, extra := range map[string][]byte{
		"attributes": bytes.Repeat(pbBytes(1, bytes.Repeat(pbBytes(5, nil), maxAttrs)), 5000),
		"inputs":     bytes.Repeat(pbBytes(1, bytes.Repeat(pbBytes(1, nil), maxEdges)), 2500),
		"integers":   bytes.Repeat(pbBytes(1, pbBytes(5, pbBytes(8, make([]byte, 1<<20)))), 5),
		"strings":    bytes.Repeat(pbBytes(1, pbBytes(5, bytes.Repeat(pbBytes(9, nil), 1<<20))), 3),
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeTrees(newForest(1, 1, features, 1), features)
			f.graphExtra = extra
			data := f.bytes()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			refused(t, data, " MiB of memory, more than 32")
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
				t.Errorf("%d bytes were allocated", took)
			}
		})
	}
	f := fakeTrees(newForest(1, 1, features, 1), features)
	f.initializers = append(f.initializers, join(pbString(8, "w"), pbInt(2, typeInt64), pbInt(1, 8<<20), pbBytes(7, make([]byte, 8<<20))))
	data := f.bytes()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Parse(data, "fake"); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were allocated for a tensor of integers", took)
	}
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

	for _, integers := range [][]byte{{0x80}, bytes.Repeat([]byte{0xff}, 11)} {
		f := fakeTrees(newForest(1, 1, features, 1), features)
		f.initializers = append(f.initializers, pbBytes(7, integers))
		refused(t, f.bytes(), errWire.Error())
	}
	f := fakeTrees(newForest(1, 1, features, 1), features)
	f.initializers = append(f.initializers, protowire.AppendFixed32(protowire.AppendTag(nil, 7, protowire.Fixed32Type), 1))
	refused(t, f.bytes(), errWire.Error())

	many := bytes.Repeat(pbBytes(1, nil), maxNodes+1)
	refused(t, pbBytes(7, many), "more than 10000 entries")
}
