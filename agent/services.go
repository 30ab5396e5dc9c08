package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// hosts are the service managers of one generation, each made once, with the units that are looked after under it.
type hosts struct {
	a        *Agent
	config   ManagerConfig
	managers map[string]service.Manager
	units    map[string][]string
	seen     []api.Manager // in the order of the configuration
}

func newHosts(a *Agent, cfg config.Config) *hosts {
	return &hosts{a: a, config: ManagerConfig{DockerHost: cfg.Docker.Host, IncusSocket: cfg.Incus.Socket, IncusProject: cfg.Incus.Project}, managers: map[string]service.Manager{}, units: map[string][]string{}}
}

// of returns the manager of a service.
func (h *hosts) of(name, unit string) (service.Manager, error) {
	h.units[name] = append(h.units[name], unit)
	if m := h.managers[name]; m != nil {
		return m, nil
	}
	c := h.config
	c.Logger = h.a.log(name)
	m, err := h.a.o.Plugins.Manager(name, c)
	if err != nil {
		return nil, err
	}
	h.managers[name] = m
	h.seen = append(h.seen, h.look(name))
	return m, nil
}

// look says whether this machine has a manager that the configuration names, and from what that follows. One that was found by
// nothing is used all the same: the configuration is a person's word, and a mark may be missing.
func (h *hosts) look(name string) api.Manager {
	m := api.Manager{Name: name}
	switch {
	case name == "docker" && h.config.DockerHost != "":
		m.Found, m.Evidence = true, "docker.host names it: "+h.config.DockerHost
	case name == "incus" && h.config.IncusSocket != config.Default().Incus.Socket:
		m.Found, m.Evidence = true, "incus.socket names it: "+h.config.IncusSocket
	default:
		m.Found, m.Evidence = h.a.o.Plugins.Detect(name)
	}
	level := slog.LevelInfo
	if !m.Found {
		level = slog.LevelWarn
	}
	h.a.o.Logger.Log(context.Background(), level, "service manager", "manager", name, "found", m.Found, "evidence", m.Evidence)
	return m
}

func (h *hosts) close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(h.managers)) {
		if c, ok := h.managers[name].(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// watch keeps a subscription to one manager. What happened while there was none is found by looking.
func (h *hosts) watch(ctx context.Context, name string, touch func()) {
	w, ok := h.managers[name].(service.Watcher)
	if !ok {
		return
	}
	said := ""
	for ctx.Err() == nil {
		err := w.Watch(ctx, h.units[name], touch)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != said {
			h.a.o.Logger.Warn("service manager not watched, looking on a timer", "manager", name, "err", err)
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

// buildPatroni makes the sources of one Patroni.
func (g *generation) buildPatroni(s config.Service, spec node.PatroniSpec) (observer.Patroni, error) {
	m, err := g.hosts.of(s.Manager.Of())
	if err != nil {
		return observer.Patroni{}, err
	}
	target := probe.PatroniTarget{
		API: s.API, DataDir: s.DataDir, ConfigFile: s.Config, Executable: s.Executable, LogFile: s.LogFile,
		Unit: spec.Unit, DSN: s.DSN,
	}
	if !s.Password.Empty() {
		target.Password = func() (string, error) { return s.Password.Reveal(), nil }
	}
	probes, err := g.a.o.Plugins.Patroni(target, m)
	return observer.Patroni{Spec: spec, Units: m, Probes: probes, APIURL: s.API}, err
}

// buildService makes the sources of one service of another kind.
func (g *generation) buildService(s config.Service, spec node.ServiceSpec, access config.Etcd, etcdTLS *tls.Config) (observer.Service, error) {
	m, err := g.hosts.of(s.Manager.Of())
	if err != nil {
		return observer.Service{}, err
	}
	out := observer.Service{Spec: spec, Units: m}
	switch spec.Manager {
	case "systemd", "openrc", "procd": // the process table of this machine has their processes
		if out.Process, err = g.a.o.Plugins.Process(); err != nil {
			return observer.Service{}, err
		}
	}
	switch spec.Kind {
	case node.KindEtcd:
		out.PeerURLs = s.Peers
		target := probe.EtcdTarget{URL: s.URL, Others: s.Peers, TLS: etcdTLS, Username: access.Username}
		if access.Username != "" {
			target.Password = func() (string, error) { return access.Password.Reveal(), nil }
		}
		out.Etcd, err = g.a.o.Plugins.Etcd(target)
	case node.KindForwarder:
		target := probe.ForwarderTarget{Listen: s.Listen, To: s.To, Protocol: probe.Protocol(s.Protocol)}
		if target.Protocol == probe.ProtocolEtcd {
			target.TLS = etcdTLS
		}
		out.Forwarder, err = g.a.o.Plugins.Forwarder(target)
	case node.KindHAProxy:
		p, perr := g.a.o.Plugins.Proxy(s.Socket)
		if perr != nil {
			return out, perr
		}
		g.addRouter(s, p)
		out.Check = answering{p, s.Backend}
	case node.KindGeneric, node.KindMachine, node.KindPatroni:
		out.Check, err = g.a.o.Plugins.Check(probe.CheckTarget{TCP: s.Check.TCP, HTTP: s.Check.HTTP, Command: s.Check.Command})
	}
	return out, err
}

// buildServices makes the sources of all services, and their managers by service.
func (g *generation) buildServices(cfg config.Config) ([]observer.Patroni, []observer.Service, map[string]service.Manager, error) {
	spec := cfg.Spec()
	etcdTLS, err := clientTLS(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	var members []observer.Patroni
	var others []observer.Service
	managers := map[string]service.Manager{}
	for _, s := range cfg.Services {
		if s.Kind == string(node.KindPatroni) {
			p, err := g.buildPatroni(s, spec.Patroni[len(members)])
			if err != nil {
				return nil, nil, nil, fmt.Errorf("set up service %q: %w", s.Name, err)
			}
			members = append(members, p)
			managers[s.Name] = p.Units
			continue
		}
		o, err := g.buildService(s, spec.Services[len(others)], cfg.Etcd, etcdTLS)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("set up service %q: %w", s.Name, err)
		}
		others = append(others, o)
		managers[s.Name] = o.Units
	}
	return members, others, managers, nil
}

// clientTLS is how members of etcd are spoken to, nil for plainly.
func clientTLS(cfg config.Config) (*tls.Config, error) {
	if cfg.Etcd.TLS == (config.TLS{}) {
		return nil, nil
	}
	t, err := cfg.Etcd.TLS.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("set up TLS for etcd: %w", err)
	}
	return t, nil
}

// unitsOf lists the unit of every service.
func unitsOf(spec node.Spec) map[string]string {
	units := map[string]string{}
	for _, p := range spec.Patroni {
		units[p.Service] = p.Unit
	}
	for _, s := range spec.Services {
		units[s.Service] = s.Unit
	}
	return units
}
