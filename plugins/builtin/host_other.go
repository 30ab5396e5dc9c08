//go:build !linux

package builtin

import "golang.org/x/sys/unix"

const bootClock = unix.CLOCK_MONOTONIC
