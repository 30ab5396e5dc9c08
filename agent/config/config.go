// Package config owns the agent's configuration file: its shape, its defaults, and everything that can be wrong with it.
//
// It promises to accept only what it understands. Unknown and repeated keys, wrong types, bad or contradictory values,
// anchors and more than one document are refused, and all problems of a file are reported at once, each with line,
// column and path ([Problems]). Input of any size or kind is answered in bounded time. Passwords come only from files
// and never leave [Secret] by printing, logging or encoding.
//
// It deliberately does not look at the machine: whether a unit, a directory or an etcd exists is for the agent to
// observe, at any time, and not a reason to refuse to start. Only the files that hold secrets and certificates are
// opened, because without them the agent cannot observe at all. Flags carry what is not in the file: its path and the
// log's level and format.
//
//	file --> read (size, mode) --> YAML tree --> decode over Default() --> Validate --> read secrets --> Config
//	              |                    |               |                      |             |
//	              '--------------------'---------------'----------------------'-------------'--> Problems, sorted
package config

import (
	"maps"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Config is one agent's configuration. A Config that Load or Parse returned without error is valid. It is a value; its
// slices are not to be changed.
type Config struct {
	Node     string    `yaml:"node"`      // name of this machine, unique among the agents
	Scope    string    `yaml:"scope"`     // name of the Patroni cluster
	StateDir string    `yaml:"state_dir"` // where the journal is kept
	Etcd     Etcd      `yaml:"etcd"`
	API      API       `yaml:"api"`
	Policy   Policy    `yaml:"policy"`
	Docker   Docker    `yaml:"docker"`
	Incus    Incus     `yaml:"incus"`
	Services []Service `yaml:"services"` // may be empty: the agent then only watches the cluster
}

// Docker says where the Docker engine is asked that runs services of this machine.
type Docker struct {
	Host string `yaml:"host"` // unix:///path/of/socket or http://host:port of a filtering proxy; empty: looked for
}

// Incus says where the Incus daemon is asked that runs services of this machine.
type Incus struct {
	Socket  string `yaml:"socket"`  // its unix socket
	Project string `yaml:"project"` // project of the instances
}

// Etcd says how Patroni's keys are reached.
type Etcd struct {
	Endpoints    []string `yaml:"endpoints"` // http:// or https:// URLs, all of one scheme
	Namespace    string   `yaml:"namespace"` // Patroni's namespace, with a leading and without a trailing slash
	TLS          TLS      `yaml:"tls"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	Password     Secret   `yaml:"-"` // content of PasswordFile, read by Load
}

// API says where the agent answers its command line.
type API struct {
	Socket string `yaml:"socket"` // path of a unix socket
}

// Policy is the mode of every class of actions, and of single findings. In a Service what is not set is the node's.
type Policy struct {
	Adjust   node.Mode               `yaml:"adjust"`
	Revive   node.Mode               `yaml:"revive"`
	Disrupt  node.Mode               `yaml:"disrupt"`
	Expedite node.Mode               `yaml:"expedite"`
	Findings map[node.Code]node.Mode `yaml:"findings"` // modes of single findings, see node.Policy.For
}

// Service is one thing on this machine that the agent looks after.
type Service struct {
	Name         string `yaml:"name"`          // what people call it here, unique in the file
	Kind         string `yaml:"kind"`          // of node.Kinds
	Member       string `yaml:"member"`        // Patroni's name for it; this and what follows up to log_file is for kind patroni
	API          string `yaml:"api"`           // URL of Patroni's REST API
	DataDir      string `yaml:"data_dir"`      // PGDATA
	Config       string `yaml:"config"`        // Patroni's configuration file or directory
	Executable   string `yaml:"executable"`    // Patroni's program; empty: the one that the unit runs
	DSN          string `yaml:"dsn"`           // how to log in to this PostgreSQL; empty: not at all
	PasswordFile string `yaml:"password_file"` // password for DSN
	LogFile      string `yaml:"log_file"`      // Patroni's own log file; empty: it logs to the journal

	URL      string   `yaml:"url"`      // kind etcd: client URL of the member on this machine
	Peers    []string `yaml:"peers"`    // kind etcd: client URLs of the other members, as this machine reaches them
	Identity string   `yaml:"identity"` // kinds etcd and forwarder: who must answer, "cluster/member" in hexadecimal
	Listen   string   `yaml:"listen"`   // kind forwarder: host:port on which it listens
	To       string   `yaml:"to"`       // kind forwarder: host:port to which it forwards
	Protocol string   `yaml:"protocol"` // kind forwarder: what it carries, of probe.Protocols
	Behind   []string `yaml:"behind"`   // kind forwarder: names of the services here that its backend consists of, nearest first

	Socket  string            `yaml:"socket"`  // kind haproxy: path of its runtime socket, or host:port
	Backend string            `yaml:"backend"` // kind haproxy: the backend that leads to the primary
	Members map[string]string `yaml:"members"` // kind haproxy: Patroni's name of the member that a server stands for, by the server's name

	Check Check `yaml:"check"` // kinds generic and machine

	Manager  Manager `yaml:"manager"`
	Policy   Policy  `yaml:"policy"`
	Password Secret  `yaml:"-"` // content of PasswordFile, read by Load
}

// Check says how a service of kind generic or machine shows that it does what it is for. Exactly one field is set.
type Check struct {
	TCP     string   `yaml:"tcp"`     // host:port that takes a connection
	HTTP    string   `yaml:"http"`    // URL that answers with a status below 400
	Command []string `yaml:"command"` // program and arguments that end with exit code 0; no shell
}

// Manager says what runs a service. Exactly one field is set, or Incus and the manager inside the instance.
type Manager struct {
	Systemd string `yaml:"systemd"` // name of the unit
	Docker  string `yaml:"docker"`  // name of the container
	OpenRC  string `yaml:"openrc"`  // name of the service
	Launchd string `yaml:"launchd"` // domain and label, such as system/com.example.socat or gui/501/com.example.socat
	Procd   string `yaml:"procd"`   // name of the service
	Incus   string `yaml:"incus"`   // name of the instance; with systemd: the unit inside it
}

// Of returns the manager's name and what it calls the service, "" if none is set. A unit inside an instance is
// INSTANCE/MANAGER/UNIT to Incus.
func (m Manager) Of() (manager, unit string) {
	for _, one := range m.all() {
		switch {
		case one.unit == "" || one.name == "incus":
		case m.Incus != "":
			return "incus", m.Incus + "/" + one.name + "/" + one.unit
		default:
			return one.name, one.unit
		}
	}
	if m.Incus != "" {
		return "incus", m.Incus
	}
	return "", ""
}

type managed struct{ name, unit string }

func (m Manager) all() []managed {
	return []managed{{"systemd", m.Systemd}, {"docker", m.Docker}, {"openrc", m.OpenRC}, {"launchd", m.Launchd}, {"procd", m.Procd}, {"incus", m.Incus}}
}

// Default returns the configuration that a file is decoded over. It is not valid by itself: node, scope and the etcd
// endpoints have no default.
func Default() Config {
	return Config{
		StateDir: "/var/lib/pgpatrol",
		Etcd:     Etcd{Namespace: "/service"}, // Patroni's own default
		API:      API{Socket: "/run/pgpatrol/pgpatrol.sock"},
		Incus:    Incus{Socket: "/var/lib/incus/unix.socket", Project: "default"},
		Policy:   Policy(node.DefaultPolicy()),
	}
}

// Spec returns what the engine needs to know of a valid configuration.
func (c Config) Spec() node.Spec {
	spec := node.Spec{Node: c.Node, Scope: c.Scope, Policy: node.Policy(c.Policy)}
	for _, s := range c.Services {
		manager, unit := s.Manager.Of()
		if s.Kind != string(node.KindPatroni) {
			spec.Services = append(spec.Services, node.ServiceSpec{
				Service: s.Name, Kind: node.Kind(s.Kind), Unit: unit, Manager: manager,
				Policy: node.Policy(s.Policy.over(c.Policy)), Identity: s.Identity, Behind: s.Behind,
			})
			continue
		}
		spec.Patroni = append(spec.Patroni, node.PatroniSpec{
			Service: s.Name,
			Member:  s.Member,
			Unit:    unit,
			Policy:  node.Policy(s.Policy.over(c.Policy)),
		})
	}
	return spec
}

// over returns p with the modes of base where p has none.
func (p Policy) over(base Policy) Policy {
	for _, f := range []struct {
		mode *node.Mode
		base node.Mode
	}{{&p.Adjust, base.Adjust}, {&p.Revive, base.Revive}, {&p.Disrupt, base.Disrupt}, {&p.Expedite, base.Expedite}} {
		if *f.mode == "" {
			*f.mode = f.base
		}
	}
	findings := maps.Clone(base.Findings)
	if findings == nil {
		findings = p.Findings
	}
	maps.Copy(findings, p.Findings)
	p.Findings = findings
	return p
}
