package script

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

// daemon is an agent of the test: it looks after nothing, and nobody listens where its etcd should be.
type daemon struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func (d *daemon) config(extra string) {
	d.t.Helper()
	text := "node: n1\nscope: demo\nstate_dir: " + d.dir + "/state\netcd: {endpoints: ['http://127.0.0.1:1']}\napi: {socket: " + d.dir + "/s}\n" + extra
	if err := os.WriteFile(filepath.Join(d.dir, "c.yaml"), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd = exec.Command(filepath.Join(bin, "pgpatrol"), "agent", "--config", filepath.Join(d.dir, "c.yaml"))
	d.cmd.Stderr = &d.stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = d.cmd.Process.Kill() })
}

// until asks the agent until it says what is awaited.
func (d *daemon) until(what string, said func(api.Status, api.History) bool) {
	d.t.Helper()
	c := api.NewClient(filepath.Join(d.dir, "s"))
	for range 200 {
		s, err1 := c.Status(d.t.Context())
		h, err2 := c.History(d.t.Context(), api.HistoryQuery{Limit: 100})
		if errors.Join(err1, err2) == nil && said(s, h) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.t.Fatalf("not seen: %s", what)
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

func TestAgent_SignalsAndReload(t *testing.T) {
	d := &daemon{t: t, dir: t.TempDir()}
	d.config("")
	d.start()
	d.until("a decision without etcd", func(s api.Status, _ api.History) bool { return s.Plan != nil && len(s.Plan.Allowed) == 0 })

	d.config("polycy: {}\n")
	d.signal(syscall.SIGHUP)
	d.until("the broken file is refused", func(s api.Status, _ api.History) bool {
		return strings.Contains(s.ConfigProblem, "did you mean policy")
	})

	d.config("policy: {revive: auto}\n")
	d.signal(syscall.SIGHUP)
	d.until("the good file is in force", func(s api.Status, _ api.History) bool { return s.ConfigProblem == "" && s.Policy.Revive == "auto" })

	d.signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, &d.stderr)
	}
	if _, err := os.Lstat(filepath.Join(d.dir, "s")); err == nil {
		t.Error("the socket is still there")
	}
	b, err := os.ReadFile(filepath.Join(d.dir, "state", "journal.jsonl"))
	if err != nil || !strings.Contains(string(b), `"kind":"stop"`) {
		t.Errorf("the journal has no stop: %v", err)
	}
}

// FAULTS.md F103: a second agent on the same state directory or socket does not start, and does not disturb the first.
func TestAgent_SecondDoesNotStart(t *testing.T) {
	d := &daemon{t: t, dir: t.TempDir()}
	d.config("")
	d.start()
	d.until("it runs", func(api.Status, api.History) bool { return true })
	out, err := exec.Command(filepath.Join(bin, "pgpatrol"), "agent", "--config", filepath.Join(d.dir, "c.yaml")).CombinedOutput()
	ee, ok := errors.AsType[*exec.ExitError](err)
	if !ok || ee.ExitCode() != 1 || !strings.Contains(string(out), "another agent uses this state directory") {
		t.Errorf("second agent: %v\n%s", err, out)
	}
	d.until("it still runs", func(api.Status, api.History) bool { return true })

	// Killed the hard way, the next one takes over, socket and lock included, and tells of both starts.
	d.signal(syscall.SIGKILL)
	_ = d.cmd.Wait()
	d.start()
	d.until("both starts", func(_ api.Status, h api.History) bool {
		n := 0
		for _, r := range h.Records {
			if r.Kind == "start" {
				n++
			}
		}
		return n == 2
	})
	d.signal(syscall.SIGINT)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("SIGINT: %v\n%s", err, &d.stderr)
	}
}
