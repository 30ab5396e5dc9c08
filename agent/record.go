package agent

import (
	"context"
	"log/slog"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/loop"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

func (a *Agent) newLoop(cfg config.Config, g *generation) *loop.Loop {
	return loop.New(loop.Deps{
		Observe: a.withOrders(g.obs.Observe), Attempts: a.journal.Attempts, Healthy: a.journal.Healthy, Crashes: a.crashes,
		Record:  a.record,
		Keep:    a.keep,
		Publish: func(q node.Question, p node.Plan) { a.view.Store(&published{question: q, plan: p}) },
		Alive:   a.sayAlive, Executor: g.exec, Host: a.o.Host, Started: a.started, Problem: a.configProblem,
		Wake: a.wake, Logger: a.log("loop"),
	}, cfg.Spec(), node.Memory{})
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

// record writes what a decision changed to the journal and the log: first the decision with its inputs, then what it
// found, which refers to it. It returns the sequence number of the decision, 0 if it could not be recorded.
func (a *Agent) record(e loop.Entry) uint64 {
	log := a.log("loop")
	if e.News {
		log.Info("plan", "summary", e.Plan.Summary)
	}
	seq := a.note(journal.Record{Kind: journal.Plan, Plan: &e.Plan, Question: &e.Question})
	for i := range e.Opened {
		f := e.Opened[i]
		log.Log(context.Background(), levelOf(f.Severity), "finding", "code", f.Code, "service", f.Subject, "severity", f.Severity, "text", f.Text)
		a.note(journal.Record{Kind: journal.Finding, Finding: &f, Decision: seq})
	}
	for i := range e.Cleared {
		f := e.Cleared[i]
		log.Info("finding cleared", "code", f.Code, "service", f.Subject)
		a.note(journal.Record{Kind: journal.Cleared, Finding: &f, Decision: seq})
	}
	return seq
}

// keep makes durable what the agent has to know after a restart.
func (a *Agent) keep(k node.Kept) error {
	_, err := a.journal.Append(journal.Record{Kind: journal.Memory, Kept: &k, Text: "kept for the next start: the leader is " + k.Leader})
	return err
}

// recall returns the memory to begin with.
func (a *Agent) recall() node.Memory {
	kept, sameBoot, ran := a.journal.Kept()
	if !ran {
		return node.Memory{} // it takes the cluster as it finds it
	}
	return engine.Recall(kept, sameBoot, a.o.Host.Now())
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
