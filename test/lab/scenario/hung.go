package scenario

import (
	"context"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// hungScenarios are about a Patroni that is active for systemd and does nothing.
func hungScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F02", Title: "Patroni hangs on the leader (SIGSTOP)", Timings: []string{"default", "fast"},
			Fault: func(ctx context.Context, r *Run) error { return r.Inject(ctx, "patroni-stop", r.Leader) },
			// The leader key ends at most ttl after the last renewal, and a replica promotes itself within 3 s of that.
			Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 10*time.Second },
			Harm:    []Check{SecondPrimary(), GapOver(2 * time.Second)},
			Heal: []Check{
				NoFailover(), NoSecondPrimary(), SamePostmaster(), GapUnder(time.Second),
				PatroniReplacedWithin(12 * time.Second), NoLostWrites(),
			},
		},
		hungWithoutKillMode(),
		hungForAMoment(),
		hungAndObserved(),
		hungReplica(),
	}
}

func hangLeader(ctx context.Context, r *Run) error { return r.Inject(ctx, "patroni-stop", r.Leader) }

func spoilKillMode(ctx context.Context, r *Run) error {
	return r.Inject(ctx, "dropin-killmode", r.Leader)
}

// hungWithoutKillMode: the kill takes PostgreSQL along, so it is class disrupt, and the lease must have proved the hang.
func hungWithoutKillMode() Scenario {
	return Scenario{
		ID: "F02-killmode", Title: "Patroni hangs on the leader, under a unit without KillMode=process",
		Policy: map[string]string{"disrupt": "auto"},
		Setup:  spoilKillMode, Fault: hangLeader,
		Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 10*time.Second },
		Harm:    []Check{SecondPrimary(), GapOver(2 * time.Second)},
		Heal: []Check{
			// PostgreSQL that starts again in place is promoted again: a new timeline of the same node is no failover.
			NoOtherPrimary(), NoSecondPrimary(), LeaseNeverEnded(), OneAction("soft-kill", "disrupt"), ActedAfterLeaseProof(),
			NewLivesOnLeader(1), OthersUntouched(), NoLostWrites(),
			// PostgreSQL stops with the unit and starts in place: 2 s (FACTS.md §10). Where the lease was renewed just before
			// the hang its proof takes 12 s, and HAProxy may by then be one failed check short of taking the server out; two
			// good checks, 3 s apart, bring it back.
			GapUnder(10 * time.Second),
			FindingSays("PATRONI_HUNG", "`KillMode=process` under [Service] of /", "systemctl daemon-reload"),
		},
	}
}

// hungForAMoment: the same unit, and the hang ends while only the process's state proves it. The fault comes right after
// a renewal, so that this state lasts: from the moment that the process's state proves the hang, some seconds after the
// fault, until the lease falls below ttl - loop_wait - 2 s, about 11 s after it. It ends once the plan shows the refusal.
func hungForAMoment() Scenario {
	return Scenario{
		ID: "F02-killmode-early", Title: "Patroni hangs on the leader for a moment, under a unit without KillMode=process",
		Policy: map[string]string{"disrupt": "auto"},
		Setup:  spoilKillMode,
		Fault: func(ctx context.Context, r *Run) error {
			if err := awaitRenewal(ctx, r); err != nil {
				return err
			}
			if err := hangLeader(ctx, r); err != nil {
				return err
			}
			return resumeOnRefusal(ctx, r)
		},
		// A wrong action would come with the next look, a second later, or when the lease seems to prove the hang: within
		// 12 s of the fault, which itself may wait 10 s for the renewal.
		Observe: func(stack.Timings) time.Duration { return 28 * time.Second },
		Heal: []Check{
			NoAction(), PatroniUntouched("pg1", "pg2", "pg3"), SamePostmaster(), NoFailover(), NoSecondPrimary(), LeaseNeverEnded(),
			RefusedBy("soft-kill", "lease-window"), GapUnder(time.Second), NoLostWrites(),
		},
	}
}

// hungAndObserved: who only observes says what it would do.
func hungAndObserved() Scenario {
	return Scenario{
		ID: "F02-observe", Title: "Patroni hangs on the leader, policy observe", Timings: []string{"fast", "default"},
		Policy: map[string]string{"revive": "observe"},
		Fault:  hangLeader,
		// With policy auto the kill comes within 12 s of the fault.
		Observe: func(stack.Timings) time.Duration { return 14 * time.Second },
		Heal: []Check{
			NoAction(), PatroniUntouched("pg1", "pg2", "pg3"), SamePostmaster(), RefusedBy("soft-kill", "policy"),
			FindingSays("PATRONI_HUNG"),
		},
	}
}

// hungReplica: nobody feels it until the leader fails, so its heal may take its time.
func hungReplica() Scenario {
	return Scenario{
		ID: "F03", Title: "Patroni hangs on a replica (SIGSTOP)", Timings: []string{"fast", "default"},
		Fault: func(ctx context.Context, r *Run) error {
			r.Mark(markTarget, r.Replicas[0].Name)
			if err := r.Inject(ctx, "patroni-stop", r.Replicas[0]); err != nil || r.Agents {
				return err
			}
			if err := r.Sleep(ctx, seconds(r.Timings.TTL)+2*time.Second); err != nil {
				return err
			}
			return noteMemberKey(ctx, r, r.Replicas[0])
		},
		// 20 s of silence and a missed renewal (at most ttl after the last one) prove it.
		Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 18*time.Second },
		Harm:    []Check{TargetUntouched(), MemberKeyGone()},
		Heal: []Check{
			TargetReplacedWithin(45*time.Second, markTarget), OneAction("soft-kill", "revive"), OthersUntouched(),
			NoFailover(), NoSecondPrimary(), SamePostmasters(), LeaseNeverEnded(), GapUnder(time.Second), NoLostWrites(),
		},
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
