//go:build failpoint

package executor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// The test binary calls itself: the child dies at the point the first time, and lives the second time.
func TestFailpoint_DiesOnce(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		failpoint("another")
		failpoint("after-act")
		return
	}
	mark := filepath.Join(t.TempDir(), "mark")
	child := func() error {
		c := exec.Command(os.Args[0], "-test.run", "^TestFailpoint_DiesOnce$")
		c.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "PGPATROL_FAILPOINT=after-act", "PGPATROL_FAILPOINT_ONCE="+mark)
		return c.Run()
	}
	ee, ok := errors.AsType[*exec.ExitError](child())
	if !ok || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("first run: %v, want death by SIGKILL", ee)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
	if err := child(); err != nil {
		t.Errorf("second run: %v", err)
	}
}
