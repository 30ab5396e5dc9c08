package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The rules in this file have no verb: they say what a person must know, and why nothing is done.

func (v *view) stoppedByOperator() {
	intent := v.unit.Intent()
	wanted := intent == service.IntentStopped || intent == service.IntentDisabled || intent == service.IntentMasked
	if !v.unitKnown || !wanted || v.unit.State == service.StateRunning {
		delete(v.mem.Streaks, "nobodyleads/"+v.spec.Service)
		return
	}
	f := node.Finding{
		Code: node.PatroniStopped, Severity: node.Info, Subject: v.spec.Service,
		Text:     fmt.Sprintf("Patroni was stopped on purpose (%s, %s, unit file %s). It is left alone until a person starts it.", orNone(v.unit.Detail), orNone(v.unit.Result), orNone(v.unit.Enablement)),
		Advice:   "`systemctl start " + v.spec.Unit + "` when the work is done.",
		Evidence: []node.Evidence{v.unitEvidence(), v.postgresEvidence()},
	}
	if v.unit.State == service.StateFailed && intent != service.IntentStopped {
		f.Text = fmt.Sprintf("Patroni has failed, and its unit is %s: nobody but a person may start it.", intent)
		f.Advice = "Find out who wanted it so before you start it."
	}
	if v.endedByHangup() {
		f.Severity = node.Warn
		f.Text = fmt.Sprintf("Patroni ended by SIGHUP (%s), which its manager takes for a clean end: it does not start it again. A `systemctl reload` in the first second after a start does that. It is left alone until a person starts it.", orNone(v.unit.Detail))
		f.Advice = "`systemctl start " + v.spec.Unit + "`, and reload only once its API answers."
	}
	if v.f.Postgres.Known && v.f.Postgres.Value.Running && v.unit.State != service.StateStopping {
		f.Severity = node.Warn
		f.Text += " PostgreSQL still runs, and nobody manages it."
	}
	if v.nobodyLeads() {
		f.Severity = node.Page
		f.Text += " " + v.whyNobodyLeads()
	}
	v.find(f)
}

// endedByHangup: systemd counts death by SIGHUP as success, and Patroni dies of it only before it has installed its
// handler (FAULTS.md F10). A program that is stopped ends with status 0 or by SIGTERM.
func (v *view) endedByHangup() bool {
	const sighup = 1
	return v.unit.State == service.StateStopped && v.unit.Result == "success" && v.unit.ExitStatus == sighup
}

// handOver is how long a stopped leader's key may be absent, or still there, before clients are known to be without a
// primary: a planned stop hands over in a second or two.
const handOver = 5 * time.Second

// nobodyLeads: the key is gone, or it names this member, whose Patroni does not answer HAProxy's checks any more: a
// paused Patroni keeps its key when it is stopped (FAULTS.md F12, L23).
func (v *view) nobodyLeads() bool {
	st := v.streak("nobodyleads/"+v.spec.Service, v.fresh && !v.cluster.Empty && !v.otherLeads, v.in.Snapshot.DCS.Cluster.At)
	if st.Count > 0 {
		v.attention = true
	}
	return st.Count > 0 && st.Held() >= handOver
}

func (v *view) whyNobodyLeads() string {
	if v.leader {
		return "This member still holds the leader key, and no Patroni here says so to HAProxy: clients that follow the leader cannot write."
	}
	return "Nobody holds the leader key: clients that follow the leader cannot write."
}

func (v *view) configBroken() {
	c := v.f.Config
	if !c.Known || c.Value.Valid {
		return
	}
	v.find(node.Finding{
		Code: node.PatroniConfigBroken, Severity: node.Warn, Subject: v.spec.Service,
		Text:     fmt.Sprintf("Patroni's configuration %s does not pass `patroni --validate-config`: %s. Patroni runs on with the old one; its next start would fail, so this agent will not restart it.", c.Value.File, strings.Join(firstN(c.Value.Problems, 3), "; ")),
		Advice:   "Mend the file; pgpatrol looks again when it changes.",
		Evidence: []node.Evidence{node.Show("patroni --validate-config", c, "%d problems", len(c.Value.Problems))},
	})
}

// crashing counts new invocations: each restart by the manager is harmless, one more by us would not heal (FAULTS.md F06).
func (v *view) crashing() {
	n := 0
	for _, at := range v.m.Starts {
		if v.now.Sub(at) <= crashWindow {
			n++
		}
	}
	if n < crashCount {
		return
	}
	end := "" // systemd forgets how a unit ended as soon as it runs again
	if v.unit.Result != "" && v.unit.Result != "success" {
		end = fmt.Sprintf(" (last end: %s, exit status %d)", v.unit.Result, v.unit.ExitStatus)
	}
	v.find(node.Finding{
		Code: node.PatroniCrashing, Severity: node.Warn, Subject: v.spec.Service,
		Text:     fmt.Sprintf("Patroni has been started again %d times within %s%s. Its manager restarts it; more restarts would not help.", n, crashWindow, end),
		Advice:   "`journalctl -u " + v.spec.Unit + "` shows why it ends.",
		Evidence: []node.Evidence{v.unitEvidence()},
	})
}

// rivalPostmaster: somebody else's postmaster on the data directory, or one beside it that keeps Patroni's from starting
// (FAULTS.md F25, F26, L20, L32).
func (v *view) rivalPostmaster() {
	pg := v.f.Postgres
	unit := ""
	switch {
	case pg.Known && pg.Value.Running && pg.Value.CGroupUnit != "" && pg.Value.CGroupUnit != v.spec.Unit:
		unit = pg.Value.CGroupUnit
	case v.f.Machine.Known && pg.Known && !pg.Value.Running && v.unitKnown && v.unit.State == service.StateRunning:
		for _, p := range v.f.Machine.Value.Postmasters {
			if p.Unit != v.spec.Unit {
				unit = fmt.Sprintf("%s (data directory %s)", orNone(p.Unit), orNone(p.DataDir))
			}
		}
	}
	if unit == "" {
		return
	}
	v.find(node.Finding{
		Code: node.RivalPostmaster, Severity: node.Page, Subject: v.spec.Service,
		Text:     fmt.Sprintf("A postmaster that Patroni did not start runs here under %s. Patroni may report it as running while it does not replicate, or bootstrap a silently diverged copy beside it.", unit),
		Advice:   "Stop and disable that unit; Patroni then starts PostgreSQL itself. pgpatrol never touches PostgreSQL.",
		Evidence: []node.Evidence{v.postgresEvidence(), v.unitEvidence()},
	})
}

// diverged: a replica whose content is not the leader's although everything says that it streams (FAULTS.md F105, L32).
// One mark is its own log; the other is a position that the leader has not reached long after the replica had it.
func (v *view) diverged() {
	dir := ""
	if v.f.Postgres.Known {
		dir = v.f.Postgres.Value.DataDirID
	}
	v.watchAhead(dir)
	mark := v.f.LogMark
	byLog := mark.Known && mark.Value.SingleUserOnCopy && mark.Value.DataDirID == dir && dir != ""
	byLSN := v.m.DivergedDir != "" && v.m.DivergedDir == dir
	if !byLog && !byLSN {
		return
	}
	why := "its WAL position was ahead of the leader's on the same timeline"
	if byLog {
		why = "Patroni ran crash recovery in single-user mode on the fresh copy"
	}
	v.find(node.Finding{
		Code: node.ReplicaDiverged, Severity: node.Page, Subject: v.spec.Service,
		Text:     fmt.Sprintf("This replica has silently diverged: %s. It may stream without lag and still lack rows or tables. It is no candidate for failover and counts as absent.", why),
		Advice:   fmt.Sprintf("Reinitialise it (`patronictl reinit %s %s`) after stopping any rival postmaster; until then set its tag nofailover.", v.in.Spec.Scope, v.spec.Member),
		Evidence: []node.Evidence{node.Show("Patroni's log", mark, "single-user recovery on a fresh copy: %t", byLog), v.postgresEvidence()},
	})
}

// watchAhead compares this replica's position with the leader's. What it finds belongs to the data directory, which a new
// copy replaces.
func (v *view) watchAhead(dir string) {
	me, ok := v.cluster.Member(v.spec.Member)
	lead, ok2 := v.cluster.Member(v.cluster.LeaderName())
	if !v.fresh || !v.otherLeads || !ok || !ok2 || dir == "" {
		return
	}
	mark, diverged := v.ahead(v.m.Ahead, me, lead, dir)
	v.m.Ahead = mark
	if diverged {
		v.m.DivergedDir = dir
	}
}

func (v *view) apiInvalid() {
	a := v.f.API
	if !a.Known || a.Value.Outcome != probe.OutcomeAnswered {
		return
	}
	problem := a.Value.Problem
	switch {
	case problem != "":
	case a.Value.Name != v.spec.Member:
		problem = fmt.Sprintf("it calls itself %q, not %q", a.Value.Name, v.spec.Member)
	case a.Value.Scope != v.in.Spec.Scope:
		problem = fmt.Sprintf("it belongs to scope %q, not %q", a.Value.Scope, v.in.Spec.Scope)
	default:
		return
	}
	v.find(node.Finding{
		Code: node.PatroniAPIInvalid, Severity: node.Page, Subject: v.spec.Service,
		Text:     "What answers on the configured API address is not this Patroni: " + problem + ". Nothing is done on its word.",
		Advice:   "Compare `api`, `member` and `scope` in pgpatrol's configuration with `restapi.connect_address`, `name` and `scope` in Patroni's.",
		Evidence: []node.Evidence{node.Show("GET /patroni", a, "%s", problem)},
	})
}

func (v *view) memberUnknown() {
	_, present := v.cluster.Member(v.spec.Member)
	missing := v.fresh && !v.cluster.Empty && !present && v.unitKnown && v.unit.State == service.StateRunning &&
		v.f.Liveness.Known && v.f.Liveness.Value.Alive()
	st := v.streak("nomember/"+v.spec.Service, missing, v.in.Snapshot.DCS.Cluster.At)
	if st.Held() < memberPatience {
		return
	}
	v.find(node.Finding{
		Code: node.MemberUnknown, Severity: node.Warn, Subject: v.spec.Service,
		Text:     fmt.Sprintf("Patroni runs here, and etcd has had no member key %q for %s.", v.spec.Member, st.Held().Round(time.Second)),
		Advice:   "Either `member` in pgpatrol's configuration is not Patroni's `name`, or Patroni cannot write to etcd: look at its log.",
		Evidence: []node.Evidence{v.unitEvidence(), v.livenessEvidence(), v.leaderEvidence()},
	})
}

// healFailed keeps a failed heal visible until the service is well again.
func (s *step) healFailed(name string, well bool, evidence ...node.Evidence) {
	var last *node.Attempt
	for i := range s.in.Attempts {
		if a := &s.in.Attempts[i]; a.Service == name && a.BootID == s.in.Snapshot.BootID {
			last = a
		}
	}
	if last == nil || (last.Result != node.ResultUnverified && last.Result != node.ResultFailed) || s.now.Sub(last.At) > time.Hour {
		return
	}
	if well && s.now.Sub(last.At) > 10*time.Minute {
		return
	}
	s.find(node.Finding{
		Code: node.HealFailed, Severity: node.Page, Subject: name,
		Text:     fmt.Sprintf("%s for %s was %s %s ago: it did not have the effect it must have.", last.Verb, last.Finding, last.Result, s.now.Sub(last.At).Round(time.Second)),
		Advice:   "`pgpatrol history` shows what was expected and what was seen. A person must look: pgpatrol does not repeat blindly.",
		Evidence: evidence,
	})
}
