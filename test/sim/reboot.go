package main

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// agentStart is how long after a unit that is enabled the agent starts at boot.
const agentStart = 2 * time.Second

func (m *machine) bootID() string { return fmt.Sprintf("boot-%s-%d", m.name, m.boots) }

// powerCut ends everything on the machine at once. It is up again after a while, in another boot, and systemd starts what
// is enabled. Disks keep what was synced: the journal of the agent, and what PostgreSQL has acknowledged.
func (m *machine) powerCut(back time.Duration) {
	m.w.say("%s: power cut", m.name)
	m.agent.crash()
	m.agent.crashes = nil // of this boot
	m.stopPostgres("power cut")
	m.gone()
	u := &m.unit
	u.pid, u.job, u.state, u.result, u.exit, u.invocation = 0, "", service.StateStopped, "success", 0, ""
	u.starts, u.restarts = nil, 0
	m.lease, m.leadUntil, m.failing = 0, 0, false
	m.boots++
	m.w.after(back, m, func() {
		m.uptime = time.Second - m.w.now
		m.w.say("%s: boots", m.name)
		if u.enablement == "enabled" && !u.masked {
			u.run()
		}
		m.w.after(agentStart, m, m.agent.start)
	})
}
