package main

import (
	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/test/lab/demo"
)

func demoCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Break the real stack without and with pgpatrol, show the difference, and leave the stack up (default --stack demo)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), cmd.OutOrStdout(), o.stackOr(cmd, "demo"))
		},
	}
}

// stackOr returns the stack that --stack names, or the given one where it names none.
func (o *options) stackOr(cmd *cobra.Command, name string) string {
	if cmd.Flags().Changed("stack") {
		return o.stack
	}
	return name
}
