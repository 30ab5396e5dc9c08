//go:build e2e

package openrc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// The e2e tests install services on the machine that they run on. They want a throw-away container with openrc-init as
// PID 1 and PGPATROL_E2E_OPENRC=1. Compile them with CGO_ENABLED=0 go test -tags e2e -c, copy the binary to a place that
// user nobody can execute, e.g. /usr/local/bin, and run it with -test.run TestE2E.
func TestMain(m *testing.M) {
	if op := os.Getenv("PGPATROL_E2E_CHILD"); op != "" {
		os.Exit(child(op))
	}
	if os.Getenv("PGPATROL_E2E_OPENRC") == "" {
		fmt.Println("set PGPATROL_E2E_OPENRC=1 in a container that may be thrown away")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestE2E_Conformance(t *testing.T) {
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		return servicetest.Harness{Manager: manager(t), Unprivileged: nobody{t}, Host: machine{}, Lacks: lacks, Again: func(t *testing.T) service.Manager { return manager(t) }}
	})
}

// lacks is what OpenRC cannot show.
var lacks = map[string]string{
	"policies":        "supervise-daemon counts whole seconds",
	"crash explained": "OpenRC does not record how a daemon ended",
	"start limit":     "what supervise-daemon counted is gone when it gives up: see TestE2E_GaveUp",
	"masked":          "OpenRC knows no mask",
	"manager hangs":   "its state is files, which do not hang",
}

func manager(t testing.TB) *Manager {
	t.Helper()
	m, err := New(Default(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// machine is the container, operated with OpenRC's own commands.
type machine struct{}

var installed atomic.Int64

// ran are the files of the services that tests install.
const ran = "/usr/local/lib/pgpatrol-e2e"

func run(t testing.TB, path string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := service.Runner{}.Run(ctx, service.Command{Path: path, Args: args})
	if err != nil || out.ExitCode != 0 {
		t.Fatalf("%s %v: %v, exit code %d, %s%s", path, args, err, out.ExitCode, out.Stdout, out.Stderr)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Install makes the daemon one of start-stop-daemon, as Alpine's etcd is, or one of supervise-daemon if it is to be restarted.
func (machine) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	name := fmt.Sprintf("conformance-%d", installed.Add(1))
	var daemon strings.Builder
	daemon.WriteString("#!/bin/sh\n")
	if s.Deaf {
		daemon.WriteString("trap '' TERM\n")
	} else {
		fmt.Fprintf(&daemon, "trap 'exit %d' TERM\n", s.ExitOnStop)
	}
	if s.Child {
		fmt.Fprintf(&daemon, "sleep %s &\n", childTime(name))
	}
	// The short sleeps let the shell see a signal; they are no children that a test looks for.
	daemon.WriteString("while :; do sleep 0.05; done\n")
	write(t, filepath.Join(ran, name), daemon.String())
	var script strings.Builder
	fmt.Fprintf(&script, "#!/sbin/openrc-run\ncommand=%s\npidfile=/run/%s.pid\n", filepath.Join(ran, name), name)
	if s.Restart == "" || s.Restart == "no" {
		script.WriteString("command_background=true\n")
	} else {
		fmt.Fprintf(&script, "supervisor=supervise-daemon\nrespawn_max=%d\n", s.StartLimit)
		for key, d := range map[string]time.Duration{"respawn_delay": s.RestartDelay, "respawn_period": s.StartLimitSpan} {
			if n := int(d.Seconds()); n > 0 {
				fmt.Fprintf(&script, "%s=%d\n", key, n)
			}
		}
	}
	if n := int(s.StopLimit.Seconds()); n > 0 {
		fmt.Fprintf(&script, "retry=TERM/%d\n", n)
	}
	for hook, d := range map[string]time.Duration{"start_post": s.StartTakes, "stop_post": s.StopTakes} {
		if d > 0 {
			fmt.Fprintf(&script, "%s() { sleep %v; }\n", hook, d.Seconds())
		}
	}
	write(t, "/etc/init.d/"+name, script.String())
	run(t, "rc-update", "add", name, "default")
	t.Cleanup(func() {
		run(t, "rc-service", name, "zap")
		killAll(t, filepath.Join(ran, name))
		killAll(t, childTime(name))
		run(t, "rc-service", name, "zap") // what a supervisor said of its end
		for _, path := range []string{"/etc/runlevels/default/" + name, "/etc/init.d/" + name, filepath.Join(ran, name), "/run/" + name + ".pid"} {
			_ = os.Remove(path)
		}
	})
	return name
}

func (machine) Operate(t testing.TB, verb servicetest.Verb, unit string) {
	t.Helper()
	switch verb {
	case servicetest.Start:
		run(t, "rc-service", "--ifcrashed", "--", unit, "zap") // it counts as started still
		run(t, "rc-service", unit, "start")
	case servicetest.Stop:
		run(t, "rc-service", unit, string(verb))
	case servicetest.BeginStart, servicetest.BeginRestart:
		go func() {
			_, _ = service.Runner{}.Run(context.Background(), service.Command{
				Path: "rc-service", Args: []string{unit, strings.TrimPrefix(string(verb), "begin-")}, Survives: true,
			})
		}()
	case servicetest.Enable:
		run(t, "rc-update", "add", unit, "default")
	case servicetest.Disable:
		run(t, "rc-update", "delete", unit, "default")
	default:
		t.Fatalf("OpenRC knows no %s", verb)
	}
}

// mainPID reads what OpenRC wrote.
func mainPID(t testing.TB, unit string) int {
	t.Helper()
	for _, path := range []string{"/run/openrc/options/" + unit + "/child_pid", "/run/" + unit + ".pid"} {
		if b, err := os.ReadFile(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
				return pid
			}
		}
	}
	t.Fatalf("%s has no pid", unit)
	return 0
}

func (machine) Crash(t testing.TB, unit string) {
	t.Helper()
	if err := syscall.Kill(mainPID(t, unit), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (machine) Freeze(t testing.TB, unit string) {
	t.Helper()
	if err := syscall.Kill(mainPID(t, unit), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// childTime is how long the child of a service sleeps, by which it is found again.
func childTime(unit string) string { return "1000." + strings.TrimPrefix(unit, "conformance-") }

func (machine) Children(t testing.TB, unit string) []int {
	t.Helper()
	return processes(t, childTime(unit))
}

// processes returns those that have an argument.
func processes(t testing.TB, arg string) []int {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, d := range dirs {
		line, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if pid, err := strconv.Atoi(d.Name()); err == nil && slices.Contains(strings.Split(string(line), "\x00"), arg) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func killAll(t testing.TB, arg string) {
	t.Helper()
	for _, pid := range processes(t, arg) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Disconnect takes OpenRC's state away, as on a machine that it does not run.
func (machine) Disconnect(t testing.TB, hang bool) func() {
	t.Helper()
	if hang {
		t.Fatal("files do not hang")
	}
	const away = "/run/openrc.away"
	if err := os.Rename(Default().State, away); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(away, Default().State); err != nil {
			t.Fatal(err)
		}
	}
}

// started installs a service and starts it.
func started(t *testing.T, m *Manager, s servicetest.Service) service.Status {
	t.Helper()
	unit := machine{}.Install(t, s)
	machine{}.Operate(t, servicetest.Start, unit)
	return until(t, m, unit, service.StateRunning)
}

func until(t *testing.T, m *Manager, unit string, want service.State) service.Status {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		st, err := m.Status(t.Context(), unit)
		if err == nil && st.State == want {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %v: %+v, %v", want, st, err)
		}
	}
}

// TestE2E_NoticedWithoutPolling: OpenRC tells nobody of the end of a daemon. The kernel does, and meanwhile nothing runs.
func TestE2E_NoticedWithoutPolling(t *testing.T) {
	m := manager(t)
	st := started(t, m, servicetest.Service{})
	woken := make(chan time.Time, 100)
	go func() { _ = m.Watch(t.Context(), []string{st.Unit}, func() { woken <- time.Now() }) }()
	<-woken
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	time.Sleep(3 * time.Second)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	if n := after.Nvcsw - before.Nvcsw; n > 30 || len(woken) > 0 {
		t.Errorf("%d switches and %d wake-ups in 3 s in which nothing happened", n, len(woken))
	}
	began := time.Now()
	machine{}.Crash(t, st.Unit)
	took := (<-woken).Sub(began)
	t.Logf("noticed after %v", took)
	if now, err := m.Status(t.Context(), st.Unit); err != nil || now.Detail != "crashed" || took > time.Second {
		t.Errorf("after %v: %+v, %v", took, now, err)
	}
}

// TestE2E_GaveUp is a crash loop under supervise-daemon (FAULTS.md F05).
func TestE2E_GaveUp(t *testing.T) {
	m := manager(t)
	st := started(t, m, servicetest.Service{Restart: "always", StartLimit: 2})
	for i := range 3 {
		if i == 2 && st.RestartsOnKill() {
			t.Errorf("it restarts no more: %+v", st)
		}
		killed := st.InvocationID
		machine{}.Crash(t, st.Unit)
		for st.InvocationID == killed || st.State != service.StateRunning && st.State != service.StateFailed {
			time.Sleep(10 * time.Millisecond)
			var err error
			if st, err = m.Status(t.Context(), st.Unit); err != nil {
				t.Fatal(err)
			}
		}
		if i < 2 && st.Restarts != i+1 {
			t.Errorf("restart %d: %+v", i, st)
		}
	}
	if st.State != service.StateFailed || st.Intent() != service.IntentRun {
		t.Fatalf("got %+v", st)
	}
	if err := m.Start(t.Context(), st.Unit); err != nil {
		t.Fatal(err)
	}
	if st = until(t, m, st.Unit, service.StateRunning); st.Restarts != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestE2E_StartFails: a start that fails must not look like a stop by a person, also not to the next agent.
func TestE2E_StartFails(t *testing.T) {
	m := manager(t)
	st := started(t, m, servicetest.Service{})
	program := filepath.Join(ran, st.Unit)
	if err := os.Rename(program, program+".away"); err != nil {
		t.Fatal(err)
	}
	machine{}.Crash(t, st.Unit)
	until(t, m, st.Unit, service.StateFailed)
	if err := m.Start(t.Context(), st.Unit); err == nil {
		t.Error("it started without a program")
	}
	now, err := manager(t).Status(t.Context(), st.Unit)
	if err != nil || now.State != service.StateFailed || now.Intent() != service.IntentRun {
		t.Errorf("got %+v, %v", now, err)
	}
	if err := os.Rename(program+".away", program); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), st.Unit); err != nil {
		t.Error(err)
	}
	until(t, m, st.Unit, service.StateRunning)
}

// TestE2E_NothingElse: neither a heal nor a restart touches what needs the service.
func TestE2E_NothingElse(t *testing.T) {
	m := manager(t)
	st := started(t, m, servicetest.Service{})
	other := machine{}.Install(t, servicetest.Service{})
	script, err := os.ReadFile("/etc/init.d/" + other)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "/etc/init.d/"+other, string(script)+"depend() { need "+st.Unit+"; }\n")
	machine{}.Operate(t, servicetest.Start, other)
	before := until(t, m, other, service.StateRunning)
	t.Cleanup(func() { machine{}.Operate(t, servicetest.Stop, other) }) // before what it needs
	machine{}.Crash(t, st.Unit)
	until(t, m, st.Unit, service.StateFailed)
	if err := m.Start(t.Context(), st.Unit); err != nil {
		t.Fatal(err)
	}
	st = until(t, m, st.Unit, service.StateRunning)
	if err := m.Restart(t.Context(), st.Unit, st); err != nil {
		t.Fatal(err)
	}
	if now, err := m.Status(t.Context(), other); err != nil || now != before {
		t.Errorf("before %+v, afterwards %+v, %v", before, now, err)
	}
}

// TestE2E_StopIsNoCrash: no reading in the middle of a person's stop, start and restart looks like a failure.
func TestE2E_StopIsNoCrash(t *testing.T) {
	for _, policy := range []string{"no", "always"} {
		t.Run(policy, func(t *testing.T) {
			m := manager(t)
			st := started(t, m, servicetest.Service{Restart: policy})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 15 {
					for _, verb := range []string{"stop", "start", "restart"} {
						run(t, "rc-service", st.Unit, verb)
					}
				}
			}()
			for n := 0; ; n++ {
				select {
				case <-done:
					t.Logf("%d readings", n)
					return
				default:
				}
				now, err := m.Status(t.Context(), st.Unit)
				if err != nil && !errors.Is(err, service.ErrUnavailable) || now.State == service.StateFailed {
					t.Fatalf("got %+v, %v", now, err)
				}
			}
		})
	}
}

// TestE2E_PersonWins: a person's stop that OpenRC reports as done is not undone by a heal at the same moment.
func TestE2E_PersonWins(t *testing.T) {
	m := manager(t)
	unit := machine{}.Install(t, servicetest.Service{})
	refused := 0
	for i := range 300 {
		machine{}.Operate(t, servicetest.Start, unit)
		machine{}.Crash(t, unit)
		until(t, m, unit, service.StateFailed)
		rec, err := m.read(t.Context(), unit)
		if err != nil {
			t.Fatal(err)
		}
		healed := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(i%100) * 1500 * time.Microsecond)
			healed <- m.launch(t.Context(), unit, rec)
		}()
		time.Sleep(75 * time.Millisecond)
		out, err := service.Runner{}.Run(t.Context(), service.Command{Path: "rc-service", Args: []string{unit, "stop"}})
		if err != nil {
			t.Fatal(err)
		}
		healErr := <-healed
		st, err := m.Status(t.Context(), unit)
		switch {
		case err != nil:
			t.Fatal(err)
		case out.ExitCode != 0:
			refused++
		case st.State != service.StateStopped:
			t.Errorf("%d: stopped, but it is %+v; the heal: %v", i, st, healErr)
		}
	}
	t.Logf("%d of 300 stops were refused with a message", refused)
}

// nobody is a Manager of an unprivileged user, in a child process for each call.
type nobody struct{ t *testing.T }

type childCall struct {
	Unit string
	Want service.Status
}

// childErrors are what a child can report, by exit code.
var childErrors = []error{nil, service.ErrPermission, service.ErrNotFound, service.ErrUnavailable, service.ErrChanged, errors.New("other error")}

func (n nobody) do(op string, call childCall) error {
	arg, err := json.Marshal(call)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := service.Runner{}.Run(n.t.Context(), service.Command{
		Path: exe, User: "nobody", Env: []string{"PGPATROL_E2E_CHILD=" + op, "CALL=" + string(arg)},
	})
	if err != nil {
		return err
	}
	n.t.Logf("%s as nobody: exit code %d, %s", op, out.ExitCode, out.Stderr)
	return childErrors[out.ExitCode]
}

func (n nobody) Status(context.Context, string) (service.Status, error) {
	return service.Status{}, errors.ErrUnsupported
}

func (n nobody) Start(_ context.Context, unit string) error {
	return n.do("start", childCall{Unit: unit})
}

func (n nobody) KillMain(_ context.Context, unit string, want service.Status) error {
	return n.do("kill", childCall{unit, want})
}

func (n nobody) Restart(_ context.Context, unit string, want service.Status) error {
	return n.do("restart", childCall{unit, want})
}

func (n nobody) Limits(_ context.Context, unit string) error {
	return n.do("limits", childCall{Unit: unit})
}

func child(op string) int {
	var call childCall
	if err := json.Unmarshal([]byte(os.Getenv("CALL")), &call); err != nil {
		return len(childErrors) - 1
	}
	m, err := New(Default(), Deps{})
	if err != nil {
		return len(childErrors) - 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch op {
	case "start":
		err = m.Start(ctx, call.Unit)
	case "restart":
		err = m.Restart(ctx, call.Unit, call.Want)
	case "limits":
		err = m.Limits(ctx, call.Unit)
	default:
		err = m.KillMain(ctx, call.Unit, call.Want)
	}
	if err == nil {
		return 0
	}
	fmt.Fprint(os.Stderr, err)
	for i, sentinel := range childErrors {
		if sentinel != nil && errors.Is(err, sentinel) {
			return i
		}
	}
	return len(childErrors) - 1
}
