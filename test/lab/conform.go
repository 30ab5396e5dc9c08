package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpatrol/pgpatrol/test/conformance"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/scenario"
	"github.com/pgpatrol/pgpatrol/test/lab/session"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

func conformanceCommand(o *options) *cobra.Command {
	var scripts []string
	dir, runs, parallel := "", 2, 2
	cmd := &cobra.Command{
		Use:   "conformance",
		Short: "Run fault scripts in containers and in the simulation, and report where the order of events differs (exit 1)",
		Long: "Run the scripts of test/conformance on --parallel stacks of their own (conformance-1, ...), which are removed afterwards,\n" +
			"and compare what the witnesses saw with what the model of test/sim does. What was seen is kept in --dir, where a unit\n" +
			"test of test/sim finds it: test/conformance/testdata.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := pickScripts(scripts)
			if err != nil {
				return err
			}
			if err := o.record(cmd.Context(), list, o.stackOr(cmd, "conformance"), runs, parallel, dir); err != nil {
				return err
			}
			return compareWithModel(cmd.Context(), cmd.OutOrStdout(), dir)
		},
	}
	cmd.Flags().StringSliceVar(&scripts, "scripts", nil, "names of scripts (default: all)")
	cmd.Flags().IntVar(&runs, "runs", runs, "how often each script runs")
	cmd.Flags().IntVar(&parallel, "parallel", parallel, "how many stacks share the scripts")
	cmd.Flags().StringVar(&dir, "dir", "test/conformance/testdata", "where recordings are kept")
	return cmd
}

func pickScripts(names []string) ([]conformance.Script, error) {
	if len(names) == 0 {
		return conformance.Scripts(), nil
	}
	var list []conformance.Script
	for _, name := range names {
		s, err := conformance.Find(name)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// record runs scripts in containers and keeps what was seen.
func (o *options) record(ctx context.Context, list []conformance.Script, name string, runs, parallel int, dir string) error {
	if runs < 1 || parallel < 1 {
		return fmt.Errorf("run %d times on %d stacks: want 1 or more", runs, parallel)
	}
	if err := session.Ready(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for recordings: %w", err)
	}
	r := &recorder{crew: crew{name: name, stacks: parallel, log: o.log()}, dir: dir, runs: runs}
	return r.run(ctx, list)
}

// recorder runs scripts on several stacks at the same time.
type recorder struct {
	crew
	dir  string
	runs int
}

func (r *recorder) run(ctx context.Context, list []conformance.Script) error {
	release, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	defer release()
	// Scripts of the same timings come together, the longest first.
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b conformance.Script) int {
		return cmp.Or(strings.Compare(a.Timings, b.Timings), cmp.Compare(b.Look, a.Look))
	})
	next := make(chan conformance.Script, len(list))
	for _, s := range list {
		next <- s
	}
	close(next)
	return r.each(func(s *stack.Stack) error { return r.work(ctx, s, next) })
}

// work makes a stack, records scripts on it until there is none left, and removes it. A script that could not be carried
// out leaves its old recording as it was.
func (r *recorder) work(ctx context.Context, s *stack.Stack, next <-chan conformance.Script) (err error) {
	defer func() { err = errors.Join(err, session.Remove(ctx, s)) }()
	rn := &scenario.Runner{Stack: s, Log: r.log.With("stack", s.Name)}
	up := false
	for script := range next {
		t, terr := stack.FindTimings(script.Timings)
		if terr != nil {
			return terr
		}
		if !up {
			if uerr := s.Up(ctx, t); uerr != nil {
				return fmt.Errorf("start stack %s: %w", s.Name, uerr)
			}
			up = true
		}
		if rerr := r.script(ctx, rn, script, t); rerr != nil {
			r.log.Error("script not recorded", "script", script.Name, "err", rerr)
			err = errors.Join(err, rerr)
		}
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
	return err
}

// script runs a script as often as wanted and keeps what was seen.
func (r *recorder) script(ctx context.Context, rn *scenario.Runner, script conformance.Script, t stack.Timings) error {
	versions, err := rn.Stack.Versions(ctx)
	if err != nil {
		return err
	}
	rec := conformance.Recording{Script: script, Recorded: time.Now().UTC().Format(time.DateOnly), Versions: versions}
	for range r.runs {
		run, err := r.once(ctx, rn, script, t)
		if err != nil {
			return err
		}
		rec.Runs = append(rec.Runs, run)
	}
	return rec.Save(r.dir)
}

// once runs a script and says what was seen.
func (r *recorder) once(ctx context.Context, rn *scenario.Runner, script conformance.Script, t stack.Timings) (conformance.Run, error) {
	var mu sync.Mutex // guards recs
	var recs []record.Record
	rn.Tap = func(rec record.Record) {
		mu.Lock()
		defer mu.Unlock()
		recs = append(recs, rec)
	}
	res, err := rn.Run(ctx, r.prepared(scenario.Conformance(script)), t, script.Agents != conformance.NoAgents)
	if err != nil {
		return conformance.Run{}, err
	}
	if !res.Passed() { // a witness fell silent
		return conformance.Run{}, fmt.Errorf("run %s: %s", script.Name, res.Failed())
	}
	if judge.Totals(recs) == nil { // its last gap is recorded at its end
		return conformance.Run{}, fmt.Errorf("run %s: the writer did not end in order", script.Name)
	}
	run, err := runOf(rn.Stack, recs, res.Leader, script.Look)
	if early := run.Events(script.Steps[0].At); err == nil && len(early) > 0 {
		err = fmt.Errorf("run %s: this machine is too busy: before the first step %s", script.Name, early[0])
	}
	return run, err
}

// runOf reads a run, as long as it was looked at, from what the witnesses said.
func runOf(s *stack.Stack, recs []record.Record, leader string, look time.Duration) (conformance.Run, error) {
	run := conformance.Run{Leader: leader}
	for _, n := range s.Of(stack.Postgres) {
		if n.Name != leader && run.Replica == "" {
			run.Replica = n.Name // as in scenario.Run: the first of the others
		}
	}
	i := slices.IndexFunc(recs, func(r record.Record) bool { return r.Mark != nil && r.Mark.Name == scenario.MarkRenewed })
	if i < 0 {
		return run, errors.New("read run: the leader's lease was never seen renewed")
	}
	run.Readings = judge.Readings(recs, recs[i].At, func(member string) string {
		n, err := s.Node(member)
		if err != nil {
			return member
		}
		return n.Name
	})
	run.Readings = slices.DeleteFunc(run.Readings, func(rd conformance.Reading) bool { return rd.At > look })
	return run, nil
}

// compareWithModel lets the simulation compare itself with recordings and print its report.
func compareWithModel(ctx context.Context, w io.Writer, dir string) error {
	c := exec.CommandContext(ctx, "go", "run", "./test/sim", "-conformance", dir)
	c.Stdout, c.Stderr = w, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("compare with the model: %w", err)
	}
	return nil
}
