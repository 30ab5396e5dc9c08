package servicetest

import (
	"context"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// watching is a Watch in progress.
type watching struct {
	woken chan struct{}
	ended chan error
	stop  context.CancelFunc
	quiet time.Duration // how long nothing has to happen until nothing more is expected
}

// watch starts a Watch, waits for its first wake-up and lets things settle.
func (s suite) watch(t *testing.T, units ...string) watching {
	t.Helper()
	w, ok := s.Manager.(service.Watcher)
	if !ok {
		t.Skip("this manager cannot tell of changes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := watching{woken: make(chan struct{}, 1), ended: make(chan error, 1), stop: cancel, quiet: short}
	if p, ok := s.Manager.(service.Polled); ok {
		v.quiet += p.Every()
	}
	go func() {
		v.ended <- w.Watch(ctx, units, func() {
			select {
			case v.woken <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-v.ended
	})
	v.wantWake(t, s.Patience, "subscription")
	v.settle()
	return v
}

// settle waits until nothing woke for a while.
func (v watching) settle() {
	for quiet := false; !quiet; {
		select {
		case <-v.woken:
		case <-time.After(v.quiet):
			quiet = true
		}
	}
}

func (v watching) wantWake(t *testing.T, patience time.Duration, what string) {
	t.Helper()
	select {
	case <-v.woken:
	case err := <-v.ended:
		v.ended <- err
		t.Fatalf("%s: watch ended: %v", what, err)
	case <-time.After(patience):
		t.Fatalf("%s: not woken", what)
	}
}

func (v watching) wantEnd(t *testing.T, patience time.Duration, want error) {
	t.Helper()
	select {
	case err := <-v.ended:
		v.ended <- err
		wantError(t, "watch", err, want)
	case <-time.After(patience):
		t.Fatal("watch did not end")
	}
}

func watchWakes(t *testing.T, s suite) {
	st := s.up(t, Service{})
	other := s.up(t, Service{})
	v := s.watch(t, st.Unit)
	s.Host.Crash(t, st.Unit)
	v.wantWake(t, s.Patience, "crash")
	s.untilState(t, st.Unit, service.StateFailed)
	v.settle()
	if err := s.Manager.Start(t.Context(), st.Unit); err != nil {
		t.Fatal(err)
	}
	v.wantWake(t, s.Patience, "start")
	v.settle()
	s.Host.Crash(t, other.Unit)
	s.untilState(t, other.Unit, service.StateFailed)
	select {
	case <-v.woken:
		t.Error("woken by a unit that is not watched")
	case <-time.After(v.quiet):
	}
}

// wakeLimit is how long after a change a manager may take to wake, besides the pause between two looks if it polls.
const wakeLimit = time.Second

// watchInTime measures from the moment at which the operator's command returned: the change came no later.
func watchInTime(t *testing.T, s suite) {
	st := s.up(t, Service{})
	limit := wakeLimit
	if p, ok := s.Manager.(service.Polled); ok {
		if p.Every() <= 0 || p.Every() > s.Patience {
			t.Fatalf("it looks every %v", p.Every())
		}
		limit += p.Every()
		t.Logf("it looks every %v", p.Every())
	}
	v := s.watch(t, st.Unit)
	for _, change := range []struct {
		name string
		make func()
		want service.State
	}{
		{"crash", func() { s.Host.Crash(t, st.Unit) }, service.StateFailed},
		{"start", func() { s.Host.Operate(t, Start, st.Unit) }, service.StateRunning},
		{"stop", func() { s.Host.Operate(t, Stop, st.Unit) }, service.StateStopped},
	} {
		change.make()
		began := time.Now()
		v.wantWake(t, limit, change.name)
		t.Logf("%s: woken within %v", change.name, time.Since(began).Round(time.Microsecond))
		s.untilState(t, st.Unit, change.want)
		v.settle()
	}
}

func watchEnablement(t *testing.T, s suite) {
	st := s.up(t, Service{})
	v := s.watch(t, st.Unit)
	s.Host.Operate(t, Disable, st.Unit)
	v.wantWake(t, s.Patience, "disable")
}

func watchEnds(t *testing.T, s suite) {
	v := s.watch(t, s.Host.Install(t, Service{}))
	v.stop()
	v.wantEnd(t, s.Patience, context.Canceled)
}

func watchLost(t *testing.T, s suite) {
	unit := s.Host.Install(t, Service{})
	v := s.watch(t, unit)
	restore := s.Host.Disconnect(t, false)
	v.wantEnd(t, s.Patience, service.ErrUnavailable)
	restore()
	s.watch(t, unit)
}
