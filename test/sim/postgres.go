package main

import "time"

// writable reports whether PostgreSQL takes writes.
func (m *machine) writable() bool { return m.running && m.primary && m.busy == "" && !m.asleep() }

// join makes this PostgreSQL a replica of the leader's.
func (m *machine) join(lead *machine) {
	m.rewind(lead)
	if !m.running {
		m.startPostgres(false)
	}
	m.source = lead.name
}

// rewind discards what the leader never had.
func (m *machine) rewind(lead *machine) {
	m.w.changed()
	if lost := m.astray(); lost > 0 {
		m.w.clients.lost += lost
		m.w.say("%s: rewound, %.1f acknowledged writes lost", m.name, lost)
		m.lsn -= lost
	}
	m.timeline, m.wrote, m.diverged = lead.timeline, false, false
	m.lsn = min(m.lsn, lead.lsn)
}

// astray is how much was acknowledged here after the timelines parted. Whoever rewinds or ends this machine loses it.
func (m *machine) astray() float64 {
	if !m.wrote || int(m.timeline) >= len(m.w.forks) {
		return 0
	}
	return max(0, m.lsn-m.w.forks[m.timeline])
}

// streams reports whether a replica gets what its source writes.
func (m *machine) streams() bool {
	if !m.running || m.primary || m.source == "" || m.busy != "" || m.asleep() {
		return false
	}
	s := m.w.machine(m.source)
	return s.running && s.primary && s.timeline == m.timeline && !s.asleep() && m.w.net.reach(m.host, s.host)
}

// follow brings a replica to the position of what it streams from. It is part of the books: positions count only there.
func (m *machine) follow() {
	if m.streams() && !m.lagging {
		m.lsn = max(m.lsn, m.w.machine(m.source).lsn)
	}
}

// senderTimeout is PostgreSQL's wal_sender_timeout: so long does its shutdown wait for replicas whose connections are dead
// (FAULTS.md L12).
const senderTimeout = 60 * time.Second

// demote makes PostgreSQL read-only by a restart, for which the loop waits.
func (m *machine) demote() {
	m.w.say("%s: demotes", m.name)
	m.armed = false
	takes := 1500 * time.Millisecond
	for _, o := range m.w.machines {
		if o != m && o.source == m.name && o.timeline == m.timeline && !m.w.net.reach(m.host, o.host) {
			takes = senderTimeout
		}
	}
	m.waits = true
	m.tell("stopping", takes, func() {
		m.primary, m.waits = false, false
		m.startPostgres(false)
	})
}

// tell gives PostgreSQL something to do that takes time. Meanwhile it takes no writes.
func (m *machine) tell(what string, takes time.Duration, then func()) {
	m.w.changed()
	m.busy, m.busySince = what, m.w.now
	m.work++
	turn := m.work
	m.w.after(takes, m, func() {
		if turn != m.work {
			return
		}
		m.w.changed()
		m.busy = ""
		then()
		m.w.changed()
		m.w.after(nextTurn, m, m.loop)
	})
}

// nextTurn is how long after something that Patroni waited for its loop turns again.
const nextTurn = 500 * time.Millisecond

func (m *machine) startPostgres(primary bool) {
	m.running, m.primary, m.postmasterAt = true, primary, m.w.now
	m.postmaster += 100
	m.postTick = m.ticks()
	m.w.say("%s: PostgreSQL runs, primary %t", m.name, primary)
}

// stopPostgres ends PostgreSQL and whatever it was about to do.
func (m *machine) stopPostgres(why string) {
	m.w.changed()
	m.running, m.busy, m.postmasterAt = false, "", m.w.now
	m.work++
	if m.waits { // that it waited for is over, if not as it was meant
		m.waits = false
		m.w.after(nextTurn, m, m.loop)
	}
	m.w.say("%s: PostgreSQL ends: %s", m.name, why)
}
