package features

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/picket-ids/picket/capture"
)

// A SketchKey makes the hashes of distinct counts, so that nobody who does not know it can choose values that count
// as one. The zero key is the one of captures and tests.
type SketchKey [2]uint64

type sketchKey = SketchKey

func (k *SketchKey) hash(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^k[0]^0xa0761d6478bd642f, b^k[1]^0xe7037ed1a0b428db)
	return avalanche(hi ^ lo)
}

func (k *SketchKey) addr(a *capture.Addr) uint64 {
	return k.hash(binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(a[8:]))
}

// service hashes a port of an address.
func (k *SketchKey) service(a *capture.Addr, port uint16) uint64 {
	return k.hash(k.addr(a), uint64(port)+1)
}

func (k *SketchKey) bytes(b []byte) uint64 { return k.hash(hashOctets(b), uint64(len(b))) }

func (k *SketchKey) mac(m capture.MAC) uint64 {
	var b [8]byte
	copy(b[:], m[:])
	return k.hash(binary.LittleEndian.Uint64(b[:]), 6)
}

// A Home is the networks that are inside. The zero value holds DefaultHome.
type Home struct{ nets []homeNet }

type homeNet struct {
	addr capture.Addr
	bits int // of the 128 that decide
}

// DefaultHome are the private (RFC 1918), shared (RFC 6598), unique local (RFC 4193) and link-local networks.
var DefaultHome = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::1/128"),
}

// NewHome returns the Home of the given networks, which are valid.
func NewHome(nets []netip.Prefix) (h Home) {
	for _, n := range nets {
		bits := n.Bits()
		if n.Addr().Is4() {
			bits += 96
		}
		h.nets = append(h.nets, homeNet{capture.AddrFrom(n.Masked().Addr()), bits})
	}
	return h
}

// Contains says whether an address is inside.
func (h *Home) Contains(a *capture.Addr) bool {
	be := binary.BigEndian
	for i := range h.nets {
		n := &h.nets[i]
		hi, lo := be.Uint64(a[:8])^be.Uint64(n.addr[:8]), be.Uint64(a[8:])^be.Uint64(n.addr[8:])
		if bits.LeadingZeros64(hi) >= min(n.bits, 64) && (n.bits <= 64 || bits.LeadingZeros64(lo) >= n.bits-64) {
			return true
		}
	}
	return false
}

// A HostName says what a host's row is of.
type HostName struct {
	What     hostWhat
	Zone     uint32
	Hardware capture.MAC // zero where it is not known, or a router's
	Inside   bool
}

// String is the hardware address where it is known, else what the row is of instead; "" where the address says it.
func (h HostName) String() string {
	switch h.What {
	case hostSegment:
		return "segment"
	case hostRest:
		return "rest"
	case hostHardware:
		return h.Hardware.String()
	}
	return ""
}

// hostNames finds the host of an address: which hardware address it has on the link, and which of these are routers.
type hostNames struct {
	home    Home
	owners  *lru[addrKey, capture.MAC]
	routers *lru[capture.MAC, router]
}

type addrKey struct {
	zone uint32
	addr capture.Addr
}

func (k *addrKey) hash() uint64 { return hashAddr(&k.addr) + hashUint64(uint64(k.zone)) }

// router is what is known of a hardware address as a router: it sends what others wrote. One that sends for more than
// two IPv4 addresses is one, too.
type router struct {
	is    bool
	addrs uint8
}

const maxNames = 8192

func (n *hostNames) init(home Home) {
	if n.home = home; len(home.nets) == 0 {
		n.home = NewHome(DefaultHome)
	}
	n.owners, n.routers = newLRU[addrKey, capture.MAC](maxNames), newLRU[capture.MAC, router](maxNames)
}

func (n *hostNames) reset() {
	n.owners.reset()
	n.routers.reset()
}

func hashMAC(m capture.MAC) uint64 {
	var b [8]byte
	copy(b[:], m[:])
	return hashUint64(binary.LittleEndian.Uint64(b[:]))
}

func (n *hostNames) isRouter(m capture.MAC) bool {
	r := n.routers.peek(&m, hashMAC(m))
	return r != nil && r.is
}

// claim learns that an address on the link has a hardware address, and says whether it had none or another before.
func (n *hostNames) claim(zone uint32, addr *capture.Addr, m capture.MAC) bool {
	if m == (capture.MAC{}) || m[0]&1 != 0 || !n.home.Contains(addr) {
		return false
	}
	k := addrKey{zone, *addr}
	owner, _ := n.owners.use(&k, k.hash())
	changed := *owner != m
	*owner = m
	return changed
}

// claim learns that an address on the link has a hardware address. What was counted for the address alone is the
// hardware address's from then on, but for groups in which that has counts of its own.
func (w *hosts) claim(z uint32, a *capture.Addr, m capture.MAC) {
	if !w.names.claim(z, a, m) {
		return
	}
	byAddress, onLink := hostKey{z, hostAddress, *a}, linkKey(z, m)
	old := w.table.table.find(&byAddress, byAddress.hash())
	if old < 0 || w.names.isRouter(m) {
		return
	}
	o := w.turn(old)
	_, h := w.place(&onLink, true) // inside hosts make room for each other: it may be old that went
	if o.key != byAddress {
		return
	}
	kept := false
	for g := range o.blocks {
		if h.blocks[g] == 0 {
			h.blocks[g], o.blocks[g] = o.blocks[g], 0
		}
		kept = kept || o.blocks[g] != 0
	}
	if kept {
		return
	}
	h.addr, h.mac, h.first, h.last = o.addr, m, min(h.first, o.first), max(h.last, o.last)
	for side := range h.packets {
		h.packets[side] += o.packets[side]
		h.octets[side] += o.octets[side]
	}
	w.deactivate(o)
	w.table.remove(old)
}

// sent learns from a packet that an address sent: a router sends for the outside, and with a TTL that was counted
// down; what a host on the link sends itself has the TTL that systems begin with.
func (w *hosts) sent(zone uint32, p *capture.Packet) {
	m := p.SrcMAC
	if m == (capture.MAC{}) || p.Tunnels > 0 {
		return
	}
	if !w.names.home.Contains(&p.Src) {
		if !isUnspecified(&p.Src) {
			r, _ := w.names.routers.use(&m, hashMAC(m))
			r.is = true
		}
		return
	}
	switch p.TTL {
	case 32, 64, 128, 255:
		k := addrKey{zone, p.Src}
		if w.names.owners.peek(&k, k.hash()) != nil {
			return
		}
		r, _ := w.names.routers.use(&m, hashMAC(m))
		if isIPv4(&p.Src) {
			r.addrs = min(r.addrs, 254) + 1
			r.is = r.is || r.addrs > 2
		}
		w.claim(zone, &p.Src, m)
	}
}

// key returns the key of the host that has an address, and whether it is inside. ok is false for addresses of
// no one host: multicast, broadcast and unspecified ones.
func (n *hostNames) key(zone uint32, a *capture.Addr) (k hostKey, m capture.MAC, inside, ok bool) {
	inside = n.home.Contains(a)
	if isGroup(a) || isUnspecified(a) {
		return k, m, false, false
	}
	k = hostKey{zone, hostAddress, *a}
	if !inside {
		if !isIPv4(a) {
			clear(k.id[8:])
		}
		return k, m, false, true
	}
	ak := addrKey{zone, *a}
	if owner := n.owners.peek(&ak, ak.hash()); owner != nil && !n.isRouter(*owner) {
		return linkKey(zone, *owner), *owner, true, true
	}
	return k, m, true, true
}

func isIPv4(a *capture.Addr) bool {
	return binary.BigEndian.Uint64(a[:8]) == 0 && binary.BigEndian.Uint32(a[8:]) == 0xffff
}

func isUnspecified(a *capture.Addr) bool {
	return binary.BigEndian.Uint64(a[:8]) == 0 && (binary.BigEndian.Uint64(a[8:]) == 0 || isIPv4(a) && binary.BigEndian.Uint32(a[12:]) == 0)
}
