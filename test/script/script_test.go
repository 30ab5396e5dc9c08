// Package script tests the command line as an operator and a script meet it: the real binary, its two output streams and
// its exit codes.
package script

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(lifeEnv) != "" { // a process of TestRestarts
		os.Exit(m.Run())
	}
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// build puts the binary into a folder of its own and runs the tests.
func build(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "pgpatrol-script")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin = dir
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3-test", "-o", filepath.Join(dir, "pgpatrol"), "github.com/pgpatrol/pgpatrol/cmd/pgpatrol")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build pgpatrol: %w\n%s", err, out)
	}
	return m.Run(), nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TZ", "UTC")
			env.Values[agentKey{}] = new(*os.Process)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"agent":  agent,
			"exits":  exits,
			"post":   post,
			"reload": reload,
			"says":   says,
			"serve":  serve,
		},
	})
}

// exits CODE COMMAND... runs a command that must end with exactly that code; ! is not used with it.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		got = ee.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// serve SOCKET STATUS HISTORY answers on the socket as an agent would, from two files of JSON, until the script ends.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: serve SOCKET STATUS HISTORY")
	}
	var src files
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &src.status))
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[2])), &src.history))
	socket := ts.MkAbs(args[0])
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(src, api.Config{Socket: socket, Version: "1.2.2-old"}, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	ts.Defer(func() {
		cancel()
		<-done
	})
	for range 500 {
		if _, err := api.NewClient(socket).Version(ctx); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("the agent of the test does not come up")
}

// files is an agent that knows what two files say.
type files struct {
	status  api.Status
	history api.History
}

func (f files) Status(context.Context) (api.Status, error) { return f.status, nil }

func (f files) Plan(context.Context) (api.PlanReply, error) {
	if f.status.Plan == nil {
		return api.PlanReply{}, api.ErrNotReady
	}
	return api.PlanReply{Now: f.status.Now, Plan: *f.status.Plan}, nil
}

func (f files) History(_ context.Context, q api.HistoryQuery) (api.History, error) {
	h := f.history
	if n := len(h.Records); n > q.Limit {
		h.Records = h.Records[n-q.Limit:]
	}
	return h, nil
}
