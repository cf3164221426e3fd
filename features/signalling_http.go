package features

import "bytes"

// The service-based interface of the 5G core (TS 29.500) is HTTP whose paths name
// a service: {root}/nausf-auth/v1/… (TS 29.501, section 4.4.1). HTTP/2's first
// path on a connection is spelt out: its compression can refer back only to what
// came before, so no dynamic table is kept, and a later path may stay unread.

const (
	maxPath   = 128 // octets of a path that are looked at
	maxFrames = 16  // HTTP/2 frames of a packet
	maxFields = 32  // header fields of a HEADERS frame
)

// serviceFunction returns the core function that the path of the HTTP request in
// b names, coreNone for a service of another function, 0 when b is no such request.
func serviceFunction(b []byte) uint8 {
	switch b[0] {
	case 0: // HTTP/2, a frame below 64 KiB
		return http2Function(b)
	case 'P':
		if bytes.HasPrefix(b, http2Preface) {
			return http2Function(b[len(http2Preface):])
		}
	case 'G', 'D', 'H', 'O':
	default:
		return 0
	}
	method := bytes.IndexByte(b[:min(len(b), 8)], ' ')
	if method < 3 {
		return 0
	}
	path := b[method+1:]
	path = path[:min(len(path), maxPath)]
	if end := bytes.IndexByte(path, ' '); end >= 0 {
		path = path[:end]
	}
	return pathFunction(path)
}

var http2Preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// http2Function looks for the path of a request in frames (RFC 9113, section 4.1).
func http2Function(b []byte) uint8 {
	const headers, padded, priority = 1, 8, 0x20
	var decoded [maxPath]byte
	for range maxFrames {
		if len(b) < 9 {
			return 0
		}
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		typ, flags := b[3], b[4]
		if typ > 9 || b[5]&0x80 != 0 {
			return 0
		}
		frame := b[9:min(9+n, len(b))]
		if typ == headers {
			if b[8]&1 == 0 { // requests' streams are odd
				return 0
			}
			if flags&padded != 0 && len(frame) > 0 {
				frame = frame[1:]
			}
			if flags&priority != 0 {
				frame = frame[min(5, len(frame)):]
			}
			if f := pathFunction(http2Path(frame, &decoded)); f != 0 {
				return f
			}
		}
		b = b[min(9+n, len(b)):]
	}
	return 0
}

// http2Path returns the path of a request from the start of its header block
// (RFC 7541, section 6), as far as it goes, nil when it is not spelt out.
func http2Path(b []byte, decoded *[maxPath]byte) []byte {
	const path, indexPath = 4, 5 // in the static table, with "/" and "/index.html"
	for range maxFields {
		if len(b) == 0 {
			return nil
		}
		var index int
		switch c := b[0]; {
		case c&0x80 != 0: // indexed
			b = hpackInt(b, 7, &index)
			continue
		case c&0x40 != 0: // literal, with indexing
			b = hpackInt(b, 6, &index)
		case c&0x20 != 0: // table size
			b = hpackInt(b, 5, &index)
			continue
		default:
			b = hpackInt(b, 4, &index)
		}
		if index == 0 { // the name is spelt out: no pseudo-header's is
			_, _, b = hpackString(b)
		}
		value, huffman, rest := hpackString(b)
		if index == path || index == indexPath {
			if huffman {
				return decoded[:unHuffman(decoded[:], value)]
			}
			return value[:min(len(value), maxPath)]
		}
		b = rest
	}
	return nil
}

// hpackInt reads an integer with a prefix of the given bits (section 5.1). One of
// more than four octets is that of an attacker, and ends the block.
func hpackInt(b []byte, prefix uint, v *int) []byte {
	most := 1<<prefix - 1
	*v = int(b[0]) & most
	b = b[1:]
	if *v < most {
		return b
	}
	for shift := uint(0); shift < 21 && len(b) > 0; shift += 7 {
		c := b[0]
		*v += int(c&0x7f) << shift
		b = b[1:]
		if c&0x80 == 0 {
			return b
		}
	}
	return nil
}

// hpackString splits off a string (section 5.2).
func hpackString(b []byte) (s []byte, huffman bool, rest []byte) {
	if len(b) == 0 {
		return nil, false, nil
	}
	huffman = b[0]&0x80 != 0
	n := 0
	b = hpackInt(b, 7, &n)
	n = min(n, len(b))
	return b[:n], huffman, b[n:]
}

// unHuffman decodes s (section 5.2, appendix B) into dst, as far as it has room,
// and returns how much it wrote.
func unHuffman(dst, s []byte) (n int) {
	code, length := uint32(0), 0
	for _, c := range s {
		for bit := 7; bit >= 0; bit-- {
			code = code<<1 | uint32(c>>bit&1)
			length++
			if length > 30 {
				return n
			}
			if h := &huffman[length]; code-h.first < h.count {
				if n == len(dst) {
					return n
				}
				dst[n] = huffmanSymbols[h.symbols+code-h.first]
				n++
				code, length = 0, 0
			}
		}
	}
	return n
}

// huffmanLengths are the lengths of the codes of appendix B by symbol, less '0'.
// The code is canonical: the lengths tell it.
const huffmanLengths = "" +
	"=GLLLLLLLHNLLNLLLLLLLLNLLLLLLLLL" +
	"6::<=68;::8;8666555666666678?6<:" +
	"=67777777777777777777777878=C=>6" +
	"?56565666577666567655677777?;>=L" +
	"DFDDFFFGFGGGGGHGHHFGHGGGGEFGFGGH" +
	"FEDFFGGEGFFHEFGGEEFEGFGGDFFFGFFG" +
	"JJDCFGFIJJJKKJHICEJKKJKHEEJJLKKK" +
	"DHDEFEEGFFIIHHJGJKJJKKKKKLKKKKKJ"

// huffman holds, by length, the first code, how many there are, and where their
// symbols begin in huffmanSymbols.
var huffman, huffmanSymbols = func() (h [31]struct{ first, count, symbols uint32 }, symbols [256]byte) {
	code, n := uint32(0), uint32(0)
	for length := range h {
		code <<= 1
		h[length].first, h[length].symbols = code, n
		for symbol := range 256 {
			if int(huffmanLengths[symbol]-'0') == length {
				symbols[n] = byte(symbol)
				n++
			}
		}
		h[length].count = n - h[length].symbols
		code += h[length].count
	}
	return h, symbols
}()

// pathFunction returns the core function whose service path names: the first
// segment that begins with n, a function's name and a hyphen.
func pathFunction(path []byte) uint8 {
	for i := 0; i+2 < len(path); i++ {
		if path[i] != '/' || path[i+1] != 'n' {
			continue
		}
		segment := path[i+2:]
		if end := bytes.IndexByte(segment[:min(len(segment), 10)], '-'); end > 0 {
			if f := networkFunction(segment[:end]); f != 0 {
				return f
			}
		}
	}
	return 0
}

// networkFunction returns the code of the function that a service's name begins
// with, 0 when 3GPP has no such function (TS 29.510, section 6.1.6.3.11).
func networkFunction(name []byte) uint8 {
	switch string(name) {
	case "amf":
		return coreAMF
	case "smf":
		return coreSMF
	case "upf":
		return coreUPF
	case "ausf":
		return coreAUSF
	case "nrf", "udm", "udr", "pcf", "nssf", "nef", "chf", "bsf", "smsf", "lmf", "gmlc", "nwdaf", "udsf", "ucmf",
		"hss", "scp", "sepp", "nssaaf", "nsacf", "tsctsf", "aanf", "easdf", "dccf", "mfaf", "adrf", "mbsmf", "mbsf",
		"mbstf", "5g", "pkmf", "soraf", "spaf", "cef", "pcscf":
		return coreNone
	}
	return 0
}
