package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// clusterRules finds what concerns the whole cluster and its keys. None of it has a verb on this machine.
func (s *step) clusterRules() {
	s.dcsUnreachable()
	s.dcsReadOnly()
	if !s.fresh {
		delete(s.mem.Streaks, "leaderless")
		return
	}
	s.scopeUnknown()
	s.keyProblems()
	s.paused()
	s.leaderless()
}

func (s *step) dcsEvidence() node.Evidence {
	c := s.in.Snapshot.DCS.Cluster
	return node.Show("etcd view of "+s.in.Spec.Scope, c, "revision %d, leader %s", c.Value.Revision, orNone(c.Value.LeaderName()))
}

func (s *step) dcsUnreachable() {
	dcs := s.in.Snapshot.DCS
	silent := dcs.Since != 0 && s.now.Sub(dcs.Since) >= dcsSilence
	never := !dcs.Cluster.Known && s.in.Snapshot.Self.StartedAgo >= neverSeen
	if dcs.Since != 0 || !dcs.Cluster.Known {
		s.attention = true
	}
	if !silent && !never {
		return
	}
	why := dcs.Cluster.Why
	if why == "" {
		why = "no linearizable read succeeds"
	}
	s.find(node.Finding{
		Code: node.DCSUnreachable, Severity: node.Page, Subject: s.in.Spec.Scope,
		Text:     fmt.Sprintf("etcd gives this node no linearizable answer (%s). What the cluster looks like is unknown, so nothing is done to Patroni or PostgreSQL here.", why),
		Advice:   "Restore etcd's quorum or this node's way to it. Do not restart Patroni: it cannot come back without etcd (FACTS.md §0.4).",
		Evidence: []node.Evidence{s.dcsEvidence()},
	})
}

func (s *step) dcsReadOnly() {
	alarms := s.in.Snapshot.DCS.Alarms
	if !alarms.Known || len(alarms.Value) == 0 {
		return
	}
	s.find(node.Finding{
		Code: node.DCSReadOnly, Severity: node.Page, Subject: s.in.Spec.Scope,
		Text:     fmt.Sprintf("etcd raises %s: it refuses new leases and writes. The running leader keeps its lease, but no Patroni can start and no failover is possible.", strings.Join(alarms.Value, ", ")),
		Advice:   "Stop and restart nothing. For NOSPACE: compact to the current revision, defragment one member at a time (raft leader last), then `etcdctl alarm disarm` (FACTS.md §7.4).",
		Evidence: []node.Evidence{node.Show("etcd alarms", alarms, "%s", strings.Join(alarms.Value, ", "))},
	})
}

func (s *step) scopeUnknown() {
	if !s.cluster.Empty {
		return
	}
	s.find(node.Finding{
		Code: node.ScopeUnknown, Severity: node.Page, Subject: s.in.Spec.Scope,
		Text:     "etcd answers, and has not one key of this scope. Either scope or etcd.namespace in pgpatrol's configuration is wrong, or the keys were deleted.",
		Advice:   "Compare with `scope` and `namespace` in Patroni's configuration. If both are right, the keys are gone: restart nothing before you know why (FACTS.md §1.4, `initialize` missing).",
		Evidence: []node.Evidence{s.dcsEvidence()},
	})
}

func (s *step) keyProblems() {
	if len(s.cluster.Problems) == 0 {
		return
	}
	const most = 5
	var names []string
	for _, p := range s.cluster.Problems[:min(most, len(s.cluster.Problems))] {
		names = append(names, p.Key+": "+p.Reason)
	}
	s.find(node.Finding{
		Code: node.DCSKeyInvalid, Severity: node.Warn, Subject: s.in.Spec.Scope,
		Text:     fmt.Sprintf("%d keys of this scope do not follow Patroni's grammar and are ignored: %s.", len(s.cluster.Problems), strings.Join(names, "; ")),
		Advice:   "Find out who wrote them: only Patroni and patronictl write below this prefix.",
		Evidence: []node.Evidence{s.dcsEvidence()},
	})
}

func (s *step) paused() {
	if !s.cluster.Config.Pause {
		return
	}
	f := node.Finding{
		Code: node.Paused, Severity: node.Info, Subject: s.in.Spec.Scope,
		Text:     "The cluster is paused: Patroni does not fail over, and pgpatrol does nothing to Patroni or PostgreSQL.",
		Advice:   "`patronictl resume` when the work is done.",
		Evidence: []node.Evidence{s.dcsEvidence()},
	}
	if s.cluster.Leader == nil && !s.cluster.LeaderUnknown {
		f.Severity = node.Page
		f.Text = "The cluster is paused and nobody holds the leader key: clients that follow the leader cannot write, and Patroni will not elect one."
	}
	s.find(f)
}

// leaderless ignores gaps shorter than a failover takes: a deleted key is re-acquired within a second (FAULTS.md L24).
func (s *step) leaderless() {
	st := s.streak("leaderless", s.cluster.Leader == nil && !s.cluster.LeaderUnknown && !s.cluster.Empty, s.in.Snapshot.DCS.Cluster.At)
	if st.Count == 0 {
		return
	}
	s.attention = true
	patience := s.timing.TTL + s.timing.LoopWait
	if st.Held() < patience {
		return
	}
	s.find(node.Finding{
		Code: node.Leaderless, Severity: node.Page, Subject: s.in.Spec.Scope,
		Text:     fmt.Sprintf("Nobody has held the leader key for %s, longer than an election takes (%s). %s", st.Held().Round(time.Second), patience, s.whyLeaderless()),
		Advice:   "Remove the cause. A failover by hand (`patronictl failover`) is a decision about losing data: pgpatrol never takes it.",
		Evidence: []node.Evidence{s.dcsEvidence()},
	})
}

func (s *step) whyLeaderless() string {
	if a := s.in.Snapshot.DCS.Alarms; a.Known && slices.Contains(a.Value, "NOSPACE") {
		return "etcd raises NOSPACE, so nobody can take it."
	}
	if s.cluster.Config.Pause {
		return "The cluster is paused."
	}
	if len(s.cluster.Members) == 0 {
		return "No member has a key: no Patroni is running."
	}
	var out []string
	for _, m := range s.cluster.Members {
		switch {
		case m.NoFailover:
			out = append(out, m.Name+" has nofailover")
		case s.cluster.Optime > m.LSN && m.HasLSN && s.cluster.Optime-m.LSN > s.cluster.Config.MaximumLagOnFailover:
			out = append(out, fmt.Sprintf("%s lags %d bytes", m.Name, s.cluster.Optime-m.LSN))
		default:
			out = append(out, fmt.Sprintf("%s is %q", m.Name, m.State))
		}
	}
	return "Members: " + strings.Join(out, ", ") + "."
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
