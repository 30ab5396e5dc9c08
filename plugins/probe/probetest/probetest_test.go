package probetest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

// obedient is a prober that keeps the contract: it answers at once, or waits for as long as it may.
type obedient struct{ hang bool }

func (o obedient) Probe(ctx context.Context) (int, error) {
	if o.hang {
		<-ctx.Done()
	}
	return 1, ctx.Err()
}

func TestRun_Obedient(t *testing.T) { probetest.Run(t, obedient{}) }

func TestRunHanging_Obedient(t *testing.T) {
	if _, err := probetest.RunHanging(t, obedient{hang: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
