// Package executor carries out one action of a plan, through the service manager that runs its target.
//
// It owns the order of steps around an act. It promises that nothing is done before an intent is durable in the journal;
// that nothing is done to a unit that is not the one that the action was decided for; that an act is tried once and
// never repeated, not even after a crash (FAULTS.md F101, S28); that every act ends by its deadline (FAULTS.md S29); and
// that whatever happened is recorded, also when the caller gave up meanwhile. It deliberately decides nothing: whether
// an action is right, allowed or effective is for engine and guard. It knows no process and sends no signal itself
// (FAULTS.md F104o).
//
//	            not the unit that was decided for,      append failed        lock lost, forbidden, ErrChanged
//	            or no budget        |                        |                        |
//	Execute: [lock] --> re-read --> claim ----> intent (durable) ---> [held?] permitted? --> act --> result (durable)
//	                        v                                v                        v            |
//	                  not executed                     not executed             not executed       | executed
//	                                                                                               v
//	after a crash:  Resolve: intent without result --> compare invocations --> result      Settle: verified or
//	                                                                                       unverified, unlock
package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Sentinel errors. Compare with errors.Is.
var (
	// ErrInFlight says that an action on the same service is being carried out, or that another disruptive action of this
	// machine has not been settled.
	ErrInFlight = errors.New("another action is in flight")
	// ErrChanged says that the target is not as it was when the action was decided. Nothing was done.
	ErrChanged = errors.New("target changed since the action was decided")
	// ErrInvalid says that the action names no known verb, service, unit or deadline. Nothing was done.
	ErrInvalid = errors.New("invalid action")
	// ErrUnresolved says that it cannot be found out yet whether an action of the past was carried out.
	ErrUnresolved = errors.New("outcome not known yet")
)

const (
	// pollEvery is how often a unit is looked at while it is awaited.
	pollEvery = 200 * time.Millisecond
	// recheckLimit bounds one look at a unit outside the deadline of an act.
	recheckLimit = 2 * time.Second
	// actWithin is how long after an action was handed over its act may begin. What it was decided from is too old then: the
	// machine slept meanwhile, or etcd took its time (FAULTS.md S3, S14, F57).
	actWithin = 5 * time.Second
	// releaseLimit bounds the release of the cluster lock; its lease ends it anyway.
	releaseLimit = 3 * time.Second
)

// Journal is what an executor needs of the journal. Both methods return only when the record is durable, and after an
// error the record does not exist.
type Journal interface {
	// Intent records that the action is about to be carried out and returns the attempt that this begins.
	Intent(a node.Action) (node.Attempt, error)
	// Result records how the attempt ended; text says what went wrong, if anything did.
	Result(a node.Attempt, r node.AttemptResult, text string, evidence map[string]string) error
}

// Locker is what the agents of a cluster share: the lock that one of them can hold while it disrupts something, and the
// budget that every action takes from (FAULTS.md S1, S2, S26).
type Locker interface {
	// Claim takes the action from the cluster's budget, and returns an error if that is spent or cannot be asked.
	Claim(ctx context.Context, a node.Action) error
	// Acquire takes the lock and returns an error if another holds it; purpose is shown to people.
	Acquire(ctx context.Context, purpose string) error
	// Held proves with a linearizable read that the lock is still this holder's.
	Held(ctx context.Context) error
	// Release gives the lock back. Releasing a lock that is not held does nothing.
	Release(ctx context.Context) error
}

// Deps is what an executor works with.
type Deps struct {
	Managers map[string]service.Manager // by service name
	Units    map[string]string          // unit by service name, to resolve attempts of an earlier run
	Journal  Journal
	Locker   Locker                  // nil: actions are fenced by the guards of this machine only
	Permit   func(node.Action) error // asked directly before the act: why people forbid it now; nil: nobody is asked
	Logger   *slog.Logger
	Now      func() node.Instant
	BootID   string // of this boot

	// Wait and Within are how time passes while an act runs; nil: as on every machine. The simulation has a clock of its
	// own. Wait returns early, with an error, if ctx ends.
	Wait   func(ctx context.Context, d time.Duration) error
	Within func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Executor carries out actions. All methods are safe for concurrent use.
type Executor struct {
	d Deps

	mu       sync.Mutex // guards all below
	inFlight map[string]bool
	locked   string // action that holds the cluster lock, empty if none does
}

// New returns an executor that has nothing in flight.
func New(d Deps) *Executor {
	if d.Wait == nil {
		d.Wait = wait
	}
	if d.Within == nil {
		d.Within = context.WithTimeout
	}
	return &Executor{d: d, inFlight: map[string]bool{}}
}

// Execute carries out the action once. The result says what happened to the target, the error what went wrong; both may
// be set: an act whose effect was not seen by the deadline is executed, with an error. ResultNotExecuted means that the
// target was not touched. The error wraps ErrInFlight, ErrChanged or ErrInvalid where one fits.
//
// ctx ends an act early only where leaving it is safe: once the main process of a unit was killed that its manager does
// not restart by itself, the unit is brought back first.
func (e *Executor) Execute(ctx context.Context, a node.Action) (node.AttemptResult, error) {
	m, err := e.manager(a)
	if err != nil {
		return node.ResultNotExecuted, fmt.Errorf("execute %s: %w", a.Verb, err)
	}
	if err := e.enter(a); err != nil {
		return node.ResultNotExecuted, fmt.Errorf("execute %s on %s: %w", a.Verb, a.Service, err)
	}
	defer e.leave(a)
	begun := e.d.Now()
	bounded, cancel := e.d.Within(ctx, a.Deadline)
	defer cancel()
	result, err := e.guarded(bounded, &run{e: e, m: m, a: a, begun: begun, end: begun.Add(a.Deadline), evidence: map[string]string{}})
	if result != node.ResultExecuted {
		err = errors.Join(err, e.unlock(ctx, a.ID))
	}
	if err != nil {
		return result, fmt.Errorf("execute %s on %s: %w", a.Verb, a.Service, err)
	}
	return result, nil
}

// guarded is the order of steps in the package comment.
func (e *Executor) guarded(ctx context.Context, r *run) (node.AttemptResult, error) {
	if err := e.lock(ctx, r.a); err != nil {
		return node.ResultNotExecuted, err
	}
	before, err := r.m.Status(ctx, r.a.Unit)
	if err != nil {
		return node.ResultNotExecuted, fmt.Errorf("read unit %q: %w", r.a.Unit, err)
	}
	if err := same(r.a, before); err != nil {
		return node.ResultNotExecuted, err
	}
	if err := ctx.Err(); err != nil {
		return node.ResultNotExecuted, err
	}
	if err := e.claim(ctx, r.a); err != nil {
		return node.ResultNotExecuted, err
	}
	if planted.On("executor/act-before-intent") {
		_, _ = r.act(ctx, before)
	}
	attempt, err := e.d.Journal.Intent(r.a)
	if err != nil {
		return node.ResultNotExecuted, err
	}
	failpoint("after-intent")
	result, err := e.fenced(ctx, r, before)
	failpoint("after-act")
	text := ""
	if err != nil {
		text = err.Error()
	}
	if planted.On("executor/forget-result") {
		return result, err
	}
	return result, errors.Join(err, e.d.Journal.Result(attempt, result, text, r.evidence))
}

// claim takes the action from the budget of the cluster. What is claimed and then not done stays spent: that errs to the
// side of doing less.
func (e *Executor) claim(ctx context.Context, a node.Action) error {
	if e.d.Locker == nil || !a.Shared() || planted.On("executor/nothing-is-claimed") {
		return nil
	}
	if planted.OnGuard("no-dcs") || planted.OnGuard("dcs-writable") || planted.On("engine/zombie-on-stale-view") {
		return nil
	}
	if err := e.d.Locker.Claim(ctx, a); err != nil {
		return fmt.Errorf("claim the cluster's budget: %w", err)
	}
	return nil
}

// fenced proves that the cluster lock is still held and that nobody has forbidden the act meanwhile, and acts. Both stand
// directly before the act, because a lock that is checked earlier is only a hope (FAULTS.md F103), and a pause is obeyed
// within a second.
func (e *Executor) fenced(ctx context.Context, r *run, before service.Status) (node.AttemptResult, error) {
	if e.locks(r.a) {
		if err := e.d.Locker.Held(ctx); err != nil {
			return node.ResultNotExecuted, fmt.Errorf("prove cluster lock: %w", err)
		}
	}
	if e.d.Permit != nil && !planted.On("executor/nobody-is-asked") {
		if err := e.d.Permit(r.a); err != nil {
			return node.ResultNotExecuted, fmt.Errorf("act: %w", err)
		}
	}
	if late := e.d.Now().Sub(r.begun); late > actWithin {
		return node.ResultNotExecuted, fmt.Errorf("act: %w: %s have passed since it was decided", ErrChanged, late.Round(time.Millisecond))
	}
	return r.act(ctx, before)
}

// Settle records whether the effect of an executed attempt was seen, and releases the cluster lock if the attempt held
// it. The result is ResultVerified or ResultUnverified.
func (e *Executor) Settle(ctx context.Context, a node.Attempt, r node.AttemptResult, text string) error {
	if r != node.ResultVerified && r != node.ResultUnverified {
		return fmt.Errorf("settle action %q as %q: %w", a.ActionID, r, ErrInvalid)
	}
	err := e.d.Journal.Result(a, r, text, nil)
	if err = errors.Join(err, e.unlock(ctx, a.ActionID)); err != nil {
		return fmt.Errorf("settle action %q: %w", a.ActionID, err)
	}
	return nil
}

// manager checks the action and returns the manager of its service.
func (e *Executor) manager(a node.Action) (service.Manager, error) {
	m := e.d.Managers[a.Service]
	switch {
	case m == nil:
		return nil, fmt.Errorf("%w: no manager for service %q", ErrInvalid, a.Service)
	case a.ID == "" || a.Unit == "":
		return nil, fmt.Errorf("%w: no id or no unit", ErrInvalid)
	case a.Deadline <= 0:
		return nil, fmt.Errorf("%w: no deadline", ErrInvalid)
	case a.Verb == node.Restart && a.Kind != "" && a.Kind != node.KindPatroni: // a restart of Patroni stops PostgreSQL
	case a.Verb != node.SoftKill && a.Verb != node.StartFailed:
		return nil, fmt.Errorf("%w: unknown verb, or one that is not for this kind of service", ErrInvalid)
	}
	return m, nil
}

// enter claims the service, and for a disruptive action the machine's one disruption.
func (e *Executor) enter(a node.Action) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inFlight[a.Service] {
		return ErrInFlight
	}
	if e.locks(a) {
		if e.locked != "" {
			return fmt.Errorf("%w: action %q is not settled", ErrInFlight, e.locked)
		}
		e.locked = a.ID
	}
	e.inFlight[a.Service] = true
	return nil
}

func (e *Executor) leave(a node.Action) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inFlight, a.Service)
}

// locks reports whether the action needs the cluster lock.
func (e *Executor) locks(a node.Action) bool {
	return a.Class == node.ClassDisrupt && e.d.Locker != nil
}

func (e *Executor) lock(ctx context.Context, a node.Action) error {
	if !e.locks(a) {
		return nil
	}
	if err := e.d.Locker.Acquire(ctx, fmt.Sprintf("%s %s: %s", a.Verb, a.Service, a.Finding)); err != nil {
		return fmt.Errorf("acquire cluster lock: %w", err)
	}
	return nil
}

// unlock releases the cluster lock if that action holds it. It does so although the caller may have given up.
func (e *Executor) unlock(ctx context.Context, actionID string) error {
	e.mu.Lock()
	held := e.locked != "" && e.locked == actionID
	e.mu.Unlock()
	if !held {
		return nil
	}
	ctx, cancel := e.d.Within(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	err := e.d.Locker.Release(ctx)
	e.mu.Lock()
	e.locked = ""
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("release cluster lock: %w", err)
	}
	return nil
}
