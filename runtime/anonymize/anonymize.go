// Package anonymize replaces IP addresses by pseudonyms under a site's key: the
// same address gets the same one as long as the key is the same.
package anonymize

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/picket-ids/picket/capture"
)

// Mode says what becomes of an address. It is a pflag.Value.
type Mode string

const (
	// None leaves it as it is.
	None Mode = "none"
	// Prefix is Crypto-PAn: two addresses that share their first n bits, and no
	// more, have pseudonyms that do. It is a permutation of the IPv4 addresses,
	// and one of the IPv6 addresses; none is treated specially.
	Prefix Mode = "prefix"
	// Hash is an IPv6 address for each, IPv4 or IPv6, that tells nothing of its
	// network: 80 bits of HMAC-SHA256 in a unique local /48 (RFC 4193) that
	// belongs to the key.
	Hash Mode = "hash"
)

func (m Mode) check() error {
	switch m {
	case None, Prefix, Hash:
		return nil
	}
	return fmt.Errorf("way to anonymize %q: want prefix, hash or none", string(m))
}

func (m *Mode) String() string { return string(*m) }

// Set implements pflag.Value.
func (m *Mode) Set(text string) error {
	if err := Mode(text).check(); err != nil {
		return err
	}
	*m = Mode(text)
	return nil
}

// Type implements pflag.Value.
func (m *Mode) Type() string { return "prefix|hash|none" }

// KeySize is the length of a key in octets.
const KeySize = 32

// Anonymizer maps addresses. It never changes, so that any number of goroutines
// may use it. A nil one leaves all addresses as they are.
type Anonymizer struct {
	key     []byte
	block   cipher.Block // of Prefix, nil for Hash
	pad     [aes.BlockSize]byte
	network [6]byte // of Hash
}

// New returns an Anonymizer with a key of KeySize octets, which it copies. For None it
// is nil and needs no key.
func New(mode Mode, key []byte) (*Anonymizer, error) {
	if err := mode.check(); err != nil {
		return nil, err
	}
	if mode == None {
		return nil, nil
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("anonymize addresses: key of %d octets, want %d", len(key), KeySize)
	}
	a := &Anonymizer{key: bytes.Clone(key)}
	if mode == Hash {
		a.network[0] = 0xfd
		mac := a.mac("network", nil)
		copy(a.network[1:], mac[:])
		return a, nil
	}
	// As in the authors' program: half of the key is AES's, half makes the pad.
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		return nil, fmt.Errorf("anonymize addresses: %w", err)
	}
	a.block = block
	block.Encrypt(a.pad[:], key[16:])
	return a, nil
}

// Addr returns the pseudonym of x.
func (a *Anonymizer) Addr(x capture.Addr) capture.Addr {
	switch {
	case a == nil:
		return x
	case a.block == nil:
		mac := a.mac("address", x[:])
		copy(x[:], a.network[:])
		copy(x[len(a.network):], mac[:])
	case x.Netip().Is4():
		a.permute(x[12:])
	default:
		a.permute(x[:])
	}
	return x
}

// Sum digests what an identifier is made of, so that who has the rest of it cannot
// find the addresses in it by trying. That of a nil Anonymizer is plain SHA-256.
func (a *Anonymizer) Sum(data []byte) [sha256.Size]byte {
	if a == nil {
		return sha256.Sum256(data)
	}
	return a.mac("identifier", data)
}

// permute is Crypto-PAn: bit i is turned over when the first bit of the cipher of
// the i bits before it, filled up from the pad, is set (Xu, Fan, Ammar and Moon,
// "Prefix-Preserving IP Address Anonymization", ICNP 2002).
func (a *Anonymizer) permute(addr []byte) {
	in, out := a.pad, [aes.BlockSize]byte{}
	for i := range 8 * len(addr) {
		at, bit := i/8, byte(0x80)>>(i%8)
		a.block.Encrypt(out[:], in[:])
		in[at] = in[at]&^bit | addr[at]&bit
		addr[at] ^= out[0] >> 7 * bit
	}
}

// mac returns the MAC of data for one purpose.
func (a *Anonymizer) mac(purpose string, data []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, a.key)
	h.Write([]byte(purpose))
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}
