package main

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// begun: one action at a time per target, until its effect is known (DESIGN.md §2, S28): no intent while an earlier one of
// this boot has no result, or is not verified yet. S27: what was in vain is not tried again before twice the pause of before
// has passed, and not a third time; a program that ended by itself with an error gets one start.
func (c *checker) begun(a *agent, action node.Action) {
	vain, last := 0, instant(0)
	for i := range a.journal.entries {
		e := &a.journal.entries[i]
		if e.BootID != a.m.bootID() {
			continue
		}
		if !e.Done || e.Result == node.ResultExecuted {
			c.broken(a, "S28", "%s begins while %s of %s ago is not settled", action.ID, e.ActionID, c.w.now-e.since)
		}
		switch e.Result {
		case node.ResultUnverified, node.ResultFailed:
			vain++
			last = e.since
		case node.ResultVerified:
			vain = 0
		case node.ResultExecuted, node.ResultNotExecuted:
		}
	}
	limit := 2
	if action.Verb == node.StartFailed && a.m.unit.result == "exit-code" {
		limit = 1
	}
	switch {
	case vain >= limit:
		c.broken(a, "S27", "%s after %d actions in vain", action.ID, vain)
	case vain > 0 && c.w.now-last < time.Minute<<vain-time.Second:
		c.broken(a, "S27", "%s %s after an action in vain", action.ID, c.w.now-last)
	}
}

// recorded: S34, what the journal says of an act is true. "not executed" was not carried out. "verified" has its effect in the
// true world: the unit runs in another invocation, its lease was renewed after the act, a leader leads on, a second primary
// is none any more, and PostgreSQL was not restarted where the act promised that.
func (c *checker) recorded(a *agent, at node.Attempt, r node.AttemptResult) {
	i := c.actOf(a, at)
	if r == node.ResultNotExecuted && i >= 0 && c.acts[i].boot == a.m.boots {
		c.broken(a, "S34", "%s was carried out, and is recorded as not executed", at.ActionID)
	}
	if r != node.ResultVerified || i < 0 || a.m.woke > 0 && c.w.now-a.m.woke < unseen {
		return // it is none, or was judged before the machine slept
	}
	was, m := &c.acts[i], a.m
	holder := c.w.etcd.value(prefix + "leader")
	recently := func(since instant) bool { return c.w.now-since < 2*time.Second }
	own := a.member == m.name // else it looks at another member's lease, because a person told it to
	switch {
	case m.unit.pid == 0 && c.w.now-m.unit.endedAt > tooOld, m.unit.invocation == at.Before.InvocationID:
		c.broken(a, "S34", "%s is verified, and the unit does not run anew", at.ActionID)
	case own && m.renewed < a.journal.since(at) && c.w.etcd.okSince < a.journal.since(at): // a new leader of etcd renews leases too
		c.broken(a, "S34", "%s is verified, and the lease was not renewed since", at.ActionID)
	case was.led && was.action.Verb == node.SoftKill && holder != m.name && !recently(c.w.holders[len(c.w.holders)-1].at):
		c.broken(a, "S34", "%s is verified, and the leader does not lead any more", at.ActionID)
	case was.action.Finding == node.ZombiePrimary && m.primary && m.writable() && holder != m.name && holder != "" && !recently(c.w.holders[len(c.w.holders)-1].at):
		c.broken(a, "S34", "%s is verified, and there is a second primary still", at.ActionID)
	case was.spared && (m.postmaster != was.postmaster || !m.running) && c.w.now-m.postmasterAt >= unseen:
		c.broken(a, "S34", "%s is verified, and PostgreSQL was restarted", at.ActionID)
	}
}

// actOf returns the index of the act of an attempt, -1 if there was none.
func (c *checker) actOf(a *agent, at node.Attempt) int {
	for i := len(c.acts) - 1; i >= 0; i-- {
		if c.acts[i].m == a.m && c.acts[i].intent == fmt.Sprint(at.BootID, at.At) {
			return i
		}
	}
	return -1
}

// bounded: S29, an action ends by its deadline, whether its process ends or hangs. Looks after it and the release of the
// lock may take their own.
func (c *checker) bounded(a *agent, action node.Action) {
	life, boots, slept := a.born, a.m.boots, a.m.slept
	a.running++
	turn := a.running
	c.w.after(action.Deadline+8*time.Second, a.m, func() {
		if a.alive && a.born == life && a.m.boots == boots && a.m.slept == slept && a.finished < turn {
			c.broken(a, "S29", "%s has not ended", action.ID)
		}
	})
}

// same: the ID of an action stays while its condition and its target do (node.Action): approvals, the lock and the rule
// against repetition rest on that.
func (c *checker) sameID(a *agent, action node.Action) {
	key := fmt.Sprintf("%s %s %s %s", a.m.name, action.Verb, action.Finding, action.Before.InvocationID)
	old, ok := c.ids[key]
	if c.ids[key] = action.ID; ok && old != action.ID {
		c.broken(a, "S27", "%s was called %s before: it cannot be told from another", action.ID, old)
	}
}
