package builtin

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/plugins/probe/process"
)

const bootClock = unix.CLOCK_BOOTTIME

func bootID(t *process.Table) (string, error) { return t.BootID() }

func uptime(t *process.Table) (time.Duration, error) { return t.Uptime() }
