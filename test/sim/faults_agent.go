package main

import "time"

// The faults in this file are of agents alone, and of what happens to a machine in the middle of an action.
var agentKinds = []kind{
	{"journal-full", 3, false, func(w *world, m *machine, f fault) {
		m.agent.journal.full++
		w.after(f.lasts, nil, func() { m.agent.journal.full-- })
	}},
	{"agent-starved", 3, false, func(w *world, m *machine, f fault) {
		m.agent.slow, m.agent.slowUntil = time.Second+time.Duration(f.pick)*8*time.Millisecond, w.now+f.lasts
	}},
	{"agent-crash-loop", 2, false, func(w *world, m *machine, f fault) {
		for i := range 4 + f.pick%5 {
			w.after(time.Duration(i)*(3*time.Second+time.Duration(f.pick)*4*time.Millisecond), nil, func() {
				m.agent.crash()
				w.after(time.Second, m, m.agent.start)
			})
		}
	}},
	{"suspended-in-action", 3, true, func(w *world, _ *machine, f fault) {
		w.trap(f, func(m *machine) { m.suspend(f.lasts * 4) })
	}},
	{"replaced-in-action", 3, true, func(w *world, _ *machine, f fault) {
		w.trap(f, func(m *machine) { m.unit.kill() })
	}},
	{"operator-in-action", 2, true, func(w *world, _ *machine, f fault) {
		w.trap(f, func(m *machine) {
			switch f.pick % 3 {
			case 0:
				m.unit.order(func() { m.unit.stop(nil) })
			case 1:
				m.unit.order(func() { m.unit.masked = true; m.unit.stop(nil) })
			default:
				m.unit.order(func() { m.unit.job = "restart"; m.unit.stop(m.unit.clearAndStart) })
			}
		})
	}},
	{"held-in-action", 2, false, func(w *world, _ *machine, f fault) { w.trap(f, func(m *machine) { w.hold(m, f) }) }},
	{"manager-lost-in-action", 3, false, func(w *world, _ *machine, f fault) {
		w.trap(f, func(m *machine) { m.blindFor(f.lasts, seeUnit) })
	}},
	{"agent-and-manager-lost-in-action", 3, false, func(w *world, _ *machine, f fault) {
		w.trap(f, func(m *machine) {
			m.blindFor(f.lasts, seeUnit)
			m.agent.crash()
			w.after(time.Second, m, m.agent.start)
		})
	}},
	{"postmaster-killed-after-action", 2, true, func(w *world, _ *machine, f fault) {
		w.trap(fault{pick: 100 + f.pick}, func(m *machine) {
			if m.running {
				m.stopPostgres("killed")
			}
		})
	}},
}

// trap lets something happen to the machine of the next action, some time after that has begun: mostly before the act.
func (w *world) trap(f fault, do func(*machine)) {
	delay := time.Duration(f.pick%70) * time.Millisecond
	if f.pick >= 700 {
		delay = time.Duration(f.pick-700) * 10 * time.Millisecond
	}
	w.traps = append(w.traps, func(m *machine) {
		w.after(delay, nil, func() {
			w.met = append(w.met, strike{w.now, m})
			do(m)
		})
	})
}

// sprung is called when an action begins.
func (w *world) sprung(m *machine) {
	for _, t := range w.traps {
		t(m)
	}
	w.traps = nil
}

// suspend lets a machine sleep.
func (m *machine) suspend(d time.Duration) {
	if m.asleep() {
		return
	}
	w := m.w
	w.changed()
	w.say("%s: is suspended for %s", m.name, d)
	m.sleeping, m.asleepUntil = true, w.now+d
	w.after(d, nil, func() {
		w.changed()
		m.sleeping = false
		m.slept += d
		m.woke, m.nap = w.now, d
		m.agent.sleepy += d
	})
}
