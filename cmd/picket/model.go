package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/models"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/onnx"
)

// modelFlags say which models to run, and with what.
type modelFlags struct {
	names     []string
	library   string
	threshold float64
	sessions  []*onnx.Session
}

// badScores counts the scores of the open models that were not from 0 to 1.
func (m *modelFlags) badScores() (n uint64) {
	for _, s := range m.sessions {
		n += s.BadScores
	}
	return n
}

func (m *modelFlags) addFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&m.names, "model", "m", []string{models.Default}, "model to score with: a file, or a bundled one by name; may be repeated")
	fs.Float64Var(&m.threshold, "threshold", 0, "score at and above which a row is anomalous (0: the model's own)")
	fs.StringVar(&m.library, "onnxruntime", "", "ONNX Runtime library to use (empty: $"+onnx.EnvLibrary+", or look for one)")
}

// readModel reads a model from a file or, when there is none of that name, from
// the bundled ones.
func readModel(name string) (*onnx.Model, error) {
	if !strings.ContainsAny(name, "/.") && slices.Contains(models.Names(), name) {
		data, err := models.Read(name)
		if err != nil {
			return nil, err
		}
		return onnx.Parse(data, name)
	}
	m, err := onnx.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; bundled models: %s", err, strings.Join(models.Names(), ", "))
	}
	return m, err
}

// open returns the models ready to score, and what closes them.
func (m *modelFlags) open() (loaded []detect.Model, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range m.sessions {
			s.Close()
		}
	}
	if !(m.threshold >= 0 && m.threshold <= 1) {
		return nil, closeAll, fmt.Errorf("--threshold %v: scores lie between 0 and 1", m.threshold)
	}
	for _, name := range m.names {
		model, err := readModel(name)
		if err != nil {
			return nil, closeAll, err
		}
		if err := features.Check(features.RowKind(model.Row), model.Features); err != nil {
			return nil, closeAll, fmt.Errorf("open model %s: %w", name, err)
		}
		lib, err := onnx.OpenLibrary(m.library)
		if err != nil {
			return nil, closeAll, err
		}
		s, err := onnx.OpenSession(lib, model)
		if err != nil {
			return nil, closeAll, err
		}
		m.sessions = append(m.sessions, s)
		threshold := model.Threshold
		if m.threshold > 0 {
			threshold = m.threshold
		}
		loaded = append(loaded, detect.Model{Scorer: s, Name: model.Name, Version: model.Version, SHA256: model.SHA256,
			Row: model.Row, Features: model.Features, Typical: model.Typical, Threshold: threshold})
	}
	return loaded, closeAll, nil
}

func model(_ context.Context, args []string, std stdio) (int, error) {
	fs := flagSet("model", std)
	asJSON := fs.Bool("json", false, "show as JSON")
	library := fs.String("onnxruntime", "", "ONNX Runtime library to check with (empty: $"+onnx.EnvLibrary+", or look for one)")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	if fs.NArg() < 1 || fs.NArg() > 2 {
		return 0, errors.New("say what to do with a model: picket model show|check [FILE|NAME]")
	}
	name := models.Default
	if fs.NArg() == 2 {
		name = fs.Arg(1)
	}
	switch fs.Arg(0) {
	case "show":
		m, err := readModel(name)
		if err != nil {
			return 0, err
		}
		return exitNothing, showModel(m, *asJSON, std)
	case "check":
		return exitNothing, checkModel(name, *library, std)
	}
	return 0, fmt.Errorf("no picket model %q: show or check", fs.Arg(0))
}

func showModel(m *onnx.Model, asJSON bool, std stdio) error {
	if asJSON {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(m.Metadata)
	}
	fmt.Fprintf(std.out, "%s %s\n", m.Name, m.Version)
	t := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "sha256\t%s\nsize\t%d bytes\nscores\trows of a %s, 0 to 1\nthreshold\t%v\ngolden rows\t%d\n", m.SHA256, m.Size, m.Row, m.Threshold, len(m.Golden.Rows))
	fmt.Fprintf(t, "training\t%s\n", m.Training)
	fmt.Fprintf(t, "\nCOLUMN\tTYPICAL\n")
	for i, f := range m.Features {
		note := ""
		if err := features.Check(features.RowKind(m.Row), []string{f}); err != nil {
			note = "\tnot computed by this build"
		}
		fmt.Fprintf(t, "%s\t%v%s\n", f, m.Typical[i], note)
	}
	return t.Flush()
}

// checkModel re-runs a model's golden rows on this device and times it.
func checkModel(name, library string, std stdio) error {
	m, err := readModel(name)
	if err != nil {
		return err
	}
	if err := features.Check(features.RowKind(m.Row), m.Features); err != nil {
		return fmt.Errorf("check model %s: %w", name, err)
	}
	lib, err := onnx.OpenLibrary(library)
	if err != nil {
		return err
	}
	s, err := onnx.OpenSession(lib, m)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.CheckGolden(m.Golden); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s %s: good. %d columns, %d golden rows score as trained, ONNX Runtime %s\n", m.Name, m.Version, len(m.Features), len(m.Golden.Rows), lib.Version)
	for _, batch := range []int{1, 16, 64} {
		ns, err := timeRows(s, m, batch)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.out, "%6.0f ns a row in batches of %d\n", ns, batch)
	}
	return nil
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
