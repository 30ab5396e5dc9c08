package openrc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// tree is a machine made of files: OpenRC's state, an init script, runlevels and a process table.
type tree struct {
	root string
	*Manager
}

const svc = "capsvc"

func newTree(t testing.TB) *tree {
	t.Helper()
	root := t.TempDir()
	config := Config{State: filepath.Join(root, "state"), Scripts: filepath.Join(root, "init.d"), Runlevels: filepath.Join(root, "runlevels")}
	m, err := New(config, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{root, m}
	m.proc = tr.path("proc")
	for _, k := range linked {
		tr.mkdir(t, "state/"+string(k))
	}
	for _, dir := range []string{"state/options", "state/daemons", "state/scheduled", "state/exclusive", "runlevels/default", "proc", "pid"} {
		tr.mkdir(t, dir)
	}
	tr.write(t, "state/softlevel", "default\n")
	tr.write(t, "init.d/"+svc, "#!/sbin/openrc-run\n")
	return tr
}

func (tr *tree) path(name string) string { return filepath.Join(tr.root, name) }

func (tr *tree) mkdir(t testing.TB, name string) {
	t.Helper()
	if err := os.MkdirAll(tr.path(name), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) write(t testing.TB, name, content string) {
	t.Helper()
	tr.mkdir(t, filepath.Dir(name))
	if err := os.WriteFile(tr.path(name), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) link(t testing.TB, name string) {
	t.Helper()
	if err := os.Symlink("/etc/init.d/"+filepath.Base(name), tr.path(name)); err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) remove(t testing.TB, name string) {
	t.Helper()
	if err := os.RemoveAll(tr.path(name)); err != nil {
		t.Fatal(err)
	}
}

// captured makes the tree what testdata/capture.sh found.
func captured(t testing.TB, name string) *tree {
	t.Helper()
	ar, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	tr := newTree(t)
	for _, f := range ar.Files {
		data := string(f.Data)
		switch {
		case strings.HasPrefix(data, "-> "):
			tr.link(t, f.Name)
			continue
		case strings.HasSuffix(f.Name, "/cmdline"):
			data = strings.ReplaceAll(data, "\n", "\x00")
		case strings.HasPrefix(f.Name, "state/options/"):
			data = strings.TrimSuffix(data, "\n")
		case strings.HasPrefix(f.Name, "state/daemons/"):
			data = strings.ReplaceAll(data, "pidfile=/run/", "pidfile="+tr.path("pid")+"/")
		}
		tr.write(t, f.Name, data)
	}
	return tr
}

// get returns the status, without what every tree has of its own.
func (tr *tree) get(t testing.TB) service.Status {
	t.Helper()
	st, err := tr.Status(t.Context(), svc)
	if err != nil {
		t.Fatal(err)
	}
	if st.UnitFile != tr.path("init.d/"+svc) {
		t.Errorf("got unit file %q", st.UnitFile)
	}
	st.UnitFile = ""
	return st
}

func TestStatus_Captured(t *testing.T) {
	up := service.Status{
		Unit: svc, State: service.StateRunning, Detail: "started", Enablement: "enabled", MainPID: 6811, KillMode: "process", Restart: "no",
	}
	down := up
	down.MainPID, down.Restart = 0, ""
	supervised := up
	supervised.Restart, supervised.RestartDelay, supervised.StartLimit, supervised.StartLimitSpan = "always", 3*time.Second, 2, time.Minute
	for _, tc := range []struct {
		name   string
		intent service.Intent
		base   service.Status
		change func(*service.Status)
	}{
		{"running", service.IntentRun, up, func(*service.Status) {}},
		{"stopped", service.IntentStopped, down, func(s *service.Status) { s.State, s.Detail = service.StateStopped, "stopped" }},
		{"crashed", service.IntentRun, up, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.MainPID = service.StateFailed, "crashed", "crashed", 0
		}},
		{"disabled", service.IntentRun, up, func(s *service.Status) { s.Enablement, s.MainPID = "disabled", pidOf(t, "disabled") }},
		{"starting", service.IntentBusy, up, func(s *service.Status) {
			s.State, s.Detail, s.Job, s.MainPID = service.StateStarting, "starting", "start", pidOf(t, "starting")
		}},
		{"stopping", service.IntentBusy, up, func(s *service.Status) {
			s.State, s.Detail, s.Job, s.MainPID = service.StateStopping, "stopping", "stop", 0
		}},
		{"supervised", service.IntentRun, supervised, func(s *service.Status) { s.MainPID = 7259 }},
		{"respawning", service.IntentRun, supervised, func(s *service.Status) {
			s.State, s.Detail, s.Result, s.MainPID = service.StateRestarting, "started, respawning", "crashed", 0
		}},
		{"respawned", service.IntentRun, supervised, func(s *service.Status) { s.MainPID, s.Restarts = 7426, 1 }},
		{"unsupervised", service.IntentRun, up, func(s *service.Status) { s.Detail, s.MainPID = "unsupervised", 7426 }},
		{"gave-up", service.IntentRun, down, func(s *service.Status) { s.State, s.Detail, s.Result = service.StateFailed, "failed", "failed" }},
		{"without-daemon", service.IntentRun, up, func(s *service.Status) { s.Detail, s.MainPID = "started, without a daemon", 0 }},
		{"without-pidfile", service.IntentRun, up, func(s *service.Status) { s.MainPID = 7887 }},
		{"inactive", service.IntentRun, up, func(s *service.Status) {
			s.State, s.Detail, s.MainPID = service.StateStarting, "inactive", 0
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := tc.base
			tc.change(&want)
			got := captured(t, tc.name).get(t)
			if id := got.InvocationID; (id == "") != (tc.name == "stopped" || tc.name == "stopping") {
				t.Errorf("got invocation %q", id)
			}
			got.InvocationID = ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if intent := got.Intent(); intent != tc.intent {
				t.Errorf("got intent %v, want %v", intent, tc.intent)
			}
		})
	}
}

// pidOf returns the pid in a captured pidfile.
func pidOf(t *testing.T, name string) int {
	t.Helper()
	tr := captured(t, name)
	pid, err := tr.pidIn(tr.path("pid/" + svc + ".pid"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// What is not what OpenRC left there must not look like a crash, which would have the daemon started a second time.
func TestStatus_Unsure(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*tree)
		state  service.State
		detail string
	}{
		{"pidfile gone, daemon lives", func(tr *tree) { tr.remove(t, "pid/"+svc+".pid") }, service.StateUnknown, "names no process, but process 6811 may be it"},
		{"pidfile empty, daemon lives", func(tr *tree) { tr.write(t, "pid/"+svc+".pid", "") }, service.StateUnknown, "names no process, but process 6811 may be it"},
		{"pidfile gone, daemon dead", func(tr *tree) { tr.remove(t, "pid/"+svc+".pid"); tr.remove(t, "proc/6811") }, service.StateFailed, "crashed"},
		{"a zombie", func(tr *tree) { tr.stat(t, 6811, "capsvc", 'Z', 1, 414976) }, service.StateFailed, "crashed"},
		{"somebody else has the number", func(tr *tree) {
			tr.stat(t, 6811, "postgres", 'S', 1, 900000)
			tr.write(t, "proc/6811/cmdline", "postgres\x00-D\x00/data\x00")
		}, service.StateUnknown, `is "postgres"`},
		{"a name of its own, by its command line", func(tr *tree) { tr.stat(t, 6811, "etcd (leader) x", 'S', 1, 414976) }, service.StateRunning, "started"},
		{"a name of its own, by procname", func(tr *tree) {
			tr.stat(t, 6811, "a-long-name-cut", 'S', 1, 414976)
			tr.write(t, "proc/6811/cmdline", "x\x00")
			tr.write(t, "state/options/"+svc+"/procname", "a-long-name-cut-off")
		}, service.StateRunning, "started"},
		{"a stop in progress, process dead", func(tr *tree) { tr.remove(t, "proc/6811"); tr.link(t, "state/stopping/"+svc) }, service.StateStopping, "stopping"},
		{"a start about to be marked", func(tr *tree) { tr.link(t, "state/starting/"+svc) }, service.StateStarting, "starting"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := captured(t, "running")
			tc.change(tr)
			if st := tr.get(t); st.State != tc.state || !strings.Contains(st.Detail, tc.detail) {
				t.Errorf("got %v, %q", st.State, st.Detail)
			}
		})
	}
}

// What cannot be read is neither a crash nor a stop. Folders stand for whatever does not let itself be read, also by root.
func TestStatus_Unreadable(t *testing.T) {
	for _, tc := range []struct{ capture, gone, folder string }{
		{"running", "proc/6811/stat", "proc/6811/stat"},
		{"running", "pid/" + svc + ".pid", "pid/" + svc + ".pid"},
		{"running", "pid/" + svc + ".pid", "proc/6811/cmdline"},
		{"respawned", "pid/" + svc + ".pid", "pid/" + svc + ".pid"},
	} {
		tr := captured(t, tc.capture)
		tr.remove(t, tc.gone)
		tr.remove(t, tc.folder)
		tr.mkdir(t, tc.folder)
		if st, err := tr.Status(t.Context(), svc); !errors.Is(err, service.ErrUnavailable) {
			t.Errorf("%s, %s is a folder: got %+v, %v", tc.capture, tc.folder, st, err)
		}
	}
	tr := captured(t, "running")
	tr.remove(t, "state/stopping")
	tr.write(t, "state/stopping", "")
	if st, err := tr.Status(t.Context(), svc); !errors.Is(err, service.ErrUnavailable) {
		t.Errorf("no folder of links: got %+v, %v", st, err)
	}
}

// stat makes a process.
func (tr *tree) stat(t testing.TB, pid int, name string, state rune, parent int, start uint64) {
	t.Helper()
	tr.write(t, filepath.Join("proc", itoa(pid), "stat"), statLine(pid, name, state, parent, start))
}

// A crashed daemon whose number goes to a process of the same program is still crashed.
func TestStatus_NumberReused(t *testing.T) {
	tr := captured(t, "running")
	before := tr.get(t)
	tr.stat(t, 6811, "capsvc", 'S', 1, 999999)
	if st := tr.get(t); st.State != service.StateFailed || st.InvocationID != before.InvocationID {
		t.Errorf("got %+v", st)
	}
	// The next start may get the number too.
	tr.remove(t, "state/daemons/"+svc)
	time.Sleep(10 * time.Millisecond)
	again := captured(t, "running")
	again.seen = tr.seen
	if st := again.get(t); st.State != service.StateRunning || st.InvocationID == before.InvocationID {
		t.Errorf("got %+v", st)
	}
}

func TestStatus_Definition(t *testing.T) {
	tr := captured(t, "crashed")
	if err := os.Chmod(tr.path("init.d/"+svc), 0o644); err != nil {
		t.Fatal(err)
	}
	tr.remove(t, "runlevels/default/"+svc)
	if st := tr.get(t); st.LoadError == "" || st.Intent() != service.IntentDisabled {
		t.Errorf("got %+v", st)
	}
	tr = captured(t, "stopped")
	tr.mkdir(t, "state/scheduled/net")
	tr.link(t, "state/scheduled/net/"+svc)
	if st := tr.get(t); st.State != service.StateStarting || st.Intent() != service.IntentBusy {
		t.Errorf("waits for net: got %+v", st)
	}
}

func TestStatus_LastRespawn(t *testing.T) {
	tr := captured(t, "respawned")
	tr.write(t, "state/options/"+svc+"/respawn_period", "0")
	if st := tr.get(t); !st.RestartsOnKill() || st.StartLimit != 0 {
		t.Errorf("one is left: got %+v", st)
	}
	tr.write(t, "state/options/"+svc+"/start_count", "2")
	if st := tr.get(t); st.RestartsOnKill() {
		t.Errorf("none is left: got %+v", st)
	}
}

func (tr *tree) chmod(t testing.TB, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(tr.path(name), mode); err != nil {
		t.Fatal(err)
	}
}

func killProcess(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
