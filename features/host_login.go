package features

import "github.com/picket-ids/picket/capture"

// Columns of logins, of any protocol.
const (
	loginFailures = iota
	inLoginFailures
	loginMostService
	loginServices
	inLoginPeers
)

var loginColumns = windowGroup{"login", []windowColumn{
	loginFailures:    {"login_failures", "count", "logins of the host that were refused: FTP, Telnet, rlogin, SMTP, POP3, IMAP as num_failed_logins tells them, MQTT CONNACK", countPlain, nil},
	inLoginFailures:  {"in_login_failures", "count", "logins that the host refused", countPlain, nil},
	loginMostService: {"login_most_service", "count", "the most refused logins towards one address and port", countMost, nil},
	loginServices:    {"login_services", "count", "distinct pairs of address and port that refused a login of the host", countDistinct, nil},
	inLoginPeers:     {"in_login_peers", "count", "distinct addresses whose logins the host refused", countDistinct, nil},
}}

// loginFailed counts n logins that were refused in an exchange.
func (x *exchange) loginFailed(n uint32) {
	client, server := x.conn.addr(originator), x.conn.addr(responder)
	to := x.hosts.key.service(&server, x.conn.port(responder))
	did, got := x.did(groupLogin), x.got(groupLogin)
	did.add(loginFailures, n)
	did.most(loginMostService, to, n)
	did.distinct(loginServices, to)
	got.add(inLoginFailures, n)
	got.distinct(inLoginPeers, x.hosts.key.addr(&client))
}

// textPorts are those of the clear-text protocols that the content features read, without HTTP, which has an app of
// its own.
var textPorts = func() (all []servicePort) {
	for port := range uint16(1 << 12) {
		if t := talkOn(port); t != talkOpaque && t != talkHTTP {
			all = append(all, servicePort{capture.ProtoTCP, port})
		}
	}
	return all
}()

// textApp reads clear-text dialogues for refused logins.
type textApp struct{ talks pool[contentState] }

func newTextApp() app { return &textApp{pool[contentState]{limit: 1 << 11}} }

func (a *textApp) begin() int32 { return a.talks.get() }

func (a *textApp) end(x *exchange) { a.talks.put(x.ref) }

func (a *textApp) packet(x *exchange) {
	t := a.talks.at(x.ref)
	before := t.failed
	t.add(x.payload, x.side, x.conn.port(responder))
	if n := t.failed - before; n > 0 {
		x.loginFailed(uint32(n))
	}
}
