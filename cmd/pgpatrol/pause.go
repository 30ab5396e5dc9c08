package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const holdExits = `
Exit codes:
  0  done
  1  failed or refused: the reason is on standard error
  2  wrong usage
  3  no agent answers`

const pauseHelp = `Makes the agent of this machine do nothing for a while; it goes on watching and says what it
would do. It ends by itself, or with "pgpatrol resume". It survives restarts of the agent and of
the machine. With --scope or --everything the order is kept in etcd and every agent obeys it.
Patroni is not paused by this: that is "patronictl pause".
` + holdExits

const resumeHelp = `Ends a pause before its time. What "pgpatrol pause" set on one level is lifted on that level:
without a flag that of this machine, with --scope or --everything the one in etcd.
` + holdExits

const killSwitchHelp = `Sets or lifts the kill switch, which dominates every other rule. It ends by itself. On one
machine it is a file in the agent's state directory; a file kill-switch beside the agent's
configuration does the same without this command and until it is removed. A kill switch that
is there and cannot be read counts as set.
` + holdExits

// holdFlags are the flags of the commands that set and lift holds.
type holdFlags struct {
	reason, length, owner string
	scope, everything     bool
}

func (f *holdFlags) add(cmd *cobra.Command, e *env, sets bool) {
	if sets {
		cmd.Flags().StringVar(&f.reason, "reason", "", "why, for whoever sees it: `TEXT` of at most 200 characters")
		cmd.Flags().StringVar(&f.length, "for", "", "how long: a `DURATION` such as 30m, 2h or 7d, at most 30d")
	}
	cmd.Flags().BoolVar(&f.scope, "scope", false, "for every agent of this Patroni cluster")
	cmd.Flags().BoolVar(&f.everything, "everything", false, "for every agent that uses this etcd")
	cmd.Flags().StringVar(&f.owner, "owner", "", "who orders it: `NAME`, the user who asks by default")
	jsonFlag(cmd, e)
}

func (f *holdFlags) level() (node.Level, error) {
	switch {
	case f.scope && f.everything:
		return "", usageError("--scope and --everything exclude each other")
	case f.scope:
		return node.LevelScope, nil
	case f.everything:
		return node.LevelAll, nil
	}
	return node.LevelNode, nil
}

func pauseCommand(e *env) *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use: "pause", Short: "make agents do nothing for a while", Long: pauseHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.hold(cmd, e, node.HoldPause) },
	}
	f.add(cmd, e, true)
	return cmd
}

func resumeCommand(e *env) *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use: "resume", Short: "end a pause", Long: resumeHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.lift(cmd, e, node.HoldPause) },
	}
	f.add(cmd, e, false)
	return cmd
}

func killSwitchCommand(e *env) *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use: "kill-switch on|off", Short: "forbid agents everything", Long: killSwitchHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "on" && args[0] != "off" {
				return usageError("say on or off")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "on" {
				return f.hold(cmd, e, node.HoldKill)
			}
			if f.reason != "" || f.length != "" {
				return usageError("--reason and --for go with on")
			}
			return f.lift(cmd, e, node.HoldKill)
		},
	}
	f.add(cmd, e, true)
	return cmd
}

// hold gives the order to do nothing.
func (f *holdFlags) hold(cmd *cobra.Command, e *env, k node.HoldKind) error {
	level, err := f.level()
	if err != nil {
		return err
	}
	if strings.TrimSpace(f.reason) == "" {
		return usageError("--reason is missing: whoever finds the agent doing nothing wants to know why")
	}
	d, err := parseLength(f.length)
	if err != nil {
		return err
	}
	h, err := api.NewClient(e.socket).Hold(cmd.Context(), api.HoldRequest{
		Level: level, Kind: k, Owner: f.owner, Reason: f.reason, For: d.String(),
	})
	if err != nil {
		return err
	}
	return printHold(e, "", h)
}

// lift gives the order to end a hold.
func (f *holdFlags) lift(cmd *cobra.Command, e *env, k node.HoldKind) error {
	level, err := f.level()
	if err != nil {
		return err
	}
	h, err := api.NewClient(e.socket).Lift(cmd.Context(), api.LiftRequest{Level: level, Kind: k, Owner: f.owner})
	if err != nil {
		return err
	}
	return printHold(e, "lifted: ", h)
}

// parseLength reads a duration, with days besides what Go knows.
func parseLength(s string) (time.Duration, error) {
	if s == "" {
		return 0, usageError("--for is missing: nothing is held back without an end, such as 2h or 7d")
	}
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 8)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < time.Second || d > node.MaxHold {
		return 0, usageError("--for %q is not a duration from 1s to 30d, such as 30m, 2h or 7d", s)
	}
	return d, nil
}

func printHold(e *env, lead string, h node.Hold) error {
	if e.json {
		return printJSON(e.out, h)
	}
	newPrinter(e.out, e.screen).para("", "  ", "%s%s", lead, holdWords(h))
	return nil
}

// holdWords says what is held back where, until when, by whom and why, in the time of the reader's machine.
func holdWords(h node.Hold) string {
	where := map[node.Level]string{
		node.LevelNode: "of this machine", node.LevelScope: "of this Patroni cluster", node.LevelAll: "of everything on this etcd",
	}[h.Level]
	until := "until a person lifts it"
	if !h.Until.IsZero() {
		until = "until " + h.Until.Local().Format("2006-01-02 15:04:05")
	}
	return fmt.Sprintf("%s %s %s, by %s: %s", h.Kind, or(where, string(h.Level)), until, or(h.Owner, node.Unknown), or(h.Reason, "no reason given"))
}

// printOrders prints what people ordered, as far as it is in force.
func printOrders(p *printer, s node.Snapshot) {
	for _, h := range append(append([]node.Hold{}, s.Orders.Holds...), s.DCS.Shared.Value.Holds...) {
		field(p, "Held", "%s", holdWords(h))
	}
	if s.Orders.Unreadable != "" {
		field(p, "Held", "the kill switch counts as set: %s", s.Orders.Unreadable)
	}
	if shared := s.DCS.Shared; !shared.Known && shared.Why != "" {
		field(p, "Held", "by orders in etcd: unknown: %s", shared.Why)
	}
}
