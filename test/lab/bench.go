package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/test/lab/bench"
)

func benchCommand(o *options) *cobra.Command {
	c := bench.Config{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what idle agents cost on a stack of its own; exit 1 over a bound (default --stack bench)",
		Long: "Measure what idle agents cost: memory, CPU, requests to etcd, journal, size of the binary. A stack is made,\n" +
			"looked at for a while without agents and then with them, and removed. Exit 1 where a bound is exceeded.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Stack, c.Log, c.JSON = o.stackOr(cmd, "bench"), o.log(), o.json
			return bench.Run(cmd.Context(), cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().DurationVar(&c.WarmUp, "warm-up", 30*time.Second, "how long the agents run before it is measured")
	cmd.Flags().DurationVar(&c.Window, "window", time.Minute, "how long is measured, without and with agents")
	cmd.Flags().BoolVar(&c.Keep, "keep", false, "leave the stack up")
	return cmd
}
