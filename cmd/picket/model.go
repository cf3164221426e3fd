package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/models"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/onnx"
	"github.com/picket-ids/picket/runtime/report"
)

// modelFlags say which models to run, and with what.
type modelFlags struct {
	names     []string
	library   string
	threshold float64
	key       string
	opened    []detect.Model
}

func (m *modelFlags) addFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&m.names, "model", "m", []string{models.Default}, "model to score with: a file, or a bundled one by name; may be repeated")
	fs.Float64Var(&m.threshold, "threshold", 0, "score at and above which a row is anomalous (0: the model's own)")
	fs.StringVar(&m.key, "model-key", "", "minisign public key, or a file of it, that must have signed models that are not bundled (empty: unsigned ones load)")
	fs.StringVar(&m.library, "onnxruntime", "", "ONNX Runtime library to use (empty: $"+onnx.EnvLibrary+", or look for one)")
}

// badScores counts the scores of the open models that were not from 0 to 1.
func (m *modelFlags) badScores() uint64 { return badScores(m.opened) }

// badScores counts the scores of models of sessions that were not from 0 to 1. Call it
// where they score.
func badScores(opened []detect.Model) (n uint64) {
	for _, d := range opened {
		if s, ok := d.Scorer.(*onnx.Session); ok {
			n += s.BadScores
		}
	}
	return n
}

// unsigned are the models that load from outside the binary without a signature.
func (m *modelFlags) unsigned() []string {
	if m.key != "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.names), bundled)
}

// load reads and vets the models, which takes a child process of up to vetWait for each that is not bundled. They
// may be shared; sessions makes them ready to score.
func (m *modelFlags) load(ctx context.Context) ([]*onnx.Model, error) {
	if !(m.threshold >= 0 && m.threshold <= 1) {
		return nil, fmt.Errorf("--threshold %v: scores lie between 0 and 1", m.threshold)
	}
	v, err := newVetting(m.key, m.library)
	if err != nil {
		return nil, err
	}
	var loaded []*onnx.Model
	for _, name := range m.names {
		model, err := v.open(ctx, name)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, model)
	}
	return loaded, nil
}

// open returns the models ready to score, and what closes them, which is never nil.
func (m *modelFlags) open(ctx context.Context) (opened []detect.Model, closeAll func(), err error) {
	loaded, err := m.load(ctx)
	if err != nil {
		return nil, func() {}, err
	}
	m.opened, closeAll, err = sessions(ctx, m.library, loaded, m.threshold)
	return m.opened, closeAll, err
}

// sessions opens one session for each model, for one goroutine. A threshold of 0 is each model's own. closeAll is
// never nil and safe twice; after an error nothing is open.
func sessions(ctx context.Context, library string, loaded []*onnx.Model, threshold float64) (opened []detect.Model, closeAll func(), err error) {
	var all []*onnx.Session
	closeAll = func() {
		for _, s := range all {
			s.Close()
		}
	}
	lib, err := openLibrary(ctx, library)
	if err != nil {
		return nil, closeAll, err
	}
	for _, m := range loaded {
		s, err := onnx.OpenSession(lib, m)
		if err != nil {
			closeAll()
			return nil, closeAll, err
		}
		all = append(all, s)
		opened = append(opened, detect.Model{Scorer: s, Name: m.Name, Version: m.Version, SHA256: m.SHA256,
			Row: m.Row, Features: m.Features, Typical: m.Typical, Threshold: cmp.Or(threshold, m.Threshold)})
	}
	return opened, closeAll, nil
}

// modelVerbs are what can be done with a model.
var modelVerbs []verb

func init() {
	modelVerbs = []verb{
		{"show", "[FILE|NAME]", "what a model is and wants", show},
		{"check", "[FILE|NAME]", "whether it works on this device, and how fast", check},
		{"sign", "FILE --key SECRETKEYFILE", "write the signature that gateways ask for, in minisign's format", sign},
		{"verify", "FILE --model-key KEY|FILE", "check the signature beside a model", verify},
		{"keygen", "[-o picket.key]", "make a pair of keys for signing", keygen},
		{"vet", "", "", vet}, // the child of vetting.run
	}
}

func model(ctx context.Context, args []string, std stdio) (int, error) {
	if len(args) > 0 {
		for _, v := range modelVerbs {
			if v.name == args[0] {
				return v.run(ctx, args[1:], std)
			}
		}
	}
	fs := flagSet("model", std)
	fs.Usage = func() {
		fmt.Fprintf(std.out, "Usage: picket model VERB\n\n")
		for _, v := range modelVerbs {
			if v.does != "" {
				fmt.Fprintf(std.out, "  picket model %-6s %-26s %s\n", v.name, v.args, v.does)
			}
		}
		fmt.Fprintf(std.out, "\nEach explains its flags with --help.\n")
	}
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	if fs.NArg() == 0 {
		return 0, errors.New("say what to do with a model: picket model show|check|sign|verify|keygen")
	}
	return 0, fmt.Errorf("no picket model %q: show or check, sign or verify, or keygen", fs.Arg(0))
}

// modelFlagSet returns the flags of a verb of models, which print its usage for --help.
func modelFlagSet(name string, std stdio) *pflag.FlagSet {
	return flagSetOf(modelVerbs, "model ", name, std)
}

// oneModel is the model that the arguments name.
func oneModel(fs *pflag.FlagSet) (string, error) {
	switch fs.NArg() {
	case 0:
		return models.Default, nil
	case 1:
		return fs.Arg(0), nil
	}
	return "", fmt.Errorf("picket %s takes one model", fs.Name())
}

func show(_ context.Context, args []string, std stdio) (int, error) {
	fs := modelFlagSet("show", std)
	asJSON := fs.Bool("json", false, "show as JSON")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	name, err := oneModel(fs)
	if err != nil {
		return 0, err
	}
	m, err := readModel(name)
	if err != nil {
		return 0, err
	}
	return exitNothing, showModel(m, *asJSON, std)
}

// readModel reads a model from a file or, when it is the name of one, a bundled one, to look at: it is not vetted.
func readModel(name string) (*onnx.Model, error) {
	m, _, err := new(vetting).read(name)
	return m, err
}

func showModel(m *onnx.Model, asJSON bool, std stdio) error {
	if asJSON {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(m.Metadata)
	}
	var training bytes.Buffer
	if err := json.Compact(&training, m.Training); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s %s\n", report.Printable(m.Name), report.Printable(m.Version))
	t := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "sha256\t%s\nsize\t%d bytes\nscores\trows of a %s, 0 to 1\nthreshold\t%v\ngolden rows\t%d\n", m.SHA256, m.Size, m.Row, m.Threshold, len(m.Golden.Rows))
	fmt.Fprintf(t, "training\t%s\n", report.Printable(training.String()))
	fmt.Fprintf(t, "\nCOLUMN\tTYPICAL\n")
	for i, f := range m.Features {
		note := ""
		if err := features.Check(features.RowKind(m.Row), []string{f}); err != nil {
			note = "\tnot computed by this build"
		}
		fmt.Fprintf(t, "%s\t%v%s\n", report.Printable(f), m.Typical[i], note)
	}
	return t.Flush()
}

// check re-runs a model's golden rows on this device and times it.
func check(ctx context.Context, args []string, std stdio) (int, error) {
	fs := modelFlagSet("check", std)
	key := fs.String("model-key", "", "minisign public key, or a file of it, that must have signed the model if it is not bundled")
	library := fs.String("onnxruntime", "", "ONNX Runtime library to check with (empty: $"+onnx.EnvLibrary+", or look for one)")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	name, err := oneModel(fs)
	if err != nil {
		return 0, err
	}
	v, err := newVetting(*key, *library)
	if err != nil {
		return 0, err
	}
	from := time.Now()
	m, err := v.open(ctx, name)
	if err != nil {
		return 0, err
	}
	took := time.Since(from)
	lib, err := openLibrary(ctx, *library)
	if err != nil {
		return 0, err
	}
	s, err := onnx.OpenSession(lib, m)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := s.CheckGolden(m.Golden); err != nil {
		return 0, err
	}
	fmt.Fprintf(std.out, "%s %s: good. %d columns, %d golden rows score as trained, ONNX Runtime %s\n", report.Printable(m.Name), report.Printable(m.Version), len(m.Features), len(m.Golden.Rows), lib.Version)
	for _, batch := range []int{1, 16, 64} {
		ns, err := timeRows(s, m, batch)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(std.out, "%6.0f ns a row in batches of %d\n", ns, batch)
	}
	if !bundled(name) {
		fmt.Fprintf(std.out, "%6d ms to vet it before it loads\n", took.Milliseconds())
	}
	return exitNothing, nil
}

// timeRows returns the nanoseconds that the session takes for a row in batches of
// the given size.
func timeRows(s *onnx.Session, m *onnx.Model, batch int) (float64, error) {
	rows := make([]float32, 0, batch*len(m.Features))
	for i := range batch {
		if n := len(m.Golden.Rows); n > 0 {
			rows = append(rows, m.Golden.Rows[i%n]...)
		} else {
			rows = append(rows, m.Typical...)
		}
	}
	scores := make([]float32, batch)
	from, n := time.Now(), 0
	for time.Since(from) < 100*time.Millisecond {
		if err := s.Score(rows, scores); err != nil {
			return 0, err
		}
		n += batch
	}
	return float64(time.Since(from).Nanoseconds()) / float64(n), nil
}
