package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/guard"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
)

const (
	routineTick = 2 * time.Second
	alertTick   = 600 * time.Millisecond
	quietPeriod = 50 * time.Millisecond // events come in bursts; the first waits this long for the others
)

// executing carries out an action and records intent and result.
type executing interface {
	Execute(ctx context.Context, a node.Action) (node.AttemptResult, error)
	Settle(ctx context.Context, a node.Attempt, r node.AttemptResult, text string) error
}

// loop is observe, decide, guard, execute, verify, record: once per tick or wake-up.
type loop struct {
	observe  func(context.Context, observer.Depth) node.Snapshot
	attempts func() []node.Attempt
	healthy  func() error // of the journal
	record   func(recorded)
	publish  func(node.Snapshot, node.Plan)
	alive    func() // tells the service manager that the loop runs
	exec     executing
	host     observer.Host
	started  node.Instant
	problem  func() string
	wake     chan struct{}
	logger   *slog.Logger

	mu   sync.Mutex // guards spec and mem
	spec node.Spec
	mem  node.Memory

	last    node.Plan
	planned node.Instant // when the running look was due
	clock   clockWatch
	acts    sync.WaitGroup
}

// recorded is what one decision adds to the journal.
type recorded struct {
	opened, cleared []node.Finding
	plan            *node.Plan
}

func (l *loop) setSpec(s node.Spec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spec = s
}

func (l *loop) memory() node.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mem
}

// run decides until ctx ends, and returns when the actions that it began have ended too.
func (l *loop) run(ctx context.Context) error {
	defer l.acts.Wait()
	depth := observer.Routine
	l.planned = l.host.Now()
	for {
		attention := l.step(ctx, depth)
		l.alive()
		pause := routineTick
		depth = observer.Routine
		if attention {
			pause, depth = alertTick, observer.Alert
		}
		l.planned = l.host.Now().Add(pause)
		if !l.sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// sleep waits for the next tick or a wake-up and reports whether the loop goes on.
func (l *loop) sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-l.wake:
	}
	t.Reset(quietPeriod)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	}
	l.planned = l.host.Now()
	return true
}

// step looks and decides once, and reports whether something is suspicious.
func (l *loop) step(ctx context.Context, depth observer.Depth) bool {
	snap := l.look(ctx, depth)
	l.verify(ctx, snap)
	plan, attention := l.decide(snap)
	if len(plan.Allowed) > 0 && ctx.Err() == nil {
		// Nothing is done on a first impression: the same question is asked again with every fact fresh.
		snap = l.look(ctx, observer.Confirm)
		plan, attention = l.decide(snap)
		l.act(ctx, plan)
	}
	l.show(snap, plan)
	return attention || len(l.open()) > 0
}

func (l *loop) look(ctx context.Context, depth observer.Depth) node.Snapshot {
	delay := l.host.Now().Sub(l.planned)
	snap := l.observe(ctx, depth)
	snap.Self = node.Self{LoopDelay: max(0, delay), StartedAgo: snap.Now.Sub(l.started), ConfigProblem: l.problem()}
	snap.Self.ClockJump, snap.Self.Suspended = l.clock.look(snap.Now)
	if err := l.healthy(); err != nil {
		snap.Self.JournalBroken = err.Error()
	}
	l.planned = snap.Now
	return snap
}

// decide runs the pure core and records what changed.
func (l *loop) decide(snap node.Snapshot) (node.Plan, bool) {
	attempts := l.attempts()
	l.mu.Lock()
	spec, mem := l.spec, l.mem
	l.mu.Unlock()
	out := engine.Step(node.Question{Spec: spec, Memory: mem, Snapshot: snap, Attempts: attempts})
	plan := guard.Plan(guard.Input{
		Spec: spec, Memory: out.Memory, Snapshot: snap, Attempts: attempts, Findings: out.Findings, Actions: out.Actions,
	})
	l.mu.Lock()
	l.mem = out.Memory
	l.mu.Unlock()
	l.record(changes(mem.Open, out.Memory.Open, l.last, plan))
	l.last = plan
	return plan, out.Attention
}

// act begins the first allowed action of every service. The executor refuses a second one on the same target.
func (l *loop) act(ctx context.Context, plan node.Plan) {
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
			result, err := l.exec.Execute(c, a)
			l.logger.Info("action", "action", a.Verb, "service", a.Service, "reason", a.Finding, "result", result, "err", err)
			poke(l.wake)
		})
	}
}

func (l *loop) open() []node.Attempt {
	var out []node.Attempt
	for _, a := range l.attempts() {
		if a.Result == node.ResultExecuted {
			out = append(out, a)
		}
	}
	return out
}

// verify looks whether executed actions had their effect.
func (l *loop) verify(ctx context.Context, snap node.Snapshot) {
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
		l.logger.Log(ctx, level, "heal judged", "action", a.Verb, "service", a.Service, "reason", a.Finding, "result", result, "detail", text)
		if err := l.exec.Settle(ctx, a, result, text); err != nil {
			l.logger.Error("journal not written", "kind", "result", "err", err)
		}
	}
}

func (l *loop) show(snap node.Snapshot, plan node.Plan) { l.publish(snap, plan) }

// changes compares two decisions. A plan is worth recording when what it allows or refuses, or why, is another.
func changes(before, after map[string]node.Finding, old, plan node.Plan) recorded {
	var r recorded
	differs := signature(plan) != signature(old)
	for _, f := range plan.Findings {
		b, ok := before[f.Key()]
		// A second primary writes on, and nobody can measure it any more once it is ended: it is recorded again right then.
		news := !ok || b.Severity != f.Severity || b.DivergentBytes == nil && f.DivergentBytes != nil
		if news || fenced(plan, f) && (differs || grown(b, f)) {
			r.opened = append(r.opened, f)
		}
	}
	for k, f := range before {
		if _, ok := after[k]; !ok {
			r.cleared = append(r.cleared, f)
		}
	}
	if differs {
		r.plan = &plan
	}
	return r
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
