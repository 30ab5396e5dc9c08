package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// saying is a subject that always says the same.
type saying[T any] struct{ value T }

// Probe implements probe.Prober.
func (s saying[T]) Probe(context.Context) (T, error) { return s.value, nil }

// polled is a manager that is looked at.
type polled struct{ service.Manager }

func (polled) Every() time.Duration { return 5 * time.Second }

// plugged is an agent whose plugins are fakes, and what they were asked for.
type plugged struct {
	*Agent
	fake  *servicetest.Fake
	made  []string // managers, in order, with the engine that Docker is reached at
	etcd  []probe.EtcdTarget
	fwd   []probe.ForwarderTarget
	check []probe.CheckTarget
	log   bytes.Buffer
}

const services = `
node: n1
scope: demo
state_dir: DIR/state
etcd: {endpoints: ['http://127.0.0.1:1'], username: pgpatrol, password_file: DIR/password}
api: {socket: DIR/s}
docker: {host: unix:///run/engine.sock}
policy: {revive: auto}
services:
  - {name: etcd, kind: etcd, url: 'http://127.0.0.1:2379', peers: ['http://192.0.2.2:2379'], manager: {docker: etcd}}
  - {name: socat, kind: forwarder, listen: '192.0.2.1:2379', to: '127.0.0.1:2379', protocol: etcd, manager: {launchd: gui/501/com.example.socat}}
  - {name: pooler, kind: generic, check: {tcp: '127.0.0.1:6432'}, manager: {openrc: pooler}}
  - {name: proxy, kind: generic, check: {command: [/bin/true]}, manager: {openrc: proxy}}
`

func plug(t *testing.T, text string) *plugged {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	err := errors.Join(os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600), os.WriteFile(filepath.Join(dir, "password"), []byte("hunter2\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	p := &plugged{fake: servicetest.NewFake()}
	hop := saying[probe.Hop]{probe.Hop{Outcome: probe.OutcomeAnswered, Identity: "c1/a1"}}
	member := saying[probe.EtcdMember]{probe.EtcdMember{Outcome: probe.OutcomeAnswered, Health: probe.OutcomeAnswered, Healthy: true, ClusterID: "c1", MemberID: "a1", LeaderID: "a1"}}
	p.Agent, err = New(Options{
		ConfigPath: path, Version: "test", Host: stillHost{}, Logger: slog.New(slog.NewTextHandler(&p.log, nil)),
		Plugins: Plugins{
			Manager: func(name string, c ManagerConfig) (service.Manager, error) {
				p.made = append(p.made, strings.TrimSpace(name+" "+map[bool]string{true: c.DockerHost}[name == "docker"]))
				switch name {
				case "launchd":
					return polled{p.fake}, nil
				case "openrc":
					return p.fake.Unprivileged(), nil
				}
				return p.fake, nil
			},
			Etcd: func(t probe.EtcdTarget) (probe.EtcdProbes, error) {
				p.etcd = append(p.etcd, t)
				return probe.EtcdProbes{Member: member, Others: []probe.Prober[probe.EtcdMember]{member}, Lists: []probe.Prober[probe.EtcdMembers]{saying[probe.EtcdMembers]{}}}, nil
			},
			Forwarder: func(t probe.ForwarderTarget) (probe.ForwarderProbes, error) {
				p.fwd = append(p.fwd, t)
				return probe.ForwarderProbes{Through: hop, Past: hop}, nil
			},
			Check: func(t probe.CheckTarget) (probe.Prober[probe.Check], error) {
				p.check = append(p.check, t)
				return saying[probe.Check]{probe.Check{Outcome: probe.OutcomeAnswered, OK: true}}, nil
			},
			Process: func() (func(context.Context, int) (probe.Process, error), error) {
				return func(_ context.Context, pid int) (probe.Process, error) {
					return probe.Process{Exists: true, PID: pid}, nil
				}, nil
			},
			Machine: func() (probe.Prober[probe.Machine], error) {
				return saying[probe.Machine]{probe.Machine{Upgrades: []string{"apk"}}}, nil
			},
			Detect: func(name string) (bool, string) { return name == "openrc", "evidence about " + name },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plugged) build(t *testing.T) *generation {
	t.Helper()
	g, err := p.Agent.build(p.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

// TestServices_EveryKindUnderItsManager: what the configuration names is what is looked at, each manager is made once, and a
// service without a unit is not taken for one with a bad end.
func TestServices_EveryKindUnderItsManager(t *testing.T) {
	p := plug(t, services)
	for _, unit := range []string{"etcd", "gui/501/com.example.socat", "pooler", "proxy"} {
		p.fake.Add(unit, servicetest.Service{})
	}
	for _, unit := range []string{"etcd", "gui/501/com.example.socat", "pooler"} {
		if err := p.fake.Start(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
	}
	g := p.build(t)
	if diff := cmp.Diff([]string{"docker unix:///run/engine.sock", "launchd", "openrc"}, p.made); diff != "" {
		t.Errorf("managers (-want +got)\n%s", diff)
	}
	if got := p.etcd[0]; got.URL != "http://127.0.0.1:2379" || got.Others[0] != "http://192.0.2.2:2379" || got.Username != "pgpatrol" {
		t.Errorf("etcd: %+v", got)
	}
	if password, err := p.etcd[0].Password(); password != "hunter2" || err != nil {
		t.Errorf("password %q, %v", password, err)
	}
	if diff := cmp.Diff([]probe.ForwarderTarget{{Listen: "192.0.2.1:2379", To: "127.0.0.1:2379", Protocol: probe.ProtocolEtcd}}, p.fwd); diff != "" {
		t.Errorf("forwarder (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]probe.CheckTarget{{TCP: "127.0.0.1:6432"}, {Command: []string{"/bin/true"}}}, p.check); diff != "" {
		t.Errorf("checks (-want +got)\n%s", diff)
	}

	s := g.obs.Observe(t.Context(), observer.Routine)
	var got []string
	for _, f := range s.Services {
		got = append(got, fmt.Sprintf("%s %s process %t member %t through %t check %t polled %s forbidden %t",
			f.Service, f.Unit.Value.State, f.Process.Known, f.Member.Known, f.Through.Known, f.Check.Known, f.Polled, f.Limits.Value != ""))
	}
	want := []string{
		"etcd running process false member true through false check false polled 0s forbidden false",
		"socat running process false member false through true check false polled 5s forbidden false",
		"pooler running process true member false through false check true polled 0s forbidden true",
		"proxy stopped process false member false through false check true polled 0s forbidden true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("facts (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"apk"}, s.Upgrades()); diff != "" {
		t.Errorf("package managers (-want +got)\n%s", diff)
	}
	if f := s.Services[0].Others; len(f) != 1 || f[0].URL != "http://192.0.2.2:2379" || !f[0].Member.Known {
		t.Errorf("the other member: %+v", f)
	}
}

// TestServices_EvidenceForManagers: which manager a machine has is logged, and shown by status. One that nothing speaks for is
// used all the same, because the configuration is a person's word.
func TestServices_EvidenceForManagers(t *testing.T) {
	p := plug(t, services)
	p.setManagers(p.build(t).hosts.seen)
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Manager{
		{Name: "docker", Found: true, Evidence: "docker.host names it: unix:///run/engine.sock"},
		{Name: "launchd", Evidence: "evidence about launchd"},
		{Name: "openrc", Found: true, Evidence: "evidence about openrc"},
	}
	if diff := cmp.Diff(want, st.Managers); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, line := range []string{
		`level=INFO msg="service manager" manager=docker found=true`,
		`level=WARN msg="service manager" manager=launchd found=false evidence="evidence about launchd"`,
	} {
		if !strings.Contains(p.log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, &p.log)
		}
	}
}

// TestServices_ManagerWakes: a change at one manager makes the units be read again, and a subscription that breaks is renewed.
func TestServices_ManagerWakes(t *testing.T) {
	p := plug(t, services)
	p.fake.Add("etcd", servicetest.Service{})
	g, ctx := p.build(t), t.Context()
	touched := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.hosts.watch(ctx, "docker", func() { touched <- struct{}{} })
	}()
	defer func() { cancel(); <-done }()
	wait := func(what string) {
		t.Helper()
		select {
		case <-touched:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was told of " + what)
		}
	}
	wait("the subscription")
	if err := p.fake.Start(ctx, "etcd"); err != nil {
		t.Fatal(err)
	}
	wait("a start")
	p.fake.Crash(t, "etcd")
	wait("a crash")
}

// TestServices_OneCannotBeSetUp: no half of a configuration is used.
func TestServices_OneCannotBeSetUp(t *testing.T) {
	for name, spoil := range map[string]func(*Plugins){
		"manager": func(p *Plugins) {
			p.Manager = func(string, ManagerConfig) (service.Manager, error) { return nil, errors.ErrUnsupported }
		},
		"etcd": func(p *Plugins) {
			p.Etcd = func(probe.EtcdTarget) (probe.EtcdProbes, error) { return probe.EtcdProbes{}, errors.ErrUnsupported }
		},
		"forwarder": func(p *Plugins) {
			p.Forwarder = func(probe.ForwarderTarget) (probe.ForwarderProbes, error) {
				return probe.ForwarderProbes{}, errors.ErrUnsupported
			}
		},
		"check": func(p *Plugins) {
			p.Check = func(probe.CheckTarget) (probe.Prober[probe.Check], error) { return nil, errors.ErrUnsupported }
		},
		"process": func(p *Plugins) {
			p.Process = func() (func(context.Context, int) (probe.Process, error), error) { return nil, errors.ErrUnsupported }
		},
		"machine": func(p *Plugins) {
			p.Machine = func() (probe.Prober[probe.Machine], error) { return nil, errors.ErrUnsupported }
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plug(t, services)
			spoil(&p.o.Plugins)
			if _, err := p.Agent.build(p.config()); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestServices_NothingToLookAt: without a service, and beside a Patroni that looks itself, the machine is not looked at.
func TestServices_NothingToLookAt(t *testing.T) {
	p := plug(t, "{node: n1, scope: demo, state_dir: DIR/state, etcd: {endpoints: ['http://127.0.0.1:1']}, api: {socket: DIR/s}}")
	g := p.build(t)
	if s := g.obs.Observe(t.Context(), observer.Routine); len(s.Services) > 0 || s.Machine.Known || len(p.made) > 0 {
		t.Errorf("%+v, managers %v", s, p.made)
	}
	if m, err := g.machine([]observer.Patroni{{}}, []observer.Service{{}}); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
}

// TestServices_Units: every service has its unit, whatever its kind.
func TestServices_Units(t *testing.T) {
	got := unitsOf(node.Spec{
		Patroni:  []node.PatroniSpec{{Service: "patroni", Unit: "patroni.service"}},
		Services: []node.ServiceSpec{{Service: "etcd", Unit: "etcd-nas"}},
	})
	if diff := cmp.Diff(map[string]string{"patroni": "patroni.service", "etcd": "etcd-nas"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if samePartsAs(config.Config{Docker: config.Docker{Host: "a"}}, config.Config{}) {
		t.Error("another engine, and the same parts")
	}
}
