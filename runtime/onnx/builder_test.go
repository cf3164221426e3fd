package onnx

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// A fake model is built field by field, so that a test can break any one of them.
type fake struct {
	meta         map[string]string
	opsets       []string
	nodes        [][]byte
	initializers [][]byte
	inputs       [][]byte
	outputs      [][]byte
	modelExtra   []byte // more fields of the ModelProto
	graphExtra   []byte // more fields of the GraphProto
}

func (f *fake) bytes() []byte {
	var g []byte
	repeated := func(num protowire.Number, list [][]byte) {
		for _, b := range list {
			g = append(g, pbBytes(num, b)...)
		}
	}
	repeated(1, f.nodes)
	g = append(g, pbString(2, "fake")...)
	repeated(5, f.initializers)
	repeated(11, f.inputs)
	repeated(12, f.outputs)
	g = append(g, f.graphExtra...)
	m := pbInt(1, 8)
	for _, domain := range f.opsets {
		version := uint64(13)
		if domain == "ai.onnx.ml" {
			version = 3
		}
		m = append(m, pbBytes(8, join(pbString(1, domain), pbInt(2, version)))...)
	}
	m = append(m, pbBytes(7, g)...)
	for _, key := range slices.Sorted(maps.Keys(f.meta)) {
		m = append(m, pbBytes(14, join(pbString(1, key), pbString(2, f.meta[key])))...)
	}
	return append(m, f.modelExtra...)
}

func join(b ...[]byte) []byte { return slices.Concat(b...) }

func pbBytes(num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

func pbString(num protowire.Number, s string) []byte { return pbBytes(num, []byte(s)) }

func pbInt(num protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), n)
}

func floatBytes(x []float32) []byte {
	var b []byte
	for _, v := range x {
		b = protowire.AppendFixed32(b, math.Float32bits(v))
	}
	return b
}

// attr is an attribute; ints are written unpacked, as ONNX's own writer does, and floats packed.
func attr(name string, value any) []byte {
	b := pbString(1, name)
	typ := uint64(0)
	switch v := value.(type) {
	case int:
		b, typ = append(b, pbInt(3, uint64(v))...), attrInt
	case string:
		b, typ = append(b, pbString(4, v)...), attrString
	case []float32:
		b, typ = append(b, pbBytes(7, floatBytes(v))...), attrFloats
	case []int64:
		for _, n := range v {
			b = append(b, pbInt(8, uint64(n))...)
		}
		typ = attrInts
	case []string:
		for _, s := range v {
			b = append(b, pbString(9, s)...)
		}
		typ = attrStrings
	default:
		panic(fmt.Sprintf("attribute %s: %T", name, value))
	}
	return append(b, pbInt(20, typ)...)
}

func node(domain, op string, inputs, outputs []string, attrs ...[]byte) []byte {
	b := join(pbString(4, op), pbString(7, domain))
	for _, s := range inputs {
		b = append(b, pbString(1, s)...)
	}
	for _, s := range outputs {
		b = append(b, pbString(2, s)...)
	}
	for _, a := range attrs {
		b = append(b, pbBytes(5, a)...)
	}
	return b
}

func simple(op, output string, inputs ...string) []byte {
	return node("", op, inputs, []string{output})
}

func tensor(name string, typ uint64, raw []byte, dims ...int64) []byte {
	b := join(pbString(8, name), pbInt(2, typ), pbBytes(9, raw))
	for _, d := range dims {
		b = append(b, pbInt(1, uint64(d))...)
	}
	return b
}

func floats(name string, data []float32, dims ...int64) []byte {
	return tensor(name, typeFloat, floatBytes(data), dims...)
}

// value is an input or output; a dimension of -1 is N.
func value(name string, typ uint64, dims ...int64) []byte {
	var shape []byte
	for _, d := range dims {
		dim := pbInt(1, uint64(d))
		if d < 0 {
			dim = pbString(2, "N")
		}
		shape = append(shape, pbBytes(1, dim)...)
	}
	return join(pbString(1, name), pbBytes(2, pbBytes(1, join(pbInt(1, typ), pbBytes(2, shape)))))
}

// forest is the node arrays of a TreeEnsembleRegressor.
type forest struct {
	tree, id, feature, yes, no []int64
	mode                       []string
	value                      []float32
	targetTree, targetID       []int64
	target                     []int64
	weight                     []float32
	targets                    int
}

// newForest grows complete trees that split at random; nodes are numbered in depth-first order.
func newForest(trees, depth, features int, seed uint64) *forest {
	r := rand.New(rand.NewPCG(seed, 0))
	f := &forest{targets: 1}
	for t := range int64(trees) {
		next := int64(0)
		var grow func(depth int) int64
		grow = func(depth int) int64 {
			id, at := next, len(f.id)
			next++
			f.tree, f.id = append(f.tree, t), append(f.id, id)
			f.yes, f.no = append(f.yes, 0), append(f.no, 0)
			if depth == 0 {
				f.mode, f.feature, f.value = append(f.mode, "LEAF"), append(f.feature, 0), append(f.value, 0)
				f.targetTree, f.targetID = append(f.targetTree, t), append(f.targetID, id)
				f.target, f.weight = append(f.target, 0), append(f.weight, float32(r.NormFloat64()))
				return id
			}
			f.mode = append(f.mode, "BRANCH_LT")
			f.feature = append(f.feature, r.Int64N(int64(features)))
			f.value = append(f.value, float32(r.NormFloat64()))
			f.yes[at] = grow(depth - 1)
			f.no[at] = grow(depth - 1)
			return id
		}
		grow(depth)
	}
	return f
}

func (f *forest) node(input, output string) []byte {
	return node("ai.onnx.ml", "TreeEnsembleRegressor", []string{input}, []string{output}, f.attrs()...)
}

func (f *forest) attrs() [][]byte {
	return [][]byte{
		attr("n_targets", f.targets),
		attr("nodes_treeids", f.tree), attr("nodes_nodeids", f.id), attr("nodes_featureids", f.feature),
		attr("nodes_truenodeids", f.yes), attr("nodes_falsenodeids", f.no),
		attr("nodes_modes", f.mode), attr("nodes_values", f.value),
		attr("target_treeids", f.targetTree), attr("target_nodeids", f.targetID),
		attr("target_ids", f.target), attr("target_weights", f.weight),
	}
}

// score is the sigmoid of the sum of a row's leaves, in double precision.
func (f *forest) score(row []float32) float64 {
	sum := 0.0
	for root := 0; root < len(f.id); {
		at := root
		for f.mode[at] != "LEAF" {
			next := f.no[at]
			if row[f.feature[at]] < f.value[at] {
				next = f.yes[at]
			}
			at = root + int(next)
		}
		for j := range f.targetID {
			if f.targetTree[j] == f.tree[at] && f.targetID[j] == f.id[at] {
				sum += float64(f.weight[j])
			}
		}
		tree := f.tree[root]
		for root < len(f.id) && f.tree[root] == tree {
			root++
		}
	}
	return 1 / (1 + math.Exp(-sum))
}

// metadata keeps the contract for a model of some features that gives each golden row its score.
func metadata(features int, golden [][]float32, scores []float64) map[string]string {
	names := make([]string, features)
	for i := range names {
		names[i] = fmt.Sprintf("feature_%d", i)
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	return map[string]string{
		"picket.contract": "1", "picket.name": "fake", "picket.version": "1.2", "picket.row": "connection",
		"picket.features": text(names), "picket.input": "input", "picket.score": "score",
		"picket.threshold": "0.25", "picket.typical": text(make([]float32, features)),
		"picket.calibration": `{"quantiles":[0.5],"scores":[0.1]}`, "picket.training": `{"data":"none"}`,
		"picket.golden": text(map[string]any{"rows": golden, "scores": scores}),
	}
}

func randomRows(n, features int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	rows := make([]float32, n*features)
	for i := range rows {
		rows[i] = float32(r.NormFloat64())
	}
	return rows
}

// fakeTrees is a model of a forest: its score is a [N, 1] sigmoid.
func fakeTrees(f *forest, features int) *fake {
	rows := [][]float32{randomRows(1, features, 7), randomRows(1, features, 8)}
	return &fake{
		meta:    metadata(features, rows, []float64{f.score(rows[0]), f.score(rows[1])}),
		opsets:  []string{"", "ai.onnx.ml"},
		nodes:   [][]byte{f.node("input", "sum"), simple("Sigmoid", "score", "sum")},
		inputs:  [][]byte{value("input", typeFloat, -1, int64(features))},
		outputs: [][]byte{value("score", typeFloat, -1, 1)},
	}
}

// fakeAutoencoder is features → 3 → features with random weights; its score is a [N] sigmoid of the mean squared
// error, the mean taken by the operator "ReduceMean" or "MatMul" ([N, 1]).
func fakeAutoencoder(features int, mean string) *fake {
	n := int64(features)
	shape := []int64{-1}
	f := &fake{
		meta:   metadata(features, [][]float32{make([]float32, features)}, []float64{0.5}),
		opsets: []string{""},
		nodes: [][]byte{
			simple("Gemm", "h", "input", "w", "b"), simple("Tanh", "t", "h"), simple("Gemm", "x", "t", "v", "c"),
			simple("Sub", "d", "x", "input"), simple("Mul", "d2", "d", "d"),
		},
		initializers: [][]byte{
			floats("w", randomRows(3, features, 2), n, 3), floats("b", randomRows(1, 3, 3), 3),
			floats("v", randomRows(3, features, 4), 3, n), floats("c", make([]float32, features), n),
		},
		inputs: [][]byte{value("input", typeFloat, -1, n)},
	}
	if mean == "MatMul" {
		ones := make([]float32, features)
		for i := range ones {
			ones[i] = 1 / float32(features)
		}
		f.initializers = append(f.initializers, floats("ones", ones, n, 1))
		f.nodes = append(f.nodes, simple("MatMul", "e", "d2", "ones"))
		shape = []int64{-1, 1}
	} else {
		f.nodes = append(f.nodes, node("", mean, []string{"d2"}, []string{"e"}, attr("axes", []int64{1}), attr("keepdims", 0)))
	}
	f.nodes = append(f.nodes, simple("Sigmoid", "score", "e"))
	f.outputs = [][]byte{value("score", typeFloat, shape...)}
	return f
}
