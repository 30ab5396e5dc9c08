package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
	"github.com/pgpatrol/pgpatrol/test/lab/docker"
	"github.com/pgpatrol/pgpatrol/test/lab/image"
	"github.com/pgpatrol/pgpatrol/test/lab/scenario"
	"github.com/pgpatrol/pgpatrol/test/lab/session"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// share is how often a scenario runs with one of the lab's timings.
type share struct {
	timings       string // "" for the usual ones of the scenario
	with, without int
}

// special is a scenario that a suite treats differently from the others.
type special struct {
	shares []share // none: the scenario is not in the suite
	why    string
}

// suite says which runs it consists of: the usual shares of every scenario, but for the special ones. A scenario that
// need do no harm without pgpatrol runs only with it.
type suite struct {
	limit   time.Duration // that all of it is meant to fit on 2 cores, 0 for none
	usual   []share
	special map[string]special
	// homelab are the shares of the scenarios with the first user's etcd, where not all of them are in the suite; nil: the usual
	// ones of every one.
	homelab map[string][]share
}

// suites lists the suites by name. New scenarios are in all of them.
func suites() map[string]suite {
	return map[string]suite{
		"ci": {
			limit: 25 * time.Minute,
			usual: []share{{with: 1, without: 1}},
			special: map[string]special{
				"F02":                {[]share{{"default", 1, 1}, {"fast", 1, 1}}, "what pgpatrol exists for: both timings"},
				"crash-act":          {[]share{{with: 1}}, "without pgpatrol it is F02"},
				"PAUSE-node":         {[]share{{with: 1}}, "without pgpatrol it is F02"},
				"ASK-approved":       {[]share{{with: 1}}, "without pgpatrol it is F02"},
				"crash-random":       {nil, "one random moment shows little: soak has more of them"},
				"crash-intent":       {nil, "two minutes; crash-stale and crash-act kill the agent at the same two points"},
				"F04-late":           {nil, "F04 with another beginning"},
				"F05-replica":        {nil, "F05 on a node where less depends on it"},
				"F62":                {nil, "more than three minutes: an isolated PostgreSQL takes long to stop"},
				"ROUTE-observe":      {nil, "a switchover that nobody pushes is ROUTE-switchover without pgpatrol"},
				"BAD-cluster":        {nil, "BAD-keys with more of the same"},
				"BAD-member-swapped": {nil, "BAD-member with other names"},
			},
			// A stack is made anew for them, and they take their time: one of each sort, the rest is in the suite all.
			homelab: map[string][]share{
				"F38-nas":     {{with: 1, without: 1}},
				"F38-jp1":     {{with: 1}},
				"F72":         {{with: 1}},
				"F77":         {{with: 1}},
				"STOP-docker": {{with: 1}},
			},
		},
		// What "it must show" of the decisions: every scenario, each of them made again from the journals.
		"all": {usual: []share{{with: 1}}},
		"soak": {
			usual: []share{{"default", 3, 1}, {"fast", 3, 1}},
			special: map[string]special{
				"F02": {[]share{{"default", 10, 3}, {"fast", 10, 3}}, "what pgpatrol exists for"},
			},
		},
	}
}

// findSuite returns the suite of that name.
func findSuite(name string) (suite, error) {
	s, ok := suites()[name]
	if !ok {
		return suite{}, fmt.Errorf("find suite %q: want ci, all or soak", name)
	}
	return s, nil
}

// jobs lists the runs of the suite, the longest first: two stacks that share them then end at about the same time. Runs
// with the first user's etcd come last, because a stack is made anew for them, and those of the default timings first, because
// changing the timings of a stack takes a while to settle.
func (s suite) jobs(all []scenario.Scenario) []job {
	var jobs []job
	for _, sc := range all {
		shares := s.usual
		if sp, ok := s.special[sc.ID]; ok {
			shares = sp.shares
		} else if sc.Homelab && s.homelab != nil {
			shares = s.homelab[sc.ID]
		}
		for _, sh := range shares {
			name := cmp.Or(sh.timings, timingsOf(sc)[0])
			t, err := stack.FindTimings(name)
			if err != nil || !slices.Contains(timingsOf(sc), name) {
				continue // the scenario is not meant for them
			}
			if len(sc.Harm) > 0 {
				jobs = append(jobs, slices.Repeat([]job{{sc, t, false}}, sh.without)...)
			}
			jobs = append(jobs, slices.Repeat([]job{{sc, t, true}}, sh.with)...)
		}
	}
	slices.SortStableFunc(jobs, func(a, b job) int {
		return cmp.Or(cmp.Compare(homelab(a), homelab(b)), cmp.Compare(b.timings.TTL, a.timings.TTL), cmp.Compare(b.scenario.Observe(b.timings), a.scenario.Observe(a.timings)))
	})
	return jobs
}

func homelab(j job) int {
	if j.scenario.Homelab {
		return 1
	}
	return 0
}

// neverBegun is the error of a run that its turn did not come to.
const neverBegun = "never begun"

// crew runs the jobs of a suite on several stacks at the same time, each made for it and removed afterwards.
type crew struct {
	name   string // of the stacks, with a number behind it
	stacks int
	dir    string // for the evidence of failed runs
	log    *slog.Logger
	agents map[string]string // built agents by build tags

	mu      sync.Mutex // guards results and done
	results []scenario.Result
	done    int
}

// run returns the results of all jobs, in their order. A job that could not be carried out has a result that says so.
func (c *crew) run(ctx context.Context, jobs []job) ([]scenario.Result, error) {
	release, err := c.prepare(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	c.results = make([]scenario.Result, len(jobs))
	next := make(chan int, len(jobs))
	for i, j := range jobs {
		c.results[i] = scenario.Result{Scenario: j.scenario.ID, Title: j.scenario.Title, Timings: j.timings.Name, Agents: j.agents, Error: neverBegun}
		next <- i
	}
	close(next)
	return c.results, c.each(func(s *stack.Stack) error { return c.work(ctx, s, jobs, next) })
}

// prepare claims the stacks and builds what all of them need, once. What it claimed is given back by release.
func (c *crew) prepare(ctx context.Context) (release func(), err error) {
	var undo []func()
	release = func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	for i := range c.stacks {
		unclaim, err := session.Claim(c.stack(i))
		if err != nil {
			return nil, err
		}
		undo = append(undo, unclaim)
	}
	tmp, removeTmp, err := session.Temp(c.stack(0))
	if err != nil {
		return nil, err
	}
	undo = append(undo, removeTmp)
	if err := c.build(ctx, tmp); err != nil {
		return nil, err
	}
	if _, err := image.Ensure(ctx, docker.Client{}, c.log); err != nil {
		return nil, err
	}
	return release, nil
}

// each lets every stack work, all at the same time.
func (c *crew) each(work func(*stack.Stack) error) error {
	var g errgroup.Group
	for i := range c.stacks {
		g.Go(func() error { return work(stack.New(c.stack(i), c.log)) })
	}
	return g.Wait()
}

func (c *crew) stack(i int) string { return fmt.Sprintf("%s-%d", c.name, i+1) }

// build makes the agents once for all runs.
func (c *crew) build(ctx context.Context, dir string) error {
	c.agents = map[string]string{}
	for _, tags := range []string{"", "failpoint"} {
		c.log.Info("build the agent", "tags", tags)
		path := filepath.Join(dir, "pgpatrol"+tags)
		if err := binary.Build(ctx, "./cmd/pgpatrol", binary.Platform{OS: "linux"}, path, "-tags", tags); err != nil {
			return err
		}
		c.agents[tags] = path
	}
	return nil
}

// work makes a stack, carries out jobs on it until there is none left, and removes it.
func (c *crew) work(ctx context.Context, s *stack.Stack, jobs []job, next <-chan int) (err error) {
	defer func() { err = errors.Join(err, session.Remove(ctx, s)) }()
	rn := &scenario.Runner{Stack: s, Log: c.log.With("stack", s.Name), Dir: c.dir}
	up := false
	for i := range next {
		j := jobs[i]
		if !up {
			s.Homelab = j.scenario.Homelab
			if err := s.Up(ctx, j.timings); err != nil {
				return fmt.Errorf("start stack %s: %w", s.Name, err)
			}
			up = true
		}
		r, err := rn.Run(ctx, c.prepared(j.scenario), j.timings, j.agents)
		if session.Interrupted(ctx, err) {
			_ = os.RemoveAll(r.Folder) // half a run proves nothing
			return context.Cause(ctx)
		}
		c.report(i, r, len(jobs))
	}
	return nil
}

// prepared returns the scenario with agents that were built before, unless it wants others.
func (c *crew) prepared(sc scenario.Scenario) scenario.Scenario {
	inner := sc.Agent
	sc.Agent = func(o *stack.AgentOptions) {
		if inner != nil {
			inner(o)
		}
		if path, ok := c.agents[o.Tags]; ok && o.Binary == "" {
			o.Binary = path
		}
	}
	return sc
}

func (c *crew) report(i int, r scenario.Result, of int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results[i] = r
	c.done++
	level := slog.LevelInfo
	if !r.Passed() {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "run ended", "number", c.done, "of", of, "scenario", r.Scenario, "timings", r.Timings,
		"agents", r.Agents, "passed", r.Passed(), "duration", r.Duration.Round(time.Second))
}

// runSuite carries out a suite and prints its table and, last, how many runs passed and failed.
func (o *options) runSuite(ctx context.Context, w io.Writer, name, stacks string, parallel int, dir string) error {
	began := time.Now()
	s, err := findSuite(name)
	if err != nil {
		return err
	}
	if parallel < 1 {
		return fmt.Errorf("run on %d stacks: want 1 or more", parallel)
	}
	if err := session.Ready(ctx); err != nil {
		return err
	}
	jobs := s.jobs(scenario.All())
	c := &crew{name: stacks, stacks: parallel, dir: dir, log: o.log()}
	c.log.Info("run suite", "suite", name, "runs", len(jobs), "stacks", parallel)
	results, err := c.run(ctx, jobs)
	if ctx.Err() != nil && err != nil {
		results = slices.DeleteFunc(results, func(r scenario.Result) bool { return r.Error == neverBegun })
		err = fmt.Errorf("interrupted after %d of %d runs: %w", len(results), len(jobs), err)
	}
	if o.json {
		err = errors.Join(err, printJSON(w, results))
	} else if len(results) > 0 {
		err = errors.Join(err, scenario.Print(w, results))
	}
	failed, replayed := 0, 0
	for _, r := range results {
		replayed += r.Replayed
		if !r.Passed() {
			failed++
		}
	}
	took := time.Since(began).Round(time.Second)
	if s.limit > 0 && took > s.limit {
		c.log.Warn("the suite took longer than it should", "took", took, "limit", s.limit)
	}
	if !o.json {
		fmt.Fprintf(w, "\nsuite %s: %s\n%d decisions made again from the journals, with the same answer\n%d passed, %d failed\n",
			name, took, replayed, len(results)-failed, failed)
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d runs failed", failed, len(results))
	}
	return err
}
