//go:build planted

package engine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// TestPlanted_IsNoticed plants every bug of the engine in turn: what it answers to at least one story must then differ.
func TestPlanted_IsNoticed(t *testing.T) {
	t.Cleanup(func() { planted.Current = "" })
	all := plantedTales()
	var want [][]Output
	for i, tell := range all {
		want = append(want, tell())
		if !cmp.Equal(want[i], tell()) {
			t.Fatalf("story %d differs from itself", i)
		}
	}
	for bug := range planted.List(node.Guards()) {
		if !strings.HasPrefix(bug, "engine/") || bug == "engine/verify-always" || bug == "engine/restart-forgets" {
			continue
		}
		planted.Current = bug
		noticed := false
		for i := 0; i < len(all) && !noticed; i++ {
			noticed = !cmp.Equal(want[i], all[i]())
		}
		if !noticed {
			t.Errorf("nobody notices %s", bug)
		}
	}
}

func TestPlanted_VerifyAlways(t *testing.T) {
	t.Cleanup(func() { planted.Current = "" })
	open := node.Attempt{Service: nodetest.Service, At: node.Instant(start), Expect: node.Expectation{NewInvocation: true}}
	for bug, want := range map[string]node.AttemptResult{"": node.ResultExecuted, "engine/verify-always": node.ResultVerified} {
		planted.Current = bug
		if got, why := Verify(nodetest.Spec(node.ModeAuto), open, nodetest.Snap(start-1)); got != want {
			t.Errorf("with %q planted: %s (%s), want %s", bug, got, why, want)
		}
	}
}

func TestPlanted_RestartForgets(t *testing.T) {
	t.Cleanup(func() { planted.Current = "" })
	for bug, want := range map[string]bool{"": true, "engine/restart-forgets": false} {
		planted.Current = bug
		if got := Recall(node.Kept{Leader: nodetest.Me, LeaderChanged: 5}, true, 9).LeaderChanged == 5; got != want {
			t.Errorf("with %q planted: remembered %t, want %t", bug, got, want)
		}
	}
}

// plantedTales tell every story, of Patroni and of other services.
func plantedTales() []func() []Output {
	var out []func() []Output
	for _, s := range plantedStories() {
		out = append(out, func() []Output { return run(s.seconds, s.tell).outputs })
	}
	for _, s := range serviceStories() {
		out = append(out, func() []Output { return runServices(s.seconds, s.tell).outputs })
	}
	return out
}

// plantedStories are those that every build tells, and a few that are about what is remembered.
func plantedStories() []story {
	second := func(n int, c nodetest.Change) func(int) []nodetest.Change {
		return func(i int) []nodetest.Change {
			if i == n {
				return []nodetest.Change{c}
			}
			return nil
		}
	}
	add := func(c nodetest.Change) story { return story{seconds: 5, tell: second(2, c)} }
	return append(stories(),
		add(func(s *node.Snapshot) { s.Self.ClockJump = -jumpLimit * 2 }),
		add(nodetest.WithUnit(func(s *service.Status) { s.Job = "restart" })),
		add(nodetest.WithUnit(func(s *service.Status) { s.InvocationID = "bbbb" })),
		add(nodetest.Led(nodetest.Other, false)),
		add(nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true })),
		add(members(func(m []node.Member) []node.Member { return m[:1] })),
		add(nodetest.With(func(p *node.PatroniFacts) { p.Liveness.Known = false })),
		add(nodetest.WithCluster(func(c *node.Cluster) { c.Leader, c.Empty = nil, true })),
		story{seconds: 9, tell: func(i int) []nodetest.Change { // the process is replaced while it is being judged
			pid := nodetest.WithUnit(func(s *service.Status) { s.MainPID = 500 + i/4 })
			return []nodetest.Change{nodetest.Silent(), lease(10), pid}
		}},
		story{seconds: 9, tell: func(int) []nodetest.Change { // a second primary by an old view
			return []nodetest.Change{nodetest.Stopped(), nodetest.Led(nodetest.Other, true), func(s *node.Snapshot) {
				s.DCS.Cluster.At = s.Now.Add(-freshZombie * 2)
			}}
		}},
		story{seconds: 20, tell: func(i int) []nodetest.Change { // a kill that stops PostgreSQL too
			return []nodetest.Change{nodetest.Stopped(), lease(4 + i), nodetest.WithUnit(func(s *service.Status) { s.KillMode = "control-group" })}
		}},
		story{seconds: 60, tell: func(i int) []nodetest.Change { // a Patroni that has just started
			return []nodetest.Change{nodetest.Refused(), lease(i % 10), nodetest.With(func(p *node.PatroniFacts) { p.Process.Value.StartTick = 360000 })}
		}},
	)
}
