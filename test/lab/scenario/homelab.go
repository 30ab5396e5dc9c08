package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// homelabScenarios are about etcd as the first user runs it: in Docker on a NAS, behind two forwarders on a Mac, and under
// OpenRC in Tokyo. PostgreSQL must not notice any of them.
func homelabScenarios() []Scenario {
	all := slices.Concat(memberScenarios())
	for i := range all {
		all[i].Homelab, all[i].Timings = true, fastTimings()
	}
	return all
}

// agentMemory is what the agent on the NAS may have: 30 MB.
const agentMemory = 30 << 20

// healsWithin is how long a dead thing stays dead: it is noticed by an event, and started with the next look.
const healsWithin = 10 * time.Second

// undisturbed is what must hold of PostgreSQL where etcd keeps its quorum.
func undisturbed() []Check {
	return []Check{NoFailover(), NoSecondPrimary(), Untouched(theLeader, theReplica, theSpare), GapUnder(time.Second), NoLostWrites(), NothingRefused()}
}

// started is what must hold where one dead member of etcd is started on its own machine.
func started(node string, t thing) []Check {
	return append(undisturbed(), Acted("start-failed", "revive", node), ThingReplacedWithin(t, healsWithin, markBroken), CaughtUpWithin(t, 2*healsWithin, markBroken),
		ThingsUntouched(except(t)...), MembersHealthy(members(t)...))
}

// members lists the members of etcd without one.
func members(without thing) []thing {
	return slices.DeleteFunc([]thing{etcdNAS, etcdMBP, etcdJP1}, func(t thing) bool { return t == without })
}

// memberScenarios are about members of etcd that crash or hang.
func memberScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F38-nas", Title: "etcd on the NAS crashes, restart=no; the agent is a container behind a filtering proxy",
			Setup:   restartPolicy("no", stack.EtcdNAS),
			Fault:   crash(etcdNAS),
			Observe: lookFor(22 * time.Second),
			Harm:    []Check{ThingStaysDown(etcdNAS), MemberSickAtEnd(etcdNAS)},
			Heal:    append(started(stack.NAS, etcdNAS), AgentUnder(agentMemory), saysOn(stack.NAS, "well", quiet("runs, answers, and has a leader"))),
		},
		{
			ID: "F38-mbp", Title: "etcd crashes behind the two forwarders, restart=no",
			Setup:   restartPolicy("no", stack.EtcdMBP),
			Fault:   crash(etcdMBP),
			Observe: lookFor(22 * time.Second),
			Harm:    []Check{ThingStaysDown(etcdMBP), MemberSickAtEnd(etcdMBP)},
			Heal:    started(stack.MBP, etcdMBP),
		},
		{
			ID: "F38-jp1", Title: "SIGKILL to etcd under OpenRC, which does not notice",
			Fault:   crash(etcdJP1),
			Observe: lookFor(22 * time.Second),
			Harm:    []Check{ThingStaysDown(etcdJP1), MemberSickAtEnd(etcdJP1)},
			Heal:    started(stack.JP1, etcdJP1),
		},
	}
}

// markBroken is the moment from which on something is broken.
const markBroken = "broken"

// restartPolicy sets the policy of containers.
func restartPolicy(policy string, nodes ...string) Func {
	return func(ctx context.Context, r *Run) error {
		for _, name := range nodes {
			if _, err := r.Stack.Docker(ctx, "update", "--restart="+policy, r.Stack.Container(r.Stack.Must(name))); err != nil {
				return fmt.Errorf("set policy of %s: %w", name, err)
			}
		}
		return nil
	}
}

// crash kills the main processes of things, from outside.
func crash(all ...thing) Func { return signal("KILL", all...) }

// signal sends a signal to the main processes of things.
func signal(name string, all ...thing) Func {
	return func(ctx context.Context, r *Run) error {
		for _, t := range all {
			r.Mark("signal", name+" to "+string(t))
			if err := send(ctx, r, name, t); err != nil {
				return fmt.Errorf("send %s to %s: %w", name, t, err)
			}
		}
		r.Mark(markBroken, join(all))
		return nil
	}
}

func send(ctx context.Context, r *Run, signal string, t thing) error {
	switch t {
	case etcdNAS, etcdMBP:
		return r.Stack.Signal(ctx, r.Stack.Must(string(t)), signal)
	case etcdJP1:
		return on(ctx, r, stack.JP1, `kill -s `+signal+` "$(cat /run/etcd.pid)"`)
	}
	return on(ctx, r, stack.MBP, `kill -s `+signal+` "$(systemctl show -p MainPID --value `+string(t)+`)"`)
}

// on runs a script on a node of the homelab.
func on(ctx context.Context, r *Run, name, script string) error {
	if out, err := r.Stack.Exec(ctx, r.Stack.Must(name), script); err != nil {
		return fmt.Errorf("on %s: %w: %s", name, err, out)
	}
	return nil
}
