package main

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// unit models systemd's unit of Patroni: Restart=on-failure after 100 ms, five starts in ten seconds.
type unit struct {
	m            *machine
	state        service.State
	job          string
	result       string
	exit         int
	enablement   string
	masked       bool
	killMode     string
	restart      string
	restartSince instant // of its last change
	jobEnded     instant // when a job of somebody last did
	endedAt      instant // when the main process last did
	crashedAt    instant // when it last did by itself or by a signal
	doomed       bool    // SIGKILL waits for the kernel to let the process go
	restarts     int
	starts       []instant
	pid          int
	invocation   string
	n            int
	// people's orders
	orderedAt instant // when a person last stopped, masked, disabled or restarted it
}

const (
	restartDelay = 100 * time.Millisecond
	startLimit   = 5
	startSpan    = 10 * time.Second
)

func newUnit(m *machine, group bool) unit {
	u := unit{m: m, state: service.StateStopped, enablement: "enabled", killMode: "process", restart: "on-failure"}
	if group {
		u.killMode = "control-group"
	}
	return u
}

// changed tells the agent, as systemd's bus does.
func (u *unit) changed() {
	if a := u.m.agent; a != nil {
		a.unitDue = true
		a.wake()
	}
}

// run begins a new invocation.
func (u *unit) run() {
	u.n++
	u.invocation = fmt.Sprintf("%08x%s", u.n, u.m.name)
	u.doomed = false
	u.pid = 1000*u.n + int(u.m.name[1])
	u.state = service.StateRunning
	u.starts = append(u.starts, u.m.w.now)
	u.m.start()
	u.changed()
}

// used counts the starts that count towards the limit.
func (u *unit) used() int {
	n := 0
	for _, at := range u.starts {
		if u.m.w.now-at < startSpan {
			n++
		}
	}
	return n
}

// died is the main process having ended by itself or by a signal.
func (u *unit) died(result string, exit int) {
	u.m.gone()
	u.pid, u.result, u.exit, u.endedAt, u.crashedAt = 0, result, exit, u.m.w.now, u.m.w.now
	if u.killMode != "process" && u.m.running {
		u.m.stopPostgres("with its unit")
	}
	u.state = service.StateRestarting
	if u.masked || u.restart == "no" {
		u.state = service.StateFailed
	}
	u.changed()
	n := u.n
	u.m.w.after(restartDelay, u.m, func() {
		if u.state != service.StateRestarting || u.n != n {
			return
		}
		if u.used() >= startLimit {
			u.state = service.StateFailed
			u.m.w.say("%s: systemd gives up on Patroni", u.m.name)
			u.changed()
			return
		}
		u.restarts++
		u.run()
	})
}

// kill is SIGKILL for the main process, by whomever.
func (u *unit) kill() {
	if u.doomed = u.m.frozen == "D"; u.pid != 0 && !u.doomed {
		u.m.w.say("%s: Patroni %d is killed", u.m.name, u.pid)
		u.died("signal", 9)
	}
}

// clearAndStart is reset-failed and start.
func (u *unit) clearAndStart() {
	u.starts, u.restarts, u.result, u.exit = nil, 0, "success", 0
	u.run()
}

// stop is a stop by a person: Patroni ends, and PostgreSQL with it unless the cluster is paused.
func (u *unit) stop(then func()) {
	m := u.m
	u.orderedAt = m.w.now
	if u.pid == 0 {
		u.state, u.result, u.job = service.StateStopped, "success", ""
		if then != nil {
			then()
		}
		u.changed()
		return
	}
	u.state = service.StateStopping
	if u.job == "" {
		u.job = "stop"
	}
	u.changed()
	pause := m.w.paused
	if !pause {
		m.tell("stopping", time.Second, func() {})
	}
	m.w.after(1100*time.Millisecond, m, func() {
		if !pause && m.running {
			m.stopPostgres("Patroni was stopped")
		}
		release := m.w.etcd.value(prefix+"leader") == m.name && m.w.etcd.answers(m) && !pause
		m.armed = false
		m.gone()
		u.pid, u.state, u.result, u.exit, u.job = 0, service.StateStopped, "success", 0, ""
		u.jobEnded, u.endedAt = m.w.now, m.w.now
		u.changed()
		if release {
			m.w.etcd.revoke(m.lease)
		}
		m.lease = 0
		if then != nil {
			then()
		}
	})
}

func (u *unit) status() service.Status {
	s := service.Status{
		Unit: unitName, State: u.state, Detail: "model", Result: u.result, ExitStatus: u.exit, Job: u.job,
		Enablement: u.enablement, Masked: u.masked, MainPID: u.pid, InvocationID: u.invocation, Restarts: u.restarts,
		KillMode: u.killMode, Restart: u.restart, RestartDelay: restartDelay, StartLimit: startLimit, StartLimitSpan: startSpan,
	}
	if u.masked {
		s.Enablement = "masked"
	}
	return s
}
