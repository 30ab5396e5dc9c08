package orders

import (
	"fmt"
	"slices"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Waiting is what an approval is judged by.
type Waiting struct {
	Plan     node.Plan // the latest
	Spec     node.Spec
	Attempts []node.Attempt
	Proposed func(id string) bool // whether any plan of this agent ever named the action
}

// Approve records a person's consent to one action that waits for it. text says how the order came.
func (k *Keeper) Approve(id, owner, text string, w Waiting) (node.Approval, error) {
	a := node.Approval{ActionID: id, Owner: owner, At: k.d.Now()}
	if _, err := node.HoldText(node.Hold{Owner: owner, Reason: "approval"}); err != nil {
		return node.Approval{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := w.check(id); err != nil {
		return node.Approval{}, fmt.Errorf("approve %.80q: %w", id, err)
	}
	if err := k.d.Record(Entry{Approval: &a, Text: text}); err != nil {
		return node.Approval{}, fmt.Errorf("record approval: %w", err)
	}
	return a, nil
}

// check returns why the action cannot be approved, or nil.
func (w Waiting) check(id string) error {
	done := slices.ContainsFunc(w.Attempts, func(a node.Attempt) bool {
		return a.ActionID == id && a.Result != node.ResultNotExecuted
	})
	if done {
		return fmt.Errorf("%w: it was carried out already; see pgpatrol history", ErrNotWaiting)
	}
	a, ok := w.find(id)
	if !ok {
		if w.Proposed(id) {
			return fmt.Errorf("%w: its condition is over or its target has changed; see pgpatrol plan", ErrNotWaiting)
		}
		return fmt.Errorf("%w: ask the agent of the machine whose plan shows it", ErrForeign)
	}
	if mode := w.Spec.PolicyOf(a.Service).For(a.Class, a.Finding); mode != node.ModeAsk {
		return fmt.Errorf("%w: the policy for %s because of %s is %s, and only ask waits for one", ErrNotWaiting, a.Class, a.Finding, mode)
	}
	return nil
}

func (w Waiting) find(id string) (node.Action, bool) {
	if i := slices.IndexFunc(w.Plan.Allowed, func(a node.Action) bool { return a.ID == id }); i >= 0 {
		return w.Plan.Allowed[i], true
	}
	if i := slices.IndexFunc(w.Plan.Refused, func(r node.Refusal) bool { return r.Action.ID == id }); i >= 0 {
		return w.Plan.Refused[i].Action, true
	}
	return node.Action{}, false
}
