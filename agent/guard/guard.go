// Package guard holds the rules that allow or refuse an action. Each is a small pure function with a name of its own.
//
// It owns DESIGN.md §5 as far as the verbs of today need it. It promises that an action passes only if every guard says
// yes, that a fact which is unknown or stale is a no, and that every no carries its numbers. It deliberately proposes
// nothing: what would help is the engine's business.
package guard

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
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
	breakerFailures = 2 // FAULTS.md S27
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

// Plan applies every guard to every proposed action. An action whose class is switched off is not even mentioned.
func Plan(in Input) node.Plan {
	p := node.Plan{At: in.Snapshot.Now, Wall: in.Snapshot.Wall, Findings: in.Findings, Allowed: []node.Action{}, Refused: []node.Refusal{}}
	for _, a := range in.Actions {
		c := newCheck(in, a)
		if c.mode() == node.ModeOff {
			continue
		}
		var no []node.Verdict
		for _, r := range rules {
			if v := r.judge(c); v != "" {
				no = append(no, node.Verdict{Guard: r.name, Text: v})
			}
		}
		if len(no) > 0 {
			p.Refused = append(p.Refused, node.Refusal{Action: a, Verdicts: no})
			continue
		}
		p.Allowed = append(p.Allowed, a)
	}
	p.Summary, p.Rests = summary(in, p), rests(in)
	return p
}

// rule is one guard: judge returns why it refuses, or "".
type rule struct {
	name  node.Guard
	judge func(check) string
}

// rules in the order in which an operator wants to read refusals: what people want first, then what is known, then what
// is safe, then how often.
var rules = []rule{
	{node.GuardPolicy, policy},
	{node.GuardOperatorIntent, operatorIntent},
	{node.GuardOperatorJob, operatorJob},
	{node.GuardPatroniPause, patroniPause},
	{node.GuardSelfHealth, selfHealth},
	{node.GuardFreshness, freshness},
	{node.GuardIdentity, identity},
	{node.GuardDCSWritable, dcsWritable},
	{node.GuardBootGrace, bootGraceOver},
	{node.GuardLeaderChange, leaderChange},
	{node.GuardLeaderSafety, leaderSafety},
	{node.GuardLeaseWindow, leaseWindow},
	{node.GuardConfigValid, configValid},
	{node.GuardUnitSafety, unitSafety},
	{node.GuardBusyWork, busyWork},
	{node.GuardWatchdog, watchdog},
	{node.GuardRedundancy, redundancy},
	{node.GuardInFlight, inFlight},
	{node.GuardBudget, budget},
	{node.GuardBackoff, backoff},
	{node.GuardBreaker, breaker},
}

// check is one action with everything a guard may ask about it.
type check struct {
	in     Input
	a      node.Action
	spec   node.PatroniSpec
	f      node.PatroniFacts
	m      node.ServiceMemory
	now    node.Instant
	timing node.Timing
}

func newCheck(in Input, a node.Action) check {
	c := check{in: in, a: a, now: in.Snapshot.Now, m: in.Memory.Services[a.Service]}
	for _, s := range in.Spec.Patroni {
		if s.Service == a.Service {
			c.spec = s
		}
	}
	for _, f := range in.Snapshot.Patroni {
		if f.Service == a.Service {
			c.f = f
		}
	}
	c.timing = node.TimingOf(c.cluster().Config)
	return c
}

func (c check) cluster() node.Cluster { return c.in.Snapshot.DCS.Cluster.Value }

func (c check) mode() node.Mode {
	if m := c.spec.Policy.Of(c.a.Class); m != "" {
		return m
	}
	return node.ModeOff
}

// limit is the age up to which a fact may support the action now.
func (c check) limit() time.Duration {
	if c.in.Snapshot.Confirm {
		return FreshConfirm
	}
	return FreshRoutine
}

func refuse(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func summary(in Input, p node.Plan) string {
	switch {
	case len(p.Allowed) > 0:
		a := p.Allowed[0]
		return fmt.Sprintf("To do: %s of %s (%s), because %s.", a.Verb, a.Service, a.Finding, a.Reason)
	case len(p.Refused) > 0:
		r := p.Refused[0]
		return fmt.Sprintf("Nothing is done: %s of %s would heal %s, and %s refuses it (%s).", r.Action.Verb, r.Action.Service, r.Action.Finding, r.Verdicts[0].Guard, r.Verdicts[0].Text)
	case len(in.Findings) > 0:
		var codes []string
		for _, f := range in.Findings {
			codes = append(codes, string(f.Code))
		}
		return fmt.Sprintf("Nothing is to be done by pgpatrol: %s has no verb that would make it better.", strings.Join(codes, ", "))
	case len(in.Spec.Patroni) == 0:
		return "Nothing is to be done: this agent looks after no service and watches the cluster."
	}
	var names []string
	for _, s := range in.Spec.Patroni {
		names = append(names, s.Service+" "+healthWords(in, s))
	}
	return "Nothing is to be done: " + strings.Join(names, "; ") + "."
}

func healthWords(in Input, s node.PatroniSpec) string {
	c := in.Snapshot.DCS.Cluster
	role := "whose role in the cluster is not known yet"
	if c.Known {
		switch c.Value.LeaderName() {
		case s.Member:
			role = "holds the leader key and renews its lease"
		case "":
			role = "waits for a leader to be elected"
		default:
			role = "follows " + c.Value.LeaderName()
		}
	}
	for _, f := range in.Snapshot.Patroni {
		if f.Service != s.Service {
			continue
		}
		if words := busyWords(f); words != "" {
			return words
		}
		if f.Postgres.Known && f.Postgres.Value.Starting() {
			role += "; PostgreSQL is starting, which is left to take its time"
		}
		if f.Liveness.Known && f.Liveness.Value.Alive() {
			return "runs, answers, and " + role
		}
	}
	return "is not seen answering yet, " + role
}

// busyWords says that somebody, or the manager itself, is at work on the unit.
func busyWords(f node.PatroniFacts) string {
	u := f.Unit.Value
	switch {
	case !f.Unit.Known:
		return ""
	case u.Job != "":
		return fmt.Sprintf("is %s under somebody's job %s, which is left to finish", u.State, u.Job)
	case u.State == service.StateRestarting:
		return "ended, and its manager is about to start it again"
	case u.State == service.StateStarting, u.State == service.StateStopping:
		return fmt.Sprintf("is %s, which is left to finish", u.State)
	}
	return ""
}

// rests lists the facts behind the summary.
func rests(in Input) []node.Evidence {
	dcs := in.Snapshot.DCS
	out := []node.Evidence{
		node.Show("leader key", dcs.Cluster, "%s", nameOr(dcs.Cluster.Value.LeaderName(), "nobody")),
		node.Show("leader's lease", dcs.LeaderLease, "%s left", node.LeaseLeft(dcs.LeaderLease, in.Snapshot.Now).Round(time.Second)),
		node.Show("pause", dcs.Cluster, "%t", dcs.Cluster.Value.Config.Pause),
		node.Show("etcd alarms", dcs.Alarms, "%s", nameOr(strings.Join(dcs.Alarms.Value, ", "), "none")),
	}
	for _, f := range in.Snapshot.Patroni {
		out = append(out,
			node.Show(f.Service+" unit", f.Unit, "%s", f.Unit.Value.State),
			node.Show(f.Service+" main process", f.Process, "pid %d, state %s", f.Process.Value.PID, nameOr(f.Process.Value.State, "none")),
			node.Show(f.Service+" /liveness", f.Liveness, "%s %d", f.Liveness.Value.Outcome, f.Liveness.Value.Status),
			node.Show(f.Service+" PostgreSQL", f.Postgres, "%s", postgresWords(f)),
			node.Show(f.Service+" configuration", f.Config, "valid %t", f.Config.Value.Valid),
		)
	}
	return out
}

func postgresWords(f node.PatroniFacts) string {
	pg := f.Postgres.Value
	switch {
	case pg.Writable():
		return fmt.Sprintf("running, writable, timeline %d", pg.Timeline)
	case pg.Starting():
		return fmt.Sprintf("starting, timeline %d", pg.Timeline)
	case pg.Running:
		return fmt.Sprintf("running, %s, timeline %d", pg.ControlState, pg.Timeline)
	}
	return "not running"
}

func nameOr(s, none string) string {
	if s == "" {
		return none
	}
	return s
}
