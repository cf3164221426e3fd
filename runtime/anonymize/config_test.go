package anonymize

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestFlags(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(hex.EncodeToString(sampleKey)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string // in the error
		mode Mode
	}{
		{"", "", None},
		{"--anonymize none", "", None},
		{"--anonymize none --anonymize-key-file " + key, "", None},
		{"--anonymize prefix --anonymize-key-file " + key, "", Prefix},
		{"--anonymize hash --anonymize-key-file " + key, "", Hash},
		{"--anonymize hash", "openssl rand -hex 32", None},
		{"--anonymize-key-file " + key, "add --anonymize prefix or hash", None},
		{"--anonymize rot13", "want prefix, hash or none", None},
		{"--anonymize prefix --anonymize-key-file " + key + ".not", "openssl rand -hex 32", None},
	} {
		var cfg Config
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		cfg.AddFlags(fs)
		err := fs.Parse(strings.Fields(c.args))
		var a *Anonymizer
		if err == nil {
			a, err = cfg.Open()
		}
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || a != nil {
				t.Errorf("%s: %v, want %q", c.args, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if got, want := pseudonym(t, a, "192.0.2.1"), pseudonym(t, build(t, c.mode, sampleKey), "192.0.2.1"); got != want {
			t.Errorf("%s: pseudonym %s, want %s", c.args, got, want)
		}
	}
	if err := (&Config{Mode: "rot13"}).Validate(); err == nil {
		t.Error("Validate takes the mode rot13")
	}
}

func TestReadKey(t *testing.T) {
	digits := hex.EncodeToString(sampleKey)
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		want          string // in the error
	}{
		{"of openssl", digits + "\n", 0o600, ""},
		{"read-only, from a Windows editor", strings.ToUpper(digits) + "\r\n", 0o400, ""},
		{"the group can read", digits, 0o640, "chmod 600 "},
		{"all can read", digits, 0o644, "chmod 600 "},
		{"all can write", digits, 0o602, "chmod 600 "},
		{"raw octets", string(sampleKey), 0o600, "does not hold 64 hex digits"},
		{"a digit short", digits[1:], 0o600, "does not hold 64 hex digits"},
		{"two keys", digits + "\n" + digits + "\n", 0o600, "does not hold 64 hex digits"},
		{"empty", "", 0o600, "does not hold 64 hex digits"},
		{"much too long", strings.Repeat(digits, 100), 0o600, "does not hold 64 hex digits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil { // past the umask
				t.Fatal(err)
			}
			key, err := ReadKey(path)
			switch {
			case c.want == "" && (err != nil || !bytes.Equal(key, sampleKey)):
				t.Errorf("key %x, %v", key, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			case c.want != "" && strings.Contains(err.Error(), digits[8:16]):
				t.Errorf("the error repeats the key: %v", err)
			}
		})
	}
}

// TestCredential reads a key with the mode that systemd's LoadCredential= gives it
// in a unit with User=.
func TestCredential(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(sampleKey)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		credentials string
		mode        os.FileMode
		ok          bool
	}{
		{dir, 0o440, true},
		{dir + "/", 0o440, true},
		{dir, 0o444, false},
		{dir, 0o460, false},
		{filepath.Dir(dir), 0o440, false},
		{"", 0o440, false},
	} {
		t.Setenv("CREDENTIALS_DIRECTORY", c.credentials)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(path); (err == nil) != c.ok {
			t.Errorf("mode %04o with credentials in %q: %v", c.mode, c.credentials, err)
		}
	}
}
