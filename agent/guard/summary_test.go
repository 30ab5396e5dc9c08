package guard

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// TestPlan_SaysWhatItWaitsFor: where nothing is wrong and something is under way, the summary names it.
func TestPlan_SaysWhatItWaitsFor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change nodetest.Change
		want   string
	}{
		{"F09 somebody's restart", nodetest.WithUnit(func(s *service.Status) { s.State, s.Job = service.StateStopping, "restart" }), "is stopping under somebody's job restart"},
		{"F09 somebody's reload", nodetest.WithUnit(func(s *service.Status) { s.Job = "reload" }), "is running under somebody's job reload"},
		{"F01 the manager restarts it", nodetest.WithUnit(func(s *service.Status) { s.State = service.StateRestarting }), "about to start it again"},
		{"a stop without a job", nodetest.WithUnit(func(s *service.Status) { s.State = service.StateStopping }), "is stopping, which is left to finish"},
		{"F23 crash recovery", nodetest.With(func(p *node.PatroniFacts) { p.Postgres.Value.ServerStatus = probe.ServerStarting }), "PostgreSQL is starting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan := explained(tt.change)
			if !strings.Contains(plan.Summary, tt.want) {
				t.Errorf("summary %q lacks %q", plan.Summary, tt.want)
			}
		})
	}
}

func TestPlan_RestsOnAStartingServer(t *testing.T) {
	starting := nodetest.With(func(p *node.PatroniFacts) { p.Postgres.Value.ServerStatus = probe.ServerStarting })
	plan := explained(starting)
	for _, e := range plan.Rests {
		if e.Subject == "patroni PostgreSQL" && e.Value != "starting, timeline 5" {
			t.Errorf("PostgreSQL that lets nobody in is shown as %q", e.Value)
		}
	}
}

func explained(changes ...nodetest.Change) node.Plan {
	in := Input{Spec: nodetest.Spec(node.ModeAuto), Snapshot: nodetest.Snap(at, changes...)}
	return Explain(in, Plan(in))
}

// TestPlan_ServicesSayHowTheyAre: an agent of a machine without Patroni says what it sees, too.
func TestPlan_ServicesSayHowTheyAre(t *testing.T) {
	in := Input{Spec: nodetest.Services(node.ModeAuto), Snapshot: nodetest.SnapServices(at, nodetest.UnitOf(nodetest.Generic, func(u *service.Status) { u.Job = "restart" }))}
	plan := Explain(in, Plan(in))
	want := "Nothing is to be done: etcd runs, answers, and has a leader; socat runs, and carries what it is asked to; proxy is running under somebody's job restart, which is left to finish."
	if plan.Summary != want {
		t.Errorf("summary %q, want %q", plan.Summary, want)
	}
	var subjects []string
	for _, e := range plan.Rests {
		subjects = append(subjects, e.Subject)
	}
	for _, want := range []string{"etcd unit", "etcd member", "etcd other member http://three:2379", "socat through it", "socat past it", "proxy check"} {
		if !slices.Contains(subjects, want) {
			t.Errorf("the plan does not rest on %q: %v", want, subjects)
		}
	}
}
