package launchd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

func composed(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStatus(t *testing.T) {
	base := service.Status{
		Unit: "x", KillMode: "control-group", Restart: "no", RestartDelay: 10 * time.Second,
		UnitFile: "/Users/kaffa/Library/LaunchAgents/com.kaffa.etcd-socat.plist",
	}
	for _, tc := range []struct {
		name   string
		down   time.Duration
		intent service.Intent
		change func(*service.Status)
	}{
		{"running", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.MainPID, s.InvocationID, s.Restart = service.StateRunning, "running", 36019, "run 7", "always"
		}},
		{"running-2019", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.MainPID, s.InvocationID, s.Restart = service.StateRunning, "running", 3087, "run 1", "on-failure"
		}},
		{"abandons", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.MainPID, s.InvocationID, s.Restart, s.KillMode = service.StateRunning, "running", 36019, "run 1", "always", "process"
		}},
		{"deceptive", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.MainPID, s.InvocationID = service.StateRunning, "running", 36019, "run 1"
		}},
		{"xpcproxy", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.MainPID, s.InvocationID, s.Restart = service.StateStarting, "xpcproxy", 36020, "run 1", "always"
		}},
		{"sigtermed", 0, service.IntentBusy, func(s *service.Status) {
			s.State, s.Detail, s.MainPID, s.InvocationID, s.Job = service.StateStopping, "SIGTERMed", 36019, "run 7", "stop"
		}},
		{"spawn-scheduled", time.Hour, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID, s.Restart = service.StateRestarting, "spawn scheduled", "exit-code", 1, "run 5", "always"
		}},
		{"dyld", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.InvocationID, s.Restart = service.StateRestarting, "spawn scheduled", "exit-code", "run 18", "always"
		}},
		{"killed", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID = service.StateFailed, "not running", "signal", 9, "run 7"
		}},
		{"killed-kept-alive", 15 * time.Second, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID, s.Restart = service.StateRestarting, "not running", "signal", 9, "run 7", "always"
		}},
		{"killed-kept-alive", 16 * time.Second, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID, s.Restart = service.StateFailed, "not running", "signal", 9, "run 7", "always"
		}},
		{"pended", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID, s.Restart = service.StateFailed, "not running", "signal", 9, "run 7", "always"
		}},
		{"failed", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID, s.Restart = service.StateRestarting, "not running", "exit-code", 1, "run 2", "on-failure"
		}},
		{"ended-well", 0, service.IntentStopped, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.InvocationID, s.Restart = service.StateStopped, "not running", "success", "run 2", "on-failure"
		}},
		{"terminated", 0, service.IntentStopped, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID = service.StateStopped, "not running", "signal", 15, "run 2"
		}},
		{"never-ran", 0, service.IntentStopped, func(s *service.Status) { s.State, s.Detail = service.StateStopped, "not running, never ran" }},
		{"spawn-failed", 0, service.IntentRun, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.ExitStatus, s.InvocationID, s.Restart, s.LoadError = service.StateFailed, "not running", "exit-code", 78, "run 6", "always", "spawn failed"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := base
			tc.change(&want)
			got := parse(composed(t, tc.name)).status("x", tc.down)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if intent := got.Intent(); intent != tc.intent {
				t.Errorf("got intent %v, want %v", intent, tc.intent)
			}
		})
	}
}

// What is missing or odd makes the status unknown, and what nobody has seen yet is skipped.
func TestStatus_Doubt(t *testing.T) {
	good := string(composed(t, "running"))
	for _, tc := range []struct{ name, text, detail string }{
		{"empty", "", "cut off"},
		{"an error message", "Bad request.\nCould not find service\n", "prints no job"},
		{"cut off", strings.TrimSuffix(good, "}\n"), "cut off"},
		{"no state", strings.Replace(good, "\tstate = running\n", "", 1), "prints no state"},
		{"no pid", strings.Replace(good, "\tpid = 36019\n", "", 1), "running"},
		{"no runs", strings.Replace(good, "\truns = 7\n", "", 1), "running"},
		{"an odd pid", strings.Replace(good, "pid = 36019", "pid = many", 1), `"pid" that is no number`},
		{"two states", strings.Replace(good, "\tasid", "\tstate = not running\n\tasid", 1), `"state" twice`},
		{"a state of the future", strings.Replace(good, "state = running\n", "state = hibernating\n", 1), "hibernating"},
		{"no end that is known", strings.Replace(string(composed(t, "killed")), "\tlast terminating signal = Killed: 9\n", "", 1), "does not print how it ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := parse([]byte(tc.text)).status("x", time.Hour)
			if st.State != service.StateUnknown || st.MainPID != 0 || !strings.Contains(st.Detail, tc.detail) {
				t.Errorf("got %+v", st)
			}
		})
	}
	more := strings.Replace(good, "\tasid", "\tnew field = {\n\t\tstate = odd\n\t}\n\tanother = 1\n\ta sentence\n\tasid", 1)
	if st := parse([]byte(more)).status("x", 0); st.State != service.StateRunning {
		t.Errorf("got %+v", st)
	}
}

func TestParseDisabled(t *testing.T) {
	for _, name := range []string{"disabled", "disabled-2019"} {
		for label, want := range map[string]bool{"com.kaffa.etcd-socat": true, "com.kaffa.etcd-socat-peer": false, "com.kaffa.unheard-of": false} {
			if got, err := parseDisabled(composed(t, name), label); err != nil || got != want {
				t.Errorf("%s in %s: got %v, %v", label, name, got, err)
			}
		}
	}
	for _, text := range []string{"", "nonsense", "disabled services = {\n", "disabled services = {\n\t\"x\" => perhaps\n}\n"} {
		if got, err := parseDisabled([]byte(text), "x"); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestTarget(t *testing.T) {
	m, err := New(Config{Launchctl: "/bin/launchctl", Domain: "gui/501", Every: time.Second}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for unit, want := range map[string]target{
		"com.example.a":          {"gui/501", "com.example.a", 501},
		"system/com.example.a":   {"system", "com.example.a", noUser},
		"user/0/com.example_a-b": {"user/0", "com.example_a-b", 0},
	} {
		if got, err := m.target(unit); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", unit, got, err)
		}
	}
	for _, unit := range []string{"", "/", "-k", "a/b", "gui/x/a", "gui/501/", "gui/0501/a", "pid/1/a", "login/1/a", "a b", "a\n", "a;b", "ä", strings.Repeat("a", 201)} {
		if got, err := m.target(unit); err == nil {
			t.Errorf("%q: got %+v", unit, got)
		}
	}
}

func TestMayOrder(t *testing.T) {
	for _, tc := range []struct {
		uid  int
		user int
		ok   bool
	}{{0, noUser, true}, {0, 501, true}, {501, 501, true}, {501, 502, false}, {501, noUser, false}, {501, 0, false}} {
		m := &Manager{uid: tc.uid}
		if err := m.mayOrder(target{domain: "d", user: tc.user}); (err == nil) != tc.ok {
			t.Errorf("user %d in the domain of %d: got %v", tc.uid, tc.user, err)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Launchctl: "launchctl", Domain: "gui", Plists: []string{"x"}}.Validate()
	for _, part := range []string{`"launchctl"`, `"x"`, `"gui"`, "every"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, which does not name %s", err, part)
		}
	}
}

func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		f.Fatal(names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st := parse(b).status("x", 0)
		if st.State == service.StateRunning && (st.MainPID <= 0 || st.InvocationID == "") || st.RestartDelay < 0 {
			t.Errorf("got %+v", st)
		}
		if st.State == service.StateFailed && st.Result == "" {
			t.Errorf("failed, and nothing says so: %+v", st)
		}
	})
}

func FuzzParseDisabled(f *testing.F) {
	f.Add(composed(f, "disabled"), "com.kaffa.etcd-socat")
	f.Add(composed(f, "disabled-2019"), "com.kaffa.etcd-socat-peer")
	f.Fuzz(func(t *testing.T, b []byte, label string) {
		if disabled, err := parseDisabled(b, label); disabled && (err != nil || !strings.Contains(string(b), " => ")) {
			t.Errorf("%q is disabled, %v", label, err)
		}
	})
}
