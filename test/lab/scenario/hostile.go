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
	return append(wronglyConfigured(), []Scenario{
		{
			ID: "BAD-keys", Title: "Hostile keys beside Patroni's own", Timings: []string{"fast"},
			Fault:   watching(12*time.Second, hostileKeys("hostile-members")),
			Observe: lasts(12 * time.Second),
			Heal: append(idle(), GapUnder(time.Second), Says(node.DCSKeyInvalid, onEveryNode()),
				NeverShown("hunter2"), NeverShown("\\u001b"), NeverShown("\x1b")),
		},
		{
			ID: "BAD-cluster", Title: "Every key of the scope is spoiled, and the leader's Patroni hangs", Timings: []string{"fast"},
			Setup:   hostileKeys("hostile-copy"),
			Agent:   replaced("scope: "+stack.Scope, "scope: "+fault.SpoiledScope),
			Fault:   watching(11*time.Second, stopLeader),
			Observe: lasts(11 * time.Second),
			Heal: append(strangers(onLeader()), Says(node.DCSKeyInvalid, onEveryNode()),
				NeverShown("passwd"), NeverShown("\\u001b"), NeverShown("\x1b")),
		},
		{
			// One endpoint fails at once, one accepts and says nothing, at one there is nobody.
			ID: "BAD-etcd", Title: "The agents' etcd never answers, and a Patroni hangs", Timings: []string{"fast"},
			Setup:   mute,
			Agent:   func(o *stack.AgentOptions) { o.Edit = deadEndpoints },
			Fault:   watching(18*time.Second, stopReplica),
			Observe: lasts(18 * time.Second),
			Heal:    append(idle(), Says(node.DCSUnreachable, onEveryNode()), AgentsCalm(0.02, 12)),
		},
	}...)
}

// wronglyConfigured: the agents look at somebody else. A hung replica would be healed after 20 s were the configuration
// right (F03), a hung leader after 6 to 8 s (F02), and a supposed zombie would be fenced after 2 to 3 s (F04).
func wronglyConfigured() []Scenario {
	return []Scenario{
		{
			ID: "BAD-scope", Title: "The agents' scope is misspelt, and a Patroni hangs", Timings: []string{"fast"},
			Agent:   replaced("scope: "+stack.Scope, "scope: nocodb-clutser"),
			Fault:   watching(24*time.Second, stopReplica),
			Observe: lasts(24 * time.Second),
			Heal:    append(strangers(onEveryPatroni()), Says(node.ScopeUnknown, onEveryNode()), Noted(node.PatroniAPIInvalid, onEveryPatroni())),
		},
		{
			ID: "BAD-member", Title: "The agents' member names do not exist, and the leader's Patroni hangs", Timings: []string{"fast"},
			Agent:   replaced("member: postgres-", "member: postgresql-"),
			Fault:   watching(10*time.Second, stopLeader),
			Observe: lasts(10 * time.Second),
			Heal:    append(strangers(onLeader()), Noted(node.PatroniAPIInvalid, onEveryPatroni())),
		},
		{
			ID: "BAD-member-swapped", Title: "The agents have each other's member names, and the leader's Patroni hangs", Timings: []string{"fast"},
			Agent: replaced("member: postgres-1", "member: postgres-2", "member: postgres-2", "member: postgres-3",
				"member: postgres-3", "member: postgres-1"),
			Fault:   watching(10*time.Second, stopLeader),
			Observe: lasts(10 * time.Second),
			Heal:    append(strangers(onLeader()), Noted(node.PatroniAPIInvalid, onEveryPatroni())),
		},
		{
			// The lease is overdue after 5 s, so that "the API answers and the loop is stuck" looks proved.
			ID: "BAD-api", Title: "What answers on Patroni's address is HTML, and the leader's Patroni hangs", Timings: []string{"fast"},
			Setup:   onEach(stack.Postgres, "html-server"),
			Agent:   replaced(":8008\n", ":8090\n"),
			Fault:   watching(11*time.Second, stopLeader),
			Observe: lasts(11 * time.Second),
			Heal:    append(strangers(onLeader()), Says(node.PatroniAPIInvalid, onEveryPatroni())),
		},
	}
}

// idle are the checks that hold where nothing at all may happen. The writer is not among them: HAProxy takes a leader out
// whose Patroni has been stopped for some 12 s, as it should.
func idle() []Check {
	return []Check{
		NoAction(), AgentsLived(), PatroniUntouched(patroniNodes...), SamePostmaster(), NoFailover(), NoSecondPrimary(), NoLostWrites(),
	}
}

// strangers are the checks for agents whose Patroni is not the one that they were told of.
func strangers(at where) []Check {
	return append(idle(), WhateverRefusedBy(node.GuardIdentity, at), NeverNoted(node.ZombiePrimary, onEveryPatroni()))
}

// replaced makes agents whose configuration has other texts in place of some, given in pairs.
func replaced(pairs ...string) func(*stack.AgentOptions) {
	return func(o *stack.AgentOptions) {
		o.Edit = func(_ stack.Node, c string) string { return strings.NewReplacer(pairs...).Replace(c) }
	}
}

func hostileKeys(name string) Func {
	return func(ctx context.Context, r *Run) error { return r.Inject(ctx, name, r.Stack.Of(stack.Etcd)[0]) }
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
