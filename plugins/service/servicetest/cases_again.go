package servicetest

import (
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The cases in this file are about what a person wanted, in the eyes of an agent that was not there when it was ordered, and
// about services that crash again and again. What is at stake is a service that somebody stopped and that an agent starts.

// again is the suite with another Manager, as an agent has it after its restart.
func (s suite) again(t *testing.T) suite {
	t.Helper()
	s.Manager = s.Again(t)
	return s
}

// wantUnwanted fails t if a service that a person has stopped, or does not want to run, looks as if it had crashed. That the
// manager is about to start it again may be believed for a moment by who has seen nothing: nobody acts upon that.
func (s suite) wantUnwanted(t *testing.T, what, unit string) {
	t.Helper()
	for deadline := time.Now().Add(2 * s.Patience); ; time.Sleep(10 * time.Millisecond) {
		st := s.status(t, unit)
		switch {
		case st.MainPID != 0:
			t.Errorf("%s runs: %+v", what, st)
		case st.Intent() != service.IntentRun:
		case st.State == service.StateRestarting && time.Now().Before(deadline):
			continue
		default:
			t.Errorf("%s looks like a crash: %+v", what, st)
		}
		return
	}
}

func (s suite) untilDown(t *testing.T, unit string) {
	t.Helper()
	s.until(t, unit, "down", func(st service.Status) bool {
		return st.MainPID == 0 && st.Job == "" && st.State != service.StateRunning && st.State != service.StateStopping
	})
}

// stoppedAgain stops services of all these kinds and lets a new agent look at them.
func (s suite) stoppedAgain(t *testing.T, specs map[string]Service) {
	t.Helper()
	units := map[string]string{}
	for what, spec := range specs {
		st := s.up(t, spec)
		s.Host.Operate(t, Stop, st.Unit)
		s.untilDown(t, st.Unit)
		units[what] = st.Unit
	}
	s = s.again(t)
	for what, unit := range units {
		s.wantUnwanted(t, what+", to a new agent,", unit)
	}
}

// stoppedAgain is FAULTS.md F07: whatever the restart policy is, and however the service ends when it is asked to stop.
func stoppedAgain(t *testing.T, s suite) {
	s.stoppedAgain(t, map[string]Service{
		"a stop of what is not restarted":    {Restart: "no"},
		"a stop of what is restarted":        {Restart: "on-failure", RestartDelay: 10 * time.Millisecond},
		"a stop of what is always restarted": {Restart: "always", RestartDelay: 10 * time.Millisecond},
		"a stop that ends with an error":     {Restart: "on-failure", RestartDelay: 10 * time.Millisecond, StartLimit: 5, StartLimitSpan: 10 * time.Second, ExitOnStop: 3},
	})
}

// forcedAgain: it did not react to being asked to stop.
func forcedAgain(t *testing.T, s suite) {
	s.stoppedAgain(t, map[string]Service{
		"a stop by force": {Restart: "always", RestartDelay: 10 * time.Millisecond, StartLimit: 5, StartLimitSpan: 10 * time.Second, Deaf: true, StopLimit: time.Second},
	})
}

// stopToldAgain: a new agent is told that it was a person.
func stopToldAgain(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond})
	s.Host.Operate(t, Stop, st.Unit)
	s.untilDown(t, st.Unit)
	wantIntent(t, s.again(t).status(t, st.Unit), service.IntentStopped)
}

// crashToldAgain: a new agent is told that nobody stopped it, and can bring it back.
func crashToldAgain(t *testing.T, s suite) {
	st := s.up(t, Service{})
	s.Host.Crash(t, st.Unit)
	s.untilState(t, st.Unit, service.StateFailed)
	s = s.again(t)
	wantIntent(t, s.untilState(t, st.Unit, service.StateFailed), service.IntentRun)
	if err := s.Manager.Start(t.Context(), st.Unit); err != nil {
		t.Fatal(err)
	}
	s.untilState(t, st.Unit, service.StateRunning)
}

// disabledAgain is FAULTS.md F08, for what a person has disabled, and what crashed afterwards.
func disabledAgain(t *testing.T, s suite) {
	st := s.up(t, Service{})
	s.Host.Operate(t, Disable, st.Unit)
	s.Host.Crash(t, st.Unit)
	s.untilDown(t, st.Unit)
	s.again(t).wantUnwanted(t, "disabled, to a new agent,", st.Unit)
}

// disabledStoppedAgain: a person disabled it, and stopped it too.
func disabledStoppedAgain(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond})
	s.Host.Operate(t, Disable, st.Unit)
	s.Host.Operate(t, Stop, st.Unit)
	s.untilDown(t, st.Unit)
	s.again(t).wantUnwanted(t, "disabled and stopped, to a new agent,", st.Unit)
}

// crashLoop is FAULTS.md F06: while the manager starts it again and again nobody has stopped anything, also to an agent that
// comes in between.
func crashLoop(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "always", RestartDelay: 10 * time.Millisecond})
	for range 3 {
		killed := st.InvocationID
		s.Host.Crash(t, st.Unit)
		s = s.again(t)
		st = s.until(t, st.Unit, "another run", func(st service.Status) bool {
			switch st.Intent() {
			case service.IntentStopped, service.IntentDisabled, service.IntentMasked:
				t.Fatalf("a crash loop looks like a stop: %+v", st)
			case service.IntentRun, service.IntentBusy, service.IntentUnknown:
			}
			return st.State == service.StateRunning && st.Job == "" && st.InvocationID != killed
		})
	}
}

// stoppedInCrashLoop: a stop between two runs counts as well.
func stoppedInCrashLoop(t *testing.T, s suite) {
	st := s.up(t, Service{Restart: "always", RestartDelay: time.Second})
	s.Host.Crash(t, st.Unit)
	s.untilState(t, st.Unit, service.StateRestarting)
	s.Host.Operate(t, Stop, st.Unit)
	s.untilDown(t, st.Unit)
	s.wantUnwanted(t, "a stop in a crash loop", st.Unit)
	time.Sleep(time.Second + short)
	s.again(t).wantUnwanted(t, "a stop in a crash loop, to a new agent,", st.Unit)
}

// goneAtStart: an agent that starts while the manager is gone knows nothing, says so, and finds it when it is back.
func goneAtStart(t *testing.T, s suite) {
	st := s.up(t, Service{})
	restore := s.Host.Disconnect(t, false)
	s = s.again(t)
	for name, err := range s.calls(t.Context(), st.Unit) {
		wantError(t, name, err, service.ErrUnavailable)
	}
	restore()
	if now := s.status(t, st.Unit); now.State != service.StateRunning || now.MainPID != st.MainPID {
		t.Errorf("before %+v, afterwards %+v", st, now)
	}
}
