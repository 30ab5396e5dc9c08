package node

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Snapshot is all the facts that one decision rests on. Recomputing a decision from the same snapshot gives the same
// answer.
type Snapshot struct {
	Node    string         `json:"node"`
	Scope   string         `json:"scope"`
	Now     Instant        `json:"now"`
	Wall    time.Time      `json:"wall"` // for people only
	BootID  string         `json:"boot_id"`
	Uptime  time.Duration  `json:"uptime"`            // since this machine (or container) started
	Confirm bool           `json:"confirm,omitempty"` // taken right before an action, with every expensive fact fresh
	Self    Self           `json:"self"`
	Orders  Orders         `json:"orders,omitzero"`
	DCS     DCS            `json:"dcs"`
	Patroni []PatroniFacts `json:"patroni,omitempty"` // one per patroni service of this machine, in configuration order
	// Services has one entry per service of another kind, in configuration order.
	Services []ServiceFacts `json:"services,omitempty"`
	// Machine is what else runs on this machine; where a Patroni is, its facts have it.
	Machine Fact[probe.Machine] `json:"machine,omitzero"`
}

// Upgrades returns the package managers at work on this machine, as far as is known, sorted, each once.
func (s *Snapshot) Upgrades() []string {
	var out []string
	if s.Machine.Known {
		out = append(out, s.Machine.Value.Upgrades...)
	}
	for i := range s.Patroni {
		if m := &s.Patroni[i].Machine; m.Known {
			out = append(out, m.Value.Upgrades...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Self is what the agent knows of its own fitness to decide.
type Self struct {
	LoopDelay     time.Duration `json:"loop_delay"`               // how much later than planned this snapshot was taken
	ClockJump     time.Duration `json:"clock_jump,omitempty"`     // wall clock minus monotonic clock since the last snapshot, if it jumped
	Suspended     time.Duration `json:"suspended,omitempty"`      // time asleep since the last snapshot
	JournalBroken string        `json:"journal_broken,omitempty"` // why the journal cannot be relied on, empty if it can
	ConfigProblem string        `json:"config_problem,omitempty"` // a newer configuration file that is not in force, and why
	StartedAgo    time.Duration `json:"started_ago"`              // since the agent started
	Crashes       int           `json:"crashes,omitempty"`        // starts of the agent within CrashWindow that followed no orderly stop
	Assertion     string        `json:"assertion,omitempty"`      // a rule of its own that the agent broke, empty if none
}

// PatroniFacts are the facts about one Patroni of this machine.
type PatroniFacts struct {
	Service  string                  `json:"service"`
	Unit     Fact[service.Status]    `json:"unit"`
	Limits   Fact[string]            `json:"limits,omitzero"` // what its manager does not let this agent do, "" if nothing
	Process  Fact[probe.Process]     `json:"process"`
	Liveness Fact[probe.Liveness]    `json:"liveness"`
	API      Fact[probe.PatroniAPI]  `json:"api"`
	Postgres Fact[probe.Postgres]    `json:"postgres"`
	Session  Fact[probe.Session]     `json:"session"`
	Machine  Fact[probe.Machine]     `json:"machine"`
	Config   Fact[probe.ConfigCheck] `json:"config"`
	LogMark  Fact[probe.LogMark]     `json:"log_mark"`
}
