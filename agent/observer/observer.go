// Package observer looks: it runs the probes that are due and puts what they saw into a snapshot.
//
// It owns how often each thing is looked at and how long a look may take. It promises that every fact carries the moment
// at which its observation began, and that a look that failed leaves the older fact with its older time, or an unknown
// with its reason: never a zero that could be taken for an answer. It deliberately draws no conclusions.
//
// Cheap looks happen in every snapshot. Slow ones (Patroni's own validator, its log) run in [Observer.Run], so that no
// decision waits for them.
package observer

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Depth says how hard to look.
type Depth uint8

// Depths. Routine is for a healthy idle node, Alert for a suspicion, Confirm for the moment before an act.
const (
	Routine Depth = iota
	Alert
	Confirm
)

// How old a fact may become before it is looked at again, by depth. Zero means every time. The unit's age must stay below
// what the engine accepts (10 s) also when the next look comes a tick later and takes its time.
var (
	everyUnit    = [...]time.Duration{Routine: 5 * time.Second, Alert: 0, Confirm: 0}
	everyAPI     = [...]time.Duration{Routine: 10 * time.Second, Alert: 2 * time.Second, Confirm: 0}
	everySession = [...]time.Duration{Routine: 20 * time.Second, Alert: 2 * time.Second, Confirm: 0}
	everyMachine = [...]time.Duration{Routine: 10 * time.Second, Alert: 5 * time.Second, Confirm: 0}
)

const (
	unitTimeout     = 2 * time.Second
	livenessTimeout = time.Second
	stoppedTimeout  = 400 * time.Millisecond // a stopped process answers no later than never
	apiTimeout      = 2 * time.Second
	sessionTimeout  = time.Second
)

// Patroni is where the facts about one Patroni come from.
type Patroni struct {
	Spec   node.PatroniSpec
	Units  service.Manager
	Probes probe.PatroniProbes
	APIURL string // for the facts' source
}

// Host is this machine: its clocks and its identity since boot.
type Host interface {
	Now() node.Instant
	BootID() (string, error)
	Uptime() (time.Duration, error)
}

// Deps are what an Observer works with.
type Deps struct {
	Node     string
	Scope    string
	Host     Host
	DCS      func(context.Context, Depth) node.DCS
	Patroni  []Patroni
	Services []Service
	Machine  probe.Prober[probe.Machine] // nil: not looked at, because the probes of a Patroni do
	Wake     func()                      // called when a slow look has something new; must not block
	Logger   *slog.Logger
}

// Observer keeps the latest facts. Observe is called by one goroutine; Run and TouchUnits may run beside it.
type Observer struct {
	deps     Deps
	services []*patroni
	targets  []*target
	machine  node.Fact[probe.Machine] // used by Observe alone
}

// New returns an Observer that has looked at nothing yet.
func New(d Deps) *Observer {
	o := &Observer{deps: d}
	for _, p := range d.Patroni {
		o.services = append(o.services, &patroni{Patroni: p, slow: make(chan struct{}, 1), facts: node.PatroniFacts{Service: p.Spec.Service}})
	}
	for _, s := range d.Services {
		o.targets = append(o.targets, newTarget(s))
	}
	return o
}

// Observe looks at everything that is due and returns the snapshot. It takes as long as its slowest look, which is
// bounded by the time limits of this package and of the DCS view.
func (o *Observer) Observe(ctx context.Context, depth Depth) node.Snapshot {
	s := node.Snapshot{Node: o.deps.Node, Scope: o.deps.Scope, Confirm: depth == Confirm}
	var wg sync.WaitGroup
	wg.Go(func() { s.DCS = o.deps.DCS(ctx, depth) })
	for _, p := range o.services {
		wg.Go(func() { p.observe(ctx, depth, o.deps.Host.Now) })
	}
	for _, t := range o.targets {
		wg.Go(func() { t.observe(ctx, depth, o.deps.Host.Now) })
	}
	wg.Go(func() {
		if at := o.deps.Host.Now(); o.deps.Machine != nil && stale(o.machine, at, everyMachine[depth]) {
			o.machine = look(ctx, o.machine, o.deps.Machine, unitTimeout, "process table", at)
		}
	})
	wg.Wait()
	s.Machine = o.machine
	s.Now, s.Wall = o.deps.Host.Now(), time.Now()
	if id, err := o.deps.Host.BootID(); err == nil {
		s.BootID = id
	}
	if up, err := o.deps.Host.Uptime(); err == nil {
		s.Uptime = up
	}
	for _, p := range o.services {
		p.noticeMember(s.DCS.Cluster)
		s.Patroni = append(s.Patroni, p.snapshot())
	}
	for _, t := range o.targets {
		s.Services = append(s.Services, t.snapshot())
	}
	return s
}

// TouchUnits makes the next Observe read the units' state again: their manager said that something changed.
func (o *Observer) TouchUnits() {
	for _, p := range o.services {
		p.mu.Lock()
		p.unitDue = true
		p.mu.Unlock()
	}
	for _, t := range o.targets {
		t.mu.Lock()
		t.unitDue = true
		t.mu.Unlock()
	}
}

// Run performs the slow looks until ctx ends.
func (o *Observer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range o.services {
		wg.Go(func() { p.run(ctx, o.deps.Host.Now, o.deps.Wake) })
	}
	wg.Wait()
	return ctx.Err()
}
