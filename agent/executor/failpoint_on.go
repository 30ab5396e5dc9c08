//go:build failpoint

package executor

import (
	"os"
	"syscall"
)

// failpoint ends this process as SIGKILL does, at the named point and once, so that a laboratory can prove what is left
// behind by a crash there (FAULTS.md F101). PGPATROL_FAILPOINT names the point (after-intent, after-act),
// PGPATROL_FAILPOINT_ONCE a file that does not exist yet and marks that it happened.
func failpoint(name string) {
	if os.Getenv("PGPATROL_FAILPOINT") != name {
		return
	}
	mark, err := os.OpenFile(os.Getenv("PGPATROL_FAILPOINT_ONCE"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it has happened already, or cannot be made to happen only once
	}
	_ = mark.Sync()
	_ = mark.Close()
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}
