package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"aead.dev/minisign"
	"golang.org/x/term"

	"github.com/picket-ids/picket/runtime/onnx"
	"github.com/picket-ids/picket/runtime/report"
)

const (
	signatureSuffix = ".minisig" // of the file beside a model
	envPassword     = "PICKET_KEY_PASSWORD"
	maxText         = 16 << 10 // octets of a key, a signature or a password
)

// keygen makes a pair of keys for signing models.
func keygen(ctx context.Context, args []string, std stdio) (int, error) {
	fs := modelFlagSet("keygen", std)
	out := fs.StringP("output", "o", "picket.key", "file for the secret key; the public one goes beside it, as FILE.pub")
	var pass password
	fs.StringVar(&pass.file, "password-file", "", "file with the password (empty: $"+envPassword+", or ask)")
	none := fs.Bool("no-password", false, "do not encrypt the secret key: who can read it can sign")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	if fs.NArg() > 0 {
		return 0, errors.New("picket model keygen takes no file: name the secret key's with -o")
	}
	public, secret, err := minisign.GenerateKey(nil)
	if err != nil {
		return 0, fmt.Errorf("make a key: %w", err)
	}
	var text []byte
	if *none {
		text, err = secret.MarshalText()
	} else {
		var word string
		if word, err = pass.read(ctx, std, true); err != nil {
			return 0, fmt.Errorf("make a key: %w", err)
		}
		text, err = minisign.EncryptKey(word, secret)
	}
	if err != nil {
		return 0, fmt.Errorf("make a key: %w", err)
	}
	publicText, err := public.MarshalText()
	if err != nil {
		return 0, fmt.Errorf("make a key: %w", err)
	}
	publicName := strings.TrimSuffix(*out, ".key") + ".pub"
	if err := writeNew(*out, append(text, '\n'), 0o600); err != nil {
		return 0, err
	}
	if err := writeNew(publicName, append(publicText, '\n'), 0o644); err != nil {
		os.Remove(*out) // one without the other is of no use
		return 0, err
	}
	fmt.Fprintf(std.out, "%s is the secret key: keep it off the gateways.\n%s is the public key, for --model-key:\n%s\n", *out, publicName, public)
	return exitNothing, nil
}

// writeNew writes a file that must not be there yet.
func writeNew(name string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("write %s: it exists, and a key is never overwritten: name another with -o", name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, withoutPath(err))
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(name)
		return fmt.Errorf("write %s: %w", name, withoutPath(err))
	}
	return nil
}

// sign writes the signature of a model.
func sign(ctx context.Context, args []string, std stdio) (int, error) {
	fs := modelFlagSet("sign", std)
	key := fs.String("key", "", "file of the secret key to sign with, picket's or minisign's")
	out := fs.StringP("output", "o", "", "file for the signature (empty: FILE"+signatureSuffix+", where picket looks for it)")
	var pass password
	fs.StringVar(&pass.file, "password-file", "", "file with the secret key's password (empty: $"+envPassword+", or ask)")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	if fs.NArg() != 1 || *key == "" {
		return 0, errors.New("say what to sign, and with what: picket model sign FILE --key SECRETKEYFILE")
	}
	name := fs.Arg(0)
	data, err := readFile(name, maxModel+1)
	if err != nil {
		return 0, fmt.Errorf("sign model %s: %w", name, err)
	}
	m, err := onnx.Parse(data, name) // what picket would refuse is not worth a signature
	if err != nil {
		return 0, err
	}
	secret, err := readSecret(ctx, *key, pass, std)
	if err != nil {
		return 0, fmt.Errorf("sign model %s: key %s: %w", name, *key, err)
	}
	digest := minisign.NewReader(bytes.NewReader(data))
	if _, err := io.Copy(io.Discard, digest); err != nil {
		return 0, fmt.Errorf("sign model %s: %w", name, err)
	}
	says := trustedComment(m, name)
	signature := digest.SignWithComments(secret, says, fmt.Sprintf("signature of a picket model by key %016X", secret.ID()))
	path := cmp.Or(*out, name+signatureSuffix)
	if err := writeFile(path, []string{name, *key}, func(w io.Writer) error { _, err := w.Write(signature); return err }); err != nil {
		return 0, err
	}
	fmt.Fprintf(std.out, "%s signed with key %016X: %s\n", path, secret.ID(), printable(says))
	return exitNothing, nil
}

// trustedComment is what the signature vouches for beside the octets: one line, fields as minisign's own are written.
func trustedComment(m *onnx.Model, name string) string {
	field := func(s string) string { return fmt.Sprintf("%.200s", report.Printable(s)) }
	return fmt.Sprintf("name:%s\tversion:%s\tsha256:%s\tfile:%s", field(m.Name), field(m.Version), m.SHA256, field(filepath.Base(name)))
}

// printable is a trusted comment as a person reads it.
func printable(comment string) string {
	return report.Printable(strings.ReplaceAll(comment, "\t", ", "))
}

// verify checks the signature beside a file.
func verify(_ context.Context, args []string, std stdio) (int, error) {
	fs := modelFlagSet("verify", std)
	key := fs.String("model-key", "", "public key that must have signed it, or a file of it")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	if fs.NArg() != 1 || *key == "" {
		return 0, errors.New("say what to verify, and with what: picket model verify FILE --model-key KEY|FILE")
	}
	public, err := parseKey(*key)
	if err != nil {
		return 0, err
	}
	name := fs.Arg(0)
	data, err := readFile(name, maxModel+1)
	if err == nil && len(data) > maxModel {
		err = fmt.Errorf("larger than %d MiB", maxModel>>20)
	}
	if err != nil {
		return 0, fmt.Errorf("verify model %s: %w", name, err)
	}
	says, err := verifyFile(*public, data, name+signatureSuffix)
	if err != nil {
		return 0, fmt.Errorf("verify model %s: %w", name, err)
	}
	fmt.Fprintf(std.out, "%s is signed with key %016X: %s\n", name, public.ID(), printable(says))
	return exitNothing, nil
}

// parseKey reads a public key from text, or from the file that the text names.
func parseKey(s string) (*minisign.PublicKey, error) {
	key := new(minisign.PublicKey)
	if key.UnmarshalText([]byte(s)) == nil {
		return key, nil
	}
	b, err := readFile(s, maxText)
	if err != nil {
		return nil, fmt.Errorf("model key %s: neither a minisign public key nor a file of one: %w", s, err)
	}
	if key.UnmarshalText(b) != nil {
		return nil, fmt.Errorf("model key %s: the file holds no minisign public key (two lines, the second begins with RW)", s)
	}
	return key, nil
}

// verifyFile checks the signature in a file over the octets of another, and returns what it vouches for.
func verifyFile(key minisign.PublicKey, data []byte, path string) (string, error) {
	text, err := readFile(path, maxText)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("it is not signed: there is no %s (picket model sign makes it)", path)
	}
	if err != nil {
		return "", fmt.Errorf("signature %s: %w", path, err)
	}
	var s minisign.Signature
	if s.UnmarshalText(text) != nil {
		return "", fmt.Errorf("signature %s: cut short or not one: sign the model anew", path)
	}
	if s.KeyID != key.ID() {
		return "", fmt.Errorf("signature %s: by key %016X, not by %016X, the model key", path, s.KeyID, key.ID())
	}
	if minisign.Verify(key, data, text) {
		return s.TrustedComment, nil
	}
	// Say which half is wrong. The octets of the key follow two of the algorithm and eight of the identity.
	if raw, err := base64.StdEncoding.DecodeString(key.String()); err == nil &&
		ed25519.Verify(raw[10:], append(s.Signature[:], s.TrustedComment...), s.CommentSignature[:]) {
		return "", fmt.Errorf("signature %s: of another file (%s), or the model was changed since", path, printable(s.TrustedComment))
	}
	return "", fmt.Errorf("signature %s: it or its trusted comment was changed, or made by another key of the same number", path)
}

// readSecret reads a secret key and, if it is encrypted, asks for its password.
func readSecret(ctx context.Context, path string, pass password, std stdio) (key minisign.PrivateKey, err error) {
	text, err := readFile(path, maxText)
	if err != nil {
		return key, err
	}
	text = bytes.TrimSpace(text)
	if !minisign.IsEncrypted(text) {
		if key.UnmarshalText(text) != nil {
			return key, errors.New("not a minisign secret key")
		}
		return key, nil
	}
	word, err := pass.read(ctx, std, false)
	if err != nil {
		return key, err
	}
	if key, err = minisign.DecryptKey(word, text); err != nil {
		return key, errors.New("wrong password, or the file is damaged")
	}
	return key, nil
}

// password is where the password of a secret key comes from.
type password struct{ file string }

// read returns the password from the file, the environment or a person, who is asked
// twice for a new one. It is never empty.
func (p password) read(ctx context.Context, std stdio, isNew bool) (string, error) {
	if p.file != "" {
		b, err := readFile(p.file, maxText)
		if err != nil {
			return "", fmt.Errorf("password file %s: %w", p.file, err)
		}
		word, _, _ := strings.Cut(string(b), "\n")
		if word = strings.TrimSuffix(word, "\r"); word == "" {
			return "", fmt.Errorf("password file %s: its first line is empty", p.file)
		}
		return word, nil
	}
	if word := os.Getenv(envPassword); word != "" {
		return word, nil
	}
	f, ok := std.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", fmt.Errorf("no terminal to ask for the key's password: give --password-file or $%s", envPassword)
	}
	ask := func(what string) (string, error) {
		fmt.Fprintf(std.err, "%s: ", what)
		defer fmt.Fprintln(std.err)
		return askPassword(ctx, int(f.Fd()))
	}
	word, err := ask("Password of the secret key")
	if err != nil || !isNew {
		return word, err
	}
	if word == "" {
		return "", errors.New("an empty password protects nothing: give one, or --no-password")
	}
	again, err := ask("The same again")
	if err == nil && again != word {
		err = errors.New("the two passwords differ")
	}
	return word, err
}

// askPassword reads a line from a terminal that does not show it. An interrupt leaves the terminal as it was.
func askPassword(ctx context.Context, fd int) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type answer struct {
		word []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		word, err := term.ReadPassword(fd)
		read <- answer{word, err}
	}()
	select {
	case a := <-read:
		return string(a.word), a.err
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}
