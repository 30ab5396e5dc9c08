// Package loop is the order of things: look, decide, look again, act, verify, record; once per tick or wake-up.
//
// It owns when the agent looks and what it does with an answer. It promises that nothing is done on a first impression:
// what the first look allows is asked again with every fact fresh; that a decision is recorded, with all its inputs,
// before what follows from it is begun, and so is what it makes the agent remember over a restart; and that an agent which caught itself breaking a rule of its own only observes
// from then on. It deliberately holds no rule: those are in agent/engine and agent/guard, put together by agent/decision.
package loop

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/decision"
	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
)

const (
	routineTick = 2 * time.Second
	alertTick   = 600 * time.Millisecond
	quietPeriod = 50 * time.Millisecond // events come in bursts; the first waits this long for the others
)

// Executor carries out an action and records intent and result.
type Executor interface {
	Execute(ctx context.Context, a node.Action) (node.AttemptResult, error)
	Settle(ctx context.Context, a node.Attempt, r node.AttemptResult, text string) error
}

// Deps is what a loop works with. All functions but Problem are called from the loop alone.
type Deps struct {
	Observe  func(context.Context, observer.Depth) node.Snapshot
	Attempts func() []node.Attempt
	Crashes  func() int   // starts of the agent that followed no orderly stop
	Healthy  func() error // of the journal
	Record   func(Entry) (decision uint64)
	Keep     func(node.Kept) error // makes durable what the next process of the agent has to know
	Publish  func(node.Question, node.Plan)
	Alive    func() // tells the service manager that the loop runs
	Executor Executor
	Host     observer.Host
	Started  node.Instant
	Problem  func() string // of the configuration
	Wake     chan struct{}
	Logger   *slog.Logger
}

// Loop decides again and again. Run is called once; the other methods are safe for concurrent use.
type Loop struct {
	d Deps

	mu   sync.Mutex // guards spec and mem
	spec node.Spec
	mem  node.Memory

	last    node.Plan
	kept    node.Kept    // as it is durable; empty before this loop has kept anything
	broken  string       // the first rule of its own that the agent broke
	planned node.Instant // when the running look was due
	clock   clockWatch
	acts    sync.WaitGroup
}

// Entry is what one decision adds to the journal: what it changed, and all that it rests on.
type Entry struct {
	Opened, Cleared []node.Finding
	Plan            node.Plan
	News            bool // what the plan allows or refuses, or why, is another
	Question        node.Question
}

// New returns a loop that goes on with a memory.
func New(d Deps, spec node.Spec, mem node.Memory) *Loop {
	return &Loop{d: d, spec: spec, mem: mem, planned: d.Host.Now()}
}

// SetSpec swaps what the agent was told, from the next decision on.
func (l *Loop) SetSpec(s node.Spec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spec = s
}

// Memory returns what the latest decision handed on.
func (l *Loop) Memory() node.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mem
}

// SetMemory gives a loop that does not run yet the memory of the one before it.
func (l *Loop) SetMemory(m node.Memory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mem = m
}

// Run decides until ctx ends, and returns when the actions that it began have ended too.
func (l *Loop) Run(ctx context.Context) error {
	defer l.acts.Wait()
	depth := observer.Routine
	l.planned = l.d.Host.Now()
	for {
		attention := l.step(ctx, depth)
		l.d.Alive()
		pause := routineTick
		depth = observer.Routine
		if attention {
			pause, depth = alertTick, observer.Alert
		}
		l.planned = l.d.Host.Now().Add(pause)
		if !l.sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// sleep waits for the next tick or a wake-up and reports whether the loop goes on.
func (l *Loop) sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-l.d.Wake:
	}
	t.Reset(quietPeriod)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	}
	l.planned = l.d.Host.Now()
	return true
}

// step looks and decides once, and reports whether something is suspicious.
func (l *Loop) step(ctx context.Context, depth observer.Depth) bool {
	snap := l.look(ctx, depth)
	l.verify(ctx, snap)
	plan, attention := l.decide(snap)
	if len(plan.Allowed) > 0 && ctx.Err() == nil {
		// Nothing is done on a first impression: the same question is asked again with every fact fresh.
		plan, attention = l.decide(l.look(ctx, observer.Confirm))
		l.act(ctx, plan)
	}
	return attention || len(l.open()) > 0
}

func (l *Loop) look(ctx context.Context, depth observer.Depth) node.Snapshot {
	delay := l.d.Host.Now().Sub(l.planned)
	snap := l.d.Observe(ctx, depth)
	snap.Self = node.Self{
		LoopDelay: max(0, delay), StartedAgo: snap.Now.Sub(l.d.Started), ConfigProblem: l.d.Problem(),
		Crashes: l.d.Crashes(), Assertion: l.broken,
	}
	snap.Self.ClockJump, snap.Self.Suspended = l.clock.look(snap.Now)
	if err := l.d.Healthy(); err != nil {
		snap.Self.JournalBroken = err.Error()
	}
	l.planned = snap.Now
	return snap
}

// decide runs the pure core, records what changed, and shows the answer.
func (l *Loop) decide(snap node.Snapshot) (node.Plan, bool) {
	l.mu.Lock()
	q := node.Question{Spec: l.spec, Memory: l.mem, Snapshot: snap}
	l.mu.Unlock()
	q.Attempts = l.d.Attempts()
	a := decision.Decide(q)
	if a.Broken != "" && l.broken == "" {
		l.broken = a.Broken
		l.d.Logger.Error("an assertion failed: this agent only observes until it is restarted", "reason", a.Broken)
	}
	l.mu.Lock()
	l.mem = a.Memory
	l.mu.Unlock()
	l.keep(a.Memory, snap)
	e := changes(q, a, l.last)
	if len(a.Plan.Allowed) > 0 && snap.Confirm || e.News || len(e.Opened) > 0 || len(e.Cleared) > 0 {
		seq := l.d.Record(e)
		for i := range a.Plan.Allowed {
			a.Plan.Allowed[i].Decision = seq
		}
	}
	l.last = a.Plan
	l.d.Publish(q, a.Plan)
	return a.Plan, a.Attention
}

// keep makes what must outlive this process durable when it has changed. A journal that cannot be written forbids every
// action, so what could not be kept is tried again when it can.
func (l *Loop) keep(m node.Memory, snap node.Snapshot) {
	k := engine.Keep(m, snap.Now)
	if snap.Self.JournalBroken != "" || reflect.DeepEqual(k, l.kept) {
		return
	}
	if err := l.d.Keep(k); err != nil {
		l.d.Logger.Error("journal not written", "kind", "memory", "err", err)
		return
	}
	l.kept = k
}

// act begins the first allowed action of every service. The executor refuses a second one on the same target.
func (l *Loop) act(ctx context.Context, plan node.Plan) {
	begun := map[string]bool{}
	for _, a := range plan.Allowed {
		if begun[a.Service] {
			continue
		}
		begun[a.Service] = true
		l.acts.Go(func() {
			// An act that has begun is carried to its record even when the agent is told to stop.
			c, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.Deadline)
			defer cancel()
			result, err := l.d.Executor.Execute(c, a)
			l.d.Logger.Info("action", "action", a.Verb, "service", a.Service, "reason", a.Finding, "result", result, "err", err)
			poke(l.d.Wake)
		})
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *Loop) open() []node.Attempt {
	var out []node.Attempt
	for _, a := range l.d.Attempts() {
		if a.Result == node.ResultExecuted {
			out = append(out, a)
		}
	}
	return out
}

// verify looks whether executed actions had their effect.
func (l *Loop) verify(ctx context.Context, snap node.Snapshot) {
	l.mu.Lock()
	spec := l.spec
	l.mu.Unlock()
	for _, a := range l.open() {
		result, text := node.ResultUnverified, "the machine was restarted before the effect was seen"
		if a.BootID == snap.BootID {
			result, text = engine.Verify(spec, a, snap)
		}
		if result == node.ResultExecuted {
			continue
		}
		level := slog.LevelInfo
		if result != node.ResultVerified {
			level = slog.LevelError
		}
		l.d.Logger.Log(ctx, level, "heal judged", "action", a.Verb, "service", a.Service, "reason", a.Finding, "result", result, "detail", text)
		if err := l.d.Executor.Settle(ctx, a, result, text); err != nil {
			l.d.Logger.Error("journal not written", "kind", "result", "err", err)
		}
	}
}

// changes compares two decisions. A plan is news when what it allows or refuses, or why, is another.
func changes(q node.Question, a decision.Answer, old node.Plan) Entry {
	before, after := q.Memory.Open, a.Memory.Open
	e := Entry{Plan: a.Plan, Question: q, News: signature(a.Plan) != signature(old)}
	for _, f := range a.Plan.Findings {
		b, ok := before[f.Key()]
		// A second primary writes on, and nobody can measure it any more once it is ended: it is recorded again right then.
		news := !ok || b.Severity != f.Severity || b.DivergentBytes == nil && f.DivergentBytes != nil
		if news || fenced(a.Plan, f) && (e.News || grown(b, f)) {
			e.Opened = append(e.Opened, f)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[k]; !ok {
			e.Cleared = append(e.Cleared, before[k])
		}
	}
	return e
}

func grown(b, f node.Finding) bool {
	return b.DivergentBytes != nil && f.DivergentBytes != nil && *f.DivergentBytes > *b.DivergentBytes
}

// fenced reports whether the plan is about to end the second primary that the finding is about.
func fenced(p node.Plan, f node.Finding) bool {
	return slices.ContainsFunc(p.Allowed, func(a node.Action) bool {
		return a.Fence && a.Finding == f.Code && a.Service == f.Subject
	})
}

func signature(p node.Plan) string {
	s := ""
	for _, a := range p.Allowed {
		s += "+" + a.ID
	}
	for _, r := range p.Refused {
		s += "-" + r.Action.ID
		for _, v := range r.Verdicts {
			s += fmt.Sprintf("/%s", v.Guard)
		}
	}
	return s
}

// clockWatch compares three clocks: boot time (which runs on in suspend), monotonic (which does not), and wall.
type clockWatch struct {
	boot node.Instant
	seen time.Time
}

func (c *clockWatch) look(boot node.Instant) (jump, suspended time.Duration) {
	now := time.Now()
	defer func() { c.boot, c.seen = boot, now }()
	if c.seen.IsZero() {
		return 0, 0
	}
	mono, elapsed := now.Sub(c.seen), boot.Sub(c.boot)
	wall := now.Round(0).Sub(c.seen.Round(0))
	// Instants and these readings are taken a moment apart: what is below the noise is nothing.
	const noise = 500 * time.Millisecond
	if d := elapsed - mono; d > noise {
		suspended = d
	}
	if d := wall - elapsed; d > noise || d < -noise {
		jump = d
	}
	return jump, suspended
}
