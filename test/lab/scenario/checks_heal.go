package scenario

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// atEnd is how much of the window counts as its end.
const atEnd = 3 * time.Second

// marked returns the last mark of that name.
func marked(e Evidence, name string) (at time.Time, text string, ok bool) {
	for _, r := range e.Records {
		if r.Mark != nil && r.Mark.Name == name {
			at, text, ok = r.At, r.Mark.Text, true
		}
	}
	return at, text, ok
}

// target is the node that was broken.
func target(e Evidence) string {
	for _, name := range []string{markTarget, markLastKill} {
		if _, node, ok := marked(e, name); ok {
			return node
		}
	}
	return e.Leader
}

func databases() []string { return []string{"pg1", "pg2", "pg3"} }

// units returns what systemd said of Patroni on a node within the window.
func units(e Evidence, node string) []record.Record {
	var out []record.Record
	for _, r := range e.Records {
		if r.Unit != nil && r.Node == node && r.Unit.Name == patroniUnit && r.Unit.Text == "" && !r.At.Before(e.Window.From) && !r.At.After(e.Window.To) {
			out = append(out, r)
		}
	}
	return out
}

// TargetReplacedWithin demands that the life of Patroni which the broken node has at the end began within limit of the
// mark, and not before it.
func TargetReplacedWithin(limit time.Duration, mark string) Check {
	return Check{"Patroni replaced within " + limit.String() + " of " + mark, func(e Evidence) Verdict {
		since, node, ok := marked(e, mark)
		seen := units(e, node)
		if !ok || len(seen) == 0 {
			return verdict(false, "no mark %q, or systemd not heard", mark)
		}
		last := seen[len(seen)-1].Unit
		if last.ActiveState != "active" || last.MainPID == 0 {
			return verdict(false, "%s at the end", last.ActiveState)
		}
		first := seen[slices.IndexFunc(seen, func(r record.Record) bool { return r.Unit.InvocationID == last.InvocationID })]
		after := first.At.Sub(since)
		return verdict(after > 0 && after <= limit, "on %s at +%s", node, round(after))
	}}
}

// TargetUntouched demands that nobody replaces Patroni on the broken node: the harm of a hang that nobody heals.
func TargetUntouched() Check {
	return Check{"Patroni stays as it is", func(e Evidence) Verdict { return PatroniUntouched(target(e)).Test(e) }}
}

// TargetFailedAtEnd demands that systemd has given up on the broken node's Patroni for good.
func TargetFailedAtEnd() Check {
	return Check{"Patroni failed at the end", func(e Evidence) Verdict {
		seen := units(e, target(e))
		if len(seen) == 0 {
			return verdict(false, "systemd not heard")
		}
		last := seen[len(seen)-1].Unit
		return verdict(last.ActiveState == "failed", "%s", last.ActiveState)
	}}
}

// MemberKeyGone demands that the broken member's key has expired.
func MemberKeyGone() Check {
	return Check{"member key expired", func(e Evidence) Verdict {
		_, text, _ := marked(e, markMemberKey)
		return verdict(text == "absent", "%s", orUnknown(text))
	}}
}

// NewLivesOnLeader demands exactly n new lives of Patroni on the node that led, the last one active.
func NewLivesOnLeader(n int) Check {
	return Check{fmt.Sprintf("%d new life of Patroni on the old leader", n), func(e Evidence) Verdict {
		lives, seen := judge.Invocations(e.Records, e.Window, e.Leader, patroniUnit), units(e, e.Leader)
		if len(lives) == 0 || len(seen) == 0 {
			return verdict(false, "systemd not heard")
		}
		last, detail := seen[len(seen)-1].Unit, "none"
		if len(lives) > 1 {
			detail = fmt.Sprintf("%d, the first at +%s", len(lives)-1, round(lives[1].FirstSeen.Sub(e.Fault)))
		}
		return verdict(len(lives) == n+1 && last.ActiveState == "active", "%s, %s at the end", detail, last.ActiveState)
	}}
}

// OthersUntouched demands that Patroni's unit lives one life on every node but the broken one.
func OthersUntouched() Check {
	return Check{"Patroni untouched on the other nodes", func(e Evidence) Verdict {
		others := slices.DeleteFunc(databases(), func(n string) bool { return n == target(e) })
		return PatroniUntouched(others...).Test(e)
	}}
}

// SamePostmasters demands that PostgreSQL was restarted nowhere.
func SamePostmasters() Check {
	return Check{"same postmaster everywhere", func(e Evidence) Verdict {
		for _, node := range databases() {
			if n := len(judge.Postmasters(e.Records, e.Window, node)); n != 1 {
				return verdict(false, "%d postmasters on %s", n, node)
			}
		}
		return verdict(true, "one each")
	}}
}

// LeaseNeverEnded demands that the leader key was there whenever etcd was asked.
func LeaseNeverEnded() Check {
	return Check{"leader key never gone", func(e Evidence) Verdict {
		gone, least := leaseEnd(e)
		return verdict(gone.IsZero() && least >= 0, "least life left %d s%s", least, since(e, ", gone at", gone))
	}}
}

// LeaseEnded demands that the leader key was gone once.
func LeaseEnded() Check {
	return Check{"leader key gone", func(e Evidence) Verdict {
		gone, least := leaseEnd(e)
		return verdict(!gone.IsZero(), "least life left %d s%s", least, since(e, ", gone at", gone))
	}}
}

func since(e Evidence, what string, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s +%s", what, round(at.Sub(e.Fault)))
}

// leaseEnd returns when the leader key was first seen to be gone, and the least life that etcd ever said is left, in
// seconds, -1 where etcd was not heard.
func leaseEnd(e Evidence) (gone time.Time, least int64) {
	least = -1
	for _, r := range e.Records {
		if r.Lock == nil || !r.Lock.Answered || r.At.Before(e.Window.From) || r.At.After(e.Window.To) {
			continue
		}
		if r.Lock.Holder == "" {
			if gone.IsZero() {
				gone = r.At
			}
			continue
		}
		if least < 0 || r.Lock.Left < least {
			least = r.Lock.Left
		}
	}
	return gone, least
}

// Promotions demands that so many nodes were promoted, and no more.
func Promotions(n int) Check {
	return Check{fmt.Sprintf("%d promotion", n), func(e Evidence) Verdict {
		seen := judge.Failovers(e.Records, e.Window)
		return verdict(seen == n, "%d", seen)
	}}
}

// NoOtherPrimary demands that no node but the leader was ever writable and that the leader key kept its holder.
func NoOtherPrimary() Check {
	return Check{"no other node leads", func(e Evidence) Verdict {
		holders, others := judge.Holders(e.Records, e.Window), []string{}
		for node, spans := range judge.Writable(e.Records, e.Window) {
			if node != e.Leader && len(spans) > 0 {
				others = append(others, node)
			}
		}
		return verdict(len(others) == 0 && len(holders) == 1, "writable beside it: %d, leader key: %s", len(others), strings.Join(holders, ", "))
	}}
}

// writableAtEnd lists the nodes that were writable when the window closed.
func writableAtEnd(e Evidence) []string {
	var nodes []string
	end := judge.Window{From: e.Window.To.Add(-atEnd), To: e.Window.To}
	for node, spans := range judge.Writable(e.Records, e.Window) {
		if len(spans) > 0 && spans[len(spans)-1].To.After(end.From) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// TwoPrimariesAtEnd demands that nobody ended the second primary.
func TwoPrimariesAtEnd() Check {
	return Check{"two primaries at the end", func(e Evidence) Verdict {
		n := writableAtEnd(e)
		return verdict(len(n) == 2, "%s", strings.Join(n, ", "))
	}}
}

// OnePrimaryAtEnd demands that exactly one node is writable at the end.
func OnePrimaryAtEnd() Check {
	return Check{"one primary at the end", func(e Evidence) Verdict {
		n := writableAtEnd(e)
		return verdict(len(n) == 1, "%s", strings.Join(n, ", "))
	}}
}

// LeaderReadOnlyWithin demands that the node that led was last writable within limit of the mark, and writable then.
func LeaderReadOnlyWithin(limit time.Duration, mark string) Check {
	return Check{"old primary read-only within " + limit.String() + " of " + mark, func(e Evidence) Verdict {
		from, _, ok := marked(e, mark)
		spans := judge.Writable(e.Records, e.Window)[e.Leader]
		if !ok || len(spans) == 0 {
			return verdict(false, "no mark %q, or never writable", mark)
		}
		after := spans[len(spans)-1].To.Sub(from)
		return verdict(after > 0 && after <= limit, "at +%s", round(after))
	}}
}

// journalLine is what the checks here read of a line of an agent's journal.
type journalLine struct {
	node string

	Seq     uint64    `json:"seq"`
	Wall    time.Time `json:"wall"`
	Kind    string    `json:"kind"`
	Finding *struct {
		Code      string  `json:"code"`
		Text      string  `json:"text"`
		Advice    string  `json:"advice"`
		Divergent *uint64 `json:"divergent_wal_bytes"`
	} `json:"finding"`
	Plan   *planText `json:"plan"`
	Action *struct {
		Verb  string `json:"verb"`
		Class string `json:"class"`
	} `json:"action"`
	Result *struct {
		Intent uint64 `json:"intent"`
		Result string `json:"result"`
	} `json:"result"`
}

// planText is what the checks here read of a plan.
type planText struct {
	Refused []struct {
		Action struct {
			Verb string `json:"verb"`
		} `json:"action"`
		Verdicts []struct {
			Guard string `json:"guard"`
			Text  string `json:"text"`
		} `json:"verdicts"`
	} `json:"refused"`
}

// journals decodes the agents' journals, by node and in their own order. Lines that cannot be read are left out here;
// judge.Intents counts them.
func journals(e Evidence) []journalLine {
	var out []journalLine
	for _, r := range e.Records {
		if r.Journal == nil {
			continue
		}
		l := journalLine{node: r.Node}
		if err := json.Unmarshal(r.Journal.Line, &l); err == nil && l.Kind != "" {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b journalLine) int {
		return cmp.Or(strings.Compare(a.node, b.node), cmp.Compare(a.Seq, b.Seq))
	})
	return out
}

// OneAction demands that exactly one intent was journaled in the whole cluster, on the broken node, with that verb and
// class.
func OneAction(verb, class string) Check {
	return Check{"one action: " + verb + ", class " + class, func(e Evidence) Verdict {
		n := len(judge.Intents(e.Records))
		for _, l := range journals(e) {
			if l.Kind == "intent" && l.Action != nil {
				a := l.Action
				return verdict(n == 1 && l.node == target(e) && a.Verb == verb && a.Class == class,
					"%d intents, the first %s (%s) on %s at +%s", n, a.Verb, a.Class, l.node, round(l.Wall.Sub(e.Fault)))
			}
		}
		return verdict(false, "%d intents", n)
	}}
}

// ActedAfterLeaseProof demands that the lease had missed a renewal, by etcd's own count, when the first action was begun
// on the leader, and had not ended.
func ActedAfterLeaseProof() Check {
	return Check{"acted when the lease proved it", func(e Evidence) Verdict {
		proof := seconds(e.Timings.TTL-e.Timings.LoopWait) - 2*time.Second
		for _, l := range journals(e) {
			if l.Kind != "intent" {
				continue
			}
			left, ok := leaseLeft(e, l.Wall)
			return verdict(ok && left > 0 && left < proof, "%s left of %d s, proof is below %s", round(left), e.Timings.TTL, proof)
		}
		return verdict(false, "nothing was begun")
	}}
}

// leaseLeft extrapolates the life left of the leader's lease at a moment from the last answer before it. etcd counts
// whole seconds, so the truth lies up to one second above.
func leaseLeft(e Evidence, at time.Time) (time.Duration, bool) {
	left, ok := time.Duration(0), false
	for _, r := range e.Records {
		if r.Lock != nil && r.Lock.Answered && r.Lock.Holder != "" && !r.At.After(at) {
			left, ok = time.Duration(r.Lock.Left)*time.Second-at.Sub(r.At), true
		}
	}
	return left, ok
}

// RefusedBy demands that `pgpatrol plan` on the leader showed the verb refused by the guard.
func RefusedBy(verb, guard string) Check {
	return Check{"plan shows " + verb + " refused by " + guard, func(e Evidence) Verdict {
		text := e.Plans[e.Leader]
		if _, t, ok := marked(e, markPlan); ok {
			text = t
		}
		var p planText
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return verdict(false, "no plan: %.200s", text)
		}
		var seen []string
		for _, r := range p.Refused {
			for _, v := range r.Verdicts {
				seen = append(seen, r.Action.Verb+" by "+v.Guard+" ("+v.Text+")")
				if r.Action.Verb == verb && v.Guard == guard {
					return verdict(true, "%s", v.Text)
				}
			}
		}
		return verdict(false, "refused: %s", orUnknown(strings.Join(seen, ", ")))
	}}
}

// FindingSays demands that a journal has a finding of that code whose text or advice contains every word.
func FindingSays(code string, words ...string) Check {
	return Check{"finding " + code + " says why", func(e Evidence) Verdict {
		best := "no such finding"
		for _, l := range journals(e) {
			if l.Kind != "finding" || l.Finding == nil || l.Finding.Code != code {
				continue
			}
			best = l.Finding.Text + " " + l.Finding.Advice
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(best, w) }) {
				return verdict(true, "%s", best)
			}
		}
		return verdict(false, "%s", best)
	}}
}

// DivergenceRecorded demands that the old leader's journal holds the divergent WAL in bytes, and no less than what was
// written there after the timelines had parted.
func DivergenceRecorded() Check {
	return Check{"divergent WAL in the journal", func(e Evidence) Verdict {
		_, text, _ := marked(e, markZombie)
		written, err := strconv.ParseUint(text, 10, 64)
		var most uint64
		for _, l := range journals(e) {
			if l.node == e.Leader && l.Kind == "finding" && l.Finding != nil && l.Finding.Code == "ZOMBIE_PRIMARY" && l.Finding.Divergent != nil {
				most = max(most, *l.Finding.Divergent)
			}
		}
		return verdict(err == nil && written > 0 && most >= written, "%d bytes, %s written for the test", most, orUnknown(text))
	}}
}

// AgentDied demands that the agent was killed at its failpoint.
func AgentDied() Check {
	return Check{"agent died at its failpoint", func(e Evidence) Verdict {
		at, _, ok := marked(e, markDied)
		return verdict(ok, "%s", orUnknown(since(e, "at", at)))
	}}
}

// Resolved demands that the old leader's journal holds exactly these intents' last results, in order.
func Resolved(results ...string) Check {
	return Check{"intents end as " + strings.Join(results, ", "), func(e Evidence) Verdict {
		var order []uint64
		last, story := map[uint64]string{}, []string{}
		for _, l := range journals(e) {
			switch {
			case l.node != e.Leader:
			case l.Kind == "intent":
				order = append(order, l.Seq)
				story = append(story, since(e, "intent at", l.Wall))
			case l.Kind == "result" && l.Result != nil:
				last[l.Result.Intent] = l.Result.Result
				story = append(story, l.Result.Result+since(e, " at", l.Wall))
			}
		}
		var got []string
		for _, seq := range order {
			got = append(got, last[seq])
		}
		return verdict(slices.Equal(got, results), "%s", strings.Join(story, ", "))
	}}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
