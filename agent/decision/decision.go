// Package decision puts the pure core together: a question in, the answer to it out.
//
// It owns the order of engine and guard. It promises that the same question gives the same answer, on any machine and at
// any time, and that a core that panics or contradicts itself allows nothing. It deliberately knows neither where a
// question comes from nor what becomes of the answer.
package decision

import (
	"fmt"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/guard"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Answer is what follows from a question.
type Answer struct {
	Memory    node.Memory // for the next question
	Plan      node.Plan
	Attention bool   // something is suspicious: look again soon
	Broken    string // a rule of the core that the core itself broke, "" if none; the plan then allows nothing
}

// Decide answers a question. It does not modify it.
func Decide(q node.Question) (a Answer) {
	defer func() {
		if v := recover(); v != nil {
			a = Answer{Memory: q.Memory, Plan: node.Plan{At: q.Snapshot.Now, Wall: q.Snapshot.Wall}, Broken: fmt.Sprintf("deciding panicked: %v", v)}
		}
	}()
	out := engine.Step(q)
	plan := guard.Plan(guard.Input{
		Spec: q.Spec, Memory: out.Memory, Snapshot: q.Snapshot, Attempts: q.Attempts, Findings: out.Findings, Actions: out.Actions,
	})
	return Answer{Memory: out.Memory, Plan: plan, Attention: out.Attention}
}
