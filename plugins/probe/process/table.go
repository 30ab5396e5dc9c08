package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// ErrHidden says that a process exists but the kernel shows nothing of it (proc mounted with hidepid).
var ErrHidden = errors.New("process is hidden from this user")

// ticksPerSecond is USER_HZ, in which the kernel reports times; it is 100 on every architecture that is built for.
const ticksPerSecond = 100

// maxFile bounds what is read of one file of the table.
const maxFile = 64 << 10

// TableConfig says where the table is. The zero value is this machine's.
type TableConfig struct {
	Root string // where proc is mounted, "/proc" if empty
	Dev  string // where device nodes are, "/dev" if empty
}

// Validate reports whether the paths are absolute.
func (c TableConfig) Validate() error {
	for name, p := range map[string]string{"root": c.Root, "dev": c.Dev} {
		if p != "" && !filepath.IsAbs(p) {
			return fmt.Errorf("%s %q is not an absolute path", name, p)
		}
	}
	return nil
}

// Table answers questions about the processes of this machine. It holds no state and is safe for concurrent use. Its
// methods do not block, except where they say so.
type Table struct {
	root, dev string
	uptime    func() (time.Duration, error) // since the kernel booted, suspended time included
	now       func() time.Time
	hidden    func(pid int) bool // a process exists that the table does not show
}

// NewTable returns a table. On an operating system without one it works, and every method returns
// errors.ErrUnsupported.
func NewTable(c TableConfig) (*Table, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure process table: %w", err)
	}
	t := &Table{root: c.Root, dev: c.Dev, uptime: kernelUptime, now: time.Now, hidden: func(int) bool { return false }}
	if t.root == "" {
		t.root, t.hidden = "/proc", existsHidden
	}
	if t.dev == "" {
		t.dev = "/dev"
	}
	return t, nil
}

// Inspect returns what the kernel shows of a process. A process that does not exist is an answer (Exists is false), one
// that is hidden is ErrHidden. Watchdog is not filled in, see [Table.HoldsWatchdog].
func (t *Table) Inspect(pid int) (probe.Process, error) {
	s, err := t.stat(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return probe.Process{PID: pid}, nil
	}
	if err != nil {
		return probe.Process{}, err
	}
	p := probe.Process{
		Exists: true, PID: pid, State: s.state, StartTick: s.startTick, CPUTicks: s.cpuTicks,
		Command: s.comm, ParentPID: s.parent,
		Exe: baseName(t.link(pid, "exe")), WorkDir: printable(t.link(pid, "cwd")),
	}
	status, errStatus := t.read(pid, "status")
	cgroup, errCgroup := t.read(pid, "cgroup")
	again, errAgain := t.stat(pid)
	switch err := errors.Join(errStatus, errCgroup, errAgain); {
	case errors.Is(err, fs.ErrNotExist):
		return probe.Process{PID: pid}, nil
	case err != nil:
		return probe.Process{}, err
	case again.startTick != s.startTick:
		return probe.Process{}, fmt.Errorf("inspect process %d: replaced by another one meanwhile", pid)
	}
	if p.TracerPID, err = parseTracer(status); err != nil {
		return probe.Process{}, fmt.Errorf("inspect process %d: %w", pid, err)
	}
	p.Unit = parseUnit(cgroup)
	return p, nil
}

// UnitOf returns the systemd unit whose control group holds the process, empty if none does. An error wraps
// fs.ErrNotExist if there is no such process.
func (t *Table) UnitOf(pid int) (string, error) {
	b, err := t.read(pid, "cgroup")
	if err != nil {
		return "", err
	}
	return parseUnit(b), nil
}

// StartedAt returns when the process started by the wall clock of now. A clock that was set after the start moves the
// answer with it, so it proves nothing alone.
func (t *Table) StartedAt(pid int) (time.Time, error) {
	s, err := t.stat(pid)
	if err != nil {
		return time.Time{}, err
	}
	up, err := t.uptime()
	if err != nil {
		return time.Time{}, fmt.Errorf("read uptime: %w", err)
	}
	return t.now().Add(ticks(s.startTick) - up), nil
}

// Uptime returns how long the first process has been running: since this machine booted, or since this container was
// started. The kernel's clock is asked instead of /proc/uptime, which containers may see through lxcfs, where it starts
// at zero while the start times in /proc/PID/stat do not.
func (t *Table) Uptime() (time.Duration, error) {
	s, err := t.stat(1)
	if err != nil {
		return 0, err
	}
	up, err := t.uptime()
	if err != nil {
		return 0, fmt.Errorf("read uptime: %w", err)
	}
	return max(0, up-ticks(s.startTick)), nil
}

// BootID returns a text that changes with every boot of the machine and with every start of this container: the kernel's
// boot id and the start of the first process.
func (t *Table) BootID() (string, error) {
	if err := t.supported(); err != nil {
		return "", err
	}
	b, err := readFile(filepath.Join(t.root, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if len(id) != 36 || printable(id) != id {
		return "", errors.New("read boot id: unintelligible")
	}
	s, err := t.stat(1)
	if err != nil {
		return "", err
	}
	return id + "-" + strconv.FormatUint(s.startTick, 10), nil
}

// HoldsWatchdog reports whether the process has a watchdog device open. Where the kernel does not show open files (not
// root, or root in a container without CAP_SYS_PTRACE) a machine without watchdog devices still answers no.
func (t *Table) HoldsWatchdog(pid int) (bool, error) {
	if err := t.supported(); err != nil {
		return false, err
	}
	holds, err := t.holds(pid, "/dev/watchdog")
	if errors.Is(err, fs.ErrPermission) {
		if devices, _ := filepath.Glob(filepath.Join(t.dev, "watchdog*")); len(devices) == 0 {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("read open files of process %d (needs root and CAP_SYS_PTRACE): %w", pid, err)
	}
	return holds, nil
}

// holds reports whether the process has a file open whose path begins with prefix.
func (t *Table) holds(pid int, prefix string) (bool, error) {
	dir := filepath.Join(t.root, strconv.Itoa(pid), "fd")
	names, err := readNames(dir)
	if err != nil {
		return false, gone(err)
	}
	for _, name := range names {
		target, err := os.Readlink(filepath.Join(dir, name))
		switch {
		case errors.Is(gone(err), fs.ErrNotExist): // closed meanwhile
		case err != nil:
			return false, err
		case strings.HasPrefix(target, prefix):
			return true, nil
		}
	}
	return false, nil
}

// stat reads and parses /proc/PID/stat. The error wraps fs.ErrNotExist only if there is no such process.
func (t *Table) stat(pid int) (stat, error) {
	b, err := t.read(pid, "stat")
	if errors.Is(err, fs.ErrNotExist) && t.hidden(pid) {
		return stat{}, fmt.Errorf("inspect process %d: %w", pid, ErrHidden)
	}
	if err != nil {
		return stat{}, err
	}
	s, err := parseStat(b)
	if err != nil {
		return stat{}, fmt.Errorf("inspect process %d: %w", pid, err)
	}
	return s, nil
}

// read reads one file of one process.
func (t *Table) read(pid int, name string) ([]byte, error) {
	if err := t.supported(); err != nil {
		return nil, err
	}
	b, err := readFile(filepath.Join(t.root, strconv.Itoa(pid), name))
	if err != nil {
		return nil, fmt.Errorf("inspect process %d: %w", pid, gone(err))
	}
	return b, nil
}

// link returns the target of a link of one process, empty if the kernel does not show it.
func (t *Table) link(pid int, name string) string {
	target, err := os.Readlink(filepath.Join(t.root, strconv.Itoa(pid), name))
	if err != nil {
		return ""
	}
	return target
}

// gone turns the kernel's "no such process", which reading a file of a vanished process gives, into fs.ErrNotExist.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return errors.Join(fs.ErrNotExist, err)
	}
	return err
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func ticks(n uint64) time.Duration {
	return time.Duration(n) * (time.Second / ticksPerSecond)
}
