package main

import (
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// heldAtOnce is how long after an order that lies on the machine itself an act may still come: it is read right before.
const heldAtOnce = 50 * time.Millisecond

// held: S23, no action later than a second after a hold, on agents that can be reached. One that is not understood, and a
// kill switch that cannot be read, count as set.
func (c *checker) held(a *agent, action node.Action) {
	now := c.w.now
	for _, h := range a.holds {
		if now-h.since > heldAtOnce {
			c.broken(a, "S23", "%s %s after a %s of this machine", action.Verb, now-h.since, h.Kind)
		}
	}
	if since := now - a.unreadable.since; a.unreadable.on() && since > time.Second {
		c.broken(a, "S23", "%s %s after the kill switch became unreadable", action.Verb, since)
	}
	if !c.w.etcd.serves(a.etcd.member(), a.m.host) {
		return
	}
	for _, kv := range c.w.etcd.under(node.KeyRoot) {
		if strings.Contains(kv.Key, "/hold/") && now-c.w.sharedHeld[kv.Key] > time.Second {
			c.broken(a, "S23", "%s %s after the hold %s", action.Verb, now-c.w.sharedHeld[kv.Key], kv.Key)
		}
	}
}

// allowed: S24, nothing is done that people do not let the agent do: by the mode of the finding, which can only restrict
// where something that runs is stopped, else by that of the class, of the service. Under "ask" it is one attempt, of the
// action that a person approved, within two minutes. A policy that changed a second ago is the old one still.
func (c *checker) allowed(a *agent, action node.Action) {
	mode := policyMode(a.policy, action)
	if old := policyMode(a.policyBefore, action); c.w.now-a.policyAt <= time.Second && boldness(old) > boldness(mode) {
		mode = old
	}
	switch {
	case mode == node.ModeAuto:
	case mode != node.ModeAsk:
		c.broken(a, "S24", "%s under policy %s", action.Verb, mode)
	case !slices.ContainsFunc(a.journal.approvals, func(ap approval) bool {
		lately := c.w.now-ap.since <= node.ApprovalLife+action.Deadline && ap.boot == a.m.bootID()
		return ap.ActionID == action.ID && lately && a.journal.tries(action.ID, ap.since) <= 1
	}):
		c.broken(a, "S24", "%s that no person approved, or that was tried since", action.ID)
	}
}

// policyMode is the mode of an action by a policy.
func policyMode(p node.Policy, action node.Action) node.Mode {
	mode := p.Revive
	if action.Class == node.ClassDisrupt {
		mode = p.Disrupt
	}
	if own, ok := p.Findings[action.Finding]; ok && (action.Class == node.ClassRevive || boldness(own) < boldness(mode)) {
		mode = own
	}
	return mode
}

// boldness orders the modes, the least bold first.
func boldness(m node.Mode) int {
	return slices.Index([]node.Mode{node.ModeOff, node.ModeObserve, node.ModeAsk, node.ModeAuto}, m)
}
