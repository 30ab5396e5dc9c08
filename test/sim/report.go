package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// violation is an invariant that a seed broke.
type violation struct {
	Invariant string
	Seed      uint64
	Text      string
}

// tally is what happened in one or many seeds.
type tally struct {
	Seeds      int
	Hours      float64
	Faults     map[string]int
	Actions    map[string]int
	Results    map[string]int
	Refusals   map[string]int
	Violations []violation
	Worse      int // seeds that were worse with agents, in either
	Better     int // seeds that were better with agents, in either
	Down       pair[time.Duration]
	Lost       pair[float64]
	seen       map[string]bool
}

// pair is a sum over all seeds, with agents and without.
type pair[T time.Duration | float64] struct{ With, Without T }

func newTally() tally {
	return tally{Faults: map[string]int{}, Actions: map[string]int{}, Results: map[string]int{}, Refusals: map[string]int{}, seen: map[string]bool{}}
}

// refused counts an action and the guard that refused it, once per seed.
func (t *tally) refused(action string, g node.Guard) {
	if key := action + string(g); !t.seen[key] {
		t.seen[key] = true
		t.Refusals[string(g)]++
	}
}

func (t *tally) acted(a node.Action, r node.AttemptResult) {
	t.Actions[fmt.Sprintf("%s %s (%s)", a.Verb, a.Finding, a.Class)]++
	t.judged(r)
}

func (t *tally) judged(r node.AttemptResult) { t.Results[string(r)]++ }

// add adds another tally. Sums do not depend on the order.
func (t *tally) add(o tally) {
	t.Seeds += o.Seeds
	t.Hours += o.Hours
	t.Worse += o.Worse
	t.Better += o.Better
	t.Down.With += o.Down.With
	t.Down.Without += o.Down.Without
	t.Lost.With += o.Lost.With
	t.Lost.Without += o.Lost.Without
	for _, m := range []struct{ to, from map[string]int }{{t.Faults, o.Faults}, {t.Actions, o.Actions}, {t.Results, o.Results}, {t.Refusals, o.Refusals}} {
		for k, n := range m.from {
			m.to[k] += n
		}
	}
	t.Violations = append(t.Violations, o.Violations...)
}

// write prints the report.
func (t *tally) write(w io.Writer) {
	fmt.Fprintf(w, "seeds %d, simulated hours %.1f\n", t.Seeds, t.Hours)
	for _, part := range []struct {
		title  string
		counts map[string]int
	}{{"faults", t.Faults}, {"actions", t.Actions}, {"results", t.Results}, {"refusals per guard (once per action and seed)", t.Refusals}} {
		fmt.Fprintf(w, "\n%s\n", part.title)
		for _, k := range slices.Sorted(maps.Keys(part.counts)) {
			fmt.Fprintf(w, "  %-45s %d\n", k, part.counts[k])
		}
	}
	var never []string
	for _, g := range node.Guards() {
		if t.Refusals[string(g)] == 0 {
			never = append(never, string(g))
		}
	}
	fmt.Fprintf(w, "\nguards that never refused: %v\n", never)
	fmt.Fprintf(w, "every seed again without agents: %d better with them, %d worse\n", t.Better, t.Worse)
	fmt.Fprintf(w, "  no writes for %s with agents, %s without; acknowledged writes lost %.0f with, %.0f without\n",
		t.Down.With.Round(time.Second), t.Down.Without.Round(time.Second), t.Lost.With, t.Lost.Without)
}
