// Package stack runs the real stack in containers: three Patroni and PostgreSQL nodes under real systemd, three etcd
// members and HAProxy with the first user's configuration, on a private network of one container engine. The members of
// etcd are three plain containers, or run as the first user's do (homelab.go).
//
// It owns exactly what carries its label (pgpatrol.lab=NAME) and touches nothing else, so several stacks can run
// side by side. A stack has no state outside the engine: Open finds everything again from labels. All traffic stays
// between the stack's own containers; the lab itself talks to them through the engine only, so it also works where
// container addresses cannot be reached from the machine that runs it.
//
// It deliberately judges nothing: test/lab/judge does, from what test/lab/witness saw.
package stack

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/pgpatrol/pgpatrol/test/lab/docker"
)

// Label is put on every container and network of a stack, with the stack's name as value.
const Label = "pgpatrol.lab"

// Names of the cluster, as the first user has them.
const (
	Scope     = "nocodb-cluster"
	Namespace = "/patroni"
)

// Kind is what a container of the stack is for.
type Kind int

// The kinds of containers. The zero value is invalid.
const (
	Postgres Kind = iota + 1
	Etcd
	HAProxy
	Machine // holds what stands before a member of etcd that is a container of its own, and an agent
	Agent   // a container with an agent and nothing else, which is there while agents are installed
	Gate    // the filtering proxy before the engine's API
	Engine  // looks at the containers, and does to their processes, what only their engine's machine can
)

func (k Kind) String() string {
	switch k {
	case Postgres:
		return "postgres"
	case Etcd:
		return "etcd"
	case HAProxy:
		return "haproxy"
	case Machine:
		return "machine"
	case Agent:
		return "agent"
	case Gate:
		return "gate"
	case Engine:
		return "engine"
	default:
		return "invalid"
	}
}

// Init is the first process of a container.
type Init int

// The first processes. The zero value is a program that needs no init system.
const (
	None Init = iota
	Systemd
	OpenRC
)

// Node is one container of a stack.
type Node struct {
	Name   string     // pg1, e1, hap1
	Kind   Kind       //
	Init   Init       //
	Member string     // Patroni's or etcd's member name, empty for the others
	Addr   netip.Addr // fixed address on the stack's network, invalid without one
}

// Timings are Patroni's, in seconds.
type Timings struct {
	Name         string
	TTL          int
	LoopWait     int
	RetryTimeout int
}

// AllTimings lists the timings that the lab knows, the default first.
func AllTimings() []Timings {
	return []Timings{
		{Name: "default", TTL: 30, LoopWait: 10, RetryTimeout: 10},
		{Name: "fast", TTL: 20, LoopWait: 2, RetryTimeout: 3},
	}
}

// FindTimings returns the timings of that name.
func FindTimings(name string) (Timings, error) {
	for _, t := range AllTimings() {
		if t.Name == name {
			return t, nil
		}
	}
	return Timings{}, fmt.Errorf("find timings %q: want default or fast", name)
}

// Stack is a handle on one stack. It is safe for concurrent use; the things it does to containers are not ordered.
type Stack struct {
	Name    string
	Homelab bool // the members of etcd run as the first user's do; set it before Up
	subnet  netip.Prefix
	docker  docker.Client
	log     *slog.Logger
}

// New returns a handle on the stack of that name without asking the engine. Its nodes have addresses only after Up
// or Open.
func New(name string, log *slog.Logger) *Stack {
	return &Stack{Name: name, log: log.With("stack", name)}
}

// Open finds a running stack.
func Open(ctx context.Context, name string, log *slog.Logger) (*Stack, error) {
	s := New(name, log)
	text, err := s.docker.Output(ctx, "network", "inspect", "--format", `{{(index .IPAM.Config 0).Subnet}} {{index .Labels "`+Label+`.homelab"}}`, s.network())
	if err != nil {
		return nil, fmt.Errorf("find stack %q (is it up?): %w", name, err)
	}
	subnet, homelab, _ := strings.Cut(text, " ")
	s.Homelab = homelab == "true"
	if s.subnet, err = netip.ParsePrefix(subnet); err != nil {
		return nil, fmt.Errorf("read subnet of stack %q: %w", name, err)
	}
	return s, nil
}

// Nodes lists every container of the stack, PostgreSQL first.
func (s *Stack) Nodes() []Node {
	var nodes []Node
	for i := 1; i <= 3; i++ {
		nodes = append(nodes, Node{Name: fmt.Sprintf("pg%d", i), Kind: Postgres, Init: Systemd, Member: fmt.Sprintf("postgres-%d", i), Addr: s.host(10 + i)})
	}
	if s.Homelab {
		nodes = append(nodes, s.homelab()...)
	} else {
		for i := 1; i <= 3; i++ {
			nodes = append(nodes, Node{Name: fmt.Sprintf("e%d", i), Kind: Etcd, Member: fmt.Sprintf("e%d", i), Addr: s.host(20 + i)})
		}
	}
	return append(nodes, Node{Name: "hap1", Kind: HAProxy, Init: Systemd, Addr: s.host(31)})
}

// Of lists the containers of one kind.
func (s *Stack) Of(kind Kind) []Node {
	var nodes []Node
	for _, n := range s.Nodes() {
		if n.Kind == kind {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Node returns the container of that name; Patroni's member names are understood too.
func (s *Stack) Node(name string) (Node, error) {
	for _, n := range s.Nodes() {
		if n.Name == name || n.Member == name {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("find node %q: want one of %s", name, strings.Join(s.names(), ", "))
}

func (s *Stack) names() []string {
	var names []string
	for _, n := range s.Nodes() {
		names = append(names, n.Name)
	}
	return names
}

// Proxy returns the HAProxy container, from which the lab asks the others.
func (s *Stack) Proxy() Node { return s.Of(HAProxy)[0] }

// Container returns the engine's name of a node's container.
func (s *Stack) Container(n Node) string { return "pgpatrol-" + s.Name + "-" + n.Name }

// Exec runs a shell script inside a node as root and returns what it printed. args become $1, $2, ... of the script.
func (s *Stack) Exec(ctx context.Context, n Node, script string, args ...string) (string, error) {
	return s.docker.Output(ctx, append([]string{"exec", s.Container(n), "sh", "-c", script, "sh"}, args...)...)
}

// ExecInput is Exec with a standard input.
func (s *Stack) ExecInput(ctx context.Context, n Node, stdin io.Reader, script string, args ...string) (string, error) {
	return s.docker.Input(ctx, stdin, append([]string{"exec", "-i", s.Container(n), "sh", "-c", script, "sh"}, args...)...)
}

// Stream starts a program inside a node as the given user; it should end when its standard input closes.
func (s *Stack) Stream(ctx context.Context, n Node, user string, argv ...string) (*docker.Stream, error) {
	return s.docker.Stream(ctx, append([]string{"exec", "-i", "-u", user, s.Container(n)}, argv...)...)
}

// Docker runs a docker verb, for faults that come from the engine (kill, stop, network disconnect).
func (s *Stack) Docker(ctx context.Context, args ...string) (string, error) {
	return s.docker.Output(ctx, args...)
}

// Made identifies this making of the stack: it changes when Up makes it anew. Empty where it cannot be told.
func (s *Stack) Made(ctx context.Context) string {
	out, err := s.docker.Output(ctx, "network", "inspect", "--format", "{{.Id}}", s.network())
	if err != nil {
		return ""
	}
	return out
}

// Network returns the engine's name of the stack's network.
func (s *Stack) Network() string { return s.network() }

func (s *Stack) network() string { return "pgpatrol-" + s.Name }

func (s *Stack) label() string { return Label + "=" + s.Name }

func (s *Stack) host(n int) netip.Addr {
	if !s.subnet.IsValid() {
		return netip.Addr{}
	}
	b := s.subnet.Addr().As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b)
}

// EtcdURLs lists the client addresses of the three etcd members.
func (s *Stack) EtcdURLs() []string {
	var urls []string
	for _, n := range s.Of(Etcd) {
		urls = append(urls, "http://"+n.Addr.String()+":2379")
	}
	return urls
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
