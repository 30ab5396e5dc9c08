package incus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// recorded returns what a real daemon (6.0.4) said, without the envelope.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inst returns a recorded instance.
func inst(t testing.TB, file, name string) instance {
	t.Helper()
	i, err := parse(name, recorded(t, file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestParse_Recorded(t *testing.T) {
	running := inst(t, "running", "p1")
	if running.status != "Running" || running.lastPower != "RUNNING" || running.run == "" || running.stopLimit != shutdownLimit {
		t.Errorf("got %+v", running)
	}
	frozen := inst(t, "frozen", "p1")
	if frozen.status != "Frozen" || frozen.run != running.run {
		t.Errorf("a pause is no other run: got %+v", frozen)
	}
	if stopped := inst(t, "stopped", "p1"); stopped.lastPower != "STOPPED" || stopped.run == running.run {
		t.Errorf("got %+v", stopped)
	}
	if never := inst(t, "never-started", "p2"); never.run != "" || never.autostart != "false" || !never.autorestart {
		t.Errorf("got %+v", never)
	}
	if pid, err := parsePID(recorded(t, "running.state.json")); err != nil || pid != 11969 {
		t.Errorf("got %d, %v", pid, err)
	}
}

func TestParseRunning_Recorded(t *testing.T) {
	all, err := parseRunning(recorded(t, "operations.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := []operation{{id: "ee3fbef3-aea1-4a7e-b17e-570fa7352b1e", job: "stop", target: []string{"p1"}}}
	if diff := cmp.Diff(want, all, cmp.AllowUnexported(operation{})); diff != "" {
		t.Error(diff)
	}
}

// TestParseEvent_Recorded: the deeds of a person and what happened from inside, in the order of the record.
func TestParseEvent_Recorded(t *testing.T) {
	var got []string
	lines := bufio.NewScanner(bytes.NewReader(recorded(t, "events.jsonl")))
	for lines.Scan() {
		e, ok, err := parseEvent(lines.Bytes())
		if err != nil || !ok || e.instance != "p1" || e.project != "default" || e.at.IsZero() {
			t.Fatalf("got %+v, %t, %v of %s", e, ok, err, lines.Bytes())
		}
		text := strings.TrimPrefix(e.action, "instance-")
		if !e.ordered {
			text += " by itself"
		}
		if e.silent() {
			text += ", silent"
		}
		got = append(got, text)
	}
	want := []string{
		"shutdown", "started", // incus stop
		"stopped", "started", // incus stop --force
		"exec, silent", "shutdown by itself", "started", // poweroff inside
		"shutdown by itself", "started", // SIGKILL of the first process
		"restarted", "restarted", // incus restart, also by force
		"exec, silent", "restarted by itself", // reboot inside
		"paused", "resumed",
		"updated",                             // boot.autorestart=true
		"restarted by itself",                 // SIGKILL of the first process
		"exec, silent", "restarted by itself", // poweroff inside
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJudge(t *testing.T) {
	used := time.Date(2026, 4, 8, 0, 0, 0, 0, time.UTC)
	up := instance{status: "Running", lastPower: "RUNNING", lastUsed: used, run: "r"}
	down := instance{status: "Stopped", lastPower: "STOPPED", lastUsed: used, run: "r"}
	lost := instance{status: "Stopped", lastPower: "RUNNING", lastUsed: used, run: "r"}
	again := func(i instance) instance { i.autorestart = true; return i }
	with := func(i instance, status string) instance { i.status = status; return i }
	auto := func(i instance, v string) instance { i.autostart = v; return i }
	for name, c := range map[string]struct {
		i       instance
		pid     int
		job     string
		e       end
		young   bool // the daemon answers for less than a minute
		state   service.State
		intent  service.Intent
		hasJob  string
		enabled string
	}{
		"runs":                            {i: up, pid: 7, state: service.StateRunning, intent: service.IntentRun},
		"says that it is ready":           {i: with(up, "Ready"), pid: 7, state: service.StateRunning, intent: service.IntentRun},
		"frozen":                          {i: with(up, "Frozen"), pid: 7, state: service.StateRunning, intent: service.IntentBusy, hasJob: "freeze"},
		"being stopped":                   {i: up, pid: 7, job: "stop", state: service.StateRunning, intent: service.IntentBusy, hasJob: "stop"},
		"first process gone":              {i: up, state: service.StateStopping, intent: service.IntentBusy},
		"first process gone, autorestart": {i: again(up), state: service.StateRestarting, intent: service.IntentRun},
		"first process not there yet":     {i: up, job: "start", state: service.StateStarting, intent: service.IntentBusy, hasJob: "start"},
		"being started":                   {i: down, job: "start", state: service.StateStarting, intent: service.IntentBusy, hasJob: "start"},
		"second half of a restart":        {i: down, job: "restart", state: service.StateStopping, intent: service.IntentBusy, hasJob: "restart"},
		"LXC does not answer":             {i: with(up, "Error"), state: service.StateUnknown, intent: service.IntentUnknown},
		"never started":                   {i: instance{status: "Stopped"}, state: service.StateStopped, intent: service.IntentStopped},
		"ordered":                         {i: down, e: end{by: endOrdered}, state: service.StateStopped, intent: service.IntentStopped},
		"from inside":                     {i: down, e: end{by: endInside}, state: service.StateFailed, intent: service.IntentUnknown},
		"nobody saw it":                   {i: down, state: service.StateFailed, intent: service.IntentUnknown},
		"gave up":                         {i: again(down), e: end{by: endInside}, state: service.StateFailed, intent: service.IntentRun},
		"ordered, autorestart":            {i: again(down), e: end{by: endOrdered}, state: service.StateStopped, intent: service.IntentStopped},
		"just down, autorestart":          {i: again(down), e: end{fresh: true}, state: service.StateRestarting, intent: service.IntentRun},
		"down for long, autorestart":      {i: again(down), state: service.StateStopped, intent: service.IntentStopped},
		"end not recorded":                {i: lost, state: service.StateFailed, intent: service.IntentRun},
		"end not recorded, just seen":     {i: lost, e: end{fresh: true}, state: service.StateFailed, intent: service.IntentUnknown},
		"end not recorded, daemon young":  {i: lost, young: true, state: service.StateFailed, intent: service.IntentUnknown},
		"end not recorded, disabled": {
			i: auto(lost, "false"), state: service.StateFailed, intent: service.IntentDisabled, enabled: "disabled",
		},
		"autostart":  {i: auto(lost, "true"), state: service.StateFailed, intent: service.IntentRun},
		"last state": {i: auto(lost, "last-state"), state: service.StateFailed, intent: service.IntentRun},
	} {
		t.Run(name, func(t *testing.T) {
			st := c.i.judge("p1", c.pid, c.job, c.e, !c.young)
			if c.enabled == "" {
				c.enabled = "enabled"
			}
			if st.State != c.state || st.Intent() != c.intent || st.Job != c.hasJob || st.MainPID != c.pid || st.Enablement != c.enabled {
				t.Errorf("got %+v, intent %v", st, st.Intent())
			}
			if st.RestartsOnKill() || st.SparesChildren() {
				t.Errorf("got %+v", st)
			}
		})
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "postgres-1", "Etcd", strings.Repeat("a", 63)} {
		if err := checkName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "1a", "a.b", "a/b", "..", "a b", "a\n", "é", "a?x=1", "a%2f", strings.Repeat("a", 64), nobody} {
		if checkName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzReplies(f *testing.F) {
	for _, name := range []string{"running.json", "running.state.json", "stopped.json", "never-started.json", "operations.json", "events.jsonl"} {
		f.Add(recorded(f, name))
	}
	f.Add([]byte(`{"type":"error","error":"x"}`))
	f.Add([]byte(`{"id":"ee3fbef3-aea1-4a7e-b17e-570fa7352b1e","status_code":103,"metadata":{"fds":{"0":"a"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := parseReply(body); err == nil && r.Type == "" {
			t.Errorf("got %+v", r)
		}
		if op, err := parseOperation(body); err == nil && !isUUID(op.id) {
			t.Errorf("got %+v", op)
		}
		_, _ = parseRunning(body)
		if i, err := parse("p1", body); err == nil {
			if _, ok := states[i.status]; !ok || i.stopLimit <= 0 {
				t.Errorf("got %+v", i)
			}
			_ = i.judge("p1", 0, "", end{}, true)
		}
		if pid, err := parsePID(body); err == nil && pid < 0 {
			t.Errorf("got %d", pid)
		}
		if e, ok, err := parseEvent(body); err == nil && ok && checkName(e.instance) != nil {
			t.Errorf("got %+v", e)
		}
	})
}

// daemonOf answers as a daemon does with one instance, from records.
type daemonOf struct {
	instance, state []byte
	operations      []byte                                            // nil for none
	answer          func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func (d daemonOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.answer != nil && d.answer(w, r) {
		return
	}
	say := func(code int, text string, metadata []byte) {
		kind := "sync"
		if text != "" {
			kind = "error"
		}
		b, err := json.Marshal(map[string]any{"type": kind, "error": text, "metadata": raw(metadata)})
		if err != nil {
			panic(err)
		}
		w.WriteHeader(code)
		_, _ = w.Write(b)
	}
	switch path := r.URL.Path; {
	case path == "/1.0/operations" && d.operations != nil:
		say(http.StatusOK, "", d.operations)
	case path == "/1.0/operations":
		say(http.StatusOK, "", []byte(`{}`))
	case path == "/1.0/instances/p1":
		say(http.StatusOK, "", d.instance)
	case path == "/1.0/instances/p1/state" && r.Method == http.MethodGet:
		say(http.StatusOK, "", d.state)
	default:
		say(http.StatusNotFound, "Instance not found", nil)
	}
}

func raw(b []byte) json.RawMessage {
	if b == nil {
		return json.RawMessage("null")
	}
	return b
}
