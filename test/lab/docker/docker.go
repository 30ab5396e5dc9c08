// Package docker is the lab's only way to a container engine: it runs the docker command line.
//
// It owns no container and no name; callers say what they want removed. It promises that every command ends with
// its context, and that an error carries what the engine said. It deliberately does not speak the engine's API:
// the lab needs ten verbs of it, a user's engine may be reached through any context that the command line knows
// (ssh, rootless, colima), and the command line is what its recipe was measured with.
package docker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Client runs docker. The zero value is ready and safe for concurrent use.
type Client struct{}

// Output runs `docker args...` and returns its standard output without the last newline.
func (c Client) Output(ctx context.Context, args ...string) (string, error) {
	return c.Input(ctx, nil, args...)
}

// Input is Output with a standard input. Secrets travel this way, never in args, which every process can read.
func (c Client) Input(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.WaitDelay = 2 * time.Second
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return strings.TrimRight(out.String(), "\n"), &CommandError{Args: args, Stderr: tail(errs.String(), 600), Err: err}
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// CommandError says which docker command ended badly, and what it wrote to standard error.
type CommandError struct {
	Args   []string
	Stderr string
	Err    error
}

func (e *CommandError) Error() string {
	name := strings.Join(e.Args, " ")
	if len(name) > 120 {
		name = name[:120] + "..."
	}
	return fmt.Sprintf("docker %s: %v: %s", strings.ReplaceAll(name, "\n", " "), e.Err, strings.TrimSpace(e.Stderr))
}

// Unwrap returns what the process ended with.
func (e *CommandError) Unwrap() error { return e.Err }

// ExitCode returns the exit code that err carries, or -1 where the command did not end by itself.
func ExitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Stream is a long-lived command whose lines are read as they come.
type Stream struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	errs  bytes.Buffer
}

// Stream starts `docker args...` with a standard input that stays open. The caller reads Lines to its end and then
// calls Wait. Closing the standard input is how a program inside a container is told to stop: `docker exec` does
// not pass signals on.
func (c Client) Stream(ctx context.Context, args ...string) (*Stream, error) {
	s := &Stream{cmd: exec.CommandContext(ctx, "docker", args...)}
	s.cmd.WaitDelay = 2 * time.Second
	s.cmd.Stderr = &s.errs
	// Its own process group: an interrupt typed at a terminal is for the lab, which then ends its streams in order.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open standard input: %w", err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open standard output: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start docker %s: %w", args[0], err)
	}
	s.stdin, s.lines = stdin, bufio.NewScanner(stdout)
	s.lines.Buffer(make([]byte, 64<<10), 1<<20)
	return s, nil
}

// Lines calls f for every line until the command closes its output. The slice is only valid during the call.
func (s *Stream) Lines(f func([]byte)) error {
	for s.lines.Scan() {
		f(s.lines.Bytes())
	}
	return s.lines.Err()
}

// CloseInput closes the command's standard input. It is safe to call more than once.
func (s *Stream) CloseInput() { _ = s.stdin.Close() }

// Wait waits for the command to end. Lines must have returned before.
func (s *Stream) Wait() error {
	if err := s.cmd.Wait(); err != nil {
		return &CommandError{Args: s.cmd.Args[1:], Stderr: tail(s.errs.String(), 600), Err: err}
	}
	return nil
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}
