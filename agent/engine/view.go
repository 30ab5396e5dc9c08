package engine

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// view is one Patroni of this machine against the cluster, with the questions that the rules ask.
type view struct {
	*step
	spec node.PatroniSpec
	f    node.PatroniFacts
	m    *node.ServiceMemory

	st         streaks
	unit       service.Status
	unitKnown  bool
	leader     bool // a fresh linearizable view says that this member holds the key
	otherLeads bool // ... that another member holds it, which is not this one under a wrong name
}

func (s *step) view(spec node.PatroniSpec) (*view, bool) {
	for _, f := range s.in.Snapshot.Patroni {
		if f.Service != spec.Service {
			continue
		}
		m := s.mem.Services[spec.Service]
		v := &view{step: s, spec: spec, f: f, m: &m}
		v.unit, v.unitKnown = f.Unit.Value, f.Unit.Fresh(s.now, FreshLocal)
		if s.fresh && s.cluster.Leader != nil {
			v.leader = s.cluster.Leader.Name == spec.Member
			v.otherLeads = !v.leader && !v.callsItself(s.cluster.Leader.Name)
		}
		v.rememberService()
		v.observeStreaks()
		return v, true
	}
	return nil, false
}

// callsItself reports whether the Patroni of this machine goes by that name, by its API's word or its configuration's.
// Where the leader key holds that name and pgpatrol's configuration another, this is the leader under a wrong name and no
// second primary (FAULTS.md S20). Patroni's own file is on this machine for certain, while the API's address may be wrong:
// an API that contradicts a file which has the configured name is somebody else's.
func (v *view) callsItself(name string) bool {
	if c := v.f.Config; c.Known && c.Value.Name != "" {
		return c.Value.Name == name
	}
	return v.f.API.Known && v.f.API.Value.Name == name
}

// rememberService notes what the unit did since the last step.
func (v *view) rememberService() {
	if v.unitKnown {
		v.noteUnit(v.m, v.unit)
	}
	if v.f.API.Known && v.f.API.Value.Problem == "" && v.f.API.Value.Outcome == probe.OutcomeAnswered {
		v.m.Identity = v.f.API.Value.Name == v.spec.Member && v.f.API.Value.Scope == v.in.Spec.Scope
	}
	switch orphaned := v.orphanedLeader(); {
	case !orphaned:
		v.m.Orphaned = 0
	case v.m.Orphaned == 0:
		v.m.Orphaned = v.in.Snapshot.DCS.Cluster.At
	}
	if v.healthy() {
		v.m.GoodPolls++
	} else {
		v.m.GoodPolls = 0
	}
	if v.m.GoodPolls >= settledPolls {
		v.m.Settled = true
	}
}

// healthy reports whether everything that can be seen of this Patroni is as it should be.
func (v *view) healthy() bool {
	return v.fresh && v.cluster.Leader != nil && v.unitKnown && v.unit.State == service.StateRunning &&
		v.f.Liveness.Fresh(v.now, FreshLocal) && v.f.Liveness.Value.Alive()
}

// lease returns the life left of this member's own lease. It is known only when the lease that was read is the one that
// the key names now; a member without a key has no lease left.
func (v *view) lease() (left time.Duration, at node.Instant, known bool) {
	if !v.fresh {
		return 0, 0, false
	}
	id, f := int64(0), v.in.Snapshot.DCS.MemberLease
	if m, ok := v.cluster.Member(v.spec.Member); ok {
		id = m.Lease
	}
	if v.leader {
		id, f = v.cluster.Leader.Lease, v.in.Snapshot.DCS.LeaderLease
	}
	if id == 0 {
		return 0, v.in.Snapshot.DCS.Cluster.At, true
	}
	if !f.Fresh(v.now, FreshDCS) || f.Value.ID != id {
		return 0, 0, false
	}
	return node.LeaseLeft(f, v.now), f.At, true
}

// writable reports whether PostgreSQL here is known to accept writes. A session that says "in recovery" beats the files.
func (v *view) writable() bool {
	if v.f.Session.Fresh(v.now, 3*time.Second) && v.f.Session.Value.InRecovery {
		return false
	}
	return v.f.Postgres.Fresh(v.now, FreshLocal) && v.f.Postgres.Value.Writable()
}

// streaks are the conditions of one Patroni that need to hold for a while. All are brought up to date in every step, and
// all belong to one main process: a new one starts with a clean sheet.
type streaks struct {
	silent   node.Streak // something listens on the API and answers nothing intelligible
	refused  node.Streak // nobody listens on the API
	loopDead node.Streak // /liveness says that the loop does not run
	stopped  node.Streak // the main process is stopped by a signal
	missed   node.Streak // the lease is shorter than a live Patroni, which can reach etcd, would ever let it become
	overdue  node.Streak // the same with the time for retries allowed for
	zombie   node.Streak // PostgreSQL is writable while another member holds the key
}

func (v *view) observeStreaks() {
	name := func(s string) string { return s + "/" + v.spec.Service }
	if v.unitKnown && v.unit.MainPID != v.m.MainPID && !planted.On("engine/stale-streaks") {
		for _, s := range []string{"silent", "refused", "loopdead", "stopped", "missed", "overdue"} {
			delete(v.mem.Streaks, name(s))
		}
		v.m.MainPID = v.unit.MainPID
	}
	running := v.unitKnown && v.unit.State == service.StateRunning
	l := v.f.Liveness
	live := running && l.Fresh(v.now, FreshLocal)
	silent, silentAt := live && v.mute(l.Value.Outcome), l.At
	if planted.On("engine/unknown-is-down") && running && !l.Known {
		silent, silentAt = true, v.now
	}
	p := v.f.Process
	left, leaseAt, leaseKnown := v.lease()
	left = v.mem.LeaseDue(left, v.timing.TTL, v.now)
	dcs := &v.in.Snapshot.DCS.Cluster
	proven := dcs.Fresh(v.now, freshZombie) || planted.On("engine/zombie-on-stale-view")
	v.st = streaks{
		silent:   v.streak(name("silent"), silent, silentAt),
		refused:  v.streak(name("refused"), live && l.Value.Outcome == probe.OutcomeRefused, l.At),
		loopDead: v.streak(name("loopdead"), live && l.Value.Outcome == probe.OutcomeAnswered && l.Value.Status == 503, l.At),
		stopped:  v.streak(name("stopped"), running && p.Fresh(v.now, FreshLocal) && p.Value.PID == v.unit.MainPID && p.Value.Stopped(), p.At),
		missed:   v.streak(name("missed"), running && leaseKnown && left < v.timing.Missed(), leaseAt),
		overdue:  v.streak(name("overdue"), running && leaseKnown && left < v.timing.Overdue(), leaseAt),
		zombie:   v.streak(name("zombie"), v.otherLeads && proven && v.writable(), dcs.At),
	}
}

// mute reports whether a local API that ended like this belongs to a Patroni that does not answer. A broken exchange counts
// only where this API has been heard before: http:// configured for an API that wants TLS looks the same.
func (v *view) mute(o probe.Outcome) bool {
	return o == probe.OutcomeTimeout || o == probe.OutcomeBroken && v.m.Identity
}

func (v *view) baseline() node.Baseline {
	b := node.Baseline{
		InvocationID: v.unit.InvocationID, MainPID: v.unit.MainPID, StartTick: v.f.Process.Value.StartTick,
		LeaderName: v.cluster.LeaderName(),
	}
	if v.cluster.Leader != nil {
		b.LeaderRevision = v.cluster.Leader.ModRevision
	}
	if pg := v.f.Postgres.Value; v.f.Postgres.Known {
		b.PostmasterPID, b.PostmasterTick = pg.PostmasterPID, pg.PostmasterTick
		b.SystemID, b.LSN, b.Timeline = pg.SystemID, pg.CheckpointLSN, pg.Timeline
	}
	if se := v.f.Session.Value; v.f.Session.Known && se.LSN > b.LSN {
		b.LSN, b.Timeline = se.LSN, se.Timeline
	}
	return b
}

// Time limits of the verbs. Patroni is a Python program: FACTS.md §3.5 budgets 4 s from kill to a renewed lease; the
// rest is for slow machines.
const (
	actDeadline = 20 * time.Second
	settleTime  = 60 * time.Second
)

func (v *view) propose(verb node.Verb, code node.Code, fence bool, reason string) {
	a := node.Action{
		Verb: verb, Service: v.spec.Service, Unit: v.spec.Unit, Class: node.ClassRevive, Finding: code, Reason: reason,
		Fence: fence, Leader: v.leader, Before: v.baseline(), Deadline: actDeadline, Settle: settleTime,
	}
	spares := verb == node.StartFailed || v.unit.SparesChildren() || planted.On("engine/killmode-ignored")
	if !spares {
		a.Class = node.ClassDisrupt
	}
	running := v.f.Postgres.Known && v.f.Postgres.Value.Running
	a.Expect = node.Expectation{
		NewInvocation: true, LeaseRenewed: true,
		SamePostmaster: spares && running && !fence && !planted.On("engine/restart-is-fine"),
		ReadOnly:       fence && v.otherLeads,
	}
	a.ID = fmt.Sprintf("%s/%s/%s/%s", verb, v.spec.Service, code, shortID(v.unit.InvocationID))
	if planted.On("engine/unstable-id") {
		a.ID += "/" + v.now.String()
	}
	v.actions = append(v.actions, a)
}

func shortID(s string) string {
	if len(s) > 8 {
		return s[:8]
	}
	return orNone(s)
}

func (v *view) unitEvidence() node.Evidence {
	return node.Show(v.spec.Unit, v.f.Unit, "%s, %s, main process %d, invocation %s", v.unit.State, orNone(v.unit.Result), v.unit.MainPID, shortID(v.unit.InvocationID))
}

func (v *view) processEvidence() node.Evidence {
	p := v.f.Process
	return node.Show("main process", p, "pid %d state %s", p.Value.PID, orNone(p.Value.State))
}

func (v *view) livenessEvidence() node.Evidence {
	l := v.f.Liveness
	if l.Value.Outcome == probe.OutcomeAnswered {
		return node.Show("/liveness", l, "HTTP %d", l.Value.Status)
	}
	return node.Show("/liveness", l, "%s", l.Value.Outcome)
}

func (v *view) postgresEvidence() node.Evidence {
	p := v.f.Postgres
	what := "stopped"
	switch {
	case p.Value.Writable():
		what = "running, writable"
	case p.Value.Starting():
		what = "starting"
	case p.Value.Running:
		what = "running, " + p.Value.ControlState
	}
	return node.Show("PostgreSQL", p, "%s, timeline %d, postmaster %d", what, p.Value.Timeline, p.Value.PostmasterPID)
}

func (v *view) leaseEvidence() node.Evidence {
	f, who := v.in.Snapshot.DCS.MemberLease, "member key's lease"
	if v.leader {
		f, who = v.in.Snapshot.DCS.LeaderLease, "leader key's lease"
	}
	return node.Show(who, f, "%s left of %s", node.LeaseLeft(f, v.now).Round(time.Second), v.timing.TTL)
}

func (v *view) leaderEvidence() node.Evidence {
	c := v.in.Snapshot.DCS.Cluster
	return node.Show("leader key", c, "%s", orNone(c.Value.LeaderName()))
}
