//go:build planted

package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

func buildPlanted(seeds uint64) int { return huntPlanted(seeds, 2) }

// huntPlanted plants one bug after the other and runs seeds until an invariant breaks.
func huntPlanted(seeds uint64, workers int) int {
	all := planted.List(node.Guards())
	outside := planted.Outside()
	found := 0
	for _, bug := range slices.Sorted(maps.Keys(all)) {
		if why := outside[bug]; why != "" {
			fmt.Printf("outside    %-40s %s\n", bug, why)
			continue
		}
		planted.Current = bug
		t := runSeeds(1, seeds, workers, true)
		if len(t.Violations) == 0 {
			t.Violations = brokenByCrashes(workers)
		}
		planted.Current = ""
		if len(t.Violations) == 0 {
			fmt.Printf("not found  %-40s %d seeds\n", bug, t.Seeds)
			continue
		}
		found++
		v := t.Violations[0]
		fmt.Printf("found      %-40s %d seeds  %s  %s\n", bug, t.Seeds, v.Invariant, v.Text)
	}
	fmt.Printf("found %d of %d planted bugs, and %d are outside of what is simulated\n", found, len(all)-len(outside), len(outside))
	if found < len(all)-len(outside) {
		return 1
	}
	return 0
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
