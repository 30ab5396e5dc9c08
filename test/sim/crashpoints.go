package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// enumerate runs a stage with the agent killed at every step and back in every way, and killed once more at every step of
// the recovery from that. With stop it ends after the first crash that breaks something.
func (s *stage) enumerate(workers int, stop bool) []crash {
	all := append([]crash{{stage: s}}, s.first(func(int) bool { return true })...)
	if all = runAll(all, workers, stop); stop && broke(all) {
		return all
	}
	return append(all, runAll(again(all), workers, stop)...)
}

// first returns crashes at the wanted steps.
func (s *stage) first(want func(step int) bool) (out []crash) {
	for step := 1; step <= len(s.steps); step++ {
		for _, back := range comebacks {
			if want(step) {
				out = append(out, crash{stage: s, kills: []kill{{step, back}}})
			}
		}
	}
	return out
}

// again returns a second crash at every step of the recovery from each.
func again(all []crash) (out []crash) {
	for _, c := range all {
		for step := 1; step <= c.again; step++ {
			out = append(out, crash{stage: c.stage, kills: []kill{c.kills[0], {step, comebacks[0]}}})
		}
	}
	return out
}

func broke(all []crash) bool {
	return slices.ContainsFunc(all, func(c crash) bool { return len(c.broken) > 0 })
}

// runAll runs crashes and returns those that were run: all, or with stop as many as it took to break something.
func runAll(all []crash, workers int, stop bool) []crash {
	var next atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) || done.Load() {
					return
				}
				all[i].run(nil)
				if stop && len(all[i].broken) > 0 {
					done.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return all[:min(int(next.Load()), len(all))]
}

// crashpoints enumerates all deeds, prints what came of it and returns the exit status.
func crashpoints(workers int, out io.Writer) int {
	fmt.Fprintf(out, "%-40s %6s %6s %6s %6s %6s %6s %6s %6s\n", "action", "steps", "runs", "acts", "healed", "told", "twice", "lost", "other")
	var broken []crash
	status := 0
	for _, d := range deeds {
		s, err := d.set()
		if err != nil {
			fmt.Fprintf(out, "%-40s %v\n", d, err)
			status = 1
			continue
		}
		all := s.enumerate(workers, false)
		row := tallyCrashes(all)
		fmt.Fprintf(out, "%-40s %6d %6d %6d %6d %6d %6d %6d %6d\n", d, len(s.steps), len(all), row.acts, row.healed, row.told, row.twice, row.lost, row.other)
		for _, c := range all {
			if len(c.broken) > 0 {
				broken = append(broken, c)
			}
		}
	}
	if len(broken) > 0 {
		status = 1
	}
	explainCrashes(out, broken)
	return status
}

// crashRow is what came of the crashes of one deed.
type crashRow struct{ acts, healed, told, twice, lost, other int }

func tallyCrashes(all []crash) (r crashRow) {
	for _, c := range all {
		r.acts += c.acts
		broke := func(names ...string) bool {
			return slices.ContainsFunc(c.broken, func(v violation) bool { return slices.Contains(names, v.Invariant) })
		}
		twice, gone := broke(duplicate, "S27", "S28"), broke(lost)
		switch {
		case c.healed:
			r.healed++
		case !gone:
			r.told++
		}
		if twice {
			r.twice++
		}
		if gone {
			r.lost++
		}
		if len(c.broken) > 0 && !twice && !gone {
			r.other++
		}
	}
	return r
}

// explainCrashes prints the crashes that broke something, by what they broke, with the commands that replay them.
func explainCrashes(out io.Writer, broken []crash) {
	by := map[string][]*crash{}
	for i := range broken {
		seen := map[string]bool{}
		for _, v := range broken[i].broken {
			if !seen[v.Invariant] {
				by[v.Invariant] = append(by[v.Invariant], &broken[i])
			}
			seen[v.Invariant] = true
		}
	}
	fmt.Fprintf(out, "runs with violations: %d\n", len(broken))
	for _, invariant := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(out, "\n%s: in %d runs\n", invariant, len(by[invariant]))
		for _, c := range by[invariant][:min(explained, len(by[invariant]))] {
			i := slices.IndexFunc(c.broken, func(v violation) bool { return v.Invariant == invariant })
			fmt.Fprintf(out, "  %s: %s\n    killed at %q\n    go run ./test/sim -crashpoints -case %s\n",
				c.stage.deed, c.broken[i].Text, c.stage.steps[c.kills[0].step-1], c)
		}
	}
}
