// Package session is what the lab's commands that make and remove a stack of their own have in common: they ask first
// whether there is an engine at all, keep others off their stack, and leave nothing behind.
//
// It owns a lock file and a folder for each stack that is in use, in the system's temporary folder. It deliberately removes
// nothing that does not carry the stack's label.
package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/test/lab/docker"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// removeWithin bounds the removal of a stack.
const removeWithin = 90 * time.Second

// interruptWithin is how long after a command has ended badly an interrupt may still arrive: one that is typed at a
// terminal reaches the docker command and the lab at the same time.
const interruptWithin = 200 * time.Millisecond

// Ready returns an error that says what to do where no container engine answers.
func Ready(ctx context.Context) error {
	if _, err := exec.LookPath("docker"); err != nil {
		return errors.New("docker is not installed, or not in PATH; on Debian and Ubuntu, as root: test/setup/setup.sh docker")
	}
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := docker.Client{}.Output(limit, "info", "--format", "{{.ServerVersion}}")
	if err == nil {
		return nil
	}
	said := err.Error()
	if c := new(docker.CommandError); errors.As(err, &c) && c.Stderr != "" {
		said = c.Stderr
	}
	return fmt.Errorf("the Docker engine does not answer: %s (start it; on Debian and Ubuntu, as root: test/setup/setup.sh docker)",
		strings.Join(strings.Fields(said), " "))
}

// Claim makes sure that no other command of this machine's lab works on the same stack until release is called. The
// kernel releases the claim of a process that was killed.
func Claim(name string) (release func(), err error) {
	path := filepath.Join(os.TempDir(), "pgpatrol-lab-"+name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("claim stack %q: %w", name, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("stack %q is being used by another lab command that still runs: wait for it, or end it", name)
			}
			return nil, fmt.Errorf("claim stack %q: %w", name, err)
		}
		if current(f, path) {
			return func() { _ = os.Remove(path); _ = f.Close() }, nil
		}
		_ = f.Close() // its last owner has just removed it
	}
}

// current reports whether the open file is still the one that the path leads to.
func current(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// Temp makes a temporary folder for the command that has claimed the stack of that name, and removes those that killed
// ones left.
func Temp(name string) (dir string, remove func(), err error) {
	prefix := "pgpatrol-lab-" + name + ".tmp-"
	old, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", nil, fmt.Errorf("look for old temporary folders: %w", err)
	}
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			return "", nil, fmt.Errorf("remove old temporary folder: %w", err)
		}
	}
	if dir, err = os.MkdirTemp("", prefix); err != nil {
		return "", nil, fmt.Errorf("make temporary folder: %w", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// Interrupted reports whether err is there because the context has ended, or ends in a moment.
func Interrupted(ctx context.Context, err error) bool {
	if err == nil {
		return false
	}
	select {
	case <-ctx.Done():
		return true
	case <-time.After(interruptWithin):
		return false
	}
}

// Remove takes the stack away, also where the context has ended. A container whose creation was under way when the
// command that asked for it was interrupted appears only afterwards: Remove looks again.
func Remove(ctx context.Context, s *stack.Stack) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
	defer cancel()
	clean := 0
	for {
		if err := s.Down(ctx); err != nil {
			return err
		}
		out, err := s.Docker(ctx, "ps", "-aq", "--filter", "label="+stack.Label+"="+s.Name)
		if err != nil {
			return fmt.Errorf("look for what is left of stack %q: %w", s.Name, err)
		}
		if clean++; out != "" {
			clean = 0
		}
		if clean == 2 {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
