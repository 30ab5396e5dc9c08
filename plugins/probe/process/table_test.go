package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

// fake is a table of processes in a directory.
type fake struct {
	tb  testing.TB
	dir string
}

func newFake(tb testing.TB) fake {
	tb.Helper()
	f := fake{tb, tb.TempDir()}
	f.write("proc/sys/kernel/random/boot_id", "b6ba8a51-61b5-4f8b-9c7e-6f1a3a1f0e11\n")
	return f
}

func (f fake) table() *Table {
	f.tb.Helper()
	t, err := NewTable(TableConfig{Root: filepath.Join(f.dir, "proc"), Dev: filepath.Join(f.dir, "dev")})
	if err != nil {
		f.tb.Fatal(err)
	}
	t.uptime = func() (time.Duration, error) { return time.Hour, nil }
	t.now = func() time.Time { return time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC) }
	return t
}

func (f fake) write(name, text string) {
	f.tb.Helper()
	p := filepath.Join(f.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
		f.tb.Fatal(err)
	}
}

func (f fake) link(name, target string) {
	f.tb.Helper()
	p := filepath.Join(f.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.Symlink(target, p)); err != nil {
		f.tb.Fatal(err)
	}
}

// proc is one process to be put into a fake table.
type proc struct {
	pid, parent int
	state, comm string // "S" if empty
	exe, cwd    string // not shown if empty
	unit        string
	args        []string
	nspid       string // the pid alone if empty
	uid         string // root if empty
}

func (f fake) add(p proc) {
	f.tb.Helper()
	dir := "proc/" + strconv.Itoa(p.pid) + "/"
	if p.state == "" {
		p.state = "S"
	}
	if p.nspid == "" {
		p.nspid = strconv.Itoa(p.pid)
	}
	f.write(dir+"stat", fmt.Sprintf("%d (%s) %s %d 1 1 0 -1 4194304 1 1 0 0 3 4 0 0 20 0 1 0 %d 1 1\n", p.pid, p.comm, p.state, p.parent, 1000*p.pid))
	if p.uid == "" {
		p.uid = "0"
	}
	f.write(dir+"status", fmt.Sprintf("Name:\t%s\nTracerPid:\t0\nUid:\t%[3]s\t%[3]s\t%[3]s\t%[3]s\nNSpid:\t%[2]s\n", p.comm, p.nspid, p.uid))
	f.write(dir+"cgroup", "0::/system.slice/"+p.unit+"\n")
	args := ""
	for _, a := range p.args {
		args += a + "\x00"
	}
	f.write(dir+"cmdline", args)
	if p.exe != "" {
		f.link(dir+"exe", p.exe)
	}
	if p.cwd != "" {
		f.link(dir+"cwd", p.cwd)
	}
}

const server = "/usr/lib/postgresql/17/bin/postgres"

func TestInspect(t *testing.T) {
	f := newFake(t)
	f.add(proc{pid: 20, parent: 1, comm: "postgres", state: "T", exe: server + " (deleted)", cwd: "/data", unit: "patroni.service"})
	f.add(proc{pid: 21, parent: 20, comm: "postgres"})
	want := probe.Process{
		Exists: true, PID: 20, State: "T", StartTick: 20000, CPUTicks: 7, Command: "postgres",
		ParentPID: 1, Exe: "postgres", WorkDir: "/data", Unit: "patroni.service",
	}
	got, err := f.table().Inspect(20)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	got, err = f.table().Inspect(21)
	if err != nil || got.Exe != "" || got.WorkDir != "" {
		t.Errorf("of another user: got %+v, %v", got, err)
	}
	got, err = f.table().Inspect(99)
	if diff := cmp.Diff(probe.Process{PID: 99}, got); err != nil || diff != "" {
		t.Error("no such process:", err, diff)
	}
}

func TestInspect_Hidden(t *testing.T) {
	table := newFake(t).table()
	table.hidden = func(int) bool { return true }
	if _, err := table.Inspect(99); !errors.Is(err, ErrHidden) {
		t.Errorf("got %v, want ErrHidden: hidden is not dead", err)
	}
}

func TestTable_Times(t *testing.T) {
	f := newFake(t)
	f.add(proc{pid: 1, comm: "systemd"})    // started at tick 1000: 10 s after the kernel
	f.add(proc{pid: 20, comm: "postgresq"}) // 200 s after it
	table := f.table()
	if got, err := table.Uptime(); got != time.Hour-10*time.Second || err != nil {
		t.Errorf("uptime: got %v, %v", got, err)
	}
	if got, err := table.StartedAt(20); !got.Equal(time.Date(2026, 4, 8, 11, 3, 20, 0, time.UTC)) || err != nil {
		t.Errorf("started at: got %v, %v", got, err)
	}
	if got, err := table.BootID(); got != "b6ba8a51-61b5-4f8b-9c7e-6f1a3a1f0e11-1000" || err != nil {
		t.Errorf("boot id: got %v, %v", got, err)
	}
	if _, err := table.UnitOf(99); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unit of nobody: got %v", err)
	}
}

func TestProcess_Watchdog(t *testing.T) {
	f := newFake(t)
	f.add(proc{pid: 20, comm: "patroni"})
	f.link("proc/20/fd/0", "/dev/null")
	f.add(proc{pid: 21, comm: "patroni"})
	f.link("proc/21/fd/7", "/dev/watchdog0")
	f.add(proc{pid: 22, comm: "patroni", state: "Z"})
	for pid, want := range map[int]bool{20: false, 21: true, 22: false} {
		p, err := New(Config{}, Deps{Table: f.table(), PID: func(context.Context) (int, error) { return pid, nil }})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Probe(t.Context()); got.Watchdog != want || !got.Exists || err != nil {
			t.Errorf("process %d: got %+v, %v, want watchdog %v", pid, got, err, want)
		}
		probetest.Run(t, p)
	}
}

func TestHoldsWatchdog_Unreadable(t *testing.T) {
	f := newFake(t)
	f.add(proc{pid: 20, comm: "patroni"})
	f.write("proc/20/fd/0", "") // no link: reading it fails, though not for lack of permission
	if _, err := f.table().HoldsWatchdog(20); err == nil {
		t.Error("an open file that cannot be read gives no error")
	}
}

func TestProcess_NoPID(t *testing.T) {
	p, err := New(Config{}, Deps{Table: newFake(t).table(), PID: func(context.Context) (int, error) { return 0, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Probe(t.Context()); got.Exists || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	unknown := errors.New("manager unavailable")
	p.pid = func(context.Context) (int, error) { return 0, unknown }
	if _, err := p.Probe(t.Context()); !errors.Is(err, unknown) {
		t.Errorf("got %v", err)
	}
}

func TestMachine(t *testing.T) {
	f := newFake(t)
	f.write("proc/uptime", "1 1")
	f.add(proc{pid: 1, comm: "systemd", exe: "/lib/systemd/systemd", unit: "init.scope"})
	f.add(proc{pid: 20, parent: 1, comm: "postgres", exe: server, cwd: "/patroni", unit: "patroni.service", args: []string{server, "-D", "/patroni"}})
	f.add(proc{pid: 21, parent: 20, comm: "postgres", exe: server, cwd: "/patroni", unit: "patroni.service", args: []string{"postgres: walwriter "}})
	f.add(proc{pid: 30, parent: 1, comm: "postmaster", unit: "postgresql@17-main.service", args: []string{"postmaster"}}) // of another user
	f.add(proc{pid: 31, parent: 30, comm: "postgres", unit: "postgresql@17-main.service", args: []string{"postgres: checkpointer "}})
	f.add(proc{pid: 40, parent: 1, comm: "postgres", exe: "/usr/bin/python3", args: []string{"postgres"}})    // only the name
	f.add(proc{pid: 41, parent: 1, comm: "postgres", exe: server, args: []string{"postgres: checkpointer "}}) // orphan
	f.add(proc{pid: 42, parent: 1, comm: "postgres", state: "Z"})                                             // dead
	f.add(proc{pid: 43, parent: 9, comm: "postgres", exe: server, args: []string{server, "--version"}})       // a question
	f.add(proc{pid: 50, parent: 9, comm: "postgres", exe: server, unit: "patroni.service", args: []string{server, "--single", "-D", "/patroni"}})
	f.add(proc{pid: 51, parent: 9, comm: "pg_basebackup", unit: "patroni.service"})
	f.add(proc{pid: 52, parent: 51, comm: "pg_basebackup", unit: "patroni.service"}) // its second process
	f.add(proc{pid: 53, parent: 9, comm: "pg_rewind", unit: "other.service"})
	f.add(proc{pid: 54, parent: 9, comm: "a_very_long_bac", exe: "/usr/bin/perl", unit: "patroni.service"})
	f.add(proc{pid: 60, parent: 1, comm: "postgres", exe: server, cwd: "/x", unit: "a.service", args: []string{server}, nspid: "60\t7"})
	f.add(proc{pid: 61, parent: 1, comm: "initdb", unit: "patroni.service", nspid: "61\t8"})

	m, err := NewMachine(MachineConfig{Unit: "patroni", Jobs: []string{"a_very_long_backup_tool"}}, MachineDeps{Table: f.table()})
	if err != nil {
		t.Fatal(err)
	}
	want := probe.Machine{
		Postmasters: []probe.Postmaster{
			{PID: 20, Unit: "patroni.service", DataDir: "/patroni"},
			{PID: 30, Unit: "postgresql@17-main.service"},
			{PID: 60, Unit: "a.service", DataDir: "/x", Contained: true},
		},
		Jobs: []string{"a_very_long_backup_tool", "pg_basebackup", "postgres --single"},
	}
	got, err := m.Probe(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	probetest.Run(t, m)
}

func TestMachineConfig_Validate(t *testing.T) {
	for _, c := range []MachineConfig{{Unit: "../x"}, {Unit: "a b"}, {Jobs: []string{"/usr/bin/x"}}, {Jobs: []string{""}}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
	if err := (TableConfig{Root: "proc"}).Validate(); err == nil {
		t.Error("relative root is valid")
	}
}
