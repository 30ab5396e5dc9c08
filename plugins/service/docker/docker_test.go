package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

func wantErr(t *testing.T, what string, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%s: got error %v, want %q in it", what, err, w)
		}
	}
}

// answer is what a bad engine says to everything but a ping.
func answer(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if r.URL.Path != "/_ping" {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	})
}

func TestStatus_Answers(t *testing.T) {
	const name = "GET /containers/etcd/json"
	for _, tc := range []struct {
		name string
		h    http.Handler
		want error
		word string
	}{
		{"not found", answer(404, `{"message":"No such container: etcd"}`), service.ErrNotFound, "No such container: etcd"},
		{"not found by something else", answer(404, "<html>nginx"), service.ErrUnavailable, "not in Docker's words"},
		{"forbidden", answer(403, "<html>"), service.ErrPermission, name},
		{"unauthorized", answer(401, ""), service.ErrPermission, name},
		{"refused by an authorization plugin", answer(403, `{"message":"authorization denied by plugin x"}`), service.ErrPermission, "denied by plugin x"},
		{"conflict", answer(409, `{"message":"removal in progress"}`), service.ErrBusy, "removal"},
		{"proxy without an engine", answer(503, `{"message":"x"}`), service.ErrUnavailable, "503"},
		{"redirect", answer(302, ""), service.ErrUnavailable, "302"},
		{"too old", answer(400, `{"message":"client version 1.41 is too old. Minimum supported API version is 1.44"}`), service.ErrUnavailable, "too old"},
		{"broken engine", answer(500, "panic"), service.ErrUnavailable, "500"},
		{"HTML", answer(200, "<!DOCTYPE html>"), service.ErrUnavailable, "not a container"},
		{"nothing", answer(200, ""), service.ErrUnavailable, "not a container"},
		{"another object", answer(200, `{"Id":"x"}`), service.ErrUnavailable, "no Id"},
		{"endless", answer(200, strings.Repeat(" ", maxReply+1)), service.ErrUnavailable, "more than"},
		{"half", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Api-Version", "1.41")
			if r.URL.Path != "/_ping" {
				w.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(w, `{"Id":`)
			}
		}), service.ErrUnavailable, "EOF"},
		{"no version", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), service.ErrUnavailable, "no version"},
		{"no ping", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }), service.ErrPermission, "GET /_ping"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, _ := behindGate(t, tc.h)
			_, err := m.Status(t.Context(), "etcd")
			wantErr(t, "status", err, tc.want, tc.word)
		})
	}
}

// An engine's error that none of the contract's fits keeps its words.
func TestStart_Refused(t *testing.T) {
	r, unit := recorded(t, "crashed")
	m, _ := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost {
			r.ServeHTTP(w, req)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"message":"driver failed programming external connectivity:\n Bind for 0.0.0.0:2379 failed: port is already allocated"}`)
	}))
	err := m.Start(t.Context(), unit)
	wantErr(t, "start", err, err, "port is already allocated", "POST /containers/"+unit+"/start")
	for _, sentinel := range []error{service.ErrNotFound, service.ErrPermission, service.ErrUnavailable, service.ErrChanged, service.ErrBusy} {
		if errors.Is(err, sentinel) {
			t.Errorf("%v is %v", err, sentinel)
		}
	}
}

// Orders are given once, to what was observed, and not at all where there is nothing to do.
func TestOrders(t *testing.T) {
	restart := func(m *Manager, unit string, st service.Status) error { return m.Restart(t.Context(), unit, st) }
	start := func(m *Manager, unit string, _ service.Status) error { return m.Start(t.Context(), unit) }
	for _, tc := range []struct {
		record string
		do     func(*Manager, string, service.Status) error
		want   error
		posts  string
	}{
		{"crashed", start, nil, "start"},
		{"stopped", start, nil, "start"},
		{"running", start, nil, ""},
		{"restarting", start, nil, ""},
		{"paused", start, service.ErrBusy, ""},
		{"stop-in-progress", start, service.ErrBusy, ""},
		{"running", restart, nil, "restart"},
		{"paused", restart, service.ErrBusy, ""},
		{"stop-in-progress", restart, service.ErrBusy, ""},
		{"restarting", restart, service.ErrChanged, ""},
		{"crashed", restart, service.ErrChanged, ""},
	} {
		r, unit := recorded(t, tc.record)
		var posts []string
		m, _ := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPost {
				posts = append(posts, filepath.Base(req.URL.Path))
			}
			r.ServeHTTP(w, req)
		}))
		st, err := m.Status(t.Context(), unit)
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, tc.record, tc.do(m, unit, st), tc.want)
		if got := strings.Join(posts, " "); got != tc.posts {
			t.Errorf("%s: got orders %q, want %q", tc.record, got, tc.posts)
		}
	}
}

// An order whose answer is lost must not be given again.
func TestRestart_AnswerLost(t *testing.T) {
	r, unit := recorded(t, "running")
	var posts atomic.Int64
	m, _ := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			posts.Add(1)
			panic(http.ErrAbortHandler)
		}
		r.ServeHTTP(w, req)
	}))
	st, err := m.Status(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "restart", m.Restart(t.Context(), unit, st), service.ErrUnavailable)
	if posts.Load() != 1 {
		t.Errorf("ordered %d times", posts.Load())
	}
}

func TestKillMain(t *testing.T) {
	m, err := New(Default(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "kill", m.KillMain(t.Context(), "etcd", service.Status{}), errors.ErrUnsupported)
}

func TestConnect_Absent(t *testing.T) {
	m, err := New(Config{Socket: filepath.Join(t.TempDir(), "absent")}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Status(t.Context(), "etcd")
	wantErr(t, "status", err, service.ErrUnavailable, "absent")
	wantErr(t, "watch", m.Watch(t.Context(), []string{"etcd"}, func() {}), service.ErrUnavailable)
	wantErr(t, "limits", m.Limits(t.Context(), "etcd"), service.ErrUnavailable)
	wantErr(t, "socket that may not be opened", m.lost(t.Context(), "GET x", &net.OpError{Err: os.ErrPermission}), service.ErrPermission)
}

// TestNegotiate: an engine that took another one's place is asked anew.
func TestNegotiate(t *testing.T) {
	r, unit := recorded(t, "running")
	var mu sync.Mutex
	version, asked := "1.41", ""
	m, g := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		r.version = version
		if req.URL.Path != "/_ping" && !strings.HasPrefix(req.URL.Path, "/v"+version+"/") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"message":"client version is too new. Maximum supported API version is `+version+`"}`)
			return
		}
		asked = req.URL.Path
		r.ServeHTTP(w, req)
	}))
	status := func() error {
		_, err := m.Status(t.Context(), unit)
		return err
	}
	if err := status(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	version = "1.38"
	mu.Unlock()
	wantErr(t, "the first call to another engine", status(), service.ErrUnavailable, "Maximum")
	if err := status(); err != nil || !strings.HasPrefix(asked, "/v1.38/") {
		t.Errorf("got %v after %q", err, asked)
	}
	g.close()
	wantErr(t, "gone", status(), service.ErrUnavailable)
	if m.version != "" || !m.since.IsZero() {
		t.Error("an engine that went away is remembered")
	}
}

// TestEngineGone: behind a proxy an engine that restarts is a 503. It has to settle anew; a refusal says nothing of it.
func TestEngineGone(t *testing.T) {
	for code, gone := range map[int]bool{502: true, 503: true, 504: true, 403: false} {
		m, _ := behindGate(t, answer(code, "<html>"))
		if _, err := m.Status(t.Context(), "etcd"); err == nil || m.since.IsZero() != gone {
			t.Errorf("%d: got %v, gone %t", code, err, m.since.IsZero())
		}
	}
}

func TestChoose(t *testing.T) {
	for engine, want := range map[string]string{
		"1.24": "1.24", "1.41": "1.41", "1.55": "1.55", "1.99": "1.55",
		"": "", "1.23": "", "2.0": "", "1.": "", "1.-1": "", "1.4.1": "", "1.99999999": "", "one": "",
	} {
		if got, err := choose(engine); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", engine, got, err)
		}
	}
}

func TestLimits(t *testing.T) {
	r, unit := recorded(t, "running")
	ends := func(suffix string) func(*http.Request) bool {
		return func(req *http.Request) bool { return strings.HasSuffix(req.URL.Path, suffix) }
	}
	for _, tc := range []struct {
		name   string
		refuse func(*http.Request) bool
		words  []string
	}{
		{"nothing", nil, nil},
		{"restart", ends("/restart"), []string{"POST /containers/_pgpatrol/restart"}},
		{"orders", func(req *http.Request) bool { return req.Method == http.MethodPost }, []string{"/start", "/restart"}},
		{"events", ends("/events"), []string{"GET /events"}},
		{"the container", ends("/" + unit + "/json"), []string{"GET /containers/" + unit + "/json"}},
		{"other names", func(req *http.Request) bool { return strings.Contains(req.URL.Path, nobody) }, nil},
		{"everything", func(*http.Request) bool { return true }, []string{"GET /_ping"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, g := behindGate(t, r)
			g.refuse = tc.refuse
			err := m.Limits(t.Context(), unit)
			if tc.words == nil {
				wantErr(t, "limits", err, nil)
				return
			}
			wantErr(t, "limits", err, service.ErrPermission, tc.words...)
		})
	}
}

// TestStatus_NoEvents: behind a proxy that gives no events less is known, and no more.
func TestStatus_NoEvents(t *testing.T) {
	r, unit := recorded(t, "crashed")
	m, g := behindGate(t, r)
	g.refuse = func(req *http.Request) bool { return strings.HasSuffix(req.URL.Path, "/events") }
	st, err := m.Status(t.Context(), unit)
	if err != nil || st.Intent() != service.IntentUnknown || st.State != service.StateFailed {
		t.Errorf("got %+v, %v", st, err)
	}
	wantErr(t, "watch", m.Watch(t.Context(), []string{unit}, func() {}), service.ErrPermission, "GET /events")
}

// TestStory_Clock: the engine's clock bounds the question, not this machine's.
func TestStory_Clock(t *testing.T) {
	for _, drift := range []time.Duration{0, -time.Hour, time.Hour} {
		r, unit := recorded(t, "running")
		r.container = []byte(strings.Replace(string(r.container), `"StartedAt": "20`, `"StartedAt": "19`, 1))
		now := time.Now().Add(drift)
		r.date = now
		var until string
		m, _ := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if u := req.URL.Query().Get("until"); u != "" {
				until = u
			}
			r.ServeHTTP(w, req)
		}))
		if _, err := m.Status(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
		low := now.Truncate(time.Second)
		if until < stamp(low) || until > stamp(low.Add(time.Second)) {
			t.Errorf("drift %v: asked until %s at %s", drift, until, stamp(now))
		}
	}
}

func TestTell(t *testing.T) {
	c := container{id: strings.Repeat("a", 64), startedAt: time.Unix(1000, 0)}
	at := func(second int64, action, signal string) event {
		e := event{Action: action, TimeNano: second * 1e9}
		e.Actor.ID = c.id
		e.Actor.Attributes = map[string]string{"signal": signal}
		return e
	}
	other := at(1005, "kill", "9")
	other.Actor.ID = strings.Repeat("b", 64)
	start, die := at(1000, "start", ""), at(2000, "die", "")
	for _, tc := range []struct {
		name   string
		events []event
		want   story
	}{
		{"nothing", nil, story{}},
		{"runs", []event{start}, story{}},
		{"crashed", []event{start, die}, story{crashed: true}},
		{"its beginning is lost", []event{die}, story{}},
		{"stopped", []event{start, at(1990, "kill", "15"), die, at(2001, "stop", "")}, story{stopped: true}},
		{"stopped, its beginning is lost", []event{at(1990, "kill", "15"), die}, story{stopped: true}},
		{"stopped while it waited for a restart", []event{start, die, at(2005, "stop", "")}, story{stopped: true}},
		{"being stopped", []event{start, at(1990, "kill", "15")}, story{stopping: true}},
		{"told to end long before it did", []event{start, at(1100, "kill", "2"), die}, story{stopped: true}},
		{"reloaded long before", []event{start, at(1100, "kill", "1"), die}, story{crashed: true, signalled: true}},
		{"reloaded just before", []event{start, at(1975, "kill", "1"), die}, story{stopped: true, signalled: true}},
		{"another container was killed", []event{start, other, die}, story{crashed: true}},
		{"an earlier run was killed", []event{at(900, "kill", "9"), at(901, "die", ""), start, die}, story{crashed: true}},
		{"another run began", []event{start, die, at(2001, "start", "")}, story{}},
	} {
		if diff := cmp.Diff(tc.want, tell(tc.events, c), cmp.AllowUnexported(story{})); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestEnds(t *testing.T) {
	for _, tc := range []struct {
		signal, stopSignal string
		want               bool
	}{
		{"15", "", true},
		{"9", "SIGHUP", true},
		{"2", "", true},
		{"", "", true},
		{"66", "", true},
		{"1", "", false},
		{"10", "SIGTERM", false},
		{"28", "SIGQUIT", false},
		{"28", "SIGWINCH", true},
		{"28", "winch", true},
		{"1", "1", true},
		{"12", "SIGWINCH", false},
	} {
		if got := ends(tc.signal, tc.stopSignal); got != tc.want {
			t.Errorf("signal %q with stop signal %q: got %t", tc.signal, tc.stopSignal, got)
		}
	}
}

// TestEnded is the table of the package comment, line by line.
func TestEnded(t *testing.T) {
	always := container{policy: "always", exitCode: 1}
	no := container{policy: "no", exitCode: 1}
	limited := container{policy: "on-failure", exitCode: 1, maxRestarts: 3}
	usedUp := limited
	usedUp.restarts = 3
	const young, settled = false, true
	for _, tc := range []struct {
		name    string
		c       container
		s       story
		t       trace
		settled bool
		want    string
	}{
		{"a restart that never came", usedUp, story{}, trace{waiting: true, crashed: true}, settled, "stopped"},
		{"a stop was seen", no, story{}, trace{stopped: true}, young, "stopped"},
		{"a stop was seen, against the policy", always, story{}, trace{stopped: true}, young, "stopped"},
		{"not restarted", always, story{}, trace{}, settled, "stopped"},
		{"not restarted yet", always, story{}, trace{crashed: true}, young, "unknown"},
		{"not restarted, restarts left", limited, story{}, trace{}, settled, "stopped"},
		{"its policy was ended by a signal", always, story{signalled: true}, trace{crashed: true}, settled, "unknown"},
		{"restarts used up", usedUp, story{}, trace{crashed: true}, young, "crashed"},
		{"restarts used up, or stopped", usedUp, story{}, trace{}, settled, "unknown"},
		{"crashed", no, story{}, trace{crashed: true}, young, "crashed"},
		{"crashed or stopped", no, story{}, trace{}, settled, "unknown"},
	} {
		halted, unexplained := tc.c.ended(tc.s, tc.t, tc.settled)
		got := map[[2]bool]string{{true, false}: "stopped", {false, true}: "unknown", {false, false}: "crashed"}[[2]bool{halted, unexplained}]
		if got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestStatus_Remembers that the engine was about to restart the container, although no event says so.
func TestStatus_Remembers(t *testing.T) {
	r, unit := recorded(t, "restarting")
	waiting := r.container
	m, _ := behindGate(t, &r)
	if st, err := m.Status(t.Context(), unit); err != nil || st.State != service.StateRestarting {
		t.Fatalf("got %+v, %v", st, err)
	}
	r.container = []byte(strings.Replace(string(waiting), `"Status": "restarting"`, `"Status": "exited"`, 1))
	if st, err := m.Status(t.Context(), unit); err != nil || st.Intent() != service.IntentStopped {
		t.Errorf("got %v of %+v, %v", st.Intent(), st, err)
	}
	r.container = []byte(strings.Replace(string(r.container), `"StartedAt": "2`, `"StartedAt": "3`, 1))
	r.events = nil
	if st, err := m.Status(t.Context(), unit); err != nil || st.Intent() != service.IntentUnknown {
		t.Errorf("another run: got %v of %+v, %v", st.Intent(), st, err)
	}
}

func TestParse_States(t *testing.T) {
	for status, want := range map[string]struct {
		state  service.State
		intent service.Intent
	}{
		"removing": {service.StateStopping, service.IntentBusy},
		"dead":     {service.StateStopped, service.IntentStopped},
	} {
		r, unit := recorded(t, "crashed")
		c, err := parse(unit, []byte(strings.Replace(string(r.container), `"Status": "exited"`, `"Status": "`+status+`"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if st := c.judge(unit, story{}, trace{}, true); st.State != want.state || st.Intent() != want.intent {
			t.Errorf("%s: got %v of %+v", status, st.Intent(), st)
		}
	}
}

func TestParse_Refuses(t *testing.T) {
	r, unit := recorded(t, "crashed")
	for name, change := range map[string][2]string{
		"an id that is none":          {`"Id": "`, `"Id": "../`},
		"a status of its own":         {`"Status": "exited"`, `"Status": "sleeping"`},
		"no status":                   {`"Status": "exited"`, `"Status": ""`},
		"a policy of its own":         {`"Name": ""`, `"Name": "sometimes"`},
		"no time":                     {`"StartedAt": "`, `"StartedAt": "x`},
		"a number that is text":       {`"ExitCode": 137`, `"ExitCode": "137"`},
		"a number that is no integer": {`"ExitCode": 137`, `"ExitCode": 1e99`},
		"a pid below zero":            {`"Pid": 0`, `"Pid": -1`},
		"no state":                    {`"State": {`, `"Estate": {`},
		"something after its end":     {"{\n \"Id\"", "{}\n{\n \"Id\""},
	} {
		body := strings.Replace(string(r.container), change[0], change[1], 1)
		if body == string(r.container) {
			t.Errorf("%s: nothing changed", name)
		}
		_, err := parse(unit, []byte(body))
		wantErr(t, name, err, service.ErrUnavailable)
	}
	_, err := parse("cafe", r.container)
	wantErr(t, "the beginning of another one's id", err, service.ErrNotFound, unit)
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"etcd": true, "etcd-nas": true, "a.b_c-9": true, strings.Repeat("a", maxName): true,
		"": false, "e": false, nobody: false, "-etcd": false, ".etcd": false, "../etcd": false, "a/b": false, "a?b": false, "a%2fb": false,
		"a b": false, "a\n": false, "ä": false, strings.Repeat("a", maxName+1): false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestWatch_Resumes(t *testing.T) {
	r, unit := recorded(t, "stopped")
	r.date = time.Unix(1_700_000_000, 0)
	asked := make(chan string, 1)
	m, _ := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/events") {
			asked <- req.URL.Query().Get("since") + " " + req.URL.Query().Get("filters")
		}
		r.ServeHTTP(w, req)
	}))
	wakes := 0
	wantErr(t, "watch", m.Watch(t.Context(), []string{unit, "etcd"}, func() { wakes++ }), service.ErrUnavailable)
	if events := strings.Count(string(r.events), "\n"); events == 0 || wakes != 1+events {
		t.Errorf("woken %d times by %d events", wakes, events)
	}
	if got := <-asked; !strings.HasPrefix(got, "1700000000.000000000 ") || !strings.Contains(got, `["`+unit+`","etcd"]`) || strings.Contains(got, "exec") {
		t.Errorf("asked for %s", got)
	}
}

func TestWatch_Garbage(t *testing.T) {
	good := `{"Type":"container","Action":"die","Actor":{"ID":"x"},"timeNano":1}`
	for name, body := range map[string]string{
		"HTML":           "<html>\n",
		"another object": `{"message":"x"}` + "\n",
		"half":           good + "\n" + good[:20],
		"too long":       `{"Action":"` + strings.Repeat("x", maxEvent) + `"}` + "\n",
	} {
		m, _ := behindGate(t, answer(200, body))
		wantErr(t, name, m.Watch(t.Context(), []string{"etcd"}, func() {}), service.ErrUnavailable, "GET /events")
	}
}

func TestWatch_Refuses(t *testing.T) {
	m, _ := behindGate(t, answer(200, ""))
	for _, units := range [][]string{nil, make([]string, maxWatched+1), {"etcd", "a/b"}} {
		if err := m.Watch(t.Context(), units, func() { t.Error("woken") }); err == nil || errors.Is(err, service.ErrUnavailable) {
			t.Errorf("%d units: got %v", len(units), err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{Default(), {Proxy: "http://127.0.0.1:2375"}, {Proxy: "http://[::1]:2375"}, {Proxy: "http://socket-proxy:2375"}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if got := c.Warning(); (got != "") != (c.Proxy != "") || !strings.Contains(got, c.Proxy) {
			t.Errorf("%+v: got warning %q", c, got)
		}
	}
	for _, c := range []Config{
		{},
		{Socket: "docker.sock"},
		{Proxy: "tcp://127.0.0.1:2375"},
		{Proxy: "https://127.0.0.1:2376"},
		{Proxy: "127.0.0.1:2375"},
		{Proxy: "http://127.0.0.1"},
		{Proxy: "http://127.0.0.1:0"},
		{Proxy: "http://127.0.0.1:99999"},
		{Proxy: "http://:2375"},
		{Proxy: "http://127.0.0.1:2375/v1.41"},
		{Proxy: "http://127.0.0.1:2375?x"},
		{Proxy: "http://u:secret@127.0.0.1:2375"},
		{Proxy: "http://127.0.0.1:2375\x00secret"},
	} {
		_, err := New(c, Deps{})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// TestProxy: TCP, and not through a proxy of the environment.
func TestProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	r, unit := recorded(t, "running")
	server := httptest.NewServer(r)
	defer server.Close()
	m, err := New(Config{Proxy: server.URL}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if st, err := m.Status(t.Context(), unit); err != nil || st.State != service.StateRunning {
		t.Errorf("got %+v, %v", st, err)
	}
}

func TestFind(t *testing.T) {
	const rootless, colima = "/run/user/1000/docker.sock", "/Users/a/.colima/default/docker.sock"
	const desktop = "/Users/a/.docker/run/docker.sock"
	env := func(vars map[string]string, sockets ...string) Environment {
		return Environment{
			Getenv:   func(name string) string { return vars[name] },
			IsSocket: func(path string) bool { return strings.Contains(" "+strings.Join(sockets, " ")+" ", " "+path+" ") },
		}
	}
	home := map[string]string{"HOME": "/Users/a", "XDG_RUNTIME_DIR": "/run/user/1000"}
	for _, tc := range []struct {
		name     string
		env      Environment
		want     string
		evidence string
	}{
		{"usual", env(home, usualSocket, colima), usualSocket, colima + " is there too, not used"},
		{"rootless", env(home, rootless), rootless, usualSocket + " is not a socket"},
		{"colima", env(home, colima), colima, "Colima's socket: " + colima},
		{"a newer colima", env(home, "/Users/a/.config/colima/default/docker.sock"), "/Users/a/.config/colima/default/docker.sock", colima + " is not a socket"},
		{"Docker Desktop", env(home, desktop), desktop, "Docker Desktop's socket: " + desktop},
		{"none", env(home), "", colima + " is not a socket"},
		{"no home", env(nil), "", "no folder is known"},
		{"a relative home", env(map[string]string{"HOME": "."}, ".colima/default/docker.sock"), "", "no folder is known"},
		{"told", env(map[string]string{"DOCKER_HOST": "unix:///x"}, usualSocket, "/x"), "/x", "a socket: true"},
		{"told, and it does not run", env(map[string]string{"DOCKER_HOST": "unix:///x"}, usualSocket), "/x", "a socket: false"},
		{"told a network", env(map[string]string{"DOCKER_HOST": "tcp://h:2375"}, usualSocket), "", "has to be configured"},
		{"told nonsense", env(map[string]string{"DOCKER_HOST": "unix://x"}, usualSocket), "", "has to be configured"},
	} {
		got, evidence := Find(tc.env)
		if all := strings.Join(evidence, "\n"); got != tc.want || !strings.Contains(all, tc.evidence) {
			t.Errorf("%s: got %q\n%s", tc.name, got, all)
		}
	}
}

// TestDeadline: every call ends with its context, at each step.
func TestDeadline(t *testing.T) {
	r, unit := recorded(t, "running")
	for _, step := range []string{"/_ping", "/json", "/events", "/restart"} {
		stuck := make(chan struct{})
		m, _ := behindGate(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.HasSuffix(req.URL.Path, step) {
				r.ServeHTTP(w, req)
				return
			}
			if req.Method == http.MethodGet { // half an answer
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
			}
			<-stuck
		}))
		st := service.Status{}
		if step == "/restart" {
			var err error
			if st, err = m.Status(t.Context(), unit); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		wantErr(t, step, m.Restart(ctx, unit, st), context.DeadlineExceeded)
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: took %v", step, took)
		}
		cancel()
		close(stuck)
	}
}

func FuzzParse(f *testing.F) {
	for name := range outcomes {
		r, unit := recorded(f, name)
		f.Add(unit, r.container, r.events)
	}
	f.Add("etcd", []byte(`{"Id":"`+strings.Repeat("a", 64)+`","Name":"/etcd","State":{"Status":"exited","StartedAt":"0001-01-01T00:00:00Z"},"HostConfig":{}}`), []byte("{}\n"))
	f.Fuzz(func(t *testing.T, unit string, body, lines []byte) {
		c, err := parse(unit, body)
		if err != nil {
			if !errors.Is(err, service.ErrUnavailable) && !errors.Is(err, service.ErrNotFound) {
				t.Fatalf("got error %v", err)
			}
			return
		}
		var events []event
		for _, line := range strings.Split(string(lines), "\n") {
			if e, err := parseEvent([]byte(line)); err == nil {
				events = append(events, e)
			}
		}
		s := tell(events, c)
		for _, tr := range []trace{{}, {waiting: true}, {stopped: s.stopped, crashed: s.crashed}} {
			st := c.judge(unit, s, tr, true)
			if st.Unit != unit || st.State == service.StateUnknown || st.Halted && st.Unexplained || st.RestartsOnKill() {
				t.Fatalf("got %+v", st)
			}
			// Nothing that does not run and was told to end may be started.
			if (s.stopped && tr.stopped || tr.waiting) && c.status == "exited" && c.failure == "" && st.Intent() != service.IntentStopped {
				t.Fatalf("got %v of %+v", st.Intent(), st)
			}
		}
	})
}

func FuzzCheckName(f *testing.F) {
	for _, name := range []string{"etcd", "..", "a/b", nobody, "a%2e"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if checkName(name) != nil {
			return
		}
		req, err := http.NewRequest(http.MethodGet, "http://docker"+containerPath(name, "json"), nil)
		if err != nil || req.URL.Path != "/containers/"+name+"/json" || req.URL.RawQuery != "" || req.URL.EscapedPath() != req.URL.Path {
			t.Fatalf("%q becomes %v, %v", name, req, err)
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(404, []byte(`{"message":"No such container"}`))
	f.Add(500, []byte("<html>"))
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		rec := httptest.NewRecorder()
		_, _ = rec.Write(body)
		resp := rec.Result()
		resp.StatusCode = code
		err := refusal(resp)
		if err == nil || len(err.Error()) > 1100 || strings.ContainsAny(err.Error(), "\n\x00") && !strings.Contains(string(body), "\x00") {
			t.Fatal(fmt.Sprint(err))
		}
	})
}
