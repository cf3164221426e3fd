package features

const (
	kddPaper = "KDD'99 (Lee & Stolfo)"
	code     = "code"
)

func kdd[V any](group, name, unit, doc string, needs *groupKind, value func(*V) float64) Feature {
	return Feature{Name: name, Group: group, Unit: unit, Doc: doc, Source: kddPaper, needs: needs, value: value}
}

// categorical adds the one-hot columns of a feature whose value is the index of
// a name.
func categorical(f Feature, names []string) Feature {
	f.OneHot = names
	return f
}

// basicGroup is KDD'99's features 1-9.
var basicGroup = []Feature{
	kdd("basic", "duration", "s", "last packet minus first packet, in whole seconds", nil,
		func(s *sample) float64 { return s.duration }),
	categorical(kdd("basic", "protocol_type", code, "protocol: tcp 0, udp 1, icmp 2, gtp 3, sip 4, diameter 5 (by port and header), other 6", &signallingKind,
		func(s *signallingView) float64 { return float64(s.protocolCode(s.proto)) }), protocolNames[:]),
	categorical(kdd("basic", "service", code, "KDD'99 service of the responder's port, or of the ICMP type: its index among the 70 names of NSL-KDD in ASCII order", nil,
		func(s *sample) float64 { return float64(s.conn.service()) }), kddServices[:]),
	categorical(kdd("basic", "flag", code, "state of the connection: SF S0 S1 S2 S3 REJ RSTO RSTR RSTOS0 SH OTH, from 0", nil,
		func(s *sample) float64 { return float64(s.flag) }), flagNames[:]),
	kdd("basic", "src_bytes", "bytes", "payload from source to destination, retransmissions counted once", nil,
		func(s *sample) float64 { return s.src }),
	kdd("basic", "dst_bytes", "bytes", "payload from destination to source, retransmissions counted once", nil,
		func(s *sample) float64 { return s.dst }),
	kdd("basic", "land", "0/1", "source and destination have the same address and port", nil,
		func(s *sample) float64 {
			return oneIf(s.conn.key.lo == s.conn.key.hi && s.conn.key.loPort == s.conn.key.hiPort)
		}),
	kdd("basic", "wrong_fragment", "count", "fragments with a bad checksum, an overlap or an impossible offset", nil,
		func(s *sample) float64 { return float64(s.conn.wrongFrags) }),
	kdd("basic", "urgent", "count", "packets with URG set", nil,
		func(s *sample) float64 { return float64(s.conn.urgent) }),
}

// timeGroup is KDD'99's features 23-31.
var timeGroup = []Feature{
	kdd("time", "count", "count", "connections to the same destination host in the last 2 s, of the last 511", &kddTime,
		func(s *windowStats) float64 { return float64(s.host.n) }),
	kdd("time", "srv_count", "count", "connections to the same service in the last 2 s, of the last 511", &kddTime,
		func(s *windowStats) float64 { return float64(s.serv.n) }),
	kdd("time", "serror_rate", "share", "SYN errors (S0 S1 S2 S3 SH) among count", &kddTime,
		func(s *windowStats) float64 { return rate(s.host.sErr, s.host.n) }),
	kdd("time", "srv_serror_rate", "share", "SYN errors among srv_count", &kddTime,
		func(s *windowStats) float64 { return rate(s.serv.sErr, s.serv.n) }),
	kdd("time", "rerror_rate", "share", "REJ errors (REJ RSTO RSTR RSTOS0) among count", &kddTime,
		func(s *windowStats) float64 { return rate(s.host.rErr, s.host.n) }),
	kdd("time", "srv_rerror_rate", "share", "REJ errors among srv_count", &kddTime,
		func(s *windowStats) float64 { return rate(s.serv.rErr, s.serv.n) }),
	kdd("time", "same_srv_rate", "share", "connections to the same service among count", &kddTime,
		func(s *windowStats) float64 { return rate(s.sameServ, s.host.n) }),
	kdd("time", "diff_srv_rate", "share", "distinct services among count, per connection; 0 when there is one", &kddTime,
		func(s *windowStats) float64 { return distinctRate(s.host.distinct, s.host.n) }),
	kdd("time", "srv_diff_host_rate", "share", "distinct hosts among srv_count, per connection; 0 when there is one", &kddTime,
		func(s *windowStats) float64 { return distinctRate(s.serv.distinct, s.serv.n) }),
}

// hostGroup is KDD'99's features 32-41.
var hostGroup = []Feature{
	kdd("host", "dst_host_count", "count", "connections to the same destination host among the last 255", &kddHost,
		func(s *windowStats) float64 { return float64(s.host.n) }),
	kdd("host", "dst_host_srv_count", "count", "connections to the same service among the last 255, whatever the host", &kddHost,
		func(s *windowStats) float64 { return float64(s.serv.n) }),
	kdd("host", "dst_host_same_srv_rate", "share", "connections to the same service among dst_host_count", &kddHost,
		func(s *windowStats) float64 { return rate(s.sameServ, s.host.n) }),
	kdd("host", "dst_host_diff_srv_rate", "share", "distinct services among dst_host_count, per connection; 0 when there is one", &kddHost,
		func(s *windowStats) float64 { return distinctRate(s.host.distinct, s.host.n) }),
	kdd("host", "dst_host_same_src_port_rate", "share", "connections from the same source port among dst_host_count", &kddHost,
		func(s *windowStats) float64 { return rate(s.sameSrcPort, s.host.n) }),
	kdd("host", "dst_host_srv_diff_host_rate", "share", "distinct hosts among dst_host_srv_count, per connection; 0 when there is one", &kddHost,
		func(s *windowStats) float64 { return distinctRate(s.serv.distinct, s.serv.n) }),
	kdd("host", "dst_host_serror_rate", "share", "SYN errors among dst_host_count", &kddHost,
		func(s *windowStats) float64 { return rate(s.host.sErr, s.host.n) }),
	kdd("host", "dst_host_srv_serror_rate", "share", "SYN errors among dst_host_srv_count", &kddHost,
		func(s *windowStats) float64 { return rate(s.serv.sErr, s.serv.n) }),
	kdd("host", "dst_host_rerror_rate", "share", "REJ errors among dst_host_count", &kddHost,
		func(s *windowStats) float64 { return rate(s.host.rErr, s.host.n) }),
	kdd("host", "dst_host_srv_rerror_rate", "share", "REJ errors among dst_host_srv_count", &kddHost,
		func(s *windowStats) float64 { return rate(s.serv.rErr, s.serv.n) }),
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
