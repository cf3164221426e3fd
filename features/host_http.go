package features

import (
	"bytes"

	"github.com/picket-ids/picket/capture"
)

// Columns of HTTP/1 in clear text.
const (
	httpRequests = iota
	httpErrors
	httpUnauthorised
	httpIncomplete
	inHTTPRequests
	inHTTPUnauthorised
	inHTTPIncomplete
	httpTargets
	httpMostTarget
	httpMostService
)

var httpColumns = windowGroup{"http", []windowColumn{
	httpRequests:       {"http_requests", "count", "HTTP requests that the host sent, of those that begin a segment", countPlain, nil},
	httpErrors:         {"http_errors", "count", "answers 400 to 499 to the host", countPlain, nil},
	httpUnauthorised:   {"http_unauthorised", "count", "answers 401, 403 and 407 to the host", countPlain, nil},
	httpIncomplete:     {"http_incomplete", "count", "requests of the host whose header had not ended 5 s after it began, counted with the next packet of the connection or its end", countPlain, nil},
	inHTTPRequests:     {"in_http_requests", "count", "HTTP requests sent to the host", countPlain, nil},
	inHTTPUnauthorised: {"in_http_unauthorised", "count", "answers 401, 403 and 407 of the host", countPlain, nil},
	inHTTPIncomplete:   {"in_http_incomplete", "count", "requests to the host whose header had not ended 5 s after it began", countPlain, nil},
	httpTargets:        {"http_targets", "count", "distinct request targets, with their server, that the host asked for", countDistinct, nil},
	httpMostTarget:     {"http_most_target", "count", "the most requests of the host for one target of one server", countMost, nil},
	httpMostService:    {"http_most_service", "count", "the most requests of the host to one address and port", countMost, nil},
}}

// httpPorts are those of the content features.
var httpPorts = func() (all []servicePort) {
	for port := range uint16(1 << 14) {
		if talkOn(port) == talkHTTP {
			all = append(all, servicePort{capture.ProtoTCP, port})
		}
	}
	return all
}()

// httpTalk is what is kept of one HTTP connection.
type httpTalk struct {
	began   int64 // ns, the header that goes on
	open    bool  // a header goes on
	counted bool  // it counts as incomplete
	ends    uint8 // how much of the header's end, CR LF CR LF, the last bytes are
}

type httpApp struct{ talks pool[httpTalk] }

func newHTTPApp() app { return &httpApp{pool[httpTalk]{limit: 1 << 13}} }

func (a *httpApp) begin() int32 { return a.talks.get() }

func (a *httpApp) end(x *exchange) {
	a.late(x, a.talks.at(x.ref))
	a.talks.put(x.ref)
}

// late counts a header that goes on for too long.
func (a *httpApp) late(x *exchange, t *httpTalk) {
	if t.open && !t.counted && x.hosts.now-t.began > 5*second {
		t.counted = true
		x.did(groupHTTP).add(httpIncomplete, 1)
		x.got(groupHTTP).add(inHTTPIncomplete, 1)
	}
}

func (a *httpApp) packet(x *exchange) {
	t, b := a.talks.at(x.ref), x.payload
	a.late(x, t)
	if x.side == responder {
		if len(b) < 12 || !bytes.HasPrefix(b, []byte("HTTP/1.")) || b[8] != ' ' {
			return
		}
		t.open = false // whatever the server answered, it waits no longer
		if b[9] == '4' {
			x.did(groupHTTP).add(httpErrors, 1)
			if code := string(b[9:12]); code == "401" || code == "403" || code == "407" {
				x.did(groupHTTP).add(httpUnauthorised, 1)
				x.got(groupHTTP).add(inHTTPUnauthorised, 1)
			}
		}
		return
	}
	if target, ok := httpRequest(b); ok && !t.open {
		server := x.conn.addr(responder)
		service := x.hosts.key.service(&server, x.conn.port(responder))
		to := x.hosts.key.hash(service, x.hosts.key.bytes(target))
		did := x.did(groupHTTP)
		did.add(httpRequests, 1)
		did.distinct(httpTargets, to)
		did.most(httpMostTarget, to, 1)
		did.most(httpMostService, service, 1)
		x.got(groupHTTP).add(inHTTPRequests, 1)
		*t = httpTalk{began: x.hosts.now, open: true}
	}
	if t.open {
		t.header(b)
	}
}

// header looks for the empty line that ends a header. A lone LF ends a line, too (RFC 9112, section 2.2).
func (t *httpTalk) header(b []byte) {
	for _, c := range b {
		switch {
		case c == '\n':
			if t.ends++; t.ends == 2 {
				t.open = false
				return
			}
		case c != '\r':
			t.ends = 0
		}
	}
}

// httpRequest returns the target of a request that b begins with, as far as it is there and without its query.
func httpRequest(b []byte) (target []byte, ok bool) {
	method, rest, ok := bytes.Cut(b[:min(len(b), 512)], []byte(" "))
	if !ok || len(method) < 3 || len(method) > 16 || len(rest) == 0 || rest[0] != '/' && rest[0] != '*' && !bytes.HasPrefix(rest, []byte("http")) {
		return nil, false
	}
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return nil, false
		}
	}
	if end := bytes.IndexAny(rest, " ?\r\n"); end >= 0 {
		rest = rest[:end]
	}
	return rest, true
}
