package features

import (
	"bytes"

	"github.com/picket-ids/picket/capture"
)

// Registered ports (IANA) of the protocols of mobile cores.
const (
	portSIP          = 5060
	portSIPS         = 5061
	portGTPC         = 2123
	portGTPU         = 2152
	portGTPPrime     = 3386
	portDiameter     = 3868
	portDiameterDTLS = 5658
	portPFCP         = 8805
	portS1AP         = 36412
	portNGAP         = 38412
)

// Codes of the 5G core functions in the telecom features.
const (
	coreAMF  = 10
	coreSMF  = 11
	coreUPF  = 12
	coreAUSF = 13
	coreNone = 99
)

func telecom(name, unit, doc string, needs need, value func(*sample) float64) Feature {
	return Feature{Name: name, Group: "telecom", Row: ConnectionRow, Unit: unit, Doc: doc, Source: "5G core features on NSL-KDD", needs: needs, value: value}
}

// telecomGroup holds the features that mobile operators' analysts add to KDD'99's.
var telecomGroup = []Feature{
	telecom("burstiness", "1/s", "srv_count / (duration + 0.001)", needTime,
		func(s *sample) float64 { return float64(s.time.serv.n) / (s.duration + 0.001) }),
	telecom("symmetry_ratio", "ratio", "src_bytes / (dst_bytes + 1)", 0,
		func(s *sample) float64 { return s.src / (s.dst + 1) }),
	coreTraffic("service_10_traffic", "AMF (NGAP)", coreAMF, 0),
	coreTraffic("service_11_traffic", "SMF (PFCP)", coreSMF, 0),
	coreTraffic("service_12_traffic", "UPF (GTP-U)", coreUPF, 0),
	coreTraffic("service_13_traffic", "AUSF (HTTP path /nausf-)", coreAUSF, needPayload),
	telecom("is_signaling", "0/1", "control plane: GTP-C, GTP', SIP, Diameter, PFCP, NGAP, S1AP, or the service-based interface of the AUSF", needPayload,
		func(s *sample) float64 { return oneIf(s.conn.signalling()) }),
}

func coreTraffic(name, function string, code int, needs need) Feature {
	return telecom(name, "bytes", "src_bytes of connections to the "+function+", else 0", needs,
		func(s *sample) float64 {
			if s.conn.coreFunction() == code {
				return s.src
			}
			return 0
		})
}

// protocol returns the code of protocol_type.
func (c *conn) protocol() int {
	switch c.key.proto {
	case capture.ProtoICMP, capture.ProtoICMPv6:
		return codeICMP
	case capture.ProtoTCP, capture.ProtoUDP, capture.ProtoSCTP:
	default:
		return codeOther
	}
	switch c.port(responder) {
	case portGTPC, portGTPU, portGTPPrime:
		if c.key.proto != capture.ProtoSCTP {
			return codeGTP
		}
	case portSIP, portSIPS:
		return codeSIP
	case portDiameter, portDiameterDTLS:
		return codeDiameter
	}
	switch c.key.proto {
	case capture.ProtoTCP:
		return codeTCP
	case capture.ProtoUDP:
		return codeUDP
	}
	return codeOther
}

func (c *conn) service() uint8 {
	return service(c.key.proto, c.port(responder), c.icmpType, c.icmpCode)
}

// coreFunction returns the code of the 5G core function that c talks to.
func (c *conn) coreFunction() int {
	switch port := c.port(responder); {
	case c.key.proto == capture.ProtoSCTP && port == portNGAP:
		return coreAMF
	case c.key.proto == capture.ProtoUDP && port == portPFCP:
		return coreSMF
	case c.key.proto == capture.ProtoUDP && port == portGTPU, c.tunnel == capture.TunnelGTPU:
		return coreUPF
	case c.sbiAUSF:
		return coreAUSF
	}
	return coreNone
}

// signalling reports whether c belongs to the control plane.
func (c *conn) signalling() bool {
	switch c.protocol() {
	case codeGTP:
		return c.port(responder) != portGTPU
	case codeSIP, codeDiameter:
		return true
	}
	switch port := c.port(responder); c.key.proto {
	case capture.ProtoUDP:
		return port == portPFCP
	case capture.ProtoSCTP:
		return port == portNGAP || port == portS1AP
	}
	return c.sbiAUSF
}

// inspectSegments bounds how many segments with payload of a connection are
// looked into: a request's path stands in the first few.
const inspectSegments = 8

var ausfPath = []byte("/nausf-")

// inspect looks for what the telecom features take from the payload.
func (c *conn) inspect(p *capture.Packet, side int) {
	if c.inspected >= inspectSegments || side != originator || len(p.Payload) == 0 {
		return
	}
	c.inspected++
	c.sbiAUSF = c.sbiAUSF || bytes.Contains(p.Payload, ausfPath)
}
