//go:build planted

package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// pool is how many seeds the hunt chooses from.
const pool = 20000

func buildPlanted(seeds uint64) int { return huntPlanted(seeds, 2) }

// huntPlanted plants one bug after the other and runs seeds until an invariant breaks. Which bug and which seed belong
// together is found by the kinds of faults that the seeds drew: the seeds themselves are those that every run has.
func huntPlanted(seeds uint64, workers int) int {
	outside := planted.Outside()
	bugs := slices.Sorted(maps.Keys(planted.List(node.Guards())))
	bugs = slices.DeleteFunc(bugs, func(bug string) bool { return outside[bug] != "" })
	code := hunt(os.Stdout, bugs, seeds, workers)
	for _, bug := range slices.Sorted(maps.Keys(outside)) {
		fmt.Printf("outside    %-38s %s\n", bug, outside[bug])
	}
	return code
}

func hunt(out io.Writer, bugs []string, seeds uint64, workers int) int {
	began := time.Now()
	scripts := drawAll(pool, workers)
	found := 0
	for _, bug := range bugs {
		planted.Current = bug
		by, n, v := "crash points", 0, violation{}
		if byCrash[bug] {
			if all := brokenByCrashes(workers); len(all) > 0 {
				v = all[0]
			}
		}
		if v.Invariant == "" {
			n, v = search(order(scripts, hints[bug]), seeds, workers, byHarm[bug])
			by = fmt.Sprintf("seed %d", v.Seed)
		}
		planted.Current = ""
		if v.Invariant == "" {
			fmt.Fprintf(out, "not found  %-38s %5d seeds\n", bug, n)
			continue
		}
		found++
		fmt.Fprintf(out, "found      %-38s %5d seeds  %-12s %-9s %s\n", bug, n, by, v.Invariant, v.Text)
	}
	fmt.Fprintf(out, "found %d of %d planted bugs in %s\n", found, len(bugs), time.Since(began).Round(time.Second))
	fmt.Fprintln(out, "All seeds are ordinary ones. Of the first", pool, "those ran first that drew the kinds of faults which bring the bug out.")
	if found < len(bugs) {
		return 1
	}
	return 0
}

// drawAll returns the kinds of faults in the scripts of the first n seeds.
func drawAll(n uint64, workers int) [][]string {
	all := make([][]string, n)
	var wg sync.WaitGroup
	for k := range uint64(workers) {
		wg.Go(func() {
			for i := k; i < n; i += uint64(workers) {
				for _, f := range scriptOf(i + 1) {
					all[i] = append(all[i], f.kind)
				}
			}
		})
	}
	wg.Wait()
	return all
}

// order returns the seeds, those first that drew most of the wanted kinds.
func order(scripts [][]string, wanted [][]string) []uint64 {
	seeds, score := make([]uint64, len(scripts)), make([]int, len(scripts)+1)
	for i, kinds := range scripts {
		seeds[i] = uint64(i + 1)
		for _, any := range wanted {
			if slices.ContainsFunc(any, func(k string) bool { return slices.Contains(kinds, k) }) {
				score[i+1]++
			}
		}
	}
	slices.SortStableFunc(seeds, func(a, b uint64) int { return score[b] - score[a] })
	return seeds
}

// search runs seeds in their order until one breaks an invariant, and returns how many that took. Comparing a seed with
// what it would be without agents (S40) takes longer than all the rest, and is left out where the bug does not need it.
func search(seeds []uint64, most uint64, workers int, harm bool) (int, violation) {
	seeds = seeds[:min(most, uint64(len(seeds)))]
	broken := make([][]violation, len(seeds))
	for from := 0; from < len(seeds); from += workers {
		var wg sync.WaitGroup
		upto := min(from+workers, len(seeds))
		for i := from; i < upto; i++ {
			wg.Go(func() { broken[i] = runHunted(seeds[i], harm) })
		}
		wg.Wait()
		for i := from; i < upto; i++ {
			if len(broken[i]) > 0 {
				return i + 1, broken[i][0]
			}
		}
	}
	return len(seeds), violation{}
}

func runHunted(seed uint64, harm bool) []violation {
	if harm {
		return runSeed(seed, nil, nil).Violations
	}
	w := newWorld(seed, true, nil)
	play(w)
	return w.facts.Violations
}

// brokenByCrashes returns what the first crash breaks that breaks anything, in one deed of each verb and class: others take
// the same steps. A world that does not lead to its deed any more breaks nothing: that is for seeds to see.
func brokenByCrashes(workers int) []violation {
	tried := map[string]bool{}
	for _, d := range deeds {
		kind := fmt.Sprint(d.verb, d.class)
		if tried[kind] {
			continue
		}
		tried[kind] = true
		s, err := d.set()
		if err != nil {
			continue
		}
		for _, c := range s.enumerate(workers, true) {
			if len(c.broken) > 0 {
				return c.broken
			}
		}
	}
	return nil
}
