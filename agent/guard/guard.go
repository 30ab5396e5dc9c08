// Package guard holds the rules that allow or refuse an action. Each is a small pure function with a name of its own.
//
// It owns DESIGN.md §5. It promises that an action passes only if every guard says
// yes, that a fact which is unknown or stale is a no, and that every no carries its numbers. It deliberately proposes
// nothing: what would help is the engine's business.
package guard

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Limits, each with the place it comes from.
const (
	// FreshConfirm is the age of facts right before an act (FAULTS.md S14); FreshRoutine that of a first look.
	FreshConfirm = 3 * time.Second
	FreshRoutine = 10 * time.Second
	// FreshScan is the age of a scan of the process table and of the alarms.
	FreshScan = 30 * time.Second

	bootGrace       = 120 * time.Second // FAULTS.md S30
	jobGrace        = 30 * time.Second  // FAULTS.md F09
	reviveSpacing   = 60 * time.Second  // FAULTS.md S26: one per service and minute, three per hour
	revivePerHour   = 3
	disruptPerHour  = 1
	nodePerHour     = 6              // of all services of this node together (DESIGN.md §5)
	clusterPerHour  = 4              // of all nodes of the cluster together (FAULTS.md S26), one of them disrupting
	machineOnce     = 24 * time.Hour // FAULTS.md F77; attempts are remembered for as long
	breakerFailures = 2              // FAULTS.md S27
	breakerOpen     = time.Hour
	// A kill must end, lease renewed, before the lease does: 4 s for Patroni's start (FACTS.md §3.5) and a margin; with
	// PostgreSQL stopped along, 2 s more (FACTS.md §10) and a larger one.
	windowRevive   = 5 * time.Second
	windowDisrupt  = 8 * time.Second
	switchoverSoon = 5 * time.Minute // FACTS.md §1.7
)

// Input is what guards look at besides the action.
type Input struct {
	Spec     node.Spec
	Memory   node.Memory
	Snapshot node.Snapshot
	Attempts []node.Attempt
	Findings []node.Finding
	Actions  []node.Action
}

// Plan applies every guard to every proposed action. An action whose mode is off is not even mentioned. The plan has no
// words yet: Explain adds them.
func Plan(in Input) node.Plan {
	p := node.Plan{At: in.Snapshot.Now, Wall: in.Snapshot.Wall, Findings: in.Findings, Allowed: []node.Action{}, Refused: []node.Refusal{}}
	for _, a := range in.Actions {
		c := newCheck(&in, a)
		if c.mode() == node.ModeOff {
			continue
		}
		if no := refusals(c); len(no) > 0 {
			p.Refused = append(p.Refused, node.Refusal{Action: a, Verdicts: no})
			continue
		}
		p.Allowed = append(p.Allowed, a)
	}
	return p
}

// All returns the verdict of every guard on one action, those that allow it too.
func All(in Input, a node.Action) []node.Verdict {
	c := newCheck(&in, a)
	out := make([]node.Verdict, 0, len(rules))
	for _, r := range rules {
		text := ""
		if !r.silent(c) {
			text = r.judge(c)
		}
		out = append(out, node.Verdict{Guard: r.name, Allow: text == "", Text: text})
	}
	return out
}

func refusals(c *check) []node.Verdict {
	var no []node.Verdict
	for _, r := range rules {
		if r.silent(c) || planted.OnGuard(string(r.name)) || planted.On("guard/fence-unguarded") && c.a.Fence {
			continue
		}
		if v := r.judge(c); v != "" {
			no = append(no, node.Verdict{Guard: r.name, Text: v})
		}
	}
	return no
}

// rule is one guard: judge returns why it refuses, or "".
type rule struct {
	name    node.Guard
	judge   func(*check) string
	patroni bool // it is about Patroni and PostgreSQL, and has nothing to say of another service
}

// silent reports whether the rule has nothing to say of an action.
func (r rule) silent(c *check) bool { return r.patroni && c.kind != node.KindPatroni }

// rules are the guards in the order of node.Guards.
var rules = []rule{
	{node.GuardKillSwitch, killSwitch, false},
	{node.GuardPause, pause, false},
	{node.GuardPolicy, policy, false},
	{node.GuardOperatorIntent, operatorIntent, false},
	{node.GuardOperatorJob, operatorJob, false},
	{node.GuardUpgrade, upgrade, false},
	{node.GuardPatroniPause, patroniPause, true},
	{node.GuardSelfHealth, selfHealth, false},
	{node.GuardNoDCS, noDCS, false},
	{node.GuardFreshness, freshness, false},
	{node.GuardIdentity, identity, false},
	{node.GuardDCSWritable, dcsWritable, false},
	{node.GuardBootGrace, bootGraceOver, false},
	{node.GuardLeaderChange, leaderChange, true},
	{node.GuardStorm, storm, false},
	{node.GuardFlap, flap, false},
	{node.GuardLeaderSafety, leaderSafety, true},
	{node.GuardLeaseWindow, leaseWindow, true},
	{node.GuardConfigValid, configValid, true},
	{node.GuardUnitSafety, unitSafety, false},
	{node.GuardBusyWork, busyWork, true},
	{node.GuardWatchdog, watchdog, true},
	{node.GuardRedundancy, redundancy, false},
	{node.GuardClusterLock, clusterLock, false},
	{node.GuardInFlight, inFlight, false},
	{node.GuardBudget, budget, false},
	{node.GuardClusterBudget, clusterBudget, false},
	{node.GuardBackoff, backoff, false},
	{node.GuardBreaker, breaker, false},
}

// check is one action with everything a guard may ask about it.
type check struct {
	in     *Input
	a      node.Action
	kind   node.Kind
	policy node.Policy
	unit   node.Fact[service.Status]
	proc   node.Fact[probe.Process]
	spec   node.PatroniSpec  // of a Patroni
	f      node.PatroniFacts //
	s      node.ServiceSpec  // of another service
	facts  node.ServiceFacts //
	m      node.ServiceMemory
	now    node.Instant
	timing node.Timing
}

func newCheck(in *Input, a node.Action) *check {
	c := &check{in: in, a: a, now: in.Snapshot.Now, m: in.Memory.Services[a.Service], kind: node.KindPatroni}
	for _, s := range in.Spec.Patroni {
		if s.Service == a.Service {
			c.spec, c.policy = s, s.Policy
		}
	}
	for i := range in.Snapshot.Patroni {
		if f := &in.Snapshot.Patroni[i]; f.Service == a.Service {
			c.f, c.unit, c.proc = *f, f.Unit, f.Process
		}
	}
	for _, s := range in.Spec.Services {
		if s.Service == a.Service {
			c.s, c.kind, c.policy = s, s.Kind, s.Policy
		}
	}
	for i := range in.Snapshot.Services {
		if f := &in.Snapshot.Services[i]; f.Service == a.Service {
			c.facts, c.unit, c.proc = *f, f.Unit, f.Process
		}
	}
	c.timing = node.TimingOf(c.cluster().Config)
	return c
}

func (c *check) cluster() *node.Cluster { return &c.in.Snapshot.DCS.Cluster.Value }

func (c *check) mode() node.Mode {
	if m := c.policy.For(c.a.Class, c.a.Finding); m != "" {
		return m
	}
	return node.ModeOff
}

// limit is the age up to which a fact may support the action now.
func (c *check) limit() time.Duration {
	if c.in.Snapshot.Confirm && !planted.On("guard/confirm-is-routine") {
		return FreshConfirm
	}
	return FreshRoutine
}

// refuse words a refusal.
func refuse(format string, args ...any) string { return fmt.Sprintf(format, args...) }
