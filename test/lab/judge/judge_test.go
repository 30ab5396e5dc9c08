package judge

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

var start = time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

func window(from, to float64) Window { return Window{at(from), at(to)} }

func gap(from, to float64) record.Record {
	return record.Record{At: at(to), Node: "hap1", Gap: &record.Gap{From: at(from), To: at(to)}}
}

func primary(node string, s float64, timeline int) record.Record {
	return record.Record{At: at(s), Node: node, PG: &record.PG{Answered: true, Timeline: timeline, Started: start}}
}

func replica(node string, s float64) record.Record {
	return record.Record{At: at(s), Node: node, PG: &record.PG{Answered: true, Recovery: true, Timeline: 1, Started: start}}
}

func silent(node string, s float64) record.Record {
	return record.Record{At: at(s), Node: node, PG: &record.PG{Text: "refused"}}
}

// every repeats an observation once a second.
func every(from, to float64, f func(float64) record.Record) []record.Record {
	var recs []record.Record
	for s := from; s <= to; s++ {
		recs = append(recs, f(s))
	}
	return recs
}

func TestLongestGap(t *testing.T) {
	for _, tt := range []struct {
		name string
		recs []record.Record
		want Span
	}{
		{"none", nil, Span{}},
		{"the longer of two", []record.Record{gap(11, 12), gap(20, 23)}, Span{at(20), at(23)}},
		{"begun before the window", []record.Record{gap(5, 14)}, Span{at(10), at(14)}},
		{"still open when the window ends", []record.Record{gap(28, 90)}, Span{at(28), at(30)}},
		{"over before the window", []record.Record{gap(2, 9)}, Span{}},
		{"after the window", []record.Record{gap(31, 60)}, Span{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := LongestGap(tt.recs, window(10, 30))
			if got.Length() == 0 {
				got = Span{}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("longest gap (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecondPrimary(t *testing.T) {
	one := every(0, 40, func(s float64) record.Record { return primary("pg1", s, 1) })
	for _, tt := range []struct {
		name string
		recs []record.Record
		want []Span
	}{
		{"one primary", one, nil},
		{
			"second until it is demoted",
			append(append(append([]record.Record{}, one...), replica("pg2", 0), primary("pg2", 25, 2), primary("pg2", 26, 2)), replica("pg2", 27)),
			[]Span{{at(25), at(27)}},
		},
		{
			"handover without overlap",
			[]record.Record{primary("pg1", 0, 1), replica("pg1", 1), replica("pg2", 0), primary("pg2", 1, 2), primary("pg2", 2, 2)},
			nil,
		},
		{
			"a node that stops answering is not taken for writable",
			[]record.Record{primary("pg1", 0, 1), silent("pg1", 1), primary("pg2", 1, 2), primary("pg2", 2, 2), primary("pg2", 3, 2)},
			nil,
		},
		{
			"a witness that falls silent is believed for a moment only",
			[]record.Record{primary("pg1", 0, 1), primary("pg1", 30, 1), primary("pg2", 2, 2), primary("pg2", 3, 2), primary("pg2", 4, 2)},
			[]Span{{at(2), at(2.5)}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, SecondPrimary(tt.recs, window(0, 40))); diff != "" {
				t.Errorf("second primary (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecondPrimary_NeverLongerThanTheShorterPrimary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var recs []record.Record
		for _, node := range []string{"pg1", "pg2", "pg3"} {
			for s, w := range rapid.SliceOfN(rapid.IntRange(0, 2), 0, 40).Draw(t, node) {
				switch w {
				case 0:
					recs = append(recs, replica(node, float64(s)))
				case 1:
					recs = append(recs, primary(node, float64(s), 1))
				}
			}
		}
		w := window(5, 30)
		all := time.Duration(0)
		for node, spans := range Writable(recs, w) {
			for _, s := range spans {
				if s.From.Before(w.From) || s.To.After(w.To) || s.To.Before(s.From) {
					t.Fatalf("span of %s outside the window: %v", node, s)
				}
			}
			all += Total(spans)
		}
		if two := Total(SecondPrimary(recs, w)); 2*two > all {
			t.Fatalf("two primaries for %s, writable for %s in all", two, all)
		}
	})
}

func TestFailovers(t *testing.T) {
	recs := []record.Record{
		primary("pg1", 1, 1), primary("pg1", 12, 1), primary("pg2", 14, 2), primary("pg1", 15, 1), primary("pg2", 16, 2), primary("pg3", 35, 3),
	}
	if got := Failovers(recs, window(10, 30)); got != 1 {
		t.Errorf("failovers = %d, want 1", got)
	}
}

func TestPostmasters_AnswersInAnotherZoneAreTheSame(t *testing.T) {
	a, b := primary("pg1", 11, 1), primary("pg1", 12, 1)
	b.PG.Started = start.In(time.FixedZone("KST", 9*3600))
	c := primary("pg1", 13, 1)
	c.PG.Started = start.Add(time.Second)
	if got := len(Postmasters([]record.Record{a, b, silent("pg1", 12.5)}, window(10, 30), "pg1")); got != 1 {
		t.Errorf("postmasters = %d, want 1", got)
	}
	if got := len(Postmasters([]record.Record{a, b, c}, window(10, 30), "pg1")); got != 2 {
		t.Errorf("postmasters = %d, want 2", got)
	}
}

func TestUnit(t *testing.T) {
	unit := func(s float64, state, id string, restarts uint32) record.Record {
		return record.Record{At: at(s), Node: "pg1", Unit: &record.Unit{Name: "patroni.service", ActiveState: state, InvocationID: id, NRestarts: restarts}}
	}
	recs := []record.Record{
		unit(9, "active", "a", 2), unit(10, "active", "a", 2), unit(12, "activating", "", 2), unit(13, "active", "b", 3), unit(14, "active", "b", 3),
		{At: at(15), Node: "pg1", Unit: &record.Unit{Name: "patroni.service", Text: "bus is gone"}},
	}
	want := []Invocation{{"a", at(10)}, {"b", at(13)}}
	if diff := cmp.Diff(want, Invocations(recs, window(10, 30), "pg1", "patroni.service")); diff != "" {
		t.Errorf("invocations (-want +got):\n%s", diff)
	}
	if got := Restarts(recs, window(10, 30), "pg1", "patroni.service"); got != 1 {
		t.Errorf("restarts = %d, want 1", got)
	}
}

func TestProxyDown(t *testing.T) {
	proxy := func(s float64, status string) record.Record {
		return record.Record{At: at(s), Node: "hap1", Proxy: &record.Proxy{Servers: map[string]string{"postgres-1": status, "postgres-2": "DOWN"}}}
	}
	recs := []record.Record{proxy(5, "UP"), proxy(12, "UP 1/3"), proxy(15, "DOWN"), proxy(18, "UP"), proxy(28, "DOWN 1/2")}
	if diff := cmp.Diff([]Span{{at(15), at(18)}, {at(28), at(30)}}, ProxyDown(recs, window(10, 30))); diff != "" {
		t.Errorf("proxy down (-want +got):\n%s", diff)
	}
}

func TestErrors_CountsByStateAndStep(t *testing.T) {
	fail := func(s float64, step, state string) record.Record {
		return record.Record{At: at(s), Error: &record.Error{Step: step, SQLState: state}}
	}
	recs := []record.Record{fail(9, "write", "25006"), fail(11, "write", "25006"), fail(12, "connect", ""), fail(13, "write", "25006"), fail(14, "count", "")}
	if diff := cmp.Diff(map[string]int{"25006": 2, "connect": 1}, Errors(recs, window(10, 30))); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

func TestSilence(t *testing.T) {
	pick := func(r record.Record) bool { return r.Node == "pg1" }
	for _, tt := range []struct {
		name string
		recs []record.Record
		want time.Duration
	}{
		{"nothing heard", nil, 20 * time.Second},
		{"heard throughout", every(0, 40, func(s float64) record.Record { return replica("pg1", s) }), time.Second},
		{"fell silent", every(0, 18, func(s float64) record.Record { return replica("pg1", s) }), 12 * time.Second},
		{"another node was heard", every(0, 40, func(s float64) record.Record { return replica("pg2", s) }), 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Silence(tt.recs, window(10, 30), pick); got != tt.want {
				t.Errorf("silence = %s, want %s", got, tt.want)
			}
		})
	}
}
