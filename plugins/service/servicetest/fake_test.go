package servicetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

func TestFake_Conformance(t *testing.T) {
	t.Parallel()
	Conformance(t, func(t *testing.T) Harness {
		t.Parallel()
		f := NewFake()
		return Harness{Manager: f, Unprivileged: f.Unprivileged(), Host: f, Again: func(*testing.T) service.Manager { return f }}
	})
}

// polled is a Fake whose changes are only seen by looking.
type polled struct {
	*Fake
	says, every time.Duration
}

func (p polled) Every() time.Duration { return p.says }

func (p polled) Watch(ctx context.Context, units []string, wake func()) error {
	var last []service.Status
	for {
		if err := p.reach(ctx, MethodWatch); err != nil {
			return err
		}
		var now []service.Status
		for _, name := range units {
			now = append(now, p.Units()[name])
		}
		if !slices.Equal(now, last) {
			last = now
			wake()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(p.every):
		}
	}
}

func TestFake_ConformancePolled(t *testing.T) {
	t.Parallel()
	Conformance(t, func(t *testing.T) Harness {
		t.Parallel()
		f := NewFake()
		p := polled{f, 400 * time.Millisecond, 400 * time.Millisecond}
		return Harness{Manager: p, Unprivileged: f.Unprivileged(), Host: f, Again: func(*testing.T) service.Manager { return p }}
	})
}

func TestFake_RecordsEffects(t *testing.T) {
	f := NewFake()
	f.Add("patroni.service", Service{Restart: "no"})
	boom := errors.New("boom")
	f.Fail(MethodStart, boom)
	if err := f.Start(t.Context(), "patroni.service"); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	f.Fail(MethodStart, nil)
	if err := f.Start(t.Context(), "patroni.service"); err != nil {
		t.Fatal(err)
	}
	f.CrashWith("patroni.service", "oom-kill", 9)
	if err := f.Start(t.Context(), "patroni.service"); err != nil {
		t.Fatal(err)
	}
	_ = f.KillMain(t.Context(), "patroni.service", service.Status{})
	_ = f.Restart(t.Context(), "patroni.service", service.Status{})
	if err := f.Restart(t.Context(), "patroni.service", f.Units()["patroni.service"]); err != nil {
		t.Fatal(err)
	}
	want := []Effect{
		{Method: MethodStart, Unit: "patroni.service", Err: boom},
		{Method: MethodStart, Unit: "patroni.service"},
		{Method: MethodClearLimit, Unit: "patroni.service"},
		{Method: MethodStart, Unit: "patroni.service"},
		{Method: MethodKillMain, Unit: "patroni.service", Err: service.ErrChanged},
		{Method: MethodRestart, Unit: "patroni.service", Err: service.ErrChanged},
		{Method: MethodRestart, Unit: "patroni.service"},
	}
	if diff := cmp.Diff(want, f.Effects(), cmpopts.EquateErrors()); diff != "" {
		t.Error(diff)
	}
}

func TestFake_SetWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		f.Add("a.service", Service{})
		ctx, cancel := context.WithCancel(t.Context())
		wakes, ended := 0, make(chan error)
		go func() { ended <- f.Watch(ctx, []string{"a.service"}, func() { wakes++ }) }()
		synctest.Wait()
		f.Set("a.service", func(st *service.Status) { st.State = service.StateFailed; st.Result = "core-dump" })
		synctest.Wait()
		if wakes != 2 {
			t.Errorf("got %d wake-ups, want the first and one", wakes)
		}
		if got := f.Units()["a.service"].Result; got != "core-dump" {
			t.Errorf("got result %q", got)
		}
		cancel()
		<-ended
	})
}

// Fake time: a restart after an hour costs nothing.
func TestFake_KeepsBubbleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		f.Add("a.service", Service{Restart: "always", RestartDelay: time.Hour})
		if err := f.Start(t.Context(), "a.service"); err != nil {
			t.Fatal(err)
		}
		f.Crash(t, "a.service")
		time.Sleep(time.Hour - time.Second)
		if got := f.Units()["a.service"].State; got != service.StateRestarting {
			t.Errorf("got %v", got)
		}
		time.Sleep(2 * time.Second)
		if got := f.Units()["a.service"].State; got != service.StateRunning {
			t.Errorf("got %v", got)
		}
	})
}
