package anonymize

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// sampleKey is that of the sample trace in the authors' distribution of Crypto-PAn.
var sampleKey = []byte{21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16,
	216, 152, 143, 131, 121, 121, 101, 39, 98, 87, 76, 45, 42, 132, 34, 2}

func build(t testing.TB, mode Mode, key []byte) *Anonymizer {
	t.Helper()
	a, err := New(mode, key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// pseudonym of an address in text.
func pseudonym(t *testing.T, a *Anonymizer, addr string) string {
	t.Helper()
	x, err := netip.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Addr(capture.AddrFrom(x)).String()
}

// TestSampleTrace compares with the 71 addresses of sample_trace_raw.dat and
// sample_trace_sanitized.dat in the authors' distribution.
func TestSampleTrace(t *testing.T) {
	a := build(t, Prefix, sampleKey)
	n := 0
	for _, line := range lines(t, "sample-trace.txt") {
		raw, want, _ := strings.Cut(line, " ")
		if got := pseudonym(t, a, raw); got != want {
			t.Errorf("%s became %s, want %s", raw, got, want)
		}
		n++
	}
	if n != 71 {
		t.Errorf("%d addresses, want 71", n)
	}
}

// TestIndependent compares with what testdata/independent.py wrote.
func TestIndependent(t *testing.T) {
	var prefix, hash *Anonymizer
	for _, line := range lines(t, "independent.txt") {
		w := strings.Fields(line)
		if w[0] == "key" {
			key, err := hex.DecodeString(w[1])
			if err != nil {
				t.Fatal(err)
			}
			prefix, hash = build(t, Prefix, key), build(t, Hash, key)
			for _, a := range []*Anonymizer{prefix, hash} {
				if got := fmt.Sprintf("%x", a.Sum([]byte("incident"))); got != w[2] {
					t.Errorf("digest %s, want %s", got, w[2])
				}
			}
			continue
		}
		if got := pseudonym(t, prefix, w[0]); got != w[1] {
			t.Errorf("prefix: %s became %s, want %s", w[0], got, w[1])
		}
		if got := pseudonym(t, hash, w[0]); got != w[2] {
			t.Errorf("hash: %s became %s, want %s", w[0], got, w[2])
		}
	}
}

// address returns a random one, from IPv4's mapped place when v4.
func address(r *rand.Rand, v4 bool) (x capture.Addr) {
	for i := range x {
		x[i] = byte(r.Uint32())
	}
	if v4 {
		copy(x[:], "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff")
	}
	return x
}

// common returns how many bits x and y have in common before they differ.
func common(x, y capture.Addr) int {
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 128
}

func TestPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 4000 {
		v4 := round%2 == 0
		key := make([]byte, KeySize)
		for i := range key {
			key[i] = byte(r.Uint32())
		}
		a := build(t, Prefix, key)
		x, y := address(r, v4), address(r, v4)
		from := 0
		if v4 {
			from = 96
		}
		n := from + r.IntN(129-from) // y is made to share so many bits with x, and no more
		copy(y[:], x[:n/8])
		if n < 128 {
			at, bit := n/8, byte(0x80)>>(n%8)
			high := ^(bit<<1 - 1)
			if n%8 == 0 {
				high = 0
			}
			y[at] = x[at]&high | ^x[at]&bit | y[at]&(bit-1)
		}
		if got := common(x, y); got != n {
			t.Fatalf("test: %s and %s share %d bits, want %d", x, y, got, n)
		}
		if got := common(a.Addr(x), a.Addr(y)); got != n {
			t.Fatalf("%s and %s share %d bits, their pseudonyms %s and %s %d", x, y, n, a.Addr(x), a.Addr(y), got)
		}
		if got := a.Addr(x).Netip().Is4(); got != v4 {
			t.Fatalf("the pseudonym of %s is %s", x, a.Addr(x))
		}
	}
}

// TestPermutation maps all of a /16 into another, one to one.
func TestPermutation(t *testing.T) {
	a := build(t, Prefix, sampleKey)
	seen := make([]bool, 1<<16)
	x := capture.AddrFrom(netip.MustParseAddr("10.66.0.0"))
	network := a.Addr(x)
	for i := range seen {
		x[14], x[15] = byte(i>>8), byte(i)
		y := a.Addr(x)
		if !bytes.Equal(y[:14], network[:14]) {
			t.Fatalf("%s became %s, outside the network of %s", x, y, network)
		}
		at := int(y[14])<<8 | int(y[15])
		if seen[at] {
			t.Fatalf("two addresses became %s", y)
		}
		seen[at] = true
	}
}

func TestHash(t *testing.T) {
	a := build(t, Hash, sampleKey)
	r := rand.New(rand.NewPCG(3, 4))
	site := netip.PrefixFrom(a.Addr(capture.Addr{}).Netip(), 48).Masked()
	if !netip.MustParsePrefix("fd00::/8").Overlaps(site) {
		t.Fatalf("pseudonyms are in %s, want a unique local network", site)
	}
	seen := map[capture.Addr]capture.Addr{}
	shared := 0
	for i := range 20000 {
		x := address(r, i%2 == 0)
		y := a.Addr(x)
		if !site.Contains(y.Netip()) {
			t.Fatalf("%s became %s, outside %s", x, y, site)
		}
		if other, ok := seen[y]; ok && other != x {
			t.Fatalf("%s and %s became %s", x, other, y)
		}
		seen[y] = x
		near := x
		near[15] ^= 1
		shared += common(y, a.Addr(near)) - 48
	}
	if mean := float64(shared) / 20000; mean < 0.9 || mean > 1.1 { // of random bits, 1 on average
		t.Errorf("neighbours share %.2f bits beyond the network, want about 1", mean)
	}
}

func TestKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, mode := range []Mode{Prefix, Hash} {
		for octet := range KeySize { // each one counts
			key := bytes.Clone(sampleKey)
			a := build(t, mode, key)
			key[octet] ^= 1
			b := build(t, mode, key)
			v4, v6 := address(r, true), address(r, false)
			// One pseudonym of IPv4 in 2^32 is the same under another key.
			if a.Addr(v4) == b.Addr(v4) || a.Addr(v6) == b.Addr(v6) {
				t.Errorf("%s: octet %d of the key makes no difference", mode, octet)
			}
			again := build(t, mode, sampleKey) // a has not kept the slice
			if a.Addr(v4) != again.Addr(v4) || a.Addr(v6) != again.Addr(v6) {
				t.Errorf("%s: the same key gives another pseudonym", mode)
			}
		}
	}
}

func TestNone(t *testing.T) {
	x := capture.AddrFrom(netip.MustParseAddr("192.0.2.1"))
	for _, key := range [][]byte{nil, sampleKey} {
		a := build(t, None, key)
		if a != nil || a.Addr(x) != x {
			t.Errorf("without anonymizing %s became %s", x, a.Addr(x))
		}
		if got, want := a.Sum(x[:]), sha256.Sum256(x[:]); got != want {
			t.Errorf("without anonymizing the digest is %x, want %x", got, want)
		}
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		mode Mode
		key  []byte
		want string
	}{
		{Prefix, nil, "key of 0 octets"},
		{Hash, sampleKey[:16], "key of 16 octets"},
		{"", sampleKey, `way to anonymize ""`},
		{"sha1", sampleKey, `way to anonymize "sha1"`},
	} {
		if a, err := New(c.mode, c.key); err == nil || !strings.Contains(err.Error(), c.want) || a != nil {
			t.Errorf("New(%q, %d octets): %v, want %q", c.mode, len(c.key), err, c.want)
		}
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	for _, mode := range []Mode{Prefix, Hash} {
		a := build(t, mode, sampleKey)
		x := capture.AddrFrom(netip.MustParseAddr("2001:db8::1"))
		want := a.Addr(x)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 100 {
					if got := a.Addr(x); got != want {
						t.Errorf("%s became %s, want %s", x, got, want)
					}
				}
			})
		}
		all.Wait()
	}
}

func BenchmarkAddr(b *testing.B) {
	for _, mode := range []Mode{Prefix, Hash} {
		for _, addr := range []string{"192.0.2.1", "2001:db8::1"} {
			b.Run(string(mode)+"/"+addr, func(b *testing.B) {
				a := build(b, mode, sampleKey)
				x := capture.AddrFrom(netip.MustParseAddr(addr))
				b.ReportAllocs()
				for b.Loop() {
					x = a.Addr(x)
				}
			})
		}
	}
}
