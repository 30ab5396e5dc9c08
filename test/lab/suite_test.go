package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/test/lab/scenario"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

func experiment(id string, observe time.Duration, harm bool, timings ...string) scenario.Scenario {
	s := scenario.Scenario{ID: id, Timings: timings, Observe: func(stack.Timings) time.Duration { return observe }}
	if harm {
		s.Harm = []scenario.Check{scenario.SecondPrimary()}
	}
	return s
}

func TestSuiteJobs(t *testing.T) {
	all := []scenario.Scenario{
		experiment("calm", 20*time.Second, false, "fast"),
		experiment("harmful", 30*time.Second, true, "fast", "default"),
		experiment("slow", 30*time.Second, false),
		experiment("both", 40*time.Second, true, "default", "fast"),
		experiment("never", 40*time.Second, true),
	}
	s := suite{
		usual: []share{{with: 1, without: 1}},
		special: map[string]special{
			"both":  {[]share{{"default", 2, 1}, {"fast", 1, 0}}, "for the test"},
			"never": {nil, "for the test"},
		},
	}
	var got []string
	for _, j := range s.jobs(all) {
		got = append(got, j.scenario.ID+" "+j.timings.Name+map[bool]string{true: " with", false: " without"}[j.agents])
	}
	want := []string{
		"both default without", "both default with", "both default with", "slow default with",
		"both fast with", "harmful fast without", "harmful fast with", "calm fast with",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}

func TestSuites_EveryScenarioRunsUnlessAReasonIsGiven(t *testing.T) {
	all := scenario.All()
	for name, s := range suites() {
		t.Run(name, func(t *testing.T) {
			for id, sp := range s.special {
				if _, err := scenario.Find(id); err != nil || sp.why == "" {
					t.Errorf("special %s: %v, reason %q", id, err, sp.why)
				}
			}
			with, without := map[string]int{}, map[string]int{}
			bare := slices.ContainsFunc(s.usual, func(sh share) bool { return sh.without > 0 })
			for _, j := range s.jobs(all) {
				if j.agents {
					with[j.scenario.ID]++
				} else {
					without[j.scenario.ID]++
				}
			}
			for id, shares := range s.homelab {
				if sc, err := scenario.Find(id); err != nil || !sc.Homelab || len(shares) == 0 {
					t.Errorf("homelab %s: %v, %v", id, err, shares)
				}
			}
			for _, sc := range all {
				if sc.Homelab && s.homelab != nil {
					continue
				}
				if _, ok := s.special[sc.ID]; !ok && (with[sc.ID] == 0 || (without[sc.ID] > 0) != (bare && len(sc.Harm) > 0)) {
					t.Errorf("%s: %d runs with pgpatrol, %d without", sc.ID, with[sc.ID], without[sc.ID])
				}
			}
		})
	}
	if _, err := findSuite("other"); err == nil {
		t.Error("found a suite that there is not")
	}
}
