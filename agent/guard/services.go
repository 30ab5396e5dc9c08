package guard

import (
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The rules in this file are what guards ask of services other than Patroni.

// serviceFreshness names the facts that an action on such a service rests on and that are unknown or too old.
func (c *check) serviceFreshness() []string {
	var bad []string
	need := func(name string, fresh bool) {
		if !fresh {
			bad = append(bad, name)
		}
	}
	need("the unit's state", c.unit.Fresh(c.now, c.limit()))
	if c.a.Verb != node.Restart {
		return bad
	}
	switch c.kind {
	case node.KindEtcd:
		need("what the member answers", c.facts.Member.Fresh(c.now, c.limit()))
		for _, o := range c.facts.Others {
			need("what "+o.URL+" answers", o.Member.Fresh(c.now, c.limit()))
		}
	case node.KindForwarder:
		need("what comes through the forwarder", c.facts.Through.Fresh(c.now, c.limit()))
		need("what answers behind it", c.facts.Past.Fresh(c.now, c.limit()))
	case node.KindGeneric, node.KindPatroni:
		need("its check", c.facts.Check.Fresh(c.now, c.limit()))
	}
	return bad
}

// serviceIdentity: a member of etcd, and whoever answers behind a forwarder, must be who it was configured or known to be
// (FAULTS.md S20). A start brings back what is installed here, whoever that is; only a restart rests on who answered.
func (c *check) serviceIdentity() string {
	want, seen := c.s.Identity, c.m.Answerer
	if c.a.Verb != node.Restart || want == "" || seen == "" || want == seen {
		return ""
	}
	return refuse("who answers there is %s, not %s", seen, want)
}

// serviceUnit: the unit must be such that the verb does what it says.
func (c *check) serviceUnit() string {
	u := c.unit.Value
	switch {
	case c.a.Verb == node.StartFailed && u.State != service.StateFailed:
		return refuse("%s is %s, not failed", c.a.Unit, u.State)
	case c.a.Verb == node.StartFailed:
		return ""
	case u.State != service.StateRunning:
		return refuse("%s is %s", c.a.Unit, u.State)
	case c.proc.Known && c.proc.Value.State == "D":
		return refuse("the main process sleeps uninterruptibly in the kernel (state D): it cannot be ended until its I/O returns")
	}
	return ""
}

// etcdRedundancy: a member that runs is only stopped while every other member is healthy, so that the quorum stands
// without it (FAULTS.md F39, S10). Of two members neither is spare.
func (c *check) etcdRedundancy() string {
	if len(c.facts.Others) < 2 {
		return refuse("%d other members of etcd are known; without this one there would be no quorum", len(c.facts.Others))
	}
	var sick []string
	for _, o := range c.facts.Others {
		m := o.Member
		switch {
		case !m.Fresh(c.now, c.limit()):
			sick = append(sick, o.URL+" is not known to be healthy")
		case m.Value.Outcome != probe.OutcomeAnswered || !m.Value.Healthy || m.Value.LeaderID == "" || m.Value.Learner:
			sick = append(sick, o.URL+" is not healthy")
		}
	}
	if len(sick) > 0 {
		return refuse("every other member must be healthy before one that runs is stopped: %s", strings.Join(sick, ", "))
	}
	return ""
}
