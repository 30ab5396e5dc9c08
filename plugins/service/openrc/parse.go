package openrc

import (
	"bytes"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// daemon is a file of daemons/SERVICE: what was started, and where its pid is.
type daemon struct {
	exec    string
	args    []string // with the program's own name
	pidfile string   // empty if it has none
}

// parseDaemon reads lines of key=value: exec, argv_0 and so on, pidfile. Unknown keys and broken lines are skipped.
func parseDaemon(b []byte) daemon {
	var d daemon
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch {
		case !ok || value == "":
		case key == "exec":
			d.exec = value
		case key == "pidfile":
			d.pidfile = value
		case strings.HasPrefix(key, "argv_"):
			d.args = append(d.args, value)
		}
	}
	if len(d.args) == 0 && d.exec != "" {
		d.args = []string{d.exec}
	}
	return d
}

// parsePid reads a pidfile as OpenRC does: the number at its beginning. It returns 0 if there is none that a daemon can
// have.
func parsePid(b []byte) int {
	b = bytes.TrimLeft(b, " \t\r\n")
	end := 0
	for end < len(b) && b[end] >= '0' && b[end] <= '9' {
		end++
	}
	pid, err := strconv.ParseInt(string(b[:end]), 10, 32)
	if err != nil || pid <= 1 {
		return 0
	}
	return int(pid)
}

// The options that count.
const (
	keyChild    = "child_pid"
	keyLimit    = "respawn_max"
	keyDelay    = "respawn_delay"
	keySpan     = "respawn_period"
	keyStarts   = "start_count"
	keyChroot   = "chroot"
	keyProcname = "procname"
)

var optionKeys = []string{keyChild, keyLimit, keyDelay, keySpan, keyStarts, keyChroot, keyProcname}

// options are the values in options/SERVICE. Those of supervise-daemon are there only if it looks after the service.
type options struct {
	supervised       bool
	child            int         // pid of the daemon under supervise-daemon, 0 if there is none
	childFile        fs.FileInfo // nil if child is not recorded
	starts           int         // restarts by the supervisor
	limit            int         // restarts allowed within span, or at all if there is no span; 0 for no limit
	delay, span      time.Duration
	chroot, procname string
}

func parseOptions(values map[string]string) options {
	_, supervised := values[keyLimit]
	return options{
		supervised: supervised,
		child:      parsePid([]byte(values[keyChild])),
		starts:     count(values[keyStarts]),
		limit:      count(values[keyLimit]),
		delay:      duration(values[keyDelay]),
		span:       duration(values[keySpan]),
		chroot:     values[keyChroot],
		procname:   values[keyProcname],
	}
}

// count reads a number of restarts; what is none is 0.
func count(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// duration reads a number of seconds, or since OpenRC 0.63 one with a unit; what is neither is 0.
func duration(s string) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0
	}
	return d
}

// parseStat reads /proc/PID/stat. ok is false for a process that has ended but was not waited for, and for what is no such
// file. The name may contain anything, also parentheses and spaces.
func parseStat(b []byte) (p process, ok bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return process{}, false
	}
	pid, err := strconv.ParseInt(string(bytes.TrimSpace(b[:open])), 10, 32)
	if err != nil || pid <= 0 {
		return process{}, false
	}
	fields := strings.Fields(string(b[end+1:])) // from the third one, the state
	const parentField, startField = 1, 19
	if len(fields) <= startField || strings.ContainsAny(fields[0], "ZXx") {
		return process{}, false
	}
	parent, err := strconv.ParseInt(fields[parentField], 10, 32)
	if err != nil {
		return process{}, false
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return process{}, false
	}
	return process{pid: int(pid), parent: int(parent), start: start, name: string(b[open+1 : end])}, true
}

// contains reports whether the arguments of a daemon appear in a command line, one after the other: a script's follow its
// interpreter.
func contains(cmdline, args []string) bool {
	for i := 0; len(args) > 0 && i+len(args) <= len(cmdline); i++ {
		same := true
		for j, a := range args {
			same = same && cmdline[i+j] == a
		}
		if same {
			return true
		}
	}
	return false
}
