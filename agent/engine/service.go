package engine

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// target is one service of this machine that is not a Patroni, with the questions that the rules of its kind ask.
type target struct {
	*step
	spec node.ServiceSpec
	f    node.ServiceFacts
	m    *node.ServiceMemory

	unit      service.Status
	unitKnown bool
}

// services judges every service that is not a Patroni.
func (s *step) services() {
	for _, spec := range s.in.Spec.Services {
		t, ok := s.target(spec)
		if !ok {
			continue
		}
		t.managerRules()
		t.healFailed(spec.Service, t.works(), t.unitEvidence())
		t.rules()
		s.mem.Services[spec.Service] = *t.m
	}
}

func (t *target) rules() {
	switch {
	case t.spec.Kind == node.KindEtcd && t.etcdRemoved(), t.crashed():
		t.forget()
	case t.spec.Kind == node.KindEtcd:
		t.etcdRules()
	case t.spec.Kind == node.KindForwarder:
		t.forwarderRules()
	default:
		t.genericRules()
	}
}

// forget ends every condition that has held so far.
func (t *target) forget() {
	for _, name := range []string{"silent", "leaderless", "reduced", "mute", "deaf", "broken", "fails", "far"} {
		delete(t.mem.Streaks, name+"/"+t.spec.Service)
	}
}

func (s *step) target(spec node.ServiceSpec) (*target, bool) {
	t, ok := s.glance(spec)
	if ok {
		t.remember()
	}
	return t, ok
}

// glance returns a service without noting anything.
func (s *step) glance(spec node.ServiceSpec) (*target, bool) {
	for _, f := range s.in.Snapshot.Services {
		if f.Service != spec.Service {
			continue
		}
		m := s.mem.Services[spec.Service]
		t := &target{step: s, spec: spec, f: f, m: &m}
		t.unit, t.unitKnown = f.Unit.Value, f.Unit.Fresh(s.now, FreshLocal)
		return t, true
	}
	return nil, false
}

// remember notes what the unit did since the last step, and who answered.
func (t *target) remember() {
	if t.unitKnown {
		t.rememberRun()
		t.noteUnit(t.m, t.unit)
	}
	t.rememberAnswerer()
	if t.works() {
		t.m.GoodPolls++
	} else {
		t.m.GoodPolls = 0
	}
	if t.m.GoodPolls >= settledPolls {
		t.m.Settled = true
	}
}

// rememberRun gives a new run a clean sheet: it is not blamed for what its predecessor did.
func (t *target) rememberRun() {
	fresh := t.unit.InvocationID != t.m.InvocationID
	if fresh {
		t.m.RunSeen, t.m.Heard = t.now, false
	}
	if (fresh || t.unit.MainPID != t.m.MainPID) && !planted.On("engine/stale-service-streaks") {
		t.forget()
	}
	t.m.MainPID = t.unit.MainPID
}

// rememberAnswerer notes who answers as this member of etcd, and that it does so in this run, or who answers behind this
// forwarder.
func (t *target) rememberAnswerer() {
	id := ""
	m, p := t.f.Member, t.f.Past
	switch {
	case t.spec.Kind == node.KindEtcd && m.Fresh(t.now, FreshLocal):
		id = m.Value.Identity()
	case t.spec.Kind == node.KindForwarder && p.Fresh(t.now, FreshLocal):
		id = p.Value.Identity
	}
	if t.spec.Stranger(t.m.Answerer, id) {
		t.m.Stranger = id
		return
	}
	if id != "" {
		t.m.Answerer, t.m.Stranger = id, ""
	}
	if m.Fresh(t.now, FreshLocal) && m.Value.Alive() && m.At > t.m.RunSeen {
		t.m.Heard = true
	}
}

// running reports whether the unit is known to run: where its manager does not say, nothing is judged that needs a verb.
func (t *target) running() bool {
	return t.unitKnown && t.unit.State == service.StateRunning || planted.On("engine/unknown-unit-runs") && !t.unitKnown
}

// works reports whether the service is seen to do what it is for.
func (t *target) works() bool {
	if !t.running() {
		return false
	}
	switch t.spec.Kind {
	case node.KindEtcd:
		return t.f.Member.Fresh(t.now, FreshLocal) && t.f.Member.Value.Serves()
	case node.KindForwarder:
		return t.f.Through.Fresh(t.now, FreshLocal) && t.f.Through.Value.Outcome == answered
	case node.KindHAProxy, node.KindGeneric, node.KindMachine, node.KindPatroni:
	}
	return t.f.Check.Fresh(t.now, FreshLocal) && t.f.Check.Value.OK
}

// asked is when the service was last asked for what works judges by.
func (t *target) asked() node.Instant {
	switch t.spec.Kind {
	case node.KindEtcd:
		return t.f.Member.At
	case node.KindForwarder:
		return t.f.Through.At
	case node.KindHAProxy, node.KindGeneric, node.KindMachine, node.KindPatroni:
	}
	return t.f.Check.At
}

// managerRules says when the manager of the service does not answer, or does not let this agent act: at once, and not when
// something is to be healed.
func (t *target) managerRules() {
	if u := t.f.Unit; !t.unitKnown && (u.Known || u.Why != "") {
		t.find(node.Finding{
			Code: node.ManagerUnavailable, Severity: node.Warn, Subject: t.spec.Service,
			Text:     fmt.Sprintf("What %s knows of %s is unknown (%s): nothing is done to it.", t.spec.Manager, t.spec.Unit, orNone(u.Why)),
			Advice:   "Look whether the service manager runs, and whether this agent may reach it.",
			Evidence: []node.Evidence{t.unitEvidence()},
		})
	}
	t.forbidden(t.spec.Service, t.spec.Unit, t.spec.Manager, t.f.Limits)
}

// forbidden says what a manager would refuse to do to a unit.
func (s *step) forbidden(name, unit, manager string, l node.Fact[string]) {
	if !l.Known || l.Value == "" {
		return
	}
	s.find(node.Finding{
		Code: node.ManagerForbids, Severity: node.Warn, Subject: name,
		Text:     fmt.Sprintf("%s does not let this agent do all that it may have to do to %s: %s.", manager, unit, l.Value),
		Advice:   "The README says per manager which rights are needed.",
		Evidence: []node.Evidence{node.Show("rights", l, "%s", l.Value)},
	})
}

// crashed: the unit ended and its manager does not start it again, or a person wants it so. It reports whether there is
// nothing to look at besides.
func (t *target) crashed() bool {
	if !t.unitKnown {
		return false
	}
	t.crashing()
	switch intent := t.unit.Intent(); {
	case t.unit.State == service.StateRunning:
		return false
	case unwanted(intent):
		text := fmt.Sprintf("%s was stopped on purpose (%s, %s). It is left alone until a person starts it.", t.spec.Unit, orNone(t.unit.Detail), intent)
		if t.unit.State == service.StateFailed && intent != service.IntentStopped {
			text = fmt.Sprintf("%s has failed (%s), and it is %s: nobody but a person may start it.", t.spec.Unit, orNone(t.unit.Result), intent)
		}
		t.find(node.Finding{
			Code: node.ServiceStopped, Severity: node.Info, Subject: t.spec.Service, Text: text,
			Evidence: []node.Evidence{t.unitEvidence()},
		})
		return true
	case t.unit.State == service.StateFailed:
		t.find(node.Finding{
			Code: t.crashCode(), Severity: node.Page, Subject: t.spec.Service,
			Text: fmt.Sprintf("%s ended (%s, exit status %d), and %s does not start it again.", t.spec.Unit, orNone(t.unit.Result),
				t.unit.ExitStatus, t.spec.Manager),
			Advice:   "The log of its manager says why it ended.",
			Evidence: []node.Evidence{t.unitEvidence()},
		})
		t.propose(node.StartFailed, t.crashCode(), node.ClassRevive, "it crashed and nobody stopped it; starting it once brings it back")
	}
	return true // or its manager, or a person, is at work
}

// unwanted reports whether a person does not want the unit to run.
func unwanted(i service.Intent) bool {
	return i == service.IntentStopped || i == service.IntentDisabled || i == service.IntentMasked
}

func (t *target) crashCode() node.Code {
	switch t.spec.Kind {
	case node.KindEtcd:
		return node.EtcdCrashed
	case node.KindForwarder:
		return node.ForwarderDead
	case node.KindHAProxy, node.KindGeneric, node.KindMachine, node.KindPatroni:
	}
	return node.ServiceCrashed
}

// crashing counts new runs: each restart by the manager is harmless, one more by us would not heal (FAULTS.md F06, F79).
func (t *target) crashing() {
	n := node.Within(t.m.Starts, t.now, crashWindow)
	if n < crashCount {
		return
	}
	t.find(node.Finding{
		Code: node.ServiceCrashing, Severity: node.Warn, Subject: t.spec.Service,
		Text:     fmt.Sprintf("%s has been started again %d times within %s. More restarts would not help.", t.spec.Unit, n, crashWindow),
		Advice:   "The log of its manager says why it ends.",
		Evidence: []node.Evidence{t.unitEvidence()},
	})
}

// genericRules: a service of any kind runs, and its own check fails. What would help is not known, so nothing is done, but to
// a machine that everything else behind a forwarder is in.
func (t *target) genericRules() {
	c := t.f.Check
	st := t.streak("fails/"+t.spec.Service, t.running() && c.Fresh(t.now, FreshLocal) && !c.Value.OK, c.At)
	if st.Count == 0 {
		return
	}
	t.attention = true
	if !enough(st, minObservations, hangProof) {
		return
	}
	t.find(node.Finding{
		Code: node.ServiceFails, Severity: node.Warn, Subject: t.spec.Service,
		Text:     fmt.Sprintf("%s runs, and its check has failed %d times over %s (%s).", t.spec.Unit, st.Count, st.Held().Round(time.Second), orNone(c.Value.Detail)),
		Evidence: []node.Evidence{t.unitEvidence(), t.checkEvidence()},
	})
	t.lastHop(st)
}

func (t *target) propose(verb node.Verb, code node.Code, class node.Class, reason string) {
	a := node.Action{
		Verb: verb, Service: t.spec.Service, Kind: t.spec.Kind, Unit: t.spec.Unit, Class: class, Finding: code, Reason: reason,
		Before: node.Baseline{
			InvocationID: t.unit.InvocationID, MainPID: t.unit.MainPID, StartTick: t.f.Process.Value.StartTick,
			LeaderName: t.cluster.LeaderName(),
		},
		Expect:   node.Expectation{NewInvocation: true, Works: t.canWork()},
		Deadline: serviceDeadline, Settle: settleTime,
	}
	if t.spec.Kind == node.KindMachine {
		a.Settle = machineSettle
	}
	a.ID = fmt.Sprintf("%s/%s/%s/%s", verb, t.spec.Service, code, shortID(t.unit.InvocationID))
	t.actions = append(t.actions, a)
}

// canWork reports whether the service can be expected to do what it is for once it runs. A member of etcd without a quorum
// does not even answer: it waits for the others, and they for it (FAULTS.md F40).
func (t *target) canWork() bool { return t.spec.Kind != node.KindEtcd || t.quorumElsewhere() }

// serviceDeadline allows for a manager that gives a hung service its time to stop before it uses force: ten seconds is what
// Docker does.
const serviceDeadline = 30 * time.Second

func (t *target) checkEvidence() node.Evidence {
	return node.Show("its check", t.f.Check, "%s", t.f.Check.Value.Outcome)
}

func (t *target) unitEvidence() node.Evidence {
	return node.Show(t.spec.Unit, t.f.Unit, "%s, %s, main process %d, run %s", t.unit.State, orNone(t.unit.Result), t.unit.MainPID, shortID(t.unit.InvocationID))
}

// noteUnit carries over what the manager says of a unit between steps: new runs, and whose job has ended.
func (s *step) noteUnit(m *node.ServiceMemory, u service.Status) {
	seen := m.InvocationID != "" || m.Restarts > 0
	if u.InvocationID != "" && u.InvocationID != m.InvocationID {
		if m.InvocationID != "" && !planted.On("engine/forget-starts") {
			m.Starts = append(m.Starts, s.now)
		}
		m.InvocationID = u.InvocationID
	}
	// The manager may have restarted it more often than this agent looked.
	if seen && !planted.On("engine/forget-starts") {
		for range min(u.Restarts-m.Restarts-1, rememberStarts) {
			m.Starts = append(m.Starts, s.now)
		}
	}
	if n := len(m.Starts); n > rememberStarts {
		m.Starts = m.Starts[n-rememberStarts:]
	}
	// An automatic restart is a job too, but nobody's.
	own := u.State == service.StateRestarting || u.Restarts > m.Restarts
	if m.Job != "" && u.Job == "" && !planted.On("engine/forget-job") && !own && u.State != service.StateFailed {
		m.JobEnded = s.now
	}
	m.Job = u.Job
	if own {
		m.Job = ""
	}
	m.Restarts = u.Restarts
}
