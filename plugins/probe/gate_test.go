package probe_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

func TestDo_Returns(t *testing.T) {
	g := probe.NewGate()
	got, err := probe.Do(t.Context(), g, func() (int, error) { return 7, nil })
	if got != 7 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestDo_StuckWorkLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, release := probe.NewGate(), make(chan struct{})
		short := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		stuck := func() (int, error) { <-release; return 1, nil }

		if _, err := probe.Do(short(), g, stuck); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, probe.ErrStuck) {
			t.Errorf("first call: got %v, want only a deadline", err)
		}
		entered := false
		_, err := probe.Do(short(), g, func() (int, error) { entered = true; return 2, nil })
		if !errors.Is(err, probe.ErrStuck) || !errors.Is(err, context.DeadlineExceeded) || entered {
			t.Errorf("second call: got %v, entered %v, want ErrStuck and no entry", err, entered)
		}
		close(release)
		synctest.Wait()
		if got, err := probe.Do(short(), g, func() (int, error) { return 3, nil }); got != 3 || err != nil {
			t.Errorf("after release: got %d, %v", got, err)
		}
	})
}

func TestDo_EndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	entered := false
	_, err := probe.Do(ctx, probe.NewGate(), func() (int, error) { entered = true; return 0, nil })
	if !errors.Is(err, context.Canceled) || entered {
		t.Errorf("got %v, entered %v", err, entered)
	}
}
