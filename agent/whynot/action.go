package whynot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/guard"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Answer says why an action is not taken, or that it is.
type Answer struct {
	Summary  string         `json:"summary"`  // one sentence
	Proposed bool           `json:"proposed"` // the engine calls for it now
	Action   node.Action    `json:"action"`   // as proposed, or as it would be
	Paths    []Path         `json:"paths"`    // the ways in which the engine comes to call for it
	Guards   []node.Verdict `json:"guards"`   // every guard, those that allow it too
}

// Path is one finding that calls for an action, and what must be seen for it.
type Path struct {
	Finding    node.Code   `json:"finding"`
	Met        bool        `json:"met"`
	Conditions []Condition `json:"conditions"`
}

// Condition is one thing that must be seen, with what is seen.
type Condition struct {
	Met  bool   `json:"met"`
	Need string `json:"need"`
	Seen string `json:"seen"`
}

// Fitting returns the verb that would heal a service in its present state.
func Fitting(q node.Question, name string) node.Verb {
	for _, a := range engine.Step(q).Actions {
		if a.Service == name {
			return a.Verb
		}
	}
	kind, failed := node.KindPatroni, false
	for i := range q.Snapshot.Patroni {
		f := &q.Snapshot.Patroni[i]
		failed = failed || f.Service == name && f.Unit.Known && f.Unit.Value.State == service.StateFailed
	}
	for i := range q.Snapshot.Services {
		f := &q.Snapshot.Services[i]
		failed = failed || f.Service == name && f.Unit.Known && f.Unit.Value.State == service.StateFailed
	}
	for _, s := range q.Spec.Services {
		if s.Service == name {
			kind = s.Kind
		}
	}
	if failed {
		return node.StartFailed
	}
	return whileItRuns(kind)
}

// whileItRuns is the verb for a service of that kind that runs and does nothing; generic ones have none.
func whileItRuns(k node.Kind) node.Verb {
	i := slices.IndexFunc(k.Verbs(), func(v node.Verb) bool { return v != node.StartFailed })
	if i < 0 {
		return node.StartFailed
	}
	return k.Verbs()[i]
}

// subject is a service with what the engine's rules ask about it. The numbers of the rules are the engine's, which a test
// holds this package to.
type subject interface {
	kind() node.Kind
	// paths lists the findings that call for a verb of the kind. All conditions of one of them are met if and only if the
	// engine proposes the verb.
	paths(verb node.Verb) []Path
	// hypothetical is the action as the engine would propose it because of that finding.
	hypothetical(verb node.Verb, because node.Code) node.Action
}

// Action asks engine and guards about one action. An action that the engine does not call for is put together as it
// would be, and shown to all guards. It reports false if the question knows no such service.
func Action(q node.Question, verb node.Verb, name string) (Answer, bool) {
	out := engine.Step(q)
	s := find(q, out.Memory, name)
	if s == nil {
		return Answer{}, false
	}
	a := Answer{Paths: []Path{}}
	usable := slices.Contains(s.kind().Verbs(), verb)
	if usable {
		a.Paths = s.paths(verb)
	}
	at := slices.IndexFunc(out.Actions, func(one node.Action) bool { return one.Verb == verb && one.Service == name })
	if a.Proposed = at >= 0; a.Proposed {
		a.Action = out.Actions[at]
	} else {
		a.Action = s.hypothetical(verb, nearest(a.Paths))
	}
	a.Guards = guard.All(guard.Input{
		Spec: q.Spec, Memory: out.Memory, Snapshot: q.Snapshot, Attempts: q.Attempts, Findings: out.Findings, Actions: out.Actions,
	}, a.Action)
	if a.Summary = a.words(); !usable {
		a.Summary = never(s.kind(), verb, name)
	}
	return a, true
}

// find returns the service of that name, nil if the question does not know it.
func find(q node.Question, mem node.Memory, name string) subject {
	for _, spec := range q.Spec.Patroni {
		for i := range q.Snapshot.Patroni {
			if f := q.Snapshot.Patroni[i]; spec.Service == name && f.Service == name {
				s := &sight{q: q, spec: spec, f: f, mem: mem}
				s.look()
				return s
			}
		}
	}
	for _, spec := range q.Spec.Services {
		for i := range q.Snapshot.Services {
			if f := q.Snapshot.Services[i]; spec.Service == name && f.Service == name {
				return &glance{q: q, spec: spec, f: f, m: mem.Services[name], mem: mem, now: q.Snapshot.Now}
			}
		}
	}
	return nil
}

// never says why a verb is not used on a kind of service, whatever is seen.
func never(k node.Kind, verb node.Verb, name string) string {
	why := ""
	switch k {
	case node.KindPatroni:
		why = fmt.Sprintf("a restart of Patroni stops PostgreSQL and causes a failover. What heals a Patroni that hangs is %s", node.SoftKill)
	case node.KindGeneric, node.KindHAProxy:
		why = fmt.Sprintf("what it would heal of a service of kind %s that runs is not known. One that crashed is started (%s)", k, node.StartFailed)
	case node.KindEtcd, node.KindForwarder, node.KindMachine:
		why = fmt.Sprintf("it is for a Patroni that hangs. What heals a service of kind %s that does nothing is %s", k, whileItRuns(k))
	}
	return fmt.Sprintf("%s of %s is never done: %s.", verb, name, why)
}

func (a Answer) words() string {
	var no []string
	for _, v := range a.Guards {
		if !v.Allow {
			no = append(no, string(v.Guard))
		}
	}
	refused := "no guard would refuse it"
	if len(no) > 0 {
		refused = strings.Join(no, ", ") + " would refuse it too"
	}
	what := fmt.Sprintf("%s of %s", a.Action.Verb, a.Action.Service)
	switch {
	case !a.Proposed:
		return fmt.Sprintf("%s is not called for: the nearest finding is %s, and not all that it needs is seen; %s.", what, a.Action.Finding, refused)
	case len(no) > 0:
		return fmt.Sprintf("%s would heal %s, and is refused by %s.", what, a.Action.Finding, strings.Join(no, ", "))
	}
	return fmt.Sprintf("%s is called for because of %s, and no guard refuses it.", what, a.Action.Finding)
}

// nearest returns the finding of the path that lacks least, "" if there is no path.
func nearest(paths []Path) node.Code {
	if len(paths) == 0 {
		return ""
	}
	lacks := func(p Path) int {
		n := 0
		for _, c := range p.Conditions {
			if !c.Met {
				n++
			}
		}
		return n
	}
	return slices.MinFunc(paths, func(a, b Path) int { return cmp.Compare(lacks(a), lacks(b)) }).Finding
}

// sight is one Patroni.
type sight struct {
	q    node.Question
	spec node.PatroniSpec
	f    node.PatroniFacts
	mem  node.Memory // as the engine left it: its streaks are up to date

	now      node.Instant
	cluster  node.Cluster
	timing   node.Timing
	fresh    bool
	leader   bool
	orphaned bool // PostgreSQL is writable and nobody leads
	left     time.Duration
	leased   bool // left is known
}

func (s *sight) kind() node.Kind { return node.KindPatroni }

func (s *sight) look() {
	snap := s.q.Snapshot
	s.now, s.cluster = snap.Now, snap.DCS.Cluster.Value
	s.timing = node.TimingOf(s.cluster.Config)
	s.fresh = snap.DCS.Cluster.Fresh(s.now, engine.FreshDCS)
	s.leader = s.fresh && s.cluster.LeaderName() == s.spec.Member
	s.orphaned = s.fresh && !s.cluster.Empty && s.cluster.Leader == nil && !s.cluster.LeaderUnknown && s.writable()
	s.left, s.leased = s.lease()
}

func (s *sight) writable() bool {
	if s.f.Session.Fresh(s.now, 3*time.Second) && s.f.Session.Value.InRecovery {
		return false
	}
	return s.f.Postgres.Fresh(s.now, engine.FreshLocal) && s.f.Postgres.Value.Writable()
}

// lease returns the life left of this member's lease, known only if the lease that was read is the one its key names.
func (s *sight) lease() (time.Duration, bool) {
	if !s.fresh {
		return 0, false
	}
	id, f := int64(0), s.q.Snapshot.DCS.MemberLease
	if m, ok := s.cluster.Member(s.spec.Member); ok {
		id = m.Lease
	}
	if s.leader {
		id, f = s.cluster.Leader.Lease, s.q.Snapshot.DCS.LeaderLease
	}
	switch {
	case id == 0:
		return 0, true
	case !f.Fresh(s.now, engine.FreshDCS) || f.Value.ID != id:
		return 0, false
	}
	return node.LeaseLeft(f, s.now), true
}

func (s *sight) leaseWords() string {
	if !s.leased {
		return "the life left of the lease is unknown"
	}
	words := fmt.Sprintf("the lease has %s of %s left", s.left.Round(time.Second), s.timing.TTL)
	if why := s.mem.LeaseExcuse(s.left, s.timing.TTL, s.now); why != "" {
		words += ", and " + why
	}
	return words
}

func (s *sight) streak(name string) node.Streak { return s.mem.Streaks[name+"/"+s.spec.Service] }

// live words what Patroni's API last did.
func (s *sight) live() string {
	l := s.f.Liveness
	switch {
	case !l.Known:
		return "/liveness is unknown: " + cmp.Or(l.Why, "not observed yet")
	case l.Value.Outcome == probe.OutcomeAnswered:
		return fmt.Sprintf("/liveness answers HTTP %d", l.Value.Status)
	}
	return fmt.Sprintf("/liveness: %s", l.Value.Outcome)
}

func (s *sight) unitState() string {
	if !s.f.Unit.Known {
		return "the unit's state is unknown: " + cmp.Or(s.f.Unit.Why, "not observed yet")
	}
	return fmt.Sprintf("%s is %s", s.spec.Unit, s.f.Unit.Value.State)
}

// age is how long the main process has lived.
func (s *sight) age() time.Duration {
	p := s.f.Process
	if !p.Known || !p.Value.Exists {
		return 0
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go supports
	return s.now.Sub(node.Instant(time.Duration(p.Value.StartTick) * tick))
}

func (s *sight) hypothetical(verb node.Verb, because node.Code) node.Action {
	u := s.f.Unit.Value
	run := cmp.Or(u.InvocationID, "none")
	a := node.Action{
		ID:   fmt.Sprintf("%s/%s/%s/%s", verb, s.spec.Service, because, run[:min(8, len(run))]),
		Verb: verb, Service: s.spec.Service, Unit: s.spec.Unit, Class: node.ClassRevive, Finding: because,
		Reason: "it is only asked about", Leader: s.leader,
		Fence:  because == node.ZombiePrimary || s.orphaned && (because == node.PatroniHung || because == node.PatroniLoopStuck),
		Before: node.Baseline{InvocationID: u.InvocationID, MainPID: u.MainPID, StartTick: s.f.Process.Value.StartTick, LeaderName: s.cluster.LeaderName()},
	}
	if verb == node.SoftKill && !u.SparesChildren() {
		a.Class = node.ClassDisrupt
	}
	return a
}
