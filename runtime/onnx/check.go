package onnx

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// allowedOps are the operators that a detector may use: no control flow, nothing that expands a tensor by a count in
// its data. TreeEnsembleClassifier and TreeEnsemble are left out because corrupt ones
// crash ONNX Runtime 1.21 most.
var allowedOps = map[string]bool{
	"ai.onnx.ml.TreeEnsembleRegressor": true, "ai.onnx.ml.Scaler": true, "ai.onnx.ml.Imputer": true,
	"Abs": true, "Add": true, "And": true, "BatchNormalization": true, "Cast": true, "Clip": true,
	"Concat": true, "Constant": true, "Div": true, "Elu": true, "Equal": true, "Erf": true, "Exp": true,
	"Flatten": true, "Gather": true, "Gemm": true, "Greater": true, "GreaterOrEqual": true,
	"Identity": true, "IsInf": true, "IsNaN": true, "LeakyRelu": true, "Less": true, "LessOrEqual": true,
	"Log": true, "MatMul": true, "Max": true, "Mean": true, "Min": true, "Mul": true, "Neg": true, "Not": true,
	"Or": true, "Pow": true, "PRelu": true, "Reciprocal": true, "ReduceL2": true, "ReduceMax": true,
	"ReduceMean": true, "ReduceMin": true, "ReduceSum": true, "ReduceSumSquare": true, "Relu": true,
	"Reshape": true, "Selu": true, "Sigmoid": true, "Sign": true, "Slice": true, "Softmax": true, "Softplus": true,
	"Softsign": true, "Sqrt": true, "Squeeze": true, "Sub": true, "Sum": true, "Tanh": true, "TopK": true,
	"Transpose": true, "Unsqueeze": true, "Where": true,
}

// keepsWidth are the operators whose output has at least as many columns as their first input.
var keepsWidth = map[string]bool{
	"ai.onnx.ml.Scaler": true, "ai.onnx.ml.Imputer": true,
	"Abs": true, "Add": true, "Cast": true, "Clip": true, "Div": true, "Exp": true, "Identity": true,
	"Log": true, "Max": true, "Min": true, "Mul": true, "Neg": true, "Sign": true, "Sqrt": true, "Sub": true,
}

// reducesRows are the operators that add up a row in an order that depends on where in memory it begins (Eigen,
// ONNX Runtime 1.21): such a model is scored a row at a time. A MatMul with a column of 1/F is
// a mean without that cost.
var reducesRows = map[string]bool{
	"ReduceL2": true, "ReduceMean": true, "ReduceSum": true, "ReduceSumSquare": true, "Softmax": true,
}

const (
	maxElements = 16 << 20 // of one tensor
	maxTargets  = 16       // of a tree ensemble
	maxDepth    = 256      // of a tree: ONNX Runtime builds them by recursion on the C stack
)

// check refuses a graph that could make ONNX Runtime crash, loop or read other files. Of 6,000 byte-level variants of
// four models it let 2,586 through, and none of them killed the process. It does not judge what
// a model computes, nor bound the tensors between operators: a stranger's model is best first run
// in a process of its own. columns is the width of the graph's input.
func (m *modelProto) check(input string, columns int) error {
	for domain := range m.opsets {
		if domain != "" && domain != "ai.onnx" && domain != "ai.onnx.ml" {
			return fmt.Errorf("operator set %.40q is not allowed", domain)
		}
	}
	width := map[string]int{input: columns} // columns of a value, a lower bound; absent: unknown
	for i := range m.graph.initializers {
		t := &m.graph.initializers[i]
		if err := t.check(); err != nil {
			return fmt.Errorf("tensor %.40q: %w", t.name, err)
		}
		if t.name == input {
			return fmt.Errorf("input %.40q has a default value", input)
		}
	}
	for i := range m.graph.nodes {
		n := &m.graph.nodes[i]
		if err := n.check(width); err != nil {
			return fmt.Errorf("operator %d (%.40s): %w", i, n.key(), err)
		}
	}
	return nil
}

// key is the operator's name, with its domain unless that is ONNX's own.
func (n *nodeProto) key() string {
	if n.domain == "" || n.domain == "ai.onnx" {
		return n.op
	}
	return n.domain + "." + n.op
}

func (n *nodeProto) check(width map[string]int) error {
	if !allowedOps[n.key()] {
		if strings.HasPrefix(n.op, "TreeEnsemble") {
			return errors.New("not allowed: export trees as TreeEnsembleRegressor")
		}
		return errors.New("not an operator that a model may use")
	}
	for i := range n.attrs {
		a := &n.attrs[i]
		if slices.ContainsFunc(n.attrs[:i], func(b attribute) bool { return b.name == a.name }) {
			return fmt.Errorf("attribute %.40q occurs twice", a.name)
		}
		if err := a.check(); err != nil {
			return fmt.Errorf("attribute %.40q: %w", a.name, err)
		}
	}
	if len(n.inputs) > 0 && len(n.outputs) > 0 {
		if w, ok := width[n.inputs[0]]; ok && keepsWidth[n.key()] {
			width[n.outputs[0]] = w
		}
	}
	if n.op == "TreeEnsembleRegressor" {
		if len(n.inputs) != 1 {
			return fmt.Errorf("%d inputs, want 1", len(n.inputs))
		}
		w, ok := width[n.inputs[0]]
		if !ok {
			return fmt.Errorf("the number of columns of its input %.40q is unknown", n.inputs[0])
		}
		return n.checkTrees(w)
	}
	return nil
}

// check says whether an attribute holds what its type says, and nothing else.
func (a *attribute) check() error {
	held := map[bool]uint64{
		len(a.floats) > 0: attrFloats, len(a.ints) > 0: attrInts, len(a.strings) > 0: attrStrings, a.tensor != nil: attrTensor,
	}
	if t, ok := held[true]; ok && t != a.typ {
		return fmt.Errorf("type %d, but it holds type %d", a.typ, t)
	}
	switch a.typ {
	case attrFloat, attrInt, attrString, attrFloats, attrInts, attrStrings:
		return nil
	case attrTensor:
		if a.tensor == nil {
			return errors.New("no tensor")
		}
		return a.tensor.check()
	}
	return fmt.Errorf("type %d is not allowed", a.typ)
}

// check says whether a tensor's data is here and as long as its shape says.
func (t *tensorProto) check() error {
	if t.external {
		return errors.New("its data is in another file, which is not allowed")
	}
	size := map[uint64]int{typeFloat: 4, 2: 1, 3: 1, 6: 4, typeInt64: 8, 9: 1, 11: 8}[t.typ]
	if size == 0 {
		return fmt.Errorf("data type %d is not allowed", t.typ)
	}
	elements := int64(1)
	for _, d := range t.dims {
		if d < 0 || d > maxElements || elements*d > maxElements {
			return fmt.Errorf("shape %v is out of bounds", t.dims)
		}
		elements *= d
	}
	want, got := int(elements)*size, t.typed
	switch {
	case t.raw != nil:
		got += len(t.raw) + t.ints
	case t.typ != typeFloat && t.typ != 11:
		got += t.ints * size
	default:
		got += t.ints
	}
	if got != want {
		return fmt.Errorf("%d bytes of data, shape %v needs %d", got, t.dims, want)
	}
	return nil
}

// treeAttributes are those of TreeEnsembleRegressor (ai.onnx.ml 1 and 3) with single-precision values, by type.
var treeAttributes = map[string]uint64{
	"aggregate_function": attrString, "base_values": attrFloats, "n_targets": attrInt, "post_transform": attrString,
	"nodes_falsenodeids": attrInts, "nodes_featureids": attrInts, "nodes_hitrates": attrFloats,
	"nodes_missing_value_tracks_true": attrInts, "nodes_modes": attrStrings, "nodes_nodeids": attrInts,
	"nodes_treeids": attrInts, "nodes_truenodeids": attrInts, "nodes_values": attrFloats,
	"target_ids": attrInts, "target_nodeids": attrInts, "target_treeids": attrInts, "target_weights": attrFloats,
}

// checkTrees says whether the node arrays of a TreeEnsembleRegressor make trees: each tree's nodes in one run, its
// root first, every other node the child of exactly one, and every target at a leaf.
func (n *nodeProto) checkTrees(columns int) error {
	at := map[string]*attribute{}
	for name := range treeAttributes {
		at[name] = &attribute{}
	}
	for i := range n.attrs {
		a := &n.attrs[i]
		if want, ok := treeAttributes[a.name]; !ok || want != a.typ {
			return fmt.Errorf("attribute %.40q is unknown or of the wrong type", a.name)
		}
		at[a.name] = a
	}
	nodes := len(at["nodes_nodeids"].ints)
	for _, name := range []string{"nodes_falsenodeids", "nodes_featureids", "nodes_modes", "nodes_treeids", "nodes_truenodeids", "nodes_values"} {
		if got := at[name].len(); got != nodes || nodes == 0 {
			return fmt.Errorf("%s has %d entries, nodes_nodeids %d", name, got, nodes)
		}
	}
	for _, name := range []string{"nodes_hitrates", "nodes_missing_value_tracks_true"} {
		if got := at[name].len(); got != nodes && got != 0 {
			return fmt.Errorf("%s has %d entries, nodes_nodeids %d", name, got, nodes)
		}
	}
	targets := at["n_targets"].i
	if targets < 1 || targets > maxTargets {
		return fmt.Errorf("n_targets is %d, not 1 to %d", targets, maxTargets)
	}
	if got := at["base_values"].len(); got != 0 && got != int(targets) {
		return fmt.Errorf("base_values has %d entries for %d targets", got, targets)
	}

	features, trees, ids := at["nodes_featureids"].ints, at["nodes_treeids"].ints, at["nodes_nodeids"].ints
	modes, yes, no := at["nodes_modes"].strings, at["nodes_truenodeids"].ints, at["nodes_falsenodeids"].ints
	where := make(map[treeNode]int, nodes) // index by tree and node
	for i := range nodes {
		k, ok := newTreeNode(trees[i], ids[i])
		if _, again := where[k]; again || !ok {
			return fmt.Errorf("tree %d, node %d: occurs twice or is out of bounds", trees[i], ids[i])
		}
		where[k] = i
		if f := features[i]; f < 0 || f >= int64(columns) {
			return fmt.Errorf("tree %d, node %d: feature %d of %d", trees[i], ids[i], f, columns)
		}
	}
	find := func(tree, id int64) (int, bool) {
		k, ok := newTreeNode(tree, id)
		i, found := where[k]
		return i, ok && found
	}

	// One walk down per tree, breadth first: depth[i] is 1 at the root and 0 while i has not been reached.
	depth := make([]uint16, nodes)
	seen := make(map[int64]bool)
	queue := make([]int, 0, nodes)
	for root := 0; root < nodes; {
		tree := trees[root]
		if seen[tree] {
			return fmt.Errorf("the nodes of tree %d are not in one run", tree)
		}
		seen[tree] = true
		depth[root] = 1
		queue = append(queue[:0], root)
		for head := 0; head < len(queue); head++ {
			i := queue[head]
			mode := modes[i]
			if mode == "LEAF" {
				continue
			}
			if !slices.Contains(branchModes, mode) {
				return fmt.Errorf("tree %d, node %d: mode %.40q is unknown", tree, ids[i], mode)
			}
			if depth[i] >= maxDepth {
				return fmt.Errorf("tree %d is deeper than %d", tree, maxDepth)
			}
			for _, id := range [2]int64{yes[i], no[i]} {
				child, ok := find(tree, id)
				if !ok || depth[child] != 0 {
					return fmt.Errorf("tree %d, node %d: its child %d does not exist or has another parent", tree, ids[i], id)
				}
				depth[child] = depth[i] + 1
				queue = append(queue, child)
			}
		}
		for root < nodes && trees[root] == tree {
			if depth[root] == 0 {
				return fmt.Errorf("tree %d: node %d cannot be reached", tree, ids[root])
			}
			root++
		}
	}

	weights := at["target_weights"].len()
	for _, name := range []string{"target_ids", "target_nodeids", "target_treeids"} {
		if got := at[name].len(); got != weights || weights == 0 {
			return fmt.Errorf("%s has %d entries, target_weights %d", name, got, weights)
		}
	}
	for j, id := range at["target_ids"].ints {
		tree, node := at["target_treeids"].ints[j], at["target_nodeids"].ints[j]
		i, ok := find(tree, node)
		if !ok || modes[i] != "LEAF" {
			return fmt.Errorf("target %d: node %d of tree %d is no leaf", j, node, tree)
		}
		if id < 0 || id >= targets {
			return fmt.Errorf("target %d: output %d of %d", j, id, targets)
		}
	}
	return nil
}

// treeNode is a tree's and a node's number in one word, which makes for a fast map.
type treeNode uint64

func newTreeNode(tree, id int64) (treeNode, bool) {
	return treeNode(tree<<32 | id), tree == int64(uint32(tree)) && id == int64(uint32(id))
}

var branchModes = []string{"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}

func (a *attribute) len() int { return len(a.ints) + len(a.floats) + len(a.strings) }
