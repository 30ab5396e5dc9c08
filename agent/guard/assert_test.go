package guard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// TestRules_AreNodeGuards: every guard that has a name has a rule, in the order in which operators read them.
func TestRules_AreNodeGuards(t *testing.T) {
	var names []node.Guard
	for _, r := range rules {
		names = append(names, r.name)
	}
	if d := cmp.Diff(node.Guards(), names); d != "" {
		t.Error(d)
	}
}

func hungInput(changes ...nodetest.Change) Input {
	base := []nodetest.Change{nodetest.Stopped(), nodetest.LeaseLeft(17 * time.Second), nodetest.Confirmed()}
	return Input{Spec: nodetest.Spec(node.ModeAuto), Snapshot: nodetest.Snap(at, append(base, changes...)...), Actions: []node.Action{softKill()}}
}

func TestAll_ListsEveryVerdict(t *testing.T) {
	in := hungInput(func(s *node.Snapshot) { s.Orders.Holds = []node.Hold{{Kind: node.HoldKill}} })
	all := All(in, in.Actions[0])
	var no []node.Verdict
	for _, v := range all {
		if !v.Allow {
			no = append(no, v)
		}
	}
	if len(all) != len(node.Guards()) {
		t.Errorf("%d verdicts of %d guards", len(all), len(node.Guards()))
	}
	if d := cmp.Diff(Plan(in).Refused[0].Verdicts, no); d != "" {
		t.Errorf("refusals differ from the plan's:\n%s", d)
	}
}

func TestPlan_SaysWhoHolds(t *testing.T) {
	until := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	plan := Plan(hungInput(func(s *node.Snapshot) {
		s.DCS.Shared.Value.Holds = []node.Hold{{Kind: node.HoldPause, Level: node.LevelScope, Owner: "ann", Reason: "moving disks", Until: until}}
	}))
	text := plan.Refused[0].Verdicts[0].Text
	for _, want := range []string{"scope", "ann", "moving disks", "2026-05-01T12:00:00Z"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
}

// TestAssert_Speaks gives the assertion plans that no set of rules should have made.
func TestAssert_Speaks(t *testing.T) {
	un := nodetest.WithUnit
	for _, tt := range []struct {
		name   string
		change nodetest.Change
		tune   func(*Input)
		want   string
	}{
		{name: "nothing wrong"},
		{name: "held here", change: func(s *node.Snapshot) { s.Orders.Holds = make([]node.Hold, 1) }, want: "a person holds"},
		{name: "held in etcd", change: func(s *node.Snapshot) { s.DCS.Shared.Value.Holds = make([]node.Hold, 1) }, want: "a person holds"},
		{name: "kill switch unreadable", change: func(s *node.Snapshot) { s.Orders.Unreadable = "EIO" }, want: "kill switch"},
		{name: "paused", change: nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true }), want: "paused"},
		{name: "etcd old", change: func(s *node.Snapshot) { s.DCS.Cluster.At = s.Now.Add(-11 * time.Second) }, want: "etcd"},
		{name: "etcd unknown", change: func(s *node.Snapshot) { s.DCS.Cluster.Known = false }, want: "etcd"},
		{name: "policy observes", tune: func(in *Input) { in.Spec = nodetest.Spec(node.ModeObserve) }, want: "policy"},
		{name: "nobody approved", tune: func(in *Input) { in.Spec = nodetest.Spec(node.ModeAsk) }, want: "policy"},
		{name: "approved", tune: func(in *Input) {
			in.Spec = nodetest.Spec(node.ModeAsk)
			in.Snapshot.Orders.Approvals = []node.Approval{{ActionID: "x", At: in.Snapshot.Now}}
		}},
		{name: "masked", change: un(func(s *service.Status) { s.Masked = true }), want: "masked"},
		{name: "disabled", change: un(func(s *service.Status) { s.Enablement, s.State = "disabled", service.StateFailed }), want: "disabled"},
		{name: "stopped", change: un(func(s *service.Status) { s.State = service.StateStopped }), want: "stopped"},
		{name: "stopped or crashed", change: un(func(s *service.Status) { s.State, s.Unexplained = service.StateFailed, true }), want: "is unknown"},
		{name: "unit unknown", change: nodetest.With(func(p *node.PatroniFacts) { p.Unit.Known = false }), want: "unknown"},
		{name: "two on one service", tune: func(in *Input) { in.Actions = append(in.Actions, in.Actions[0]) }, want: "another action"},
		{name: "no such service", tune: func(in *Input) { in.Actions[0].Service = "x" }, want: "exactly one"},
		{name: "another unit", tune: func(in *Input) { in.Actions[0].Unit = "sshd.service" }, want: "exactly one"},
		{name: "a unit of two services", tune: func(in *Input) {
			in.Spec.Patroni = append(slices.Clone(in.Spec.Patroni), node.PatroniSpec{Service: "b", Unit: nodetest.Unit})
		}, want: "exactly one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := hungInput()
			if tt.change != nil {
				tt.change(&in.Snapshot)
			}
			if tt.tune != nil {
				tt.tune(&in)
			}
			got := Assert(in, node.Plan{Allowed: in.Actions})
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWithoutDCS_PatroniIsLeftAlone(t *testing.T) {
	for _, v := range node.Verbs() {
		if ok, why := WithoutDCS(node.KindPatroni, v); ok || why == "" {
			t.Errorf("%s of a Patroni without etcd: allowed %t, why %q", v, ok, why)
		}
		if ok, why := WithoutDCS("vip", v); ok || why == "" {
			t.Errorf("%s of an unknown kind without etcd: allowed %t, why %q", v, ok, why)
		}
	}
}
