package main

import (
	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const approveHelp = `Agrees to one action that policy "ask" holds back. ID is what "pgpatrol plan" shows. The
agreement lasts two minutes and for one attempt, and every other guard still has to agree at the
moment of acting. An action whose condition is over, whose target has changed, or which this
agent never proposed is refused.
` + holdExits

func approveCommand(e *env) *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use: "approve ID", Short: "agree to one action", Long: approveHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("give the ID of one action, as pgpatrol plan shows it")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := api.NewClient(e.socket).Approve(cmd.Context(), api.ApproveRequest{ID: args[0], Owner: owner})
			if err != nil {
				return err
			}
			if e.json {
				return printJSON(e.out, a)
			}
			newPrinter(e.out, e.screen).para("", "  ", "%s is approved by %s for %s", a.ActionID, a.Owner, span(node.ApprovalLife))
			return nil
		},
	}
	cmd.Flags().StringVar(&owner, "owner", "", "who agrees: `NAME`, the user who asks by default")
	jsonFlag(cmd, e)
	return cmd
}
