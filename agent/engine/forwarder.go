package engine

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// How long a forwarder must have carried nothing, while what is behind it answers.
const (
	muteProof = 2 * time.Second // it takes connections (FAULTS.md F72: two probes of two seconds)
	deafProof = 6 * time.Second // it listens nowhere, and may be about to (FAULTS.md F75)
)

// forwarderRules compares what comes through a forwarder with what answers past it, both asked with the protocol that it
// carries. A connect proves nothing: a hung forwarder takes it, and one whose backend is dead takes it too (FAULTS.md L25).
//
//	past it      through it
//	answers      answers           well
//	answers      timeout           hung: it takes connections and carries nothing --> restart
//	answers      broken            hung: it forwards to somewhere else, or ends every connection --> restart
//	answers      refused           runs and does not listen: started before its address existed (F75) --> restart
//	no answer    anything          the fault is behind it: the forwarder is left alone (F73)
//	unknown      anything          nothing is known of the forwarder: it is left alone
func (t *target) forwarderRules() {
	t.identityRule()
	through, past := t.f.Through, t.f.Past
	seen := through.Fresh(t.now, FreshLocal) && past.Fresh(t.now, FreshLocal)
	lost := seen && through.Value.Outcome != answered
	behind := seen && past.Value.Outcome != answered && !planted.On("engine/backend-is-forwarder")
	refused := through.Value.Outcome == probe.OutcomeRefused
	at := min(through.At, past.At) // both were asked anew
	mute := t.streak("mute/"+t.spec.Service, t.running() && lost && !behind && !refused, at)
	deaf := t.streak("deaf/"+t.spec.Service, t.running() && lost && !behind && refused, at)
	broken := t.streak("broken/"+t.spec.Service, lost && behind, at)
	t.attention = t.attention || lost
	switch {
	case enough(mute, 2, muteProof):
		t.carriesNothing(node.ForwarderHung, "takes connections and carries nothing", mute)
	case enough(deaf, minObservations, deafProof):
		t.carriesNothing(node.ForwarderDead, "runs, and nothing listens on its address", deaf)
	case enough(broken, 2, muteProof):
		t.backendDead(broken, refused)
	}
}

func (t *target) carriesNothing(code node.Code, what string, st node.Streak) {
	t.find(node.Finding{
		Code: code, Severity: node.Page, Subject: t.spec.Service,
		Text:     fmt.Sprintf("The forwarder %s (%s, for %s), while what is behind it answers.", what, t.f.Through.Value.Outcome, st.Held().Round(time.Second)),
		Evidence: t.hopEvidence(),
	})
	t.propose(node.Restart, code, node.ClassRevive, "it carries nothing, and what it forwards to answers")
}

func (t *target) backendDead(st node.Streak, refused bool) {
	and := "the forwarder is not at fault and is left alone"
	if refused {
		and = "nothing listens on the forwarder's own address either, and it is left alone until there is something to carry"
	}
	t.find(node.Finding{
		Code: node.ForwarderBroken, Severity: node.Warn, Subject: t.spec.Service,
		Text:     fmt.Sprintf("What is behind the forwarder has not answered for %s (%s): %s.%s", st.Held().Round(time.Second), t.f.Past.Value.Outcome, and, t.hopWords()),
		Advice:   "Heal what it forwards to.",
		Evidence: t.hopEvidence(),
	})
}

func (t *target) hopEvidence() []node.Evidence {
	return []node.Evidence{
		t.unitEvidence(),
		node.Show("through it", t.f.Through, "%s %s", t.f.Through.Value.Outcome, t.f.Through.Value.Identity),
		node.Show("past it", t.f.Past, "%s %s", t.f.Past.Value.Outcome, t.f.Past.Value.Identity),
	}
}
