package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// blockSize holds the 64 KiB frames of segmentation offload. It is a
	// multiple of every page size that Linux has.
	blockSize = 128 << 10
	// retire is how long the kernel fills a block before it hands it over:
	// one to two times as long, and one to two timer ticks on old kernels.
	retire = 10 * time.Millisecond
	// settle is how long after its time a frame is out of the kernel.
	settle = 3 * retire
	// revisit is how often an interface that went away is looked for.
	revisit = 200 * time.Millisecond
	// pollEvery bounds the frames between two looks at quiet interfaces.
	pollEvery = 1024
	justLook  = time.Duration(1) // a wait for nothing
	// stepped is how much older than another a frame is when the clock was set
	// back in between, rather than the frame late.
	stepped = int64(time.Second)
	// countEvery bounds the frames between two readings of the kernel's counters,
	// which have 32 bits: 59 hours at 20,000 packets/s.
	countEvery = 1 << 20

	tagSize = 4
)

// Live is a Source that reads network interfaces through a ring in memory that
// it shares with the kernel (AF_PACKET, TPACKET_V3), without copying.
//
// Interface of its frames is the index in the names that Listen got. Frames of
// several interfaces come in the order of their times as long as the rings are
// less than half full: one waits up to 30 ms for those of a quiet interface.
//
// Link is Ethernet, or raw IP for interfaces without a link layer (tun, PPP,
// modems, IP tunnels). VLAN tags that the kernel took off are put back, so a
// frame looks as it did on the wire. Frames of segmentation offload are longer
// than any on the wire, up to 64 KiB. What a loopback interface sends is seen
// once, as received; of other interfaces both directions are.
//
// An interface may be missing at first if another one is there, be down, go away
// and come back, as another one of the same name too; Stats says so.
//
// Next has one caller at a time; the other methods may be called from anywhere.
type Live struct {
	cfg    LiveConfig
	s      *sockets
	state  atomic.Int32 // of the reader, see enter
	closed atomic.Bool

	open      *ring // whose frame the caller has
	poll      []unix.PollFd
	now       int64 // ns since 1970, at or after the wall clock's last reading
	sincePoll int
	uncounted int  // frames since the kernel's counters were read
	lost      bool // an interface is away
	visited   time.Time
}

// sockets is all that has to be given back to the system.
type sockets struct {
	mu    sync.Mutex // of all below but what only the reader uses
	freed bool
	wake  int // eventfd, in every poll
	ctl   int // for questions about interfaces
	rings []*ring
	peers []Peer
}

// ring is of one interface.
type ring struct {
	name  string
	num   int // index of the interface in the Live
	fd    int // -1: none
	up    bool
	index int // of the interface in the system
	loop  bool
	stats InterfaceStats

	// The reader's own.
	mem   []byte
	block int // being read, or the next to be
	left  int // frames of it that were not consumed yet
	at    int // offset of the first of those
}

// blockDesc is the start of struct tpacket_block_desc and the
// tpacket_hdr_v1 in it.
type blockDesc struct {
	version, private, status, packets, first uint32
}

// Listen opens interfaces for capture, of which one has to exist. It needs
// CAP_NET_RAW, later too, when an interface comes.
func Listen(ifaces []string, cfg LiveConfig) (*Live, error) {
	name := strings.Join(ifaces, ",")
	if err := cfg.complete(ifaces); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	s := &sockets{wake: -1, ctl: -1, peers: slices.Clone(cfg.Exclude)}
	l := &Live{cfg: cfg, s: s, poll: make([]unix.PollFd, len(ifaces)+1)}
	err := l.listen(ifaces)
	if err != nil {
		s.free()
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	// For a caller that closes with a frame in its hands and never comes back.
	runtime.AddCleanup(l, (*sockets).free, s)
	return l, nil
}

func (l *Live) listen(ifaces []string) (err error) {
	s := l.s
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if s.ctl, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		s.ctl = -1
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%w; run as root, or once: setcap cap_net_raw+ep on this program", err)
		}
		return fmt.Errorf("packet socket: %w", err)
	}
	missing := 0
	for i, name := range ifaces {
		r := &ring{name: name, num: i, fd: -1}
		s.rings = append(s.rings, r)
		now, err := s.look(name)
		if errors.Is(err, fs.ErrNotExist) {
			// Of which kind it will be cannot be known: what is wrong with the filter
			// for all kinds must be said now.
			if _, wrong := l.program(r, LinkEthernet); wrong != nil {
				if _, raw := l.program(r, LinkRaw); raw != nil {
					return wrong
				}
			}
			missing++
			l.lost = true
			r.stats.Away = err
			continue
		}
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if !now.up {
			// What is wrong with the filter must be said now.
			if _, err := l.program(r, now.link); err != nil {
				return err
			}
			l.lost = true
			r.stats.Link, r.stats.Away = now.link, errDown
			continue
		}
		if err := l.attach(r, now); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
	}
	if missing == len(ifaces) {
		return fmt.Errorf("interface %s: %w; there are: %s", ifaces[0], fs.ErrNotExist, strings.Join(interfaces(), ", "))
	}
	return nil
}

// interfaces returns the names of those there are.
func interfaces() (names []string) {
	all, _ := net.Interfaces()
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

// device is an interface as the system has it.
type device struct {
	index int
	up    bool
	link  LinkType
	loop  bool
}

func (s *sockets) look(name string) (d device, err error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return d, errors.New("not a name of an interface")
	}
	if err := unix.IoctlIfreq(s.ctl, unix.SIOCGIFINDEX, req); err != nil {
		if errors.Is(err, unix.ENODEV) {
			err = fs.ErrNotExist
		}
		return d, err
	}
	d.index = int(req.Uint32())
	if err := unix.IoctlIfreq(s.ctl, unix.SIOCGIFFLAGS, req); err != nil {
		return d, err
	}
	d.up = req.Uint16()&unix.IFF_UP != 0
	d.loop = req.Uint16()&unix.IFF_LOOPBACK != 0
	if err := unix.IoctlIfreq(s.ctl, unix.SIOCGIFHWADDR, req); err != nil {
		return d, err
	}
	switch typ := req.Uint16(); typ {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		d.link = LinkEthernet
	case unix.ARPHRD_NONE, unix.ARPHRD_RAWIP, unix.ARPHRD_PPP, unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6,
		unix.ARPHRD_SIT, unix.ARPHRD_IPGRE, unix.ARPHRD_IP6GRE:
		d.link = LinkRaw
	default:
		return d, fmt.Errorf("hardware type %d (ARPHRD) is not supported; Ethernet and IP interfaces are", typ)
	}
	return d, nil
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}) }

// program returns the filter of a ring for the kernel.
//
// The kernel has taken the outermost tag off most frames before a filter sees
// them, so there are two programs in one.
func (l *Live) program(r *ring, link LinkType) ([]bpf.RawInstruction, error) {
	expr := l.cfg.Filter
	var nodes [2]*node
	for i := range nodes {
		lay := layout{link: link, aux: i == 1}
		if lay.aux && link != LinkEthernet {
			break
		}
		n, err := parseFilter(expr, lay)
		if err != nil {
			return nil, err
		}
		if len(l.s.peers) > 0 {
			n = both(&node{op: opNot, x: excluded(l.s.peers, lay)}, n)
		}
		nodes[i] = n
	}
	return assembleFilter(expr, func(a *assembler) int {
		start := 0
		if nodes[1] != nil {
			tagged := a.gen(nodes[1], matched, unmatched)
			start = a.gen(test(bpf.JumpNotEqual, 0, bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}), tagged, a.gen(nodes[0], matched, unmatched))
		} else {
			start = a.gen(nodes[0], matched, unmatched)
		}
		if r.loop {
			start = a.gen(test(bpf.JumpEqual, unix.PACKET_OUTGOING, bpf.LoadExtension{Num: bpf.ExtType}), unmatched, start)
		}
		return start
	}, uint32(l.cfg.Snaplen))
}

// excluded is the condition that a frame belongs to one of the conversations,
// with a VLAN tag or without.
func excluded(peers []Peer, l layout) *node {
	n := no
	for depth := range 2 {
		if depth == 1 && l.link != LinkEthernet {
			break
		}
		tag := yes
		if depth == 1 {
			tag = l.isTag(-1)
			l.depth = 1
		}
		for _, p := range peers {
			there := l.endpoint(p.Remote, dirDst)
			back := l.endpoint(p.Remote, dirSrc)
			if p.Local.IsValid() {
				there = both(there, l.endpoint(p.Local, dirSrc))
				back = both(back, l.endpoint(p.Local, dirDst))
			}
			n = either(n, both(tag, either(there, back)))
		}
	}
	return n
}

func (l layout) endpoint(a netip.AddrPort, d direction) *node {
	addr := a.Addr().Unmap().WithZone("")
	return both(l.host("ip", d, netip.PrefixFrom(addr, addr.BitLen())), l.ports(ProtoTCP, d, a.Port(), a.Port()))
}

func setFilter(fd int, code []bpf.RawInstruction) error {
	f := make([]unix.SockFilter, len(code))
	for i, in := range code {
		f[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}); err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	return nil
}

// replaceFilter is setFilter for a socket that has one. The kernel counts both against
// net.core.optmem_max (20,480 octets before Linux 6.7): when they do not fit together,
// the old one goes first, and with it the frames of some microseconds.
func replaceFilter(fd int, code []bpf.RawInstruction) error {
	err := setFilter(fd, code)
	if !errors.Is(err, unix.ENOMEM) {
		return err
	}
	if err := setFilter(fd, []bpf.RawInstruction{{Op: 0x06, K: 0}}); err != nil {
		return err
	}
	return setFilter(fd, code)
}

// openSocket opens a packet socket from which nothing comes.
func openSocket(d device) (fd int, err error) {
	typ := unix.SOCK_RAW
	if d.link != LinkEthernet {
		typ = unix.SOCK_DGRAM // some drivers have a header in one direction only
	}
	if fd, err = unix.Socket(unix.AF_PACKET, typ|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	if err = setFilter(fd, []bpf.RawInstruction{{Op: 0x06, K: 0}}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bind(fd int, d device) error {
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: d.index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// share makes a bound socket one of a group.
func (l *Live) share(fd int, r *ring) error {
	group := int(l.cfg.Fanout + uint16(r.num))
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|unix.PACKET_FANOUT_HASH<<16); err != nil {
		return fmt.Errorf("share as group %d: %w", group, err)
	}
	return nil
}

// mayShare tries by a socket without a ring whether the group takes one more: a
// socket has to be bound for that, and with its ring it is costly to try in vain,
// as happens while the group is of an interface that is gone.
func (l *Live) mayShare(r *ring, d device) error {
	fd, err := openSocket(d)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := bind(fd, d); err != nil {
		return err
	}
	return l.share(fd, r)
}

// attach opens the ring of an interface that is up.
func (l *Live) attach(r *ring, d device) (err error) {
	r.loop = d.loop
	code, err := l.program(r, d.link)
	if err != nil {
		return err
	}
	if l.cfg.Fanout != 0 {
		if err := l.mayShare(r, d); err != nil {
			return err
		}
	}
	fd, err := openSocket(d) // nothing passes until the ring is bound and shared
	if err != nil {
		return err
	}
	var mem []byte
	defer func() {
		if err != nil {
			if mem != nil {
				unix.Munmap(mem)
			}
			unix.Close(fd)
		}
	}()
	if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("TPACKET_V3: %w", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_RESERVE, tagSize); err != nil {
		return fmt.Errorf("PACKET_RESERVE: %w", err)
	}
	size := l.cfg.RingMiB << 20
	const frame = 2048 // says nothing in version 3 but has to be plausible
	req := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: uint32(size / blockSize),
		Frame_size: frame, Frame_nr: uint32(size / frame),
		Retire_blk_tov: uint32(retire / time.Millisecond),
	}
	if err = unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("ring of %d MiB: %w; choose a smaller one", l.cfg.RingMiB, err)
	}
	if mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	if err = bind(fd, d); err != nil {
		return err
	}
	if l.cfg.Promiscuous {
		if err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(d.index), Type: unix.PACKET_MR_PROMISC}); err != nil {
			return fmt.Errorf("promiscuous mode: %w", err)
		}
	}
	if l.cfg.Fanout != 0 {
		if err = l.share(fd, r); err != nil {
			return err
		}
	}
	if err = setFilter(fd, code); err != nil {
		return err
	}
	r.fd, r.mem, r.index, r.up = fd, mem, d.index, true
	r.stats.Link = d.link
	return nil
}

// detach gives a ring back; its counters stay.
func (r *ring) detach() {
	if r.fd >= 0 {
		r.count()
		unix.Munmap(r.mem)
		unix.Close(r.fd)
	}
	r.fd, r.mem, r.up = -1, nil, false
	r.block, r.left, r.at = 0, 0, 0
}

// count adds what the kernel counted since the last time.
func (r *ring) count() {
	if st, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		r.stats.Received += uint64(st.Packets)
		r.stats.Dropped += uint64(st.Drops)
		r.stats.Freezes += uint64(st.Freeze_q_cnt)
	}
}

func (s *sockets) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.freed {
		return
	}
	s.freed = true
	for _, r := range s.rings {
		r.detach()
	}
	for _, fd := range []int{s.wake, s.ctl} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Stats returns the counters of each interface, in the order of Listen.
func (l *Live) Stats() []InterfaceStats {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	all := make([]InterfaceStats, len(l.s.rings))
	for i, r := range l.s.rings {
		if r.fd >= 0 {
			r.count()
		}
		all[i] = r.stats
		all[i].Name, all[i].Up = r.name, r.up
	}
	return all
}

// Exclude leaves the TCP segments of these conversations out from now on,
// instead of those named before: the program's own to its broker, whose events
// would otherwise cause events. The kernel drops them.
func (l *Live) Exclude(peers ...Peer) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	// As many as the kernel has room for, the last ones first.
	for s.peers = slices.Clone(peers); ; s.peers = s.peers[1:] {
		if err = l.refilter(); len(s.peers) == 0 || !errors.Is(err, unix.ENOMEM) {
			return err
		}
	}
}

// refilter attaches the filters anew; mu is held.
func (l *Live) refilter() error {
	for _, r := range l.s.rings {
		if r.fd < 0 {
			continue
		}
		code, err := l.program(r, r.stats.Link)
		if err == nil {
			err = replaceFilter(r.fd, code)
		}
		if err != nil {
			return fmt.Errorf("exclude conversations on %s: %w", r.name, err)
		}
	}
	return nil
}

// States of the reader.
const (
	away   = iota // it has no frame and is not in Next
	inside        // it is in Next, or has a frame
	gone          // all is given back
)

// Close ends the capture: a Next that waits returns fs.ErrClosed at once, later
// ones do, too. It may be called twice. A frame that the reader has stays valid
// until it calls Next once more. What the system lent is given back when Close
// returns, unless the reader has a frame or is in Next: then after that, and at
// the latest when the Live is garbage.
func (l *Live) Close() error {
	if !l.closed.Swap(true) {
		l.s.mu.Lock()
		if !l.s.freed {
			unix.Write(l.s.wake, binary.NativeEndian.AppendUint64(nil, 1))
			for _, r := range l.s.rings {
				if r.fd >= 0 {
					setFilter(r.fd, []bpf.RawInstruction{{Op: 0x06, K: 0}})
				}
			}
		}
		l.s.mu.Unlock()
	}
	if l.state.CompareAndSwap(away, gone) || l.state.Load() == gone {
		l.s.free()
	}
	return nil
}

// enter says that the reader is inside. Only it leaves that state.
func (l *Live) enter() bool {
	return l.state.Load() == inside || l.state.CompareAndSwap(away, inside)
}

func (l *Live) leave(err error) error {
	l.state.Store(away)
	if l.closed.Load() && l.state.CompareAndSwap(away, gone) {
		go l.s.free() // the kernel takes up to 100 ms for it
	}
	return err
}

var errClosed = fmt.Errorf("live capture: %w", fs.ErrClosed)

// Next implements Source. When no frame came for a tick it returns ErrQuiet and
// sets f.Time alone, to a time that no frame still to come is older than. It
// returns fs.ErrClosed after Close; an interface that goes away is no error.
func (l *Live) Next(f *Frame) error {
	if !l.enter() {
		return errClosed
	}
	if r := l.open; r != nil {
		r.consume()
		l.open = nil
	}
	var quiet time.Time // when this call has waited for a tick
	for {
		if l.closed.Load() {
			return l.leave(errClosed)
		}
		if l.lost && time.Since(l.visited) > revisit {
			l.revive()
		}
		r, wait := l.first()
		if r != nil && wait <= 0 {
			r.take(f, l.cfg.Snaplen)
			l.open = r
			if l.uncounted++; l.uncounted >= countEvery {
				l.count()
			}
			return nil
		}
		if r == nil {
			now := time.Now()
			if quiet.IsZero() {
				quiet = now.Add(l.cfg.Tick)
			}
			if wait = quiet.Sub(now); wait <= 0 {
				*f = Frame{Time: now.Add(-settle).UnixNano()}
				return l.leave(ErrQuiet)
			}
			if l.lost {
				wait = min(wait, revisit)
			}
		}
		if n, err := l.wait(wait, r != nil); err != nil {
			return l.leave(err)
		} else if n == 0 && r != nil && wait != justLook {
			l.now = max(l.now, r.time()+int64(settle)) // also when the clock was set back
		}
	}
}

// count reads the kernel's counters before they overflow.
func (l *Live) count() {
	l.uncounted = 0
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, r := range l.s.rings {
		if r.fd >= 0 {
			r.count()
		}
	}
}

// first returns the ring with the oldest frame, and how long that has to wait
// because an older one may still come by another. Frames of before the clock was
// set back are older than those of after.
func (l *Live) first() (*ring, time.Duration) {
	rings := l.s.rings
	if len(rings) == 1 {
		if rings[0].ready() {
			return rings[0], 0
		}
		return nil, 0
	}
	var first, last *ring
	silent := false
	for _, r := range rings {
		if !r.ready() {
			silent = silent || r.up
			continue
		}
		if first == nil || r.time() < first.time() {
			first = r
		}
		if last == nil || r.time() > last.time() {
			last = r
		}
	}
	if first == nil {
		return nil, 0
	}
	if last.time()-first.time() > stepped && last.time() > time.Now().UnixNano()+stepped {
		return last, 0
	}
	if !silent {
		return first, 0
	}
	if l.sincePoll++; l.sincePoll > pollEvery {
		return first, justLook // do not let a busy interface hide that another went away
	}
	due := first.time() + int64(settle)
	if due <= l.now && due > l.now-stepped || first.crowded() {
		return first, 0
	}
	if l.now = time.Now().UnixNano(); due <= l.now || first.time() > l.now+stepped {
		return first, 0
	}
	return first, min(time.Duration(due-l.now), settle)
}

// wait sleeps until a ring has frames, with others only until one has that had
// none, and returns how many.
func (l *Live) wait(d time.Duration, others bool) (int, error) {
	l.sincePoll = 0
	l.poll[0] = unix.PollFd{Fd: int32(l.s.wake), Events: unix.POLLIN}
	for i, r := range l.s.rings {
		p := unix.PollFd{Fd: -1}
		if r.up && !(others && r.ready()) {
			p = unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN}
		}
		l.poll[i+1] = p
	}
	ms := int((d + time.Millisecond - 1) / time.Millisecond)
	if d == justLook {
		ms = 0
	}
	n, err := unix.Poll(l.poll, ms)
	if err == unix.EINTR || err == unix.EAGAIN {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("live capture: poll: %w", err)
	}
	for i, r := range l.s.rings {
		const bad = unix.POLLERR | unix.POLLHUP | unix.POLLNVAL
		if l.poll[i+1].Fd < 0 || l.poll[i+1].Revents&bad == 0 {
			continue
		}
		// Reading the error clears it. ENETDOWN is the only one known; others
		// are treated alike, so that none can make a busy loop.
		unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		l.s.mu.Lock()
		r.up, r.stats.Away = false, errDown
		l.s.mu.Unlock()
		l.lost, l.visited = true, time.Time{}
	}
	return n, nil
}

// revive looks whether interfaces that went away are back.
func (l *Live) revive() {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	l.visited = time.Now()
	l.lost = false
	for _, r := range s.rings {
		if r.up {
			continue
		}
		if r.stats.Away = l.back(r); r.stats.Away != nil {
			l.lost = true
		}
	}
}

// errDown is why an interface that exists is away.
var errDown = errors.New("the interface is down")

// back returns nil when the interface of r is there again.
func (l *Live) back(r *ring) error {
	d, err := l.s.look(r.name)
	if err != nil {
		return err
	}
	if !d.up {
		return errDown
	}
	if r.fd >= 0 {
		// The kernel resumes by itself if it is the same interface.
		sa, err := unix.Getsockname(r.fd)
		if ll, ok := sa.(*unix.SockaddrLinklayer); err == nil && ok && ll.Ifindex == d.index && r.index == d.index {
			r.up = true
			r.stats.Returns++
			return nil
		}
		if r.ready() {
			return errDown // read what is left first
		}
		r.detach() // a group of sharers cannot have both
	}
	// This fails also while another worker holds the group of the old one.
	if err := l.attach(r, d); err != nil {
		return err
	}
	r.stats.Returns++
	return nil
}

func (r *ring) desc() *blockDesc { return (*blockDesc)(unsafe.Pointer(&r.mem[r.block*blockSize])) }

func (r *ring) header() *unix.Tpacket3Hdr { return (*unix.Tpacket3Hdr)(unsafe.Pointer(&r.mem[r.at])) }

func (r *ring) time() int64 {
	h := r.header()
	return int64(h.Sec)*1e9 + int64(h.Nsec)
}

// ready reports whether there is a frame to take.
func (r *ring) ready() bool {
	for r.left == 0 {
		if r.mem == nil {
			return false
		}
		b := r.desc()
		if atomic.LoadUint32(&b.status)&unix.TP_STATUS_USER == 0 {
			return false
		}
		r.left = int(b.packets)
		r.at = r.block*blockSize + int(b.first)
		if r.left == 0 {
			r.handBack()
		}
	}
	return true
}

// crowded reports whether more than half of the ring waits to be read.
func (r *ring) crowded() bool {
	n := len(r.mem) / blockSize
	b := (*blockDesc)(unsafe.Pointer(&r.mem[(r.block+n/2)%n*blockSize]))
	return atomic.LoadUint32(&b.status)&unix.TP_STATUS_USER != 0
}

// take fills f with the frame at r.at.
func (r *ring) take(f *Frame, snaplen int) {
	h := r.header()
	start, n, wire := r.at+int(h.Mac), int(h.Snaplen), int(h.Len)
	const macs = 12
	if h.Status&unix.TP_STATUS_VLAN_VALID != 0 && r.stats.Link == LinkEthernet && n >= macs {
		tpid := uint16(etherVLAN)
		if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = h.Hv1.Vlan_tpid
		}
		// In place: PACKET_RESERVE left the room in front.
		start -= tagSize
		b := r.mem[start:]
		copy(b[:macs], b[tagSize:tagSize+macs])
		binary.BigEndian.PutUint16(b[macs:], tpid)
		binary.BigEndian.PutUint16(b[macs+2:], uint16(h.Hv1.Vlan_tci))
		n, wire = min(n+tagSize, snaplen), wire+tagSize
	}
	f.Data = r.mem[start : start+n : start+n]
	f.Time = int64(h.Sec)*1e9 + int64(h.Nsec)
	f.WireLen = max(wire, n)
	f.Link = r.stats.Link
	f.Interface = r.num
}

// consume ends the life of the frame at r.at.
func (r *ring) consume() {
	if r.left--; r.left > 0 {
		r.at += int(r.header().Next_offset)
		return
	}
	r.handBack()
}

func (r *ring) handBack() {
	atomic.StoreUint32(&r.desc().status, unix.TP_STATUS_KERNEL)
	if r.block++; r.block == len(r.mem)/blockSize {
		r.block = 0
	}
}
