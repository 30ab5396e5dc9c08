package guard

import (
	"fmt"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Assert looks at the outcome without asking the rules: it returns the first promise that an allowed action would break, or
// "". It shares no code with the rules on purpose. What it finds is a bug of this program.
func Assert(in Input, p node.Plan) string {
	if len(p.Allowed) == 0 {
		return ""
	}
	if broken := assertSituation(in); broken != "" {
		return fmt.Sprintf("%s of %s was allowed although %s", p.Allowed[0].Verb, p.Allowed[0].Service, broken)
	}
	busy := map[string]bool{}
	for _, a := range p.Allowed {
		broken := assertTarget(in, a)
		if busy[a.Service] {
			broken = "another action on that service was allowed too"
		}
		if broken != "" {
			return fmt.Sprintf("%s of %s was allowed although %s", a.Verb, a.Service, broken)
		}
		busy[a.Service] = true
	}
	return ""
}

// assertSituation checks what forbids every action.
func assertSituation(in Input) string {
	orders, shared := in.Snapshot.Orders, in.Snapshot.DCS.Shared
	switch {
	case orders.Unreadable != "":
		return "the kill switch cannot be read"
	case len(orders.Holds) > 0, shared.Known && len(shared.Value.Holds) > 0:
		return "a person holds every action back"
	}
	return ""
}

// assertTarget checks what forbids this action.
func assertTarget(in Input, a node.Action) string {
	kind := a.Kind
	if kind == "" {
		kind = node.KindPatroni
	}
	aims, units := aimsOf(in.Spec, a), unitsOf(in.Snapshot, a.Service)
	if len(aims) != 1 || len(units) != 1 || aims[0] != (aim{a.Service, a.Unit, kind}) {
		return fmt.Sprintf("it has %d targets in the configuration and %d in the snapshot, not exactly one", len(aims), len(units))
	}
	if broken := assertKind(in, a, kind == node.KindPatroni); broken != "" {
		return broken
	}
	if mode := in.Spec.PolicyOf(a.Service).For(a.Class, a.Finding); mode != node.ModeAuto && !(mode == node.ModeAsk && consented(in, a)) {
		return fmt.Sprintf("policy is %q and no person approved it", mode)
	}
	return assertUnit(units[0])
}

// aim is a service that an action may be about.
type aim struct {
	service, unit string
	kind          node.Kind
}

// aimsOf returns the services that an action could hit: the one of that name, and any Patroni of that unit.
func aimsOf(spec node.Spec, a node.Action) []aim {
	var out []aim
	for _, s := range spec.Patroni {
		if s.Service == a.Service || s.Unit == a.Unit {
			out = append(out, aim{s.Service, s.Unit, node.KindPatroni})
		}
	}
	for _, s := range spec.Services {
		if s.Service == a.Service {
			out = append(out, aim{s.Service, s.Unit, s.Kind})
		}
	}
	return out
}

// unitsOf returns what the snapshot knows of the units of a service.
func unitsOf(snap node.Snapshot, name string) []node.Fact[service.Status] {
	var out []node.Fact[service.Status]
	for i := range snap.Patroni {
		if f := &snap.Patroni[i]; f.Service == name {
			out = append(out, f.Unit)
		}
	}
	for i := range snap.Services {
		if f := &snap.Services[i]; f.Service == name {
			out = append(out, f.Unit)
		}
	}
	return out
}

// assertKind checks what forbids an action on a service of that kind. Whatever stops something that runs needs to know who
// leads; a paused cluster is Patroni's and PostgreSQL's only (FAULTS.md S22).
func assertKind(in Input, a node.Action, patroni bool) string {
	dcs := in.Snapshot.DCS
	old := !dcs.Cluster.Known || in.Snapshot.Now-dcs.Cluster.At > node.Instant(FreshRoutine)
	switch {
	case old && (patroni || a.Class == node.ClassDisrupt):
		return "the view of etcd is not fresh"
	case patroni && dcs.Cluster.Value.Config.Pause:
		return "the cluster is paused"
	case patroni && a.Verb == node.Restart:
		return "a restart of Patroni stops PostgreSQL"
	case a.Kind == node.KindEtcd && a.Verb == node.Restart && answering(in.Snapshot, a.Service) < 2:
		return "another member of etcd does not answer"
	}
	return ""
}

// answering counts the other members of etcd that answer, 0 if one does not, or is not known to.
func answering(snap node.Snapshot, name string) int {
	n := 0
	for i := range snap.Services {
		if snap.Services[i].Service != name {
			continue
		}
		for _, o := range snap.Services[i].Others {
			if !o.Member.Known || snap.Now-o.Member.At > node.Instant(FreshRoutine) || o.Member.Value.Outcome != probe.OutcomeAnswered {
				return 0
			}
			n++
		}
	}
	return n
}

func assertUnit(f node.Fact[service.Status]) string {
	u := f.Value
	switch {
	case !f.Known:
		return "its unit's state is unknown"
	case u.Masked, u.Enablement == "masked", u.Enablement == "masked-runtime":
		return "its unit is masked"
	case u.Enablement == "disabled" && u.State != service.StateRunning:
		return "its unit is disabled"
	case u.State == service.StateStopped, u.State == service.StateFailed && u.Halted:
		return "a person stopped its unit"
	case u.Unexplained:
		return "whether a person stopped its unit is unknown"
	}
	return ""
}

// consented reports whether a person approved this action within the life of an approval, and no attempt came after.
func consented(in Input, a node.Action) bool {
	for _, ap := range in.Snapshot.Orders.Approvals {
		ok := ap.ActionID == a.ID && ap.At <= in.Snapshot.Now && in.Snapshot.Now <= ap.At.Add(node.ApprovalLife)
		for _, old := range in.Attempts {
			if old.ActionID == a.ID && old.BootID == in.Snapshot.BootID && old.At >= ap.At {
				ok = false
			}
		}
		if ok {
			return true
		}
	}
	return false
}
