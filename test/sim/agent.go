package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
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
	m            *machine
	journal      *journalModel
	holds        []*heldBack // of this machine
	unreadable   spell       // of the kill switch's file
	member       string      // that it was told its Patroni is
	memberSince  instant
	policy       node.Policy // of the service
	nodePolicy   node.Policy
	policyAt     instant       // of its last change
	policyBefore node.Policy   // that change
	slow         time.Duration // by how much its loop is late
	slowUntil    instant

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

	// What the checker keeps of it.
	late     time.Duration // by how much its loop was
	basis    basis
	shown    shown
	running  int     // actions begun
	finished int     // of them
	failed   instant // when a request to etcd last failed
}

func newAgent(m *machine) *agent {
	a := &agent{m: m, member: m.name, policy: node.Policy{Adjust: node.ModeAuto, Revive: node.ModeAuto, Disrupt: node.ModeAuto, Expedite: node.ModeOff}}
	if r := m.w.rand("policy " + m.name); r.IntN(4) == 0 {
		a.policy.Disrupt = node.ModeObserve
	}
	a.nodePolicy = a.policy
	a.journal = &journalModel{a: a}
	a.rnd = m.w.rand("agent " + m.name)
	return a
}

func (a *agent) latency() time.Duration { return time.Duration(1+a.rnd.IntN(8)) * time.Millisecond }

func (a *agent) now() node.Instant { return node.Instant(a.m.w.now + a.m.uptime) }

// start begins a new process of the agent, which knows what the journal knows.
func (a *agent) start() {
	if a.alive || a.ended || !a.m.w.agents {
		return
	}
	a.alive, a.born, a.mem, a.broken, a.look = true, a.m.w.now, node.Memory{}, "", sight{}
	a.shown, a.running, a.finished = shown{}, 0, 0
	a.m.forget()
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
	if open := a.resolve(a.journal.unresolved()); len(open) > 0 { // what stays open refuses its target
		a.spawn(func(p *process) {
			for len(open) > 0 {
				p.sleep(resolveAgain)
				open = a.resolve(open)
			}
		})
	}
	depth := routine
	a.planned = a.m.w.now
	for {
		if a.m.w.now < a.slowUntil {
			p.sleep(a.slow)
		}
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

// resolveAgain is how often the agent tries to find out what became of an intent, as in package agent.
const resolveAgain = 5 * time.Second

// resolve returns the intents whose outcome could not be found out.
func (a *agent) resolve(open []node.Attempt) []node.Attempt {
	done, err := a.exec.Resolve(context.Background(), open)
	if err == nil {
		return nil
	}
	return slices.DeleteFunc(open, func(o node.Attempt) bool {
		return slices.ContainsFunc(done, func(d node.Attempt) bool { return d.BootID == o.BootID && d.At == o.At })
	})
}

func (a *agent) step(p *process, d depth) bool {
	snap := a.snapshot(p, d)
	a.verify(snap)
	plan, attention := a.decide(snap)
	if len(plan.Allowed) > 0 {
		plan, attention = a.decide(a.snapshot(p, confirm))
		if len(plan.Allowed) > 0 { // else one that was begun before may still be on its way
			a.rest()
		}
		a.act(plan)
	}
	return attention || len(a.journal.open()) > 0
}

func (a *agent) spec() node.Spec {
	return node.Spec{Node: a.m.name, Scope: scope, Policy: a.nodePolicy, Patroni: []node.PatroniSpec{
		{Service: "patroni", Member: a.member, Unit: unitName, Policy: a.policy},
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
	if len(answer.Plan.Refused)+len(answer.Plan.Allowed) > 0 {
		_ = a.journal.write() // what the plan says is news, mostly
	}
	for _, act := range answer.Plan.Allowed {
		a.m.w.check.sameID(a, act)
	}
	for _, r := range answer.Plan.Refused {
		a.m.w.check.sameID(a, r.Action)
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
		a.m.w.check.bounded(a, action)
		a.m.w.sprung(a.m)
		ctx, cancel := a.within(context.Background(), action.Deadline)
		defer cancel()
		a.m.w.say("%s: begins %s (%s)", a.m.name, action.ID, action.Class)
		a.m.w.steps.begins(a)
		result, err := a.exec.Execute(ctx, action)
		a.m.w.say("%s: ended %s: %s %v", a.m.name, action.ID, result, err)
		a.m.w.facts.acted(action, result)
		a.finished = a.running
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
		a.m.w.check.settled(a, at)
	}
}

// permit is what agent.permit asks: the holds of this machine, and those of etcd that the agent has been told of.
func (a *agent) permit(node.Action) error {
	o := a.orders()
	if o.Unreadable != "" {
		return errors.New("the kill switch counts as set")
	}
	holds := o.Holds
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

// within returns a context that ends by the machine's monotonic clock, which stands still in suspend. Nothing waits for its
// channel.
func (a *agent) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := &simContext{Context: ctx, m: a.m, end: a.m.w.now - a.m.slept + d}
	return c, func() { c.over = true }
}

type simContext struct {
	context.Context
	m    *machine
	end  instant
	over bool
}

func (c *simContext) Err() error {
	switch {
	case c.over:
		return context.Canceled
	case c.m.w.now-c.m.slept >= c.end:
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

// hands is what the agent can do to its machine: the service manager as the model has it.
type hands struct {
	a *agent
}

func (h *hands) pause() { h.a.m.w.current.sleep(h.a.latency()) }

// lost reports that the service manager does not answer. It may do what it was asked for all the same.
func (h *hands) lost(do func() error) error {
	m := h.a.m
	if m.w.now >= m.blind[seeUnit] {
		return nil
	}
	if h.a.rnd.IntN(2) == 0 {
		_ = do()
	}
	m.w.current.sleep(time.Second)
	return fmt.Errorf("%w: no answer", service.ErrUnavailable)
}

// Status implements service.Manager.
func (h *hands) Status(ctx context.Context, _ string) (service.Status, error) {
	h.pause()
	if err := h.lost(func() error { return nil }); err != nil {
		return service.Status{}, err
	}
	return h.a.m.unit.status(), ctx.Err()
}

// KillMain implements service.Manager.
func (h *hands) KillMain(ctx context.Context, _ string, want service.Status) error {
	h.pause()
	if err := ctx.Err(); err != nil {
		return err
	}
	do := func() error {
		u := &h.a.m.unit
		if u.pid == 0 || u.pid != want.MainPID || u.invocation != want.InvocationID {
			return service.ErrChanged
		}
		h.a.m.w.check.act(h.a, node.SoftKill)
		u.kill()
		return nil
	}
	if err := h.lost(do); err != nil {
		return err
	}
	defer h.pause()
	return do()
}

// Start implements service.Manager.
func (h *hands) Start(ctx context.Context, _ string) error {
	h.pause()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lost(h.start); err != nil {
		return err
	}
	defer h.pause()
	return h.start()
}

func (h *hands) start() error {
	u := &h.a.m.unit
	switch {
	case u.job != "" || u.state == service.StateStopping:
		return service.ErrBusy
	case u.masked:
		return errors.New("the unit is masked")
	case u.pid != 0 || u.state == service.StateRestarting:
		return nil
	}
	h.a.m.w.check.act(h.a, node.StartFailed)
	u.clearAndStart()
	return nil
}
