package main

import (
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The faults in this file are of Patroni's process and of its unit.
var unitKinds = []kind{
	{"in-kernel", 2, true, func(_ *world, m *machine, f fault) { m.freeze("D", f.lasts) }},
	{"debugger", 2, true, func(_ *world, m *machine, f fault) { m.freeze("t", f.lasts) }},
	{"rest-starved", 2, true, func(_ *world, m *machine, f fault) { m.starve(f.lasts) }},
	{"overloaded", 2, true, func(w *world, m *machine, f fault) { // a machine that has time neither for etcd nor, for longer, for HTTP
		m.starve(f.lasts + 20*time.Second)
		w.during(f.lasts, func(by int) { w.partEtcd(m, by) })
	}},
	{"hangs-again", 3, true, func(_ *world, m *machine, f fault) {
		m.relapses, m.relapse, m.relapseEnd = 1+f.pick%5, time.Second+f.lasts*time.Duration(f.pick%3)/10, m.w.now+f.lasts
		m.sicken(&m.stopped)
	}},
	{"exits-at-start", 2, true, func(w *world, m *machine, f fault) {
		m.exits = true
		w.after(f.lasts, nil, func() { m.exits = false })
		m.unit.kill()
	}},
	{"crashes-then-hangs", 2, true, func(w *world, m *machine, f fault) {
		for i := range 1 + f.pick%5 {
			w.after(time.Duration(i)*300*time.Millisecond, m, m.unit.kill)
		}
		m.relapses, m.relapse, m.relapseEnd = 1, 0, w.now+f.lasts
	}},
	{"restart-no", 1, false, func(_ *world, m *machine, _ fault) { m.unit.restart, m.unit.restartSince = "no", m.w.now }},
	{"operator-masks-failed", 2, false, func(w *world, m *machine, f fault) {
		m.unit.onFailure(w, f, func() { m.unit.masked = true })
	}},
	{"operator-disables-failed", 2, false, func(w *world, m *machine, f fault) {
		m.unit.onFailure(w, f, func() { m.unit.enablement = "disabled" })
	}},
	{"operator-restart-then-hang", 2, true, func(_ *world, m *machine, f fault) {
		m.relapses, m.relapse, m.relapseEnd = 1, time.Duration(f.pick%10)*time.Second, m.w.now+f.lasts
		m.unit.order(func() { m.unit.job = "restart"; m.unit.stop(m.unit.clearAndStart) })
	}},
}

// recurring are the kinds that strike again after somebody has healed what they did.
var recurring = []string{"hangs-again", "crashes-then-hangs", "operator-restart-then-hang", "hangs-after-boot", "flapping-leader", "switchover-scheduled"}

// starve keeps Patroni's REST API from answering in time, while its loop runs.
func (m *machine) starve(lasts time.Duration) {
	w := m.w
	w.changed()
	m.starved++
	if m.starvedEnd < w.now {
		m.starvedSince = w.now
	}
	m.starvedEnd = max(m.starvedEnd, w.now+lasts)
	w.after(lasts, nil, func() { w.changed(); m.starved-- })
}

// freeze keeps Patroni's main process from running: asleep in the kernel (D) or held by a debugger (t). SIGKILL waits for
// the kernel to let it go.
func (m *machine) freeze(state string, lasts time.Duration) {
	if !m.patroni || !m.ready || m.stopped {
		return
	}
	m.frozen = state
	m.sicken(&m.stopped)
	life := m.unit.invocation
	m.w.after(lasts, m, func() {
		if m.unit.invocation != life || !m.stopped {
			return
		}
		m.w.changed()
		m.stopped, m.frozen = false, ""
		m.trouble()
		if m.unit.doomed {
			m.unit.kill()
		}
		m.loop() // its pause is long over
	})
}

// fallIll lets a Patroni that has just come up hang again, as often as its machine's fault says.
func (m *machine) fallIll() {
	if m.relapses == 0 || m.w.now > m.relapseEnd || m.w.until > 0 && m.w.now > m.w.until {
		return
	}
	m.relapses--
	life := m.unit.invocation
	m.w.after(m.relapse, m, func() {
		if m.unit.invocation == life && !m.stopped {
			m.sicken(&m.stopped)
		}
	})
}

// onFailure is what a person does to a unit that they find failed within the fault's time.
func (u *unit) onFailure(w *world, f fault, do func()) {
	until := w.now + f.lasts
	var look func()
	look = func() {
		switch {
		case u.state == service.StateFailed:
			u.orderedAt = w.now
			do()
			u.changed()
		case w.now < until:
			w.after(50*time.Millisecond, nil, look)
		}
	}
	look()
}
