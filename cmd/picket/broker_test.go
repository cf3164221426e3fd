package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/picket-ids/picket/internal/brokertest"
	"github.com/picket-ids/picket/runtime/detect"
)

// TestBroker checks that a scan's events arrive at a subscriber of a real broker,
// the same that --json writes.
func TestBroker(t *testing.T) {
	needLibrary(t)
	m := brokertest.Start(t)
	sub := m.Subscribe(t, "picket/#")
	code, stdout, stderr := picket(t, nil, "scan", "--json", "--gateway", "gw-17", "--mqtt", "mqtt://"+m.Addr, "../../testdata/scan.pcap.gz")
	if code != exitFound || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	want := map[string]bool{}
	_, events := lastLine(t, stdout) // the summary is none
	for _, line := range events {
		want[line] = true
	}
	if len(want) < 2 {
		t.Fatalf("%d events", len(want))
	}
	sub.Want(t, len(want), func(message string) bool {
		payload, ok := strings.CutPrefix(message, "0 picket/gw-17/event ")
		var e detect.Event
		return ok && want[payload] && json.Unmarshal([]byte(payload), &e) == nil
	})
}

// TestBrokerGone checks that events which the broker has not acknowledged are an
// error that counts them.
func TestBrokerGone(t *testing.T) {
	needLibrary(t)
	m := brokertest.Start(t)
	plain := iotest(unpacked(t, "scan"))
	stopping := readerFunc(func(p []byte) (int, error) { // the broker dies once the scan has begun
		if m != nil {
			m.Kill()
			m = nil
		}
		return plain.Read(p)
	})
	code, _, stderr := picket(t, stopping, "scan", "--mqtt", "mqtt://"+m.Addr, "--mqtt-wait", "300ms", "-")
	if code != exitError || !strings.Contains(stderr, "not acknowledged") || !regexp.MustCompile(`: \d+ MQTT messages not`).MatchString(stderr) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
