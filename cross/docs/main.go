// Docs turns what `picket help` and each verb's --help print into man pages and completions for bash, zsh and fish:
//
//	docs PICKET DIR
//
// PICKET is an executable that runs on this machine. The program itself carries none of it.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

type flag struct {
	short, long, value, usage string
}

type verb struct {
	name, args, does string
	verbs            []verb // below it: picket model show
	flags            []flag // of those below too
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: docs PICKET DIR")
	}
	about, verbs, err := ask(args[0])
	if err != nil {
		return err
	}
	date, err := sourceDate()
	if err != nil {
		return err
	}
	files := map[string]string{
		"picket.bash": bash(verbs), "_picket": zsh(verbs), "picket.fish": fish(verbs),
		"picket.1": overview(about, verbs, date),
	}
	for _, v := range verbs {
		files["picket-"+v.name+".1"] = page(v, date)
	}
	if err := os.MkdirAll(args[1], 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(args[1], name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sourceDate is the date on the pages: of the sources, so that the same sources give the same files.
func sourceDate() (string, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return "", errors.New("SOURCE_DATE_EPOCH is not set")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC().Format(time.DateOnly), nil
}

// ask runs picket for its help and reads it. What is not in the form that it expects is an error: better no page than
// half a page.
func ask(picket string) (about string, verbs []verb, err error) {
	out, err := help(picket, "help")
	if err != nil {
		return "", nil, err
	}
	about, _, _ = strings.Cut(out, "\n")
	verbs, err = askVerbs(picket, out)
	return about, verbs, err
}

// askVerbs asks for every verb that a help lists in lines "  picket VERB …".
func askVerbs(picket, out string, above ...string) (verbs []verb, err error) {
	begin := "  " + strings.Join(append([]string{"picket"}, above...), " ") + " "
	for line := range strings.Lines(out) {
		rest, ok := strings.CutPrefix(line, begin)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		v, err := askVerb(picket, append(above[:len(above):len(above)], name))
		if err != nil {
			return nil, err
		}
		if gap := strings.LastIndex(strings.TrimSpace(rest), "  "); v.does == "" && gap >= 0 {
			v.does = strings.TrimSpace(rest)[gap+2:]
		}
		verbs = append(verbs, v)
	}
	if len(verbs) == 0 {
		return nil, fmt.Errorf("%s lists no verbs: %q", picket, out)
	}
	return verbs, nil
}

var (
	usageLine = regexp.MustCompile(`^Usage: picket ([a-z ]+) \[flags\] ?(.*)$`)
	flagLine  = regexp.MustCompile(`^ +(?:-(\w), )?--([a-z0-9-]+)(?: ([^\s\[]+))?(?:\[=\S*\])? {2,}(\S.*)$`)
	moreLine  = regexp.MustCompile(`^ {10,}(\S.*)$`)
)

func askVerb(picket string, names []string) (verb, error) {
	name := strings.Join(names, " ")
	out, err := help(picket, append(names[:len(names):len(names)], "--help")...)
	if err != nil {
		return verb{}, err
	}
	wrong := func(line string) error { return fmt.Errorf("%s %s --help: what is %q?", picket, name, line) }
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	v := verb{name: names[len(names)-1]}
	if lines[0] == "Usage: picket "+name+" VERB" {
		v.args = "VERB"
		if v.verbs, err = askVerbs(picket, out, names...); err != nil {
			return verb{}, err
		}
		for _, below := range v.verbs {
			for _, f := range below.flags {
				if !slices.ContainsFunc(v.flags, func(g flag) bool { return g.long == f.long }) {
					v.flags = append(v.flags, f)
				}
			}
		}
		return v, nil
	}
	usage := usageLine.FindStringSubmatch(lines[0])
	if usage == nil || usage[1] != name || len(lines) < 3 {
		return verb{}, wrong(lines[0])
	}
	v.args, v.does = strings.TrimSpace(usage[2]), lines[1]
	host, err := os.Hostname()
	if err != nil {
		return verb{}, err
	}
	for _, line := range lines[2:] {
		if m := flagLine.FindStringSubmatch(line); m != nil {
			v.flags = append(v.flags, flag{m[1], m[2], m[3], m[4]})
		} else if m := moreLine.FindStringSubmatch(line); m != nil && len(v.flags) > 0 {
			v.flags[len(v.flags)-1].usage += " " + m[1]
		} else if line != "" {
			return verb{}, wrong(line)
		}
	}
	if len(v.flags) == 0 {
		return verb{}, wrong(out)
	}
	for i := range v.flags {
		f := &v.flags[i]
		f.usage = strings.ReplaceAll(f.usage, fmt.Sprintf("(default %q)", host), "(default: this machine's name)")
		f.value = strings.TrimSuffix(f.value, "Array")
	}
	return v, nil
}

func help(picket string, args ...string) (string, error) {
	var errs bytes.Buffer
	cmd := exec.Command(picket, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", cmd, err, errs.String())
	}
	return string(out), nil
}

// roff escapes text for a man page.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

func overview(about string, verbs []verb, date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH PICKET 1 %s picket\n.SH NAME\npicket \\- %s\n.SH SYNOPSIS\n.B picket\n.I verb\n[flags]\n", date,
		roff(strings.TrimSuffix(strings.TrimPrefix(about, "Picket "), ".")))
	b.WriteString(".SH VERBS\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, ".TP\n.BR picket\\-%s (1)\n%s\n", roff(v.name), roff(v.does))
	}
	b.WriteString(`.SH EXIT STATUS
Of scan: 0 nothing anomalous, 1 anomalies, 2 error.
.SH FILES
.TP
.I /etc/picket/picket.toml
what the service reads; its keys are the flags of
.BR picket\-run (1)
.TP
.I /etc/picket/conf.d/*.toml
what it reads after that
.TP
.I /etc/picket/mqtt\-password
the broker's password, which systemd passes to the service
.TP
.I /var/lib/picket
the queue of events on disk
.SH ENVIRONMENT
.TP
.B PICKET_ONNXRUNTIME
the ONNX Runtime library to use
.TP
.B PICKET_MQTT_USERNAME, PICKET_MQTT_PASSWORD
for the broker
`)
	return b.String()
}

func page(v verb, date string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH PICKET\\-%s 1 %s picket\n.SH NAME\npicket\\-%s \\- %s\n", strings.ToUpper(v.name), date, v.name, roff(v.does))
	if len(v.verbs) == 0 {
		synopsis(&b, ".SH", v)
	}
	for _, below := range v.verbs {
		fmt.Fprintf(&b, ".SH %s\n%s\n", strings.ToUpper(below.name), roff(below.does))
		below.name = v.name + " " + below.name
		synopsis(&b, ".SS", below)
	}
	b.WriteString(".SH SEE ALSO\n.BR picket (1)\n")
	return b.String()
}

// synopsis writes what is called how, under headings of a level.
func synopsis(b *strings.Builder, heading string, v verb) {
	fmt.Fprintf(b, "%s SYNOPSIS\n.B picket %s\n[flags] %s\n%s FLAGS\n", heading, v.name, roff(v.args), heading)
	for _, f := range v.flags {
		b.WriteString(".TP\n")
		if f.short != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.short)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.long))
		if f.value != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(f.value))
		}
		fmt.Fprintf(b, "\n%s\n", roff(f.usage))
	}
}

// words are to be completed after the name of a verb.
func (v verb) words() string {
	var names []string
	for _, below := range v.verbs {
		names = append(names, below.name)
	}
	return strings.Join(names, " ")
}

// takesFile tells flags whose value is a file.
func (f flag) takesFile() bool {
	return strings.HasSuffix(f.long, "-file") || strings.Contains(f.usage, "file") || f.long == "read" || f.long == "onnxruntime"
}

func bash(verbs []verb) string {
	var names []string
	var cases strings.Builder
	for _, v := range verbs {
		names = append(names, v.name)
		var flags, valued []string
		for _, f := range v.flags {
			flags = append(flags, "--"+f.long)
			if f.value != "" && !f.takesFile() {
				valued = append(valued, "--"+f.long)
			}
		}
		fmt.Fprintf(&cases, "\t%s)\n\t\tflags=%q words=%q valued=%q ;;\n", v.name,
			strings.Join(append(flags, "--help"), " "), v.words(), " "+strings.Join(valued, " ")+" ")
	}
	return `# bash completion for picket
_picket() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} flags words valued
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "` + strings.Join(names, " ") + ` help" -- "$cur"))
		return
	fi
	case ${COMP_WORDS[1]} in
` + cases.String() + `	*) return ;;
	esac
	COMPREPLY=()
	case $valued in *" $prev "*) return ;; esac
	case $cur in
	-*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
	*)
		if [ "$COMP_CWORD" -eq 2 ] && [ -n "$words" ]; then
			COMPREPLY=($(compgen -W "$words" -- "$cur"))
		else
			compopt -o filenames 2>/dev/null
			COMPREPLY=($(compgen -f -- "$cur"))
		fi ;;
	esac
}
complete -F _picket picket
`
}

// quote puts text into single quotes for zsh and fish, without what their completion would take for its own.
func quote(s string) string {
	return "'" + strings.NewReplacer(`'`, `’`, `\`, ``, `[`, `(`, `]`, `)`, `:`, ``).Replace(s) + "'"
}

func zsh(verbs []verb) string {
	var b strings.Builder
	b.WriteString("#compdef picket\nlocal -a verbs\nverbs=(\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, "\t%s\n", "'"+v.name+":"+strings.Trim(quote(v.does), "'")+"'")
	}
	b.WriteString(")\nif (( CURRENT == 2 )); then\n\t_describe verb verbs\n\treturn\nfi\nlocal verb=$words[2]\nshift words\n(( CURRENT-- ))\ncase $verb in\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, "%s)\n\t_arguments -s", v.name)
		for _, f := range v.flags {
			spec := func(name string) {
				what := name + "[" + strings.Trim(quote(f.usage), "'") + "]"
				if f.value != "" {
					what += ":" + f.value + ":"
					if f.takesFile() {
						what += "_files"
					}
				}
				fmt.Fprintf(&b, " \\\n\t\t'*%s'", what)
			}
			if f.short != "" {
				spec("-" + f.short)
			}
			spec("--" + f.long)
		}
		if len(v.verbs) > 0 {
			fmt.Fprintf(&b, " \\\n\t\t'1:what:(%s)'", v.words())
		}
		b.WriteString(" \\\n\t\t'*:file:_files' ;;\n")
	}
	b.WriteString("esac\n")
	return b.String()
}

func fish(verbs []verb) string {
	var b strings.Builder
	b.WriteString("# fish completion for picket\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, "complete -c picket -n __fish_use_subcommand -f -a %s -d %s\n", v.name, quote(v.does))
		on := "-n '__fish_seen_subcommand_from " + v.name + "'"
		if len(v.verbs) > 0 {
			fmt.Fprintf(&b, "complete -c picket %s -a '%s'\n", on, v.words())
		}
		for _, f := range v.flags {
			fmt.Fprintf(&b, "complete -c picket %s -l %s", on, f.long)
			if f.short != "" {
				fmt.Fprintf(&b, " -s %s", f.short)
			}
			if f.value != "" && f.takesFile() {
				b.WriteString(" -r -F")
			} else if f.value != "" {
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", quote(f.usage))
		}
	}
	return b.String()
}
