package servicetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Method names a method of service.Manager, service.Restarter, service.Limited or service.Watcher.
type Method string

// The methods that a Fake records and can be told to fail.
const (
	MethodStatus     Method = "status"
	MethodStart      Method = "start"
	MethodKillMain   Method = "kill-main"
	MethodRestart    Method = "restart"
	MethodLimits     Method = "limits"
	MethodClearLimit Method = "clear-limit" // recorded when a Start had to clear a start limit first
	MethodWatch      Method = "watch"
)

// Effect is one attempt to change something through a Fake, in order.
type Effect struct {
	Method Method
	Unit   string
	Err    error // nil if it was carried out
}

// Fake is a service manager in memory that behaves as systemd does: Restart policies, start limits, KillMode, jobs,
// masks, and a stop that fails. It implements service.Manager with every optional power but service.Polled, and [Host], is
// safe for concurrent use, and keeps time with the time package, so that it works inside a testing/synctest bubble. Make
// one with [NewFake].
type Fake struct {
	mu      sync.Mutex // guards all below and the units
	units   map[string]*unit
	effects []Effect
	faults  map[Method]error
	gone    bool          // unreachable
	hung    chan struct{} // not nil: reachable but silent until it is closed
	lost    chan struct{} // closed and replaced when the manager goes away
	watches map[*fakeWatch]struct{}
	ids     int // last pid or invocation given out
}

type fakeWatch struct {
	units map[string]bool
	wake  func()
}

var (
	_ service.Manager   = (*Fake)(nil)
	_ service.Restarter = (*Fake)(nil)
	_ service.Limited   = (*Fake)(nil)
	_ service.Watcher   = (*Fake)(nil)
	_ Host              = (*Fake)(nil)
)

// NewFake returns a Fake without units.
func NewFake() *Fake {
	return &Fake{
		units:   map[string]*unit{},
		faults:  map[Method]error{},
		lost:    make(chan struct{}),
		watches: map[*fakeWatch]struct{}{},
		ids:     1000,
	}
}

// Add makes a stopped, enabled service known under the given unit name, replacing any of that name.
func (f *Fake) Add(name string, s Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Restart == "" {
		s.Restart = "no"
	}
	if s.KillMode == "" {
		s.KillMode = "control-group"
	}
	if old := f.units[name]; old != nil {
		old.cancel()
	}
	f.units[name] = &unit{fake: f, spec: s, Status: service.Status{
		Unit: name, State: service.StateStopped, Result: "success", Enablement: "enabled",
		KillMode: s.KillMode, Restart: s.Restart, RestartDelay: s.RestartDelay,
		StartLimit: s.StartLimit, StartLimitSpan: s.StartLimitSpan,
		ControlGroup: "/system.slice/" + name, OOMPolicy: "stop", UnitFile: "/etc/systemd/system/" + name,
	}}
	f.wake(name)
}

// Set changes the status of a unit at will and wakes its watchers. What the Fake would do next by itself (an automatic
// restart, the end of a job) still happens.
func (f *Fake) Set(name string, change func(*service.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.units[name]; u != nil {
		change(&u.Status)
		f.wake(name)
	}
}

// Fail makes every call of a method return err, or work again if err is nil. A failing method has no effect.
func (f *Fake) Fail(m Method, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[m] = err
}

// Effects returns a copy of everything that was attempted through Start, KillMain and Restart.
func (f *Fake) Effects() []Effect {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Effect(nil), f.effects...)
}

// Unprivileged returns the same manager as a caller without rights sees it: reading works, nothing else.
func (f *Fake) Unprivileged() service.Manager { return unprivileged{f} }

type unprivileged struct{ *Fake }

func (u unprivileged) Start(_ context.Context, unit string) error {
	return u.refuse(MethodStart, unit)
}

func (u unprivileged) KillMain(_ context.Context, unit string, _ service.Status) error {
	return u.refuse(MethodKillMain, unit)
}

func (u unprivileged) Restart(_ context.Context, unit string, _ service.Status) error {
	return u.refuse(MethodRestart, unit)
}

func (u unprivileged) Limits(_ context.Context, unit string) error {
	return fmt.Errorf("%s, %s, %s of %q: %w", MethodStart, MethodKillMain, MethodRestart, unit, service.ErrPermission)
}

func (f *Fake) refuse(m Method, unit string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.record(m, unit, fmt.Errorf("%s %q: %w", m, unit, service.ErrPermission))
}

// record notes an effect and returns its error. The caller holds f.mu.
func (f *Fake) record(m Method, unit string, err error) error {
	f.effects = append(f.effects, Effect{Method: m, Unit: unit, Err: err})
	return err
}

// reach blocks while the manager hangs, and says whether a call gets through at all.
func (f *Fake) reach(ctx context.Context, m Method) error {
	f.mu.Lock()
	gone, hung, fault := f.gone, f.hung, f.faults[m]
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return unanswered(err)
	}
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			return unanswered(ctx.Err())
		}
	}
	if gone {
		return service.ErrUnavailable
	}
	return fault
}

func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	return err
}

// Status implements service.Manager.
func (f *Fake) Status(ctx context.Context, name string) (service.Status, error) {
	if err := f.reach(ctx, MethodStatus); err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.units[name]
	if u == nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", name, service.ErrNotFound)
	}
	return u.Status, nil
}

// Start implements service.Manager.
func (f *Fake) Start(ctx context.Context, name string) error {
	done, err := f.startJob(ctx, name)
	return f.finish(ctx, MethodStart, name, done, err)
}

// finish waits for a job that was enqueued, unless that failed or the job ended at once, and records what came of it.
func (f *Fake) finish(ctx context.Context, m Method, name string, done <-chan error, err error) error {
	if err == nil && done != nil {
		select {
		case err = <-done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("%s unit %q: %w", m, name, err)
	}
	return f.record(m, name, err)
}

// startJob enqueues a start. The channel tells how the job ended; it is nil if it ended at once.
func (f *Fake) startJob(ctx context.Context, name string) (<-chan error, error) {
	if err := f.reach(ctx, MethodStart); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.units[name]
	switch {
	case u == nil:
		return nil, service.ErrNotFound
	case u.Job != "" && u.Job != "start":
		return nil, fmt.Errorf("%w: %s", service.ErrBusy, u.Job)
	case u.Masked:
		return nil, errors.New("unit is masked")
	case u.LoadError != "":
		return nil, errors.New("unit has a " + u.LoadError)
	}
	if u.State == service.StateFailed {
		f.effects = append(f.effects, Effect{Method: MethodClearLimit, Unit: name})
		u.starts = nil
	}
	return u.begin()
}

// KillMain implements service.Manager.
func (f *Fake) KillMain(ctx context.Context, name string, want service.Status) error {
	err := f.reach(ctx, MethodKillMain)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		err = f.units[name].check(want)
	}
	if err == nil {
		f.units[name].die("signal", 9)
	} else {
		err = fmt.Errorf("kill main process of %q: %w", name, err)
	}
	return f.record(MethodKillMain, name, err)
}

// Restart implements service.Restarter.
func (f *Fake) Restart(ctx context.Context, name string, want service.Status) error {
	done, err := f.restartJob(ctx, name, want)
	return f.finish(ctx, MethodRestart, name, done, err)
}

func (f *Fake) restartJob(ctx context.Context, name string, want service.Status) (<-chan error, error) {
	if err := f.reach(ctx, MethodRestart); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.units[name]
	if u != nil && u.Job != "" {
		return nil, fmt.Errorf("%w: %s", service.ErrBusy, u.Job)
	}
	if err := u.check(want); err != nil {
		return nil, err
	}
	return u.stop("restart"), nil
}

// Limits implements service.Limited: none, unless it was told to fail.
func (f *Fake) Limits(ctx context.Context, name string) error {
	if err := f.reach(ctx, MethodLimits); err != nil {
		return fmt.Errorf("find limits on %q: %w", name, err)
	}
	return nil
}

// Watch implements service.Watcher.
func (f *Fake) Watch(ctx context.Context, units []string, wake func()) error {
	if err := f.reach(ctx, MethodWatch); err != nil {
		return fmt.Errorf("watch units: %w", err)
	}
	w := &fakeWatch{units: map[string]bool{}, wake: wake}
	for _, u := range units {
		w.units[u] = true
	}
	f.mu.Lock()
	f.watches[w] = struct{}{}
	lost := f.lost
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watches, w)
		f.mu.Unlock()
	}()
	wake()
	select {
	case <-ctx.Done():
		return fmt.Errorf("watch units: %w", ctx.Err())
	case <-lost:
		return fmt.Errorf("watch units: %w", service.ErrUnavailable)
	}
}

// wake tells the watchers of a unit. The caller holds f.mu; wake-ups may not block nor call back.
func (f *Fake) wake(name string) {
	for w := range f.watches {
		if w.units[name] {
			w.wake()
		}
	}
}

// Install implements Host.
func (f *Fake) Install(t testing.TB, s Service) string {
	f.mu.Lock()
	f.ids++
	name := fmt.Sprintf("test-%d.service", f.ids)
	f.mu.Unlock()
	f.Add(name, s)
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.units[name].cancel()
		delete(f.units, name)
	})
	return name
}

// Operate implements Host.
func (f *Fake) Operate(t testing.TB, verb Verb, name string) {
	t.Helper()
	f.mu.Lock()
	u := f.units[name]
	if u == nil {
		f.mu.Unlock()
		t.Fatalf("%s %s: %v", verb, name, service.ErrNotFound)
	}
	var done <-chan error
	var err error
	switch verb {
	case Start, BeginStart:
		done, err = u.begin()
	case Stop:
		done = u.stop("stop")
	case BeginRestart:
		done = u.stop("restart")
	case Enable:
		u.Enablement = "enabled"
	case Disable:
		u.Enablement = "disabled"
	case Mask:
		u.Enablement, u.Masked = "masked", true
	}
	f.wake(name)
	f.mu.Unlock()
	if done != nil && !strings.HasPrefix(string(verb), "begin-") {
		err = <-done
	}
	if err != nil {
		t.Fatalf("%s %s: %v", verb, name, err)
	}
}

// Crash implements Host.
func (f *Fake) Crash(_ testing.TB, name string) { f.CrashWith(name, "signal", 9) }

// Freeze implements Host.
func (f *Fake) Freeze(_ testing.TB, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.units[name]; u != nil {
		u.frozen = true
	}
}

// CrashWith ends the main process of a unit, as the given systemd result and exit status. It does nothing to a unit
// without a main process.
func (f *Fake) CrashWith(name, result string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.units[name]; u != nil && u.MainPID != 0 {
		u.die(result, status)
	}
}

// Children implements Host.
func (f *Fake) Children(_ testing.TB, name string) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.units[name]; u != nil {
		return append([]int(nil), u.children...)
	}
	return nil
}

// Disconnect implements Host. Units go on living meanwhile.
func (f *Fake) Disconnect(_ testing.TB, hang bool) (restore func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if hang {
		hung := make(chan struct{})
		f.hung = hung
		return sync.OnceFunc(func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.hung = nil
			close(hung)
		})
	}
	f.gone = true
	close(f.lost)
	f.lost = make(chan struct{})
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.gone = false
	}
}

// Units returns the status of every unit, by name.
func (f *Fake) Units() map[string]service.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]service.Status{}
	for name, u := range f.units {
		all[name] = u.Status
	}
	return all
}
