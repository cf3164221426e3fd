package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// FilterSyntax tells a person what filter expressions may hold.
const FilterSyntax = `host, net, port and portrange after tcp, udp, sctp, ip, ip6, arp, rarp or ether and src or dst;
ip, ip6, arp, rarp, tcp, udp, sctp, icmp, icmp6, igmp, pim, vrrp, ah, esp; proto N, vlan [ID], broadcast, multicast,
less N, greater N; comparisons of len and of octets, as in tcp[tcpflags] & tcp-syn != 0; and, or, not, parentheses`

// maxFilterNesting bounds parentheses and negations, maxFilter the octets of an
// expression: a program for the kernel has at most 4,096 instructions.
const (
	maxFilterNesting = 100
	maxFilter        = 16 << 10
)

// Filter decides by an expression of tcpdump's which frames are of interest. It
// understands the part of pcap-filter(7) that FilterSyntax lists and means by it
// exactly what tcpdump means that reads a file, on live interfaces too: "and"
// and "or" bind alike and to the left, a frame too short for a test that is
// reached does not match, and a frame with a VLAN tag matches only what stands
// behind "vlan", which moves all that follows it behind the tag.
//
// (tcpdump itself looks past the outermost tag on live interfaces without being
// asked to, because the kernel took it off before; so its answers differ between
// an interface and a file of the same packets. These do not.)
//
// Match allocates nothing but the program of a link type at its first frame. A
// Filter is not safe for concurrent use.
type Filter struct {
	expr     string
	programs []linkProgram
}

type linkProgram struct {
	link LinkType
	code []bpf.RawInstruction // nil when the expression makes no sense on link
}

// NewFilter compiles an expression for frames of a link type. An empty one
// matches everything. The error names the position of what cannot be compiled.
func NewFilter(expr string, link LinkType) (*Filter, error) {
	code, err := compileFilter(expr, link)
	if err != nil {
		return nil, err
	}
	return &Filter{expr: expr, programs: []linkProgram{{link, code}}}, nil
}

func compileFilter(expr string, link LinkType) ([]bpf.RawInstruction, error) {
	n, err := parseFilter(expr, layout{link: link})
	if err != nil {
		return nil, err
	}
	return assembleFilter(expr, func(a *assembler) int { return a.gen(n, matched, unmatched) }, maxRecord)
}

func (f *Filter) String() string { return f.expr }

// Match reports whether f matches fr. Frames of a link type for which the
// expression has no meaning do not match.
func (f *Filter) Match(fr *Frame) bool {
	for i := range f.programs {
		if p := &f.programs[i]; p.link == fr.Link {
			return p.code != nil && runFilter(p.code, fr.Data, max(fr.WireLen, len(fr.Data))) != 0
		}
	}
	code, err := compileFilter(f.expr, fr.Link)
	if err != nil {
		code = nil
	}
	f.programs = append(f.programs, linkProgram{fr.Link, code})
	return f.Match(fr)
}

// layout says where in a frame its headers are.
type layout struct {
	link LinkType
	// aux is of frames as the kernel shows them to a filter once it has taken
	// the outermost VLAN tag off and put it beside.
	aux   bool
	depth int // VLAN tags that the expression has looked at
}

// node is a condition.
type node struct {
	op   nodeOp
	x, y *node             // of and, or; x of not
	load []bpf.Instruction // of test: what leaves the value to be tested in A
	cond bpf.JumpTest
	val  uint32
	useX bool // the test compares with X, not val
}

type nodeOp uint8

const (
	opTest nodeOp = iota
	opAnd
	opOr
	opNot
	opYes
	opNo
)

var yes, no = &node{op: opYes}, &node{op: opNo}

func both(n ...*node) *node   { return fold(opAnd, n) }
func either(n ...*node) *node { return fold(opOr, n) }

func fold(op nodeOp, n []*node) *node {
	all := n[0]
	for _, m := range n[1:] {
		all = &node{op: op, x: all, y: m}
	}
	return all
}

func test(cond bpf.JumpTest, val uint32, load ...bpf.Instruction) *node {
	return &node{load: load, cond: cond, val: val}
}

func equal(off, size int, val uint32) *node {
	return test(bpf.JumpEqual, val, bpf.LoadAbsolute{Off: uint32(off), Size: size})
}

// masked tests the octets under a mask.
func masked(off, size int, mask, val uint32) *node {
	if mask == 0 {
		return yes
	}
	return test(bpf.JumpEqual, val, bpf.LoadAbsolute{Off: uint32(off), Size: size}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
}

// etherTypeAt returns the offset of the EtherType, -1 where there is none.
func (l layout) etherTypeAt() int {
	tags := 4 * l.depth
	if l.aux {
		tags -= 4
	}
	switch l.link {
	case LinkEthernet:
		return 12 + tags
	case LinkSLL:
		return 14
	case LinkSLL2:
		return 0
	}
	return -1
}

// payload returns the offset of the network header.
func (l layout) payload() int {
	switch l.link {
	case LinkEthernet:
		return l.etherTypeAt() + 2
	case LinkSLL:
		return 16
	case LinkSLL2:
		return 20
	case LinkNull, LinkLoop:
		return 4
	}
	return 0
}

// atTag reports whether what comes next in the frame is the tag that the kernel
// took off.
func (l layout) atTag() bool { return l.aux && l.depth == 0 }

func (l layout) etherType(typ uint16) *node {
	if l.atTag() {
		if typ == etherVLAN || typ == etherQinQ || typ == etherQinQ91 {
			return test(bpf.JumpEqual, uint32(typ), bpf.LoadExtension{Num: bpf.ExtVLANProto})
		}
		return no
	}
	if at := l.etherTypeAt(); at >= 0 {
		return equal(at, 2, uint32(typ))
	}
	var version, family uint32
	switch typ {
	case etherIPv4:
		version = 4
	case etherIPv6:
		version = 6
	default:
		return no
	}
	switch l.link {
	case LinkRaw:
		return masked(0, 1, 0xf0, version<<4)
	case LinkIPv4, LinkIPv6:
		if (version == 4) == (l.link == LinkIPv4) {
			return yes
		}
		return no
	}
	// The families of BSD loopback, see loopback: in either byte order.
	n := no
	families := []uint32{2}
	if version == 6 {
		families = []uint32{10, 23, 24, 28, 30}
	}
	for _, family = range families {
		n = either(n, equal(0, 4, family), equal(0, 4, family<<24))
	}
	return n
}

// isTag tests for a VLAN tag, of any identifier if id is negative.
func (l layout) isTag(id int) *node {
	if l.atTag() {
		if id < 0 {
			return yes
		}
		return test(bpf.JumpEqual, uint32(id), bpf.LoadExtension{Num: bpf.ExtVLANTag}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff})
	}
	n := either(l.etherType(etherVLAN), l.etherType(etherQinQ), l.etherType(etherQinQ91))
	if id >= 0 {
		n = both(n, masked(l.payload(), 2, 0xfff, uint32(id)))
	}
	return n
}

// ipProto tests the protocol of an IPv4 or IPv6 header, as libpcap does: of IPv6,
// extension headers but that of fragments are not looked behind.
func (l layout) ipProto(version int, proto uint8) *node {
	p := l.payload()
	if version == 4 {
		return both(l.etherType(etherIPv4), equal(p+9, 1, uint32(proto)))
	}
	return both(l.etherType(etherIPv6), either(equal(p+6, 1, uint32(proto)),
		both(equal(p+6, 1, extFragment), equal(p+40, 1, uint32(proto)))))
}

// notLater excludes all fragments of IPv4 but the first.
func (l layout) notLater() *node {
	return test(bpf.JumpBitsNotSet, 0x1fff, bpf.LoadAbsolute{Off: uint32(l.payload() + 6), Size: 2})
}

// direction of a qualifier.
type direction uint8

const (
	dirAny direction = iota // src or dst
	dirSrc
	dirDst
	dirBoth // src and dst
)

func (d direction) of(src, dst *node) *node {
	switch d {
	case dirSrc:
		return src
	case dirDst:
		return dst
	case dirBoth:
		return both(src, dst)
	}
	return either(src, dst)
}

// addresses tests those of a header whose source is at offset src and whose
// destination at dst.
func addresses(src, dst int, d direction, net netip.Prefix) *node {
	at := func(off int) *node {
		a := net.Addr().AsSlice()
		n := yes
		for i := 0; i < len(a) && i*8 < net.Bits(); i += 4 {
			mask := ^uint32(0)
			if left := net.Bits() - i*8; left < 32 {
				mask <<= 32 - left
			}
			word := uint32(a[i])<<24 | uint32(a[i+1])<<16 | uint32(a[i+2])<<8 | uint32(a[i+3])
			m := masked(off+i, 4, mask, word&mask)
			if mask == ^uint32(0) {
				m = equal(off+i, 4, word)
			}
			if n = both(n, m); i == 0 {
				n = m
			}
		}
		return n
	}
	return d.of(at(src), at(dst))
}

// host tests addresses in the headers of one protocol, or of all that can have
// them for "".
func (l layout) host(proto string, d direction, net netip.Prefix) *node {
	p := l.payload()
	if net.Addr().Is6() {
		return both(l.etherType(etherIPv6), addresses(p+8, p+24, d, net))
	}
	ip := both(l.etherType(etherIPv4), addresses(p+12, p+16, d, net))
	arp := both(l.etherType(etherARP), addresses(p+14, p+24, d, net))
	rarp := both(l.etherType(etherRARP), addresses(p+14, p+24, d, net))
	switch proto {
	case "ip":
		return ip
	case "arp":
		return arp
	case "rarp":
		return rarp
	}
	return either(ip, arp, rarp)
}

// ports tests for a range of ports, with an IP protocol or, for 0, any that has
// them.
func (l layout) ports(proto uint8, d direction, from, to uint16) *node {
	protos := []uint8{proto}
	if proto == 0 {
		protos = []uint8{ProtoTCP, ProtoUDP, ProtoSCTP}
	}
	p := l.payload()
	in := func(load ...bpf.Instruction) *node {
		if from == to {
			return test(bpf.JumpEqual, uint32(from), load...)
		}
		return both(test(bpf.JumpGreaterOrEqual, uint32(from), load...), test(bpf.JumpLessOrEqual, uint32(to), load...))
	}
	in4 := func(off int) *node {
		return in(bpf.LoadMemShift{Off: uint32(p)}, bpf.LoadIndirect{Off: uint32(p + off), Size: 2})
	}
	in6 := func(off int) *node { return in(bpf.LoadAbsolute{Off: uint32(p + 40 + off), Size: 2}) }
	is4, is6 := no, no
	for _, proto := range protos {
		is4 = either(is4, equal(p+9, 1, uint32(proto)))
		is6 = either(is6, equal(p+6, 1, uint32(proto)))
	}
	return either(
		both(l.etherType(etherIPv6), is6, d.of(in6(0), in6(2))),
		both(l.etherType(etherIPv4), is4, l.notLater(), d.of(in4(0), in4(2))))
}

const (
	etherRARP = 0x8035
	protoIGMP = 2
	protoESP  = 50
	protoAH   = 51
	protoPIM  = 103
	protoVRRP = 112
)

// filterProtos are the protocols with a name in expressions.
var filterProtos = map[string]struct {
	ether  uint16 // of ip, ip6, arp, rarp
	proto  uint8
	v4, v6 bool // the versions of IP that carry proto
}{
	"ether": {}, "ip": {ether: etherIPv4}, "ip6": {ether: etherIPv6}, "arp": {ether: etherARP}, "rarp": {ether: etherRARP},
	"tcp": {0, ProtoTCP, true, true}, "udp": {0, ProtoUDP, true, true}, "sctp": {0, ProtoSCTP, true, true},
	"icmp": {0, ProtoICMP, true, false}, "icmp6": {0, ProtoICMPv6, false, true}, "igmp": {0, protoIGMP, true, false},
	"pim": {0, protoPIM, true, true}, "vrrp": {0, protoVRRP, true, false},
	"ah": {0, protoAH, true, true}, "esp": {0, protoESP, true, true},
}

// filterConsts are the numbers with a name in expressions.
var filterConsts = map[string]uint32{
	"tcpflags": 13, "icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1,
	"tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13,
	"icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130,
	"icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133,
	"icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
}

// qualifier is what stands before an address or a number: "tcp src port".
type qualifier struct {
	proto string
	dir   direction
	kind  string // host, net, port, portrange, proto; "" for none so far
	set   bool   // there is one: an address may do without its own
}

type token struct {
	text string
	pos  int // octets before it
	word bool
}

// filterParser builds the tree for one layout; "vlan" changes the layout for all
// that stands behind it in the text.
type filterParser struct {
	expr    string
	tokens  []token // with an empty one at the end
	at      int
	nesting int
	layout  layout
	last    qualifier
}

// filterError stands at a token.
type filterError struct {
	pos  int
	text string
}

func (e *filterError) Error() string { return e.text }

func parseFilter(expr string, l layout) (*node, error) {
	fail := func(pos int, what string) error {
		return fmt.Errorf("compile filter %q: at octet %d: %s; a filter may have: %s", expr, pos+1, what, strings.ReplaceAll(FilterSyntax, "\n", " "))
	}
	if len(expr) > maxFilter {
		return nil, fmt.Errorf("compile filter of %d octets: at most %d may be", len(expr), maxFilter)
	}
	switch l.link {
	case LinkEthernet, LinkRaw, LinkIPv4, LinkIPv6, LinkSLL, LinkSLL2, LinkNull, LinkLoop:
	default:
		return nil, fmt.Errorf("compile filter %q: no filters for frames of %v", expr, l.link)
	}
	tokens, err := lexFilter(expr)
	p := &filterParser{expr: expr, tokens: tokens, layout: l}
	if err == nil && len(tokens) == 1 {
		return yes, nil
	}
	var n *node
	if err == nil {
		n, err = p.expression()
	}
	if err == nil && p.peek() != "" {
		err = p.errorf("expected and, or or the end")
	}
	var fe *filterError
	if errors.As(err, &fe) {
		return nil, fail(fe.pos, fe.text)
	}
	return n, err
}

func lexFilter(expr string) (tokens []token, err error) {
	letter := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
	}
	for i := 0; i < len(expr); {
		rest := expr[i:]
		c := rest[0]
		if strings.IndexByte(" \t\r\n", c) >= 0 {
			i++
			continue
		}
		n, word := 1, true
		colons := 0 // of an IPv6 or a hardware address
		for n = 0; n < len(rest) && strings.IndexByte("0123456789abcdefABCDEF:.", rest[n]) >= 0; n++ {
			if rest[n] == ':' {
				colons++
			}
		}
		switch {
		case colons >= 2:
		case letter(c) || c == '\\':
			for n = 1; n < len(rest) && (letter(rest[n]) || rest[n] == '.' || rest[n] == '-'); n++ {
			}
			for rest[n-1] == '-' {
				n--
			}
		default:
			word, n = false, 1
			if len(rest) > 1 && slices.Contains([]string{"&&", "||", "==", "!=", "<=", ">=", "<<", ">>"}, rest[:2]) {
				n = 2
			} else if strings.IndexByte("()[]:!&|=<>+-*/%^", c) < 0 {
				return nil, &filterError{i, fmt.Sprintf("%q has no meaning here", rest[:1])}
			}
		}
		text := rest[:n]
		switch text {
		case "&&":
			text = "and"
		case "||":
			text = "or"
		case "!":
			text = "not"
		case "==":
			text = "="
		}
		tokens = append(tokens, token{text, i, word})
		i += n
	}
	return append(tokens, token{pos: len(expr)}), nil
}

func (p *filterParser) peek() string { return p.tokens[p.at].text }

// take consumes the next token if it is one of these.
func (p *filterParser) take(texts ...string) bool {
	if t := p.peek(); t == "" || !slices.Contains(texts, t) {
		return false
	}
	p.at++
	return true
}

func (p *filterParser) need(text string) error {
	if !p.take(text) {
		return p.errorf("expected %q", text)
	}
	return nil
}

// errorf is an error at the next token.
func (p *filterParser) errorf(format string, args ...any) error {
	t := p.tokens[p.at]
	found := strconv.Quote(t.text)
	if t.text == "" {
		found = "the end"
	}
	return &filterError{t.pos, fmt.Sprintf("found %s, ", found) + fmt.Sprintf(format, args...)}
}

func (p *filterParser) nest() (func(), error) {
	if p.nesting++; p.nesting > maxFilterNesting {
		return nil, p.errorf("nested more than %d deep", maxFilterNesting)
	}
	return func() { p.nesting-- }, nil
}

// expression reads terms joined by "and" and "or", which bind alike.
func (p *filterParser) expression() (*node, error) {
	leave, err := p.nest()
	if err != nil {
		return nil, err
	}
	defer leave()
	n, err := p.term()
	for err == nil {
		var m *node
		switch {
		case p.take("and"):
			if m, err = p.term(); err == nil {
				n = both(n, m)
			}
		case p.take("or"):
			if m, err = p.term(); err == nil {
				n = either(n, m)
			}
		default:
			return n, nil
		}
	}
	return nil, err
}

func (p *filterParser) term() (*node, error) {
	if p.take("not") {
		leave, err := p.nest()
		if err != nil {
			return nil, err
		}
		defer leave()
		n, err := p.term()
		return &node{op: opNot, x: n}, err
	}
	t := p.tokens[p.at]
	_, proto := filterProtos[t.text]
	var relErr error
	if start := p.at; proto && p.tokens[p.at+1].text == "[" || t.text == "(" || t.text == "len" || t.text == "-" || isNumber(t.text) || isConst(t.text) {
		n, err := p.relation()
		if err == nil {
			p.last = qualifier{}
			return n, nil
		}
		relErr = err
		if proto || t.text == "len" || t.text == "-" || isConst(t.text) {
			return nil, err
		}
		p.at = start
	}
	var n *node
	var err error
	if p.take("(") {
		if n, err = p.expression(); err == nil {
			err = p.need(")")
		}
	} else {
		n, err = p.primitive()
	}
	var a, b *filterError
	if errors.As(err, &a) && errors.As(relErr, &b) && b.pos > a.pos {
		err = relErr // it got farther
	}
	return n, err
}

func isNumber(s string) bool {
	return s != "" && s[0] >= '0' && s[0] <= '9' && !strings.ContainsAny(s, ".:-")
}

func isConst(s string) bool { _, ok := filterConsts[s]; return ok }

func (p *filterParser) primitive() (*node, error) {
	l := &p.layout
	t := p.tokens[p.at]
	q := qualifier{set: true}
	k, isProto := filterProtos[t.text]
	switch {
	case p.take("less"), p.take("greater"):
		p.last = qualifier{}
		v, err := p.number(1<<32 - 1)
		cond := bpf.JumpLessOrEqual
		if t.text == "greater" {
			cond = bpf.JumpGreaterOrEqual
		}
		return test(cond, v, l.length()...), err
	case p.take("vlan"):
		p.last = qualifier{}
		if l.link != LinkEthernet {
			return nil, &filterError{t.pos, "there are no VLAN tags on " + l.link.String()}
		}
		if l.depth == maxVLAN {
			return nil, &filterError{t.pos, fmt.Sprintf("more than %d tags", maxVLAN)}
		}
		id := -1
		if isNumber(p.peek()) {
			v, err := p.number(0xfff)
			if err != nil {
				return nil, err
			}
			id = int(v)
		}
		n := l.isTag(id)
		l.depth++
		return n, nil
	case isProto:
		p.at++
		q.proto = t.text
	case t.text == "broadcast" || t.text == "multicast":
		q.proto = "ether"
	}
	if p.take("broadcast", "multicast") {
		p.last = qualifier{}
		return p.cast(p.tokens[p.at-1].text, q.proto, t.pos)
	}
	directed := true
	switch {
	case p.take("src"):
		q.dir = p.second("dst", dirSrc)
	case p.take("dst"):
		q.dir = p.second("src", dirDst)
	default:
		directed = false
	}
	switch {
	case p.take("host", "net", "port", "portrange", "proto"):
		q.kind = p.tokens[p.at-1].text
	case directed: // "src 10.0.0.1"
		q.kind = "host"
	case !isProto:
		if !p.last.set || !p.tokens[p.at].word {
			return nil, p.errorf("expected a test")
		}
		return p.ident(p.last) // "port 80 or 443"
	case q.proto == "ether":
		return nil, p.errorf("expected host, src, dst, proto, broadcast, multicast or [ after ether")
	default: // "tcp"
		p.last = qualifier{}
		if k.ether != 0 {
			return l.etherType(k.ether), nil
		}
		return l.transport(k.proto, k.v4, k.v6), nil
	}
	if err := q.check(); err != "" {
		return nil, &filterError{t.pos, err}
	}
	p.last = q
	return p.ident(q)
}

// second reads the rest of "src or dst" and "src and dst".
func (p *filterParser) second(other string, d direction) direction {
	if next := p.peek(); (next == "or" || next == "and") && p.tokens[p.at+1].text == other {
		switch after := p.tokens[p.at+2]; after.text {
		case "host", "net", "port", "portrange":
		default:
			if !after.word || after.text == "or" || after.text == "and" {
				return d
			}
		}
		p.at += 2
		if next == "or" {
			return dirAny
		}
		return dirBoth
	}
	return d
}

// check returns what is wrong with q by itself.
func (q qualifier) check() string {
	k := filterProtos[q.proto]
	ok := true
	switch q.kind {
	case "host":
		ok = k.proto == 0
	case "net":
		ok = k.proto == 0 && q.proto != "ether"
	case "port", "portrange":
		ok = q.proto == "" || k.proto == ProtoTCP || k.proto == ProtoUDP || k.proto == ProtoSCTP
	case "proto":
		ok = q.proto == "" || q.proto == "ether" || q.proto == "ip" || q.proto == "ip6"
		if q.dir != dirAny {
			return "a proto has neither src nor dst"
		}
	}
	if !ok {
		return fmt.Sprintf("%s has no %s", q.proto, q.kind)
	}
	return ""
}

// ident reads what q is about: an address, a number, or several of them in
// parentheses.
func (p *filterParser) ident(q qualifier) (*node, error) {
	leave, err := p.nest()
	if err != nil {
		return nil, err
	}
	defer leave()
	switch {
	case p.take("not"):
		n, err := p.ident(q)
		return &node{op: opNot, x: n}, err
	case p.take("("):
		n, err := p.ident(q)
		for err == nil && !p.take(")") {
			var m *node
			switch {
			case p.take("and"):
				if m, err = p.ident(q); err == nil {
					n = both(n, m)
				}
			case p.take("or"):
				if m, err = p.ident(q); err == nil {
					n = either(n, m)
				}
			default:
				return nil, p.errorf("expected and, or or )")
			}
		}
		return n, err
	}
	l := p.layout
	k := filterProtos[q.proto]
	switch q.kind {
	case "port", "portrange":
		from, to, err := p.portRange(q.kind == "portrange")
		return l.ports(k.proto, q.dir, from, to), err
	case "proto":
		return p.proto(q)
	}
	if q.proto == "ether" {
		return p.hardware(q)
	}
	net, err := p.network(q.kind == "net")
	if err != nil {
		return nil, err
	}
	if net.Addr().Is6() && q.proto != "" && q.proto != "ip6" || net.Addr().Is4() && q.proto == "ip6" {
		p.at--
		return nil, p.errorf("which is no address of %s", q.proto)
	}
	return l.host(q.proto, q.dir, net), nil
}

func (p *filterParser) number(most uint32) (uint32, error) {
	v, err := strconv.ParseUint(p.peek(), 0, 32)
	if c, ok := filterConsts[p.peek()]; ok {
		v, err = uint64(c), nil
	}
	if err != nil || v > uint64(most) {
		return 0, p.errorf("expected a number up to %d", most)
	}
	p.at++
	return uint32(v), nil
}

func (p *filterParser) portRange(isRange bool) (from, to uint16, err error) {
	if !isRange {
		v, err := p.number(0xffff)
		return uint16(v), uint16(v), err
	}
	a, b, ok := strings.Cut(p.peek(), "-")
	if !ok {
		b = a
	}
	v, errA := strconv.ParseUint(a, 10, 16)
	w, errB := strconv.ParseUint(b, 10, 16)
	if errA != nil || errB != nil {
		return 0, 0, p.errorf("expected two ports, as in 6000-6008")
	}
	p.at++
	return uint16(min(v, w)), uint16(max(v, w)), nil
}

func (p *filterParser) proto(q qualifier) (*node, error) {
	l := p.layout
	if q.proto == "ether" {
		if k, ok := filterProtos[strings.TrimPrefix(p.peek(), `\`)]; ok && k.ether != 0 {
			p.at++
			return l.etherType(k.ether), nil
		}
		v, err := p.number(0xffff)
		if err == nil && v < etherMin {
			p.at--
			err = p.errorf("which is no EtherType: they begin at %d", etherMin)
		}
		return l.etherType(uint16(v)), err
	}
	v := uint32(0)
	if k, ok := filterProtos[strings.TrimPrefix(p.peek(), `\`)]; ok && k.proto != 0 {
		p.at++
		v = uint32(k.proto)
	} else {
		var err error
		if v, err = p.number(0xff); err != nil {
			return nil, err
		}
	}
	return l.transport(uint8(v), q.proto != "ip6", q.proto != "ip"), nil
}

// transport tests for a protocol in the versions of IP.
func (l layout) transport(proto uint8, v4, v6 bool) *node {
	switch {
	case !v6:
		return l.ipProto(4, proto)
	case !v4:
		return l.ipProto(6, proto)
	}
	return either(l.ipProto(4, proto), l.ipProto(6, proto))
}

func (p *filterParser) hardware(q qualifier) (*node, error) {
	l := p.layout
	if l.link != LinkEthernet {
		return nil, p.errorf("there are no hardware addresses to filter by on %v", l.link)
	}
	a, err := net.ParseMAC(p.peek())
	if err != nil || len(a) != 6 {
		return nil, p.errorf("expected a hardware address, as 02:00:00:00:00:01")
	}
	p.at++
	at := func(off int) *node {
		return both(equal(off+2, 4, uint32(a[2])<<24|uint32(a[3])<<16|uint32(a[4])<<8|uint32(a[5])), equal(off, 2, uint32(a[0])<<8|uint32(a[1])))
	}
	return q.dir.of(at(6), at(0)), nil
}

// network reads an address; of a network it may be the start of one, and a
// length or mask may follow.
func (p *filterParser) network(isNet bool) (netip.Prefix, error) {
	t := p.tokens[p.at]
	a, err := netip.ParseAddr(t.text)
	bits := a.BitLen()
	if err != nil && isNet && t.word { // "net 10.1" is 10.1.0.0/16
		dots := strings.Count(t.text, ".")
		if a, err = netip.ParseAddr(t.text + strings.Repeat(".0", max(0, 3-dots))); err == nil {
			bits = 8 * (dots + 1)
		}
	}
	if err != nil {
		what := "an IPv4 or IPv6 address; names are not looked up"
		if isNet {
			what = "a network, as 10.0.0.0/8"
		}
		return netip.Prefix{}, p.errorf("expected %s", what)
	}
	p.at++
	switch {
	case !isNet && (p.peek() == "/" || p.peek() == "mask"):
		return netip.Prefix{}, p.errorf("which needs net instead of host before the address")
	case p.take("/"):
		v, err := p.number(uint32(a.BitLen()))
		if err != nil {
			return netip.Prefix{}, err
		}
		bits = int(v)
	case a.Is4() && p.take("mask"):
		m, err := netip.ParseAddr(p.peek())
		if err != nil || !m.Is4() {
			return netip.Prefix{}, p.errorf("expected a mask, as 255.255.0.0")
		}
		ones, size := net.IPMask(m.AsSlice()).Size()
		if size == 0 {
			return netip.Prefix{}, p.errorf("which has gaps: no mask of a network")
		}
		bits = ones
		p.at++
	}
	prefix := netip.PrefixFrom(a, bits)
	if prefix.Masked() != prefix {
		p.at--
		return prefix, p.errorf("but %v has bits outside its network %v", prefix, prefix.Masked())
	}
	return prefix, nil
}

// cast tests for broadcast and multicast addresses.
func (p *filterParser) cast(kind, proto string, pos int) (*node, error) {
	l := p.layout
	at := l.payload()
	switch {
	case proto == "ether" && l.link != LinkEthernet:
		return nil, &filterError{pos, "there are no hardware addresses to filter by on " + l.link.String()}
	case proto == "ether" && kind == "broadcast":
		return both(equal(2, 4, 0xffffffff), equal(0, 2, 0xffff)), nil
	case proto == "ether":
		return test(bpf.JumpBitsSet, 1, bpf.LoadAbsolute{Off: 0, Size: 1}), nil
	case proto == "ip" && kind == "multicast":
		return both(l.etherType(etherIPv4), test(bpf.JumpGreaterOrEqual, 224, bpf.LoadAbsolute{Off: uint32(at + 16), Size: 1})), nil
	case proto == "ip6" && kind == "multicast":
		return both(l.etherType(etherIPv6), equal(at+24, 1, 0xff)), nil
	}
	return nil, &filterError{pos, fmt.Sprintf("%s has no %s that is known here", proto, kind)}
}
