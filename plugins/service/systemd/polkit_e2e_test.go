//go:build e2e

package systemd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// TestE2E_Polkit proves packaging/polkit/50-pgpatrol.rules as it is shipped: what it gives user pgpatrol, and what it does not. The
// container wants polkitd besides, which the lab's image lacks (apt-get install polkitd), and a copy of the file, which
// PGPATROL_E2E_POLKIT names. It takes ten seconds. What became of a unit is what root sees of it.
func TestE2E_Polkit(t *testing.T) {
	from := os.Getenv("PGPATROL_E2E_POLKIT")
	if from == "" {
		t.Skip("PGPATROL_E2E_POLKIT names no rules")
	}
	rules, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := as(t, "root", "id", agentUser); err != nil || out.ExitCode != 0 {
		if out, err := as(t, "root", "useradd", "--system", agentUser); err != nil || out.ExitCode != 0 {
			t.Fatalf("useradd: %v, %s", err, out.Stderr)
		}
	}
	systemctl(t, "start", "polkit.service")
	t.Run("units", func(t *testing.T) {
		host := &machine{}
		// It may be started once an hour: the second start works only if it was reset before.
		host.installAs(t, ruled, servicetest.Service{StartLimit: 1, StartLimitSpan: time.Hour})
		other := host.Install(t, servicetest.Service{})
		agent := user{t, agentUser}
		host.Operate(t, servicetest.Start, ruled)
		host.Operate(t, servicetest.Start, other)

		refused(t, agent, ruled)
		installRules(t, rules)
		within(t, "the rules are in force", func() bool { return agent.Limits(t.Context(), ruled) == nil })
		refused(t, user{t, "nobody"}, ruled)
		refused(t, agent, other)
		for _, args := range [][]string{
			{"stop", ruled},
			{"restart", ruled},
			{"reload", ruled},
			{"freeze", ruled},
			{"set-property", "--runtime", ruled, "MemoryMax=1M"},
			{"mask", "--runtime", ruled},
			{"isolate", ruled},
			{"daemon-reload"},
			{"start", other},
			{"try-restart", other},
			{"kill", other},
			{"reset-failed", other},
			{"stop", other},
		} {
			before := show(t, ruled) + show(t, other)
			out, err := as(t, agentUser, "systemctl", append([]string{"--no-ask-password"}, args...)...)
			if err != nil || out.ExitCode == 0 {
				t.Errorf("systemctl %v: %v, exit code %d, %s", args, err, out.ExitCode, out.Stderr)
			}
			t.Logf("systemctl %v: %s", args, firstLine(out.Stderr))
			if after := show(t, ruled) + show(t, other); after != before {
				t.Errorf("systemctl %v had an effect: %s, then %s", args, before, after)
			}
		}

		if err := agent.KillMain(t.Context(), ruled, look(t, ruled)); err != nil {
			t.Errorf("kill: %v", err)
		}
		within(t, "killed", func() bool { return look(t, ruled).State == service.StateFailed })
		if err := agent.Start(t.Context(), ruled); err != nil { // reset-failed, and start
			t.Errorf("start: %v", err)
		}
		started := look(t, ruled)
		if started.State != service.StateRunning {
			t.Errorf("started: %+v", started)
		}
		systemctl(t, "reset-failed", ruled) // for the limit's sake
		if err := agent.Restart(t.Context(), ruled, started); err != nil {
			t.Errorf("restart: %v", err)
		}
		if now := look(t, ruled); now.State != service.StateRunning || now.InvocationID == started.InvocationID {
			t.Errorf("restarted: %+v, before %+v", now, started)
		}
	})
	// A unit without a file could be made by anybody who may start it, and systemd would run it as root.
	t.Run("transient", func(t *testing.T) {
		const absent = "pgpatrol-absent.service"
		installRules(t, bytes.ReplaceAll(rules, []byte(`["`+ruled+`"]`), []byte(`["`+absent+`"]`)))
		t.Run("while it has a file", func(t *testing.T) {
			(&machine{}).installAs(t, absent, servicetest.Service{})
			within(t, "the rules are in force", func() bool { return user{t, agentUser}.Limits(t.Context(), absent) == nil })
		})
		proof := filepath.Join(t.TempDir(), "proof")
		out, err := as(t, agentUser, "systemd-run", "--no-ask-password", "--wait", "--unit="+absent, "touch", proof)
		if err != nil || out.ExitCode == 0 {
			t.Errorf("systemd-run: %v, exit code %d, %s", err, out.ExitCode, out.Stderr)
		}
		t.Logf("systemd-run: %s", firstLine(out.Stderr))
		if _, err := os.Stat(proof); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("user %s ran a program as root: %v", agentUser, err)
		}
	})
}

// What the rules name.
const (
	agentUser = "pgpatrol"
	ruled     = "patroni.service"
)

// installRules puts the rules in force until the end of the test.
func installRules(t *testing.T, rules []byte) {
	t.Helper()
	to := "/etc/polkit-1/rules.d/50-pgpatrol.rules"
	if err := os.WriteFile(to, rules, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(to) })
}

// refused checks that the user gets nothing done to the unit, and is told so by Limits beforehand.
func refused(t *testing.T, u user, unit string) {
	t.Helper()
	before, want := show(t, unit), look(t, unit)
	for what, err := range map[string]error{
		"limits":  u.Limits(t.Context(), unit),
		"start":   u.Start(t.Context(), unit),
		"kill":    u.KillMain(t.Context(), unit, want),
		"restart": u.Restart(t.Context(), unit, want),
	} {
		if !errors.Is(err, service.ErrPermission) {
			t.Errorf("%s of %s as %s: %v", what, unit, u.name, err)
		}
	}
	if after := show(t, unit); after != before {
		t.Errorf("refused orders of %s had an effect: %s, then %s", u.name, before, after)
	}
}

// look returns the unit's status as root reads it.
func look(t *testing.T, unit string) service.Status {
	t.Helper()
	m, err := New(Default(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	st, err := m.Status(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// show returns what would change if anything was done to the unit.
func show(t *testing.T, unit string) string {
	t.Helper()
	return systemctl(t, "show", "-p", "MainPID,InvocationID,ActiveState,SubState,FreezerState,UnitFileState,MemoryMax", unit) + "\n"
}

func as(t *testing.T, name, path string, args ...string) (service.Output, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return service.Runner{}.Run(ctx, service.Command{Path: path, Args: args, User: name})
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
