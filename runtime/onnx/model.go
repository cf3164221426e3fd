// Package onnx loads Picket's models, which are self-describing ONNX files, and scores feature rows with them
// through ONNX Runtime. A Model is read, validated and checked in Go alone; a Library is the
// loaded ONNX Runtime; a Session is a model in it, ready to score.
package onnx

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const (
	maxFeatures = 4096
	maxName     = 200 // bytes of a name or a version: what a signature vouches for
)

// Metadata is what a model says of itself: the picket.* properties of the file.
type Metadata struct {
	Name     string // at most 200 bytes of anything: make it printable before a terminal sees it
	Version  string // as Name
	Contract int    // version of the set of properties: 1
	Row      string // the kind of row that it scores, which Parse does not check

	Features  []string  // the input's columns, in order
	Threshold float64   // a score at or above it is anomalous, 0 to 1
	Typical   []float32 // median of the training normals, by column; finite

	Calibration json.RawMessage // scores of training normals at stated quantiles, a JSON object
	Golden      Golden
	Training    json.RawMessage // data set, protocol and metrics, a JSON object

	SHA256 string // of the file, in hex
	Size   int    // of the file, bytes
}

// Golden is rows with the scores that the trainer's own library gave them.
type Golden struct {
	Rows   [][]float32 `json:"rows"`   // [rows][features], finite
	Scores []float32   `json:"scores"` // 0 to 1
}

// Model is a file that kept the contract and passed the structural check. It is immutable, keeps the
// file's bytes for OpenSession and may be shared; who only needs the Metadata later may drop it.
type Model struct {
	Metadata

	data          []byte
	input, output string // tensor names
	column        bool   // the output is [N, 1], not [N]
	alone         bool   // a row's score depends on its place in the batch
}

// Parse checks the bytes of a model, which it keeps: do not change them. The name is for errors.
func Parse(data []byte, name string) (*Model, error) {
	m, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w", name, err)
	}
	return m, nil
}

// cause takes the operation and the path off an error that is about to say both.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func parse(data []byte) (*Model, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	p, err := parseModel(data)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	m := &Model{data: data, Metadata: Metadata{SHA256: hex.EncodeToString(sum[:]), Size: len(data)}}
	if err := m.readMetadata(p.metadata); err != nil {
		return nil, err
	}
	if err := m.readTensors(p.graph); err != nil {
		return nil, err
	}
	for i := range p.graph.nodes {
		m.alone = m.alone || reducesRows[p.graph.nodes[i].key()]
	}
	return m, p.check(m.input, len(m.Features))
}

// readMetadata fills m from the picket.* properties and names every one that is missing or wrong.
func (m *Model) readMetadata(meta map[string]string) error {
	if _, ok := meta["picket.features"]; !ok {
		return errors.New(`no picket.features: not a Picket model (see "picket model show")`)
	}
	var wrong []string
	bad := func(key, format string, args ...any) {
		wrong = append(wrong, "picket."+key+" "+fmt.Sprintf(format, args...))
	}
	text := func(key string) string {
		v, ok := meta["picket."+key]
		switch {
		case !ok:
			bad(key, "is missing")
		case v == "":
			bad(key, "is empty")
		}
		return v
	}
	decode := func(key, want string, dst any) {
		if v := text(key); v != "" && json.Unmarshal([]byte(v), dst) != nil {
			bad(key, "is not %s", want)
		}
	}
	numbers := func(key, want string, dst any) {
		decode(key, want, dst)
		if strings.Contains(meta["picket."+key], "null") { // would become 0
			bad(key, "is not %s", want)
		}
	}
	object := func(key string) json.RawMessage {
		v := text(key)
		if v != "" && (!json.Valid([]byte(v)) || !strings.HasPrefix(strings.TrimLeft(v, " \t\r\n"), "{")) {
			bad(key, "is not a JSON object")
		}
		return json.RawMessage(v)
	}
	short := func(key string) string {
		v := text(key)
		if len(v) > maxName {
			bad(key, "has %d bytes, more than %d", len(v), maxName)
		}
		return v
	}

	if v := text("contract"); v != "" && v != "1" {
		return fmt.Errorf("its contract is version %.20q, this build knows version 1: update picket", v)
	}
	m.Contract = 1
	m.Name, m.Version = short("name"), short("version")
	m.input, m.output = text("input"), text("score")
	m.Row = text("row")
	decode("features", "a JSON array of names", &m.Features)
	if n := len(m.Features); n == 0 || n > maxFeatures {
		bad("features", "names %d columns, not 1 to %d", n, maxFeatures)
	}
	seen := map[string]bool{}
	for i, f := range m.Features {
		if f == "" || seen[f] {
			bad("features", "has %.40q again or empty in column %d", f, i+1)
			break
		}
		seen[f] = true
	}
	if v := text("threshold"); v != "" {
		t, err := strconv.ParseFloat(v, 64)
		if err != nil || !(t >= 0 && t <= 1) {
			bad("threshold", "is %.20q, not a number from 0 to 1", v)
		}
		m.Threshold = t
	}
	numbers("typical", "a JSON array of numbers", &m.Typical)
	if len(m.Typical) != len(m.Features) {
		bad("typical", "has %d values for %d features", len(m.Typical), len(m.Features))
	}
	m.Calibration = object("calibration")
	m.Training = object("training")
	numbers("golden", "a JSON object of rows and scores", &m.Golden)
	if g := m.Golden; len(g.Rows) == 0 || len(g.Rows) != len(g.Scores) {
		bad("golden", "has %d rows and %d scores", len(g.Rows), len(g.Scores))
	}
	for i, row := range m.Golden.Rows {
		if len(row) != len(m.Features) {
			bad("golden", "row %d has %d values for %d features", i+1, len(row), len(m.Features))
			break
		}
	}
	for i, score := range m.Golden.Scores {
		if !(score >= 0 && score <= 1) {
			bad("golden", "row %d scores %v, not 0 to 1: end the graph with a Sigmoid or a Clip and take its scores", i+1, score)
			break
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// readTensors finds the input and the score among the graph's tensors and checks their types and shapes.
func (m *Model) readTensors(g *graphProto) error {
	initialized := map[string]bool{}
	for i := range g.initializers {
		initialized[g.initializers[i].name] = true
	}
	found := false
	for _, in := range g.inputs {
		switch {
		case in.name == m.input:
			if in.typ != typeFloat || len(in.dims) != 2 || in.dims[0] > 0 || in.dims[1] != int64(len(m.Features)) {
				return fmt.Errorf("input %.40q is %s, want float32 [N, %d]", in.name, in, len(m.Features))
			}
			found = true
		case !initialized[in.name]:
			return fmt.Errorf("input %.40q is not the one that picket.input names", in.name)
		}
	}
	if !found {
		return fmt.Errorf("picket.input names %.40q, the graph has no such input", m.input)
	}
	for _, out := range g.outputs {
		if out.name != m.output {
			continue
		}
		m.column = len(out.dims) == 2
		if out.typ != typeFloat || len(out.dims) < 1 || len(out.dims) > 2 || out.dims[0] > 0 || m.column && out.dims[1] != 1 {
			return fmt.Errorf("score %.40q is %s, want float32 [N] or [N, 1]", out.name, out)
		}
		return nil
	}
	return fmt.Errorf("picket.score names %.40q, the graph has no such output", m.output)
}

// String says type and shape as a person reads them.
func (i valueInfo) String() string {
	if i.dims == nil {
		return "without a shape"
	}
	dims := make([]string, len(i.dims))
	for j, d := range i.dims {
		dims[j] = strconv.FormatInt(d, 10)
		if d < 0 {
			dims[j] = "N"
		}
	}
	typ := map[uint64]string{typeFloat: "float32", typeInt64: "int64", 11: "float64"}[i.typ]
	return cmp.Or(typ, fmt.Sprintf("type %d", i.typ)) + " [" + strings.Join(dims, ", ") + "]"
}
