package procd

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// haproxy is an answer of procd's in the form that its source gives it, composed and not recorded.
const haproxy = `{
	"haproxy": {
		"instances": {
			"instance1": {
				"running": true,
				"pid": 2044,
				"command": [
					"/usr/sbin/haproxy",
					"-q",
					"-W",
					"-db",
					"-f",
					"/etc/haproxy.cfg"
				],
				"term_timeout": 5,
				"data": {
					"mdns": {
						"pid": "none"
					}
				},
				"respawn": {
					"threshold": 3600,
					"timeout": 5,
					"retry": 5
				},
				"no_new_privs": true,
				"user": "haproxy",
				"jail": {
					"name": "haproxy",
					"procfs": false
				}
			}
		}
	}
}
`

// without returns haproxy without some lines, and with others in place of the pid.
func with(pid string, without ...string) string {
	out := strings.Replace(haproxy, `"pid": 2044,`, pid, 1)
	for _, line := range without {
		out = strings.Replace(out, line, "", 1)
	}
	return out
}

const (
	running  = `"running": true,`
	respawn1 = `"respawn": {
					"threshold": 3600,
					"timeout": 5,
					"retry": 5
				},`
)

func TestStatus(t *testing.T) {
	up := service.Status{
		Unit: "haproxy", State: service.StateRunning, Detail: "running", MainPID: 2044, User: "haproxy", KillMode: "process",
		Restart: "always", RestartDelay: 5 * time.Second, StartLimit: 5, StartLimitSpan: 5 * time.Hour,
	}
	down := func(state service.State, detail, result string, status int) service.Status {
		s := up
		s.State, s.Detail, s.Result, s.ExitStatus, s.MainPID = state, detail, result, status, 0
		return s
	}
	alone := func(s service.Status) service.Status {
		s.Restart, s.RestartDelay, s.StartLimit, s.StartLimitSpan = "no", 0, 0, 0
		return s
	}
	unexplained := func(s service.Status) service.Status { s.Unexplained = true; return s }
	bare := service.Status{Unit: "haproxy", State: service.StateStopped, KillMode: "process"}
	ended := func(code string, without ...string) string {
		return strings.Replace(with(`"exit_code": `+code+`,`, without...), running, `"running": false,`, 1)
	}
	for _, tc := range []struct {
		name, text string
		want       service.Status
	}{
		{"running", haproxy, up},
		{"stopped by a person", "{\n\t\n}\n", func() service.Status { s := bare; s.Detail = "not known to procd"; return s }()},
		{"another service", `{"dnsmasq": {}}`, func() service.Status { s := bare; s.Detail = "not known to procd"; return s }()},
		{"its script starts nothing", `{"haproxy": {}}`, func() service.Status { s := bare; s.Detail = "no instances"; return s }()},
		{"crashed, respawning", ended("137"), down(service.StateRestarting, "ended with exit code 137, respawning", "signal", 9)},
		{"crashed, gave up", ended("1", respawn1), alone(down(service.StateFailed, "ended with exit code 1", "exit-code", 1))},
		{"killed, never to be restarted", ended("137", respawn1), alone(down(service.StateFailed, "ended with exit code 137", "signal", 9))},
		{"ended well", ended("0", respawn1), unexplained(alone(down(service.StateStopped, "ended with exit code 0", "success", 0)))},
		{"ended well, respawning", ended("0"), down(service.StateRestarting, "ended with exit code 0, respawning", "success", 0)},
		{"ended by SIGTERM", ended("143", respawn1), unexplained(alone(down(service.StateStopped, "ended with exit code 143", "signal", 15)))},
		{"procd before 2020, respawning", strings.Replace(with(""), running, `"running": false,`, 1), down(service.StateRestarting, "ended, respawning", "", 0)},
		{"procd before 2020, not respawning", strings.Replace(with("", respawn1), running, `"running": false,`, 1), alone(down(service.StateUnknown, "ended, but procd does not say how", "", 0))},
		{"running is missing", with(`"pid": 2044,`, running), down(service.StateUnknown, "procd does not say whether it runs", "", 0)},
		{"pid is missing", with(""), down(service.StateUnknown, "runs, but procd does not say which process it is", "", 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := parse([]byte(tc.text), "haproxy")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, a.status("haproxy")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatus_Instances(t *testing.T) {
	a, err := parse([]byte(`{"x": {"instances": {
		"b": {"running": true, "pid": 12},
		"a": {"running": false, "exit_code": 1, "respawn": {"threshold": 60, "timeout": 1, "retry": 0}},
		"c": {"running": true, "pid": 13}
	}}}`), "x")
	if err != nil {
		t.Fatal(err)
	}
	st := a.status("x")
	if st.State != service.StateRestarting || st.Detail != "a ended with exit code 1, respawning" || st.MainPID != 0 || st.StartLimit != 0 {
		t.Errorf("got %+v", st)
	}
	if a.run() != "12+13" || a.only() != "" {
		t.Errorf("got %q, %q", a.run(), a.only())
	}
}

func TestParse_Nonsense(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "{", `"x"`, `{"haproxy": []}`, `{"haproxy": {"instances": {"i": {"running": "yes"}}}}`, `{"haproxy": {"instances": {"i": {"pid": 1e99}}}}`} {
		if a, err := parse([]byte(text), "haproxy"); err == nil {
			t.Errorf("%q: got %+v", text, a)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"haproxy", "dnsmasq", "a-b_c.d+e", "0"} {
		if err := checkName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-h", "a/b", "a b", `a"b`, "a\n", "a*", strings.Repeat("a", 65)} {
		if checkName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(haproxy))
	f.Add([]byte(with(`"exit_code": 137,`, respawn1)))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(b, "haproxy")
		if err != nil {
			return
		}
		st := a.status("haproxy")
		if st.State == service.StateRunning && len(a) == 1 && st.MainPID <= 0 {
			t.Errorf("runs without a process: %+v", st)
		}
		if st.State != service.StateRunning && st.MainPID != 0 {
			t.Errorf("does not run, with a process: %+v", st)
		}
		if st.Detail == "" || st.RestartDelay < 0 || st.StartLimitSpan < 0 {
			t.Errorf("got %+v", st)
		}
	})
}
