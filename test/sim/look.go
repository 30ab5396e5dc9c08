package main

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// depth is observer.Depth.
type depth int

const (
	routine depth = iota
	alert
	confirm
)

// How old a fact may become, as in package agent/observer.
var (
	everyUnit    = [...]time.Duration{5 * time.Second, 0, 0}
	everyAPI     = [...]time.Duration{10 * time.Second, 2 * time.Second, 0}
	everySession = [...]time.Duration{20 * time.Second, 2 * time.Second, 0}
	everyMachine = [...]time.Duration{10 * time.Second, 5 * time.Second, 0}
)

// sight is what one process of the agent has seen last.
type sight struct {
	facts node.PatroniFacts
	dcs   node.DCS
}

func due[T any](f node.Fact[T], now node.Instant, every time.Duration) bool {
	return !f.Known || f.Age(now) >= every
}

// snapshot looks at the model with the ages, unknowns and delays of real probes. Looks run beside each other: each fact is
// of the moment at which the look began, and all take as long as the slowest.
func (a *agent) snapshot(p *process, d depth) node.Snapshot {
	delay := max(0, a.m.w.now-a.planned)
	if d != confirm {
		a.late = delay
	}
	began := a.m.w.now
	p.sleep(a.latency())
	slowest := a.lookLocal(d)
	p.sleep(a.latency())
	slowest = max(slowest, a.lookEtcd(d))
	p.sleep(max(slowest, a.latency()))
	now := a.now()
	s := node.Snapshot{
		Node: a.m.name, Scope: scope, Now: now, Wall: a.m.w.wall.Add(a.m.w.now + a.m.jump), BootID: a.m.bootID(),
		Uptime: time.Duration(now), Confirm: d == confirm, DCS: a.look.dcs, Patroni: []node.PatroniFacts{a.look.facts},
		Orders: a.orders(),
	}
	s.Self = node.Self{LoopDelay: delay, StartedAgo: a.m.w.now - a.born, Assertion: a.broken, JournalBroken: a.journal.healthy()}
	for _, at := range a.crashes {
		if a.m.w.now-at <= node.CrashWindow {
			s.Self.Crashes++
		}
	}
	if a.sleepy > 500*time.Millisecond {
		s.Self.Suspended = a.sleepy
	}
	if jump := a.m.jump - a.wall; jump > 500*time.Millisecond || jump < -500*time.Millisecond {
		s.Self.ClockJump = jump
	}
	a.sleepy, a.wall = 0, a.m.jump
	a.planned = max(began, a.m.w.now)
	return s
}

// lookLocal looks at this machine and returns how long the slowest look takes.
func (a *agent) lookLocal(d depth) time.Duration {
	m, f, at := a.m, &a.look.facts, a.now()
	f.Service = "patroni"
	if a.unitDue || due(f.Unit, at, everyUnit[d]) {
		a.unitDue = false
		f.Unit = see(a, seeUnit, f.Unit, m.unit.status(), "systemd", at)
		a.shown.unitShown(f.Unit.Value, m.w.now)
	}
	f.Process = a.process(at)
	slowest := a.lookAPI(d, at)
	f.Postgres = see(a, seePostgres, f.Postgres, m.files(), "files", at)
	if due(f.Session, at, everySession[d]) {
		if m.running && m.busy == "" && a.finds(seeSession) {
			f.Session = node.Seen(probe.Session{InRecovery: !m.primary, LSN: uint64(m.lsn), Timeline: m.timeline, SystemID: systemID}, "session", at)
		} else {
			f.Session.Why = "no session"
		}
	}
	if due(f.Machine, at, everyMachine[d]) {
		v := probe.Machine{}
		if m.running {
			v.Postmasters = []probe.Postmaster{{PID: m.postmaster, Unit: unitName}}
		}
		if m.busy == "rewinding" {
			v.Jobs = []string{"pg_rewind"}
		}
		if m.upgrading {
			v.Upgrades = []string{"apt-get"}
		}
		f.Machine = see(a, seeMachine, f.Machine, v, "process table", at)
	}
	f.Config = a.config(at)
	return slowest
}

// config is the validator's verdict. A file that has changed is unknown for as long as the validator takes.
func (a *agent) config(at node.Instant) node.Fact[probe.ConfigCheck] {
	m := a.m
	if m.configAt != 0 && m.w.now-m.configAt < 3*time.Second {
		return node.Unseen[probe.ConfigCheck]("validator", "the file has changed and is being checked", at)
	}
	v := probe.ConfigCheck{File: "patroni.yml", FileID: fmt.Sprint(m.configAt), Name: m.name, Scope: scope, Valid: !m.badConfig}
	if m.badConfig {
		v.Problems = []string{"broken"}
	}
	return see(a, seeConfig, node.Fact[probe.ConfigCheck]{}, v, "validator", at)
}

func (a *agent) process(at node.Instant) node.Fact[probe.Process] {
	pid := a.look.facts.Unit.Value.MainPID
	if !a.look.facts.Unit.Known || pid == 0 {
		return node.Unseen[probe.Process]("process table", "the unit has no main process", at)
	}
	v := probe.Process{PID: pid}
	if m := a.m; m.unit.pid == pid {
		v = probe.Process{Exists: true, PID: pid, State: "S", StartTick: uint64((m.born + m.uptime) / (10 * time.Millisecond)), Command: "patroni", Unit: unitName}
		switch {
		case m.frozen == "t":
			v.State, v.TracerPID = "t", 4242
		case m.frozen != "":
			v.State = m.frozen
		case m.stopped:
			v.State = "T"
		}
		v.Watchdog = m.armed
	}
	return see(a, seeProcess, a.look.facts.Process, v, "process table", at)
}

// lookAPI asks the model of the REST API.
func (a *agent) lookAPI(d depth, at node.Instant) time.Duration {
	m, f := a.m, &a.look.facts
	live, takes := probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 200}, time.Duration(0)
	patience := m.w.timing.TTL
	if !m.primary {
		patience *= 2
	}
	switch {
	case m.patroni && m.ready && (m.stopped || m.starved > 0):
		live, takes = probe.Liveness{Outcome: probe.OutcomeTimeout}, time.Second
		if f.Process.Value.Stopped() {
			takes = 400 * time.Millisecond
		}
	case !m.answers():
		live = probe.Liveness{Outcome: probe.OutcomeRefused}
	case m.stuck && m.w.now-m.lastLoop > patience:
		live.Status = 503
	}
	if m.otherAPI.on() {
		live, takes = probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 200}, 0
	}
	f.Liveness = see(a, seeLiveness, f.Liveness, live, "/liveness", at)
	if f.Liveness.Value.Outcome == probe.OutcomeAnswered && (m.answers() || m.otherAPI.on()) && due(f.API, at, everyAPI[d]) {
		role := "replica"
		if m.primary {
			role = "primary"
		}
		f.API = see(a, seeAPI, f.API, probe.PatroniAPI{
			Outcome: probe.OutcomeAnswered, Name: m.apiName(), Scope: scope, State: m.stateWord(), Role: role,
			Timeline: int64(m.timeline), Paused: m.w.paused, SystemID: systemID,
		}, "/patroni", at)
	}
	return takes
}

// apiName is what the API at the configured address calls itself.
func (m *machine) apiName() string {
	if m.otherAPI.on() {
		return "other"
	}
	return m.name
}

func (m *machine) files() probe.Postgres {
	v := probe.Postgres{
		DataDir: "/pgdata", Initialized: true, DataDirID: "dir-" + m.name, SystemID: systemID, ControlState: "in archive recovery",
		Timeline: m.timeline, CheckpointLSN: uint64(m.lsn), Standby: !m.primary, Port: 5432,
	}
	if m.primary {
		v.ControlState = probe.ControlInProduction
	}
	if m.running {
		v.Running, v.PostmasterPID, v.PostmasterTick, v.ProcessState, v.CGroupUnit = true, m.postmaster, m.postTick, "S", unitName
		v.ServerStatus = "ready"
		switch m.busy {
		case "starting":
			v.ServerStatus = probe.ServerStarting
		case "stopping":
			v.ServerStatus = probe.ServerStopping
		}
	}
	return v
}

// lookEtcd is agent/dcs.View.Observe: the leader key by a linearizable read, the other keys as the watch has told of them,
// and all of them by a read before an act, without a watch, and every now and then. What cannot be read stays as it was.
func (a *agent) lookEtcd(d depth) time.Duration {
	v, e, at := &a.look.dcs, a.m.w.etcd, a.now()
	takes, ok := a.etcd.request()
	if !ok {
		if v.Since == 0 {
			v.Since = at
		}
		v.Cluster.Why = "no answer"
		if d == confirm {
			v.Writable = node.Unseen[bool]("etcd", "no answer", at)
		}
		return takes
	}
	v.Since = 0
	v.Cluster = see(a, seeKeys, v.Cluster, a.m.mistaken(a.keys(d)), "etcd linearizable", at)
	if m := a.m; m.found[seeKeys] == m.w.now {
		a.shown.keysShown(&v.Cluster.Value, m.w.now)
	}
	v.Shared = node.Unseen[node.Coordination]("etcd", "etcd refuses to show it", at) // as of the view of the cluster
	if v.Cluster.Known && a.finds(seeShared) {
		v.Shared = node.Seen(e.shared, "etcd", v.Cluster.At)
	}
	a.lookLeases(at)
	if d != routine || due(v.Alarms, at, 5*time.Second) {
		var alarms []string
		if e.nospace {
			alarms = []string{"NOSPACE"}
		}
		v.Alarms = see(a, seeAlarms, v.Alarms, alarms, "etcd", at)
	}
	if d == confirm {
		v.Writable = node.Seen(e.writable(), "etcd", at)
	}
	return takes
}

// lookLeases asks for the leases that the view names. What is known of another lease says nothing of this one.
func (a *agent) lookLeases(at node.Instant) {
	v, e := &a.look.dcs, a.m.w.etcd
	read := func(old node.Fact[node.Lease], id int64) node.Fact[node.Lease] {
		if old.Value.ID != id {
			old = node.Fact[node.Lease]{}
		}
		return see(a, seeLease, old, e.left(id), "etcd", at)
	}
	if l := v.Cluster.Value.Leader; l != nil {
		v.LeaderLease = read(v.LeaderLease, l.Lease)
	}
	if me, ok := v.Cluster.Value.Member(a.member); ok {
		v.MemberLease = read(v.MemberLease, me.Lease)
	}
}

// listEvery is how often all keys are read although a watch tells of them, as in agent/dcs.
const listEvery = 30 * time.Second

// keys is what the agent knows of Patroni's keys after a linearizable read that was answered.
func (a *agent) keys(d depth) node.Cluster {
	now, e := a.m.w.now, a.m.w.etcd
	current := *e.seen(now)
	upto, live := a.etcd.watched()
	if !live || d == confirm || now-a.listed >= listEvery {
		a.listed, a.told = now, now
		return current
	}
	a.told = max(a.told, upto)
	c := *e.seen(a.told)
	c.Leader, c.LeaderUnknown, c.Revision = current.Leader, current.LeaderUnknown, current.Revision
	return c
}

// left is a lease as etcd tells of it: in whole seconds.
func (e *etcdModel) left(id int64) node.Lease {
	l := e.leases[id]
	if l == nil {
		return node.Lease{ID: id}
	}
	return node.Lease{ID: id, Granted: l.ttl, Remaining: max(0, l.expires-e.w.now).Truncate(time.Second), Exists: true}
}

// cluster is what Patroni's keys say now.
func (w *world) cluster() *node.Cluster {
	c := &node.Cluster{
		Scope: scope, Revision: w.etcd.revision, ClusterID: 1, Initialize: w.etcd.value(prefix + "initialize"), Switchover: w.switchover,
		Config:  w.dynamic(),
		Members: make([]node.Member, 0, len(w.machines)),
	}
	for _, o := range w.machines {
		if kv := w.etcd.keys[o.key]; kv != nil {
			mem := o.published
			mem.Lease, mem.ModRevision = kv.Lease, kv.ModRevision
			c.Members = append(c.Members, mem)
		}
	}
	if kv := w.etcd.keys[prefix+"leader"]; kv != nil && w.garbled.on() {
		c.LeaderUnknown = true
	} else if kv != nil {
		c.Leader = &node.LeaderKey{Name: string(kv.Value), Lease: kv.Lease, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision}
		if l, ok := c.Member(c.Leader.Name); ok {
			c.Optime = l.LSN
		}
	}
	return c
}
