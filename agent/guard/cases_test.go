package guard

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const at = time.Hour

// softKill is the heal of a hung leader; startFailed that of a start limit.
func softKill() node.Action {
	return node.Action{
		ID: "x", Verb: node.SoftKill, Service: nodetest.Service, Unit: nodetest.Unit, Class: node.ClassRevive,
		Finding: node.PatroniHung, Leader: true,
	}
}

func startFailed() node.Action {
	a := softKill()
	a.Verb, a.Finding, a.Leader = node.StartFailed, node.PatroniFailed, false
	return a
}

func fence() node.Action {
	a := softKill()
	a.Fence, a.Leader, a.Finding = true, false, node.ZombiePrimary
	return a
}

// orphan is the fence of a leader whose key is gone and that nobody took it from.
func orphan() node.Action {
	a := fence()
	a.Finding = node.PatroniLoopStuck
	return a
}

// replica is the heal of a hung replica.
func replica() node.Action {
	a := softKill()
	a.Leader = false
	return a
}

func disrupt() node.Action {
	a := softKill()
	a.Class = node.ClassDisrupt
	return a
}

func attempt(ago time.Duration, result node.AttemptResult) node.Attempt {
	return node.Attempt{
		Verb: node.SoftKill, Class: node.ClassRevive, Service: nodetest.Service, BootID: nodetest.BootID,
		At: node.Instant(at - ago), Done: result != "", Result: result,
	}
}

func disrupted(ago time.Duration) node.Attempt {
	a := attempt(ago, node.ResultVerified)
	a.Class = node.ClassDisrupt
	return a
}

func disruptingFence() node.Action {
	a := fence()
	a.Class = node.ClassDisrupt
	return a
}

// named is a verified attempt of the action x.
func named(ago time.Duration, boot string) node.Attempt {
	a := attempt(ago, node.ResultVerified)
	a.ActionID, a.BootID = "x", boot
	return a
}

// elsewhere are attempts on other services of this node.
func elsewhere(n int) []node.Attempt {
	var out []node.Attempt
	for range n {
		a := attempt(20*time.Minute, node.ResultVerified)
		a.Service = "another"
		out = append(out, a)
	}
	return out
}

func otherBoot(ago time.Duration) node.Attempt {
	a := attempt(ago, node.ResultUnverified)
	a.BootID = "boot-0"
	return a
}

// guardCase changes one thing of a situation in which the action is allowed, and wants exactly the guard whose business it
// is to refuse.
type guardCase struct {
	name    string
	action  node.Action
	base    []nodetest.Change
	change  nodetest.Change
	tune    func(*Input)
	refused node.Guard // "" if allowed
}

func (tt guardCase) input() Input {
	if k := tt.action.Kind; k != "" && k != node.KindPatroni {
		return tt.serviceInput()
	}
	changes := append([]nodetest.Change{}, tt.base...)
	if tt.action.Class == node.ClassDisrupt {
		changes = append(changes, nodetest.WithUnit(func(s *service.Status) { s.KillMode = "control-group" }))
	}
	if tt.change != nil {
		changes = append(changes, tt.change)
	}
	if tt.action.Fence && tt.change == nil {
		changes = append(changes, nodetest.Led(nodetest.Other, true))
	}
	in := Input{Spec: nodetest.Spec(node.ModeAuto), Snapshot: nodetest.Snap(at, changes...), Actions: []node.Action{tt.action}}
	in.Memory = nodetest.Memory(at)
	if tt.tune != nil {
		tt.tune(&in)
	}
	return in
}

func guardCases() []guardCase {
	hung := []nodetest.Change{nodetest.Stopped(), nodetest.LeaseLeft(17 * time.Second), nodetest.Confirmed()}
	failed := []nodetest.Change{nodetest.Failed("signal"), nodetest.Confirmed()}
	cl, un, pf := nodetest.WithCluster, nodetest.WithUnit, nodetest.With
	mem := func(f func(*node.Memory)) func(*Input) { return func(in *Input) { f(&in.Memory) } }
	svc := func(f func(*node.ServiceMemory)) func(*Input) {
		return func(in *Input) {
			m := in.Memory.Services[nodetest.Service]
			f(&m)
			in.Memory.Services = map[string]node.ServiceMemory{nodetest.Service: m}
		}
	}
	tries := func(a ...node.Attempt) func(*Input) { return func(in *Input) { in.Attempts = a } }
	zombie := nodetest.Led(nodetest.Other, true)
	both := func(a, b nodetest.Change) nodetest.Change { return func(s *node.Snapshot) { a(s); b(s) } }
	keyless := both(cl(func(c *node.Cluster) { c.Leader = nil }), nodetest.LeaseLeft(0))
	server := func(status string) nodetest.Change {
		return pf(func(p *node.PatroniFacts) { p.Postgres.Value.ServerStatus = status })
	}
	alive := pf(func(p *node.PatroniFacts) {
		p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 200}
	})
	keep := func(*node.Snapshot) {}
	hold := func(k node.HoldKind) nodetest.Change {
		return func(s *node.Snapshot) { s.Orders.Holds = []node.Hold{{Kind: k, Level: node.LevelNode, Owner: "ann"}} }
	}
	shared := func(f func(*node.Coordination)) nodetest.Change {
		return func(s *node.Snapshot) { f(&s.DCS.Shared.Value) }
	}
	approval := func(id string, ago int) nodetest.Change {
		return func(s *node.Snapshot) {
			s.Orders.Approvals = []node.Approval{{ActionID: id, Owner: "ann", At: s.Now.Add(-time.Duration(ago) * time.Second)}}
		}
	}
	asks := func(in *Input) { in.Spec = nodetest.Spec(node.ModeAsk) }
	findingMode := func(f node.Code, m node.Mode) func(*Input) {
		return func(in *Input) { in.Spec.Patroni[0].Policy.Findings = map[node.Code]node.Mode{f: m} }
	}
	sec := func(n time.Duration) node.Instant { return node.Instant(at - n*time.Second) }

	return []guardCase{
		{name: "a hung leader", action: softKill(), base: hung},
		{name: "a unit at its start limit", action: startFailed(), base: failed},
		{name: "a second primary", action: fence(), base: hung, change: nodetest.Led(nodetest.Other, true)},
		{name: "a hung leader without KillMode=process", action: disrupt(), base: hung, change: un(func(s *service.Status) { s.KillMode = "control-group" })},

		{name: "killed", action: softKill(), base: hung, change: hold(node.HoldKill), refused: node.GuardKillSwitch},
		{name: "killed, second primary", action: fence(), base: append(hung, zombie), change: hold(node.HoldKill), refused: node.GuardKillSwitch},
		{name: "killed in etcd", action: softKill(), base: hung, change: shared(func(c *node.Coordination) { c.Holds = []node.Hold{{Kind: node.HoldKill, Level: node.LevelAll}} }), refused: node.GuardKillSwitch},
		{name: "kill switch unreadable", action: fence(), base: append(hung, zombie), change: func(s *node.Snapshot) { s.Orders.Unreadable = "permission denied" }, refused: node.GuardKillSwitch},
		{name: "a hold of another world", action: softKill(), base: hung, change: hold("quarantine"), refused: node.GuardKillSwitch},
		{name: "pgpatrol paused", action: softKill(), base: hung, change: hold(node.HoldPause), refused: node.GuardPause},
		{name: "pgpatrol paused, second primary", action: fence(), base: append(hung, zombie), change: hold(node.HoldPause), refused: node.GuardPause},
		{name: "scope paused", action: softKill(), base: hung, change: shared(func(c *node.Coordination) { c.Holds = []node.Hold{{Kind: node.HoldPause, Level: node.LevelScope}} }), refused: node.GuardPause},

		{name: "policy asks", action: softKill(), base: hung, tune: asks, refused: node.GuardPolicy},
		{name: "approved", action: softKill(), base: hung, change: approval("x", 10), tune: asks},
		{name: "approved another action", action: softKill(), base: hung, change: approval("y", 10), tune: asks, refused: node.GuardPolicy},
		{name: "approved long ago", action: softKill(), base: hung, change: approval("x", 121), tune: asks, refused: node.GuardPolicy},
		{name: "approved in the future of another boot", action: softKill(), base: hung, change: approval("x", -1), tune: asks, refused: node.GuardPolicy},
		{name: "approval used up", action: softKill(), base: hung, change: approval("x", 80), tune: func(in *Input) { asks(in); in.Attempts = []node.Attempt{named(70*time.Second, nodetest.BootID)} }, refused: node.GuardPolicy},
		{name: "approval after the last attempt", action: softKill(), base: hung, change: approval("x", 60), tune: func(in *Input) { asks(in); in.Attempts = []node.Attempt{named(70*time.Second, nodetest.BootID)} }},
		{name: "approval and an attempt of another boot", action: softKill(), base: hung, change: approval("x", 60), tune: func(in *Input) { asks(in); in.Attempts = []node.Attempt{named(10*time.Second, "boot-0")} }},
		{name: "finding observes", action: softKill(), base: hung, tune: findingMode(node.PatroniHung, node.ModeObserve), refused: node.GuardPolicy},
		{name: "another finding observes", action: softKill(), base: hung, tune: findingMode(node.PatroniFailed, node.ModeObserve)},

		{name: "apt-get runs", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Machine.Value.Upgrades = []string{"apt-get"} }), refused: node.GuardUpgrade},
		{name: "apt-get runs, second primary", action: fence(), base: append(hung, zombie), change: pf(func(p *node.PatroniFacts) { p.Machine.Value.Upgrades = []string{"apt-get"} }), refused: node.GuardUpgrade},
		{name: "dpkg ended 29 s ago", action: startFailed(), base: failed, tune: mem(func(m *node.Memory) { m.UpgradeSeen = sec(29) }), refused: node.GuardUpgrade},
		{name: "dpkg ended 30 s ago", action: startFailed(), base: failed, tune: mem(func(m *node.Memory) { m.UpgradeSeen = sec(30) })},
		{name: "disrupt in a rolling upgrade", action: disrupt(), base: hung, change: cl(func(c *node.Cluster) { c.Members[0].Version, c.Members[2].Version = "4.1.3", "4.1.4" }), refused: node.GuardUpgrade},
		{name: "revive in a rolling upgrade", action: softKill(), base: hung, change: cl(func(c *node.Cluster) { c.Members[0].Version, c.Members[2].Version = "4.1.3", "4.1.4" })},

		{name: "storm", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.StormSeen = sec(59) }), refused: node.GuardStorm},
		{name: "storm over", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.StormSeen = sec(60) })},
		{name: "storm, second primary", action: fence(), base: append(hung, zombie), change: keep, tune: mem(func(m *node.Memory) { m.StormSeen = sec(5) })},
		{name: "storm, crashed unit", action: startFailed(), base: failed, tune: mem(func(m *node.Memory) { m.StormSeen = sec(5) })},
		{name: "storm, disrupting fence", action: disruptingFence(), base: append(hung, zombie), change: keep, tune: mem(func(m *node.Memory) { m.StormSeen = sec(5) }), refused: node.GuardStorm},
		{name: "third leader", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.Leaders = []node.Instant{sec(590), sec(300), sec(200)} }), refused: node.GuardFlap},
		{name: "third leader, crashed unit", action: startFailed(), base: failed, tune: mem(func(m *node.Memory) { m.Leaders = []node.Instant{sec(590), sec(300), sec(200)} }), refused: node.GuardFlap},
		{name: "third leader, second primary", action: fence(), base: append(hung, zombie), change: keep, tune: mem(func(m *node.Memory) { m.Leaders = []node.Instant{sec(590), sec(300), sec(200)} })},
		{name: "third leader in eleven minutes", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.Leaders = []node.Instant{sec(601), sec(300), sec(200)} })},
		{name: "fourth start", action: softKill(), base: hung, tune: svc(func(m *node.ServiceMemory) { m.Starts = []node.Instant{sec(500), sec(400), sec(300), sec(200)} }), refused: node.GuardFlap},
		{name: "third start", action: softKill(), base: hung, tune: svc(func(m *node.ServiceMemory) { m.Starts = []node.Instant{sec(400), sec(300), sec(200)} })},
		{name: "fourth start, crashed unit", action: startFailed(), base: failed, tune: svc(func(m *node.ServiceMemory) { m.Starts = []node.Instant{sec(500), sec(400), sec(300), sec(200)} })},

		{name: "agent broke a rule", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Self.Assertion = "two actions at once" }, refused: node.GuardSelfHealth},
		{name: "agent crashed five times", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Self.Crashes = node.CrashLimit }, refused: node.GuardSelfHealth},
		{name: "agent crashed four times", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Self.Crashes = node.CrashLimit - 1 }},

		{name: "disrupt with diverged candidates", action: disrupt(), base: hung, tune: mem(func(m *node.Memory) {
			m.Members = map[string]node.MemberMemory{"pg2": {Diverged: true}, "pg3": {Diverged: true}}
		}), refused: node.GuardRedundancy},
		{name: "disrupt with one diverged candidate", action: disrupt(), base: hung, tune: mem(func(m *node.Memory) { m.Members = map[string]node.MemberMemory{"pg2": {Diverged: true}} })},
		{name: "disrupt with candidates on another timeline", action: disrupt(), base: hung, change: cl(func(c *node.Cluster) { c.Members[1].Timeline, c.Members[2].Timeline = 4, 4 }), refused: node.GuardRedundancy},
		{name: "disrupt under another's lock", action: disrupt(), base: hung, change: shared(func(c *node.Coordination) { c.Lock = "host2" }), refused: node.GuardClusterLock},
		{name: "disrupt under a lock that says nothing", action: disrupt(), base: hung, change: shared(func(c *node.Coordination) { c.Lock = "unknown" }), refused: node.GuardClusterLock},
		{name: "disrupt under my lock", action: disrupt(), base: hung, change: shared(func(c *node.Coordination) { c.Lock = "host1" }), refused: node.GuardClusterLock},
		{name: "revive under another's lock", action: softKill(), base: hung, change: shared(func(c *node.Coordination) { c.Lock = "host2" })},
		{name: "fifth in the cluster", action: softKill(), base: hung, change: shared(func(c *node.Coordination) { c.Spent = make([]node.Spent, 4) }), refused: node.GuardClusterBudget},
		{name: "fourth in the cluster", action: softKill(), base: hung, change: shared(func(c *node.Coordination) { c.Spent = make([]node.Spent, 3) })},
		{name: "second disruption in the cluster", action: disrupt(), base: hung, change: shared(func(c *node.Coordination) { c.Spent = []node.Spent{{Node: "host2", Class: node.ClassDisrupt}} }), refused: node.GuardClusterBudget},
		{name: "other agents unknown", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.Shared.Known = false }, refused: node.GuardClusterBudget},
		{name: "other agents not read lately", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.Shared.At = sec(4) }, refused: node.GuardClusterBudget},
		{name: "seventh on this node", action: softKill(), base: hung, tune: tries(elsewhere(6)...), refused: node.GuardBudget},
		{name: "sixth on this node", action: softKill(), base: hung, tune: tries(elsewhere(5)...)},

		{name: "policy observes", action: softKill(), base: hung, tune: func(in *Input) { in.Spec = nodetest.Spec(node.ModeObserve) }, refused: node.GuardPolicy},
		{name: "masked", action: startFailed(), base: failed, change: un(func(s *service.Status) { s.Masked = true }), refused: node.GuardOperatorIntent},
		{name: "disabled and failed", action: startFailed(), base: failed, change: un(func(s *service.Status) { s.Enablement = "disabled" }), refused: node.GuardOperatorIntent},
		{name: "debugger attached", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Process.Value.TracerPID = 9 }), refused: node.GuardOperatorIntent},
		{name: "switchover pending", action: softKill(), base: hung, change: cl(func(c *node.Cluster) { c.Switchover = &node.Switchover{From: "pg1", To: "pg2"} }), refused: node.GuardOperatorIntent},
		{name: "switchover tomorrow", action: softKill(), base: hung, change: func(s *node.Snapshot) {
			s.DCS.Cluster.Value.Switchover = &node.Switchover{From: "pg1", Scheduled: s.Wall.Add(24 * time.Hour).Format(time.RFC3339)}
		}},
		{name: "switchover in two minutes", action: softKill(), base: hung, change: func(s *node.Snapshot) {
			s.DCS.Cluster.Value.Switchover = &node.Switchover{From: "pg1", Scheduled: s.Wall.Add(2 * time.Minute).Format(time.RFC3339)}
		}, refused: node.GuardOperatorIntent},
		{name: "job running", action: softKill(), base: hung, change: un(func(s *service.Status) { s.Job = "restart" }), refused: node.GuardOperatorJob},
		{name: "job ended 10 s ago", action: softKill(), base: hung, tune: svc(func(m *node.ServiceMemory) { m.JobEnded = sec(10) }), refused: node.GuardOperatorJob},
		{name: "job ended 31 s ago", action: softKill(), base: hung, tune: svc(func(m *node.ServiceMemory) { m.JobEnded = sec(31) })},
		{name: "paused", action: softKill(), base: hung, change: cl(func(c *node.Cluster) { c.Config.Pause = true }), refused: node.GuardPatroniPause},
		{name: "paused a moment ago", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.PauseSeen = sec(10) }), refused: node.GuardPatroniPause},
		{name: "configuration key gone", action: softKill(), base: hung, change: cl(func(c *node.Cluster) { c.Config.Present = false }), refused: node.GuardPatroniPause},
		{name: "journal broken", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Self.JournalBroken = "no space" }, refused: node.GuardSelfHealth},
		{name: "slept", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.Disturbed = sec(5) }), refused: node.GuardSelfHealth},
		{name: "loop starved", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Self.LoopDelay = 10 * time.Second }, refused: node.GuardSelfHealth},
		{name: "etcd view 4 s old", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.Cluster.At = sec(4) }, refused: node.GuardNoDCS},
		{name: "no etcd, crashed unit", action: startFailed(), base: failed, change: func(s *node.Snapshot) { s.DCS.Cluster.At = sec(20) }, refused: node.GuardNoDCS},
		{name: "no etcd, second primary", action: fence(), base: append(hung, nodetest.Led(nodetest.Other, true)), change: func(s *node.Snapshot) { s.DCS.Cluster.At = sec(4) }, refused: node.GuardNoDCS},
		{name: "unit unknown", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Unit.Known = false }), refused: node.GuardFreshness},
		{name: "process table unknown", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Machine.Known = false }), refused: node.GuardFreshness},
		{name: "PostgreSQL unknown", action: startFailed(), base: failed, change: pf(func(p *node.PatroniFacts) { p.Postgres.Known = false }), refused: node.GuardFreshness},
		{name: "leader key unintelligible", action: softKill(), base: hung, change: cl(func(c *node.Cluster) { c.Leader, c.LeaderUnknown = nil, true }), refused: node.GuardFreshness},
		{name: "initialize key missing", action: startFailed(), base: failed, change: cl(func(c *node.Cluster) { c.Initialize = "" }), refused: node.GuardIdentity},
		{name: "another system identifier", action: startFailed(), base: failed, change: cl(func(c *node.Cluster) { c.Initialize = "1" }), refused: node.GuardIdentity},
		{name: "another member's API", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.API.Value.Name = "pg9" }), refused: node.GuardIdentity},
		{name: "another scope's API", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.API.Value.Scope = "x" }), refused: node.GuardIdentity},
		{name: "HTML instead of Patroni", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.API.Value.Problem = "not JSON" }), refused: node.GuardIdentity},
		{name: "nobody confirmed the name", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.API.Known = false; p.Config.Value.Name = "" }), refused: node.GuardIdentity},
		{name: "the file confirmed the name", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.API.Known = false })},
		{name: "NOSPACE", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.Alarms.Value = []string{"NOSPACE"} }, refused: node.GuardDCSWritable},
		{name: "alarms unknown", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.Alarms.Known = false }, refused: node.GuardDCSWritable},
		{name: "no test lease", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.Writable = node.Fact[bool]{} }, refused: node.GuardDCSWritable},
		{name: "just booted", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Uptime = time.Minute }, refused: node.GuardBootGrace},
		{name: "just booted and settled", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.Uptime = time.Minute }, tune: svc(func(m *node.ServiceMemory) { m.Settled = true })},
		{name: "just booted, crashed", action: startFailed(), base: failed, change: func(s *node.Snapshot) { s.Uptime = time.Minute }},
		{name: "leader changed 40 s ago, fence", action: fence(), base: append(hung, nodetest.Led(nodetest.Other, true)), tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(40) })},
		{name: "leader changed 40 s ago, and has missed no renewal", action: softKill(), base: hung, change: nodetest.LeaseLeft(19 * time.Second), tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(40) }), refused: node.GuardLeaderChange},
		{name: "seed 147: leader changed 13 s ago, and hangs since", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(13) })},
		{name: "leader changed 11 s ago, its lease is older", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(11) }), refused: node.GuardLeaderChange},
		{name: "leader changed 40 s ago, it hangs, etcd has answered for 11 s", action: softKill(), base: hung, tune: mem(func(m *node.Memory) { m.LeaderChanged, m.EtcdSince = sec(40), sec(11) }), refused: node.GuardLeaderChange},
		{name: "leader changed 40 s ago, a replica hangs", action: replica(), base: hung, change: nodetest.Led(nodetest.Other, false), tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(40) }), refused: node.GuardLeaderChange},
		{name: "leader changed 40 s ago, a kill would stop PostgreSQL", action: disrupt(), base: hung, tune: mem(func(m *node.Memory) { m.LeaderChanged = sec(40) }), refused: node.GuardLeaderChange},
		{name: "seed 147: without a key for 9 s, and it answers", action: orphan(), base: hung, change: both(alive, keyless), tune: svc(func(m *node.ServiceMemory) { m.Orphaned = sec(9) }), refused: node.GuardLeaderSafety},
		{name: "without a key for 10 s, and it answers", action: orphan(), base: hung, change: both(alive, keyless), tune: svc(func(m *node.ServiceMemory) { m.Orphaned = sec(10) })},
		{name: "without a key for 1 s, and silent", action: orphan(), base: hung, change: keyless, tune: svc(func(m *node.ServiceMemory) { m.Orphaned = sec(1) })},
		{name: "it answers after all", action: softKill(), base: hung, change: alive, refused: node.GuardLeaderSafety},
		{name: "it answers, its lease is overdue", action: softKill(), base: append(hung, nodetest.LeaseLeft(9*time.Second)), change: alive},
		{name: "it answers, etcd has answered for 19 s", action: softKill(), base: append(hung, nodetest.LeaseLeft(9*time.Second)), change: alive, tune: mem(func(m *node.Memory) { m.EtcdSince = sec(19) }), refused: node.GuardLeaderSafety},
		{name: "lease nearly over", action: softKill(), base: hung, change: nodetest.LeaseLeft(4 * time.Second), refused: node.GuardLeaseWindow},
		{name: "lease unknown", action: softKill(), base: hung, change: func(s *node.Snapshot) { s.DCS.LeaderLease.Known = false }, refused: node.GuardLeaseWindow},
		{name: "disrupt before the lease proves it", action: disrupt(), base: hung, change: nodetest.LeaseLeft(22 * time.Second), refused: node.GuardLeaseWindow},
		{name: "disrupt, and etcd has answered for 11 s", action: disrupt(), base: hung, tune: mem(func(m *node.Memory) { m.EtcdSince = sec(11) }), refused: node.GuardLeaseWindow},
		{name: "disrupt with 7 s left", action: disrupt(), base: hung, change: nodetest.LeaseLeft(7 * time.Second), refused: node.GuardLeaseWindow},
		{name: "configuration broken", action: startFailed(), base: failed, change: pf(func(p *node.PatroniFacts) { p.Config.Value.Valid = false }), refused: node.GuardConfigValid},
		{name: "configuration not checked", action: startFailed(), base: failed, change: pf(func(p *node.PatroniFacts) { p.Config.Known = false }), refused: node.GuardConfigValid},
		{name: "KillMode forgotten", action: softKill(), base: hung, change: un(func(s *service.Status) { s.KillMode = "control-group" }), refused: node.GuardUnitSafety},
		{name: "Restart=no", action: softKill(), base: hung, change: un(func(s *service.Status) { s.Restart = "no" }), refused: node.GuardUnitSafety},
		{name: "state D", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Process.Value.State = "D" }), refused: node.GuardUnitSafety},
		{name: "another process", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Process.Value.PID = 501 }), refused: node.GuardUnitSafety},
		{name: "start limit perhaps nearly reached before this agent began", action: softKill(), base: hung, change: un(func(s *service.Status) { s.Restarts = 3 }), tune: func(in *Input) { in.Snapshot.Self.StartedAgo = 9 * time.Second }, refused: node.GuardUnitSafety},
		{name: "starts of long ago", action: softKill(), base: hung, change: un(func(s *service.Status) { s.Restarts = 3 }), tune: func(in *Input) { in.Snapshot.Self.StartedAgo = 10 * time.Second }},
		{name: "start limit nearly reached", action: softKill(), base: hung, change: un(func(s *service.Status) { s.StartLimit = 4 }), tune: svc(func(m *node.ServiceMemory) { m.Starts = []node.Instant{sec(2), sec(3), sec(4)} }), refused: node.GuardUnitSafety},
		{name: "data directory not mounted", action: startFailed(), base: failed, change: pf(func(p *node.PatroniFacts) { p.Postgres.Value.Initialized = false }), refused: node.GuardUnitSafety},
		{name: "seed 3962: PostgreSQL stops, and nobody hears Patroni say so", action: fence(), base: append(hung, nodetest.Led(nodetest.Other, true)), change: server("stopping"), refused: node.GuardBusyWork},
		{name: "PostgreSQL stops without Patroni", action: startFailed(), base: failed, change: server("stopping"), refused: node.GuardBusyWork},
		{name: "PostgreSQL recovers", action: softKill(), base: hung, change: server("starting"), refused: node.GuardBusyWork},
		{name: "PostgreSQL recovers without Patroni", action: startFailed(), base: failed, change: server("starting")},
		{name: "pg_rewind runs", action: startFailed(), base: failed, change: pf(func(p *node.PatroniFacts) { p.Machine.Value.Jobs = []string{"pg_rewind"} }), refused: node.GuardBusyWork},
		{name: "starting", action: softKill(), base: hung, change: cl(func(c *node.Cluster) { c.Members[0].State = "starting" }), refused: node.GuardBusyWork},
		{name: "watchdog", action: softKill(), base: hung, change: pf(func(p *node.PatroniFacts) { p.Process.Value.Watchdog = true }), refused: node.GuardWatchdog},
		{name: "disrupt without a candidate", action: disrupt(), base: hung, change: cl(func(c *node.Cluster) { c.Members[1].NoFailover, c.Members[2].ReplicationState = true, "" }), refused: node.GuardRedundancy},
		{name: "disrupt with a candidate ahead", action: disrupt(), base: hung, change: cl(func(c *node.Cluster) {
			c.Members[0].ModRevision = 99
			c.Members[1].LSN, c.Members[2].LSN = 9000, 9000
		}), refused: node.GuardRedundancy},
		{name: "disrupt with lagging candidates", action: disrupt(), base: hung, change: cl(func(c *node.Cluster) { c.Optime = 1 << 30 }), refused: node.GuardRedundancy},

		{name: "in flight", action: softKill(), base: hung, tune: tries(attempt(90*time.Second, "")), refused: node.GuardInFlight},
		{name: "not judged yet", action: softKill(), base: hung, tune: tries(attempt(90*time.Second, node.ResultExecuted)), refused: node.GuardInFlight},
		{name: "third within the hour", action: softKill(), base: hung, tune: tries(attempt(50*time.Minute, node.ResultVerified), attempt(40*time.Minute, node.ResultVerified)), refused: ""},
		{name: "fourth within the hour", action: softKill(), base: hung, tune: tries(attempt(50*time.Minute, node.ResultVerified), attempt(40*time.Minute, node.ResultVerified), attempt(30*time.Minute, node.ResultVerified)), refused: node.GuardBudget},
		{name: "second disruption within the hour", action: disrupt(), base: hung, tune: tries(disrupted(30 * time.Minute)), refused: node.GuardBudget},
		{name: "30 s after the last", action: softKill(), base: hung, tune: tries(attempt(30*time.Second, node.ResultVerified)), refused: node.GuardBackoff},
		{name: "100 s after a failure", action: softKill(), base: hung, tune: tries(attempt(100*time.Second, node.ResultUnverified)), refused: node.GuardBackoff},
		{name: "after two failures", action: softKill(), base: hung, tune: tries(attempt(30*time.Minute, node.ResultUnverified), attempt(20*time.Minute, node.ResultFailed)), refused: node.GuardBreaker},
		{name: "not executed costs nothing", action: softKill(), base: hung, tune: tries(attempt(10*time.Second, node.ResultNotExecuted))},
		{name: "another boot costs nothing", action: softKill(), base: hung, tune: tries(otherBoot(10*time.Second), otherBoot(9*time.Second))},
		{name: "exit code, started once in vain", action: startFailed(), base: failed, change: un(func(s *service.Status) { s.Result = "exit-code" }), tune: tries(attempt(30*time.Minute, node.ResultUnverified)), refused: node.GuardBreaker},
	}
}
