package onnx

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCheckTrees(t *testing.T) {
	// Two trees of depth 2; in each: 0 → (1 → (2, 3), 4 → (5, 6)).
	for name, c := range map[string]struct {
		change func(*forest)
		want   string
	}{
		"feature past the last": {func(f *forest) { f.feature[0] = features }, "tree 0, node 0: feature 5 of 5"},
		"feature below 0":       {func(f *forest) { f.feature[9] = -1 }, "feature -1 of 5"},
		"child missing":         {func(f *forest) { f.yes[1] = 99 }, "tree 0, node 1: its child 99"},
		"child in other tree":   {func(f *forest) { f.id[6] = 66 }, "tree 0, node 4: its child 6"},
		"child is itself":       {func(f *forest) { f.no[0] = 0 }, "its child 0"},
		"cycle":                 {func(f *forest) { f.no[4] = 0 }, "its child 0"},
		"two parents":           {func(f *forest) { f.yes[4] = 2 }, "its child 2"},
		"unreachable":           {func(f *forest) { f.mode[4] = "LEAF" }, "tree 0: node 5 cannot be reached"},
		"same number twice":     {func(f *forest) { f.id[3] = 2 }, "tree 0, node 2: occurs twice"},
		"huge number":           {func(f *forest) { f.id[3] = 1 << 40 }, "out of bounds"},
		"tree in two runs":      {func(f *forest) { f.tree = []int64{0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1}; f.id[8] = 8 }, "tree 1, node 0: its child 1"},
		"unknown mode":          {func(f *forest) { f.mode[0] = "BRANCH_IN" }, `mode "BRANCH_IN" is unknown`},
		"short thresholds":      {func(f *forest) { f.value = f.value[1:] }, "nodes_values has 13 entries, nodes_nodeids 14"},
		"short modes":           {func(f *forest) { f.mode = f.mode[1:] }, "nodes_modes has 13"},
		"short children":        {func(f *forest) { f.yes = f.yes[1:] }, "nodes_truenodeids has 13"},
		"no nodes":              {func(f *forest) { *f = forest{targets: 1} }, "nodes_falsenodeids has 0 entries, nodes_nodeids 0"},
		"short weights":         {func(f *forest) { f.weight = f.weight[1:] }, "has 8 entries, target_weights 7"},
		"target at a branch":    {func(f *forest) { f.targetID[0] = 0 }, "target 0: node 0 of tree 0 is no leaf"},
		"target in no tree":     {func(f *forest) { f.targetTree[7] = 2 }, "target 7: node 6 of tree 2 is no leaf"},
		"output past the last":  {func(f *forest) { f.target[3] = 1 }, "target 3: output 1 of 1"},
		"no outputs":            {func(f *forest) { f.targets = 0 }, "n_targets is 0"},
		"many outputs":          {func(f *forest) { f.targets = 1 << 40 }, "n_targets is 1099511627776"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForest(2, 2, features, 1)
			fake := fakeTrees(f, features)
			c.change(f)
			fake.nodes[0] = f.node("input", "sum")
			refused(t, fake.bytes(), c.want)
		})
	}
	t.Run("deep", func(t *testing.T) {
		f := &forest{targets: 1, targetTree: []int64{0}, targetID: []int64{0}, target: []int64{0}, weight: []float32{1}}
		for i := range int64(maxDepth + 1) { // 2i is a branch to the leaf 2i+1 and to 2i+2
			f.tree, f.id = append(f.tree, 0, 0), append(f.id, 2*i, 2*i+1)
			f.yes, f.no = append(f.yes, 2*i+1, 0), append(f.no, 2*i+2, 0)
			f.mode, f.value = append(f.mode, "BRANCH_LT", "LEAF"), append(f.value, 0, 0)
			f.feature = append(f.feature, 0, 0)
		}
		fake := fakeTrees(newForest(1, 1, features, 1), features)
		fake.nodes[0] = f.node("input", "sum")
		refused(t, fake.bytes(), "tree 0 is deeper than 256")
	})
}

func TestCheckGraph(t *testing.T) {
	trees := newForest(1, 1, features, 1)
	treeNode := func(attrs ...[]byte) []byte {
		return node("ai.onnx.ml", "TreeEnsembleRegressor", []string{"input"}, []string{"sum"}, append(trees.attrs(), attrs...)...)
	}
	withAttr := func(b []byte) func(*fake) {
		return func(f *fake) { f.nodes[1] = node("", "Sigmoid", []string{"sum"}, []string{"score"}, b) }
	}
	withTensor := func(b []byte) func(*fake) {
		return func(f *fake) { f.initializers = append(f.initializers, b) }
	}
	for name, c := range map[string]struct {
		change func(*fake)
		want   string
	}{
		"loop":              {func(f *fake) { f.nodes[1] = simple("Loop", "score", "sum") }, "operator 1 (Loop): not an operator that a model may use"},
		"classifier":        {func(f *fake) { f.nodes[0] = node("ai.onnx.ml", "TreeEnsembleClassifier", []string{"input"}, nil) }, "export trees as TreeEnsembleRegressor"},
		"custom operator":   {func(f *fake) { f.nodes[1] = node("com.example", "Sigmoid", nil, nil) }, "(com.example.Sigmoid): not an operator"},
		"custom opset":      {func(f *fake) { f.opsets = append(f.opsets, "com.microsoft") }, `operator set "com.microsoft" is not allowed`},
		"subgraph":          {withAttr(join(pbString(1, "body"), pbBytes(6, nil))), "subgraph"},
		"subgraphs":         {withAttr(join(pbString(1, "body"), pbBytes(11, nil))), "subgraph"},
		"by reference":      {withAttr(join(pbString(1, "a"), pbString(21, "b"))), "by reference"},
		"untyped attribute": {withAttr(pbString(1, "a")), `attribute "a": type 0 is not allowed`},
		"lying attribute":   {withAttr(join(attr("a", []int64{1}), pbInt(20, attrFloats))), "type 6, but it holds type 7"},
		"tensor attribute":  {withAttr(join(pbString(1, "a"), pbInt(20, attrTensor))), "no tensor"},
		"function":          {func(f *fake) { f.modelExtra = pbBytes(25, nil) }, "functions and training graphs"},
		"training":          {func(f *fake) { f.modelExtra = pbBytes(20, nil) }, "functions and training graphs"},
		"sparse":            {func(f *fake) { f.graphExtra = pbBytes(15, nil) }, "sparse initializers"},
		"external data":     {withTensor(append(tensor("w", typeFloat, nil, 1), pbBytes(13, nil)...)), `tensor "w": its data is in another file`},
		"external location": {withTensor(append(tensor("w", typeFloat, nil, 1), pbInt(14, 1)...)), `tensor "w": its data is in another file`},
		"strings":           {withTensor(join(pbString(8, "w"), pbString(6, "x"))), "tensors of strings"},
		"segment":           {withTensor(pbBytes(3, nil)), "segments"},
		"short data":        {withTensor(floats("w", make([]float32, 3), 2, 2)), "12 bytes of data, shape [2 2] needs 16"},
		"data twice":        {withTensor(append(floats("w", make([]float32, 1), 1), pbBytes(4, make([]byte, 4))...)), "8 bytes of data"},
		"negative shape":    {withTensor(floats("w", nil, -1)), "shape [-1] is out of bounds"},
		"huge shape":        {withTensor(floats("w", nil, 1<<32, 1<<32)), "is out of bounds"},
		"overflowing shape": {withTensor(floats("w", nil, 1<<24, 1<<24, 1<<24)), "is out of bounds"},
		"rank":              {withTensor(floats("w", make([]float32, 1), 1, 1, 1, 1, 1, 1, 1, 1, 1)), "more than 8 entries"},
		"half precision":    {withTensor(tensor("w", 10, make([]byte, 2), 1)), "data type 10 is not allowed"},
		"twice the values":  {func(f *fake) { f.nodes[0] = treeNode(attr("nodes_values", trees.value)) }, `attribute "nodes_values" occurs twice`},
		"double trees":      {func(f *fake) { f.nodes[0] = treeNode(attr("nodes_values_as_tensor", 1)) }, `attribute "nodes_values_as_tensor" is unknown`},
		"base values":       {func(f *fake) { f.nodes[0] = treeNode(attr("base_values", []float32{1, 2})) }, "base_values has 2 entries for 1 targets"},
		"hit rates":         {func(f *fake) { f.nodes[0] = treeNode(attr("nodes_hitrates", []float32{1})) }, "nodes_hitrates has 1"},
		"trees of unknown":  {func(f *fake) { f.nodes[0] = trees.node("elsewhere", "sum") }, `the number of columns of its input "elsewhere" is unknown`},
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeTrees(trees, features)
			c.change(f)
			refused(t, f.bytes(), c.want)
		})
	}
}

func TestCheckAccepts(t *testing.T) {
	trees := newForest(2, 3, features, 1)
	scaled := fakeTrees(trees, features)
	scaled.nodes = append([][]byte{simple("Sub", "scaled", "input", "mean")}, trees.node("scaled", "sum"), scaled.nodes[1])
	scaled.initializers = [][]byte{floats("mean", make([]float32, features), features)}
	for name, f := range map[string]*fake{
		"trees": fakeTrees(trees, features), "stump": fakeTrees(newForest(1, 0, features, 1), features), "scaled trees": scaled,
		"autoencoder": fakeAutoencoder(features, "ReduceMean"),
	} {
		if _, err := Parse(f.bytes(), name); err != nil {
			t.Error(err)
		}
	}
	shipped, err := filepath.Glob("../../models/*.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range shipped {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(data, path); err != nil {
			t.Error(err)
		}
	}
}

// The page names the operators that a model may use.
func TestOperatorsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/models.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(page), "\n## Operators\n")
	list, _, _ = strings.Cut(list, "\n## ")
	_, list, _ = strings.Cut(list, ":\n\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var told []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
		told = append(told, m[1])
	}
	slices.Sort(told)
	if allowed := slices.Sorted(maps.Keys(allowedOps)); !found || !slices.Equal(told, allowed) {
		t.Errorf("the page names %q, allowed are %q", told, allowed)
	}
}

// FuzzParse looks for panics and for models that are accepted without what the rest of the program relies on.
func FuzzParse(f *testing.F) {
	f.Add(fakeTrees(newForest(2, 2, features, 1), features).bytes())
	f.Add(fakeAutoencoder(features, "MatMul").bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data, "fuzz")
		if err != nil {
			if m != nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v beside %q", m, err)
			}
			return
		}
		n := len(m.Features)
		if len(m.Name) > maxName || n == 0 || len(m.Typical) != n || len(m.Golden.Rows) == 0 || len(m.Golden.Rows) != len(m.Golden.Scores) || !(m.Threshold >= 0 && m.Threshold <= 1) {
			t.Errorf("accepted %+v", m.Metadata)
		}
		for i, x := range m.Typical {
			if x-x != 0 || len(m.Golden.Rows[0]) != n {
				t.Errorf("typical value %d is %v", i, x)
			}
		}
	})
}
