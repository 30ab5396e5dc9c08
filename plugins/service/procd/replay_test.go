package procd

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// every is how often the manager under test looks.
const every = 100 * time.Millisecond

// lacks is what procd, or its replay, cannot show.
var lacks = map[string]string{
	"policies":              "procd counts whole seconds",
	"restarts counted":      "procd does not say how often it restarted",
	"masked":                "procd knows no mask",
	"job pending":           "procd does not show that a stop or a restart is in progress",
	"restart, job pending":  "procd does not show that a stop or a restart is in progress",
	"start joins a start":   "to procd what was begun is up",
	"deadline during start": "to procd what was begun is up",
}

// openwrt is a machine with a replay of procd.
type openwrt struct{ replay, folder string }

var installed atomic.Int64

func newOpenWrt(t *testing.T, replay string) openwrt {
	t.Helper()
	w := openwrt{replay, t.TempDir()}
	w.do(t, "install", "dnsmasq", "{}")
	return w
}

func (w openwrt) manager(t testing.TB, ubus string) *Manager {
	t.Helper()
	m, err := New(Config{
		Ubus: filepath.Join(w.folder, "bin", ubus), Scripts: filepath.Join(w.folder, "init.d"), Links: filepath.Join(w.folder, "rc.d"),
		Every: every,
	}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (w openwrt) run(t testing.TB, path string, args ...string) []byte {
	t.Helper()
	out, err := service.Runner{}.Run(t.Context(), service.Command{Path: path, Args: args})
	if err != nil || out.ExitCode != 0 {
		t.Fatalf("%s %q: %v, exit code %d, %s", filepath.Base(path), args, err, out.ExitCode, out.Stderr)
	}
	return out.Stdout
}

func (w openwrt) do(t testing.TB, verb string, args ...string) []byte {
	t.Helper()
	return w.run(t, w.replay, append([]string{w.folder, verb}, args...)...)
}

func (w openwrt) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	name := fmt.Sprintf("conformance-%d", installed.Add(1))
	spec := map[string]any{"terminate": 5, "child": s.Child, "stop_takes": s.StopTakes, "deaf": s.Deaf, "on_term": s.ExitOnStop}
	if n := int(s.StopLimit.Seconds()); n > 0 {
		spec["terminate"] = n
	}
	if s.Restart != "" && s.Restart != "no" {
		spec["respawn"] = map[string]int{"threshold": 3600, "timeout": int(s.RestartDelay.Seconds()), "retry": s.StartLimit}
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	w.do(t, "install", name, string(b))
	w.script(t, name, "enable")
	return name
}

func (w openwrt) script(t testing.TB, name, word string) {
	t.Helper()
	w.run(t, filepath.Join(w.folder, "init.d", name), word)
}

func (w openwrt) Operate(t testing.TB, verb servicetest.Verb, unit string) {
	t.Helper()
	w.script(t, unit, strings.TrimPrefix(string(verb), "begin-"))
}

func (w openwrt) Crash(t testing.TB, unit string) { t.Helper(); w.do(t, "crash", unit) }

func (w openwrt) Freeze(t testing.TB, unit string) { t.Helper(); w.do(t, "freeze", unit) }

func (w openwrt) Children(t testing.TB, unit string) []int {
	t.Helper()
	var pids []int
	if err := json.Unmarshal(w.do(t, "children", unit), &pids); err != nil {
		t.Fatal(err)
	}
	return pids
}

func (w openwrt) Disconnect(t testing.TB, hang bool) func() {
	t.Helper()
	verb := "gone"
	if hang {
		verb = "hang"
	}
	w.do(t, verb)
	return func() { w.do(t, "back") }
}

func TestReplay_Conformance(t *testing.T) {
	t.Parallel()
	replay := servicetest.Build(t, "replay")
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		t.Parallel()
		w := newOpenWrt(t, replay)
		return servicetest.Harness{Manager: w.manager(t, "ubus"), Unprivileged: w.manager(t, "ubus-nobody"), Host: w, Lacks: lacks, Again: func(t *testing.T) service.Manager { return w.manager(t, "ubus") }}
	})
}

// TestReplay_GaveUp is a crash loop (FAULTS.md F05). A person's stop of what procd gave up is still a stop.
func TestReplay_GaveUp(t *testing.T) {
	t.Parallel()
	w := newOpenWrt(t, servicetest.Build(t, "replay"))
	m := w.manager(t, "ubus")
	unit := w.Install(t, servicetest.Service{Restart: "always", StartLimit: 1})
	w.Operate(t, servicetest.Start, unit)
	status := func() service.Status {
		t.Helper()
		st, err := m.Status(t.Context(), unit)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for range 2 {
		if st := status(); st.State != service.StateRunning || !st.RestartsOnKill() {
			t.Fatalf("got %+v", st)
		}
		w.Crash(t, unit)
	}
	st := status()
	if st.State != service.StateFailed || st.Intent() != service.IntentRun || st.Result != "signal" || st.ExitStatus != 9 {
		t.Errorf("got %+v", st)
	}
	w.Operate(t, servicetest.Stop, unit)
	if st := status(); st.Intent() != service.IntentStopped {
		t.Errorf("got %+v", st)
	}
	if err := m.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if st := status(); st.State != service.StateRunning {
		t.Errorf("got %+v", st)
	}
}

// The bus refuses before procd is asked, and the script does not say so.
func TestReplay_Refused(t *testing.T) {
	t.Parallel()
	w := newOpenWrt(t, servicetest.Build(t, "replay"))
	unit := w.Install(t, servicetest.Service{})
	m := w.manager(t, "ubus-nobody")
	if err := m.Start(t.Context(), unit); !errors.Is(err, service.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if st, err := m.Status(t.Context(), unit); err != nil || st.State != service.StateStopped {
		t.Errorf("got %+v, %v", st, err)
	}
}
