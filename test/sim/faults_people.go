package main

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/orders"
)

// What people order of agents, in every way in which they can: holds, the kill switch's file, policies and approvals.
var peopleKinds = []kind{
	{"hold", 3, false, func(w *world, m *machine, f fault) { w.hold(m, f) }},
	{"holds", 1, false, func(w *world, m *machine, f fault) { // several on one machine, that end one after the other
		for i := range 2 + f.pick%3 {
			g := f
			g.pick, g.lasts = f.pick*(i+3)%1000, f.lasts/time.Duration(i+1)
			w.hold(m, g)
		}
	}},
	{"hold-unknown-kind", 1, false, func(w *world, m *machine, f fault) {
		if f.pick%2 == 0 {
			m.agent.hold(node.Hold{Kind: "freeze", Level: node.LevelNode, Owner: "a newer version", Reason: "unknown here"}, f.lasts)
			return
		}
		w.sharedHold(node.ScopeKeys(scope)+"hold/freeze", "{}", f.lasts)
	}},
	{"kill-switch-unreadable", 2, false, func(w *world, m *machine, f fault) {
		w.spell(&m.agent.unreadable, f.lasts)
	}},
	{"policy", 4, false, func(_ *world, m *machine, f fault) { m.agent.setPolicy(f) }},
	{"policy-ask", 3, false, func(w *world, m *machine, f fault) {
		m.agent.policy.Revive, m.agent.policy.Disrupt = node.ModeAsk, node.ModeAsk
		(&person{w: w, a: m.agent, until: w.now + f.lasts + time.Minute, habit: f.pick}).watch()
	}},
	{"approves-and-holds", 2, false, func(w *world, m *machine, f fault) { // and thinks of it again when the approval is over
		m.agent.policy.Revive, m.agent.policy.Disrupt = node.ModeAsk, node.ModeAsk
		(&person{w: w, a: m.agent, until: w.now + f.lasts, holds: node.ApprovalLife + f.lasts%(20*time.Second)}).watch()
	}},
}

// heldBack is a hold of one machine, and since when it is in force.
type heldBack struct {
	node.Hold
	since instant
}

// hold is a person's order to pgpatrol, on one of its levels.
func (w *world) hold(m *machine, f fault) {
	kinds := []node.HoldKind{node.HoldPause, node.HoldKill}
	levels := []node.Level{node.LevelNode, node.LevelScope, node.LevelAll}
	h := node.Hold{
		Kind: kinds[f.pick%2], Level: levels[f.pick/2%3], Owner: "operator", Reason: "work", Since: w.wall, Until: w.wall.Add(f.lasts),
	}
	if h.Level == node.LevelNode {
		m.agent.hold(h, f.lasts)
		return
	}
	text, err := node.HoldText(h)
	if err != nil {
		panic(err)
	}
	w.sharedHold(node.HoldKey(h.Level, scope, h.Kind), string(text), f.lasts)
}

// sharedHold puts a hold into etcd, where it ends with its lease.
func (w *world) sharedHold(key, text string, lasts time.Duration) {
	if !w.etcd.writable() {
		return
	}
	w.etcd.put(key, text, w.etcd.grant(lasts))
	w.sharedHeld[key] = w.now
}

func (a *agent) hold(h node.Hold, lasts time.Duration) {
	held := &heldBack{h, a.m.w.now}
	a.holds = append(a.holds, held)
	a.m.w.after(lasts, nil, func() { a.holds = slices.DeleteFunc(a.holds, func(o *heldBack) bool { return o == held }) })
}

// orders are what people want of an agent, as far as it is kept on its machine.
func (a *agent) orders() node.Orders {
	o := node.Orders{Approvals: a.journal.approved()}
	for _, h := range a.holds {
		o.Holds = append(o.Holds, h.Hold)
	}
	if a.unreadable.on() {
		o.Unreadable = "permission denied"
	}
	return o
}

// setPolicy changes what a person lets an agent do: of a class, of a finding, of the service or of the node.
func (a *agent) setPolicy(f fault) {
	a.policyBefore = a.policy
	mode := node.Modes()[f.pick%4]
	p := &a.policy
	switch f.pick / 4 % 4 {
	case 0:
		p.Revive = mode
	case 1:
		p.Disrupt = mode
	case 2:
		a.nodePolicy.Revive, a.nodePolicy.Disrupt = mode, mode // the service has its own, which counts
	default:
		codes := []node.Code{node.PatroniHung, node.PatroniFailed, node.ZombiePrimary, node.PatroniLoopStuck, node.PatroniAPIDead}
		p.Findings = map[node.Code]node.Mode{codes[f.pick/16%len(codes)]: mode}
	}
	if f.pick%7 == 0 {
		p.Revive, p.Disrupt = mode, mode
	}
	a.policyAt = a.m.w.now
}

// person watches what waits for an approval, and approves: the right action mostly, sometimes another, one that was approved
// before, or twice.
type person struct {
	w     *world
	a     *agent
	until instant
	habit int
	last  string        // action approved last
	holds time.Duration // for so long he holds the machine as soon as he has approved something, and goes away
}

func (p *person) watch() {
	if p.w.now > p.until {
		return
	}
	p.w.after(time.Second+time.Duration(p.habit)*4*time.Millisecond, nil, p.watch)
	if !p.a.alive {
		return
	}
	for _, r := range p.a.plan.Refused {
		if !slices.ContainsFunc(r.Verdicts, func(v node.Verdict) bool { return v.Guard == node.GuardPolicy }) {
			continue
		}
		id := r.Action.ID
		switch p.habit % 4 {
		case 1:
			id += "0"
		case 2:
			if p.last != "" {
				id = p.last
			}
		case 3:
			p.approve(id)
		}
		p.approve(id)
		p.habit += 3
	}
}

// approve is pgpatrol approve, with the rules of the product by which an order is accepted.
func (p *person) approve(id string) {
	a := p.a
	k := orders.New(orders.Deps{
		Now: a.now,
		Record: func(e orders.Entry) error {
			if err := a.journal.write(); err != nil {
				return err
			}
			a.journal.approvals = append(a.journal.approvals, approval{*e.Approval, a.m.bootID(), p.w.now})
			return nil
		},
	})
	_, err := k.Approve(id, "operator", "", orders.Waiting{
		Plan: a.plan, Spec: a.spec(), Attempts: a.journal.attempts(), Proposed: func(string) bool { return true },
	})
	p.w.say("%s: a person approves %s: %v", a.m.name, id, err)
	if p.last = id; err != nil {
		return
	}
	if p.holds > 0 {
		a.hold(node.Hold{Kind: node.HoldPause, Level: node.LevelNode, Owner: "operator", Reason: "work"}, p.holds)
		p.until = 0
	}
	a.wake()
}
