package builtin

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/plugins/probe/process"
)

// bootClock counts from the boot on, in sleep too (clock_gettime(3) of macOS).
const bootClock = unix.CLOCK_MONOTONIC

// bootID is the kernel's own name of this boot. There is no process table to take it from.
func bootID(*process.Table) (string, error) {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err == nil && id == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("read kern.bootsessionuuid: %w", err)
	}
	return id, nil
}

func uptime(*process.Table) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(bootClock, &ts); err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
