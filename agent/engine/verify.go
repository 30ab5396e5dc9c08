package engine

import (
	"fmt"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Verify judges from a later snapshot whether an executed attempt had its effect. It returns ResultExecuted while that
// is still open, and says what is missing or what was seen.
func Verify(spec node.Spec, a node.Attempt, snap node.Snapshot) (node.AttemptResult, string) {
	open, broken, seen, ok := expectations(spec, a, snap)
	if !ok {
		return node.ResultUnverified, "the service is not configured any more"
	}
	if planted.On("engine/verify-always") {
		open, broken = nil, nil
	}
	switch {
	case len(broken) > 0:
		return node.ResultUnverified, strings.Join(broken, "; ")
	case len(open) == 0:
		return node.ResultVerified, seen
	case snap.Now.Sub(a.At) > a.Settle:
		return node.ResultUnverified, fmt.Sprintf("not seen within %s: %s", a.Settle, strings.Join(open, "; "))
	}
	return node.ResultExecuted, strings.Join(open, "; ")
}

// expectations lists what an attempt still has to show and what it cannot show any more, and words what it has shown.
func expectations(spec node.Spec, a node.Attempt, snap node.Snapshot) (open, broken []string, seen string, ok bool) {
	s := newStep(node.Question{Spec: spec, Snapshot: snap})
	for _, one := range spec.Services {
		if t, known := s.target(one); known && one.Service == a.Service {
			return t.unmet(a), nil, fmt.Sprintf("run %s -> %s, and it does what it is for", shortID(a.Before.InvocationID), shortID(t.unit.InvocationID)), true
		}
	}
	v, ok := viewOf(spec, a.Service, snap)
	if !ok {
		return nil, nil, "", false
	}
	open, broken = v.unmet(a)
	return open, broken, v.seen(a), true
}

// unmet lists what is not seen yet of a service that was started or restarted.
func (t *target) unmet(a node.Attempt) []string {
	var open []string
	id := t.unit.InvocationID // "": its manager does not know the run, so it is not known to be another one
	if !(t.f.Unit.At > a.At && t.unitKnown && t.unit.State == service.StateRunning && id != "" && id != a.Before.InvocationID) {
		open = append(open, "the unit runs in a new run")
	}
	if a.Expect.Works && !(t.works() && t.asked() > a.At) {
		open = append(open, "its own check passes")
	}
	return open
}

func viewOf(spec node.Spec, name string, snap node.Snapshot) (*view, bool) {
	s := newStep(node.Question{Spec: spec, Snapshot: snap})
	for _, p := range spec.Patroni {
		if p.Service == name {
			return s.view(p)
		}
	}
	return nil, false
}

// unmet lists the expectations that are not seen yet, and those that cannot come true any more.
func (v *view) unmet(a node.Attempt) (open, broken []string) {
	e := a.Expect
	fresh := func(at node.Instant) bool { return at > a.At }
	if e.NewInvocation && !(fresh(v.f.Unit.At) && v.unit.State == service.StateRunning && v.unit.InvocationID != "" && v.unit.InvocationID != a.Before.InvocationID) {
		open = append(open, "the unit runs in a new invocation")
	}
	if e.LeaseRenewed && !v.renewedSince(a.At) {
		open = append(open, "Patroni renews its lease")
	}
	// A member that led must lead on: the lease of its member key is new in any case.
	if led := a.Verb == node.SoftKill && !e.ReadOnly && a.Before.LeaderName == v.spec.Member; led && v.otherLeads {
		broken = append(broken, "the leader key was lost to "+v.cluster.LeaderName())
	} else if led && !v.leader {
		open = append(open, "this member holds the leader key")
	}
	pg := v.f.Postgres
	switch {
	case !e.SamePostmaster:
	case !pg.Known || !fresh(pg.At):
		open = append(open, "PostgreSQL still runs")
	case pg.Value.PostmasterPID != a.Before.PostmasterPID || pg.Value.PostmasterTick != a.Before.PostmasterTick:
		broken = append(broken, "PostgreSQL was restarted, which the action must not cause")
	}
	if e.ReadOnly && !(pg.Known && fresh(pg.At) && !pg.Value.Writable()) {
		open = append(open, "PostgreSQL here is read-only")
	}
	return open, broken
}

// renewedSince reports whether this member's lease was last renewed after t.
func (v *view) renewedSince(t node.Instant) bool {
	f := v.in.Snapshot.DCS.MemberLease
	if v.leader {
		f = v.in.Snapshot.DCS.LeaderLease
	}
	if _, _, known := v.lease(); !known || !f.Value.Exists || f.Value.Remaining <= 0 || f.At <= t {
		return false
	}
	// etcd tells whole seconds and rounds down: the renewal was then or later. A margin would count one of the process that
	// was killed.
	return f.At.Add(f.Value.Remaining-f.Value.Granted) > t
}

func (v *view) seen(a node.Attempt) string {
	out := []string{fmt.Sprintf("invocation %s -> %s", shortID(a.Before.InvocationID), shortID(v.unit.InvocationID))}
	if a.Expect.LeaseRenewed {
		out = append(out, "lease renewed")
	}
	if a.Expect.SamePostmaster {
		out = append(out, fmt.Sprintf("postmaster %d ran on", a.Before.PostmasterPID))
	}
	if a.Expect.ReadOnly {
		out = append(out, "PostgreSQL here is read-only")
	}
	return strings.Join(out, ", ")
}
