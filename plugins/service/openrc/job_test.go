package openrc

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// script is a Runner that notes each command and does with the tree what its turn says.
type script struct {
	turns []func() (code int)
	ran   []string
}

func (s *script) Run(_ context.Context, c service.Command) (service.Output, error) {
	s.ran = append(s.ran, strings.Join(append([]string{filepath.Base(c.Path)}, c.Args...), " "))
	if len(s.turns) == 0 {
		return service.Output{}, errors.New("no command was expected")
	}
	turn := s.turns[0]
	s.turns = s.turns[1:]
	return service.Output{ExitCode: turn()}, nil
}

// The commands.
const (
	plainStart = "rc-service -- capsvc start"
	heal       = "rc-service --nodeps --ifcrashed --ifstarted -- capsvc --ifstarted zap start"
	markAsDown = "mark_service_failed capsvc"
)

// comesUp is a start that works. The daemon is there first, then the new mark, and the old ones go last, as OpenRC does it.
func (tr *tree) comesUp(t *testing.T) func() int {
	return func() int {
		tr.remove(t, "state/daemons/"+svc)
		tr.write(t, "state/daemons/"+svc+"/001", "exec=/usr/local/bin/capsvc\nargv_0=/usr/local/bin/capsvc\npidfile="+tr.path("pid/capsvc.pid")+"\n")
		tr.write(t, "pid/capsvc.pid", "9000\n")
		tr.stat(t, 9000, svc, 'S', 1, 500000)
		tr.remove(t, "state/started/"+svc)
		tr.link(t, "state/started/"+svc)
		for _, k := range linked {
			if k != markStarted {
				tr.remove(t, "state/"+string(k)+"/"+svc)
			}
		}
		return 0
	}
}

// goesDown leaves no trace of a service, and gives an exit code.
func (tr *tree) goesDown(t *testing.T, code int) func() int {
	return func() int {
		for _, k := range linked {
			tr.remove(t, "state/"+string(k)+"/"+svc)
		}
		tr.remove(t, "state/daemons/"+svc)
		tr.remove(t, "state/options/"+svc)
		return code
	}
}

func exits(code int) func() int { return func() int { return code } }

func TestStart(t *testing.T) {
	for _, tc := range []struct {
		name, from string
		turns      func(*tree) []func() int
		want       []string
		err        string // "" for none
		is         error
	}{
		{"running", "running", nil, nil, "", nil},
		{"without a daemon", "without-daemon", nil, nil, "", nil},
		{"stopped", "stopped", func(tr *tree) []func() int { return []func() int{tr.comesUp(t)} }, []string{plainStart}, "", nil},
		{"gave up", "gave-up", func(tr *tree) []func() int { return []func() int{tr.comesUp(t)} }, []string{plainStart}, "", nil},
		{"crashed", "crashed", func(tr *tree) []func() int { return []func() int{tr.comesUp(t)} }, []string{heal}, "", nil},
		{"crashed, a person stops it first", "crashed", func(tr *tree) []func() int { return []func() int{tr.goesDown(t, 0)} }, []string{heal}, "did nothing", service.ErrBusy},
		{"crashed, a person is stopping it", "crashed", func(tr *tree) []func() int {
			return []func() int{func() int { tr.link(t, "state/stopping/"+svc); return 0 }}
		}, []string{heal}, "stop", service.ErrBusy},
		{"crashed, the lock is taken", "crashed", func(*tree) []func() int { return []func() int{exits(0)} }, []string{heal}, "did nothing", service.ErrBusy},
		{"crashed, does not start", "crashed", func(tr *tree) []func() int {
			return []func() int{tr.goesDown(t, 1), func() int { tr.link(t, "state/failed/"+svc); return 0 }}
		}, []string{heal, markAsDown}, "exit code 1", nil},
		{"stopping", "stopping", nil, nil, "stop", service.ErrBusy},
		{"unknown", "running", func(tr *tree) []func() int { tr.remove(t, "pid/"+svc+".pid"); return nil }, nil, "unknown", nil},
		{"broken script", "crashed", func(tr *tree) []func() int {
			tr.chmod(t, "init.d/"+svc, 0o644)
			return nil
		}, nil, "not executable", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := captured(t, tc.from)
			s := &script{}
			if tc.turns != nil {
				s.turns = tc.turns(tr)
			}
			tr.run = s
			err := tr.Start(t.Context(), svc)
			switch {
			case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("got %v, want %q", err, tc.err)
			case tc.is != nil && !errors.Is(err, tc.is):
				t.Errorf("got %v, want %v", err, tc.is)
			}
			if diff := cmp.Diff(tc.want, s.ran); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A start by somebody else is waited for and not repeated, however it ends.
func TestStart_Joins(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*tree) func() int
		ok   bool
	}{
		{"and it works", func(tr *tree) func() int { return tr.comesUp(t) }, true},
		{"and it fails", func(tr *tree) func() int { return tr.goesDown(t, 1) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := captured(t, "starting")
			s := &script{}
			tr.run = s
			ended := make(chan error, 1)
			go func() { ended <- tr.Start(t.Context(), svc) }()
			select {
			case err := <-ended:
				t.Fatalf("not waited for: %v", err)
			case <-time.After(3 * patience):
			}
			tc.end(tr)()
			if err := <-ended; (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
			if len(s.ran) > 0 {
				t.Errorf("ran %q", s.ran)
			}
		})
	}
}

func TestRestart_Refuses(t *testing.T) {
	for _, tc := range []struct {
		name, from string
		change     func(*service.Status)
		want       error
	}{
		{"another process", "running", func(s *service.Status) { s.MainPID++ }, service.ErrChanged},
		{"another run", "running", func(s *service.Status) { s.InvocationID += "0" }, service.ErrChanged},
		{"crashed", "crashed", func(*service.Status) {}, service.ErrChanged},
		{"stopped", "stopped", func(*service.Status) {}, service.ErrChanged},
		{"stopping", "stopping", func(*service.Status) {}, service.ErrBusy},
		{"starting", "starting", func(*service.Status) {}, service.ErrBusy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := captured(t, tc.from)
			s := &script{}
			tr.run = s
			want := tr.get(t)
			tc.change(&want)
			if err := tr.Restart(t.Context(), svc, want); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if len(s.ran) > 0 {
				t.Errorf("ran %q", s.ran)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	tr := captured(t, "running")
	if _, err := tr.Status(t.Context(), "other"); !errors.Is(err, service.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.Status(ctx, svc); !errors.Is(err, context.Canceled) || errors.Is(err, service.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	tr.remove(t, "state/softlevel")
	for name, err := range map[string]error{
		"status": func() error { _, err := tr.Status(t.Context(), svc); return err }(),
		"start":  tr.Start(t.Context(), svc),
		"kill":   tr.KillMain(t.Context(), svc, service.Status{MainPID: 6811, InvocationID: "x"}),
		"limits": tr.Limits(t.Context(), svc),
	} {
		if !errors.Is(err, service.ErrUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	_, err := New(Config{State: "run", Scripts: "/etc/init.d"}, Deps{})
	for _, part := range []string{"state", "runlevels"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, which does not name %s", err, part)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	if _, err := New(Default(), Deps{}); err != nil {
		t.Error(err)
	}
}

// sleeper starts a process that is nobody's child here and makes it the service's daemon.
func (tr *tree) sleeper(t *testing.T) int {
	t.Helper()
	tr.proc = "/proc"
	out, err := service.Runner{}.Run(t.Context(), service.Command{Path: "/bin/sh", Args: []string{"-c", "sleep 1000 >/dev/null 2>&1 & echo $!"}})
	if err != nil {
		t.Fatal(err)
	}
	pid := parsePid(out.Stdout)
	t.Cleanup(func() { _ = killProcess(pid) })
	tr.write(t, "pid/"+svc+".pid", string(out.Stdout))
	tr.write(t, "state/daemons/"+svc+"/001", "exec=/bin/sleep\nargv_0=/bin/sleep\nargv_1=1000\npidfile="+tr.path("pid/"+svc+".pid")+"\n")
	return pid
}

func TestWatch(t *testing.T) {
	tr := captured(t, "running")
	pid := tr.sleeper(t)
	woken := make(chan struct{}, 1)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- tr.Watch(ctx, []string{svc}, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	want := func(what string) {
		t.Helper()
		select {
		case <-woken:
		case err := <-ended:
			t.Fatalf("%s: %v", what, err)
		case <-time.After(time.Second):
			t.Fatalf("%s: not woken", what)
		}
	}
	quiet := func() {
		t.Helper()
		for {
			select {
			case <-woken:
				continue
			case <-time.After(100 * time.Millisecond):
			}
			return
		}
	}
	want("subscription")
	quiet()
	if err := killProcess(pid); err != nil {
		t.Fatal(err)
	}
	want("SIGKILL of the daemon, which changes no file")
	if st := tr.get(t); st.Detail != "crashed" {
		t.Errorf("got %+v", st)
	}
	quiet()
	next := tr.sleeper(t)
	tr.link(t, "state/starting/"+svc)
	tr.remove(t, "state/starting/"+svc)
	want("start")
	quiet()
	if err := killProcess(next); err != nil {
		t.Fatal(err)
	}
	want("SIGKILL of the next daemon")
	quiet()
	tr.remove(t, "state/options/"+svc)
	want("the options went away")
	quiet()
	tr.write(t, "state/options/"+svc+"/child_pid", "5")
	want("the options came back")
	quiet()
	tr.write(t, "state/options/"+svc+"/child_pid", "6")
	want("a child of supervise-daemon's")
	quiet()
	tr.remove(t, "runlevels/default/"+svc)
	want("rc-update del")
	quiet()
	tr.chmod(t, "init.d/"+svc, 0o644)
	want("script")
	quiet()
	tr.link(t, "state/started/other")
	tr.write(t, "state/options/other/child_pid", "7")
	select {
	case <-woken:
		t.Error("woken by another service")
	case <-time.After(200 * time.Millisecond):
	}
	tr.remove(t, "state")
	select {
	case err := <-ended:
		if !errors.Is(err, service.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Second):
		t.Error("not ended with OpenRC's state")
	}
}

func TestWatch_EndsWithItsContext(t *testing.T) {
	tr := captured(t, "running")
	tr.sleeper(t)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := tr.Watch(ctx, []string{svc}, func() { calls++; cancel() })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	if err := tr.Watch(t.Context(), []string{"../" + svc}, func() {}); err == nil {
		t.Error("a hostile name was watched")
	}
}

func TestKillMain(t *testing.T) {
	tr := captured(t, "running")
	pid := tr.sleeper(t)
	st := tr.get(t)
	other := st
	other.InvocationID = "1"
	if err := tr.KillMain(t.Context(), svc, other); !errors.Is(err, service.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if p, err := lookup("/proc", pid); err != nil || p.pid != st.MainPID {
		t.Fatalf("%d is gone, main is %d", pid, st.MainPID)
	}
	if err := tr.Limits(t.Context(), svc); err != nil {
		t.Errorf("limits: %v", err)
	}
	if err := tr.KillMain(t.Context(), svc, st); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for tr.get(t).State != service.StateFailed {
		if time.Now().After(deadline) {
			t.Fatal("it lives")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A frozen daemon does not react to being asked to stop: OpenRC gives up after its retry schedule and leaves it started.
func TestRestart_Frozen(t *testing.T) {
	tr := captured(t, "running")
	pid := tr.sleeper(t)
	want := tr.get(t)
	s := &script{turns: []func() int{exits(1), tr.comesUp(t)}}
	tr.run = s
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := tr.Restart(t.Context(), svc, want); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.ran, []string{"rc-service --nodeps --ifstarted -- capsvc --ifstarted stop start", heal}) {
		t.Errorf("ran %q", s.ran)
	}
	if _, err := lookup("/proc", pid); err == nil {
		t.Error("the frozen process lives")
	}
}
