package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// The rules in this file are about what is behind a forwarder (DESIGN.md §6.5): a published port, a container, and the virtual
// machine that the container is in. Every hop shows for itself whether it works, and each is healed by the rules of its kind.
// Only the machine cannot be told from what it carries by that: it is the last hop, and restarted when everything before it is
// out of sight.
//
//	forwarder --> to --> behind[0] --> ... --> behind[n], which may be a machine
//	                     nearest               foundation: looked at first, because what stands on a broken one is broken too

// Patience with a machine (FAULTS.md F77: acted on after 30 s, working again 120 s later).
const (
	machineProof  = 30 * time.Second
	machineSettle = 120 * time.Second
)

// specOf returns the service of that name.
func (s *step) specOf(name string) node.ServiceSpec {
	i := slices.IndexFunc(s.in.Spec.Services, func(one node.ServiceSpec) bool { return one.Service == name })
	if i < 0 {
		return node.ServiceSpec{}
	}
	return s.in.Spec.Services[i]
}

// hopWords names the first hop behind a forwarder that is broken, from its foundation on, "" if nothing is known of what is
// behind it.
func (t *target) hopWords() string {
	if len(t.spec.Behind) == 0 {
		return ""
	}
	unknown := ""
	for _, name := range slices.Backward(t.spec.Behind) {
		hop, ok := t.glance(t.specOf(name))
		switch {
		case !ok || hop.works():
		case hop.unitKnown && !hop.running():
			return fmt.Sprintf(" The first broken hop is %s: %s is %s.", name, hop.spec.Unit, hop.unit.State)
		case hop.broken():
			return fmt.Sprintf(" The first broken hop is %s: it runs and does not answer.", name)
		case unknown == "":
			unknown = name
		}
	}
	if unknown != "" {
		return fmt.Sprintf(" No hop is known to be broken, and nothing is known of %s.", unknown)
	}
	return " Everything behind it works by itself: the first broken hop is the address that it forwards to."
}

// broken reports whether the service is seen not to do what it is for.
func (t *target) broken() bool {
	if t.spec.Kind == node.KindEtcd {
		return t.f.Member.Fresh(t.now, FreshLocal) && !t.f.Member.Value.Serves()
	}
	return t.f.Check.Fresh(t.now, FreshLocal) && !t.f.Check.Value.OK
}

// answers reports whether the service is seen to live, whatever its manager says.
func (t *target) answers() bool {
	if t.spec.Kind == node.KindEtcd {
		return t.f.Member.Fresh(t.now, FreshLocal) && t.f.Member.Value.Alive()
	}
	return t.f.Check.Fresh(t.now, FreshLocal) && t.f.Check.Value.OK
}

// lastHop proposes to restart a machine that runs and whose own check has failed for long (FAULTS.md F77). How often is for
// guard "budget": once.
func (t *target) lastHop(fails node.Streak) {
	if t.spec.Kind != node.KindMachine || !enough(fails, minObservations, machineProof) || !t.allBehindLost() {
		return
	}
	t.propose(node.Restart, node.ServiceFails, node.ClassDisrupt, "it is the last hop, its check fails, and everything that is in it is out of sight")
}

// allBehindLost reports whether nothing gets through any forwarder that leads into the machine, and every hop before it is out
// of sight: neither does it answer, nor does its manager say what has become of it. A hop whose manager answers is in a machine
// that works, and is healed by itself.
func (t *target) allBehindLost() bool {
	chains := 0
	for _, spec := range t.in.Spec.Services {
		n := len(spec.Behind)
		if n == 0 || spec.Behind[n-1] != t.spec.Service {
			continue
		}
		chains++
		f, ok := t.glance(spec)
		if !ok || !f.f.Past.Fresh(t.now, FreshLocal) || f.f.Past.Value.Outcome == answered {
			return false
		}
		for _, name := range spec.Behind[:n-1] {
			if hop, ok := t.glance(t.specOf(name)); !ok || hop.unitKnown || hop.answers() {
				return false
			}
		}
	}
	return chains > 0
}
