package guard

import (
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
)

func TestPlan_GuardsRefuse(t *testing.T) {
	for _, tt := range append(guardCases(), serviceCases()...) {
		t.Run(tt.name, func(t *testing.T) {
			in := tt.input()
			plan := Plan(in)
			if broken := Assert(in, plan); broken != "" {
				t.Errorf("the assertion speaks up: %s", broken)
			}
			var got []string
			for _, r := range plan.Refused {
				for _, v := range r.Verdicts {
					got = append(got, string(v.Guard))
					if v.Text == "" || v.Allow {
						t.Errorf("%s refuses without a reason", v.Guard)
					}
				}
			}
			if strings.Join(got, " ") != string(tt.refused) {
				t.Errorf("refused by %v, want [%s]: %s", got, tt.refused, Explain(in, plan).Summary)
			}
			if (len(plan.Allowed) == 1) != (tt.refused == "") {
				t.Errorf("allowed %d actions, refused by %v", len(plan.Allowed), got)
			}
		})
	}
}

func TestPlan_OffIsNotMentioned(t *testing.T) {
	plan := Plan(Input{Spec: nodetest.Spec(node.ModeOff), Snapshot: nodetest.Snap(at, nodetest.Stopped()), Actions: []node.Action{softKill()}})
	if len(plan.Allowed)+len(plan.Refused) != 0 {
		t.Errorf("a class that is off shows up in the plan: %+v", plan)
	}
}

func TestPlan_HealthyLeaderSaysWhy(t *testing.T) {
	in := Input{Spec: nodetest.Spec(node.ModeAuto), Snapshot: nodetest.Snap(at)}
	plan := Explain(in, Plan(in))
	if want := "holds the leader key and renews its lease"; !strings.Contains(plan.Summary, want) {
		t.Errorf("summary %q lacks %q", plan.Summary, want)
	}
	if len(plan.Rests) < 6 {
		t.Errorf("the summary rests on %d facts only", len(plan.Rests))
	}
}
