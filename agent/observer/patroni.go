package observer

import (
	"context"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// patroni keeps the facts about one Patroni.
type patroni struct {
	Patroni
	slow chan struct{} // wakes run

	mu      sync.Mutex // guards the rest
	facts   node.PatroniFacts
	unitDue bool
	cfg     configWatch
	mark    markWatch
}

func (p *patroni) snapshot() node.PatroniFacts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.facts
}

// observe looks at what is due. What a later look needs to know comes first: the unit names the process, and a stopped
// process is not waited for.
func (p *patroni) observe(ctx context.Context, depth Depth, now func() node.Instant) {
	f := p.snapshot()
	p.mu.Lock()
	due := p.unitDue
	p.unitDue = false
	p.mu.Unlock()
	if at := now(); due || stale(f.Unit, at, everyUnit[depth]) {
		c, cancel := context.WithTimeout(ctx, unitTimeout)
		st, err := p.Units.Status(c, p.Spec.Unit)
		cancel()
		f.Unit = update(f.Unit, st, err, "service manager", at)
	}
	p.observeProcess(ctx, &f, now())
	var wg sync.WaitGroup
	wg.Go(func() { f.Limits = limits(ctx, f.Limits, p.Units, p.Spec.Unit, "service manager", now()) })
	wg.Go(func() { p.observeAPI(ctx, &f, depth, now) })
	wg.Go(func() {
		at := now()
		v, err := p.Probes.Files.Probe(ctx)
		f.Postgres = update(f.Postgres, v, err, "data directory and process table", at)
	})
	wg.Go(func() {
		if at := now(); p.Probes.Session != nil && stale(f.Session, at, everySession[depth]) {
			f.Session = look(ctx, f.Session, p.Probes.Session, sessionTimeout, "a new SQL session", at)
		}
	})
	wg.Go(func() {
		if at := now(); stale(f.Machine, at, everyMachine[depth]) {
			f.Machine = look(ctx, f.Machine, p.Probes.Machine, unitTimeout, "process table", at)
		}
	})
	wg.Wait()
	p.mu.Lock()
	f.Config, f.LogMark = p.facts.Config, p.facts.LogMark // written by run
	p.facts = f
	p.mu.Unlock()
	p.noticeSlow(f, now())
}

func (p *patroni) observeProcess(ctx context.Context, f *node.PatroniFacts, at node.Instant) {
	pid := f.Unit.Value.MainPID
	if !f.Unit.Known || pid == 0 {
		f.Process = node.Unseen[probe.Process]("process table", "the unit has no main process", at)
		return
	}
	c, cancel := context.WithTimeout(ctx, unitTimeout)
	defer cancel()
	v, err := p.Probes.Process(c, pid)
	f.Process = update(f.Process, v, err, "process table", at)
}

// observeAPI asks /liveness every time, and the endpoint that costs SQL only when it is due and Patroni answers at all.
func (p *patroni) observeAPI(ctx context.Context, f *node.PatroniFacts, depth Depth, now func() node.Instant) {
	limit := livenessTimeout
	if f.Process.Known && f.Process.Value.Stopped() {
		limit = stoppedTimeout
	}
	f.Liveness = look(ctx, f.Liveness, p.Probes.Liveness, limit, p.APIURL+"/liveness", now())
	if at := now(); f.Liveness.Value.Outcome == probe.OutcomeAnswered && stale(f.API, at, everyAPI[depth]) {
		f.API = look(ctx, f.API, p.Probes.API, apiTimeout, p.APIURL+"/patroni", at)
	}
}

func look[T any](ctx context.Context, old node.Fact[T], p probe.Prober[T], limit time.Duration, source string, at node.Instant) node.Fact[T] {
	c, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	v, err := p.Probe(c)
	return update(old, v, err, source, at)
}

// update returns the new fact, or the old one with the reason why there is no newer.
func update[T any](old node.Fact[T], v T, err error, source string, at node.Instant) node.Fact[T] {
	if err == nil {
		return node.Seen(v, source, at)
	}
	if old.Known {
		old.Why = err.Error()
		return old
	}
	return node.Unseen[T](source, err.Error(), at)
}

func stale[T any](f node.Fact[T], now node.Instant, every time.Duration) bool {
	return !f.Known || f.Age(now) >= every
}
