package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/runtime/detect"
)

// A Gap is a reason why part of what a scan was given was not judged, or was judged
// with less than there was to know.
type Gap struct {
	Reason string `json:"reason"`
	Name   string `json:"name,omitempty"` // of the file or the interface
	// Count of the Of packets, connections or whatever the sentence names were not judged.
	Count uint64      `json:"count,omitempty"`
	Of    uint64      `json:"of,omitempty"`
	Share json.Number `json:"share,omitempty"` // Count / Of, always with a fraction
	// Major means that the verdict holds only for what was judged.
	Major bool `json:"major"`
	// Failed means that nothing anomalous in the rest is not a success either.
	Failed   bool   `json:"-"`
	Sentence string `json:"sentence"` // for people
}

// level is the word before the sentence.
func (g *Gap) level() string {
	if g.Major {
		return "warning"
	}
	return "note"
}

// Reasons of gaps.
const (
	NoPackets        = "no_packets"        // there was none, or none that matches the filter
	FileSkipped      = "file_skipped"      // nothing of the file could be read
	FileCut          = "file_cut"          // the file ends inside a record
	FileFailed       = "file_failed"       // the file could not be read to its end
	Failed           = "failed"            // a model or the reading did, for good
	Interrupted      = "interrupted"       // the scan was
	InterfaceAway    = "interface_away"    // at the end
	KernelDropped    = "kernel_dropped"    // packets that came too fast
	NotDecoded       = "not_decoded"       // packets with headers that cannot be read
	NotIP            = "not_ip"            // packets that hold no IP
	CutPackets       = "cut_packets"       // judged by their headers; of their contents a part is missing
	NoRows           = "no_rows"           // no model made anything of the packets
	BadScores        = "bad_scores"        // scores that are no numbers from 0 to 1
	EarlyConnections = "early_connections" // judged before their ends, as too many were open
	EarlyIncidents   = "early_incidents"   // ended before their time, as too many were open
	ForgottenHosts   = "forgotten_hosts"   // their past was lost, as too many were met
	ClockSteps       = "clock_steps"       // times that packet time ran back
	OneWay           = "one_way"           // an interface shows one direction only
	Duplicating      = "duplicating"       // an interface shows packets twice
)

// From these shares on, a gap is major. Every network has packets that hold no IP, such
// as ARP, spanning tree and EAPOL: of 373 real captures, 50 have 1 % of them or more, ARP
// not counted, and 10 have 10 %. Only 1 of them has 1 % that cannot be decoded.
const (
	majorShare      = 0.01
	majorShareNotIP = 0.10
	// majorForgotten is the number of hosts forgotten in a second from which it may be the
	// past of the last 10 minutes (see features.Stats).
	majorForgotten = 7
)

// Gaps returns all that was not judged, or not fully: what was passed in Lost, and what
// the counters tell.
func (s *Scan) Gaps() []Gap {
	st := &s.Stats
	all := append([]Gap(nil), s.Lost...)
	part := func(reason string, count, of uint64, major bool, sentence string) {
		if count > 0 {
			all = append(all, Part(reason, "", count, of, major, sentence))
		}
	}
	var noIP, broken uint64
	var of, trouble []string
	for o := capture.Outcome(0); o < capture.NumOutcomes; o++ {
		n := st.Outcomes[o]
		if n == 0 || o.HasPacket() || o == capture.Copy {
			continue
		}
		words := outcomeWords(o)
		if o == capture.UnsupportedLink {
			words = fmt.Sprintf(words, linkNames(st.Links))
		}
		words = thousands(n) + " " + words
		if o == capture.ARP || o == capture.NotIP {
			noIP += n
			of = append(of, words)
		} else {
			broken += n
			trouble = append(trouble, words)
		}
	}
	part(NotDecoded, broken, st.Frames, atLeast(broken, st.Frames, majorShare),
		share(broken, st.Frames, "packet")+" could not be decoded: "+strings.Join(trouble, ", "))
	part(NotIP, noIP, st.Frames, atLeast(noIP, st.Frames, majorShareNotIP),
		share(noIP, st.Frames, "packet")+" held no form of IP that Picket knows: "+strings.Join(of, ", "))
	part(CutPackets, st.Cut, st.Frames, false, share(st.Cut, st.Frames, "packet")+
		" were captured in part: their headers were judged, of their contents only what is there")
	part(BadScores, s.BadScores, st.Judged, true, badScores(s.BadScores))
	t := &st.Features
	part(EarlyConnections, t.Evicted, t.Connections, atLeast(t.Evicted, t.Connections, majorShare),
		share(t.Evicted, t.Connections, "connection")+" were judged before their ends, as too many were open (see --max-connections)")
	seconds := max(time.Duration(st.Last-st.First).Seconds(), 1)
	part(ForgottenHosts, t.Forgotten, 0, float64(t.Forgotten) > majorForgotten*seconds,
		"the past of "+count(t.Forgotten, "host")+" was forgotten, as too many were met")
	part(EarlyIncidents, st.Early, 0, false, count(st.Early, "incident")+" ended early, as too many were open")
	part(ClockSteps, t.ClockSteps, 0, false,
		"the clock of the packets was set back "+count(t.ClockSteps, "time")+": what came before was judged apart")
	if st.Judged == 0 && !anyMajor(all) {
		all = append(all, Gap{Reason: NoRows, Count: st.Frames, Of: st.Frames, Share: fraction(1), Major: true,
			Sentence: fmt.Sprintf("%s made no row for a model to judge", count(st.Frames, "packet"))})
	}
	return all
}

// Part is a gap of count in of, 0 if there is no total.
func Part(reason, name string, count, of uint64, major bool, sentence string) Gap {
	g := Gap{Reason: reason, Name: name, Count: count, Of: of, Major: major, Sentence: sentence}
	if of > 0 {
		g.Share = fraction(float64(count) / float64(of))
	}
	return g
}

// Dropped is the gap of packets that the kernel dropped.
func Dropped(iface string, dropped, received uint64) Gap {
	return Part(KernelDropped, iface, dropped, received, atLeast(dropped, received, majorShare),
		fmt.Sprintf("the kernel dropped %s on %s, as they came too fast", share(dropped, received, "packet"), iface))
}

// Mirror is what was not judged because of how the interface or file of this name showed
// its traffic.
func Mirror(name string, m *capture.Mirror) (all []Gap) {
	if m.OneWay {
		flows := m.OneWayFlows + m.WholeFlows
		all = append(all, Part(OneWay, name, m.OneWayFlows, flows, true, fmt.Sprintf(
			"%s shows only one direction: %s acknowledge data that never came (mirror both directions)",
			name, share(m.OneWayFlows, flows, "TCP connection"))))
	}
	if m.Copies > 0 {
		all = append(all, Part(Duplicating, name, m.Copies, 0, true, fmt.Sprintf(
			"%s shows packets twice: %s copies were left out; those before this was certain count double",
			name, thousands(m.Copies))))
	}
	return all
}

// outcomeWords says what is wrong with packets; that of a link type has a place for it.
func outcomeWords(o capture.Outcome) string {
	switch o {
	case capture.ARP:
		return "ARP"
	case capture.NotIP:
		return "of other protocols"
	case capture.Truncated:
		return "cut within their headers (capture with a larger snaplen)"
	case capture.OrphanFragment:
		return "fragments without the first one"
	case capture.BadLength:
		return "with a length that cannot be"
	case capture.BadHeader:
		return "with a header that cannot be"
	case capture.UnsupportedLink:
		return "of link type %s (capture on an Ethernet, cooked, raw IP or loopback interface)"
	}
	return o.String()
}

func linkNames(links []capture.LinkType) string {
	names := make([]string, len(links))
	for k, l := range links {
		names[k] = l.String()
	}
	return strings.Join(names, " and ")
}

func atLeast(n, of uint64, share float64) bool { return n > 0 && float64(n) >= share*float64(of) }

func anyMajor(gaps []Gap) bool {
	for _, g := range gaps {
		if g.Major {
			return true
		}
	}
	return false
}

// share writes "12 of 2,264 packets (0.5 %)". No part is written as 0 or 100 %.
func share(n, of uint64, noun string) string {
	percent := 100 * float64(n) / float64(max(of, 1))
	digits := "%.0f"
	switch {
	case n >= of:
		percent = 100
	case percent < 0.1:
		percent, digits = 0.1, "<%.1f"
	case percent < 10:
		digits = "%.1f"
	default:
		percent = min(percent, 99)
	}
	return fmt.Sprintf("%s of %s %ss ("+digits+" %%)", thousands(n), thousands(of), noun, percent)
}

func badScores(n uint64) string {
	if n == 1 {
		return "1 score was no number from 0 to 1 and counts as 0: the model is broken"
	}
	return thousands(n) + " scores were no numbers from 0 to 1 and count as 0: the model is broken"
}

// fraction writes v as JSON, always with a fraction.
func fraction(v float64) json.Number { return json.Number(fmt.Sprintf("%.6f", v)) }

// Verdicts of a summary.
const (
	Clean     = "nothing_anomalous"
	Anomalous = "anomalous"
	NotJudged = "not_judged" // nothing was: neither clean nor anomalous
)

// Verdict is the answer in one word.
func (s *Scan) Verdict() string {
	switch {
	case s.Stats.Incidents > 0:
		return Anomalous
	case s.Stats.Judged == 0:
		return NotJudged
	}
	return Clean
}

// summary is what Summary writes.
type summary struct {
	Version     string            `json:"version"`
	Gateway     string            `json:"gateway"`
	Verdict     string            `json:"verdict"`
	Complete    bool              `json:"complete"` // no gap is major
	Files       int               `json:"files"`
	Interfaces  int               `json:"interfaces"`
	Filter      string            `json:"filter,omitempty"`
	Start       *time.Time        `json:"start,omitempty"`
	End         *time.Time        `json:"end,omitempty"`
	Packets     uint64            `json:"packets"`
	Bytes       uint64            `json:"bytes"`
	Outcomes    map[string]uint64 `json:"outcomes"`
	Connections uint64            `json:"connections"`
	Rows        summaryRows       `json:"rows"`
	Incidents   summaryIncidents  `json:"incidents"`
	Models      []summaryModel    `json:"models"`
	NotJudged   []Gap             `json:"not_judged"`
}

type summaryRows struct {
	Judged    uint64 `json:"judged"`
	Anomalous uint64 `json:"anomalous"`
}

type summaryIncidents struct {
	Total      uint64            `json:"total"`
	BySeverity map[string]uint64 `json:"by_severity"`
}

type summaryModel struct {
	detect.ModelID
	Threshold float64 `json:"threshold"`
}

// Summary writes what was read, judged and found as one line of JSON: an object that
// holds nothing but picket.summary, which no event has.
func (s *Scan) Summary(w io.Writer) error {
	st := &s.Stats
	out := summary{Version: s.Version, Gateway: s.Gateway, Verdict: s.Verdict(), NotJudged: s.Gaps(),
		Files: s.Files, Interfaces: s.Interfaces, Filter: s.Filter,
		Packets: st.Frames, Bytes: st.Octets, Outcomes: map[string]uint64{}, Connections: st.Features.Connections,
		Rows:      summaryRows{st.Judged, st.Anomalous},
		Incidents: summaryIncidents{st.Incidents, map[string]uint64{}}}
	out.Complete = !anyMajor(out.NotJudged)
	if out.NotJudged == nil {
		out.NotJudged = []Gap{}
	}
	if st.Frames > 0 {
		start, end := utc(st.First), utc(st.Last)
		out.Start, out.End = &start, &end
	}
	for o, n := range st.Outcomes {
		if n > 0 {
			out.Outcomes[capture.Outcome(o).String()] = n
		}
	}
	for k, n := range s.Severities {
		out.Incidents.BySeverity[severity(k)] = n
	}
	for _, m := range s.Models {
		id := detect.ModelID{Name: m.Name, Version: m.Version, SHA256: m.SHA256}
		out.Models = append(out.Models, summaryModel{id, m.Threshold})
	}
	return line(w, map[string]map[string]summary{"picket": {"summary": out}})
}

// severity names that of an event.
func severity(n int) string {
	return [...]string{"informational", "low", "medium", "high"}[min(max(n, 0), 3)]
}
