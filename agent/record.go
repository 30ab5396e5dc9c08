package agent

import (
	"context"
	"log/slog"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

func (a *Agent) newLoop(cfg config.Config, g *generation) *loop {
	return &loop{
		observe: a.withOrders(g.obs.Observe), attempts: a.journal.Attempts, healthy: a.journal.Healthy, record: a.record,
		publish: func(s node.Snapshot, p node.Plan) { a.view.Store(&published{snap: s, plan: p}) },
		alive:   a.sayAlive, exec: g.exec, host: a.o.Host, started: a.started, problem: a.configProblem,
		wake: a.wake, logger: a.log("loop"), spec: cfg.Spec(), planned: a.o.Host.Now(),
	}
}

// sayAlive tells systemd, if it runs this agent, that the loop has come round: a watchdog that is fed from anywhere else
// would keep an agent alive that no longer decides.
func (a *Agent) sayAlive() {
	for _, state := range []string{daemon.SdNotifyReady, daemon.SdNotifyWatchdog} {
		if _, err := daemon.SdNotify(false, state); err != nil {
			a.o.Logger.Debug("service manager not notified", "err", err)
			return
		}
	}
}

// record writes what a decision changed to the journal and the log.
func (a *Agent) record(r recorded) {
	log := a.log("loop")
	for i := range r.opened {
		f := r.opened[i]
		log.Log(context.Background(), levelOf(f.Severity), "finding", "code", f.Code, "service", f.Subject, "severity", f.Severity, "text", f.Text)
		a.note(journal.Record{Kind: journal.Finding, Finding: &f})
	}
	for i := range r.cleared {
		f := r.cleared[i]
		log.Info("finding cleared", "code", f.Code, "service", f.Subject)
		a.note(journal.Record{Kind: journal.Cleared, Finding: &f})
	}
	if r.plan != nil {
		log.Info("plan", "summary", r.plan.Summary)
		a.note(journal.Record{Kind: journal.Plan, Plan: r.plan})
	}
}

func levelOf(s node.Severity) slog.Level {
	switch s {
	case node.Page:
		return slog.LevelError
	case node.Warn:
		return slog.LevelWarn
	case node.Info:
	}
	return slog.LevelInfo
}
