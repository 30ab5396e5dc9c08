package guard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// serviceInput is the situation of a case about a service that is no Patroni.
func (tt guardCase) serviceInput() Input {
	changes := append([]nodetest.Change{}, tt.base...)
	if tt.change != nil {
		changes = append(changes, tt.change)
	}
	in := Input{Spec: nodetest.Services(node.ModeAuto), Snapshot: nodetest.SnapServices(at, changes...), Memory: nodetest.Memory(at), Actions: []node.Action{tt.action}}
	in.Memory.Services = map[string]node.ServiceMemory{nodetest.Etcd: {Answerer: nodetest.EtcdCluster + "/" + nodetest.EtcdMe, Heard: true}}
	if tt.tune != nil {
		tt.tune(&in)
	}
	return in
}

func serviceAction(verb node.Verb, kind node.Kind, name string, because node.Code) node.Action {
	return node.Action{ID: "x", Verb: verb, Service: name, Kind: kind, Unit: name, Class: node.ClassRevive, Finding: because}
}

func startOf(kind node.Kind, name string) node.Action {
	return serviceAction(node.StartFailed, kind, name, node.EtcdCrashed)
}

func restartEtcd() node.Action {
	a := serviceAction(node.Restart, node.KindEtcd, nodetest.Etcd, node.EtcdHung)
	a.Class = node.ClassDisrupt
	return a
}

func restartForwarder() node.Action {
	return serviceAction(node.Restart, node.KindForwarder, nodetest.Forwarder, node.ForwarderHung)
}

func restartMachine() node.Action {
	a := serviceAction(node.Restart, node.KindMachine, "vm", node.ServiceFails)
	a.Class = node.ClassDisrupt
	return a
}

// attempted is an attempt on the service of that name.
func attempted(name string, class node.Class, ago time.Duration, result node.AttemptResult) node.Attempt {
	a := attempt(ago, result)
	a.Service, a.Class = name, class
	return a
}

// serviceCases are about services other than Patroni, like those of guardCases.
func serviceCases() []guardCase {
	etcd, fwd, gen := nodetest.Etcd, nodetest.Forwarder, nodetest.Generic
	start := startOf(node.KindEtcd, etcd)
	dead := []nodetest.Change{nodetest.Crashed(etcd, "signal"), nodetest.Confirmed()}
	hung := []nodetest.Change{nodetest.EtcdSilent(), nodetest.Confirmed()}
	mute := []nodetest.Change{nodetest.Through(probe.OutcomeTimeout), nodetest.Confirmed()}
	startFwd, startGen := startOf(node.KindForwarder, fwd), startOf(node.KindGeneric, gen)
	deadFwd := []nodetest.Change{nodetest.Crashed(fwd, "signal"), nodetest.Confirmed()}
	deadGen := []nodetest.Change{nodetest.Crashed(gen, "signal"), nodetest.Confirmed()}

	mem := func(f func(*node.Memory)) func(*Input) { return func(in *Input) { f(&in.Memory) } }
	svc := func(name string, f func(*node.ServiceMemory)) func(*Input) {
		return func(in *Input) {
			m := in.Memory.Services[name]
			f(&m)
			in.Memory.Services[name] = m
		}
	}
	tries := func(a ...node.Attempt) func(*Input) { return func(in *Input) { in.Attempts = a } }
	unit := func(name string, f func(*service.Status)) nodetest.Change { return nodetest.UnitOf(name, f) }
	other := func(f func(*node.Fact[probe.EtcdMember])) nodetest.Change { return nodetest.WithOther(1, f) }
	snap := func(f func(*node.Snapshot)) nodetest.Change { return f }
	shared := func(f func(*node.Coordination)) nodetest.Change {
		return func(s *node.Snapshot) { f(&s.DCS.Shared.Value) }
	}
	upgrading := func(names ...string) nodetest.Change {
		return func(s *node.Snapshot) {
			s.Machine = node.Seen(probe.Machine{Upgrades: names}, "process table", s.Now)
		}
	}
	paused := nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true })
	alarm := func(kind string) nodetest.Change {
		return func(s *node.Snapshot) { s.DCS.Alarms.Value = []string{kind} }
	}
	hold := func(k node.HoldKind) nodetest.Change {
		return func(s *node.Snapshot) { s.Orders.Holds = []node.Hold{{Kind: k, Level: node.LevelNode, Owner: "ann"}} }
	}
	old := snap(func(s *node.Snapshot) { s.DCS.Cluster.At = s.Now.Add(-4 * time.Second) })
	storm := mem(func(m *node.Memory) { m.StormSeen = node.Instant(at - 5*time.Second) })
	machine := []nodetest.Change{func(s *node.Snapshot) {
		s.Services = append(s.Services, node.ServiceFacts{
			Service: "vm", Unit: node.Seen(nodetest.Run("vm"), "launchd", s.Now),
			Check: node.Seen(probe.Check{Outcome: probe.OutcomeTimeout}, "check", s.Now),
		})
	}, nodetest.Confirmed()}
	withMachine := func(past ...node.Attempt) func(*Input) {
		return func(in *Input) {
			in.Spec.Services = append(in.Spec.Services, node.ServiceSpec{Service: "vm", Kind: node.KindMachine, Unit: "vm", Policy: in.Spec.Policy})
			in.Attempts = past
		}
	}
	sec := func(n time.Duration) node.Instant { return node.Instant(at - n*time.Second) }
	confirm := nodetest.Confirmed()
	// without etcd there is no test lease and nothing is known of other agents
	blind := snap(func(s *node.Snapshot) { nodetest.Blind()(s); confirm(s); s.DCS.Writable = node.Fact[bool]{} })
	four := []node.Instant{sec(500), sec(400), sec(300), sec(200)}

	return []guardCase{
		{name: "etcd crashed", action: start, base: dead},
		{name: "etcd hangs", action: restartEtcd(), base: hung},
		{name: "the forwarder crashed", action: startFwd, base: deadFwd},
		{name: "the forwarder hangs", action: restartForwarder(), base: mute},
		{name: "a generic service crashed", action: startGen, base: deadGen},

		{name: "F40 no etcd, etcd crashed", action: start, base: dead, change: blind},
		{name: "F40 no etcd, etcd hangs", action: restartEtcd(), base: hung, change: old, refused: node.GuardNoDCS},
		{name: "S17 no etcd, the forwarder crashed", action: startFwd, base: deadFwd, change: blind},
		{name: "S17 no etcd, the forwarder hangs", action: restartForwarder(), base: mute, change: blind},
		{name: "no etcd, a generic service crashed", action: startGen, base: deadGen, change: blind},

		{name: "killed, etcd crashed", action: start, base: dead, change: hold(node.HoldKill), refused: node.GuardKillSwitch},
		{name: "killed, the forwarder hangs", action: restartForwarder(), base: mute, change: hold(node.HoldKill), refused: node.GuardKillSwitch},
		{name: "kill switch unreadable, etcd crashed", action: start, base: dead, change: snap(func(s *node.Snapshot) { s.Orders.Unreadable = "EIO" }), refused: node.GuardKillSwitch},
		{name: "pgpatrol paused, etcd crashed", action: start, base: dead, change: hold(node.HoldPause), refused: node.GuardPause},
		{name: "scope paused, the forwarder hangs", action: restartForwarder(), base: mute, change: shared(func(c *node.Coordination) { c.Holds = []node.Hold{{Kind: node.HoldPause, Level: node.LevelScope}} }), refused: node.GuardPause},
		{name: "policy observes, etcd crashed", action: start, base: dead, tune: func(in *Input) { in.Spec = nodetest.Services(node.ModeObserve) }, refused: node.GuardPolicy},
		{name: "policy asks, etcd hangs", action: restartEtcd(), base: hung, tune: func(in *Input) { in.Spec = nodetest.Services(node.ModeAsk) }, refused: node.GuardPolicy},
		{name: "etcd hangs, and only revive is auto", action: restartEtcd(), base: hung, tune: func(in *Input) { in.Spec.Services[0].Policy.Disrupt = node.ModeObserve }, refused: node.GuardPolicy},
		{name: "S22 Patroni is paused, etcd hangs", action: restartEtcd(), base: hung, change: paused},
		{name: "S22 Patroni is paused, the forwarder hangs", action: restartForwarder(), base: mute, change: paused},
		{name: "S22 Patroni is paused, etcd crashed", action: start, base: dead, change: paused},

		{name: "etcd masked", action: start, base: dead, change: unit(etcd, func(u *service.Status) { u.Masked = true }), refused: node.GuardOperatorIntent},
		{name: "etcd disabled", action: start, base: dead, change: unit(etcd, func(u *service.Status) { u.Enablement = "disabled" }), refused: node.GuardOperatorIntent},
		{name: "etcd stopped by a person, with an error", action: start, base: dead, change: unit(etcd, func(u *service.Status) { u.Halted = true }), refused: node.GuardOperatorIntent},
		{name: "a manager that cannot tell a crash from a stop", action: start, base: dead, change: unit(etcd, func(u *service.Status) { u.Unexplained = true }), refused: node.GuardOperatorIntent},
		{name: "a debugger is at etcd", action: restartEtcd(), base: hung, change: nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Process.Value.TracerPID = 9 }), refused: node.GuardOperatorIntent},
		{name: "F77 the machine hangs", action: restartMachine(), base: machine, tune: withMachine()},
		{name: "F77 the machine was healed 23 h ago", action: restartMachine(), base: machine, tune: withMachine(attempted("vm", node.ClassDisrupt, 23*time.Hour, node.ResultVerified)), refused: node.GuardBudget},
		{name: "F77 the machine was healed 25 h ago", action: restartMachine(), base: machine, tune: withMachine(attempted("vm", node.ClassDisrupt, 25*time.Hour, node.ResultVerified))},
		{name: "F77 it was not carried out 1 h ago", action: restartMachine(), base: machine, tune: withMachine(attempted("vm", node.ClassDisrupt, 61*time.Minute, node.ResultNotExecuted))},
		{name: "F77 the machine crashed, and was healed 2 h ago", action: startOf(node.KindMachine, "vm"), base: append(slices.Clone(machine), nodetest.Crashed("vm", "signal")), tune: withMachine(attempted("vm", node.ClassDisrupt, 2*time.Hour, node.ResultVerified)), refused: node.GuardBudget},
		{name: "F77 no etcd, the machine hangs", action: restartMachine(), base: machine, tune: withMachine(), change: old, refused: node.GuardNoDCS},
		{name: "F77 a Patroni is here", action: restartMachine(), base: machine, tune: func(in *Input) {
			withMachine()(in)
			in.Spec.Patroni = nodetest.Spec(node.ModeAuto).Patroni
		}, refused: node.GuardRedundancy},
		{name: "F77 its check is old", action: restartMachine(), base: machine, tune: withMachine(), change: nodetest.Of("vm", func(f *node.ServiceFacts) { f.Check.At = f.Check.At.Add(-4 * time.Second) }), refused: node.GuardFreshness},
		{name: "F77 it does not run", action: restartMachine(), base: machine, tune: withMachine(), change: unit("vm", func(u *service.Status) { u.State = service.StateRestarting }), refused: node.GuardUnitSafety},
		{name: "opkg runs, a member crashed", action: start, base: dead, change: upgrading("opkg"), refused: node.GuardUpgrade},
		{name: "opkg runs, a member hangs", action: restartEtcd(), base: hung, change: upgrading("opkg"), refused: node.GuardUpgrade},
		{name: "apk runs, a forwarder died", action: startFwd, base: deadFwd, change: upgrading("apk"), refused: node.GuardUpgrade},
		{name: "dpkg runs, a forwarder hangs", action: restartForwarder(), base: mute, change: upgrading("dpkg"), refused: node.GuardUpgrade},
		{name: "rpm runs, a service crashed", action: startGen, base: deadGen, change: upgrading("rpm"), refused: node.GuardUpgrade},
		{name: "a package manager may have begun since", action: startGen, base: deadGen, change: func(s *node.Snapshot) {
			s.Machine = node.Seen(probe.Machine{}, "process table", s.Now.Add(-31*time.Second))
		}, refused: node.GuardFreshness},
		{name: "a machine without a process table", action: startGen, base: deadGen, change: func(s *node.Snapshot) {
			s.Machine = node.Unseen[probe.Machine]("process table", "not supported", s.Now)
		}},
		{name: "no package manager runs", action: startGen, base: deadGen, change: upgrading()},
		{name: "dpkg ended 29 s ago, a service crashed", action: startGen, base: deadGen, tune: mem(func(m *node.Memory) { m.UpgradeSeen = sec(29) }), refused: node.GuardUpgrade},
		{name: "a person paused the container", action: restartEtcd(), base: hung, change: unit(etcd, func(u *service.Status) { u.Job = "pause" }), refused: node.GuardOperatorJob},
		{name: "a person restarted the forwarder 10 s ago", action: restartForwarder(), base: mute, tune: svc(fwd, func(m *node.ServiceMemory) { m.JobEnded = sec(10) }), refused: node.GuardOperatorJob},
		{name: "a switchover is due", action: restartForwarder(), base: mute, change: nodetest.WithCluster(func(c *node.Cluster) { c.Switchover = &node.Switchover{From: "pg1"} })},

		{name: "journal broken, etcd crashed", action: start, base: dead, change: snap(func(s *node.Snapshot) { s.Self.JournalBroken = "no space" }), refused: node.GuardSelfHealth},
		{name: "unit of etcd unknown", action: start, base: dead, change: nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Unit.At = sec(4) }), refused: node.GuardFreshness},
		{name: "member old", action: restartEtcd(), base: hung, change: nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Member.At = sec(4) }), refused: node.GuardFreshness},
		{name: "through the forwarder old", action: restartForwarder(), base: mute, change: nodetest.Of(fwd, func(f *node.ServiceFacts) { f.Through.At = sec(4) }), refused: node.GuardFreshness},
		{name: "past the forwarder unknown", action: restartForwarder(), base: mute, change: nodetest.Of(fwd, func(f *node.ServiceFacts) { f.Past.Known = false }), refused: node.GuardFreshness},
		{name: "a stranger answered as this member", action: restartEtcd(), base: hung, tune: svc(etcd, func(m *node.ServiceMemory) { m.Stranger = "c2/m1" }), refused: node.GuardIdentity},
		{name: "a stranger answers behind the forwarder", action: restartForwarder(), base: mute, tune: svc(fwd, func(m *node.ServiceMemory) { m.Stranger = "c2/m1" }), refused: node.GuardIdentity},
		{name: "a stranger answered before the crash", action: start, base: dead, tune: svc(etcd, func(m *node.ServiceMemory) { m.Stranger = "c2/m1" })},

		{name: "F41 NOSPACE, etcd hangs", action: restartEtcd(), base: hung, change: alarm("NOSPACE"), refused: node.GuardDCSWritable},
		{name: "F41 NOSPACE, etcd crashed", action: start, base: dead, change: alarm("NOSPACE")},
		{name: "F41 NOSPACE, the forwarder hangs", action: restartForwarder(), base: mute, change: alarm("NOSPACE")},
		{name: "F51 CORRUPT, etcd crashed", action: start, base: dead, change: alarm("CORRUPT"), refused: node.GuardDCSWritable},
		{name: "F51 CORRUPT at another member, etcd crashed", action: start, base: dead, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value.Alarms = []string{"CORRUPT"} }), refused: node.GuardDCSWritable},
		{name: "F51 CORRUPT, the forwarder crashed", action: startFwd, base: deadFwd, change: alarm("CORRUPT")},
		{name: "alarms unknown, etcd hangs", action: restartEtcd(), base: hung, change: snap(func(s *node.Snapshot) { s.DCS.Alarms.Known = false }), refused: node.GuardDCSWritable},
		{name: "no test lease, etcd hangs", action: restartEtcd(), base: hung, change: snap(func(s *node.Snapshot) { s.DCS.Writable = node.Fact[bool]{} }), refused: node.GuardDCSWritable},
		{name: "just booted, the forwarder hangs", action: restartForwarder(), base: mute, change: snap(func(s *node.Snapshot) { s.Uptime = time.Minute }), refused: node.GuardBootGrace},
		{name: "just booted, etcd crashed", action: start, base: dead, change: snap(func(s *node.Snapshot) { s.Uptime = time.Minute })},
		{name: "the leader of Patroni changed", action: restartForwarder(), base: mute, tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(5) })},

		{name: "F61 storm, etcd hangs", action: restartEtcd(), base: hung, tune: storm, refused: node.GuardStorm},
		{name: "F61 storm, etcd crashed", action: start, base: dead, tune: storm},
		{name: "F61 storm, the forwarder hangs", action: restartForwarder(), base: mute, tune: storm},
		{name: "third leader of Patroni, etcd hangs", action: restartEtcd(), base: hung, tune: mem(func(m *node.Memory) { m.Leaders = []node.Instant{sec(590), sec(300), sec(200)} })},
		{name: "F79 fourth start, the forwarder hangs", action: restartForwarder(), base: mute, tune: svc(fwd, func(m *node.ServiceMemory) { m.Starts = four }), refused: node.GuardFlap},
		{name: "F79 fourth start, its manager gave up", action: startFwd, base: deadFwd, tune: svc(fwd, func(m *node.ServiceMemory) { m.Starts = four })},

		{name: "it runs after all", action: start, base: []nodetest.Change{confirm}, refused: node.GuardUnitSafety},
		{name: "its manager restarts it", action: restartForwarder(), base: mute, change: unit(fwd, func(u *service.Status) { u.State = service.StateRestarting }), refused: node.GuardUnitSafety},
		{name: "etcd waits for its disk", action: restartEtcd(), base: hung, change: nodetest.Of(etcd, func(f *node.ServiceFacts) { f.Process.Value.State = "D" }), refused: node.GuardUnitSafety},
		{name: "a restart of a generic service", action: serviceAction(node.Restart, node.KindGeneric, gen, node.ServiceFails), base: []nodetest.Change{confirm}, refused: node.GuardUnitSafety},
		{name: "a soft-kill of etcd", action: serviceAction(node.SoftKill, node.KindEtcd, etcd, node.EtcdHung), base: hung, refused: node.GuardUnitSafety},

		{name: "F39 another member is silent", action: restartEtcd(), base: hung, change: nodetest.OtherSilent(1), refused: node.GuardRedundancy},
		{name: "another member has no leader", action: restartEtcd(), base: hung, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value = nodetest.Leaderless(m.Value) }), refused: node.GuardRedundancy},
		{name: "another member is a learner", action: restartEtcd(), base: hung, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value.Learner = true }), refused: node.GuardRedundancy},
		{name: "another member is of another cluster", action: restartEtcd(), base: hung, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value.ClusterID = "c2" }), refused: node.GuardRedundancy},
		{name: "one member on two addresses", action: restartEtcd(), base: hung, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value.MemberID, m.Value.Members = nodetest.EtcdSecond, nil }), tune: func(in *Input) { in.Snapshot.Services[0].Others[0].Member.Value.Members = nil }, refused: node.GuardRedundancy},
		{name: "a cluster of two", action: restartEtcd(), base: hung, change: nodetest.Of(etcd, func(f *node.ServiceFacts) {
			f.Others = f.Others[:1]
			f.Others[0].Member.Value.Members = []string{nodetest.EtcdMe, nodetest.EtcdSecond}
		}), refused: node.GuardRedundancy},
		{name: "a member that is not configured", action: restartEtcd(), base: hung, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value.Members = append(m.Value.Members, "m4") }), refused: node.GuardRedundancy},
		{name: "etcd does not list its members", action: restartEtcd(), base: hung, change: other(func(m *node.Fact[probe.EtcdMember]) { m.Value.Members = nil })},
		{name: "another stops something", action: restartEtcd(), base: hung, change: shared(func(c *node.Coordination) { c.Lock = "host2" }), refused: node.GuardClusterLock},
		{name: "another stops something, the forwarder hangs", action: restartForwarder(), base: mute, change: shared(func(c *node.Coordination) { c.Lock = "host2" })},
		{name: "second disruption in the cluster, etcd hangs", action: restartEtcd(), base: hung, change: shared(func(c *node.Coordination) { c.Spent = []node.Spent{{Node: "host2", Class: node.ClassDisrupt}} }), refused: node.GuardClusterBudget},
		{name: "the cluster's budget is spent, the forwarder hangs", action: restartForwarder(), base: mute, change: shared(func(c *node.Coordination) { c.Spent = make([]node.Spent, 4) })},

		{name: "a restart is in flight", action: restartForwarder(), base: mute, tune: tries(attempted(fwd, node.ClassRevive, 90*time.Second, "")), refused: node.GuardInFlight},
		{name: "something else is in flight", action: restartForwarder(), base: mute, tune: tries(attempted(etcd, node.ClassRevive, 90*time.Second, ""))},
		{name: "fourth restart within the hour", action: restartForwarder(), base: mute, tune: tries(attempted(fwd, node.ClassRevive, 50*time.Minute, node.ResultVerified), attempted(fwd, node.ClassRevive, 40*time.Minute, node.ResultVerified), attempted(fwd, node.ClassRevive, 30*time.Minute, node.ResultVerified)), refused: node.GuardBudget},
		{name: "second restart of etcd within the hour", action: restartEtcd(), base: hung, tune: tries(attempted(etcd, node.ClassDisrupt, 30*time.Minute, node.ResultVerified)), refused: node.GuardBudget},
		{name: "30 s after the last start", action: startFwd, base: deadFwd, tune: tries(attempted(fwd, node.ClassRevive, 30*time.Second, node.ResultVerified)), refused: node.GuardBackoff},
		{name: "restarted twice in vain", action: restartForwarder(), base: mute, tune: tries(attempted(fwd, node.ClassRevive, 30*time.Minute, node.ResultUnverified), attempted(fwd, node.ClassRevive, 20*time.Minute, node.ResultUnverified)), refused: node.GuardBreaker},
		{name: "F79 exit code, started once in vain", action: startGen, base: deadGen, change: unit(gen, func(u *service.Status) { u.Result = "exit-code" }), tune: tries(attempted(gen, node.ClassRevive, 30*time.Minute, node.ResultUnverified)), refused: node.GuardBreaker},
		{name: "permission was denied twice", action: start, base: dead, tune: tries(attempted(etcd, node.ClassRevive, 30*time.Minute, node.ResultFailed), attempted(etcd, node.ClassRevive, 20*time.Minute, node.ResultFailed)), refused: node.GuardBreaker},
	}
}

// F39: what cannot be known for want of an answer is refused twice, by freshness and by redundancy.
func TestPlan_UnknownMemberIsNotHealthy(t *testing.T) {
	for name, change := range map[string]nodetest.Change{
		"old": nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { m.At = node.Instant(at - 4*time.Second) }),
		"unknown": nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) {
			*m = node.Unseen[probe.EtcdMember]("etcd", "no route", m.At)
		}),
	} {
		in := guardCase{action: restartEtcd(), base: []nodetest.Change{nodetest.EtcdSilent(), nodetest.Confirmed()}, change: change}.input()
		var got []string
		for _, v := range Plan(in).Refused[0].Verdicts {
			got = append(got, string(v.Guard))
			if !strings.Contains(v.Text, "http://three:2379") {
				t.Errorf("%s: %s does not name the member: %s", name, v.Guard, v.Text)
			}
		}
		if strings.Join(got, " ") != "freshness redundancy" {
			t.Errorf("%s: refused by %v", name, got)
		}
	}
}

// TestAssert_Services gives the assertion plans that no set of rules should have made.
func TestAssert_Services(t *testing.T) {
	blind := func(s *node.Snapshot) { s.DCS.Cluster.Known = false }
	paused := nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true })
	for _, tt := range []struct {
		name   string
		action node.Action
		change nodetest.Change
		tune   func(*Input)
		want   string
	}{
		{name: "etcd hangs", action: restartEtcd()},
		{name: "etcd hangs, Patroni is paused", action: restartEtcd(), change: paused},
		{name: "etcd hangs, etcd unknown", action: restartEtcd(), change: blind, want: "etcd is not fresh"},
		{name: "etcd hangs, another member too", action: restartEtcd(), change: nodetest.OtherSilent(0), want: "another member of etcd does not answer"},
		{name: "etcd hangs, another member unknown", action: restartEtcd(), change: nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { m.Known = false }), want: "another member of etcd does not answer"},
		{name: "etcd hangs, another member answered long ago", action: restartEtcd(), change: nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { m.At = m.At.Add(-11 * time.Second) }), want: "another member of etcd does not answer"},
		{name: "etcd hangs, and has one peer", action: restartEtcd(), change: nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Others = f.Others[:1] }), want: "another member of etcd does not answer"},
		{name: "the forwarder hangs, etcd unknown", action: restartForwarder(), change: blind},
		{name: "the forwarder is called a Patroni", action: restartForwarder(), tune: func(in *Input) { in.Actions[0].Kind = "" }, want: "exactly one"},
		{name: "the forwarder is called etcd", action: restartForwarder(), tune: func(in *Input) { in.Actions[0].Kind = node.KindEtcd }, want: "exactly one"},
		{name: "the forwarder's unit is another one", action: restartForwarder(), tune: func(in *Input) { in.Actions[0].Unit = "sshd" }, want: "exactly one"},
		{name: "the forwarder's unit is a Patroni's", action: restartForwarder(), tune: func(in *Input) {
			in.Spec.Patroni = []node.PatroniSpec{{Service: "patroni", Unit: nodetest.Forwarder}}
		}, want: "exactly one"},
		{name: "the forwarder is masked", action: restartForwarder(), change: nodetest.UnitOf(nodetest.Forwarder, func(u *service.Status) { u.Masked = true }), want: "masked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := guardCase{action: tt.action, change: tt.change, tune: tt.tune}.input()
			got := Assert(in, node.Plan{Allowed: in.Actions})
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestAssert_NeverARestartOfPatroni: whatever rule allowed it.
func TestAssert_NeverARestartOfPatroni(t *testing.T) {
	in := hungInput()
	in.Actions[0].Verb = node.Restart
	if got := Assert(in, node.Plan{Allowed: in.Actions}); !strings.Contains(got, "stops PostgreSQL") {
		t.Errorf("got %q", got)
	}
	if plan := Plan(in); len(plan.Allowed) != 0 {
		t.Errorf("allowed %v", plan.Allowed)
	}
}

func TestWithoutDCS_Services(t *testing.T) {
	for _, tt := range []struct {
		kind node.Kind
		verb node.Verb
		want bool
	}{
		{node.KindEtcd, node.StartFailed, true},
		{node.KindEtcd, node.Restart, false},
		{node.KindEtcd, node.SoftKill, false},
		{node.KindForwarder, node.StartFailed, true},
		{node.KindForwarder, node.Restart, true},
		{node.KindGeneric, node.StartFailed, true},
		{node.KindGeneric, node.Restart, false},
		{node.KindPatroni, node.Restart, false},
		{"vip", node.StartFailed, false},
	} {
		if got, why := WithoutDCS(tt.kind, tt.verb); got != tt.want || why == "" {
			t.Errorf("%s of %s: %t (%s), want %t", tt.verb, tt.kind, got, why, tt.want)
		}
	}
}
