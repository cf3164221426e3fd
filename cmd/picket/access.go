package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/picket-ids/picket/runtime/mqtt"
	"github.com/picket-ids/picket/runtime/sandbox"
)

// nobody has the ids of the user who owns nothing. Where systemd runs and root checks a config that names no user,
// files are judged as that one may read them: the unit runs as a user who owns nothing either.
const nobody = "65534:65534"

// systemd is there where systemd runs (sd_booted(3)). Other services are started as root, and become a user by --user.
var systemd = "/run/systemd/system"

// passwordFile is in the systemd unit, too.
const passwordFile = "/etc/picket/" + mqtt.Credential + ", which systemd passes on"

// reader is who will read the files that flags name.
type reader struct {
	user     string // or its number; empty: nobody
	uid, gid int
}

// reader returns nil when this process has the rights to judge.
func (r *runFlags) reader() (*reader, error) {
	if r.checkAs == "" && os.Geteuid() != 0 {
		return nil, nil
	}
	spec := cmp.Or(r.checkAs, r.user)
	if spec == "" {
		if _, err := os.Stat(systemd); err != nil {
			return nil, nil
		}
		spec = nobody
	}
	uid, gid, err := sandbox.Lookup(spec)
	if err != nil || uid == os.Geteuid() {
		return nil, err
	}
	who := &reader{uid: uid, gid: gid}
	if spec != nobody {
		who.user, _, _ = strings.Cut(spec, ":")
	}
	return who, nil
}

// named is a file that a key of the config names.
type named struct {
	key, path string
	secret    bool // that others should not read
}

// readsFiles lists what the daemon reads.
func (r *runFlags) readsFiles() (all []named) {
	// A password in the config makes that secret.
	secret := slices.ContainsFunc(r.broker.URLs, func(url string) bool { return strings.Contains(url, "@") })
	for _, file := range r.files {
		all = append(all, named{"config", file, secret})
	}
	for _, name := range r.models.names {
		if !bundled(name) {
			all = append(all, named{"model", name, false}, named{"signature", name + ".minisig", false})
		}
	}
	all = append(all, named{"model-key", r.models.key, false}, named{"onnxruntime", r.models.library, false})
	if r.becomes() { // what follows is read by root, before
		return all
	}
	all = append(all, named{"anonymize-key-file", r.anonymize.KeyFile, true})
	if len(r.broker.URLs) > 0 {
		b := r.broker
		all = append(all, named{"mqtt-password-file", b.PasswordFile, true}, named{"mqtt-ca-file", b.CAFile, false},
			named{"mqtt-cert-file", b.CertFile, false}, named{"mqtt-key-file", b.KeyFile, true})
	}
	return all
}

// becomes tells whether the daemon is started by root and becomes another user by itself: what it reads once, it reads
// before that.
func (r *runFlags) becomes() bool { return r.user != "" && r.checkAs == "" }

// checkAccess says which files the user that will run may not read or write, and what to do about it. Files that do
// not exist are left to those who open them.
func (r *runFlags) checkAccess() error {
	who, err := r.reader()
	if who == nil || err != nil {
		return err
	}
	var errs []error
	for _, f := range r.readsFiles() {
		at, err := who.refused(f.path)
		if err != nil {
			return fmt.Errorf("check files as another user: %w", err)
		}
		if at != "" {
			errs = append(errs, fmt.Errorf("%s %s: %s may not read it: %s%s",
				f.key, f.path, who, who.remedy(f, at), who.hint()))
		}
	}
	if len(r.broker.URLs) > 0 {
		errs = append(errs, r.checkState(who))
	}
	return errors.Join(errs...)
}

func (who *reader) String() string {
	if who.user == "" {
		return "a service that is not root"
	}
	return "user " + who.user
}

// hint is for those who run the daemon as root, or as a user of whom the config says nothing.
func (who *reader) hint() string {
	if who.user == "" {
		return "; --check-as USER (or root) if the service runs as that"
	}
	return ""
}

func (who *reader) remedy(f named, at string) string {
	switch info, err := os.Stat(at); {
	case err == nil && info.IsDir():
		return "chmod o+rx " + at
	case !f.secret:
		return "chmod o+r " + at
	case who.user != "":
		return fmt.Sprintf("chown %s %s", who.user, at)
	case f.key == "mqtt-password-file":
		return "leave this key out and put the password into " + passwordFile
	case f.key == "config":
		return fmt.Sprintf("put the password of the URL into %s, and chmod o+r %s", passwordFile, at)
	}
	return fmt.Sprintf("let systemd pass it on: LoadCredential=NAME:%s in its unit, and %s = \"%s/NAME\"",
		f.path, f.key, "/run/credentials/picket.service")
}

// refused returns what keeps who from reading path: a directory on the way, or the file; nothing if it may be read or
// does not exist.
func (who *reader) refused(path string) (at string, err error) {
	real, err := realPath(path)
	if err != nil {
		return "", nil
	}
	err = sandbox.As(who.uid, who.gid, func() error {
		if at = blocked(path, real); at != "" {
			return nil
		}
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrPermission) {
			at = real
			return nil
		}
		f.Close()
		return nil
	})
	return at, err
}

// realPath follows symbolic links.
func realPath(path string) (string, error) {
	if path == "" {
		return "", fs.ErrNotExist
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// blocked returns the first directory on the ways to paths that this thread may not pass.
func blocked(paths ...string) string {
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		for i := 1; i <= len(abs); i++ {
			if i < len(abs) && abs[i] != '/' {
				continue
			}
			if _, err := os.Lstat(abs[:i]); errors.Is(err, fs.ErrPermission) {
				return filepath.Dir(abs[:i])
			}
		}
	}
	return ""
}

// checkState says what keeps who from the queue of events.
func (r *runFlags) checkState(who *reader) error {
	if who.user == "" && !r.set.Changed("state-dir") { // systemd makes one
		return nil
	}
	if r.becomes() { // root makes it and hands it over
		at, err := r.keptFrom(who)
		if err != nil || at == "" || r.isState(at) && ours(at) {
			return err
		}
		return r.stateError(who, at)
	}
	at := ""
	err := sandbox.As(who.uid, who.gid, func() error {
		for _, dir := range []string{queueDir(r.state), r.state} {
			f, err := os.CreateTemp(dir, ".check-")
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
				at = cmp.Or(blocked(queueDir(r.state)), dir)
			}
			if err == nil {
				f.Close()
				err = os.Remove(f.Name())
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
		return nil
	})
	if err != nil || at == "" {
		return err
	}
	return r.stateError(who, at)
}

// keptFrom returns the first directory on the way to the queue that who may not pass, as far as there are any.
func (r *runFlags) keptFrom(who *reader) (at string, err error) {
	ways := []string{queueDir(r.state)}
	if real, err := realPath(r.state); err == nil {
		ways = []string{queueDir(real), ways[0]} // the link itself is rarely what keeps anyone
	}
	err = sandbox.As(who.uid, who.gid, func() error {
		at = blocked(ways...)
		return nil
	})
	return at, err
}

func (r *runFlags) isState(dir string) bool {
	abs, _ := filepath.Abs(r.state)
	real, _ := realPath(r.state)
	return dir == abs || dir == real
}

// ours tells whether a directory has nothing in it but the queue, or nothing at all.
func ours(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && (len(entries) == 0 || len(entries) == 1 && entries[0].Name() == filepath.Base(queueDir(dir)))
}

func (r *runFlags) stateError(who *reader, at string) error {
	switch {
	case who.user == "":
		return fmt.Errorf("state-dir %s: %s may not write there: leave this key out, systemd has a directory for it%s",
			r.state, who, who.hint())
	case r.isState(at) || at == queueDir(r.state):
		return fmt.Errorf("state-dir %s: %s may not use it: chown %s %s", r.state, who, who.user, at)
	}
	return fmt.Errorf("state-dir %s: %s may not pass %s: chmod o+x %[3]s, or name another directory", r.state, who, at)
}
