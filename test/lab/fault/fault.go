// Package fault breaks a stack, one named fault at a time, the way FAULTS.md describes it.
//
// Every fault is injected from outside the thing it breaks (a signal, a unit, a route, the engine) and can be undone
// by hand; stack.Settle undoes all of them without knowing which were injected. The package judges nothing and knows
// nothing of pgpatrol.
package fault

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// Func does something to one node. It returns when the thing is really done, not merely asked for.
type Func func(ctx context.Context, s *stack.Stack, n stack.Node) error

// Fault is one way of breaking a node.
type Fault struct {
	Name    string
	ID      string     // of FAULTS.md; several where the node's role decides
	Kind    stack.Kind // where it can be injected
	Summary string
	Do      Func
	Undo    Func // nil where the fault leaves nothing behind to undo
}

// Find returns the fault of that name.
func Find(name string) (Fault, error) {
	all := All()
	if i := slices.IndexFunc(all, func(f Fault) bool { return f.Name == name }); i >= 0 {
		return all[i], nil
	}
	return Fault{}, fmt.Errorf("find fault %q: see `lab faults`", name)
}

// Inject breaks a node. It refuses a node of the wrong kind.
func (f Fault) Inject(ctx context.Context, s *stack.Stack, n stack.Node) error {
	return f.run(ctx, s, n, "inject", f.Do)
}

// Revert undoes the fault where there is something to undo.
func (f Fault) Revert(ctx context.Context, s *stack.Stack, n stack.Node) error {
	if f.Undo == nil {
		return nil
	}
	return f.run(ctx, s, n, "undo", f.Undo)
}

func (f Fault) run(ctx context.Context, s *stack.Stack, n stack.Node, verb string, do Func) error {
	if n.Kind != f.Kind {
		return fmt.Errorf("%s %s on %s: it is for %s nodes", verb, f.Name, n.Name, f.Kind)
	}
	if err := do(ctx, s, n); err != nil {
		return fmt.Errorf("%s %s on %s: %w", verb, f.Name, n.Name, err)
	}
	return nil
}

// prelude gives every script the main process of Patroni and a place for what it leaves running.
const prelude = `set -e
mp() { systemctl show -p MainPID --value patroni.service; }
mkdir -p /run/lab
`

// script returns a Func that runs a shell script as root inside the node.
func script(text string) Func {
	return func(ctx context.Context, s *stack.Stack, n stack.Node) error {
		out, err := s.Exec(ctx, n, prelude+text)
		if err != nil && out != "" {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
		}
		return err
	}
}

// etcdScript is script with the addresses of the etcd members as $1, $2, $3.
func etcdScript(text string) Func {
	return func(ctx context.Context, s *stack.Stack, n stack.Node) error {
		var addrs []string
		for _, e := range s.Of(stack.Etcd) {
			addrs = append(addrs, e.Addr.String())
		}
		_, err := s.Exec(ctx, n, prelude+text, addrs...)
		return err
	}
}

// steps runs functions in order, until one returns an error.
func steps(all ...Func) Func {
	return func(ctx context.Context, s *stack.Stack, n stack.Node) error {
		for _, f := range all {
			if err := f(ctx, s, n); err != nil {
				return err
			}
		}
		return nil
	}
}

// engine returns a Func that runs a docker verb; the word CONTAINER stands for the node's container, NETWORK for
// the stack's network.
func engine(args ...string) Func {
	return func(ctx context.Context, s *stack.Stack, n stack.Node) error {
		filled := slices.Clone(args)
		for i, a := range filled {
			switch a {
			case "CONTAINER":
				filled[i] = s.Container(n)
			case "NETWORK":
				filled[i] = s.Network()
			}
		}
		_, err := s.Docker(ctx, filled...)
		return err
	}
}

func patch(body string) Func {
	return func(ctx context.Context, s *stack.Stack, _ stack.Node) error { return s.PatchConfig(ctx, body) }
}
