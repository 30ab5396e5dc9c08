package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// operatorScenarios belong to a person or to systemd: nothing may be done about them.
//
// How long one must look for a wrong action to show: a failed unit is started within 3 s of systemd's signal, a zombie
// is fenced within 3 s, and a hung Patroni on the leader is proved in 6 s and killed within 2 s more. All of them run with
// the fast timings, under which what follows from the lease comes sooner than under the default ones.
func operatorScenarios() []Scenario {
	return slices.Concat(unitScenarios(), pausedScenarios(), configScenarios())
}

// unitScenarios are about systemd and its jobs.
func unitScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F01", Title: "Patroni crashes on the leader and on a replica", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "patroni-kill", r.Replicas[0]); err != nil {
					return err
				}
				return r.Inject(ctx, "patroni-kill", r.Leader)
			},
			Observe: lookFor(14 * time.Second),
			Heal: append(kept(),
				Lives(theLeader, 2, 1), Lives(theReplica, 2, 1), Untouched(theSpare), GapUnder(time.Second), NeverFound("PATRONI_HUNG", "PATRONI_FAILED"),
				says(theLeader, "well", quiet("holds the leader key and renews its lease")), says(theReplica, "well", quiet("follows"))),
		},
		{
			ID: "F06", Title: "Patroni crashes every 8 s on the leader, below the start limit", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				for range 3 {
					if err := r.Inject(ctx, "patroni-kill", r.Leader); err != nil {
						return err
					}
					if err := r.Sleep(ctx, 8*time.Second); err != nil {
						return err
					}
				}
				return nil
			},
			Observe: lookFor(24 * time.Second),
			// A write gap is no failure here: on a busy machine Patroni needs seconds to come up, and HAProxy may miss three
			// checks in a row, with pgpatrol and without.
			Heal: append(kept(),
				Lives(theLeader, 4, 3), Untouched(theReplica, theSpare), NeverFound("PATRONI_HUNG", "PATRONI_FAILED"),
				says(theLeader, "flapping", finds("PATRONI_CRASHING", "warn", "Patroni has been started again 3 times"))),
		},
		{
			ID: "F07", Title: "systemctl stop patroni on the leader; the agent restarts meanwhile", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "unit-stop", r.Leader); err != nil {
					return err
				}
				if err := r.Sleep(ctx, 6*time.Second); err != nil || !r.Agents {
					return err
				}
				notePlans(ctx, r, "before")
				return restartAgent(ctx, r, r.Leader)
			},
			Observe: lookFor(20 * time.Second),
			Heal: append(unharmed(),
				UnitEnds(theLeader, "inactive success", 14*time.Second), Untouched(theLeader, theReplica, theSpare),
				FoundWithin(theLeader, "PATRONI_STOPPED", 5*time.Second), NeverFound("PATRONI_FAILED"),
				saysAt("before", theLeader, "stopped", finds("PATRONI_STOPPED", "info", "was stopped on purpose")),
				says(theLeader, "still stopped", finds("PATRONI_STOPPED", "info", "was stopped on purpose"))),
		},
		{
			ID: "F08", Title: "Patroni masked on one replica and disabled on the other", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "unit-mask", r.Replicas[0]); err != nil {
					return err
				}
				return r.Inject(ctx, "unit-disable", r.Replicas[1])
			},
			// The two stops take up to 7 s on a busy machine; what is left is longer than any proof and its confirmation.
			Observe: lookFor(20 * time.Second),
			Heal: append(kept(),
				UnitEnds(theReplica, "inactive success", 6*time.Second), UnitEnds(theSpare, "inactive success", 6*time.Second),
				Untouched(theLeader, theReplica, theSpare), GapUnder(time.Second),
				says(theReplica, "masked", finds("PATRONI_STOPPED", "info", "masked")),
				says(theSpare, "disabled", finds("PATRONI_STOPPED", "info", "disabled"))),
		},
		{
			ID: "F08-failed", Title: "Patroni disabled on a replica, and failed", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if _, err := r.Stack.Exec(ctx, r.Replicas[0], `systemctl disable -q patroni`); err != nil {
					return fmt.Errorf("disable: %w", err)
				}
				return r.Inject(ctx, "patroni-start-limit", r.Replicas[0])
			},
			Observe: lookFor(18 * time.Second),
			Heal: append(kept(),
				UnitEnds(theReplica, "failed signal", 6*time.Second), Untouched(theLeader, theSpare), GapUnder(time.Second),
				says(theReplica, "failed", finds("PATRONI_FAILED", "page", "")),
				says(theReplica, "disabled", refuses("PATRONI_FAILED", "operator-intent"))),
		},
		{
			ID: "F09", Title: "an operator's restart of a replica takes 20 s", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "unit-restart-slow", r.Replicas[0]); err != nil {
					return err
				}
				if err := r.Sleep(ctx, 14*time.Second); err != nil {
					return err
				}
				notePlans(ctx, r, "meanwhile")
				return nil
			},
			// The job, and 6 s in which Patroni comes up and an action too many would show.
			Observe: lookFor(28 * time.Second),
			Heal: append(kept(),
				UnitWas(theReplica, "deactivating", 18*time.Second), Lives(theReplica, 2, 0), Untouched(theLeader, theSpare), GapUnder(time.Second),
				NeverFound("PATRONI_HUNG", "PATRONI_FAILED", "PATRONI_STOPPED"),
				saysAt("meanwhile", theReplica, "busy", quiet("job restart")),
				says(theReplica, "well", quiet("follows"))),
		},
		{
			ID: "F09-hung", Title: "Patroni hangs on the leader while an operator's reload is in progress", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "unit-reload-slow", r.Leader); err != nil {
					return err
				}
				return hangForAWhile(ctx, r)
			},
			Observe: lookFor(16 * time.Second),
			Heal: append(kept(),
				UnitWas(theLeader, "reloading", 11*time.Second), Untouched(theLeader, theReplica, theSpare),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "left to the operator", refuses("PATRONI_HUNG", "operator-job-running"))),
		},
		{
			ID: "F10", Title: "start and immediate reload of a replica's Patroni", Timings: fastTimings(),
			Fault:   func(ctx context.Context, r *Run) error { return r.Inject(ctx, "unit-reload-early", r.Replicas[0]) },
			Observe: lookFor(16 * time.Second),
			Heal: append(kept(),
				UnitEnds(theReplica, "inactive success", 6*time.Second), Untouched(theLeader, theSpare), GapUnder(time.Second),
				NeverFound("PATRONI_CONFIG_BROKEN", "PATRONI_FAILED"),
				says(theReplica, "ended by a reload", finds("PATRONI_STOPPED", "warn", "SIGHUP"))),
		},
	}
}

// pausedScenarios are about a cluster that an operator has paused.
func pausedScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F11", Title: "Patroni hangs on the leader of a paused cluster", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "pause", r.Leader); err != nil {
					return err
				}
				// One turn of the loop, so that Patroni knows too.
				if err := r.Sleep(ctx, 3*time.Second); err != nil {
					return err
				}
				notePlans(ctx, r, "before")
				return hangForAWhile(ctx, r)
			},
			Observe: lookFor(18 * time.Second),
			Heal: append(kept(),
				Untouched(theLeader, theReplica, theSpare), FoundWithin(theLeader, "PAUSED", 5*time.Second),
				saysAt("before", theReplica, "paused", finds("PAUSED", "info", "paused")),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "paused", refuses("PATRONI_HUNG", "patroni-pause"))),
		},
		{
			ID: "F12", Title: "Patroni stopped on the leader of a paused cluster", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "pause", r.Leader); err != nil {
					return err
				}
				if err := r.Sleep(ctx, 3*time.Second); err != nil {
					return err
				}
				return r.Inject(ctx, "unit-stop", r.Leader)
			},
			Observe: lookFor(16 * time.Second),
			Heal: append(kept(),
				UnitEnds(theLeader, "inactive success", 10*time.Second), Untouched(theLeader, theReplica, theSpare),
				FoundWithin(theLeader, "PATRONI_STOPPED", 8*time.Second),
				says(theLeader, "writes are down", finds("PATRONI_STOPPED", "page", "cannot write")),
				says(theReplica, "paused", finds("PAUSED", "", "paused"))),
		},
	}
}

// configScenarios are about a configuration of Patroni that would not load any more.
func configScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F13", Title: "Patroni's configuration is broken on the leader, and then Patroni hangs", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "config-break", r.Leader); err != nil {
					return err
				}
				if err := r.Sleep(ctx, 10*time.Second); err != nil {
					return err
				}
				notePlans(ctx, r, "before")
				return hangForAWhile(ctx, r)
			},
			Observe: lookFor(24 * time.Second),
			Heal: append(kept(),
				Untouched(theLeader, theReplica, theSpare), FoundWithin(theLeader, "PATRONI_CONFIG_BROKEN", 10*time.Second),
				saysAt("before", theLeader, "broken", finds("PATRONI_CONFIG_BROKEN", "warn", "")),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "not into a broken configuration", refuses("PATRONI_HUNG", "config-valid"))),
		},
		{
			ID: "F14", Title: "Patroni of a replica cannot start because its configuration is broken", Timings: fastTimings(),
			Setup: func(ctx context.Context, r *Run) error { return r.Inject(ctx, "dropin-start-limit", r.Replicas[0]) },
			Fault: func(ctx context.Context, r *Run) error {
				if err := r.Inject(ctx, "config-break", r.Replicas[0]); err != nil {
					return err
				}
				if err := r.Inject(ctx, "patroni-kill", r.Replicas[0]); err != nil {
					return err
				}
				return awaitFailed(ctx, r, r.Replicas[0])
			},
			Observe: lookFor(24 * time.Second),
			Heal: append(kept(),
				UnitEnds(theReplica, "failed exit-code", 6*time.Second), Untouched(theLeader, theSpare), GapUnder(time.Second), NeverFound("PATRONI_STOPPED"),
				says(theReplica, "failed", finds("PATRONI_FAILED", "page", "/etc/patroni/config.yml")),
				says(theReplica, "no start", refuses("PATRONI_FAILED", "config-valid"))),
		},
	}
}

// unharmed is what must hold in every scenario in which nothing is done.
func unharmed() []Check { return []Check{NoAction(), NoSecondPrimary(), NoLostWrites()} }

// kept is unharmed where the fault costs nobody the lead.
func kept() []Check { return append(unharmed(), NoFailover()) }

func fastTimings() []string { return []string{"fast"} }

func lookFor(d time.Duration) func(stack.Timings) time.Duration {
	return func(stack.Timings) time.Duration { return d }
}

// hangForAWhile stops the leader's Patroni for as long as an agent needs to prove it and to kill it (6 s and 2 s, and some
// for a busy machine), asks for the plans, and lets it run on well before its lease ends: a failover would be the
// fault's doing, and would hide what this is about.
func hangForAWhile(ctx context.Context, r *Run) error {
	if err := r.Inject(ctx, "patroni-stop", r.Leader); err != nil {
		return err
	}
	if err := r.Sleep(ctx, 11*time.Second); err != nil {
		return err
	}
	notePlans(ctx, r, "hung")
	return r.Revert(ctx, "patroni-stop", r.Leader)
}

func restartAgent(ctx context.Context, r *Run, n stack.Node) error {
	r.Mark("restart agent", n.Name)
	if _, err := r.Stack.Exec(ctx, n, `systemctl restart pgpatrol`); err != nil {
		return fmt.Errorf("restart agent on %s: %w", n.Name, err)
	}
	return nil
}

// awaitFailed waits until systemd has given Patroni up.
func awaitFailed(ctx context.Context, r *Run, n stack.Node) error {
	const wait = `for i in $(seq 75); do [ "$(systemctl show -p ActiveState --value patroni)" = failed ] && exit 0; sleep .2; done; exit 1`
	if _, err := r.Stack.Exec(ctx, n, wait); err != nil {
		return fmt.Errorf("wait for patroni on %s to fail: %w", n.Name, err)
	}
	return nil
}
