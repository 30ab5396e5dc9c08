package process

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

func (*Table) supported() error { return nil }

// kernelUptime returns the time since the kernel booted, in which it also counts the start times of processes.
func kernelUptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read boot time clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// existsHidden asks for the existence of a process in a way that hidepid does not answer. Signal 0 is not sent.
func existsHidden(pid int) bool {
	return pid > 0 && unix.Kill(pid, 0) != unix.ESRCH // a plain errno
}
