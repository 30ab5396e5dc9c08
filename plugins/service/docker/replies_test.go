package docker

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// outcome is what a manager that has just been started says of a container, apart from what differs between two runs.
type outcome struct {
	State   service.State
	Intent  service.Intent
	Result  string
	Exit    int
	Job     string
	Settled service.Intent // the intent once the engine has been answering for a minute; zero if it stays the same
}

// outcomes are what comes of each way to leave a container. The e2e tests make them on a real engine and record its answers
// in testdata; the other tests replay the records.
var outcomes = map[string]outcome{
	"never-started":            {State: service.StateStopped, Intent: service.IntentStopped},
	"running":                  {State: service.StateRunning, Intent: service.IntentRun},
	"paused":                   {State: service.StateRunning, Intent: service.IntentBusy, Job: "pause"},
	"stop-in-progress":         {State: service.StateRunning, Intent: service.IntentBusy, Job: "stop"},
	"restarting":               {State: service.StateRestarting, Intent: service.IntentRun, Result: "exit-code", Exit: 3},
	"crashed":                  {State: service.StateFailed, Intent: service.IntentRun, Result: "signal", Exit: 9},
	"exited-3":                 {State: service.StateFailed, Intent: service.IntentRun, Result: "exit-code", Exit: 3},
	"oom":                      {State: service.StateFailed, Intent: service.IntentRun, Result: "oom-kill", Exit: 9},
	"gave-up":                  {State: service.StateFailed, Intent: service.IntentRun, Result: "exit-code", Exit: 3},
	"restart-failed":           {State: service.StateFailed, Intent: service.IntentRun, Result: "resources", Exit: 137},
	"ended-well":               {State: service.StateStopped, Intent: service.IntentStopped, Result: "success"},
	"stopped":                  {State: service.StateStopped, Intent: service.IntentStopped, Result: "success"},
	"stopped-by-force":         {State: service.StateFailed, Intent: service.IntentStopped, Result: "signal", Exit: 9},
	"stopped-always":           {State: service.StateFailed, Intent: service.IntentStopped, Result: "exit-code", Exit: 3},
	"killed":                   {State: service.StateFailed, Intent: service.IntentStopped, Result: "signal", Exit: 9},
	"killed-always":            {State: service.StateFailed, Intent: service.IntentStopped, Result: "signal", Exit: 9},
	"killed-unless-stopped":    {State: service.StateFailed, Intent: service.IntentStopped, Result: "signal", Exit: 9},
	"hung-up":                  {State: service.StateFailed, Intent: service.IntentStopped, Result: "exit-code", Exit: 2},
	"stopped-while-restarting": {State: service.StateFailed, Intent: service.IntentStopped, Result: "exit-code", Exit: 3},
	"killed-while-restarting": {
		State: service.StateFailed, Intent: service.IntentUnknown, Result: "exit-code", Exit: 3, Settled: service.IntentStopped,
	},
}

// outcomeOf checks what is the same for every container, and returns the rest.
func outcomeOf(t *testing.T, st service.Status) outcome {
	t.Helper()
	runs := st.State == service.StateRunning
	if (st.MainPID > 0) != runs || (st.InvocationID == "") != (st.Detail == "created") || !st.KillIsStop || st.RestartsOnKill() || st.SparesChildren() {
		t.Errorf("got %+v", st)
	}
	return outcome{State: st.State, Intent: st.Intent(), Result: st.Result, Exit: st.ExitStatus, Job: st.Job}
}

// replay is an engine that gives recorded answers.
type replay struct {
	version   string
	container []byte
	events    []byte
	date      time.Time
}

// recorded returns a replay of testdata/name, and the name of its container.
func recorded(t testing.TB, name string) (replay, string) {
	t.Helper()
	r := replay{version: "1.41"}
	var err error
	if r.container, err = os.ReadFile(filepath.Join("testdata", name+".json")); err != nil {
		t.Fatal(err)
	}
	if r.events, err = os.ReadFile(filepath.Join("testdata", name+".events")); err != nil {
		t.Fatal(err)
	}
	var c struct {
		Name  string
		State struct{ StartedAt, FinishedAt time.Time }
	}
	if err := json.Unmarshal(r.container, &c); err != nil {
		t.Fatal(err)
	}
	r.date = c.State.StartedAt.Add(time.Minute)
	return r, c.Name[1:]
}

func (r replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Date", r.date.UTC().Format(http.TimeFormat))
	w.Header().Set("Api-Version", r.version)
	switch path := req.URL.Path; {
	case path == "/_ping":
		_, _ = w.Write([]byte("OK"))
	case path == "/v"+r.version+"/events":
		_, _ = w.Write(r.events)
	case filepath.Base(path) == "json" && filepath.Base(filepath.Dir(path)) != nobody:
		_, _ = w.Write(r.container)
	case req.Method == http.MethodPost && filepath.Base(filepath.Dir(path)) != nobody:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"No such container: ` + nobody + `"}`))
	}
}

// TestStatus_Recorded replays what a real engine said of each container.
func TestStatus_Recorded(t *testing.T) {
	for name, want := range outcomes {
		t.Run(name, func(t *testing.T) {
			r, unit := recorded(t, name)
			m, g := behindGate(t, r)
			st, err := m.Status(t.Context(), unit)
			if err != nil {
				t.Fatal(err)
			}
			settled := want.Settled
			want.Settled = 0
			if diff := cmp.Diff(want, outcomeOf(t, st)); diff != "" {
				t.Error(diff)
			}
			if settled != 0 {
				m.since = m.since.Add(-2 * settling)
				if st, err = m.Status(t.Context(), unit); err != nil || st.Intent() != settled {
					t.Errorf("settled: got %v, %v of %+v", st.Intent(), err, st)
				}
			}
			if len(g.refused) > 0 {
				t.Errorf("calls that are not documented: %q", g.refused)
			}
		})
	}
}

// TestStatus_EventsLost: what was not seen in time is unknown, unless the policy tells.
func TestStatus_EventsLost(t *testing.T) {
	for name, want := range outcomes {
		t.Run(name, func(t *testing.T) {
			r, unit := recorded(t, name)
			complete := r.events
			r.events = nil
			m, _ := behindGate(t, &r)
			st, err := m.Status(t.Context(), unit)
			if err != nil {
				t.Fatal(err)
			}
			switch got := st.Intent(); {
			case want.State == service.StateFailed && want.Result != "resources":
				if got != service.IntentUnknown {
					t.Errorf("got %v of %+v", got, st)
				}
			case want.Job == "stop":
			case got != want.Intent:
				t.Errorf("got %v, want %v of %+v", got, want.Intent, st)
			}
			m.since = m.since.Add(-2 * settling)
			st, err = m.Status(t.Context(), unit)
			if err != nil {
				t.Fatal(err)
			}
			if got, seen := st.Intent(), want.Intent; st.Restart == "always" && got == service.IntentUnknown || got != service.IntentUnknown && got != seen && want.Settled == 0 && want.Job != "stop" {
				t.Errorf("settled: got %v, want %v of %+v", got, seen, st)
			}
			// What was seen once stays true when the events are gone.
			r.events = complete
			if _, err := m.Status(t.Context(), unit); err != nil {
				t.Fatal(err)
			}
			r.events = nil
			if st, err = m.Status(t.Context(), unit); err != nil || want.Settled == 0 && want.Job != "stop" && st.Intent() != want.Intent {
				t.Errorf("seen before: got %v, want %v, %v of %+v", st.Intent(), want.Intent, err, st)
			}
		})
	}
}
