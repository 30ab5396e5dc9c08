package incus

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

func runningDaemon(t testing.TB) daemonOf {
	t.Helper()
	return daemonOf{instance: recorded(t, "running.json"), state: recorded(t, "running.state.json")}
}

func TestStatus(t *testing.T) {
	m, g := behindGate(t, runningDaemon(t), nil)
	st, err := m.Status(t.Context(), "p1")
	if err != nil || st.State != service.StateRunning || st.MainPID != 11969 || st.InvocationID == "" || st.Enablement != "enabled" {
		t.Errorf("got %+v, %v", st, err)
	}
	if _, err := m.Status(t.Context(), "other"); !errors.Is(err, service.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := m.Limits(t.Context(), "p1"); err != nil {
		t.Error(err)
	}
	if refused := g.Refused(); len(refused) > 0 {
		t.Errorf("calls that are not documented: %q", refused)
	}
}

func TestLimits_ReadOnly(t *testing.T) {
	m, _ := behindGate(t, runningDaemon(t), func(r *http.Request) bool { return r.Method != http.MethodGet })
	if err := m.Limits(t.Context(), "p1"); !errors.Is(err, service.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// TestErrors: each way in which a daemon does not answer is told apart, and says what to do about it where that is known.
func TestErrors(t *testing.T) {
	answer := func(code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		want   error
		says   string
	}{
		"starting":      {answer(503, `{"type":"error","error":"Daemon is starting up"}`), service.ErrUnavailable, "starting up"},
		"refused":       {answer(403, `{"type":"error","error":"Certificate is restricted"}`), service.ErrPermission, "restricted"},
		"another HTTP":  {answer(404, `<html>nothing here</html>`), service.ErrUnavailable, "not in Incus's words"},
		"nonsense":      {answer(200, `{"type":"sync","metadata":`), service.ErrUnavailable, "not Incus's"},
		"other type":    {answer(200, `{"type":"async?"}`), service.ErrUnavailable, "not Incus's"},
		"no instance":   {answer(404, `{"type":"error","error":"Instance not found"}`), service.ErrNotFound, "Instance not found"},
		"redirect":      {answer(302, ``), service.ErrUnavailable, "302"},
		"too long":      {answer(200, strings.Repeat(" ", maxReply+1)), service.ErrUnavailable, "more than"},
		"error in 200":  {answer(200, `{"type":"error","error":"odd\nthing"}`), nil, "odd thing"},
		"long error":    {answer(400, `{"type":"error","error":"`+strings.Repeat("x", 1000)+`"}`), nil, "xxx..."},
		"endless error": {answer(500, strings.Repeat("x", maxMessage+1)), service.ErrUnavailable, "not in Incus's words"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := behindGate(t, daemonOf{answer: c.answer}, nil)
			_, err := m.Status(t.Context(), "p1")
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 500 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestErrors_Socket(t *testing.T) {
	m, err := New(Config{Socket: filepath.Join(t.TempDir(), "absent"), Project: "default"}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(t.Context(), "p1"); !errors.Is(err, service.ErrUnavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := m.Watch(t.Context(), []string{"p1"}, func() { t.Error("woken") }); !errors.Is(err, service.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if os.Geteuid() == 0 {
		return // nothing is forbidden to root
	}
	m, g := behindGate(t, runningDaemon(t), nil)
	if err := os.Chmod(g.Path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(t.Context(), "p1"); !errors.Is(err, service.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

func TestNew_Config(t *testing.T) {
	for _, c := range []Config{{}, {Socket: "run/x", Project: "default"}, {Socket: "/x", Project: "a&b"}, {Socket: "/x", Project: "../x"}} {
		if _, err := New(c, Deps{}); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// TestWatch_Remembers: by whom a run was ended is told by an event, and only for that run.
func TestWatch_Remembers(t *testing.T) {
	stopped := inst(t, "stopped", "p1")
	at := func(d time.Duration) string { return stopped.lastUsed.Add(d).Format(time.RFC3339Nano) }
	send := make(chan string)
	d := daemonOf{instance: recorded(t, "stopped.json"), answer: events(t, send)}
	m, _ := behindGate(t, d, nil)
	woken, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() { ended <- m.Watch(t.Context(), []string{"p1"}, func() { woken <- struct{}{} }) }()
	<-woken
	event := func(when time.Duration, requestor string) string {
		return `{"type":"lifecycle","project":"default","timestamp":"` + at(when) + `","metadata":{"action":"instance-shutdown","source":"/1.0/instances/p1"` + requestor + `}}`
	}
	const person = `,"requestor":{"username":"root","protocol":"unix"}`
	for _, c := range []struct {
		text string
		want service.Intent
	}{
		{event(-time.Second, person), service.IntentUnknown}, // of the run before
		{event(time.Second, person), service.IntentStopped},
		{event(2*time.Second, ""), service.IntentUnknown},
	} {
		send <- c.text
		<-woken
		if st, err := m.Status(t.Context(), "p1"); err != nil || st.Intent() != c.want {
			t.Errorf("after %s: got %v of %+v, %v", c.text, st.Intent(), st, err)
		}
	}
	close(send)
	if err := <-ended; !errors.Is(err, service.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestWatch_Refuses(t *testing.T) {
	m, _ := behindGate(t, runningDaemon(t), nil)
	for _, units := range [][]string{nil, {"p1", ".."}, make([]string, maxWatched+1)} {
		if err := m.Watch(t.Context(), units, func() { t.Error("woken") }); err == nil || errors.Is(err, service.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
}
