package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.Postgres] = (*Files)(nil)

// startTolerance is how far the start of a process and the start time in its lock file may lie apart. A postmaster
// notes the time in whole seconds, after the fork, on a machine that may be busy.
const startTolerance = 30 * time.Second

// controlReads is how often a control file with a wrong checksum is read again: the server may be writing it.
const controlReads = 3

// maxLockFile bounds postmaster.pid, whose longest lines are paths.
const maxLockFile = 16 << 10

// Config says which data directory to look at.
type Config struct {
	DataDir string     // absolute path
	Tree    probe.Tree // with the data directory; the zero value is this machine's files
}

// Validate reports whether the path is absolute.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("data_dir %q is not an absolute path", c.DataDir)
	}
	return nil
}

// Processes is what a Files needs to know of processes. Its methods do not block.
type Processes interface {
	// Inspect returns what the kernel shows of a process; Exists is false if there is none.
	Inspect(pid int) (probe.Process, error)
	// StartedAt returns when it started by the wall clock of now.
	StartedAt(pid int) (time.Time, error)
}

// Deps is what a Files needs.
type Deps struct{ Processes Processes }

// Files looks at a server without a session: what its files say, and which process lives on them.
type Files struct {
	dir   string
	tree  probe.Tree
	procs Processes
	gate  *probe.Gate
}

// New returns a prober for the files of one server.
func New(c Config, d Deps) (*Files, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure postgres probe: %w", err)
	}
	if d.Processes == nil {
		return nil, errors.New("configure postgres probe: needs the process table")
	}
	return &Files{dir: filepath.Clean(c.DataDir), tree: c.Tree, procs: d.Processes, gate: probe.NewGate()}, nil
}

// Probe implements probe.Prober. A data directory that is missing, empty or still being filled is an answer
// (Initialized is false). It reads behind a gate: a disk that hangs makes this an error, never a wait.
func (f *Files) Probe(ctx context.Context) (probe.Postgres, error) {
	seen, err := probe.Do(ctx, f.gate, f.look)
	if err != nil {
		return probe.Postgres{}, fmt.Errorf("look at data directory: %w", err)
	}
	return seen, nil
}

// DataDirID returns a text that changes when the data directory is created anew, by a bootstrap or a reinitialisation,
// and stays when the server restarts: it identifies PG_VERSION, which is written once. It is empty for a directory that
// holds no data. It obeys its context as Probe does.
func (f *Files) DataDirID(ctx context.Context) (string, error) {
	return probe.Do(ctx, f.gate, func() (string, error) {
		root, err := f.tree.OpenRoot(f.dir)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		defer root.Close() // only read
		return dataDirID(root)
	})
}

func (f *Files) look() (probe.Postgres, error) {
	seen := probe.Postgres{DataDir: f.dir}
	root, err := f.tree.OpenRoot(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return seen, nil
	}
	if err != nil {
		return seen, err
	}
	defer root.Close() // only read

	// The lock file comes first: a server that starts between the two reads then counts as not running yet, and never
	// as running with the state of the one before.
	if err := f.lookAtServer(root, &seen); err != nil {
		return seen, err
	}
	if seen.DataDirID, err = dataDirID(root); err != nil {
		return seen, err
	}
	if seen.Standby, err = isStandby(root); err != nil {
		return seen, err
	}
	c, err := readControl(root)
	if errors.Is(err, fs.ErrNotExist) {
		return seen, nil
	}
	if err != nil {
		return seen, err
	}
	seen.Initialized = true
	seen.SystemID = strconv.FormatUint(c.systemID, 10)
	seen.ControlState, seen.Timeline, seen.CheckpointLSN = c.state, c.timeline, c.checkpoint
	return seen, nil
}

// lookAtServer fills in what the lock file and the process that it names say.
func (f *Files) lookAtServer(root *os.Root, seen *probe.Postgres) error {
	b, err := readFile(root, "postmaster.pid", maxLockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := parseLockFile(b)
	if err != nil {
		return err
	}
	if l.single {
		return nil // a server in single-user mode is no postmaster: nobody can connect to it
	}
	p, err := f.procs.Inspect(l.pid)
	if err != nil {
		return err
	}
	lives, err := f.livesHere(p, l.started)
	if err != nil || !lives {
		return err
	}
	seen.Running, seen.PostmasterPID, seen.PostmasterTick = true, p.PID, p.StartTick
	seen.ProcessState, seen.CGroupUnit = p.State, p.Unit
	seen.Port, seen.ServerStatus = l.port, l.status
	return nil
}

// livesHere reports whether a process is the postmaster of this data directory and not a stranger that got the number
// of a dead one. The working directory proves it: a postmaster works in its data directory and never leaves it. Where
// the kernel hides that, the start time must do; it proves nothing if somebody set the clock meanwhile, and then
// nobody can know.
func (f *Files) livesHere(p probe.Process, started time.Time) (bool, error) {
	name := p.Exe
	if name == "" {
		name = p.Command
	}
	switch {
	case !p.Exists, p.State == "Z", p.State == "X":
		return false, nil
	case name != "postgres" && name != "postmaster":
		return false, nil
	case p.WorkDir != "":
		same, err := f.sameDir(p.WorkDir, f.dir)
		if err != nil {
			return false, fmt.Errorf("compare the working directory of process %d: %w", p.PID, err)
		}
		return same, nil
	}
	at, err := f.procs.StartedAt(p.PID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if apart := at.Sub(started).Abs(); apart > startTolerance {
		return false, fmt.Errorf("process %d is a PostgreSQL server that started %v apart from the time in postmaster.pid: "+
			"another one, or the clock was set (to know, this needs CAP_SYS_PTRACE)", p.PID, apart.Round(time.Second))
	}
	return true, nil
}

func (f *Files) sameDir(a, b string) (bool, error) {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true, nil
	}
	infoA, errA := f.tree.Stat(a)
	if errors.Is(errA, fs.ErrNotExist) {
		return false, nil // gone, or in another mount namespace: in either case not here
	}
	infoB, errB := f.tree.Stat(b)
	if err := errors.Join(errA, errB); err != nil {
		return false, err
	}
	return os.SameFile(infoA, infoB), nil
}

func readControl(root *os.Root) (control, error) {
	for try := 1; ; try++ {
		b, err := readFile(root, "global/pg_control", controlSize)
		if err != nil {
			return control{}, err
		}
		c, err := parseControl(b)
		if err == nil || try == controlReads {
			return c, err
		}
	}
}

func isStandby(root *os.Root) (bool, error) {
	for _, name := range []string{"standby.signal", "recovery.signal"} {
		_, err := root.Lstat(name)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

func dataDirID(root *os.Root) (string, error) {
	info, err := root.Lstat("PG_VERSION")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("identify PG_VERSION: %w", errors.ErrUnsupported)
	}
	return fmt.Sprintf("%x-%x-%x", s.Dev, s.Ino, changeTime(s)), nil
}

// readFile reads the first limit bytes of a regular file below root. It follows no link (os.Root would follow those
// that stay inside) and waits for no pipe.
func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	named, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !named.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", name)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !opened.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", name)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
