package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

const web = "p1/fake/web.service"

// withFake returns a Manager of one instance, inside which a fake manager runs web.service.
func withFake(t testing.TB, d daemonOf) (*Manager, *servicetest.Fake) {
	t.Helper()
	m, _ := behindGate(t, d, nil)
	f := servicetest.NewFake()
	f.Add("web.service", servicetest.Service{Restart: "on-failure"})
	m.inside = func(manager string, _ Dial) (service.Manager, error) {
		if manager != "fake" {
			return nil, errors.ErrUnsupported
		}
		return f, nil
	}
	return m, f
}

func TestInside_Orders(t *testing.T) {
	m, f := withFake(t, runningDaemon(t))
	if err := m.Start(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	st, err := m.Status(t.Context(), web)
	if err != nil || st.Unit != web || st.State != service.StateRunning || st.MainPID != f.Units()["web.service"].MainPID {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := m.Restart(t.Context(), web, st); err != nil {
		t.Error(err)
	}
	if err := m.KillMain(t.Context(), web, st); !errors.Is(err, service.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if err := m.Limits(t.Context(), web); err != nil {
		t.Error(err)
	}
	if _, err := m.Status(t.Context(), "p1/fake/other.service"); !errors.Is(err, service.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := m.Status(t.Context(), "p1/launchd/web"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// TestInside_InstanceNotRunning: the unit inside has no say then, and nothing starts the instance for its sake.
func TestInside_InstanceNotRunning(t *testing.T) {
	stopping := []byte(`{"running":[{"id":"ee3fbef3-aea1-4a7e-b17e-570fa7352b1e","description":"Stopping instance","status_code":103,"resources":{"instances":["/1.0/instances/p1"]}}]}`)
	stopped := daemonOf{instance: recorded(t, "stopped.json")}
	never := daemonOf{instance: []byte(strings.ReplaceAll(string(recorded(t, "never-started.json")), `"name": "p2"`, `"name": "p1"`))}
	frozen := daemonOf{instance: recorded(t, "frozen.json"), state: recorded(t, "running.state.json")}
	busy := runningDaemon(t)
	busy.operations = stopping
	for name, c := range map[string]struct {
		d      daemonOf
		seen   ending
		intent service.Intent
		start  error
	}{
		"by a person":  {stopped, endOrdered, service.IntentStopped, errNoInstance},
		"from inside":  {stopped, endInside, service.IntentUnknown, errNoInstance},
		"nobody knows": {stopped, endUnseen, service.IntentUnknown, errNoInstance},
		"never":        {never, endUnseen, service.IntentStopped, errNoInstance},
		"frozen":       {frozen, endUnseen, service.IntentBusy, service.ErrBusy},
		"being ended":  {busy, endUnseen, service.IntentBusy, service.ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			m, f := withFake(t, c.d)
			if c.seen != endUnseen {
				m.seen["p1"] = end{at: time.Now(), by: c.seen}
			}
			st, err := m.Status(t.Context(), web)
			if err != nil || st.Intent() != c.intent || st.MainPID != 0 || st.Unit != web {
				t.Errorf("got %v of %+v, %v", st.Intent(), st, err)
			}
			if err := m.Start(t.Context(), web); !errors.Is(err, c.start) {
				t.Errorf("start: got %v", err)
			}
			for name, err := range map[string]error{"kill": m.KillMain(t.Context(), web, st), "restart": m.Restart(t.Context(), web, st)} {
				if !errors.Is(err, service.ErrChanged) && !errors.Is(err, service.ErrBusy) {
					t.Errorf("%s: got %v", name, err)
				}
			}
			if done := f.Effects(); len(done) > 0 {
				t.Errorf("done inside: %+v", done)
			}
		})
	}
}

// TestInside_Watch: what happens inside wakes, and so does what happens to the instance.
func TestInside_Watch(t *testing.T) {
	d := runningDaemon(t)
	send := make(chan string)
	defer close(send)
	d.answer = events(t, send)
	m, f := withFake(t, d)
	ctx, stop := context.WithCancel(t.Context())
	woken, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- m.Watch(ctx, []string{web}, func() { woken <- struct{}{} }) }()
	wait := func(what string) {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: not woken", what)
		}
	}
	wait("events of the daemon")
	wait("events inside")
	f.Operate(t, servicetest.Start, "web.service")
	wait("start inside")
	for len(woken) > 0 {
		<-woken
	}
	send <- `{"type":"lifecycle","project":"default","timestamp":"2026-04-08T00:00:00Z","metadata":{"action":"instance-paused","source":"/1.0/instances/p1"}}`
	wait("pause of the instance")
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// events answers GET /1.0/events with what comes from send.
func events(t testing.TB, send <-chan string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/1.0/events" {
			return false
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return true
		}
		for text := range send {
			_ = ws.Write(context.WithoutCancel(r.Context()), websocket.MessageText, []byte(text))
		}
		_ = ws.CloseNow()
		return true
	}
}

// TestExec speaks with a command that repeats what it hears, complains and ends.
func TestExec(t *testing.T) {
	const id = "ee3fbef3-aea1-4a7e-b17e-570fa7352b1e"
	all := make(chan struct{}) // closed when the command's output is connected
	d := runningDaemon(t)
	d.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPost:
			var o execOrder
			if err := json.NewDecoder(r.Body).Decode(&o); err != nil || !o.WaitForWS || o.Interactive || fmt.Sprint(o.Command) != "[cat -]" {
				t.Errorf("got %+v, %v", o, err)
			}
			_, _ = fmt.Fprintf(w, `{"type":"async","metadata":{"id":%q,"status_code":103,"metadata":{"fds":{"0":"in","1":"out","2":"err","control":"c"}}}}`, id)
		case r.URL.Path == "/1.0/operations/"+id+"/websocket":
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return true
			}
			ctx := context.WithoutCancel(r.Context())
			switch r.URL.Query().Get("secret") {
			case "in":
				_, b, err := ws.Read(ctx)
				if err != nil || string(b) != "hello" {
					t.Errorf("got %q, %v", b, err)
				}
				close(all)
				_, _, _ = ws.Read(ctx)
			case "out":
				<-all
				_ = ws.Write(ctx, websocket.MessageBinary, []byte("hello"))
				_ = ws.Close(websocket.StatusNormalClosure, "")
			case "err":
				_ = ws.Write(ctx, websocket.MessageBinary, []byte("cat: it\nhurts\n"))
				_ = ws.Close(websocket.StatusNormalClosure, "")
			}
		default:
			return false
		}
		return true
	}
	m, _ := behindGate(t, d, nil)
	c, err := m.Exec(t.Context(), "p1", []string{"cat", "-"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if _, err := c.Read(b); !errors.Is(err, service.ErrUnavailable) || !strings.Contains(err.Error(), "cat in p1 has ended: cat: it hurts") {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRun runs a command that speaks on both streams and ends with an exit code.
func TestRun(t *testing.T) {
	const id = "ee3fbef3-aea1-4a7e-b17e-570fa7352b1e"
	d := runningDaemon(t)
	ended := `{"type":"sync","metadata":{"id":"` + id + `","status_code":200,"metadata":{"return":3}}}`
	d.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPost:
			var o execOrder
			if err := json.NewDecoder(r.Body).Decode(&o); err != nil || fmt.Sprint(o.Command) != "[runuser -u postgres -- /usr/bin/patroni --version]" || o.Environment["A"] != "b=c" {
				t.Errorf("got %+v, %v", o, err)
			}
			_, _ = fmt.Fprintf(w, `{"type":"async","metadata":{"id":%q,"status_code":103,"metadata":{"fds":{"0":"0","1":"1","2":"2"}}}}`, id)
		case r.URL.Path == "/1.0/operations/"+id+"/wait":
			_, _ = w.Write([]byte(ended))
		case r.URL.Path == "/1.0/operations/"+id+"/websocket":
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return true
			}
			ctx := context.WithoutCancel(r.Context())
			if fd := r.URL.Query().Get("secret"); fd != "0" {
				_ = ws.Write(ctx, websocket.MessageBinary, []byte("stream "+fd))
			}
			_ = ws.Close(websocket.StatusNormalClosure, "")
		default:
			return false
		}
		return true
	}
	m, _ := behindGate(t, d, nil)
	c := service.Command{Path: "/usr/bin/patroni", Args: []string{"--version"}, User: "postgres", Env: []string{"A=b=c"}}
	out, err := m.Run(t.Context(), "p1", c)
	if err != nil || string(out.Stdout) != "stream 1" || string(out.Stderr) != "stream 2" || out.ExitCode != 3 || out.Dropped != 0 {
		t.Errorf("got %+v, %v", out, err)
	}
	c.Limit = 4
	if out, err := m.Run(t.Context(), "p1", c); err != nil || string(out.Stdout)+string(out.Stderr) != "strestre" || out.Dropped != 8 {
		t.Errorf("got %+v, %v", out, err)
	}
	ended = `{"type":"sync","metadata":{"id":"` + id + `","status_code":400,"err":"Command not found"}}`
	if _, err := m.Run(t.Context(), "p1", c); err == nil || !strings.Contains(err.Error(), "Command not found") {
		t.Errorf("got %v", err)
	}
	c.Survives = true
	if _, err := m.Run(t.Context(), "p1", c); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// TestExec_SecretsStaySecret: the secrets of the streams are in no error.
func TestExec_SecretsStaySecret(t *testing.T) {
	d := runningDaemon(t)
	d.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		_, _ = w.Write([]byte(`{"type":"async","metadata":{"id":"ee3fbef3-aea1-4a7e-b17e-570fa7352b1e","status_code":103,"metadata":{"fds":{"0":"hunter2","1":"hunter2","2":"hunter2"}}}}`))
		return true
	}
	m, g := behindGate(t, d, nil)
	_, err := m.Exec(t.Context(), "p1", []string{"cat"})
	if !errors.Is(err, service.ErrNotFound) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	g.Close()
	if _, err := m.socket(t.Context(), "/1.0/operations/x/websocket", map[string][]string{"secret": {"hunter2"}}); !errors.Is(err, service.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestParseUnit(t *testing.T) {
	m := &Manager{}
	for _, good := range []string{"p1", "p1/systemd/a.service"} {
		if p, err := m.parseUnit(good); err != nil || p.String() != good {
			t.Errorf("got %v, %v", p, err)
		}
	}
	for _, bad := range []string{"", "/", "p1/", "p1//a", "p1/systemd/", "p1/systemd/a/b", "../systemd/a", "/systemd/a", "p1\n/systemd/a"} {
		if p, err := m.parseUnit(bad); err == nil {
			t.Errorf("%q: got %v", bad, p)
		}
	}
}
