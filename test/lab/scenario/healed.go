package scenario

import (
	"context"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// healedScenarios need a heal other than that of a hung leader: zombie, start limit, dead API, stuck loop.
func healedScenarios() []Scenario {
	return []Scenario{zombie(), zombieFoundLate(), startLimitLeader(), startLimitReplica(), restRefused(), loopStuck()}
}

// afterZombie is how long one looks once there are two primaries and the agent may act.
const afterZombie = 20 * time.Second

func observeZombie(t stack.Timings) time.Duration {
	return seconds(t.TTL) + 8*time.Second + afterZombie
}

// zombie: two primaries exist, and the agent of the old one gets leave to act by a change of its policy.
func zombie() Scenario {
	return Scenario{
		ID: "F04", Title: "hung Patroni of a leader that another member has replaced", Timings: []string{"fast", "default"},
		Policy: map[string]string{"revive": "observe"},
		Fault: func(ctx context.Context, r *Run) error {
			if err := makeZombie(ctx, r); err != nil || !r.Agents {
				return err
			}
			r.Mark(markMayAct, r.Leader.Name)
			return switchPolicy(ctx, r, r.Leader, "revive", "observe", "auto")
		},
		Observe: observeZombie,
		Harm:    []Check{SecondPrimary(), TwoPrimariesAtEnd()},
		Heal: append(zombieHealed(),
			// 1 s between two linearizable reads, one look to confirm, and 2 s until the new Patroni has demoted PostgreSQL.
			LeaderReadOnlyWithin(5*time.Second, markMayAct)),
	}
}

// zombieFoundLate: an agent without memory starts on a machine that has been a second primary for a while.
func zombieFoundLate() Scenario {
	return Scenario{
		ID: "F04-late", Title: "the same, and the agent there starts only afterwards", Timings: []string{"fast", "default"},
		Fault: func(ctx context.Context, r *Run) error {
			if r.Agents {
				if err := forgetAgent(ctx, r, r.Leader); err != nil {
					return err
				}
			}
			if err := makeZombie(ctx, r); err != nil || !r.Agents {
				return err
			}
			r.Mark(markMayAct, r.Leader.Name)
			return startAgent(ctx, r, r.Leader)
		},
		Observe: observeZombie,
		Harm:    []Check{SecondPrimary(), TwoPrimariesAtEnd()},
		Heal: append(zombieHealed(),
			// As above, and first the agent has to start, connect to etcd and run Patroni's own validator, because a hung
			// Patroni does not confirm who it is.
			LeaderReadOnlyWithin(12*time.Second, markMayAct)),
	}
}

func zombieHealed() []Check {
	return []Check{
		SecondPrimary(), OneAction("soft-kill", "revive"), DivergenceRecorded(), NewLivesOnLeader(1), OthersUntouched(), Promotions(1),
	}
}

// startLimitLeader: systemd has given up on the leader's Patroni, and PostgreSQL runs on without one.
func startLimitLeader() Scenario {
	return Scenario{
		ID: "F05", Title: "Patroni of the leader at its start limit", Timings: []string{"default", "fast"},
		Fault:   func(ctx context.Context, r *Run) error { return crashUntilFailed(ctx, r, r.Leader) },
		Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 12*time.Second },
		Harm:    []Check{SecondPrimary(), TargetFailedAtEnd()},
		Heal: []Check{
			TargetReplacedWithin(3*time.Second, markLastKill), OneAction("start-failed", "revive"), OthersUntouched(),
			NoFailover(), NoSecondPrimary(), SamePostmasters(), LeaseNeverEnded(), GapUnder(time.Second), NoLostWrites(),
		},
	}
}

func startLimitReplica() Scenario {
	return Scenario{
		ID: "F05-replica", Title: "Patroni of a replica at its start limit", Timings: []string{"fast", "default"},
		Fault: func(ctx context.Context, r *Run) error { return crashUntilFailed(ctx, r, r.Replicas[0]) },
		// 10 s of crashes at most; then the failure is known at once, and a second action would follow within seconds.
		Observe: func(stack.Timings) time.Duration { return 20 * time.Second },
		Harm:    []Check{TargetFailedAtEnd()},
		Heal: []Check{
			TargetReplacedWithin(3*time.Second, markLastKill), OneAction("start-failed", "revive"), OthersUntouched(),
			NoFailover(), NoSecondPrimary(), SamePostmasters(), LeaseNeverEnded(), GapUnder(time.Second), NoLostWrites(),
		},
	}
}

// restRefused: nobody listens on Patroni's API although its loop renews the lease, so HAProxy has no server.
func restRefused() Scenario {
	return Scenario{
		ID: "F17", Title: "nothing listens on the REST port of the leader's Patroni while its loop runs", Timings: []string{"fast", "default"},
		// A Patroni younger than that may still be starting.
		Setup: func(ctx context.Context, r *Run) error { return awaitPatroniAge(ctx, r, r.Leader, time.Minute) },
		Fault: func(ctx context.Context, r *Run) error { return r.Inject(ctx, "rest-refuse", r.Leader) },
		// 15 s of refusals prove it, and some seconds later HAProxy has the server back.
		Observe: lookFor(38 * time.Second),
		Harm:    []Check{GapOver(25 * time.Second), NoFailover(), TargetUntouched()},
		Heal: []Check{
			OneAction("soft-kill", "revive"), NewLivesOnLeader(1), OthersUntouched(), NoFailover(), NoSecondPrimary(), LeaseNeverEnded(),
			SamePostmasters(), NoLostWrites(), FindingSays("PATRONI_API_DEAD", "renews its lease"),
			// HAProxy takes the server out after three checks; two good ones, 3 s apart, bring it back: 18 s are usual.
			GapUnder(23 * time.Second),
		},
	}
}

// loopStuck: REST answers, and the loop that renews the lease does not run.
func loopStuck() Scenario {
	return Scenario{
		ID: "F18", Title: "Patroni's loop is stuck on the leader while its REST API answers", Timings: []string{"fast", "default"},
		// A Patroni younger than a minute is not judged by its lease alone.
		Setup: func(ctx context.Context, r *Run) error { return awaitPatroniAge(ctx, r, r.Leader, time.Minute) },
		// An agent judges nobody by a lease before it has seen etcd answer for loop_wait and retry_timeout.
		Fault: func(ctx context.Context, r *Run) error {
			if err := r.Sleep(ctx, seconds(r.Timings.LoopWait)); err != nil {
				return err
			}
			return r.Inject(ctx, "loop-stuck", r.Leader)
		},
		// The fault comes after loop_wait and takes up to another; a lease is overdue loop_wait + retry_timeout after its
		// renewal.
		Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL+2*t.LoopWait) + 10*time.Second },
		Harm:    []Check{LeaseEnded(), GapOver(2 * time.Second)},
		Heal: []Check{
			OneAction("soft-kill", "revive"), NewLivesOnLeader(1), OthersUntouched(), NoFailover(), NoSecondPrimary(),
			LeaseNeverEnded(), SamePostmasters(), GapUnder(time.Second), NoLostWrites(),
		},
	}
}
