package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/picket-ids/picket/internal/brokertest"
	"github.com/picket-ids/picket/internal/netnstest"
)

// openFolder is one that every user may pass, as t.TempDir is not.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "picket-access-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCheckAccess: what root can read and the service cannot is found before the service starts.
func TestCheckAccess(t *testing.T) {
	needLibrary(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI_REQUIRE_ROOT") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	model, err := os.ReadFile("../../models/nslkdd-autoencoder.onnx")
	if err != nil {
		t.Fatal(err)
	}
	defer func(path string) { systemd = path }(systemd)
	systemd = t.TempDir()
	const (
		base = "interface = 'lo'\nmqtt = 'mqtt://h'\nmqtt-username = 'u'\n"
		pw   = base + "mqtt-password-file = 'DIR/pw'\n"
	)
	for _, tc := range []struct {
		name   string
		config string // DIR stands for the folder
		modes  map[string]os.FileMode
		owner  string // a file that is the user 1's
		flags  string
		want   []string // in a line each; nothing: good
	}{
		{name: "all may read all", config: pw + "model = 'DIR/m.onnx'\n", modes: map[string]os.FileMode{"pw": 0o644}},
		{name: "a password of root", config: pw, want: []string{"DIR/pw: a service that is not root may not read it: leave this key out and put the password into /etc/picket/mqtt-password"}},
		{name: "checked for root", config: pw, flags: "--check-as root"},
		{name: "checked for its owner", config: pw, owner: "pw", flags: "--check-as 1:1"},
		{name: "checked for another", config: pw, owner: "pw", flags: "--check-as 2:2", want: []string{"DIR/pw: user 2 may not read it: chown 2 DIR/pw"}},
		{name: "read by root before it becomes another", config: pw + "user = '1:1'\n", modes: map[string]os.FileMode{"state/": 0o755}},
		{name: "a config of root", config: base, modes: map[string]os.FileMode{"picket.toml": 0o600}, want: []string{"config DIR/picket.toml: a service that is not root may not read it: chmod o+r DIR/picket.toml"}},
		{name: "a config of root with a password", config: "interface = 'lo'\nmqtt = 'mqtt://u:p@h'\n", modes: map[string]os.FileMode{"picket.toml": 0o600}, want: []string{"config DIR/picket.toml: a service that is not root may not read it: put the password of the URL into /etc/picket/mqtt-password"}},
		{name: "conf.d of root", config: base, modes: map[string]os.FileMode{"conf.d/": 0o700}, want: []string{"chmod o+rx DIR/conf.d", "chmod o+rx DIR/conf.d"}},
		{name: "a model of root", config: base + "model = 'DIR/m.onnx'\n", modes: map[string]os.FileMode{"m.onnx": 0o600}, want: []string{"model DIR/m.onnx: a service that is not root may not read it: chmod o+r DIR/m.onnx"}},
		{name: "a model that a reload reads", config: base + "user = '1'\nmodel = 'DIR/m.onnx'\n", modes: map[string]os.FileMode{"m.onnx": 0o600}, want: []string{"model DIR/m.onnx: user 1 may not read it: chmod o+r DIR/m.onnx"}},
		{name: "a link into a folder of root", config: base + "mqtt-password-file = 'DIR/link'\n", modes: map[string]os.FileMode{"hidden/": 0o700, "hidden/pw": 0o644}, want: []string{"chmod o+rx DIR/hidden"}},
		{name: "a key of root", config: base + "anonymize = 'hash'\nanonymize-key-file = 'DIR/key'\n", want: []string{"anonymize-key-file DIR/key: a service that is not root may not read it: let systemd pass it on: LoadCredential=NAME:DIR/key"}},
		{name: "a queue that root hands over", config: base + "user = '1:1'\nstate-dir = 'DIR/state'\n", modes: map[string]os.FileMode{"state/": 0o700}},
		{name: "a queue among other things of root", config: base + "user = '1:1'\nstate-dir = 'DIR/state'\n", modes: map[string]os.FileMode{"state/": 0o700, "state/other": 0o644}, want: []string{"user 1 may not use it: chown 1 DIR/state"}},
		{name: "a queue in a folder of root", config: base + "user = '1:1'\nstate-dir = 'DIR/hidden/state'\n", modes: map[string]os.FileMode{"hidden/": 0o700, "hidden/state/": 0o755}, want: []string{"user 1 may not pass DIR/hidden: chmod o+x DIR/hidden"}},
		{name: "a queue that nobody hands over", config: base + "state-dir = 'DIR/state'\n", modes: map[string]os.FileMode{"state/": 0o755}, flags: "--check-as 1:1", want: []string{"user 1 may not use it: chown 1 DIR/state"}},
		{name: "a queue of its own", config: base + "state-dir = 'DIR/state'\n", modes: map[string]os.FileMode{"state/": 0o700}, owner: "state", flags: "--check-as 1:1"},
		{name: "a queue beside systemd's", config: base + "state-dir = 'DIR/state'\n", modes: map[string]os.FileMode{"state/": 0o755}, want: []string{"leave this key out, systemd has a directory for it"}},
	} {
		dir := openFolder(t)
		file := func(name, text string, mode os.FileMode) {
			t.Helper()
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if m, ok := tc.modes[name]; ok {
				mode = m
			}
			if err := os.WriteFile(path, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		file("picket.toml", strings.ReplaceAll(tc.config, "DIR", dir), 0o644)
		file("conf.d/a.toml", "", 0o644)
		file("m.onnx", string(model), 0o644)
		file("pw", "secret\n", 0o600)
		file("key", strings.Repeat("0f", 32)+"\n", 0o600)
		file("hidden/pw", "secret\n", 0o600)
		os.Symlink(filepath.Join(dir, "hidden/pw"), filepath.Join(dir, "link"))
		for name, mode := range tc.modes {
			if strings.HasSuffix(name, "/") {
				os.MkdirAll(filepath.Join(dir, name), 0o755)
				defer os.Chmod(filepath.Join(dir, name), 0o755)
				if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, mode := range tc.modes {
			if strings.HasPrefix(name, "state/") && !strings.HasSuffix(name, "/") {
				file(name, "", mode)
			}
		}
		if tc.owner != "" {
			if err := os.Chown(filepath.Join(dir, tc.owner), 1, 1); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("STATE_DIRECTORY", filepath.Join(dir, "none")) // not this machine's
		args := append([]string{"run", "--check", "--config", filepath.Join(dir, "picket.toml")}, strings.Fields(tc.flags)...)
		code, out, stderr := picket(t, nil, args...)
		if good := len(tc.want) == 0; good != (code == exitNothing && strings.HasPrefix(out, "good: ")) || strings.Count(stderr, "may not") != len(tc.want) {
			t.Errorf("%s: exit %d, %s%s", tc.name, code, out, stderr)
			continue
		}
		for i, want := range tc.want {
			if line := strings.Split(stderr, "\n")[i]; !strings.Contains(line, strings.ReplaceAll(want, "DIR", dir)) {
				t.Errorf("%s: %s, want %s", tc.name, line, want)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "state", ".check-*")); left != nil {
			t.Errorf("%s: left %v", tc.name, left)
		}
	}
	systemd = filepath.Join(systemd, "none")
	config := write(t, "picket.toml", []byte(base)) // in a folder of root
	code, out, stderr := picket(t, nil, "run", "--check", "--config", config)
	if code != exitNothing || !strings.HasPrefix(out, "good: ") {
		t.Errorf("without systemd: exit %d, %s", code, stderr)
	}
	code, _, stderr = picket(t, nil, "run", "--check-as", "no-such-user", "-i", "lo", "--json")
	if code != exitError || !strings.Contains(stderr, `user "no-such-user": no such user`) {
		t.Errorf("no such user: exit %d, %s", code, stderr)
	}
}

// TestRunUserState: started by root, it becomes a user that gets the queue, in a directory that root made for it, too.
func TestRunUserState(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Run(t, "ip", "link", "set", "lo", "up")
	dir := openFolder(t)
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"-i", "lo", "--mqtt", "mqtt://127.0.0.1:1", "--state-dir", state, "--user", "65534:65534"}
	p := daemonProcess(t, args...)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, path := range []string{state, filepath.Join(state, "queue")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 65534 {
			t.Errorf("%s is of user %d", path, uid)
		}
	}
	// Not what others have put something into.
	if err := os.Chown(state, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := exec.Command(os.Args[0], append([]string{"run"}, args...)...)
	again.Env = append(os.Environ(), asPicket+"=1")
	defer time.AfterFunc(brokertest.Patience, func() { again.Process.Kill() }).Stop()
	out, err := again.CombinedOutput()
	if want := "user 65534 may not use it: chown 65534 " + state; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}
