package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/coordinator"
)

// lockWatch looks how long the cluster's lock is held by one acquisition.
type lockWatch struct {
	revision int64
	since    instant
	longest  time.Duration // at least
}

func (l *lockWatch) look(w *world) {
	kv := w.etcd.keys[node.LockKey(scope, node.LockCluster)]
	switch {
	case kv == nil:
	case kv.CreateRevision != l.revision:
		l.revision, l.since = kv.CreateRevision, w.now
	default:
		l.longest = max(l.longest, w.now-l.since)
	}
}

// leftovers are what a crash must not leave behind: attempts whose result is not known, and the lock or a lease of it.
// Leases of the budget last for an hour on purpose.
func (w *world) leftovers(a *agent) (out []string) {
	for _, at := range a.journal.attempts() {
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
	w.check.settledDown()
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
	if held := w.steps.lock.longest; held > coordinator.LockTTL {
		c.fail("F101", "the lock was held for %s", held)
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
		if !slices.ContainsFunc(a.journal.attempts(), func(e node.Attempt) bool {
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
		for _, e := range m.agent.journal.attempts() {
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
	return a.tells() && (len(a.journal.attempts()) > 0 || len(a.plan.Refused) > 0)
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
