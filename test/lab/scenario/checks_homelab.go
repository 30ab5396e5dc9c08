package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/gate"
	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// thing is a service of the homelab by the name that its manager's witness has for it.
type thing string

// The things that pgpatrol looks after there.
const (
	etcdNAS   thing = stack.EtcdNAS // a container, by Docker
	etcdMBP   thing = stack.EtcdMBP // a container, by Docker
	etcdJP1   thing = stack.EtcdJP1 // by OpenRC
	socat     thing = stack.Socat   // by systemd
	socatPeer thing = stack.SocatPeer
	vm        thing = stack.VM  // by systemd, only where a scenario has set it up
	through   thing = "through" // the member on mbp, asked as its clients do, through the forwarder
)

func things() []thing { return []thing{etcdNAS, etcdMBP, etcdJP1, socat, socatPeer} }

// node is where the witness of its manager is.
func (t thing) node() string {
	switch t {
	case etcdNAS, etcdMBP:
		return stack.TheEngine
	case etcdJP1:
		return stack.JP1
	}
	return stack.MBP
}

// member is the name of a member of etcd on records.
func (t thing) member() string {
	if t == etcdJP1 {
		return stack.JP1
	}
	return string(t)
}

// lives returns the lives of a thing, the first being the one before the fault.
func (t thing) lives(e Evidence) []judge.Invocation {
	return slices.DeleteFunc(judge.Invocations(e.Records, e.since(), t.node(), string(t)), func(i judge.Invocation) bool { return !t.lived(e, i.ID) })
}

// lived reports whether a run was ever seen to be active: systemd gives an id to a start that fails, too.
func (t thing) lived(e Evidence, id string) bool {
	return slices.ContainsFunc(e.Records, func(r record.Record) bool {
		return r.Unit != nil && r.Node == t.node() && r.Unit.InvocationID == id && r.Unit.ActiveState == "active"
	})
}

// freshAtEnd is how old what a witness said last may be at the end: the word of one that fell silent before is none.
const freshAtEnd = 2 * judge.StateHolds

// last returns what the manager said of a thing last, nothing where it fell silent before the end.
func (t thing) last(e Evidence) record.Unit {
	var u record.Unit
	for _, r := range e.Records {
		if r.Unit != nil && r.Node == t.node() && r.Unit.Name == string(t) && !r.At.After(e.Window.To) && e.Window.To.Sub(r.At) <= freshAtEnd {
			u = *r.Unit
		}
	}
	return u
}

// ThingReplacedWithin demands exactly one new life of a thing, begun within limit of the mark and active at the end.
func ThingReplacedWithin(t thing, limit time.Duration, mark string) Check {
	return Check{fmt.Sprintf("%s lives again within %s of %s", t, limit, mark), func(e Evidence) Verdict {
		at, _, ok := marked(e, mark)
		lives := t.lives(e)
		if !ok || len(lives) < 2 {
			return verdict(false, "%d lives, %s at the end", len(lives), t.last(e).ActiveState)
		}
		after := lives[1].FirstSeen.Sub(at)
		return verdict(after > 0 && after <= limit && len(lives) == 2 && t.last(e).ActiveState == "active",
			"at +%s, %d new lives, %s at the end", round(after), len(lives)-1, t.last(e).ActiveState)
	}}
}

// ThingNotReplacedBefore demands that a thing has no new life for so long after the mark, by the word of its manager.
func ThingNotReplacedBefore(t thing, limit time.Duration, mark string) Check {
	return Check{fmt.Sprintf("%s lives on for %s after %s", t, limit, mark), func(e Evidence) Verdict {
		at, _, ok := marked(e, mark)
		lives := t.lives(e)
		if !ok || len(lives) == 0 {
			return verdict(false, "%d lives, or no mark %q", len(lives), mark)
		}
		if len(lives) == 1 {
			return verdict(e.Window.To.Sub(at) >= limit, "throughout")
		}
		after := lives[1].FirstSeen.Sub(at)
		return verdict(after >= limit, "replaced at +%s", round(after))
	}}
}

// ThingsUntouched demands that each of them lives the life that it had before the fault.
func ThingsUntouched(all ...thing) Check {
	return Check{"untouched: " + join(all), func(e Evidence) Verdict {
		for _, t := range all {
			if n, u := len(t.lives(e)), t.last(e); n != 1 || u.ActiveState != "active" {
				return verdict(false, "%s: %d lives, %s at the end", t, n, u.ActiveState)
			}
		}
		return verdict(true, "one life each")
	}}
}

// except lists the things that are not named.
func except(some ...thing) []thing {
	return slices.DeleteFunc(things(), func(t thing) bool { return slices.Contains(some, t) })
}

// ThingStaysDown demands that a thing does not run at the end, and that nobody has started it since the fault.
func ThingStaysDown(t thing) Check {
	return Check{string(t) + " stays down", func(e Evidence) Verdict {
		n, u := len(t.lives(e)), t.last(e)
		return verdict(n <= 1 && u.ActiveState != "active" && u.ActiveState != "", "%d new lives, %s at the end", max(0, n-1), orUnknown(u.ActiveState))
	}}
}

// Lived demands that many new lives of a thing.
func Lived(t thing, least, most int) Check {
	return Check{fmt.Sprintf("%s: %d to %d new lives", t, least, most), func(e Evidence) Verdict {
		n := len(t.lives(e)) - 1
		return verdict(n >= least && n <= most, "%d, %s at the end", n, t.last(e).ActiveState)
	}}
}

func join(all []thing) string {
	var names []string
	for _, t := range all {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// said returns what a member of etcd said of itself since the fault.
func (t thing) said(e Evidence) []record.Record {
	var out []record.Record
	for _, r := range e.Records {
		if r.Etcd != nil && r.Etcd.Name == t.member() && !r.At.Before(e.Fault) && !r.At.After(e.Window.To) {
			out = append(out, r)
		}
	}
	return out
}

// CaughtUpWithin demands that a member was healthy from within limit of the mark on, with an index of raft that is no less
// than what another one had a moment before.
func CaughtUpWithin(t thing, limit time.Duration, mark string) Check {
	return Check{fmt.Sprintf("%s caught up within %s of %s", t, limit, mark), func(e Evidence) Verdict {
		at, _, ok := marked(e, mark)
		said := t.said(e)
		sick := 0
		for i, r := range said {
			if !r.Etcd.Healthy {
				sick = i + 1
			}
		}
		if !ok || sick == 0 || sick >= len(said) {
			return verdict(false, "sick at %d of %d looks, or no mark %q", sick, len(said), mark)
		}
		first, last := said[sick], said[len(said)-1]
		if quiet := e.Window.To.Sub(last.At); quiet > freshAtEnd {
			return verdict(false, "not heard for %s at the end", round(quiet))
		}
		var others uint64
		for _, o := range []thing{etcdNAS, etcdMBP, etcdJP1} {
			for _, r := range o.said(e) {
				if o != t && r.Etcd.Answered && r.At.Before(last.At.Add(-time.Second)) {
					others = max(others, r.Etcd.Index)
				}
			}
		}
		after := first.At.Sub(at)
		return verdict(after <= limit && last.Etcd.Index >= others && others > 0, "healthy from +%s, index %d at the end, another had %d", round(after), last.Etcd.Index, others)
	}}
}

// MemberSickAtEnd demands that a member of etcd is not healthy at the end.
func MemberSickAtEnd(t thing) Check { return memberAtEnd(t, "sick", false) }

// MemberWellAtEnd demands that a member of etcd is healthy at the end.
func MemberWellAtEnd(t thing) Check { return memberAtEnd(t, "well", true) }

func memberAtEnd(t thing, word string, healthy bool) Check {
	return Check{string(t) + " " + word + " at the end", func(e Evidence) Verdict {
		said := t.said(e)
		if len(said) == 0 {
			return verdict(false, "was not asked")
		}
		last := said[len(said)-1]
		quiet := e.Window.To.Sub(last.At)
		return verdict(last.Etcd.Healthy == healthy && quiet <= freshAtEnd, "healthy %t, %s before the end", last.Etcd.Healthy, round(quiet))
	}}
}

// electionTime is how long a member may have no leader when the one that led has gone.
const electionTime = 4 * time.Second

// MembersHealthy demands that every one of these members of etcd was healthy throughout, but for an election.
func MembersHealthy(all ...thing) Check {
	return Check{"healthy throughout: " + join(all), func(e Evidence) Verdict {
		var longest time.Duration
		for _, t := range all {
			well := e.Fault
			said := t.said(e)
			for _, r := range said {
				if longest = max(longest, r.At.Sub(well)); r.Etcd.Healthy {
					well = r.At
				}
			}
			if len(said) == 0 {
				return verdict(false, "%s was not asked", t)
			}
			longest = max(longest, e.Window.To.Sub(well)) // silence is no health
		}
		return verdict(longest <= electionTime, "not for %s at most", round(longest))
	}}
}

// Acted demands exactly one action on each of these nodes, with that verb and class, and none anywhere else.
func Acted(verb, class string, nodes ...string) Check {
	return Check{"one action each on " + strings.Join(nodes, ", ") + ": " + verb + ", class " + class, func(e Evidence) Verdict {
		var seen []string
		ok := len(judge.Intents(e.Records)) == len(nodes)
		for _, l := range journals(e) {
			if l.Kind != "intent" || l.Action == nil {
				continue
			}
			ok = ok && slices.Contains(nodes, l.node) && l.Action.Verb == verb && l.Action.Class == class
			seen = append(seen, fmt.Sprintf("%s (%s) on %s at +%s", l.Action.Verb, l.Action.Class, l.node, round(l.Wall.Sub(e.Fault))))
		}
		for _, n := range nodes {
			ok = ok && slices.ContainsFunc(seen, func(s string) bool { return strings.Contains(s, " on "+n+" ") })
		}
		return verdict(ok, "%s", orUnknown(strings.Join(seen, ", ")))
	}}
}

// NotActedBefore demands that nothing was begun earlier than that after the fault.
func NotActedBefore(limit time.Duration) Check {
	return Check{"nothing done before " + limit.String(), func(e Evidence) Verdict {
		for _, l := range journals(e) {
			if l.Kind == "intent" && l.Wall.Sub(e.Fault) < limit {
				return verdict(false, "on %s at +%s", l.node, round(l.Wall.Sub(e.Fault)))
			}
		}
		return verdict(true, "nothing")
	}}
}

// AgentUnder demands that the main process of the agent's container never had more memory than that resident, the pages
// of the program itself included.
func AgentUnder(limit int64) Check {
	return Check{fmt.Sprintf("the agent's container under %d MB", limit>>20), func(e Evidence) Verdict {
		most := agentMost(e)
		return verdict(most.Peak > 0 && most.Peak < limit, "%.1f MB at most, %.1f MB of it anonymous at the end", megabytes(most.Peak), megabytes(most.Anonymous))
	}}
}

// agentMost is the measurement with the highest peak.
func agentMost(e Evidence) record.Memory {
	var most record.Memory
	for _, r := range e.Records {
		if r.Memory != nil && r.Memory.Peak >= most.Peak {
			most = *r.Memory
		}
	}
	return most
}

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }

// NothingRefused demands that no agent asked a Docker engine for anything that is not on the list.
func NothingRefused() Check {
	return Check{"only documented calls to Docker", func(e Evidence) Verdict {
		for _, r := range e.Refused {
			if !r.Told {
				return verdict(false, "%s %s", r.Method, r.Path)
			}
		}
		return verdict(true, "none refused")
	}}
}

// OrderRefused demands that a gate refused an agent's order at most so often.
func OrderRefused(most int) Check {
	return Check{fmt.Sprintf("at most %d orders refused", most), func(e Evidence) Verdict {
		n := 0
		for _, r := range e.Refused {
			if r.Told && !strings.Contains(r.Path, "/_") {
				n++
			}
		}
		return verdict(n <= most, "%d", n)
	}}
}

// refusals returns what the gates refused since then.
func refusals(ctx context.Context, s *stack.Stack, since time.Time) ([]gate.Refusal, error) {
	var out []gate.Refusal
	for _, n := range s.Of(stack.Gate) {
		text, err := s.Refusals(ctx, n, since)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines([]byte(text)) {
			var r gate.Refusal
			if err := json.Unmarshal(line, &r); err != nil {
				return nil, fmt.Errorf("read what %s refused: %w: %.200s", n.Name, err, line)
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// FoundOn demands that the journal on a node holds a finding of that code not later than limit after the fault.
func FoundOn(node, code string, limit time.Duration) Check {
	return Check{fmt.Sprintf("%s on %s within %s", code, node, limit), func(e Evidence) Verdict {
		all := slices.DeleteFunc(found(e, node, code), func(at time.Time) bool { return at.Before(e.Fault) })
		if len(all) == 0 {
			return verdict(false, "never")
		}
		return verdict(all[0].Sub(e.Fault) <= limit, "at +%s", round(all[0].Sub(e.Fault)))
	}}
}

// findsBoth demands a finding of that code for each of the words.
func findsBoth(code string, words ...string) func(spoken) (bool, string) {
	return func(s spoken) (bool, string) {
		var texts []string
		for _, f := range s.Findings {
			if f.Code == code {
				texts = append(texts, f.Text)
			}
		}
		for _, w := range words {
			if !slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, w) }) {
				return false, strings.Join(texts, " ")
			}
		}
		return true, strings.Join(texts, " ")
	}
}

// saysOn is a check of one agent's plan at the end of the observation.
func saysOn(node, name string, test func(spoken) (bool, string)) Check {
	return Check{"plan on " + node + ": " + name, func(e Evidence) Verdict {
		s, err := planOf(e, "", node)
		if err != nil {
			return verdict(false, "%v", err)
		}
		ok, detail := test(s)
		return verdict(ok, "%s", detail)
	}}
}
