package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Slack is how far the distance of two events may differ between two runs before their opposite order is one: a look of the
// lab takes up to half a second, a health check of HAProxy comes every three, a turn of Patroni's loop under the fast
// timings every two.
const Slack = 3 * time.Second

// Differences says in what two runs disagree; nothing means that they agree:
//
//   - what happened to one subject is the same, in the same order;
//   - no two events of different subjects are in opposite order, unless they are so close that this is chance: what
//     separates them in the one run and in the other adds up to less than Slack.
func Differences(a, b []Event) []string {
	of, other := bySubject(a), bySubject(b)
	var out []string
	var both [][2]Event // the same event in either run
	for _, subject := range subjects(of, other) {
		x, y := of[subject], other[subject]
		if s, t := words(x), words(y); s != t {
			out = append(out, fmt.Sprintf("%s: %s | %s", subject, s, t))
			continue
		}
		for i := range x {
			both = append(both, [2]Event{x[i], y[i]})
		}
	}
	for i, e := range both {
		for _, f := range both[:i] {
			here, there := f[0].At-e[0].At, f[1].At-e[1].At
			if here > 0 != (there > 0) && here != 0 && there != 0 && (here-there).Abs() >= Slack {
				out = append(out, fmt.Sprintf("%s %s and %s %s are in opposite order: +%.1fs, +%.1fs | +%.1fs, +%.1fs",
					e[0].Subject, e[0].What, f[0].Subject, f[0].What, e[0].At.Seconds(), f[0].At.Seconds(), e[1].At.Seconds(), f[1].At.Seconds()))
			}
		}
	}
	return out
}

func bySubject(events []Event) map[string][]Event {
	m := map[string][]Event{}
	for _, e := range events {
		m[e.Subject] = append(m[e.Subject], e)
	}
	return m
}

func subjects(a, b map[string][]Event) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

func words(events []Event) string {
	var out []string
	for _, e := range events {
		out = append(out, e.What)
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

// Comparison is what came of comparing the runs of one script.
type Comparison struct {
	Script Script
	// Lab and Model say of each run in what it differs from that run of the other side which it is most like.
	Lab, Model [][]string
	LabEvents  []Event // of the first run
	Known      []Known // differences that there were and that are allowed
	Stale      []Known // differences that are allowed and that there were not
}

// Agrees reports whether there is no difference but the known ones, and each of those.
func (c Comparison) Agrees() bool {
	return len(slices.Concat(slices.Concat(c.Lab...), slices.Concat(c.Model...))) == 0 && len(c.Stale) == 0 && len(c.Lab) > 0 && len(c.Model) > 0
}

// Compare compares the runs of a script: each of either side must agree with one of the other. The phases of loops and
// checks are chance on both sides, so that a script may have more than one story.
func Compare(s Script, lab, model []Run) Comparison {
	c := Comparison{Script: s}
	known := knownOf(s.Name)
	labRuns, usedLab := tell(lab, s, known, InLab)
	modelRuns, usedModel := tell(model, s, known, InModel)
	for _, r := range labRuns {
		c.Lab = append(c.Lab, nearest(r, modelRuns, false))
	}
	for _, r := range modelRuns {
		c.Model = append(c.Model, nearest(r, labRuns, true))
	}
	if len(lab) > 0 {
		c.LabEvents = lab[0].Events(s.Look)
	}
	for i, k := range known {
		if usedLab[i] || usedModel[i] {
			c.Known = append(c.Known, k)
		} else {
			c.Stale = append(c.Stale, k)
		}
	}
	return c
}

// tell returns the events of runs without those that are known to be on this side only, and which of those there were.
func tell(runs []Run, s Script, known []Known, side Side) (told [][]Event, used []bool) {
	used = make([]bool, len(known))
	for _, r := range runs {
		told = append(told, slices.DeleteFunc(r.Events(s.Look), func(e Event) bool {
			i := slices.IndexFunc(known, func(k Known) bool { return k.Only == side && k.Event == e.Subject+" "+e.What })
			if i >= 0 {
				used[i] = true
			}
			return i >= 0
		}))
	}
	return told, used
}

// nearest returns the differences from the run that a run is most like. The lab comes first in their words.
func nearest(run []Event, others [][]Event, labIsOther bool) []string {
	best := []string{"there is nothing to compare it with"}
	for i, o := range others {
		d := Differences(run, o)
		if labIsOther {
			d = Differences(o, run)
		}
		if i == 0 || len(d) < len(best) {
			best = d
		}
	}
	return best
}
