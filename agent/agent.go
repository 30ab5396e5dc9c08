// Package agent is the daemon: it wires the parts together, runs the loop and lives through reloads.
//
// It owns life cycle and order: observe, decide, guard, execute, verify, record. It promises that nothing is done unless
// the same decision, made again from facts that are all fresh, still allows it; that what was done is on disk before and
// after; and that a configuration which is not usable changes nothing. It deliberately holds no rule of its own: what is
// wrong and what may be done lies in agent/engine and agent/guard.
//
//	New -> Run: journal -> resolve what an earlier run began -> parts -> loop
//	               reload: load and build everything new first, then swap; policy alone is swapped in place
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/agent/orders"
	"github.com/pgpatrol/pgpatrol/agent/router"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Plugins makes what a configuration names. Its methods may be called again after a reload.
type Plugins struct {
	// Manager makes what runs services, by its name in the configuration.
	Manager func(name string, c ManagerConfig) (service.Manager, error)
	// Patroni makes the ways to look at a Patroni under the manager that Manager made.
	Patroni   func(probe.PatroniTarget, service.Manager) (probe.PatroniProbes, error)
	Etcd      func(probe.EtcdTarget) (probe.EtcdProbes, error)
	Forwarder func(probe.ForwarderTarget) (probe.ForwarderProbes, error)
	Check     func(probe.CheckTarget) (probe.Prober[probe.Check], error)
	// Proxy speaks with the proxy at a runtime socket, and Leader with the API at the address in a member's key.
	Proxy   func(socket string) (proxy.Proxy, error)
	Leader  func(url string) (probe.Prober[probe.PatroniAPI], error)
	Process func() (func(ctx context.Context, pid int) (probe.Process, error), error)
	Machine func() (probe.Prober[probe.Machine], error)
	// Detect says whether this machine has a manager of that name, and from what that follows.
	Detect func(manager string) (ok bool, evidence string)
}

// ManagerConfig is what the configuration says of where managers are reached.
type ManagerConfig struct {
	DockerHost   string // empty: looked for
	IncusSocket  string
	IncusProject string
	Logger       *slog.Logger
}

// Options are what a daemon is started with.
type Options struct {
	ConfigPath string
	Version    string
	Logger     *slog.Logger
	Plugins    Plugins
	Host       observer.Host
}

// Agent is one daemon. Run is called once.
type Agent struct {
	o       Options
	reload  chan struct{}
	wake    chan struct{}
	started node.Instant

	mu        sync.Mutex // guards what follows up to routers
	cfg       config.Config
	problem   string // why a newer configuration file is not in force
	journal   *journal.Journal
	unwritten string // why the last record was not written, "" if it was
	managers  []api.Manager
	routers   []*router.Router

	view   atomic.Pointer[published]
	orders *orders.Keeper // of this node, set before anything runs
	shared atomic.Pointer[sharedHolds]
}

// published is what the API shows: the latest question and the plan that answers it.
type published struct {
	question node.Question
	plan     node.Plan
}

// New checks the configuration and returns an agent that has started nothing.
func New(o Options) (*Agent, error) {
	cfg, err := config.Load(o.ConfigPath)
	if err != nil {
		return nil, err
	}
	return &Agent{o: o, cfg: cfg, reload: make(chan struct{}, 1), wake: make(chan struct{}, 1)}, nil
}

// Reload asks for the configuration file to be read again. It does not block.
func (a *Agent) Reload() { poke(a.reload) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run runs until ctx ends. It returns an error only when it could not start.
func (a *Agent) Run(ctx context.Context) error {
	a.started = a.o.Host.Now()
	boot, err := a.o.Host.BootID()
	if err != nil {
		return fmt.Errorf("identify this boot: %w", err)
	}
	cfg := a.config()
	j, err := journal.Open(cfg.StateDir, journal.Deps{Now: a.o.Host.Now, Wall: time.Now, BootID: boot, Program: a.o.Version})
	if err != nil && j == nil {
		return fmt.Errorf("open journal in %s: %w", cfg.StateDir, err)
	}
	a.mu.Lock()
	a.journal = j
	a.mu.Unlock()
	defer j.Close()
	a.orders = a.newKeeper(cfg, j, boot)
	a.note(journal.Record{Kind: journal.Start, Text: "pgpatrol " + a.o.Version + " on " + cfg.Node})
	defer a.note(journal.Record{Kind: journal.Stop, Text: "pgpatrol " + a.o.Version})

	server := api.NewServer(a, api.Config{Socket: cfg.API.Socket, Version: a.o.Version}, a.log("api"))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ignoreEnd(ctx, server.Run(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, a.watchConfig(ctx)) })
	g.Go(func() error { return ignoreEnd(ctx, a.generations(ctx)) })
	return g.Wait()
}

// ignoreEnd drops an error that only says that the context ended.
func ignoreEnd(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return nil
	}
	return err
}

// generations runs one set of parts after the other: a reload that changes more than policy builds a new set before the
// old one is stopped.
func (a *Agent) generations(ctx context.Context) error {
	gen, err := a.build(a.config())
	if err != nil {
		return err
	}
	memory := a.recall()
	for ctx.Err() == nil {
		genCtx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- gen.run(genCtx, memory) }()
		next, err := a.nextGeneration(genCtx, gen, done)
		stop()
		if err != nil {
			return err
		}
		if next == nil {
			<-done
			return ctx.Err()
		}
		<-done
		// Streaks belong to the old probes; what is remembered of the cluster and the units goes on.
		memory, gen = gen.loop.Memory(), next
		a.o.Logger.Info("configuration reloaded", "config", a.o.ConfigPath)
	}
	return ctx.Err()
}

// nextGeneration waits for the running one to end or for a reload that needs another. It returns nil when ctx ended.
func (a *Agent) nextGeneration(ctx context.Context, gen *generation, done chan error) (*generation, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-done:
			done <- nil
			if ctx.Err() != nil {
				return nil, nil
			}
			if err == nil {
				err = errors.New("it ended without a reason")
			}
			return nil, fmt.Errorf("run the agent's parts: %w", err)
		case <-a.reload:
			if next := a.reloaded(gen); next != nil {
				return next, nil
			}
		}
	}
}

// reloaded reads the configuration again. It returns a new generation if one is needed, and swaps the policy in place if
// that is all that changed. A file that is not usable leaves everything as it was and says so.
func (a *Agent) reloaded(gen *generation) *generation {
	old := a.config()
	cfg, err := config.Load(a.o.ConfigPath)
	if err == nil && (cfg.StateDir != old.StateDir || cfg.API.Socket != old.API.Socket || cfg.Node != old.Node) {
		err = errors.New("node, state_dir and api.socket take effect at a restart of the agent only")
	}
	var next *generation
	if err == nil && !samePartsAs(cfg, old) {
		next, err = a.build(cfg)
	}
	a.mu.Lock()
	if err != nil {
		a.problem = err.Error()
	} else {
		a.problem, a.cfg = "", cfg
	}
	a.mu.Unlock()
	if err != nil {
		a.o.Logger.Warn("configuration not usable, keeping the old one", "config", a.o.ConfigPath, "err", err)
		a.note(journal.Record{Kind: journal.Config, Text: "not usable, the old one stays in force: " + err.Error()})
		poke(a.wake)
		return nil
	}
	a.note(journal.Record{Kind: journal.Config, Text: "in force: " + a.o.ConfigPath})
	if next == nil {
		gen.loop.SetSpec(cfg.Spec())
	}
	poke(a.wake)
	return next
}

func (a *Agent) config() config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

func (a *Agent) setManagers(m []api.Manager) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.managers = m
}

func (a *Agent) setRouters(r []*router.Router) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.routers = r
}

func (a *Agent) configProblem() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.problem
}

func (a *Agent) log(component string) *slog.Logger { return a.o.Logger.With("component", component) }

// note records what is not an intent. A journal that cannot be written makes the agent observe only; guard says so. It returns the record's
// sequence number.
func (a *Agent) note(r journal.Record) uint64 {
	seq, err := a.journal.Append(r)
	why := ""
	if err != nil {
		why = err.Error()
	}
	a.mu.Lock()
	news := why != a.unwritten
	a.unwritten = why
	a.mu.Unlock()
	switch {
	case news && err != nil:
		a.o.Logger.Error("journal not written", "kind", r.Kind, "err", err)
	case news:
		a.o.Logger.Info("journal written again", "kind", r.Kind)
	}
	return seq
}
