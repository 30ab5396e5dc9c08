package agent

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/executor"
	"github.com/pgpatrol/pgpatrol/agent/loop"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/coordinator"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// rewatch is the pause before a broken subscription to a service manager is tried again. Units are looked at on a timer
// meanwhile.
const rewatch = 5 * time.Second

// generation is one set of parts, built from one configuration.
type generation struct {
	a      *Agent
	scope  string
	dcs    *dcs.View
	obs    *observer.Observer
	exec   *executor.Executor
	watch  service.Watcher // nil without services
	closer io.Closer       // of the service manager, nil if it has nothing to close
	units  []string
	loop   *loop.Loop
}

// build makes the parts of a configuration and starts none. It fails if one of them cannot be made.
func (a *Agent) build(cfg config.Config) (*generation, error) {
	g := &generation{a: a, scope: cfg.Scope}
	view, err := a.buildDCS(cfg)
	if err != nil {
		return nil, err
	}
	g.dcs = view
	boot, err := a.o.Host.BootID()
	if err != nil {
		return nil, fmt.Errorf("identify this boot: %w", err)
	}
	sources, managers, err := g.buildServices(cfg)
	if err != nil {
		g.close()
		return nil, err
	}
	units := map[string]string{}
	for _, p := range cfg.Spec().Patroni {
		units[p.Service] = p.Unit
		g.units = append(g.units, p.Unit)
	}
	g.obs = observer.New(observer.Deps{
		Node: cfg.Node, Scope: cfg.Scope, Host: a.o.Host, Patroni: sources, Logger: a.log("observer"),
		Wake: func() { poke(a.wake) },
		DCS:  func(ctx context.Context, d observer.Depth) node.DCS { return view.Observe(ctx, modes[d]) },
	})
	g.exec = executor.New(executor.Deps{
		Managers: managers, Units: units, Journal: a.journal, Logger: a.log("executor"), Now: a.o.Host.Now, BootID: boot,
		Locker: coordinator.New(view, a.o.Host.Now, cfg.Scope, cfg.Node), Permit: a.permit,
	})
	g.loop = a.newLoop(cfg, g)
	return g, nil
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
	if cfg.Etcd.TLS != (config.TLS{}) {
		var err error
		if c.TLS, err = cfg.Etcd.TLS.ClientConfig(); err != nil {
			return nil, fmt.Errorf("set up TLS for etcd: %w", err)
		}
	}
	v, err := dcs.New(c, dcs.Deps{Logger: a.log("dcs"), Now: a.o.Host.Now})
	if err != nil {
		return nil, fmt.Errorf("set up the view of etcd: %w", err)
	}
	return v, nil
}

func (g *generation) buildServices(cfg config.Config) ([]observer.Patroni, map[string]service.Manager, error) {
	managers := map[string]service.Manager{}
	if len(cfg.Services) == 0 {
		return nil, managers, nil
	}
	systemd, err := g.a.o.Plugins.Systemd(g.a.log("systemd"))
	if err != nil {
		return nil, nil, fmt.Errorf("set up systemd: %w", err)
	}
	g.watch, _ = systemd.(service.Watcher)
	g.closer, _ = systemd.(io.Closer)
	specs := cfg.Spec().Patroni
	var sources []observer.Patroni
	for i, s := range cfg.Services {
		target := probe.PatroniTarget{
			API: s.API, DataDir: s.DataDir, ConfigFile: s.Config, Executable: s.Executable, LogFile: s.LogFile,
			Unit: s.Manager.Systemd, DSN: s.DSN,
		}
		if !s.Password.Empty() {
			target.Password = func() (string, error) { return s.Password.Reveal(), nil }
		}
		probes, err := g.a.o.Plugins.Patroni(target)
		if err != nil {
			return nil, nil, fmt.Errorf("set up probes of service %q: %w", s.Name, err)
		}
		managers[s.Name] = systemd
		sources = append(sources, observer.Patroni{Spec: specs[i], Units: systemd, Probes: probes, APIURL: s.API})
	}
	return sources, managers, nil
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
	g.loop.SetMemory(mem)
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return ignoreEnd(ctx, g.dcs.Run(ctx)) })
	eg.Go(func() error { return ignoreEnd(ctx, g.obs.Run(ctx)) })
	eg.Go(func() error { g.forwardWakes(ctx); return nil })
	if g.watch != nil {
		eg.Go(func() error { g.watchUnits(ctx); return nil })
	}
	open := g.resolve(ctx, g.a.journal.Unresolved())
	eg.Go(func() error { g.resolveLater(ctx, open); return nil })
	eg.Go(func() error { return ignoreEnd(ctx, g.loop.Run(ctx)) })
	return eg.Wait()
}

func (g *generation) close() {
	g.dcs.Close()
	if g.closer == nil {
		return
	}
	if err := g.closer.Close(); err != nil {
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
		}
	}
}

// watchUnits keeps a subscription to the service manager. What happened while there was none is found by looking.
func (g *generation) watchUnits(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		err := g.watch.Watch(ctx, g.units, func() {
			g.obs.TouchUnits()
			poke(g.a.wake)
		})
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != said {
			g.a.o.Logger.Warn("service manager not watched, looking on a timer", "err", err)
			said = text
		}
		t := time.NewTimer(rewatch)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}
