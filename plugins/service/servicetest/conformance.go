// Package servicetest is the proof that a service manager keeps the contract of package service, and a manager to test
// against.
//
// It owns the conformance suite, [Conformance], which every manager's plugin runs against the real manager, and
// [Fake], a stateful manager in memory that passes the same suite. The suite judges by the manager's own answers and by
// the processes that it finds, never by what it asked for. It deliberately does not test what a service does, nor how a
// manager is reached.
package servicetest

import (
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Service describes a service that the suite needs. It runs until it is told to stop, as one main process.
type Service struct {
	Restart        string        // policy in systemd's words, "no" if empty
	RestartDelay   time.Duration // pause before an automatic restart
	StartLimit     int           // starts allowed per StartLimitSpan, 0 for no limit
	StartLimitSpan time.Duration //
	KillMode       string        // "control-group" if empty
	Child          bool          // the main process has one child, which ignores the main's death
	StartTakes     time.Duration // time until the service says that it is up; it has a main process meanwhile
	StopTakes      time.Duration // time between the end of the main process and the end of a stop
	ExitOnStop     int           // exit code of the main process when it is asked to stop; 0 is a clean stop
}

// Verb is something that a person does to a service behind the agent's back.
type Verb string

// Verbs. All but the Begin ones return when the manager has finished.
const (
	Start        Verb = "start"
	Stop         Verb = "stop"
	Enable       Verb = "enable"
	Disable      Verb = "disable"
	Mask         Verb = "mask"
	BeginStart   Verb = "begin-start"
	BeginRestart Verb = "begin-restart"
)

// Host is the machine around a manager: it plays the operator and bad luck. Its methods fail t on error.
type Host interface {
	// Install makes a service known to the manager, not running and enabled, until t ends, and returns its unit.
	Install(t testing.TB, s Service) (unit string)
	// Operate does what a person would do.
	Operate(t testing.TB, verb Verb, unit string)
	// Crash kills the main process with SIGKILL, not through the manager.
	Crash(t testing.TB, unit string)
	// Children returns the children of main processes of the unit that are alive, past mains' included.
	Children(t testing.TB, unit string) []int
	// Disconnect makes the manager unreachable until restore is called; with hang, it still accepts but never answers.
	Disconnect(t testing.TB, hang bool) (restore func())
}

// Harness is one manager under test.
type Harness struct {
	Manager      service.Manager
	Unprivileged service.Manager // the same units seen by a caller who may change nothing
	Host         Host
	Patience     time.Duration     // how long an expected state is waited for, 10 s if 0
	Lacks        map[string]string // case name → why this manager cannot show it; the case is skipped with that reason
}

// Conformance runs the suite. open is called once per case, with that case's t.
func Conformance(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			if why, ok := h.Lacks[c.name]; ok {
				t.Skip(why)
			}
			if h.Patience == 0 {
				h.Patience = 10 * time.Second
			}
			c.run(t, suite{h})
		})
	}
}

// cases are all cases of the suite, in the order of FAULTS.md's Patroni section where they stem from it.
var cases = []struct {
	name string
	run  func(*testing.T, suite)
}{
	{"running", running},
	{"start is idempotent", startTwice},
	{"crashed", crashed},
	{"auto-restarting", autoRestarting},
	{"start during auto-restart", startDuringAutoRestart},
	{"start limit", startLimit},
	{"stopped by operator", stopped},
	{"stopped by operator, exits with error", stoppedUnclean},
	{"disabled", disabled},
	{"masked", masked},
	{"job pending", jobPending},
	{"start joins a start", startJoins},
	{"kill main only", killMainOnly},
	{"kill main, changed", killMainChanged},
	{"kill main, not running", killMainStopped},
	{"unknown unit", unknownUnit},
	{"hostile names", hostileNames},
	{"permission", permission},
	{"manager gone", managerGone},
	{"manager hangs", managerHangs},
	{"deadline during start", deadlineDuringStart},
	{"context already ended", contextEnded},
	{"concurrent use", concurrentUse},
	{"watch wakes", watchWakes},
	{"watch sees enablement", watchEnablement},
	{"watch ends with its context", watchEnds},
	{"watch ends with the manager", watchLost},
}
