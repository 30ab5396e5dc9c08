package scenario

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/fault"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// hostileScenarios feed the agent wrong configuration and hostile keys.
//
// An agent that believes nothing could do no harm on a healthy stack anyway, so in most of them Patroni is stopped as
// well: a fault that would be healed were the configuration right. Nothing may be done, and the reason must be said.
func hostileScenarios() []Scenario {
	return []Scenario{
		{
			// A hung replica is healed after 20 s where the scope is right (F03).
			ID: "BAD-scope", Title: "The agents' scope is misspelt, and a Patroni hangs", Timings: []string{"fast"},
			Agent: edited(func(_ stack.Node, c string) string {
				return strings.Replace(c, "scope: "+stack.Scope, "scope: nocodb-clutser", 1)
			}),
			Fault:   watching(26*time.Second, stopReplica),
			Observe: lasts(26 * time.Second),
			Heal: append(idle(), Says(node.ScopeUnknown, onEveryNode()), Noted(node.PatroniAPIInvalid, onEveryPatroni()),
				NeverNoted(node.ZombiePrimary, onEveryPatroni())),
		},
		{
			// A zombie is fenced after 2 to 3 s, a hung leader healed after 6 to 8 s, where the member is right (F04, F02).
			ID: "BAD-member", Title: "The agents' member names do not exist, and the leader's Patroni hangs", Timings: []string{"fast"},
			Agent: edited(func(_ stack.Node, c string) string {
				return strings.Replace(c, "member: postgres-", "member: postgresql-", 1)
			}),
			Fault:   watching(12*time.Second, stopLeader),
			Observe: lasts(12 * time.Second),
			Heal:    append(idle(), Noted(node.PatroniAPIInvalid, onEveryPatroni()), NeverNoted(node.ZombiePrimary, onEveryPatroni())),
		},
		{
			ID: "BAD-member-swapped", Title: "The agents have each other's member names, and the leader's Patroni hangs", Timings: []string{"fast"},
			Agent: edited(func(_ stack.Node, c string) string {
				return strings.NewReplacer("member: postgres-1", "member: postgres-2", "member: postgres-2", "member: postgres-3", "member: postgres-3", "member: postgres-1").Replace(c)
			}),
			Fault:   watching(12*time.Second, stopLeader),
			Observe: lasts(12 * time.Second),
			Heal:    append(idle(), Noted(node.PatroniAPIInvalid, onEveryPatroni()), NeverNoted(node.ZombiePrimary, onEveryPatroni())),
		},
		{
			// The lease is overdue after 5 s, so that "the API answers and the loop is stuck" looks proved.
			ID: "BAD-api", Title: "What answers on Patroni's address is HTML, and the leader's Patroni hangs", Timings: []string{"fast"},
			Setup:   onEach(stack.Postgres, "html-server"),
			Agent:   edited(func(_ stack.Node, c string) string { return strings.Replace(c, ":8008\n", ":8090\n", 1) }),
			Fault:   watching(14*time.Second, stopLeader),
			Observe: lasts(14 * time.Second),
			Heal:    append(idle(), Says(node.PatroniAPIInvalid, onEveryPatroni())),
		},
		{
			ID: "BAD-keys", Title: "Hostile keys beside Patroni's own", Timings: []string{"fast"},
			Fault: watching(14*time.Second, func(ctx context.Context, r *Run) error {
				return r.Inject(ctx, "hostile-members", r.Stack.Of(stack.Etcd)[0])
			}),
			Observe: lasts(14 * time.Second),
			Heal:    append(idle(), Says(node.DCSKeyInvalid, onEveryNode()), NeverShown("hunter2"), NeverShown("\\u001b"), NeverShown("\x1b")),
		},
		{
			ID: "BAD-cluster", Title: "Every key of the scope is spoiled, and the leader's Patroni hangs", Timings: []string{"fast"},
			Setup: func(ctx context.Context, r *Run) error {
				return r.Inject(ctx, "hostile-copy", r.Stack.Of(stack.Etcd)[0])
			},
			Agent: edited(func(_ stack.Node, c string) string {
				return strings.Replace(c, "scope: "+stack.Scope, "scope: "+fault.SpoiledScope, 1)
			}),
			Fault:   watching(14*time.Second, stopLeader),
			Observe: lasts(14 * time.Second),
			Heal: append(idle(), Says(node.DCSKeyInvalid, onEveryNode()), NeverNoted(node.ZombiePrimary, onEveryPatroni()),
				NeverShown("passwd"), NeverShown("\\u001b"), NeverShown("\x1b")),
		},
		{
			// One endpoint fails at once, one accepts and says nothing, at one there is nobody.
			ID: "BAD-etcd", Title: "The agents' etcd never answers, and a Patroni hangs", Timings: []string{"fast"},
			Setup:   mute,
			Agent:   edited(deadEndpoints),
			Fault:   watching(20*time.Second, stopReplica),
			Observe: lasts(20 * time.Second),
			Heal:    append(idle(), Says(node.DCSUnreachable, onEveryNode()), AgentsCalm(0.02, 12)),
		},
	}
}

// idle are the checks that hold where nothing at all may happen.
func idle() []Check {
	return []Check{
		NoAction(), AgentsLived(), PatroniUntouched(patronis...), SamePostmaster(), NoFailover(), NoSecondPrimary(), GapUnder(time.Second),
		NoLostWrites(),
	}
}

func edited(f func(stack.Node, string) string) func(*stack.AgentOptions) {
	return func(o *stack.AgentOptions) { o.Edit = f }
}

// onEach injects a fault on every node of a kind.
func onEach(kind stack.Kind, name string) Func {
	return func(ctx context.Context, r *Run) error {
		for _, n := range r.Stack.Of(kind) {
			if err := r.Inject(ctx, name, n); err != nil {
				return err
			}
		}
		return nil
	}
}

func mute(ctx context.Context, r *Run) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range r.Stack.AgentNodes() {
		g.Go(func() error { return fault.Mute(ctx, r.Stack, n) })
	}
	return g.Wait()
}

// deadEndpoints replaces the endpoints of etcd; nothing lives at .250 of the stack's network.
func deadEndpoints(n stack.Node, c string) string {
	a := n.Addr.As4()
	a[3] = 250
	dead := []string{"http://192.0.2.1:2379", "http://127.0.0.1:2399", "http://" + netip.AddrFrom4(a).String() + ":2379"}
	lines := strings.Split(c, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "    - http://") && len(dead) > 0 {
			lines[i], dead = "    - "+dead[0], dead[1:]
		}
	}
	return strings.Join(lines, "\n")
}
