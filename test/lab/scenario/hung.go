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
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
