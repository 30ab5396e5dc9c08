package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Judge tells from the unit as it is now whether an act was carried out on the unit as it was before (FAULTS.md F101).
//
//	same invocation, same main process   not executed
//	another invocation                   executed
//	same invocation, main process gone   executed: whoever ended it, ending it again would be a repetition
//	nothing known                        "", unresolved
//
// A unit that was restarted by others in between also reads as executed. That errs to the safe side: the attempt counts
// against the budget, nothing is repeated, and what is wrong now is decided afresh.
func Judge(before node.Baseline, now service.Status) node.AttemptResult {
	switch {
	case now.State == service.StateUnknown:
		return ""
	case before.InvocationID == "" && before.MainPID == 0:
		return "" // nothing was recorded that could be compared
	case now.InvocationID == before.InvocationID && now.MainPID == before.MainPID:
		return node.ResultNotExecuted
	}
	return node.ResultExecuted
}

// Resolve finds out what became of attempts whose result was never recorded, because the agent was killed or the disk
// was full, and records it. It never acts. It returns the attempts that it resolved, with their results, and an error
// that wraps ErrUnresolved for those that it could not; they stay unresolved and may be resolved later.
func (e *Executor) Resolve(ctx context.Context, unresolved []node.Attempt) ([]node.Attempt, error) {
	var resolved []node.Attempt
	var errs []error
	if planted.On("executor/resolve-nothing") {
		return nil, nil
	}
	for _, a := range unresolved {
		result, text, evidence, err := e.outcome(ctx, a)
		if err == nil {
			err = e.d.Journal.Result(a, result, text, evidence)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("resolve %s on %s: %w", a.Verb, a.Service, err))
			continue
		}
		a.Done, a.Result = true, result
		resolved = append(resolved, a)
		e.d.Logger.Info("resolved an action of an earlier run", "service", a.Service, "action", a.Verb,
			"action_id", a.ActionID, "result", result, "reason", text)
	}
	return resolved, errors.Join(errs...)
}

// outcome compares what the intent recorded with what is there now.
func (e *Executor) outcome(ctx context.Context, a node.Attempt) (r node.AttemptResult, text string, evidence map[string]string, err error) {
	if a.BootID != e.d.BootID {
		// Every process and invocation of that boot is gone, whether or not the act took place, so there is nothing left
		// to verify and nothing to repeat. "executed" would demand a verification that can never succeed.
		return node.ResultNotExecuted, "the machine was restarted since; the intent is moot", map[string]string{"boot_now": e.d.BootID}, nil
	}
	m, unit := e.d.Managers[a.Service], e.d.Units[a.Service]
	if m == nil || unit == "" {
		return "", "", nil, fmt.Errorf("%w: service is not configured any more", ErrUnresolved)
	}
	ctx, cancel := e.d.Within(ctx, recheckLimit)
	defer cancel()
	now, err := m.Status(ctx, unit)
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: read unit %q: %w", ErrUnresolved, unit, err)
	}
	if planted.On("executor/intent-means-execute") {
		_ = m.KillMain(ctx, unit, now)
	}
	switch r = Judge(a.Before, now); r {
	case node.ResultNotExecuted:
		text = "the agent ended before the act: the unit is still in the invocation of the intent"
	case node.ResultExecuted:
		text = "the agent ended before it recorded the act: the unit is not in the run of the intent any more"
	default:
		return "", "", nil, fmt.Errorf("%w: nothing is known of unit %q", ErrUnresolved, unit)
	}
	return r, text, map[string]string{
		"invocation_before": a.Before.InvocationID, "invocation_after": now.InvocationID,
		"main_pid_before": fmt.Sprint(a.Before.MainPID), "main_pid_after": fmt.Sprint(now.MainPID),
		"state_after": now.State.String(),
	}, nil
}
