package features

import "bytes"

// Where speaker.escape is in the escape sequences of Telnet (RFC 854), rlogin
// (RFC 1282) and terminals (ECMA-48).
const (
	inText      uint8 = iota
	afterCR           // LF or NUL behind it belongs to it
	afterIAC          // RFC 854: a command follows
	afterOption       // one more octet follows
	inOption          // RFC 855: subnegotiation
	inOptionIAC
	afterESC
	inCSI // until a letter
	inOSC // until BEL, or ESC and one more
	inOSCESC
	inLocal  // rlogin: the client's name for the user
	inRemote // the server's
	inTerm   // the terminal's name and speed
	inWindow // rlogin: the last of the 10 octets that tell a window's size
)

const windowStart = inWindow + 9

const (
	iac = 0xff
	esc = 0x1b
)

// Bits of speaker.kind in a server's line.
const (
	saidLast     uint8 = 1 << iota // the word last
	saidPassword                   // password or the like
	saidLogin                      // the word before is login or the like
	saidNo                         // the word before is no or not
	saidRootAt                     // root@
	saidPrompt                     // a login prompt
)

// Bits of speaker.kind in a client's line.
const (
	pastCommand uint8 = 1 << iota // the command's name was seen
	redirected                    // > was, its file follows
	switching                     // su was, a name may follow
)

// shell reads Telnet and rlogin.
func (c *contentState) shell(s *speaker, side int, b byte) {
	if plain := s.escape == inText && b >= ' ' && b != iac; !plain && !c.plain(s, side, b) {
		return
	}
	if side == originator {
		c.input(s, b)
	} else {
		c.output(s, b)
	}
}

// plain reports whether b is text rather than part of an escape sequence.
func (c *contentState) plain(s *speaker, side int, b byte) bool {
	switch e := s.escape; e {
	case afterCR:
		s.escape = inText
		if b == '\n' || b == 0 {
			return false
		}
	case afterIAC:
		switch {
		case c.talk == talkRlogin && b == iac:
			s.escape = windowStart
		case b >= 251 && b <= 254:
			c.flags |= confirmed
			s.escape = afterOption
		case b == 250:
			s.escape = inOption
		default:
			s.escape = inText
		}
		return false
	case afterOption:
		s.escape = inText
		return false
	case inOption:
		if b == iac {
			s.escape = inOptionIAC
		}
		return false
	case inOptionIAC:
		s.escape = inOption
		if b == 240 {
			s.escape = inText
		}
		return false
	case afterESC:
		switch b {
		case '[':
			s.escape = inCSI
		case ']':
			s.escape = inOSC
		case '(', ')', '#':
			s.escape = afterOption
		default:
			s.escape = inText
		}
		return false
	case inCSI, inOSC:
		switch {
		case b == '\n' || b == '\r':
			s.escape = inText
			return c.plain(s, side, b)
		case e == inCSI && b >= '@' && b <= '~', e == inOSC && b == 7:
			s.escape = inText
		case e == inOSC && b == esc:
			s.escape = inOSCESC
		}
		return false
	case inOSCESC:
		s.escape = inText
		return false
	case inLocal, inRemote, inTerm:
		switch {
		case b != 0:
			if e == inRemote {
				s.push(b)
			}
			return false
		case e == inRemote:
			c.shellName(s.take())
		case e == inTerm:
			c.flags |= confirmed
			c.phase = askName
			s.escape = inText
			return false
		}
		s.escape++
		return false
	case inText:
	default: // inWindow to windowStart
		if s.escape--; s.escape < inWindow {
			s.escape = inText
		}
		return false
	}
	switch b {
	case iac:
		s.escape = afterIAC
	case esc:
		s.escape = afterESC
	case '\r':
		if side == originator {
			s.escape = afterCR
		}
		return true
	case 0:
		if c.talk == talkRlogin && side == originator && s.octets == 1 {
			s.escape = inLocal
		}
	default:
		return true
	}
	return false
}

func (c *contentState) shellName(w []byte) {
	if c.name(w) {
		c.hot++
	}
}

// output takes what the server shows: words of letters and digits.
func (c *contentState) output(s *speaker, b byte) {
	if 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' {
		s.mark = b
		s.push(b)
		return
	}
	if s.n > 0 {
		w := s.take()
		c.shown(s, w)
		s.endWord()
		if b == '@' && string(w) == "root" {
			s.kind |= saidRootAt
		}
	}
	switch {
	case b == '\n':
		s.endLine()
		s.mark = 0
		c.flags &^= typed
		return
	case b == ':':
		c.asked(s)
	}
	if b > ' ' && b != 0x7f {
		s.mark = b
	}
}

// shown takes a word of the server's.
func (c *contentState) shown(s *speaker, w []byte) {
	before := s.kind & saidNo
	s.kind &^= saidLogin | saidNo
	pending := c.phase != noLogin
	switch string(w) {
	case "login", "username", "user", "name", "account":
		s.kind |= saidLogin
	case "password", "passwd", "passcode", "passphrase":
		s.kind |= saidPassword
	case "last":
		if s.words == 0 && c.phase >= askSecret {
			c.accept()
		}
		s.kind |= saidLast
	case "welcome":
		if c.phase >= askSecret {
			c.accept()
		}
	case "incorrect", "invalid", "failed", "failure", "denied", "bad", "wrong", "unsuccessful", "refused", "sorry":
		// Behind the name's prompt it may be the echo of a name.
		if pending && s.kind&saidLast == 0 && (c.phase >= askSecret || s.kind&saidPrompt == 0) {
			c.refuse()
		}
	case "no", "not":
		s.kind |= saidNo
	case "found", "such":
		if before != 0 && c.has(loggedIn) && !pending {
			c.compromised++
		}
	case "root":
		if c.has(loggedIn) && !pending {
			c.root++
			c.compromised++
		}
	}
}

// asked takes a colon of the server's, which makes a prompt of some words.
func (c *contentState) asked(s *speaker) {
	next := noLogin
	switch {
	case s.kind&saidPassword != 0:
		next = askSecret
	case s.kind&(saidLogin|saidLast) == saidLogin && !c.has(loggedIn):
		next = askName
		c.flags &^= hostName
	default:
		return
	}
	if c.phase == askVerdict {
		c.refuse() // asks again instead
	}
	c.phase = next
	c.flags |= confirmed
	s.words, s.kind = 0, saidPrompt // what follows is as good as a new line
}

// settle takes the line that the server has not ended, once the client answers it,
// for the prompt of a shell if it ends like one.
func (c *contentState) settle() {
	s := &c.sides[responder]
	if c.talk != talkTelnet && c.talk != talkRlogin || !c.has(confirmed) || c.has(typed) || s.octets == contentLimit {
		return
	}
	switch s.mark {
	case '$', '%', '>', '#':
	default:
		return
	}
	c.accept()
	c.flags &^= atRoot
	if s.mark == '#' || s.kind&saidRootAt != 0 {
		c.flags |= atRoot | rootShell
		if c.su == 1 {
			c.su = 2
		}
	}
}

// input takes what the client types.
func (c *contentState) input(s *speaker, b byte) {
	if !c.has(typed) {
		c.settle()
		c.flags |= typed
	}
	switch b {
	case '\b', 0x7f:
		if s.n > 0 {
			s.n--
		}
		return
	case 0x03, 0x15: // ^C, ^U
		s.n = 0
		s.endLine()
		return
	}
	blank := b <= ' '
	command := c.phase == noLogin && c.has(loggedIn)
	if !blank && !(command && isShellMeta(b)) {
		if c.phase < askSecret { // passwords are not kept
			s.push(b)
		}
		return
	}
	if s.n > 0 {
		w := s.take()
		switch {
		case c.phase == askName && s.words == 0:
			c.shellName(w)
		case command:
			c.command(s, w)
		}
		s.endWord()
	}
	if command {
		switch b {
		case '>':
			s.kind |= redirected
		case '&':
			s.kind &^= pastCommand | redirected
		case ';', '|', '(', '`', '{':
			s.kind &^= pastCommand
		}
	}
	if b == '\r' || b == '\n' {
		if s.kind&switching != 0 {
			c.su = max(c.su, 1)
		}
		if command && c.has(atRoot) && s.words > 0 {
			c.root++
		}
		if c.phase == askSecret {
			c.phase = askVerdict
		}
		c.sides[responder].mark = 0
		c.flags &^= typed
		s.endLine()
	}
}

func isShellMeta(b byte) bool {
	switch b {
	case ';', '|', '&', '<', '>', '(', ')', '`', '\'', '"', '{', '}':
		return true
	}
	return false
}

// command takes a word of a command line.
func (c *contentState) command(s *speaker, w []byte) {
	name := base(w)
	switch {
	case s.kind&redirected != 0:
		s.kind &^= redirected
		if string(w) != "/dev/null" {
			c.creations++
		}
	case s.kind&pastCommand == 0:
		c.run(s, w, name)
		return
	case s.kind&switching != 0 && w[0] != '-':
		s.kind &^= switching
		if string(w) == "root" {
			c.su = max(c.su, 1)
		}
	case len(name) < len(w) && isShell(name):
		c.shells++
	}
	if isAccessFile(name) {
		c.access++
	}
}

// run takes the name of a command.
func (c *contentState) run(s *speaker, w, name []byte) {
	switch string(name) {
	case "busybox", "sudo", "exec", "nohup", "env":
		return // the command's own name follows
	}
	s.kind |= pastCommand
	switch string(name) {
	case "su":
		s.kind |= switching
		return
	case "shell":
		c.shells++
		return
	case "touch", "mkdir", "mknod", "cp", "mv", "ln", "dd", "tee":
		c.creations++
		return
	case "wget", "curl", "tftp", "ftpget":
		c.creations++
		c.hot++
		return
	case "chmod", "cc", "gcc":
		c.hot++
		return
	}
	if isShell(name) {
		c.shells++
		return
	}
	for _, place := range []string{"./", "/tmp/", "/var/", "/dev/"} {
		if bytes.HasPrefix(w, []byte(place)) {
			c.hot++
			return
		}
	}
}
