package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// The checks in this file are for scenarios in which nothing must be done. Three things are asked of each: that the
// fault really happened, that the managers saw nobody but the injector, and that the agent said why it kept still.

// place is a node by its part in the scenario.
type place int

const (
	theLeader  place = iota // that led when the fault came
	theReplica              // the first of the other two: Run.Replicas[0]
	theSpare                // the second
)

func (p place) String() string {
	return [...]string{"the leader", "the replica", "the other replica"}[p]
}

// of returns the node's name.
func (p place) of(e Evidence) string {
	if p == theLeader {
		return e.Leader
	}
	n := theReplica
	for _, name := range []string{"pg1", "pg2", "pg3"} {
		if name == e.Leader {
			continue
		}
		if n == p {
			return name
		}
		n++
	}
	return ""
}

// since is the window with a moment of health before it: what a fault replaces at once must have been seen to be counted.
func (e Evidence) since() judge.Window {
	return judge.Window{From: e.Window.From.Add(-judge.StateHolds), To: e.Window.To}
}

// spoken is what an agent says in `pgpatrol plan --json`, as far as checks ask.
type spoken struct {
	Summary  string         `json:"summary"`
	Findings []saidFinding  `json:"findings"`
	Allowed  []saidAction   `json:"allowed"`
	Refused  []saidRefusals `json:"refused"`
}

type saidFinding struct{ Code, Severity, Text, Advice string }

type saidAction struct{ Verb, Finding string }

type saidRefusals struct {
	Action   saidAction
	Verdicts []struct{ Guard, Text string }
}

// planOf returns what the agent on a node said: at the end of the observation, or at the moment that notePlans named.
func planOf(e Evidence, at string, node string) (spoken, error) {
	text := e.Plans[node]
	if at != "" {
		text = ""
		for _, r := range e.Records {
			if r.Mark != nil && r.Mark.Name == planMark(at, node) {
				text = r.Mark.Text
			}
		}
	}
	var p spoken
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return p, fmt.Errorf("no plan: %.120s", text)
	}
	return p, nil
}

func planMark(at, node string) string { return "plan " + at + " " + node }

// notePlans asks every agent for its plan in the middle of a scenario and keeps the answers for checks.
func notePlans(ctx context.Context, r *Run, at string) {
	if !r.Agents {
		return
	}
	for node, text := range r.Stack.Plans(ctx) {
		r.collector.mark(planMark(at, node), text)
	}
}

// says is a check of one agent's plan at the end of the observation.
func says(p place, name string, test func(spoken) (bool, string)) Check {
	return saysAt("", p, name, test)
}

// saysAt is says at a moment that notePlans named.
func saysAt(at string, p place, name string, test func(spoken) (bool, string)) Check {
	return Check{strings.TrimSpace("plan on "+p.String()+" "+at) + ": " + name, func(e Evidence) Verdict {
		s, err := planOf(e, at, p.of(e))
		if err != nil {
			return verdict(false, "%v", err)
		}
		ok, detail := test(s)
		return verdict(ok, "%s", detail)
	}}
}

// finds demands a finding of that code and severity ("" for any) whose text contains words.
func finds(code, severity, words string) func(spoken) (bool, string) {
	return func(s spoken) (bool, string) {
		for _, f := range s.Findings {
			if f.Code == code {
				text := f.Text + " " + f.Advice
				return (severity == "" || f.Severity == severity) && strings.Contains(text, words), f.Severity + ": " + f.Text
			}
		}
		return false, "not there: " + s.Summary
	}
}

// refuses demands that an action for that finding is refused by that guard, whoever else refuses it.
func refuses(code, guard string) func(spoken) (bool, string) {
	return func(s spoken) (bool, string) {
		for _, r := range s.Refused {
			for _, v := range r.Verdicts {
				if r.Action.Finding == code && v.Guard == guard {
					return true, v.Text
				}
			}
		}
		return false, s.Summary
	}
}

// quiet demands that nothing is found and nothing refused, and that the summary contains words.
func quiet(words string) func(spoken) (bool, string) {
	return func(s spoken) (bool, string) {
		ok := len(s.Findings)+len(s.Allowed)+len(s.Refused) == 0 && strings.Contains(s.Summary, words)
		return ok, s.Summary
	}
}

// either demands one or the other.
func either(one, other func(spoken) (bool, string)) func(spoken) (bool, string) {
	return func(s spoken) (bool, string) {
		if ok, detail := one(s); ok {
			return ok, detail
		}
		return other(s)
	}
}

// FoundWithin demands that the journal on a node holds a finding of that code not later than limit after the fault.
func FoundWithin(p place, code string, limit time.Duration) Check {
	return Check{fmt.Sprintf("%s on %s within %s", code, p, limit), func(e Evidence) Verdict {
		all := found(e, p.of(e), code)
		if len(all) == 0 {
			return verdict(false, "never")
		}
		after := all[0].Sub(e.Fault)
		return verdict(after >= 0 && after <= limit, "at +%s", round(after))
	}}
}

// NeverFound demands that no agent's journal holds a finding of one of these codes.
func NeverFound(codes ...string) Check {
	return Check{"never " + strings.Join(codes, ", "), func(e Evidence) Verdict {
		for _, code := range codes {
			for _, node := range []string{"pg1", "pg2", "pg3", "hap1", stack.NAS, stack.MBP, stack.JP1} {
				if at := found(e, node, code); len(at) > 0 {
					return verdict(false, "%s on %s at +%s", code, node, round(at[0].Sub(e.Fault)))
				}
			}
		}
		return verdict(true, "not in any journal")
	}}
}

// found returns when a node's journal says that a finding of that code was opened, in the order of the journal.
func found(e Evidence, node, code string) []time.Time {
	var out []time.Time
	for _, r := range e.Records {
		if r.Node != node || r.Journal == nil || r.Journal.Kind != "finding" {
			continue
		}
		var line struct {
			Wall    time.Time
			Finding struct{ Code string }
		}
		if json.Unmarshal(r.Journal.Line, &line) == nil && line.Finding.Code == code {
			out = append(out, line.Wall)
		}
	}
	return out
}

// Lives demands that systemd showed exactly that many lives of Patroni on a node, and that it restarted it by itself
// exactly that often: one life more, and somebody else has started it.
func Lives(p place, lives, restarts int) Check {
	return Check{fmt.Sprintf("%d lives of Patroni on %s, %d by systemd itself", lives, p, restarts), func(e Evidence) Verdict {
		n := len(judge.Invocations(e.Records, e.since(), p.of(e), patroniUnit))
		r := judge.Restarts(e.Records, e.since(), p.of(e), patroniUnit)
		return verdict(n == lives && r == restarts, "%d lives, %d restarts", n, r)
	}}
}

// Untouched demands that Patroni lived one and the same life on every node.
func Untouched(places ...place) Check {
	return Check{"Patroni untouched", func(e Evidence) Verdict {
		for _, p := range places {
			if n := len(judge.Invocations(e.Records, e.since(), p.of(e), patroniUnit)); n != 1 {
				return verdict(false, "%d lives on %s", n, p)
			}
		}
		return verdict(true, "one life each")
	}}
}

// UnitEnds demands how the unit on a node stood at the end ("inactive success") and that it had been so for at least d.
func UnitEnds(p place, want string, d time.Duration) Check {
	return Check{fmt.Sprintf("unit on %s ends %s, for %s", p, want, d), func(e Evidence) Verdict {
		since, last := time.Time{}, ""
		for _, r := range e.Records {
			if r.Node != p.of(e) || r.Unit == nil || r.Unit.Text != "" || r.At.After(e.Window.To) {
				continue
			}
			if s := r.Unit.ActiveState + " " + r.Unit.Result; s != last {
				since, last = r.At, s
			}
		}
		return verdict(last == want && e.Window.To.Sub(since) >= d, "%s since +%s", last, round(since.Sub(e.Fault)))
	}}
}

// UnitWas demands that systemd showed the unit on a node in that state for at least d: the fault was there.
func UnitWas(p place, state string, d time.Duration) Check {
	return Check{fmt.Sprintf("unit on %s was %s for %s", p, state, d), func(e Evidence) Verdict {
		held := holds(e, func(r record.Record) (bool, bool) {
			return r.Unit != nil && r.Node == p.of(e), r.Unit != nil && r.Unit.ActiveState == state
		})
		return verdict(held >= d, "%s", round(held))
	}}
}

// Unanswered demands that PostgreSQL on a node answered nobody for at least d: the fault was there.
func Unanswered(p place, d time.Duration) Check {
	return Check{fmt.Sprintf("PostgreSQL on %s silent for %s", p, d), func(e Evidence) Verdict {
		held := holds(e, func(r record.Record) (bool, bool) {
			return r.PG != nil && r.Node == p.of(e), r.PG != nil && !r.PG.Answered
		})
		return verdict(held >= d, "%s", round(held))
	}}
}

// holds adds up for how long a condition was seen within the window: from each record that shows it to the next of the
// same witness.
func holds(e Evidence, look func(record.Record) (mine, so bool)) time.Duration {
	var total time.Duration
	var since time.Time
	for _, r := range e.Records {
		mine, so := look(r)
		if !mine || r.At.Before(e.Window.From) || r.At.After(e.Window.To) {
			continue
		}
		if !since.IsZero() {
			total += r.At.Sub(since)
			since = time.Time{}
		}
		if so {
			since = r.At
		}
	}
	return total
}

// Postmasters demands that so many postmasters answered on a node.
func Postmasters(p place, n int) Check {
	return Check{fmt.Sprintf("%d postmasters on %s", n, p), func(e Evidence) Verdict {
		got := len(judge.Postmasters(e.Records, e.since(), p.of(e)))
		return verdict(got == n, "%d", got)
	}}
}

// LeaderKeyReplaced demands that the leader key was written anew and kept its holder: it had really been deleted.
func LeaderKeyReplaced() Check {
	return Check{"leader key gone and taken again by the same member", func(e Evidence) Verdict {
		revisions := map[int64]bool{}
		for _, r := range e.Records {
			if r.Lock != nil && r.Lock.Holder != "" {
				revisions[r.Lock.Revision] = true
			}
		}
		holders := judge.Holders(e.Records, e.Window)
		return verdict(len(revisions) == 2 && len(holders) == 1, "%d revisions, held by %s", len(revisions), strings.Join(holders, ", "))
	}}
}

// WriterBroken demands that the writer's session was reset: the fault was there.
func WriterBroken() Check {
	return Check{"the writer's session was reset", func(e Evidence) Verdict {
		n := sum(judge.Errors(e.Records, e.Window))
		return verdict(n > 0, "%d errors", n)
	}}
}

// LeaseNeverBelow demands that the leader's lease never had less than so many seconds left.
func LeaseNeverBelow(left func(e Evidence) int64) Check {
	return Check{"the lease was renewed throughout", func(e Evidence) Verdict {
		lowest := int64(-1)
		for _, r := range e.Records {
			if r.Lock == nil || !r.Lock.Answered || r.At.Before(e.Window.From) || r.At.After(e.Window.To) {
				continue
			}
			if lowest < 0 || r.Lock.Left < lowest {
				lowest = r.Lock.Left
			}
		}
		return verdict(lowest >= left(e), "%d s left at least, want %d", lowest, left(e))
	}}
}

// Marked demands that the scenario itself marked that moment with that text: what it saw when it asked.
func Marked(name, want string) Check {
	return Check{name, func(e Evidence) Verdict {
		for _, r := range e.Records {
			if r.Mark != nil && r.Mark.Name == name {
				return verdict(r.Mark.Text == want, "%s", r.Mark.Text)
			}
		}
		return verdict(false, "not asked")
	}}
}
