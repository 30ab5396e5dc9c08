package openrc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// supervisorName is the program that looks after a supervised service.
const supervisorName = "supervise-daemon"

// process is one process that lives. The zero value is none.
type process struct {
	pid, parent int
	start       uint64 // ticks since boot; with the pid it names one process
	name        string // at most 15 bytes
}

// lookup returns a process that lives. A zombie does not.
func lookup(proc string, pid int) (process, bool) {
	if pid <= 0 {
		return process{}, false
	}
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	p, ok := parseStat(b)
	return p, ok && p.pid == pid
}

func (m *Manager) cmdline(pid int) []string {
	b, err := os.ReadFile(filepath.Join(m.proc, strconv.Itoa(pid), "cmdline"))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// search returns the processes of this pid namespace with the given arguments whose parents do not have them as well.
func (m *Manager) search(args []string) []process {
	if len(args) == 0 {
		return nil
	}
	entries, err := os.ReadDir(m.proc)
	if err != nil {
		return nil
	}
	alike := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !contains(m.cmdline(pid), args) {
			continue
		}
		if p, ok := lookup(m.proc, pid); ok && m.sameNamespace(pid) {
			alike[pid] = p
		}
	}
	var roots []process
	for _, p := range alike {
		if _, ok := alike[p.parent]; !ok {
			roots = append(roots, p)
		}
	}
	return roots
}

// sameNamespace is false for a process that is known to belong to a container: OpenRC does not look into those either.
func (m *Manager) sameNamespace(pid int) bool {
	own, ownErr := os.Readlink(filepath.Join(m.proc, "self", "ns", "pid"))
	other, err := os.Readlink(filepath.Join(m.proc, strconv.Itoa(pid), "ns", "pid"))
	return ownErr != nil || err != nil || own == other
}
