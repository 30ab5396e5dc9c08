package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

// agentKey finds the agent of a script among its values.
type agentKey struct{}

// agent FILE starts a real agent, with $WORK written out in its configuration FILE, and waits until it has decided. Its
// socket is to be $WORK/s. It ends with the script.
func agent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: agent FILE")
	}
	expand(ts, args[0])
	cmd := exec.Command(filepath.Join(bin, "pgpatrol"), "agent", "--config", ts.MkAbs(args[0]))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			ts.Fatalf("the agent ended with %v\n%s", err, &stderr)
		}
	})
	*ts.Value(agentKey{}).(**os.Process) = cmd.Process
	c := api.NewClient(ts.MkAbs("s"))
	for range 400 {
		if s, err := c.Status(context.Background()); err == nil && s.Plan != nil {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("the agent does not decide")
}

// reload FILE PLACE puts another configuration in the place of the agent's and tells it.
func reload(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reload FILE PLACE")
	}
	expand(ts, args[0])
	ts.Check(os.Rename(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
	ts.Check((*ts.Value(agentKey{}).(**os.Process)).Signal(syscall.SIGHUP))
}

// says TEXT waits until the agent's status says TEXT, a regular expression; with ! until it does not any more.
func says(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] says TEXT")
	}
	await := regexp.MustCompile(`(?m)` + args[0])
	var out []byte
	for range 400 {
		cmd := exec.Command(filepath.Join(bin, "pgpatrol"), "status", "--socket", ts.MkAbs("s"))
		out, _ = cmd.Output() // its exit code is that of the worst finding
		if len(out) > 0 && await.Match(out) != neg {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("awaited in vain: %s in\n%s", await, out)
}

// expand writes $WORK out in a file.
func expand(ts *testscript.TestScript, name string) {
	text := strings.ReplaceAll(ts.ReadFile(name), "$WORK", ts.Getenv("WORK"))
	ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
}

// post STATUS PATH BODY sends an order to the agent as it stands, as a program would that is not ours, and wants that status.
func post(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: post STATUS PATH BODY")
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", ts.MkAbs("s"))
		},
	}}
	r, err := client.Post("http://pgpatrol"+args[1], "application/json", strings.NewReader(args[2]))
	ts.Check(err)
	defer r.Body.Close()
	_, err = io.Copy(ts.Stdout(), r.Body)
	if got := fmt.Sprint(r.StatusCode); got != args[0] {
		err = errors.Join(err, fmt.Errorf("status %s, want %s", got, args[0]))
	}
	ts.Check(err)
}
