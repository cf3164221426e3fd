package capture

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

// filterExprs are what people write; tcpdump understands all of them.
var filterExprs = []string{
	"host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.2", "src 10.0.0.1", "not host 10.0.0.1",
	"host 10.0.0.1 and host 10.0.0.2", "host 10.0.0.1 or 10.99.0.9", "ip host 10.0.0.1", "arp host 10.0.0.1",
	"src or dst host 10.0.0.2", "src and dst host 10.0.0.2", "host 2001:db8::1", "ip6 host 2001:db8::2", "src 2001:db8::1",
	"net 10.0.0.0/8", "net 10", "net 10.0.0", "src net 10.0.0.0/30", "dst net 192.168.0.0 mask 255.255.0.0", "net 10.0.0.1",
	"net 0.0.0.0/0", "net 2001:db8::/32", "src net 2001:db8::/127", "not net 10.0.0.0/8", "net fe80::/10",
	"port 53", "port 443 or 80", "src port 443", "dst port 80", "src or dst port 53", "src and dst port 53", "tcp port 80", "udp port 53",
	"sctp port 38412", "tcp dst port 22", "udp src port 5353", "portrange 1-1024", "tcp portrange 40000-50000", "dst portrange 50-60",
	"port (80 or 443 or 1883)", "not port 22", "not (port 22 or port 53)", "host 10.0.0.1 and not port 53",
	"ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "pim", "vrrp", "ah", "esp", "not ip", "not arp and not ip6",
	"ip proto 47", "ip proto \\tcp", "ip6 proto 58", "proto 132", "ip6 proto 44", "ether proto 0x88cc", "ether proto \\arp", "ether proto 0x8100",
	"vlan", "vlan 7", "vlan 100 and vlan 7", "vlan and ip", "vlan 7 and tcp port 443", "not vlan", "vlan or ip", "ip or vlan", "ip or vlan and ip",
	"(vlan and udp) or (vlan and tcp)", "vlan and vlan and udp", "tcp or (vlan and tcp)",
	"less 64", "greater 128", "len > 100", "len <= 60", "len = 60", "len >= 64 and len < 1000", "len - 14 > 46",
	"icmp[icmptype] == icmp-echo", "icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply", "icmp[icmpcode] = 3",
	"icmp6[icmp6type] == icmp6-neighborsolicit", "icmp6[0] = 128", "icmp6[0] >= 130",
	"tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn", "tcp[13] = 2", "tcp[tcpflags] & (tcp-rst|tcp-fin) != 0",
	"tcp[0:2] = 443", "tcp[2:2] > 1024", "tcp[4:4] = 1", "udp[4:2] > 20", "udp[8:4] = 0x68656c6c", "sctp[2:2] = 80", "igmp[0] = 0x16",
	"ip[8] < 64", "ip[6:2] & 0x1fff != 0", "ip[6] & 0x20 != 0", "ip[0] & 0xf > 5", "ip6[6] = 17", "ip6[7] = 64", "arp[6:2] = 1", "ip[2:2] > 576",
	"tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "(ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2) != 0",
	"(tcp[13] & 2) != 0", "ip[2:2] = len - 14", "ip[ip[8]] = 0", "(ip[9] * 3 / 2) % 5 = 3", "ip[8] + tcp[12] > 0", "tcp[12] + ip[8] > 0", "ip[8] > tcp[12]", "ip[tcp[12] >> 4] > 5", "ip[8] ^ 64 = 0", "ip[1] << 2 = 0", "ip[2:2] & 1 = 0 and ip[4:2] > 100",
	"ether[0] & 1 = 1", "ether[12:2] = 0x0800", "ether[12:2] = 0x8100 and ether[14:2] & 0xfff = 7", "ether[11:4] != 0", "ether[13:2] = 0x0045", "ether[14:4] > 1", "ether[10:4] = 0x00020800",
	"ether host 02:00:00:00:00:01", "ether src 02:00:00:00:00:02", "ether dst 02:00:00:00:00:02", "broadcast", "multicast", "ether broadcast", "ether multicast", "ip multicast", "ip6 multicast",
	"tcp and (port 80 or port 443)", "tcp port 80 or tcp port 443 and src net 10.0.0.0/8", "icmp or arp or udp port 53", "! tcp && ! udp",
	"ip and not (tcp or udp or icmp)", "host 10.0.0.1 && (tcp port 22 || icmp)", "udp port 2152 or udp port 5060 or sctp",
	"not not tcp", "((tcp))", "tcp or udp and port 53 or icmp", "src host 10.0.0.1 and dst host 10.0.0.2 and tcp dst port 443", "not host (10.0.0.1 or 10.0.0.2)",
	"port not 53", "port 53 and not 5353", "tcp port (443 and not 40000)", "host 10.0.0.1 and (10.0.0.2 or 10.0.0.3)",
}

// rawExprs have a meaning without a link layer.
var rawExprs = slices.DeleteFunc(slices.Clone(filterExprs), func(s string) bool {
	return strings.Contains(s, "vlan") || strings.Contains(s, "cast") && !strings.HasPrefix(s, "ip") || strings.HasPrefix(s, "ether ") && !strings.Contains(s, "proto")
})

type link struct {
	link   LinkType
	frames []Frame
}

// filterCorpus is every bundled capture and every frame of the decoder's tests,
// those also cut to 60 octets and to 30, by link type. Their times number them.
func filterCorpus(t testing.TB) (all []link) {
	add := func(l LinkType, data []byte, wire int) {
		i := slices.IndexFunc(all, func(k link) bool { return k.link == l })
		if i < 0 {
			i = len(all)
			all = append(all, link{link: l})
		}
		n := len(all[i].frames)
		all[i].frames = append(all[i].frames, Frame{Data: data, WireLen: wire, Link: l, Time: int64(n) * 1e9})
	}
	var ether [][]byte
	for _, c := range append(decodeCases(), tunnelCases()...) {
		wire := max(c.wire, len(c.data))
		for _, cut := range []int{len(c.data), 60, 30} {
			if cut <= len(c.data) {
				add(c.link, c.data[:cut], wire)
			}
		}
		if c.link == LinkEthernet && len(c.data) > 14 {
			ether = append(ether, c.data)
		}
	}
	for i, b := range ether { // what the decoder's tests have few of
		mac, rest := b[:12], b[12:]
		add(LinkEthernet, join(mac, be16(etherVLAN), be16(7), rest), len(b)+4)
		add(LinkEthernet, join(mac, be16(etherQinQ), be16(100), be16(etherVLAN), be16(7), rest), len(b)+8)
		add(LinkEthernet, join(at(mac, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), rest), len(b))
		if typ := int(rest[0])<<8 | int(rest[1]); typ == etherIPv4 || typ == etherIPv6 {
			add(LinkRaw, rest[2:], len(rest)-2)
			add(LinkSLL, join(make([]byte, 14), rest), len(rest)+14)
			add(LinkSLL2, join(rest[:2], make([]byte, 18), rest[2:]), len(rest)+18)
			if typ == etherIPv4 {
				add(LinkIPv4, rest[2:], len(rest)-2)
				add(LinkEthernet, at(b, 30, 224, 0, 0, byte(i)), len(b))
			} else {
				add(LinkIPv6, rest[2:], len(rest)-2)
			}
		}
	}
	for _, l := range []string{"ab", "cd"} { // ports of SCTP, ARP of these addresses, ICMP
		add(LinkEthernet, etherFrame(etherARP, x("0001 0800 0604 0001 020000000001 0a000001 000000000000 0a000002"), []byte(l)), 44)
		add(LinkEthernet, etherFrame(etherRARP, x("0001 0800 0604 0003 020000000001 0a000001 000000000000 0a000002"), []byte(l)), 44)
		add(LinkEthernet, etherFrame(etherIPv4, ip4Packet(ProtoSCTP, nil, be16(38412), be16(80), make([]byte, 8), []byte(l))), 48)
		add(LinkEthernet, etherFrame(etherIPv4, ip4Packet(ProtoTCP, nil, tcpSegment(ACK, "GET /"+l))), 61)
		for typ := range 18 {
			add(LinkEthernet, etherFrame(etherIPv4, ip4Packet(ProtoICMP, nil, []byte{byte(typ), byte(typ % 4)}, make([]byte, 6))), 42)
			add(LinkEthernet, etherFrame(etherIPv6, ip6Packet(ProtoICMPv6, []byte{byte(120 + typ), 0}, make([]byte, 6))), 62)
		}
		for _, proto := range []uint8{protoIGMP, protoPIM, protoVRRP, protoAH, protoESP, 47} {
			add(LinkEthernet, etherFrame(etherIPv4, ip4Packet(proto, nil, x("1600 0000"), make([]byte, 60))), 98)
			add(LinkEthernet, etherFrame(etherIPv6, ip6Packet(extFragment, []byte{proto, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 60))), 122)
		}
	}
	for _, f := range bundled(t) {
		add(f.Link, f.Data, f.WireLen)
		add(f.Link, f.Data[:min(len(f.Data), 40)], f.WireLen)
	}
	return all
}

// bundled returns the frames of all bundled captures.
func bundled(t testing.TB) (all []Frame) {
	paths, _ := filepath.Glob(filepath.Join("..", "testdata", "*.pcap.gz"))
	if len(paths) == 0 {
		t.Fatal("no bundled captures")
	}
	for _, path := range paths {
		all = append(all, framesOf(t, path)...)
	}
	return all
}

func framesOf(t testing.TB, path string) (all []Frame) {
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fr Frame
	for {
		if err := f.Next(&fr); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		fr.Data = bytes.Clone(fr.Data)
		all = append(all, fr)
	}
}

func writePcap(t testing.TB, path string, l LinkType, frames []Frame) {
	out := bytes.NewBuffer(pcapHead(le, 0xa1b2c3d4, uint32(l)))
	for _, f := range frames {
		out.Write(pcapRecord(le, uint32(f.Time/1e9), uint32(f.Time%1e9/1e3), uint32(f.WireLen), string(f.Data)))
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func needTcpdump(t testing.TB) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		if os.Getenv("CI_REQUIRE_TCPDUMP") == "1" {
			t.Fatal(err)
		}
		t.Skip("tcpdump is not installed")
	}
}

// tcpdumpMatches returns the numbers of the frames in path that tcpdump takes.
func tcpdumpMatches(t testing.TB, path, expr string) map[int]bool {
	var stderr bytes.Buffer
	cmd := exec.Command("tcpdump", "-n", "-r", path, "-w", "-", expr)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(stderr.String(), "rejects all packets") {
			return nil
		}
		t.Fatalf("tcpdump %q: %s", expr, stderr.String())
	}
	f, err := NewFile(bytes.NewReader(out), "tcpdump")
	if err != nil {
		t.Fatal(err)
	}
	taken := map[int]bool{}
	var fr Frame
	for f.Next(&fr) == nil {
		taken[int(fr.Time/1e9)] = true
	}
	return taken
}

// TestFilterIsTcpdump compares with tcpdump, frame by frame.
func TestFilterIsTcpdump(t *testing.T) {
	needTcpdump(t)
	for _, l := range filterCorpus(t) {
		exprs := filterExprs
		switch l.link {
		case LinkEthernet:
		case LinkRaw, LinkIPv4, LinkIPv6, LinkSLL, LinkSLL2:
			exprs = rawExprs
		default: // of loopback, tcpdump knows but the families of its own host
			continue
		}
		t.Run(l.link.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "all.pcap")
			writePcap(t, path, l.link, l.frames)
			none, took := 0, 0
			for _, expr := range exprs {
				f, err := NewFilter(expr, l.link)
				if err != nil {
					t.Error(err)
					continue
				}
				want := tcpdumpMatches(t, path, expr)
				wrong := 0
				for i := range l.frames {
					if got := f.Match(&l.frames[i]); got != want[i] && wrong < 3 {
						wrong++
						t.Errorf("%q: frame %d %v, tcpdump %v: %x", expr, i, got, want[i], l.frames[i].Data[:min(60, len(l.frames[i].Data))])
					}
				}
				if took += len(want); len(want) == 0 {
					none++
					if l.link == LinkEthernet {
						t.Logf("%q matches no frame", expr)
					}
				}
			}
			t.Logf("%d expressions, %d frames, %d matches; %d expressions match none", len(exprs), len(l.frames), took, none)
		})
	}
}

// TestFilterIsBPF runs the programs on the virtual machine of x/net too, which
// does not know what a capture cut off.
func TestFilterIsBPF(t *testing.T) {
	for _, l := range filterCorpus(t)[:1] {
		for _, expr := range filterExprs {
			f, err := NewFilter(expr, l.link)
			if err != nil {
				t.Fatal(err)
			}
			in, all := bpf.Disassemble(f.programs[0].code)
			if !all {
				t.Fatalf("%q: instructions that x/net does not know", expr)
			}
			vm, err := bpf.NewVM(in)
			if err != nil {
				t.Fatalf("%q: %v", expr, err)
			}
			for i := range l.frames {
				fr := l.frames[i]
				fr.WireLen = len(fr.Data)
				n, err := vm.Run(fr.Data)
				if err != nil {
					t.Fatal(err)
				}
				if got := f.Match(&fr); got != (n != 0) {
					t.Fatalf("%q: frame %d: %v, virtual machine %d", expr, i, got, n)
				}
			}
		}
	}
}

func TestFilterErrors(t *testing.T) {
	for _, c := range []struct {
		expr string
		link LinkType
		want string
	}{
		{"tcp prot 80", LinkEthernet, `octet 5: found "prot", expected and, or or the end`},
		{"host", LinkEthernet, "octet 5: found the end, expected an IPv4 or IPv6 address"},
		{"host broker.example", LinkEthernet, "octet 6: found \"broker.example\", expected an IPv4 or IPv6 address; names are not looked up"},
		{"port http", LinkEthernet, "octet 6: found \"http\", expected a number up to 65535"},
		{"port 65536", LinkEthernet, "octet 6"},
		{"portrange 80", LinkRaw, ""},
		{"portrange a-b", LinkEthernet, "octet 11"},
		{"tcp host 10.0.0.1", LinkEthernet, "octet 1: tcp has no host"},
		{"icmp port 1", LinkEthernet, "octet 1: icmp has no port"},
		{"arp net 10.0.0.0/8", LinkEthernet, ""},
		{"net 10.0.0.1/8", LinkEthernet, "octet 14: found \"8\", but 10.0.0.1/8 has bits outside its network 10.0.0.0/8"},
		{"net 10.0.0.0 mask 255.0.255.0", LinkEthernet, "octet 19"},
		{"host 10.0.0.0/8", LinkEthernet, "octet 14: found \"/\", which needs net"},
		{"arp host ::1", LinkEthernet, "octet 10: found \"::1\", which is no address of arp"},
		{"(tcp", LinkEthernet, "octet 5: found the end, expected \")\""},
		{"tcp)", LinkEthernet, "octet 4: found \")\""},
		{"tcp and", LinkEthernet, "octet 8: found the end, expected a test"},
		{"10.0.0.1", LinkEthernet, "octet 1: found \"10.0.0.1\", expected a test"},
		{"tcp and 80", LinkEthernet, "octet 11: found the end, expected a comparison"},
		{"vlan", LinkRaw, "octet 1: there are no VLAN tags on RAW (101)"},
		{"vlan 4096", LinkEthernet, "octet 6"},
		{"ether host 1:2:3", LinkEthernet, "octet 12"},
		{"ether proto 5", LinkEthernet, "octet 13"},
		{"ip broadcast", LinkEthernet, "octet 1: ip has no broadcast"},
		{"tcp[13", LinkEthernet, `octet 7: found the end, expected "]"`},
		{"tcp[0:3] = 1", LinkEthernet, "octet 7: found \"3\", expected 1, 2 or 4 octets"},
		{"(tcp[13] & 2) ! 0", LinkEthernet, `octet 15: found "not", expected a comparison`},
		{"ip[0] / 0 = 1", LinkEthernet, "octet 11: found \"=\", after a division by zero"},
		{"ip[0] << 32 = 1", LinkEthernet, "octet 13"},
		{"ip[0] * 3 % 5 = 1", LinkEthernet, "put what is joined by % in parentheses"},
		{"ip[0] % 5 - 3 = 1", LinkEthernet, "put what is joined by % in parentheses"},
		{"mpls", LinkEthernet, "octet 1: found \"mpls\""},
		{"tcp; rm", LinkEthernet, `octet 4: ";" has no meaning here`},
		{"tcp", 105, "no filters for frames of IEEE802_11 (105)"},
		{strings.Repeat("(", 500) + "tcp", LinkEthernet, "nested more than 100 deep"},
		{strings.Repeat("not ", 500) + "tcp", LinkEthernet, "nested more than 100 deep"},
		{"tcp" + strings.Repeat(" or tcp", 3000), LinkEthernet, "at most 16384"},
		{"port 1" + strings.Repeat(" or 2", 300), LinkEthernet, "the kernel takes 4096"},
	} {
		_, err := NewFilter(c.expr, c.link)
		if c.want == "" && err != nil {
			t.Errorf("%q: %v", c.expr, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.40q: %v, want %s", c.expr, err, c.want)
		}
	}
	f, err := NewFilter("", LinkEthernet)
	if err != nil || !f.Match(&Frame{Link: LinkEthernet}) {
		t.Errorf("an empty filter does not match: %v", err)
	}
}

func TestFilterOtherLinks(t *testing.T) {
	f, err := NewFilter("tcp port 443", LinkEthernet)
	if err != nil {
		t.Fatal(err)
	}
	ip := ip4Packet(ProtoTCP, nil, tcpSegment(SYN, ""))
	for _, fr := range []Frame{
		{Data: ip, Link: LinkRaw},
		{Data: etherFrame(etherIPv4, ip), Link: LinkEthernet},
		{Data: join(x("00000002"), ip), Link: LinkLoop},
		{Data: join(x("02000000"), ip), Link: LinkNull},
		{Data: join(x("1e000000"), ip6Packet(ProtoTCP, tcpSegment(SYN, ""))), Link: LinkNull},
	} {
		if !f.Match(&fr) {
			t.Errorf("no match on %v", fr.Link)
		}
		fr.Link = 105
		if f.Match(&fr) {
			t.Errorf("match on %v", fr.Link)
		}
		fr.Link = LinkEthernet
		if n := testing.AllocsPerRun(100, func() { f.Match(&fr) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, e := range filterExprs {
		f.Add(e, []byte("abc"))
	}
	f.Fuzz(func(t *testing.T, expr string, data []byte) {
		for _, l := range []LinkType{LinkEthernet, LinkRaw} {
			for _, aux := range []bool{false, true} {
				n, err := parseFilter(expr, layout{link: l, aux: aux})
				if err != nil {
					continue
				}
				code, err := assembleFilter(expr, func(a *assembler) int { return a.gen(n, matched, unmatched) }, maxRecord)
				if err != nil {
					if !strings.Contains(err.Error(), "the kernel takes") {
						t.Fatal(err)
					}
					continue
				}
				in, _ := bpf.Disassemble(code)
				vm, err := bpf.NewVM(in)
				if aux {
					continue // with extensions that the machine does not know
				}
				if err != nil {
					t.Fatalf("%q: %v", expr, err)
				}
				want, err := vm.Run(data)
				if err != nil {
					t.Fatal(err)
				}
				if got := runFilter(code, data, len(data)); got != uint32(want) {
					t.Fatalf("%q: %d, virtual machine %d", expr, got, want)
				}
			}
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	f, err := NewFilter("tcp port 443 or udp port 53", LinkEthernet)
	if err != nil {
		b.Fatal(err)
	}
	fr := Frame{Data: etherFrame(etherIPv4, ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello"))), Link: LinkEthernet}
	b.ReportAllocs()
	for b.Loop() {
		f.Match(&fr)
	}
}
