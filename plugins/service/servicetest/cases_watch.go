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
}

// watch starts a Watch, waits for its first wake-up and lets things settle.
func (s suite) watch(t *testing.T, units ...string) watching {
	t.Helper()
	w, ok := s.Manager.(service.Watcher)
	if !ok {
		t.Skip("this manager cannot tell of changes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := watching{woken: make(chan struct{}, 1), ended: make(chan error, 1), stop: cancel}
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
		case <-time.After(short):
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
	st := s.up(t, Service{Restart: "on-failure", RestartDelay: 10 * time.Millisecond})
	other := s.up(t, Service{})
	v := s.watch(t, st.Unit)
	s.Host.Crash(t, st.Unit)
	v.wantWake(t, s.Patience, "crash")
	s.until(t, st.Unit, "restart", func(now service.Status) bool { return now.Restarts == 1 })
	v.settle()
	s.Host.Operate(t, Stop, st.Unit)
	v.wantWake(t, s.Patience, "stop")
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
	case <-time.After(short):
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
