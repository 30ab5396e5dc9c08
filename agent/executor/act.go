package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// same refuses an action whose target is not the one that it was decided for, or that somebody else has taken in hand:
// between decision and act the operator may have come (DESIGN.md §1.3).
func same(a node.Action, now service.Status) error {
	switch {
	case now.InvocationID != a.Before.InvocationID:
		return fmt.Errorf("%w: %s is in invocation %q, not %q", ErrChanged, a.Unit, now.InvocationID, a.Before.InvocationID)
	case now.MainPID != a.Before.MainPID:
		return fmt.Errorf("%w: main process of %s is %d, not %d", ErrChanged, a.Unit, now.MainPID, a.Before.MainPID)
	case now.Intent() != service.IntentRun:
		return fmt.Errorf("%w: %s is not meant to run now: %s", ErrChanged, a.Unit, now.Intent())
	case now.LoadError != "":
		return fmt.Errorf("%w: the definition of %s is unusable, it would not start: %s", ErrChanged, a.Unit, now.LoadError)
	}
	switch a.Verb {
	case node.SoftKill:
		if now.MainPID <= 0 || (now.State != service.StateRunning && now.State != service.StateStarting) {
			return fmt.Errorf("%w: %s is %s with main process %d, nothing to kill", ErrChanged, a.Unit, now.State, now.MainPID)
		}
	case node.StartFailed:
		if now.State != service.StateFailed {
			return fmt.Errorf("%w: %s is %s, not failed", ErrChanged, a.Unit, now.State)
		}
	case node.Restart:
		if now.State != service.StateRunning {
			return fmt.Errorf("%w: %s is %s, not running", ErrChanged, a.Unit, now.State)
		}
	}
	return nil
}

// run is one action on its way.
type run struct {
	e        *Executor
	m        service.Manager
	a        node.Action
	begun    node.Instant // when the action was handed over
	end      node.Instant // deadline of the act
	evidence map[string]string
}

// act carries out the verb and collects the evidence.
func (r *run) act(ctx context.Context, before service.Status) (node.AttemptResult, error) {
	began := r.e.d.Now()
	r.note("invocation_before", before.InvocationID)
	log := r.e.d.Logger.With("service", r.a.Service, "unit", r.a.Unit, "action", r.a.Verb, "reason", r.a.Finding)
	log.Info("acting", "action_id", r.a.ID, "main_pid", before.MainPID, "invocation", before.InvocationID)
	var result node.AttemptResult
	var err error
	switch r.a.Verb {
	case node.SoftKill:
		result, err = r.softKill(ctx, before)
	case node.StartFailed:
		result, err = r.startFailed(ctx)
	case node.Restart:
		result, err = r.restart(ctx, before)
	}
	took := r.e.d.Now().Sub(began)
	r.note("duration", took.String())
	if err != nil {
		log.Warn("act ended with an error", "result", result, "duration", took, "err", err)
		return result, err
	}
	log.Info("acted", "result", result, "duration", took, "invocation", r.evidence["invocation_after"])
	return result, nil
}

// softKill kills the main process of the unit and waits until the unit runs in another invocation.
func (r *run) softKill(ctx context.Context, before service.Status) (node.AttemptResult, error) {
	began := r.e.d.Now()
	if err := r.m.KillMain(ctx, r.a.Unit, before); err != nil {
		return r.afterError(ctx, "kill main process", err)
	}
	r.note("killed_pid", fmt.Sprint(before.MainPID))
	if !before.RestartsOnKill() {
		// Giving up now would leave the unit dead by the agent's own hand.
		var cancel context.CancelFunc
		ctx, cancel = r.e.d.Within(context.WithoutCancel(ctx), r.end.Sub(began))
		defer cancel()
	}
	err := r.awaitNewRun(ctx, before)
	r.note("gap", r.e.d.Now().Sub(began).String())
	return node.ResultExecuted, err
}

// awaitNewRun polls until the unit is up in another run. A unit that its manager leaves dead after the kill is started,
// once. Failing to read the unit means only that nothing is known yet.
func (r *run) awaitNewRun(ctx context.Context, before service.Status) error {
	var last error
	started, dead := false, 0
	for {
		now, err := r.m.Status(ctx, r.a.Unit)
		if last = err; err == nil {
			r.note("invocation_after", now.InvocationID)
			switch again := newRun(before, now); {
			case again && (now.State == service.StateRunning || now.State == service.StateStarting):
				return nil
			case again && now.State == service.StateFailed:
				return fmt.Errorf("unit %q came back and failed: %s", r.a.Unit, now.Result)
			case leftDead(now):
				dead++
			}
			// A manager that restarts by itself may show a failure for a moment before it does.
			if !started && dead > 0 && (dead > 1 || !before.RestartsOnKill()) {
				started = true
				if err := r.bringBack(ctx); err != nil {
					return err
				}
				continue
			}
		}
		if err := r.e.d.Wait(ctx, pollEvery); err != nil {
			return errors.Join(fmt.Errorf("await new run of unit %q: %w", r.a.Unit, err), last)
		}
	}
}

// wait lets real time pass.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newRun reports whether now shows another run of the unit than before. Managers without invocations are told by the
// main process.
func newRun(before, now service.Status) bool {
	if before.InvocationID == "" {
		return now.MainPID != 0 && now.MainPID != before.MainPID
	}
	return now.InvocationID != "" && now.InvocationID != before.InvocationID
}

// leftDead reports whether the unit failed and nobody is about to start it. A unit that somebody stopped or masked
// meanwhile stays as it is. A disabled one ran until the agent killed it, so it is brought back.
func leftDead(s service.Status) bool {
	intent := s.Intent()
	return s.State == service.StateFailed && (intent == service.IntentRun || intent == service.IntentDisabled)
}

func (r *run) bringBack(ctx context.Context) error {
	r.note("started_by_agent", "true")
	err := r.m.Start(ctx, r.a.Unit)
	if err != nil && !errors.Is(err, service.ErrBusy) { // busy: somebody is at it, so waiting is enough
		return fmt.Errorf("start unit %q after the kill: %w", r.a.Unit, err)
	}
	return nil
}

// startFailed starts a failed unit once. Whether the service is well afterwards is for verification to see.
func (r *run) startFailed(ctx context.Context) (node.AttemptResult, error) {
	if err := r.m.Start(ctx, r.a.Unit); err != nil {
		return r.afterError(ctx, "start unit", err)
	}
	if now, err := r.look(ctx); err == nil {
		r.note("invocation_after", now.InvocationID)
		r.note("state_after", now.State.String())
	}
	return node.ResultExecuted, nil
}

// restart ends the run of a unit and starts another. Whether the service is well afterwards is for verification to see.
func (r *run) restart(ctx context.Context, before service.Status) (node.AttemptResult, error) {
	m, ok := r.m.(service.Restarter)
	if !ok {
		return node.ResultNotExecuted, fmt.Errorf("restart unit %q: %w by its manager", r.a.Unit, errors.ErrUnsupported)
	}
	if err := m.Restart(ctx, r.a.Unit, before); err != nil {
		return r.afterError(ctx, "restart unit", err)
	}
	if now, err := r.look(ctx); err == nil {
		r.note("invocation_after", now.InvocationID)
		r.note("state_after", now.State.String())
	}
	return node.ResultExecuted, nil
}

// afterError finds out what came of an act that returned an error. A manager whose answer was lost may have carried it
// out all the same, so the unit is looked at; only a unit that is as it was counts as failed for certain.
func (r *run) afterError(ctx context.Context, verb string, err error) (node.AttemptResult, error) {
	err = fmt.Errorf("%s %q: %w", verb, r.a.Unit, err)
	if errors.Is(err, service.ErrChanged) || errors.Is(err, service.ErrBusy) {
		return node.ResultNotExecuted, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	now, lookErr := r.look(ctx)
	if lookErr != nil {
		r.note("unit_after", "not known: "+lookErr.Error())
		return node.ResultFailed, err
	}
	r.note("invocation_after", now.InvocationID)
	r.note("state_after", now.State.String())
	if Judge(r.a.Before, now) == node.ResultExecuted || now.Job == "start" {
		return node.ResultExecuted, err
	}
	return node.ResultFailed, err
}

// look reads the unit although the act's own time may be over.
func (r *run) look(ctx context.Context) (service.Status, error) {
	ctx, cancel := r.e.d.Within(context.WithoutCancel(ctx), recheckLimit)
	defer cancel()
	return r.m.Status(ctx, r.a.Unit)
}

func (r *run) note(key, value string) {
	if value != "" {
		r.evidence[key] = value
	}
}
