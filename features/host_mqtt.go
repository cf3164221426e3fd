package features

import (
	"encoding/binary"

	"github.com/picket-ids/picket/capture"
)

// Columns of MQTT 3.1, 3.1.1 and 5.
const (
	mqttConnects = iota
	mqttRefused
	mqttPublishes
	mqttPublishBytes
	mqttLarge
	mqttSubscribes
	mqttWildcards
	mqttMalformed
	inMQTTConnects
	inMQTTPublishes
	inMQTTMalformed
	mqttClients
	mqttTopics
	mqttMostConnects
	mqttMostPublishes
	mqttMostBytes
)

var mqttColumns = windowGroup{"mqtt", []windowColumn{
	mqttConnects:      {"mqtt_connects", "count", "MQTT CONNECTs that the host sent, to ports 1883 and 1884", countPlain, nil},
	mqttRefused:       {"mqtt_refused", "count", "CONNACKs that refused the host", countPlain, nil},
	mqttPublishes:     {"mqtt_publishes", "count", "PUBLISHes that the host sent as a client", countPlain, nil},
	mqttPublishBytes:  {"mqtt_publish_bytes", "bytes", "length of these", countPlain, nil},
	mqttLarge:         {"mqtt_large", "count", "of these, those longer than 64,000 bytes", countPlain, nil},
	mqttSubscribes:    {"mqtt_subscribes", "count", "SUBSCRIBEs that the host sent", countPlain, nil},
	mqttWildcards:     {"mqtt_wildcards", "count", "of these, those for all topics, # or $SYS/#", countPlain, nil},
	mqttMalformed:     {"mqtt_malformed", "count", "control packets of the host that the standard forbids: reserved types and flags, a second CONNECT, another before CONNECT, topics with wildcards, impossible lengths", countPlain, nil},
	inMQTTConnects:    {"in_mqtt_connects", "count", "CONNECTs sent to the host", countPlain, nil},
	inMQTTPublishes:   {"in_mqtt_publishes", "count", "PUBLISHes sent to the host as a broker", countPlain, nil},
	inMQTTMalformed:   {"in_mqtt_malformed", "count", "forbidden control packets sent to the host as a broker", countPlain, nil},
	mqttClients:       {"mqtt_clients", "count", "distinct client identifiers that the host gave in CONNECTs of one segment", countDistinct, nil},
	mqttTopics:        {"mqtt_topics", "count", "distinct topics that the host published to", countDistinct, nil},
	mqttMostConnects:  {"mqtt_most_connects", "count", "the most CONNECTs of the host to one broker", countMost, nil},
	mqttMostPublishes: {"mqtt_most_publishes", "count", "the most PUBLISHes of the host in one session", countMost, nil},
	mqttMostBytes:     {"mqtt_most_bytes", "bytes", "the most bytes that the host published in one session", countMost, nil},
}}

var mqttPorts = []servicePort{{capture.ProtoTCP, 1883}, {capture.ProtoTCP, 1884}}

// mqttTalk is what is kept of one MQTT connection.
type mqttTalk struct {
	sides     [2]mqttSide
	connected bool // a CONNECT was seen
	whole     bool // the connection was seen from its beginning
	lost      bool // it is not MQTT, or no longer in step
}

// mqttSide reads the control packets of one direction.
type mqttSide struct {
	skip uint32  // bytes of the current one that are still to come
	n    uint8   // of head
	head [5]byte // a fixed header that was cut by the segment's end
}

type mqttApp struct{ talks pool[mqttTalk] }

func newMQTTApp() app { return &mqttApp{pool[mqttTalk]{limit: 1 << 13}} }

func (a *mqttApp) begin() int32 { return a.talks.get() }

func (a *mqttApp) end(x *exchange) { a.talks.put(x.ref) }

func (a *mqttApp) packet(x *exchange) {
	t := a.talks.at(x.ref)
	if t.lost {
		return
	}
	t.whole = t.whole || x.conn.tcp&sawSYN != 0
	if x.conn.dir[x.side].missing > 0 {
		t.lost = true // a gap: where the next control packet begins is not known
		return
	}
	s, b := &t.sides[x.side], x.payload
	cut := x.packet.PayloadLen - len(x.packet.Payload) // not captured
	for {
		n := min(s.skip, uint32(len(b)))
		b, s.skip = b[n:], s.skip-n
		if len(b) == 0 {
			break
		}
		length, size := mqttHeader(s, b)
		switch {
		case size < 0:
			a.malformed(x, t)
			t.lost = true
			return
		case size == 0: // the header goes on in the next segment
			s.n += uint8(copy(s.head[s.n:], b))
			if cut > 0 {
				t.lost = true
			}
			return
		}
		typ := b[0]
		if s.n > 0 {
			typ = s.head[0]
		}
		s.n = 0
		b = b[size:]
		a.control(x, t, typ, length, b[:min(uint32(len(b)), length)])
		if t.lost {
			return
		}
		s.skip = length
	}
	if uint32(cut) > s.skip {
		t.lost = t.lost || cut > 0
	}
	s.skip -= min(s.skip, uint32(cut))
}

// mqttHeader reads a fixed header (MQTT 5, section 2.1), of which a part may be in s. It returns the remaining length
// and how many bytes of b the header has: 0 when it is not whole, -1 when it cannot be one.
func mqttHeader(s *mqttSide, b []byte) (length uint32, size int) {
	at := func(i int) (byte, bool) {
		if i < int(s.n) {
			return s.head[i], true
		}
		if i -= int(s.n); i < len(b) {
			return b[i], true
		}
		return 0, false
	}
	for i := 1; i <= 4; i++ {
		c, ok := at(i)
		if !ok {
			return 0, 0
		}
		length |= uint32(c&0x7f) << (7 * (i - 1))
		if c < 0x80 {
			return length, i + 1 - int(s.n)
		}
	}
	return 0, -1
}

func (a *mqttApp) malformed(x *exchange, t *mqttTalk) {
	if !t.connected && !t.whole {
		return // seen from its middle: it may be out of step
	}
	if x.side == originator {
		x.did(groupMQTT).add(mqttMalformed, 1)
		x.got(groupMQTT).add(inMQTTMalformed, 1)
	} else {
		x.got(groupMQTT).add(mqttMalformed, 1)
		x.did(groupMQTT).add(inMQTTMalformed, 1)
	}
}

// Types of control packets.
const (
	mqttConnect   = 1
	mqttConnAck   = 2
	mqttPublish   = 3
	mqttPubRel    = 6
	mqttSubscribe = 8
	mqttUnsub     = 10
	mqttPingReq   = 12
	mqttPingResp  = 13
	mqttAuth      = 15
)

// control takes one control packet, of whose body the first bytes are there.
func (a *mqttApp) control(x *exchange, t *mqttTalk, head byte, length uint32, body []byte) {
	typ, flags := head>>4, head&15
	did, got := x.did(groupMQTT), x.got(groupMQTT)
	want := byte(0)
	if typ == mqttPubRel || typ == mqttSubscribe || typ == mqttUnsub {
		want = 2
	}
	if typ != mqttPublish && flags != want || typ == mqttPublish && flags&6 == 6 || typ == 0 ||
		(typ == mqttPingReq || typ == mqttPingResp) && length != 0 {
		a.malformed(x, t)
	}
	if x.side == responder {
		if typ == mqttConnAck && len(body) >= 2 && body[1] != 0 {
			did.add(mqttRefused, 1)
			switch body[1] {
			case 4, 5, 0x86, 0x87, 0x8c: // bad name or password, not authorised, bad method
				x.loginFailed(1)
			}
		}
		return
	}
	if typ != mqttConnect && typ != mqttAuth && t.whole && !t.connected {
		a.malformed(x, t)
		t.lost = true // it is not MQTT
		return
	}
	switch typ {
	case mqttConnect:
		if t.connected {
			a.malformed(x, t)
		}
		t.connected = true
		server := x.conn.addr(responder)
		did.add(mqttConnects, 1)
		did.most(mqttMostConnects, x.hosts.key.service(&server, x.conn.port(responder)), 1)
		got.add(inMQTTConnects, 1)
		if id, ok := mqttClientID(body); ok {
			did.distinct(mqttClients, x.hosts.key.bytes(id))
		} else if uint32(len(body)) == length { // else it goes on in the next segment
			a.malformed(x, t)
		}
	case mqttPublish:
		session := x.hosts.key.hash(uint64(x.conn.number), 4)
		did.add(mqttPublishes, 1)
		did.add(mqttPublishBytes, length)
		did.most(mqttMostPublishes, session, 1)
		did.most(mqttMostBytes, session, length)
		got.add(inMQTTPublishes, 1)
		if length > 64000 {
			did.add(mqttLarge, 1)
		}
		if topic, ok := mqttString(body); ok {
			did.distinct(mqttTopics, x.hosts.key.bytes(topic))
			for _, c := range topic {
				if c == '#' || c == '+' || c == 0 {
					a.malformed(x, t)
					break
				}
			}
		} else if uint32(len(body)) == length {
			a.malformed(x, t)
		}
	case mqttSubscribe:
		did.add(mqttSubscribes, 1)
		for i := range body {
			// A filter: its length, then # or $SYS/#.
			if i >= 2 && body[i] == '#' && (body[i-1] == 1 && body[i-2] == 0 || i >= 7 && string(body[i-5:i]) == "$SYS/" && body[i-6] == 6) {
				did.add(mqttWildcards, 1)
				break
			}
		}
	}
}

// mqttString reads a string with its length before it.
func mqttString(b []byte) ([]byte, bool) {
	if len(b) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return nil, false
	}
	return b[2 : 2+n], true
}

// mqttClientID reads the client identifier of a CONNECT's body.
func mqttClientID(b []byte) ([]byte, bool) {
	name, ok := mqttString(b)
	if !ok || string(name) != "MQTT" && string(name) != "MQIsdp" {
		return nil, false
	}
	b = b[2+len(name):]
	if len(b) < 4 || b[1]&1 != 0 || b[1]&0x18 == 0x18 {
		return nil, false
	}
	version := b[0]
	b = b[4:]
	if version == 5 { // properties, behind their length
		n, size := binary.Uvarint(b[:min(len(b), 4)])
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, false
		}
		b = b[size+int(n):]
	}
	return mqttString(b)
}
