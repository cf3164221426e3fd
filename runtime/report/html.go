//go:build !nohtml

package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"time"

	"github.com/picket-ids/picket/runtime/detect"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"thousands": thousands, "several": several, "service": service, "number": func(v float64) string { return fmt.Sprintf("%.4g", v) },
	"severity": severity,
}).Parse(page))

// HTML writes the scan as one page that stands alone: the verdict, what was not judged,
// the incidents over time, and what drove each. It loads nothing from elsewhere.
func (s *Scan) HTML(w io.Writer) error {
	incidents := slices.SortedStableFunc(slices.Values(s.Incidents), Worse)
	p := struct {
		*Scan
		Title, Read, Answer, More string
		Warnings, Notes           []Gap
		Incidents                 []htmlIncident
		Ticks                     []htmlTick
		Height                    int
	}{Scan: s, Title: Printable(s.Name), Read: s.read(), Answer: s.verdict(), More: s.more(), Height: len(incidents)*rowHeight + 30}
	for _, g := range s.Gaps() {
		if g.Major {
			p.Warnings = append(p.Warnings, g)
		} else {
			p.Notes = append(p.Notes, g)
		}
	}
	for k, e := range incidents {
		i := htmlIncident{Event: e, Y: k * rowHeight}
		i.X = s.at(e.Event.Start)
		i.Width = max(s.at(e.Event.End)-i.X, 3)
		top := 0.0
		for _, why := range e.Picket.Why {
			top = max(top, why.Effect)
		}
		for _, why := range e.Picket.Why {
			i.Why = append(i.Why, htmlWhy{why.String(), 100 * why.Effect / max(top, 1e-12)})
		}
		p.Incidents = append(p.Incidents, i)
	}
	for k := range 5 {
		ns := s.Stats.First + (s.Stats.Last-s.Stats.First)/4*int64(k)
		p.Ticks = append(p.Ticks, htmlTick{s.at(utc(ns)), utc(ns).Format(s.layout())})
	}
	return pageTemplate.Execute(w, p)
}

// The picture is 1000 units wide; times lie from left to left + span.
const (
	left, span = 280, 680
	rowHeight  = 22
)

type htmlIncident struct {
	*detect.Event
	X, Width float64
	Y        int
	Why      []htmlWhy
}

type htmlWhy struct {
	Text  string
	Share float64 // % of the strongest
}

type htmlTick struct {
	X    float64
	Time string
}

// at returns where a time lies in the picture.
func (s *Scan) at(t time.Time) float64 {
	length := float64(max(s.Stats.Last-s.Stats.First, 1))
	return left + span*min(max(float64(t.UnixNano()-s.Stats.First)/length, 0), 1)
}
