package features

import "bytes"

// Meanings of speaker.kind in a client's line of FTP, POP3 and IMAP.
const (
	lineName   uint8 = iota + 1 // a login name follows
	lineFile                    // names of files
	lineFolder                  // the name of a directory
	lineSite                    // FTP SITE
)

// Meanings of speaker.kind in a server's line of IMAP.
const (
	lineUntagged uint8 = iota + 1
	lineTagged
)

// text reads FTP, SMTP, POP3 and IMAP: lines of words between blanks.
func (c *contentState) text(s *speaker, side int, b byte) {
	switch b {
	default:
		s.push(b)
		return
	case '\r', '\n', ' ', '\t':
	}
	if s.n > 0 {
		w := s.take()
		switch {
		case c.talk == talkIMAP:
			c.imap(s, side, w)
		case c.talk == talkPOP3:
			c.pop3(s, side, w)
		case side == responder && s.words > 0:
		case side == responder:
			if code := replyCode(w); code > 0 {
				c.reply(code)
			}
		case c.talk == talkFTP:
			c.ftp(s, w)
		default:
			c.smtp(s, w)
		}
		s.endWord()
	} else if s.words == 0 {
		s.endWord() // indented: no reply and no command
	}
	if b == '\n' {
		s.endLine()
	}
}

// replyCode returns the code that opens a line of FTP (RFC 959, section 4.2) or
// SMTP (RFC 5321, section 4.2), 0 when none does.
func replyCode(w []byte) (code int) {
	if len(w) < 3 || len(w) > 3 && w[3] != '-' || w[0] < '1' || w[0] > '5' {
		return 0
	}
	for _, b := range w[:3] {
		if b < '0' || b > '9' {
			return 0
		}
		code = code*10 + int(b-'0')
	}
	return code
}

// reply takes an FTP or SMTP server's answer.
func (c *contentState) reply(code int) {
	ftp := c.talk == talkFTP
	switch code {
	case 120:
		c.flags |= confirmed
	case 220:
		switch {
		case ftp:
		case c.has(wantTLS):
			c.talk = talkOpaque
		case !c.has(confirmed):
			c.flags |= loggedIn
		}
		c.flags |= confirmed
	case 230, 232:
		if ftp && c.phase != noLogin {
			c.accept()
		}
	case 234: // RFC 4217
		if ftp && c.has(wantTLS) {
			c.talk = talkOpaque
		}
	case 430, 530:
		if ftp && c.phase != noLogin {
			c.refuse()
		}
	case 235: // RFC 4954
		if !ftp && c.phase != noLogin {
			c.accept()
		}
	case 535:
		if !ftp && c.phase != noLogin {
			c.refuse()
			c.flags &^= loggedIn
		}
	case 354:
		if !ftp && c.has(confirmed) {
			c.flags |= loggedIn
		}
	case 454, 500, 501, 502, 503, 504:
		c.flags &^= wantTLS
	}
}

func (c *contentState) ftp(s *speaker, w []byte) {
	if s.words == 0 {
		switch string(w) {
		case "user":
			c.flags |= confirmed
			c.phase, s.kind = askName, lineName
		case "pass":
			c.flags |= confirmed
			c.phase = askSecret
		case "auth":
			c.flags |= wantTLS
		}
		if !c.has(confirmed) {
			return
		}
		switch string(w) {
		case "stor", "stou", "appe":
			c.hot++
			c.creations++
			s.kind = lineFile
		case "retr":
			c.hot++
			s.kind = lineFile
		case "mkd", "xmkd":
			c.creations++
		case "dele", "rnfr", "rnto":
			s.kind = lineFile
		case "cwd", "xcwd":
			s.kind = lineFolder
		case "site":
			s.kind = lineSite
		}
		return
	}
	switch s.kind {
	case lineName:
		c.name(w)
		s.kind = 0
	case lineFile:
		if isAccessFile(base(w)) {
			c.access++
		}
	case lineFolder:
		if hidden(w) {
			c.hot++
		}
		s.kind = 0
	case lineSite:
		if string(w) == "exec" {
			c.hot++
		}
		s.kind = 0
	}
}

// hidden reports whether a directory is one that listings leave out, as "...".
func hidden(path []byte) bool {
	name := base(path)
	return len(name) > 1 && name[0] == '.' && string(name) != ".."
}

func (c *contentState) smtp(s *speaker, w []byte) {
	if s.words > 0 {
		return
	}
	switch string(w) {
	case "auth":
		c.phase = askSecret
	case "starttls":
		c.flags |= wantTLS
	}
}

// pop3 takes a word of RFC 1939, RFC 2595 (STLS) or RFC 5034 (AUTH).
func (c *contentState) pop3(s *speaker, side int, w []byte) {
	switch {
	case side == originator && s.words == 0:
		switch string(w) {
		case "user":
			c.phase, s.kind = askName, lineName
		case "apop":
			c.phase, s.kind = askSecret, lineName
		case "pass", "auth":
			c.phase = askSecret
		case "stls":
			c.flags |= wantTLS
		}
	case side == originator && s.kind == lineName:
		c.name(w)
		s.kind = 0
	case side == responder && s.words == 0:
		switch string(w) {
		case "+ok":
			if c.has(wantTLS) {
				c.talk = talkOpaque
			} else if c.phase == askSecret {
				c.accept()
			}
		case "-err":
			c.flags &^= wantTLS
			if c.phase != noLogin {
				c.refuse()
			}
		}
	}
}

// imap takes a word of RFC 3501.
func (c *contentState) imap(s *speaker, side int, w []byte) {
	if side == originator {
		switch {
		case s.words == 1:
			switch string(w) {
			case "login":
				c.phase, s.kind = askSecret, lineName
			case "authenticate":
				c.phase = askSecret
				c.flags &^= hostName
			case "starttls":
				c.flags |= wantTLS
			}
		case s.kind == lineName:
			c.name(w)
			s.kind = 0
		}
		return
	}
	if s.words == 0 {
		s.kind = lineTagged
		if string(w) == "*" || string(w) == "+" {
			s.kind = lineUntagged
		}
		return
	}
	if s.words > 1 {
		return
	}
	if s.kind == lineUntagged {
		if string(w) == "preauth" {
			c.accept()
		}
		return
	}
	switch string(w) {
	case "ok":
		if c.has(wantTLS) {
			c.talk = talkOpaque
		} else if c.phase != noLogin {
			c.accept()
		}
	case "no":
		if c.phase != noLogin {
			c.refuse()
		}
		c.flags &^= wantTLS
	case "bad":
		c.phase = noLogin
		c.flags &^= wantTLS
	}
}

// Meanings of speaker.kind in HTTP.
const (
	lineVersion uint8 = iota + 1 // client: its last word is the version
	lineAuth                     // client: a header with credentials, their scheme follows
	lineBasic                    // client: Basic credentials follow
	lineStatus                   // server: a status code follows
)

// http reads HTTP/1 (RFC 9112). The words of the client are those of paths;
// bodies are read as if they were headers.
func (c *contentState) http(s *speaker, side int, b byte) {
	if side == responder {
		if b > ' ' {
			s.push(b)
			return
		}
		if s.n > 0 {
			w := s.take()
			switch {
			case s.kind == lineStatus:
				s.kind = 0
				c.status(replyCode(w))
			case isVersion(w[max(0, len(w)-8):]): // behind a body without a newline too
				s.kind = lineStatus
			}
		}
		return
	}
	decoded := false
	if s.kind != lineBasic && (b == '%' || s.escape != 0) {
		var ok bool
		if b, decoded, ok = s.unescape(b); !ok {
			return
		}
	}
	if b != '/' {
		s.mark = 0
	} else if s.mark < 16 {
		if s.mark++; s.mark == 16 {
			c.hot++
		}
	}
	switch {
	case s.kind == lineBasic && b > ' ':
		if s.n < wordMax { // its beginning counts
			s.pushExact(b)
		}
		return
	case isPathChar(b):
		s.push(b)
		return
	}
	if s.n > 0 {
		c.httpWord(s, s.take(), b)
		s.endWord()
	}
	if b == '\n' && !decoded {
		if s.kind == lineVersion && s.words > 2 {
			c.flags |= confirmed
			c.flags &^= credentials | hostName
		}
		s.endLine()
	}
}

func isPathChar(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b >= 0x80:
		return true
	}
	return b == '/' || b == '.' || b == '-' || b == '_' || b == '~'
}

// unescape decodes %xx and reports whether an octet came of it.
func (s *speaker) unescape(b byte) (out byte, decoded, ok bool) {
	const first, second = 1, 0x10 // and the first digit below it
	digit := -1
	switch {
	case '0' <= b && b <= '9':
		digit = int(b - '0')
	case 'a' <= b && b <= 'f':
		digit = int(b-'a') + 10
	case 'A' <= b && b <= 'F':
		digit = int(b-'A') + 10
	}
	switch e := s.escape; {
	case b == '%':
		s.escape = first
		return 0, false, false
	case e == first && digit >= 0:
		s.escape = second | uint8(digit)
		return 0, false, false
	case e >= second && digit >= 0:
		s.escape = 0
		return e<<4 | uint8(digit), true, true
	}
	s.escape = 0
	return b, false, true
}

func isVersion(w []byte) bool { return string(w) == "http/1.1" || string(w) == "http/1.0" }

// httpWord takes a word of a client's and the octet behind it.
func (c *contentState) httpWord(s *speaker, w []byte, end byte) {
	switch {
	case s.kind == lineBasic:
		s.kind = 0
		c.basic(w)
		return
	case s.kind == lineAuth:
		s.kind = 0
		switch string(w) {
		case "basic":
			s.kind = lineBasic
			c.flags |= credentials
		case "digest":
			c.flags |= credentials
		}
		return
	case s.words == 0 && end == ':' && (string(w) == "authorization" || string(w) == "proxy-authorization"):
		s.kind = lineAuth
		return
	}
	s.kind = 0
	if isVersion(w) {
		s.kind = lineVersion
	}
	name := base(w)
	switch {
	case isAccessFile(name) && (name[0] == '.' || bytes.HasSuffix(w, []byte("/etc/passwd")) || bytes.HasSuffix(w, []byte("/etc/shadow"))):
		c.access++
		c.hot++
	case s.words > 1 && (bytes.HasPrefix(w, []byte("/bin/")) || bytes.HasPrefix(w, []byte("/usr/bin/"))):
		c.hot++
		if isShell(name) {
			c.shells++
		}
	}
}

// basic takes base64 of a name and password (RFC 7617).
func (c *contentState) basic(w []byte) {
	var name [wordMax * 3 / 4]byte
	n, acc, bits := 0, uint32(0), 0
	for _, b := range w {
		var v byte
		switch {
		case 'A' <= b && b <= 'Z':
			v = b - 'A'
		case 'a' <= b && b <= 'z':
			v = b - 'a' + 26
		case '0' <= b && b <= '9':
			v = b - '0' + 52
		case b == '+':
			v = 62
		case b == '/':
			v = 63
		default:
			return
		}
		acc, bits = acc<<6|uint32(v), bits+6
		if bits < 8 {
			continue
		}
		bits -= 8
		b = byte(acc >> bits)
		if b == ':' {
			c.name(name[:n])
			return
		}
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		name[n] = b
		n++
	}
}

// status takes the code of an HTTP answer.
func (c *contentState) status(code int) {
	if !c.has(confirmed) || code < 200 {
		return
	}
	with := c.has(credentials)
	c.flags &^= credentials
	switch {
	case code == 401 || code == 407:
		c.flags |= refused
		if with {
			c.refuse()
		}
	case code < 400 && with:
		c.accept()
	default:
		c.flags |= loggedIn
	}
}
