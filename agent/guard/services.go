package guard

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The rules in this file are what guards ask of services other than Patroni.

// serviceFreshness names the facts that an action on such a service rests on and that are unknown or too old.
func (c *check) serviceFreshness() []string {
	var bad []string
	need := func(name string, fresh bool) {
		if !fresh && !planted.On("guard/unknown-member-is-healthy") {
			bad = append(bad, name)
		}
	}
	need("the unit's state", c.unit.Fresh(c.now, c.limit()))
	// Only Linux has a process table. Where there is one, one that is old does not show a package manager that has begun since.
	need("the process table", !c.in.Snapshot.Machine.Known || c.in.Snapshot.Machine.Fresh(c.now, FreshScan))
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
	case node.KindHAProxy, node.KindGeneric, node.KindMachine, node.KindPatroni:
		need("its check", c.facts.Check.Fresh(c.now, c.limit()))
	}
	return bad
}

// serviceIdentity: a member of etcd, and whoever answers behind a forwarder, must be who it was configured or known to be
// (FAULTS.md S20). A start brings back what is installed here, whoever that is; only a restart rests on who answered.
func (c *check) serviceIdentity() string {
	if c.a.Verb != node.Restart || c.m.Stranger == "" {
		return ""
	}
	return refuse("who answers there is %s, not %s", c.m.Stranger, nameOr(c.s.Identity, c.m.Answerer))
}

// corrupt reports whether any member is known to raise CORRUPT (FAULTS.md F51).
func (c *check) corrupt() bool {
	if c.in.Snapshot.DCS.Alarms.Known && slices.Contains(c.in.Snapshot.DCS.Alarms.Value, "CORRUPT") {
		return true
	}
	return slices.ContainsFunc(append([]node.Peer{{Member: c.facts.Member}}, c.facts.Others...), func(p node.Peer) bool {
		return p.Member.Known && slices.Contains(p.Member.Value.Alarms, "CORRUPT")
	})
}

// serviceUnit: the unit must be such that the verb does what it says.
func (c *check) serviceUnit() string {
	u := c.unit.Value
	switch {
	case !slices.Contains(c.kind.Verbs(), c.a.Verb):
		return refuse("%s is not done to a service of kind %s", c.a.Verb, c.kind)
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
// without it (FAULTS.md F39, S10). Of two members neither is spare. A member that answers on two addresses counts once.
func (c *check) etcdRedundancy() string {
	var sick []string
	healthy := map[string]bool{}
	for _, o := range c.facts.Others {
		if why := c.spare(o.Member); why != "" {
			sick = append(sick, o.URL+" "+why)
			continue
		}
		healthy[o.Member.Value.MemberID] = true
	}
	for _, o := range c.facts.Others {
		sick = append(sick, c.unseen(o, healthy)...)
	}
	switch {
	case len(sick) > 0:
		return refuse("every other member must be healthy before one that runs is stopped: %s", strings.Join(sick, ", "))
	case len(healthy) < 2 && !planted.On("guard/quorum-of-one"):
		return refuse("%d other members of etcd are known; without this one there would be no quorum", len(healthy))
	}
	return ""
}

// machineRedundancy: a machine that is stopped takes everything in it along. What this file names of that is out of sight
// already, or the restart would not be proposed; a Patroni of this machine is not named by any chain.
func (c *check) machineRedundancy() string {
	if len(c.in.Spec.Patroni) > 0 {
		return refuse("a Patroni is looked after here too, and it is not known that it is not in %s", c.a.Service)
	}
	return ""
}

// spare returns why another member does not count for the quorum.
func (c *check) spare(m node.Fact[probe.EtcdMember]) string {
	cluster, _, _ := strings.Cut(nameOr(c.m.Answerer, c.s.Identity), "/")
	switch {
	case !m.Fresh(c.now, c.limit()) && !planted.On("guard/unknown-member-is-healthy"):
		return "is not known to be healthy"
	case !m.Value.Serves() || !m.Value.Healthy || m.Value.MemberID == "":
		return "is not healthy"
	case m.Value.Learner:
		return "is a learner"
	case cluster != "" && m.Value.ClusterID != cluster:
		return "is of another cluster"
	}
	return ""
}

// unseen are the members that a member lists and that are neither healthy nor the one of this machine.
func (c *check) unseen(o node.Peer, healthy map[string]bool) []string {
	_, me, _ := strings.Cut(nameOr(c.m.Answerer, c.s.Identity), "/")
	var out []string
	for _, id := range o.Member.Value.Members {
		if id != me && !healthy[id] {
			out = append(out, fmt.Sprintf("%s lists the member %s, which is not known to be healthy", o.URL, id))
		}
	}
	return out
}
