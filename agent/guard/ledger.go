package guard

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// The guards in this file look at the past. It comes from the journal, so that a hundred restarts of the agent spend one
// budget (FAULTS.md S26, F102). Attempts of an earlier boot do not count: their instants cannot be compared, and the
// machine's start has its own grace.

// past returns the attempts on the action's service within a span.
func (c *check) past(within time.Duration) []node.Attempt {
	var out []node.Attempt
	for _, a := range c.pastOfNode(within) {
		if a.Service == c.a.Service {
			out = append(out, a)
		}
	}
	return out
}

// pastOfNode returns the attempts on any service of this node within a span.
func (c *check) pastOfNode(within time.Duration) []node.Attempt {
	if planted.On("guard/boot-blind") {
		return nil
	}
	var out []node.Attempt
	for _, a := range c.in.Attempts {
		forgotten := planted.On("guard/forget-other-runs") && c.now.Sub(a.At) > c.in.Snapshot.Self.StartedAgo
		if a.BootID == c.in.Snapshot.BootID && c.now.Sub(a.At) <= within && !forgotten {
			out = append(out, a)
		}
	}
	return out
}

// spent are the attempts that had, or may have had, an effect.
func spent(all []node.Attempt) []node.Attempt {
	var out []node.Attempt
	for _, a := range all {
		if a.Result != node.ResultNotExecuted {
			out = append(out, a)
		}
	}
	return out
}

// inFlight: one action at a time per target, until its effect is known (DESIGN.md §2).
func inFlight(c *check) string {
	for _, a := range c.past(time.Hour) {
		if !a.Done || a.Result == node.ResultExecuted && !planted.On("guard/executed-is-over") {
			return refuse("%s of %s is still in flight, begun %s ago", a.Verb, a.Service, c.now.Sub(a.At).Round(time.Second))
		}
	}
	return ""
}

// budget: so many actions per time on one service and on this node, and no more (FAULTS.md S26).
func budget(c *check) string {
	hour := spent(c.past(time.Hour))
	disrupts := 0
	for _, a := range hour {
		if a.Class == node.ClassDisrupt {
			disrupts++
		}
	}
	if past := spent(c.past(machineOnce)); c.kind == node.KindMachine && len(past) > 0 {
		return refuse("%s was healed %s ago; a machine is once in %s, because what needs it twice is not healed by it", c.a.Service,
			c.now.Sub(past[len(past)-1].At).Round(time.Second), machineOnce)
	}
	switch {
	case c.a.Class == node.ClassDisrupt && disrupts >= disruptPerHour:
		return refuse("%d of %d disrupting actions per hour are spent", disrupts, disruptPerHour)
	case len(hour) >= revivePerHour:
		return refuse("%d of %d actions on %s per hour are spent", len(hour), revivePerHour, c.a.Service)
	}
	if n := len(spent(c.pastOfNode(time.Hour))); n >= nodePerHour {
		return refuse("%d of %d actions on this node per hour are spent", n, nodePerHour)
	}
	return ""
}

// backoff: time between two actions on one target, doubled by every failure.
func backoff(c *check) string {
	past := spent(c.past(time.Hour))
	if len(past) == 0 {
		return ""
	}
	if past[len(past)-1].Result == node.ResultExecuted && (planted.On("guard/executed-is-over") || planted.OnGuard("in-flight")) {
		return ""
	}
	wait := reviveSpacing << failures(past)
	if last := c.now.Sub(past[len(past)-1].At); last < wait {
		return refuse("the last action on %s was %s ago; the next may come after %s", c.a.Service, last.Round(time.Second), wait)
	}
	return ""
}

// breaker: what failed twice in a row is a person's business (FAULTS.md S27). A unit whose program ended by itself with
// an error gets one start only (FACTS.md §3.4).
func breaker(c *check) string {
	past := spent(c.past(breakerOpen))
	n := failures(past)
	limit := breakerFailures
	if c.a.Verb == node.StartFailed && c.unit.Value.Result == "exit-code" {
		limit = 1
	}
	if n >= limit {
		return refuse("the last %d actions on %s did not have their effect; a person must look (%s)", n, c.a.Service, breakerOpen)
	}
	return ""
}

// failures counts the attempts at the end of the list that did not have their effect.
func failures(past []node.Attempt) int {
	n := 0
	if planted.On("guard/failures-forgotten") {
		return n
	}
	for i := len(past) - 1; i >= 0; i-- {
		if past[i].Result != node.ResultUnverified && past[i].Result != node.ResultFailed {
			break
		}
		n++
	}
	return n
}
