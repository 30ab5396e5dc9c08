// Command pgpatrol is the agent and its command line.
//
// It owns flags, the logger, signals, exit codes and the words on the terminal. It promises that every subcommand but
// agent and the orders (pause, resume, kill-switch, approve) only reads, that exit codes mean what the help says, and that nothing which came from etcd, a peer or a file
// reaches the terminal with its control characters intact. It deliberately knows nothing of Patroni: what is shown was
// decided and worded by the agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version string

// Exit codes. The help of every subcommand names those that it uses.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNoAgent = 3
	exitWarn    = 4
	exitPage    = 5
	exitPlan    = 6
)

// codeError ends the program with a code; err is what to say, or nil if everything has been said.
type codeError struct {
	code int
	err  error
}

// Error implements error.
func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns what to say.
func (e *codeError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &codeError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// env is the surroundings of one invocation.
type env struct {
	out    io.Writer
	err    io.Writer
	screen screen // of out
	log    screen // of err
	socket string
	json   bool
}

func main() {
	e := &env{out: os.Stdout, err: os.Stderr, screen: screenOf(os.Stdout), log: screenOf(os.Stderr)}
	os.Exit(run(context.Background(), e, os.Args[1:]))
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, e *env, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailed
	if ce, ok := errors.AsType[*codeError](err); ok {
		if code = ce.code; ce.err == nil {
			return code
		}
	}
	if code == exitFailed && (errors.Is(err, api.ErrNoAgent) || errors.Is(err, api.ErrSilent)) {
		code = exitNoAgent
	}
	p := newPrinter(e.err, screen{})
	p.line("pgpatrol: %v", err)
	if code == exitUsage {
		p.line("See: %s --help", cmd.CommandPath())
	}
	return code
}

// programVersion returns what the linker was told, or what the build knows of the source.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, revision := info.Main.Version, ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			revision = s.Value[:12]
		}
	}
	if v == "" || v == "(devel)" {
		v = "devel"
		if revision != "" {
			v += "-" + revision
		}
	}
	return v
}
