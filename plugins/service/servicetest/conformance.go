// Package servicetest is the proof that a service manager keeps the contract of package service, and a manager to test
// against.
//
// It owns the conformance suite, [Conformance], which every manager's plugin runs against the real manager, and
// [Fake], a stateful manager in memory that passes the same suite. The suite judges by the manager's own answers and by
// the processes that it finds, never by what it asked for. It deliberately does not test what a service does, nor how a
// manager is reached.
//
// What a manager cannot show it lacks, by name and with a reason. An optional power that it does not implement
// (service.Restarter, service.Limited, service.Watcher) needs no entry: its cases are skipped by themselves. An order that
// it implements and lacks has to give errors.ErrUnsupported.
package servicetest

import (
	"slices"
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
	StopTakes      time.Duration // how long a stop takes by itself
	ExitOnStop     int           // exit code of the main process when it is asked to stop; 0 is a clean stop
	Deaf           bool          // it does not react to being asked to stop
	StopLimit      time.Duration // time after which a stop is made by force, 0 for the manager's default
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
	// Freeze sends SIGSTOP to the main process, not through the manager.
	Freeze(t testing.TB, unit string)
	// Children returns the children of main processes of the unit that are alive, past mains' included.
	Children(t testing.TB, unit string) []int
	// Disconnect makes the manager unreachable until restore is called; with hang, it still accepts but never answers.
	Disconnect(t testing.TB, hang bool) (restore func())
}

// Harness is one manager under test.
type Harness struct {
	Manager      service.Manager
	Unprivileged service.Manager // the same units seen by a caller who may change nothing
	// Again returns another Manager that has seen nothing yet, as after a restart of the agent.
	Again    func(t *testing.T) service.Manager
	Host     Host
	Patience time.Duration     // how long an expected state is waited for, 10 s if 0
	Lacks    map[string]string // case name → why this manager cannot show it; the case is skipped with that reason
}

// Conformance runs the suite. open is called once per case, with that case's t.
func Conformance(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			for name := range h.Lacks {
				if !slices.Contains(Cases(), name) {
					t.Fatalf("it lacks %q, which is no case", name)
				}
			}
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

// Cases returns the names of all cases, in their order.
func Cases() []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// The cases that an ability is known by: whoever lacks one lacks the order, or the count.
const (
	caseKillMain = "kill main"
	caseRestart  = "restart"
	caseCounted  = "restarts counted"
)

// cases are all cases of the suite, in the order of FAULTS.md's Patroni section where they stem from it.
var cases = []struct {
	name string
	run  func(*testing.T, suite)
}{
	{"running", running},
	{"policies", policies},
	{"start is idempotent", startTwice},
	{"crashed", crashed},
	{"crash explained", crashExplained},
	{"auto-restarting", autoRestarting},
	{caseCounted, restartsCounted},
	{"start during auto-restart", startDuringAutoRestart},
	{"start limit", startLimit},
	{"stopped by operator", stopped},
	{"stopped by operator, exits with error", stoppedUnclean},
	{"disabled", disabled},
	{"masked", masked},
	{"stopped by operator, never a crash to a new agent", stoppedAgain},
	{"stopped by force, never a crash to a new agent", forcedAgain},
	{"stopped by operator, told to a new agent", stopToldAgain},
	{"crashed, told to a new agent", crashToldAgain},
	{"disabled, crashed, never a crash to a new agent", disabledAgain},
	{"disabled, stopped, never a crash to a new agent", disabledStoppedAgain},
	{"crash loop", crashLoop},
	{"stopped in a crash loop", stoppedInCrashLoop},
	{"job pending", jobPending},
	{"start joins a start", startJoins},
	{"start, permission", startPermission},
	{"deadline during start", deadlineDuringStart},
	{caseKillMain, killMain},
	{"kill main only", killMainOnly},
	{"kill main, changed", killMainChanged},
	{"kill main, not running", killMainStopped},
	{"kill main, permission", killMainPermission},
	{caseRestart, restart},
	{"restart, frozen", restartFrozen},
	{"restart, deaf", restartDeaf},
	{"restart, changed", restartChanged},
	{"restart, not running", restartStopped},
	{"restart, job pending", restartBusy},
	{"restart, permission", restartPermission},
	{"deadline during restart", deadlineDuringRestart},
	{"orders that it lacks", unsupported},
	{"limits, none", limitsNone},
	{"limits, found", limitsFound},
	{"unknown unit", unknownUnit},
	{"hostile names", hostileNames},
	{"manager gone", managerGone},
	{"manager gone when the agent starts", goneAtStart},
	{"manager hangs", managerHangs},
	{"context already ended", contextEnded},
	{"concurrent use", concurrentUse},
	{"watch wakes", watchWakes},
	{"watch wakes in time", watchInTime},
	{"watch sees enablement", watchEnablement},
	{"watch ends with its context", watchEnds},
	{"watch ends with the manager", watchLost},
}
