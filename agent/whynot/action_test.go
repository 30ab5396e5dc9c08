package whynot

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/guard"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// question asks about a snapshot with nothing remembered but that etcd has answered all along.
func question(s node.Snapshot) node.Question {
	return node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: nodetest.Memory(time.Duration(s.Now)), Snapshot: s}
}

// watched asks about a condition that has been looked at every second for so long.
func watched(seconds int, changes ...nodetest.Change) node.Question {
	mem := nodetest.Memory(time.Hour)
	for i := range seconds {
		q := question(nodetest.Snap(time.Hour+time.Duration(i)*time.Second, changes...))
		q.Memory = mem
		if i == seconds-1 {
			return q
		}
		mem = engine.Step(q).Memory
	}
	panic("never looked")
}

func seen(t *testing.T, a Answer, f node.Code) []string {
	t.Helper()
	for _, p := range a.Paths {
		if p.Finding != f {
			continue
		}
		var out []string
		for _, c := range p.Conditions {
			if !c.Met {
				out = append(out, c.Need+" | "+c.Seen)
			}
		}
		return out
	}
	t.Fatalf("no path %s", f)
	return nil
}

func TestAction_NotCalledFor(t *testing.T) {
	a, ok := Action(watched(3), node.SoftKill, nodetest.Service)
	if !ok || a.Proposed {
		t.Fatalf("%+v", a)
	}
	all := strings.Join(append(seen(t, a, node.PatroniHung), seen(t, a, node.PatroniLoopStuck)...), "\n")
	for _, want := range []string{
		"/liveness answers HTTP 200", "the lease has 25s of 30s left", "the main process is in state S",
		"the lease has less than 10s left, seen 2 times over 1s", "the lease has less than 18s left twice",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	i := slices.IndexFunc(a.Guards, func(v node.Verdict) bool { return v.Guard == node.GuardLeaderSafety })
	if i < 0 || a.Guards[i].Allow || len(a.Guards) != len(guard.All(guard.Input{}, node.Action{})) {
		t.Errorf("guards: %+v", a.Guards)
	}
	if !strings.Contains(a.Summary, "not called for") || !strings.Contains(a.Summary, "leader-safety") {
		t.Errorf("summary %q", a.Summary)
	}
}

func TestAction_CalledForAndRefused(t *testing.T) {
	q := watched(10, nodetest.Stopped(), nodetest.LeaseLeft(12*time.Second), nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true }))
	a, ok := Action(q, node.SoftKill, nodetest.Service)
	if !ok || !a.Proposed || a.Action.Finding != node.PatroniHung || len(seen(t, a, node.PatroniHung)) != 0 {
		t.Fatalf("%+v", a)
	}
	if !strings.Contains(a.Summary, "refused by") || !strings.Contains(a.Summary, "patroni-pause") {
		t.Errorf("summary %q", a.Summary)
	}
}

func TestAction_RestartOfPatroniIsNeverDone(t *testing.T) {
	a, ok := Action(watched(10, nodetest.Stopped(), nodetest.LeaseLeft(12*time.Second)), node.Restart, nodetest.Service)
	if !ok || a.Proposed || len(a.Paths) != 0 || !strings.Contains(a.Summary, "stops PostgreSQL") {
		t.Errorf("%+v", a)
	}
	i := slices.IndexFunc(a.Guards, func(v node.Verdict) bool { return v.Guard == node.GuardUnitSafety })
	if a.Guards[i].Allow {
		t.Error("guard unit-safety has nothing against a restart of Patroni")
	}
}

func TestAction_UnknownService(t *testing.T) {
	if _, ok := Action(watched(1), node.SoftKill, "haproxy"); ok {
		t.Error("accepted")
	}
	if a, ok := Action(node.Question{Spec: nodetest.Spec(node.ModeAuto)}, node.SoftKill, nodetest.Service); ok {
		t.Errorf("without a snapshot: %+v", a)
	}
}

func TestFitting(t *testing.T) {
	for name, tc := range map[string]struct {
		q    node.Question
		want node.Verb
	}{
		"healthy": {watched(1), node.SoftKill},
		"hung":    {watched(10, nodetest.Stopped()), node.SoftKill},
		"failed":  {watched(1, nodetest.Failed("start-limit-hit")), node.StartFailed},
		"unknown": {node.Question{}, node.SoftKill},
	} {
		if got := Fitting(tc.q, nodetest.Service); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// changes are the ways in which the snapshots of the property below differ.
func changes(left time.Duration) map[string]nodetest.Change {
	return map[string]nodetest.Change{
		"stopped": nodetest.Stopped(), "silent": nodetest.Silent(), "refused": nodetest.Refused(),
		"failed": nodetest.Failed("start-limit-hit"), "lease": nodetest.LeaseLeft(left),
		"replica": nodetest.Led(nodetest.Other, false), "second primary": nodetest.Led(nodetest.Other, true),
		"leaderless": nodetest.WithCluster(func(c *node.Cluster) { c.Leader = nil }),
		"paused":     nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true }),
		"loop dead":  nodetest.With(func(p *node.PatroniFacts) { p.Liveness.Value.Status = 503 }),
		"busy":       nodetest.With(func(p *node.PatroniFacts) { p.API.Value.State = "starting" }),
		"young":      nodetest.With(func(p *node.PatroniFacts) { p.Process.Value.StartTick = 100 * 3600 }),
		"group kill": nodetest.WithUnit(func(u *service.Status) { u.KillMode = "control-group" }),
		"blind":      func(s *node.Snapshot) { s.DCS.Cluster = node.Unseen[node.Cluster]("etcd", "down", s.Now) },
		"unit unknown": nodetest.With(func(p *node.PatroniFacts) {
			p.Unit = node.Unseen[service.Status]("systemd", "bus gone", 0)
		}),
		"broken":      nodetest.With(func(p *node.PatroniFacts) { p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeBroken} }),
		"other lease": func(s *node.Snapshot) { s.DCS.MemberLease.Value.ID, s.DCS.LeaderLease.Value.ID = 7, 7 },
	}
}

// What is shown as the way to an action is the engine's own: all conditions of a path are met exactly when it proposes.
func TestPaths_AgreeWithTheEngine(t *testing.T) {
	names := make([]string, 0, 20)
	for n := range changes(0) {
		names = append(names, n)
	}
	slices.Sort(names)
	rapid.Check(t, func(rt *rapid.T) {
		w := watch{t: rt, now: time.Hour, proposed: map[node.Code]int{}}
		var picked []string
		for range rapid.IntRange(1, 6).Draw(rt, "phases") {
			if rapid.IntRange(0, 2).Draw(rt, "other") > 0 || picked == nil {
				picked = rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 4, rapid.ID[string]).Draw(rt, "changes")
			}
			left := time.Duration(rapid.IntRange(0, 30).Draw(rt, "left")) * time.Second
			for range rapid.IntRange(1, 14).Draw(rt, "looks") {
				w.look(rapid.SampledFrom([]int{300, 600, 1000, 2000, 4000}).Draw(rt, "pause"), left, picked...)
			}
		}
	})
}

// Every finding that calls for an action does so in one of these, on every step of the way there.
func TestPaths_LeadToEveryAction(t *testing.T) {
	for code, picked := range map[node.Code][]string{
		node.PatroniHung: {"stopped"}, node.PatroniLoopStuck: {"lease"}, node.PatroniAPIDead: {"refused"},
		node.PatroniFailed: {"failed"}, node.ZombiePrimary: {"second primary", "silent", "lease"},
	} {
		w := watch{t: t, now: time.Hour, proposed: map[node.Code]int{}}
		left := 25 * time.Second
		if slices.Contains(picked, "lease") {
			left = 5 * time.Second
		}
		for range 25 {
			w.look(1000, left, picked...)
		}
		if w.proposed[code] == 0 {
			t.Errorf("%s never called for anything: %v", code, w.proposed)
		}
	}
}

// watch looks at one machine again and again.
type watch struct {
	t        rapid.TB
	now      time.Duration
	mem      node.Memory
	proposed map[node.Code]int
}

func (w *watch) look(ms int, left time.Duration, picked ...string) {
	w.now += time.Duration(ms) * time.Millisecond
	s := nodetest.Snap(w.now)
	for _, n := range picked {
		changes(left)[n](&s)
	}
	q := question(s)
	q.Memory = w.mem
	out := engine.Step(q)
	agree(w.t, q, out, nodetest.Service, node.KindPatroni, w.proposed)
	w.mem = out.Memory
}

func agree(rt rapid.TB, q node.Question, out engine.Output, name string, kind node.Kind, proposed map[node.Code]int) {
	for _, verb := range kind.Verbs() {
		a, ok := Action(q, verb, name)
		if !ok {
			rt.Fatal("no such service")
		}
		met := slices.ContainsFunc(a.Paths, func(p Path) bool { return p.Met })
		if met != a.Proposed {
			rt.Fatalf("%s: a path is met %v, the engine proposes %v\npaths %+v\nstreaks %+v", verb, met, a.Proposed, a.Paths, out.Memory.Streaks)
		}
		if a.Proposed {
			proposed[a.Action.Finding]++
			if i := slices.IndexFunc(a.Paths, func(p Path) bool { return p.Finding == a.Action.Finding }); !a.Paths[i].Met {
				rt.Fatalf("%s is proposed because of %s, whose path is not met", verb, a.Action.Finding)
			}
			is, would := a.Action, find(q, out.Memory, name).hypothetical(verb, a.Action.Finding)
			if is.ID != would.ID || is.Class != would.Class || is.Leader != would.Leader || is.Fence != would.Fence || is.Kind != would.Kind {
				rt.Fatalf("proposed %+v, put together %+v", is, would)
			}
		}
	}
}
