package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSeed_IsOneTrace(t *testing.T) {
	acted := false
	for seed := 1; seed <= 12; seed++ {
		for _, only := range []string{"", "none", "1", "1:7s"} {
			args := []string{"-seed", strconv.Itoa(seed)}
			if only != "" {
				args = append(args, "-only", only)
			}
			var first, second strings.Builder
			a, b := run(args, &first, &first), run(args, &second, &second)
			if d := cmp.Diff(first.String(), second.String()); d != "" || a != b || a == 2 {
				t.Errorf("sim %v gave status %d and %d (-first +second):\n%s", args, a, b, d)
			}
			acted = acted || strings.Contains(first.String(), ": ACT ")
		}
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
	for action := range total.Actions {
		if !slices.ContainsFunc(deeds, func(d deed) bool { return d.String() == action }) {
			t.Errorf("the crash points know no %s", action)
		}
	}
	if total.Seeds != 50 || len(total.Actions) < 3 {
		t.Errorf("%d seeds with actions %v", total.Seeds, total.Actions)
	}
}
