package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// routeScenarios are about where HAProxy leads clients.
func routeScenarios() []Scenario {
	adjust := map[string]string{"adjust": "auto"}
	return []Scenario{
		{
			ID: "ROUTE-switchover", Title: "a planned switchover", Policy: adjust,
			Fault:   func(ctx context.Context, r *Run) error { return switchOver(ctx, r) },
			Observe: func(stack.Timings) time.Duration { return 25 * time.Second },
			// The switchover itself takes 2 to 3 s. HAProxy alone needs two good checks of the new leader, 3 s apart, and three bad
			// ones of the old one, to which half of the new sessions go meanwhile (FACTS.md §6.6).
			Harm: []Check{GapOver(4 * time.Second)},
			Heal: []Check{GapUnder(4 * time.Second), NoReadOnlySession(), Promotions(1), NoLostWrites(), NoAction()},
		},
		{
			ID: "ROUTE-observe", Title: "a planned switchover, policy observe",
			Fault:   func(ctx context.Context, r *Run) error { return switchOver(ctx, r) },
			Observe: func(stack.Timings) time.Duration { return 25 * time.Second },
			Heal:    []Check{Promotions(1), GapOver(4 * time.Second), NoLostWrites(), NoAction()},
		},
	}
}

// switchOver asks Patroni for a switchover to any replica.
func switchOver(ctx context.Context, r *Run) error {
	out, err := r.Stack.Exec(ctx, r.Leader, `patronictl -c /etc/patroni/config.yml switchover --force 2>&1`)
	if err != nil {
		return fmt.Errorf("switch over: %w: %s", err, out)
	}
	return nil
}

// NoReadOnlySession demands that the writer reached no read-only database any more once it had written again.
func NoReadOnlySession() Check {
	return Check{"no session at a read-only node after the first write", func(e Evidence) Verdict {
		back := judge.LongestGap(e.Records, e.Window).To
		n := 0
		for _, rec := range e.Records {
			if rec.Error != nil && rec.Error.SQLState == "25006" && rec.At.After(back) {
				n++
			}
		}
		return verdict(n == 0, "%d errors 25006 after it", n)
	}}
}
