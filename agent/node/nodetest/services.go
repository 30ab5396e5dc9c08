package nodetest

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Names of the services of other kinds, each with a unit of the same name.
const (
	Etcd      = "etcd"
	Forwarder = "socat"
	Generic   = "proxy"
)

// EtcdCluster and the members of etcd: EtcdMe is the one of this machine.
const (
	EtcdCluster = "c1"
	EtcdMe      = "m1"
	EtcdSecond  = "m2"
	EtcdThird   = "m3"
)

// Services returns what the agent of a machine was told that runs a service of every kind but Patroni, with the given mode for
// every class but expedite.
func Services(mode node.Mode) node.Spec {
	s := Spec(mode)
	s.Patroni = nil
	s.Services = []node.ServiceSpec{
		{Service: Etcd, Kind: node.KindEtcd, Unit: Etcd, Manager: "docker", Policy: s.Policy, Identity: EtcdCluster + "/" + EtcdMe},
		{Service: Forwarder, Kind: node.KindForwarder, Unit: Forwarder, Manager: "launchd", Policy: s.Policy},
		{Service: Generic, Kind: node.KindGeneric, Unit: Generic, Manager: "openrc", Policy: s.Policy},
	}
	return s
}

// SnapServices returns a snapshot of that machine at now in which everything is well, with the changes applied in order.
func SnapServices(now time.Duration, changes ...Change) node.Snapshot {
	s := Snap(now)
	at := s.Now
	s.Patroni = nil
	hop := probe.Hop{Outcome: probe.OutcomeAnswered, Identity: EtcdCluster + "/" + EtcdSecond}
	s.Services = []node.ServiceFacts{
		{
			Service: Etcd, Unit: node.Seen(Run(Etcd), "docker", at), Member: node.Seen(Member(EtcdMe), "etcd", at),
			Process: node.Seen(probe.Process{Exists: true, PID: 500, State: "S", StartTick: 100}, "proc", at),
			Others: []node.Peer{
				{URL: "http://two:2379", Member: node.Seen(Member(EtcdSecond), "etcd", at)},
				{URL: "http://three:2379", Member: node.Seen(Member(EtcdThird), "etcd", at)},
			},
		},
		{
			Service: Forwarder, Unit: node.Seen(Run(Forwarder), "launchd", at),
			Through: node.Seen(hop, "etcd", at), Past: node.Seen(hop, "etcd", at),
		},
		{
			Service: Generic, Unit: node.Seen(Run(Generic), "openrc", at),
			Check: node.Seen(probe.Check{Outcome: probe.OutcomeAnswered, OK: true}, "check", at),
		},
	}
	for _, c := range changes {
		c(&s)
	}
	return s
}

// Run is a healthy unit that its manager starts again when it crashes.
func Run(unit string) service.Status {
	return service.Status{
		Unit: unit, State: service.StateRunning, Detail: "running", Enablement: "enabled", MainPID: 500,
		InvocationID: "bbbbbbbb22222222", Restart: "on-failure",
	}
}

// Member is a healthy member of a cluster of etcd that EtcdSecond leads.
func Member(id string) probe.EtcdMember {
	return probe.EtcdMember{
		Outcome: probe.OutcomeAnswered, Health: probe.OutcomeAnswered, Healthy: true, ClusterID: EtcdCluster, MemberID: id,
		LeaderID: EtcdSecond, RaftTerm: 3, Version: "3.5.16", DBSize: 20 << 20, DBInUse: 10 << 20,
		Members: []string{EtcdMe, EtcdSecond, EtcdThird},
	}
}

// Of applies a change to the facts about the service of that name.
func Of(name string, f func(*node.ServiceFacts)) Change {
	return func(s *node.Snapshot) {
		for i := range s.Services {
			if s.Services[i].Service == name {
				f(&s.Services[i])
			}
		}
	}
}

// UnitOf changes the status of the unit of the service of that name.
func UnitOf(name string, f func(*service.Status)) Change {
	return Of(name, func(s *node.ServiceFacts) { f(&s.Unit.Value) })
}

// Crashed is a service that ended, and that its manager does not start again.
func Crashed(name, result string) Change {
	return Of(name, func(f *node.ServiceFacts) {
		u := &f.Unit.Value
		u.State, u.Detail, u.Result, u.ExitStatus, u.MainPID = service.StateFailed, "exited", result, 137, 0
		f.Process = node.Fact[probe.Process]{}
		f.Member.Value = probe.EtcdMember{Outcome: probe.OutcomeRefused, Health: probe.OutcomeRefused}
		f.Through.Value = probe.Hop{Outcome: probe.OutcomeRefused}
		f.Check.Value = probe.Check{Outcome: probe.OutcomeRefused}
	})
}

// EtcdSilent is a member of etcd on this machine that takes connections and answers nothing.
func EtcdSilent() Change {
	return Of(Etcd, func(f *node.ServiceFacts) { f.Member.Value = silent })
}

var silent = probe.EtcdMember{Outcome: probe.OutcomeTimeout, Health: probe.OutcomeTimeout}

// WithOther changes what is seen of another member of etcd, the first or the second of them.
func WithOther(i int, f func(*node.Fact[probe.EtcdMember])) Change {
	return Of(Etcd, func(s *node.ServiceFacts) { f(&s.Others[i].Member) })
}

// OtherSilent is another member of etcd that does not answer this machine.
func OtherSilent(i int) Change {
	return WithOther(i, func(m *node.Fact[probe.EtcdMember]) { m.Value = silent })
}

// Leaderless is a member of etcd without a quorum.
func Leaderless(m probe.EtcdMember) probe.EtcdMember {
	m.LeaderID, m.Healthy, m.Reason = "", false, "RAFT NO LEADER"
	return m
}

// Through is what a request through the forwarder comes to.
func Through(o probe.Outcome) Change {
	return Of(Forwarder, func(f *node.ServiceFacts) { f.Through.Value = probe.Hop{Outcome: o} })
}

// Past is what a request past the forwarder comes to.
func Past(o probe.Outcome) Change {
	return Of(Forwarder, func(f *node.ServiceFacts) { f.Past.Value = probe.Hop{Outcome: o} })
}

// Blind is a machine that gets no linearizable answer from etcd.
func Blind() Change {
	return func(s *node.Snapshot) {
		s.DCS = node.DCS{Cluster: node.Unseen[node.Cluster]("etcd", "no answer", s.Now), Since: s.Now}
	}
}
