package service

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Poll is [Watcher] for a manager that cannot tell of changes: it reads the units every so often, and wakes at first and
// whenever one of them is not what it was. What the manager says of one unit, also that it does not know it, is part of what
// it is; that the manager itself does not answer ends the watch.
func Poll(ctx context.Context, m Manager, every time.Duration, units []string, wake func()) error {
	type look struct {
		status Status
		err    string
	}
	before := make([]look, len(units))
	t := time.NewTicker(every)
	defer t.Stop()
	for first := true; ; first = false {
		changed := first
		for i, unit := range units {
			st, err := m.Status(ctx, unit)
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("watch units: %w", ctx.Err())
			case errors.Is(err, ErrUnavailable):
				return fmt.Errorf("watch units: %w", err)
			}
			now := look{status: st}
			if err != nil {
				now = look{err: err.Error()}
			}
			changed = changed || now != before[i]
			before[i] = now
		}
		if changed {
			wake()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("watch units: %w", ctx.Err())
		}
	}
}
