//go:build e2e

package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/incus"
	"github.com/pgpatrol/pgpatrol/plugins/service/incus/incustest"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// TestE2E_IncusSystemd runs the suite on units of systemd inside an instance, through the agent's own composition of both and
// behind a proxy that refuses whatever the plugin's package comment does not name. It wants a real daemon, as the plugin's own
// e2e tests do, and an image with systemd that the daemon has:
//
//	PGPATROL_E2E_INCUS=/var/lib/incus/unix.socket PGPATROL_E2E_INCUS_IMAGE=node go test -tags e2e -run TestE2E ./plugins/builtin
//
// It takes two minutes. Seen to pass with Incus 6.0.4 and systemd 257.
func TestE2E_IncusSystemd(t *testing.T) {
	image := os.Getenv("PGPATROL_E2E_INCUS_IMAGE")
	if image == "" || os.Getenv("PGPATROL_E2E_INCUS") == "" {
		t.Fatal("set PGPATROL_E2E_INCUS to the daemon's socket and PGPATROL_E2E_INCUS_IMAGE to an image with systemd")
	}
	at := boot(t, image)
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		m, g := through(t, nil)
		reader, _ := through(t, func(r *http.Request) bool { return r.Method != http.MethodGet })
		t.Cleanup(func() {
			if refused := g.Refused(); len(refused) > 0 {
				t.Errorf("calls that are not documented: %q", refused)
			}
		})
		return servicetest.Harness{Manager: m, Unprivileged: reader, Host: &machine{instance: at, gate: g}, Again: func(t *testing.T) service.Manager { return again(t, g) }}
	})
}

// person runs the incus command.
func person(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := service.Runner{}.Run(ctx, service.Command{Path: "incus", Args: args, Env: []string{"INCUS_SOCKET=" + os.Getenv("PGPATROL_E2E_INCUS")}})
	if err == nil && out.ExitCode != 0 {
		err = fmt.Errorf("exit code %d, %s", out.ExitCode, out.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("incus %v: %w", args, err)
	}
	return strings.TrimSpace(string(out.Stdout)), nil
}

// do is person that fails t.
func do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := person(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// through returns the agent's own manager behind a gate.
func through(t *testing.T, refuse func(*http.Request) bool) (service.Manager, *servicetest.Gate) {
	t.Helper()
	g := &servicetest.Gate{Path: filepath.Join(t.TempDir(), "gate"), Target: os.Getenv("PGPATROL_E2E_INCUS"), Allow: func(r *http.Request) bool {
		return incustest.Documented(r) && (refuse == nil || !refuse(r))
	}}
	g.Open(t)
	return again(t, g), g
}

// again returns another one behind that gate.
func again(t *testing.T, g *servicetest.Gate) service.Manager {
	t.Helper()
	m, err := Manager("incus", ManagerConfig{IncusSocket: g.Path, IncusProject: "default", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.(*incus.Manager).Close() })
	return m
}

// boot launches an instance and waits until systemd has booted it.
func boot(t *testing.T, image string) string {
	t.Helper()
	name := fmt.Sprintf("pgpatrol-e2e-%d-inside", os.Getpid())
	do(t, "launch", image, name, "-c", "security.privileged=true")
	t.Cleanup(func() { do(t, "delete", "--force", name) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err := person("exec", name, "--", "systemctl", "is-active", "multi-user.target")
		if err == nil {
			return name
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// machine is an instance, operated with systemctl as a person does from the Incus host.
type machine struct {
	instance string
	gate     *servicetest.Gate
}

var installed atomic.Int64

func (m *machine) systemctl(t testing.TB, args ...string) string {
	t.Helper()
	return do(t, append([]string{"exec", m.instance, "--", "systemctl"}, args...)...)
}

func (m *machine) sh(t testing.TB, script string) string {
	t.Helper()
	return do(t, "exec", m.instance, "--", "sh", "-c", script)
}

func (m *machine) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	name := fmt.Sprintf("conformance-%d.service", installed.Add(1))
	var script strings.Builder
	if s.Deaf {
		script.WriteString("trap '' TERM; ")
	} else {
		fmt.Fprintf(&script, "trap 'exit %d' TERM; ", s.ExitOnStop)
	}
	if s.StartTakes > 0 {
		fmt.Fprintf(&script, "sleep %v; systemd-notify --ready; ", s.StartTakes.Seconds())
	}
	if s.Child {
		script.WriteString("sleep 1000 & ")
	}
	script.WriteString("while :; do sleep 0.05; done")
	var u strings.Builder
	fmt.Fprintf(&u, "[Unit]\nStartLimitBurst=%d\nStartLimitIntervalSec=%v\n", s.StartLimit, s.StartLimitSpan.Seconds())
	fmt.Fprintf(&u, "[Service]\nExecStart=/bin/sh -c \"%s\"\nNotifyAccess=all\n", script.String())
	fmt.Fprintf(&u, "RestartSec=%dms\n", s.RestartDelay.Milliseconds())
	for key, value := range map[string]string{"Restart": s.Restart, "KillMode": s.KillMode} {
		if value != "" {
			fmt.Fprintf(&u, "%s=%s\n", key, value)
		}
	}
	if s.StartTakes > 0 {
		u.WriteString("Type=notify\n")
	}
	if s.StopTakes > 0 {
		fmt.Fprintf(&u, "ExecStopPost=/bin/sleep %v\n", s.StopTakes.Seconds())
	}
	if s.StopLimit > 0 {
		fmt.Fprintf(&u, "TimeoutStopSec=%v\n", s.StopLimit.Seconds())
	}
	u.WriteString("[Install]\nWantedBy=multi-user.target\n")
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(u.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	path := "/run/systemd/system/" + name // so that "systemctl mask" can put its link into /etc
	do(t, "file", "push", "-p", "-q", file, m.instance+path)
	m.sh(t, "systemctl daemon-reload && systemctl -q enable "+name)
	t.Cleanup(func() {
		// A mask, and what KillMode=process left over.
		m.sh(t, "rm -f /etc/systemd/system/"+name+"; systemctl daemon-reload; systemctl kill --signal=KILL "+name+
			"; systemctl stop "+name+"; systemctl -q disable "+name+"; rm -f "+path+"; systemctl daemon-reload")
	})
	return m.instance + "/systemd/" + name
}

// inner is what systemd inside calls a unit.
func inner(unit string) string { return unit[strings.LastIndex(unit, "/")+1:] }

func (m *machine) Operate(t testing.TB, verb servicetest.Verb, unit string) {
	t.Helper()
	if name, ok := strings.CutPrefix(string(verb), "begin-"); ok {
		m.systemctl(t, "--no-block", name, inner(unit))
		return
	}
	m.systemctl(t, "-q", string(verb), inner(unit))
}

func (m *machine) Crash(t testing.TB, unit string) { m.signal(t, unit, "KILL") }

func (m *machine) Freeze(t testing.TB, unit string) { m.signal(t, unit, "STOP") }

func (m *machine) signal(t testing.TB, unit, sig string) {
	t.Helper()
	pid, err := strconv.Atoi(m.systemctl(t, "show", "--value", "-p", "MainPID", inner(unit)))
	if err != nil || pid <= 1 {
		t.Fatalf("main pid %d, %v", pid, err)
	}
	m.sh(t, fmt.Sprintf("kill -%s %d", sig, pid))
}

// Children finds "sleep 1000" below the instance's first process, whose process table is its own.
func (m *machine) Children(t testing.TB, unit string) []int {
	t.Helper()
	var state struct{ PID int }
	if err := json.Unmarshal([]byte(do(t, "query", "/1.0/instances/"+m.instance+"/state")), &state); err != nil {
		t.Fatal(err)
	}
	table := fmt.Sprintf("/proc/%d/root/proc", state.PID)
	dirs, err := os.ReadDir(table)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(table, d.Name(), "cmdline"))
		group, _ := os.ReadFile(filepath.Join(table, d.Name(), "cgroup"))
		if bytes.Equal(line, []byte("sleep\x001000\x00")) && bytes.Contains(group, []byte("/"+inner(unit))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (m *machine) Disconnect(t testing.TB, hang bool) func() {
	if hang {
		return m.gate.Hang()
	}
	m.gate.Close()
	return func() { m.gate.Open(t) }
}
