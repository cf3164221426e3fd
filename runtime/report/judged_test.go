package report

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/runtime/detect"
)

// TestGaps checks of each counter when it is told, and from where on it is major.
func TestGaps(t *testing.T) {
	outcome := func(o capture.Outcome, n uint64) (a [capture.NumOutcomes]uint64) {
		a[o] = n
		return a
	}
	const minute = 60e9
	for _, tt := range []struct {
		name  string
		stats detect.Stats // of 1,000 packets, if it says nothing else
		bad   uint64
		want  string // the reason, an exclamation mark if it is major, and the sentence
	}{
		{"nothing", detect.Stats{}, 0, ""},
		{"below 1 %", detect.Stats{Outcomes: outcome(capture.BadHeader, 9)}, 0, "not_decoded: 9 of 1,000 packets (0.9 %) could not be decoded: 9 with a header that cannot be"},
		{"1 %", detect.Stats{Outcomes: outcome(capture.OrphanFragment, 10)}, 0, "not_decoded! 10 of 1,000 packets (1.0 %) could not be decoded: 10 fragments without the first one"},
		{"link types", detect.Stats{Outcomes: outcome(capture.UnsupportedLink, 999), Links: []capture.LinkType{105, 230}}, 0,
			"not_decoded! 999 of 1,000 packets (99 %) could not be decoded: 999 of link type IEEE802_11 (105) and IEEE802_15_4_NOFCS (230) (capture on an Ethernet, cooked, raw IP or loopback interface)"},
		{"below 10 % without IP", detect.Stats{Outcomes: outcome(capture.NotIP, 99)}, 0, "not_ip: 99 of 1,000 packets (9.9 %) held no form of IP that Picket knows: 99 of other protocols"},
		{"10 % without IP", detect.Stats{Outcomes: outcome(capture.ARP, 100)}, 0, "not_ip! 100 of 1,000 packets (10 %) held no form of IP that Picket knows: 100 ARP"},
		{"cut contents", detect.Stats{Cut: 1000}, 0, "cut_packets: 1,000 of 1,000 packets (100 %) were captured in part: their headers were judged, of their contents only what is there"},
		{"scores", detect.Stats{}, 1, "bad_scores! 1 score was no number from 0 to 1 and counts as 0: the model is broken"},
		{"evicted, few", detect.Stats{Features: features.Stats{Connections: 100_000, Evicted: 1}}, 0,
			"early_connections: 1 of 100,000 connections (<0.1 %) were judged before their ends, as too many were open (see --max-connections)"},
		{"evicted", detect.Stats{Features: features.Stats{Connections: 200, Evicted: 2}}, 0,
			"early_connections! 2 of 200 connections (1.0 %) were judged before their ends, as too many were open (see --max-connections)"},
		{"forgotten, 7 a second", detect.Stats{Last: minute, Features: features.Stats{Forgotten: 420}}, 0,
			"forgotten_hosts: the past of 420 hosts was forgotten, as too many were met"},
		{"forgotten, more", detect.Stats{Last: minute, Features: features.Stats{Forgotten: 421}}, 0, "forgotten_hosts! the past of 421 hosts was forgotten, as too many were met"},
		{"incidents", detect.Stats{Early: 1}, 0, "early_incidents: 1 incident ended early, as too many were open"},
		{"clock", detect.Stats{Features: features.Stats{ClockSteps: 2}}, 0, "clock_steps: the clock of the packets was set back 2 times: what came before was judged apart"},
	} {
		s := Scan{Stats: tt.stats, BadScores: tt.bad}
		s.Stats.Frames, s.Stats.Judged = 1000, 10
		got := ""
		for _, g := range s.Gaps() {
			mark := ": "
			if g.Major {
				mark = "! "
			}
			got += g.Reason + mark + g.Sentence
		}
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
		if partly := strings.Contains(s.verdict(), "NOT ALL COULD BE JUDGED"); partly != strings.Contains(tt.want, "! ") {
			t.Errorf("%s: %s", tt.name, s.verdict())
		}
	}
	m := capture.Mirror{OneWay: true, OneWayFlows: 9, WholeFlows: 1, Copies: 1000}
	if g := Mirror("eth0", &m); len(g) != 2 || !anyMajor(g[:1]) || !anyMajor(g[1:]) || g[0].Sentence != "eth0 shows only one direction: 9 of 10 TCP "+
		"connections (90 %) acknowledge data that never came (mirror both directions)" || !strings.HasPrefix(g[1].Sentence, "eth0 shows packets twice: 1,000 copies") {
		t.Errorf("%+v", g)
	}
	if g := Mirror("eth0", &capture.Mirror{OneWayFlows: 1, WholeFlows: 9}); g != nil {
		t.Errorf("%+v", g)
	}
	if g := Dropped("eth0", 10, 1000); !g.Major || g.Sentence != "the kernel dropped 10 of 1,000 packets (1.0 %) on eth0, as they came too fast" {
		t.Errorf("%+v", g)
	}
	if g := Dropped("eth0", 9, 1000); g.Major {
		t.Errorf("%+v", g)
	}
	s := Scan{Stats: detect.Stats{Frames: 3, Outcomes: outcome(capture.Decoded, 3)}}
	if g := s.Gaps(); len(g) != 1 || !g[0].Major || g[0].Reason != NoRows || s.Verdict() != NotJudged {
		t.Errorf("packets that no model judges: %+v", g)
	}
}

// TestShares checks that a share in JSON has a fraction, whatever its value.
func TestShares(t *testing.T) {
	b, err := json.Marshal(Part(NotIP, "", 5, 5, true, ""))
	if err != nil || !strings.Contains(string(b), `"share":1.000000,`) {
		t.Errorf("%v, %s", err, b)
	}
	for _, tt := range []struct {
		n, of uint64
		want  string
	}{{0, 0, "0 of 0 packets (100 %)"}, {1, 2000, "1 of 2,000 packets (<0.1 %)"}, {1, 1000, "1 of 1,000 packets (0.1 %)"},
		{1999, 2000, "1,999 of 2,000 packets (99 %)"}, {2000, 2000, "2,000 of 2,000 packets (100 %)"}} {
		if got := share(tt.n, tt.of, "packet"); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}
