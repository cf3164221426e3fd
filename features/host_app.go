package features

import "github.com/picket-ids/picket/capture"

// An app counts what one application protocol shows of its connections. It has a file of its own, with its columns.
type app interface {
	// begin makes room for a connection and returns the reference to it that is handed to the others; 0 when there is
	// none, and the connection is not followed.
	begin() int32
	// packet takes a packet.
	packet(x *exchange)
	// end forgets a connection, after it has counted what shows only then.
	end(x *exchange)
}

// An exchange is a packet of a connection whose application is followed.
type exchange struct {
	hosts          *hosts
	ref            int32 // that begin returned
	conn           *conn
	packet         *capture.Packet // nil at the end
	side           int
	payload        []byte     // what was captured of it and is new
	client, server *hostState // nil: not one host, or it is no longer known
}

// did returns what counts for the client in a group, got for the server.
func (x *exchange) did(group int) deed { return x.hosts.of(x.client, group) }
func (x *exchange) got(group int) deed { return x.hosts.of(x.server, group) }

// servicePort names the ports of an app.
type servicePort struct {
	proto uint8
	port  uint16
}

// appKinds are the applications that are followed, and on which ports of the responder.
var appKinds = []struct {
	ports []servicePort
	open  func() app
}{
	{dnsPorts, newDNSApp},
	{textPorts, newTextApp},
	{mqttPorts, newMQTTApp},
	{httpPorts, newHTTPApp},
}

// appOf holds the index+1 of each port's app, of TCP and of UDP; 0 for none.
var appOf = func() (all [2][1 << 16]uint8) {
	for i, k := range appKinds {
		for _, p := range k.ports {
			all[transport(p.proto)][p.port] = uint8(i + 1)
		}
	}
	return all
}()

// transport is the index of a protocol in appOf.
func transport(proto uint8) int {
	if proto == capture.ProtoUDP {
		return 1
	}
	return 0
}

// follow begins to follow a connection's application.
func (w *hosts) follow(x *hostConn, c *conn) {
	if c.key.proto != capture.ProtoTCP && c.key.proto != capture.ProtoUDP {
		return
	}
	if a := appOf[transport(c.key.proto)][c.port(responder)]; a != 0 {
		if x.ref = w.apps[a-1].begin(); x.ref != 0 {
			x.app = a
		}
	}
}

// talk shows the application a packet.
func (w *hosts) talk(x *hostConn, c *conn, p *capture.Packet, side, fresh int, client, server *hostState) {
	if x.app == 0 {
		return
	}
	w.exchange = exchange{w, x.ref, c, p, side, newPayload(p, fresh), client, server}
	w.apps[x.app-1].packet(&w.exchange)
}

// leave ends what follow began.
func (w *hosts) leave(x *hostConn, c *conn) {
	if x.app == 0 {
		return
	}
	client, server := w.known(x, c)
	w.exchange = exchange{hosts: w, ref: x.ref, conn: c, client: client, server: server}
	w.apps[x.app-1].end(&w.exchange)
	x.app = 0
}
