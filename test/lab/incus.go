package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/test/lab/incus"
)

// incusCommand runs the scenarios on a real Incus host.
func incusCommand(o *options) *cobra.Command {
	only, keep := "", false
	cmd := &cobra.Command{
		Use: "incus", Short: "Patroni nodes as Incus instances, an agent on the Incus host: break them without and with it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			l := incus.New(o.log())
			if !keep {
				defer func() {
					clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
					defer cancel()
					if downErr := l.Down(clean); err == nil {
						err = downErr
					}
				}()
			}
			if err := l.Up(ctx); err != nil {
				return err
			}
			failed, runs := 0, 0
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "\nscenario\tpgpatrol\thealed after\tactions\tverdict\t")
			err = l.Run(ctx, only, func(r incus.Result) {
				runs++
				verdict, healed := "pass", "-"
				if len(r.Complains) > 0 {
					failed++
					verdict = "FAIL: " + strings.Join(r.Complains, "; ")
				}
				if r.Healed > 0 {
					healed = r.Healed.Round(100 * time.Millisecond).String()
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", r.ID, map[bool]string{true: "with", false: "without"}[r.With], healed, r.Intents, verdict, r.What)
			})
			_ = w.Flush()
			fmt.Fprintf(cmd.OutOrStdout(), "%d passed, %d failed\n", runs-failed, failed)
			if err == nil && failed > 0 {
				err = fmt.Errorf("%d of %d runs failed", failed, runs)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&only, "only", "", "run this scenario alone")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the host's container there")
	return cmd
}
