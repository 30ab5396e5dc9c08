package guard

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Explain adds the words to a plan that Plan made of that input: what is done or why nothing is, and on which facts that
// rests.
func Explain(in Input, p node.Plan) node.Plan {
	p.Summary, p.Rests = summary(in, p), rests(in)
	return p
}

func summary(in Input, p node.Plan) string {
	switch {
	case len(p.Allowed) > 0:
		a := p.Allowed[0]
		return fmt.Sprintf("To do: %s of %s (%s), because %s.", a.Verb, a.Service, a.Finding, a.Reason)
	case len(p.Refused) > 0:
		r := p.Refused[0]
		return fmt.Sprintf("Nothing is done: %s of %s would heal %s, and %s refuses it (%s).", r.Action.Verb, r.Action.Service, r.Action.Finding, r.Verdicts[0].Guard, r.Verdicts[0].Text)
	case len(in.Findings) > 0:
		var codes []string
		for _, f := range in.Findings {
			codes = append(codes, string(f.Code))
		}
		return fmt.Sprintf("Nothing is to be done by pgpatrol: %s has no verb that would make it better.", strings.Join(codes, ", "))
	case len(in.Spec.Names()) == 0:
		return "Nothing is to be done: this agent looks after no service and watches the cluster."
	}
	var names []string
	for _, s := range in.Spec.Patroni {
		names = append(names, s.Service+" "+healthWords(in, s))
	}
	for i := range in.Snapshot.Services {
		names = append(names, in.Snapshot.Services[i].Service+" "+serviceWords(&in.Snapshot.Services[i]))
	}
	return "Nothing is to be done: " + strings.Join(names, "; ") + "."
}

func healthWords(in Input, s node.PatroniSpec) string {
	c := in.Snapshot.DCS.Cluster
	role := "whose role in the cluster is not known yet"
	if c.Known {
		switch c.Value.LeaderName() {
		case s.Member:
			role = "holds the leader key and renews its lease"
		case "":
			role = "waits for a leader to be elected"
		default:
			role = "follows " + c.Value.LeaderName()
		}
	}
	for _, f := range in.Snapshot.Patroni {
		if f.Service != s.Service {
			continue
		}
		if words := busyWords(f.Unit); words != "" {
			return words
		}
		if f.Postgres.Known && f.Postgres.Value.Starting() {
			role += "; PostgreSQL is starting, which is left to take its time"
		}
		if f.Liveness.Known && f.Liveness.Value.Alive() {
			return "runs, answers, and " + role
		}
	}
	return "is not seen answering yet, " + role
}

// serviceWords says how a service that is no Patroni is.
func serviceWords(f *node.ServiceFacts) string {
	busy := busyWords(f.Unit)
	m, through, check := f.Member, f.Through, f.Check
	switch {
	case busy != "":
		return busy
	case !f.Unit.Known:
		return "is not seen yet"
	case m.Known && m.Value.Serves():
		return "runs, answers, and has a leader"
	case through.Known && through.Value.Outcome == probe.OutcomeAnswered:
		return "runs, and carries what it is asked to"
	case check.Known && check.Value.OK:
		return "runs, and its check passes"
	}
	return fmt.Sprintf("is %s, and not seen doing its work yet", f.Unit.Value.State)
}

// busyWords says that somebody, or the manager itself, is at work on the unit.
func busyWords(unit node.Fact[service.Status]) string {
	u := unit.Value
	switch {
	case !unit.Known:
		return ""
	case u.Job != "":
		return fmt.Sprintf("is %s under somebody's job %s, which is left to finish", u.State, u.Job)
	case u.State == service.StateRestarting:
		return "ended, and its manager is about to start it again"
	case u.State == service.StateStarting, u.State == service.StateStopping:
		return fmt.Sprintf("is %s, which is left to finish", u.State)
	}
	return ""
}

// rests lists the facts behind the summary.
func rests(in Input) []node.Evidence {
	dcs := &in.Snapshot.DCS
	out := []node.Evidence{
		node.Show("leader key", dcs.Cluster, "%s", nameOr(dcs.Cluster.Value.LeaderName(), "nobody")),
		node.Show("leader's lease", dcs.LeaderLease, "%s left", node.LeaseLeft(dcs.LeaderLease, in.Snapshot.Now).Round(time.Second)),
		node.Show("pause", dcs.Cluster, "%t", dcs.Cluster.Value.Config.Pause),
		node.Show("etcd alarms", dcs.Alarms, "%s", nameOr(strings.Join(dcs.Alarms.Value, ", "), "none")),
	}
	for _, f := range in.Snapshot.Patroni {
		out = append(out,
			node.Show(f.Service+" unit", f.Unit, "%s", f.Unit.Value.State),
			node.Show(f.Service+" main process", f.Process, "pid %d, state %s", f.Process.Value.PID, nameOr(f.Process.Value.State, "none")),
			node.Show(f.Service+" /liveness", f.Liveness, "%s %d", f.Liveness.Value.Outcome, f.Liveness.Value.Status),
			node.Show(f.Service+" PostgreSQL", f.Postgres, "%s", postgresWords(f)),
			node.Show(f.Service+" configuration", f.Config, "valid %t", f.Config.Value.Valid),
		)
	}
	for i := range in.Snapshot.Services {
		out = append(out, serviceRests(&in.Snapshot.Services[i])...)
	}
	return out
}

// serviceRests lists the facts about a service that is no Patroni, of those that its kind has.
func serviceRests(f *node.ServiceFacts) []node.Evidence {
	out := []node.Evidence{node.Show(f.Service+" unit", f.Unit, "%s", f.Unit.Value.State)}
	member := func(name string, m node.Fact[probe.EtcdMember]) {
		out = append(out, node.Show(name, m, "gRPC %s, healthy %t, leader %s", m.Value.Outcome, m.Value.Healthy, nameOr(m.Value.LeaderID, "none")))
	}
	if f.Member.Source != "" {
		member(f.Service+" member", f.Member)
	}
	for _, o := range f.Others {
		member(f.Service+" other member "+o.URL, o.Member)
	}
	hop := func(name string, h node.Fact[probe.Hop]) {
		if h.Source != "" {
			out = append(out, node.Show(f.Service+" "+name, h, "%s %s", h.Value.Outcome, h.Value.Identity))
		}
	}
	hop("through it", f.Through)
	hop("past it", f.Past)
	if f.Check.Source != "" {
		out = append(out, node.Show(f.Service+" check", f.Check, "%s, passed %t", f.Check.Value.Outcome, f.Check.Value.OK))
	}
	return out
}

func postgresWords(f node.PatroniFacts) string {
	pg := f.Postgres.Value
	switch {
	case pg.Writable():
		return fmt.Sprintf("running, writable, timeline %d", pg.Timeline)
	case pg.Starting():
		return fmt.Sprintf("starting, timeline %d", pg.Timeline)
	case pg.Running:
		return fmt.Sprintf("running, %s, timeline %d", pg.ControlState, pg.Timeline)
	}
	return "not running"
}

func nameOr(s, none string) string {
	if s == "" {
		return none
	}
	return s
}
