package engine

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// forwarderProof is how long a forwarder must have carried nothing, while what is behind it answers (FAULTS.md F72: two
// probes of two seconds).
const forwarderProof = 2 * time.Second

// forwarderRules compares what comes through a forwarder with what answers past it, both asked with the protocol that it
// carries. A connect proves nothing: a hung forwarder takes it, and one whose backend is dead takes it too (FAULTS.md L25).
//
//	past it      through it
//	answers      answers           well
//	answers      timeout           hung: it takes connections and carries nothing --> restart
//	answers      broken            hung: it forwards to somewhere else, or ends every connection --> restart
//	answers      refused           runs and does not listen: started before its address existed (F75) --> restart
//	no answer    anything          the fault is behind it: the forwarder is left alone (F73)
func (t *target) forwarderRules() {
	through, past := t.f.Through, t.f.Past
	if !through.Fresh(t.now, FreshLocal) || !past.Fresh(t.now, FreshLocal) || through.Value.Outcome == answered {
		t.streak("mute/"+t.spec.Service, false, through.At)
		t.streak("broken/"+t.spec.Service, false, through.At)
		return
	}
	t.attention = true
	if past.Value.Outcome != answered {
		t.streak("mute/"+t.spec.Service, false, through.At)
		if st := t.streak("broken/"+t.spec.Service, true, past.At); enough(st, 2, forwarderProof) {
			t.find(node.Finding{
				Code: node.ForwarderBroken, Severity: node.Warn, Subject: t.spec.Service,
				Text:     fmt.Sprintf("What is behind the forwarder has not answered for %s (%s): the forwarder is not at fault and is left alone.", st.Held().Round(time.Second), past.Value.Outcome),
				Advice:   "Heal what it forwards to.",
				Evidence: t.hopEvidence(),
			})
		}
		return
	}
	t.streak("broken/"+t.spec.Service, false, past.At)
	st := t.streak("mute/"+t.spec.Service, true, through.At)
	if !enough(st, 2, forwarderProof) {
		return
	}
	what, code := "takes connections and carries nothing", node.ForwarderHung
	if through.Value.Outcome == probe.OutcomeRefused {
		what, code = "runs, and nothing listens on its address", node.ForwarderDead
	}
	t.find(node.Finding{
		Code: code, Severity: node.Page, Subject: t.spec.Service,
		Text:     fmt.Sprintf("The forwarder %s (%s, for %s), while what is behind it answers.", what, through.Value.Outcome, st.Held().Round(time.Second)),
		Evidence: t.hopEvidence(),
	})
	t.propose(node.Restart, code, node.ClassRevive, "it carries nothing, and what it forwards to answers")
}

func (t *target) hopEvidence() []node.Evidence {
	return []node.Evidence{
		t.unitEvidence(),
		node.Show("through it", t.f.Through, "%s %s", t.f.Through.Value.Outcome, t.f.Through.Value.Identity),
		node.Show("past it", t.f.Past, "%s %s", t.f.Past.Value.Outcome, t.f.Past.Value.Identity),
	}
}
