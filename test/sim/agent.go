package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/decision"
	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/executor"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/coordinator"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// As in package agent/loop.
const (
	routineTick = 2 * time.Second
	alertTick   = 600 * time.Millisecond
	quietPeriod = 50 * time.Millisecond
)

// agent is the order of package agent/loop around the real core, executor and coordination. What survives a crash of it
// is the journal, the orders kept on its machine, and nothing else.
type agent struct {
	m          *machine
	journal    *journalModel
	holds      []node.Hold // of this machine
	held       instant     // since when
	sharedHeld instant     // since when people hold the whole scope back
	policy     node.Policy

	alive   bool
	ended   bool // for good
	born    instant
	procs   []*process
	looper  *process
	exec    *executor.Executor
	mem     node.Memory
	plan    node.Plan // the latest
	broken  string
	planned instant
	wall    time.Duration // offset of the wall clock at the last look
	sleepy  time.Duration // asleep since the last look
	pending bool          // a wake-up came while nobody rested
	unitDue bool
	crashes []instant
	look    sight
	rnd     *rand.Rand
	etcd    endpoint
	listed  instant // when all keys were read last
	told    instant // up to which moment their changes are known
}

func newAgent(m *machine) *agent {
	a := &agent{m: m, policy: node.Policy{Adjust: node.ModeAuto, Revive: node.ModeAuto, Disrupt: node.ModeAuto, Expedite: node.ModeOff}}
	if r := m.w.rand("policy " + m.name); r.IntN(4) == 0 {
		a.policy.Disrupt = node.ModeObserve
	}
	a.journal = &journalModel{a: a}
	a.rnd = m.w.rand("agent " + m.name)
	return a
}

func (a *agent) latency() time.Duration { return time.Duration(1+a.rnd.IntN(8)) * time.Millisecond }

func (a *agent) now() node.Instant { return node.Instant(a.m.w.now + a.m.uptime) }

// start begins a new process of the agent, which knows what the journal knows.
func (a *agent) start() {
	if a.alive || a.ended {
		return
	}
	a.alive, a.born, a.mem, a.broken, a.look = true, a.m.w.now, node.Memory{}, "", sight{}
	if k := a.journal.kept; k != nil {
		a.mem = engine.Recall(*k, true, a.now())
	}
	a.wall, a.sleepy = a.m.jump, 0
	a.etcd = endpoint{e: a.m.w.etcd, a: a, pin: a.rnd.IntN(etcdMembers), since: -watchRetry}
	a.listed, a.told = -listEvery, 0
	steps := a.m.w.steps
	kv := steps.kv(a, &client{a, a.m.w.etcd})
	hands := &hands{a: a}
	a.exec = executor.New(steps.around(a, executor.Deps{
		Managers: map[string]service.Manager{"patroni": hands}, Units: map[string]string{"patroni": unitName},
		Journal: a.journal, Locker: coordinator.New(kv, a.now, scope, a.m.name), Permit: a.permit,
		Logger: slog.New(slog.DiscardHandler), Now: a.now, BootID: a.m.bootID(), Wait: a.wait, Within: a.within,
	}))
	a.looper = a.spawn(a.run)
}

func (a *agent) spawn(code func(*process)) *process {
	p := a.m.w.spawn(a.m, code)
	a.procs = append(a.procs, p)
	return p
}

// crash ends the agent wherever it is.
func (a *agent) crash() {
	if !a.alive {
		return
	}
	a.m.w.say("%s: agent is killed", a.m.name)
	a.alive = false
	for _, p := range a.procs {
		p.kill()
	}
	a.procs = nil
	a.crashes = append(a.crashes, a.m.w.now)
}

func (a *agent) wake() {
	if !a.alive {
		return
	}
	if a.looper.idle {
		a.looper.wake(quietPeriod)
		a.planned = a.m.w.now + quietPeriod
		return
	}
	a.pending = true
}

// run is agent/loop.Run.
func (a *agent) run(p *process) {
	p.sleep(20 * time.Millisecond)
	_, _ = a.exec.Resolve(context.Background(), a.journal.unresolved()) // what stays open refuses its target
	depth := routine
	a.planned = a.m.w.now
	for {
		attention := a.step(p, depth)
		pause := routineTick
		depth = routine
		if attention {
			pause, depth = alertTick, alert
		}
		if a.pending {
			pause, a.pending = quietPeriod, false
		}
		a.planned = a.m.w.now + pause
		p.rest(pause)
	}
}

func (a *agent) step(p *process, d depth) bool {
	snap := a.snapshot(p, d)
	a.verify(snap)
	plan, attention := a.decide(snap)
	if len(plan.Allowed) > 0 {
		plan, attention = a.decide(a.snapshot(p, confirm))
		a.act(plan)
	}
	return attention || len(a.journal.open()) > 0
}

func (a *agent) spec() node.Spec {
	return node.Spec{Node: a.m.name, Scope: scope, Policy: a.policy, Patroni: []node.PatroniSpec{
		{Service: "patroni", Member: a.m.name, Unit: unitName, Policy: a.policy},
	}}
}

func (a *agent) decide(snap node.Snapshot) (node.Plan, bool) {
	answer := decision.Judge(node.Question{Spec: a.spec(), Memory: a.mem, Snapshot: snap, Attempts: a.journal.attempts()})
	if answer.Broken != "" {
		a.broken = answer.Broken
		a.m.w.check.broken(a, "assertion", "%s", answer.Broken)
	}
	a.mem, a.plan = answer.Memory, answer.Plan
	a.journal.keep(engine.Keep(a.mem, snap.Now))
	for _, r := range answer.Plan.Refused {
		for _, v := range r.Verdicts {
			a.m.w.facts.refused(a.m.name+r.Action.ID, v.Guard)
			a.m.w.say("%s: %s refuses %s: %s", a.m.name, v.Guard, r.Action.ID, v.Text)
		}
	}
	return answer.Plan, answer.Attention
}

// act begins the first allowed action.
func (a *agent) act(plan node.Plan) {
	if len(plan.Allowed) == 0 {
		return
	}
	action := plan.Allowed[0]
	a.spawn(func(*process) {
		began := a.m.w.now
		ctx, cancel := a.within(context.Background(), action.Deadline)
		defer cancel()
		a.m.w.say("%s: begins %s (%s)", a.m.name, action.ID, action.Class)
		a.m.w.steps.begins(a)
		result, err := a.exec.Execute(ctx, action)
		a.m.w.say("%s: ended %s: %s %v", a.m.name, action.ID, result, err)
		a.m.w.facts.acted(action, result)
		a.m.w.check.ended(a, action, began)
		a.wake()
	})
}

func (a *agent) verify(snap node.Snapshot) {
	for _, at := range a.journal.open() {
		result, text := node.ResultUnverified, "the machine was restarted before the effect was seen"
		if at.BootID == snap.BootID {
			result, text = engine.Verify(a.spec(), at, snap)
		}
		if result == node.ResultExecuted {
			continue
		}
		a.m.w.say("%s: %s is %s: %s", a.m.name, at.ActionID, result, text)
		a.m.w.facts.judged(result)
		_ = a.exec.Settle(context.Background(), at, result, text) // the lock ends with its lease
		a.m.w.check.settled(a)
	}
}

// permit is what agent.permit asks: the holds of this machine, and those of etcd that the agent has been told of.
func (a *agent) permit(node.Action) error {
	holds := a.holds
	if a.look.dcs.Shared.Known {
		holds = append(holds[:len(holds):len(holds)], a.look.dcs.Shared.Value.Holds...)
	}
	if a.m.w.etcd.serves(a.etcd.member(), a.m.host) {
		holds = append(holds[:len(holds):len(holds)], a.m.w.etcd.shared.Holds...)
	}
	for _, h := range holds {
		return fmt.Errorf("held back by %s", h)
	}
	return nil
}

func (a *agent) wait(ctx context.Context, d time.Duration) error {
	a.m.w.current.sleep(d)
	return ctx.Err()
}

// within returns a context that ends by the simulated clock. Nothing waits for its channel.
func (a *agent) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := &simContext{Context: ctx, w: a.m.w, end: a.m.w.now + d}
	return c, func() { c.over = true }
}

type simContext struct {
	context.Context
	w    *world
	end  instant
	over bool
}

func (c *simContext) Err() error {
	switch {
	case c.over:
		return context.Canceled
	case c.w.now >= c.end:
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

// hands is what the agent can do to its machine: the service manager as the model has it.
type hands struct {
	a *agent
}

func (h *hands) pause() { h.a.m.w.current.sleep(h.a.latency()) }

// Status implements service.Manager.
func (h *hands) Status(ctx context.Context, _ string) (service.Status, error) {
	h.pause()
	return h.a.m.unit.status(), ctx.Err()
}

// KillMain implements service.Manager.
func (h *hands) KillMain(ctx context.Context, _ string, want service.Status) error {
	h.pause()
	u := &h.a.m.unit
	if err := ctx.Err(); err != nil {
		return err
	}
	if u.pid == 0 || u.pid != want.MainPID || u.invocation != want.InvocationID {
		return service.ErrChanged
	}
	h.a.m.w.check.act(h.a, node.SoftKill)
	u.kill()
	h.pause()
	return nil
}

// Start implements service.Manager.
func (h *hands) Start(ctx context.Context, _ string) error {
	h.pause()
	u := &h.a.m.unit
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case u.job != "" || u.state == service.StateStopping:
		return service.ErrBusy
	case u.masked:
		return errors.New("the unit is masked")
	case u.pid != 0 || u.state == service.StateRestarting:
		return nil
	}
	h.a.m.w.check.act(h.a, node.StartFailed)
	u.clearAndStart()
	h.pause()
	return nil
}
