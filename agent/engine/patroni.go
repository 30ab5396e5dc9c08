package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// rules finds what is wrong with one Patroni. At most one rule with a verb applies at a time, the most urgent first.
func (v *view) rules() {
	v.stoppedByOperator()
	v.configBroken()
	v.crashing()
	v.rivalPostmaster()
	v.diverged()
	v.apiInvalid()
	v.memberUnknown()
	v.healFailed(v.spec.Service, v.healthy(), v.unitEvidence(), v.livenessEvidence(), v.postgresEvidence())
	v.flaps()
	switch {
	case v.zombie(), v.failed(), v.hung(), v.loopStuck():
	default:
		v.apiDead()
	}
}

// zombie: PostgreSQL here accepts writes while a linearizable read names another leader (FAULTS.md F04, F26). A Patroni
// that is alive demotes by itself within a second; one that cannot is killed so that its successor does.
func (v *view) zombie() bool {
	if v.st.zombie.Count == 0 {
		return false
	}
	v.attention = true
	if v.st.zombie.Held() < zombieProof && !planted.On("engine/zombie-by-one-read") {
		return true
	}
	f := node.Finding{
		Code: node.ZombiePrimary, Severity: node.Page, Subject: v.spec.Service,
		Text:     fmt.Sprintf("PostgreSQL here is a writable primary on timeline %d while %s holds the leader key: two primaries.", v.f.Postgres.Value.Timeline, v.cluster.LeaderName()),
		Evidence: []node.Evidence{v.leaderEvidence(), v.postgresEvidence(), v.unitEvidence(), v.processEvidence(), v.livenessEvidence()},
	}
	f.DivergentBytes = v.divergentBytes()
	if f.DivergentBytes != nil {
		f.Text += fmt.Sprintf(" %d bytes of WAL were written here after the timelines parted; pg_rewind will discard them.", *f.DivergentBytes)
	}
	why := "another member leads and this PostgreSQL must become read-only; Patroni demotes it as soon as it runs"
	switch {
	case v.cluster.Config.Pause:
		f.Advice = "The cluster is paused, so both may be deliberate: nothing is done."
	case v.unitKnown && v.unit.State == service.StateFailed:
		v.propose(node.StartFailed, node.ZombiePrimary, true, why)
	case v.unitKnown && v.unit.State == service.StateRunning && v.cannotDemote():
		v.propose(node.SoftKill, node.ZombiePrimary, true, why)
	case v.unitKnown && v.unit.State == service.StateStopped:
		f.Advice = "Patroni was stopped by a person and PostgreSQL was left running: start Patroni (it demotes PostgreSQL) or stop PostgreSQL."
	default:
		f.Advice = "Patroni answers and should demote PostgreSQL within seconds. If it does not, look at its log."
	}
	v.find(f)
	return true
}

// cannotDemote reports whether Patroni is in no state to demote PostgreSQL. An API that is silent proves it only together
// with a lease that was not renewed when etcd could be reached: a machine that has just got etcd back, and has no time for
// HTTP yet, demotes in its next loop (FAULTS.md S6, found by the simulation).
func (v *view) cannotDemote() bool {
	return v.st.stopped.Count >= 2 || v.st.loopDead.Count >= 2 || v.st.silent.Count >= 2 && v.st.missed.Count >= 1
}

// divergentBytes is the WAL written here after the point where the leader's timeline branched off, nil while either end
// is unknown.
func (v *view) divergentBytes() *uint64 {
	b := v.baseline()
	for _, h := range v.cluster.History {
		if h.Timeline != int64(b.Timeline) || b.LSN == 0 {
			continue
		}
		var n uint64
		if b.LSN > h.LSN {
			n = b.LSN - h.LSN
		}
		return &n
	}
	return nil
}

// failed: the manager has given up on a crashed unit (FAULTS.md F05, F14, F22). PostgreSQL usually runs on, orphaned.
func (v *view) failed() bool {
	if !v.unitKnown || v.unit.State != service.StateFailed {
		return false
	}
	text := fmt.Sprintf("The unit has failed (%s, exit status %d, %d automatic restarts) and its manager does not start it again.", orNone(v.unit.Result), v.unit.ExitStatus, v.unit.Restarts)
	if v.f.Postgres.Known && v.f.Postgres.Value.Running {
		text += " PostgreSQL runs on without Patroni"
		if left, _, known := v.lease(); v.leader && known {
			text += fmt.Sprintf("; the leader key expires in %s", left.Round(time.Second))
		}
		text += "."
	}
	advice := "`journalctl -u " + v.spec.Unit + "` says why it ended."
	if c := v.f.Config; c.Known && !c.Value.Valid {
		advice = "Mend " + c.Value.File + " first: " + strings.Join(firstN(c.Value.Problems, 2), "; ")
	}
	v.find(node.Finding{
		Code: node.PatroniFailed, Severity: node.Page, Subject: v.spec.Service, Text: text, Advice: advice,
		Evidence: []node.Evidence{v.unitEvidence(), v.postgresEvidence(), v.leaderEvidence()},
	})
	v.propose(node.StartFailed, node.PatroniFailed, false, "the unit crashed until its start limit; clearing it and starting once adopts the running PostgreSQL")
	return true
}

// hung: the process exists and does nothing (FAULTS.md F02, F03). Proof is either a main process that is stopped, seen
// three times over three seconds, or a lease that a live Patroni would have renewed; and in both cases a local API that
// answers nothing.
func (v *view) hung() bool {
	silent, stopped, missed := v.st.silent, v.st.stopped, v.st.missed
	if silent.Count == 0 {
		return false
	}
	v.attention = true
	need, needStopped := hangProof, stoppedProof
	if v.patient() {
		need, needStopped = hangProofReplica, hangProofReplica
	}
	byState := enough(stopped, minObservations, needStopped)
	byLease := (enough(missed, 2, renewalGap) || planted.On("engine/lease-ignored")) && enough(silent, minObservations, need)
	if !enough(silent, minObservations, 0) || !(byState || byLease) {
		return false
	}
	if v.patient() && missed.Count == 0 {
		return false // a replica's hang wants the second opinion of its member key (FAULTS.md F03)
	}
	f := node.Finding{
		Code: node.PatroniHung, Severity: node.Page, Subject: v.spec.Service,
		Text:     "Patroni's unit is active and its process does nothing: " + v.hangWords(byState, silent),
		Evidence: []node.Evidence{v.unitEvidence(), v.processEvidence(), v.livenessEvidence(), v.leaseEvidence(), v.postgresEvidence(), v.leaderEvidence()},
	}
	if !v.unit.SparesChildren() {
		f.Advice = v.killModeAdvice()
	}
	v.find(f)
	v.propose(node.SoftKill, node.PatroniHung, v.orphanedLeader(), "killing only the hung main process lets the service manager start a fresh Patroni, which takes over the running PostgreSQL")
	return true
}

// enough reports whether a condition was seen that often over that long.
func enough(st node.Streak, count int, held time.Duration) bool {
	if planted.On("engine/one-probe") {
		return st.Count > 0
	}
	return st.Count >= count && st.Held() >= held
}

// patient reports that this is a replica, whose hang harms nobody.
func (v *view) patient() bool {
	return !v.leader && !v.orphanedLeader() && !planted.On("engine/replica-as-fast-as-leader")
}

// orphanedLeader reports that PostgreSQL here is still writable and nobody holds the leader key any more: this was the
// leader, and its Patroni let the lease run out.
func (v *view) orphanedLeader() bool {
	empty := v.cluster.Empty && !planted.On("engine/empty-is-leaderless-takeover")
	return v.fresh && !empty && v.cluster.Leader == nil && !v.cluster.LeaderUnknown && v.writable()
}

// renewalGap is the least time between two readings of a lease that shall both have missed a renewal.
const renewalGap = time.Second

func (v *view) hangWords(byState bool, silent node.Streak) string {
	var out []string
	if byState {
		out = append(out, "the main process is stopped (state T)")
	}
	out = append(out, fmt.Sprintf("its API has not answered %d local probes over %s", silent.Count, silent.Held().Round(time.Second)))
	if left, _, known := v.lease(); known {
		out = append(out, fmt.Sprintf("%s of the lease's %s are left", left.Round(time.Second), v.timing.TTL))
	}
	return strings.Join(out, ", ") + "."
}

func (v *view) killModeAdvice() string {
	return fmt.Sprintf("The unit has KillMode=%s: killing Patroni stops PostgreSQL with it. Put `KillMode=process` under [Service] of %s (or a drop-in of it) and run `systemctl daemon-reload`.", orNone(v.unit.KillMode), orNone(v.unit.UnitFile))
}

// loopStuck: the REST threads answer and the loop that renews the lease does not run (FAULTS.md F18, Patroni #2388). It
// is judged by the lease: /liveness of a primary is late by a whole ttl.
func (v *view) loopStuck() bool {
	overdue := v.st.overdue
	l := v.f.Liveness
	answers := l.Fresh(v.now, FreshLocal) && l.Value.Outcome == probe.OutcomeAnswered
	if !answers || overdue.Count == 0 {
		return false
	}
	v.attention = true
	if v.f.API.Fresh(v.now, 2*FreshLocal) && node.BusyState(v.f.API.Value.State) {
		return false // Patroni's loop waits, lawfully, while PostgreSQL starts, stops or is cloned (FAULTS.md F18, L12)
	}
	if v.patient() {
		// A replica without a lease may still be joining; Patroni's own word, late as it is, decides.
		if !enough(v.st.loopDead, minObservations, hangProofReplica) {
			return false
		}
	}
	if !enough(overdue, 2, renewalGap) || v.processAge() < startUp {
		return false
	}
	left, _, _ := v.lease()
	f := node.Finding{
		Code: node.PatroniLoopStuck, Severity: node.Page, Subject: v.spec.Service,
		Text: fmt.Sprintf("Patroni's REST API answers, but its loop has not renewed the lease for %s (%s left): longer than loop_wait and retry_timeout together.",
			(v.timing.TTL - left).Round(time.Second), left.Round(time.Second)),
		Evidence: []node.Evidence{v.unitEvidence(), v.processEvidence(), v.livenessEvidence(), v.leaseEvidence(), v.postgresEvidence(), v.leaderEvidence()},
	}
	if !v.unit.SparesChildren() {
		f.Advice = v.killModeAdvice()
	}
	v.find(f)
	v.propose(node.SoftKill, node.PatroniLoopStuck, v.orphanedLeader(), "the loop does not run any more; a fresh Patroni renews the lease and takes over the running PostgreSQL")
	return true
}

// apiDead: the API does not answer and that alone is known (FAULTS.md F17). A listener that is gone while the lease is
// renewed is healed; one that only times out is starved by its clients or PostgreSQL, and killing it would help nobody
// (FACTS.md §2.3, §3.4). A Patroni without listener and lease is starting, waiting for etcd, or ending.
func (v *view) apiDead() {
	st := v.st.silent
	if v.st.refused.Count > 0 {
		st = v.st.refused
	}
	if st.Count == 0 {
		return
	}
	v.attention = true
	left, _, known := v.lease()
	if !enough(st, minObservations, hangProof) || !known || v.processAge() < startUp {
		return
	}
	f := node.Finding{
		Code: node.PatroniAPIDead, Severity: node.Page, Subject: v.spec.Service,
		Text:     fmt.Sprintf("Patroni renews its lease, and its REST API has not answered %d local probes over %s (%s).", st.Count, st.Held().Round(time.Second), v.f.Liveness.Value.Outcome),
		Evidence: []node.Evidence{v.unitEvidence(), v.livenessEvidence(), v.leaseEvidence(), v.postgresEvidence()},
	}
	switch renewed := left >= v.timing.Missed(); {
	case v.st.refused.Count == 0 && planted.On("engine/starved-is-dead"):
		v.propose(node.SoftKill, node.PatroniAPIDead, false, "the API does not answer")
	case v.st.refused.Count == 0 && renewed:
		f.Advice = "The API is starved, not dead: look for slow clients on its port, exhausted connections, CPU or disk. HAProxy's checks may take the leader out; a higher `fall` or check timeout helps, a restart does not."
	case v.st.refused.Count == 0:
		return // its hang is being proved
	case !renewed:
		f.Text = fmt.Sprintf("Patroni's process runs for %s, listens nowhere and holds no lease: it is starting, waiting for etcd, or ending.", v.processAge().Round(time.Second))
		f.Advice = "Look at its log: it cannot come up while etcd refuses it a lease."
	case st.Held() >= refusedProof:
		v.propose(node.SoftKill, node.PatroniAPIDead, false, "nobody listens on Patroni's API although Patroni renews its lease; a fresh Patroni opens it again")
	}
	v.find(f)
}

// processAge is how long the main process has lived. Kernel ticks count from boot, as instants do.
func (v *view) processAge() time.Duration {
	if planted.On("engine/young-is-old") {
		return time.Hour
	}
	p := v.f.Process
	if !p.Known || !p.Value.Exists {
		return 0
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go supports
	return v.now.Sub(node.Instant(time.Duration(p.Value.StartTick) * tick))
}

func firstN(s []string, n int) []string { return s[:min(n, len(s))] }
