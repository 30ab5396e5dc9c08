package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// runServices tells a story of the services that are no Patroni to an engine that has seen them well for ten seconds.
func runServices(seconds int, tell func(sec int) []nodetest.Change) ran {
	mem := nodetest.Memory(start)
	for i := -10; i < 0; i++ {
		mem = Step(servicesAt(mem, i)).Memory
	}
	return runServicesFrom(mem, seconds, tell)
}

func runServicesFrom(mem node.Memory, seconds int, tell func(sec int) []nodetest.Change) ran {
	r := ran{mem: mem}
	for i := range seconds {
		out := Step(servicesAt(r.mem, i, tell(i)...))
		r.mem = out.Memory
		r.outputs = append(r.outputs, out)
	}
	return r
}

func servicesAt(mem node.Memory, sec int, changes ...nodetest.Change) node.Question {
	snap := nodetest.SnapServices(start+time.Duration(sec)*time.Second, changes...)
	return node.Question{Spec: nodetest.Services(node.ModeAuto), Memory: mem, Snapshot: snap}
}

// newRun is a unit that runs in another run since it was last looked at.
func newRun(name string) nodetest.Change {
	return nodetest.UnitOf(name, func(u *service.Status) { u.MainPID, u.InvocationID = 700, "cccccccc33333333" })
}

func unitUnknown(name string) nodetest.Change {
	return nodetest.Of(name, func(f *node.ServiceFacts) {
		f.Unit = node.Unseen[service.Status]("docker", "no such file: /run/docker.sock", f.Unit.At)
	})
}

func stoppedBy(name string, change func(*service.Status)) nodetest.Change {
	return func(s *node.Snapshot) {
		nodetest.Crashed(name, "")(s)
		nodetest.UnitOf(name, func(u *service.Status) { u.State, u.ExitStatus = service.StateStopped, 0; change(u) })(s)
	}
}

// serviceStories are told of the machine of nodetest.Services: what must be healed, and many that must not.
func serviceStories() []story {
	never := when{-1, -1}
	etcd, fwd, gen := nodetest.Etcd, nodetest.Forwarder, nodetest.Generic
	always := func(c ...nodetest.Change) func(int) []nodetest.Change {
		return func(int) []nodetest.Change { return c }
	}
	silent, second := nodetest.EtcdSilent(), nodetest.OtherSilent(0)
	unknown := func(i int) nodetest.Change {
		return nodetest.WithOther(i, func(m *node.Fact[probe.EtcdMember]) { *m = node.Unseen[probe.EtcdMember]("etcd", "no route", m.At) })
	}
	leaderless := func(s *node.Snapshot) {
		nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Member.Value = nodetest.Leaderless(f.Member.Value) })(s)
	}
	member := func(f func(*probe.EtcdMember)) nodetest.Change {
		return nodetest.Of(etcd, func(s *node.ServiceFacts) { f(&s.Member.Value) })
	}
	hop := func(f func(*node.ServiceFacts)) nodetest.Change { return nodetest.Of(fwd, f) }
	removed := nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) {
		m.Value.Members = []string{nodetest.EtcdSecond, nodetest.EtcdThird}
	})
	stopped := nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Process.Value.State = "T" })
	took := func(i int, d time.Duration) nodetest.Change {
		return nodetest.WithOther(i, func(m *node.Fact[probe.EtcdMember]) { m.Value.Took = d })
	}
	ms := time.Millisecond // the first of the others leads
	nothing := func(*service.Status) {}

	return []story{
		{name: "F38 the member crashed", seconds: 3, finding: node.EtcdCrashed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(etcd, "signal"))},
		{name: "F38 another member is down", seconds: 60, finding: node.EtcdRedundancyLost, found: when{5, 6}, verb: node.Restart, act: never, tell: always(second)},
		{name: "F38 another member does not answer for a moment", seconds: 20, finding: node.EtcdRedundancyLost, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i < 4 {
				return []nodetest.Change{second}
			}
			return nil
		}},
		{name: "F38 its manager restarts it", seconds: 60, finding: node.EtcdCrashed, found: never, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(etcd, "signal"),
			nodetest.UnitOf(etcd, func(u *service.Status) { u.State = service.StateRestarting }))},
		{name: "F38 a started member catches up", seconds: 300, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i < 3 {
				return []nodetest.Change{nodetest.Crashed(etcd, "signal")}
			}
			return []nodetest.Change{newRun(etcd), silent}
		}},
		{name: "a started member never answers", seconds: 700, finding: node.EtcdHung, found: when{600, 602}, verb: node.Restart, act: when{600, 602}, tell: always(newRun(etcd), silent)},
		{name: "a started member was stopped by a signal", seconds: 60, finding: node.EtcdHung, found: when{30, 32}, verb: node.Restart, act: when{30, 32}, tell: always(newRun(etcd), silent, stopped,
			nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Process.Value.PID = 700 }))},
		{name: "F39 the member hangs", seconds: 60, finding: node.EtcdHung, found: when{30, 30}, verb: node.Restart, act: when{30, 30}, tell: always(silent)},
		{name: "F39 the member hangs for 29 s", seconds: 60, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i <= 29 {
				return []nodetest.Change{silent}
			}
			return nil
		}},
		{name: "F39 it answers once in between", seconds: 50, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i == 25 {
				return nil
			}
			return []nodetest.Change{silent}
		}},
		{name: "F39 it was replaced meanwhile", seconds: 50, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i < 25 {
				return []nodetest.Change{silent}
			}
			return []nodetest.Change{silent, newRun(etcd)}
		}},
		{name: "F43 slow: HTTP answers and gRPC does not", seconds: 120, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) {
			*m = probe.EtcdMember{Outcome: probe.OutcomeTimeout, Health: probe.OutcomeAnswered}
		}))},
		{name: "nobody listens", seconds: 120, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) {
			*m = probe.EtcdMember{Outcome: probe.OutcomeRefused, Health: probe.OutcomeRefused}
		}))},
		{name: "F40 silent, and so are the others: it waits for a quorum", seconds: 700, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: always(silent, second, nodetest.OtherSilent(1))},
		{name: "F40 silent, the others are unknown", seconds: 700, finding: node.EtcdHung, found: never, verb: node.Restart, act: never, tell: always(silent, unknown(0), unknown(1))},
		{name: "F40 no quorum here", seconds: 120, finding: node.EtcdQuorumLost, found: when{5, 6}, verb: node.Restart, act: never, tell: always(leaderless, nodetest.OtherSilent(0), nodetest.OtherSilent(1), nodetest.Blind())},
		{name: "F40 an election", seconds: 20, finding: node.EtcdQuorumLost, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i < 3 {
				return []nodetest.Change{leaderless}
			}
			return nil
		}},
		{name: "F40 no quorum, and the member here crashed", seconds: 3, finding: node.EtcdCrashed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(etcd, "oom-kill"), second, nodetest.OtherSilent(1), nodetest.Blind())},
		{name: "a member that refuses to speak of itself has a leader", seconds: 60, finding: node.EtcdQuorumLost, found: never, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) {
			*m = probe.EtcdMember{Outcome: probe.OutcomeAnswered, Detail: "permission denied", Health: probe.OutcomeAnswered, Healthy: true}
		}))},
		{name: "F41 NOSPACE", seconds: 60, finding: node.EtcdNoSpace, found: when{0, 0}, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.Alarms, m.Healthy, m.Reason = []string{"NOSPACE"}, false, "ALARM NOSPACE" }))},
		{name: "F41 NOSPACE is no lost redundancy", seconds: 60, finding: node.EtcdRedundancyLost, found: never, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.Alarms, m.Healthy, m.Reason = []string{"NOSPACE"}, false, "ALARM NOSPACE" }))},
		{name: "F51 CORRUPT", seconds: 60, finding: node.EtcdCorrupt, found: when{0, 0}, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.Alarms = []string{"CORRUPT"} }))},
		{name: "F42 80 % of the default quota", seconds: 3, finding: node.EtcdQuotaNear, found: when{0, 0}, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.DBSize = 1640 << 20 }))},
		{name: "F42 79 % of it", seconds: 3, finding: node.EtcdQuotaNear, found: never, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.DBSize = 1630 << 20 }))},
		{name: "F42 the member's own quota", seconds: 3, finding: node.EtcdQuotaNear, found: when{0, 0}, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.DBSize, m.DBQuota = 17<<20, 20<<20 }))},
		{name: "versions differ", seconds: 3, finding: node.EtcdVersionSkew, found: when{0, 0}, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.Version = "3.6.1" }))},
		{name: "patch versions differ", seconds: 3, finding: node.EtcdVersionSkew, found: never, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.Version = "3.5.17" }))},
		{name: "S20 another member answers here", seconds: 3, finding: node.EtcdWrongCluster, found: when{0, 0}, verb: node.Restart, act: never, tell: always(member(func(m *probe.EtcdMember) { m.MemberID = "m9" }))},
		{name: "S20 another member answered, and is silent since (refused by identity)", seconds: 60, finding: node.EtcdWrongCluster, found: when{0, 0}, verb: node.StartFailed, act: never, tell: func(i int) []nodetest.Change {
			if i < 3 {
				return []nodetest.Change{member(func(m *probe.EtcdMember) { m.MemberID = "m9" })}
			}
			return []nodetest.Change{silent}
		}},
		{name: "S20 another cluster behind the forwarder", seconds: 3, finding: node.EtcdWrongCluster, found: when{0, 0}, verb: node.Restart, act: never, tell: always(hop(func(f *node.ServiceFacts) { f.Past.Value.Identity, f.Through.Value.Identity = "c2/m1", "c2/m1" }))},
		{name: "F56 another member behind the forwarder", seconds: 3, finding: node.EtcdWrongCluster, found: never, verb: node.Restart, act: never, tell: always(hop(func(f *node.ServiceFacts) { f.Past.Value.Identity, f.Through.Value.Identity = "c1/m3", "c1/m3" }))},
		{name: "the forwarder leads to another member", seconds: 3, finding: node.EtcdWrongCluster, found: when{0, 0}, verb: node.Restart, act: never, tell: always(hop(func(f *node.ServiceFacts) { f.Through.Value.Identity = "c1/m3" }))},
		{name: "F56 removed, and its process ended", seconds: 60, finding: node.EtcdRemoved, found: when{0, 0}, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(etcd, "exit-code"), removed)},
		{name: "F56 removed is no crash", seconds: 60, finding: node.EtcdCrashed, found: never, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(etcd, "exit-code"), removed)},
		{name: "F56 removed, and it hangs", seconds: 60, finding: node.EtcdRemoved, found: when{0, 0}, verb: node.Restart, act: never, tell: always(silent, removed)},
		{name: "F56 nobody answers who could list it", seconds: 3, finding: node.EtcdCrashed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(etcd, "exit-code"), removed, second)},
		{name: "F56 a list of another cluster", seconds: 3, finding: node.EtcdCrashed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(etcd, "exit-code"), removed,
			nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) { m.Value.ClusterID = "c2" }))},
		{name: "F56 a member that lists nobody", seconds: 3, finding: node.EtcdCrashed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(etcd, "exit-code"),
			nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) { m.Value.Members = nil }))},
		{name: "F56 removed and stopped by a person", seconds: 3, finding: node.EtcdRemoved, found: never, verb: node.StartFailed, act: never, tell: always(stoppedBy(etcd, nothing), removed)},
		{name: "F44 the leader is across the sea", seconds: 90, finding: node.EtcdLeaderFar, found: when{60, 60}, verb: node.Restart, act: never, tell: always(took(0, 71*ms), took(1, 2*ms))},
		{name: "F44 it was for 50 s", seconds: 90, finding: node.EtcdLeaderFar, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i > 50 {
				return nil
			}
			return []nodetest.Change{took(0, 71*ms), took(1, 2*ms)}
		}},
		{name: "F44 this machine is across the sea", seconds: 90, finding: node.EtcdLeaderFar, found: never, verb: node.Restart, act: never, tell: always(took(0, 71*ms), took(1, 69*ms))},
		{name: "F44 everybody is near", seconds: 90, finding: node.EtcdLeaderFar, found: never, verb: node.Restart, act: never, tell: always(took(0, 19*ms), took(1, 2*ms))},
		{name: "F44 the one across the sea does not lead", seconds: 90, finding: node.EtcdLeaderFar, found: never, verb: node.Restart, act: never, tell: always(took(0, 2*ms), took(1, 71*ms))},
		{name: "F44 the one here leads", seconds: 90, finding: node.EtcdLeaderFar, found: never, verb: node.Restart, act: never, tell: always(took(0, 71*ms), took(1, 2*ms), member(func(m *probe.EtcdMember) { m.LeaderID = m.MemberID }))},
		{name: "F44 nothing is known of the third", seconds: 90, finding: node.EtcdLeaderFar, found: never, verb: node.Restart, act: never, tell: always(took(0, 71*ms), unknown(1))},
		{name: "F63 a site is cut off", seconds: 120, finding: node.EtcdRedundancyLost, found: when{5, 6}, verb: node.StartFailed, act: never, tell: always(nodetest.OtherSilent(1))},

		{name: "F71 the forwarder died", seconds: 3, finding: node.ForwarderDead, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(fwd, "signal"))},
		{name: "F71 the forwarder died, and nothing is known of etcd", seconds: 3, finding: node.ForwarderDead, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(fwd, "signal"), nodetest.Past(probe.OutcomeTimeout), nodetest.Blind())},
		{name: "F72 the forwarder hangs", seconds: 10, finding: node.ForwarderHung, found: when{2, 3}, verb: node.Restart, act: when{2, 3}, tell: always(nodetest.Through(probe.OutcomeTimeout))},
		{name: "F72 it ends every connection", seconds: 10, finding: node.ForwarderHung, found: when{2, 3}, verb: node.Restart, act: when{2, 3}, tell: always(nodetest.Through(probe.OutcomeBroken))},
		{name: "F72 one answer was lost", seconds: 10, finding: node.ForwarderHung, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i%2 == 0 {
				return []nodetest.Change{nodetest.Through(probe.OutcomeTimeout)}
			}
			return nil
		}},
		{name: "F72 seen again and again, and asked once", seconds: 9, finding: node.ForwarderHung, found: never, verb: node.Restart, act: never, tell: always(nodetest.Through(probe.OutcomeTimeout),
			hop(func(f *node.ServiceFacts) { f.Through.At = node.Instant(start) }))},
		{name: "F72 nothing is known of what is behind it", seconds: 60, finding: node.ForwarderHung, found: never, verb: node.Restart, act: never, tell: always(nodetest.Through(probe.OutcomeTimeout),
			hop(func(f *node.ServiceFacts) { f.Past = node.Fact[probe.Hop]{} }))},
		{name: "F72 nothing is known of what comes through", seconds: 60, finding: node.ForwarderHung, found: never, verb: node.Restart, act: never, tell: always(hop(func(f *node.ServiceFacts) { f.Through = node.Fact[probe.Hop]{} }))},
		{name: "F72 what is known is old", seconds: 60, finding: node.ForwarderHung, found: never, verb: node.Restart, act: never, tell: always(nodetest.Through(probe.OutcomeTimeout),
			hop(func(f *node.ServiceFacts) { f.Past.At = f.Past.At.Add(-11 * time.Second) }))},
		{name: "F73 what is behind it is dead", seconds: 60, finding: node.ForwarderBroken, found: when{2, 3}, verb: node.Restart, act: never, tell: always(nodetest.Through(probe.OutcomeBroken), nodetest.Past(probe.OutcomeRefused))},
		{name: "F77 the machine behind it sleeps", seconds: 60, finding: node.ForwarderBroken, found: when{2, 3}, verb: node.Restart, act: never, tell: always(nodetest.Through(probe.OutcomeTimeout), nodetest.Past(probe.OutcomeTimeout))},
		{name: "F74 the peer forwarder died", seconds: 3, finding: node.ForwarderDead, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(fwd, "signal"), hop(func(f *node.ServiceFacts) { f.Past.Value.Identity = "" }))},
		{name: "F75 it listens nowhere", seconds: 20, finding: node.ForwarderDead, found: when{6, 7}, verb: node.Restart, act: when{6, 7}, tell: always(nodetest.Through(probe.OutcomeRefused))},
		{name: "F75 it is about to listen", seconds: 20, finding: node.ForwarderDead, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i < 5 {
				return []nodetest.Change{newRun(fwd), nodetest.Through(probe.OutcomeRefused)}
			}
			return []nodetest.Change{newRun(fwd)}
		}},
		{name: "F75 it listens nowhere, and what is behind it is dead too", seconds: 60, finding: node.ForwarderBroken, found: when{2, 3}, verb: node.Restart, act: never, tell: always(nodetest.Through(probe.OutcomeRefused), nodetest.Past(probe.OutcomeRefused))},
		{name: "it was restarted meanwhile", seconds: 4, finding: node.ForwarderHung, found: never, verb: node.Restart, act: never, tell: func(i int) []nodetest.Change {
			if i < 2 {
				return []nodetest.Change{nodetest.Through(probe.OutcomeTimeout)}
			}
			return []nodetest.Change{nodetest.Through(probe.OutcomeTimeout), newRun(fwd)}
		}},

		{name: "F79 crash after crash", seconds: 60, finding: node.ServiceCrashing, found: when{30, 30}, verb: node.StartFailed, act: never, tell: func(i int) []nodetest.Change {
			return []nodetest.Change{nodetest.UnitOf(gen, func(u *service.Status) { u.InvocationID, u.Restarts = "run"+string(rune('a'+i/15)), 1+i/15 })}
		}},
		{name: "F79 restarts that nobody looked at", seconds: 3, finding: node.ServiceCrashing, found: when{2, 2}, verb: node.StartFailed, act: never, tell: func(i int) []nodetest.Change {
			return []nodetest.Change{nodetest.UnitOf(gen, func(u *service.Status) { u.InvocationID, u.Restarts = "run"+string(rune('a'+i/2)), 1+i/2*2 })}
		}},
		{name: "generic, crashed", seconds: 3, finding: node.ServiceCrashed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0}, tell: always(nodetest.Crashed(gen, "signal"))},
		{name: "generic, its check fails", seconds: 120, finding: node.ServiceFails, found: when{6, 7}, verb: node.Restart, act: never, tell: always(nodetest.Of(gen, func(f *node.ServiceFacts) { f.Check.Value.OK = false }))},
		{name: "generic, its check is unknown", seconds: 120, finding: node.ServiceFails, found: never, verb: node.Restart, act: never, tell: always(nodetest.Of(gen, func(f *node.ServiceFacts) { f.Check = node.Fact[probe.Check]{} }))},
		{name: "F07 stopped by a person", seconds: 120, finding: node.ServiceStopped, found: when{0, 0}, verb: node.StartFailed, act: never, tell: always(stoppedBy(etcd, nothing))},
		{name: "F07 stopped by a person, and it ended with an error", seconds: 120, finding: node.ServiceStopped, found: when{0, 0}, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(gen, "exit-code"), nodetest.UnitOf(gen, func(u *service.Status) { u.Halted = true }))},
		{name: "F08 disabled and failed", seconds: 120, finding: node.ServiceStopped, found: when{0, 0}, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(fwd, "signal"), nodetest.UnitOf(fwd, func(u *service.Status) { u.Enablement = "disabled" }))},
		{name: "F08 masked", seconds: 120, finding: node.ServiceStopped, found: when{0, 0}, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(fwd, "signal"), nodetest.UnitOf(fwd, func(u *service.Status) { u.Masked = true }))},
		{name: "being stopped", seconds: 120, finding: node.EtcdCrashed, found: never, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(etcd, ""), nodetest.UnitOf(etcd, func(u *service.Status) { u.State = service.StateStopping }))},
		{name: "a manager that does not say", seconds: 120, finding: node.EtcdCrashed, found: never, verb: node.StartFailed, act: never, tell: always(nodetest.Crashed(etcd, ""), nodetest.UnitOf(etcd, func(u *service.Status) { u.State = service.StateUnknown }))},
		{name: "F104o the manager is gone", seconds: 120, finding: node.ManagerUnavailable, found: when{0, 0}, verb: node.Restart, act: never, tell: always(unitUnknown(etcd), silent)},
		{name: "F104o the manager of a forwarder is gone", seconds: 120, finding: node.ManagerUnavailable, found: when{0, 0}, verb: node.Restart, act: never, tell: always(unitUnknown(fwd), nodetest.Through(probe.OutcomeTimeout))},
		{name: "the manager forbids", seconds: 3, finding: node.ManagerForbids, found: when{0, 0}, verb: node.StartFailed, act: never, tell: always(nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Limits = node.Seen("start: permission denied", "polkit", f.Unit.At) }))},
		{name: "the manager allows everything", seconds: 3, finding: node.ManagerForbids, found: never, verb: node.StartFailed, act: never, tell: always(nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Limits = node.Seen("", "polkit", f.Unit.At) }))},
		{name: "a person paused the container (refused by operator-job-running)", seconds: 120, finding: node.ServiceStopped, found: never, verb: node.StartFailed, act: never, tell: always(silent, nodetest.UnitOf(etcd, func(u *service.Status) { u.Job = "pause" }))},
	}
}

func TestStep_ServiceStories(t *testing.T) {
	for _, tt := range serviceStories() {
		t.Run(tt.name, func(t *testing.T) {
			r := runServices(tt.seconds, tt.tell)
			if got := r.firstFinding(tt.finding); got < tt.found.from || got > tt.found.to {
				t.Errorf("%s first found at %d s, want %v", tt.finding, got, tt.found)
			}
			if got := r.firstAction(tt.verb); got < tt.act.from || got > tt.act.to {
				t.Errorf("%s first proposed at %d s, want %v", tt.verb, got, tt.act)
			}
			for i, o := range r.outputs {
				if len(o.Actions) > 1 {
					t.Fatalf("at %d s: %v", i, o.Actions)
				}
			}
		})
	}
}

func TestStep_HealthyServicesFindNothing(t *testing.T) {
	for i, o := range runServices(120, func(int) []nodetest.Change { return nil }).outputs {
		if len(o.Findings)+len(o.Actions) > 0 || o.Attention {
			t.Fatalf("at %d s: findings %v, actions %v, attention %t", i, o.Findings, o.Actions, o.Attention)
		}
	}
}

// TestStep_ServiceWords: findings say what a person needs at night, and rest on what was seen.
func TestStep_ServiceWords(t *testing.T) {
	for code, want := range map[node.Code]struct {
		changes []nodetest.Change
		text    string
	}{
		node.EtcdRedundancyLost: {[]nodetest.Change{nodetest.OtherSilent(0)}, "2 of 3 members of etcd work, as seen from here; not http://two:2379. 0 more may be lost"},
		node.EtcdRemoved:        {[]nodetest.Change{nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { m.Value.Members = []string{"m2", "m3"} })}, "http://three:2379 does not list the member of this machine (c1/m1)"},
		node.EtcdLeaderFar: {[]nodetest.Change{
			nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) { m.Value.Took = 71 * time.Millisecond }),
			nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { m.Value.Took = 2 * time.Millisecond }),
		}, "The raft leader is http://two:2379, which takes 71ms to answer from here, while 2 of 3 members are close together here."},
		node.ForwarderBroken:  {[]nodetest.Change{nodetest.Through(probe.OutcomeRefused), nodetest.Past(probe.OutcomeRefused)}, "nothing listens on the forwarder's own address either"},
		node.ServiceStopped:   {[]nodetest.Change{nodetest.Crashed(nodetest.Generic, "signal"), nodetest.UnitOf(nodetest.Generic, func(u *service.Status) { u.Masked = true })}, "proxy has failed (signal), and it is masked: nobody but a person may start it"},
		node.EtcdWrongCluster: {[]nodetest.Change{nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member.Value.ClusterID = "c2" })}, "Who answers there is c2/m1, and should be c1/m1."},
	} {
		f := runServices(62, func(int) []nodetest.Change { return want.changes }).finding(t, code)
		if !strings.Contains(f.Text, want.text) || len(f.Evidence) == 0 {
			t.Errorf("%s: %q, want %q; evidence %v", code, f.Text, want.text, f.Evidence)
		}
	}
}

func TestStep_NoQuorumIsSaid(t *testing.T) {
	f := runServices(20, func(int) []nodetest.Change {
		return []nodetest.Change{nodetest.OtherSilent(0), nodetest.OtherSilent(1)}
	}).finding(t, node.EtcdRedundancyLost)
	if want := "A quorum is not seen from here."; !strings.Contains(f.Text, want) {
		t.Errorf("%q lacks %q", f.Text, want)
	}
}

// TestStep_UnknownIsNotSaidToWork: a member of which nothing is known is neither lost nor a reserve.
func TestStep_UnknownIsNotSaidToWork(t *testing.T) {
	unknown := nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { m.Known = false })
	f := runServices(20, func(int) []nodetest.Change { return []nodetest.Change{nodetest.OtherSilent(0), unknown} }).finding(t, node.EtcdRedundancyLost)
	want := "1 of 3 members of etcd work, as seen from here; not http://two:2379, and nothing is known of http://three:2379. A quorum is not seen from here."
	if f.Text != want {
		t.Errorf("%q, want %q", f.Text, want)
	}
}

// TestStep_HealOfAServiceFailed: a heal in vain stays visible.
func TestStep_HealOfAServiceFailed(t *testing.T) {
	q := servicesAt(node.Memory{}, 0, nodetest.Crashed(nodetest.Etcd, "exit-code"))
	q.Attempts = []node.Attempt{{Verb: node.StartFailed, Service: nodetest.Etcd, Finding: node.EtcdCrashed, BootID: nodetest.BootID, At: q.Snapshot.Now.Add(-time.Minute), Done: true, Result: node.ResultUnverified}}
	i := slices.IndexFunc(Step(q).Findings, func(f node.Finding) bool { return f.Code == node.HealFailed && f.Subject == nodetest.Etcd })
	if i < 0 {
		t.Error("HEAL_FAILED is not found")
	}
}

// TestVerify_Services: a start has worked when the service does what it is for; a member of etcd that waits for a quorum
// cannot, and has worked when it runs.
func TestVerify_Services(t *testing.T) {
	act := func(service string, works bool) node.Attempt {
		return node.Attempt{
			Verb: node.StartFailed, Service: service, BootID: nodetest.BootID, At: node.Instant(start), Settle: time.Minute,
			Before: node.Baseline{InvocationID: "old"}, Expect: node.Expectation{NewInvocation: true, Works: works},
		}
	}
	for _, tt := range []struct {
		name    string
		attempt node.Attempt
		after   time.Duration
		change  nodetest.Change
		want    node.AttemptResult
	}{
		{"etcd serves", act(nodetest.Etcd, true), 3 * time.Second, nil, node.ResultVerified},
		{"etcd serves under NOSPACE", act(nodetest.Etcd, true), 3 * time.Second, nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member.Value.Healthy = false }), node.ResultVerified},
		{"etcd is silent", act(nodetest.Etcd, true), 3 * time.Second, nodetest.EtcdSilent(), node.ResultExecuted},
		{"etcd stays silent", act(nodetest.Etcd, true), 61 * time.Second, nodetest.EtcdSilent(), node.ResultUnverified},
		{"etcd waits for a quorum", act(nodetest.Etcd, false), 3 * time.Second, nodetest.EtcdSilent(), node.ResultVerified},
		{"the same run", act(nodetest.Etcd, false), 3 * time.Second, nodetest.UnitOf(nodetest.Etcd, func(u *service.Status) { u.InvocationID = "old" }), node.ResultExecuted},
		{"a run that its manager does not know", act(nodetest.Etcd, false), 3 * time.Second, nodetest.UnitOf(nodetest.Etcd, func(u *service.Status) { u.InvocationID = "" }), node.ResultExecuted},
		{"a look from before", act(nodetest.Etcd, false), 3 * time.Second, nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Unit.At = node.Instant(start - 1) }), node.ResultExecuted},
		{"etcd served before it crashed", act(nodetest.Etcd, true), 3 * time.Second, nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member.At = node.Instant(start - 1) }), node.ResultExecuted},
		{"something came through before", act(nodetest.Forwarder, true), 3 * time.Second, nodetest.Of(nodetest.Forwarder, func(f *node.ServiceFacts) { f.Through.At = node.Instant(start - 1) }), node.ResultExecuted},
		{"the check passed before", act(nodetest.Generic, true), 3 * time.Second, nodetest.Of(nodetest.Generic, func(f *node.ServiceFacts) { f.Check.At = node.Instant(start - 1) }), node.ResultExecuted},
		{"something comes through", act(nodetest.Forwarder, true), 3 * time.Second, nil, node.ResultVerified},
		{"nothing comes through", act(nodetest.Forwarder, true), 61 * time.Second, nodetest.Through(probe.OutcomeTimeout), node.ResultUnverified},
		{"the check passes", act(nodetest.Generic, true), 3 * time.Second, nil, node.ResultVerified},
		{"the check fails", act(nodetest.Generic, true), 61 * time.Second, nodetest.Of(nodetest.Generic, func(f *node.ServiceFacts) { f.Check.Value.OK = false }), node.ResultUnverified},
	} {
		var changes []nodetest.Change
		if tt.change != nil {
			changes = append(changes, tt.change)
		}
		got, why := Verify(nodetest.Services(node.ModeAuto), tt.attempt, nodetest.SnapServices(start+tt.after, changes...))
		if got != tt.want {
			t.Errorf("%s: got %s (%s), want %s", tt.name, got, why, tt.want)
		}
	}
}

func TestStep_ExpectsOfEtcdWhatItCanDo(t *testing.T) {
	crashed, gone := nodetest.Crashed(nodetest.Etcd, "signal"), nodetest.OtherSilent(0)
	for works, changes := range map[bool][]nodetest.Change{true: {crashed, gone}, false: {crashed, gone, nodetest.OtherSilent(1)}} {
		r := runServices(1, func(int) []nodetest.Change { return changes })
		if a := r.outputs[0].Actions[0]; a.Expect.Works != works || !a.Expect.NewInvocation || a.Class != node.ClassRevive {
			t.Errorf("with a quorum %t: %+v, class %s", works, a.Expect, a.Class)
		}
	}
}

// What an agent knows of who is who outlives it; whether a member was heard does not outlive the boot.
func TestRecall_Services(t *testing.T) {
	mem := runServices(1, func(int) []nodetest.Change { return nil }).mem
	for _, sameBoot := range []bool{true, false} {
		got := Recall(Keep(mem, node.Instant(start)), sameBoot, node.Instant(start)).Services[nodetest.Etcd]
		if got.Answerer != "c1/m1" || got.Heard != sameBoot {
			t.Errorf("same boot %t: %+v", sameBoot, got)
		}
	}
}

// serviceChanges are the ways in which the snapshots of the properties below differ.
func serviceChanges() map[string]nodetest.Change {
	out := map[string]nodetest.Change{
		"etcd silent": nodetest.EtcdSilent(), "second silent": nodetest.OtherSilent(0), "third silent": nodetest.OtherSilent(1),
		"through timeout": nodetest.Through(probe.OutcomeTimeout), "through refused": nodetest.Through(probe.OutcomeRefused),
		"past refused": nodetest.Past(probe.OutcomeRefused), "blind": nodetest.Blind(),
		"member unknown":  nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member = node.Fact[probe.EtcdMember]{} }),
		"second unknown":  nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) { *m = node.Fact[probe.EtcdMember]{} }),
		"third unknown":   nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { *m = node.Fact[probe.EtcdMember]{} }),
		"through unknown": nodetest.Of(nodetest.Forwarder, func(f *node.ServiceFacts) { f.Through = node.Fact[probe.Hop]{} }),
		"past unknown":    nodetest.Of(nodetest.Forwarder, func(f *node.ServiceFacts) { f.Past = node.Fact[probe.Hop]{} }),
		"check unknown":   nodetest.Of(nodetest.Generic, func(f *node.ServiceFacts) { f.Check = node.Fact[probe.Check]{} }),
	}
	for _, name := range []string{nodetest.Etcd, nodetest.Forwarder, nodetest.Generic} {
		out[name+" crashed"] = nodetest.Crashed(name, "signal")
		out[name+" stopped"] = stoppedBy(name, func(*service.Status) {})
		out[name+" unit unknown"] = unitUnknown(name)
		out[name+" new run"] = newRun(name)
	}
	return out
}

// TestStep_NeverOnTheUnknown: whatever happens, nothing is proposed for a unit that is unknown, nothing is started but what
// failed, and nothing restarted on facts that are not there. The same question has the same answer.
func TestStep_NeverOnTheUnknown(t *testing.T) {
	all := serviceChanges()
	var names []string
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	rapid.Check(t, func(rt *rapid.T) {
		mem, sec := node.Memory{}, 0
		for range rapid.IntRange(1, 5).Draw(rt, "phases") {
			picked := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 5, rapid.ID[string]).Draw(rt, "changes")
			for range rapid.IntRange(1, 35).Draw(rt, "looks") {
				sec++
				var changes []nodetest.Change
				for _, n := range picked {
					changes = append(changes, all[n])
				}
				q := servicesAt(mem, sec, changes...)
				out := Step(q)
				if d := cmp.Diff(out, Step(q)); d != "" {
					rt.Fatalf("same question, another answer:\n%s", d)
				}
				for _, a := range out.Actions {
					founded(rt, a, q.Snapshot)
				}
				mem = out.Memory
			}
		}
	})
}

func founded(rt *rapid.T, a node.Action, s node.Snapshot) {
	f := s.Services[slices.IndexFunc(s.Services, func(f node.ServiceFacts) bool { return f.Service == a.Service })]
	ok := f.Unit.Known
	switch {
	case a.Verb == node.StartFailed:
		ok = ok && f.Unit.Value.State == service.StateFailed
	case a.Kind == node.KindEtcd:
		ok = ok && f.Unit.Value.State == service.StateRunning && f.Member.Known && f.Member.Value.Silent()
	case a.Kind == node.KindForwarder:
		ok = ok && f.Unit.Value.State == service.StateRunning && f.Through.Known && f.Past.Known && f.Past.Value.Outcome == probe.OutcomeAnswered
	default:
		ok = false
	}
	if !ok || !slices.Contains(a.Kind.Verbs(), a.Verb) {
		rt.Fatalf("%s of %s because of %s is founded on nothing: %+v", a.Verb, a.Service, a.Finding, f)
	}
}
