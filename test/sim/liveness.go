package main

import "slices"

// settledDown: S33, when the faults have been over for settleDown every Patroni is well, or a finding of its agent names what is
// not. What an agent refuses to mend, for a budget or a person's sake, it still has to say.
func (c *checker) settledDown() {
	for _, m := range c.w.machines {
		if m.asleep() || m.woke > 0 && c.w.now-m.woke < settleDown {
			continue // its fault is not over, or not for long
		}
		if why := m.unwell(); why != "" && !m.agent.tells() && !c.healing(m) {
			c.broken(m.agent, "S33", "%s, and no finding says so", why)
		}
	}
}

// calm reports whether what waited for an action struck long enough ago, and no act was just now: what came of them shows.
func (w *world) calm() bool {
	return !slices.ContainsFunc(w.met, func(s strike) bool { return w.now-s.at < settleDown }) &&
		!slices.ContainsFunc(w.check.acts, func(a act) bool { return w.now-a.at < settleDown/3 })
}

// healing reports whether an act on a machine may still take effect.
func (c *checker) healing(m *machine) bool {
	return slices.ContainsFunc(c.acts, func(a act) bool { return a.m == m && c.w.now-a.at < a.action.Settle })
}

// unwell says what is wrong with a machine in the end, "" if nothing is.
func (m *machine) unwell() string {
	key := m.w.etcd.value(prefix + "leader")
	switch {
	case !m.patroni:
		return "Patroni does not run"
	case m.stopped || m.stuck || m.refused:
		return "Patroni hangs"
	case m.w.etcd.keys[m.key] == nil:
		return "the member has no key"
	case !m.running:
		return "PostgreSQL does not run"
	case key == "":
		return "nobody leads"
	case key == m.name && !m.primary:
		return "the leader is no primary"
	case key != m.name && m.primary:
		return "a second primary"
	case key != m.name && !m.streams() && m.busy == "":
		return "the replica does not stream"
	}
	return ""
}

// tells reports whether an agent has a finding about its Patroni or the cluster.
func (a *agent) tells() bool {
	for _, f := range a.mem.Open {
		if f.Subject == "patroni" || f.Subject == scope {
			return true
		}
	}
	return false
}
