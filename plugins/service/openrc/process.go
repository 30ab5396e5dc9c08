package openrc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// supervisorName is the program that looks after a supervised service.
const supervisorName = "supervise-daemon"

// process is one process that lives. The zero value is none.
type process struct {
	pid, parent int
	start       uint64 // ticks since boot; with the pid it names one process
	name        string // at most 15 bytes
}

// lookup returns a process that lives, or os.ErrProcessDone: a zombie does not. Any other error says nothing of either.
func lookup(proc string, pid int) (process, error) {
	if pid <= 0 {
		return process{}, os.ErrProcessDone
	}
	b, err := readProcess(proc, pid, "stat")
	if err != nil {
		return process{}, err
	}
	p, ok := parseStat(b)
	if !ok || p.pid != pid {
		return process{}, os.ErrProcessDone
	}
	return p, nil
}

// readProcess reads a file of a process. It gives os.ErrProcessDone if there is no such process.
func readProcess(proc string, pid int, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil, os.ErrProcessDone
	}
	return b, err
}

// cmdline returns the arguments of a process, none of one that has ended.
func (m *Manager) cmdline(pid int) ([]string, error) {
	b, err := readProcess(m.proc, pid, "cmdline")
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// search returns the processes of this pid namespace with the given arguments whose parents do not have them as well.
func (m *Manager) search(args []string) ([]process, error) {
	if len(args) == 0 {
		return nil, nil
	}
	entries, err := os.ReadDir(m.proc)
	if err != nil {
		return nil, err
	}
	alike := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := m.cmdline(pid)
		if err != nil {
			return nil, err
		}
		if !contains(cmdline, args) {
			continue
		}
		switch p, err := lookup(m.proc, pid); {
		case errors.Is(err, os.ErrProcessDone):
		case err != nil:
			return nil, err
		case m.sameNamespace(pid):
			alike[pid] = p
		}
	}
	var roots []process
	for _, p := range alike {
		if _, ok := alike[p.parent]; !ok {
			roots = append(roots, p)
		}
	}
	return roots, nil
}

// sameNamespace is false for a process that is known to belong to a container: OpenRC does not look into those either.
func (m *Manager) sameNamespace(pid int) bool {
	own, ownErr := os.Readlink(filepath.Join(m.proc, "self", "ns", "pid"))
	other, err := os.Readlink(filepath.Join(m.proc, strconv.Itoa(pid), "ns", "pid"))
	return ownErr != nil || err != nil || own == other
}
