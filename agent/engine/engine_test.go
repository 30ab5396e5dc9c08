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

// run tells a story to an engine that has seen etcd answer for a while.
func run(seconds int, tell func(sec int) []nodetest.Change) ran {
	return runFrom(nodetest.Memory(start), seconds, tell)
}

func runFrom(mem node.Memory, seconds int, tell func(sec int) []nodetest.Change) ran {
	r := ran{mem: mem}
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

// TestStep_FirstLookBlamesNobody: what an agent does not know of the time before its start is no evidence. A lease proves
// a hang once etcd has answered this agent for as long as a renewal may take; a process that is stopped proves its own.
func TestStep_FirstLookBlamesNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		hang nodetest.Change
		want when
	}{
		"the lease": {nodetest.Silent(), when{13, 14}},
		"state T":   {nodetest.Stopped(), when{3, 4}},
	} {
		r := runFrom(node.Memory{}, 20, func(i int) []nodetest.Change { return []nodetest.Change{tt.hang, lease(min(13+i, 25))} })
		if got := r.firstAction(node.SoftKill); got < tt.want.from || got > tt.want.to {
			t.Errorf("%s: proposed at %d s, want %v", name, got, tt.want)
		}
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
	led := act
	led.Before.LeaderName = nodetest.Me
	keyless := nodetest.WithCluster(func(c *node.Cluster) { c.Leader = nil })
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
		{"leads on", led, 3 * time.Second, nodetest.LeaseLeft(29 * time.Second), node.ResultVerified},
		{"the key is gone, the member key is new", led, 3 * time.Second, keyless, node.ResultExecuted},
		{"another leads now", led, 3 * time.Second, nodetest.Led(nodetest.Other, false), node.ResultUnverified},
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

// TestStep_CountsStartsThatNobodySaw: seed 3840 of the simulation. The manager restarted a unit several times between two
// looks, the first time ever; and a number that cannot be true must not take more than it can.
func TestStep_CountsStartsThatNobodySaw(t *testing.T) {
	for restarts, want := range map[int]int{1: 1, 4: 4, 1 << 40: rememberStarts} {
		r := run(3, func(i int) []nodetest.Change {
			return []nodetest.Change{lease(4), nodetest.WithUnit(func(s *service.Status) {
				if i == 2 {
					s.InvocationID, s.Restarts = "bbbb", restarts
				}
			})}
		})
		if got := len(r.mem.Services[nodetest.Service].Starts); got != want {
			t.Errorf("%d restarts between two looks: %d starts remembered, want %d", restarts, got, want)
		}
	}
	first := run(1, func(int) []nodetest.Change {
		return []nodetest.Change{nodetest.WithUnit(func(s *service.Status) { s.Restarts = 7 })}
	})
	if n := len(first.mem.Services[nodetest.Service].Starts); n != 0 {
		t.Errorf("%d starts before the first look are remembered as of that look", n)
	}
}
