package openrc

import (
	"strconv"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// mark is the folder that holds a service's link.
type mark string

// The marks that decide, the strongest first. While OpenRC moves a service it has two.
const (
	markStopping  mark = "stopping"
	markStarting  mark = "starting"
	markInactive  mark = "inactive"
	markStarted   mark = "started"
	markFailed    mark = "failed"
	markScheduled mark = "scheduled" // in a folder of the service that is waited for
	markNone      mark = ""
)

// linked are the marks with a link of the service's own.
var linked = []mark{markStopping, markStarting, markInactive, markStarted, markFailed}

// record is what OpenRC's files and the process table say of one service at one moment. Two are equal with ==.
type record struct {
	mark       mark
	executable bool   // the init script may be run
	enabled    bool   // it is in a runlevel
	run        uint64 // another one after every start, 0 if nothing is known of one
	untracked  bool   // OpenRC recorded no daemon for it
	supervised bool   // by supervise-daemon
	main       process
	supervisor process // of main
	doubt      string  // why it cannot be told whether the daemon lives
	restarts   int     // by the supervisor
	delay      time.Duration
	limit      int // restarts that the supervisor allows
	span       time.Duration
}

// crashed reports whether the service is started and its daemon, with its supervisor if it has one, is dead.
func (r record) crashed() bool {
	return r.mark == markStarted && !r.untracked && r.doubt == "" && r.main.pid == 0 && r.supervisor.pid == 0
}

// respawning reports whether the daemon is dead and its supervisor is about to start it again.
func (r record) respawning() bool {
	return r.mark == markStarted && r.doubt == "" && r.main.pid == 0 && r.supervisor.pid != 0
}

// status puts a record into the words of the contract.
func (r record) status(unit, script string) service.Status {
	st := service.Status{
		Unit:       unit,
		Enablement: "disabled",
		MainPID:    r.main.pid,
		KillMode:   "process", // neither OpenRC nor supervise-daemon touches what a dead daemon leaves behind
		UnitFile:   script,
	}
	if r.enabled {
		st.Enablement = "enabled"
	}
	if !r.executable {
		st.LoadError = "not executable"
	}
	if r.run != 0 {
		st.InvocationID = strconv.FormatUint(r.run, 16)
	}
	if r.mark != markNone && r.mark != markFailed {
		st.Restart = "no"
	}
	if r.supervisor.pid != 0 {
		r.supervision(&st)
	}
	r.state(&st)
	return st
}

// supervision sets what supervise-daemon does after the daemon ended, however it ended. Without a span its limit is one for
// the whole life of the supervisor; once it is reached the next end is the last one.
func (r record) supervision(st *service.Status) {
	st.Restart, st.Restarts, st.RestartDelay = "always", r.restarts, r.delay
	if r.span > 0 {
		st.StartLimit, st.StartLimitSpan = r.limit, r.span
	} else if r.limit > 0 && r.restarts >= r.limit {
		st.Restart = "no"
	}
}

// state sets the fields of the life cycle.
func (r record) state(st *service.Status) {
	st.Detail = string(r.mark)
	switch r.mark {
	case markStopping:
		st.State, st.Job = service.StateStopping, "stop"
	case markStarting, markScheduled:
		st.State, st.Job = service.StateStarting, "start"
	case markInactive:
		st.State = service.StateStarting
	case markFailed:
		st.State, st.Result = service.StateFailed, "failed"
	case markNone:
		st.State, st.Detail = service.StateStopped, "stopped"
	case markStarted:
		switch {
		case r.doubt != "":
			st.Detail = "started, " + r.doubt
		case r.untracked:
			st.State, st.Detail = service.StateRunning, "started, without a daemon"
		case r.main.pid != 0:
			st.State = service.StateRunning
			if r.supervised && r.supervisor.pid == 0 {
				st.Detail = "unsupervised"
			}
		case r.respawning():
			st.State, st.Detail, st.Result = service.StateRestarting, "started, respawning", "crashed"
		default:
			st.State, st.Detail, st.Result = service.StateFailed, "crashed", "crashed"
		}
	}
}
