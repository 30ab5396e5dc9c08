package guard

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// The guards in this file look at the whole cluster: what it goes through, and what its other agents do.

// WithoutDCS says whether a verb may be used on a service of that kind while this node has no linearizable view of etcd,
// and why. Nothing may be done to Patroni (FACTS.md §3.4, first row), and a kind that is not known here gets no benefit of
// the doubt. What crashed on this machine may be started, and a forwarder, which carries nothing while it hangs, restarted:
// they may be why there is no view (FAULTS.md S17, F40).
func WithoutDCS(kind node.Kind, verb node.Verb) (allowed bool, why string) {
	switch {
	case kind == node.KindPatroni && verb == node.SoftKill:
		return false, "a Patroni that is killed without etcd cannot come back, and stops PostgreSQL or leaves it unmanaged (FACTS.md §3.4)"
	case kind == node.KindPatroni && verb == node.StartFailed:
		return false, "a Patroni that is started without etcd waits for it before it looks at PostgreSQL, and can demote a primary that runs (FACTS.md §3.4)"
	case kind == node.KindPatroni && verb == node.Restart:
		return false, "a restart of Patroni stops PostgreSQL (FAULTS.md L3)"
	case verb == node.StartFailed && kind == node.KindHAProxy:
		return true, "it crashed on this machine, and its own checks find the leader without etcd"
	case verb == node.StartFailed && (kind == node.KindEtcd || kind == node.KindForwarder || kind == node.KindGeneric || kind == node.KindMachine):
		return true, "it crashed on this machine, and may be why etcd does not answer (FAULTS.md F40)"
	case verb == node.Restart && kind == node.KindForwarder:
		return true, "it carries nothing while it hangs, and may be why etcd does not answer (FAULTS.md F72)"
	case verb == node.Restart && (kind == node.KindEtcd || kind == node.KindHAProxy || kind == node.KindGeneric || kind == node.KindMachine):
		return false, "it runs, and nobody can say what depends on it now (FAULTS.md S11)"
	case !slices.Contains(node.Kinds(), kind):
		return false, "what a service of kind " + nameOr(string(kind), "(none)") + " does without etcd is not known"
	}
	return false, "the verb is not known"
}

// noDCS: without a fresh linearizable view of etcd only what WithoutDCS lists is done (DESIGN.md §5, FACTS.md §3.4).
func noDCS(c *check) string {
	view := c.in.Snapshot.DCS.Cluster
	if view.Fresh(c.now, c.limit()) || planted.On("engine/zombie-on-stale-view") && c.a.Fence {
		return ""
	}
	allowed, why := WithoutDCS(c.kind, c.a.Verb)
	switch {
	case allowed:
		return ""
	case !view.Known:
		return refuse("there is no linearizable view of etcd (%s): %s", nameOr(view.Why, "not read yet"), why)
	}
	return refuse("the linearizable view of etcd is %s old, limit %s: %s", view.Age(c.now).Round(100*time.Millisecond), c.limit(), why)
}

// local are the actions that heal what crashed or misbehaves on this machine whatever the cluster goes through, as long as
// they stop nothing that runs.
func (c *check) local() bool {
	return c.a.Class != node.ClassDisrupt && (c.urgent() || c.kind == node.KindForwarder)
}

// storm: where most of the cluster is sick at once, the cause is something that they share, and healing members would only
// add to it (FAULTS.md S16).
func storm(c *check) string {
	if at := c.in.Memory.StormSeen; !c.local() && at != 0 && c.now.Sub(at) < node.StormFreeze {
		return refuse("more than half of the cluster was sick at once %s ago; nothing is done until that has been over for %s", c.now.Sub(at).Round(time.Second), node.StormFreeze)
	}
	return ""
}

// flap: what changes again and again is not healed by one change more (DESIGN.md §5).
func flap(c *check) string {
	if c.a.Fence {
		return ""
	}
	if n := node.Within(c.in.Memory.Leaders, c.now, node.FlapWindow); n >= node.FlapLeaders && c.kind == node.KindPatroni {
		return refuse("the leader changed %d times within %s, limit %d", n, node.FlapWindow, node.FlapLeaders)
	}
	if n := node.Within(c.m.Starts, c.now, node.FlapWindow); n >= node.FlapStarts && c.a.Verb != node.StartFailed && !planted.On("guard/no-start-reserve") {
		return refuse("%s was started %d times within %s, limit %d", c.a.Service, n, node.FlapWindow, node.FlapStarts)
	}
	return ""
}

// redundancy: something that runs is only stopped while another healthy member could take over (FAULTS.md S10). A member
// that lags, must not lead, follows another timeline, is ahead of its leader or was seen to differ from it is none
// (FAULTS.md F105).
func redundancy(c *check) string {
	if c.a.Class != node.ClassDisrupt || c.a.Fence {
		return ""
	}
	switch c.kind {
	case node.KindEtcd:
		return c.etcdRedundancy()
	case node.KindMachine:
		return c.machineRedundancy()
	case node.KindPatroni, node.KindForwarder, node.KindHAProxy, node.KindGeneric:
	}
	cl := c.cluster()
	lead, _ := cl.Member(cl.LeaderName())
	if !slices.ContainsFunc(cl.Members, func(m node.Member) bool { return c.couldLead(m, lead) }) {
		return refuse("no other member streams on the leader's timeline within %d bytes of it and may lead", cl.Config.MaximumLagOnFailover)
	}
	return ""
}

func (c *check) couldLead(m, lead node.Member) bool {
	cl := c.cluster()
	switch {
	case m.Name == c.spec.Member, m.Name == lead.Name, m.NoFailover, m.State != "running" && m.State != "streaming":
		return false
	case !m.HasLSN, m.ReplicationState != "streaming", m.Timeline != lead.Timeline:
		return false
	case c.in.Memory.Members[m.Name].Diverged && !planted.On("guard/diverged-candidate"):
		return false
	}
	ahead := lead.HasLSN && m.ModRevision < lead.ModRevision && m.LSN > lead.LSN
	lags := m.LSN < cl.Optime && cl.Optime-m.LSN > cl.Config.MaximumLagOnFailover
	return !ahead && (!lags || planted.On("guard/lagging-candidate"))
}

// clusterLock: one node of a cluster at a time stops something that runs (DESIGN.md §5). The lock is taken by the executor,
// in the same step as the act; here it is only respected. One that this node holds is of an action that is not settled, or
// was left behind by a crash: nobody can use it, and asking etcd for it again and again until it ends helps nobody.
func clusterLock(c *check) string {
	if c.a.Class != node.ClassDisrupt {
		return ""
	}
	shared := c.in.Snapshot.DCS.Shared
	switch {
	case !shared.Known && !planted.On("guard/shared-unknown-is-empty"):
		return refuse("it is unknown who holds the cluster lock: %s", nameOr(shared.Why, "not read yet"))
	case shared.Known && shared.Value.Lock == c.in.Spec.Node:
		return refuse("this node itself has held the cluster lock since before this decision, for another action or until its agent crashed; it ends within 2m")
	case shared.Known && shared.Value.Lock != "":
		return refuse("%s holds the cluster lock: something else in the cluster is being stopped", shared.Value.Lock)
	}
	return ""
}

// clusterBudget: so many actions per hour in the whole cluster and no more (FAULTS.md S26). What is revived on this machine
// and is no Patroni counts here only, since it must be possible without etcd.
func clusterBudget(c *check) string {
	if !c.a.Shared() {
		return ""
	}
	shared := c.in.Snapshot.DCS.Shared
	if !shared.Fresh(c.now, c.limit()) && !planted.On("guard/shared-unknown-is-empty") {
		return refuse("what the cluster's other agents did within the hour is unknown: %s", nameOr(shared.Why, "not read lately"))
	}
	disrupts := 0
	for _, s := range shared.Value.Spent {
		if s.Class == node.ClassDisrupt {
			disrupts++
		}
	}
	switch n := len(shared.Value.Spent); {
	case n >= clusterPerHour:
		return refuse("%d of %d actions per hour in the whole cluster are spent", n, clusterPerHour)
	case c.a.Class == node.ClassDisrupt && disrupts >= disruptPerHour:
		return refuse("%d of %d disrupting actions per hour in the whole cluster are spent", disrupts, disruptPerHour)
	}
	return ""
}
