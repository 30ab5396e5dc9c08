package process

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	pid       int
	comm      string
	state     string
	parent    int
	cpuTicks  uint64
	startTick uint64
}

// Positions in /proc/PID/stat after the command, which is in parentheses and may itself hold spaces and parentheses.
const (
	statState     = 0
	statParent    = 1
	statUserTicks = 11
	statSysTicks  = 12
	statStartTick = 19
)

var errStat = errors.New("unintelligible process status")

// parseStat parses the contents of /proc/PID/stat.
func parseStat(b []byte) (stat, error) {
	opening, closing := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if opening < 0 || closing < opening {
		return stat{}, errStat
	}
	fields := strings.Fields(string(b[closing+1:]))
	if len(fields) <= statStartTick || len(fields[statState]) != 1 {
		return stat{}, errStat
	}
	s := stat{comm: printable(string(b[opening+1 : closing])), state: fields[statState]}
	var user, system uint64
	var errs [5]error
	s.pid, errs[0] = strconv.Atoi(strings.TrimSpace(string(b[:opening])))
	s.parent, errs[1] = strconv.Atoi(fields[statParent])
	user, errs[2] = strconv.ParseUint(fields[statUserTicks], 10, 64)
	system, errs[3] = strconv.ParseUint(fields[statSysTicks], 10, 64)
	s.startTick, errs[4] = strconv.ParseUint(fields[statStartTick], 10, 64)
	if err := errors.Join(errs[:]...); err != nil || s.pid <= 0 || s.parent < 0 {
		return stat{}, errStat
	}
	s.cpuTicks = user + system
	return s, nil
}

// parseTracer returns the pid of the process that traces this one, 0 if none, from the contents of /proc/PID/status.
func parseTracer(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		value, found := strings.CutPrefix(line, "TracerPid:")
		if !found {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil || pid < 0 {
			return 0, errStat
		}
		return pid, nil
	}
	return 0, fmt.Errorf("%w: no TracerPid", errStat)
}

// parseUnit returns the systemd unit that the contents of /proc/PID/cgroup name, empty if they name none.
//
// On version 1 the line of the name=systemd hierarchy counts, on version 2 the line "0::". On a hybrid machine both are
// there, and under Docker only one of them reaches into the container (testdata/cgroup-docker-hybrid): the longer path
// is the one that systemd keeps. The unit is the last component that looks like one, because a container's path begins
// with the units of its host and a service may delegate groups below itself.
func parseUnit(b []byte) string {
	longest := ""
	for line := range strings.Lines(string(b)) {
		hierarchy, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, p, found := strings.Cut(rest, ":")
		if !found {
			continue
		}
		systemd := controllers == "name=systemd" || hierarchy == "0" && controllers == ""
		if systemd && len(p) > len(longest) {
			longest = p
		}
	}
	parts := strings.Split(longest, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if name := parts[i]; strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			return printable(name)
		}
	}
	return ""
}

// parseArgs splits the contents of /proc/PID/cmdline.
func parseArgs(b []byte) []string {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// baseName returns the name of an executable from the target of /proc/PID/exe. The kernel marks a file that has been
// replaced, by an upgrade for example.
func baseName(target string) string {
	if target == "" {
		return ""
	}
	return printable(path.Base(strings.TrimSuffix(target, " (deleted)")))
}

// printable replaces what does not belong in a log line or on a page: any process can name itself as it likes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// parseNamespaces returns in how many PID namespaces, from the reader's downwards, the contents of /proc/PID/status
// place the process: more than one means that it lives in a container. 0 if the kernel does not say.
func parseNamespaces(b []byte) int {
	for line := range strings.Lines(string(b)) {
		if value, found := strings.CutPrefix(line, "NSpid:"); found {
			return len(strings.Fields(value))
		}
	}
	return 0
}

// mayBeRoot reports whether the contents of /proc/PID/status leave it possible that the process has root's rights: they name
// user 0 as the effective one, or none.
func mayBeRoot(b []byte) bool {
	for line := range strings.Lines(string(b)) {
		if value, found := strings.CutPrefix(line, "Uid:"); found {
			ids := strings.Fields(value) // real, effective, saved, of the file system
			return len(ids) < 2 || ids[1] == "0"
		}
	}
	return true
}
