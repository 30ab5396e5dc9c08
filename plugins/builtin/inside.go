package builtin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/patroni"
	"github.com/pgpatrol/pgpatrol/plugins/probe/postgres"
	"github.com/pgpatrol/pgpatrol/plugins/probe/process"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/incus"
)

// room is an Incus instance as a place for a Patroni. What the kernel and the file system show of it is seen from this machine
// through the instance's first process: /proc/PID/root holds its files, and below it its own process table. So the probes
// are those of this machine with another root, made anew for every run of the instance; commands run inside through Incus.
//
// It needs root here, and the agent in the daemon's own PID namespace.
type room struct {
	daemon   *incus.Manager
	instance string
	target   probe.PatroniTarget // Unit is the one inside
	prefix   string              // of that unit in the words of the Incus manager
	proc     string              // this machine's process table

	mu     sync.Mutex // guards below
	pid    int        // first process that probes are for
	probes probe.PatroniProbes
}

// patroniInside returns the ways to look at a Patroni inside an instance, from the Incus host.
func patroniInside(t probe.PatroniTarget, daemon *incus.Manager) (probe.PatroniProbes, error) {
	instance, rest, _ := strings.Cut(t.Unit, "/")
	manager, unit, _ := strings.Cut(rest, "/")
	r := &room{daemon: daemon, instance: instance, target: t, prefix: instance + "/" + manager + "/", proc: "/proc"}
	r.target.Unit = unit
	// What needs no root is made once; the rest is tried once, so that a bad configuration shows at start.
	out, err := r.build("/")
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	out.Files = moving[probe.Postgres]{r, func(p probe.PatroniProbes) probe.Prober[probe.Postgres] { return p.Files }, func(v *probe.Postgres) { r.rename(&v.CGroupUnit) }}
	out.Machine = moving[probe.Machine]{r, func(p probe.PatroniProbes) probe.Prober[probe.Machine] { return p.Machine }, func(v *probe.Machine) {
		for i := range v.Postmasters {
			r.rename(&v.Postmasters[i].Unit)
		}
	}}
	out.Config = moving[probe.ConfigCheck]{r, func(p probe.PatroniProbes) probe.Prober[probe.ConfigCheck] { return p.Config }, nil}
	out.LogMark = moving[probe.LogMark]{r, func(p probe.PatroniProbes) probe.Prober[probe.LogMark] { return p.LogMark }, nil}
	out.Process = func(ctx context.Context, pid int) (probe.Process, error) {
		p, err := r.now(ctx)
		if err != nil {
			return probe.Process{}, err
		}
		v, err := p.Process(ctx, pid)
		r.rename(&v.Unit)
		return v, err
	}
	out.ConfigID = func() (string, error) {
		r.mu.Lock()
		p := r.probes
		r.mu.Unlock()
		if p.ConfigID == nil {
			return "", fmt.Errorf("%w: the instance was not seen yet", service.ErrUnavailable)
		}
		return p.ConfigID()
	}
	return out, nil
}

// rename gives a unit of the instance the name that the Incus manager has for it.
func (r *room) rename(unit *string) {
	if *unit != "" {
		*unit = r.prefix + *unit
	}
}

// moving is a prober of the instance's present run.
type moving[T any] struct {
	r    *room
	pick func(probe.PatroniProbes) probe.Prober[T]
	edit func(*T) // nil for nothing
}

// Probe implements probe.Prober.
func (m moving[T]) Probe(ctx context.Context) (T, error) {
	p, err := m.r.now(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	v, err := m.pick(p).Probe(ctx)
	if err == nil && m.edit != nil {
		m.edit(&v)
	}
	return v, err
}

// now returns the probes of the instance's present run.
func (r *room) now(ctx context.Context) (probe.PatroniProbes, error) {
	pid, err := r.daemon.Process(ctx, r.instance)
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if pid == r.pid {
		return r.probes, nil
	}
	dir := filepath.Join(r.proc, strconv.Itoa(pid))
	if err := isInstance(filepath.Join(dir, "environ")); err != nil {
		return probe.PatroniProbes{}, fmt.Errorf("first process %d of %q: %w", pid, r.instance, err)
	}
	p, err := r.build(filepath.Join(dir, "root"))
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	r.pid, r.probes = pid, p
	return p, nil
}

// isInstance returns why a process is not the first one of an instance here: LXC tells that one so. In another PID namespace
// than the daemon's the number is somebody else's.
func isInstance(environ string) error {
	b, err := os.ReadFile(environ)
	if err != nil {
		return err
	}
	for e := range strings.SplitSeq(string(b), "\x00") {
		if e == "container=lxc" {
			return nil
		}
	}
	return errors.New("it is no instance's here: the agent has to run on the Incus host itself")
}

// build makes the probes for a root.
func (r *room) build(root string) (probe.PatroniProbes, error) {
	t, tree := r.target, probe.Tree{Root: root}
	table, err := process.NewTable(process.TableConfig{Root: filepath.Join(root, "proc"), Dev: filepath.Join(root, "dev")})
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	files, err := postgres.New(postgres.Config{DataDir: t.DataDir, Tree: tree}, postgres.Deps{Processes: table})
	if err != nil {
		return probe.PatroniProbes{}, err
	}
	out := probe.PatroniProbes{Files: files}
	if err := fromProcesses(&out, t, table); err != nil {
		return probe.PatroniProbes{}, err
	}
	return out, fromPatroni(&out, t, files, surroundings{
		tree: tree, runner: runner{r.daemon, r.instance}, owner: r.owner,
		configID: func() (string, error) { return patroni.FileIDIn(tree, t.ConfigFile) },
	})
}

// runner runs commands in an instance.
type runner struct {
	daemon   *incus.Manager
	instance string
}

// Run implements patroni.Runner.
func (r runner) Run(ctx context.Context, c service.Command) (service.Output, error) {
	return r.daemon.Run(ctx, r.instance, c)
}

// owner returns the user of the instance who owns the data directory. Its number here may be another one.
func (r *room) owner(ctx context.Context) (string, error) {
	out, err := r.daemon.Run(ctx, r.instance, service.Command{Path: "stat", Args: []string{"--format=%U", "--", r.target.DataDir}})
	name := strings.TrimSpace(string(out.Stdout))
	if err == nil && (out.ExitCode != 0 || name == "" || name == "UNKNOWN" || strings.HasPrefix(name, "-")) {
		err = fmt.Errorf("stat ended with %d: %.100q", out.ExitCode, out.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("find the owner of the data directory: %w", err)
	}
	return name, nil
}
