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
		if !t.crashed() {
			switch spec.Kind {
			case node.KindEtcd:
				t.etcdRules()
			case node.KindForwarder:
				t.forwarderRules()
			case node.KindGeneric, node.KindPatroni:
				t.genericRules()
			}
		}
		s.mem.Services[spec.Service] = *t.m
	}
}

func (s *step) target(spec node.ServiceSpec) (*target, bool) {
	for _, f := range s.in.Snapshot.Services {
		if f.Service != spec.Service {
			continue
		}
		m := s.mem.Services[spec.Service]
		t := &target{step: s, spec: spec, f: f, m: &m}
		t.unit, t.unitKnown = f.Unit.Value, f.Unit.Fresh(s.now, FreshLocal)
		t.remember()
		return t, true
	}
	return nil, false
}

// remember notes what the unit did since the last step, and who answered.
func (t *target) remember() {
	if t.unitKnown {
		t.noteUnit(t.m, t.unit)
		if t.unit.MainPID != t.m.MainPID {
			t.m.MainPID = t.unit.MainPID
			for _, name := range targetStreaks {
				delete(t.mem.Streaks, name+"/"+t.spec.Service)
			}
		}
	}
	if id := t.answerer(); id != "" {
		t.m.Answerer = id
	}
	if t.works() {
		t.m.GoodPolls++
	} else {
		t.m.GoodPolls = 0
	}
	if t.m.GoodPolls >= settledPolls {
		t.m.Settled = true
	}
}

// targetStreaks are the conditions that belong to one main process.
var targetStreaks = []string{"silent", "mute", "fails"}

// answerer is the identity of who answers now, "" where nobody does or the protocol does not tell.
func (t *target) answerer() string {
	switch m := t.f.Member; {
	case t.spec.Kind == node.KindEtcd && m.Fresh(t.now, FreshLocal) && m.Value.ClusterID != "":
		return m.Value.ClusterID + "/" + m.Value.MemberID
	case t.spec.Kind == node.KindForwarder && t.f.Past.Fresh(t.now, FreshLocal):
		return t.f.Past.Value.Identity
	}
	return ""
}

// works reports whether the service is seen to do what it is for.
func (t *target) works() bool {
	if !t.unitKnown || t.unit.State != service.StateRunning {
		return false
	}
	switch t.spec.Kind {
	case node.KindEtcd:
		return t.f.Member.Fresh(t.now, FreshLocal) && t.f.Member.Value.Healthy
	case node.KindForwarder:
		return t.f.Through.Fresh(t.now, FreshLocal) && t.f.Through.Value.Outcome == answered
	case node.KindGeneric, node.KindPatroni:
	}
	return t.f.Check.Fresh(t.now, FreshLocal) && t.f.Check.Value.OK
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
	if l := t.f.Limits; l.Known && l.Value != "" {
		t.find(node.Finding{
			Code: node.ManagerForbids, Severity: node.Warn, Subject: t.spec.Service,
			Text:     fmt.Sprintf("%s does not let this agent do all that it may have to do to %s: %s.", t.spec.Manager, t.spec.Unit, l.Value),
			Advice:   "The README says per manager which rights are needed.",
			Evidence: []node.Evidence{node.Show("rights", l, "%s", l.Value)},
		})
	}
}

// crashed: the unit ended and its manager does not start it again, or a person wants it so. It reports whether there is
// nothing to look at besides.
func (t *target) crashed() bool {
	if !t.unitKnown {
		return false
	}
	t.crashing()
	switch intent := t.unit.Intent(); {
	case intent == service.IntentStopped || intent == service.IntentDisabled || intent == service.IntentMasked:
		if t.unit.State == service.StateRunning {
			return false
		}
		t.find(node.Finding{
			Code: node.ServiceStopped, Severity: node.Info, Subject: t.spec.Service,
			Text:     fmt.Sprintf("%s was stopped on purpose (%s, %s). It is left alone until a person starts it.", t.spec.Unit, orNone(t.unit.Detail), intent),
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
		return true
	case t.unit.State != service.StateRunning:
		return true // its manager, or a person, is at work
	}
	return false
}

func (t *target) crashCode() node.Code {
	switch t.spec.Kind {
	case node.KindEtcd:
		return node.EtcdCrashed
	case node.KindForwarder:
		return node.ForwarderDead
	case node.KindGeneric, node.KindPatroni:
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

// genericRules: a service of any kind runs, and its own check fails. What would help is not known, so nothing is done.
func (t *target) genericRules() {
	c := t.f.Check
	st := t.streak("fails/"+t.spec.Service, c.Fresh(t.now, FreshLocal) && !c.Value.OK, c.At)
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
		Evidence: []node.Evidence{t.unitEvidence(), node.Show("its check", c, "%s", c.Value.Outcome)},
	})
}

func (t *target) propose(verb node.Verb, code node.Code, class node.Class, reason string) {
	a := node.Action{
		Verb: verb, Service: t.spec.Service, Kind: t.spec.Kind, Unit: t.spec.Unit, Class: class, Finding: code, Reason: reason,
		Before: node.Baseline{
			InvocationID: t.unit.InvocationID, MainPID: t.unit.MainPID, StartTick: t.f.Process.Value.StartTick,
			LeaderName: t.cluster.LeaderName(),
		},
		Expect:   node.Expectation{NewInvocation: true, Works: true},
		Deadline: serviceDeadline, Settle: settleTime,
	}
	a.ID = fmt.Sprintf("%s/%s/%s/%s", verb, t.spec.Service, code, shortID(t.unit.InvocationID))
	t.actions = append(t.actions, a)
}

// serviceDeadline allows for a manager that gives a hung service its time to stop before it uses force: ten seconds is what
// Docker does.
const serviceDeadline = 30 * time.Second

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
