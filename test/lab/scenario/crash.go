package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// failpointMark says that an agent has died at its failpoint. It lies where a restart of the agent's service keeps it and
// a new installation does not.
const failpointMark = "/var/lib/pgpatrol/failpoint"

// crashScenarios kill the agent itself at the worst moment.
func crashScenarios() []Scenario {
	return []Scenario{crashBeforeActHealed(), crashBeforeAct(), crashAfterAct(), crashAtRandom()}
}

// dieAt builds agents that kill themselves once, at that point.
func dieAt(point string) func(*stack.AgentOptions) {
	return func(o *stack.AgentOptions) {
		o.Tags = "failpoint"
		o.Env = map[string]string{"PGPATROL_FAILPOINT": point, "PGPATROL_FAILPOINT_ONCE": failpointMark}
	}
}

// crashBeforeActHealed: the intent is on disk, the agent dies, and what it was to heal heals by itself. Who repeats an
// intent from its journal kills a healthy Patroni here.
func crashBeforeActHealed() Scenario {
	return Scenario{
		ID: "crash-stale", Title: "agent killed between intent and act, and the hang ends meanwhile", Timings: []string{"fast", "default"},
		Agent: dieAt("after-intent"),
		Fault: func(ctx context.Context, r *Run) error {
			if err := hangLeader(ctx, r); err != nil {
				return err
			}
			return resumeOnDeath(ctx, r)
		},
		// The agent dies within 12 s, is back 2 s later, and an intent taken up again would be carried out at once; one
		// decided afresh by mistake would need another 9 s.
		Observe: func(stack.Timings) time.Duration { return 30 * time.Second },
		Heal: []Check{
			AgentDied(), PatroniUntouched("pg1", "pg2", "pg3"), Resolved("not-executed"), NoFailover(), NoSecondPrimary(), SamePostmasters(),
			GapUnder(time.Second), NoLostWrites(),
		},
	}
}

// crashBeforeAct: the hang persists, so the agent that comes back decides afresh.
func crashBeforeAct() Scenario {
	return Scenario{
		ID: "crash-intent", Title: "agent killed between intent and act, and the hang persists", Timings: []string{"default", "fast"},
		Agent:   dieAt("after-intent"),
		Fault:   hangUntilDeath,
		Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 20*time.Second },
		Harm:    []Check{SecondPrimary()},
		Heal:    []Check{AgentDied(), NewLivesOnLeader(1), OthersUntouched(), Resolved("not-executed", "verified"), OnePrimaryAtEnd()},
	}
}

// crashAfterAct: Patroni is killed and the journal does not say so.
func crashAfterAct() Scenario {
	return Scenario{
		ID: "crash-act", Title: "agent killed between act and record", Timings: []string{"fast", "default"},
		Agent: dieAt("after-act"),
		Fault: hangUntilDeath,
		// A second kill would need a new proof, 9 s after the agent is back; and budgets must hold against it as well.
		Observe: func(stack.Timings) time.Duration { return 35 * time.Second },
		Harm:    []Check{SecondPrimary()},
		Heal: []Check{
			AgentDied(), NewLivesOnLeader(1), OthersUntouched(), Resolved("verified"), NoFailover(), NoSecondPrimary(), SamePostmasters(),
			NoLostWrites(), // the gap is F02's business
		},
	}
}

// crashAtRandom: the agent is killed at any moment of F02. It loses what it has observed, and nothing else.
func crashAtRandom() Scenario {
	return Scenario{
		ID: "crash-random", Title: "agent killed at a random moment of a hang", Timings: []string{"default", "fast"},
		Fault: func(ctx context.Context, r *Run) error {
			if err := hangLeader(ctx, r); err != nil || !r.Agents {
				return err
			}
			if err := r.Sleep(ctx, time.Duration(rand.Int64N(int64(10*time.Second)))); err != nil {
				return err
			}
			r.Mark("agent-killed", r.Leader.Name)
			_, err := r.Stack.Exec(ctx, r.Leader, `kill -KILL "$(systemctl show -p MainPID --value pgpatrol.service)"`)
			return err
		},
		Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 20*time.Second },
		Harm:    []Check{SecondPrimary()},
		Heal:    []Check{NewLivesOnLeader(1), OthersUntouched(), OnePrimaryAtEnd()},
	}
}

// hangUntilDeath hangs the leader's Patroni and returns when its agent has died at the failpoint.
func hangUntilDeath(ctx context.Context, r *Run) error {
	if err := hangLeader(ctx, r); err != nil || !r.Agents {
		return err
	}
	return awaitDeath(ctx, r, "")
}

// resumeOnDeath continues Patroni while the agent is dead: systemd brings it back after 2 s.
func resumeOnDeath(ctx context.Context, r *Run) error {
	return awaitDeath(ctx, r, `kill -CONT `+patroniPID)
}

func awaitDeath(ctx context.Context, r *Run, then string) error {
	const wait = `for i in $(seq 600); do [ -e ` + failpointMark + ` ] && break; sleep .05; done; [ -e ` + failpointMark + ` ] || exit 1
`
	if out, err := r.Stack.Exec(ctx, r.Leader, wait+then); err != nil {
		return fmt.Errorf("wait for the agent to die at its failpoint: %w: %s", err, out)
	}
	r.Mark(markDied, r.Leader.Name)
	return nil
}
