package scenario

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/fault"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// How a run is paced.
const (
	readyWithin = 30 * time.Second // until the writer and every watcher were heard
	leadIn      = 3 * time.Second  // recorded before the fault
)

// Runner runs scenarios on one stack, one after the other. It is not safe for concurrent use.
type Runner struct {
	Stack *stack.Stack
	Log   *slog.Logger
	Dir   string              // where failed runs leave their evidence; os.TempDir() where empty
	Tap   func(record.Record) // sees every record as it comes, for live display; may be nil; called from several goroutines

	witness bool // installed
	made    string
}

// Run is one run of a scenario, as its steps see it.
type Run struct {
	Stack    *stack.Stack
	Timings  stack.Timings
	Agents   bool         // whether pgpatrol runs
	Leader   stack.Node   // that leads when the run begins
	Replicas []stack.Node // the other two
	Log      *slog.Logger

	collector *collector
}

// Inject breaks a node with the named fault.
func (r *Run) Inject(ctx context.Context, name string, n stack.Node) error {
	f, err := fault.Find(name)
	if err != nil {
		return err
	}
	r.Mark("inject", name+" on "+n.Name)
	if err := f.Inject(ctx, r.Stack, n); err != nil {
		return err
	}
	r.Mark("injected", name+" on "+n.Name)
	return nil
}

// Revert undoes the named fault on a node.
func (r *Run) Revert(ctx context.Context, name string, n stack.Node) error {
	f, err := fault.Find(name)
	if err != nil {
		return err
	}
	r.Mark("revert", name+" on "+n.Name)
	return f.Revert(ctx, r.Stack, n)
}

// Mark writes a moment into the records; it does nothing before recording has begun.
func (r *Run) Mark(name, text string) {
	r.Log.Info("mark", "name", name, "what", text)
	if r.collector != nil {
		r.collector.mark(name, text)
	}
}

// Sleep waits for d.
func (r *Run) Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run runs a scenario once and judges it. An error means that the run could not be carried out, which is neither
// passed nor failed; what was recorded until then is kept like that of a failed run.
func (rn *Runner) Run(ctx context.Context, sc Scenario, t stack.Timings, agents bool) (Result, error) {
	began := time.Now()
	res := Result{Scenario: sc.ID, Title: sc.Title, Timings: t.Name, Agents: agents, Began: began.UTC()}
	log := rn.Log.With("scenario", sc.ID, "timings", t.Name, "agents", agents)
	ev, logs, err := rn.carryOut(ctx, sc, t, agents, log)
	res.Duration = time.Since(began)
	if err == nil {
		res.judge(sc, ev)
	} else {
		res.Error = err.Error()
	}
	if !res.Passed() {
		res.Folder, err = save(rn.Dir, res, ev, logs)
		if err != nil {
			log.Error("evidence could not be kept", "err", err)
		}
	}
	if res.Error != "" {
		return res, fmt.Errorf("run %s: %s", sc.ID, res.Error)
	}
	return res, nil
}

func (rn *Runner) carryOut(ctx context.Context, sc Scenario, t stack.Timings, agents bool, log *slog.Logger) (ev Evidence, logs map[string]string, err error) {
	run, err := rn.prepare(ctx, sc, t, agents, log)
	if err != nil {
		return ev, rn.logs(ctx), err
	}
	ev = Evidence{Leader: run.Leader.Name, Timings: t, Agents: agents, Homelab: sc.Homelab}
	c, err := startCollector(ctx, rn.Stack, fmt.Sprintf("%s-%d", sc.ID, time.Now().UnixNano()), sc.REST, log, rn.Tap)
	if err != nil {
		return ev, nil, err
	}
	run.collector = c
	defer func() {
		c.stop()
		ev.Records = append(c.records(), ev.Records...)
	}()
	if err := rn.act(ctx, run, sc, &ev); err != nil {
		return ev, rn.logs(ctx), err
	}
	logs = rn.logs(ctx)
	if agents && sc.Homelab {
		if ev.Refused, err = refusals(ctx, rn.Stack, ev.Fault); err != nil {
			return ev, logs, err
		}
	}
	if agents {
		ev.Plans, ev.Replays = rn.Stack.Plans(ctx), rn.Stack.Replays(ctx)
		journals, jerr := rn.Stack.Journals(ctx)
		if jerr != nil {
			return ev, logs, jerr
		}
		for node, text := range journals {
			ev.Records = append(ev.Records, journalRecords(node, text, ev.Window.To)...)
		}
	}
	log.Info("undo and settle")
	return ev, logs, rn.Stack.Settle(ctx, t)
}

// prepare settles the stack, sets the scenario up and starts the agents.
func (rn *Runner) prepare(ctx context.Context, sc Scenario, t stack.Timings, agents bool, log *slog.Logger) (*Run, error) {
	if rn.Stack.Homelab != sc.Homelab {
		log.Info("make the stack anew, with another etcd", "homelab", sc.Homelab)
		rn.Stack.Homelab = sc.Homelab
		if err := rn.Stack.Up(ctx, t); err != nil {
			return nil, err
		}
	}
	log.Info("settle the stack")
	if err := rn.Stack.Settle(ctx, t); err != nil {
		return nil, err
	}
	// A stack that was made anew has lost its witness.
	if made := rn.Stack.Made(ctx); !rn.witness || made != rn.made {
		if err := rn.Stack.InstallWitness(ctx); err != nil {
			return nil, err
		}
		rn.witness, rn.made = true, made
	}
	run := &Run{Stack: rn.Stack, Timings: t, Agents: agents, Log: log}
	var err error
	if run.Leader, err = rn.Stack.Leader(ctx); err != nil {
		return nil, err
	}
	for _, n := range rn.Stack.Of(stack.Postgres) {
		if n.Name != run.Leader.Name {
			run.Replicas = append(run.Replicas, n)
		}
	}
	if sc.Setup != nil {
		if err := sc.Setup(ctx, run); err != nil {
			return nil, fmt.Errorf("set up: %w", err)
		}
	}
	if agents {
		opts := stack.AgentOptions{Policy: sc.Policy}
		if sc.Agent != nil {
			sc.Agent(&opts)
		}
		log.Info("start the agents")
		if err := rn.Stack.InstallAgents(ctx, opts); err != nil {
			return nil, err
		}
	}
	return run, nil
}

// act records a healthy moment, breaks the stack, and looks.
func (rn *Runner) act(ctx context.Context, run *Run, sc Scenario, ev *Evidence) error {
	c := run.collector
	for began := time.Now(); !c.ready(); {
		if time.Since(began) > readyWithin {
			return errors.New("witnesses were not all heard")
		}
		if err := run.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	if err := run.Sleep(ctx, leadIn); err != nil {
		return err
	}
	run.Log.Info("break it", "leader", run.Leader.Name)
	ev.Fault = c.mark("fault", sc.Title)
	if err := sc.Fault(ctx, run); err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	if err := run.Sleep(ctx, time.Until(ev.Fault.Add(sc.Observe(run.Timings)))); err != nil {
		return err
	}
	ev.Window = judge.Window{From: ev.Fault, To: c.mark("end", "")}
	return nil
}

// logs returns what Patroni and pgpatrol wrote on every node, for a failed run.
func (rn *Runner) logs(ctx context.Context) map[string]string {
	logs := map[string]string{}
	for _, n := range rn.Stack.AgentNodes() {
		logs[n.Name] = rn.Stack.AgentLog(ctx, n)
	}
	return logs
}

func dirOr(dir string) string {
	if dir == "" {
		return os.TempDir()
	}
	return dir
}
