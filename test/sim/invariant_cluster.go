package main

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// redundancy: S10, after a disruption of a member another one could lead: it streams from the leader within
// maximum_lag_on_failover, may lead, and has the leader's content. That it streams, and where, is what its key says: one that
// has just hung says so for a ttl. A divergence counts once an agent has been able to see it: a position ahead of the
// leader's, over two of its loops, twice.
func (c *checker) redundancy(a *agent, action node.Action) {
	if action.Class != node.ClassDisrupt || action.Fence {
		return
	}
	w := c.w
	if n := len(w.holders); n > 0 && w.now-w.holders[n-1].at < unseen {
		return // no look could have seen who leads now
	}
	lead := w.machine(w.leader)
	for _, o := range w.machines {
		if w.etcd.keys[o.key] == nil && w.now-o.keyGone > unseen || o == a.m || o == lead {
			continue
		}
		diverged := o.diverged && w.now-max(o.divergedAt, w.garbled.ended) > 4*w.timing.LoopWait+tooOld && !w.garbled.on() && a.born < o.divergedAt
		if !diverged && slices.ContainsFunc(o.said(), func(m saying) bool {
			return slices.ContainsFunc(lead.said(), func(l saying) bool { return couldLead(m.Member, l.Member) })
		}) {
			return
		}
	}
	c.broken(a, "S10", "%s disrupts the last member that could lead", action.Verb)
}

// said returns what a look that began within unseen could have read of a member: all that it published since, and the last
// before.
func (m *machine) said() []saying {
	i := 0
	for i+1 < len(m.sayings) && m.w.now-m.sayings[i+1].at >= unseen {
		i++
	}
	return m.sayings[i:]
}

func couldLead(m, lead node.Member) bool {
	return m.ReplicationState == "streaming" && !m.NoFailover && lead.LSN <= m.LSN+maximumLag
}

// sequence: S12, of several disruptions that of the leader is the last.
func (c *checker) sequence(a *agent, action node.Action) {
	if action.Class != node.ClassDisrupt || action.Leader || action.Fence {
		return
	}
	for _, o := range c.acts {
		if o.action.Class == node.ClassDisrupt && o.action.Leader {
			c.broken(a, "S12", "a replica is disrupted after the leader")
		}
	}
}

// shown is what one process of an agent was shown of the cluster and of its unit, to know what it could have noticed.
type shown struct {
	members map[string]instant // when a member's key was last there
	storm   instant            // when more than half of them were last sick at once
	leader  string
	changes []instant // of the leader
	life    string    // of the unit
	starts  []instant // of the unit
	job     instant   // when it last had one
}

// keysShown is called when an agent has read Patroni's keys.
func (s *shown) keysShown(c *node.Cluster, now instant) {
	if s.members == nil {
		s.members = map[string]instant{}
	}
	well := map[string]bool{}
	for _, m := range c.Members {
		s.members[m.Name] = now
		well[m.Name] = m.State == "running" || m.State == "streaming"
	}
	bad, all := 0, 0
	for name, at := range s.members {
		if now-at > 10*time.Minute {
			continue
		}
		if all++; !well[name] {
			bad++
		}
	}
	if bad >= 2 && 2*bad > all {
		s.storm = now
	}
	if name := c.LeaderName(); name != "" && name != s.leader {
		if s.leader != "" {
			s.changes = append(s.changes, now)
		}
		s.leader = name
	}
}

// unitShown is called when an agent has read its unit.
func (s *shown) unitShown(u service.Status, now instant) {
	if u.Job != "" {
		s.job = now
	}
	if u.InvocationID == "" || u.InvocationID == s.life {
		return
	}
	if s.life != "" {
		s.starts = append(s.starts, now)
	}
	s.life = u.InvocationID
}

// calm: S16, while more than half of the members are sick at once, and for a minute after, nothing is done but what heals
// a local crash or ends a second primary, and that only where nothing that runs is stopped. DESIGN.md §5: what changes again
// and again, three leaders or four starts within ten minutes, is not healed by one change more.
func (c *checker) calm(a *agent, action node.Action) {
	s, now := &a.shown, c.w.now
	local := (action.Fence || action.Verb == node.StartFailed) && action.Class != node.ClassDisrupt
	if s.storm > 0 && s.storm <= a.basis.at && now-s.storm < node.StormFreeze-2*time.Second && !local {
		c.broken(a, "S16", "%s %s after more than half of the members were sick at once", action.Verb, now-s.storm)
	}
	if action.Fence {
		return
	}
	if n := len(s.changes); n >= 3 && now-s.changes[n-3] < 10*time.Minute {
		c.broken(a, "flap", "%s after %d changes of the leader", action.Verb, n)
	}
	if n := len(s.starts); n >= 4 && now-s.starts[n-4] < 10*time.Minute && action.Verb == node.SoftKill {
		c.broken(a, "flap", "%s after %d starts of the unit", action.Verb, n)
	}
}

// isolated: S17, without a linearizable answer of etcd for ten seconds nothing is done to Patroni.
func (c *checker) isolated(a *agent, action node.Action) {
	if age := c.w.now - a.basis.found[seeKeys]; age > tooOld && !c.w.etcd.answers(a.m) {
		c.broken(a, "S17", "%s without an answer of etcd for %s", action.Verb, age)
	}
}

// released: S1, what was locked for a disruption is released once that is settled: the cluster must not wait for a lease of
// two minutes.
func (c *checker) released(a *agent, at node.Attempt) {
	i := c.actOf(a, at)
	if i < 0 || c.acts[i].at < a.born {
		return // the process that took the lock has ended, and it ends with its lease
	}
	w, life, begun := c.w, a.born, a.running
	w.after(5*time.Second, a.m, func() {
		held := w.etcd.value(node.LockKey(scope, node.LockCluster)) == a.m.name
		same := a.alive && a.born == life && a.running == begun && a.m.woke < w.now-5*time.Second
		if held && same && w.now-a.failed > 10*time.Second && a.finished == a.running {
			c.broken(a, "S1", "the lock is held although %s is settled", at.ActionID)
		}
	})
}

// foreignKey: S9, agents write below their own prefix and nowhere else.
func (c *checker) foreignKey(a *agent, key string) {
	if len(key) < len(node.KeyRoot) || key[:len(node.KeyRoot)] != node.KeyRoot {
		c.broken(a, "S9", "writes %s", key)
	}
}
