package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.Process] = (*Process)(nil)

// Config has nothing to configure yet; which process is looked at changes while the agent runs and is a dependency.
type Config struct{}

// Validate implements the contract of every plugin.
func (Config) Validate() error { return nil }

// Deps is what a Process needs.
type Deps struct {
	Table *Table
	// PID returns the process to look at now, 0 if there is none. It may block; it obeys its context.
	PID func(context.Context) (int, error)
}

// Process looks at one process, usually the main process of a unit.
type Process struct {
	table *Table
	pid   func(context.Context) (int, error)
}

// New returns a prober for one process.
func New(c Config, d Deps) (*Process, error) {
	if d.Table == nil || d.PID == nil {
		return nil, errors.New("configure process probe: needs a table and a pid")
	}
	return &Process{table: d.Table, pid: d.PID}, c.Validate()
}

// Probe implements probe.Prober. No process, and one that has just ended, are answers. A zombie exists but holds
// nothing any more.
func (p *Process) Probe(ctx context.Context) (probe.Process, error) {
	if err := ctx.Err(); err != nil {
		return probe.Process{}, err
	}
	pid, err := p.pid(ctx)
	if err != nil {
		return probe.Process{}, fmt.Errorf("find process: %w", err)
	}
	if pid <= 0 {
		return probe.Process{}, nil
	}
	seen, err := p.table.Inspect(pid)
	if err != nil || !seen.Exists || seen.State == "Z" || seen.State == "X" {
		return seen, err
	}
	if seen.Watchdog, err = p.table.HoldsWatchdog(pid); errors.Is(err, fs.ErrNotExist) {
		return probe.Process{PID: pid}, nil
	}
	if err != nil {
		return probe.Process{}, err
	}
	return seen, nil
}
