package features

import "github.com/picket-ids/picket/capture"

// The content features are KDD'99's 10-22. Lee and Stolfo took them from Bro's
// events by scripts that were not published; what they count is read here off the
// 148,517 rows of NSL-KDD, which have content for TCP only:
//
//   - FTP hot is the number of files sent or fetched, whoever does it: a login takes
//     some 52 octets and a file 46, and (src_bytes - 52) / 46 is within 1 of hot in
//     497 of the 498 closed and logged in warezmaster rows, 679 of 905 normal ones,
//     all 26 of other attacks; warezclient (8 of 305) has 28 in 1,228 octets. Of the
//     19 rows that create files 11 have as many hot, 4 more (files fetched), 4 fewer
//     (MKD). The 3 with an access file are ftp_write's, which uploads .rhosts.
//   - All 96 rows of guessed FTP passwords have num_failed_logins 1, logged_in 0 and
//     is_guest_login 1: a guest's name suffices. All 12 host logins succeeded. FTP
//     never has num_compromised, num_root, num_shells or root_shell (2,446 rows).
//   - HTTP is logged in once it has asked: 43,494 of the 43,503 rows with src_bytes,
//     76 of the 4,688 without. No HTTP row has a failed login or a host or guest
//     login: 401 and credentials are our own reading. The 5 phf rows with octets (51:
//     GET /cgi-bin/phf?Qalias=x%0a/bin/cat%20/etc/passwd) have hot 2 and
//     num_access_files 1; 1,300 of 1,315 back rows are hot, by their slashes.
//   - SMTP is logged in once greeted: 7,840 of the 7,851 rows with dst_bytes, among
//     them all 94 without src_bytes.
//   - POP3 was logged in once greeted (1,075 of 1,076 rows with dst_bytes), the 750
//     of guessed passwords too, and without a failed login; IMAP hardly ever (5 of
//     142): the scripts read neither. Here both obey the server's answer.
//   - Telnet: the name of a host or guest login is hot (6 of 6 rows; not so in FTP).
//     su_attempted is 2 when a root shell follows (61 of 61 rows; 10 of the 23 with 1).
//     A password refused after su is a failed login (5 of the 13 without a root shell).
//   - num_compromised is at least num_root in 67 of the 73 Telnet rows with num_root
//     and no root shell, but in 21 of the 110 with one: both count the word root,
//     num_root the commands of a root shell too. 225 of 394 rows with num_compromised
//     have no root: "file not found", say the papers.
//   - num_outbound_cmds is 0 in all rows.
//
// 0 here is what one connection cannot show, or the rows do not explain: that FTP data
// connections inherit a login (3,988 of 7,711 rows) and list files of root (470); in
// HTTP num_compromised (1,235 rows, 1,198 of them back, by the end of the page) and
// root_shell (70); what mail says (num_access_files 83, num_file_creations 79,
// num_root 26, hot 25); ident, IRC, X11.

func content(name, unit, doc string, value func(*contentState) float64) Feature {
	return kdd("content", name, unit, doc, &contentKind, value)
}

// contentGroup is KDD'99's features 10-22. All are of the first 4 KiB of each
// direction of clear-text FTP, Telnet, rlogin, SMTP, POP3, IMAP and HTTP/1.
var contentGroup = []Feature{
	content("hot", "count", "FTP: files sent or fetched, SITE EXEC, hidden directories entered; Telnet, rlogin: login names of guests and administrators, programs fetched, compiled, made executable or run from ./ /tmp /var /dev; HTTP: passwd or shadow asked for, /bin/ programs in a request, 16 slashes in a row",
		func(c *contentState) float64 { return float64(c.hot) }),
	content("num_failed_logins", "count", "logins refused: FTP 430 530, SMTP 535, POP3 -ERR, IMAP NO, HTTP 401 407 to Basic or Digest credentials; Telnet, rlogin: a refusal after a login prompt, or the prompt again instead of a verdict",
		func(c *contentState) float64 { return float64(c.failed) }),
	content("logged_in", "0/1", "FTP 230, POP3 +OK, IMAP OK to a login, IMAP PREAUTH; Telnet, rlogin: a shell prompt, or Last login or Welcome after a password; SMTP: greeted with 220 and no 535 since, or mail taken; HTTP: a request, unless all answers are 401 or 407",
		func(c *contentState) float64 { return oneIf(c.loggedIn()) }),
	content("num_compromised", "count", "Telnet, rlogin: the words root, not found and no such in what the server shows after the login",
		func(c *contentState) float64 { return float64(c.compromised) }),
	content("root_shell", "0/1", "Telnet, rlogin: a shell prompt that ends in # or names root@",
		func(c *contentState) float64 { return oneIf(c.has(rootShell)) }),
	content("su_attempted", "0/1/2", "Telnet, rlogin: 1 su to root was entered, 2 a root prompt followed",
		func(c *contentState) float64 { return float64(c.su) }),
	content("num_root", "count", "Telnet, rlogin: the word root in what the server shows after the login, and lines entered at a root prompt",
		func(c *contentState) float64 { return float64(c.root) }),
	content("num_file_creations", "count", "FTP STOR STOU APPE MKD; Telnet, rlogin: output redirected to a file, and touch mkdir mknod cp mv ln dd tee wget curl tftp ftpget",
		func(c *contentState) float64 { return float64(c.creations) }),
	content("num_shells", "count", "Telnet, rlogin: shells started (sh ash bash dash csh ksh tcsh zsh shell), by name or as a path in an argument; HTTP: such a path in a request",
		func(c *contentState) float64 { return float64(c.shells) }),
	content("num_access_files", "count", "passwd, shadow, .rhosts, .shosts, hosts.equiv, .forward, .netrc, authorized_keys, sudoers, .htpasswd as files of an FTP command, as arguments in Telnet and rlogin, and in HTTP requests (passwd and shadow in /etc)",
		func(c *contentState) float64 { return float64(c.access) }),
	content("num_outbound_cmds", "count", "always 0, as in all rows of NSL-KDD",
		func(*contentState) float64 { return 0 }),
	content("is_host_login", "0/1", "login as an administrator (root toor adm admin administrator sysadm superuser supervisor): FTP, Telnet, rlogin, POP3, IMAP, HTTP Basic",
		func(c *contentState) float64 { return oneIf(c.has(hostLogin)) }),
	content("is_guest_login", "0/1", "a guest's name (anonymous ftp guest) was given, let in or not: FTP, Telnet, rlogin, POP3, IMAP, HTTP Basic",
		func(c *contentState) float64 { return oneIf(c.has(guestLogin)) }),
}

// contents is the state of the group.
type contents struct {
	columnsOf[contentState]
	noPast
	conns   perConn[contentState]
	current contentState // of the row being made, settled
}

var contentKind = groupKind{func(opener) group { return new(contents) }}

func (g *contents) begin(i int32) { g.conns.begin(i) }

func (g *contents) packet(i int32, c *conn, p *capture.Packet, side int, _ int64, fresh int) {
	if p.Proto == capture.ProtoTCP && !p.Fragment {
		g.conns.at(i).add(newPayload(p, fresh), side, c.port(responder))
	}
}

// swap begins anew: the dialogue was read as if the client served.
func (g *contents) swap(i int32) { g.conns.begin(i) }

func (g *contents) row(i int32, _ *conn, _ *sample, values []float32) {
	g.current = *g.conns.at(i)
	g.current.settle()
	g.set(values, &g.current)
}

// contentLimit is how many octets of each direction are read.
const contentLimit = 4096

// contentState reads a clear-text dialogue octet by octet, so that it does not
// matter how it was cut into segments. It keeps a word of each side at a time,
// and no pointers.
type contentState struct {
	talk  talk
	phase phase
	su    uint8 // value of su_attempted
	flags contentFlags
	// Each octet counts at most twice, so none of these overflows.
	hot, failed, compromised, root, creations, shells, access uint16
	sides                                                     [2]speaker
}

// speaker is what one side is saying.
type speaker struct {
	octets uint16 // read, at most contentLimit
	escape uint8  // inside an escape sequence: see plain and unescape
	kind   uint8  // of the line so far, bits that each protocol gives a meaning
	mark   uint8  // shell: its last printed character; HTTP: slashes in a row
	words  uint8  // of the line before this one, at most 255
	n      uint8  // octets in word
	word   [wordMax]byte
}

// wordMax bounds a word. Of a longer one its end is kept, at least half of this:
// more than the longest name looked for.
const wordMax = 32

// talk is the protocol of a dialogue.
type talk uint8

const (
	talkUnknown talk = iota // nothing was said yet
	talkFTP
	talkTelnet
	talkRlogin
	talkSMTP
	talkPOP3
	talkIMAP
	talkHTTP
	talkOpaque // another one, or encrypted from here on
)

// talkOn returns the protocol expected of a responder's port. Nothing counts
// before the dialogue has confirmed it.
func talkOn(port uint16) talk {
	switch port {
	case 21, 2121:
		return talkFTP
	case 23, 2323:
		return talkTelnet
	case 513:
		return talkRlogin
	case 25, 587, 2525:
		return talkSMTP
	case 110:
		return talkPOP3
	case 143:
		return talkIMAP
	case 80, 81, 3128, 5000, 7547, 8000, 8001, 8008, 8080, 8081, 8088, 8090, 8180, 8888, 9000, 9080, 9090:
		return talkHTTP
	}
	return talkOpaque
}

// phase is how far a login has come.
type phase uint8

const (
	noLogin    phase = iota // none goes on, or it has its verdict
	askName                 // a name is awaited, or the verdict on it
	askSecret               // a password is awaited, or the verdict
	askVerdict              // shell: the password was given
)

type contentFlags uint16

const (
	confirmed   contentFlags = 1 << iota // the dialogue is that of the port
	loggedIn                             // HTTP: something was answered that is no refusal
	guestLogin                           // value of is_guest_login
	hostLogin                            // value of is_host_login
	rootShell                            // value of root_shell
	hostName                             // the name given last is an administrator's
	wantTLS                              // asked to encrypt
	refused                              // HTTP: an answer was 401 or 407
	credentials                          // HTTP: the request carries some
	atRoot                               // the last prompt was a root shell's
	typed                                // something was typed since the prompt
)

func (c *contentState) has(f contentFlags) bool { return c.flags&f != 0 }

func (c *contentState) loggedIn() bool {
	if c.talk == talkHTTP {
		return c.has(confirmed) && (c.has(loggedIn) || !c.has(refused))
	}
	return c.has(loggedIn)
}

// add reads what side says next in a connection to port of the responder.
func (c *contentState) add(payload []byte, side int, port uint16) {
	if c.talk == talkUnknown && len(payload) > 0 {
		c.talk = talkOn(port)
	}
	s := &c.sides[side]
	for _, b := range payload[:min(len(payload), contentLimit-int(s.octets))] {
		if c.talk == talkOpaque {
			return
		}
		s.octets++
		switch c.talk {
		case talkTelnet, talkRlogin:
			c.shell(s, side, b)
		case talkHTTP:
			c.http(s, side, b)
		default:
			c.text(s, side, b)
		}
	}
}

// newPayload returns what was captured of p's payload, of which the last n octets
// are new to its connection.
func newPayload(p *capture.Packet, n int) []byte {
	return p.Payload[min(max(0, p.PayloadLen-n), len(p.Payload)):]
}

// push adds an octet to the word, in lower case.
func (s *speaker) push(b byte) {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	s.pushExact(b)
}

func (s *speaker) pushExact(b byte) {
	if s.n == wordMax {
		copy(s.word[:], s.word[wordMax/2:])
		s.n = wordMax / 2
	}
	s.word[s.n] = b
	s.n++
}

// take returns the word and begins the next one. It is valid until then.
func (s *speaker) take() []byte {
	w := s.word[:s.n]
	s.n = 0
	return w
}

// endWord counts the word taken.
func (s *speaker) endWord() {
	if s.words < 255 {
		s.words++
	}
}

func (s *speaker) endLine() { s.words, s.kind = 0, 0 }

// accept and refuse are the verdicts on a login.
func (c *contentState) accept() {
	c.phase = noLogin
	c.flags |= loggedIn
	if c.has(hostName) {
		c.flags |= hostLogin
	}
}

func (c *contentState) refuse() {
	c.phase = noLogin
	c.failed++
}

// name takes the name given in a login and reports whether it is one that
// administrators or guests use.
func (c *contentState) name(w []byte) bool {
	c.flags &^= hostName
	for len(w) > 0 && w[0] == '"' { // IMAP
		w = w[1:]
	}
	for i, b := range w {
		if b == '@' || b == '"' {
			w = w[:i]
			break
		}
	}
	switch string(w) {
	case "anonymous", "ftp", "guest":
		c.flags |= guestLogin
		return true
	case "root", "toor", "adm", "admin", "administrator", "sysadm", "superuser", "supervisor":
		c.flags |= hostName
		return true
	}
	return false
}

// base returns a path's last component.
func base(w []byte) []byte {
	for i := len(w) - 1; i >= 0; i-- {
		if w[i] == '/' {
			return w[i+1:]
		}
	}
	return w
}

// isAccessFile reports whether a file of that name says who may come in.
func isAccessFile(base []byte) bool {
	switch string(base) {
	case "passwd", "shadow", ".rhosts", ".shosts", "hosts.equiv", ".forward", ".netrc", "authorized_keys", "sudoers", ".htpasswd":
		return true
	}
	return false
}

func isShell(base []byte) bool {
	switch string(base) {
	case "sh", "ash", "bash", "dash", "csh", "ksh", "tcsh", "zsh":
		return true
	}
	return false
}
