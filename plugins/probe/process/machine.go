package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.Machine] = (*Machine)(nil)

// single is how a server in single-user mode is named among the jobs.
const single = "postgres --single"

// maxComm is how many characters of a name the kernel keeps as the command of a process.
const maxComm = 15

// MachineConfig says whose jobs to look for.
type MachineConfig struct {
	Unit string   // unit whose jobs count ("patroni.service"); empty for those of the whole machine
	Jobs []string // further names of jobs that must not be disturbed, such as a backup tool's ("pgbackrest")
}

var (
	unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]{1,255}$`)
	jobName  = regexp.MustCompile(`^[A-Za-z0-9_.+-]{1,63}$`)
)

// Validate reports every name that cannot be one.
func (c MachineConfig) Validate() error {
	var errs []error
	if c.Unit != "" && !unitName.MatchString(c.Unit) {
		errs = append(errs, fmt.Errorf("unit %q is not a unit name", c.Unit))
	}
	for _, j := range c.Jobs {
		if !jobName.MatchString(j) {
			errs = append(errs, fmt.Errorf("job %q is not a program's base name", j))
		}
	}
	return errors.Join(errs...)
}

// MachineDeps is what a Machine needs.
type MachineDeps struct{ Table *Table }

// Machine looks at every process of the machine for servers of PostgreSQL and for jobs on its data directories.
type Machine struct {
	table *Table
	unit  string
	jobs  []string
	gate  *probe.Gate
}

// NewMachine returns a prober for the machine.
func NewMachine(c MachineConfig, d MachineDeps) (*Machine, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure machine probe: %w", err)
	}
	if d.Table == nil {
		return nil, errors.New("configure machine probe: needs a table")
	}
	unit := c.Unit
	if unit != "" && !strings.Contains(unit, ".") {
		unit += ".service"
	}
	jobs := append([]string{"pg_basebackup", "pg_rewind", "initdb"}, c.Jobs...)
	return &Machine{table: d.Table, unit: unit, jobs: jobs, gate: probe.NewGate()}, nil
}

// Probe implements probe.Prober. Processes that end meanwhile are left out. The scan runs behind a gate, because the
// kernel makes a reader of an argument list wait for a process that is stuck in uninterruptible memory trouble.
func (m *Machine) Probe(ctx context.Context) (probe.Machine, error) {
	return probe.Do(ctx, m.gate, func() (probe.Machine, error) { return m.scan(ctx) })
}

func (m *Machine) scan(ctx context.Context) (probe.Machine, error) {
	all, err := m.list(ctx)
	if err != nil {
		return probe.Machine{}, err
	}
	var seen probe.Machine
	for _, pid := range slices.Sorted(maps.Keys(all)) {
		p := all[pid]
		if err := errors.Join(ctx.Err(), m.judge(p, isServer(all[p.parent]), &seen), m.judgeUpgrade(p, &seen)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return probe.Machine{}, err
		}
	}
	slices.Sort(seen.Jobs)
	seen.Jobs = slices.Compact(seen.Jobs)
	slices.Sort(seen.Upgrades)
	seen.Upgrades = slices.Compact(seen.Upgrades)
	return seen, nil
}

// entry is one process in the scan. Its executable is empty if the kernel does not show it.
type entry struct {
	stat
	exe string
}

// isServer reports whether the program is PostgreSQL's server, the postmaster or one of its children. The command,
// which a process can change, counts only where the executable is not shown. The zero entry is nobody.
func isServer(e entry) bool {
	name := e.exe
	if name == "" {
		name = e.comm
	}
	return name == "postgres" || name == "postmaster"
}

func (m *Machine) list(ctx context.Context) (map[int]entry, error) {
	if err := m.table.supported(); err != nil {
		return nil, err
	}
	names, err := readNames(m.table.root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]entry, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid <= 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := m.table.stat(pid)
		if errors.Is(err, fs.ErrNotExist) || s.state == "Z" || s.state == "X" {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[pid] = entry{stat: s, exe: baseName(m.table.link(pid, "exe"))}
	}
	return all, nil
}

// judge adds the process to what was seen if it is a postmaster or a job. Its error wraps fs.ErrNotExist if the process
// ended meanwhile.
func (m *Machine) judge(e entry, childOfServer bool, seen *probe.Machine) error {
	if isServer(e) && !childOfServer {
		args, err := m.table.read(e.pid, "cmdline")
		if err != nil {
			return err
		}
		switch serverMode(parseArgs(args)) {
		case modePostmaster:
			return m.addPostmaster(e, seen)
		case modeSingle:
			return m.addJob(e, single, seen)
		case modeOther:
			return nil
		}
	}
	for _, job := range m.jobs {
		if e.exe == job || e.comm == job[:min(len(job), maxComm)] {
			return m.addJob(e, job, seen)
		}
	}
	return nil
}

func (m *Machine) addPostmaster(e entry, seen *probe.Machine) error {
	unit, err := m.table.UnitOf(e.pid)
	if err != nil {
		return err
	}
	contained, err := m.contained(e.pid)
	if err != nil {
		return err
	}
	seen.Postmasters = append(seen.Postmasters, probe.Postmaster{
		PID: e.pid, Unit: unit, DataDir: printable(m.table.link(e.pid, "cwd")), Contained: contained,
	})
	return nil
}

func (m *Machine) addJob(e entry, name string, seen *probe.Machine) error {
	unit, err := m.table.UnitOf(e.pid)
	if err != nil {
		return err
	}
	contained, err := m.contained(e.pid)
	if err != nil {
		return err
	}
	if !contained && (m.unit == "" || m.unit == unit) {
		seen.Jobs = append(seen.Jobs, name)
	}
	return nil
}

// contained reports whether the process lives in another PID namespace than the one this table shows.
func (m *Machine) contained(pid int) (bool, error) {
	status, err := m.table.read(pid, "status")
	if err != nil {
		return false, err
	}
	return parseNamespaces(status) > 1, nil
}

// mode is what a process of the server's program does.
type mode uint8

const (
	modeOther      mode = iota // asks the program something, or is a child that outlived its postmaster
	modePostmaster             // serves a data directory
	modeSingle                 // works on a data directory alone
)

// serverMode tells a postmaster from what else runs under that program without a postmaster as its parent: the
// children of one that was killed, for the moment until they notice (their title is "postgres: ..."), servers in
// single-user and bootstrap mode, and the questions that Patroni asks before a start ("postgres --version", "-C name").
func serverMode(args []string) mode {
	if len(args) == 0 || strings.HasPrefix(args[0], "postgres: ") || strings.HasPrefix(args[0], "postmaster: ") {
		return modeOther
	}
	if len(args) > 1 {
		switch args[1] {
		case "--single":
			return modeSingle
		case "--boot", "--check", "--describe-config", "--version", "-V", "--help", "-?":
			return modeOther
		}
	}
	if slices.Contains(args[1:], "-C") {
		return modeOther
	}
	return modePostmaster
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return f.Readdirnames(-1)
}
