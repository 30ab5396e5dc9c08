package process

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

// TestTable_ThisMachine holds the table against what the test knows of itself.
func TestTable_ThisMachine(t *testing.T) {
	table, err := NewTable(TableConfig{})
	if err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	got, err := table.Inspect(self)
	if err != nil || !got.Exists || got.ParentPID != os.Getppid() || got.Exe == "" || got.StartTick == 0 {
		t.Errorf("inspect: got %+v, %v", got, err)
	}
	if dir, err := os.Getwd(); got.WorkDir != dir {
		t.Errorf("working directory: got %q, want %q, %v", got.WorkDir, dir, err)
	}
	if at, err := table.StartedAt(self); err != nil || time.Since(at) < -time.Second || time.Since(at) > time.Hour {
		t.Errorf("started at: got %v, %v", at, err)
	}
	if up, err := table.Uptime(); err != nil || up <= 0 {
		t.Errorf("uptime: got %v, %v", up, err)
	}
	if id, err := table.BootID(); err != nil || len(id) < 38 {
		t.Errorf("boot id: got %q, %v", id, err)
	}
	p, err := New(Config{}, Deps{Table: table, PID: func(context.Context) (int, error) { return self, nil }})
	if err != nil {
		t.Fatal(err)
	}
	probetest.Run(t, p)
	m, err := NewMachine(MachineConfig{}, MachineDeps{Table: table})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Probe(t.Context()); err != nil {
		t.Errorf("machine: %v", err)
	}
}
