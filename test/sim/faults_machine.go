package main

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The faults in this file are of whole machines, of the watchdog, and of what the cluster goes through.
var clusterKinds = []kind{
	{"reboot", 2, true, func(_ *world, m *machine, f fault) { m.reboot(10*time.Second + f.lasts/4) }},
	{"power-failure", 2, true, func(w *world, _ *machine, f fault) {
		w.downFor(fault{lasts: 10*time.Second + f.lasts/4}, w.etcd.members...)
		for i, m := range w.machines {
			m.reboot(8*time.Second + f.lasts/4 + time.Duration(f.pick%(7+i))*time.Second)
		}
	}},
	{"hangs-after-boot", 2, true, func(_ *world, m *machine, f fault) {
		m.relapses, m.relapse, m.relapseEnd = 1, time.Duration(f.pick%4)*time.Second, m.w.now+f.lasts+time.Minute
		m.reboot(10*time.Second + f.lasts/4)
	}},
	{"watchdog-device", 2, false, func(_ *world, m *machine, _ fault) { m.watchdog = true }},
	{"storm", 3, true, func(w *world, _ *machine, f fault) {
		for i, m := range w.machines {
			switch spared := f.pick%len(w.machines) == i && f.pick%3 == 0; {
			case spared:
			case (f.pick+i)%3 == 0 && m.running:
				m.stopPostgres("killed")
				fallthrough
			case (f.pick+i)%3 == 1:
				m.sicken(&m.stopped)
			default:
				m.sicken(&m.stuck)
			}
		}
	}},
	{"flapping-leader", 2, true, func(w *world, _ *machine, f fault) {
		for i := range 3 + f.pick%3 {
			w.later(time.Duration(i)*(9*time.Second+time.Duration(f.pick)*8*time.Millisecond), w.handOver)
		}
	}},
	{"switchover", 2, true, func(w *world, m *machine, _ fault) { w.switchOver(m, 0) }},
	{"switchover-scheduled", 2, true, func(w *world, m *machine, f fault) { w.switchOver(m, f.lasts) }},
	{"replicas-lag", 2, false, func(w *world, _ *machine, f fault) { w.unfit(f, func(m *machine, on bool) { m.lagging = on }) }},
	{"replicas-diverged", 2, false, func(w *world, _ *machine, f fault) {
		w.unfit(f, func(m *machine, on bool) {
			if on && m.streams() {
				m.diverged, m.divergedAt = true, m.w.now
				m.lsn += 9000 // a position that the leader reaches in a minute and a half
			}
		})
	}},
	{"replicas-nofailover", 2, false, func(w *world, _ *machine, f fault) { w.unfit(f, func(m *machine, on bool) { m.nofailover = on }) }},
	{"rolling-upgrade", 1, false, func(w *world, m *machine, f fault) {
		m.version = "4.0.8"
		w.after(f.lasts, nil, func() {
			for _, o := range w.machines {
				o.version = m.version
			}
		})
	}},
}

// later plans a stage of a fault, which does not come in a world without the faults that were still to come.
func (w *world) later(d time.Duration, do func()) {
	if w.until == 0 || w.now+d <= w.until {
		w.after(d, nil, do)
	}
}

// bootID changes with every boot.
func (m *machine) bootID() string { return fmt.Sprintf("boot-%s-%d", m.name, m.boots) }

// reboot ends everything on a machine and begins it anew some time later. What is on its disk stays.
func (m *machine) reboot(down time.Duration) {
	if m.asleep() {
		return
	}
	w, a := m.w, m.agent
	w.changed()
	w.say("%s: goes down for %s", m.name, down)
	a.halt()
	m.stopPostgres("the machine went down")
	m.gone()
	u := &m.unit
	u.n++ // what systemd was about to do is forgotten
	u.pid, u.job, u.state, u.result, u.exit, u.starts, u.restarts, u.doomed = 0, "", service.StateStopped, "success", 0, nil, 0, false
	m.armed = false
	m.sleeping, m.asleepUntil = true, w.now+down
	w.after(down, nil, func() {
		w.changed()
		m.sleeping = false
		m.boots++
		m.booted = w.now
		m.readyAt = 0
		m.uptime = -w.now
		w.say("%s: boots", m.name)
		w.after(2*time.Second, m, func() {
			if u.pid == 0 && u.enablement == "enabled" && !u.masked && u.state == service.StateStopped {
				u.run()
			}
		})
		if w.agents {
			w.after(3*time.Second, m, a.start)
		}
	})
}

// halt ends the agent with its machine, which is no crash of it.
func (a *agent) halt() {
	n := len(a.crashes)
	a.crash()
	a.crashes = a.crashes[:min(n, len(a.crashes))]
}

// pet keeps the watchdog from resetting the machine for another ttl less its safety margin (FACTS.md §3.1). Only a loop
// that leads does.
func (m *machine) pet() {
	if !m.watchdog || m.w.paused {
		m.armed = false
		return
	}
	m.armed, m.petted = true, m.w.now
	m.w.after(m.watchdogTime(), m, func() {
		if m.armed && m.w.now-m.petted >= m.watchdogTime() {
			m.w.say("%s: the watchdog resets the machine", m.name)
			m.reboot(20 * time.Second)
		}
	})
}

func (m *machine) watchdogTime() time.Duration { return m.w.timing.TTL - 5*time.Second }

// handOver is a leader that gives the key away, whatever the reason.
func (w *world) handOver() {
	l := w.machine(w.etcd.value(prefix + "leader"))
	if l == nil || !l.works() || !l.writable() || !w.etcd.answers(l) || w.paused {
		return
	}
	w.say("%s: hands the leader key over", l.name)
	l.yields = w.now + 8*time.Second
	l.tell("stopping", 1500*time.Millisecond, func() {
		l.primary, l.leadUntil, l.armed = false, 0, false
		l.startPostgres(false)
		if w.etcd.value(prefix+"leader") == l.name {
			w.etcd.remove(prefix + "leader")
		}
	})
}

// switchOver is patronictl switchover, now or at a moment: Patroni's leader does it in its loop.
func (w *world) switchOver(to *machine, in time.Duration) {
	holder := w.etcd.value(prefix + "leader")
	if holder == "" || !w.etcd.writable() || w.paused || w.switchover != nil {
		return
	}
	w.switchover, w.switchAt, w.switchAsked = &node.Switchover{From: holder}, w.now+in, w.now
	if to.name != holder {
		w.switchover.To = to.name
	}
	if in > 0 {
		w.switchover.Scheduled = w.wall.Add(w.switchAt).Format(time.RFC3339)
	}
	w.etcd.put(prefix+"failover", fmt.Sprintf("switchover from %s to %q at %s", holder, w.switchover.To, w.switchover.Scheduled), 0)
}

// switchOverDue lets the leader's loop do what a person has asked for.
func (m *machine) switchOverDue() {
	w := m.w
	if w.switchover == nil || w.now < w.switchAt {
		return
	}
	from := w.switchover.From
	w.switchover, w.switched = nil, w.now
	w.etcd.remove(prefix + "failover")
	if from == m.name {
		w.handOver()
	}
}

// unfit makes every replica, or most of them, one that could not take over.
func (w *world) unfit(f fault, set func(m *machine, on bool)) {
	leader := w.etcd.value(prefix + "leader")
	for i, m := range w.machines {
		if m.name == leader || f.pick%4 == 0 && i == f.pick%len(w.machines) {
			continue
		}
		w.changed()
		set(m, true)
		w.after(f.lasts, nil, func() { w.changed(); set(m, false) })
	}
}
