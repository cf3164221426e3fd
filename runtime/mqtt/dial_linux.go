package mqtt

import (
	"net"
	"net/netip"
	"syscall"
)

// bindFirst gives a socket its local port before it connects, so that the port
// is known before the first packet leaves, and looks up the address that the
// system will send from. ok is false when either fails: connecting may still work.
func bindFirst(raw syscall.RawConn, remote netip.AddrPort) (local netip.AddrPort, ok bool) {
	route, err := net.Dial("udp", remote.String()) // sends nothing
	if err != nil {
		return local, false
	}
	addr := route.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	route.Close()
	var port int
	bind := func(fd uintptr) {
		var any syscall.Sockaddr = &syscall.SockaddrInet4{}
		if remote.Addr().Is6() {
			any = &syscall.SockaddrInet6{}
		}
		if syscall.Bind(int(fd), any) != nil {
			return
		}
		switch name, _ := syscall.Getsockname(int(fd)); a := name.(type) {
		case *syscall.SockaddrInet4:
			port = a.Port
		case *syscall.SockaddrInet6:
			port = a.Port
		}
	}
	if raw.Control(bind) != nil || port == 0 {
		return local, false
	}
	return netip.AddrPortFrom(addr, uint16(port)), true
}
