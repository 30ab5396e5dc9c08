package script

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/decision"
	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/executor"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// life is what the test tells one process of the agent: where its things are, the boot, the time at its start, how often it
// looks, and after how many steps it kills itself.
type life struct {
	Dir    string
	Boot   string
	Now    time.Duration
	Looks  int
	DiesAt int  // 0: it ends when it has looked
	Heals  bool // a kill heals the Patroni for half a minute
}

// lifeEnv holds a life, as JSON.
const lifeEnv = "PGPATROL_TEST_LIFE"

// looks is how often a process looks, a second apart: long enough to prove a hang.
const looks = 8

// TestRestarts_OneBudget: FAULTS.md F102, S26, S27. An agent that is killed a hundred times, at every step of what it does,
// spends what one that lives on would spend: three actions an hour on one service, a minute apart at least, each with an
// intent before it, and none of them twice; and only two where the first two were in vain.
func TestRestarts_OneBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts three hundred processes")
	}
	for name, tt := range map[string]struct {
		heals bool
		most  int
	}{
		"heals that work":    {true, 3},
		"heals that do not":  {false, 2},
		"heals, and reboots": {true, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := life{Dir: t.TempDir(), Boot: nodetest.BootID, Now: time.Hour, Looks: looks, Heals: tt.heals}
			for i := range 100 {
				if l.DiesAt = i % 23; name == "heals, and reboots" && i == 50 {
					l.Boot = "boot-2"
				}
				l.live(t)
				l.Now += (looks + 4) * time.Second
			}
			l.DiesAt = 0
			l.live(t)
			l.judge(t, tt.most)
		})
	}
}

// live runs one process of the agent to its end.
func (l life) live(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRestarts_Process$", "-test.count=1")
	// At its end the race detector sleeps for a second unless told otherwise: five minutes over three hundred processes.
	cmd.Env = append(os.Environ(), lifeEnv+"="+string(text), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && !(ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// judge counts what was done, from what the service manager saw and not from the journal.
func (l life) judge(t *testing.T, most int) {
	t.Helper()
	acts, _ := os.ReadFile(filepath.Join(l.Dir, "acts"))
	lines := strings.Fields(string(acts))
	if len(lines) > most || len(lines) < 2 {
		t.Errorf("%d acts, want 2 to %d: %s", len(lines), most, acts)
	}
	seen, last := map[string]bool{}, map[string]time.Duration{}
	for _, line := range lines {
		boot, rest, _ := strings.Cut(line, "/")
		at, invocation, _ := strings.Cut(rest, "/")
		when, err := time.ParseDuration(at)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := last[boot]; ok && when-before < time.Minute {
			t.Errorf("acts %s apart", when-before)
		}
		if last[boot] = when; seen[invocation] {
			t.Errorf("invocation %s was killed twice", invocation)
		}
		seen[invocation] = true
	}
	c, err := journal.ReadDir(filepath.Join(l.Dir, "state"))
	if err != nil || len(c.Damaged) > 0 {
		t.Fatalf("journal: %v, %+v", err, c.Damaged)
	}
	intents := map[string]bool{}
	for _, r := range c.Records {
		if r.Kind == journal.Intent {
			intents[r.Action.Before.InvocationID] = true
		}
	}
	for invocation := range seen {
		if !intents[invocation] {
			t.Errorf("invocation %s was killed without an intent", invocation)
		}
	}
}

// TestRestarts_Process is one process of the agent, started by the tests above.
func TestRestarts_Process(t *testing.T) {
	text := os.Getenv(lifeEnv)
	if text == "" {
		t.Skip("it is started by another test")
	}
	p := &process{}
	if err := json.Unmarshal([]byte(text), &p.life); err != nil {
		t.Fatal(err)
	}
	p.now = node.Instant(p.Now)
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
}

// process is the loop of an agent on a machine whose Patroni hangs. Its clock moves when it looks.
type process struct {
	life
	now     node.Instant
	steps   int
	journal *journal.Journal
	kept    node.Kept
}

// step is a moment at which the process may be killed.
func (p *process) step() {
	if p.steps++; p.steps == p.DiesAt {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (p *process) run() error {
	j, err := journal.Open(filepath.Join(p.Dir, "state"), journal.Deps{
		Now: func() node.Instant { return p.now }, Wall: func() time.Time { return time.Unix(1700000000, 0) }, BootID: p.Boot,
	})
	if err != nil {
		return err
	}
	defer j.Close()
	p.journal = j
	exec := executor.New(executor.Deps{
		Managers: map[string]service.Manager{nodetest.Service: p}, Units: map[string]string{nodetest.Service: nodetest.Unit},
		Journal: stepping{p}, Logger: slog.New(slog.DiscardHandler), Now: func() node.Instant { return p.now }, BootID: p.Boot,
	})
	p.step()
	if _, err := exec.Resolve(context.Background(), j.Unresolved()); err != nil {
		return err
	}
	mem := node.Memory{}
	if kept, sameBoot, ran := j.Kept(); ran {
		mem = engine.Recall(kept, sameBoot, p.now)
	}
	for range p.Looks {
		p.now = p.now.Add(time.Second)
		if mem, err = p.look(exec, mem); err != nil {
			return err
		}
	}
	return nil
}

// look is one turn of the loop: look, judge what was done, decide, act.
func (p *process) look(exec *executor.Executor, mem node.Memory) (node.Memory, error) {
	p.step()
	snap, err := p.snapshot()
	if err != nil {
		return mem, err
	}
	for _, a := range p.journal.Attempts() {
		if a.Result != node.ResultExecuted {
			continue
		}
		result, text := node.ResultUnverified, "reboot"
		if a.BootID == p.Boot {
			result, text = engine.Verify(nodetest.Spec(node.ModeAuto), a, snap)
		}
		if result != node.ResultExecuted {
			if err := exec.Settle(context.Background(), a, result, text); err != nil {
				return mem, err
			}
		}
	}
	answer := decision.Judge(node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: mem, Snapshot: snap, Attempts: p.journal.Attempts()})
	if answer.Broken != "" {
		return mem, errors.New(answer.Broken)
	}
	if k := engine.Keep(answer.Memory, p.now); !reflect.DeepEqual(k, p.kept) {
		p.step()
		if _, err := p.journal.Append(journal.Record{Kind: journal.Memory, Kept: &k}); err != nil {
			return mem, err
		}
		p.kept = k
	}
	for _, a := range answer.Plan.Allowed {
		_, _ = exec.Execute(context.Background(), a) // what came of it is in the journal
	}
	return answer.Memory, nil
}

// snapshot sees a hung Patroni, unless it has just been healed.
func (p *process) snapshot() (node.Snapshot, error) {
	u, err := p.Status(context.Background(), nodetest.Unit)
	if err != nil {
		return node.Snapshot{}, err
	}
	changes := []nodetest.Change{nodetest.Confirmed(), nodetest.LeaseLeft(15 * time.Second), nodetest.WithUnit(func(s *service.Status) { *s = u })}
	if at := p.lastAct(); !p.Heals || at == 0 || p.now.Sub(at) > 30*time.Second {
		// Its lease was renewed long ago, and lives on as no real one would: a hundred processes shall have the chance.
		changes = append(changes, nodetest.Stopped(), func(s *node.Snapshot) { s.DCS.LeaderLease.Value.Granted = time.Hour })
	} else {
		changes = append(changes, nodetest.LeaseLeft(29*time.Second))
	}
	s := nodetest.Snap(time.Duration(p.now), append(changes, nodetest.With(func(f *node.PatroniFacts) {
		f.Process.Value.PID = u.MainPID
		f.Process.Value.Exists = true
		f.API.Value.Outcome = probe.OutcomeAnswered
	}))...)
	s.BootID = p.Boot
	if err := p.journal.Healthy(); err != nil {
		s.Self.JournalBroken = err.Error()
	}
	return s, nil
}

// acts are the kills that the service manager carried out, oldest first.
func (p *process) acts() []string {
	f, err := os.Open(filepath.Join(p.Dir, "acts"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		out = append(out, s.Text())
	}
	return out
}

// lastAct is when the latest kill of this boot was, 0 if there was none.
func (p *process) lastAct() node.Instant {
	acts := p.acts()
	if len(acts) == 0 {
		return 0
	}
	parts := strings.Split(acts[len(acts)-1], "/")
	at, err := time.ParseDuration(parts[1])
	if err != nil || parts[0] != p.Boot {
		return 0
	}
	return node.Instant(at)
}

// Status implements service.Manager: every kill began another run.
func (p *process) Status(context.Context, string) (service.Status, error) {
	u, n := nodetest.Status(), len(p.acts())
	u.InvocationID, u.MainPID = fmt.Sprintf("run-%d-%s", n, p.Boot), 500+n
	return u, nil
}

// KillMain implements service.Manager.
func (p *process) KillMain(ctx context.Context, unit string, want service.Status) error {
	p.step()
	if u, _ := p.Status(ctx, unit); u.InvocationID != want.InvocationID {
		return service.ErrChanged
	}
	f, err := os.OpenFile(filepath.Join(p.Dir, "acts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(p.Boot + "/" + time.Duration(p.now).String() + "/" + want.InvocationID + "\n")
	p.step()
	return errors.Join(err, f.Close())
}

// Start implements service.Manager.
func (p *process) Start(context.Context, string) error { return errors.ErrUnsupported }

// stepping is the real journal, with a step before and after every record.
type stepping struct{ p *process }

// Intent implements executor.Journal.
func (s stepping) Intent(a node.Action) (node.Attempt, error) {
	s.p.step()
	defer s.p.step()
	return s.p.journal.Intent(a)
}

// Result implements executor.Journal.
func (s stepping) Result(a node.Attempt, r node.AttemptResult, text string, evidence map[string]string) error {
	s.p.step()
	defer s.p.step()
	return s.p.journal.Result(a, r, text, evidence)
}
