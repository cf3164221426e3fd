package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/mqtt"
	"github.com/picket-ids/picket/runtime/report"
)

func scan(ctx context.Context, args []string, std stdio) (int, error) {
	var models modelFlags
	var track trackFlags
	var broker mqtt.Config
	fs := flagSet("scan", std)
	files := fs.StringArrayP("read", "r", nil, "capture to read, as an argument does")
	interfaces := fs.StringArrayP("interface", "i", nil, "network interface to watch instead; may be repeated")
	during := fs.Duration("for", time.Minute, "how long to watch interfaces (0: until interrupted)")
	left := fs.Uint64P("count", "c", 0, "packets after which to end (0: no limit)")
	promiscuous := fs.Bool("promiscuous", false, "see packets for other hosts too")
	expr := fs.StringP("filter", "f", "", "judge only the packets that this tcpdump expression matches; that it matches none is an error")
	asJSON := fs.Bool("json", false, "write events to standard output, one JSON object a line; the last is a summary")
	page := fs.String("report", "", "also write the answer as an HTML page to this file")
	quiet := fs.BoolP("quiet", "q", false, "write no table and no progress: the exit code, warnings and errors (and JSON, if asked for)")
	gateway := fs.String("gateway", hostname(), "name of this gateway in events and topics")
	wait := fs.Duration("mqtt-wait", 30*time.Second, "how long to wait for the broker's acknowledgements at the end")
	models.addFlags(fs)
	track.addFlags(fs)
	broker.AddFlags(fs)
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	loaded, closeModels, err := models.open(ctx)
	defer closeModels()
	if err != nil {
		return 0, err
	}

	if *expr != "" {
		if _, err := capture.NewFilter(*expr, capture.LinkEthernet); err != nil {
			return 0, err
		}
	}
	if *wait <= 0 {
		return 0, fmt.Errorf("--mqtt-wait %v: give a time above 0", *wait)
	}
	names := append(*files, fs.Args()...)
	var live *capture.Live
	if len(*interfaces) > 0 {
		if len(names) > 0 {
			return 0, fmt.Errorf("both an interface (%s) and a capture (%s) to scan: give one of them", (*interfaces)[0], names[0])
		}
		if *during < 0 {
			return 0, fmt.Errorf("--for %v: give a time from 0", *during)
		}
		if live, err = capture.Listen(*interfaces, capture.LiveConfig{Filter: *expr, Promiscuous: *promiscuous, Tick: tick}); err != nil {
			return 0, err
		}
		defer live.Close()
		own := ownTraffic{lives: []*capture.Live{live}, log: slog.New(slog.NewTextHandler(std.err, nil))}
		broker.OnConnect = own.leaveOut
		names = *interfaces
	} else if len(names) == 0 {
		return 0, errNoCapture
	}
	out := &outlets{std: std, json: *asJSON}
	if len(broker.URLs) > 0 {
		broker.Gateway = *gateway
		if out.mqtt, err = mqtt.Dial(ctx, broker); err != nil {
			return 0, err
		}
		out.wait = *wait
	}
	home, err := track.home()
	if err != nil {
		return 0, err
	}
	cfg := detect.Config{Gateway: *gateway, Version: version, Models: loaded, MaxConnections: track.connections, Early: track.early, Home: home,
		Emit: func(e *detect.Event) { out.emit(ctx, e) }}
	if live != nil {
		cfg.MaxWait, cfg.StepBack = tick, stepBack
	}
	d, err := detect.New(cfg)
	if err != nil {
		return 0, err
	}
	limit := func(src capture.Source) capture.Source { return src }
	if *left > 0 {
		limit = func(src capture.Source) capture.Source { return &limited{src, left} }
	}
	r := report.Scan{Name: strings.Join(names, ", "), Version: version, Gateway: *gateway, Filter: *expr, Models: loaded}
	var readErr error
	if live != nil {
		r.Interfaces = len(names)
		r.Lost, readErr = readLive(ctx, live, *during, std, *quiet, func(src capture.Source) error {
			// Interrupted, it ends as it would have: by Close.
			return d.Run(context.WithoutCancel(ctx), limit(src))
		})
	} else {
		r.Files = len(names)
		r.Lost, readErr = scanCaptures(ctx, names, std, *quiet, func(src capture.Source) (bool, error) {
			err := d.Run(ctx, limit(newFiltered(src, *expr)))
			return d.Err() != nil, err
		})
	}
	if err := errors.Join(readErr, d.Finish()); err != nil {
		r.Lost = append(r.Lost, report.Gap{Reason: report.Failed, Major: true, Failed: true, Sentence: oneLine(err)})
	}
	r.Stats, r.BadScores, r.Incidents, r.Severities = d.Stats(), models.badScores(), out.worst(), out.severities
	if r.Stats.Frames == 0 && len(r.Lost) == 0 {
		r.Lost = []report.Gap{noPackets(names, *expr, live != nil)}
	}
	r.Lost = append(r.Lost, mirrorGaps(r.Stats.Mirrors, names, live != nil)...)
	nothing := r.Verdict() == report.NotJudged
	table := !*quiet && !*asJSON && !nothing                        // else it would look like an answer
	if !table || terminal(std.out) == 0 || terminal(std.err) == 0 { // else the person reads them in the table
		warn(std.err, r.Gaps(), nothing)
	}
	var reportErr error
	if *asJSON && out.err == nil {
		reportErr = r.Summary(std.out)
	}
	if table {
		reportErr = r.Write(std.out, terminal(std.out))
	}
	if *page != "" {
		reportErr = errors.Join(reportErr, writeFile(*page, names, r.HTML))
	}
	if err := errors.Join(reportErr, out.close()); err != nil {
		return 0, err
	}
	failed := slices.ContainsFunc(r.Lost, func(g report.Gap) bool { return g.Failed })
	switch {
	case r.Stats.Incidents > 0:
		return exitFound, nil
	case nothing || failed:
		return exitError, nil
	}
	return exitNothing, nil
}

// warn tells of what the answer does not hold for: what could not be read in a line
// each, and the reasons why nothing could be judged in one.
func warn(w io.Writer, gaps []report.Gap, nothing bool) {
	var why []string
	for _, g := range gaps {
		switch {
		case g.Failed:
			fmt.Fprintf(w, "picket: %s\n", g.Sentence)
		case g.Major && nothing:
			why = append(why, g.Sentence)
		case g.Major:
			fmt.Fprintf(w, "picket: warning: %s\n", g.Sentence)
		}
	}
	if len(why) > 0 {
		fmt.Fprintf(w, "picket: nothing could be judged: %s\n", strings.Join(why, "; "))
	}
}

// noPackets is the gap of a scan that found none.
func noPackets(names []string, filter string, live bool) report.Gap {
	that := ""
	if filter != "" {
		that = fmt.Sprintf(" that matches the filter %q", filter)
	}
	g := report.Gap{Reason: report.NoPackets, Major: true}
	switch {
	case live:
		g.Sentence = fmt.Sprintf("no packet%s came on %s (longer: --for; packets for other hosts: --promiscuous)",
			that, strings.Join(names, ", "))
	case that != "":
		g.Sentence = fmt.Sprintf("the capture holds no packet%s", that)
	default:
		g.Sentence = "the capture holds no packets"
	}
	return g
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "picket"
	}
	return name
}

// maxListed bounds the incidents that are listed for people: the worst.
const maxListed = 1000

// outlets are where the events of a scan go.
type outlets struct {
	std  stdio
	json bool
	mqtt *mqtt.Client
	wait time.Duration

	incidents  []*detect.Event // the last event of the worst, for people
	severities [4]uint64       // of all incidents
	unsent     int             // events that the broker client did not take
	err        error
}

func (o *outlets) emit(ctx context.Context, e *detect.Event) {
	if e.Picket.Phase == detect.PhaseEnd {
		o.severities[min(max(e.Event.Severity, 0), len(o.severities)-1)]++
		if o.incidents = append(o.incidents, e); len(o.incidents) == 2*maxListed {
			o.worst()
		}
	}
	if o.json && o.err == nil {
		o.err = report.JSON(o.std.out, e)
	}
	if o.mqtt == nil {
		return
	}
	if o.unsent > 0 { // do not wait again for a broker that is gone
		o.unsent++
		return
	}
	// An interrupted scan still tells of what it found.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.wait)
	defer cancel()
	var b strings.Builder
	if err := report.JSON(&b, e); err != nil {
		o.err = err
	}
	payload := []byte(strings.TrimSuffix(b.String(), "\n"))
	if err := o.mqtt.Publish(ctx, mqtt.Message{Topic: o.mqtt.Topic(mqtt.TopicEvent), Payload: payload, QoS: 1}); err != nil {
		o.unsent++
	}
}

// worst keeps the incidents that are listed, and returns them.
func (o *outlets) worst() []*detect.Event {
	if len(o.incidents) > maxListed {
		slices.SortStableFunc(o.incidents, report.Worse)
		o.incidents = slices.Clip(o.incidents[:maxListed])
	}
	return o.incidents
}

// close waits until the broker has acknowledged all events.
func (o *outlets) close() error {
	if o.mqtt == nil {
		return o.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.wait)
	defer cancel()
	_, err := o.mqtt.Close(ctx)
	if o.unsent > 0 {
		err = errors.Join(fmt.Errorf("%d events not sent, as the broker took none for %v", o.unsent, o.wait), err)
	}
	return errors.Join(o.err, err)
}
