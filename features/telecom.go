package features

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

func telecom[V any](name, unit, doc string, needs *groupKind, value func(*V) float64) Feature {
	return Feature{Name: name, Group: "telecom", Unit: unit, Doc: doc, Source: "5G core features on NSL-KDD", needs: needs, value: value}
}

// telecomGroup holds the features that mobile operators' analysts add to KDD'99's;
// those that look into payloads are in signallingGroup.
var telecomGroup = []Feature{
	telecom("burstiness", "1/s", "srv_count / (duration + 0.001)", &kddTime,
		func(s *windowStats) float64 { return float64(s.serv.n) / (s.duration + 0.001) }),
	telecom("symmetry_ratio", "ratio", "src_bytes / (dst_bytes + 1)", nil,
		func(s *sample) float64 { return s.src / (s.dst + 1) }),
}

func (c *conn) service() uint8 {
	return service(c.key.proto, c.port(responder), c.icmpType, c.icmpCode)
}
