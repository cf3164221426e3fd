package anonymize

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// Config says how to anonymize. The zero value is not to.
type Config struct {
	Mode    Mode   // empty: None
	KeyFile string // see ReadKey
}

// AddFlags adds flags for all fields.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.Var(&c.Mode, "anonymize", "addresses in events: prefix keeps which ones share a network, hash keeps only which are the same (default none)")
	fs.StringVar(&c.KeyFile, "anonymize-key-file", c.KeyFile, "file with the site's key for --anonymize: 64 hex digits")
}

const makeKey = "(umask 077; openssl rand -hex 32 > anonymize.key) makes one"

// Validate returns every mistake in c that shows without opening the key file,
// joined.
func (c *Config) Validate() error {
	var errs []error
	if c.Mode != "" {
		errs = append(errs, c.Mode.check())
	}
	switch {
	case c.Mode == "" && c.KeyFile != "": // whoever made a key expects it to be used
		errs = append(errs, fmt.Errorf("key file %s without a way to anonymize: add --anonymize prefix or hash, or none to keep addresses as they are", c.KeyFile))
	case (c.Mode == Prefix || c.Mode == Hash) && c.KeyFile == "":
		errs = append(errs, fmt.Errorf("anonymize addresses by %s: no key: add --anonymize-key-file; %s", c.Mode, makeKey))
	}
	return errors.Join(errs...)
}

// Open reads the key and returns the Anonymizer, nil for None.
func (c *Config) Open() (*Anonymizer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Mode == "" || c.Mode == None {
		return nil, nil
	}
	key, err := ReadKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	return New(c.Mode, key)
}

// ReadKey reads a key: one line of 64 hex digits, in a file that none but its owner
// may read.
func ReadKey(path string) ([]byte, error) {
	key, err := readKey(path)
	if err != nil {
		return nil, fmt.Errorf("read key to anonymize: %w", err)
	}
	return key, nil
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; %s", err, makeKey)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	open := os.FileMode(0o077)
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		open = 0o037 // systemd lets the service in by an ACL, which shows as the group's right to read (its issue 29435)
	}
	if mode := info.Mode().Perm(); mode&open != 0 {
		return nil, fmt.Errorf("%s has mode %04o, others than its owner can use it: chmod 600 %s", path, mode, path)
	}
	const most = 1 << 10
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, err
	}
	// Of what is in the file nothing is repeated: it may be a key, only misspelt.
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("%s does not hold %d hex digits; %s", path, 2*KeySize, makeKey)
	}
	return key, nil
}
