package features

import (
	"net/netip"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// TestCommunityID checks vectors published with the specification, and what its
// authors' own Python package communityid 1.5 computes.
func TestCommunityID(t *testing.T) {
	addr := func(s string) capture.Addr { return capture.AddrFrom(netip.MustParseAddr(s)) }
	for _, tt := range []struct {
		name               string
		proto              uint8
		src, dst           string
		sport, dport       uint16
		icmpType, icmpCode uint8
		want               string
	}{
		{"TCP", 6, "128.232.110.120", "66.35.250.204", 34855, 80, 0, 0, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"TCP, other way", 6, "66.35.250.204", "128.232.110.120", 80, 34855, 0, 0, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"UDP", 17, "192.168.1.52", "8.8.8.8", 54585, 53, 0, 0, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{"SCTP", 132, "192.168.170.8", "192.168.170.56", 7, 7, 0, 0, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
		{"ICMP time exceeded, one way", 1, "1.2.3.4", "5.6.7.8", 0, 0, 11, 0, "1:f/YiSyWqczrTgfUCZlBUnvHRcPk="},
		{"ICMP unreachable, one way", 1, "5.6.7.8", "1.2.3.4", 0, 0, 3, 3, "1:LpbcOkCI0tVP+aO3QtYxJ5CoMcY="},
		{"ICMPv6 neighbour advertisement", 58, "fe80::1", "fe80::2", 0, 0, 136, 0, "1:jXSMIMhnMomSaIrNtEPXqYE5Rc4="},
		{"no ports", 47, "10.0.0.2", "10.0.0.1", 0, 0, 0, 0, "1:+KlEHDT0vJgzs/eNmzHq0aSpRYw="},
		{"ICMP echo", 1, "192.168.0.89", "192.168.0.1", 0, 0, 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
		{"ICMP echo reply", 1, "192.168.0.1", "192.168.0.89", 0, 0, 0, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
		{"ICMPv6 neighbour solicitation", 58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 0, 0, 135, 0, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="},
	} {
		r := Row{Src: addr(tt.src), Dst: addr(tt.dst), SrcPort: tt.sport, DstPort: tt.dport, Proto: tt.proto, ICMPType: tt.icmpType, ICMPCode: tt.icmpCode}
		if got := r.CommunityID(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
