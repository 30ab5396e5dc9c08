// Package conformance is what the lab and the simulation are compared by: scripts of faults, what can be seen of a stack
// from outside, and when two runs of a script agree.
//
// Scripts and readings are data that both sides understand, so this package imports neither. A run is compared by the order
// of its events and not by their times: a loop, a health check or a busy machine moves them by seconds. It promises that
// what happened on one side only, or clearly in another order, is found; why, a person has to find out.
//
//	lab:        script -> containers -> witnesses -> readings -> testdata
//	simulation: script -> model      -> a look every 50 ms -> readings
//	                                                     both -> Events -> Compare -> Report
package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verb is something that a script does.
type Verb string

// The verbs. What a step with a duration did is undone after it.
const (
	KillPatroni      Verb = "kill Patroni"                 // SIGKILL for its main process
	HangPatroni      Verb = "hang Patroni"                 // SIGSTOP; undone by SIGCONT
	CrashUntilFailed Verb = "crash Patroni until given up" // SIGKILL until systemd starts it no more
	StopUnit         Verb = "stop the unit"
	RestartUnit      Verb = "restart the unit"
	RefuseREST       Verb = "refuse REST" // its listener is gone, the loop goes on
	StickLoop        Verb = "stick the loop"
	KillPostmaster   Verb = "kill the postmaster"
	PauseCluster     Verb = "pause the cluster" // patronictl pause
	LoseQuorum       Verb = "lose etcd's quorum"
	RaiseNoSpace     Verb = "raise NOSPACE"
	CutFromEtcd      Verb = "cut from etcd" // Patroni's way to etcd only
	Isolate          Verb = "isolate"       // from every other machine
	StartAgent       Verb = "start the agent"
)

// Target is whom a step strikes.
type Target string

// The targets.
const (
	Leader  Target = "leader"  // the first leader, whatever it is by then
	Replica Target = "replica" // one of the others, always the same
	Cluster Target = "cluster" // nobody alone
)

// Step is one thing done at a moment.
type Step struct {
	At  time.Duration `json:"at"` // since the leader's Patroni renewed its lease
	Do  Verb          `json:"do"`
	On  Target        `json:"on"`
	For time.Duration `json:"for,omitempty"` // 0: for good
}

// Agents says on which nodes pgpatrol runs.
type Agents string

// The ways of running agents. Late: the leader's starts by a step of the script, and without memory.
const (
	NoAgents   Agents = "none"
	AllAgents  Agents = "all"
	LateLeader Agents = "late on the leader"
)

// Script is one experiment, for a healthy cluster of three.
type Script struct {
	Name     string        `json:"name"`
	Fault    string        `json:"fault"` // of FAULTS.md
	Timings  string        `json:"timings"`
	Agents   Agents        `json:"agents"`
	KillMode string        `json:"kill_mode,omitempty"` // of the leader's unit, where it is not process; then disrupt is auto
	Aged     bool          `json:"aged,omitempty"`      // the leader's Patroni has run for more than a minute
	Steps    []Step        `json:"steps"`
	Look     time.Duration `json:"look"` // how long, since the renewal
}

// Title tells the script in a line.
func (s Script) Title() string {
	var steps []string
	for _, st := range s.Steps {
		text := fmt.Sprintf("+%s %s", st.At, st.Do)
		if st.On != Cluster {
			text += " of the " + string(st.On)
		}
		if st.For > 0 {
			text += fmt.Sprintf(" for %s", st.For)
		}
		steps = append(steps, text)
	}
	title := fmt.Sprintf("%s; timings %s, agents: %s", strings.Join(steps, ", "), s.Timings, s.Agents)
	if s.KillMode != "" {
		title += ", KillMode=" + s.KillMode
	}
	return title
}

// Find returns the script of that name.
func Find(name string) (Script, error) {
	all := Scripts()
	if i := slices.IndexFunc(all, func(s Script) bool { return s.Name == name }); i >= 0 {
		return all[i], nil
	}
	return Script{}, fmt.Errorf("find script %q: there is none of that name", name)
}

const sec = time.Second

// Scripts lists every script, in the order of FAULTS.md. Faults that a person must end are looked at both ways: with
// agents, where something should be done about them, and without.
func Scripts() []Script {
	return []Script{
		{Name: "kill-leader", Fault: "F01", Timings: "fast", Agents: AllAgents, Look: 15 * sec, Steps: []Step{{1 * sec, KillPatroni, Leader, 0}}},
		{Name: "hang-leader-alone", Fault: "F02", Timings: "default", Agents: NoAgents, Look: 48 * sec, Steps: []Step{{2 * sec, HangPatroni, Leader, 0}}},
		{Name: "hang-leader", Fault: "F02", Timings: "default", Agents: AllAgents, Look: 42 * sec, Steps: []Step{{2 * sec, HangPatroni, Leader, 0}}},
		{Name: "hang-leader-group", Fault: "F02", Timings: "default", Agents: AllAgents, KillMode: "control-group", Look: 42 * sec, Steps: []Step{{2 * sec, HangPatroni, Leader, 0}}},
		{Name: "hang-replica", Fault: "F03", Timings: "fast", Agents: AllAgents, Look: 45 * sec, Steps: []Step{{1 * sec, HangPatroni, Replica, 0}}},
		{Name: "zombie", Fault: "F04", Timings: "fast", Agents: LateLeader, Look: 55 * sec, Steps: []Step{{1 * sec, HangPatroni, Leader, 0}, {30 * sec, StartAgent, Leader, 0}}},
		{Name: "start-limit-leader-alone", Fault: "F05", Timings: "default", Agents: NoAgents, Look: 48 * sec, Steps: []Step{{1 * sec, CrashUntilFailed, Leader, 0}}},
		{Name: "start-limit-leader", Fault: "F05", Timings: "default", Agents: AllAgents, Look: 40 * sec, Steps: []Step{{1 * sec, CrashUntilFailed, Leader, 0}}},
		{Name: "start-limit-replica", Fault: "F05", Timings: "fast", Agents: AllAgents, Look: 25 * sec, Steps: []Step{{1 * sec, CrashUntilFailed, Replica, 0}}},
		{Name: "stop-leader", Fault: "F07", Timings: "fast", Agents: AllAgents, Look: 25 * sec, Steps: []Step{{1 * sec, StopUnit, Leader, 0}}},
		{Name: "stop-replica", Fault: "F07", Timings: "fast", Agents: AllAgents, Look: 25 * sec, Steps: []Step{{1 * sec, StopUnit, Replica, 0}}},
		{Name: "restart-leader", Fault: "L3", Timings: "fast", Agents: NoAgents, Look: 30 * sec, Steps: []Step{{1 * sec, RestartUnit, Leader, 0}}},
		{Name: "pause-hang", Fault: "F11", Timings: "fast", Agents: AllAgents, Look: 30 * sec, Steps: []Step{{0, PauseCluster, Cluster, 0}, {5 * sec, HangPatroni, Leader, 12 * sec}}},
		{Name: "pause-stop", Fault: "F12", Timings: "fast", Agents: AllAgents, Look: 45 * sec, Steps: []Step{{0, PauseCluster, Cluster, 0}, {5 * sec, StopUnit, Leader, 0}}},
		{Name: "rest-refused-alone", Fault: "F17", Timings: "fast", Agents: NoAgents, Look: 30 * sec, Steps: []Step{{1 * sec, RefuseREST, Leader, 0}}},
		{Name: "rest-refused", Fault: "F17", Timings: "fast", Agents: AllAgents, Aged: true, Look: 35 * sec, Steps: []Step{{1 * sec, RefuseREST, Leader, 0}}},
		{Name: "loop-stuck-alone", Fault: "F18", Timings: "fast", Agents: NoAgents, Look: 48 * sec, Steps: []Step{{1 * sec, StickLoop, Leader, 0}}},
		{Name: "loop-stuck", Fault: "F18", Timings: "fast", Agents: AllAgents, Aged: true, Look: 40 * sec, Steps: []Step{{1 * sec, StickLoop, Leader, 0}}},
		{Name: "postmaster-killed", Fault: "F19", Timings: "fast", Agents: AllAgents, Look: 25 * sec, Steps: []Step{{1 * sec, KillPostmaster, Leader, 0}}},
		{Name: "quorum-lost", Fault: "F40", Timings: "default", Agents: AllAgents, Look: 75 * sec, Steps: []Step{{1 * sec, LoseQuorum, Cluster, 40 * sec}}},
		{Name: "nospace-stop", Fault: "F41", Timings: "fast", Agents: AllAgents, Look: 65 * sec, Steps: []Step{{0, RaiseNoSpace, Cluster, 40 * sec}, {8 * sec, StopUnit, Leader, 0}}},
		{Name: "cut-from-etcd", Fault: "F59", Timings: "default", Agents: AllAgents, Look: 85 * sec, Steps: []Step{{1 * sec, CutFromEtcd, Leader, 50 * sec}}},
		{Name: "isolate-leader", Fault: "F62", Timings: "fast", Agents: NoAgents, Look: 48 * sec, Steps: []Step{{1 * sec, Isolate, Leader, 0}}},
	}
}
