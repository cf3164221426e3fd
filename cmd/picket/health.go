package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/runtime/anonymize"
	"github.com/picket-ids/picket/runtime/detect"
	"github.com/picket-ids/picket/runtime/metrics"
	"github.com/picket-ids/picket/runtime/mqtt"
	"github.com/picket-ids/picket/runtime/onnx"
	"github.com/picket-ids/picket/runtime/spool"
)

// health is the JSON object of the health topic.
type health struct {
	Time       time.Time         `json:"time"`
	Version    string            `json:"version"`
	Uptime     int64             `json:"uptime"` // s
	Packets    uint64            `json:"packets"`
	Bytes      uint64            `json:"bytes"`   // on the wire
	Dropped    uint64            `json:"dropped"` // by the kernel
	Outcomes   map[string]uint64 `json:"outcomes"`
	Interfaces []ifaceHealth     `json:"interfaces"`
	Rows       rowHealth         `json:"rows"`
	Incidents  incidentHealth    `json:"incidents"`
	Events     eventHealth       `json:"events"`
	Queue      *spool.Stats      `json:"queue,omitempty"`
	Broker     *brokerHealth     `json:"broker,omitempty"`
	Memory     memoryHealth      `json:"memory"`
	Problems   []string          `json:"problems"`
}

type ifaceHealth struct {
	Name     string `json:"name"`
	Up       bool   `json:"up"`
	Received uint64 `json:"received"`
	Dropped  uint64 `json:"dropped"` // by the kernel
	Returns  uint64 `json:"returns"` // times that it went away and came back

	Duplicating bool   `json:"duplicating"` // packets come twice now
	Copies      uint64 `json:"copies"`      // second copies left out
	OneWay      bool   `json:"one_way"`     // only one direction is seen
	// TCP connections that acknowledge data which was never seen, and which was.
	OneWayFlows uint64 `json:"one_way_flows"`
	WholeFlows  uint64 `json:"whole_flows"`
}

type rowHealth struct {
	Connections uint64 `json:"connections"` // begun
	Open        int    `json:"open"`        // connections now
	Evicted     uint64 `json:"evicted"`     // connections judged early, as too many were open
	Returned    uint64 `json:"returned"`    // times that an evicted connection came back
	Forgotten   uint64 `json:"forgotten"`   // sources, victims, pairs and domains whose past was lost, as too many were met
	// Roles are the connections with a row by how their client was told from the server; Unsure
	// those whose row accuses nobody, UnsureAnomalous rows that did not for that reason.
	Roles           map[string]uint64 `json:"roles"`
	Unsure          uint64            `json:"unsure"`
	UnsureAnomalous uint64            `json:"unsure_anomalous"`
	Judged          uint64            `json:"judged"`
	Anomalous       uint64            `json:"anomalous"`
	Suppressed      []uint64          `json:"suppressed"` // by each suppression of the config
	BadScores       uint64            `json:"bad_scores"`
}

type incidentHealth struct {
	Open  int64  `json:"open"`
	Total uint64 `json:"total"`
	Early uint64 `json:"early"` // ended before their time, as too many were open
}

type eventHealth struct {
	Waiting  int    `json:"waiting"`  // in memory, for the disk
	Lost     uint64 `json:"lost"`     // as too many waited
	Unqueued uint64 `json:"unqueued"` // published past a queue that could not be written
	Refused  uint64 `json:"refused"`  // given up, as the broker dropped the connection at each try
}

type brokerHealth struct {
	Connected   bool   `json:"connected"`
	Broker      string `json:"broker"`
	Connections uint64 `json:"connections"`
	Attempts    uint64 `json:"attempts"`
}

type memoryHealth struct {
	Resident uint64 `json:"resident"` // octets
}

// sensors are what Home Assistant shows of health.
var sensors = []mqtt.Sensor{
	{Path: "packets", Name: "Packets", Total: true},
	{Path: "dropped", Name: "Dropped packets", Total: true},
	{Path: "incidents.open", Name: "Open incidents"},
	{Path: "rows.open", Name: "Open connections"},
	{Path: "queue.pending", Name: "Events in the queue"},
	{Path: "memory.resident", Name: "Memory", Unit: "B"},
}

// measure takes the counters of all parts. It waits for the workers, a tick at most,
// and without those that are stuck.
func (d *daemon) measure() *health {
	h := &health{Time: time.Now().UTC(), Version: version, Uptime: int64(time.Since(d.started).Seconds()), Outcomes: map[string]uint64{},
		Rows: rowHealth{Roles: map[string]uint64{}, Suppressed: []uint64{}}, Problems: []string{}}
	deadline, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	for n, w := range d.workers {
		var s detect.Stats
		var bad uint64
		var mirrors []capture.Mirror
		if w.do(deadline, func() { s, bad = w.detector.Stats(), badScores(w.models) }) {
			h.add(&s)
			mirrors = s.Mirrors
			h.Rows.BadScores += bad
		} else {
			h.Problems = append(h.Problems, fmt.Sprintf("worker %d does not answer", n))
		}
		for k, s := range w.Live.Stats() {
			if n == 0 {
				h.Interfaces = append(h.Interfaces, ifaceHealth{Name: s.Name, Up: s.Up})
				if s.Away != nil {
					h.Problems = append(h.Problems, fmt.Sprintf("interface %s is away: %v", s.Name, s.Away))
				}
			}
			i := &h.Interfaces[k]
			i.Received += s.Received
			i.Dropped += s.Dropped
			i.Returns = max(i.Returns, s.Returns)
			h.Dropped += s.Dropped
		}
		for _, m := range mirrors {
			if m.Interface < len(h.Interfaces) {
				h.Interfaces[m.Interface].addMirror(&m)
			}
		}
	}
	for _, i := range h.Interfaces {
		if i.OneWay {
			h.Problems = append(h.Problems, fmt.Sprintf("interface %s shows one direction only: %d of %d TCP connections acknowledge data that never came; mirror both directions",
				i.Name, i.OneWayFlows, i.OneWayFlows+i.WholeFlows))
		}
	}
	h.Incidents.Open = d.published.Load()
	h.Events = eventHealth{len(d.events), d.lost.Load(), d.unqueued.Load(), d.refused.Load()}
	if time.Now().Unix()-d.lostAt.Load() < 60 {
		h.Problems = append(h.Problems, "events are lost")
	} else if h.Events.Waiting > maxWaiting/2 {
		h.Problems = append(h.Problems, "the queue does not keep up with the events")
	}
	if h.Rows.BadScores > 0 {
		h.Problems = append(h.Problems, "a model gives scores that are no numbers from 0 to 1")
	}
	if d.queue != nil {
		s := d.queue.Stats()
		h.Queue = &s
		if s.Err != nil {
			h.Problems = append(h.Problems, "the queue cannot be written: "+s.Err.Error())
		}
	}
	if d.client != nil {
		s := d.client.Stats()
		h.Broker = &brokerHealth{s.Connected, s.Broker, s.Connections, s.Attempts}
		if !s.Connected {
			why := "not connected to a broker"
			if s.Err != nil {
				why += ": " + s.Err.Error()
			}
			h.Problems = append(h.Problems, why)
		}
	}
	h.Memory.Resident = metrics.Resident()
	return h
}

// addMirror counts what a worker saw of the interface.
func (i *ifaceHealth) addMirror(m *capture.Mirror) {
	i.Duplicating = i.Duplicating || m.Duplicating
	i.Copies += m.Copies
	i.OneWay = i.OneWay || m.OneWay
	i.OneWayFlows += m.OneWayFlows
	i.WholeFlows += m.WholeFlows
}

// add counts a worker.
func (h *health) add(s *detect.Stats) {
	h.Packets += s.Frames
	h.Bytes += s.Octets
	for o, count := range s.Outcomes {
		if count > 0 {
			h.Outcomes[capture.Outcome(o).String()] += count
		}
	}
	r := &h.Rows
	r.Connections += s.Features.Connections
	r.Open += s.Features.Open
	r.Evicted += s.Features.Evicted
	r.Returned += s.Features.Returned
	r.Forgotten += s.Features.Forgotten
	for role, count := range s.Features.Roles {
		r.Roles[features.Role(role).String()] += count
	}
	r.Unsure += s.Features.Unsure
	r.UnsureAnomalous += s.Unsure
	r.Judged += s.Judged
	r.Anomalous += s.Anomalous
	h.Incidents.Total, h.Incidents.Early = s.Incidents, s.Early // of the common table
	for k, count := range s.Suppressed {
		if k == len(r.Suppressed) {
			r.Suppressed = append(r.Suppressed, 0)
		}
		r.Suppressed[k] += count
	}
}

// report publishes the counters now and then.
func (d *daemon) report() {
	t := time.NewTicker(d.flags.healthEvery)
	defer t.Stop()
	for {
		if payload, err := json.Marshal(d.measure()); err == nil {
			// Without a connection there is nobody to tell.
			d.client.Publish(d.ctx, mqtt.Message{Topic: d.client.Topic(mqtt.TopicHealth), Payload: payload})
		}
		select {
		case <-t.C:
		case <-d.ending:
			return
		}
	}
}

// status is one line for systemctl status.
func (d *daemon) status() string {
	return fmt.Sprintf("watching %v", d.flags.interfaces)
}

// metrics are the counters for Prometheus, and the problems beside them.
func (d *daemon) metrics() ([]metrics.Metric, []string) {
	h := d.measure()
	var all []metrics.Metric
	add := func(kind metrics.Kind, name, help string, value float64, labels ...metrics.Label) {
		all = append(all, metrics.Metric{Name: "picket_" + name, Help: help, Kind: kind, Labels: labels, Value: value})
	}
	counter := func(name, help string, value uint64, labels ...metrics.Label) {
		add(metrics.Counter, name, help, float64(value), labels...)
	}
	gauge := func(name, help string, value float64, labels ...metrics.Label) {
		add(metrics.Gauge, name, help, value, labels...)
	}
	state := func(name, help string, is bool, labels ...metrics.Label) {
		value := 0.0
		if is {
			value = 1
		}
		gauge(name, help, value, labels...)
	}
	counter("packets_total", "Packets read.", h.Packets)
	counter("bytes_total", "Octets of the packets read, on the wire.", h.Bytes)
	for _, o := range outcomes {
		counter("outcomes_total", "Packets by what became of them.", h.Outcomes[o], metrics.Label{Name: "outcome", Value: o})
	}
	for _, i := range h.Interfaces {
		l := metrics.Label{Name: "interface", Value: i.Name}
		state("interface_up", "Whether the interface is there and up.", i.Up, l)
		counter("interface_received_packets_total", "Packets that passed the filter.", i.Received, l)
		counter("interface_dropped_packets_total", "Packets dropped by the kernel, as the ring was full.", i.Dropped, l)
		counter("interface_returns_total", "Times that the interface came back.", i.Returns, l)
		state("interface_duplicating", "Whether most packets come twice.", i.Duplicating, l)
		counter("interface_copies_total", "Second copies of packets, left out while the interface duplicates.", i.Copies, l)
		state("interface_one_way", "Whether one direction of most TCP connections is not seen.", i.OneWay, l)
		counter("interface_one_way_flows_total", "TCP connections that acknowledge data which was never seen.", i.OneWayFlows, l)
		counter("interface_whole_flows_total", "TCP connections that acknowledge data which was seen.", i.WholeFlows, l)
	}
	counter("connections_total", "Connections begun.", h.Rows.Connections)
	gauge("connections_open", "Connections tracked now.", float64(h.Rows.Open))
	counter("connections_evicted_total", "Connections judged early, as too many were open.", h.Rows.Evicted)
	counter("connections_returned_total", "Times that such a connection came back: it gives no row in its first minute.",
		h.Rows.Returned)
	counter("hosts_forgotten_total", "Sources, victims, pairs of both and domains whose past was lost, as too many were met; above 7 a second it may be that of the last 10 minutes.", h.Rows.Forgotten)
	for role := range features.NumRoles {
		counter("roles_total", "Connections with a row by how their client was told from the server.",
			h.Rows.Roles[role.String()], metrics.Label{Name: "by", Value: role.String()})
	}
	counter("roles_unsure_total", "Connections whose row accuses nobody, as their client is a guess or was not seen.",
		h.Rows.Unsure)
	counter("rows_unsure_anomalous_total", "Anomalous rows that are part of no incident, as their client is a guess or was not seen.",
		h.Rows.UnsureAnomalous)
	counter("rows_judged_total", "Rows scored.", h.Rows.Judged)
	counter("rows_anomalous_total", "Rows at or above the threshold that no suppression hid.", h.Rows.Anomalous)
	for k, n := range h.Rows.Suppressed {
		counter("rows_suppressed_total", "Anomalous rows hidden, by suppression in the order of the config.", n, metrics.Label{Name: "suppression", Value: fmt.Sprint(k + 1)})
	}
	counter("bad_scores_total", "Scores that were no numbers from 0 to 1.", h.Rows.BadScores)
	gauge("incidents_open", "Incidents open and told of.", float64(h.Incidents.Open))
	counter("incidents_total", "Incidents opened.", h.Incidents.Total)
	counter("incidents_early_total", "Incidents ended before their time, as too many were open.", h.Incidents.Early)
	counter("events_lost_total", "Events lost, as too many waited for the disk.", h.Events.Lost)
	counter("events_unqueued_total", "Events published past a queue that could not be written.", h.Events.Unqueued)
	counter("events_refused_total", "Events given up, as the broker dropped the connection at each try.", h.Events.Refused)
	if q := h.Queue; q != nil {
		gauge("queue_events", "Events in the queue that are not acknowledged.", float64(q.Pending))
		gauge("queue_bytes", "Octets of the queue on disk.", float64(q.Bytes))
		counter("queue_dropped_events_total", "Events dropped since the queue was made, as it was full.", q.Dropped)
		counter("queue_corrupt_events_total", "Events lost to damage of the disk since the queue was made.", q.Corrupt)
		counter("queue_written_bytes_total", "Octets written to the queue.", q.Written)
	}
	if b := h.Broker; b != nil {
		state("broker_connected", "Whether there is a connection to a broker.", b.Connected)
		counter("broker_connections_total", "Connections made.", b.Connections)
	}
	return all, h.Problems
}

// outcomes are the names of all, so that each has its series from the start.
var outcomes = func() (names []string) {
	for o := range capture.NumOutcomes {
		names = append(names, o.String())
	}
	return names
}()

// modelInfo is what the info topic says of a model.
type modelInfo struct {
	detect.ModelID
	Threshold float64 `json:"threshold"`
}

func modelInfos(loaded []*onnx.Model, threshold float64) (all []modelInfo) {
	for _, m := range loaded {
		i := modelInfo{detect.ModelID{Name: m.Name, Version: m.Version, SHA256: m.SHA256}, m.Threshold}
		if threshold > 0 {
			i.Threshold = threshold
		}
		all = append(all, i)
	}
	return all
}

// setInfo makes the payload of the info topic and publishes it.
func (d *daemon) setInfo(models []modelInfo) {
	r := d.flags
	filter := ""
	if r.anonymize.Mode == anonymize.None { // it may name addresses
		filter = r.live.Filter
	}
	payload, err := json.Marshal(struct {
		Version      string      `json:"version"`
		Started      time.Time   `json:"started"`
		Interfaces   []string    `json:"interfaces"`
		Filter       string      `json:"filter,omitempty"`
		Workers      int         `json:"workers"`
		Models       []modelInfo `json:"models"`
		Suppressions int         `json:"suppressions"`
		Anonymize    string      `json:"anonymize"`
	}{version, d.started.UTC(), r.interfaces, filter, r.workers, models, len(r.suppress), string(r.anonymize.Mode)})
	if err != nil {
		panic(err) // names and numbers only
	}
	d.info.Store(&payload)
	if d.client != nil {
		d.client.Announce(d.client.Topic(mqtt.TopicInfo))
	}
}
