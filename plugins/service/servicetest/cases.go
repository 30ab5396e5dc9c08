package servicetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// short is longer than any answer should take and shorter than anything that the suite makes slow.
const short = 300 * time.Millisecond

type suite struct{ Harness }

// status reads the status and fails t on error.
func (s suite) status(t *testing.T, unit string) service.Status {
	t.Helper()
	st, err := s.Manager.Status(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// until reads the status until ok accepts it.
func (s suite) until(t *testing.T, unit, what string, ok func(service.Status) bool) service.Status {
	t.Helper()
	for deadline := time.Now().Add(s.Patience); ; time.Sleep(10 * time.Millisecond) {
		st := s.status(t, unit)
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v, last status %+v", what, s.Patience, st)
		}
	}
}

func (s suite) untilState(t *testing.T, unit string, want service.State) service.Status {
	t.Helper()
	return s.until(t, unit, want.String(), func(st service.Status) bool { return st.State == want && st.Job == "" })
}

// up installs a service, starts it as an operator and returns its status.
func (s suite) up(t *testing.T, spec Service) service.Status {
	t.Helper()
	unit := s.Host.Install(t, spec)
	s.Host.Operate(t, Start, unit)
	return s.untilState(t, unit, service.StateRunning)
}

func wantIntent(t *testing.T, st service.Status, want service.Intent) {
	t.Helper()
	if got := st.Intent(); got != want {
		t.Errorf("got intent %v, want %v, of %+v", got, want, st)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func running(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure"})
	wantIntent(t, st, service.IntentRun)
	if st.MainPID <= 0 || st.InvocationID == "" || st.Restarts != 0 || st.Masked || st.Enablement != "enabled" {
		t.Errorf("got %+v", st)
	}
	if again := s.status(t, st.Unit); again != st {
		t.Errorf("nothing happened, but status went from %+v to %+v", st, again)
	}
}

func policies(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 100 * time.Millisecond, KillMode: "process", StartLimit: 4, StartLimitSpan: 9 * time.Second})
	if !st.RestartsOnKill() || !st.SparesChildren() || st.RestartDelay != 100*time.Millisecond || st.StartLimit != 4 || st.StartLimitSpan != 9*time.Second {
		t.Errorf("got %+v", st)
	}
}

func startTwice(t *testing.T, s suite) {
	unit := s.Host.Install(t, Service{})
	if st := s.status(t, unit); st.State != service.StateStopped || st.MainPID != 0 {
		t.Errorf("before the first start: %+v", st)
	}
	for range 2 {
		if err := s.Manager.Start(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
	}
	first := s.untilState(t, unit, service.StateRunning)
	if err := s.Manager.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if st := s.status(t, unit); st.MainPID != first.MainPID || st.InvocationID != first.InvocationID {
		t.Errorf("start of a running unit restarted it: %+v, then %+v", first, st)
	}
}

func crashed(t *testing.T, s suite) {
	before := s.up(t, Service{})
	s.Host.Crash(t, before.Unit)
	st := s.untilState(t, before.Unit, service.StateFailed)
	wantIntent(t, st, service.IntentRun)
	if st.MainPID != 0 {
		t.Errorf("got %+v", st)
	}
	if err := s.Manager.Start(t.Context(), before.Unit); err != nil {
		t.Fatal(err)
	}
	if st := s.untilState(t, before.Unit, service.StateRunning); st.InvocationID == before.InvocationID || st.MainPID == before.MainPID {
		t.Errorf("the revived unit is the old one: %+v", st)
	}
}

func crashExplained(t *testing.T, s suite) {
	st := s.up(t, Service{})
	s.Host.Crash(t, st.Unit)
	if st = s.untilState(t, st.Unit, service.StateFailed); st.Result != "signal" || st.ExitStatus != 9 {
		t.Errorf("got %+v", st)
	}
}

func autoRestarting(t *testing.T, s suite) {
	before := s.up(t, Service{Restart: "on-failure", RestartDelay: time.Second})
	s.Host.Crash(t, before.Unit)
	st := s.untilState(t, before.Unit, service.StateRestarting)
	wantIntent(t, st, service.IntentRun)
	if st.MainPID != 0 {
		t.Errorf("got %+v", st)
	}
	st = s.untilState(t, before.Unit, service.StateRunning)
	if st.InvocationID == before.InvocationID {
		t.Errorf("after the restart: %+v", st)
	}
}

// counts reports whether the manager says how often it restarted a unit.
func (s suite) counts() bool {
	_, lacks := s.Lacks[caseCounted]
	return !lacks
}

func restartsCounted(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond})
	for n := 1; n <= 2; n++ {
		killed := st.InvocationID
		s.Host.Crash(t, st.Unit)
		st = s.until(t, st.Unit, "another run", func(st service.Status) bool {
			return st.State == service.StateRunning && st.InvocationID != killed
		})
		if st.Restarts != n {
			t.Errorf("after %d restarts: %+v", n, st)
		}
	}
}

func startDuringAutoRestart(t *testing.T, s suite) {
	before := s.up(t, Service{Restart: "on-failure", RestartDelay: time.Second})
	s.Host.Crash(t, before.Unit)
	s.untilState(t, before.Unit, service.StateRestarting)
	if err := s.Manager.Start(t.Context(), before.Unit); err != nil {
		t.Fatal(err)
	}
	st := s.untilState(t, before.Unit, service.StateRunning)
	time.Sleep(time.Second + short)
	if later := s.status(t, before.Unit); later.InvocationID != st.InvocationID {
		t.Errorf("started twice: %+v, then %+v", st, later)
	}
}

// startLimit is FAULTS.md F05.
func startLimit(t *testing.T, s suite) {
	spec := Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond, StartLimit: 3, StartLimitSpan: time.Minute}
	st := s.up(t, spec)
	unit := st.Unit
	for st.State == service.StateRunning {
		s.Host.Crash(t, unit)
		killed := st.InvocationID
		st = s.until(t, unit, "replaced or failed", func(st service.Status) bool {
			return st.State == service.StateFailed || st.State == service.StateRunning && st.InvocationID != killed
		})
	}
	wantIntent(t, st, service.IntentRun)
	if s.counts() && st.Restarts < spec.StartLimit {
		t.Errorf("gave up after %d restarts: %+v", st.Restarts, st)
	}
	if err := s.Manager.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if st := s.untilState(t, unit, service.StateRunning); st.Restarts != 0 {
		t.Errorf("a start by a job has to count anew: %+v", st)
	}
}

// stopped is FAULTS.md F07.
func stopped(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond})
	s.Host.Operate(t, Stop, st.Unit)
	st = s.untilState(t, st.Unit, service.StateStopped)
	wantIntent(t, st, service.IntentStopped)
	if st.MainPID != 0 || st.Result != "" && st.Result != "success" {
		t.Errorf("got %+v", st)
	}
}

func stoppedUnclean(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond, StartLimit: 5, StartLimitSpan: 10 * time.Second, ExitOnStop: 3})
	s.Host.Operate(t, Stop, st.Unit)
	st = s.until(t, st.Unit, "down", func(st service.Status) bool { return st.MainPID == 0 && st.Job == "" })
	wantIntent(t, st, service.IntentStopped)
}

// disabled is FAULTS.md F08.
func disabled(t *testing.T, s suite) {
	st := s.up(t, Service{})
	s.Host.Operate(t, Disable, st.Unit)
	wantIntent(t, s.status(t, st.Unit), service.IntentRun)
	s.Host.Crash(t, st.Unit)
	wantIntent(t, s.untilState(t, st.Unit, service.StateFailed), service.IntentDisabled)
}

func masked(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "always"})
	s.Host.Operate(t, Mask, st.Unit)
	st = s.status(t, st.Unit)
	wantIntent(t, st, service.IntentMasked)
	if st.State != service.StateRunning || st.RestartsOnKill() {
		t.Errorf("masked while it runs: %+v", st)
	}
	s.Host.Crash(t, st.Unit)
	st = s.untilState(t, st.Unit, service.StateFailed)
	wantIntent(t, st, service.IntentMasked)
	if err := s.Manager.Start(t.Context(), st.Unit); err == nil {
		t.Error("a masked unit was started")
	}
	if st = s.status(t, st.Unit); st.MainPID != 0 {
		t.Errorf("a masked unit runs: %+v", st)
	}
}

// jobPending is FAULTS.md F09.
func jobPending(t *testing.T, s suite) {
	before := s.up(t, Service{StopTakes: 2 * time.Second})
	unit := before.Unit
	s.Host.Operate(t, BeginRestart, unit)
	st := s.until(t, unit, "job", func(st service.Status) bool { return st.Job != "" })
	wantIntent(t, st, service.IntentBusy)
	wantError(t, "start over a restart", s.Manager.Start(t.Context(), unit), service.ErrBusy)
	if now := s.status(t, unit); now.Job != st.Job {
		t.Errorf("the operator's job is gone: %+v", now)
	}
	if st = s.untilState(t, unit, service.StateRunning); st.InvocationID == before.InvocationID {
		t.Errorf("the operator's restart did not happen: %+v", st)
	}
}

func startJoins(t *testing.T, s suite) {
	unit := s.Host.Install(t, Service{StartTakes: time.Second})
	s.Host.Operate(t, BeginStart, unit)
	st := s.until(t, unit, "starting", func(st service.Status) bool { return st.State == service.StateStarting && st.MainPID != 0 })
	wantIntent(t, st, service.IntentBusy)
	if err := s.Manager.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if now := s.status(t, unit); now.State != service.StateRunning || now.MainPID != st.MainPID {
		t.Errorf("the operator's start was not waited for: %+v, then %+v", st, now)
	}
}

// calls runs every order and question once on unit, but for the orders that the manager lacks.
func (s suite) calls(ctx context.Context, unit string) map[string]error {
	want := service.Status{Unit: unit, MainPID: 1, InvocationID: "x"}
	_, err := s.Manager.Status(ctx, unit)
	errs := map[string]error{"status": err, "start": s.Manager.Start(ctx, unit)}
	if err := s.Manager.KillMain(ctx, unit, want); !errors.Is(err, errors.ErrUnsupported) {
		errs["kill"] = err
	}
	if r, ok := s.Manager.(service.Restarter); ok {
		if err := r.Restart(ctx, unit, want); !errors.Is(err, errors.ErrUnsupported) {
			errs["restart"] = err
		}
	}
	return errs
}

func unknownUnit(t *testing.T, s suite) {
	known := s.Host.Install(t, Service{})
	for name, err := range s.calls(t.Context(), "no-"+known) {
		wantError(t, name, err, service.ErrNotFound)
	}
}

func hostileNames(t *testing.T, s suite) {
	known := s.Host.Install(t, Service{})
	for _, unit := range []string{"", " ", ".", "..", "-h", "--all", "../" + known, "/etc/" + known, known + "\n", known + "\x00", known + " " + known, known + ";reboot", "*", "$(reboot)"} {
		for name, err := range s.calls(t.Context(), unit) {
			if err == nil {
				t.Errorf("%s of %q gave no error", name, unit)
			}
		}
	}
	if st := s.status(t, known); st.State != service.StateStopped {
		t.Errorf("a hostile name had an effect: %+v", st)
	}
}

func managerGone(t *testing.T, s suite) {
	st := s.up(t, Service{})
	restore := s.Host.Disconnect(t, false)
	for name, err := range s.calls(t.Context(), st.Unit) {
		wantError(t, name, err, service.ErrUnavailable)
	}
	restore()
	if now := s.status(t, st.Unit); now != st {
		t.Errorf("before %+v, afterwards %+v", st, now)
	}
}

func managerHangs(t *testing.T, s suite) {
	st := s.up(t, Service{})
	restore := s.Host.Disconnect(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	began := time.Now()
	for name, err := range s.calls(ctx, st.Unit) {
		wantError(t, name, err, service.ErrUnavailable)
		wantError(t, name, err, context.DeadlineExceeded)
	}
	if took := time.Since(began); took > 5*short {
		t.Errorf("a deadline of %v took %v", short, took)
	}
	restore()
	s.status(t, st.Unit)
}

func contextEnded(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "always"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range s.calls(ctx, st.Unit) {
		wantError(t, name, err, context.Canceled)
	}
	if now := s.status(t, st.Unit); now != st {
		t.Errorf("a cancelled call had an effect: %+v, then %+v", st, now)
	}
}

func concurrentUse(t *testing.T, s suite) {
	unit := s.Host.Install(t, Service{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := s.Manager.Status(t.Context(), unit); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			if err := s.Manager.Start(t.Context(), unit); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.untilState(t, unit, service.StateRunning)
}
