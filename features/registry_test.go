package features

import (
	"slices"
	"strings"
	"testing"
)

func TestDictionary(t *testing.T) {
	seen := map[string]Feature{} // by the name and row, and by the name
	for _, f := range All() {
		if f.Name == "" || f.Doc == "" || f.Unit == "" || f.Group == "" || f.Row == "" || f.Source == "" || f.value == nil {
			t.Errorf("incomplete: %+v", f)
		}
		if id := f.Name + " of a " + string(f.Row); seen[id].Name != "" || strings.Contains(f.Name, "=") {
			t.Errorf("name %q", id)
		} else {
			seen[id] = f
		}
		// A name stands for the same values in either row: ValueName knows no rows.
		if g, ok := seen[f.Name]; ok && (!slices.Equal(f.OneHot, g.OneHot) || f.Unit != g.Unit) {
			t.Errorf("%s differs in rows of a %s and a %s", f.Name, f.Row, g.Row)
		}
		seen[f.Name] = f
		if len(f.OneHot) == 1 || (f.OneHot != nil) != (f.Unit == code) {
			t.Errorf("%s is one of %d, in %s", f.Name, len(f.OneHot), f.Unit)
		}
		if err := Check(f.Row, f.Columns()); err != nil {
			t.Error(err)
		}
		if len(f.Columns()) != 1+len(f.OneHot) {
			t.Errorf("columns of %s: %v", f.Name, f.Columns())
		}
	}
	All()[0].Name = "changed"
	if byName[ConnectionRow]["duration"] == nil || All()[0].Name != "duration" {
		t.Error("All gives away the dictionary")
	}
}

// TestKDDOrder: the columns of NSL-KDD but the content group, as its files have them.
func TestKDDOrder(t *testing.T) {
	want := strings.Fields(`duration protocol_type service flag src_bytes dst_bytes land wrong_fragment urgent
		count srv_count serror_rate srv_serror_rate rerror_rate srv_rerror_rate same_srv_rate diff_srv_rate srv_diff_host_rate
		dst_host_count dst_host_srv_count dst_host_same_srv_rate dst_host_diff_srv_rate dst_host_same_src_port_rate
		dst_host_srv_diff_host_rate dst_host_serror_rate dst_host_srv_serror_rate dst_host_rerror_rate dst_host_srv_rerror_rate`)
	if !slices.Equal(kdd28, want) {
		t.Errorf("%v", kdd28)
	}
	if !slices.Equal(names(All()[:len(want)]), want) {
		t.Error("the dictionary does not begin with them")
	}
}

// TestKinds: the Extractor of each kind makes rows of all of its columns, and counts them.
func TestKinds(t *testing.T) {
	for _, kind := range Kinds() {
		var columns []string
		for _, f := range featuresOf(kind) {
			columns = append(columns, f.Columns()...)
		}
		rows := uint64(0)
		x, err := NewExtractor(kind, Config{Columns: columns}, func(r *Row) {
			if rows++; r.Kind != kind || len(r.Values) != len(columns) {
				t.Fatalf("a row of a %s with %d values, not of a %s with %d", r.Kind, len(r.Values), kind, len(columns))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range randomPackets(newRand(10), 3000) {
			x.Add(&p)
		}
		x.Tick(epoch + 1e6*second)
		x.Flush()
		if s := x.Stats(); rows == 0 || s.Rows != rows || s.Open != 0 {
			t.Errorf("%s: %d rows, %+v", kind, rows, s)
		}
	}
	const want = `no rows of a "flow", only of a connection or `
	for _, err := range []error{Check("flow", nil), func() error {
		_, err := NewExtractor("flow", Config{}, nil)
		return err
	}()} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestUnknownColumns(t *testing.T) {
	for _, name := range []string{"rev_bytes", "", "flag=S9", "flag=", "duration=1", "=", "Flag", "service=http ", "packet_size"} {
		for _, err := range []error{Check(ConnectionRow, []string{"count", name}), func() error {
			_, err := NewExtractor(ConnectionRow, Config{Columns: []string{"count", name}}, nil)
			return err
		}()} {
			if err == nil || !strings.Contains(err.Error(), `column 2: "`+name+`"`) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

// TestOneHot: in every row the columns of a feature's values agree with its code.
func TestOneHot(t *testing.T) {
	var features []Feature
	var columns []string
	for _, f := range featuresOf(ConnectionRow) {
		if f.OneHot != nil {
			features = append(features, f)
			columns = append(columns, f.Columns()...)
		}
	}
	n := 0
	tr := newTracker(t, Config{Columns: columns}, func(r *Row) {
		n++
		values := r.Values
		for _, f := range features {
			for v := range f.OneHot {
				if want := float32(oneIf(v == int(values[0]))); values[1+v] != want {
					t.Fatalf("%s is %v, %s=%s is %v", f.Name, values[0], f.Name, f.OneHot[v], values[1+v])
				}
			}
			values = values[1+len(f.OneHot):]
		}
	})
	for _, p := range randomPackets(newRand(10), 3000) {
		tr.Add(&p)
	}
	tr.Flush()
	if n == 0 {
		t.Error("no rows")
	}
}

func TestServices(t *testing.T) {
	for _, tc := range []struct {
		proto     uint8
		port      uint16
		typ, code uint8
		want      string
	}{
		{proto: 6, port: 80, want: "http"},
		{proto: 6, port: 161, want: "private"},
		{proto: 6, port: 1023, want: "private"},
		{proto: 6, port: 1024, want: "other"},
		{proto: 6, port: 6000, want: "X11"},
		{proto: 17, port: 6000, want: "other"},
		{proto: 17, port: 53, want: "domain_u"},
		{proto: 6, port: 53, want: "domain"},
		{proto: 1, typ: 8, want: "eco_i"},
		{proto: 1, typ: 0, want: "ecr_i"},
		{proto: 1, typ: 3, code: 3, want: "urp_i"},
		{proto: 1, typ: 3, code: 1, want: "urh_i"},
		{proto: 1, typ: 5, want: "red_i"},
		{proto: 1, typ: 11, want: "tim_i"},
		{proto: 1, typ: 13, want: "oth_i"},
		{proto: 58, typ: 128, want: "eco_i"},
		{proto: 58, typ: 1, code: 4, want: "urp_i"},
		{proto: 58, typ: 135, want: "oth_i"},
		{proto: 132, port: 38412, want: "other"},
		{proto: 47, want: "other"},
	} {
		if got := kddServices[service(tc.proto, tc.port, tc.typ, tc.code)]; got != tc.want {
			t.Errorf("%d port %d type %d.%d: %s, want %s", tc.proto, tc.port, tc.typ, tc.code, got, tc.want)
		}
	}
	for _, m := range []map[uint16]string{kddTCP, kddUDP} {
		for port, name := range m {
			if _, ok := serviceCode[name]; !ok {
				t.Errorf("port %d: %s is no service", port, name)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		feature string
		value   float64
		want    string
	}{{"flag", 1, "S0"}, {"protocol_type", 0, "tcp"}, {"flag", 11, ""}, {"flag", -1, ""}, {"flag", .5, ""}, {"count", 1, ""}, {"none", 0, ""}} {
		if got := ValueName(tc.feature, tc.value); got != tc.want {
			t.Errorf("%s %v: %q, want %q", tc.feature, tc.value, got, tc.want)
		}
	}
	for _, tc := range []struct {
		proto uint8
		port  uint16
		want  string
	}{{6, 1883, "mqtt"}, {132, 38412, "ngap"}, {17, 2152, "gtp-u"}, {17, 9, ""}, {1, 80, ""}} {
		if got := ServiceName(tc.proto, tc.port); got != tc.want {
			t.Errorf("%d/%d: %q, want %q", tc.proto, tc.port, got, tc.want)
		}
	}
}
