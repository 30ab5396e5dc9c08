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
func Decide(q node.Question) Answer { return answer(q, true) }

// Judge answers a question without the words of the plan, its Summary and Rests. It is the same decision, made faster.
func Judge(q node.Question) Answer { return answer(q, false) }

func answer(q node.Question, words bool) (a Answer) {
	defer func() {
		if v := recover(); v != nil {
			a = panicked(q, v)
		}
	}()
	out := engine.Step(q)
	in := guardInput(q, out)
	a = checked(in, Answer{Memory: out.Memory, Plan: guard.Plan(in), Attention: out.Attention})
	if words {
		a.Plan = guard.Explain(in, a.Plan)
	}
	return a
}

// panicked allows nothing and keeps the memory as it was.
func panicked(q node.Question, v any) Answer {
	broken := fmt.Sprintf("deciding panicked: %v", v)
	return Answer{Memory: q.Memory, Broken: broken, Attention: true, Plan: node.Plan{
		At: q.Snapshot.Now, Wall: q.Snapshot.Wall, Allowed: []node.Action{}, Refused: []node.Refusal{},
		Summary: "Nothing is done: this agent could not decide. " + broken,
	}}
}

// checked turns what a plan that breaks a promise allows into refusals: the agent's own health is the reason.
func checked(in guard.Input, a Answer) Answer {
	if a.Broken = guard.Assert(in, a.Plan); a.Broken == "" {
		return a
	}
	for _, act := range a.Plan.Allowed {
		no := node.Verdict{Guard: node.GuardSelfHealth, Text: "this agent was about to break a rule of its own: " + a.Broken}
		a.Plan.Refused = append(a.Plan.Refused, node.Refusal{Action: act, Verdicts: []node.Verdict{no}})
	}
	a.Plan.Allowed = []node.Action{}
	return a
}

func guardInput(q node.Question, out engine.Output) guard.Input {
	return guard.Input{
		Spec: q.Spec, Memory: out.Memory, Snapshot: q.Snapshot, Attempts: q.Attempts, Findings: out.Findings, Actions: out.Actions,
	}
}
