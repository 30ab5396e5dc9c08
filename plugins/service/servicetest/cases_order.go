package servicetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// order is what a manager does to a unit that was observed.
type order func(ctx context.Context, unit string, want service.Status) error

// restarter returns the order Restart of m and skips t if there is none.
func restarter(t *testing.T, m service.Manager) order {
	t.Helper()
	r, ok := m.(service.Restarter)
	if !ok {
		t.Skip("this manager does not restart")
	}
	return r.Restart
}

func startPermission(t *testing.T, s suite) {
	st := s.up(t, Service{})
	s.Host.Operate(t, Stop, st.Unit)
	s.untilState(t, st.Unit, service.StateStopped)
	wantError(t, "start", s.Unprivileged.Start(t.Context(), st.Unit), service.ErrPermission)
	if now := s.status(t, st.Unit); now.State != service.StateStopped {
		t.Errorf("a refused start had an effect: %+v", now)
	}
}

func deadlineDuringStart(t *testing.T, s suite) {
	unit := s.Host.Install(t, Service{StartTakes: 2 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	began := time.Now()
	wantError(t, "start", s.Manager.Start(ctx, unit), context.DeadlineExceeded)
	if took := time.Since(began); took > 5*short {
		t.Errorf("a deadline of %v took %v", short, took)
	}
	s.untilState(t, unit, service.StateRunning)
}

// killMain is the golden heal, FAULTS.md L2.
func killMain(t *testing.T, s suite) {
	before := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond})
	s.kill(t, before)
	wantError(t, "kill again", s.Manager.KillMain(t.Context(), before.Unit, before), service.ErrChanged)
}

// kill kills the main process and waits for the next run. A unit that its manager leaves dead has to look like a crash,
// so that it can be brought back.
func (s suite) kill(t *testing.T, before service.Status) {
	t.Helper()
	if err := s.Manager.KillMain(t.Context(), before.Unit, before); err != nil {
		t.Fatal(err)
	}
	restarts := 1
	if !before.RestartsOnKill() {
		restarts = 0
		wantIntent(t, s.untilState(t, before.Unit, service.StateFailed), service.IntentRun)
		if err := s.Manager.Start(t.Context(), before.Unit); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.untilNewRun(t, before); st.MainPID == before.MainPID || s.counts() && st.Restarts != restarts {
		t.Errorf("got %+v", st)
	}
}

func (s suite) untilNewRun(t *testing.T, before service.Status) service.Status {
	t.Helper()
	return s.until(t, before.Unit, "another run", func(st service.Status) bool {
		return st.State == service.StateRunning && st.Job == "" && st.InvocationID != before.InvocationID
	})
}

func killMainOnly(t *testing.T, s suite) {
	before := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond, KillMode: "process", Child: true})
	s.until(t, before.Unit, "child", func(service.Status) bool { return len(s.Host.Children(t, before.Unit)) > 0 })
	children := s.Host.Children(t, before.Unit)
	if !before.SparesChildren() {
		t.Errorf("it does not say that it spares children: %+v", before)
	}
	s.kill(t, before)
	if now := s.Host.Children(t, before.Unit); !slices.Contains(now, children[0]) {
		t.Errorf("child %d died with the main process, left are %v", children[0], now)
	}
}

func killMainChanged(t *testing.T, s suite) {
	s.refusesChanged(t, s.Manager.KillMain)
}

func killMainStopped(t *testing.T, s suite) {
	s.refusesStopped(t, s.Manager.KillMain)
}

func killMainPermission(t *testing.T, s suite) {
	s.refusesPermission(t, s.Unprivileged.KillMain)
}

// refusesChanged: do does nothing to a unit that is another one than the one observed.
func (s suite) refusesChanged(t *testing.T, do order) {
	st := s.up(t, Service{})
	otherPID, otherRun := st, st
	otherPID.MainPID++
	otherRun.InvocationID = "00000000000000000000000000000000"
	for name, want := range map[string]service.Status{"pid": otherPID, "invocation": otherRun, "nothing": {}} {
		wantError(t, name, do(t.Context(), st.Unit, want), service.ErrChanged)
	}
	time.Sleep(short)
	if now := s.status(t, st.Unit); now != st {
		t.Errorf("refused orders had an effect: %+v, then %+v", st, now)
	}
}

// refusesStopped: do does nothing to a unit that was stopped (FAULTS.md F07), whatever it is told about it.
func (s suite) refusesStopped(t *testing.T, do order) {
	before := s.up(t, Service{})
	s.Host.Operate(t, Stop, before.Unit)
	down := s.untilState(t, before.Unit, service.StateStopped)
	wantError(t, "what ran", do(t.Context(), before.Unit, before), service.ErrChanged)
	wantError(t, "what does not run", do(t.Context(), before.Unit, down), service.ErrChanged)
	time.Sleep(short)
	if now := s.status(t, before.Unit); now.State != service.StateStopped || now.MainPID != 0 {
		t.Errorf("refused orders had an effect: %+v, then %+v", down, now)
	}
}

// refusesPermission: do does nothing for a caller without rights.
func (s suite) refusesPermission(t *testing.T, do order) {
	st := s.up(t, Service{})
	wantError(t, "order", do(t.Context(), st.Unit, st), service.ErrPermission)
	time.Sleep(short)
	if now := s.status(t, st.Unit); now != st {
		t.Errorf("a refused order had an effect: %+v, then %+v", st, now)
	}
}

// restart also shows that no restart policy is needed.
func restart(t *testing.T, s suite) {
	s.restarts(t, s.up(t, Service{Restart: "no"}))
}

// restartFrozen is FAULTS.md F72: a process that does not run cannot react to being asked to stop.
func restartFrozen(t *testing.T, s suite) {
	st := s.up(t, Service{StopLimit: time.Second})
	s.Host.Freeze(t, st.Unit)
	if now := s.status(t, st.Unit); now != st {
		t.Errorf("a frozen process is no business of a manager: %+v, then %+v", st, now)
	}
	s.restarts(t, st)
}

func restartDeaf(t *testing.T, s suite) {
	s.restarts(t, s.up(t, Service{Deaf: true, StopLimit: time.Second}))
}

func (s suite) restarts(t *testing.T, before service.Status) {
	t.Helper()
	do := restarter(t, s.Manager)
	if err := do(t.Context(), before.Unit, before); err != nil {
		t.Fatal(err)
	}
	st := s.status(t, before.Unit)
	wantIntent(t, st, service.IntentRun)
	if st.State != service.StateRunning || st.MainPID == before.MainPID || st.InvocationID == before.InvocationID || st.Restarts != 0 {
		t.Errorf("before %+v, afterwards %+v", before, st)
	}
	wantError(t, "restart again", do(t.Context(), before.Unit, before), service.ErrChanged)
}

func restartChanged(t *testing.T, s suite) { s.refusesChanged(t, restarter(t, s.Manager)) }

func restartStopped(t *testing.T, s suite) { s.refusesStopped(t, restarter(t, s.Manager)) }

func restartPermission(t *testing.T, s suite) { s.refusesPermission(t, restarter(t, s.Unprivileged)) }

// restartBusy is FAULTS.md F09. What the operator's restart would have to be waited for is not known to be the same.
func restartBusy(t *testing.T, s suite) {
	do := restarter(t, s.Manager)
	before := s.up(t, Service{StopTakes: 2 * time.Second})
	s.Host.Operate(t, BeginRestart, before.Unit)
	busy := s.until(t, before.Unit, "job", func(st service.Status) bool { return st.Job != "" })
	for name, want := range map[string]service.Status{"as before": before, "as it is now": busy} {
		wantError(t, name, do(t.Context(), before.Unit, want), service.ErrBusy)
	}
	st := s.untilNewRun(t, before)
	time.Sleep(short)
	if now := s.status(t, before.Unit); now != st {
		t.Errorf("the operator's restart was not the only one: %+v, then %+v", st, now)
	}
}

func deadlineDuringRestart(t *testing.T, s suite) {
	do := restarter(t, s.Manager)
	before := s.up(t, Service{StopTakes: 2 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	began := time.Now()
	wantError(t, "restart", do(ctx, before.Unit, before), context.DeadlineExceeded)
	if took := time.Since(began); took > 5*short {
		t.Errorf("a deadline of %v took %v", short, took)
	}
	s.untilNewRun(t, before)
}

// unsupported: an order that a manager lacks says so and does nothing.
func unsupported(t *testing.T, s suite) {
	lacking := map[string]order{}
	if _, lacks := s.Lacks[caseKillMain]; lacks {
		lacking["kill main"] = s.Manager.KillMain
	}
	if r, ok := s.Manager.(service.Restarter); ok {
		if _, lacks := s.Lacks[caseRestart]; lacks {
			lacking["restart"] = r.Restart
		}
	}
	if len(lacking) == 0 {
		t.Skip("it has every order")
	}
	st := s.up(t, Service{})
	for name, do := range lacking {
		wantError(t, name, do(t.Context(), st.Unit, st), errors.ErrUnsupported)
	}
	time.Sleep(short)
	if now := s.status(t, st.Unit); now != st {
		t.Errorf("an unsupported order had an effect: %+v, then %+v", st, now)
	}
}

// limits asks m for its limits on a stopped and on a running unit, and checks that asking does nothing.
func (s suite) limits(t *testing.T, m service.Manager, check func(what string, err error)) {
	t.Helper()
	l, ok := m.(service.Limited)
	if !ok {
		t.Skip("this manager does not say what it refuses")
	}
	up := s.up(t, Service{Restart: "always"})
	down := s.status(t, s.Host.Install(t, Service{}))
	for what, st := range map[string]service.Status{"running": up, "stopped": down} {
		check(what, l.Limits(t.Context(), st.Unit))
		time.Sleep(short)
		if now := s.status(t, st.Unit); now != st {
			t.Errorf("asking had an effect: %+v, then %+v", st, now)
		}
	}
}

func limitsNone(t *testing.T, s suite) {
	s.limits(t, s.Manager, func(what string, err error) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
}

func limitsFound(t *testing.T, s suite) {
	s.limits(t, s.Unprivileged, func(what string, err error) { wantError(t, what, err, service.ErrPermission) })
}
