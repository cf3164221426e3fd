package features

import (
	"encoding/binary"

	"github.com/picket-ids/picket/capture"
)

// Columns of the link: ARP, and neighbour discovery of IPv6 (RFC 4861).
const (
	arpRequests = iota
	arpUnasked
	arpGratuitous
	arpTaken
	arpForged
	ndAdvertisements
	ndUnasked
	ndTaken
	routerAdvertisements
	inAddressTaken
	arpTargets
	arpClaims
	arpReplyTargets
	ndTargets
	ndClaims
	linkRouters
	linkSenders
)

var linkColumns = windowGroup{"link", []windowColumn{
	arpRequests:          {"arp_requests", "count", "ARP requests that the host sent, without those about its own address", countPlain, nil},
	arpUnasked:           {"arp_unasked", "count", "ARP replies that the host sent and nobody had asked for in the last 5 s; not in the first 5 s of the traffic", countPlain, nil},
	arpGratuitous:        {"arp_gratuitous", "count", "ARP messages of the host about its own address", countPlain, nil},
	arpTaken:             {"arp_taken", "count", "addresses that the host claimed by ARP while another hardware address had them in the last hour", countPlain, nil},
	arpForged:            {"arp_forged", "count", "ARP messages of the host whose sender is another hardware address than the frame's", countPlain, nil},
	ndAdvertisements:     {"nd_advertisements", "count", "neighbour advertisements that the host sent", countPlain, nil},
	ndUnasked:            {"nd_unasked", "count", "of these, those to one address which nobody had asked for in the last 5 s; not in the first 5 s of the traffic", countPlain, nil},
	ndTaken:              {"nd_taken", "count", "addresses that the host claimed by an advertisement while another hardware address had them in the last hour", countPlain, nil},
	routerAdvertisements: {"router_advertisements", "count", "router advertisements that the host sent", countPlain, nil},
	inAddressTaken:       {"in_address_taken", "count", "addresses of the host that another hardware address claimed", countPlain, nil},
	arpTargets:           {"arp_targets", "count", "distinct addresses that the host asked for by ARP", countDistinct, nil},
	arpClaims:            {"arp_claims", "count", "distinct addresses that the host claimed by ARP", countDistinct, nil},
	arpReplyTargets:      {"arp_reply_targets", "count", "distinct addresses that the host sent ARP replies to", countDistinct, nil},
	ndTargets:            {"nd_targets", "count", "distinct addresses that the host asked for by neighbour solicitations", countDistinct, nil},
	ndClaims:             {"nd_claims", "count", "distinct addresses that the host claimed by advertisements", countDistinct, nil},
	linkRouters:          {"link_routers", "count", "distinct senders of router advertisements on the segment", countDistinct, nil},
	linkSenders:          {"link_senders", "count", "distinct hardware addresses that sent ARP messages on the segment", countDistinct, nil},
}}

// Times for which the link's tables remember.
const (
	askedFor = 5 * second    // a question
	ownedFor = 3600 * second // an owner
)

// linkState is what is remembered of the link: who owns which address, and what was asked.
type linkState struct {
	owners *lru[addrKey, owner]
	asked  *lru[addrKey, int64] // by the address asked for: when
}

type owner struct {
	mac   capture.MAC
	claim int64 // ns, the last one
}

func (l *linkState) init() {
	l.owners, l.asked = newLRU[addrKey, owner](maxNames), newLRU[addrKey, int64](maxNames)
}

func (l *linkState) reset() {
	l.owners.reset()
	l.asked.reset()
}

func (l *linkState) ask(zone uint32, a *capture.Addr, now int64) {
	k := addrKey{zone, *a}
	at, _ := l.asked.use(&k, k.hash())
	*at = now
}

// wasAsked says whether somebody asked for an address lately.
func (l *linkState) wasAsked(zone uint32, a *capture.Addr, now int64) bool {
	k := addrKey{zone, *a}
	at := l.asked.peek(&k, k.hash())
	return at != nil && now-*at <= askedFor
}

// claim notes that a hardware address says it has an address, and returns the one that had it before.
func (l *linkState) claim(zone uint32, a *capture.Addr, m capture.MAC, now int64) (before capture.MAC, taken bool) {
	k := addrKey{zone, *a}
	o, isNew := l.owners.use(&k, k.hash())
	before = o.mac
	taken = !isNew && before != m && now-o.claim < ownedFor
	o.mac, o.claim = m, now
	return before, taken
}

// onLink returns the host of a hardware address.
func (w *hosts) onLink(z uint32, m capture.MAC) *hostState {
	k := linkKey(z, m)
	_, h := w.place(&k, true)
	h.mac = m
	return h
}

// segment returns what stands for the whole segment.
func (w *hosts) segment(z uint32) *hostState {
	k := hostKey{zone: z, what: hostSegment}
	_, h := w.place(&k, true)
	return h
}

// link takes an ARP message.
func (w *hosts) link(p *capture.Packet) {
	a := p.ARP
	if a == nil {
		return
	}
	z, now := uint32(0), w.now
	from := p.SrcMAC
	if from == (capture.MAC{}) {
		from = a.SenderMAC
	}
	h := w.onLink(z, from)
	h.last = now
	h.packets[0]++
	h.octets[0] += uint64(p.WireLen)
	did := w.of(h, groupLink)
	w.of(w.segment(z), groupLink).distinct(linkSenders, w.key.mac(from))
	if p.SrcMAC != (capture.MAC{}) && a.SenderMAC != p.SrcMAC {
		did.add(arpForged, 1)
	}
	if a.Sender == a.Target {
		did.add(arpGratuitous, 1)
	} else if a.Op == 1 {
		did.add(arpRequests, 1)
		did.distinct(arpTargets, w.key.addr(&a.Target))
		w.links.ask(z, &a.Target, now)
	} else if a.Op == 2 {
		if !w.links.wasAsked(z, &a.Sender, now) && now >= w.began+hostWarm {
			did.add(arpUnasked, 1)
		}
		did.distinct(arpReplyTargets, w.key.addr(&a.Target))
	}
	if isUnspecified(&a.Sender) {
		return // a probe (RFC 5227): it claims nothing
	}
	if h.key.what == hostHardware && a.SenderMAC == from {
		h.addr = a.Sender
	}
	did.distinct(arpClaims, w.key.addr(&a.Sender))
	w.claimed(z, &a.Sender, a.SenderMAC, did, arpTaken)
}

// claimed notes who has an address on the link.
func (w *hosts) claimed(z uint32, a *capture.Addr, m capture.MAC, did deed, taken int) {
	k := addrKey{z, *a}
	if o := w.names.owners.peek(&k, k.hash()); o != nil && !w.names.isRouter(*o) && w.links.owners.peek(&k, k.hash()) == nil {
		w.links.claim(z, a, *o, w.now) // its IP packets said so
	}
	before, took := w.links.claim(z, a, m, w.now)
	if took {
		did.add(taken, 1)
		w.of(w.onLink(z, before), groupLink).add(inAddressTaken, 1)
		return // who is right is not known: names stay
	}
	w.claim(z, a, m)
}

// neighbour takes a message of neighbour discovery.
func (w *hosts) neighbour(p *capture.Packet) {
	z, now := zone(p), w.now
	m := p.SrcMAC
	if m == (capture.MAC{}) {
		return
	}
	did := w.of(w.onLink(z, m), groupLink)
	var target capture.Addr
	if len(p.Payload) >= 16 {
		copy(target[:], p.Payload)
	}
	switch p.ICMPType {
	case 134: // router advertisement
		did.add(routerAdvertisements, 1)
		w.of(w.segment(z), groupLink).distinct(linkRouters, w.key.mac(m))
	case 135: // neighbour solicitation
		if len(p.Payload) >= 16 {
			did.distinct(ndTargets, w.key.addr(&target))
			w.links.ask(z, &target, now)
		}
	case 136: // neighbour advertisement
		did.add(ndAdvertisements, 1)
		if len(p.Payload) < 16 {
			return
		}
		did.distinct(ndClaims, w.key.addr(&target))
		if !isGroup(&p.Dst) && !w.links.wasAsked(z, &target, now) && now >= w.began+hostWarm {
			did.add(ndUnasked, 1)
		}
		w.claimed(z, &target, m, did, ndTaken)
	}
}

// Columns of DHCP: of the hardware address that sends the frame, and of the segment.
const (
	dhcpDiscovers = iota
	dhcpRequests
	dhcpReleases
	dhcpForged
	dhcpOffers
	dhcpRefusals
	dhcpClients
	dhcpServers
)

var dhcpColumns = windowGroup{"dhcp", []windowColumn{
	dhcpDiscovers: {"dhcp_discovers", "count", "DHCP discovers that the host sent", countPlain, nil},
	dhcpRequests:  {"dhcp_requests", "count", "DHCP requests that the host sent", countPlain, nil},
	dhcpReleases:  {"dhcp_releases", "count", "DHCP releases and declines that the host sent", countPlain, nil},
	dhcpForged:    {"dhcp_forged", "count", "DHCP messages of the host for another hardware address than the frame's", countPlain, nil},
	dhcpOffers:    {"dhcp_offers", "count", "DHCP offers and acknowledgements that the host sent", countPlain, nil},
	dhcpRefusals:  {"dhcp_refusals", "count", "DHCP refusals (NAK) that the host sent", countPlain, nil},
	dhcpClients:   {"dhcp_clients", "count", "distinct hardware addresses for which the host (or, of the segment, anybody) sent DHCP messages", countDistinct, nil},
	dhcpServers:   {"dhcp_servers", "count", "distinct addresses that answered as DHCP servers on the segment", countDistinct, nil},
}}

// dhcp takes a DHCP message (RFC 2131).
func (w *hosts) dhcp(p *capture.Packet) {
	typ, isReply, client, ok := dhcpMessage(p.Payload)
	if !ok || p.SrcMAC == (capture.MAC{}) {
		return
	}
	z := zone(p)
	did, segment := w.of(w.onLink(z, p.SrcMAC), groupDHCP), w.of(w.segment(z), groupDHCP)
	if isReply {
		switch typ {
		case 2, 5:
			did.add(dhcpOffers, 1)
		case 6:
			did.add(dhcpRefusals, 1)
		}
		segment.distinct(dhcpServers, w.key.addr(&p.Src))
		return
	}
	switch typ {
	case 1:
		did.add(dhcpDiscovers, 1)
	case 3:
		did.add(dhcpRequests, 1)
	case 4, 7:
		did.add(dhcpReleases, 1)
	}
	relayed := binary.BigEndian.Uint32(p.Payload[24:]) != 0 // giaddr: the frame is the relay's
	if client != p.SrcMAC && !relayed {
		did.add(dhcpForged, 1)
	}
	if !relayed {
		did.distinct(dhcpClients, w.key.mac(client))
	}
	segment.distinct(dhcpClients, w.key.mac(client))
}

// dhcpMessage reads type and client of a DHCP message; ok is false for what is none.
func dhcpMessage(b []byte) (typ uint8, isReply bool, client capture.MAC, ok bool) {
	if len(b) < 240 || b[0] != 1 && b[0] != 2 || b[1] != 1 || b[2] != 6 || binary.BigEndian.Uint32(b[236:]) != 0x63825363 {
		return 0, false, client, false
	}
	copy(client[:], b[28:])
	for o := b[240:]; len(o) >= 2 && o[0] != 255; {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if len(o) < 2+n {
			break
		}
		if o[0] == 53 && n == 1 {
			typ = o[2]
		}
		o = o[2+n:]
	}
	return typ, b[0] == 2, client, true
}
