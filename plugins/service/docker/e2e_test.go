//go:build e2e

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// The e2e tests make containers on a real engine, named pgpatrol-e2e-PID-N, of this very program: compile it static. They
// want the engine's socket (PGPATROL_E2E_DOCKER=/var/run/docker.sock) and root on the engine's own machine, to kill and freeze
// the containers' processes from outside:
//
//	PGPATROL_E2E_DOCKER=/var/run/docker.sock CGO_ENABLED=0 go test -tags e2e -run TestE2E ./plugins/service/docker
//
// It takes two minutes. Seen to pass with engines 20.10 (API 1.41) and 26.1 (API 1.45).
func TestMain(m *testing.M) {
	if arg := os.Getenv("PGPATROL_E2E_SERVICE"); arg != "" {
		os.Exit(serve(arg))
	}
	socket = os.Getenv("PGPATROL_E2E_DOCKER")
	if socket == "" || os.Geteuid() != 0 {
		fmt.Println("set PGPATROL_E2E_DOCKER to the engine's socket, as root on the engine's machine")
		os.Exit(1)
	}
	if err := importImage(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		sweep()
		os.Exit(1)
	}()
	code := m.Run()
	sweep()
	os.Exit(code)
}

// sweep removes what is left of these tests from the engine: their image, and after an interrupt their containers.
func sweep() {
	for n := range made.Load() {
		_ = raw(http.MethodDelete, fmt.Sprintf("/containers/pgpatrol-e2e-%d-%d?force=1", os.Getpid(), n+1), nil, nil)
	}
	_ = raw(http.MethodDelete, "/images/"+image, nil, nil)
}

var (
	socket string
	image  = fmt.Sprintf("pgpatrol-e2e-%d:latest", os.Getpid())
	made   atomic.Int64
)

// ready is what the service calls itself once it hears signals. Before, as process 1, it is deaf.
const ready = "ready"

// task is what the service in the container does.
type task struct {
	servicetest.Service
	Exits bool // at once, with ExitOnStop
	Eats  bool // all memory that there is
}

// serve is the service in the container.
func serve(arg string) int {
	var s task
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return 99
	}
	asked := make(chan os.Signal, 10)
	signal.Notify(asked, syscall.SIGTERM)
	if err := os.WriteFile("/proc/self/comm", []byte(ready), 0); err != nil {
		return 98
	}
	if s.Exits {
		return s.ExitOnStop
	}
	for eaten := [][]byte{}; s.Eats; {
		eaten = append(eaten, bytes.Repeat([]byte{1}, 1<<20))
	}
	for range asked {
		if !s.Deaf {
			break
		}
	}
	time.Sleep(s.StopTakes)
	return s.ExitOnStop
}

// raw asks the engine for anything, past the package and the gate.
func raw(method, path string, body io.Reader, answer any) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequest(method, "http://docker"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %d, %s, %w", method, path, resp.StatusCode, text, err)
	}
	if answer != nil {
		return json.Unmarshal(text, answer)
	}
	return nil
}

func importImage() error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "service", Mode: 0o755, Size: int64(len(self))}); err != nil {
		return err
	}
	if _, err := w.Write(self); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	name, tag, _ := strings.Cut(image, ":")
	return raw(http.MethodPost, "/images/create?fromSrc=-&repo="+name+"&tag="+tag, &b, nil)
}

// engine is the machine with the real engine.
type engine struct{ gate *gate }

func (e engine) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	return create(t, task{Service: s}, nil)
}

// create makes a container with a name of its own. The options go into its HostConfig.
func create(t testing.TB, s task, options map[string]any) string {
	t.Helper()
	name := fmt.Sprintf("pgpatrol-e2e-%d-%d", os.Getpid(), made.Add(1))
	policy := map[string]any{"Name": s.Restart}
	if s.Restart == "on-failure" {
		policy["MaximumRetryCount"] = s.StartLimit
	}
	host := map[string]any{"NetworkMode": "none", "RestartPolicy": policy}
	maps.Copy(host, options)
	spec := map[string]any{"Image": image, "Cmd": []string{"/service"}, "HostConfig": host}
	if s.StopLimit > 0 {
		spec["StopTimeout"] = int(s.StopLimit.Seconds())
	}
	arg, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	spec["Env"] = []string{"PGPATROL_E2E_SERVICE=" + string(arg)}
	body, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw(http.MethodPost, "/containers/create?name="+name, bytes.NewReader(body), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := raw(http.MethodDelete, "/containers/"+name+"?force=1", nil, nil); err != nil {
			t.Error(err)
		}
	})
	return name
}

func (e engine) Operate(t testing.TB, verb servicetest.Verb, unit string) {
	t.Helper()
	order := func(path string) error { return raw(http.MethodPost, "/containers/"+unit+"/"+path, nil, nil) }
	if verb == servicetest.Stop || verb == servicetest.BeginRestart {
		mainPID(t, unit)
	}
	var err error
	switch verb {
	case servicetest.Start, servicetest.Stop:
		err = order(string(verb))
	case servicetest.Disable:
		err = raw(http.MethodPost, "/containers/"+unit+"/update", strings.NewReader(`{"RestartPolicy":{"Name":"no"}}`), nil)
	case servicetest.BeginRestart:
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := order("restart"); err != nil {
				t.Error(err)
			}
		}()
		t.Cleanup(func() { <-done })
	default:
		t.Fatalf("no %s in Docker", verb)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (e engine) Crash(t testing.TB, unit string) { signalMain(t, unit, syscall.SIGKILL) }

func (e engine) Freeze(t testing.TB, unit string) { signalMain(t, unit, syscall.SIGSTOP) }

func signalMain(t testing.TB, unit string, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(mainPID(t, unit), sig); err != nil {
		t.Fatal(err)
	}
}

// mainPID returns the pid of a container's main process here, once it is ready.
func mainPID(t testing.TB, unit string) int {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var c struct{ State struct{ Pid int } }
		if err := raw(http.MethodGet, "/containers/"+unit+"/json", nil, &c); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join("/proc", strconv.Itoa(c.State.Pid))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		if string(comm) == ready+"\n" {
			return c.State.Pid
		}
		if time.Now().After(deadline) {
			t.Fatalf("pid %d of the container is %q here: these tests have to run on the engine's own machine", c.State.Pid, comm)
		}
	}
}

func (e engine) Children(testing.TB, string) []int { return nil }

func (g *gate) hang() (restore func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	hung := make(chan struct{})
	g.hung = hung
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.hung = nil
		close(hung)
	}
}

func (e engine) Disconnect(t testing.TB, hang bool) func() {
	if hang {
		return e.gate.hang()
	}
	e.gate.close()
	return func() { e.gate.open(t) }
}

const (
	noKill  = "to Docker a kill is a stop by a person; it restarts instead"
	noReady = "Docker does not wait until a service says that it is up"
	// with --restart=no, which "disable" of the tests sets
	noDisabled = "Docker knows no disabled container: one without a restart policy that crashed may be started"
)

var lacks = map[string]string{
	"policies": "a container has no delay to set, no limit in time, and nothing survives its main process",
	"disabled": noDisabled,
	"disabled, crashed, never a crash to a new agent": noDisabled,
	"masked":                 "Docker knows no mask",
	"start joins a start":    noReady,
	"deadline during start":  noReady,
	"kill main":              noKill,
	"kill main only":         noKill,
	"kill main, changed":     noKill,
	"kill main, not running": noKill,
	"kill main, permission":  noKill,
}

// open returns a Manager behind a gate that lets through what refuse does not want to refuse.
func open(t *testing.T, refuse func(*http.Request) bool) (*Manager, *gate) {
	t.Helper()
	g := newGate(t, filepath.Join(t.TempDir(), "gate"), socket)
	g.refuse = refuse
	return through(t, g), g
}

// through returns a Manager behind that gate.
func through(t *testing.T, g *gate) *Manager {
	t.Helper()
	m, err := New(Config{Socket: g.path}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// TestE2E_Conformance runs behind a proxy that refuses whatever the package comment does not name.
func TestE2E_Conformance(t *testing.T) {
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		m, g := open(t, nil)
		reader, _ := open(t, func(r *http.Request) bool { return r.Method != http.MethodGet })
		t.Cleanup(func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if len(g.refused) > 0 {
				t.Errorf("calls that are not documented: %q", g.refused)
			}
		})
		return servicetest.Harness{Manager: m, Unprivileged: reader, Host: engine{g}, Lacks: lacks, Again: func(t *testing.T) service.Manager { return through(t, g) }}
	})
}

// order gives an order to the engine, past the package.
func order(t testing.TB, unit, path string) {
	t.Helper()
	if err := raw(http.MethodPost, "/containers/"+unit+"/"+path, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// up orders a start and returns when the service hears signals.
func up(t testing.TB, unit string) {
	t.Helper()
	order(t, unit, "start")
	mainPID(t, unit)
}

// until waits for the engine's own word for a container.
func until(t testing.TB, unit, status string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var c struct{ State struct{ Status string } }
		if err := raw(http.MethodGet, "/containers/"+unit+"/json", nil, &c); err != nil {
			t.Fatal(err)
		}
		if c.State.Status == status {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s, not %s", c.State.Status, status)
		}
	}
}

// ways makes a container and leaves it in each way of outcomes.
var ways = map[string]func(t *testing.T) (unit string){
	"never-started": func(t *testing.T) string { return create(t, task{}, nil) },
	"running": func(t *testing.T) string {
		unit := create(t, task{}, nil)
		up(t, unit)
		return unit
	},
	"paused": func(t *testing.T) string {
		unit := create(t, task{}, nil)
		up(t, unit)
		order(t, unit, "pause")
		return unit
	},
	"stop-in-progress": func(t *testing.T) string {
		unit := create(t, task{Service: servicetest.Service{StopTakes: 3 * time.Second}}, nil)
		up(t, unit)
		order(t, unit, "kill?signal=TERM") // as the first half of a stop
		time.Sleep(time.Second)            // the events are asked for to the second
		return unit
	},
	"restarting": func(t *testing.T) string { return crashLoop(t) },
	"crashed":    func(t *testing.T) string { return crash(t, task{}) },
	"exited-3": func(t *testing.T) string {
		return exits(t, task{Service: servicetest.Service{ExitOnStop: 3}, Exits: true}, nil)
	},
	"oom": func(t *testing.T) string {
		unit := exits(t, task{Eats: true}, map[string]any{"Memory": 64 << 20, "MemorySwap": 64 << 20})
		for range 40 { // newer engines learn of it apart from the end
			var c struct{ State struct{ OOMKilled bool } }
			if err := raw(http.MethodGet, "/containers/"+unit+"/json", nil, &c); err != nil {
				t.Fatal(err)
			}
			if c.State.OOMKilled {
				return unit
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Skip("the engine lost the kernel's word of it, as 20.10 does when it learns of the end first: it is a signal then")
		return unit
	},
	"gave-up": func(t *testing.T) string {
		return exits(t, task{Service: servicetest.Service{Restart: "on-failure", StartLimit: 2, ExitOnStop: 3}, Exits: true}, nil)
	},
	"restart-failed": func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "gone")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		unit := create(t, task{Service: servicetest.Service{Restart: "always"}}, map[string]any{
			"Mounts": []map[string]any{{"Type": "bind", "Source": dir, "Target": "/mnt"}},
		})
		up(t, unit)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		signalMain(t, unit, syscall.SIGKILL)
		until(t, unit, "exited")
		return unit
	},
	"ended-well": func(t *testing.T) string { return exits(t, task{Exits: true}, nil) },
	"stopped":    func(t *testing.T) string { return ordered(t, task{}, "stop") },
	"stopped-by-force": func(t *testing.T) string {
		return ordered(t, task{Service: servicetest.Service{Deaf: true, StopLimit: time.Second}}, "stop")
	},
	"stopped-always": func(t *testing.T) string {
		return ordered(t, task{Service: servicetest.Service{Restart: "always", ExitOnStop: 3}}, "stop")
	},
	"killed": func(t *testing.T) string { return ordered(t, task{}, "kill") },
	"killed-always": func(t *testing.T) string {
		return ordered(t, task{Service: servicetest.Service{Restart: "always"}}, "kill")
	},
	"killed-unless-stopped": func(t *testing.T) string {
		return ordered(t, task{Service: servicetest.Service{Restart: "unless-stopped"}}, "kill")
	},
	"hung-up": func(t *testing.T) string { return ordered(t, task{}, "kill?signal=HUP") },
	"stopped-while-restarting": func(t *testing.T) string {
		unit := crashLoop(t)
		order(t, unit, "stop")
		until(t, unit, "exited")
		return unit
	},
	"killed-while-restarting": func(t *testing.T) string {
		unit := crashLoop(t)
		order(t, unit, "kill")
		until(t, unit, "exited")
		return unit
	},
}

// crash starts a container and kills its main process.
func crash(t *testing.T, s task) string {
	unit := create(t, s, nil)
	up(t, unit)
	signalMain(t, unit, syscall.SIGKILL)
	until(t, unit, "exited")
	return unit
}

// exits starts a container and waits until it does not run any more.
func exits(t *testing.T, s task, options map[string]any) string {
	unit := create(t, s, options)
	order(t, unit, "start")
	until(t, unit, "exited")
	return unit
}

// ordered starts a container and gives an order that ends it.
func ordered(t *testing.T, s task, path string) string {
	unit := create(t, s, nil)
	up(t, unit)
	order(t, unit, path)
	until(t, unit, "exited")
	return unit
}

// crashLoop returns a container that waits for a restart, in a loop that has become slow.
func crashLoop(t *testing.T) string {
	unit := create(t, task{Service: servicetest.Service{Restart: "always", ExitOnStop: 3}, Exits: true}, nil)
	order(t, unit, "start")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var c struct {
			RestartCount int
			State        struct{ Status string }
		}
		if err := raw(http.MethodGet, "/containers/"+unit+"/json", nil, &c); err != nil {
			t.Fatal(err)
		}
		if c.RestartCount >= 5 && c.State.Status == "restarting" {
			return unit
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v", c)
		}
	}
}

// TestE2E_Outcomes asks a manager that was not there when it happened. With PGPATROL_E2E_RECORD it records the answers in
// that folder.
func TestE2E_Outcomes(t *testing.T) {
	for name, want := range outcomes {
		t.Run(name, func(t *testing.T) {
			unit := ways[name](t)
			m, _ := open(t, nil)
			st, err := m.Status(t.Context(), unit)
			if err != nil {
				t.Fatal(err)
			}
			settled := want.Settled
			want.Settled = 0
			if diff := cmp.Diff(want, outcomeOf(t, st)); diff != "" {
				t.Errorf("%s\n%+v", diff, st)
			}
			if dir := os.Getenv("PGPATROL_E2E_RECORD"); dir != "" {
				record(t, m, unit, filepath.Join(dir, name))
			}
			if m.since = m.since.Add(-2 * settling); settled != 0 {
				if st, err = m.Status(t.Context(), unit); err != nil || st.Intent() != settled {
					t.Errorf("settled: got %v, %v of %+v", st.Intent(), err, st)
				}
			}
		})
	}
}

func record(t *testing.T, m *Manager, unit, file string) {
	t.Helper()
	r, err := m.get(t.Context(), containerPath(unit, "json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(unit, r.body)
	if err != nil {
		t.Fatal(err)
	}
	// The events of all runs, of which a real engine gives those that are asked for.
	query := url.Values{"since": {"1"}, "until": {stamp(time.Now())}, "filters": {filters([]string{c.id}, "start", "kill", "die", "stop")}}
	events, err := m.get(t.Context(), "/events", query)
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, r.body, "", " "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".json", pretty.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".events", events.body, 0o644); err != nil {
		t.Fatal(err)
	}
}
