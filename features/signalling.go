package features

import "github.com/picket-ids/picket/capture"

// telecomProtocol is a protocol of mobile cores, recognised by its port and
// confirmed by its header; its value is the code of telecom_protocol.
type telecomProtocol uint8

const (
	noTelecom telecomProtocol = iota
	gtpU                      // GTPv1-U (TS 29.281)
	gtpC                      // GTP-C v1 (TS 29.060), v2 (TS 29.274); v0's signalling
	gtpPrime                  // charging (TS 32.295)
	pfcp                      // TS 29.244
	sip                       // RFC 3261
	diameter                  // RFC 6733
	ngap                      // TS 38.413
	s1ap                      // TS 36.413
	ss7                       // M3UA, SUA, M2PA, M2UA over SCTP
	sbi                       // service-based interface (TS 29.500): HTTP with a 3GPP service in its path
	numTelecom
)

var telecomNames = [numTelecom]string{"none", "gtp-u", "gtp-c", "gtp-prime", "pfcp", "sip", "diameter", "ngap", "s1ap", "ss7", "sbi"}

func (t telecomProtocol) String() string { return telecomNames[t] }

// controlPlane reports whether t carries signalling: all do but GTP-U.
func (t telecomProtocol) controlPlane() bool { return t > gtpU }

// coreFunction returns the code of the 5G core function that t alone tells.
func (t telecomProtocol) coreFunction() uint8 {
	switch t {
	case ngap:
		return coreAMF
	case pfcp:
		return coreSMF
	case gtpU:
		return coreUPF
	}
	return coreNone
}

// signallingGroup is the part of the telecom group that looks into payloads.
var signallingGroup = []Feature{
	serviceTraffic("service_10_traffic", "AMF (NGAP, service paths /namf-)", coreAMF),
	serviceTraffic("service_11_traffic", "SMF (PFCP, service paths /nsmf-)", coreSMF),
	serviceTraffic("service_12_traffic", "UPF (GTP-U and what it carries, service paths /nupf-)", coreUPF),
	serviceTraffic("service_13_traffic", "AUSF (service paths /nausf-)", coreAUSF),
	telecom("is_signaling", "0/1", "control plane: GTP-C, GTP', PFCP, SIP, Diameter, NGAP, S1AP, SS7 over SCTP, 5G service-based interface", &signallingKind,
		func(s *signallingView) float64 { return oneIf(s.protocol.controlPlane()) }),
	categorical(telecom("telecom_protocol", code, "by port and header; of what GTP-U carries, its own if it has one, else gtp-u", &signallingKind,
		func(s *signallingView) float64 { return float64(s.protocol) }), telecomNames[:]),
	telecom("core_function", "id", "5G core function: AMF 10, SMF 11, UPF 12, AUSF 13, other 99", &signallingKind,
		func(s *signallingView) float64 { return float64(s.core()) }),
	telecom("gtp_teid_count", "count", "distinct GTP tunnel endpoints that the source addressed in 2.5 to 5 s, at most 7098; "+mostSince, &ratesKind,
		func(s *signallingRates) float64 { return float64(s.teids) }),
	messageRate("gtp_message_rate", "GTP-C, GTP' and GTP-U signalling messages (no G-PDUs)", gtpMessages),
	messageRate("pfcp_session_rate", "PFCP session establishment, modification and deletion requests", pfcpRequests),
	messageRate("sip_method_rate", "SIP requests", sipRequests),
	messageRate("diameter_request_rate", "Diameter requests", diameterRequests),
}

const mostSince = "the most at any packet of it since the connection's last row"

func serviceTraffic(name, function string, code uint8) Feature {
	return telecom(name, "bytes", "src_bytes of connections to the "+function+", else 0", &signallingKind,
		func(s *signallingView) float64 {
			if s.core() == code {
				return s.src
			}
			return 0
		})
}

func messageRate(name, messages string, kind int) Feature {
	return telecom(name, "1/s", messages+" of the source over 5 s; "+mostSince, &ratesKind,
		func(s *signallingRates) float64 { return float64(s.perSecond[kind]) })
}

// signallingState is what is known of one connection.
type signallingState struct {
	protocol  telecomProtocol
	function  uint8 // core function that a path named, else 0
	inspected uint8 // packets with payload looked into
	tunnelled bool  // carried by GTP-U
}

// core returns the code of core_function.
func (s *signallingState) core() uint8 {
	switch {
	case s.tunnelled:
		return coreUPF
	case s.function != 0:
		return s.function
	}
	return s.protocol.coreFunction()
}

// protocolCode returns the code of protocol_type for a connection of the given
// IP protocol. A connection inside GTP-U is what it is by itself.
func (s *signallingState) protocolCode(proto uint8) int {
	switch s.protocol {
	case gtpU, gtpC, gtpPrime:
		if !s.tunnelled {
			return codeGTP
		}
	case sip:
		return codeSIP
	case diameter:
		return codeDiameter
	}
	switch proto {
	case capture.ProtoTCP:
		return codeTCP
	case capture.ProtoUDP:
		return codeUDP
	case capture.ProtoICMP, capture.ProtoICMPv6:
		return codeICMP
	}
	return codeOther
}

// inspectPackets bounds how many packets with payload of a connection are looked
// into and are none of a mobile core. HTTP/2 needs the most: both sides' SETTINGS and
// their acknowledgements may come before the first path.
const inspectPackets = 8

// inspect looks for the connection's protocol in a packet of the given side. To a port
// of signalling every packet that stands for itself may be the first: else a few of
// junk would hide all that follow.
func (s *signallingState) inspect(p *capture.Packet, side int) {
	service := p.DstPort
	if side == responder {
		service = p.SrcPort
	}
	if protocol, function := recognise(p); protocol != noTelecom {
		s.protocol, s.function = protocol, function
		s.inspected = inspectPackets // found
	} else if !signallingPort(p.Proto, service) {
		s.inspected++
	}
}

// signallingPort reports whether a port of UDP or SCTP is one of signalling.
func signallingPort(proto uint8, port uint16) bool {
	switch proto {
	case capture.ProtoUDP:
		return port == portGTPU || port == portGTPC || port == portGTPPrime || port == portPFCP || port == portSIP
	case capture.ProtoSCTP:
		return sctpPort(port) != noTelecom || port == portSIP
	}
	return false
}

// signalling follows the mobile core protocols of connections.
type signalling struct {
	columnsOf[signallingView]
	noPast
	states  perConn[signallingState]
	current signallingView
	rates   *rates // nil when no column needs them
}

// signallingView is what the features of a row are computed from.
type signallingView struct {
	*signallingState
	proto uint8   // IP protocol
	src   float64 // src_bytes
}

var signallingKind = groupKind{func(opener) group { return new(signalling) }}

func (g *signalling) begin(i int32) {
	g.states.begin(i)
	if g.rates != nil {
		g.rates.peaks.begin(i)
	}
}

func (g *signalling) packet(i int32, _ *conn, p *capture.Packet, side int, now int64, fresh int) {
	s := g.states.at(i)
	if p.Tunnel == capture.TunnelGTPU {
		if s.tunnelled = true; s.protocol == noTelecom {
			s.protocol = gtpU
		}
	}
	if len(p.Payload) > 0 && p.FragmentOffset == 0 && s.inspected < inspectPackets {
		s.inspect(p, side)
	}
	if g.rates != nil && s.protocol != noTelecom {
		g.rates.add(i, s, p, side, now, fresh)
	}
}

// swap begins the peaks anew, which were those of the server; the protocol is the same.
func (g *signalling) swap(i int32) {
	if g.rates != nil {
		g.rates.peaks.begin(i)
	}
}

func (g *signalling) row(i int32, c *conn, s *sample, values []float32) {
	g.current = signallingView{g.states.at(i), c.key.proto, s.src}
	g.set(values, &g.current)
}
