package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// order runs a command of the CLI against the daemon and returns what it says.
func (d *daemon) order(code int, line string) string {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "pgpatrol"), append(strings.Fields(line), "--socket", d.dir+"/s")...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		d.t.Errorf("%s: exit code %d, want %d\n%s", line, got, code, out)
	}
	return string(out)
}

// held waits until exactly these kinds hold the daemon back.
func (d *daemon) held(kinds ...node.HoldKind) {
	d.t.Helper()
	d.until("held back by "+strings.Join(words(kinds), ", "), func(s api.Status, _ api.History) bool {
		if s.Snapshot == nil {
			return false
		}
		var got []node.HoldKind
		for _, h := range s.Snapshot.Orders.Holds {
			got = append(got, h.Kind)
		}
		return strings.Join(words(got), ", ") == strings.Join(words(kinds), ", ")
	})
}

func words(kinds []node.HoldKind) []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = string(k)
	}
	return out
}

// An order of a person is obeyed within a second, survives a crash of the agent, and stands in the journal.
func TestAgent_Orders(t *testing.T) {
	d := &daemon{t: t, dir: t.TempDir()}
	d.config("")
	d.start()
	d.held()

	began := time.Now()
	if out := d.order(0, "pause --for 2h --owner ann --reason maintenance"); !strings.Contains(out, "by ann: maintenance") {
		t.Errorf("pause: %s", out)
	}
	d.held(node.HoldPause)
	if took := time.Since(began); took > time.Second {
		t.Errorf("obeyed after %s", took)
	}
	d.signal(syscall.SIGKILL)
	_ = d.cmd.Wait()
	d.start()
	d.held(node.HoldPause)

	beside := filepath.Join(d.dir, "kill-switch")
	if err := os.WriteFile(beside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.held(node.HoldKill, node.HoldPause)
	if out := d.order(1, "kill-switch off"); !strings.Contains(out, beside) {
		t.Errorf("kill-switch off: %s", out)
	}
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	d.order(0, "resume")
	d.held()
	d.order(1, "resume")
	d.order(0, "kill-switch on --for 1h --reason r")
	d.held(node.HoldKill)
	d.order(0, "kill-switch off --owner bob")
	d.held()
	if out := d.order(1, "pause --scope --for 2h --reason r"); !strings.Contains(out, "127.0.0.1:1") {
		t.Errorf("without etcd: %s", out)
	}
	if out := d.order(1, "approve nothing"); !strings.Contains(out, "ever proposed here") {
		t.Errorf("approve: %s", out)
	}
	out := d.order(0, "history --kind hold,lift,approve")
	if n := strings.Count(out, "\n"); n != 4 || !strings.Contains(out, "ann: maintenance") || !strings.Contains(out, "lifted by bob") {
		t.Errorf("history has %d lines:\n%s", n, out)
	}
}
