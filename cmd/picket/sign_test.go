package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/picket-ids/picket/runtime/onnx"
)

// good runs picket, which must have nothing to say against it.
func good(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := picket(t, nil, args...)
	if code != exitNothing || stderr != "" {
		t.Fatalf("picket %s: exit %d, %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// newKey makes a pair of keys without password and returns their files.
func newKey(t *testing.T) (secret, public string) {
	t.Helper()
	secret = filepath.Join(t.TempDir(), "site.key")
	good(t, "model", "keygen", "--no-password", "-o", secret)
	return secret, strings.TrimSuffix(secret, ".key") + ".pub"
}

// minisignTool returns a function that runs minisign in a folder.
func minisignTool(t *testing.T) func(stdin string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("minisign")
	if err != nil {
		if os.Getenv("CI_REQUIRE_MINISIGN") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v (apt-get install minisign)", err)
	}
	return func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(path, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("minisign %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

// TestMinisign checks keys and signatures against minisign, both ways.
func TestMinisign(t *testing.T) {
	minisign := minisignTool(t)
	model := write(t, "m.onnx", bundledModel(t, small))
	m, err := onnx.Parse(bundledModel(t, small), small)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	theirs, theirsPublic := filepath.Join(dir, "their.key"), filepath.Join(dir, "their.pub")
	minisign("", "-G", "-W", "-s", theirs, "-p", theirsPublic)
	ours, oursPublic := newKey(t)
	for _, k := range []struct{ name, secret, public string }{{"picket's key", ours, oursPublic}, {"minisign's key", theirs, theirsPublic}} {
		t.Run(k.name, func(t *testing.T) {
			told := good(t, "model", "sign", model, "--key", k.secret)
			out := minisign("", "-V", "-m", model, "-p", k.public)
			for _, want := range []string{"name:" + small, "version:" + m.Version, "sha256:" + m.SHA256, "file:m.onnx"} {
				if !strings.Contains(out, want) || !strings.Contains(told, want) {
					t.Errorf("no %s in\n%s%s", want, out, told)
				}
			}
			minisign("", "-V", "-H", "-m", model, "-p", k.public) // -H: prehashed alone will do

			for _, how := range [][]string{nil, {"-l"}} { // prehashed, and as minisign did before 0.10
				minisign("", append([]string{"-S", "-W", "-s", k.secret, "-m", model, "-t", "for the gateways in Kiel"}, how...)...)
				public, err := os.ReadFile(k.public)
				if err != nil {
					t.Fatal(err)
				}
				for _, key := range []string{k.public, strings.Split(string(public), "\n")[1]} { // file, text
					if out := good(t, "model", "verify", model, "--model-key", key); !strings.Contains(out, "for the gateways in Kiel") {
						t.Errorf("%v, %s: %s", how, key, out)
					}
				}
			}
		})
	}
}

// TestMinisignPassword checks that secret keys encrypted by one program work in the other, and that a person is asked
// for the password.
func TestMinisignPassword(t *testing.T) {
	if testing.Short() {
		t.Skip("deriving four keys takes 8 s of the processor and 1 GiB")
	}
	minisign := minisignTool(t)
	model := write(t, "m.onnx", bundledModel(t, small))
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "our.key"), filepath.Join(dir, "their.key")
	asked := func(typed string, args ...string) {
		t.Helper()
		person, tty := terminalPair(t)
		if _, err := person.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := picket(t, tty, args...); code != exitNothing || strings.Contains(stderr, "troub") {
			t.Fatalf("exit %d, %s", code, stderr)
		}
	}
	asked("troub4dor & 3\ntroub4dor & 3\n", "model", "keygen", "-o", ours)
	minisign("troub4dor & 3\n", "-S", "-s", ours, "-m", model)
	good(t, "model", "verify", model, "--model-key", filepath.Join(dir, "our.pub"))

	minisign("troub4dor & 3\ntroub4dor & 3\n", "-G", "-s", theirs, "-p", filepath.Join(dir, "their.pub"))
	asked("troub4dor & 3\n", "model", "sign", model, "--key", theirs)
	minisign("", "-V", "-m", model, "-p", filepath.Join(dir, "their.pub"))
}

// encryptedKey writes a secret key whose password nobody knows and which is quick to find wrong.
func encryptedKey(t *testing.T) string {
	t.Helper()
	b := make([]byte, 158)
	copy(b, "EdScB2")
	binary.LittleEndian.PutUint64(b[38:], 1<<15)
	binary.LittleEndian.PutUint64(b[46:], 1<<20)
	return write(t, "encrypted.key", []byte("untrusted comment: encrypted\n"+base64.StdEncoding.EncodeToString(b)+"\n"))
}

func TestPasswordSources(t *testing.T) {
	model, key := write(t, "m.onnx", bundledModel(t, small)), encryptedKey(t)
	args := []string{"model", "sign", model, "--key", key}
	if _, _, stderr := picket(t, nil, args...); !strings.Contains(stderr, "give --password-file or $"+envPassword) {
		t.Errorf("none: %s", stderr)
	}
	t.Setenv(envPassword, "from the environment")
	if _, _, stderr := picket(t, nil, args...); !strings.Contains(stderr, "encrypted.key: wrong password") {
		t.Errorf("environment: %s", stderr)
	}
	for text, want := range map[string]string{"": "", "in the file": "in the file", "dos\r\n": "dos", " a b \nsecond line": " a b "} {
		got, err := password{write(t, "word", []byte(text))}.read(t.Context(), stdio{}, true)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("file %q: %q, %v", text, got, err)
		}
	}
	if got, err := (password{}).read(t.Context(), stdio{}, false); got != "from the environment" || err != nil {
		t.Errorf("environment: %q, %v", got, err)
	}
}

// TestSignatures holds what is said of each way in which a model is not signed as it must be, and that such a model
// loads nowhere.
func TestSignatures(t *testing.T) {
	needLibrary(t)
	secret, public := newKey(t)
	_, otherPublic := newKey(t)
	model := bundledModel(t, small)
	// signed writes a model with its signature, both changed as a test wishes.
	signed := func(change func(model, signature string) (string, string)) string {
		path := write(t, "m.onnx", model)
		good(t, "model", "sign", path, "--key", secret)
		signature, err := os.ReadFile(path + signatureSuffix)
		if err != nil {
			t.Fatal(err)
		}
		m, s := change(string(model), string(signature))
		for name, text := range map[string]string{path: m, path + signatureSuffix: s} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	same := func(m, s string) (string, string) { return m, s }
	replaced := func(old, new string) func(m, s string) (string, string) {
		return func(m, s string) (string, string) {
			if !strings.Contains(s, old) {
				t.Fatalf("no %q in the signature", old)
			}
			return m, strings.Replace(s, old, new, 1)
		}
	}
	another := write(t, "another.onnx", bundledModel(t, "nslkdd-xgboost"))
	good(t, "model", "sign", another, "--key", secret)
	anotherSignature, err := os.ReadFile(another + signatureSuffix)
	if err != nil {
		t.Fatal(err)
	}
	impostor, err := os.ReadFile(otherPublic)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, key string
		want            string // empty: it loads
	}{
		{"good", signed(same), public, ""},
		{"good with Windows' line ends", signed(func(m, s string) (string, string) { return m, strings.ReplaceAll(s, "\n", "\r\n") }), public, ""},
		{"untrusted comment changed", signed(replaced("untrusted comment: signature", "untrusted comment: nature")), public, ""},
		{"not signed", write(t, "m.onnx", model), public, "it is not signed: there is no "},
		{"other key", signed(same), otherPublic, ", the model key"},
		{"model changed", signed(func(m, s string) (string, string) { return strings.Replace(m, "MatMul", "matmul", 1), s }), public, "or the model was changed since"},
		{"an octet more", signed(func(m, s string) (string, string) { return m + "\n", s }), public, "or the model was changed since"},
		{"trusted comment changed", signed(replaced("version:1", "version:2")), public, "its trusted comment was changed"},
		{"signature cut", signed(func(m, s string) (string, string) { return m, s[:len(s)/2] }), public, "cut short or not one"},
		{"last octets cut", signed(func(m, s string) (string, string) { return m, s[:len(s)-5] }), public, "cut short or not one"},
		{"signature empty", signed(func(m, s string) (string, string) { return m, "" }), public, "cut short or not one"},
		{"signature no text", signed(func(m, s string) (string, string) { return m, m }), public, "cut short or not one"},
		{"another file's", signed(func(m, s string) (string, string) { return m, string(anotherSignature) }), public, "of another file (name:nslkdd-xgboost, version:1, sha256:"},
		{"no key", signed(same), "RWnothing", "neither a minisign public key nor a file of one"},
		{"secret key for a key", signed(same), secret, "holds no minisign public key"},
		{"no key file", signed(same), "/nonexistent.pub", "no such file"},
		{"impostor", signed(same), write(t, "i.pub", bytes.ToUpper(impostor)), "model key "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, args := range [][]string{
				{"model", "verify", tt.path, "--model-key", tt.key},
				{"model", "check", tt.path, "--model-key", tt.key},
				{"scan", "-q", "--model", tt.path, "--model-key", tt.key, "../../testdata/brute.pcap.gz"},
			} {
				code, _, stderr := picket(t, nil, args...)
				if tt.want == "" && (code == exitError || stderr != "") || tt.want != "" && (code != exitError || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1) {
					t.Errorf("%s: exit %d, %q; want %q", args[1], code, stderr, tt.want)
				}
			}
		})
	}
	// A model in the binary needs no signature, whatever the key.
	good(t, "model", "check", small, "--model-key", public)
}

func TestKeygen(t *testing.T) {
	secret, public := newKey(t)
	for name, want := range map[string]os.FileMode{secret: 0o600, public: 0o644} {
		if st, err := os.Stat(name); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	before, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "half.pub"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	model := write(t, "m.onnx", bundledModel(t, small))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"keygen", "--no-password", "-o", secret}, "a key is never overwritten"},
		{[]string{"keygen", "--no-password", "-o", filepath.Join(dir, "half.key")}, "half.pub: it exists"},
		{[]string{"keygen", "--no-password", "-o", filepath.Join(dir, "no", "a.key")}, "no such file"},
		{[]string{"keygen", "-o", filepath.Join(dir, "b.key")}, "give --password-file or $" + envPassword},
		{[]string{"keygen", "-o", filepath.Join(dir, "b.key"), "--password-file", write(t, "empty", []byte("\nx"))}, "its first line is empty"},
		{[]string{"keygen", "a.key"}, "with -o"},
		{[]string{"sign", model}, "--key SECRETKEYFILE"},
		{[]string{"sign", model, "--key", public}, "not a minisign secret key"},
		{[]string{"sign", model, "--key", model}, "not a minisign secret key"},
		{[]string{"sign", write(t, "bad.onnx", []byte("x")), "--key", secret}, "bad.onnx"},
		{[]string{"sign", model, "--key", secret, "-o", model}, "also an input"},
		{[]string{"verify", model}, "--model-key KEY|FILE"},
	} {
		code, _, stderr := picket(t, nil, append([]string{"model"}, tt.args...)...)
		if code != exitError || !strings.Contains(stderr, tt.want) {
			t.Errorf("%v: exit %d, %q; want %q", tt.args, code, stderr, tt.want)
		}
	}
	if after, err := os.ReadFile(secret); err != nil || !bytes.Equal(before, after) {
		t.Error("a key was overwritten")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.key")); err != nil || len(left) > 0 {
		t.Errorf("left of what failed: %v", left)
	}
}

// terminalPair opens a terminal and the end that a person would sit at.
func terminalPair(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return person, tty
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// TestPasswordPrompt checks that a person is asked, and what an interrupt leaves.
func TestPasswordPrompt(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "a.key")
	for _, tt := range []struct{ typed, want string }{
		{"one\ntwo\n", "the two passwords differ"},
		{"\n", "an empty password protects nothing"},
	} {
		person, tty := terminalPair(t)
		if _, err := person.WriteString(tt.typed); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := picket(t, tty, "model", "keygen", "-o", key)
		if code != exitError || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, "Password of the secret key: ") {
			t.Errorf("%q: exit %d, %s", tt.typed, code, stderr)
		}
	}

	_, tty := terminalPair(t)
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		for echoes(t, tty) { // until it is asked for
			runtime.Gosched()
		}
		interrupt()
	}()
	var out, words bytes.Buffer
	if code := run(ctx, []string{"model", "keygen", "-o", key}, tty, &out, &words); code != exitError || !echoes(t, tty) {
		t.Errorf("interrupted: exit %d, %s, echo %v", code, words.String(), echoes(t, tty))
	}
}
