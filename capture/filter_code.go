package capture

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// arith is a 32-bit unsigned number computed from a frame.
type arith struct {
	op    byte   // one of + - * / % & | ^ < (shift left) >; 'n' a number, 'l' the length, '[' octets
	x, y  *arith // x is the index of octets
	num   uint32
	proto string // of octets
	size  int
}

// relation reads a comparison of two numbers.
func (p *filterParser) relation() (*node, error) {
	x, err := p.arith(0)
	if err != nil {
		return nil, err
	}
	if !p.take("=", "!=", "<", ">", "<=", ">=") {
		return nil, p.errorf("expected a comparison")
	}
	op := p.tokens[p.at-1].text
	y, err := p.arith(0)
	if err != nil {
		return nil, err
	}
	cond := map[string]bpf.JumpTest{
		"=": bpf.JumpEqual, "!=": bpf.JumpNotEqual, "<": bpf.JumpLessThan,
		">": bpf.JumpGreaterThan, "<=": bpf.JumpLessOrEqual, ">=": bpf.JumpGreaterOrEqual,
	}[op]
	n := &node{cond: cond}
	g := &arithGen{layout: p.layout}
	if y.op == 'n' {
		g.eval(x, 0)
		n.val = y.num
	} else {
		g.eval(y, 0)
		g.emit(bpf.StoreScratch{Src: bpf.RegA, N: 0})
		g.eval(x, 1)
		g.emit(bpf.LoadScratch{Dst: bpf.RegX, N: 0})
		n.useX = true
	}
	if g.err != "" {
		return nil, p.errorf("%s before it", g.err)
	}
	n.load = g.code
	return both(append(g.guards, n)...), nil
}

// arithLevels are the operators from the loosest to the tightest. Those of the
// last level bind in libpcap's grammar to whatever follows, so they may not be
// mixed with others.
var arithLevels = [][]string{{"|", "&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/"}, {"%", "^"}}

func (p *filterParser) arith(level int) (*arith, error) {
	if level == len(arithLevels)-1 {
		start := p.at
		x, err := p.operand()
		if err != nil || !p.take(arithLevels[level]...) {
			return x, err
		}
		op := p.tokens[p.at-1].text
		y, err := p.operand()
		if err != nil {
			return nil, err
		}
		if isOperator(p.peek()) || start > 0 && isOperator(p.tokens[start-1].text) {
			return nil, p.errorf("put what is joined by %s in parentheses", op)
		}
		return p.calculate(op[0], x, y)
	}
	x, err := p.arith(level + 1)
	for err == nil && p.take(arithLevels[level]...) {
		op := p.tokens[p.at-1].text[0]
		var y *arith
		if y, err = p.arith(level + 1); err != nil {
			break
		}
		if x, err = p.calculate(op, x, y); err != nil {
			break
		}
	}
	return x, err
}

func isOperator(s string) bool {
	return slices.ContainsFunc(arithLevels, func(ops []string) bool { return slices.Contains(ops, s) })
}

// calculate joins x and y, at once when both are numbers.
func (p *filterParser) calculate(op byte, x, y *arith) (*arith, error) {
	if y.op == 'n' {
		switch {
		case (op == '/' || op == '%') && y.num == 0:
			return nil, p.errorf("after a division by zero")
		case (op == '<' || op == '>') && y.num > 31:
			return nil, p.errorf("after a shift by more than 31")
		}
	}
	if x.op != 'n' || y.op != 'n' {
		return &arith{op: op, x: x, y: y}, nil
	}
	return &arith{op: 'n', num: alu(op, x.num, y.num)}, nil
}

// alu computes; a divisor is not 0.
func alu(op byte, x, y uint32) uint32 {
	switch op {
	case '+':
		return x + y
	case '-':
		return x - y
	case '*':
		return x * y
	case '/':
		return x / y
	case '%':
		return x % y
	case '&':
		return x & y
	case '|':
		return x | y
	case '^':
		return x ^ y
	case '<':
		return x << y
	}
	return x >> y
}

func (p *filterParser) operand() (*arith, error) {
	leave, err := p.nest()
	if err != nil {
		return nil, err
	}
	defer leave()
	t := p.tokens[p.at]
	switch {
	case p.take("("):
		x, err := p.arith(0)
		if err == nil {
			err = p.need(")")
		}
		return x, err
	case p.take("-"):
		x, err := p.operand()
		if err != nil {
			return nil, err
		}
		return p.calculate('-', &arith{op: 'n'}, x)
	case p.take("len"):
		return &arith{op: 'l'}, nil
	case isNumber(t.text) || isConst(t.text):
		v, err := p.number(1<<32 - 1)
		return &arith{op: 'n', num: v}, err
	}
	if _, ok := filterProtos[t.text]; !ok || p.tokens[p.at+1].text != "[" {
		return nil, p.errorf("expected a number, len or octets as in ip[8]")
	}
	p.at += 2
	x, err := p.arith(0)
	if err != nil {
		return nil, err
	}
	n := &arith{op: '[', x: x, proto: t.text, size: 1}
	if p.take(":") {
		v, err := p.number(4)
		if err != nil || v == 0 || v == 3 {
			p.at--
			return nil, p.errorf("expected 1, 2 or 4 octets")
		}
		n.size = int(v)
	}
	return n, p.need("]")
}

// arithGen makes the instructions that compute a number.
type arithGen struct {
	layout layout
	code   []bpf.Instruction
	guards []*node // what must hold for the number to exist
	err    string
}

func (g *arithGen) emit(in ...bpf.Instruction) { g.code = append(g.code, in...) }

func (g *arithGen) alu(op byte, k uint32) { g.emit(bpf.ALUOpConstant{Op: aluOps[op], Val: k}) }

var aluOps = map[byte]bpf.ALUOp{
	'+': bpf.ALUOpAdd, '-': bpf.ALUOpSub, '*': bpf.ALUOpMul, '/': bpf.ALUOpDiv, '%': bpf.ALUOpMod,
	'&': bpf.ALUOpAnd, '|': bpf.ALUOpOr, '^': bpf.ALUOpXor, '<': bpf.ALUOpShiftLeft, '>': bpf.ALUOpShiftRight,
}

// eval leaves n in A; it may use X and the scratch registers from m on.
func (g *arithGen) eval(n *arith, m int) {
	if m > 14 {
		g.err = "a computation nested too deep"
		return
	}
	switch {
	case n.op == 'n':
		g.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: n.num})
	case n.op == 'l':
		g.emit(g.layout.length()...)
	case n.op == '[':
		g.octets(n, m)
	case n.y.op == 'n':
		g.eval(n.x, m)
		g.alu(n.op, n.y.num)
	default:
		// That the octets on the right exist is not tested: so libpcap.
		guards := g.guards
		g.eval(n.y, m)
		g.guards = guards
		g.emit(bpf.StoreScratch{Src: bpf.RegA, N: m})
		g.eval(n.x, m+1)
		g.emit(bpf.LoadScratch{Dst: bpf.RegX, N: m}, bpf.ALUOpX{Op: aluOps[n.op]})
	}
}

// octets loads some of a header.
func (g *arithGen) octets(n *arith, m int) {
	l := g.layout
	p := l.payload()
	k := filterProtos[n.proto]
	var guard *node
	base, variable := p, false // variable: behind an IPv4 header
	switch {
	case n.proto == "ether":
		base = 0
		if l.aux {
			if n.x.op != 'n' {
				g.err = "on live interfaces no computed octets of ether, found one"
				return
			}
			g.aux(n.x.num, n.size, m)
			return
		}
	case k.ether != 0:
		guard = l.etherType(k.ether)
	case n.proto == "icmp6":
		guard = both(l.etherType(etherIPv6), equal(p+6, 1, uint32(ProtoICMPv6)))
		base += 40
	default:
		variable = true
		guard = both(l.ipProto(4, k.proto), l.notLater())
	}
	if n.x.op != 'n' {
		g.eval(n.x, m)
	}
	if guard != nil {
		g.guards = append(g.guards, guard)
	}
	const far = 1 << 30 // beyond every frame; more would wrap around
	if n.x.op == 'n' && n.x.num > far {
		g.err = fmt.Sprintf("octet %d of no frame", n.x.num)
		return
	}
	switch {
	case n.x.op == 'n' && variable:
		g.emit(bpf.LoadMemShift{Off: uint32(p)}, bpf.LoadIndirect{Off: uint32(base) + n.x.num, Size: n.size})
	case n.x.op == 'n':
		g.emit(bpf.LoadAbsolute{Off: uint32(base) + n.x.num, Size: n.size})
	case variable:
		g.emit(bpf.LoadMemShift{Off: uint32(p)}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{}, bpf.LoadIndirect{Off: uint32(base), Size: n.size})
	default:
		g.emit(bpf.TAX{}, bpf.LoadIndirect{Off: uint32(base), Size: n.size})
	}
}

// aux loads octets of a frame whose tag, octets 12 to 15, the kernel took off.
func (g *arithGen) aux(at uint32, size, m int) {
	switch end := at + uint32(size); {
	case end <= 12:
		g.emit(bpf.LoadAbsolute{Off: at, Size: size})
		return
	case at >= 16:
		g.emit(bpf.LoadAbsolute{Off: at - 4, Size: size})
		return
	}
	for i := range uint32(size) {
		if i > 0 {
			g.alu('<', 8)
			g.emit(bpf.StoreScratch{Src: bpf.RegA, N: m})
		}
		switch off := at + i; {
		case off < 12:
			g.emit(bpf.LoadAbsolute{Off: off, Size: 1})
		case off >= 16:
			g.emit(bpf.LoadAbsolute{Off: off - 4, Size: 1})
		default:
			tag := bpf.ExtVLANProto
			if off >= 14 {
				tag = bpf.ExtVLANTag
			}
			g.emit(bpf.LoadExtension{Num: tag})
			if off%2 == 0 {
				g.alu('>', 8)
			}
			g.alu('&', 0xff)
		}
		if i > 0 {
			g.emit(bpf.LoadScratch{Dst: bpf.RegX, N: m}, bpf.ALUOpX{Op: bpf.ALUOpOr})
		}
	}
}

// length loads the octets that the frame had on the wire.
func (l layout) length() []bpf.Instruction {
	load := []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}
	if l.aux {
		load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 4})
	}
	return load
}

// assembler writes a program from its end to its start, so that the distance to
// a jump's target is known when the jump is written. A label is the number of
// instructions from its target to the end, the target included.
type assembler struct{ rev []bpf.Instruction }

// Labels of the two ends.
const (
	unmatched = 1
	matched   = 2
)

// gen writes what goes to one of two labels by the condition n, and returns the
// label of its own start.
func (a *assembler) gen(n *node, yes, no int) int {
	switch n.op {
	case opYes:
		return yes
	case opNo:
		return no
	case opNot:
		return a.gen(n.x, no, yes)
	case opAnd:
		return a.gen(n.x, a.gen(n.y, yes, no), no)
	case opOr:
		return a.gen(n.x, yes, a.gen(n.y, yes, no))
	}
	yes, no = a.near(yes), a.near(no)
	t, f := uint8(len(a.rev)-yes), uint8(len(a.rev)-no)
	if n.useX {
		a.rev = append(a.rev, bpf.JumpIfX{Cond: n.cond, SkipTrue: t, SkipFalse: f})
	} else {
		a.rev = append(a.rev, bpf.JumpIf{Cond: n.cond, Val: n.val, SkipTrue: t, SkipFalse: f})
	}
	for _, in := range slices.Backward(n.load) {
		a.rev = append(a.rev, in)
	}
	return len(a.rev)
}

// near returns a label that the next conditional jump reaches and that leads to
// the given one. Such a jump skips at most 255 instructions.
func (a *assembler) near(label int) int {
	if len(a.rev)-label < 250 {
		return label
	}
	return a.jump(label)
}

func (a *assembler) jump(label int) int {
	a.rev = append(a.rev, bpf.Jump{Skip: uint32(len(a.rev) - label)})
	return len(a.rev)
}

// assembleFilter returns the program whose tests gen writes. It returns snaplen
// for what matches and 0 for the rest, as the kernel wants it.
func assembleFilter(expr string, gen func(*assembler) int, snaplen uint32) ([]bpf.RawInstruction, error) {
	a := &assembler{rev: []bpf.Instruction{bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: snaplen}}}
	if start := gen(a); start != len(a.rev) {
		a.jump(start)
	}
	const maxInstructions = 4096 // BPF_MAXINSNS
	if len(a.rev) > maxInstructions {
		return nil, fmt.Errorf("compile filter %q: %d instructions, the kernel takes %d; write networks instead of hosts", expr, len(a.rev), maxInstructions)
	}
	slices.Reverse(a.rev)
	code, err := bpf.Assemble(a.rev)
	if err != nil {
		return nil, fmt.Errorf("compile filter %q: %w", expr, err)
	}
	return code, nil
}

// runFilter runs a program of assembleFilter that uses no extension but the
// length. Unlike bpf.VM it knows the length on the wire, which a capture may have
// cut, and allocates nothing.
func runFilter(code []bpf.RawInstruction, b []byte, wire int) uint32 {
	var a, x uint32
	var mem [16]uint32
	b = b[:len(b):len(b)]
	for pc := 0; pc < len(code); pc++ {
		in := &code[pc]
		k := in.K
		switch class := in.Op & 7; class {
		case 0: // load into A
			switch mode := in.Op & 0xe0; mode {
			case 0x00:
				a = k
			case 0x60:
				a = mem[k&15]
			case 0x80:
				a = uint32(wire)
			case 0x20, 0x40:
				off := uint64(k)
				if mode == 0x40 {
					off += uint64(x)
				}
				n := uint64(len(b))
				switch size := in.Op & 0x18; {
				case size == 0x10 && off < n:
					a = uint32(b[off])
				case size == 0x08 && off+2 <= n:
					a = uint32(binary.BigEndian.Uint16(b[off:]))
				case size == 0x00 && off+4 <= n:
					a = binary.BigEndian.Uint32(b[off:])
				default:
					return 0
				}
			}
		case 1: // load into X
			if in.Op == 0x61 {
				x = mem[k&15]
				break
			}
			if uint64(k) >= uint64(len(b)) {
				return 0
			}
			x = uint32(b[k]&15) * 4
		case 2:
			mem[k&15] = a
		case 4:
			v := k
			if in.Op&8 != 0 {
				v = x
			}
			op := in.Op & 0xf0
			if v == 0 && (op == 0x30 || op == 0x90) {
				return 0
			}
			a = alu("+-*/|&<> %^"[op>>4], a, v)
		case 5:
			v := k
			if in.Op&8 != 0 {
				v = x
			}
			var yes bool
			switch in.Op & 0xf0 {
			case 0x00:
				pc += int(k)
				continue
			case 0x10:
				yes = a == v
			case 0x20:
				yes = a > v
			case 0x30:
				yes = a >= v
			case 0x40:
				yes = a&v != 0
			}
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		case 6:
			return k
		case 7:
			x = a // TAX, the only one written
		}
	}
	return 0
}
