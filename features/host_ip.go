package features

import (
	"math/bits"

	"github.com/picket-ids/picket/capture"
)

// Columns of TCP. The host's own deeds come first; what begins with in_ was done to it.
const (
	tcpTried = iota
	tcpAnswered
	tcpRefused
	tcpUnanswered
	tcpOddFlags
	tcpOrphan
	tcpDropped
	tcpEmpty
	tcpAborted
	inTCPTried
	inTCPAnswered
	inTCPRefused
	inTCPUnanswered
	inTCPOddFlags
	inTCPOrphan
	inTCPSynAck
	tcpHalfOpen
	inTCPHalfOpen
	tcpPorts
	tcpPeers
	tcpServices
	tcpRefusedServices
	tcpOddPorts
	tcpOrphanServices
	tcpEmptyServices
	tcpMostService
	tcpMostPeer
	tcpMostAlike
	inTCPPorts
	inTCPPeers
	inTCPSynAckPeers
	inTCPMostService
	inTCPMostAlike
	numTCPColumns
)

var tcpColumns = windowGroup{"tcp", []windowColumn{
	tcpTried:        {"tcp_tried", "count", "TCP connections that the host tried to open", countPlain, nil},
	tcpAnswered:     {"tcp_answered", "count", "of these, those that were answered", countPlain, nil},
	tcpRefused:      {"tcp_refused", "count", "of these, those that were refused by RST or an ICMP error", countPlain, nil},
	tcpUnanswered:   {"tcp_unanswered", "count", "of these, those without an answer 5 s after the last SYN, or when Picket had no room to wait for one", countPlain, nil},
	tcpOddFlags:     {"tcp_odd_flags", "count", "TCP segments that the host sent with flags that no stack sends: none of FIN, SYN, RST and ACK; FIN alone of these; SYN with FIN or RST", countPlain, nil},
	tcpOrphan:       {"tcp_orphan", "count", "TCP segments without payload that belong to no connection, sent by the host; not in the first 5 s of the traffic", countPlain, nil},
	tcpDropped:      {"tcp_dropped", "count", "connections that the host tried and reset as soon as they were answered", countPlain, nil},
	tcpEmpty:        {"tcp_empty", "count", "connections that the host opened and that FIN or RST ended without payload, counted when they are over", countPlain, nil},
	tcpAborted:      {"tcp_aborted", "count", "established connections that the host opened and reset", countPlain, nil},
	inTCPTried:      {"in_tcp_tried", "count", "TCP connections tried towards the host", countPlain, nil},
	inTCPAnswered:   {"in_tcp_answered", "count", "of these, those that it answered", countPlain, nil},
	inTCPRefused:    {"in_tcp_refused", "count", "of these, those that were refused", countPlain, nil},
	inTCPUnanswered: {"in_tcp_unanswered", "count", "of these, those without an answer, as tcp_unanswered", countPlain, nil},
	inTCPOddFlags:   {"in_tcp_odd_flags", "count", "TCP segments with flags that no stack sends, sent to the host", countPlain, nil},
	inTCPOrphan:     {"in_tcp_orphan", "count", "TCP segments without payload that belong to no connection, sent to the host; not in the first 5 s of the traffic", countPlain, nil},
	inTCPSynAck:     {"in_tcp_syn_ack", "count", "SYN-ACKs sent to the host that answer none of its SYNs; not in the first 5 s of the traffic", countPlain, nil},
	tcpHalfOpen: {"tcp_half_open", "count", "connections tried and neither answered nor refused", countDerived, func(v blockView) float64 {
		return max(0, v.value(tcpTried)-v.value(tcpAnswered)-v.value(tcpRefused))
	}},
	inTCPHalfOpen: {"in_tcp_half_open", "count", "connections tried towards the host and neither answered nor refused", countDerived, func(v blockView) float64 {
		return max(0, v.value(inTCPTried)-v.value(inTCPAnswered)-v.value(inTCPRefused))
	}},
	tcpPorts:           {"tcp_ports", "count", "distinct ports that the host tried", countDistinct, nil},
	tcpPeers:           {"tcp_peers", "count", "distinct addresses that the host tried", countDistinct, nil},
	tcpServices:        {"tcp_services", "count", "distinct pairs of address and port that the host tried", countDistinct, nil},
	tcpRefusedServices: {"tcp_refused_services", "count", "distinct pairs of address and port that refused the host", countDistinct, nil},
	tcpOddPorts:        {"tcp_odd_ports", "count", "distinct ports to which the host sent segments with odd flags", countDistinct, nil},
	tcpOrphanServices:  {"tcp_orphan_services", "count", "distinct pairs of address and port to which the host sent orphans", countDistinct, nil},
	tcpEmptyServices:   {"tcp_empty_services", "count", "distinct pairs of address and port to which the host had empty connections", countDistinct, nil},
	tcpMostService:     {"tcp_most_service", "count", "the most connections tried towards one address and port", countMost, nil},
	tcpMostPeer:        {"tcp_most_peer", "count", "the most connections tried towards one address", countMost, nil},
	tcpMostAlike:       {"tcp_most_alike", "count", "the most connections of alike size (each direction's payload has the same number of binary digits) that FIN or RST ended, towards one address and port", countMost, nil},
	inTCPPorts:         {"in_tcp_ports", "count", "distinct ports of the host that were tried", countDistinct, nil},
	inTCPPeers:         {"in_tcp_peers", "count", "distinct addresses that tried the host", countDistinct, nil},
	inTCPSynAckPeers:   {"in_tcp_syn_ack_peers", "count", "distinct addresses that sent the host SYN-ACKs it had not asked for", countDistinct, nil},
	inTCPMostService:   {"in_tcp_most_service", "count", "the most connections tried towards one port of the host", countMost, nil},
	inTCPMostAlike:     {"in_tcp_most_alike", "count", "the most connections of alike size towards one port of the host", countMost, nil},
}}

// Columns of UDP.
const (
	udpTried = iota
	udpAnswered
	udpUnanswered
	inUDPTried
	inUDPUnanswered
	inUDPUnasked
	inUDPUnaskedBytes
	udpPorts
	udpPeers
	udpServices
	udpMostService
	udpMostPeer
	inUDPPorts
	inUDPPeers
	inUDPUnaskedPeers
	inUDPMostService
)

var udpColumns = windowGroup{"udp", []windowColumn{
	udpTried:          {"udp_tried", "count", "UDP flows that the host opened", countPlain, nil},
	udpAnswered:       {"udp_answered", "count", "of these, those that were answered", countPlain, nil},
	udpUnanswered:     {"udp_unanswered", "count", "of these, those that ended, 60 s after the last datagram, without an answer", countPlain, nil},
	inUDPTried:        {"in_udp_tried", "count", "UDP flows opened towards the host", countPlain, nil},
	inUDPUnanswered:   {"in_udp_unanswered", "count", "of these, those that ended without an answer", countPlain, nil},
	inUDPUnasked:      {"in_udp_unasked", "count", "datagrams of servers that the host had not asked; not in the first 5 s of the traffic", countPlain, nil},
	inUDPUnaskedBytes: {"in_udp_unasked_bytes", "bytes", "payload of these", countPlain, nil},
	udpPorts:          {"udp_ports", "count", "distinct ports to which the host opened UDP flows", countDistinct, nil},
	udpPeers:          {"udp_peers", "count", "distinct addresses to which the host opened UDP flows", countDistinct, nil},
	udpServices:       {"udp_services", "count", "distinct pairs of address and port to which the host opened UDP flows", countDistinct, nil},
	udpMostService:    {"udp_most_service", "count", "the most datagrams towards one address and port in flows that have no answer yet", countMost, nil},
	udpMostPeer:       {"udp_most_peer", "count", "the most UDP flows opened towards one address", countMost, nil},
	inUDPPorts:        {"in_udp_ports", "count", "distinct ports of the host to which UDP flows were opened", countDistinct, nil},
	inUDPPeers:        {"in_udp_peers", "count", "distinct addresses that opened UDP flows to the host", countDistinct, nil},
	inUDPUnaskedPeers: {"in_udp_unasked_peers", "count", "distinct addresses that sent the host datagrams of servers it had not asked", countDistinct, nil},
	inUDPMostService:  {"in_udp_most_service", "count", "the most datagrams towards one port of the host in flows that have no answer yet", countMost, nil},
}}

// Columns of ICMP and ICMPv6.
const (
	echoRequests = iota
	echoReplies
	echoLarge
	echoDiffering
	icmpOdd
	icmpRedirects
	icmpUnreachable
	inEchoRequests
	inEchoUnasked
	inEchoDiffering
	inICMPOdd
	inICMPUnreachable
	echoUnanswered
	echoTargets
	echoSizes
	echoContents
	icmpTypes
	inUnreachablePorts
	inICMPTypes
	echoMostTarget
)

var icmpColumns = windowGroup{"icmp", []windowColumn{
	echoRequests:       {"echo_requests", "count", "echo requests that the host sent", countPlain, nil},
	echoReplies:        {"echo_replied", "count", "echo replies that the host got", countPlain, nil},
	echoLarge:          {"echo_large", "count", "echo requests of more than 128 bytes of data that the host sent", countPlain, nil},
	echoDiffering:      {"echo_differing", "count", "echo replies that the host sent with other data than the request had", countPlain, nil},
	icmpOdd:            {"icmp_odd", "count", "ICMP messages that the host sent of types that are neither echo, error, multicast listener, nor neighbour discovery", countPlain, nil},
	icmpRedirects:      {"icmp_redirects", "count", "redirects that the host sent", countPlain, nil},
	icmpUnreachable:    {"icmp_unreachable", "count", "destination unreachable messages that the host sent, without those about an answer", countPlain, nil},
	inEchoRequests:     {"in_echo_requests", "count", "echo requests sent to the host", countPlain, nil},
	inEchoUnasked:      {"in_echo_unasked", "count", "echo replies that the host had not asked for", countPlain, nil},
	inEchoDiffering:    {"in_echo_differing", "count", "echo replies to the host with other data than its request had", countPlain, nil},
	inICMPOdd:          {"in_icmp_odd", "count", "ICMP messages of odd types sent to the host", countPlain, nil},
	inICMPUnreachable:  {"in_icmp_unreachable", "count", "destination unreachable messages about what the host opened", countPlain, nil},
	echoUnanswered:     {"echo_unanswered", "count", "echo requests without a reply so far", countDerived, func(v blockView) float64 { return max(0, v.value(echoRequests)-v.value(echoReplies)) }},
	echoTargets:        {"echo_targets", "count", "distinct addresses that the host sent echo requests to", countDistinct, nil},
	echoSizes:          {"echo_sizes", "count", "distinct sizes of the host's echo requests", countDistinct, nil},
	echoContents:       {"echo_contents", "count", "distinct data of the host's echo requests, behind the first 16 bytes, where ping has its clock", countDistinct, nil},
	icmpTypes:          {"icmp_types", "count", "distinct odd ICMP types that the host sent", countDistinct, nil},
	inUnreachablePorts: {"in_unreachable_ports", "count", "distinct ports in unreachable messages about what the host opened", countDistinct, nil},
	inICMPTypes:        {"in_icmp_types", "count", "distinct odd ICMP types sent to the host", countDistinct, nil},
	echoMostTarget:     {"echo_most_target", "count", "the most echo requests that the host sent to one address", countMost, nil},
}}

// A watcher is told what a Tracker finds, of the connection at index i.
type watcher interface {
	// begin is called for the packet that opens a connection, before its packet.
	begin(i int32, c *conn, p *capture.Packet)
	// packet is called for each packet of a side, after c has taken it in; was is what c.tcp was before.
	packet(i int32, c *conn, p *capture.Packet, side int, was uint16, fresh int)
	// swap is called when client and server change their roles.
	swap(i int32)
	// quoted is called for an ICMP error that quotes the connection.
	quoted(i int32, c *conn, p *capture.Packet)
	// end is called at the time when the connection is over, or is forgotten because the table is full.
	end(i int32, c *conn, time int64)
}

func (w *hosts) swap(i int32) {
	x := w.conns.at(i)
	x.client, x.server = x.server, x.client
}

// zone tells apart networks whose addresses overlap: tunnels that have an identifier.
func zone(p *capture.Packet) uint32 { return zoneOf(p.Tunnel, p.TunnelID) }

func (c *conn) zone() uint32 { return zoneOf(c.tunnel, c.key.vni) }

func zoneOf(t capture.TunnelKind, id uint32) uint32 {
	if t == capture.TunnelVXLAN || t == capture.TunnelGeneve {
		return id + 1
	}
	return 0
}

// hostAt returns the host of one side of a connection, nil where that is no one host.
func (w *hosts) hostAt(ref *hostRef, z uint32, a capture.Addr) *hostState {
	if ref.number != 0 {
		if ref.at < 0 {
			return nil
		}
		if h := w.table.table.at(ref.at); h.number == ref.number {
			return w.turn(ref.at)
		}
	}
	k, m, inside, ok := w.names.key(z, &a)
	if !ok {
		*ref = hostRef{-1, 1}
		return nil
	}
	i, h := w.place(&k, inside)
	*ref = hostRef{i, h.number}
	if h.key.what != hostRest {
		h.addr, h.mac = a, m
	}
	return h
}

// sides returns the hosts of client and server.
func (w *hosts) sides(i int32, c *conn, p *capture.Packet) (client, server *hostState) {
	x := w.conns.at(i)
	client = w.hostAt(&x.client, zone(p), c.addr(originator))
	server = w.hostAt(&x.server, zone(p), c.addr(responder))
	if client != nil && x.client.number != 0 { // the second may have made the first lose its place
		if h := w.table.table.at(x.client.at); h.number != x.client.number {
			client = nil
		}
	}
	return client, server
}

func (w *hosts) begin(i int32, c *conn, p *capture.Packet) {
	x := w.conns.begin(i)
	if c.back { // it was counted before it was evicted
		x.asked, x.answered = true, c.role == RoleKept
	}
	w.follow(x, c)
	w.sent(zone(p), p)
	client, server := w.sides(i, c, p)
	port, peer, target := c.servicePort(), c.addr(originator), c.addr(responder)
	switch {
	case c.key.proto == capture.ProtoTCP && p.Flags&(capture.SYN|capture.ACK|capture.RST|capture.FIN) == capture.SYN:
		did, got := w.of(client, groupTCP), w.of(server, groupTCP)
		if server == nil {
			return
		}
		w.opened(did, got, tcpTried, inTCPTried, tcpPorts, tcpPeers, tcpServices, inTCPPorts, inTCPPeers, port, &peer, &target)
		did.most(tcpMostService, w.key.service(&target, port), 1)
		did.most(tcpMostPeer, w.key.addr(&target), 1)
		got.most(inTCPMostService, w.key.service(&target, port), 1)
	case c.key.proto == capture.ProtoUDP && !c.back && server != nil && p.Src == peer && p.SrcPort == c.port(originator):
		did, got := w.of(client, groupUDP), w.of(server, groupUDP)
		w.opened(did, got, udpTried, inUDPTried, udpPorts, udpPeers, udpServices, inUDPPorts, inUDPPeers, port, &peer, &target)
		did.most(udpMostPeer, w.key.addr(&target), 1)
	}
}

// opened counts a connection that client opens.
func (w *hosts) opened(did, got deed, tried, inTried, ports, peers, services, inPorts, inPeers int, port uint16, peer, target *capture.Addr) {
	p := w.key.hash(uint64(port), 1)
	did.add(tried, 1)
	did.distinct(ports, p)
	did.distinct(peers, w.key.addr(target))
	did.distinct(services, w.key.service(target, port))
	got.add(inTried, 1)
	got.distinct(inPorts, p)
	got.distinct(inPeers, w.key.addr(peer))
}

func (w *hosts) packet(i int32, c *conn, p *capture.Packet, side int, was uint16, fresh int) {
	if side == responder && c.dir[side].packets == 1 && c.rows == 0 {
		w.sent(zone(p), p) // begin has learnt from who opened the connection
	}
	client, server := w.sides(i, c, p)
	for k, h := range [2]*hostState{client, server} {
		if h != nil {
			h.last = w.now
			h.packets[k^side]++ // 0: sent by the host
			h.octets[k^side] += uint64(p.WireLen)
		}
	}
	x := w.conns.at(i)
	switch {
	case c.key.proto == capture.ProtoTCP && (!p.Fragment || p.Flags != 0):
		w.tcp(c, p, side, was, client, server)
	case c.key.proto == capture.ProtoUDP:
		if p.DstPort == portDHCPServer || p.DstPort == portDHCPClient {
			w.dhcp(p)
		}
		w.udp(x, c, p, side, client, server)
	case p.Proto == capture.ProtoICMPv6 && p.ICMPType >= 133 && p.ICMPType <= 136:
		w.neighbour(p)
	case c.isICMP():
		w.icmp(x, c, p, side, client, server)
	}
	w.talk(x, c, p, side, fresh, client, server)
}

func (w *hosts) tcp(c *conn, p *capture.Packet, side int, was uint16, client, server *hostState) {
	now := c.tcp &^ was
	port, target := c.port(responder), c.addr(responder)
	switch {
	case was&sawSYN == 0:
	case now&sawAnswer != 0:
		w.of(client, groupTCP).add(tcpAnswered, 1)
		w.of(server, groupTCP).add(inTCPAnswered, 1)
	case now&rstResponder != 0 && was&sawAnswer == 0:
		w.refused(client, server, port, &target)
	case now&rstOriginator != 0 && was&(sawAnswer|sawOriginAck) == sawAnswer:
		w.of(client, groupTCP).add(tcpDropped, 1)
	case now&rstOriginator != 0 && was&sawOriginAck != 0:
		w.of(client, groupTCP).add(tcpAborted, 1)
	}
	sender, receiver := client, server
	if side == responder {
		sender, receiver = server, client
	}
	to := w.key.service(&p.Dst, p.DstPort)
	const all = capture.FIN | capture.SYN | capture.RST | capture.ACK
	switch f := p.Flags & all; {
	case f == 0 || f&^capture.URG == capture.FIN || f&(capture.SYN|capture.FIN) == capture.SYN|capture.FIN || f&(capture.SYN|capture.RST) == capture.SYN|capture.RST:
		did := w.of(sender, groupTCP)
		did.add(tcpOddFlags, 1)
		did.distinct(tcpOddPorts, w.key.hash(uint64(p.DstPort), 1))
		w.of(receiver, groupTCP).add(inTCPOddFlags, 1)
	case w.now < w.began+hostWarm || c.tcp&sawSYN != 0 || c.back:
	case f == capture.SYN|capture.ACK:
		got := w.of(receiver, groupTCP)
		got.add(inTCPSynAck, 1)
		got.distinct(inTCPSynAckPeers, w.key.addr(&p.Src))
	case c.dir[originator].packets+c.dir[responder].packets == 1 && p.PayloadLen == 0 && c.rows == 0:
		did := w.of(sender, groupTCP)
		did.add(tcpOrphan, 1)
		did.distinct(tcpOrphanServices, to)
		w.of(receiver, groupTCP).add(inTCPOrphan, 1)
	}
}

func (w *hosts) refused(client, server *hostState, port uint16, target *capture.Addr) {
	did := w.of(client, groupTCP)
	did.add(tcpRefused, 1)
	did.distinct(tcpRefusedServices, w.key.service(target, port))
	w.of(server, groupTCP).add(inTCPRefused, 1)
}

func (w *hosts) udp(x *hostConn, c *conn, p *capture.Packet, side int, client, server *hostState) {
	if server == nil || client == nil {
		return // to or from a group
	}
	target := c.addr(responder)
	if side == responder {
		if x.asked && !x.answered {
			x.answered = true
			w.of(client, groupUDP).add(udpAnswered, 1)
		} else if !x.asked && w.now >= w.began+hostWarm {
			got := w.of(client, groupUDP)
			got.add(inUDPUnasked, 1)
			got.add(inUDPUnaskedBytes, uint32(p.PayloadLen))
			got.distinct(inUDPUnaskedPeers, w.key.addr(&p.Src))
		}
		return
	}
	if x.asked = true; !x.answered {
		to := w.key.service(&target, c.port(responder))
		w.of(client, groupUDP).most(udpMostService, to, 1)
		w.of(server, groupUDP).most(inUDPMostService, to, 1)
	}
}

func (w *hosts) icmp(x *hostConn, c *conn, p *capture.Packet, side int, client, server *hostState) {
	sender, receiver := client, server
	if side == responder {
		sender, receiver = server, client
	}
	did, got := w.of(sender, groupICMP), w.of(receiver, groupICMP)
	six := p.Proto == capture.ProtoICMPv6
	switch t := p.ICMPType; {
	case t == 8 && !six || t == 128 && six:
		if side == originator {
			x.asked = true
		} else {
			x.answered = true
		}
		x.echo, x.echoSide = w.echo(p), uint8(side)
		did.add(echoRequests, 1)
		got.add(inEchoRequests, 1)
		if p.PayloadLen > 128 {
			did.add(echoLarge, 1)
		}
		did.distinct(echoTargets, w.key.addr(&p.Dst))
		did.most(echoMostTarget, w.key.addr(&p.Dst), 1)
		did.distinct(echoSizes, w.key.hash(uint64(p.PayloadLen), 2))
		if len(p.Payload) > 16 {
			did.distinct(echoContents, w.key.bytes(p.Payload[16:]))
		}
	case t == 0 && !six || t == 129 && six:
		if side == responder && x.asked || side == originator && x.answered {
			got.add(echoReplies, 1)
			if int(x.echoSide) != side && x.echo != w.echo(p) {
				did.add(echoDiffering, 1)
				got.add(inEchoDiffering, 1)
			}
		} else {
			got.add(inEchoUnasked, 1)
		}
	case t == 5 && !six || t == 137 && six:
		did.add(icmpRedirects, 1)
	case isICMPError(p):
		if undelivered(p) {
			did.add(icmpUnreachable, 1)
		}
	case six && (t >= 130 && t <= 136 || t == 143): // multicast listeners, neighbour discovery
	default:
		did.add(icmpOdd, 1)
		did.distinct(icmpTypes, w.key.hash(uint64(t), 3))
		got.add(inICMPOdd, 1)
		got.distinct(inICMPTypes, w.key.hash(uint64(t), 3))
	}
}

// echo hashes the data of an echo message, but for the clock that ping puts at its beginning.
func (w *hosts) echo(p *capture.Packet) uint64 {
	return w.key.hash(w.key.bytes(p.Payload[min(16, len(p.Payload)):]), uint64(p.PayloadLen))
}

func (w *hosts) quoted(i int32, c *conn, p *capture.Packet) {
	switch {
	case p.Proto == capture.ProtoICMP && p.ICMPType == 5:
		w.of(w.named(zone(p), p.Src), groupICMP).add(icmpRedirects, 1)
		return
	case !undelivered(p) || p.Quoted.Src != c.addr(originator):
		return // about an answer: nobody's deed
	}
	w.of(w.named(zone(p), p.Src), groupICMP).add(icmpUnreachable, 1)
	client, server := w.sides(i, c, p)
	got := w.of(client, groupICMP)
	got.add(inICMPUnreachable, 1)
	got.distinct(inUnreachablePorts, w.key.hash(uint64(p.Quoted.DstPort), 1))
	if target := c.addr(responder); c.key.proto == capture.ProtoTCP && c.tcp&(sawSYN|sawAnswer) == sawSYN && c.icmpErrors == 1 {
		w.refused(client, server, c.port(responder), &target)
	}
}

// named returns the host of an address.
func (w *hosts) named(z uint32, a capture.Addr) *hostState {
	var ref hostRef
	return w.hostAt(&ref, z, a)
}

func (w *hosts) end(i int32, c *conn, time int64) {
	w.roll(time)
	x := w.conns.at(i)
	w.leave(x, c)
	switch {
	case c.key.proto == capture.ProtoTCP && c.tcp&sawSYN != 0:
		w.ended(x, c)
	case c.key.proto == capture.ProtoUDP && x.asked && !x.answered && !c.back:
		client, server := w.known(x, c)
		w.of(client, groupUDP).add(udpUnanswered, 1)
		w.of(server, groupUDP).add(inUDPUnanswered, 1)
	}
}

// known returns the hosts of a connection that is over, nil for one that has lost its place. One that has another name
// since, as its hardware address came to be known, has it.
func (w *hosts) known(x *hostConn, c *conn) (client, server *hostState) {
	var all [2]*hostState
	for side, ref := range [2]*hostRef{&x.client, &x.server} {
		if ref.at < 0 {
			continue
		}
		if ref.number != 0 {
			if h := w.table.table.at(ref.at); h.number == ref.number {
				all[side] = h
				continue
			}
		}
		a := c.addr(side)
		if k, _, _, ok := w.names.key(c.zone(), &a); ok {
			if i := w.table.table.find(&k, k.hash()); i >= 0 {
				all[side] = w.table.table.at(i)
			}
		}
	}
	return all[originator], all[responder]
}

func (w *hosts) ended(x *hostConn, c *conn) {
	target, port := c.addr(responder), c.port(responder)
	client, server := w.known(x, c)
	switch up, down := c.dir[originator].payload, c.dir[responder].payload; {
	case c.tcp&(sawAnswer|rstAny) == 0 && c.icmpErrors == 0:
		w.of(client, groupTCP).add(tcpUnanswered, 1)
		w.of(server, groupTCP).add(inTCPUnanswered, 1)
	case c.tcp&sawOriginAck == 0 || !c.closed():
	case up+down == 0:
		did := w.of(client, groupTCP)
		did.add(tcpEmpty, 1)
		did.distinct(tcpEmptyServices, w.key.service(&target, port))
	default:
		alike := w.key.hash(w.key.service(&target, port), uint64(bits.Len64(up))<<8|uint64(bits.Len64(down)))
		w.of(client, groupTCP).most(tcpMostAlike, alike, 1)
		w.of(server, groupTCP).most(inTCPMostAlike, alike, 1)
	}
}
