package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// The rules in this file are about this agent and this machine.

// selfRules says when the agent itself is the sick one.
func (s *step) selfRules() {
	self := &s.in.Snapshot.Self
	s.selfBroken()
	var why []string
	if self.JournalBroken != "" {
		why = append(why, "its journal cannot be relied on: "+self.JournalBroken)
	}
	if s.mem.Disturbed != 0 && s.now.Sub(s.mem.Disturbed) < node.DisturbedGrace {
		why = append(why, "the clock jumped or the machine slept")
	}
	if self.LoopDelay > node.LoopDelayLimit {
		why = append(why, fmt.Sprintf("its own loop is %s late", self.LoopDelay.Round(time.Millisecond)))
	}
	if len(why) > 0 {
		s.find(node.Finding{
			Code: node.AgentDegraded, Severity: node.Warn, Subject: s.in.Spec.Node,
			Text:   "This agent only observes now: " + strings.Join(why, "; ") + ".",
			Advice: "`pgpatrol explain AGENT_DEGRADED` says what to do: about the journal, the disk, the clock, or the load of the machine.",
		})
	}
	if self.ConfigProblem != "" {
		s.find(node.Finding{
			Code: node.AgentConfigBroken, Severity: node.Warn, Subject: s.in.Spec.Node,
			Text:   "The configuration file has changed and is not usable; the previous one stays in force: " + self.ConfigProblem,
			Advice: "`pgpatrol check-config` lists every problem.",
		})
	}
}

// selfBroken: an agent that contradicted itself, or that ends again and again, is not to be trusted (FAULTS.md F102).
func (s *step) selfBroken() {
	self := &s.in.Snapshot.Self
	if self.Assertion != "" {
		s.find(node.Finding{
			Code: node.AgentAssertion, Severity: node.Page, Subject: s.in.Spec.Node,
			Text:   "This agent caught itself breaking a rule of its own, did nothing, and only observes until it is restarted: " + self.Assertion + ".",
			Advice: "This is a bug of pgpatrol. Report it with the journal of this moment.",
		})
	}
	if self.Crashes >= node.CrashLimit {
		s.find(node.Finding{
			Code: node.AgentCrashLoop, Severity: node.Page, Subject: s.in.Spec.Node,
			Text:   fmt.Sprintf("This agent ended without an orderly stop %d times within %s: it only observes.", self.Crashes, node.CrashWindow),
			Advice: "`journalctl -u pgpatrol` says how it ended: killed, out of memory, or a bug.",
		})
	}
}

// heldBack shows which orders of people keep pgpatrol from acting (FAULTS.md S23).
func (s *step) heldBack() {
	snap := &s.in.Snapshot
	var out []string
	if why := snap.Orders.Unreadable; why != "" {
		out = append(out, "this machine's kill switch cannot be read, which counts as set: "+why)
	}
	for _, h := range snap.Orders.Holds {
		out = append(out, h.String())
	}
	if snap.DCS.Shared.Known {
		for _, h := range snap.DCS.Shared.Value.Holds {
			out = append(out, h.String())
		}
	}
	if len(out) == 0 {
		return
	}
	s.find(node.Finding{
		Code: node.ActingHeld, Severity: node.Info, Subject: s.in.Spec.Node,
		Text:   "pgpatrol does nothing here: " + strings.Join(out, "; ") + ".",
		Advice: "`pgpatrol resume` lifts a pause when the work is done.",
	})
}

// upgrading: a package manager stops and starts units itself (FAULTS.md F104j).
func (s *step) upgrading() {
	names := s.in.Snapshot.Upgrades()
	if len(names) == 0 {
		return
	}
	s.find(node.Finding{
		Code: node.UpgradeRunning, Severity: node.Info, Subject: s.in.Spec.Node,
		Text:   "A package manager is at work on this machine: " + strings.Join(names, ", ") + ". pgpatrol does nothing until it has ended.",
		Advice: "If it waits for an answer on a terminal, answer it.",
	})
}
