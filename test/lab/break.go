package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/test/lab/fault"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/scenario"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

func (o *options) open(ctx context.Context) (*stack.Stack, error) {
	return stack.Open(ctx, o.stack, o.log())
}

func settleCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "settle", Short: "Undo every fault, stop the agents, and bring the stack back to its healthy baseline", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := stack.FindTimings(o.timings)
			if err != nil {
				return err
			}
			s, err := o.open(cmd.Context())
			if err != nil {
				return err
			}
			return s.Settle(cmd.Context(), t)
		},
	}
}

func agentsCommand(o *options) *cobra.Command {
	policy, failpoints := map[string]string{}, false
	cmd := &cobra.Command{
		Use: "agents start|stop|remove", Short: "Install and start an agent on every node, or stop or remove them", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.open(cmd.Context())
			if err != nil {
				return err
			}
			switch args[0] {
			case "start":
				opts := stack.AgentOptions{Policy: policy}
				if failpoints {
					opts.Tags = "failpoint"
				}
				return s.InstallAgents(cmd.Context(), opts)
			case "stop":
				return s.StopAgents(cmd.Context())
			case "remove":
				return s.RemoveAgents(cmd.Context())
			default:
				return fmt.Errorf("agents %q: want start, stop or remove", args[0])
			}
		},
	}
	cmd.Flags().StringToStringVar(&policy, "policy", nil, "policy by action class, for example revive=observe")
	cmd.Flags().BoolVar(&failpoints, "failpoints", false, "build the agents with failpoints")
	return cmd
}

func faultsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "faults", Short: "List the faults that can be injected by hand, and the scenarios", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "FAULT\tID\tON\tWHAT IT DOES")
			for _, f := range fault.All() {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Name, f.ID, f.Kind, f.Summary)
			}
			fmt.Fprintln(t, "\t\t\t\nSCENARIO\tTIMINGS\t\tTITLE")
			for _, s := range scenario.All() {
				fmt.Fprintf(t, "%s\t%s\t\t%s\n", s.ID, strings.Join(timingsOf(s), " "), s.Title)
			}
			return t.Flush()
		},
	}
}

func injectCommand(o *options) *cobra.Command {
	undo := false
	cmd := &cobra.Command{
		Use: "inject FAULT NODE...", Short: "Break nodes by hand; \"leader\" stands for the node that leads now", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			f, err := fault.Find(args[0])
			if err != nil {
				return err
			}
			s, err := o.open(ctx)
			if err != nil {
				return err
			}
			for _, name := range args[1:] {
				n, err := nodeOrLeader(ctx, s, name)
				if err != nil {
					return err
				}
				if undo {
					err = f.Revert(ctx, s, n)
				} else {
					err = f.Inject(ctx, s, n)
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s %s on %s\n", time.Now().UTC().Format("15:04:05.000"), map[bool]string{false: f.Name, true: "undone: " + f.Name}[undo], n.Name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "undo the fault instead")
	return cmd
}

func nodeOrLeader(ctx context.Context, s *stack.Stack, name string) (stack.Node, error) {
	if name == "leader" {
		return s.Leader(ctx)
	}
	return s.Node(name)
}

func timingsOf(s scenario.Scenario) []string {
	if len(s.Timings) == 0 {
		return []string{"default"}
	}
	return s.Timings
}

func runCommand(o *options) *cobra.Command {
	runs, without, both, dir, suite, parallel := 1, false, false, "", "", 2
	cmd := &cobra.Command{
		Use:   "run SCENARIO...|--suite NAME",
		Short: "Run scenarios and judge them; \"all\" stands for every one (exit 1 where one fails)",
		Long: "Run scenarios and judge them from what the witnesses recorded. The first of a scenario's timings is used unless\n" +
			"--timings names one, or \"all\". The stack is started where it is not up, and left settled.\n\n" +
			"--suite ci, all or soak runs the suite's scenarios instead, on --parallel stacks of its own (NAME-1, NAME-2), which are\n" +
			"removed afterwards.",
		Args: func(_ *cobra.Command, args []string) error {
			if (suite == "") == (len(args) == 0) {
				return errors.New("want scenarios, or --suite")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if suite != "" {
				return o.runSuite(cmd.Context(), cmd.OutOrStdout(), suite, o.stackOr(cmd, suite), parallel, dir)
			}
			list, err := pick(args)
			if err != nil {
				return err
			}
			given := ""
			if cmd.Flags().Changed("timings") {
				given = o.timings
			}
			jobs, err := plan(list, given, runs, without, both)
			if err != nil {
				return err
			}
			results, err := o.runAll(cmd.Context(), jobs, dir)
			if o.json {
				err = errors.Join(err, printJSON(cmd.OutOrStdout(), results))
			} else {
				err = errors.Join(err, scenario.Print(cmd.OutOrStdout(), results))
			}
			for _, r := range results {
				if !r.Passed() {
					return errors.Join(err, errors.New("not every run passed"))
				}
			}
			return err
		},
	}
	cmd.Flags().IntVar(&runs, "runs", 1, "how often each scenario runs")
	cmd.Flags().BoolVar(&without, "without", false, "run without pgpatrol: the fault must do its harm")
	cmd.Flags().BoolVar(&both, "both", false, "run without and then with pgpatrol")
	cmd.Flags().StringVar(&suite, "suite", "", "run a suite: ci, all or soak")
	cmd.Flags().IntVar(&parallel, "parallel", parallel, "how many stacks share a suite")
	cmd.Flags().StringVar(&dir, "dir", "", "where failed runs leave their evidence (default: the system's temporary folder)")
	return cmd
}

func pick(ids []string) ([]scenario.Scenario, error) {
	if len(ids) == 1 && ids[0] == "all" {
		return scenario.All(), nil
	}
	var list []scenario.Scenario
	for _, id := range ids {
		s, err := scenario.Find(id)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// job is one run to come.
type job struct {
	scenario scenario.Scenario
	timings  stack.Timings
	agents   bool
}

// plan lists the runs. Runs of the same timings come together, since changing them takes a while to settle.
func plan(list []scenario.Scenario, timings string, runs int, without, both bool) ([]job, error) {
	var jobs []job
	for _, t := range stack.AllTimings() {
		for _, s := range list {
			if !wanted(s, t.Name, timings) {
				continue
			}
			for range runs {
				if without || both && len(s.Harm) > 0 {
					jobs = append(jobs, job{s, t, false})
				}
				if !without {
					jobs = append(jobs, job{s, t, true})
				}
			}
		}
	}
	if len(jobs) == 0 {
		return nil, fmt.Errorf("plan runs: no scenario for timings %q", timings)
	}
	return jobs, nil
}

func wanted(s scenario.Scenario, name, given string) bool {
	switch given {
	case "":
		return timingsOf(s)[0] == name
	case "all":
		for _, t := range timingsOf(s) {
			if t == name {
				return true
			}
		}
		return false
	default:
		return given == name
	}
}

func (o *options) runAll(ctx context.Context, jobs []job, dir string) ([]scenario.Result, error) {
	log := o.log()
	s, err := stack.Open(ctx, o.stack, log)
	if err != nil {
		s = stack.New(o.stack, log)
		if err := s.Up(ctx, jobs[0].timings); err != nil {
			return nil, err
		}
	}
	rn := &scenario.Runner{Stack: s, Log: log, Dir: dir}
	var results []scenario.Result
	for i, j := range jobs {
		log.Info("run", "number", i+1, "of", len(jobs), "scenario", j.scenario.ID)
		r, err := rn.Run(ctx, j.scenario, j.timings, j.agents)
		results = append(results, r)
		if err != nil {
			log.Error("run not carried out", "err", err)
		}
		if ctx.Err() != nil {
			return results, context.Cause(ctx)
		}
	}
	return results, nil
}

func witnessCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "witness", Short: "Write and watch until interrupted, and print every record as a JSON line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.open(cmd.Context())
			if err != nil {
				return err
			}
			if err := s.InstallWitness(cmd.Context()); err != nil {
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			var mu sync.Mutex // guards enc
			return scenario.Witness(cmd.Context(), s, o.log(), func(r record.Record) {
				mu.Lock()
				defer mu.Unlock()
				_ = enc.Encode(r)
			})
		},
	}
}

func execCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "exec NODE [--] COMMAND...", Short: "Run a command inside a node as root", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return o.attach(cmd, args[0], args[1:]...) },
	}
}

func logsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "logs NODE [-- FLAG...]", Short: "Show the journal of Patroni, pgpatrol and HAProxy on a node (etcd: the container's log)", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.HasPrefix(args[0], "e") {
				return o.docker(cmd, append([]string{"logs"}, append(args[1:], "pgpatrol-"+o.stack+"-"+args[0])...)...)
			}
			argv := []string{"journalctl", "--no-pager", "-u", "patroni", "-u", "pgpatrol", "-u", "haproxy"}
			return o.attach(cmd, args[0], append(argv, args[1:]...)...)
		},
	}
}

// attach runs a command inside a node on this terminal.
func (o *options) attach(cmd *cobra.Command, node string, argv ...string) error {
	s, err := o.open(cmd.Context())
	if err != nil {
		return err
	}
	n, err := nodeOrLeader(cmd.Context(), s, node)
	if err != nil {
		return err
	}
	flags := []string{"exec", "-i"}
	if terminal(os.Stdin) && terminal(os.Stdout) {
		flags = append(flags, "-t")
	}
	return o.docker(cmd, append(append(flags, s.Container(n)), argv...)...)
}

func (o *options) docker(cmd *cobra.Command, args ...string) error {
	c := exec.CommandContext(cmd.Context(), "docker", args...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := c.Run(); err != nil {
		return fmt.Errorf("docker %s: %w", args[0], err)
	}
	return nil
}
