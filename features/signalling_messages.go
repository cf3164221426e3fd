package features

import (
	"bytes"
	"encoding/binary"

	"github.com/picket-ids/picket/capture"
)

// Ports of SS7 over SCTP (IANA).
const (
	portM2UA = 2904
	portM3UA = 2905
	portM2PA = 3565
	portSUA  = 14001
)

// SCTP payload protocol identifiers (IANA).
const (
	ppidM2UA         = 2
	ppidM2PA         = 5 // and M3UA 3, SUA 4 between them
	ppidS1AP         = 18
	ppidDiameter     = 46
	ppidDiameterDTLS = 47
	ppidNGAP         = 60
)

const gtpPrimeHeader = 6 // the shortest

// recognise returns the protocol of a packet by itself and, when a path names
// one, the core function. What the capture cut off is not held against it.
func recognise(p *capture.Packet) (protocol telecomProtocol, function uint8) {
	b := p.Payload
	if len(b) < gtpPrimeHeader || p.FragmentOffset > 0 {
		return noTelecom, 0
	}
	switch p.Proto {
	case capture.ProtoUDP:
		if protocol = udpProtocol(p.DstPort, p); protocol == noTelecom {
			protocol = udpProtocol(p.SrcPort, p)
		}
		if protocol == noTelecom && isSIP(b) {
			protocol = sip
		}
		return protocol, 0
	case capture.ProtoTCP:
		switch {
		case isDiameter(b) && (isDiameterPort(p.DstPort) || isDiameterPort(p.SrcPort) || diameterAVP(b)):
			return diameter, 0
		case isSIP(b):
			return sip, 0
		}
		if function = serviceFunction(b); function != 0 {
			return sbi, function
		}
	case capture.ProtoSCTP:
		var c dataChunk
		for rest := b; c.next(&rest); {
			if protocol = sctpProtocol(&c, p); protocol != noTelecom {
				return protocol, 0
			}
		}
	}
	return noTelecom, 0
}

func udpProtocol(port uint16, p *capture.Packet) telecomProtocol {
	switch port {
	case portGTPU, portGTPC, portGTPPrime:
		protocol, _, _ := gtpMessage(p.Payload, room(p), port)
		return protocol
	case portPFCP:
		if pfcpType(p.Payload, room(p)) != 0 {
			return pfcp
		}
	}
	return noTelecom
}

// room is how many octets the first message of p's payload may have.
func room(p *capture.Packet) int {
	if p.MoreFragments {
		return 1 << 16
	}
	return p.PayloadLen
}

// gtpMessage returns the protocol of the GTP message at the start of b, of whose
// size octets the capture may have cut some, its TEID, and its length.
func gtpMessage(b []byte, size int, port uint16) (protocol telecomProtocol, teid uint32, n int) {
	prime := port == portGTPPrime
	if len(b) < 8 && !(prime && len(b) >= gtpPrimeHeader) {
		return noTelecom, 0, 0
	}
	flags, typ := b[0], b[1]
	n = int(binary.BigEndian.Uint16(b[2:]))
	need := 0
	protocol = gtpC
	switch version := flags >> 5; {
	case prime && flags&0x10 == 0 && version <= 2:
		// TS 32.295, section 6.1: types 1 to 7, 240 and 241; version 0 may have a
		// header of GTP version 0's size.
		if typ > 7 && typ != 240 && typ != 241 {
			return noTelecom, 0, 0
		}
		protocol = gtpPrime
		if n += gtpPrimeHeader; version == 0 && flags&1 == 0 {
			n += 14
		}
	case version == 0 && prime && flags&0x10 != 0: // GTP version 0 (TS 09.60) has the port too
		n += 20
	case version == 1 && !prime && flags&0x18 == 0x10: // TS 29.060, TS 29.281
		if port == portGTPU && !gtpUserPlane(typ) {
			return noTelecom, 0, 0
		}
		if flags&0x07 != 0 {
			need = 4 // sequence number, N-PDU number, next extension header
		}
		teid = binary.BigEndian.Uint32(b[4:])
		need, n = need+8, n+8
	case version == 2 && port == portGTPC && flags&0x03 == 0: // TS 29.274
		need = 8
		if flags&0x08 != 0 {
			need, teid = 12, binary.BigEndian.Uint32(b[4:])
		}
		n += 4
	default:
		return noTelecom, 0, 0
	}
	if typ == 0 || n < need || n > size {
		return noTelecom, 0, 0
	}
	if port == portGTPU || typ == gPDU {
		protocol = gtpU
	}
	return protocol, teid, n
}

// gtpUserPlane reports whether TS 29.281 has the message type: echo, version not
// supported, error indication, extension headers, tunnel status, end marker, G-PDU.
func gtpUserPlane(typ uint8) bool {
	switch typ {
	case 1, 2, 3, 26, 31, 253, 254, gPDU:
		return true
	}
	return false
}

const gPDU = 255

// gtpCount returns how many signalling messages p holds, and the TEID it is
// addressed to, 0 when it has none. A GTP-C message may carry another behind it
// (TS 29.274, section 5.5.1).
func gtpCount(p *capture.Packet) (n, teid uint32) {
	b, size, port := p.Payload, room(p), p.DstPort
	protocol, teid, length := gtpMessage(b, size, port)
	if protocol == noTelecom || !isGTPPort(port) {
		port = p.SrcPort
		if protocol, teid, length = gtpMessage(b, size, port); protocol == noTelecom {
			return 0, 0
		}
	}
	if b[1] != gPDU {
		n = 1
	}
	if b[0]&0xf0 == 0x50 && length < len(b) {
		if again, _, _ := gtpMessage(b[length:], size-length, port); again != noTelecom {
			n++
		}
	}
	return n, teid
}

func isGTPPort(port uint16) bool {
	return port == portGTPU || port == portGTPC || port == portGTPPrime
}

// pfcpType returns the type of the PFCP message (TS 29.244, section 7.2.2) at the
// start of b, 0 when it is none.
func pfcpType(b []byte, size int) uint8 {
	if len(b) < 8 || b[0]>>5 != 1 || b[0]&0x18 != 0 {
		return 0
	}
	typ, seid, need := b[1], b[0]&1 != 0, 4
	if seid {
		need = 12
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	// Session messages, from 50 on, have an SEID and the others none. One in which
	// that is wrong is still PFCP if its length is right.
	if n < need || 4+n > size || typ > 99 || seid != (typ >= 50) && 4+n != size {
		return 0
	}
	return typ
}

// maxMessages bounds how many messages of one packet are counted.
const maxMessages = 64

// pfcpCount returns how many session requests p holds: several may share a
// datagram, each but the last with the FO flag.
func pfcpCount(p *capture.Packet) (n uint32) {
	b, size := p.Payload, room(p)
	for range maxMessages {
		typ := pfcpType(b, size)
		if typ == 50 || typ == 52 || typ == 54 {
			n++
		}
		if typ == 0 || b[0]&4 == 0 {
			break
		}
		length := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if length >= len(b) {
			break
		}
		b, size = b[length:], size-length
	}
	return n
}

// SIP's start line is looked at up to maxStartLine octets.
const maxStartLine = 512

var sipVersion = []byte("SIP/2.0")

// isSIP reports whether b begins with a SIP start line.
func isSIP(b []byte) bool {
	if c := b[0]; (c < 'A' || c > 'Z') && c != '\r' { // most payloads
		return false
	}
	response, request := sipStart(b)
	return response || request
}

// sipStart tells SIP's two start lines. A line that the capture cut off is a
// request when a SIP URI follows the method.
func sipStart(b []byte) (response, request bool) {
	for len(b) > 1 && b[0] == '\r' && b[1] == '\n' { // RFC 3261, section 7.5
		b = b[2:]
	}
	if b = b[:min(len(b), maxStartLine)]; bytes.HasPrefix(b, sipVersion) {
		return len(b) > 10 && b[7] == ' ' && b[8] >= '1' && b[8] <= '6' && isDigit(b[9]) && isDigit(b[10]), false
	}
	method := 0
	for method < len(b) && method < 16 && b[method] >= 'A' && b[method] <= 'Z' {
		method++
	}
	if method < 3 || method == len(b) || b[method] != ' ' {
		return false, false
	}
	b = b[method+1:]
	scheme := bytes.HasPrefix(b, []byte("sip:")) || bytes.HasPrefix(b, []byte("sips:"))
	uri := bytes.IndexByte(b, ' ')
	switch {
	case uri < 0:
		return false, scheme && bytes.IndexByte(b, '\n') < 0
	case uri == 0:
		return false, false
	}
	if b = b[uri+1:]; len(b) < len(sipVersion) {
		return false, scheme && bytes.HasPrefix(sipVersion, b)
	}
	return false, bytes.HasPrefix(b, sipVersion) && (len(b) == 7 || b[7] == '\r' || b[7] == '\n')
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// sipCount returns how many SIP requests begin p, 0 or 1; over SCTP, its chunks.
func sipCount(p *capture.Packet) (n uint32) {
	if p.Proto != capture.ProtoSCTP {
		if _, request := sipStart(p.Payload); request {
			n = 1
		}
		return n
	}
	var c dataChunk
	for rest := p.Payload; c.next(&rest); {
		if _, request := sipStart(c.data); request && c.first {
			n++
		}
	}
	return n
}

const (
	diameterHeader  = 20
	diameterRequest = 0x80 // flag
)

// isDiameter reports whether b begins with a Diameter header (RFC 6733, section 3).
func isDiameter(b []byte) bool {
	return len(b) >= 8 && b[0] == 1 && b[4]&0x0f == 0 && b[3]&3 == 0 &&
		diameterLength(b) >= diameterHeader && b[5]|b[6]|b[7] != 0
}

func diameterLength(b []byte) int { return int(b[1])<<16 | int(b[2])<<8 | int(b[3]) }

func isDiameterPort(port uint16) bool { return port == portDiameter || port == portDiameterDTLS }

// diameterAVP reports whether the first AVP behind the header is one that
// messages begin with: Session-Id 263, Origin-Host 264, Result-Code 268. That and
// the header make up for a port of the site's own.
func diameterAVP(b []byte) bool {
	if len(b) < diameterHeader+8 {
		return false
	}
	a := b[diameterHeader:]
	n := int(a[5])<<16 | int(a[6])<<8 | int(a[7])
	return a[0] == 0 && a[1] == 0 && a[2] == 1 && (a[3] == 7 || a[3] == 8 || a[3] == 12) &&
		a[4]&0x9f == 0 && n >= 8 && diameterHeader+n <= diameterLength(b)
}

// diameterCount returns how many Diameter requests p holds.
func diameterCount(p *capture.Packet) (n uint32) {
	if p.Proto != capture.ProtoSCTP {
		return diameterIn(p.Payload)
	}
	var c dataChunk
	for rest := p.Payload; c.next(&rest); {
		if c.first {
			n += diameterIn(c.data)
		}
	}
	return n
}

// diameterIn returns how many requests are among the messages of b.
func diameterIn(b []byte) (n uint32) {
	for range maxMessages {
		if !isDiameter(b) {
			break
		}
		if b[4]&diameterRequest != 0 {
			n++
		}
		length := diameterLength(b)
		if length >= len(b) {
			break
		}
		b = b[length:]
	}
	return n
}

// dataChunk is a DATA or I-DATA chunk of SCTP (RFC 9260, section 3.3.1; RFC 8260).
type dataChunk struct {
	ppid  uint32
	first bool   // begins a message
	data  []byte // the captured part
}

// next moves c to the next such chunk of b, and b behind it.
func (c *dataChunk) next(b *[]byte) bool {
	for len(*b) >= 4 {
		chunk := *b
		typ, flags, n := chunk[0], chunk[1], int(binary.BigEndian.Uint16(chunk[2:]))
		if n < 4 {
			break
		}
		*b = chunk[min((n+3)&^3, len(chunk)):]
		chunk = chunk[:min(n, len(chunk))]
		head := 16
		if typ == 64 {
			head = 20
		}
		if typ != 0 && typ != 64 || len(chunk) <= head {
			continue
		}
		c.first = flags&2 != 0
		c.ppid, c.data = binary.BigEndian.Uint32(chunk[head-4:]), chunk[head:]
		if typ == 64 {
			c.ppid = 0
			if c.first {
				c.ppid = binary.BigEndian.Uint32(chunk[16:])
			}
		}
		return true
	}
	*b = nil
	return false
}

// sctpProtocol recognises the user message of a chunk: two of its port, its
// identifier and its header must agree, for fuzzers and stacks get each wrong.
func sctpProtocol(c *dataChunk, p *capture.Packet) telecomProtocol {
	byPort, byID := sctpPort(p.DstPort), noTelecom
	if byPort == noTelecom {
		byPort = sctpPort(p.SrcPort)
	}
	switch {
	case c.ppid == ppidNGAP:
		byID = ngap
	case c.ppid == ppidS1AP:
		byID = s1ap
	case c.ppid == ppidDiameter || c.ppid == ppidDiameterDTLS:
		byID = diameter
	case c.ppid >= ppidM2UA && c.ppid <= ppidM2PA:
		byID = ss7
	}
	switch b := c.data; {
	case byPort != noTelecom && byPort == byID:
		return byPort
	case !c.first || len(b) < 8:
	case hasHeader(byPort, b):
		return byPort
	case hasHeader(byID, b):
		return byID
	case isSIP(b):
		return sip
	}
	return noTelecom
}

// hasHeader reports whether b begins with t's header over SCTP.
func hasHeader(t telecomProtocol, b []byte) bool {
	switch t {
	case ngap, s1ap:
		return isAPER(b)
	case diameter:
		return isDiameter(b)
	case ss7:
		return isSS7(b)
	}
	return false
}

func sctpPort(port uint16) telecomProtocol {
	switch port {
	case portNGAP:
		return ngap
	case portS1AP:
		return s1ap
	case portDiameter, portDiameterDTLS:
		return diameter
	case portM2UA, portM3UA, portM2PA, portSUA:
		return ss7
	}
	return noTelecom
}

// isAPER reports whether b begins like a PDU of NGAP or S1AP in aligned PER: the
// choice of initiating message, successful or unsuccessful outcome, a procedure, a
// criticality, a length.
func isAPER(b []byte) bool {
	return b[0]&0x9f == 0 && b[0] <= 0x40 && b[2]&0x3f == 0 && b[2] <= 0x80 && b[3] < 0xc0
}

// isSS7 reports whether b begins with the common header of M3UA (RFC 4666,
// section 3.1), SUA, M2UA and M2PA: version 1, reserved 0, class, type, length.
func isSS7(b []byte) bool {
	n := binary.BigEndian.Uint32(b[4:])
	return b[0] == 1 && b[1] == 0 && b[2] <= 12 && n >= 8 && n < 1<<16
}
