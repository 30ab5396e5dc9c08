package whynot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// glance is one service that is no Patroni.
type glance struct {
	q    node.Question
	spec node.ServiceSpec
	f    node.ServiceFacts
	m    node.ServiceMemory // as the engine left it
	mem  node.Memory
	now  node.Instant
}

func (g *glance) kind() node.Kind { return g.spec.Kind }

func (g *glance) paths(verb node.Verb) []Path {
	switch {
	case verb == node.StartFailed && g.spec.Kind == node.KindEtcd:
		return []Path{path(node.EtcdCrashed, g.unitIs(service.StateFailed), g.wanted(), g.listed())}
	case verb == node.StartFailed && g.spec.Kind == node.KindForwarder:
		return []Path{path(node.ForwarderDead, g.unitIs(service.StateFailed), g.wanted())}
	case verb == node.StartFailed:
		return []Path{path(node.ServiceCrashed, g.unitIs(service.StateFailed), g.wanted())}
	case g.spec.Kind == node.KindEtcd:
		return []Path{path(node.EtcdHung, g.unitIs(service.StateRunning), g.silent(), g.quorumElsewhere(), g.listed())}
	}
	if g.spec.Kind == node.KindMachine {
		return []Path{path(node.ServiceFails, g.unitIs(service.StateRunning),
			lasting(g.streak("fails"), "its check fails", observations, machineProof, g.check()), g.lost())}
	}
	return []Path{
		path(node.ForwarderHung, g.unitIs(service.StateRunning), g.past(),
			lasting(g.streak("mute"), "through it comes no answer, or half of one", fewSightings, muteProof, g.through())),
		path(node.ForwarderDead, g.unitIs(service.StateRunning), g.past(),
			lasting(g.streak("deaf"), "nothing listens on its address", refusedSights, deafProof, g.through())),
	}
}

func (g *glance) streak(name string) node.Streak { return g.mem.Streaks[name+"/"+g.spec.Service] }

func (g *glance) unitIs(want service.State) Condition {
	u := g.f.Unit
	now := fmt.Sprintf("%s is %s", g.spec.Unit, u.Value.State)
	if !u.Known {
		now = "the unit's state is unknown: " + cmp.Or(u.Why, "not observed yet")
	}
	return Condition{
		Met:  u.Fresh(g.now, engine.FreshLocal) && u.Value.State == want,
		Need: fmt.Sprintf("%s is %s", g.spec.Unit, want), Seen: now,
	}
}

// wanted: nobody stopped, disabled or masked the unit.
func (g *glance) wanted() Condition {
	intent := g.f.Unit.Value.Intent()
	unwanted := intent == service.IntentStopped || intent == service.IntentDisabled || intent == service.IntentMasked
	now := "nobody has"
	switch {
	case !g.f.Unit.Known:
		now = "the unit's state is unknown"
	case unwanted:
		now = "it is " + intent.String()
	}
	return Condition{Met: g.f.Unit.Known && !unwanted, Need: "nobody has stopped, disabled or masked it", Seen: now}
}

// listed: no other member of etcd says that this one was removed.
func (g *glance) listed() Condition {
	c := Condition{Met: true, Need: "no other member that answers has removed this one from its list", Seen: "none has"}
	cluster, me, ok := strings.Cut(cmp.Or(g.m.Answerer, g.spec.Identity), "/")
	if !ok {
		c.Seen = "which member this one is, is not known"
		return c
	}
	for _, o := range g.f.Others {
		m := o.Member.Value
		answers := o.Member.Fresh(g.now, engine.FreshLocal) && m.Outcome == probe.OutcomeAnswered && m.ClusterID == cluster
		if answers && len(m.Members) > 0 && !slices.Contains(m.Members, me) {
			return Condition{Need: c.Need, Seen: o.URL + " does not list " + me}
		}
	}
	return c
}

// silent: the member answers nothing for long. One that was heard in this run, or that a signal stopped, does not start any
// more.
func (g *glance) silent() Condition {
	proof, why := etcdStart, " (it has not answered in this run, and may still be starting)"
	p := g.f.Process
	stopped := p.Fresh(g.now, engine.FreshLocal) && p.Value.PID == g.f.Unit.Value.MainPID && p.Value.Stopped()
	if g.m.Heard || stopped {
		proof, why = etcdProof, ""
	}
	m, now := g.f.Member, "what it answers is unknown"
	if m.Known {
		now = fmt.Sprintf("gRPC %s, /health %s", m.Value.Outcome, m.Value.Health)
	}
	c := lasting(g.streak("silent"), "it answers neither gRPC nor HTTP", observations, proof, now)
	c.Need += why
	return c
}

// quorumElsewhere: a member without a quorum is silent too.
func (g *glance) quorumElsewhere() Condition {
	c := Condition{Need: "another member has a leader: a member without a quorum is silent too", Seen: "none is seen to have one"}
	for _, o := range g.f.Others {
		if o.Member.Fresh(g.now, engine.FreshLocal) && o.Member.Value.Serves() {
			c.Met, c.Seen = true, o.URL+" has one"
		}
	}
	return c
}

func (g *glance) check() string {
	c := g.f.Check
	if !c.Known {
		return "what its check says is unknown: " + cmp.Or(c.Why, "not asked yet")
	}
	return fmt.Sprintf("its check passed: %t", c.Value.OK)
}

// lost: nothing gets through a forwarder that leads into this machine, and every hop before it is out of sight.
func (g *glance) lost() Condition {
	c := Condition{Need: "nothing gets through the forwarders that lead into it, and no hop before it answers, nor its manager", Seen: "no forwarder leads into it"}
	for _, spec := range g.q.Spec.Services {
		n := len(spec.Behind)
		if n == 0 || spec.Behind[n-1] != g.spec.Service {
			continue
		}
		past := g.facts(spec.Service).Past
		if !past.Fresh(g.now, engine.FreshLocal) || past.Value.Outcome == probe.OutcomeAnswered {
			return Condition{Need: c.Need, Seen: spec.Service + ": " + hop("past it", past)}
		}
		for _, name := range spec.Behind[:n-1] {
			f := g.facts(name)
			if u := f.Unit; u.Fresh(g.now, engine.FreshLocal) {
				return Condition{Need: c.Need, Seen: fmt.Sprintf("%s is %s", name, u.Value.State)}
			}
			alive := f.Member.Fresh(g.now, engine.FreshLocal) && f.Member.Value.Alive()
			if alive || f.Check.Fresh(g.now, engine.FreshLocal) && f.Check.Value.OK {
				return Condition{Need: c.Need, Seen: name + " answers"}
			}
		}
		c.Met, c.Seen = true, "it is so"
	}
	return c
}

// facts are those of another service.
func (g *glance) facts(name string) node.ServiceFacts {
	for _, f := range g.q.Snapshot.Services {
		if f.Service == name {
			return f
		}
	}
	return node.ServiceFacts{}
}

func (g *glance) past() Condition {
	p := g.f.Past
	return Condition{
		Met:  p.Fresh(g.now, engine.FreshLocal) && p.Value.Outcome == probe.OutcomeAnswered,
		Need: "what is behind the forwarder answers", Seen: hop("past it", p),
	}
}

func (g *glance) through() string { return hop("through it", g.f.Through) }

func hop(where string, f node.Fact[probe.Hop]) string {
	if !f.Known {
		return where + ": unknown, " + cmp.Or(f.Why, "not asked yet")
	}
	return where + ": " + string(f.Value.Outcome)
}

func (g *glance) hypothetical(verb node.Verb, because node.Code) node.Action {
	u := g.f.Unit.Value
	run := cmp.Or(u.InvocationID, "none")
	a := node.Action{
		ID:   fmt.Sprintf("%s/%s/%s/%s", verb, g.spec.Service, because, run[:min(8, len(run))]),
		Verb: verb, Service: g.spec.Service, Kind: g.spec.Kind, Unit: g.spec.Unit, Class: node.ClassRevive, Finding: because,
		Reason: "it is only asked about",
		Before: node.Baseline{InvocationID: u.InvocationID, MainPID: u.MainPID, StartTick: g.f.Process.Value.StartTick},
	}
	if verb != node.StartFailed && g.spec.Kind != node.KindForwarder {
		a.Class = node.ClassDisrupt
	}
	return a
}
