// Package scenario runs faults on the real stack, without and with pgpatrol, and says whether what must happen
// happened and what must not did not.
//
// A scenario is data: how to set up, what to break, how long to look, and checks over the evidence. It is judged only
// from what the witnesses recorded (test/lab/judge). The other half of every must-heal scenario is the run without
// pgpatrol: where the fault does no harm then, the scenario proves nothing and fails.
//
//	settle -> set up -> start agents -> record -> fault -> observe -> undo, settle -> count lost writes -> judge
//
// The package owns neither the stack nor the agents; it leaves a settled stack behind, with the agents stopped.
package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/gate"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// Func is one step of a scenario.
type Func func(ctx context.Context, r *Run) error

// Scenario is one experiment.
type Scenario struct {
	ID      string   // of FAULTS.md, with a suffix for a variant
	Title   string   //
	Timings []string // names of the timings it is meant for, the usual one first; nil means default

	// Policy of every agent by action class; nil means revive auto and everything else observe or off.
	Policy map[string]string
	// Agent changes how agents are installed, for example to build them with failpoints; nil means nothing special.
	Agent func(*stack.AgentOptions)

	Homelab bool // on a stack whose etcd runs as the first user's does
	REST    bool // whether witnesses ask Patroni's REST API as well

	Setup   Func                              // before the agents start; nil means nothing
	Fault   Func                              // what is broken; its start is the moment that times are counted from
	Observe func(stack.Timings) time.Duration // how long the stack is looked at, counted from that moment
	Blind   []string                          // nodes whose witnesses may fall silent; "hap1" is the writer

	Harm []Check // what the fault must do without pgpatrol; empty where it need not do harm
	Heal []Check // what must hold with pgpatrol
}

// All lists every scenario.
func All() []Scenario {
	return slices.Concat(
		hungScenarios(), healedScenarios(), operatorScenarios(), postgresScenarios(), networkScenarios(), hostileScenarios(), crashScenarios(),
		orderScenarios(), routeScenarios(), homelabScenarios(),
	)
}

// Find returns the scenario of that id.
func Find(id string) (Scenario, error) {
	all := All()
	i := slices.IndexFunc(all, func(s Scenario) bool { return strings.EqualFold(s.ID, id) })
	if i < 0 {
		return Scenario{}, fmt.Errorf("find scenario %q: see `lab faults`", id)
	}
	return all[i], nil
}

// Evidence is everything that a check may look at.
type Evidence struct {
	Records []record.Record
	Window  judge.Window // from the fault to the end of the observation
	Fault   time.Time    // just before the fault was injected
	Leader  string       // node that led when the fault came (pg1..3)
	Timings stack.Timings
	Agents  bool
	Homelab bool
	Refused []gate.Refusal    // calls that an agent made to a Docker engine and that were not let through
	Plans   map[string]string // what `pgpatrol plan --json` said on each node at the end of the observation
	Replays map[string]string // what deciding again from each node's journal gave: `pgpatrol why all --replay --json`
}

// Verdict is the outcome of a check.
type Verdict struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was seen, in numbers
}

// Check is one thing that must hold.
type Check struct {
	Name string
	Test func(Evidence) Verdict
}
