package launchd

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// every is how often the manager under test looks.
const every = 100 * time.Millisecond

// lacks is what launchd, or its replay, cannot show.
var lacks = map[string]string{
	"policies":              "launchd counts whole seconds and ends process groups",
	"start limit":           "launchd starts a job again without end",
	"restarts counted":      "launchd counts runs, whoever began them",
	"masked":                "launchd knows no mask",
	"start joins a start":   "to launchd what was begun is up",
	"deadline during start": "to launchd what was begun is up",
	"kill main only":        "launchd ends what is left of a job's process group",
}

// mac is a machine with a replay of launchd.
type mac struct{ replay, folder string }

var installed atomic.Int64

func newMac(t *testing.T, replay string) mac {
	t.Helper()
	m := mac{replay, t.TempDir()}
	m.do(t, "install", "com.example.other")
	return m
}

func (m mac) manager(t testing.TB, uid int) *Manager {
	t.Helper()
	out, err := New(Config{
		Launchctl: filepath.Join(m.folder, "launchctl"), Domain: "gui/501",
		Plists: []string{filepath.Join(m.folder, "Library", "LaunchAgents")}, Every: every,
	}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	out.uid = uid
	return out
}

func (m mac) run(t testing.TB, path string, args ...string) {
	t.Helper()
	out, err := service.Runner{}.Run(t.Context(), service.Command{Path: path, Args: args})
	if err != nil || out.ExitCode != 0 {
		t.Fatalf("%s %q: %v, exit code %d, %s", filepath.Base(path), args, err, out.ExitCode, out.Stderr)
	}
}

func (m mac) do(t testing.TB, verb string, args ...string) {
	t.Helper()
	m.run(t, m.replay, append([]string{m.folder, verb}, args...)...)
}

func (m mac) launchctl(t testing.TB, args ...string) {
	t.Helper()
	m.run(t, filepath.Join(m.folder, "launchctl"), args...)
}

func (m mac) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	label := fmt.Sprintf("com.example.conformance-%d", installed.Add(1))
	spec := map[string]any{
		"minimum": int(s.RestartDelay.Seconds()), "exit_after": 5, "stop_takes": s.StopTakes, "deaf": s.Deaf, "on_term": s.ExitOnStop,
	}
	if n := int(s.StopLimit.Seconds()); n > 0 {
		spec["exit_after"] = n
	}
	switch s.Restart {
	case "always":
		spec["keep"] = "always"
	case "on-failure":
		spec["keep"] = "failure"
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	m.do(t, "install", label, string(b))
	return label
}

// Operate stops a job by unloading it: one that is kept alive cannot be stopped otherwise.
func (m mac) Operate(t testing.TB, verb servicetest.Verb, label string) {
	t.Helper()
	target := "gui/501/" + label
	switch verb {
	case servicetest.Start, servicetest.BeginStart:
		out, err := service.Runner{}.Run(t.Context(), service.Command{Path: filepath.Join(m.folder, "launchctl"), Args: []string{"kickstart", target}})
		if err == nil && out.ExitCode == 113 {
			m.launchctl(t, "bootstrap", "gui/501", filepath.Join(m.folder, "Library", "LaunchAgents", label+".plist"))
			m.launchctl(t, "kickstart", target)
		} else if err != nil || out.ExitCode != 0 {
			t.Fatalf("kickstart: %v, exit code %d", err, out.ExitCode)
		}
	case servicetest.Stop:
		m.launchctl(t, "bootout", target)
	case servicetest.BeginRestart:
		m.launchctl(t, "kickstart", "-k", target)
	default:
		m.launchctl(t, string(verb), target)
	}
}

func (m mac) Crash(t testing.TB, label string) { t.Helper(); m.do(t, "crash", label) }

func (m mac) Freeze(t testing.TB, label string) { t.Helper(); m.do(t, "freeze", label) }

func (m mac) Children(testing.TB, string) []int { return nil }

func (m mac) Disconnect(t testing.TB, hang bool) func() {
	t.Helper()
	verb := "gone"
	if hang {
		verb = "hang"
	}
	m.do(t, verb)
	return func() { m.do(t, "back") }
}

func TestReplay_Conformance(t *testing.T) {
	t.Parallel()
	replay := servicetest.Build(t, "replay")
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		t.Parallel()
		m := newMac(t, replay)
		return servicetest.Harness{Manager: m.manager(t, 501), Unprivileged: m.manager(t, 502), Host: m, Lacks: lacks, Again: func(t *testing.T) service.Manager { return m.manager(t, 501) }}
	})
}

// TestReplay_Unloaded: what a person has unloaded is loaded by nobody else.
func TestReplay_Unloaded(t *testing.T) {
	t.Parallel()
	mac := newMac(t, servicetest.Build(t, "replay"))
	m := mac.manager(t, 501)
	label := mac.Install(t, servicetest.Service{Restart: "always"})
	mac.Operate(t, servicetest.Start, label)
	mac.Operate(t, servicetest.Stop, label)
	st, err := m.Status(t.Context(), label)
	if err != nil || st.State != service.StateStopped || st.Intent() != service.IntentStopped {
		t.Fatalf("got %+v, %v", st, err)
	}
	if err := m.Start(t.Context(), label); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if now, err := m.Status(t.Context(), label); err != nil || now != st {
		t.Errorf("before %+v, afterwards %+v, %v", st, now, err)
	}
}

// TestReplay_Throttled: a start within the throttle interval is waited for.
func TestReplay_Throttled(t *testing.T) {
	t.Parallel()
	mac := newMac(t, servicetest.Build(t, "replay"))
	m := mac.manager(t, 0)
	label := mac.Install(t, servicetest.Service{RestartDelay: 2 * time.Second})
	mac.Operate(t, servicetest.Start, label)
	mac.Crash(t, label)
	unit := "gui/501/" + label
	if err := m.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	st, err := m.Status(t.Context(), unit)
	if err != nil || st.State != service.StateRunning || st.InvocationID != "run 2" || st.Unit != unit {
		t.Errorf("got %+v, %v", st, err)
	}
}
