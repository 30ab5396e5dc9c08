package scenario

import (
	"context"
	"errors"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// networkScenarios are about etcd and the network: nothing may be done about them.
//
// How long to look: a wrong kill of a hung Patroni would come 6 to 8 s after the fault (hang proof and confirmation),
// that of a supposed zombie after 2 to 3 s. "etcd is unreachable" is said after 5 s, an alarm is noticed within 15 s on a
// quiet node. A failover takes a ttl and some seconds. Timings fast serve all of them: the agents' own patience does not
// depend on ttl here, and Patroni's demotion and election are only quicker.
func networkScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F40", Title: "Two of three etcd members killed: no quorum", Timings: []string{"fast", "default"},
			Fault:   watching(15*time.Second, loseQuorum(nil)),
			Observe: lasts(15 * time.Second),
			Heal: []Check{
				NoAction(), Says(node.DCSUnreachable, onEveryNode()), PatroniUntouched(patroniNodes...), NoSecondPrimary(), NoFailover(),
				NoLostWrites(), AgentsLived(),
			},
		},
		{
			// The stop comes between the two kills: its proof is complete while the last good view of etcd is 6 s old, so
			// that guards must refuse and not merely nothing be seen.
			ID: "F40-hung", Title: "Patroni hangs on the leader while etcd loses its quorum", Timings: []string{"fast", "default"},
			Fault:   watching(14*time.Second, loseQuorum(stopLeader)),
			Observe: lasts(14 * time.Second),
			Heal: []Check{
				NoAction(), Says(node.DCSUnreachable, onEveryNode()), PatroniUntouched(patroniNodes...), SamePostmaster(), NoFailover(),
				NoSecondPrimary(), AgentsLived(),
			},
		},
		{
			ID: "F41", Title: "etcd raises NOSPACE", Timings: []string{"fast", "default"},
			Fault:   watching(18*time.Second, noSpace),
			Observe: lasts(18 * time.Second),
			Heal: []Check{
				NoAction(), Says(node.DCSReadOnly, onEveryNode()), PatroniUntouched(patroniNodes...), SamePostmaster(), NoFailover(),
				NoSecondPrimary(), GapUnder(time.Second), NoLostWrites(), AgentsLived(),
			},
		},
		{
			// Longer than proof and confirmation, and over before the lease of 20 s ends: then nobody could take it.
			ID: "F41-hung", Title: "Patroni hangs on the leader under NOSPACE", Timings: []string{"fast"},
			Fault:   watching(11*time.Second, inOrder(noSpace, stopLeader)),
			Observe: lasts(11 * time.Second),
			Heal: []Check{
				NoAction(), Says(node.PatroniHung, onLeader()), Says(node.DCSReadOnly, onLeader()),
				Refuses(node.GuardDCSWritable, node.PatroniHung, onLeader()),
				PatroniUntouched(patroniNodes...), SamePostmaster(), NoFailover(), NoSecondPrimary(), AgentsLived(),
			},
		},
		{
			ID: "F59", Title: "The leader is cut from etcd only", Timings: []string{"fast", "default"},
			Fault:   func(ctx context.Context, r *Run) error { return r.Inject(ctx, "blackhole-etcd", r.Leader) },
			Observe: afterFailover(8 * time.Second),
			Heal: []Check{
				NoAction(), Says(node.DCSUnreachable, onLeader()), NeverNoted(node.DCSUnreachable, onOthers()), FailedOverOnce(),
				NoSecondPrimary(), PatroniUntouched(patroniNodes...),
			},
		},
		{
			ID: "F62", Title: "The leader is isolated from everything, and comes back", Timings: []string{"fast", "default"},
			Fault:   isolateLeader,
			Observe: afterReturn,
			Heal: []Check{
				NoAction(), Noted(node.DCSUnreachable, onLeader()), SaysNot(node.DCSUnreachable, onLeader()),
				NeverNoted(node.DCSUnreachable, onOthers()), WhateverRefusedBy(node.GuardBusyWork, onLeader()), FailedOverOnce(),
				NoSecondPrimary(), PatroniUntouched(patroniNodes...),
			},
		},
	}
}

// afterFailover is when Patroni's own failover is over (the key ends at most ttl after the last renewal, a replica
// promotes itself within 5 s of that) and some time more.
func afterFailover(more time.Duration) func(stack.Timings) time.Duration {
	return func(t stack.Timings) time.Duration { return seconds(t.TTL) + 5*time.Second + more }
}

// afterReturn is when the grace after a change of leader (guard leader-change) is over for the node that came back. Its
// PostgreSQL hangs in its shutdown for up to a minute more, waiting for replicas whose connections are dead (FAULTS.md
// L12), and Patroni's loop waits with it: it looks stuck, and only the guard busy-work keeps the agent from a kill.
func afterReturn(t stack.Timings) time.Duration {
	grace := seconds(t.TTL + 2*t.LoopWait)
	return seconds(t.TTL) + 7*time.Second + grace + 5*time.Second
}

func inOrder(all ...Func) Func {
	return func(ctx context.Context, r *Run) error {
		for _, f := range all {
			if err := f(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}
}

func stopLeader(ctx context.Context, r *Run) error { return r.Inject(ctx, "patroni-stop", r.Leader) }

func stopReplica(ctx context.Context, r *Run) error {
	return r.Inject(ctx, "patroni-stop", r.Replicas[0])
}

// loseQuorum kills two etcd members, with something in between.
func loseQuorum(between Func) Func {
	return func(ctx context.Context, r *Run) error {
		members := r.Stack.Of(stack.Etcd)
		err := r.Inject(ctx, "etcd-kill", members[1])
		if err == nil && between != nil {
			err = between(ctx, r)
		}
		return errors.Join(err, r.Inject(ctx, "etcd-kill", members[2]))
	}
}

func noSpace(ctx context.Context, r *Run) error {
	return r.Inject(ctx, "etcd-nospace", r.Stack.Of(stack.Etcd)[0])
}

// isolateLeader cuts the leader off until another one writes, and then connects it again.
func isolateLeader(ctx context.Context, r *Run) error {
	began := time.Now()
	if err := r.Inject(ctx, "network-disconnect", r.Leader); err != nil {
		return err
	}
	for limit := began.Add(seconds(r.Timings.TTL) + 15*time.Second); time.Now().Before(limit); {
		if err := r.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if judge.Failovers(r.collector.records(), judge.Window{From: began, To: time.Now()}) > 0 {
			break
		}
	}
	// The isolated agent goes on looking for a moment after the cluster has moved on.
	if err := r.Sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	return r.Revert(ctx, "network-disconnect", r.Leader)
}
