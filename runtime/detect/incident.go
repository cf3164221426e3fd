package detect

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
)

const (
	second = int64(1e9)
	// openDelay lets the first event of an incident tell more than its first
	// connection.
	openDelay = second * 7 / 10
	// crampedDelay is that of a small incident while there is little room.
	crampedDelay = 30 * second
	// updateInterval is the least between two updates of an incident.
	updateInterval = 60 * second
	// quietTime ends an incident that has no new row for as long. A connection
	// that goes on gives a row each minute.
	quietTime = 120 * second
	// crowd is the number of sources from which the incidents of one victim
	// become one.
	crowd = 8
	// maxUnsure bounds the victims of unsure rows that are counted at a time.
	maxUnsure = 64
	// maxIncidents bounds the incidents open at a time.
	maxIncidents = 256
	// maxNew bounds the incidents of a minute that are told of, of those with fewer and
	// those with more than manyConnections each. The others become one, the spray.
	maxNew = 60
	// loud: a source, or a crowd, that has manyConnections and one in so many of the
	// spray's is told of all the same: they cannot be more.
	loud = 16
	// sprayMemory is how often what the spray remembers of sources counts half.
	sprayMemory = 600 * second

	// alike are scores that differ by less: of these the first row counts. Processors
	// round the last digits of a model's arithmetic differently.
	alike = 1e-4

	never = int64(1<<63 - 1)
)

// incident is a run of anomalous rows of one source, or of a crowd of sources
// towards one victim.
// All times are nanoseconds on the packet clock.
type incident struct {
	id             string
	source, victim capture.Addr // of the first row
	crowded        bool         // the victim's, not the source's
	spray          bool         // of all that there is no room for
	several        bool         // not all rows are towards victim
	before         uint64       // connections that the spray already has of the same source or crowd
	start, end     int64        // first and last packet
	opened         int64        // first row
	lastRow        int64
	lastEvent      int64
	events         int
	news           bool // rows since the last event

	rows                 uint64 // anomalous ones
	connections, refused uint64 // connections: begun and joined
	begun                uint64 // by their first row
	joined               uint64 // by later rows only
	firsts               features.Sketch
	later                *features.Sketch // connections by rows that are not their first; nil for none
	packets, octets      [2]uint64
	sources, targets     features.Sketch
	ports                features.Sketch

	score   float64      // the highest
	model   *scorer      // what gave it, or one alike before it:
	peak    features.Row // its Values are the incident's own
	peaked  float64      // its score
	scores  []float64    // the highest of each model
	verdict *verdict     // of a model that is not loaded any more, in the place of model
}

// verdict is what an event says of the model that gave the highest score.
type verdict struct {
	model     ModelID
	threshold float64
	why       []Evidence
}

// due returns when the incident's next event is. While there is little room, one of
// a few rows is not published at once: it may have to make way unheard, so that
// traffic made of endless pairs of addresses gives no endless events.
func (t *Incidents) due(i *incident) int64 {
	switch quiet := i.lastRow + quietTime; {
	case i.events == 0 && i.rows < severalPeers && len(t.open) > maxIncidents*3/4:
		return i.opened + crampedDelay
	case i.events == 0:
		return i.opened + openDelay
	case i.news:
		return min(quiet, i.lastEvent+updateInterval)
	default:
		return quiet
	}
}

// Incidents is a table of open incidents.
type Incidents struct {
	mu sync.Mutex // held for a batch of rows, and by none for long

	open     []*incident // in the order in which they opened
	bySource map[capture.Addr]*incident
	byVictim map[capture.Addr]*incident // the crowded ones
	unsure   [maxUnsure]unsureVictim
	spray    *incident // nil while there is room
	sprayers sprayers  // of spray
	minute   int64     // of told
	told     [2]int    // new ones of that minute: few connections, many
	next     int64     // no event is due earlier
	total    uint64
	early    uint64 // ended before their time, for want of room
	sequence uint64
	users    int       // Detectors that have not finished
	models   []*scorer // of the Detector that swapped last, for their places in scores
}

// NewIncidents returns an empty table.
func NewIncidents() *Incidents {
	return &Incidents{bySource: map[capture.Addr]*incident{}, byVictim: map[capture.Addr]*incident{}, next: never}
}

// swap makes the table ready for models in the place of d's: what d's said of the
// open incidents is written down, and the scores move to the places of the models
// of the same names.
func (t *Incidents) swap(d *Detector, models []*scorer) {
	for _, i := range t.open {
		if i.model != nil {
			m := d.models[i.model.index]
			i.verdict, i.model = &verdict{m.id(), m.Threshold, d.explain(m, i.peak.Values)}, nil
		}
		scores := make([]float64, len(models))
		for k, m := range models {
			if old := slices.IndexFunc(t.models, func(o *scorer) bool { return o.Name == m.Name }); old >= 0 {
				scores[k] = i.scores[old]
			}
		}
		i.scores = scores
	}
	t.models = models
}

// join returns the incident that r belongs to, a new one if need be: that of its
// source, or else that of the crowd around its victim.
func (t *Incidents) join(r *features.Row) *incident {
	if i := t.bySource[r.Src]; i != nil && !r.Unsure {
		return i
	}
	if i := t.byVictim[r.Dst]; i != nil {
		return i
	}
	i := &incident{source: r.Src, victim: r.Dst, start: r.Start, end: r.End, opened: r.Time, lastRow: r.Time,
		crowded: r.Unsure, scores: make([]float64, len(t.models))}
	t.open = append(t.open, i)
	if i.crowded {
		t.byVictim[r.Dst] = i
	} else {
		t.bySource[r.Src] = i
	}
	t.total++
	t.next = min(t.next, t.due(i))
	i.before = t.sprayers.least(i.sprayer())
	if i.crowded {
		return i
	}
	return t.gather(i)
}

// unsureVictim counts the anomalous rows towards one address whose sources nobody may
// accuse, see features.Row.
type unsureVictim struct {
	addr    capture.Addr
	rows    uint64
	lastRow int64
	sources features.Sketch
}

// crowded reports whether an unsure row belongs to a crowd of sources around a victim: to an
// incident that there is, or, from manyConnections rows of a crowd on, to a new one. The
// victim is who was sent to: of a row whose client was not seen to send anything, the client,
// and the row's sides change their places.
func (t *Incidents) crowded(r *features.Row) bool {
	if r.Packets[0] == 0 {
		r.Src, r.Dst, r.SrcPort, r.DstPort = r.Dst, r.Src, r.DstPort, r.SrcPort
		r.Packets[0], r.Packets[1] = r.Packets[1], r.Packets[0]
		r.Octets[0], r.Octets[1] = r.Octets[1], r.Octets[0]
	}
	if t.byVictim[r.Dst] != nil {
		return true
	}
	v := &t.unsure[0]
	for k := range t.unsure {
		u := &t.unsure[k]
		if u.addr == r.Dst && u.rows > 0 {
			v = u
			break
		}
		if u.lastRow < v.lastRow {
			v = u
		}
	}
	if v.addr != r.Dst || r.Time-v.lastRow > quietTime || r.Time < v.lastRow {
		*v = unsureVictim{addr: r.Dst}
	}
	v.rows++
	v.lastRow = r.Time
	v.sources.Add(features.HashAddr(r.Src))
	return v.rows >= manyConnections && v.sources.Count() >= crowd
}

// gather makes one incident of those around i's victim when they are a crowd.
// The ones that were published go on by themselves.
func (t *Incidents) gather(i *incident) *incident {
	var first *incident
	n := 0
	for _, o := range t.open {
		if o.victim == i.victim && !o.crowded && !o.several {
			n++
			if first == nil && o.events == 0 {
				first = o
			}
		}
	}
	if n < crowd {
		return i
	}
	first.crowded = true
	t.byVictim[first.victim] = first
	delete(t.bySource, first.source)
	first.before = t.sprayers.least(first.sprayer())
	for _, o := range slices.Clone(t.open) {
		if o != first && o.victim == i.victim && o.events == 0 && !o.several {
			first.merge(o)
			t.close(o)
			t.total--
		}
	}
	return first
}

func (t *Incidents) close(i *incident) {
	t.unindex(i)
	at := slices.Index(t.open, i)
	t.open = slices.Delete(t.open, at, at+1)
	t.next = -never // room may make others due
}

// unindex takes i from where rows find it.
func (t *Incidents) unindex(i *incident) {
	switch {
	case i.spray:
		t.spray, t.sprayers = nil, sprayers{}
	case i.crowded:
		delete(t.byVictim, i.victim)
	default:
		delete(t.bySource, i.source)
	}
}

// sprayed makes an incident that nobody was told of a part of the spray: the first one
// becomes it.
func (t *Incidents) sprayed(i *incident) {
	t.sprayers.add(i.sprayer(), i.connections, i.lastRow)
	if t.spray != nil {
		t.spray.merge(i)
		t.close(i)
		t.total--
		return
	}
	t.unindex(i)
	i.crowded, i.spray, t.spray = true, true, i
}

// room reports whether i may be told of as a new incident at the given time. What the
// spray has of it counts: an attack that went into it comes out of it again.
func (t *Incidents) room(i *incident, time int64) bool {
	if minute := time / (60 * second); minute != t.minute {
		t.minute, t.told = minute, [2]int{}
	}
	size, known := 0, i.before+i.connections
	if known >= manyConnections {
		size = 1
	}
	t.told[size]++
	if i.spray || t.told[size] <= maxNew {
		return true
	}
	if size == 0 || known < (t.sprayers.total+i.connections)/loud {
		return false
	}
	t.sprayers.add(i.sprayer(), i.connections, time) // the next ones need more
	return true
}

// sprayer is a source, or the victim of a crowd, and what it has in the spray.
type sprayer struct {
	addr    capture.Addr
	crowded bool
	count   uint64 // connections
	over    uint64 // of these, at most as many are of others
}

// sprayer returns how i is known to the spray.
func (i *incident) sprayer() sprayer {
	if i.crowded {
		return sprayer{addr: i.victim, crowded: true}
	}
	return sprayer{addr: i.source}
}

// sprayers remember who has the most connections in the spray, by the space-saving
// algorithm (Metwally et al. 2005): none that has more than one in len(of) is missing.
type sprayers struct {
	of     [maxIncidents]sprayer
	n      int
	total  uint64 // connections
	period int64  // of sprayMemory
}

// add counts connections of s at the given time.
func (p *sprayers) add(s sprayer, connections uint64, time int64) {
	if period := time / sprayMemory; period != p.period {
		p.period = period
		p.total /= 2
		for k := range p.of[:p.n] {
			p.of[k].count /= 2
			p.of[k].over /= 2
		}
	}
	p.total += connections
	at := p.find(s)
	switch {
	case at >= 0:
	case p.n < len(p.of):
		at = p.n
		p.of[at] = s
		p.n++
	default:
		at = 0
		for k := range p.of {
			if p.of[k].count < p.of[at].count {
				at = k
			}
		}
		s.count, s.over = p.of[at].count, p.of[at].count
		p.of[at] = s
	}
	p.of[at].count += connections
}

func (p *sprayers) find(s sprayer) int {
	for k := range p.of[:p.n] {
		if o := &p.of[k]; o.addr == s.addr && o.crowded == s.crowded {
			return k
		}
	}
	return -1
}

// least returns how many connections s has at least.
func (p *sprayers) least(s sprayer) uint64 {
	if at := p.find(s); at >= 0 {
		return p.of[at].count - p.of[at].over
	}
	return 0
}

// merge counts what o counted in i.
func (i *incident) merge(o *incident) {
	i.start, i.end = min(i.start, o.start), max(i.end, o.end)
	i.lastRow = max(i.lastRow, o.lastRow)
	i.news = true
	i.rows += o.rows
	i.refused += o.refused
	i.begun += o.begun
	i.firsts.Merge(&o.firsts)
	if o.later != nil {
		if i.later == nil {
			i.later = new(features.Sketch)
		}
		i.later.Merge(o.later)
	}
	i.countJoined()
	i.connections = min(i.begun+i.joined, i.rows)
	for side := range i.packets {
		i.packets[side] += o.packets[side]
		i.octets[side] += o.octets[side]
	}
	i.sources.Merge(&o.sources)
	i.targets.Merge(&o.targets)
	i.ports.Merge(&o.ports)
	i.score = max(i.score, o.score)
	if o.peaked > i.peaked+alike {
		i.peaked, i.model, i.peak, i.verdict = o.peaked, o.model, o.peak, o.verdict
	}
	for m, s := range o.scores {
		i.scores[m] = max(i.scores[m], s)
	}
}

// countJoined counts the connections whose first row is not in the incident. Sketches of
// the same connections are alike, so these are none when the first rows of all are in it.
func (i *incident) countJoined() {
	if i.later == nil {
		return
	}
	all := i.firsts
	all.Merge(i.later)
	i.joined = max(i.joined, uint64(max(0, min(i.later.Count(), all.Count()-i.firsts.Count()))))
}

// addConnection counts the connection of r in begun or joined.
func (i *incident) addConnection(r *features.Row, worker int) {
	hash := hashConnection(r.Connection, worker)
	if r.Serial == 0 {
		i.begun++
		i.firsts.Add(hash)
		return
	}
	if i.later == nil {
		i.later = new(features.Sketch)
	}
	before := *i.later
	if i.later.Add(hash); *i.later != before { // mostly not: to count takes 3 µs
		i.countJoined()
	}
}

// add counts a row that scored highest, and over the threshold, with model best of
// the given ones. worker tells Detectors apart, whose connections have the same numbers.
func (i *incident) add(r *features.Row, worker int, models []*scorer, scores []float64, best int) {
	i.start, i.end = min(i.start, r.Start), max(i.end, r.End)
	i.lastRow = r.Time
	i.news = true
	i.rows++
	i.several = i.several || r.Dst != i.victim
	if r.Connection > 0 {
		before := i.connections
		i.addConnection(r, worker)
		i.connections = min(i.begun+i.joined, i.rows)
		if r.Refused && i.connections > before {
			i.refused++
		}
	}
	for side := range i.packets {
		i.packets[side] += r.Packets[side]
		i.octets[side] += r.Octets[side]
	}
	i.sources.Add(features.HashAddr(r.Src))
	i.targets.Add(features.HashAddr(r.Dst))
	i.ports.Add(features.HashPort(r.DstPort))
	for m, s := range scores {
		k := models[m].index
		i.scores[k] = max(i.scores[k], s)
	}
	i.score = max(i.score, scores[best])
	if i.model == nil && i.verdict == nil || scores[best] > i.peaked+alike {
		values := append(i.peak.Values[:0], r.Values...)
		i.peak = *r
		i.peak.Values = values
		i.peaked, i.model, i.verdict = scores[best], models[best], nil
	}
}

func hashConnection(number uint64, worker int) uint64 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], number)
	binary.BigEndian.PutUint64(b[8:], uint64(worker))
	return features.HashAddr(b)
}

// least returns the incident that matters least: the one of the fewest
// connections, with those in the spray, of those the one quiet longest.
func (t *Incidents) least() *incident {
	return slices.MinFunc(t.open, func(a, b *incident) int {
		switch {
		case a.spray:
			return 1
		case b.spray:
			return -1
		}
		return cmp.Or(cmp.Compare(a.before+a.connections, b.before+b.connections), cmp.Compare(a.lastRow, b.lastRow))
	})
}

// makeRoom ends an incident early when as many as may be are open and r begins
// another.
func (d *Detector) makeRoom(r *features.Row) {
	t := d.incidents
	if len(t.open) < maxIncidents || t.bySource[r.Src] != nil && !r.Unsure || t.byVictim[r.Dst] != nil {
		return
	}
	least := t.least()
	if least.events == 0 {
		t.sprayed(least)
		if !least.spray { // it made way
			return
		}
		least = t.least() // the one that became the spray stays
		if least.events == 0 {
			t.sprayed(least)
			return
		}
	}
	t.early++
	d.publish(least, PhaseEnd, r.Time)
	t.close(least)
}

// advance publishes the events due by now.
func (d *Detector) advance(now int64) {
	for d.incidents.next <= now {
		var first *incident
		d.incidents.next = never
		for _, i := range d.incidents.open {
			if due := d.incidents.due(i); due < d.incidents.next {
				first, d.incidents.next = i, due
			}
		}
		if first == nil || d.incidents.next > now {
			return
		}
		due := d.incidents.next
		switch {
		case first.events == 0:
			if !d.incidents.room(first, due) {
				if d.incidents.sprayed(first); !first.spray {
					continue
				}
			}
			d.publish(first, PhaseNew, due)
		case due < first.lastRow+quietTime:
			d.publish(first, PhaseUpdate, due)
		default:
			d.publish(first, PhaseEnd, due)
			d.incidents.close(first)
		}
	}
}

// publish makes the event of i's phase at the given time.
func (d *Detector) publish(i *incident, phase string, time int64) {
	if i.id == "" {
		i.id = d.incidentID(i)
	}
	said := i.verdict
	if said == nil {
		m := d.models[i.model.index] // of this Detector's own session
		said = &verdict{m.id(), m.Threshold, d.explain(m, i.peak.Values)}
	}
	d.incidents.sequence++
	r := i.peak
	if a := d.cfg.Anonymizer; a != nil {
		r.Src, r.Dst, r.OuterSrc, r.OuterDst = a.Addr(r.Src), a.Addr(r.Dst), a.Addr(r.OuterSrc), a.Addr(r.OuterDst)
	}
	e := &Event{
		Timestamp: utc(time),
		ECS:       ecs{ecsVersion},
		Message:   i.message(&r),
		Event: eventInfo{
			ID: fmt.Sprintf("%s-%d", i.id, i.events), Kind: "alert",
			Category: []string{"network", "intrusion_detection"}, Type: []string{"info"},
			Action: "incident-" + phase, Risk: round(100*i.score, 1), Severity: i.severity(),
			Start: utc(i.start), End: utc(i.end), Sequence: d.incidents.sequence,
		},
		Observer:    observer{d.cfg.Gateway, "ids", "picket", d.cfg.Version},
		Source:      &endpoint{r.Src.String(), r.SrcPort, i.packets[0], i.octets[0]},
		Destination: &endpoint{r.Dst.String(), r.DstPort, i.packets[1], i.octets[1]},
		Network: network{
			Type: networkType(i.peak.Src), Transport: transport(r.Proto), Protocol: features.ServiceName(r.Proto, r.DstPort), CommunityID: r.CommunityID(),
			Packets: i.packets[0] + i.packets[1], Bytes: i.octets[0] + i.octets[1],
		},
		Picket: Details{
			Phase: phase, Incident: i.id, Rows: i.rows, Connections: i.connections, Refused: i.refused,
			Sources: i.sources.Count(), Targets: i.targets.Count(), Ports: i.portCount(),
			Score: round(i.score, 6), Threshold: said.threshold, Model: said.model, Why: said.why,
		},
	}
	if r.Tunnel != capture.TunnelNone {
		e.Picket.Tunnel = &Tunnel{r.Tunnel.String(), r.TunnelID, r.OuterSrc.String(), r.OuterDst.String()}
	}
	if len(d.models) > 1 {
		for k, m := range d.models {
			e.Picket.Models = append(e.Picket.Models, Opinion{m.Name, round(i.scores[k], 6), m.Threshold, i.scores[k] >= m.Threshold})
		}
	}
	i.events++
	i.lastEvent, i.news = time, false
	d.cfg.Emit(e)
}

// portCount is an estimate, kept within what is possible.
func (i *incident) portCount() int { return min(i.ports.Count(), int(i.rows)) }

// incidentID is the same for the same traffic seen by the same gateway with the
// same model, so that a repeated scan adds no event at its subscribers.
func (d *Detector) incidentID(i *incident) string {
	what := fmt.Appendln(nil, d.cfg.Gateway, d.models[0].SHA256, i.start, i.source, i.victim, i.opened)
	sum := sha256.Sum256(what)
	if d.cfg.Anonymizer != nil {
		sum = d.cfg.Anonymizer.Sum(what)
	}
	return hex.EncodeToString(sum[:10])
}

// maxEvidence is how many features an event names.
const maxEvidence = 3

// explain returns the features that drove the model's score of a row, by the mean of
// two effects: how far the score falls when one alone is put back to its typical
// value, and how far that of an all typical row rises with one alone. The fall says
// nothing of a score that several features hold at 1 each, the rise nothing of
// features that only count together. The one-hot columns of a feature are one.
func (d *Detector) explain(m *scorer, values []float32) []Evidence {
	width, n := len(m.columns), 1+len(m.groups)
	rows := d.probe[:0]
	m.gather(&rows, values)
	base := rows[:width:width]
	vary := func(from, to []float32) {
		for _, g := range m.groups {
			at := len(rows)
			rows = append(rows, from...)
			for _, c := range g {
				rows[at+c] = to[c]
			}
		}
	}
	vary(base, m.Typical)
	rows = append(rows, m.Typical...)
	vary(m.Typical, base)
	d.probe = rows
	scores := make([]float32, 2*n)
	if err := m.Score(rows, scores); err != nil {
		d.fail(err)
		return nil
	}
	why := []Evidence{}
	for k, g := range m.groups {
		fall, rise := scores[0]-scores[k+1], scores[n+k+1]-scores[n]
		if effect := float64(fall+rise) / 2; effect > 0 {
			c := g[0]
			for _, one := range g {
				if base[one] == 1 {
					c = one // of one-hot columns, the one that is set
				}
			}
			why = append(why, Evidence{m.Features[c], float64(base[c]), float64(m.Typical[c]), round(effect, 6)})
		}
	}
	slices.SortStableFunc(why, func(a, b Evidence) int { return cmp.Compare(b.Effect, a.Effect) })
	return why[:min(len(why), maxEvidence)]
}
