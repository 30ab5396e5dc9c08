package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/executor"
	"github.com/pgpatrol/pgpatrol/agent/loop"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/agent/router"
	"github.com/pgpatrol/pgpatrol/coordinator"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// rewatch is the pause before a broken subscription to a service manager is tried again. Units are looked at on a timer
// meanwhile.
const rewatch = 5 * time.Second

// generation is one set of parts, built from one configuration.
type generation struct {
	a     *Agent
	scope string
	dcs   *dcs.View
	obs   *observer.Observer
	exec  *executor.Executor
	hosts *hosts
	loop  *loop.Loop

	routers []*router.Router
}

// build makes the parts of a configuration and starts none. It fails if one of them cannot be made.
func (a *Agent) build(cfg config.Config) (*generation, error) {
	g := &generation{a: a, scope: cfg.Scope, hosts: newHosts(a, cfg)}
	view, err := a.buildDCS(cfg)
	if err != nil {
		return nil, err
	}
	g.dcs = view
	boot, err := a.o.Host.BootID()
	if err != nil {
		return nil, fmt.Errorf("identify this boot: %w", err)
	}
	members, services, managers, err := g.buildServices(cfg)
	if err != nil {
		g.close()
		return nil, err
	}
	machine, err := g.machine(members, services)
	if err != nil {
		g.close()
		return nil, err
	}
	g.obs = observer.New(observer.Deps{
		Node: cfg.Node, Scope: cfg.Scope, Host: a.o.Host, Patroni: members, Services: services, Machine: machine, Logger: a.log("observer"),
		Wake: func() { poke(a.wake) },
		DCS:  func(ctx context.Context, d observer.Depth) node.DCS { return view.Observe(ctx, modes[d]) },
	})
	g.exec = executor.New(executor.Deps{
		Managers: managers, Units: unitsOf(cfg.Spec()), Journal: a.journal, Logger: a.log("executor"), Now: a.o.Host.Now, BootID: boot,
		Locker: coordinator.New(view, a.o.Host.Now, cfg.Scope, cfg.Node), Permit: a.permit,
	})
	g.loop = a.newLoop(cfg, g)
	return g, nil
}

// machine returns what looks at the machine itself, nil where the probes of a Patroni do, or nothing can be done anyway.
func (g *generation) machine(members []observer.Patroni, services []observer.Service) (probe.Prober[probe.Machine], error) {
	if len(members) > 0 || len(services) == 0 {
		return nil, nil
	}
	p, err := g.a.o.Plugins.Machine()
	if err != nil {
		return nil, fmt.Errorf("set up the look at this machine: %w", err)
	}
	return p, nil
}

// modes are the depths of the observer in the words of the etcd view.
var modes = map[observer.Depth]dcs.Mode{observer.Routine: dcs.Routine, observer.Alert: dcs.Alert, observer.Confirm: dcs.Confirm}

func (a *Agent) buildDCS(cfg config.Config) (*dcs.View, error) {
	c := dcs.Config{Endpoints: cfg.Etcd.Endpoints, Namespace: cfg.Etcd.Namespace, Scope: cfg.Scope, Username: cfg.Etcd.Username}
	for _, p := range cfg.Spec().Patroni {
		c.Member = p.Member
	}
	if cfg.Etcd.Username != "" {
		c.Password = func() (string, error) { return cfg.Etcd.Password.Reveal(), nil }
	}
	var err error
	if c.TLS, err = clientTLS(cfg); err != nil {
		return nil, err
	}
	v, err := dcs.New(c, dcs.Deps{Logger: a.log("dcs"), Now: a.o.Host.Now})
	if err != nil {
		return nil, fmt.Errorf("set up the view of etcd: %w", err)
	}
	return v, nil
}

// samePartsAs reports whether two configurations differ in policy at most. Certificates may have been renewed under the
// same names, so with TLS a reload always connects anew.
func samePartsAs(a, b config.Config) bool {
	return a.Etcd.TLS == (config.TLS{}) && fmt.Sprintf("%#v", withoutPolicy(a)) == fmt.Sprintf("%#v", withoutPolicy(b)) && sameSecrets(a, b)
}

func sameSecrets(a, b config.Config) bool {
	if !a.Etcd.Password.Equal(b.Etcd.Password) || len(a.Services) != len(b.Services) {
		return false
	}
	for i := range a.Services {
		if !a.Services[i].Password.Equal(b.Services[i].Password) {
			return false
		}
	}
	return true
}

func withoutPolicy(c config.Config) config.Config {
	c.Policy = config.Policy{}
	services := make([]config.Service, len(c.Services))
	for i, s := range c.Services {
		s.Policy = config.Policy{}
		services[i] = s
	}
	c.Services = services
	return c
}

// run starts everything, resolves what an earlier run began, and decides until ctx ends.
func (g *generation) run(ctx context.Context, mem node.Memory) error {
	defer g.close()
	shared := sharedHolds(&etcdHolds{view: g.dcs, scope: g.scope})
	g.a.shared.Store(&shared)
	g.a.setManagers(g.hosts.seen)
	g.loop.SetMemory(mem)
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return ignoreEnd(ctx, g.dcs.Run(ctx)) })
	eg.Go(func() error { return ignoreEnd(ctx, g.obs.Run(ctx)) })
	eg.Go(func() error { g.forwardWakes(ctx); return nil })
	for name := range g.hosts.managers {
		eg.Go(func() error {
			g.hosts.watch(ctx, name, func() {
				g.obs.TouchUnits()
				poke(g.a.wake)
			})
			return nil
		})
	}
	for _, r := range g.routers {
		eg.Go(func() error { return ignoreEnd(ctx, r.Run(ctx)) })
	}
	g.a.setRouters(g.routers)
	open := g.resolve(ctx, g.a.journal.Unresolved())
	eg.Go(func() error { g.resolveLater(ctx, open); return nil })
	eg.Go(func() error { return ignoreEnd(ctx, g.loop.Run(ctx)) })
	return eg.Wait()
}

func (g *generation) close() {
	g.dcs.Close()
	if err := g.hosts.close(); err != nil {
		g.a.o.Logger.Debug("service manager not closed", "err", err)
	}
}

// resolve finds out what became of intents without a result and returns those for which it could not. Until it has, the
// guard "in-flight" refuses their targets.
func (g *generation) resolve(ctx context.Context, open []node.Attempt) []node.Attempt {
	done, err := g.exec.Resolve(ctx, open)
	if err == nil {
		return nil
	}
	g.a.o.Logger.Warn("intents of an earlier run not resolved yet", "err", err)
	return slices.DeleteFunc(open, func(a node.Attempt) bool {
		return slices.ContainsFunc(done, func(d node.Attempt) bool { return d.BootID == a.BootID && d.At == a.At })
	})
}

// resolveLater goes on trying with what an earlier run left open, and with nothing that this run began.
func (g *generation) resolveLater(ctx context.Context, open []node.Attempt) {
	t := time.NewTicker(rewatch)
	defer t.Stop()
	for len(open) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			open = g.resolve(ctx, open)
		}
	}
}

func (g *generation) forwardWakes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.dcs.Changed():
			poke(g.a.wake)
			for _, r := range g.routers {
				r.Wake()
			}
		}
	}
}
