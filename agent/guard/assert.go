package guard

import (
	"fmt"

	"github.com/pgpatrol/pgpatrol/agent/node"
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

// assertPatroni checks what forbids every action on Patroni, and whatever stops something that runs.
func assertPatroni(in Input) string {
	dcs := in.Snapshot.DCS
	switch {
	case !dcs.Cluster.Known, in.Snapshot.Now-dcs.Cluster.At > node.Instant(FreshRoutine):
		return "the view of etcd is not fresh"
	case dcs.Cluster.Value.Config.Pause:
		return "the cluster is paused"
	}
	return ""
}

// assertTarget checks what forbids this action.
func assertTarget(in Input, a node.Action) string {
	patroni := a.Kind == "" || a.Kind == node.KindPatroni
	units, specs := []node.Fact[service.Status]{}, 0
	if patroni {
		for _, s := range in.Spec.Patroni {
			if s.Service == a.Service || s.Unit == a.Unit {
				specs++
			}
		}
		for _, f := range in.Snapshot.Patroni {
			if f.Service == a.Service {
				units = append(units, f.Unit)
			}
		}
	} else {
		for _, s := range in.Spec.Services {
			if s.Service == a.Service {
				specs++
			}
		}
		for _, f := range in.Snapshot.Services {
			if f.Service == a.Service {
				units = append(units, f.Unit)
			}
		}
	}
	if specs != 1 || len(units) != 1 || !sameUnit(in.Spec, a) {
		return fmt.Sprintf("it has %d targets in the configuration and %d in the snapshot, not exactly one", specs, len(units))
	}
	if patroni || a.Class == node.ClassDisrupt {
		if broken := assertPatroni(in); broken != "" && (patroni || broken != "the cluster is paused") {
			return broken
		}
	}
	if patroni && a.Verb == node.Restart {
		return "a restart of Patroni stops PostgreSQL"
	}
	if mode := in.Spec.PolicyOf(a.Service).For(a.Class, a.Finding); mode != node.ModeAuto && !(mode == node.ModeAsk && consented(in, a)) {
		return fmt.Sprintf("policy is %q and no person approved it", mode)
	}
	return assertUnit(units[0])
}

// sameUnit reports whether the configuration has this service with this unit.
func sameUnit(spec node.Spec, a node.Action) bool {
	for _, s := range spec.Patroni {
		if s.Service == a.Service {
			return s.Unit == a.Unit
		}
	}
	for _, s := range spec.Services {
		if s.Service == a.Service {
			return s.Unit == a.Unit
		}
	}
	return false
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
