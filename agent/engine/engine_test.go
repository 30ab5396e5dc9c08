package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const start = time.Hour

// ran is a story told to the engine: a snapshot every second, each made by tell.
type ran struct {
	mem     node.Memory
	outputs []Output
}

func run(seconds int, tell func(sec int) []nodetest.Change) ran {
	var r ran
	for i := range seconds {
		now := start + time.Duration(i)*time.Second
		out := Step(node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: r.mem, Snapshot: nodetest.Snap(now, tell(i)...)})
		r.mem = out.Memory
		r.outputs = append(r.outputs, out)
	}
	return r
}

// firstAction returns the second at which the verb was first proposed, or -1.
func (r ran) firstAction(verb node.Verb) int {
	return slices.IndexFunc(r.outputs, func(o Output) bool {
		return slices.ContainsFunc(o.Actions, func(a node.Action) bool { return a.Verb == verb })
	})
}

func (r ran) firstFinding(code node.Code) int {
	return slices.IndexFunc(r.outputs, func(o Output) bool {
		return slices.ContainsFunc(o.Findings, func(f node.Finding) bool { return f.Code == code })
	})
}

func (r ran) finding(t *testing.T, code node.Code) node.Finding {
	t.Helper()
	for _, o := range slices.Backward(r.outputs) {
		for _, f := range o.Findings {
			if f.Code == code {
				return f
			}
		}
	}
	t.Fatalf("no finding %s", code)
	return node.Finding{}
}

// lease is the life left of a 30 s lease that was last renewed age ago.
func lease(age int) nodetest.Change {
	return nodetest.LeaseLeft(max(0, 30*time.Second-time.Duration(age)*time.Second))
}

func TestStep_Stories(t *testing.T) {
	replica := nodetest.Led(nodetest.Other, false)
	cl, un, pf := nodetest.WithCluster, nodetest.WithUnit, nodetest.With
	type when struct{ from, to int } // -1, -1: never
	never := when{-1, -1}
	tests := []struct {
		name    string
		seconds int
		tell    func(sec int) []nodetest.Change
		finding node.Code
		found   when
		verb    node.Verb
		act     when
	}{
		{
			name: "F02 leader stopped, KillMode=process", seconds: 20, finding: node.PatroniHung, found: when{3, 4}, verb: node.SoftKill, act: when{3, 4},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Stopped(), lease(4 + i)} },
		},
		{
			name: "F02 leader silent but not stopped waits for the lease", seconds: 30, finding: node.PatroniHung, found: when{9, 12}, verb: node.SoftKill, act: when{9, 12},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Silent(), lease(4 + i)} },
		},
		{
			name: "saturated API, lease renewed", seconds: 120, finding: node.PatroniAPIDead, found: when{6, 8}, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Silent(), lease(i % 10)} },
		},
		{
			name: "an API that was never understood proves nothing", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{lease(4 + i), pf(func(p *node.PatroniFacts) {
					p.API.Known = false
					p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeBroken}
				})}
			},
		},
		{
			name: "F17 listener gone, lease renewed", seconds: 60, finding: node.PatroniAPIDead, found: when{6, 8}, verb: node.SoftKill, act: when{15, 17},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Refused(), lease(i % 10)} },
		},
		{
			name: "starting Patroni without lease is left alone", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change { return []nodetest.Change{nodetest.Refused(), lease(40)} },
		},
		{
			name: "F03 replica stopped", seconds: 60, finding: node.PatroniHung, found: when{20, 30}, verb: node.SoftKill, act: when{20, 30},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Stopped(), lease(4 + i), replica} },
		},
		{
			name: "F03 replica stopped, its lease renewed by a lie", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Stopped(), lease(i % 10), replica} },
		},
		{
			name: "F18 loop stuck", seconds: 30, finding: node.PatroniLoopStuck, found: when{17, 20}, verb: node.SoftKill, act: when{17, 20},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{lease(4 + i)} },
		},
		{
			name: "F62 back from isolation, waiting for PostgreSQL to stop", seconds: 60, finding: node.PatroniLoopStuck, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{lease(40), replica, pf(func(p *node.PatroniFacts) {
					p.API.Value.State = "stopping"
					p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 503}
				})}
			},
		},
		{
			name: "F05 start limit", seconds: 3, finding: node.PatroniFailed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0},
			tell: func(int) []nodetest.Change { return []nodetest.Change{nodetest.Failed("signal")} },
		},
		{
			name: "F04 zombie with a stopped Patroni", seconds: 5, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: when{1, 2},
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Stopped(), nodetest.Led(nodetest.Other, true)}
			},
		},
		{
			name: "F04 zombie with a failed unit", seconds: 5, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.StartFailed, act: when{1, 2},
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Failed("signal"), nodetest.Led(nodetest.Other, true)}
			},
		},
		{
			name: "an old primary whose Patroni answers demotes by itself", seconds: 30, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change { return []nodetest.Change{nodetest.Led(nodetest.Other, true)} },
		},
		{
			name: "a paused second primary is a person's", seconds: 30, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Stopped(), nodetest.Led(nodetest.Other, true), cl(func(c *node.Cluster) { c.Config.Pause = true })}
			},
		},
		{
			name: "F07 stopped by a person", seconds: 60, finding: node.PatroniStopped, found: when{0, 0}, verb: node.StartFailed, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Refused(), un(func(s *service.Status) { s.State, s.MainPID = service.StateStopped, 0 })}
			},
		},
		{
			name: "F08 masked", seconds: 60, finding: node.PatroniStopped, found: when{0, 0}, verb: node.StartFailed, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{un(func(s *service.Status) { s.State, s.MainPID, s.Masked = service.StateStopped, 0, true })}
			},
		},
		{
			name: "F06 crash loop below the limit", seconds: 60, finding: node.PatroniCrashing, found: when{40, 50}, verb: node.StartFailed, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{un(func(s *service.Status) { s.InvocationID, s.Restarts = "inv"+string(rune('a'+i/15)), 1+i/15 })}
			},
		},
		{
			name: "F13 broken configuration", seconds: 10, finding: node.PatroniConfigBroken, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{pf(func(p *node.PatroniFacts) { p.Config.Value.Valid = false })}
			},
		},
		{
			name: "F32 leader key gone for a second", seconds: 30, finding: node.Leaderless, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) {
					if i == 5 {
						c.Leader = nil
					}
				})}
			},
		},
		{
			name: "F33 leaderless", seconds: 60, finding: node.Leaderless, found: when{40, 41}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) { c.Leader = nil }), lease(5)}
			},
		},
		{
			name: "F40 etcd silent: no judgement on a hung Patroni", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Silent(), func(s *node.Snapshot) { s.DCS.Cluster.At = node.Instant(start - time.Minute) }}
			},
		},
		{
			name: "F40 etcd silent", seconds: 20, finding: node.DCSUnreachable, found: when{5, 6}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{func(s *node.Snapshot) { s.DCS.Since = node.Instant(start) }}
			},
		},
		{
			name: "F41 NOSPACE", seconds: 5, finding: node.DCSReadOnly, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{func(s *node.Snapshot) { s.DCS.Alarms.Value = []string{"NOSPACE"} }}
			},
		},
		{
			name: "F25 rival unit owns the postmaster", seconds: 5, finding: node.RivalPostmaster, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, pf(func(p *node.PatroniFacts) { p.Postgres.Value.CGroupUnit = "postgresql@17-main.service" })}
			},
		},
		{
			name: "F105 single-user recovery on a fresh copy", seconds: 5, finding: node.ReplicaDiverged, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, pf(func(p *node.PatroniFacts) {
					p.LogMark = node.Seen(probe.LogMark{DataDirID: "dir1", SingleUserOnCopy: true}, "log", 0)
				})}
			},
		},
		{
			name: "F105 ahead of the leader for a moment, and the leader never gets there", seconds: 60, finding: node.ReplicaDiverged, found: when{28, 29}, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{replica, cl(func(c *node.Cluster) {
					if i == 3 {
						c.Members[0].LSN = 9000
					}
				})}
			},
		},
		{
			name: "ahead of the leader's key until its next loop", seconds: 60, finding: node.ReplicaDiverged, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{replica, cl(func(c *node.Cluster) {
					c.Members[0].LSN = uint64(2000 + i*100)
					c.Members[1].LSN = uint64(2000 + i/10*1000)
				})}
			},
		},
		{
			name: "the mark of an older data directory is forgotten", seconds: 5, finding: node.ReplicaDiverged, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, pf(func(p *node.PatroniFacts) {
					p.LogMark = node.Seen(probe.LogMark{DataDirID: "dir0", SingleUserOnCopy: true}, "log", 0)
				})}
			},
		},
		{
			name: "another member's API", seconds: 5, finding: node.PatroniAPIInvalid, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{pf(func(p *node.PatroniFacts) { p.API.Value.Name = "pg9" })}
			},
		},
		{
			name: "a member that etcd does not know", seconds: 60, finding: node.MemberUnknown, found: when{30, 31}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, cl(func(c *node.Cluster) { c.Members = c.Members[1:] })}
			},
		},
		{
			name: "a wrong scope", seconds: 5, finding: node.ScopeUnknown, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) { *c = node.Cluster{Scope: nodetest.Scope, Empty: true} })}
			},
		},
		{
			name: "hostile keys", seconds: 5, finding: node.DCSKeyInvalid, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) {
					c.Problems = []node.KeyProblem{{Key: "members/x", Reason: "control characters"}}
				})}
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := run(tt.seconds, tt.tell)
			if got := r.firstFinding(tt.finding); got < tt.found.from || got > tt.found.to {
				t.Errorf("%s first found at %d s, want %v", tt.finding, got, tt.found)
			}
			if got := r.firstAction(tt.verb); got < tt.act.from || got > tt.act.to {
				t.Errorf("%s first proposed at %d s, want %v", tt.verb, got, tt.act)
			}
		})
	}
}

func TestStep_HealthyFindsNothing(t *testing.T) {
	for name, c := range map[string]nodetest.Change{"leader": nodetest.Led(nodetest.Me, true), "replica": nodetest.Led(nodetest.Other, false)} {
		r := run(60, func(i int) []nodetest.Change { return []nodetest.Change{lease(i % 12), c} })
		for i, o := range r.outputs {
			if len(o.Findings)+len(o.Actions) > 0 || o.Attention {
				t.Fatalf("%s at %d s: findings %v, actions %v, attention %t", name, i, o.Findings, o.Actions, o.Attention)
			}
		}
	}
}

// A new process starts with a clean sheet: what its predecessor was accused of is not evidence against it.
func TestStep_NewProcessIsNotBlamed(t *testing.T) {
	r := run(30, func(i int) []nodetest.Change {
		if i < 12 {
			return []nodetest.Change{nodetest.Silent(), lease(4 + i)}
		}
		return []nodetest.Change{nodetest.Silent(), lease(4 + i), nodetest.WithUnit(func(s *service.Status) { s.MainPID, s.InvocationID = 700, "bbbb" })}
	})
	if n := len(r.outputs[13].Actions); n != 0 {
		t.Errorf("%d actions one second after the process was replaced", n)
	}
}

func TestStep_SleepVoidsStreaks(t *testing.T) {
	r := run(9, func(i int) []nodetest.Change {
		slept := func(s *node.Snapshot) {
			if i == 3 || i == 6 {
				s.Self.Suspended = time.Minute
			}
		}
		return []nodetest.Change{nodetest.Stopped(), lease(4), slept}
	})
	if got := r.firstAction(node.SoftKill); got != -1 {
		t.Errorf("proposed at %d s although the machine slept at 6 s", got)
	}
}

func TestStep_DivergentBytes(t *testing.T) {
	r := run(3, func(int) []nodetest.Change {
		return []nodetest.Change{nodetest.Stopped(), nodetest.Led(nodetest.Other, true), nodetest.WithCluster(func(c *node.Cluster) {
			c.History = []node.HistoryEntry{{Timeline: 4, LSN: 10}, {Timeline: 5, LSN: 900, NewLeader: nodetest.Other}}
		}), nodetest.With(func(p *node.PatroniFacts) {
			p.Session = node.Seen(probe.Session{LSN: 1400, Timeline: 5}, "sql", p.Unit.At)
		})}
	})
	got := r.finding(t, node.ZombiePrimary).DivergentBytes
	if got == nil || *got != 500 {
		t.Errorf("divergent bytes %v, want 500", got)
	}
}

func TestStep_KillModeAdviceNamesTheLine(t *testing.T) {
	r := run(20, func(i int) []nodetest.Change {
		return []nodetest.Change{nodetest.Stopped(), lease(4 + i), nodetest.WithUnit(func(s *service.Status) { s.KillMode = "control-group" })}
	})
	f := r.finding(t, node.PatroniHung)
	for _, want := range []string{"KillMode=process", "[Service]", "patroni.service"} {
		if !strings.Contains(f.Advice, want) {
			t.Errorf("advice %q lacks %q", f.Advice, want)
		}
	}
	if a := r.outputs[10].Actions[0]; a.Class != node.ClassDisrupt || a.Expect.SamePostmaster {
		t.Errorf("class %s, same postmaster %t", a.Class, a.Expect.SamePostmaster)
	}
}

// TestStep_IsPure runs every step twice and compares, and checks that the input is left alone.
func TestStep_IsPure(t *testing.T) {
	mem := node.Memory{}
	for i := range 15 {
		in := node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: mem, Snapshot: nodetest.Snap(start+time.Duration(i)*time.Second, nodetest.Stopped(), lease(4+i))}
		before := in.Memory
		a, b := Step(in), Step(in)
		if d := cmp.Diff(a, b); d != "" {
			t.Fatalf("same input, another output (-first +second):\n%s", d)
		}
		if d := cmp.Diff(before, in.Memory); d != "" {
			t.Fatalf("memory of the input changed:\n%s", d)
		}
		mem = a.Memory
	}
}

func TestVerify(t *testing.T) {
	act := node.Attempt{
		Verb: node.SoftKill, Service: nodetest.Service, BootID: nodetest.BootID, At: node.Instant(start), Settle: time.Minute,
		Before: node.Baseline{InvocationID: "old", PostmasterPID: 600, PostmasterTick: 90},
		Expect: node.Expectation{NewInvocation: true, LeaseRenewed: true, SamePostmaster: true},
	}
	fence := act
	fence.Expect = node.Expectation{NewInvocation: true, ReadOnly: true}
	other := act
	other.Before.PostmasterPID = 599
	tests := []struct {
		name    string
		attempt node.Attempt
		after   time.Duration
		change  nodetest.Change
		want    node.AttemptResult
	}{
		{"all seen", act, 3 * time.Second, nodetest.LeaseLeft(29 * time.Second), node.ResultVerified},
		{"lease not renewed yet", act, 3 * time.Second, nodetest.LeaseLeft(15 * time.Second), node.ResultExecuted},
		{"lease never renewed", act, 61 * time.Second, nodetest.LeaseLeft(0), node.ResultUnverified},
		{"same invocation", act, 3 * time.Second, nodetest.WithUnit(func(s *service.Status) { s.InvocationID = "old" }), node.ResultExecuted},
		{"facts from before the act", act, 3 * time.Second, nodetest.With(func(p *node.PatroniFacts) { p.Unit.At = node.Instant(start - 1) }), node.ResultExecuted},
		{"PostgreSQL restarted", other, 3 * time.Second, nodetest.LeaseLeft(29 * time.Second), node.ResultUnverified},
		{"second primary gone", fence, 5 * time.Second, nodetest.Led(nodetest.Other, false), node.ResultVerified},
		{"second primary still there", fence, 5 * time.Second, nodetest.Led(nodetest.Other, true), node.ResultExecuted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, why := Verify(nodetest.Spec(node.ModeAuto), tt.attempt, nodetest.Snap(start+tt.after, tt.change))
			if got != tt.want {
				t.Errorf("got %s (%s), want %s", got, why, tt.want)
			}
		})
	}
}
