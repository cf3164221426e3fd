package features

import (
	"archive/zip"
	"bufio"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

// kddRow is a row of the columns kdd28; categorical ones hold their codes.
type kddRow [28]float64

// Indices of a kddRow.
const (
	fProtocol      = 1
	fFlag          = 3
	fSrcBytes      = 4
	fDstBytes      = 5
	fWrongFragment = 7
	fTime          = 9  // the first of the time window's
	fHost          = 18 // the first of the host window's
)

func (r *kddRow) flag() Flag { return Flag(r[fFlag]) }

// set takes the values of a Row, float32 but whole or of two decimals.
func (r *kddRow) set(values []float32) {
	for i, x := range values {
		r[i] = math.Round(float64(x)*100) / 100
	}
}

// view is one window of a row.
type view struct {
	n, srv                        float64
	sErr, srvSErr, rErr, srvRErr  float64
	same, diff, diffHost, srcPort float64
	max                           float64
}

func (r *kddRow) windows() [2]view {
	t, h := r[fTime:], r[fHost:]
	return [2]view{
		{n: t[0], srv: t[1], sErr: t[2], srvSErr: t[3], rErr: t[4], srvRErr: t[5], same: t[6], diff: t[7], diffHost: t[8], max: timeWindowMax},
		{n: h[0], srv: h[1], same: h[2], diff: h[3], srcPort: h[4], diffHost: h[5], sErr: h[6], srvSErr: h[7], rErr: h[8], srvRErr: h[9], max: hostWindowMax},
	}
}

// off is how far two decimals of a float32 may lie from the rate they stand for.
const off = .005 + 1e-6

// atLeast reports whether rate may be the rounding of k/n or more, atMost of k/n
// or less.
func atLeast(rate, k, n float64) bool { return rate >= k/n-off }
func atMost(rate, k, n float64) bool  { return rate <= k/n+off }

// fraction reports whether rate is k/n of NSL-KDD's precision, for a whole k ≤ n.
func fraction(rate, n float64) bool {
	for _, k := range []float64{math.Floor(rate * n), math.Ceil(rate * n)} {
		if k <= n && rateOf(k, n) == rate {
			return true
		}
	}
	return false
}

func rateOf(k, n float64) float64 { return rate(int32(k), int32(n)) }

func both(ok func(*kddRow, *view) bool) func(*kddRow) bool {
	return func(r *kddRow) bool {
		for _, w := range r.windows() {
			if w.n > 0 && !ok(r, &w) {
				return false
			}
		}
		return true
	}
}

// distinctOf bounds a rate of distinct values among n connections, of which own,
// give or take slack, have the current one's: 0 when that is all, else from 2
// to one for each of the others and itself.
func distinctOf(rate, own, slack, n float64) bool {
	if rate == 0 {
		return own >= n-slack || n >= 400 // 2/400 is .00
	}
	return atLeast(rate, 2, n) && atMost(rate, n-own+slack+1, n)
}

// invariants hold for the rows of NSL-KDD, but for the exceptions given, and for
// ours, but where foreign says why not.
var invariants = []struct {
	name       string
	ok         func(*kddRow) bool
	exceptions int    // among the 148,517 rows of NSL-KDD
	foreign    string // why it does not hold for rows of other traffic
}{
	{"count is from 1 to 511", func(r *kddRow) bool {
		w := r.windows()[0]
		return w.n >= 1 && w.srv >= 1 && w.n <= w.max && w.srv <= w.max
	}, 14, ""}, // 0
	{"dst_host_count is from 1 to 255", func(r *kddRow) bool {
		w := r.windows()[1]
		return w.n >= 1 && w.srv >= 1 && w.n <= w.max && w.srv <= w.max
	}, 4, ""}, // 0
	{"the union of count and srv_count fits the window", both(func(_ *kddRow, w *view) bool { return w.n+w.srv-w.n*(w.same+off) <= w.max }), 0, ""},
	{"an error is of one kind", both(func(_ *kddRow, w *view) bool { return w.sErr+w.rErr <= 1+2*off && w.srvSErr+w.srvRErr <= 1+2*off }), 0, ""},
	{"the current connection is of its own service", both(func(_ *kddRow, w *view) bool { return atLeast(w.same, 1, w.n) }), 0, ""},
	{"the same service is among srv_count", both(func(_ *kddRow, w *view) bool { return w.n*(w.same-off) <= w.srv }), 0, ""},
	{"the current SYN error is counted", both(func(r *kddRow, w *view) bool {
		return r.flag().errorKind() != sError || atLeast(w.sErr, 1, w.n) && atLeast(w.srvSErr, 1, w.srv)
	}), 0, ""},
	{"the current REJ error is counted", both(func(r *kddRow, w *view) bool {
		return r.flag().errorKind() != rError || atLeast(w.rErr, 1, w.n) && atLeast(w.srvRErr, 1, w.srv)
	}), 0, ""},
	{"SF and OTH are no errors", both(func(r *kddRow, w *view) bool {
		return r.flag().errorKind() != noError || w.sErr+w.rErr <= 1-1/w.n+2*off && w.srvSErr+w.srvRErr <= 1-1/w.srv+2*off
	}), 0, ""},
	{"distinct services", both(func(_ *kddRow, w *view) bool { return distinctOf(w.diff, w.n*w.same, w.n*off, w.n) }), 0, ""},
	{"distinct hosts", both(func(_ *kddRow, w *view) bool { return distinctOf(w.diffHost, w.n*w.same, w.n*off, w.srv) }), 0, ""},
	// 199/200 is 1.00: so it is in 637 rows of the time window, 2,680 of the host window.
	{"one service has no others", both(func(_ *kddRow, w *view) bool { return w.same < 1 || w.diff == 0 || w.n >= 200 }), 0, ""},
	{"rates are fractions", both(func(_ *kddRow, w *view) bool {
		return fraction(w.sErr, w.n) && fraction(w.rErr, w.n) && fraction(w.same, w.n) && fraction(w.diff, w.n) && fraction(w.srcPort, w.n) &&
			fraction(w.srvSErr, w.srv) && fraction(w.srvRErr, w.srv) && fraction(w.diffHost, w.srv)
	}), 0, ""},
	{"the current source port is counted", func(r *kddRow) bool { w := r.windows()[1]; return w.n == 0 || atLeast(w.srcPort, 1, w.n) }, 0, ""},
	{"S0 carries nothing", func(r *kddRow) bool { return r.flag() != S0 || r[fSrcBytes]+r[fDstBytes] == 0 }, 4, ""},
	{"REJ carries nothing", func(r *kddRow) bool { return r.flag() != REJ || r[fSrcBytes]+r[fDstBytes] == 0 }, 0, ""},
	{"SH carries nothing", func(r *kddRow) bool { return r.flag() != SH || r[fSrcBytes]+r[fDstBytes] == 0 }, 0, ""},
	{"RSTOS0 is not answered", func(r *kddRow) bool { return r.flag() != RSTOS0 || r[fDstBytes] == 0 }, 0, ""},
	{"UDP and ICMP are SF", func(r *kddRow) bool { return r[fProtocol] != codeUDP && r[fProtocol] != codeICMP || r.flag() == SF }, 0, ""},
	{"TCP has no wrong fragments", func(r *kddRow) bool { return r[fProtocol] != codeTCP || r[fWrongFragment] == 0 }, 0,
		"its only attacks with fragments use UDP (teardrop) and ICMP (ping of death)"},
}

// violations counts the rows that break each invariant.
type violations struct {
	n     [64]int
	first [64]kddRow
}

func (v *violations) check(r *kddRow) {
	for i := range invariants {
		if !invariants[i].ok(r) {
			if v.n[i]++; v.n[i] == 1 {
				v.first[i] = *r
			}
		}
	}
}

func TestInvariantsOfNSLKDD(t *testing.T) {
	z, err := zip.OpenReader(datatest.Data(t, "nsl-kdd", "NSL-KDD.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var v violations
	services := map[string]bool{}
	rows := 0
	for _, name := range []string{"KDDTrain+.txt", "KDDTest+.txt"} {
		f, err := z.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(f); s.Scan(); rows++ {
			col := strings.Split(s.Text(), ",")
			services[col[2]] = true
			r := parseKDD(t, append(col[:9:9], col[22:41]...))
			v.check(&r)
		}
		f.Close()
	}
	if rows != 148_517 {
		t.Fatalf("%d rows", rows)
	}
	for i := range invariants {
		if in := &invariants[i]; v.n[i] != in.exceptions {
			t.Errorf("%s: %d exceptions, want %d; the first is %v", in.name, v.n[i], in.exceptions, v.first[i])
		}
	}
	for name := range services {
		if !slices.Contains(kddServices[:len(kddServices)-1], name) {
			t.Errorf("service %s is missing", name)
		}
	}
	if len(services) != 70 || !slices.IsSorted(kddServices[:70]) {
		t.Errorf("%d services", len(services))
	}
}

func parseKDD(t *testing.T, col []string) (r kddRow) {
	for i, s := range col {
		switch i {
		case fProtocol:
			r[i] = float64(slices.Index(protocolNames[:], s))
		case 2:
			r[i] = float64(serviceCode[s])
		case fFlag:
			r[i] = float64(slices.Index(flagNames[:], s))
		default:
			var err error
			if r[i], err = strconv.ParseFloat(s, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// TestInvariantsOfCaptures checks the rows made of every capture of the data folder.
func TestInvariantsOfCaptures(t *testing.T) {
	var v violations
	files, rows := 0, 0
	var r kddRow
	flags := map[Flag]int{}
	err := filepath.WalkDir(datatest.Data(t, "captures"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".csv") {
			return err
		}
		f, err := capture.OpenFile(path)
		if err != nil {
			t.Errorf("%v", err)
			return nil
		}
		defer f.Close()
		tr := newTracker(t, Config{Columns: kdd28}, func(row *Row) {
			r.set(row.Values)
			flags[row.Flag]++
			v.check(&r)
			rows++
		})
		var dec capture.Decoder
		var fr capture.Frame
		var p capture.Packet
		for f.Next(&fr) == nil {
			if dec.Decode(&fr, &p).HasPacket() {
				tr.Add(&p)
			}
		}
		tr.Flush()
		files++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows of %d captures, %v", rows, files, flags)
	for i := range invariants {
		if in := &invariants[i]; v.n[i] > 0 && in.foreign == "" {
			t.Errorf("%s: %d exceptions, the first is %v", in.name, v.n[i], v.first[i])
		}
	}
	for f := range numFlags {
		if flags[f] == 0 {
			t.Errorf("no row with flag %s", f)
		}
	}
}
