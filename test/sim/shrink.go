package main

import (
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"time"
)

const (
	// explained is how many seeds of one invariant are shrunk. The others are only named.
	explained = 3
	// named is how many seeds of one invariant are named.
	named = 40
	// shrinkTries bounds the runs that are spent on one seed.
	shrinkTries = 300
)

// explain prints violations by invariant; for the first seeds of each also the shortest script that still breaks it, and
// the command that replays that.
func explain(w io.Writer, all []violation) {
	fmt.Fprintf(w, "violations: %d\n", len(all))
	broken := map[string][]violation{}
	for _, v := range all {
		broken[v.Invariant] = append(broken[v.Invariant], v)
	}
	for _, invariant := range slices.Sorted(maps.Keys(broken)) {
		first := onePerSeed(broken[invariant])
		fmt.Fprintf(w, "\n%s: %d in %d seeds\n", invariant, len(broken[invariant]), len(first))
		for i, v := range first {
			if i < explained {
				v.explain(w)
			}
		}
		if len(first) <= explained {
			continue
		}
		fmt.Fprint(w, "  also seeds")
		for _, v := range first[explained:min(named, len(first))] {
			fmt.Fprintf(w, " %d", v.Seed)
		}
		if more := len(first) - named; more > 0 {
			fmt.Fprintf(w, " and %d more", more)
		}
		fmt.Fprintln(w)
	}
}

// onePerSeed returns the first violation of each seed, in the order of seeds.
func onePerSeed(all []violation) []violation {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b violation) int { return int(a.Seed) - int(b.Seed) })
	return slices.CompactFunc(sorted, func(a, b violation) bool { return a.Seed == b.Seed })
}

func (v violation) explain(w io.Writer) {
	script := scriptOf(v.Seed)
	text := v.Text
	x := shrink(script, func(x excerpt) bool {
		broken, still := v.again(x)
		if still {
			text = broken.Text
		}
		return still
	})
	fmt.Fprintf(w, "  seed %d, with %d of its %d faults: %s\n", v.Seed, len(x), len(script), text)
	list(w, "    ", x.of(script))
	fmt.Fprintf(w, "    go run ./test/sim -seed %d -only %s\n", v.Seed, x)
}

// again returns the violation of the same invariant in an excerpt of the seed, if there is one.
func (v violation) again(x excerpt) (violation, bool) {
	all := runSeed(v.Seed, x, nil).Violations
	i := slices.IndexFunc(all, func(o violation) bool { return o.Invariant == v.Invariant })
	if i < 0 {
		return violation{}, false
	}
	return all[i], true
}

// shrink returns the fewest faults of a script that still break something, each no longer than it must be. If it takes
// too many tries to find them, it returns all faults of the script.
func shrink(script []fault, breaks func(excerpt) bool) excerpt {
	best := fewest(script, breaks)
	for _, f := range best.of(script) {
		if momentary[f.kind] {
			continue
		}
		for _, lasts := range []time.Duration{1, 2, 5, 10, 20, 30} {
			shorter := maps.Clone(best)
			if shorter[f.number] = lasts * time.Second; shorter[f.number] < f.lasts && breaks(shorter) {
				best = shorter
				break
			}
		}
	}
	return best
}

// fewest tries subsets, the small ones first.
func fewest(script []fault, breaks func(excerpt) bool) excerpt {
	tries := 0
	for size := range script {
		for set := range uint(1) << len(script) {
			if bits.OnesCount(set) != size {
				continue
			}
			if tries++; tries > shrinkTries {
				return subset(script, ^uint(0))
			}
			if x := subset(script, set); breaks(x) {
				return x
			}
		}
	}
	return subset(script, ^uint(0))
}

func subset(script []fault, set uint) excerpt {
	x := excerpt{}
	for i, f := range script {
		if set&(1<<i) != 0 {
			x[f.number] = 0
		}
	}
	return x
}
