// Package builtin lists what is compiled in. It is the only place that knows every plugin; a slim build has another list.
package builtin

import (
	"context"
	"fmt"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/patroni"
	"github.com/pgpatrol/pgpatrol/plugins/probe/postgres"
	"github.com/pgpatrol/pgpatrol/plugins/probe/process"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/incus"
)

// Patroni returns the ways to look at one Patroni of this machine, or of an instance of it, under its manager.
func Patroni(t probe.PatroniTarget, manager service.Manager) (probe.PatroniProbes, error) {
	if daemon, ok := manager.(*incus.Manager); ok {
		return patroniInside(t, daemon)
	}
	table, err := process.NewTable(process.TableConfig{})
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	files, err := postgres.New(postgres.Config{DataDir: t.DataDir}, postgres.Deps{Processes: table})
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	out := probe.PatroniProbes{Files: files}
	if err := fromProcesses(&out, t, table); err != nil {
		return probe.PatroniProbes{}, err
	}
	return out, fromPatroni(&out, t, files, surroundings{
		runner: service.Runner{}, owner: func(context.Context) (string, error) { return ownerOf(t.DataDir) },
		configID: func() (string, error) { return patroni.FileID(t.ConfigFile) },
	})
}

// fromProcesses adds what the process table and a session show.
func fromProcesses(out *probe.PatroniProbes, t probe.PatroniTarget, table *process.Table) error {
	out.Process = processes(table)
	machine, err := process.NewMachine(process.MachineConfig{Unit: t.Unit}, process.MachineDeps{Table: table})
	if err != nil {
		return err
	}
	out.Machine = machine
	if t.DSN == "" {
		return nil
	}
	session, err := postgres.NewSession(postgres.SessionConfig{DSN: t.DSN}, postgres.SessionDeps{Password: t.Password})
	if err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	out.Session = session
	return nil
}

// Process returns the way to look at a process of this machine.
func Process() (func(ctx context.Context, pid int) (probe.Process, error), error) {
	table, err := process.NewTable(process.TableConfig{})
	if err != nil {
		return nil, err
	}
	return processes(table), nil
}

// Machine returns the way to see what runs on this machine besides its services.
func Machine() (probe.Prober[probe.Machine], error) {
	table, err := process.NewTable(process.TableConfig{})
	if err != nil {
		return nil, err
	}
	return process.NewMachine(process.MachineConfig{}, process.MachineDeps{Table: table})
}

func processes(table *process.Table) func(ctx context.Context, pid int) (probe.Process, error) {
	return func(ctx context.Context, pid int) (probe.Process, error) {
		p, err := process.New(process.Config{}, process.Deps{Table: table, PID: func(context.Context) (int, error) { return pid, nil }})
		if err != nil {
			return probe.Process{}, err
		}
		return p.Probe(ctx)
	}
}
