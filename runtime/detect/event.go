package detect

import (
	"fmt"
	"strings"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
)

// ecsVersion is that of the Elastic Common Schema whose field names an Event uses.
const ecsVersion = "8.17.0"

// An Event is one phase of one incident, as published: a JSON object in the
// field names of the Elastic Common Schema, and under picket what it has no
// name for. It owns its memory.
type Event struct {
	Timestamp   time.Time `json:"@timestamp"` // on the packet clock
	ECS         ecs       `json:"ecs"`
	Message     string    `json:"message"` // for a person
	Event       eventInfo `json:"event"`
	Observer    observer  `json:"observer"`
	Source      *endpoint `json:"source"`
	Destination *endpoint `json:"destination"`
	Network     network   `json:"network"`
	Picket      Details   `json:"picket"`
}

type ecs struct {
	Version string `json:"version"`
}

type eventInfo struct {
	ID       string    `json:"id"` // the same traffic gives the same, for subscribers to drop duplicates by
	Kind     string    `json:"kind"`
	Category []string  `json:"category"`
	Type     []string  `json:"type"`
	Action   string    `json:"action"`     // incident-new, incident-update or incident-end
	Risk     float64   `json:"risk_score"` // 100 times the score
	Severity int       `json:"severity"`   // 1 low, 2 medium, 3 high
	Start    time.Time `json:"start"`      // first packet
	End      time.Time `json:"end"`        // last packet
	Sequence uint64    `json:"sequence"`   // without gaps, from 1: of this process, or of the gateway's queue on disk
}

type observer struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Product string `json:"product"`
	Version string `json:"version"`
}

type endpoint struct {
	IP      string `json:"ip"`
	Port    uint16 `json:"port,omitempty"` // of the connection with the highest score
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

type network struct {
	Type        string `json:"type"`
	Transport   string `json:"transport"`
	Protocol    string `json:"protocol,omitempty"`
	CommunityID string `json:"community_id"` // of the connection with the highest score
	Packets     uint64 `json:"packets"`
	Bytes       uint64 `json:"bytes"`
}

// Phases of an incident.
const (
	PhaseNew    = "new"
	PhaseUpdate = "update"
	PhaseEnd    = "end"
)

// Details are what an Event says of its incident beyond the schema.
type Details struct {
	Phase       string     `json:"phase"`
	Incident    string     `json:"incident"`     // shared by all phases of one
	Rows        uint64     `json:"rows"`         // anomalous ones
	Connections uint64     `json:"connections"`  // of these rows; of those that had an ordinary row first, an estimate from 16
	Refused     uint64     `json:"refused"`      // of these, unanswered or turned away
	Sources     int        `json:"sources"`      // distinct; an estimate from 16
	Targets     int        `json:"destinations"` // likewise
	Ports       int        `json:"ports"`        // likewise, of the destinations
	Score       float64    `json:"score"`        // the highest
	Threshold   float64    `json:"threshold"`
	Model       ModelID    `json:"model"`            // whose score that is
	Models      []Opinion  `json:"models,omitempty"` // of each, when there are several
	Why         []Evidence `json:"why"`
	Tunnel      *Tunnel    `json:"tunnel,omitempty"`
	Clock       string     `json:"clock,omitempty"` // Unsynchronised, or nothing
}

// Unsynchronised says that the times of an Event are those of a clock that nobody has set yet.
const Unsynchronised = "unsynchronised"

// Tunnel is what the connection with the highest score was inside of.
type Tunnel struct {
	Kind        string `json:"kind"`
	ID          uint32 `json:"id"` // TEID, VNI or key, 0 when the kind has none
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

// ModelID names a model.
type ModelID struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

// An Opinion is what one of several models says of an incident.
type Opinion struct {
	Name      string  `json:"name"`
	Score     float64 `json:"score"` // the highest
	Threshold float64 `json:"threshold"`
	Anomalous bool    `json:"anomalous"`
}

// Evidence is a feature that drove a score, by Effect: the mean of its fall when the
// feature alone is put back to its typical value, and of the rise of a typical row's
// score when the feature alone is put in.
type Evidence struct {
	Feature string  `json:"feature"`
	Value   float64 `json:"value"`
	Typical float64 `json:"typical"`
	Effect  float64 `json:"effect"`
}

func (e Evidence) String() string {
	if strings.Contains(e.Feature, "=") { // one-hot
		if e.Value == 1 {
			return e.Feature
		}
		return "not " + e.Feature
	}
	return fmt.Sprintf("%s %s (typical %s)", e.Feature, e.word(e.Value), e.word(e.Typical))
}

// word is the name of a categorical value, or a number in at most four digits.
func (e Evidence) word(v float64) string {
	if name := features.ValueName(e.Feature, v); name != "" {
		return name
	}
	return fmt.Sprintf("%.4g", v)
}

func utc(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// message says in words what an incident is; r is its peak with the addresses to show.
func (i *incident) message(r *features.Row) string {
	what := "acts unusually towards"
	targets, ports, sources := i.targets.Count(), i.portCount(), i.sources.Count()
	who, whom := r.Src.String(), r.Dst.String()
	service := features.ServiceName(r.Proto, r.DstPort)
	switch {
	case sources > 1:
		who = fmt.Sprintf("%d sources", sources)
		what = "act unusually towards"
		if i.connections >= manyConnections {
			what = "flood"
		}
		if targets > 1 {
			whom = hosts(targets, whom)
		} else {
			whom += on(service)
		}
	case targets >= severalPeers:
		what, whom = "sweeps", fmt.Sprintf("%d hosts", targets)
	case ports >= severalPeers:
		what, whom = "probes", hosts(targets, whom)
	case i.connections >= manyConnections:
		what, whom = "floods", hosts(targets, whom)+on(service)
	case targets > 1:
		whom = hosts(targets, whom)
	default:
		whom += on(service)
	}
	s := fmt.Sprintf("%s %s %s: %s", who, what, whom, plural(i.connections, "connection"))
	if i.connections == 0 {
		s = fmt.Sprintf("%s %s %s: %s", who, what, whom, plural(i.rows, "packet"))
	}
	if ports >= severalPeers {
		s += fmt.Sprintf(" to %d ports", ports)
	}
	if i.refused > 0 {
		s += fmt.Sprintf(", %d refused or unanswered", i.refused)
	}
	return s
}

const (
	severalPeers    = 5   // hosts or ports, of a sweep or a probe
	manyConnections = 100 // of a flood
)

func hosts(n int, one string) string {
	if n > 1 {
		return fmt.Sprintf("%d hosts", n)
	}
	return one
}

func on(service string) string {
	if service == "" {
		return ""
	}
	return " (" + service + ")"
}

func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// severity rates an incident: high from 100 connections or from 10 that the
// model is sure of, medium from 5.
func (i *incident) severity() int {
	switch {
	case i.connections >= manyConnections, i.connections >= 10 && i.score >= 0.99:
		return 3
	case i.connections >= 5:
		return 2
	}
	return 1
}

func transport(proto uint8) string {
	switch proto {
	case capture.ProtoTCP:
		return "tcp"
	case capture.ProtoUDP:
		return "udp"
	case capture.ProtoSCTP:
		return "sctp"
	case capture.ProtoICMP:
		return "icmp"
	case capture.ProtoICMPv6:
		return "ipv6-icmp"
	}
	return fmt.Sprintf("ip-%d", proto)
}

func networkType(a capture.Addr) string {
	if a.Netip().Is4() {
		return "ipv4"
	}
	return "ipv6"
}
