package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/picket-ids/picket/internal/netnstest"
)

// patience bounds every wait, on a machine that is busy.
const patience = 20 * time.Second

func listen(t testing.TB, cfg LiveConfig, ifaces ...string) *Live {
	t.Helper()
	l, err := Listen(ifaces, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop(l)
	})
	return l
}

// stop closes l, of which the test may have a frame, and gives all back.
func stop(l *Live) {
	l.Close()
	l.Next(&Frame{})
	l.Close()
}

// sender writes frames into an interface.
type sender struct {
	fd int
	to unix.SockaddrLinklayer
}

func newSender(t testing.TB, iface string) *sender {
	t.Helper()
	i, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &sender{fd, unix.SockaddrLinklayer{Ifindex: i.Index}}
}

func (s *sender) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	for _, b := range frames {
		if err := unix.Sendto(s.fd, b, 0, &s.to); err != nil {
			t.Fatalf("send %d octets: %v", len(b), err)
		}
	}
}

// receive reads until n frames came; quiet ticks do not count.
func receive(t testing.TB, l *Live, n int) (all []Frame) {
	t.Helper()
	var f Frame
	for end := time.Now().Add(patience); len(all) < n; {
		switch err := l.Next(&f); {
		case err == nil:
			if cap(f.Data) != len(f.Data) {
				t.Error("a frame has room to append into the ring")
			}
			f.Data = bytes.Clone(f.Data)
			all = append(all, f)
		case err != ErrQuiet:
			t.Fatal(err)
		case time.Now().After(end):
			t.Fatalf("%d frames of %d came; %+v", len(all), n, l.Stats())
		}
	}
	return all
}

// silence checks that nothing comes for two ticks.
func silence(t testing.TB, l *Live) {
	t.Helper()
	var f Frame
	for range 2 {
		if err := l.Next(&f); err == nil {
			t.Fatalf("a frame too many on interface %d: %x", f.Interface, f.Data)
		} else if err != ErrQuiet {
			t.Fatal(err)
		}
	}
}

func sameFrames(t testing.TB, got []Frame, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Data, want[i]) || got[i].WireLen != len(want[i]) {
			t.Fatalf("frame %d: %d octets on the wire, %x\nwant %d, %x", i, got[i].WireLen, got[i].Data, len(want[i]), want[i])
		}
	}
}

func tcpFrame(port int, payload string) []byte {
	s := tcpSegment(ACK, payload)
	binary.BigEndian.PutUint16(s, uint16(port))
	return etherFrame(etherIPv4, ip4Packet(ProtoTCP, nil, s))
}

// TestLiveReplay sends every bundled capture by tcpreplay and wants each frame as
// it is in the file.
func TestLiveReplay(t *testing.T) {
	netnstest.Enter(t)
	if _, err := exec.LookPath("tcpreplay"); err != nil {
		if os.Getenv("CI_REQUIRE_NETNS") == "1" {
			t.Fatal(err)
		}
		t.Skip("tcpreplay is not installed")
	}
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{Promiscuous: true}, "vb")
	paths, _ := filepath.Glob("../testdata/*.pcap.gz")
	for _, path := range paths {
		var want [][]byte
		frames := framesOf(t, path)
		for _, f := range frames {
			if len(f.Data) < f.WireLen || f.WireLen > 9014 {
				t.Fatalf("%s has a frame of which %d octets of %d were captured", path, len(f.Data), f.WireLen)
			}
			want = append(want, f.Data)
		}
		plain := filepath.Join(t.TempDir(), "plain.pcap")
		writePcap(t, plain, LinkEthernet, frames)
		netnstest.Run(t, "tcpreplay", "-q", "--pps=20000", "-i", "va", plain)
		sameFrames(t, receive(t, l, len(want)), want)
		silence(t, l)
	}
	if st := l.Stats()[0]; st.Dropped != 0 || !st.Up || st.Away != nil || st.Name != "vb" || st.Link != LinkEthernet {
		t.Errorf("%+v", st)
	}
}

// TestLiveTags has tags that the kernel takes off and that are put back.
func TestLiveTags(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{}, "vb")
	ip := ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello"))
	want := [][]byte{
		etherFrame(etherIPv4, ip),
		etherFrame(etherVLAN, vlanTag(7, etherIPv4, ip)),
		etherFrame(etherVLAN, vlanTag(0, etherIPv4, ip)),
		etherFrame(etherQinQ, vlanTag(100, etherVLAN, vlanTag(7, etherIPv4, ip))),
		etherFrame(etherVLAN, vlanTag(100, etherVLAN, vlanTag(7, etherIPv4, ip))),
		etherFrame(etherQinQ91, vlanTag(100, etherIPv4, ip)),
	}
	newSender(t, "va").send(t, want...)
	got := receive(t, l, len(want))
	sameFrames(t, got, want)
	var d Decoder
	var p Packet
	for i, vlan := range []uint16{0, 7, 0, 100, 100, 100} {
		if o := d.Decode(&got[i], &p); o != Decoded || p.VLAN != vlan {
			t.Errorf("frame %d: %v in VLAN %d, want %d", i, o, p.VLAN, vlan)
		}
	}
	newSender(t, "vb").send(t, want...) // outgoing
	sameFrames(t, receive(t, l, len(want)), want)

	// Of a VLAN interface, whose tag is beside the frame from the start.
	if out, err := exec.Command("ip", "link", "add", "link", "va", "name", "va.9", "type", "vlan", "id", "9").CombinedOutput(); err != nil {
		t.Logf("VLAN interface not tested, this kernel has none: %s", out)
		return
	}
	netnstest.Run(t, "ip", "link", "set", "va.9", "up")
	newSender(t, "va.9").send(t, want[0])
	sameFrames(t, receive(t, l, 1), [][]byte{etherFrame(etherVLAN, be16(9), be16(etherIPv4), ip)})
	silence(t, l)
}

func TestLiveSnaplen(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{Snaplen: 64}, "vb")
	body := bytes.Repeat([]byte("x"), 500)
	plain, tagged := etherFrame(etherIPv4, body), etherFrame(etherVLAN, vlanTag(7, etherIPv4, body))
	newSender(t, "va").send(t, plain, tagged)
	got := receive(t, l, 2)
	for i, want := range [][]byte{plain, tagged} {
		if !bytes.Equal(got[i].Data, want[:64]) || got[i].WireLen != len(want) {
			t.Errorf("%d octets of %d: %x", len(got[i].Data), got[i].WireLen, got[i].Data)
		}
	}
}

// TestLiveFilter lets the kernel filter every frame of the corpus and wants what
// Match takes of the same frames.
func TestLiveFilter(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	netnstest.Run(t, "ip", "link", "set", "va", "mtu", "65535")
	netnstest.Run(t, "ip", "link", "set", "vb", "mtu", "65535")
	var frames [][]byte
	for _, l := range filterCorpus(t) {
		for i, f := range l.frames {
			if l.link != LinkEthernet || len(f.Data) < 14 || i%8 > 0 && i > 1200 {
				continue
			}
			if typ := be.Uint16(f.Data[12:]); len(f.Data) < 18 && (typ == etherVLAN || typ == etherQinQ) {
				continue // the kernel drops a tag with nothing behind
			}
			frames = append(frames, f.Data)
		}
	}
	s := newSender(t, "va")
	tagged := 0
	for i, expr := range filterExprs {
		l, err := Listen([]string{"vb"}, LiveConfig{Filter: expr, RingMiB: 4})
		if err != nil {
			if strings.Contains(err.Error(), "no computed octets of ether") {
				continue
			}
			t.Fatal(err)
		}
		f, err := NewFilter(expr, LinkEthernet)
		if err != nil {
			t.Fatal(err)
		}
		var want [][]byte
		for _, b := range frames {
			if f.Match(&Frame{Data: b, WireLen: len(b), Link: LinkEthernet}) {
				want = append(want, b)
				if b[12] == 0x81 || b[12] == 0x88 && b[13] == 0xa8 {
					tagged++
				}
			}
		}
		s.send(t, frames...)
		got := receive(t, l, len(want))
		if i%20 == 0 {
			silence(t, l)
		}
		if st := l.Stats()[0]; st.Received != uint64(len(want)) || st.Dropped != 0 {
			t.Errorf("%q: %+v, want %d", expr, st, len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i].Data, want[i]) {
				t.Fatalf("%q: frame %d is %x\nwant %x", expr, i, got[i].Data, want[i])
			}
		}
		stop(l)
	}
	t.Logf("%d expressions on %d frames; %d matches had a tag", len(filterExprs), len(frames), tagged)
}

func TestLiveExclude(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	remote, local := netip.MustParseAddrPort("10.0.0.2:443"), netip.MustParseAddrPort("10.0.0.1:40000")
	mine, other := tcpFrame(40000, "mine"), tcpFrame(40001, "other")
	tagged := etherFrame(etherVLAN, vlanTag(7, etherIPv4, mine[14:]))
	mine6 := etherFrame(etherIPv6, ip6Packet(ProtoTCP, tcpSegment(ACK, "")))
	udp := etherFrame(etherIPv4, ip4Packet(ProtoUDP, nil, udpDatagram("x")))
	all := [][]byte{mine, tagged, mine6, other, udp}
	s := newSender(t, "va")

	l := listen(t, LiveConfig{Exclude: []Peer{{Remote: remote}}, Filter: "tcp or vlan"}, "vb")
	s.send(t, all...)
	sameFrames(t, receive(t, l, 1), [][]byte{mine6})
	silence(t, l)
	if err := l.Exclude(Peer{local, remote}, Peer{Remote: netip.MustParseAddrPort("[2001:db8::2]:443")}); err != nil {
		t.Fatal(err)
	}
	s.send(t, all...)
	sameFrames(t, receive(t, l, 1), [][]byte{other})
	silence(t, l)
	if err := l.Exclude(); err != nil {
		t.Fatal(err)
	}
	s.send(t, all...)
	sameFrames(t, receive(t, l, 4), all[:4])
}

// TestLiveClose closes from another goroutine while Next waits on a quiet
// interface.
func TestLiveClose(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	goroutines := runtime.NumGoroutine()
	var slowest time.Duration
	for range 10 {
		l, err := Listen([]string{"vb"}, LiveConfig{Tick: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		waits := make(chan struct{})
		go func() {
			close(waits)
			ended <- l.Next(&Frame{})
		}()
		<-waits
		for l.state.Load() != inside {
			runtime.Gosched()
		}
		start := time.Now()
		go l.Close()
		select {
		case err := <-ended:
			if !errors.Is(err, fs.ErrClosed) {
				t.Errorf("%v, want fs.ErrClosed", err)
			}
			d := time.Since(start)
			if slowest = max(slowest, d); d > 100*time.Millisecond {
				t.Errorf("it took %v", d)
			}
		case <-time.After(patience):
			t.Fatal("Next does not return")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Next(&Frame{}); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%v, want fs.ErrClosed", err)
		}
		if err := l.Exclude(); err != nil {
			t.Error(err)
		}
		l.Stats()
	}
	t.Logf("Next returned %v after Close or sooner", slowest)
	for end := time.Now().Add(patience); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
}

// TestLiveCloseWithFrame leaves the reader its frame.
func TestLiveCloseWithFrame(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{}, "vb")
	want := tcpFrame(1, "still here")
	newSender(t, "va").send(t, want, want)
	var f Frame
	for l.Next(&f) != nil {
	}
	l.Close()
	if !bytes.Equal(f.Data, want) {
		t.Errorf("%x", f.Data)
	}
	if l.s.freed {
		t.Error("given back under the reader's hands")
	}
	if err := l.Next(&f); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("%v, want fs.ErrClosed", err)
	}
	if l.Close(); !l.s.freed {
		t.Error("not given back")
	}
}

// TestLiveGarbage gives all back when the reader forgets it.
func TestLiveGarbage(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	s := func() *sockets {
		l, err := Listen([]string{"vb"}, LiveConfig{})
		if err != nil {
			t.Fatal(err)
		}
		newSender(t, "va").send(t, tcpFrame(1, ""))
		receive(t, l, 1)
		l.Close()
		return l.s
	}()
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		runtime.GC()
		s.mu.Lock()
		freed := s.freed
		s.mu.Unlock()
		if freed {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not given back")
		}
	}
}

func TestLiveQuiet(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{}, "vb")
	var f Frame
	for range 3 {
		start := time.Now()
		f.Data = []byte("of before")
		if err := l.Next(&f); err != ErrQuiet {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 95*time.Millisecond || d > 5*time.Second {
			t.Errorf("quiet after %v", d)
		}
		if age := time.Now().UnixNano() - f.Time; age < int64(settle) || age > 5e9 || f.Data != nil {
			t.Errorf("the clock is %v behind", time.Duration(age))
		}
	}
}

// waitStats reads until the counters are as wanted, and returns how long it took.
func waitStats(t testing.TB, l *Live, what string, ok func(InterfaceStats) bool) time.Duration {
	t.Helper()
	var f Frame
	start := time.Now()
	for !ok(l.Stats()[0]) {
		if time.Since(start) > patience {
			t.Fatalf("never %s: %+v", what, l.Stats())
		}
		if err := l.Next(&f); err != nil && err != ErrQuiet {
			t.Fatal(err)
		}
	}
	return time.Since(start)
}

func TestLiveReturns(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{Promiscuous: true, Filter: "tcp"}, "vb")
	up := func(st InterfaceStats) bool { return st.Up }
	down := func(st InterfaceStats) bool { return !st.Up }
	n := 0
	works := func() {
		t.Helper()
		n++
		netnstest.Carrier(t, "va")
		netnstest.Carrier(t, "vb")
		want := [][]byte{tcpFrame(n, "works")}
		newSender(t, "va").send(t, want...)
		sameFrames(t, receive(t, l, 1), want)
	}
	works()
	// What came before is not lost.
	last := [][]byte{tcpFrame(999, "last words")}
	newSender(t, "va").send(t, last...)
	netnstest.Run(t, "ip", "link", "set", "vb", "down")
	sameFrames(t, receive(t, l, 1), last)
	waitStats(t, l, "down", down)
	netnstest.Run(t, "ip", "link", "set", "vb", "up")
	if d := waitStats(t, l, "up", up); d > time.Second {
		t.Errorf("down and up: seen after %v", d)
	}
	works()
	netnstest.Run(t, "sh", "-c", "ip link set vb down && ip link set vb up") // faster than it looks
	waitStats(t, l, "back", func(st InterfaceStats) bool { return st.Up && st.Returns == 2 })
	works()

	index := l.s.rings[0].index
	netnstest.Run(t, "ip", "link", "del", "vb")
	waitStats(t, l, "gone", func(st InterfaceStats) bool { return !st.Up && errors.Is(st.Away, fs.ErrNotExist) })
	netnstest.Run(t, "ip", "link", "add", "spare", "type", "veth", "peer", "name", "spare2")
	netnstest.Veth(t, "va", "vb")
	if d := waitStats(t, l, "new", up); d > time.Second {
		t.Errorf("new interface: seen after %v", d)
	}
	if st := l.Stats()[0]; st.Away != nil {
		t.Errorf("%+v", st)
	}
	if l.s.rings[0].index == index {
		t.Error("the new interface has the index of the old one: nothing tested")
	}
	works()
	// Another one of the same index, and of another kind.
	index = l.s.rings[0].index
	netnstest.Run(t, "ip", "link", "del", "vb")
	netnstest.Run(t, "ip", "link", "add", "vb", "mtu", "9000", "index", fmt.Sprint(index), "type", "veth", "peer", "name", "va")
	netnstest.Run(t, "ip", "link", "set", "va", "up")
	waitStats(t, l, "gone", down)
	netnstest.Run(t, "ip", "link", "set", "vb", "up")
	waitStats(t, l, "new with the old index", up)
	works()
	st := l.Stats()[0]
	if st.Returns != 4 || st.Received != uint64(n+1) || st.Dropped != 0 {
		t.Errorf("%+v, want 4 returns and %d received", st, n+1)
	}
}

// TestLiveDownAtFirst starts before its interface does.
func TestLiveDownAtFirst(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Run(t, "ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
	netnstest.Run(t, "ip", "link", "set", "va", "up")
	if _, err := Listen([]string{"vb"}, LiveConfig{Filter: "nonsense"}); err == nil || !strings.Contains(err.Error(), "octet 1") {
		t.Errorf("%v", err)
	}
	l := listen(t, LiveConfig{}, "vb")
	silence(t, l)
	netnstest.Run(t, "ip", "link", "set", "vb", "up")
	waitStats(t, l, "up", func(st InterfaceStats) bool { return st.Up && st.Returns == 1 })
	netnstest.Carrier(t, "va")
	want := [][]byte{tcpFrame(1, "works")}
	newSender(t, "va").send(t, want...)
	sameFrames(t, receive(t, l, 1), want)
}

// TestLiveMissingAtFirst starts before one of its interfaces is there.
func TestLiveMissingAtFirst(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	for _, c := range []struct{ filter, want string }{
		{"nonsense", "octet 1"},
		{"vlan 7 and ether host 02:00:00:00:00:01", ""},
	} {
		l, err := Listen([]string{"vd", "vb"}, LiveConfig{Filter: c.filter})
		if err == nil {
			stop(l)
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.filter, err, c.want)
		}
	}
	l := listen(t, LiveConfig{}, "vd", "vb")
	if st := l.Stats()[0]; st.Up || !errors.Is(st.Away, fs.ErrNotExist) || st.Name != "vd" {
		t.Errorf("%+v", st)
	}
	works := func(from string, iface, n int) {
		t.Helper()
		want := [][]byte{tcpFrame(n, "works")}
		newSender(t, from).send(t, want...)
		got := receive(t, l, 1)
		sameFrames(t, got, want)
		if got[0].Interface != iface {
			t.Errorf("a frame is of interface %d, want %d", got[0].Interface, iface)
		}
	}
	works("va", 1, 1)
	netnstest.Veth(t, "vc", "vd")
	waitStats(t, l, "up", func(st InterfaceStats) bool { return st.Up && st.Returns == 1 && st.Away == nil })
	works("vc", 0, 2)
	works("va", 1, 3)
}

// fakeRing is one of a Live without sockets, with a frame of each time.
func fakeRing(name string, times ...int64) *ring {
	r := &ring{name: name, fd: -1, up: true, mem: make([]byte, 8*blockSize)}
	if len(times) == 0 {
		return r
	}
	d := r.desc()
	d.status, d.packets, d.first = unix.TP_STATUS_USER, uint32(len(times)), 64
	at := int(d.first)
	for _, ns := range times {
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&r.mem[at]))
		h.Sec, h.Nsec = uint32(ns/1e9), uint32(ns%1e9)
		h.Next_offset = 128
		at += 128
	}
	return r
}

// TestLiveClockSetBack merges by time soon after the clock was set back, and
// takes what came before that first.
func TestLiveClockSetBack(t *testing.T) {
	now := time.Now().UnixNano()
	ahead := now + int64(time.Hour)
	order := func(l *Live) (names string) {
		for range 20 {
			r, wait := l.first()
			if r == nil {
				break
			}
			if wait > 0 { // for an interface that stays quiet
				l.now = max(l.now, r.time()+int64(settle))
			}
			names += r.name
			r.consume()
		}
		return names
	}
	l := &Live{s: &sockets{rings: []*ring{fakeRing("a", now), fakeRing("quiet")}}, now: ahead}
	if r, wait := l.first(); r == nil || wait <= 0 {
		t.Errorf("a frame of now does not wait (%v) for an older one", wait)
	}
	// Both busy: b must not wait for an hour until a is quiet.
	l = &Live{s: &sockets{rings: []*ring{fakeRing("a", now, now+1, now+2), fakeRing("b", ahead, ahead+1, now+1)}}}
	if got := order(l); got != "bbaaba" {
		t.Errorf("order %s", got)
	}
	// What is merely late is in the order of its times.
	late := now - int64(time.Minute)
	l = &Live{s: &sockets{rings: []*ring{fakeRing("a", late, now), fakeRing("b", late+1e9, late+5e9)}}, now: now}
	if got := order(l); got != "abba" {
		t.Errorf("order of late frames %s", got)
	}
	// None of before waits for the quiet interface.
	l = &Live{s: &sockets{rings: []*ring{fakeRing("a", ahead, ahead+1e9), fakeRing("quiet")}}, now: ahead}
	for range 2 {
		r, wait := l.first()
		if r == nil || wait > 0 {
			t.Fatalf("a frame of before the step waits %v", wait)
		}
		r.consume()
	}
}

// TestLiveCounters wants the kernel's counters, which overflow, read without
// anybody asking for them.
func TestLiveCounters(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{}, "vb")
	l.uncounted = countEvery - 3
	s := newSender(t, "va")
	for i := range 3 {
		s.send(t, tcpFrame(i, ""))
		receive(t, l, 1)
	}
	if n := l.s.rings[0].stats.Received; n != 3 {
		t.Errorf("%d counted, want 3", n)
	}
	s.send(t, tcpFrame(4, ""))
	receive(t, l, 1)
	if n := l.Stats()[0].Received; n != 4 {
		t.Errorf("%d counted, want 4", n)
	}
}

// TestLiveFanoutRefused wants no ring made for a group that takes no more.
func TestLiveFanoutRefused(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	netnstest.Veth(t, "vc", "vd")
	cfg := LiveConfig{Fanout: uint16(os.Getpid())%1000 + 2000}
	listen(t, cfg, "vb") // has the group
	l := listen(t, LiveConfig{}, "vd")
	d, err := l.s.look("vd")
	if err != nil {
		t.Fatal(err)
	}
	l.cfg.Fanout, l.cfg.RingMiB = cfg.Fanout, -1 // such a ring would be an error
	before := netnstest.Files(t)
	if err := l.attach(&ring{name: "vd", fd: -1}, d); err == nil || !strings.Contains(err.Error(), "share as group") {
		t.Errorf("%v, want that the group cannot be shared", err)
	}
	if now := netnstest.Files(t); now != before {
		t.Errorf("%d files open, %d before", now, before)
	}
}

// TestLiveSeveral wants the frames of three interfaces in the order of sending,
// though one is quiet and one goes away.
func TestLiveSeveral(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	netnstest.Veth(t, "vc", "vd")
	netnstest.Veth(t, "ve", "vf")
	l := listen(t, LiveConfig{}, "vb", "vd", "vf")
	a, c := newSender(t, "va"), newSender(t, "vc")
	rounds := func(n int) {
		t.Helper()
		var want [][]byte
		for i := range n {
			x, y := tcpFrame(1+i, "a"), tcpFrame(1+i, "c")
			a.send(t, x)
			c.send(t, y)
			want = append(want, x, y)
			if i%50 == 0 {
				time.Sleep(5 * time.Millisecond) // over several blocks
			}
		}
		got := receive(t, l, 2*n)
		for i, f := range got {
			if f.Interface != i%2 {
				t.Fatalf("frame %d is of interface %d", i, f.Interface)
			}
		}
		sameFrames(t, got, want)
	}
	rounds(500)
	netnstest.Run(t, "ip", "link", "set", "dev", "vf", "down")
	rounds(500)
	netnstest.Run(t, "ip", "link", "del", "ve")
	rounds(10)
	for i, st := range l.Stats() {
		if st.Up != (i < 2) || st.Dropped != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// TestLiveLoopback sees each packet once.
func TestLiveLoopback(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Run(t, "ip", "link", "set", "lo", "up")
	l := listen(t, LiveConfig{Filter: "udp port 7777"}, "lo")
	conn, err := net.Dial("udp", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 5 {
		conn.Write([]byte("once")) // refused after the first
	}
	var d Decoder
	var p Packet
	got := receive(t, l, 1)
	for {
		var f Frame
		if err := l.Next(&f); err == ErrQuiet {
			break
		}
		f.Data = bytes.Clone(f.Data)
		got = append(got, f)
	}
	sent := len(got)
	for i := range got {
		if o := d.Decode(&got[i], &p); o != Decoded || string(p.Payload) != "once" || p.Src != p.Dst {
			t.Errorf("%v %q", o, p.Payload)
		}
	}
	if sent < 3 || sent > 5 {
		t.Errorf("%d frames", sent)
	}
}

// TestLiveTun has an interface without a link layer.
func TestLiveTun(t *testing.T) {
	netnstest.Enter(t)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if os.Getenv("CI_REQUIRE_NETNS") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no /dev/net/tun: %v", err)
	}
	defer unix.Close(fd)
	req, _ := unix.NewIfreq("tun0")
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	netnstest.Run(t, "ip", "link", "set", "tun0", "up")
	netnstest.Run(t, "ip", "addr", "add", "10.9.9.1/24", "dev", "tun0")
	l := listen(t, LiveConfig{Filter: "tcp or udp port 9"}, "tun0")
	ip := ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello"))
	for _, b := range [][]byte{ip4Packet(ProtoICMP, nil, make([]byte, 8)), ip} {
		if _, err := unix.Write(fd, b); err != nil {
			t.Fatal(err)
		}
	}
	got := receive(t, l, 1)
	sameFrames(t, got, [][]byte{ip})
	if got[0].Link != LinkRaw {
		t.Errorf("%v", got[0].Link)
	}
	conn, err := net.Dial("udp", "10.9.9.2:9") // outgoing
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("out"))
	got = receive(t, l, 1)
	var d Decoder
	var p Packet
	if o := d.Decode(&got[0], &p); o != Decoded || string(p.Payload) != "out" || got[0].Link != LinkRaw {
		t.Errorf("%v %+v", o, p)
	}
	if _, err := Listen([]string{"tun0"}, LiveConfig{Filter: "vlan 7"}); err == nil || !strings.Contains(err.Error(), "no VLAN tags") {
		t.Errorf("%v", err)
	}
}

// TestLiveDrops overruns a small ring: what the kernel dropped is counted, and
// what it did not drop is all there.
func TestLiveDrops(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	l := listen(t, LiveConfig{RingMiB: 1}, "vb")
	const burst = 5000
	s := newSender(t, "va")
	b := etherFrame(etherIPv4, ip4Packet(ProtoUDP, nil, make([]byte, 1000)))
	for range burst {
		s.send(t, b)
	}
	n := 0
	var f Frame
	for l.Next(&f) == nil {
		if !bytes.Equal(f.Data, b) {
			t.Fatalf("%x", f.Data)
		}
		n++
	}
	st := l.Stats()[0]
	if st.Received != burst || st.Dropped == 0 || st.Freezes == 0 || uint64(n) != burst-st.Dropped {
		t.Errorf("%d of %d read; %+v", n, burst, st)
	}
	t.Logf("%d of %d read, %d dropped", n, burst, st.Dropped)
	s.send(t, b)
	sameFrames(t, receive(t, l, 1), [][]byte{b})
}

// TestLiveFanout shares the frames among two: each is seen once, and both
// directions of a flow by the same one.
func TestLiveFanout(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	cfg := LiveConfig{Fanout: uint16(os.Getpid())%1000 + 1}
	workers := []*Live{listen(t, cfg, "vb"), listen(t, cfg, "vb")}
	round := func() {
		t.Helper()
		const flows = 500
		s := newSender(t, "va")
		for i := range flows {
			s.send(t, tcpFrame(1000+i, "there"))
			back := tcpSegment(ACK, "back")
			copy(back[2:], be16(1000+i))
			copy(back, be16(443))
			s.send(t, etherFrame(etherIPv4, ip4Packet(ProtoTCP, func(h []byte) {
				copy(h[12:], x("0a000002 0a000001"))
			}, back)))
		}
		var mu sync.Mutex
		seen := map[int][]int{} // worker, twice for a flow
		var wg sync.WaitGroup
		shares := make([]int, len(workers))
		for w, l := range workers {
			wg.Go(func() {
				var d Decoder
				var p Packet
				var f Frame
				for l.Next(&f) == nil {
					d.Decode(&f, &p)
					mu.Lock()
					flow := int(min(p.SrcPort, 60000) + min(p.DstPort, 60000))
					seen[flow] = append(seen[flow], w)
					mu.Unlock()
					shares[w]++
				}
			})
		}
		wg.Wait()
		for flow, w := range seen {
			if len(w) != 2 || w[0] != w[1] {
				t.Fatalf("flow %d was seen by %v", flow, w)
			}
		}
		if len(seen) != flows || shares[0] < flows/2 || shares[1] < flows/2 {
			t.Errorf("%d flows, shares %v", len(seen), shares)
		}
	}
	round()
	netnstest.Run(t, "ip", "link", "del", "vb")
	for _, l := range workers {
		waitStats(t, l, "gone", func(st InterfaceStats) bool { return !st.Up })
	}
	netnstest.Veth(t, "va", "vb")
	var f Frame
	for end := time.Now().Add(patience); !workers[0].Stats()[0].Up || !workers[1].Stats()[0].Up; {
		for _, l := range workers {
			if err := l.Next(&f); err != ErrQuiet {
				t.Fatal(err)
			}
		}
		if time.Now().After(end) {
			t.Fatal("the workers do not share the new interface")
		}
	}
	round()
}

func TestLiveAllocs(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	netnstest.Veth(t, "vc", "vd")
	for _, ifaces := range [][]string{{"vb"}, {"vb", "vd"}} {
		l := listen(t, LiveConfig{Tick: time.Millisecond}, ifaces...)
		s := newSender(t, "va")
		b := etherFrame(etherVLAN, vlanTag(7, etherIPv4, ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello"))))
		for range 3000 {
			s.send(t, b)
		}
		var f Frame
		for l.Next(&f) != nil {
		}
		frames := 0
		if n := testing.AllocsPerRun(2000, func() {
			if l.Next(&f) == nil {
				frames++
			}
		}); n != 0 || frames < 1000 {
			t.Errorf("%v allocations for one of %d frames", n, frames)
		}
		if n := testing.AllocsPerRun(20, func() {
			for l.Next(&f) == nil {
			}
		}); n != 0 {
			t.Errorf("%v allocations for a quiet tick", n)
		}
	}
}

func TestListenErrors(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Veth(t, "va", "vb")
	for _, c := range []struct {
		ifaces []string
		cfg    LiveConfig
		want   string
	}{
		{nil, LiveConfig{}, "no interface named"},
		{[]string{"nope0"}, LiveConfig{}, "listen on nope0: interface nope0: file does not exist; there are: lo, v"},
		{[]string{"nope0", "nope1"}, LiveConfig{}, "file does not exist; there are: lo, v"},
		{[]string{"a-name-that-is-too-long"}, LiveConfig{}, "not a name of an interface"},
		{[]string{"vb", "vb"}, LiveConfig{}, "interface vb named twice"},
		{[]string{"vb"}, LiveConfig{RingMiB: 1000}, "ring of 1000 MiB: from 1 to 256"},
		{[]string{"vb"}, LiveConfig{Snaplen: 10, Tick: time.Hour}, "tick of 1h0m0s"},
		{[]string{"vb"}, LiveConfig{Filter: "tcp prot"}, "octet 5"},
	} {
		if l, err := Listen(c.ifaces, c.cfg); err == nil {
			l.Close()
			t.Errorf("%v: no error, want %s", c.ifaces, c.want)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %s", c.ifaces, err, c.want)
		}
	}
}

// mmsg is struct mmsghdr.
type mmsg struct {
	hdr unix.Msghdr
	n   uint32
}

// batch sends the same frame many times by one call.
type batch struct {
	fd   int
	msgs []mmsg
	pin  []any
}

func newBatch(t testing.TB, iface string, b []byte, n int) *batch {
	s := newSender(t, iface)
	if err := unix.Bind(s.fd, &s.to); err != nil {
		t.Fatal(err)
	}
	iov := &unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	m := &batch{fd: s.fd, msgs: make([]mmsg, n), pin: []any{iov, b}}
	for i := range m.msgs {
		m.msgs[i].hdr.Iov = iov
		m.msgs[i].hdr.SetIovlen(1)
	}
	return m
}

func (m *batch) send() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(m.fd), uintptr(unsafe.Pointer(&m.msgs[0])), uintptr(len(m.msgs)), 0, 0, 0)
	runtime.KeepAlive(m.pin)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// BenchmarkLive reads and decodes what arrives on a veth as fast as one other
// core can send it. Frames that the kernel dropped are reported, not counted.
func BenchmarkLive(b *testing.B) {
	for _, c := range []struct {
		name    string
		payload int
		filter  string
		decode  bool
		pps     int // 0: as fast as it goes
	}{
		{"read-64", 10, "", false, 0},
		{"decode-64", 10, "", true, 0},
		{"decode-64-filter", 10, "tcp port 443 and not host 10.9.9.9", true, 0},
		{"decode-64-beside-quiet", 10, "", true, 0},
		{"decode-1500", 1460, "", true, 0},
		{"decode-1500-20kpps", 1460, "", true, 20000},
	} {
		b.Run(c.name, func(b *testing.B) {
			netnstest.Enter(b)
			netnstest.Veth(b, "va", "vb")
			ifaces := []string{"vb"}
			if strings.HasSuffix(c.name, "-beside-quiet") {
				netnstest.Veth(b, "vc", "vd")
				ifaces = append(ifaces, "vd")
			}
			l := listen(b, LiveConfig{Filter: c.filter}, ifaces...)
			frame := etherFrame(etherIPv4, ip4Packet(ProtoTCP, nil, tcpSegment(ACK, strings.Repeat("x", c.payload))))
			m := newBatch(b, "va", frame, 32)
			stop := make(chan struct{})
			sent := make(chan int)
			go func() {
				n, start := 0, time.Now()
				for {
					select {
					case <-stop:
						sent <- n
						return
					default:
					}
					if c.pps > 0 && n > int(time.Since(start).Seconds()*float64(c.pps)) {
						time.Sleep(time.Millisecond)
						continue
					}
					k, err := m.send()
					if err != nil {
						panic(err)
					}
					n += k
				}
			}()
			var d Decoder
			var p Packet
			var f Frame
			var before, after unix.Rusage
			unix.Getrusage(unix.RUSAGE_THREAD, &before)
			b.ReportAllocs()
			b.SetBytes(int64(len(frame)))
			n := 0
			for b.Loop() {
				for l.Next(&f) != nil {
				}
				if c.decode {
					d.Decode(&f, &p)
				}
				n++
			}
			unix.Getrusage(unix.RUSAGE_THREAD, &after)
			close(stop)
			total := <-sent
			st := l.Stats()[0]
			cpu := float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()) / float64(n)
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "packets/s")
			b.ReportMetric(100*float64(st.Dropped)/float64(total), "%dropped")
			b.ReportMetric(cpu, "cpu-ns/packet")
		})
	}
}
