package builtin

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe/process"
)

// Host is this machine: its clocks and its identity since boot. It implements observer.Host and is safe for concurrent
// use.
type Host struct{ table *process.Table }

// NewHost returns this machine.
func NewHost() (*Host, error) {
	t, err := process.NewTable(process.TableConfig{})
	if err != nil {
		return nil, err
	}
	return &Host{table: t}, nil
}

// Now returns the time since boot, on a clock that runs on in suspend where the operating system has one.
func (*Host) Now() node.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(bootClock, &ts); err != nil {
		return node.Instant(time.Now().UnixNano()) // no kernel that Go supports lacks the clock
	}
	return node.Instant(ts.Nano())
}

// BootID names this start of the machine, or of the container that the agent lives in.
func (h *Host) BootID() (string, error) { return bootID(h.table) }

// Uptime returns for how long the machine, or the container, has run.
func (h *Host) Uptime() (time.Duration, error) { return uptime(h.table) }
