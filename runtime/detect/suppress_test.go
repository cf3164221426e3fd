package detect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
)

var (
	noon      = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	twoModels = []Model{{Name: "trees"}, {Name: "autoencoder"}}
)

// expect returns a suppression until an hour after noon, that change narrows.
func expect(change func(*Suppression)) Suppression {
	s := Suppression{Reason: "test", Until: noon.Add(time.Hour)}
	change(&s)
	return s
}

// row returns one of noon.
func row(src, dst string, port uint16, proto uint8) *features.Row {
	return &features.Row{Time: noon.UnixNano(), Src: addr(src), Dst: addr(dst), SrcPort: 40000, DstPort: port, Proto: proto}
}

func addr(s string) capture.Addr { return capture.AddrFrom(netip.MustParseAddr(s)) }

func compile(t testing.TB, list ...Suppression) *suppressions {
	t.Helper()
	s, err := newSuppressions(list, twoModels)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSuppressionMatch(t *testing.T) {
	source := func(p string) Suppression {
		return expect(func(s *Suppression) { s.Source = netip.MustParsePrefix(p) })
	}
	destination := func(p string) Suppression {
		return expect(func(s *Suppression) { s.Destination = netip.MustParsePrefix(p) })
	}
	ports := func(p ...uint16) Suppression { return expect(func(s *Suppression) { s.Ports = p }) }
	protocol := func(p string) Suppression { return expect(func(s *Suppression) { s.Protocol = p }) }
	ssh := row("10.0.0.5", "192.168.1.9", 22, capture.ProtoTCP)
	ssh6 := row("2001:db8::5", "fd00::9", 22, capture.ProtoTCP)
	ping := row("10.0.0.5", "192.168.1.9", 0, capture.ProtoICMP)
	tests := []struct {
		name string
		s    Suppression
		row  *features.Row
		want bool
	}{
		{"source", source("10.0.0.5/32"), ssh, true},
		{"another source", source("10.0.0.6/32"), ssh, false},
		{"source's network", source("10.0.0.0/24"), ssh, true},
		{"another network", source("10.0.1.0/24"), ssh, false},
		{"source as destination", source("192.168.1.9/32"), ssh, false},
		{"first of a network", source("10.0.0.4/31"), row("10.0.0.4", "1.1.1.1", 1, 6), true},
		{"before a network", source("10.0.0.4/31"), row("10.0.0.3", "1.1.1.1", 1, 6), false},
		{"behind a network", source("10.0.0.4/31"), row("10.0.0.6", "1.1.1.1", 1, 6), false},
		{"half of IPv4", source("0.0.0.0/1"), ssh, true},
		{"half of IPv4 is no IPv6", source("0.0.0.0/1"), row("::1", "::2", 22, 6), false},
		{"IPv4 written as IPv6", source("::ffff:10.0.0.0/120"), ssh, true},
		{"IPv4 row made of a mapped address", source("10.0.0.5/32"), row("::ffff:10.0.0.5", "1.1.1.1", 1, 6), true},
		{"IPv4-compatible is not mapped", source("10.0.0.5/32"), row("::10.0.0.5", "::1", 1, 6), false},
		{"IPv6 source", source("2001:db8::5/128"), ssh6, true},
		{"another IPv6 source", source("2001:db8::6/128"), ssh6, false},
		{"IPv6 network of 32 bits", source("2001:db8::/32"), ssh6, true},
		{"IPv6 network of 64 bits", source("2001:db8::/64"), ssh6, true},
		{"another of 64 bits", source("2001:db8:0:1::/64"), ssh6, false},
		{"IPv6 network of 65 bits", source("2001:db8:0:0:8000::/65"), ssh6, false},
		{"IPv6 network of 127 bits", source("2001:db8::4/127"), ssh6, true},
		{"IPv6 network and IPv4", source("2000::/3"), ssh, false},
		{"destination", destination("192.168.0.0/16"), ssh, true},
		{"IPv6 destination", destination("fd00::/8"), ssh6, true},
		{"another destination", destination("10.0.0.0/8"), ssh, false},
		{"port", ports(22), ssh, true},
		{"one of several ports", ports(2222, 80, 22), ssh, true},
		{"another port", ports(2222, 80), ssh, false},
		{"source's port", ports(40000), ssh, false},
		{"port of ICMP", ports(8), ping, false},
		{"protocol", protocol("tcp"), ssh, true},
		{"another protocol", protocol("udp"), ssh, false},
		{"sctp", protocol("sctp"), row("10.0.0.5", "10.0.0.6", 38412, capture.ProtoSCTP), true},
		{"icmp", protocol("icmp"), ping, true},
		{"icmp of IPv6", protocol("icmp"), row("fd00::1", "fd00::2", 0, capture.ProtoICMPv6), true},
		{"ipv6-icmp", protocol("ipv6-icmp"), row("fd00::1", "fd00::2", 0, capture.ProtoICMPv6), true},
		{"ipv6-icmp and ICMP of IPv4", protocol("ipv6-icmp"), ping, false},
		{"protocol by number", protocol("ip-47"), row("10.0.0.5", "10.0.0.6", 0, 47), true},
		{"another number", protocol("ip-47"), row("10.0.0.5", "10.0.0.6", 0, 50), false},
		{"model", expect(func(s *Suppression) { s.Model = "autoencoder" }), ssh, true},
		{"another model", expect(func(s *Suppression) { s.Model = "trees" }), ssh, false},
		{"all together", Suppression{Reason: "test", Until: noon.Add(1), Source: netip.MustParsePrefix("10.0.0.5/32"),
			Destination: netip.MustParsePrefix("192.168.1.0/24"), Ports: []uint16{22}, Protocol: "tcp", Model: "autoencoder"}, ssh, true},
		{"all but the port", Suppression{Reason: "test", Until: noon.Add(1), Source: netip.MustParsePrefix("10.0.0.5/32"),
			Destination: netip.MustParsePrefix("192.168.1.0/24"), Ports: []uint16{23}, Protocol: "tcp"}, ssh, false},
		{"until a moment later", Suppression{Reason: "test", Until: noon.Add(1), Protocol: "tcp"}, ssh, true},
		{"until that moment", Suppression{Reason: "test", Until: noon, Protocol: "tcp"}, ssh, false},
		{"expired", Suppression{Reason: "test", Until: noon.Add(-1), Protocol: "tcp"}, ssh, false},
		{"until another zone's moment", Suppression{Reason: "test", Until: noon.Add(1).In(time.FixedZone("", 3600)), Protocol: "tcp"}, ssh, true},
		{"for ever", Suppression{Reason: "test", Until: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), Protocol: "tcp"}, ssh, true},
		{"expired before 1970", Suppression{Reason: "test", Until: time.Date(1066, 10, 14, 0, 0, 0, 0, time.UTC), Protocol: "tcp"}, ssh, false},
	}
	for _, test := range tests {
		want := -1
		if test.want {
			want = 0
		}
		if got := compile(t, test.s).match(test.row, 1); got != want {
			t.Errorf("%s: match %d, want %d", test.name, got, want)
		}
	}
}

// TestSuppressionPrefixes compares with netip.Prefix.Contains, of which an IPv4
// address is in no network of IPv6 and the other way round.
func TestSuppressionPrefixes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	inside := 0
	for range 20000 {
		var a [16]byte
		for i := range a {
			a[i] = byte(rng.Uint32())
		}
		ip := netip.AddrFrom16(a)
		if rng.IntN(2) == 0 {
			ip = netip.AddrFrom4([4]byte(a[:4]))
		}
		p := netip.PrefixFrom(ip, 1+rng.IntN(ip.BitLen())).Masked()
		if checkPrefix(p) != nil {
			continue
		}
		other := ip.AsSlice() // one bit away, often inside
		bit := rng.IntN(ip.BitLen())
		other[bit/8] ^= 0x80 >> (bit % 8)
		probe, _ := netip.AddrFromSlice(other)
		n, in := newPrefix(p), capture.AddrFrom(probe)
		if got := n.contains(&in); got != p.Contains(probe) {
			t.Fatalf("%v contains %v: %v", p, probe, got)
		} else if got {
			inside++
		}
	}
	if inside < 1000 {
		t.Errorf("only %d addresses were inside", inside)
	}
}

func TestSuppressionOrder(t *testing.T) {
	expired := expect(func(s *Suppression) { s.Protocol, s.Until = "tcp", noon })
	port := expect(func(s *Suppression) { s.Ports = []uint16{22} })
	source := expect(func(s *Suppression) { s.Source = netip.MustParsePrefix("10.0.0.5/32") })
	s := compile(t, expired, port, source)
	for _, step := range []struct {
		row  *features.Row
		want int
	}{
		{row("10.0.0.5", "10.0.0.9", 22, 6), 1},
		{row("10.0.0.5", "10.0.0.9", 23, 6), 2},
		{row("10.0.0.6", "10.0.0.9", 22, 6), 1},
		{row("10.0.0.6", "10.0.0.9", 23, 6), -1},
	} {
		got := s.match(step.row, 0)
		if got != step.want {
			t.Errorf("%v to port %d: match %d, want %d", step.row.Src, step.row.DstPort, got, step.want)
		}
		if got >= 0 {
			s.count(got)
		}
	}
	counts := s.counts()
	if !slices.Equal(counts, []uint64{0, 2, 1}) {
		t.Errorf("counts %v", counts)
	}
	counts[0] = 9
	if s.counts()[0] != 0 {
		t.Error("counts is no copy")
	}
	var none *suppressions
	if none.match(row("10.0.0.5", "10.0.0.9", 22, 6), 0) != -1 || none.counts() != nil {
		t.Error("no suppressions match")
	}
}

func TestSuppressionMistakes(t *testing.T) {
	with := func(change func(*Suppression)) Suppression {
		s := expect(func(s *Suppression) { s.Source = netip.MustParsePrefix("10.0.0.5/32") })
		change(&s)
		return s
	}
	source := func(p string) Suppression {
		return with(func(s *Suppression) { s.Source = netip.MustParsePrefix(p) })
	}
	tests := []struct {
		name string
		s    Suppression
		want []string // parts of the mistakes, in order; none: valid
	}{
		{"valid", with(func(*Suppression) {}), nil},
		{"no reason", with(func(s *Suppression) { s.Reason = " \t" }), []string{"without a reason"}},
		{"long reason", with(func(s *Suppression) { s.Reason = strings.Repeat("x", 257) }), []string{"257 octets: at most 256"}},
		{"reason of two lines", with(func(s *Suppression) { s.Reason = "a\nb" }), []string{"one line"}},
		{"reason in Latin-1", with(func(s *Suppression) { s.Reason = "caf\xe9" }), []string{"UTF-8"}},
		{"no end", with(func(s *Suppression) { s.Until = time.Time{} }), []string{"without an end"}},
		{"of everything", with(func(s *Suppression) { s.Source = netip.Prefix{} }), []string{"suppression of everything"}},
		{"of all IPv4", source("0.0.0.0/0"), []string{"every address: leave it out"}},
		{"of all IPv6", source("::/0"), []string{"every address: leave it out"}},
		{"of IPv6 with all IPv4 inside", source("::/80"), []string{"all of IPv4 too"}},
		{"host in a network", source("10.0.0.5/24"), []string{"beyond the first 24: write 10.0.0.0/24, or 10.0.0.5 alone"}},
		{"destination in a network", with(func(s *Suppression) { s.Destination = netip.MustParsePrefix("fd00::1/64") }),
			[]string{"destination fd00::1/64: bits are set"}},
		{"port 0", with(func(s *Suppression) { s.Ports = []uint16{22, 0} }), []string{"from 1 to 65535"}},
		{"no such protocol", with(func(s *Suppression) { s.Protocol = "TCP" }), []string{`protocol "TCP": want tcp, udp`}},
		{"no such number", with(func(s *Suppression) { s.Protocol = "ip-256" }), []string{`protocol "ip-256"`}},
		{"port of ICMP", with(func(s *Suppression) { s.Protocol, s.Ports = "icmp", []uint16{8} }), []string{"icmp has no ports"}},
		{"several", Suppression{Protocol: "x"}, []string{"without a reason", "without an end", `protocol "x"`}},
	}
	for _, test := range tests {
		err := test.s.Validate()
		if (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if err == nil {
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(test.want) {
			t.Errorf("%s: %q", test.name, lines)
			continue
		}
		for i, want := range test.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%s: %q lacks %q", test.name, lines[i], want)
			}
		}
		if _, err := newSuppressions([]Suppression{test.s}, twoModels); err == nil {
			t.Errorf("%s: made ready all the same", test.name)
		}
	}

	model := with(func(s *Suppression) { s.Model = "forest" })
	if _, err := newSuppressions([]Suppression{model}, twoModels); err == nil ||
		err.Error() != `suppression 1 ("test"): model "forest" is not among those that run: trees, autoencoder` {
		t.Errorf("unknown model: %v", err)
	}
	many := slices.Repeat([]Suppression{with(func(*Suppression) {})}, maxSuppressions+1)
	if _, err := newSuppressions(many, twoModels); err == nil {
		t.Error("too many suppressions were taken")
	}
}

func TestSuppressionExpired(t *testing.T) {
	s := Suppression{Until: noon}
	if s.Expired(noon.Add(-1)) || !s.Expired(noon) || !s.Expired(noon.Add(1)) {
		t.Error("a suppression expires at its end")
	}
}

// TestSuppressedRows checks what a suppression leaves of incidents.
func TestSuppressedRows(t *testing.T) {
	start := time.Unix(0, 1e18) // of traffic's frames
	from := func(p string, until time.Duration) Suppression {
		return Suppression{Reason: "test", Until: start.Add(until), Source: netip.MustParsePrefix(p)}
	}
	crowds := func(s *traffic) { // 12 sources of two networks, one victim, within a second
		for k := range 12 {
			s.syn(int64(k), fmt.Sprintf("10.0.%d.%d", k%2, k+1), "10.9.9.9", 1024, 22)
		}
	}
	tests := []struct {
		name      string
		suppress  []Suppression
		make      func(*traffic)
		incidents uint64
		counts    []uint64
	}{
		{"nothing", nil, crowds, 1, nil},
		{"half of a crowd: the rest is none", []Suppression{from("10.0.1.0/24", time.Hour)}, crowds, 6, []uint64{6}},
		{"all of a crowd", []Suppression{from("10.0.1.0/24", time.Hour), from("10.0.0.0/16", time.Hour)}, crowds, 0, []uint64{6, 6}},
		{"before its end and after", []Suppression{from("10.0.0.1/32", time.Hour)}, func(s *traffic) {
			s.syn(0, "10.0.0.1", "10.9.9.9", 1024, 22)
			s.syn(2*time.Hour.Microseconds(), "10.0.0.1", "10.9.9.9", 1024, 22)
		}, 1, []uint64{1}},
	}
	for _, test := range tests {
		var s traffic
		test.make(&s)
		cfg := config(rule(refusals), func(*Event) {})
		cfg.Suppress = test.suppress
		stats := detect(t, cfg, &s)
		if stats.Incidents != test.incidents || !slices.Equal(stats.Suppressed, test.counts) {
			t.Errorf("%s: %d incidents, suppressed %v; want %d and %v", test.name, stats.Incidents, stats.Suppressed, test.incidents, test.counts)
		}
	}
}

// full returns as many suppressions as there may be, of which the last fits.
func full(t testing.TB) *suppressions {
	list := make([]Suppression, maxSuppressions)
	for i := range list {
		list[i] = Suppression{Reason: fmt.Sprint("camera ", i), Until: noon.Add(time.Hour), Ports: []uint16{22, 80, 443}, Protocol: "tcp",
			Source: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 5}), 32)}
	}
	return compile(t, list...)
}

func TestSuppressionAllocations(t *testing.T) {
	s, r := full(t), row("10.0.255.5", "10.0.0.9", 443, 6)
	if n := testing.AllocsPerRun(100, func() {
		i := s.match(r, 0)
		s.count(i)
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkSuppressions(b *testing.B) {
	s := full(b)
	for _, bench := range []struct {
		name string
		row  *features.Row
	}{
		{"first of 256", row("10.0.0.5", "10.0.0.9", 443, 6)},
		{"none of 256", row("10.1.0.5", "10.0.0.9", 443, 6)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.match(bench.row, 0)
			}
		})
	}
}
