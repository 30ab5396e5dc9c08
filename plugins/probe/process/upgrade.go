package process

import (
	"path"
	"slices"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// unattended is the command of Debian's unattended upgrades as the kernel cuts it. Two programs share it: the upgrade
// itself, and a daemon that runs all the time and only waits for the machine to be shut down.
const unattended = "unattended-upgr"

// managers are the package managers and their helpers that stop, start or replace what runs (FAULTS.md F104j). Some are
// scripts, whose executable is their interpreter: the command has their name.
var managers = []string{"apt", "apt-get", "aptitude", "dpkg", unattended, "rpm", "dnf", "yum", "zypper", "pacman", "apk", "opkg", "needrestart"}

// judgeUpgrade adds the process to what was seen if it is a package manager at work on this machine. Anybody can give a
// process such a name, and only root can install anything: of others, the name counts for nothing. Its error wraps
// fs.ErrNotExist if the process ended meanwhile.
func (m *Machine) judgeUpgrade(e entry, seen *probe.Machine) error {
	if !slices.Contains(managers, e.comm) {
		return nil
	}
	status, err := m.table.read(e.pid, "status")
	if err != nil {
		return err
	}
	if parseNamespaces(status) > 1 || !mayBeRoot(status) {
		return nil
	}
	if e.comm == unattended {
		args, err := m.table.read(e.pid, "cmdline")
		if err != nil || !upgrades(parseArgs(args)) {
			return err
		}
	}
	seen.Upgrades = append(seen.Upgrades, e.comm)
	return nil
}

// upgrades tells an unattended upgrade from the daemon of the same command: the program is the first argument that is a
// path to it, after the interpreter.
func upgrades(args []string) bool {
	return slices.ContainsFunc(args[:min(len(args), 3)], func(a string) bool {
		name := path.Base(a)
		return name == "unattended-upgrade" || name == "unattended-upgrades"
	})
}
