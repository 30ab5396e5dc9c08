package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// where says which nodes a check is about.
type where struct {
	name string
	pick func(Evidence) []string
}

var patroniNodes = []string{"pg1", "pg2", "pg3"}

func onEveryNode() where {
	return where{"every node", func(Evidence) []string { return append(slices.Clone(patroniNodes), "hap1") }}
}

func onEveryPatroni() where {
	return where{"every Patroni", func(Evidence) []string { return patroniNodes }}
}

func onLeader() where {
	return where{"the leader", func(e Evidence) []string { return []string{e.Leader} }}
}

func onOthers() where {
	return where{"the others", func(e Evidence) []string {
		return slices.DeleteFunc(slices.Clone(patroniNodes), func(n string) bool { return n == e.Leader })
	}}
}

// everyPlan is a check that must hold of the plan of every node that is meant, at the end of the observation.
func everyPlan(name string, at where, test func(spoken) (bool, string)) Check {
	return Check{name + " on " + at.name, func(e Evidence) Verdict {
		ok, all := true, []string(nil)
		for _, n := range at.pick(e) {
			s, err := planOf(e, "", n)
			if err != nil {
				return verdict(false, "%s: %v", n, err)
			}
			holds, detail := test(s)
			ok = ok && holds
			all = append(all, n+": "+detail)
		}
		return verdict(ok, "%s", strings.Join(all, "; "))
	}}
}

// Says demands that the plan holds a finding.
func Says(code node.Code, at where) Check {
	return everyPlan("says "+string(code), at, finds(string(code), "", ""))
}

// SaysNot demands that the plan does not hold a finding.
func SaysNot(code node.Code, at where) Check {
	has := finds(string(code), "", "")
	return everyPlan("does not say "+string(code), at, func(s spoken) (bool, string) {
		ok, detail := has(s)
		return !ok, detail
	})
}

// Refuses demands that an action for a finding was proposed and that a guard is among those that refused it.
func Refuses(guard node.Guard, code node.Code, at where) Check {
	return everyPlan(fmt.Sprintf("%s refuses to heal %s", guard, code), at, refuses(string(code), string(guard)))
}

// WhateverRefusedBy demands that a guard is among those that refuse each action that is proposed, if any is.
func WhateverRefusedBy(guard node.Guard, at where) Check {
	return everyPlan(string(guard)+" refuses whatever is proposed", at, func(s spoken) (bool, string) {
		for _, r := range s.Refused {
			if ok, _ := refuses(r.Action.Finding, string(guard))(s); !ok {
				return false, s.Summary
			}
		}
		return true, s.Summary
	})
}

// Noted demands that the journal holds a finding, for what may be over by the end of the observation.
func Noted(code node.Code, at where) Check {
	return Check{"noted " + string(code) + " on " + at.name, func(e Evidence) Verdict {
		var missing []string
		for _, n := range at.pick(e) {
			if len(found(e, n, string(code))) == 0 {
				missing = append(missing, "not on "+n)
			}
		}
		return verdict(len(missing) == 0, "%s", orYes(missing))
	}}
}

// NeverNoted demands that the journal does not hold a finding at all.
func NeverNoted(code node.Code, at where) Check {
	return Check{"never noted " + string(code) + " on " + at.name, func(e Evidence) Verdict {
		var wrong []string
		for _, n := range at.pick(e) {
			if len(found(e, n, string(code))) > 0 {
				wrong = append(wrong, "on "+n)
			}
		}
		return verdict(len(wrong) == 0, "%s", orYes(wrong))
	}}
}

// FailedOverOnce demands Patroni's own failover and nothing more: one promotion, and the leader key went to one other
// member and stayed there. It is what happens without pgpatrol, and pgpatrol must not change it.
func FailedOverOnce() Check {
	return Check{"one failover, by Patroni", func(e Evidence) Verdict {
		n, holders := judge.Failovers(e.Records, e.Window), judge.Holders(e.Records, e.Window)
		return verdict(n == 1 && len(holders) == 2, "%d promotions, leader key: %s", n, strings.Join(holders, ", "))
	}}
}

// NeverShown demands that a text that came from outside is repeated neither in a plan nor in a journal.
func NeverShown(text string) Check {
	return Check{fmt.Sprintf("never repeats %q", text), func(e Evidence) Verdict {
		for n, plan := range e.Plans {
			if strings.Contains(plan, text) {
				return verdict(false, "in the plan of %s", n)
			}
		}
		for _, r := range e.Records {
			if r.Journal != nil && strings.Contains(string(r.Journal.Line), text) {
				return verdict(false, "in the journal of %s", r.Node)
			}
		}
		return verdict(true, "yes")
	}}
}

// sample is one look at an agent's process from outside, made by systemd, /proc and journald.
type sample struct {
	node, invocation   string
	restarts           int
	pid, ticks, rss    int // CPU ticks of 10 ms since its start; resident KiB
	lines, connections int // logged so far; accepted so far by the listener that never answers
	at                 time.Time
}

// look writes a sample of every agent into the records.
func look(ctx context.Context, r *Run) error {
	if !r.Agents {
		return nil
	}
	const script = `show() { systemctl show -p "$1" --value pgpatrol.service; }
p=$(show MainPID)
echo "$(show InvocationID) $(show NRestarts) $p $(sed 's/.*) //' "/proc/$p/stat" | cut -d' ' -f12,13 | tr ' ' +) \
$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$p/status") $(journalctl --no-pager -o cat -u pgpatrol.service "_SYSTEMD_INVOCATION_ID=$(show InvocationID)" | wc -l) \
$(cat /run/lab/mute.log 2>/dev/null | wc -l)"`
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range r.Stack.AgentNodes() {
		g.Go(func() error {
			text, err := r.Stack.Exec(ctx, n, script)
			if err != nil {
				return fmt.Errorf("look at the agent of %s: %w: %s", n.Name, err, text)
			}
			r.collector.mark("agent", n.Name+" "+text)
			return nil
		})
	}
	return g.Wait()
}

func samples(e Evidence) map[string][]sample {
	out := map[string][]sample{}
	for _, r := range e.Records {
		if r.Mark == nil || r.Mark.Name != "agent" {
			continue
		}
		s := sample{at: r.At}
		var user, system int
		text := strings.Replace(r.Mark.Text, "+", " ", 1)
		if _, err := fmt.Sscan(text, &s.node, &s.invocation, &s.restarts, &s.pid, &user, &system, &s.rss, &s.lines, &s.connections); err != nil {
			s.node, s.invocation = strings.Fields(r.Mark.Text + " ?")[0], "unreadable: "+r.Mark.Text
		}
		s.ticks = user + system
		out[s.node] = append(out[s.node], s)
	}
	return out
}

// AgentsLived demands that every agent is the same process at the end as at the beginning: none crashed.
func AgentsLived() Check {
	return Check{"every agent lives on", func(e Evidence) Verdict {
		all := samples(e)
		for _, n := range onEveryNode().pick(e) {
			s := all[n]
			if len(s) < 2 {
				return verdict(false, "%s was looked at %d times", n, len(s))
			}
			first, last := s[0], s[len(s)-1]
			if first.invocation != last.invocation || first.pid != last.pid || last.pid == 0 || last.restarts != 0 {
				return verdict(false, "%s: invocation %s pid %d -> %s pid %d, %d restarts", n, first.invocation, first.pid, last.invocation, last.pid, last.restarts)
			}
		}
		return verdict(true, "%s", agentFigures(e))
	}}
}

// AgentsCalm demands that no agent used more than a share of one core, logged more than some lines a minute, or connected
// more often than once a second to somebody who never answers, and that each went on trying.
func AgentsCalm(share float64, lines int) Check {
	return Check{fmt.Sprintf("every agent below %.1f %% of a core", 100*share), func(e Evidence) Verdict {
		for n, s := range samples(e) {
			first, last := s[0], s[len(s)-1]
			secs := last.at.Sub(first.at).Seconds()
			tries := last.connections - first.connections
			switch {
			case float64(last.ticks-first.ticks)/100 > share*secs:
				return verdict(false, "%s spins: %s", n, agentFigures(e))
			case last.lines-first.lines > lines:
				return verdict(false, "%s chatters: %s", n, agentFigures(e))
			case tries == 0 || float64(tries) > secs:
				return verdict(false, "%s connected %d times in %.0f s: %s", n, tries, secs, agentFigures(e))
			}
		}
		return verdict(len(samples(e)) > 0, "%s", agentFigures(e))
	}}
}

func agentFigures(e Evidence) string {
	var out []string
	all := samples(e)
	for _, n := range onEveryNode().pick(e) {
		if s := all[n]; len(s) > 1 {
			first, last := s[0], s[len(s)-1]
			out = append(out, fmt.Sprintf("%s %d ticks, %d lines, %d connections in %s, %d MiB",
				n, last.ticks-first.ticks, last.lines-first.lines, last.connections-first.connections, last.at.Sub(first.at).Round(time.Second), last.rss>>10))
		}
	}
	return strings.Join(out, "; ")
}

func orYes(wrong []string) string {
	if len(wrong) == 0 {
		return "yes"
	}
	return strings.Join(wrong, "; ")
}

// watching looks at the agents' processes, breaks something, waits for d, and looks again.
func watching(d time.Duration, f Func) Func {
	return func(ctx context.Context, r *Run) error {
		if err := look(ctx, r); err != nil {
			return err
		}
		if err := f(ctx, r); err != nil {
			return err
		}
		if err := r.Sleep(ctx, d); err != nil {
			return err
		}
		return look(ctx, r)
	}
}

func lasts(d time.Duration) func(stack.Timings) time.Duration {
	return func(stack.Timings) time.Duration { return d }
}
