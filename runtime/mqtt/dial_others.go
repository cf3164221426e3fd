//go:build !linux

package mqtt

import (
	"net/netip"
	"syscall"
)

// bindFirst is for Linux only.
func bindFirst(syscall.RawConn, netip.AddrPort) (local netip.AddrPort, ok bool) { return local, false }
