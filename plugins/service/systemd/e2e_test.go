//go:build e2e

package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// The e2e tests install units on the machine that they run on. They want a throw-away container with systemd as PID 1
// and PGPATROL_E2E_SYSTEMD=1. Compile them with CGO_ENABLED=0 go test -tags e2e -c, copy the binary to a place that
// user nobody can execute, e.g. /usr/local/bin, and run it with -test.run TestE2E -test.bench E2E. It takes four minutes.
// TestE2E_Polkit wants more.
func TestMain(m *testing.M) {
	if op := os.Getenv("PGPATROL_E2E_CHILD"); op != "" {
		os.Exit(child(op))
	}
	if os.Getenv("PGPATROL_E2E_SYSTEMD") == "" {
		fmt.Println("set PGPATROL_E2E_SYSTEMD=1 in a container that may be thrown away")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestE2E_Bus(t *testing.T) { conformance(t, Default().Bus, false) }

// Without a bus daemon root talks to systemd itself.
func TestE2E_Direct(t *testing.T) { conformance(t, Default().Direct, true) }

func conformance(t *testing.T, target string, direct bool) {
	servicetest.Conformance(t, func(t *testing.T) servicetest.Harness {
		dir := t.TempDir()
		r := &relay{listen: filepath.Join(dir, "relay"), target: target}
		r.start(t)
		config := Config{Bus: r.listen}
		if direct {
			config = Config{Bus: filepath.Join(dir, "absent"), Direct: r.listen}
		}
		again := func(t *testing.T) service.Manager {
			m, err := New(config, Deps{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = m.Close() })
			return m
		}
		return servicetest.Harness{Manager: again(t), Unprivileged: user{t, "nobody"}, Host: &machine{relay: r}, Again: again}
	})
}

// relay stands between a Manager and a socket of systemd, so that the connection can be cut or frozen.
type relay struct {
	listen, target string

	mu       sync.Mutex // guards below
	listener net.Listener
	conns    []net.Conn
	frozen   atomic.Bool
}

func (r *relay) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", r.listen)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.listener = l
	r.mu.Unlock()
	t.Cleanup(r.stop)
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", r.target)
			if err != nil {
				_ = near.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			r.mu.Unlock()
			go r.pump(near, far)
			go r.pump(far, near)
		}
	}()
}

func (r *relay) pump(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		for r.frozen.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (r *relay) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.listener.Close()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// machine is the container, operated with systemctl.
type machine struct{ relay *relay }

var installed atomic.Int64

func systemctl(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := service.Runner{}.Run(ctx, service.Command{Path: "systemctl", Args: args})
	if err != nil || out.ExitCode != 0 {
		t.Fatalf("systemctl %v: %v, exit code %d, %s", args, err, out.ExitCode, out.Stderr)
	}
	return strings.TrimSpace(string(out.Stdout))
}

func (m *machine) Install(t testing.TB, s servicetest.Service) string {
	t.Helper()
	return m.installAs(t, fmt.Sprintf("conformance-%d.service", installed.Add(1)), s)
}

func (m *machine) installAs(t testing.TB, name string, s servicetest.Service) string {
	t.Helper()
	var script strings.Builder
	if s.Deaf {
		script.WriteString("trap '' TERM; ")
	} else {
		fmt.Fprintf(&script, "trap 'exit %d' TERM; ", s.ExitOnStop)
	}
	if s.StartTakes > 0 {
		fmt.Fprintf(&script, "sleep %v; systemd-notify --ready; ", s.StartTakes.Seconds())
	}
	if s.Child {
		script.WriteString("sleep 1000 & ")
	}
	// The short sleeps let the shell see a signal; they are no children that a test looks for.
	script.WriteString("while :; do sleep 0.05; done")
	var u strings.Builder
	fmt.Fprintf(&u, "[Unit]\nStartLimitBurst=%d\nStartLimitIntervalSec=%v\n", s.StartLimit, s.StartLimitSpan.Seconds())
	fmt.Fprintf(&u, "[Service]\nExecStart=/bin/sh -c \"%s\"\nNotifyAccess=all\n", script.String())
	fmt.Fprintf(&u, "RestartSec=%dms\n", s.RestartDelay.Milliseconds())
	for key, value := range map[string]string{"Restart": s.Restart, "KillMode": s.KillMode} {
		if value != "" {
			fmt.Fprintf(&u, "%s=%s\n", key, value)
		}
	}
	if s.StartTakes > 0 {
		u.WriteString("Type=notify\n")
	}
	if s.StopTakes > 0 {
		fmt.Fprintf(&u, "ExecStopPost=/bin/sleep %v\n", s.StopTakes.Seconds())
	}
	if s.StopLimit > 0 {
		fmt.Fprintf(&u, "TimeoutStopSec=%v\n", s.StopLimit.Seconds())
	}
	u.WriteString("[Install]\nWantedBy=multi-user.target\n")
	// In /run, so that "systemctl mask" can put its link into /etc.
	path := "/run/systemd/system/" + name
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(u.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	systemctl(t, "-q", "enable", name)
	t.Cleanup(func() {
		_ = os.Remove("/etc/systemd/system/" + name) // a mask
		systemctl(t, "daemon-reload")
		// What KillMode=process left over. One that is stopped and disabled is not loaded any more, and has nothing left.
		_, _ = service.Runner{}.Run(context.Background(), service.Command{Path: "systemctl", Args: []string{"kill", "--signal=KILL", name}})
		systemctl(t, "stop", name)
		systemctl(t, "-q", "disable", name)
		_ = os.Remove(path)
		systemctl(t, "daemon-reload")
	})
	return name
}

func (m *machine) Operate(t testing.TB, verb servicetest.Verb, unit string) {
	t.Helper()
	if name, ok := strings.CutPrefix(string(verb), "begin-"); ok {
		systemctl(t, "--no-block", name, unit)
		return
	}
	systemctl(t, "-q", string(verb), unit)
}

func (m *machine) Crash(t testing.TB, unit string) {
	t.Helper()
	m.signal(t, unit, syscall.SIGKILL)
}

func (m *machine) Freeze(t testing.TB, unit string) {
	t.Helper()
	m.signal(t, unit, syscall.SIGSTOP)
}

func (m *machine) signal(t testing.TB, unit string, sig syscall.Signal) {
	t.Helper()
	pid, err := strconv.Atoi(systemctl(t, "show", "--value", "-p", "MainPID", unit))
	if err != nil || pid <= 1 {
		t.Fatalf("main pid %d, %v", pid, err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// Children finds "sleep 1000" in the unit's cgroup.
func (m *machine) Children(t testing.TB, unit string) []int {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		group, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cgroup"))
		if bytes.Equal(line, []byte("sleep\x001000\x00")) && bytes.Contains(group, []byte("/"+unit)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (m *machine) Disconnect(t testing.TB, hang bool) func() {
	if hang {
		m.relay.frozen.Store(true)
		return func() { m.relay.frozen.Store(false) }
	}
	m.relay.stop()
	return func() { m.relay.start(t) }
}

// user is a Manager of a user other than root, in a child process for each call.
type user struct {
	t    *testing.T
	name string
}

type childCall struct {
	Unit string
	Want service.Status
}

// childErrors are what a child can report, by exit code.
var childErrors = []error{nil, service.ErrPermission, service.ErrNotFound, service.ErrUnavailable, service.ErrChanged, errors.New("other error")}

func (u user) run(op string, call childCall) error {
	arg, err := json.Marshal(call)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := service.Runner{}.Run(u.t.Context(), service.Command{
		Path: exe, User: u.name, Env: []string{"PGPATROL_E2E_CHILD=" + op, "CALL=" + string(arg)},
	})
	if err != nil {
		return err
	}
	u.t.Logf("%s as %s: exit code %d, %s", op, u.name, out.ExitCode, out.Stderr)
	return childErrors[out.ExitCode]
}

func (u user) Status(context.Context, string) (service.Status, error) {
	return service.Status{}, errors.ErrUnsupported
}

func (u user) Start(_ context.Context, unit string) error {
	return u.run("start", childCall{Unit: unit})
}

func (u user) KillMain(_ context.Context, unit string, want service.Status) error {
	return u.run("kill", childCall{unit, want})
}

func (u user) Restart(_ context.Context, unit string, want service.Status) error {
	return u.run("restart", childCall{unit, want})
}

func (u user) Limits(_ context.Context, unit string) error {
	return u.run("limits", childCall{Unit: unit})
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
	case "kill":
		err = m.KillMain(ctx, call.Unit, call.Want)
	case "restart":
		err = m.Restart(ctx, call.Unit, call.Want)
	case "limits":
		err = m.Limits(ctx, call.Unit)
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

// TestE2E_BrokenWhileRunning: a unit whose file breaks while it runs is not restarted after a kill, whatever Restart=
// says; a soft-kill of it would be the end of it.
func TestE2E_BrokenWhileRunning(t *testing.T) {
	m, err := New(Default(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	host := &machine{}
	unit := host.Install(t, servicetest.Service{Restart: "always"})
	host.Operate(t, servicetest.Start, unit)
	path := "/run/systemd/system/" + unit
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(good, []byte("/bin/sh"), []byte("bin/sh"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	st, err := m.Status(t.Context(), unit)
	if err != nil || st.LoadError != "bad-setting" || st.RestartsOnKill() || st.State != service.StateRunning {
		t.Errorf("got %+v, %v", st, err)
	}
	host.Crash(t, unit)
	time.Sleep(time.Second)
	if st, err = m.Status(t.Context(), unit); err != nil || st.State != service.StateFailed {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestE2E_BusRestart: killing the bus ends a Watch, and the next call connects again.
func TestE2E_BusRestart(t *testing.T) {
	m, err := New(Config{Bus: Default().Bus}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	unit := (&machine{}).Install(t, servicetest.Service{})
	woken, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() { ended <- m.Watch(t.Context(), []string{unit}, func() { woken <- struct{}{} }) }()
	<-woken
	pid, err := strconv.Atoi(systemctl(t, "show", "--value", "-p", "MainPID", "dbus.service"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, service.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err = m.Status(t.Context(), unit); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// TestE2E_Reexec: systemd replacing itself must not leave a deaf Watch behind.
func TestE2E_Reexec(t *testing.T) {
	for _, config := range []Config{{Bus: Default().Bus}, {Bus: "/absent", Direct: Default().Direct}} {
		m, err := New(config, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		host := &machine{}
		unit := host.Install(t, servicetest.Service{})
		woken, ended := make(chan struct{}, 100), make(chan error, 1)
		go func() { ended <- m.Watch(t.Context(), []string{unit}, func() { woken <- struct{}{} }) }()
		<-woken
		systemctl(t, "daemon-reexec")
		time.Sleep(time.Second)
		for len(woken) > 0 {
			<-woken
		}
		host.Operate(t, servicetest.Start, unit)
		select {
		case <-woken:
			t.Log("still subscribed")
		case err := <-ended:
			t.Log("ended:", err)
		case <-time.After(5 * time.Second):
			t.Error("deaf after daemon-reexec")
		}
	}
}

// TestE2E_WatchByAlias: signals carry the proper name of the unit.
func TestE2E_WatchByAlias(t *testing.T) {
	m, err := New(Default(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	host := &machine{}
	unit := host.Install(t, servicetest.Service{})
	alias := "alias-" + unit
	if err := os.Symlink("/run/systemd/system/"+unit, "/run/systemd/system/"+alias); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove("/run/systemd/system/" + alias) }()
	systemctl(t, "daemon-reload")
	woken := make(chan struct{}, 100)
	go func() { _ = m.Watch(t.Context(), []string{alias}, func() { woken <- struct{}{} }) }()
	<-woken
	if err := m.Start(t.Context(), alias); err != nil {
		t.Fatal(err)
	}
	select {
	case <-woken:
	case <-time.After(5 * time.Second):
		t.Error("not woken")
	}
	if st, err := m.Status(t.Context(), alias); err != nil || st.State != service.StateRunning {
		t.Errorf("got %+v, %v", st, err)
	}
}

func BenchmarkE2E_Status(b *testing.B) {
	m, err := New(Default(), Deps{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Status(b.Context(), "dbus.service"); err != nil {
			b.Fatal(err)
		}
	}
}
