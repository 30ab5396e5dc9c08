package conformance

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const testdata = "testdata"

// recorded returns every recorded run with its script.
func recorded(t *testing.T) map[string][][]Event {
	t.Helper()
	all := map[string][][]Event{}
	for _, s := range Scripts() {
		rec, err := Load(testdata, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rec.Runs {
			all[s.Name] = append(all[s.Name], r.Events(s.Look))
		}
	}
	return all
}

// TestDifferences_Removed proves on what the lab really saw that no event can be missing without being missed.
func TestDifferences_Removed(t *testing.T) {
	n := 0
	for name, runs := range recorded(t) {
		for _, run := range runs {
			if d := Differences(run, run); len(d) > 0 {
				t.Errorf("%s differs from itself: %v", name, d)
			}
			for i, e := range run {
				if less := slices.Delete(slices.Clone(run), i, i+1); len(Differences(run, less)) == 0 || len(Differences(less, run)) == 0 {
					t.Errorf("%s: nobody misses %s", name, e)
				}
				n++
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d events", n)
	}
}

// TestDifferences_Swapped proves that two events in opposite order are noticed: of one subject always, of two where they
// are far enough apart.
func TestDifferences_Swapped(t *testing.T) {
	n := 0
	for name, runs := range recorded(t) {
		for _, run := range runs {
			for i, e := range run {
				for j, f := range run[:i] {
					same := e.Subject == f.Subject
					if same && e.What == f.What || !same && 2*(e.At-f.At) < Slack || e.At == f.At {
						continue // of one moment: to exchange the times changes nothing
					}
					other := slices.Clone(run)
					other[i].At, other[j].At = f.At, e.At
					slices.SortStableFunc(other, func(a, b Event) int { return int(a.At - b.At) })
					if len(Differences(run, other)) == 0 {
						t.Errorf("%s: nobody notices that %s and %s are swapped", name, f, e)
					}
					n++
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d pairs", n)
	}
}

func TestDifferences(t *testing.T) {
	at := func(s float64, subject, what string) Event {
		return Event{time.Duration(s * float64(time.Second)), subject, what}
	}
	for _, tt := range []struct {
		name string
		a, b []Event
		want string // the difference's beginning, "" for none
	}{
		{"nothing", nil, nil, ""},
		{"other times", []Event{at(1, "x", "falls"), at(20, "y", "falls")}, []Event{at(9, "x", "falls"), at(10, "y", "falls")}, ""},
		{"close, the other way round", []Event{at(1, "x", "falls"), at(2, "y", "falls")}, []Event{at(2, "x", "falls"), at(1, "y", "falls")}, ""},
		{"far, the other way round", []Event{at(1, "x", "falls"), at(5, "y", "falls")}, []Event{at(2, "x", "falls"), at(1, "y", "falls")}, "y falls and x falls are in opposite order"},
		{"only one of them far", []Event{at(1, "x", "falls"), at(1.5, "y", "falls")}, []Event{at(9, "x", "falls"), at(1, "y", "falls")}, "y falls and x falls are in opposite order"},
		{"the same moment is no order", []Event{at(1, "x", "falls"), at(1, "y", "falls")}, []Event{at(9, "x", "falls"), at(1, "y", "falls")}, ""},
		{"one subject, other order", []Event{at(1, "x", "falls"), at(1.1, "x", "rises")}, []Event{at(1, "x", "rises"), at(1.1, "x", "falls")}, "x: falls, rises | rises, falls"},
		{"one more", []Event{at(1, "x", "falls")}, []Event{at(1, "x", "falls"), at(2, "y", "falls")}, "y: nothing | falls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(Differences(tt.a, tt.b), "; ")
			if (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) {
				t.Errorf("differences = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	s := Script{Name: "none of the known", Look: time.Minute}
	run := func(states ...string) Run {
		r := Run{Leader: "a", Readings: []Reading{{0, Key, "-", "a", 0}}}
		for i, state := range states {
			r.Readings = append(r.Readings, Reading{time.Duration(i+1) * 10 * time.Second, Key, "-", state, 0})
		}
		return r
	}
	calm, lost, taken := run(), run(Nobody), run("b")
	for _, tt := range []struct {
		name       string
		lab, model []Run
		want       bool
	}{
		{"the same", []Run{lost}, []Run{lost}, true},
		{"two stories on both sides", []Run{lost, taken}, []Run{taken, lost, taken}, true},
		{"the model has a story of its own", []Run{lost}, []Run{lost, taken}, false},
		{"the lab has", []Run{lost, calm}, []Run{lost}, false},
		{"nothing recorded", nil, []Run{lost}, false},
		{"nothing modelled", []Run{calm}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Compare(s, tt.lab, tt.model).Agrees(); got != tt.want {
				t.Errorf("agrees = %t, want %t", got, tt.want)
			}
		})
	}
}
