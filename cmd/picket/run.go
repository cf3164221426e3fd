package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/runtime/anonymize"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/metrics"
	"github.com/picket-ids/picket/runtime/mqtt"
	"github.com/picket-ids/picket/runtime/onnx"
	"github.com/picket-ids/picket/runtime/sandbox"
	"github.com/picket-ids/picket/runtime/sdnotify"
	"github.com/picket-ids/picket/runtime/spool"
)

// runFlags are those of run, from the command line and the file of --config.
type runFlags struct {
	set *pflag.FlagSet

	config        string
	sample, check bool
	checkAs       string

	interfaces  []string
	live        capture.LiveConfig
	workers     int
	gateway     string
	models      modelFlags
	track       trackFlags
	anonymize   anonymize.Config
	suppress    []detect.Suppression // of files alone
	files       []string             // the config's, and conf.d
	broker      mqtt.Config
	assistant   bool
	assistantAt string
	state       string
	spool       spool.Config
	json        bool
	healthEvery time.Duration
	listen      string
	user        string
	logFormat   string
	logLevel    slog.Level
}

// defaultState is where the queue is, unless systemd says where.
const defaultState = "/var/lib/picket"

func newRunFlags(std stdio) *runFlags {
	r := &runFlags{set: flagSet("run", std), anonymize: anonymize.Config{Mode: anonymize.None}}
	f := r.set
	f.StringVar(&r.config, "config", "",
		"TOML file whose keys are the names of these flags; conf.d/*.toml beside it is read after it, and the command line wins")
	f.BoolVar(&r.check, "check", false,
		"check flags, config, models, keys, certificates and the rights to read them, and end")
	f.StringVar(&r.checkAs, "check-as", "", "--check as this USER[:GROUP] may read the files "+
		"(empty: as that of --user, or, if root checks and systemd runs, as one who owns nothing)")
	f.BoolVar(&r.sample, "config-sample", false, "print a config file that explains every key, and end")
	f.StringArrayVarP(&r.interfaces, "interface", "i", nil, "network interface to watch; may be repeated")
	f.StringVarP(&r.live.Filter, "filter", "f", "", "judge only the packets that this tcpdump expression matches")
	f.BoolVar(&r.live.Promiscuous, "promiscuous", false, "see packets for other hosts too")
	f.IntVar(&r.live.Snaplen, "snaplen", 0, "octets of a packet that are kept (0: 262144)")
	f.IntVar(&r.live.RingMiB, "ring-mib", 0, "memory for packets that wait, for each interface and worker (0: 8)")
	f.IntVar(&r.workers, "workers", 1, "share the connections among as many threads; each counts only its own in the windows of its features")
	f.StringVar(&r.gateway, "gateway", "", "name of this gateway in events and topics (empty: the host's)")
	r.models.addFlags(f)
	r.track.addFlags(f)
	r.anonymize.AddFlags(f)
	r.broker.AddFlags(f)
	f.BoolVar(&r.assistant, "homeassistant", false, "announce this gateway to Home Assistant by MQTT discovery")
	f.StringVar(&r.assistantAt, "homeassistant-prefix", "homeassistant", "first level of Home Assistant's discovery topics")
	f.StringVar(&r.state, "state-dir", "", "directory of the queue of events (empty: $STATE_DIRECTORY, or "+defaultState+")")
	r.spool.AddFlags(f)
	f.BoolVar(&r.json, "json", false, "write events to standard output too, one JSON object a line")
	f.DurationVar(&r.healthEvery, "health-every", time.Minute, "how often the counters are published (0: never)")
	f.StringVar(&r.listen, "listen", "", "address of /metrics and /health, on loopback unless a host is named (empty: none)")
	f.StringVar(&r.user, "user", "", "USER[:GROUP] to become once the interfaces are open (empty: stay)")
	f.StringVar(&r.logFormat, "log-format", "text", "text or json")
	f.TextVar(&r.logLevel, "log-level", slog.LevelInfo, "DEBUG, INFO, WARN or ERROR")
	return r
}

// readFlags parses args and the file that they name, and joins all mistakes that show
// without opening anything but files. In a reload it leaves those alone whose flags need
// a restart: the rights to read them may be gone.
func readFlags(args []string, std stdio, reload bool) (*runFlags, error) {
	r := newRunFlags(std)
	if err := parse(r.set, args); err != nil {
		return nil, err
	}
	if r.sample {
		return r, nil
	}
	r.check = r.check || r.checkAs != ""
	if r.set.NArg() > 0 {
		return nil, fmt.Errorf("run takes no argument %q: an interface is named by -i (see picket run --help)", r.set.Arg(0))
	}
	if r.config != "" {
		c, err := readConfig(r.config, r.set)
		if err != nil {
			return nil, err
		}
		r.suppress, r.files = c.Suppress, append(c.Files, confDir(r.config))
	}
	r.gateway = cmp.Or(r.gateway, hostname())
	r.broker.Gateway = r.gateway
	if r.state == "" {
		r.state, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
		r.state = cmp.Or(r.state, defaultState)
	}
	var errs []error
	mistake := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if len(r.interfaces) == 0 {
		mistake("no interface: name one with -i, such as -i eth0")
	}
	if len(r.broker.URLs) == 0 && !r.json {
		mistake("nowhere to send events: give --mqtt mqtts://BROKER, or --json for standard output")
	}
	if r.assistant {
		r.broker.HomeAssistant = &mqtt.HomeAssistant{Prefix: r.assistantAt, Version: version, Health: sensors}
	}
	if len(r.broker.URLs) > 0 && !reload {
		errs = append(errs, r.broker.Validate())
	}
	if r.assistant && (len(r.broker.URLs) == 0 || r.healthEvery == 0) {
		mistake("--homeassistant needs --mqtt and --health-every")
	}
	if len(r.interfaces) > 0 {
		errs = append(errs, r.live.Validate(r.interfaces))
	}
	for _, name := range r.interfaces {
		if len(name) < 1 || len(name) > maxIfaceName || strings.ContainsAny(name, "/ \t\n") {
			mistake("interface %q: names have 1 to %d octets, no space and no slash", name, maxIfaceName)
		}
	}
	if r.user != "" && !reload {
		_, _, err := sandbox.Lookup(r.user)
		errs = append(errs, err)
	}
	if r.workers < 1 || r.workers > maxWorkers {
		mistake("--workers %d: from 1 to %d", r.workers, maxWorkers)
	}
	if r.healthEvery < 0 || r.healthEvery > 0 && r.healthEvery < time.Second {
		mistake("--health-every %v: give 1s or more, or 0 for never", r.healthEvery)
	}
	if r.logFormat != "text" && r.logFormat != "json" {
		mistake("--log-format %q: text or json", r.logFormat)
	}
	if _, err := capture.NewFilter(r.live.Filter, capture.LinkEthernet); err != nil {
		errs = append(errs, err)
	}
	hide := r.anonymize
	if !r.set.Changed("anonymize") {
		hide.Mode = "" // as none is meant only by who says so: not with a key
	}
	errs = append(errs, hide.Validate(), r.spool.Validate())
	if r.listen != "" {
		_, err := metrics.Address(r.listen)
		errs = append(errs, err)
	}
	if r.check {
		errs = append(errs, r.checkAccess())
	}
	return r, errors.Join(errs...)
}

const (
	maxWorkers   = 64
	maxIfaceName = 15 // octets, IFNAMSIZ of Linux less the 0 at the end
	// stepBack is how far the clock may be set back and nothing begin anew: the frames
	// of interfaces come in their order.
	stepBack = time.Second
)

func (r *runFlags) logger(std stdio) *slog.Logger {
	o := &slog.HandlerOptions{Level: r.logLevel}
	if r.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(std.err, o))
	}
	return slog.New(slog.NewTextHandler(std.err, o))
}

// watch is the daemon.
func watch(ctx context.Context, args []string, std stdio) (int, error) {
	// Reloads that come while it starts wait for it.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	signal.Ignore(syscall.SIGPIPE) // a closed standard output is no reason to stop publishing
	r, err := readFlags(args, std, false)
	if err != nil {
		return 0, err
	}
	if r.sample {
		return exitNothing, writeSample(std.out, newRunFlags(std).set)
	}
	loaded, err := r.models.load(ctx)
	if ctx.Err() != nil {
		return exitNothing, nil // told to end before it began
	}
	if err != nil {
		return 0, err
	}
	anonymizer, err := r.anonymize.Open()
	if err != nil {
		return 0, err
	}
	if r.check {
		return exitNothing, r.tryOut(ctx, loaded, std)
	}
	d := &daemon{flags: r, log: r.logger(std), std: std, started: time.Now(), clock: newClock()}
	if err := d.open(ctx, loaded, anonymizer); err != nil {
		if errors.Is(err, context.Canceled) {
			err = nil // told to end before it began
		}
		return exitNothing, errors.Join(err, d.close())
	}
	for d.next(ctx, hup) {
		d.reload(ctx, args)
	}
	err = d.close()
	return exitNothing, errors.Join(d.failed(), err)
}

// tryOut opens what needs neither rights nor a network.
func (r *runFlags) tryOut(ctx context.Context, loaded []*onnx.Model, std stdio) error {
	opened, closeAll, err := sessions(ctx, r.models.library, loaded, r.models.threshold)
	defer closeAll()
	if err != nil {
		return err
	}
	home, err := r.track.home()
	if err != nil {
		return err
	}
	if _, err := detect.New(detect.Config{Gateway: r.gateway, Models: opened, Suppress: r.suppress, MaxConnections: r.track.connections, Early: r.track.early, Home: home}); err != nil {
		return err
	}
	for _, s := range r.suppress {
		if s.Expired(time.Now()) {
			fmt.Fprintf(std.err, "picket: warning: the suppression %q ended %s\n", s.Reason, s.Until.Format(time.RFC3339))
		}
	}
	for _, name := range r.models.unsigned() {
		fmt.Fprintf(std.err, "picket: warning: model %s is not signed (see --model-key)\n", name)
	}
	var names []string
	for _, m := range opened {
		names = append(names, fmt.Sprintf("%s %s (threshold %v)", m.Name, m.Version, m.Threshold))
	}
	fmt.Fprintf(std.out, "good: %s watches %s with %s\n", r.gateway, strings.Join(r.interfaces, ", "), strings.Join(names, ", "))
	return nil
}

// open acquires all that the daemon needs, in the order in which rights end: first
// what only root may, then what its user may, then nothing new.
func (d *daemon) open(ctx context.Context, loaded []*onnx.Model, anonymizer *anonymize.Anonymizer) error {
	r := d.flags
	table := detect.NewIncidents()
	cfg := r.live
	cfg.Tick = tick
	if r.workers > 1 {
		cfg.Fanout = uint16(1 + rand.N(60000)) // process ids are 1 in each container
	}
	home, err := r.track.home()
	if err != nil {
		return err
	}
	for range r.workers {
		opened, closeAll, err := sessions(ctx, r.models.library, loaded, r.models.threshold)
		if err != nil {
			return err
		}
		w := &worker{models: opened, closeModels: closeAll, ask: make(chan func(), 4), ended: make(chan struct{})}
		d.workers = append(d.workers, w)
		w.detector, err = detect.New(detect.Config{
			Gateway: r.gateway, Version: version, Models: opened, Suppress: r.suppress,
			MaxConnections: r.track.connections, Early: r.track.early, StepBack: stepBack, Home: home, MaxWait: tick,
			Anonymizer: anonymizer, Incidents: table, Emit: d.emit,
		})
		if err != nil {
			return err
		}
		if w.Live, err = capture.Listen(r.interfaces, cfg); err != nil {
			return err
		}
	}
	d.setInfo(modelInfos(loaded, r.models.threshold))
	d.events = make(chan *detect.Event, maxWaiting)
	var begin func() *mqtt.Client
	if len(r.broker.URLs) > 0 {
		var err error
		if begin, err = mqtt.Prepare(d.session()); err != nil {
			return err
		}
		if err := r.ownQueue(); err != nil {
			return err
		}
	}
	if err := sandbox.Drop(r.user); err != nil {
		return err
	}
	if begin != nil {
		r.spool.Logger = d.log
		var err error
		if d.queue, err = spool.Open(queueDir(r.state), r.spool); err != nil {
			return fmt.Errorf("open the queue of events: %w (another directory: --state-dir)", err)
		}
		// Not before: the queue's lock says that no other daemon speaks by this name.
		d.client = begin()
	}
	if err := d.restrict(); err != nil {
		return err
	}
	debug.FreeOSMemory() // what the models were parsed in
	d.start()
	if r.listen != "" {
		var err error
		if d.server, err = metrics.Listen(r.listen, d.metrics); err != nil {
			return err
		}
		d.log.Info("listening", "address", d.server.Addr().String())
	}
	for _, name := range r.models.unsigned() {
		d.log.Warn("this model is not signed; --model-key makes that an error", "model", name)
	}
	d.warnExpired(r.suppress)
	if d.clock.word() != "" {
		d.log.Warn("the clock has not been set yet; events say so until it is", "picket.clock", detect.Unsynchronised)
	}
	d.log.Info("watching", "version", version, "gateway", r.gateway, "interfaces", r.interfaces, "models", r.models.names, "workers", r.workers)
	watchdog, err := sdnotify.StartWatchdog(d.alive)
	if err != nil {
		return err
	}
	d.watchdog = watchdog
	return sdnotify.Ready(d.status())
}

// queueDir is where the queue is in --state-dir.
func queueDir(state string) string { return filepath.Join(state, "queue") }

// ownQueue makes the directory for the queue, and gives it to the user that is to be. The directory it is in goes with
// it when that user could not pass it and there is nothing else in it.
func (r *runFlags) ownQueue() error {
	dir := queueDir(r.state)
	// A new one above it must let that user pass.
	err := os.MkdirAll(r.state, 0o755)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make the directory of the queue: %w (another one: --state-dir)", err)
	}
	if r.user == "" || os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := sandbox.Lookup(r.user)
	if err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		// A hard link may be to a file that is none of the user's.
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || !e.IsDir() && (!e.Type().IsRegular() || st.Nlink > 1) || int(st.Uid) == uid && int(st.Gid) == gid {
			return nil
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(r.user, ":")
	who := &reader{name, uid, gid}
	at, err := r.keptFrom(who)
	if err == nil && r.isState(at) && ours(at) {
		if err = os.Chown(at, uid, gid); err == nil {
			at, err = r.keptFrom(who)
		}
	}
	if err != nil || at == "" {
		return err
	}
	return r.stateError(who, at)
}

// restrict leaves the process the files that it will need, where the kernel can.
func (d *daemon) restrict() error {
	r := d.flags
	paths := sandbox.Paths{ReadOnly: sandbox.SystemReadable()}
	// Directories, because what is renewed there is renamed into its place.
	more := []string{r.models.key, r.broker.CAFile, r.broker.CertFile, r.broker.KeyFile, r.broker.PasswordFile}
	for _, file := range slices.Concat(r.files, more, r.models.names) {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err == nil {
			paths.ReadOnly = append(paths.ReadOnly, sandbox.Dirs(file)...)
		}
	}
	if _, args := onnx.Self(); len(args) > 0 { // for the child that tries models
		paths.ReadOnly = append(paths.ReadOnly, sandbox.Dirs(args[len(args)-1])...)
	}
	if library, err := onnx.FindLibrary(r.models.library); err == nil {
		paths.ReadOnly = append(paths.ReadOnly, sandbox.Dirs(library)...)
	}
	if d.queue != nil {
		paths.ReadWrite = append(paths.ReadWrite, queueDir(r.state))
	}
	abi, err := sandbox.Restrict(paths)
	if err != nil {
		return err
	}
	if abi == 0 {
		d.log.Info("this kernel has no Landlock: files stay as accessible as the user's rights let them")
	}
	return nil
}

// next waits for what the daemon has to do beside its work; false: to end.
func (d *daemon) next(ctx context.Context, hup <-chan os.Signal) bool {
	select {
	case <-hup:
		return true
	case <-ctx.Done():
		d.log.Info("ending")
	case <-d.broken:
	}
	sdnotify.Stopping("ending")
	return false
}

// reload puts the models, their threshold and the suppressions of the config as it is
// now in the place of those in use, or leaves all as it is and says why.
func (d *daemon) reload(ctx context.Context, args []string) {
	if err := sdnotify.Reloading(); err != nil {
		d.log.Warn("systemd cannot be told", "error", err)
	}
	if err := d.swap(ctx, args); err != nil {
		d.log.Error("reload failed, all stays as it was", "error", oneLine(err))
	}
	if err := sdnotify.Ready(d.status()); err != nil {
		d.log.Warn("systemd cannot be told", "error", err)
	}
}

// swapped are the flags that a reload applies.
var swapped = []string{"model", "threshold", "model-key"}

func (d *daemon) swap(ctx context.Context, args []string) error {
	r, err := readFlags(args, stdio{in: d.std.in, out: d.std.err, err: d.std.err}, true)
	if err != nil {
		return err
	}
	restart := slices.DeleteFunc(changed(d.flags.set, r.set), func(name string) bool { return slices.Contains(swapped, name) })
	r.models.library = d.flags.models.library // the one that is loaded: another needs a restart
	loaded, err := r.models.load(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (only directories that were named at the start can be read: restart, or put it beside the config)", err)
	}
	if err != nil {
		return err
	}
	opened := make([][]detect.Model, len(d.workers))
	closers := make([]func(), len(d.workers))
	closeOpened := func() {
		for _, c := range closers {
			if c != nil {
				c()
			}
		}
	}
	for i := range d.workers {
		if opened[i], closers[i], err = sessions(ctx, d.flags.models.library, loaded, r.models.threshold); err != nil {
			closeOpened()
			return err
		}
	}
	detectors := make([]*detect.Detector, len(d.workers))
	for i, w := range d.workers {
		detectors[i] = w.detector
	}
	d.pause(func() {
		if err = detect.Swap(detectors, opened, r.suppress); err != nil {
			return
		}
		for i, w := range d.workers {
			old := w.closeModels
			w.models, w.closeModels, closers[i] = opened[i], closers[i], old
		}
	})
	closeOpened()
	if err != nil {
		return err
	}
	if len(restart) > 0 {
		d.log.Warn("these flags have changed and need a restart", "flags", restart)
	}
	d.flags.models, d.flags.suppress = r.models, r.suppress
	d.setInfo(modelInfos(loaded, r.models.threshold))
	d.warnExpired(r.suppress)
	d.log.Info("reloaded", "models", r.models.names, "suppressions", len(r.suppress))
	return nil
}

func (d *daemon) warnExpired(list []detect.Suppression) {
	for _, s := range list {
		if s.Expired(time.Now()) {
			d.log.Warn("this suppression has ended", "reason", s.Reason, "until", s.Until)
		}
	}
}
