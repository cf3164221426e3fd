//go:build !linux

package sdnotify

func monotonic() string { return "MONOTONIC_USEC=0" } // no systemd here
