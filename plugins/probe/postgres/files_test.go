package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

// table is a process table with one process in it.
type table struct {
	p     probe.Process
	start time.Time
	block chan struct{} // Inspect waits for it, if there is one
}

func (t *table) Inspect(pid int) (probe.Process, error) {
	if t.block != nil {
		<-t.block
	}
	if pid == t.p.PID {
		return t.p, nil
	}
	return probe.Process{PID: pid}, nil
}

func (t *table) StartedAt(int) (time.Time, error) { return t.start, nil }

var noon = time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)

// dataDir makes a data directory with a captured control file.
func dataDir(tb testing.TB, controlFile string) string {
	tb.Helper()
	dir := tb.TempDir()
	put(tb, dir, "PG_VERSION", "17\n")
	full := make([]byte, 8192)
	copy(full, testdata(tb, "pg_control-"+controlFile))
	put(tb, dir, "global/pg_control", string(full))
	return dir
}

func put(tb testing.TB, dir, name, text string) {
	tb.Helper()
	p := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
		tb.Fatal(err)
	}
}

func lock(dir string, pid int, status string) string {
	return fmt.Sprintf("%d\n%s\n%d\n5432\n/run\n*\n  1 2\n%-8s\n", pid, dir, noon.Unix(), status)
}

func files(tb testing.TB, dir string, procs Processes) *Files {
	tb.Helper()
	f, err := New(Config{DataDir: dir}, Deps{Processes: procs})
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestFiles_Running(t *testing.T) {
	dir := dataDir(t, "17.primary")
	put(t, dir, "postmaster.pid", lock(dir, 220, "ready"))
	procs := &table{p: probe.Process{
		Exists: true, PID: 220, State: "S", StartTick: 99, Exe: "postgres", WorkDir: dir, Unit: "patroni.service",
	}}
	f := files(t, dir, procs)
	c := controldata(t, "17.primary")
	want := probe.Postgres{
		DataDir: dir, Initialized: true, SystemID: fmt.Sprint(c.systemID), ControlState: "in production",
		Timeline: c.timeline, CheckpointLSN: c.checkpoint,
		Running: true, PostmasterPID: 220, PostmasterTick: 99, ProcessState: "S", Port: 5432, ServerStatus: "ready",
		CGroupUnit: "patroni.service",
	}
	got, err := f.Probe(t.Context())
	want.DataDirID = got.DataDirID
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if !got.Writable() || got.DataDirID == "" {
		t.Errorf("got %+v, want it writable, with an identity", got)
	}
	if id, err := f.DataDirID(t.Context()); id != got.DataDirID || err != nil {
		t.Errorf("identity: got %q, %v, want %q", id, err, got.DataDirID)
	}
	probetest.Run(t, f)
}

// TestFiles_KilledPrimaryStarts: the control file still says "in production" while the next server syncs its directory.
func TestFiles_KilledPrimaryStarts(t *testing.T) {
	dir := dataDir(t, "17.primary")
	put(t, dir, "postmaster.pid", lock(dir, 220, "starting"))
	f := files(t, dir, &table{p: probe.Process{Exists: true, PID: 220, State: "S", Exe: "postgres", WorkDir: dir}})
	got, err := f.Probe(t.Context())
	if err != nil || !got.Running || got.ControlState != probe.ControlInProduction || got.Writable() {
		t.Errorf("got %+v, %v, want it running and not writable", got, err)
	}
}

func TestFiles_WhoLivesHere(t *testing.T) {
	dir := dataDir(t, "17.standby")
	put(t, dir, "standby.signal", "")
	put(t, dir, "postmaster.pid", lock(dir, 220, "ready"))
	other := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		p       probe.Process
		start   time.Time
		running bool
		unknown bool
	}{
		"nobody, the lock file is stale":         {p: probe.Process{}},
		"zombie":                                 {p: probe.Process{Exists: true, State: "Z", Command: "postgres"}},
		"a stranger got the number":              {p: probe.Process{Exists: true, State: "S", Exe: "nginx"}},
		"a stranger, program not shown":          {p: probe.Process{Exists: true, State: "S", Command: "nginx"}},
		"server of another directory":            {p: probe.Process{Exists: true, State: "S", Exe: "postgres", WorkDir: other}},
		"server of a directory that is gone":     {p: probe.Process{Exists: true, State: "S", Exe: "postgres", WorkDir: "/nowhere"}},
		"ours, through a link":                   {p: probe.Process{Exists: true, State: "S", Exe: "postgres", WorkDir: link}, running: true},
		"ours, stopped by a signal":              {p: probe.Process{Exists: true, State: "T", Exe: "postgres", WorkDir: dir}, running: true},
		"ours, the clock was set since":          {p: probe.Process{Exists: true, State: "S", Exe: "postgres", WorkDir: dir}, start: noon.Add(time.Hour), running: true},
		"directory not shown, start fits":        {p: probe.Process{Exists: true, State: "S", Command: "postgres"}, start: noon.Add(-time.Second), running: true},
		"directory not shown, start far off":     {p: probe.Process{Exists: true, State: "S", Command: "postgres"}, start: noon.Add(time.Hour), unknown: true},
		"directory not shown, renamed program":   {p: probe.Process{Exists: true, State: "S", Exe: "postgres", Command: "x"}, start: noon, running: true},
		"directory not shown, name only pretend": {p: probe.Process{Exists: true, State: "S", Exe: "bash", Command: "postgres"}, start: noon},
	} {
		t.Run(name, func(t *testing.T) {
			c.p.PID = 220
			got, err := files(t, dir, &table{p: c.p, start: c.start}).Probe(t.Context())
			if (err != nil) != c.unknown || got.Running != c.running {
				t.Fatalf("got running %v, error %v; want %v, error %v", got.Running, err, c.running, c.unknown)
			}
			if err == nil && (!got.Initialized || !got.Standby || got.ControlState != "in archive recovery" || got.Writable()) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestFiles_NoServer(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nowhere")
	filling := t.TempDir() // a base backup brings pg_control last
	put(t, filling, "PG_VERSION", "17\n")
	single := dataDir(t, "17.primary")
	put(t, single, "postmaster.pid", lock(single, -220, "starting"))
	procs := &table{p: probe.Process{Exists: true, PID: 220, State: "S", Exe: "postgres", WorkDir: single}}
	for name, c := range map[string]struct {
		dir         string
		initialized bool
	}{
		"missing": {missing, false}, "empty": {t.TempDir(), false}, "being filled": {filling, false}, "single-user mode": {single, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := files(t, c.dir, procs).Probe(t.Context())
			if err != nil || got.Running || got.Initialized != c.initialized {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestFiles_Unknown(t *testing.T) {
	for name, spoil := range map[string]func(dir string){
		"half-written lock file": func(dir string) { put(t, dir, "postmaster.pid", "220\n/da") },
		"torn control file":      func(dir string) { put(t, dir, "global/pg_control", string(make([]byte, 8192))) },
		"control file is a link": func(dir string) { relink(t, dir, "global/pg_control") },
		"lock file is a link": func(dir string) {
			put(t, dir, "postmaster.pid", lock(dir, 220, "ready"))
			relink(t, dir, "postmaster.pid")
		},
		"lock file is a pipe":     func(dir string) { mkfifo(t, filepath.Join(dir, "postmaster.pid")) },
		"lock file is a folder":   func(dir string) { mkdir(t, filepath.Join(dir, "postmaster.pid")) },
		"the directory is a file": func(dir string) { replaceByFile(t, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t, "17.primary")
			spoil(dir)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if got, err := files(t, dir, &table{}).Probe(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %+v, %v, want an error at once", got, err)
			}
		})
	}
}

// TestFiles_HangingDisk: what hangs below must not hang the probe (FACTS.md §2.6: the known real hang is a file system).
func TestFiles_HangingDisk(t *testing.T) {
	dir := dataDir(t, "17.primary")
	put(t, dir, "postmaster.pid", lock(dir, 220, "ready"))
	procs := &table{block: make(chan struct{})}
	f := files(t, dir, procs)
	t.Run("first", func(t *testing.T) {
		t.Cleanup(func() { close(procs.block) })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := f.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := f.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("second look: got %v", err)
		}
	})
	if got, err := f.Probe(t.Context()); err != nil || !got.Initialized {
		t.Errorf("after it came back: got %+v, %v", got, err)
	}
}

func TestDataDirID_ChangesWithANewDirectory(t *testing.T) {
	dir := dataDir(t, "17.primary")
	f := files(t, dir, &table{})
	first, err := f.DataDirID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "postmaster.opts", "x") // a restart writes this
	if again, err := f.DataDirID(t.Context()); again != first || err != nil {
		t.Errorf("after a restart: got %q, %v, want %q", again, err, first)
	}
	if err := os.Remove(filepath.Join(dir, "PG_VERSION")); err != nil {
		t.Fatal(err)
	}
	if none, err := f.DataDirID(t.Context()); none != "" || err != nil {
		t.Errorf("without data: got %q, %v", none, err)
	}
	time.Sleep(20 * time.Millisecond) // the file system's clock ticks that slowly, and inodes are used again
	put(t, dir, "PG_VERSION", "17\n")
	if anew, err := f.DataDirID(t.Context()); anew == first || anew == "" || err != nil {
		t.Errorf("created anew: got %q, %v, want another than %q", anew, err, first)
	}
}

func TestConfig_Validate(t *testing.T) {
	if (Config{DataDir: "data"}).Validate() == nil || (Config{}).Validate() == nil {
		t.Error("a relative path is valid")
	}
}

func relink(tb testing.TB, dir, name string) {
	tb.Helper()
	p := filepath.Join(dir, name)
	if err := errors.Join(os.Rename(p, p+".real"), os.Symlink(filepath.Base(p)+".real", p)); err != nil {
		tb.Fatal(err)
	}
}

func mkfifo(tb testing.TB, name string) {
	tb.Helper()
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func mkdir(tb testing.TB, name string) {
	tb.Helper()
	if err := os.Mkdir(name, 0o700); err != nil {
		tb.Fatal(err)
	}
}

func replaceByFile(tb testing.TB, dir string) {
	tb.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		tb.Fatal(err)
	}
}
