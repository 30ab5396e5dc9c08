package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pgpatrol/pgpatrol/agent/api"
)

const rootHelp = `pgpatrol watches the Patroni of this machine and heals what neither Patroni nor the
service manager heals. "pgpatrol agent" is the daemon; everything else asks it, over a
unix socket, and changes nothing, except for the orders that people give: pause, resume,
kill-switch and approve.

Exit codes:
  0  fine
  1  failed: the reason is on standard error
  2  wrong usage
  3  no agent answers
  4  status: an open finding that someone should look at today (severity warn)
  5  status: an open finding that someone must look at now (severity page)
  6  plan: something is to be done, or would be and is refused`

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "pgpatrol",
		Short:         "watches and heals Patroni on this machine",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usageError("unknown command %q%s", args[0], didYouMean(args[0], commandNames(cmd)))
		},
		RunE: func(*cobra.Command, []string) error {
			return usageError("a command is missing: %s", strings.Join(commandNames(newRoot(e)), ", "))
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand())
	root.PersistentFlags().StringVar(&e.socket, "socket", api.DefaultSocket, "unix `PATH` on which the agent answers")
	root.AddCommand(agentCommand(e), statusCommand(e), routesCommand(e), planCommand(e), historyCommand(e), explainCommand(e), checkCommand(e), versionCommand(e))
	root.AddCommand(whyCommand(e), whyNotCommand(e), policyCommand(e))
	root.AddCommand(pauseCommand(e), resumeCommand(e), killSwitchCommand(e), approveCommand(e))
	for _, c := range root.Commands() {
		c.Flags().SortFlags = false
	}
	return root
}

// helpCommand is "pgpatrol help COMMAND", which unlike cobra's own refuses what it does not know.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "show the help of a command",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			to := cmd.Root()
			for _, name := range args {
				i := slices.IndexFunc(to.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
				if i < 0 {
					return usageError("unknown command %q%s", name, didYouMean(name, commandNames(to)))
				}
				to = to.Commands()[i]
			}
			return to.Help()
		},
	}
}

// noArgs refuses arguments, naming the first.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError("unexpected argument %q", args[0])
}

// flagError words what is wrong with a flag and names the nearest one that exists.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	ne, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || ne.GetSpecifiedShortnames() != "" {
		return usageError("%w", err)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	near := nearest(ne.GetSpecifiedName(), names)
	if near != "" {
		near = "; did you mean --" + near + "?"
	}
	return usageError("%w%s", err, near)
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

func didYouMean(word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return fmt.Sprintf("; did you mean %s?", n)
	}
	return "; there are " + strings.Join(known, ", ")
}

// nearest returns the known word that was probably meant, or "" if none is near.
func nearest(word string, known []string) string {
	best, limit := "", min(3, 1+len(word)/3)
	for _, k := range known {
		if len(word) >= 2 && strings.HasPrefix(k, word) {
			return k
		}
		if d := edits(word, k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// edits counts the insertions, deletions and replacements of bytes that turn a into b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// jsonFlag gives a command its --json.
func jsonFlag(cmd *cobra.Command, e *env) {
	cmd.Flags().BoolVar(&e.json, "json", false, "print JSON")
}
