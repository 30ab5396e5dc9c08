package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

const historyHelp = `Shows the agent's journal, oldest first: what was found, what was decided, what was done
and how it ended. "pgpatrol why N" tells more of the record with the number #N.

Exit codes:
  0  shown, even if there is nothing to show
  1  failed
  2  wrong usage
  3  no agent answers`

func historyCommand(e *env) *cobra.Command {
	var limit int
	var kinds []string
	cmd := &cobra.Command{
		Use: "history", Short: "show what was found, decided and done", Long: historyHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > api.MaxHistory {
				return usageError("--limit %d is not from 1 to %d", limit, api.MaxHistory)
			}
			q := api.HistoryQuery{Limit: limit}
			if cmd.Flags().Changed("kind") {
				var err error
				if q.Kinds, err = api.ParseKinds(strings.Join(kinds, ",")); err != nil {
					return usageError("--kind: %w", err)
				}
			}
			h, err := api.NewClient(e.socket).History(cmd.Context(), q)
			if err != nil {
				return err
			}
			if e.json {
				return printJSON(e.out, h)
			}
			printHistory(newPrinter(e.out, e.screen), h.Records)
			return nil
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", api.DefaultHistory, fmt.Sprintf("show the newest `N` records, 1 to %d", api.MaxHistory))
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "show only records of these `KINDS`: "+strings.Join(api.Kinds(), ", "))
	jsonFlag(cmd, e)
	return cmd
}

// printHistory prints one line per record, in the time of the reader's machine.
func printHistory(p *printer, records []api.Record) {
	for _, r := range records {
		p.short("%s  %-6s %-7s  %s", r.Wall.Local().Format("2006-01-02 15:04:05.000"), fmt.Sprintf("#%d", r.Seq), r.Kind, recordWords(r))
	}
}

// recordWords says what and why, on one line.
func recordWords(r api.Record) string {
	switch {
	case r.Finding != nil && r.Kind == "cleared":
		return fmt.Sprintf("%s of %s is over", r.Finding.Code, r.Finding.Subject)
	case r.Finding != nil:
		s := fmt.Sprintf("%s %s of %s: %s", r.Finding.Severity, r.Finding.Code, r.Finding.Subject, r.Finding.Text)
		if b := r.Finding.DivergentBytes; b != nil {
			s += fmt.Sprintf(" (%d bytes of divergent WAL)", *b)
		}
		return s
	case r.Plan != nil:
		return r.Plan.Summary
	case r.Action != nil:
		a := r.Action
		return fmt.Sprintf("%s of %s (%s) because of %s: %s", a.Verb, a.Service, a.Unit, a.Finding, a.Reason)
	case r.Result != nil:
		s := fmt.Sprintf("#%d %s", r.Result.Intent, r.Result.Result)
		if r.Result.Error != "" {
			s += ": " + r.Result.Error
		}
		if gap := r.Result.Evidence["gap"]; gap != "" {
			s += fmt.Sprintf(" (back after %s)", gap)
		}
		return s
	case r.Hold != nil && r.Kind == "lift":
		return fmt.Sprintf("%s (%s) of %s ends: %s", r.Hold.Kind, r.Hold.Level, r.Hold.Owner, r.Text)
	case r.Hold != nil:
		return fmt.Sprintf("%s (%s)", r.Hold, r.Text)
	case r.Approval != nil:
		return fmt.Sprintf("%s approved by %s (%s)", r.Approval.ActionID, r.Approval.Owner, r.Text)
	}
	return r.Text
}
