package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/whynot"
)

const whyNotHelp = `Shows why an action is not taken: what would have to be seen for it and is not, and what
every guard says of it, those that allow it too. An action that nothing calls for is put
together as it would be and shown to all guards. Facts and rules are those of the agent's
latest decision; nothing is done.

ACTION is soft-kill (kill a hung Patroni, so that its manager starts it again),
start-failed (start a unit that gave up), restart (end the run of a member of etcd or of
a forwarder and begin another; never of Patroni), or heal: whichever of them fits.
TARGET is a service of this node, as SERVICE or SERVICE@NODE.

"why-not failover" recomputes the leader race by Patroni's own rules, member by member:
state, lag against maximum_lag_on_failover, timeline, nofailover, sync key, failover key,
pause, failsafe mode, alarms of etcd. What pgpatrol does not see is said to be unknown.

Exit codes:
  0  shown, whatever the answer is
  1  failed, or the agent has not decided anything yet
  2  wrong usage
  3  no agent answers`

const heal = "heal"

func whyNotCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "why-not {ACTION TARGET | failover}", Short: "show why an action is not taken, or why nobody takes over", Long: whyNotHelp,
		Args: func(_ *cobra.Command, args []string) error { return checkWhyNot(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "failover" {
				return whyNotFailover(cmd.Context(), e)
			}
			return whyNotAction(cmd.Context(), e, args[0], args[1])
		},
	}
	jsonFlag(cmd, e)
	return cmd
}

func whyNotActions() []string {
	out := []string{heal}
	for _, v := range node.Verbs() {
		out = append(out, string(v))
	}
	return append(out, "failover")
}

func checkWhyNot(args []string) error {
	switch {
	case len(args) == 0:
		return usageError("ACTION is missing: %s", strings.Join(whyNotActions(), ", "))
	case !slices.Contains(whyNotActions(), args[0]):
		return usageError("unknown action %q%s", args[0], didYouMean(args[0], whyNotActions()))
	case args[0] == "failover" && len(args) > 1:
		return usageError("unexpected argument %q: failover is about the whole cluster", args[1])
	case args[0] != "failover" && len(args) == 1:
		return usageError("TARGET is missing: the service that %s would be about", args[0])
	case len(args) > 2:
		return usageError("unexpected argument %q: one target at a time", args[2])
	}
	return nil
}

func whyNotFailover(ctx context.Context, e *env) error {
	s, err := api.NewClient(e.socket).Status(ctx)
	if err != nil {
		return err
	}
	if s.Snapshot == nil {
		return api.ErrNotReady
	}
	r := whynot.Failover(s.Now, s.Snapshot.DCS)
	if e.json {
		return printJSON(e.out, r)
	}
	printRace(newPrinter(e.out, e.screen), r)
	return nil
}

func whyNotAction(ctx context.Context, e *env, action, target string) error {
	q, err := api.NewClient(e.socket).Question(ctx)
	if err != nil {
		return err
	}
	name, err := serviceOf(q.Spec, target)
	if err != nil {
		return err
	}
	verb := node.Verb(action)
	if action == heal {
		verb = whynot.Fitting(q, name)
	}
	a, ok := whynot.Action(q, verb, name)
	if !ok {
		return fmt.Errorf("the agent's latest look does not know %s yet, ask again in a moment", name)
	}
	if e.json {
		return printJSON(e.out, a)
	}
	printWhyNot(newPrinter(e.out, e.screen), a)
	return nil
}

// serviceOf finds the service that a target names.
func serviceOf(spec node.Spec, target string) (string, error) {
	name, where, at := strings.Cut(target, "@")
	if at && where != spec.Node {
		return "", usageError("%q: this agent knows only its own node %s; ask the agent of %q on that machine", target, spec.Node, where)
	}
	known := spec.Names()
	switch {
	case slices.Contains(known, name):
		return name, nil
	case len(known) == 0:
		return "", usageError("unknown service %q: this agent looks after no service", name)
	}
	return "", usageError("unknown service %q%s", name, didYouMean(name, known))
}

func printWhyNot(p *printer, a whynot.Answer) {
	p.para("", "", "%s", a.Summary)
	for _, path := range a.Paths {
		p.line("\n%s would call for it when:", path.Finding)
		for _, c := range path.Conditions {
			p.para("  ", "       ", "%s %s", tick(c.Met), c.Need)
			p.para("       ", "       ", "%s", c.Seen)
		}
	}
	p.line("\nGuards on %s of %s, class %s:", a.Action.Verb, a.Action.Service, a.Action.Class)
	var allow []string
	for _, v := range a.Guards {
		if v.Allow {
			allow = append(allow, string(v.Guard))
			continue
		}
		p.para("  ", "       ", "%s %s: %s", painted{"33", "no  "}, v.Guard, v.Text)
	}
	if len(allow) > 0 {
		p.para("  ", "       ", "%s %s", painted{"32", "yes "}, strings.Join(allow, ", "))
	}
}

func tick(met bool) painted {
	if met {
		return painted{"32", "yes "}
	}
	return painted{"33", "no  "}
}

func printRace(p *printer, r whynot.Race) {
	p.para("", "", "%s", r.Summary)
	for _, m := range r.Members {
		p.line("\n%s %s", chance(m.Can), m.Name)
		printReasons(p, m.Reasons)
		if len(m.Reasons) == 0 {
			p.para("  ", "    ", "nothing speaks against it")
		}
	}
	if len(r.Common) > 0 {
		p.line("\nFor all members:")
		printReasons(p, r.Common)
	}
}

func printReasons(p *printer, reasons []whynot.Reason) {
	for _, v := range reasons {
		p.para("  ", "    ", "%s %s: %s", chance(v.Speak), v.Code, v.Text)
	}
}

func chance(c whynot.Chance) painted {
	text := fmt.Sprintf("%-7s", c)
	switch c {
	case whynot.Yes:
		return painted{"32", text}
	case whynot.No:
		return painted{"1;31", text}
	case whynot.Unknown:
	}
	return painted{"33", text}
}
