package main

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/coordinator"
)

// fault is one thing that goes wrong, or that a person does. It lasts where it can.
type fault struct {
	number int // within its script, from 1
	at     instant
	kind   string
	leader bool // the leader of that moment, else the pick-th of the others
	pick   int
	lasts  time.Duration
}

// kind is something that can go wrong, or that people do.
type kind struct {
	name   string
	weight int
	stack  bool // it happens to the stack, and not to the agents alone
	do     func(w *world, m *machine, f fault)
}

// stack reports whether a fault happens to the stack, and not to the agents alone.
func (f fault) stack() bool {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == f.kind })
	return kinds[i].stack
}

// kinds are what a script is drawn from.
var kinds = slices.Concat(machineKinds, networkKinds, senseKinds, unitKinds, clusterKinds, keyKinds, peopleKinds, agentKinds)

var machineKinds = []kind{
	{"patroni-stopped", 6, true, func(_ *world, m *machine, _ fault) { m.sicken(&m.stopped) }},
	{"patroni-killed", 2, true, func(_ *world, m *machine, _ fault) { m.unit.kill() }},
	{"start-limit", 3, true, func(w *world, m *machine, _ fault) {
		for i := range 7 {
			w.after(time.Duration(i)*600*time.Millisecond, m, m.unit.kill)
		}
	}},
	{"loop-stuck", 3, true, func(_ *world, m *machine, _ fault) { m.sicken(&m.stuck) }},
	{"rest-refused", 2, true, func(_ *world, m *machine, _ fault) { m.sicken(&m.refused) }},
	{"postmaster-killed", 2, true, func(_ *world, m *machine, _ fault) {
		if m.running {
			m.stopPostgres("killed")
		}
	}},
	{"etcd-nospace", 2, true, func(w *world, _ *machine, f fault) {
		w.etcd.setNospace(true)
		w.after(f.lasts, nil, func() { w.etcd.setNospace(false) })
	}},
	{"config-broken", 2, true, func(w *world, m *machine, f fault) {
		m.badConfig, m.configAt = true, w.now
		w.after(f.lasts, nil, func() { m.badConfig, m.configAt = false, w.now })
	}},
	{"agent-killed", 4, false, func(w *world, m *machine, f fault) {
		if w.agents && m.agent.alive {
			m.agent.crash()
			w.after(f.lasts/10, m, m.agent.start)
		}
	}},
	{"agents-killed-soon-after-act", 2, false, func(w *world, _ *machine, f fault) {
		w.check.ambush = 1 + f.pick%40
	}},
	{"machine-suspended", 1, true, func(_ *world, m *machine, f fault) { m.suspend(f.lasts / 2) }},
	{"wall-clock-jump", 1, false, func(_ *world, m *machine, f fault) { m.jump, m.jumped = m.jump+f.lasts*10, m.w.now }},
	{"package-manager", 1, false, func(w *world, m *machine, f fault) {
		m.upgrading, m.upgradeFrom = true, w.now
		w.after(f.lasts, nil, func() { m.upgrading = false })
	}},
	{"operator-stop", 2, true, func(_ *world, m *machine, _ fault) { m.unit.order(func() { m.unit.stop(nil) }) }},
	{"operator-mask", 1, true, func(_ *world, m *machine, _ fault) {
		m.unit.order(func() { m.unit.masked = true; m.unit.stop(nil) })
	}},
	{"operator-disable", 1, true, func(_ *world, m *machine, _ fault) {
		m.unit.order(func() { m.unit.enablement = "disabled"; m.unit.stop(nil) })
	}},
	{"operator-restart", 2, true, func(_ *world, m *machine, _ fault) {
		m.unit.order(func() { m.unit.job = "restart"; m.unit.stop(m.unit.clearAndStart) })
	}},
	{"patronictl-pause", 2, true, func(w *world, _ *machine, f fault) {
		w.setPause(true)
		w.after(f.lasts, nil, func() { w.setPause(false) })
	}},
	{"policy-observe", 1, false, func(_ *world, m *machine, _ fault) {
		m.agent.policy.Revive, m.agent.policy.Disrupt = node.ModeObserve, node.ModeObserve
	}},
}

// sicken breaks something of a Patroni that runs.
func (m *machine) sicken(what *bool) {
	if !m.patroni || !m.ready {
		return
	}
	m.w.changed()
	*what = true
	m.trouble()
}

// order is something a person does to a unit on which nobody else is at work.
func (u *unit) order(do func()) {
	if u.job != "" || u.state.String() == "stopping" || u.m.frozen != "" {
		return
	}
	u.m.w.changed()
	u.m.stopped = false // systemd sends SIGCONT after SIGTERM
	do()
}

func (w *world) setPause(on bool) {
	w.changed()
	w.paused = on
	if on {
		w.pausedAt = w.now
	}
	w.setConfig()
}

// draw draws what goes wrong in a seed, how fast and where: of a subset of its own of all kinds, with rates of its own.
func draw(w *world) (script []fault, length time.Duration) {
	r := w.rand("script")
	weights, total := make([]int, len(kinds)), 0
	for total == 0 {
		for i, k := range kinds {
			if weights[i] = 0; r.IntN(5) < 2 {
				weights[i] = k.weight * (1 + r.IntN(4))
			}
			total += weights[i]
		}
	}
	spread := 5000 + r.IntN(70000)
	for range 1 + r.IntN(6) {
		n, i := r.IntN(total), 0
		for n >= weights[i] {
			n -= weights[i]
			i++
		}
		f := fault{
			at: time.Duration(12000+r.IntN(spread)) * time.Millisecond, kind: kinds[i].name, leader: r.IntN(3) > 0, pick: r.IntN(1000),
			lasts: time.Duration(2000+r.IntN(60000)) * time.Millisecond,
		}
		switch f.kind {
		case "hangs-again":
			f.lasts *= 4
		case "approves-and-holds":
			f.lasts += node.ApprovalLife
		}
		script = append(script, f)
	}
	slices.SortStableFunc(script, func(a, b fault) int { return int(a.at - b.at) })
	for i, f := range script {
		script[i].number = i + 1
		length = max(length, f.at+f.lasts)
	}
	return script, length + settleDown
}

// settleDown is how long a world goes on when its faults are over (FAULTS.md S33).
const settleDown = 90 * time.Second

// strike lets a fault happen to whom it is meant for.
func (w *world) strike(f fault) {
	var others []*machine
	target := w.machine(w.etcd.value(prefix + "leader"))
	for _, m := range w.machines {
		if m != target {
			others = append(others, m)
		}
	}
	if !f.leader {
		target = others[f.pick%len(others)]
	}
	if target == nil {
		return
	}
	for _, k := range kinds {
		if k.name == f.kind {
			w.say("fault %d: %s on %s%s", f.number, f.kind, target.name, f.span())
			w.facts.Faults[f.kind]++
			k.do(w, target, f)
		}
	}
}

// play runs one seed to its end and returns what was done to it.
func play(w *world) []fault {
	script, length := draw(w)
	length = max(length, w.least)
	script = w.only.of(script)
	for _, f := range script {
		if w.until > 0 && f.at > w.until {
			continue
		}
		w.after(f.at, nil, func() { w.strike(f) })
	}
	w.after(w.until, nil, w.changed)
	w.run(length)
	w.changed()
	if w.agents && w.stopAt == 0 && w.calm() {
		w.check.settledDown()
	}
	w.facts.Hours += length.Hours()
	for _, m := range w.machines {
		w.clients.lost += m.astray() // what nobody has rewound yet
	}
	w.end()
	return script
}

var _ coordinator.KV = (*client)(nil)
