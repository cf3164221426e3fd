// Picket watches the traffic of a gateway and says what is anomalous.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/picket-ids/picket/runtime/onnx"
	"github.com/picket-ids/picket/runtime/report"
)

// version is set by the build.
var version = "devel"

// Exit codes. Of a scan that found something and could not read something, the first counts.
const (
	exitNothing = 0 // nothing anomalous, or done
	exitFound   = 1 // anomalies
	exitError   = 2 // or nothing could be judged
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not listen, a read that waits
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// stdio is what a verb reads and writes: JSON and other results to out, words
// about them to err.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// verb is one command. It returns an exit code; an error means exitError.
type verb struct {
	name, args, does string
	run              func(ctx context.Context, args []string, std stdio) (int, error)
}

var verbs []verb

func init() {
	verbs = []verb{
		{"scan", "FILE...|-|-i IFACE", "read captures or an interface once, say what is anomalous", scan},
		{"run", "-i IFACE --mqtt URL", "watch interfaces for years, publish what is anomalous", watch},
		{"extract", "FILE... | -", "write rows of features as CSV or Parquet, to train on", extract},
		{"features", "", "list the features that models can ask for", listFeatures},
		{"model", "show|check|sign|...", "what a model is; whether it works here; sign and verify it", model},
		{"version", "", "versions of picket and of ONNX Runtime", printVersion},
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	std := stdio{stdin, stdout, stderr}
	if len(args) == 0 {
		usage(stderr)
		return exitError
	}
	switch args[0] {
	case "-h", "--help", "help":
		usage(stdout)
		return exitNothing
	case "--version":
		args = []string{"version"}
	}
	for _, v := range verbs {
		if v.name != args[0] {
			continue
		}
		code, err := v.run(ctx, args[1:], std)
		if errors.Is(err, pflag.ErrHelp) {
			return exitNothing
		}
		if err != nil {
			for _, line := range mistakes(err) {
				fmt.Fprintf(stderr, "picket: %s\n", line)
			}
			return exitError
		}
		return code
	}
	fmt.Fprintf(stderr, "picket: no verb %q (see picket help)\n", args[0])
	return exitError
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "Picket watches the traffic of a gateway and says what is anomalous.\n\n")
	for _, v := range verbs {
		fmt.Fprintf(w, "  picket %-8s %-20s %s\n", v.name, v.args, v.does)
	}
	fmt.Fprintf(w, "\nEach verb explains its flags with --help. Exit codes of scan: 0 nothing anomalous,\n1 anomalies, 2 error, or nothing could be judged.\n")
}

// mistakes returns a line for each of the errors that were joined, each once.
func mistakes(err error) (lines []string) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || fmt.Sprint(errors.Join(joined.Unwrap()...)) != err.Error() { // as fmt.Errorf's with two
		return []string{oneLine(err)}
	}
	for _, e := range joined.Unwrap() {
		for _, line := range mistakes(e) {
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// oneLine writes joined errors in one line.
func oneLine(err error) string {
	var lines []string
	for _, line := range strings.Split(err.Error(), "\n") {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return report.Printable(strings.Join(lines, "; "))
}

// flagSet returns the flags of a verb, which print its usage for --help.
func flagSet(name string, std stdio) *pflag.FlagSet { return flagSetOf(verbs, "", name, std) }

// flagSetOf is flagSet of a list of verbs that stand behind words of a command line.
func flagSetOf(list []verb, words, name string, std stdio) *pflag.FlagSet {
	fs := pflag.NewFlagSet(words+name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetOutput(std.err)
	for _, v := range list {
		if v.name == name {
			fs.Usage = func() {
				fmt.Fprintf(std.out, "Usage: picket %s [flags] %s\n%s\n\n", fs.Name(), v.args, v.does)
				fmt.Fprint(std.out, fs.FlagUsagesWrapped(80))
			}
		}
	}
	return fs
}

// parse parses args and points at --help when they are wrong.
func parse(fs *pflag.FlagSet, args []string) error {
	err := fs.Parse(args)
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return fmt.Errorf("%w (see picket %s --help)", err, fs.Name())
	}
	return err
}

func printVersion(ctx context.Context, args []string, std stdio) (int, error) {
	fs := flagSet("version", std)
	library := fs.String("onnxruntime", "", "ONNX Runtime library to use (empty: $"+onnx.EnvLibrary+", or look for one)")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "devel" && info.Main.Version != "" {
		v = info.Main.Version
	}
	fmt.Fprintf(std.out, "picket %s (%s, %s/%s)\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	lib, err := openLibrary(ctx, *library)
	if err != nil {
		fmt.Fprintf(std.out, "ONNX Runtime: %s\n", oneLine(err))
		if errors.Is(err, onnx.ErrNoLibrary) {
			return exitNothing, nil
		}
		return exitError, nil // packages ask this way whether picket runs here
	}
	fmt.Fprintf(std.out, "ONNX Runtime %s (%s)\n", lib.Version, lib.Path)
	return exitNothing, nil
}

// terminal returns the columns of w, 0 when it is no terminal.
func terminal(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
