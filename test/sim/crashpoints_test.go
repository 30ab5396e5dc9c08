package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A part of what -crashpoints enumerates: every so manieth step of each deed, other ones for each.
func TestCrashes_LoseNothingAndRepeatNothing(t *testing.T) {
	for i, d := range deeds {
		s, err := d.set()
		if err != nil {
			t.Error(err)
			continue
		}
		first := runAll(s.first(func(step int) bool { return step%crashStride == i%crashStride }), 2, false)
		all := append(first, runAll(again(first), 2, false)...)
		row := tallyCrashes(all)
		for _, c := range all {
			for _, v := range c.broken {
				t.Errorf("%s: %s; go run ./test/sim -crashpoints -case %s", v.Invariant, v.Text, &c)
			}
		}
		t.Logf("%s: %d of %d steps, %d runs, %d acts, %d healed, %d told", d, len(first)/len(comebacks), len(s.steps), len(all), row.acts, row.healed, row.told)
	}
}

func TestCrash_IsOneTrace(t *testing.T) {
	acted := false
	for _, c := range []struct{ deed, step, rest string }{
		{"hung-revive", "systemd: kill: on its way", "1s/4"},
		{"zombie-disrupt", "systemd: kill: before", "30s"},
		{"failed-start", "journal: intent: after", "reboot/1"},
	} {
		name := fmt.Sprintf("%s/%d/%s", c.deed, stepNamed(t, c.deed, c.step), c.rest)
		args := []string{"-crashpoints", "-case", name}
		var first, second strings.Builder
		a, b := run(args, &first, &first), run(args, &second, &second)
		if d := cmp.Diff(first.String(), second.String()); d != "" || a != 0 || b != 0 {
			t.Errorf("sim %v gave status %d and %d (-first +second):\n%s", args, a, b, d)
		}
		if kills := strings.Count(first.String(), "agent is killed"); kills != 1+strings.Count(c.rest, "/") {
			t.Errorf("%s: the agent was killed %d times:\n%s", name, kills, first.String())
		}
		acted = acted || strings.Contains(first.String(), ": ACT ")
	}
	if !acted {
		t.Error("not one of them acted")
	}
}

// stepNamed returns the number of a step.
func stepNamed(t *testing.T, name, step string) int {
	t.Helper()
	i := slices.IndexFunc(deeds, func(d deed) bool { return d.name == name })
	s, err := deeds[i].set()
	if err != nil || !slices.Contains(s.steps, step) {
		t.Fatalf("%s has no step %q: %v, %q", name, step, err, s.steps)
	}
	return 1 + slices.Index(s.steps, step)
}

func TestCrash_ReadsWhatItWrites(t *testing.T) {
	step := stepNamed(t, "hung-revive", "systemd: kill: on its way")
	for _, back := range []string{"1s", "1s/4", "30s/4"} {
		name := fmt.Sprintf("hung-revive/%d/%s", step, back)
		c, err := parseCrash(name)
		if err != nil || c.String() != name {
			t.Errorf("%q became %q, %v", name, c, err)
		}
	}
}
