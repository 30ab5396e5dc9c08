package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/coordinator"
)

// deed is a kind of action that the product carries out, and the faults of the leader that lead to it.
type deed struct {
	name    string
	verb    node.Verb
	finding node.Code
	class   node.Class
	faults  []string
	replica bool // they strike a replica
}

// deeds are all of them. To be a second primary, the leader is cut from etcd until another member has become it.
var deeds = []deed{
	{"hung-revive", node.SoftKill, node.PatroniHung, node.ClassRevive, []string{"patroni-stopped"}, false},
	{"hung-disrupt", node.SoftKill, node.PatroniHung, node.ClassDisrupt, []string{"patroni-stopped"}, false},
	{"loop-revive", node.SoftKill, node.PatroniLoopStuck, node.ClassRevive, []string{"loop-stuck"}, false},
	{"loop-disrupt", node.SoftKill, node.PatroniLoopStuck, node.ClassDisrupt, []string{"loop-stuck"}, false},
	{"api-revive", node.SoftKill, node.PatroniAPIDead, node.ClassRevive, []string{"rest-refused"}, false},
	{"api-disrupt", node.SoftKill, node.PatroniAPIDead, node.ClassDisrupt, []string{"rest-refused"}, true},
	{"zombie-revive", node.SoftKill, node.ZombiePrimary, node.ClassRevive, []string{"cut-from-etcd", "patroni-stopped"}, false},
	{"zombie-disrupt", node.SoftKill, node.ZombiePrimary, node.ClassDisrupt, []string{"cut-from-etcd", "patroni-stopped"}, false},
	{"failed-start", node.StartFailed, node.PatroniFailed, node.ClassRevive, []string{"start-limit"}, false},
	{"zombie-start", node.StartFailed, node.ZombiePrimary, node.ClassRevive, []string{"cut-from-etcd", "start-limit"}, false},
}

const (
	struck = 20 * time.Second // when the faults strike
	cutFor = 50 * time.Second // longer than a leader key lives
	// patience is how long after the act without a crash a world goes on at most. That is enough for an agent that comes back,
	// finds its own lock, waits until that has ended, and acts.
	patience = 30*time.Second + coordinator.LockTTL + 2*time.Minute
	// calm is how long an agent must have lived in a world that is well again, and it ends: longer than a unit is left alone
	// after an act, so that a second act would be seen.
	calm = 90 * time.Second
	// busy is how many steps nobody needs in one life: a recovery and two actions have half as many.
	busy = 200
	// stages is how many seeds are tried as the stage of a deed.
	stages = 200
)

// comebacks are how a killed agent starts again, by name.
var comebacks = []comeback{
	{name: "1s", after: time.Second},
	{name: "30s", after: 30 * time.Second},
	{name: "reboot", after: 30 * time.Second, reboot: true},
}

// stage is the world of a deed, the same every time but for the crashes.
type stage struct {
	deed
	seed  uint64
	agent string // whose deed it is
	until instant
	steps []string // of the life without a crash
}

// set finds the first seed that, with three machines, leads to the deed and to nothing else.
func (d deed) set() (stage, error) {
	for seed := uint64(1); seed <= stages; seed++ {
		w := d.world(seed, nil)
		w.run(struck + cutFor + settleDown)
		w.end()
		if acts := w.check.acts; len(acts) == 1 && d.is(acts[0].action) && acts[0].m.unwell() == "" && len(w.facts.Violations) == 0 && len(w.machines) == 3 {
			s := stage{deed: d, seed: seed, agent: acts[0].m.name, until: acts[0].at + patience}
			s.steps = s.play(nil, nil).steps.seen[0]
			return s, nil
		}
	}
	return stage{}, fmt.Errorf("none of %d seeds leads to %s", stages, d)
}

func (d deed) String() string { return fmt.Sprintf("%s %s (%s)", d.verb, d.finding, d.class) }

func (d deed) is(a node.Action) bool {
	return a.Verb == d.verb && a.Finding == d.finding && a.Class == d.class
}

// world is a world in which agents may do everything and the faults of the deed strike.
func (d deed) world(seed uint64, trace *strings.Builder) *world {
	w := newWorld(seed, true, trace)
	for _, m := range w.machines {
		m.agent.policy.Disrupt = node.ModeAuto
		m.unit.killMode = "process"
		if d.class == node.ClassDisrupt {
			m.unit.killMode = "control-group"
		}
	}
	for i, kind := range d.faults {
		f := fault{number: i + 1, at: struck + time.Duration(i)*100*time.Millisecond, kind: kind, leader: !d.replica, lasts: cutFor}
		w.after(f.at, nil, func() { w.strike(f) })
	}
	return w
}

// play plays the stage with crashes until all is well again, or patience is at its end.
func (s stage) play(kills []kill, trace *strings.Builder) *world {
	w := s.world(s.seed, trace)
	w.steps = &steps{agent: s.agent, kills: kills}
	a := w.machine(s.agent).agent
	for w.now < s.until {
		w.run(w.now + 10*time.Second)
		if len(w.steps.seen) > len(kills) && a.alive && w.now-a.born > calm && w.now > struck+cutFor && len(w.leftovers(a)) == 0 && a.m.unwell() == "" {
			break
		}
	}
	w.changed()
	w.end()
	return w
}

// end ends all processes of a world that is over.
func (w *world) end() {
	for _, m := range w.machines {
		for _, p := range m.agent.procs {
			p.kill()
		}
	}
}

// leftovers are what a crash must not leave behind: attempts whose result is not known, and a lock that has outlived its
// time. Leases of the budget last for an hour on purpose.
func (w *world) leftovers(a *agent) (out []string) {
	for _, at := range a.journal.entries {
		if !at.Done || at.Result == node.ResultExecuted {
			out = append(out, fmt.Sprintf("the attempt %s has no result in the end: done %t, %s", at.ActionID, at.Done, at.Result))
		}
	}
	if holder := w.etcd.value(node.LockKey(scope, node.LockCluster)); holder != "" {
		out = append(out, "the lock is left behind by "+holder)
	}
	for _, l := range w.etcd.sorted() {
		if l.ttl == coordinator.LockTTL {
			out = append(out, "a lease of the lock is left behind")
		}
	}
	return out
}

// crash is one run of a stage, with one or two kills, and what came of it.
type crash struct {
	stage  *stage
	kills  []kill
	acts   int
	healed bool
	broken []violation
	again  int // steps of the recovery after the first kill
}

// run plays it and judges what came of it.
func (c *crash) run(trace *strings.Builder) {
	w := c.stage.play(c.kills, trace)
	a := w.machine(c.stage.agent).agent
	c.broken = w.facts.Violations
	c.acts = len(w.check.acts)
	c.healed = a.m.unwell() == ""
	if len(w.steps.seen) != len(c.kills)+1 || !a.alive {
		c.fail("F101", "the agent lived %d times and is alive: %t", len(w.steps.seen), a.alive)
		return
	}
	if len(c.kills) > 0 {
		c.again = w.steps.recovered(1)
	}
	for _, text := range w.leftovers(a) {
		c.fail("F101", "%s", text)
	}
	for life, seen := range w.steps.seen {
		if len(seen) > busy {
			c.fail("F101", "life %d of the agent took %d steps: it asks for the same thing again and again", life+1, len(seen))
		}
	}
	c.once(w, a)
	c.spentOnce(w)
	if !c.healed && !a.accounts() {
		c.fail(lost, "%s, and %s", a.m.unwell(), "neither a finding with an attempt nor one with a refusal says so")
	}
}

const (
	lost      = "lost action"
	duplicate = "duplicate action"
)

func (c *crash) fail(invariant, format string, args ...any) {
	c.broken = append(c.broken, violation{invariant, c.stage.seed, fmt.Sprintf(format, args...)})
}

// once: an intent is carried out at most once, and the journal knows of every act of this boot.
func (c *crash) once(w *world, a *agent) {
	done := map[string]int{}
	for _, o := range w.check.acts {
		if o.m == a.m {
			done[o.action.ID]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(done)) {
		if done[id] > 1 {
			c.fail(duplicate, "%s was carried out %d times", id, done[id])
		}
		if !slices.ContainsFunc(a.journal.entries, func(e node.Attempt) bool {
			return e.ActionID == id && (e.Result != node.ResultNotExecuted || e.BootID != a.m.bootID())
		}) {
			c.fail("F101", "%s was carried out, and the journal denies it", id)
		}
	}
}

// spentOnce: every act was paid for, and no slot of the cluster's budget was taken twice for one intent. A kill may waste
// one: a claim is not given back.
func (c *crash) spentOnce(w *world) {
	acts, intents, spent := map[bool]int{}, map[bool]int{}, map[bool]int{}
	count := func(n map[bool]int, class node.Class) {
		n[false]++
		if class == node.ClassDisrupt {
			n[true]++
		}
	}
	for _, o := range w.check.acts {
		count(acts, o.action.Class)
	}
	for _, m := range w.machines {
		for _, e := range m.agent.journal.entries {
			count(intents, e.Class)
		}
	}
	for n := 1; n <= node.ClusterActions; n++ {
		spent[false] += len(w.etcd.under(node.SpentKey(scope, n)))
	}
	for n := 1; n <= node.ClusterDisruptions; n++ {
		spent[true] += len(w.etcd.under(node.SpentDisruptKey(scope, n)))
	}
	for _, disrupt := range []bool{false, true} {
		if spent[disrupt] < acts[disrupt] || spent[disrupt] > intents[disrupt]+len(c.kills) {
			c.fail("S26", "%d slots of the budget are spent on %d acts and %d intents (disrupting: %t)", spent[disrupt], acts[disrupt], intents[disrupt], disrupt)
		}
	}
}

// accounts reports whether the agent says that its Patroni is not well and what it did or why it does nothing about that.
func (a *agent) accounts() bool {
	return a.tells() && (len(a.journal.entries) > 0 || len(a.plan.Refused) > 0)
}

// String is the crash as -case names it.
func (c *crash) String() string {
	parts := []string{c.stage.name}
	for i, k := range c.kills {
		parts = append(parts, strconv.Itoa(k.step))
		if i == 0 {
			parts = append(parts, k.back.name)
		}
	}
	return strings.Join(parts, "/")
}

// parseCrash reads what String writes, and sets the stage.
func parseCrash(text string) (*crash, error) {
	parts := strings.Split(text, "/")
	i := slices.IndexFunc(deeds, func(d deed) bool { return d.name == parts[0] })
	if i < 0 || len(parts) < 3 || len(parts) > 4 {
		return nil, fmt.Errorf("-case %s: want DEED/STEP/COMEBACK or DEED/STEP/COMEBACK/STEP, DEED one of %s, COMEBACK one of %s",
			text, names(deeds, func(d deed) string { return d.name }), names(comebacks, func(b comeback) string { return b.name }))
	}
	j := slices.IndexFunc(comebacks, func(b comeback) bool { return b.name == parts[2] })
	if j < 0 {
		return nil, fmt.Errorf("-case %s: an agent comes back after one of %s", text, names(comebacks, func(b comeback) string { return b.name }))
	}
	s, err := deeds[i].set()
	if err != nil {
		return nil, err
	}
	c := &crash{stage: &s, kills: []kill{{back: comebacks[j]}}}
	if c.kills[0].step, err = stepOf(parts[1], len(s.steps)); err != nil {
		return nil, fmt.Errorf("-case %s: %w", text, err)
	}
	if len(parts) < 4 {
		return c, nil
	}
	c.run(nil)
	second := kill{back: comebacks[0]}
	if second.step, err = stepOf(parts[3], c.again); err != nil {
		return nil, fmt.Errorf("-case %s: of the recovery, %w", text, err)
	}
	return &crash{stage: &s, kills: append(c.kills, second)}, nil
}

func stepOf(s string, n int) (int, error) {
	step, err := strconv.Atoi(s)
	if err != nil || step < 1 || step > n {
		return 0, fmt.Errorf("%q is none of its %d steps", s, n)
	}
	return step, nil
}

func names[T any](all []T, name func(T) string) string {
	var out []string
	for _, v := range all {
		out = append(out, name(v))
	}
	return strings.Join(out, ", ")
}

// crashpoint replays one crash, prints its trace and returns the exit status.
func crashpoint(text string, out, problems io.Writer) int {
	c, err := parseCrash(text)
	if err != nil {
		fmt.Fprintf(problems, "sim: %v\n", err)
		return 2
	}
	var trace strings.Builder
	c.run(&trace)
	fmt.Fprintf(out, "%s: agent of %s killed at step %d of %d, %q\n\n%s\nviolations: %d\n",
		c.stage.deed, c.stage.agent, c.kills[0].step, len(c.stage.steps), c.stage.steps[c.kills[0].step-1], trace.String(), len(c.broken))
	for _, v := range c.broken {
		fmt.Fprintf(out, "  %s  %s\n", v.Invariant, v.Text)
	}
	return min(len(c.broken), 1)
}

// enumerate runs a stage with the agent killed at every step and back in every way, and killed once more at every step of
// the recovery from that. With stop it ends after the first crash that breaks something.
func (s *stage) enumerate(workers int, stop bool) []crash {
	all := append([]crash{{stage: s}}, s.first(func(int) bool { return true })...)
	if all = runAll(all, workers, stop); stop && broke(all) {
		return all
	}
	return append(all, runAll(again(all), workers, stop)...)
}

// first returns crashes at the wanted steps.
func (s *stage) first(want func(step int) bool) (out []crash) {
	for step := 1; step <= len(s.steps); step++ {
		for _, back := range comebacks {
			if want(step) {
				out = append(out, crash{stage: s, kills: []kill{{step, back}}})
			}
		}
	}
	return out
}

// again returns a second crash at every step of the recovery from each.
func again(all []crash) (out []crash) {
	for _, c := range all {
		for step := 1; step <= c.again; step++ {
			out = append(out, crash{stage: c.stage, kills: []kill{c.kills[0], {step, comebacks[0]}}})
		}
	}
	return out
}

func broke(all []crash) bool {
	return slices.ContainsFunc(all, func(c crash) bool { return len(c.broken) > 0 })
}

// runAll runs crashes and returns those that were run: all, or with stop as many as it took to break something.
func runAll(all []crash, workers int, stop bool) []crash {
	var next atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) || done.Load() {
					return
				}
				all[i].run(nil)
				if stop && len(all[i].broken) > 0 {
					done.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return all[:min(int(next.Load()), len(all))]
}

// crashpoints enumerates all deeds, prints what came of it and returns the exit status.
func crashpoints(workers int, out io.Writer) int {
	fmt.Fprintf(out, "%-40s %6s %6s %6s %6s %6s %6s %6s %6s\n", "action", "steps", "runs", "acts", "healed", "told", "twice", "lost", "other")
	var broken []crash
	status := 0
	for _, d := range deeds {
		s, err := d.set()
		if err != nil {
			fmt.Fprintf(out, "%-40s %v\n", d, err)
			status = 1
			continue
		}
		all := s.enumerate(workers, false)
		row := tallyCrashes(all)
		fmt.Fprintf(out, "%-40s %6d %6d %6d %6d %6d %6d %6d %6d\n", d, len(s.steps), len(all), row.acts, row.healed, row.told, row.twice, row.lost, row.other)
		for _, c := range all {
			if len(c.broken) > 0 {
				broken = append(broken, c)
			}
		}
	}
	if len(broken) > 0 {
		status = 1
	}
	explainCrashes(out, broken)
	return status
}

// crashRow is what came of the crashes of one deed.
type crashRow struct{ acts, healed, told, twice, lost, other int }

func tallyCrashes(all []crash) (r crashRow) {
	for _, c := range all {
		r.acts += c.acts
		broke := func(names ...string) bool {
			return slices.ContainsFunc(c.broken, func(v violation) bool { return slices.Contains(names, v.Invariant) })
		}
		twice, gone := broke(duplicate, "S27", "S28"), broke(lost)
		switch {
		case c.healed:
			r.healed++
		case !gone:
			r.told++
		}
		if twice {
			r.twice++
		}
		if gone {
			r.lost++
		}
		if len(c.broken) > 0 && !twice && !gone {
			r.other++
		}
	}
	return r
}

// explainCrashes prints the crashes that broke something, by what they broke, with the commands that replay them.
func explainCrashes(out io.Writer, broken []crash) {
	by := map[string][]*crash{}
	for i := range broken {
		seen := map[string]bool{}
		for _, v := range broken[i].broken {
			if !seen[v.Invariant] {
				by[v.Invariant] = append(by[v.Invariant], &broken[i])
			}
			seen[v.Invariant] = true
		}
	}
	fmt.Fprintf(out, "runs with violations: %d\n", len(broken))
	for _, invariant := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(out, "\n%s: in %d runs\n", invariant, len(by[invariant]))
		for _, c := range by[invariant][:min(explained, len(by[invariant]))] {
			i := slices.IndexFunc(c.broken, func(v violation) bool { return v.Invariant == invariant })
			fmt.Fprintf(out, "  %s: %s\n    killed at %q\n    go run ./test/sim -crashpoints -case %s\n",
				c.stage.deed, c.broken[i].Text, c.stage.steps[c.kills[0].step-1], c)
		}
	}
}
