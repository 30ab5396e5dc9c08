package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/route"
	"github.com/pgpatrol/pgpatrol/agent/router"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

// addRouter makes what lets one proxy follow the leader.
func (g *generation) addRouter(s config.Service, p proxy.Proxy) {
	a := g.a
	g.routers = append(g.routers, router.New(router.Deps{
		Spec:   route.Spec{Service: s.Name, Scope: g.scope, Backend: s.Backend, Members: s.Members},
		Socket: s.Socket, Proxy: p, Etcd: g.dcs, Leader: a.o.Plugins.Leader, Now: a.o.Host.Now, Logger: a.log("router"),
		Mode: func() node.Mode { return a.adjusts(s.Name) },
		Held: a.heldBack,
		Intend: func(r route.Answer) error {
			_, err := a.journal.Append(journal.Record{Kind: journal.Route, Text: fmt.Sprintf("%s: about to be told: %s", s.Name, r.Text)})
			return err
		},
		Told: func(t router.Told) {
			a.note(journal.Record{Kind: journal.Route, Text: s.Name + ": " + t.Text()})
			log := a.log("router")
			if t.Err != nil {
				log.Warn("proxy not told", "service", s.Name, "err", t.Err)
				return
			}
			log.Info("proxy", "service", s.Name, "text", t.Text())
		},
	}))
}

// adjusts returns the mode of class adjust for a service as the configuration has it now: a reload of policy alone makes no
// new router.
func (a *Agent) adjusts(service string) node.Mode {
	for _, s := range a.config().Spec().Services {
		if s.Service == service {
			return s.Policy.Adjust
		}
	}
	return node.ModeOff
}

// heldBack says what forbids telling a proxy anything now, nil if nothing does: people's orders, and the agent's own health.
func (a *Agent) heldBack() *node.Verdict {
	holds, refused := a.orders.Orders(a.o.Host.Now()), func(g node.Guard, text string) *node.Verdict { return &node.Verdict{Guard: g, Text: text} }
	shared, err := a.sharedHolds()
	switch {
	case holds.Unreadable != "":
		return refused(node.GuardKillSwitch, "the kill switch counts as set: "+holds.Unreadable)
	case err != nil:
		return refused(node.GuardFreshness, err.Error())
	}
	if all := slices.Concat(holds.Holds, shared.Known()); len(all) > 0 {
		g := node.GuardKillSwitch // also for what is not understood
		if all[0].Kind == node.HoldPause {
			g = node.GuardPause
		}
		return refused(g, all[0].String())
	}
	if err := a.journal.Healthy(); err != nil {
		return refused(node.GuardSelfHealth, "the journal cannot be relied on: "+err.Error())
	}
	if n := a.crashes(); n >= node.CrashLimit {
		return refused(node.GuardSelfHealth, fmt.Sprintf("this agent ended %d times within %s and only observes", n, node.CrashWindow))
	}
	if v := a.view.Load(); v != nil && v.question.Snapshot.Self.Assertion != "" {
		return refused(node.GuardSelfHealth, "an assertion failed, and this agent only observes until it is restarted: "+v.question.Snapshot.Self.Assertion)
	}
	return nil
}

// answering is the check of a proxy: its runtime socket answers.
type answering struct {
	proxy   proxy.Proxy
	backend string
}

// Probe implements probe.Prober. What the socket says instead of an answer is a failed check; that a person forgot to let the
// agent use it says nothing of the proxy.
func (c answering) Probe(ctx context.Context) (probe.Check, error) {
	_, err := c.proxy.Table(ctx, c.backend)
	switch {
	case err == nil:
		return probe.Check{Outcome: probe.OutcomeAnswered, OK: true, Detail: "its runtime socket answers"}, nil
	case errors.Is(err, proxy.ErrNotUsable):
		return probe.Check{}, err
	case errors.Is(err, proxy.ErrSilent):
		return probe.Check{Outcome: probe.OutcomeTimeout, Detail: err.Error()}, nil
	}
	return probe.Check{Outcome: probe.OutcomeBroken, Detail: err.Error()}, nil
}
