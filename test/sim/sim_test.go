package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSeed_IsOneTrace(t *testing.T) {
	acted := false
	for seed := uint64(1); seed <= 12; seed++ {
		var first, second strings.Builder
		runSeed(seed, &first)
		runSeed(seed, &second)
		if d := cmp.Diff(first.String(), second.String()); d != "" {
			t.Errorf("seed %d gave two traces (-first +second):\n%s", seed, d)
		}
		acted = acted || strings.Contains(first.String(), ": ACT ")
	}
	if !acted {
		t.Error("not one of the seeds acted")
	}
}

func TestSeeds_BreakNothing(t *testing.T) {
	total := runSeeds(200, 50, 2, false)
	for _, v := range total.Violations {
		t.Errorf("%s: %s; go run ./test/sim -seed %d", v.Invariant, v.Text, v.Seed)
	}
	if total.Seeds != 50 || len(total.Actions) < 3 {
		t.Errorf("%d seeds with actions %v", total.Seeds, total.Actions)
	}
}
