package systemd

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// captured loads the properties that testdata/capture.sh took from systemd 257, as godbus decodes them.
func captured(t testing.TB, name string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]struct {
		Type string
		Data json.RawMessage
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	props := map[string]any{}
	for key, v := range raw {
		switch v.Type {
		case "s":
			props[key] = decode[string](t, v.Data)
		case "i":
			props[key] = decode[int32](t, v.Data)
		case "u":
			props[key] = decode[uint32](t, v.Data)
		case "t":
			props[key] = decode[uint64](t, v.Data)
		case "as":
			props[key] = decode[[]string](t, v.Data)
		case "ay":
			bytes := []byte{}
			for _, n := range decode[[]int](t, v.Data) {
				bytes = append(bytes, byte(n))
			}
			props[key] = bytes
		case "(uo)":
			job := decode[[2]json.RawMessage](t, v.Data)
			props[key] = []any{decode[uint32](t, job[0]), dbus.ObjectPath(decode[string](t, job[1]))}
		case "(ss)":
			props[key] = []any{"", ""}
		default:
			t.Fatalf("%s has type %s", key, v.Type)
		}
	}
	return props
}

func decode[T any](t testing.TB, raw json.RawMessage) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestParse_Captured(t *testing.T) {
	plain := service.Status{
		Unit: "x.service", State: service.StateRunning, Detail: "active/running", Result: "success", Enablement: "enabled",
		User: "nobody", KillMode: "process", Restart: "on-failure", RestartDelay: 100 * time.Millisecond,
		StartLimit: 5, StartLimitSpan: 10 * time.Second, OOMPolicy: "stop", UnitFile: "/run/systemd/system/capplain.service",
		ControlGroup: "/system.slice/capplain.service",
	}
	down := func(s service.Status) service.Status { s.ControlGroup = ""; return s }
	other := plain
	other.User, other.KillMode, other.Enablement, other.UnitFile = "", "control-group", "static", "/run/systemd/system/capstop.service"
	// A unit that is masked or breaks while it runs loses its settings at the next daemon-reload: killing Patroni's main
	// process would then take PostgreSQL with it and bring nothing back.
	forgotten := func(s *service.Status) {
		s.User, s.KillMode, s.Restart, s.OOMPolicy = "", "control-group", "no", ""
	}
	for _, tc := range []struct {
		name   string
		intent service.Intent
		base   service.Status
		change func(*service.Status)
	}{
		{"never-started", service.IntentDisabled, down(plain), func(s *service.Status) {
			s.State, s.Detail, s.Enablement = service.StateStopped, "inactive/dead", "disabled"
		}},
		{"running", service.IntentRun, plain, func(*service.Status) {}},
		{"stopped", service.IntentStopped, down(plain), func(s *service.Status) {
			s.State, s.Detail, s.ExitStatus = service.StateStopped, "inactive/dead", 15
		}},
		{"start-limit", service.IntentRun, down(plain), func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.Restarts = service.StateFailed, "failed/failed", "signal", 9, 5
		}},
		{"masked-running", service.IntentMasked, plain, func(s *service.Status) {
			s.Masked, s.Enablement, s.UnitFile = true, "masked", "/etc/systemd/system/capplain.service"
			forgotten(s)
		}},
		{"bad-setting-running", service.IntentRun, plain, func(s *service.Status) {
			s.LoadError, s.Detail = "bad-setting", "active/running (bad-setting)"
			forgotten(s)
		}},
		{"auto-restart", service.IntentRun, down(other), func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus = service.StateRestarting, "activating/auto-restart", "signal", 9
			s.Restart, s.RestartDelay, s.UnitFile = "always", 2*time.Second, "/run/systemd/system/capauto.service"
		}},
		{"restart-job", service.IntentBusy, other, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.Job = service.StateStopping, "deactivating/stop-post", "exit-code", 3, jobUnknown
			s.ControlGroup = "/system.slice/capstop.service"
		}},
		{"stopped-exit-code", service.IntentStopped, down(other), func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.Halted = service.StateFailed, "failed/failed", "exit-code", 3, true
		}},
		{"starting", service.IntentBusy, other, func(s *service.Status) {
			s.State, s.Detail, s.Job, s.Restart = service.StateStarting, "activating/start", jobUnknown, "no"
			s.ControlGroup, s.UnitFile = "/system.slice/capslow.service", "/run/systemd/system/capslow.service"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := tc.base
			tc.change(&want)
			got, err := parse("x.service", captured(t, tc.name))
			if err != nil {
				t.Fatal(err)
			}
			if running := got.State == service.StateRunning || got.State == service.StateStarting; running != (got.MainPID > 1) {
				t.Errorf("got main pid %d", got.MainPID)
			}
			if n := len(got.InvocationID); n != 32 && tc.name != "never-started" {
				t.Errorf("got invocation %q", got.InvocationID)
			}
			if intent := got.Intent(); intent != tc.intent {
				t.Errorf("got intent %v, want %v", intent, tc.intent)
			}
			got.MainPID, got.InvocationID = 0, ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParse_NotFound(t *testing.T) {
	if _, err := parse("x.service", captured(t, "not-found")); !errors.Is(err, service.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestState_Words(t *testing.T) {
	for detail, want := range map[string]service.State{
		"active/running":                       service.StateRunning,
		"active/exited":                        service.StateRunning,
		"reloading/reload":                     service.StateRunning,
		"refreshing/refresh-extensions":        service.StateRunning,
		"activating/start-pre":                 service.StateStarting,
		"activating/auto-restart":              service.StateRestarting,
		"activating/auto-restart-queued":       service.StateRestarting,
		"failed/failed-before-auto-restart":    service.StateRestarting,
		"inactive/dead-before-auto-restart":    service.StateRestarting,
		"deactivating/stop-sigterm":            service.StateStopping,
		"inactive/dead":                        service.StateStopped,
		"inactive/dead-resources-pinned":       service.StateStopped,
		"failed/failed":                        service.StateFailed,
		"maintenance/cleaning":                 service.StateUnknown,
		"something-of-the-future/and-its-kind": service.StateUnknown,
	} {
		active, sub, _ := strings.Cut(detail, "/")
		if got := state(active, sub); got != want {
			t.Errorf("%s: got %v, want %v", detail, got, want)
		}
	}
}

// Every property that parse reads, removed and then with a type that systemd never used.
func TestParse_OddProperties(t *testing.T) {
	optional := map[string]bool{"NRestarts": true, "ControlGroup": true, "User": true, "RestartUSec": true, "StartLimitBurst": true, "StartLimitIntervalUSec": true, "OOMPolicy": true, "FragmentPath": true, "ExecMainStartTimestampMonotonic": true, "ExecMainExitTimestampMonotonic": true, "ActiveExitTimestampMonotonic": true}
	for _, name := range []string{
		"LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "UnitFileState", "MainPID", "InvocationID",
		"NRestarts", "ControlGroup", "User", "KillMode", "Restart", "RestartUSec", "StartLimitBurst",
		"StartLimitIntervalUSec", "OOMPolicy", "FragmentPath", "ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic", "ActiveExitTimestampMonotonic", "Job",
	} {
		props := captured(t, "running")
		delete(props, name)
		if _, err := parse("x.service", props); (err == nil) != optional[name] || err != nil && !strings.Contains(err.Error(), "property "+name+": missing") {
			t.Errorf("without %s: got %v", name, err)
		}
		props[name] = struct{}{}
		if _, err := parse("x.service", props); err == nil || !strings.Contains(err.Error(), "property "+name+": unexpected type") {
			t.Errorf("with an odd %s: got %v", name, err)
		}
	}
}

func TestParse_Limits(t *testing.T) {
	props := captured(t, "running")
	props["RestartUSec"] = uint64(math.MaxUint64) // infinity
	props["StartLimitIntervalUSec"] = uint64(0)
	got, err := parse("x.service", props)
	if err != nil || got.RestartDelay != math.MaxInt64 || got.StartLimit != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A systemd without NRestarts cannot tell a stop from a start limit, so nothing is claimed.
func TestParse_HaltedNeedsCount(t *testing.T) {
	props := captured(t, "stopped-exit-code")
	delete(props, "NRestarts")
	if got, err := parse("x.service", props); err != nil || got.Halted {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A long-lived service has been restarted often enough before somebody stopped it; a start limit ends short runs only.
func TestParse_Halted(t *testing.T) {
	for _, tc := range []struct {
		name     string
		unit     string
		restarts uint32
		lifetime time.Duration
		want     bool
	}{
		{"limit", "start-limit", 5, time.Second, false},
		{"limit, more restarts than it allows", "start-limit", 6, time.Second, false},
		{"two starts by hand, then the limit", "start-limit", 4, time.Second, true},
		{"stopped at once", "stopped-exit-code", 0, time.Second, true},
		{"stopped after days", "stopped-exit-code", 0, 72 * time.Hour, true},
		{"stopped after days with crashes", "stopped-exit-code", 9, 72 * time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			props := captured(t, tc.unit)
			props["NRestarts"] = tc.restarts
			start := props["ExecMainStartTimestampMonotonic"].(uint64)
			props["ExecMainExitTimestampMonotonic"] = start + uint64(tc.lifetime.Microseconds())
			got, err := parse("x.service", props)
			if err != nil || got.Halted != tc.want {
				t.Errorf("got %v, %v, want %v", got.Halted, err, tc.want)
			}
		})
	}
}

// TestParse_StopWithoutRestart: FAULTS.md F07, found in the lab. socat ends with 143 when systemd stops it, which systemd calls a
// failure; with Restart=no nothing but the order of two times shows that somebody wanted it. The times are systemd 257's.
func TestParse_StopWithoutRestart(t *testing.T) {
	for _, tc := range []struct {
		name        string
		result      string
		began, left uint64
		ended       uint64
		want        service.Intent
	}{
		{"systemctl stop", "exit-code", 4897884885, 4898443811, 4898446102, service.IntentStopped},
		{"systemctl stop, and SIGKILL after its time", "timeout", 4897884885, 4898443811, 4908446102, service.IntentStopped},
		{"SIGTERM from somebody else", "exit-code", 4899029006, 4900424383, 4900424157, service.IntentRun},
		{"SIGKILL", "signal", 4900984563, 4901578386, 4901578062, service.IntentRun},
		{"it was active in an earlier run only", "exit-code", 4900984563, 4898443811, 4901578062, service.IntentRun},
		{"watchdog", "watchdog", 4897884885, 4898443811, 4898446102, service.IntentRun},
		{"no memory", "oom-kill", 4897884885, 4898443811, 4898446102, service.IntentRun},
		{"a systemd that does not say", "exit-code", 4897884885, 0, 4898446102, service.IntentRun},
	} {
		t.Run(tc.name, func(t *testing.T) {
			props := captured(t, "stopped-exit-code")
			props["Restart"], props["Result"] = "no", tc.result
			props["ExecMainStartTimestampMonotonic"], props["ActiveExitTimestampMonotonic"], props["ExecMainExitTimestampMonotonic"] = tc.began, tc.left, tc.ended
			if got, err := parse("x.service", props); err != nil || got.Intent() != tc.want {
				t.Errorf("got %v of %+v, %v; want %v", got.Intent(), got, err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Job", uint8(0), "x")
	f.Add("InvocationID", uint8(1), "\x00")
	f.Add("MainPID", uint8(2), "4294967295")
	base := captured(f, "running")
	f.Fuzz(func(t *testing.T, name string, kind uint8, text string) {
		values := []any{
			text, []byte(text), uint32(len(text)), int32(-len(text)), uint64(math.MaxUint64), nil, true,
			[]any{},
			[]any{text},
			[]any{uint32(1)},
			[]any{uint32(1), text},
			[]any{uint32(1), dbus.ObjectPath(text)},
			map[string]dbus.Variant{},
			-1.5,
		}
		props := map[string]any{}
		for k, v := range base {
			props[k] = v
		}
		if int(kind) < len(values) {
			props[name] = values[kind]
		} else {
			delete(props, name)
		}
		st, err := parse("x.service", props)
		_ = jobPath(props)
		if err != nil && !errors.Is(err, service.ErrNotFound) && !strings.Contains(err.Error(), "property "+name) {
			t.Errorf("the error does not name %q: %v", name, err)
		}
		if err != nil && st != (service.Status{}) {
			t.Errorf("an error came with %+v", st)
		}
		if err == nil && (st.MainPID < 0 || st.Restarts < 0 || st.RestartDelay < 0) {
			t.Errorf("got %+v", st)
		}
	})
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"patroni.service", "postgresql@17-main.service", `dev-sda\x2d1.service`, "a:b_c.d.service", "1.service"} {
		if err := checkName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".service", "patroni", "patroni.timer", "-a.service", "..service", "a@.service", "@a.service", "a b.service", "a'.service", "a,b.service",
		"a/b.service", "a\n.service", "ä.service", "a.service\n", "a;b.service", strings.Repeat("a", 248) + ".service",
	} {
		if err := checkName(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestUnitPath(t *testing.T) {
	for name, want := range map[string]dbus.ObjectPath{
		"patroni.service":            "/org/freedesktop/systemd1/unit/patroni_2eservice",
		"postgresql@17-main.service": "/org/freedesktop/systemd1/unit/postgresql_4017_2dmain_2eservice",
		"3proxy.service":             "/org/freedesktop/systemd1/unit/_33proxy_2eservice",
	} {
		if got := unitPath(name); got != want || !got.IsValid() {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	f.Add("patroni.service")
	f.Fuzz(func(t *testing.T, name string) {
		if checkName(name) == nil && (!unitPath(name).IsValid() || strings.ContainsAny(name, "'\", \n\x00/;$`")) {
			t.Errorf("%q was accepted", name)
		}
	})
}
