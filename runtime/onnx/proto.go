package onnx

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// This file reads the part of ONNX's protobuf that a check needs, and no more: field numbers are those of
// onnx.proto (ONNX 1.17). It is stricter than a protobuf library: a group, a field of another wire type or a
// second value of a message that occurs once is an error, since C++ protobuf would merge or skip
// those and so see another model than the one checked here.

// Bounds that keep the memory of a parse within a small multiple of the file, far above any real detector.
const (
	maxFile    = 64 << 20 // bytes
	maxNodes   = 10_000   // operators of a graph; initializers; metadata keys
	maxAttrs   = 64       // attributes of an operator
	maxEdges   = 1_000    // inputs or outputs of an operator or a graph
	maxEntries = 4 << 20  // entries of one attribute
	maxRank    = 8
	maxGraph   = 32 << 20 // bytes of memory that the operators take: 350,000 nodes of trees

	// JSON may take thirty times its octets when it is read. The golden rows of the bundled models have up to 8,535.
	maxProperty   = 1 << 20 // bytes of a picket.* property
	maxProperties = 4 << 20 // bytes of all of them
)

// ONNX type numbers: TensorProto.DataType and AttributeProto.AttributeType.
const (
	typeFloat = 1
	typeInt64 = 7

	attrFloat   = 1
	attrInt     = 2
	attrString  = 3
	attrTensor  = 4
	attrFloats  = 6
	attrInts    = 7
	attrStrings = 8
)

type modelProto struct {
	opsets   map[string]int64
	metadata map[string]string // what is not picket.* is empty
	held     int               // bytes of the values in metadata
	graph    *graphProto
}

type graphProto struct {
	nodes        []nodeProto
	initializers []tensorProto
	inputs       []valueInfo
	outputs      []valueInfo
}

type nodeProto struct {
	op, domain, name string
	inputs, outputs  []string
	attrs            []attribute
}

type attribute struct {
	name    string
	typ     uint64
	i       int64
	s       string
	floats  []float32
	ints    []int64
	strings []string
	tensor  *tensorProto
}

type tensorProto struct {
	name     string
	typ      uint64
	dims     []int64
	raw      []byte // nil unless the data is raw
	typed    int    // entries or, of float and double, bytes in the typed fields
	ints     int    // entries in the fields of integers
	external bool
}

// valueInfo is a graph's input or output. A dimension that is not a number is -1; dims is nil without a shape.
type valueInfo struct {
	name string
	typ  uint64
	dims []int64
}

// field is one field of a message: n holds a varint or fixed value, b the bytes of a length-delimited one.
type field struct {
	num protowire.Number
	typ protowire.Type
	n   uint64
	b   []byte
}

var errWire = errors.New("not a protobuf message")

// eachField calls f for the fields of message b, in order.
func eachField(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		v := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			v.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			v.n = uint64(x)
		case protowire.Fixed64Type:
			v.n, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.b, n = protowire.ConsumeBytes(b)
		default:
			return errWire
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

func (v field) bytes() ([]byte, error) {
	if v.typ != protowire.BytesType {
		return nil, errWire
	}
	return v.b, nil
}

func (v field) string(dst *string) error {
	b, err := v.bytes()
	*dst = string(b)
	return err
}

func (v field) strings(dst *[]string, limit int) error {
	b, err := v.bytes()
	if last := len(*dst) - 1; last >= 0 && (*dst)[last] == string(b) {
		*dst = append(*dst, (*dst)[last]) // thousands of tree nodes say the same
	} else {
		*dst = append(*dst, string(b))
	}
	if err != nil {
		return err
	}
	return tooLong(len(*dst), limit)
}

func (v field) uint(dst *uint64) error {
	if v.typ != protowire.VarintType {
		return errWire
	}
	*dst = v.n
	return nil
}

// int64s appends a repeated int64, packed or not.
func (v field) int64s(dst *[]int64, limit int) error {
	switch v.typ {
	case protowire.VarintType:
		*dst = append(*dst, int64(v.n))
	case protowire.BytesType:
		for b := v.b; len(b) > 0 && len(*dst) <= limit; {
			x, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errWire
			}
			*dst = append(*dst, int64(x))
			b = b[n:]
		}
	default:
		return errWire
	}
	return tooLong(len(*dst), limit)
}

// float32s appends a repeated float, packed or not.
func (v field) float32s(dst *[]float32, limit int) error {
	switch {
	case v.typ == protowire.Fixed32Type:
		*dst = append(*dst, math.Float32frombits(uint32(v.n)))
	case v.typ == protowire.BytesType && len(v.b)%4 == 0:
		for b := v.b; len(b) > 0 && len(*dst) <= limit; b = b[4:] {
			x, _ := protowire.ConsumeFixed32(b)
			*dst = append(*dst, math.Float32frombits(x))
		}
	default:
		return errWire
	}
	return tooLong(len(*dst), limit)
}

func tooLong(n, limit int) error {
	if n > limit {
		return fmt.Errorf("more than %d entries in a list", limit)
	}
	return nil
}

// varints counts the entries of a repeated field of integers, packed or not.
func (v field) varints() (n int, err error) {
	switch v.typ {
	case protowire.VarintType:
		return 1, nil
	case protowire.BytesType:
		for b := v.b; len(b) > 0; n++ {
			_, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return n, errWire
			}
			b = b[size:]
		}
		return n, nil
	}
	return 0, errWire
}

// sub parses a message that may occur once into a new *dst.
func sub[T any](v field, dst **T, parse func([]byte, *T) error) error {
	b, err := v.bytes()
	if err != nil {
		return err
	}
	if *dst != nil {
		return errors.New("a field that may occur once occurs twice")
	}
	*dst = new(T)
	return parse(b, *dst)
}

// appendSub parses one more message of a repeated field.
func appendSub[T any](v field, dst *[]T, limit int, parse func([]byte, *T) error) error {
	b, err := v.bytes()
	if err != nil {
		return err
	}
	*dst = append(*dst, *new(T))
	if err := tooLong(len(*dst), limit); err != nil {
		return err
	}
	return parse(b, &(*dst)[len(*dst)-1])
}

func parseModel(b []byte) (*modelProto, error) {
	m := &modelProto{opsets: map[string]int64{}, metadata: map[string]string{}}
	err := eachField(b, func(v field) error {
		switch v.num {
		case 7:
			return sub(v, &m.graph, parseGraph)
		case 8:
			b, err := v.bytes()
			if err != nil {
				return err
			}
			return m.parseOpset(b)
		case 14:
			b, err := v.bytes()
			if err != nil {
				return err
			}
			return m.parseProperty(b)
		case 20, 25:
			return errors.New("functions and training graphs are not allowed")
		}
		return nil
	})
	if err == nil && m.graph == nil {
		err = errors.New("no graph: not an ONNX model")
	}
	return m, err
}

func (m *modelProto) parseOpset(b []byte) error {
	var domain string
	var version uint64
	err := eachField(b, func(v field) error {
		switch v.num {
		case 1:
			return v.string(&domain)
		case 2:
			return v.uint(&version)
		}
		return nil
	})
	if len(m.opsets) >= maxAttrs {
		return fmt.Errorf("more than %d operator sets", maxAttrs)
	}
	m.opsets[domain] = int64(version)
	return err
}

func (m *modelProto) parseProperty(b []byte) error {
	var key string
	var value []byte
	err := eachField(b, func(v field) (err error) {
		switch v.num {
		case 1:
			return v.string(&key)
		case 2:
			value, err = v.bytes()
		}
		return err
	})
	if err != nil {
		return err
	}
	if !strings.HasPrefix(key, "picket.") {
		value = nil
	}
	if n := len(value); n > maxProperty {
		return fmt.Errorf("metadata property %.40q has %d bytes, more than %d MiB", key, n, maxProperty>>20)
	}
	if m.held += len(value); m.held > maxProperties {
		return fmt.Errorf("metadata property %.40q brings those of picket.* to more than %d MiB", key, maxProperties>>20)
	}
	if _, ok := m.metadata[key]; ok {
		return fmt.Errorf("metadata property %.40q occurs twice", key)
	}
	if len(m.metadata) >= maxNodes {
		return fmt.Errorf("more than %d metadata properties", maxNodes)
	}
	m.metadata[key] = string(value)
	return nil
}

// memory is about what the operators of a graph take when they are parsed, in bytes: two octets of a file may become
// an attribute of 128.
func memory(graph []byte) (n int) {
	eachField(graph, func(v field) error {
		if v.num != 1 {
			return nil
		}
		n += 128
		return eachField(v.b, func(v field) error {
			n += 16
			if v.num != 5 {
				return nil
			}
			n += 128
			return eachField(v.b, func(v field) error {
				switch v.num {
				case 5:
					n += 128
				case 7:
					n += max(4, len(v.b))
				case 8:
					k, _ := v.varints() // what is wrong with them the parse says
					n += 8 * k
				case 9:
					n += 16
				}
				return nil
			})
		})
	})
	return n
}

func parseGraph(b []byte, g *graphProto) error {
	if n := memory(b); n > maxGraph {
		return fmt.Errorf("its operators would take %d MiB of memory, more than %d", n>>20, maxGraph>>20)
	}
	return eachField(b, func(v field) error {
		switch v.num {
		case 1:
			return appendSub(v, &g.nodes, maxNodes, parseNode)
		case 5:
			return appendSub(v, &g.initializers, maxNodes, parseTensor)
		case 11:
			return appendSub(v, &g.inputs, maxEdges, parseValueInfo)
		case 12:
			return appendSub(v, &g.outputs, maxEdges, parseValueInfo)
		case 15:
			return errors.New("sparse initializers are not allowed")
		}
		return nil
	})
}

func parseNode(b []byte, n *nodeProto) error {
	return eachField(b, func(v field) error {
		switch v.num {
		case 1:
			return v.strings(&n.inputs, maxEdges)
		case 2:
			return v.strings(&n.outputs, maxEdges)
		case 3:
			return v.string(&n.name)
		case 4:
			return v.string(&n.op)
		case 5:
			return appendSub(v, &n.attrs, maxAttrs, parseAttribute)
		case 7:
			return v.string(&n.domain)
		}
		return nil
	})
}

func parseAttribute(b []byte, a *attribute) error {
	return eachField(b, func(v field) error {
		switch v.num {
		case 1:
			return v.string(&a.name)
		case 3:
			var n uint64
			err := v.uint(&n)
			a.i = int64(n)
			return err
		case 4:
			return v.string(&a.s)
		case 5:
			return sub(v, &a.tensor, parseTensor)
		case 7:
			return v.float32s(&a.floats, maxEntries)
		case 8:
			return v.int64s(&a.ints, maxEntries)
		case 9:
			return v.strings(&a.strings, maxEntries)
		case 6, 11:
			return errors.New("operators with a subgraph (If, Loop, Scan) are not allowed")
		case 10, 14, 15, 21, 22, 23:
			return errors.New("attributes that are sparse, typed, by reference or lists of tensors are not allowed")
		case 20:
			return v.uint(&a.typ)
		}
		return nil
	})
}

func parseTensor(b []byte, t *tensorProto) error {
	return eachField(b, func(v field) error {
		switch v.num {
		case 1:
			return v.int64s(&t.dims, maxRank)
		case 2:
			return v.uint(&t.typ)
		case 3:
			return errors.New("tensors in segments are not allowed")
		case 4, 10: // float_data, double_data
			if v.typ == protowire.BytesType {
				t.typed += len(v.b)
				return nil
			}
			t.typed += 4
			if v.typ == protowire.Fixed64Type {
				t.typed += 4
			}
			return nil
		case 5, 7, 11: // int32_data, int64_data, uint64_data
			n, err := v.varints()
			t.ints += n
			return err
		case 6:
			return errors.New("tensors of strings are not allowed")
		case 8:
			return v.string(&t.name)
		case 9:
			b, err := v.bytes()
			t.raw = b[:len(b):len(b)]
			if t.raw == nil {
				t.raw = []byte{}
			}
			return err
		case 13:
			t.external = true
		case 14:
			var n uint64
			err := v.uint(&n)
			t.external = t.external || n != 0
			return err
		}
		return nil
	})
}

func parseValueInfo(b []byte, i *valueInfo) error {
	var typ, tensor, shape *struct{}
	parseShape := func(b []byte, _ *struct{}) error {
		i.dims = []int64{}
		return eachField(b, func(v field) error {
			if v.num != 1 {
				return nil
			}
			b, err := v.bytes()
			if err != nil {
				return err
			}
			if len(i.dims) >= maxRank {
				return fmt.Errorf("more than %d dimensions", maxRank)
			}
			dim := uint64(math.MaxUint64) // -1
			err = eachField(b, func(v field) error {
				switch v.num {
				case 1:
					return v.uint(&dim)
				case 2:
					dim = math.MaxUint64
				}
				return nil
			})
			i.dims = append(i.dims, int64(dim))
			return err
		})
	}
	parseTensorType := func(b []byte, _ *struct{}) error {
		return eachField(b, func(v field) error {
			switch v.num {
			case 1:
				return v.uint(&i.typ)
			case 2:
				return sub(v, &shape, parseShape)
			}
			return nil
		})
	}
	parseType := func(b []byte, _ *struct{}) error {
		return eachField(b, func(v field) error {
			if v.num == 1 {
				return sub(v, &tensor, parseTensorType)
			}
			return nil
		})
	}
	return eachField(b, func(v field) error {
		switch v.num {
		case 1:
			return v.string(&i.name)
		case 2:
			return sub(v, &typ, parseType)
		}
		return nil
	})
}
