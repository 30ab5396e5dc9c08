package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const planHelp = `Shows the latest decision: what is to be done now and why, what would be done and which
guard refuses it with which numbers, and the facts that all of this rests on, with their
source and age. "Nothing is to be done" is a decision too, and rests on facts as well.

Exit codes:
  0  nothing is to be done, and nothing is refused
  1  failed, or the agent has not decided anything yet
  2  wrong usage
  3  no agent answers
  6  something is to be done, or would be and is refused`

func planCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "plan", Short: "show what would be done now, and why not more", Long: planHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := api.NewClient(e.socket).Plan(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				if err := printJSON(e.out, r); err != nil {
					return err
				}
			} else {
				printPlan(newPrinter(e.out, e.screen), r)
			}
			if len(r.Allowed)+len(r.Refused) > 0 {
				return &codeError{code: exitPlan}
			}
			return nil
		},
	}
	jsonFlag(cmd, e)
	return cmd
}

func printPlan(p *printer, r api.PlanReply) {
	p.para("", "", "%s", r.Summary)
	if len(r.Allowed) > 0 {
		p.line("\nTo be done:")
	}
	for _, a := range r.Allowed {
		printAction(p, a)
	}
	if len(r.Refused) > 0 {
		p.line("\nRefused:")
	}
	for _, f := range r.Refused {
		printAction(p, f.Action)
		for _, v := range f.Verdicts {
			p.para("    ", "        ", "%s %s: %s", painted{"33", "refused by"}, v.Guard, v.Text)
		}
	}
	if len(r.Findings) > 0 {
		p.line("\nFindings:")
	}
	for _, f := range r.Findings {
		printFinding(p, r.Now, f)
	}
	if len(r.Rests) > 0 {
		p.line("\nThis rests on:")
		p.table("  ", []string{"FACT", "VALUE", "SOURCE", "AGE"}, factRows(r.Now, r.Rests))
	}
	p.line("\nDecided %s ago.", age(r.Now, r.At))
}

func factRows(now node.Instant, facts []node.Evidence) [][]string {
	var rows [][]string
	for _, f := range facts {
		rows = append(rows, []string{f.Subject, f.Value, or(f.Source, "-"), age(now, f.At)})
	}
	return rows
}

func printAction(p *printer, a node.Action) {
	p.para("  ", "    ", "%s of %s (%s), class %s, because of %s", a.Verb, a.Service, a.Unit, a.Class, a.Finding)
	p.para("    ", "      ", "why: %s", a.Reason)
	p.para("    ", "      ", "ID: %s", a.ID)
	if s := expected(a.Expect); s != "" {
		p.para("    ", "      ", "it has worked when %s, within %s", s, span(a.Settle))
	}
}

// expected words how success is recognised.
func expected(x node.Expectation) string {
	var parts []string
	for _, e := range []struct {
		wanted bool
		words  string
	}{
		{x.NewInvocation, "the unit runs anew"},
		{x.LeaseRenewed, "the member's lease is renewed"},
		{x.SamePostmaster, "PostgreSQL was not restarted"},
		{x.ReadOnly, "PostgreSQL accepts no writes any more"},
	} {
		if e.wanted {
			parts = append(parts, e.words)
		}
	}
	return strings.Join(parts, " and ")
}
