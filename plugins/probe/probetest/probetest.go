// Package probetest checks that a [probe.Prober] keeps the contract that every prober shares, whatever it looks at.
//
// It owns the checks of time and clean-up: an ended context, a deadline that comes while the subject hangs, several
// callers at once, goroutines left behind. What a prober reports of its subject is for the prober's own tests.
package probetest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// grace is how late a prober may return after its context ended, on a machine that is busy with other tests.
const grace = 2 * time.Second

// Run checks p against a subject that answers, or fails, at once.
func Run[T any](t *testing.T, p probe.Prober[T]) {
	t.Helper()
	t.Run("ended context", func(t *testing.T) {
		noLeak(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err, took := look(ctx, p)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want one that wraps context.Canceled", err)
		}
		if took > grace {
			t.Errorf("returned after %v", took)
		}
	})
	t.Run("several callers", func(t *testing.T) {
		noLeak(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err, took := look(ctx, p); took > 10*time.Second+grace {
					t.Errorf("returned after %v: %v", took, err)
				}
			})
		}
		wg.Wait()
	})
}

// RunHanging checks that p gives up on a subject that never answers: at its context's deadline, or before that at a
// limit of its own. It reports the value and the error for the caller's own checks.
func RunHanging[T any](t *testing.T, p probe.Prober[T]) (T, error) {
	t.Helper()
	noLeak(t)
	const limit = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	value, err, took := look(ctx, p)
	if took > limit+grace {
		t.Errorf("returned %v after the deadline: %v", took-limit, err)
	}
	return value, err
}

func look[T any](ctx context.Context, p probe.Prober[T]) (T, error, time.Duration) { //nolint:revive // the error is data here
	start := time.Now()
	value, err := p.Probe(ctx)
	return value, err, time.Since(start)
}

// noLeak fails the test if more goroutines run at its end, after a moment to settle, than do now.
func noLeak(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		after := runtime.NumGoroutine()
		for wait := time.Millisecond; after > before && wait < grace; wait *= 2 {
			time.Sleep(wait)
			after = runtime.NumGoroutine()
		}
		if after > before {
			stacks := make([]byte, 64<<10)
			t.Errorf("%d goroutines before, %d after:\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
		}
	})
}
