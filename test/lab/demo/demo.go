// Package demo breaks the real stack the way pgpatrol exists for, without pgpatrol and with it, and shows the difference
// in one table.
//
// What the table says was seen by the witnesses, from outside; only what pgpatrol did and why is read from its journal.
// The stack is left up, with the agents running. Where the demonstration cannot be carried out, or is interrupted, it
// removes everything that it started. It deliberately judges with the same scenario (F02) and the same checks as the
// tests, and returns an error where one does not hold.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/scenario"
	"github.com/pgpatrol/pgpatrol/test/lab/session"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// scenarioID is what is demonstrated: Patroni hangs on the leader.
const scenarioID = "F02"

// Run carries out the demonstration on the stack of that name and shows it on w. Patroni's timings are the defaults,
// which are the user's.
func Run(ctx context.Context, w io.Writer, name string) error {
	if err := session.Ready(ctx); err != nil {
		return err
	}
	release, err := session.Claim(name)
	if err != nil {
		return err
	}
	defer release()
	dir, removeDir, err := session.Temp(name)
	if err != nil {
		return err
	}
	defer removeDir()
	sc := newScreen(w)
	shown, hide := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error { sc.run(shown); return nil })
	defer func() { hide(); _ = g.Wait() }()
	log := slog.New(handler{sc})
	d := &demo{screen: sc, dir: dir, log: log, stack: stack.New(name, log)}
	return d.run(ctx)
}

type demo struct {
	screen *screen
	log    *slog.Logger
	dir    string // temporary, for what is built
	stack  *stack.Stack
}

func (d *demo) run(ctx context.Context) error {
	results, halves, err := d.carryOut(ctx)
	if err != nil {
		return d.giveUp(ctx, err)
	}
	d.screen.text(func(w io.Writer) {
		fmt.Fprintln(w)
		printTable(w, d.screen.width, halves[0], halves[1])
		d.epilogue(w, halves[1].leader)
	})
	return passed(results)
}

func passed(results []scenario.Result) error {
	var wrong []string
	folder := ""
	for _, r := range results {
		for _, c := range r.Checks {
			if !c.OK {
				wrong = append(wrong, fmt.Sprintf("%s (%s)", c.Name, c.Detail))
				folder = r.Folder
			}
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("this demonstration did not go as it should; not so: %s; evidence: %s", strings.Join(wrong, "; "), folder)
	}
	return nil
}

func (d *demo) carryOut(ctx context.Context) ([]scenario.Result, []half, error) {
	timings := stack.AllTimings()[0]
	sc, err := scenario.Find(scenarioID)
	if err != nil {
		return nil, nil, err
	}
	d.screen.heading("1. Start the real stack: Patroni and PostgreSQL on three nodes, etcd, HAProxy")
	d.screen.doing("build the agent, look for the image of the nodes")
	if _, err := stack.Open(ctx, d.stack.Name, d.log); err == nil {
		d.screen.say("a stack named %q is there from an earlier run: it is removed first", d.stack.Name)
	}
	agent := filepath.Join(d.dir, "pgpatrol")
	sc.Agent = func(o *stack.AgentOptions) { o.Binary = agent }
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return binary.Build(gctx, "./cmd/pgpatrol", binary.Platform{OS: "linux"}, agent) })
	g.Go(func() error { return d.stack.Up(gctx, timings) })
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	var results []scenario.Result
	var halves []half
	for _, agents := range []bool{false, true} {
		text := "2. Without pgpatrol: hang Patroni on the leader (SIGSTOP), and look for 40 s"
		if agents {
			text = "3. With pgpatrol on every node: the same again"
		}
		d.screen.heading(text)
		r, h, err := d.half(ctx, sc, timings, agents)
		if err != nil {
			return nil, nil, err
		}
		results, halves = append(results, r), append(halves, h)
	}
	d.screen.doing("start the agents again, to be looked at")
	return results, halves, d.startAgents(ctx)
}

// half runs the scenario once.
func (d *demo) half(ctx context.Context, sc scenario.Scenario, t stack.Timings, agents bool) (scenario.Result, half, error) {
	watch := newWatcher(d.screen.say)
	inner := sc.Fault
	sc.Fault = func(ctx context.Context, r *scenario.Run) error {
		d.screen.doing("FAULT: Patroni on the leader, " + r.Leader.Name + ", hangs: it is alive and does nothing")
		return inner(ctx, r)
	}
	d.screen.watch(watch.state)
	defer d.screen.watch(nil)
	tap := func(r record.Record) {
		watch.add(r)
		if r.Mark != nil && r.Mark.Name == "end" {
			d.screen.doing("the look is over: gather logs and journals")
		}
	}
	runner := &scenario.Runner{Stack: d.stack, Log: d.log, Tap: tap}
	r, err := runner.Run(ctx, sc, t, agents)
	if session.Interrupted(ctx, err) {
		_ = os.RemoveAll(r.Folder) // half a run proves nothing
	}
	if err != nil {
		return r, half{}, err
	}
	var journals map[string][]byte
	if agents {
		if journals, err = d.stack.Journals(ctx); err != nil {
			return r, half{}, err
		}
	}
	return r, newHalf(r.Leader, watch.taken(), journals), nil
}

// startAgents starts the agents as they are installed. Installing them anew would take their journals away, and with
// them the history that the user is invited to read.
func (d *demo) startAgents(ctx context.Context) error {
	const start = `systemctl enable -q --now pgpatrol.service
for i in $(seq 100); do [ -S /run/pgpatrol/pgpatrol.sock ] && exit 0; sleep .2; done; exit 1`
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range d.stack.AgentNodes() {
		g.Go(func() error {
			if _, err := d.stack.Exec(gctx, n, start); err != nil {
				return fmt.Errorf("start agent on %s: %w", n.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// giveUp removes everything that was started, and returns why.
func (d *demo) giveUp(ctx context.Context, err error) error {
	if session.Interrupted(ctx, err) {
		err = errors.New("interrupted")
	}
	d.screen.doing("give up, and remove everything that was started")
	if rerr := session.Remove(ctx, d.stack); rerr != nil {
		return fmt.Errorf("%w; and not everything could be removed (try: make demo-down): %w", err, rerr)
	}
	return err
}

func (d *demo) epilogue(w io.Writer, leader string) {
	c := "docker exec pgpatrol-" + d.stack.Name + "-" + leader
	fmt.Fprintf(w, `
Done in %s. The stack is still up, with an agent on every node. Look around:

  %s pgpatrol status     # what the agent knows
  %s pgpatrol plan       # what it would do now, and on what that rests
  %s pgpatrol history    # what it saw and did
  docker exec -u postgres pgpatrol-%s-%s patronictl -c /etc/patroni/config.yml list
  go run ./test/lab --stack %s inject patroni-stop leader     # hang it again

Stop it:

  make demo-down
`, time.Since(d.screen.began).Round(time.Second), c, c, c, d.stack.Name, leader, d.stack.Name)
}
