package postgres

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// errLockFile says that postmaster.pid is there but makes no sense; a server that has just created it writes its first
// lines at once, so this lasts for a moment only.
var errLockFile = errors.New("unintelligible or half-written postmaster.pid")

// lockFile is the contents of postmaster.pid (src/include/utils/pidfile.h).
type lockFile struct {
	pid     int  // positive
	single  bool // the server is in single-user mode: no postmaster
	started time.Time
	port    int    // 0 if not said yet
	status  string // starting, ready, standby, stopping
}

// Lines of postmaster.pid.
const (
	linePID     = 0
	lineStarted = 2
	linePort    = 3
	lineStatus  = 7
)

// parseLockFile parses the contents of postmaster.pid.
func parseLockFile(b []byte) (lockFile, error) {
	lines := strings.Split(string(b), "\n")
	if len(lines) < lineStarted+2 { // the last line counts only with its line break
		return lockFile{}, errLockFile
	}
	lines = lines[:len(lines)-1]
	pid, err := strconv.Atoi(strings.TrimSpace(lines[linePID]))
	if err != nil || pid == 0 {
		return lockFile{}, fmt.Errorf("%w: no pid", errLockFile)
	}
	epoch, err := strconv.ParseInt(strings.TrimSpace(lines[lineStarted]), 10, 64)
	if err != nil || epoch <= 0 {
		return lockFile{}, fmt.Errorf("%w: no start time", errLockFile)
	}
	// The status is written a moment after the rest; until then the server is starting.
	l := lockFile{pid: pid, started: time.Unix(epoch, 0).UTC(), status: probe.ServerStarting}
	if pid < 0 {
		l.pid, l.single = -pid, true
	}
	if len(lines) > linePort {
		port, err := strconv.ParseUint(strings.TrimSpace(lines[linePort]), 10, 16)
		if err != nil {
			return lockFile{}, fmt.Errorf("%w: no port", errLockFile)
		}
		l.port = int(port)
	}
	if len(lines) > lineStatus {
		switch s := strings.TrimSpace(lines[lineStatus]); s {
		case "starting", "ready", "standby", "stopping":
			l.status = s
		default:
			return lockFile{}, fmt.Errorf("%w: unknown status", errLockFile)
		}
	}
	return l, nil
}
