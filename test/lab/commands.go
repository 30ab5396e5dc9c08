package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// options are the flags that every subcommand shares.
type options struct {
	stack   string
	timings string
	json    bool
}

func root() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:           "lab",
		Short:         "The real stack in containers: start it, break it, judge what happened",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.PersistentFlags().StringVar(&o.stack, "stack", "lab", "name of the stack; several can run side by side")
	cmd.PersistentFlags().StringVar(&o.timings, "timings", "default", "Patroni's timings: default (30/10/10) or fast (20/2/3)")
	cmd.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON")
	cmd.AddCommand(upCommand(o), downCommand(o), statusCommand(o), settleCommand(o), agentsCommand(o),
		faultsCommand(), injectCommand(o), runCommand(o), witnessCommand(o), execCommand(o), logsCommand(o),
		demoCommand(o), benchCommand(o), conformanceCommand(o), incusCommand(o))
	return cmd
}

func (o *options) log() *slog.Logger {
	return slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{TimeFormat: "15:04:05", NoColor: !terminal(os.Stderr)}))
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func upCommand(o *options) *cobra.Command {
	homelab := false
	cmd := &cobra.Command{
		Use: "up", Short: "Start the stack; what an earlier run of the same name left behind is removed first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := stack.FindTimings(o.timings)
			if err != nil {
				return err
			}
			s := stack.New(o.stack, o.log())
			s.Homelab = homelab
			return s.Up(cmd.Context(), t)
		},
	}
	cmd.Flags().BoolVar(&homelab, "homelab", false, "etcd's members as the first user's: a container behind a gate, one behind two forwarders, one under OpenRC")
	return cmd
}

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove every container and network of the stack, and nothing else", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return stack.New(o.stack, o.log()).Down(cmd.Context())
		},
	}
}

func statusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the stack as the engine, Patroni and HAProxy see it (exit 1 where it is not healthy)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := stack.Open(cmd.Context(), o.stack, o.log())
			if err != nil {
				return err
			}
			st, err := s.Look(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(cmd.OutOrStdout(), st)
			} else {
				err = printStatus(cmd.OutOrStdout(), st)
			}
			if err == nil && len(st.Problems) > 0 {
				err = fmt.Errorf("stack %q is not healthy: %s", st.Stack, strings.Join(st.Problems, "; "))
			}
			return err
		},
	}
}

func printStatus(w io.Writer, st stack.Status) error {
	fmt.Fprintf(w, "stack %s on %s, timings %s, paused %t\n\n", st.Stack, st.Subnet, st.Timings, st.Paused)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tCONTAINER")
	for _, n := range st.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\n", n.Name, n.Addr, n.State)
	}
	fmt.Fprintln(t, "\t\t\nMEMBER\tROLE\tSTATE\tTIMELINE\tHAPROXY")
	for _, m := range st.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", m.Name, m.Role, m.State, m.Timeline, st.Servers[m.Name])
	}
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
