package scenario

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

const patroniUnit = "patroni.service"

func verdict(ok bool, format string, args ...any) Verdict {
	return Verdict{OK: ok, Detail: fmt.Sprintf(format, args...)}
}

// GapUnder demands that the writer never waited as long as limit for an acknowledgement.
func GapUnder(limit time.Duration) Check {
	return Check{"longest write gap under " + limit.String(), func(e Evidence) Verdict {
		gap := judge.LongestGap(e.Records, e.Window).Length()
		return verdict(gap < limit, "%s", round(gap))
	}}
}

// GapOver demands that the writer waited at least limit once: harm that pgpatrol is there to prevent.
func GapOver(limit time.Duration) Check {
	return Check{"longest write gap over " + limit.String(), func(e Evidence) Verdict {
		gap := judge.LongestGap(e.Records, e.Window).Length()
		return verdict(gap >= limit, "%s", round(gap))
	}}
}

// NoFailover demands that no other node was promoted and that the leader key kept its holder.
func NoFailover() Check {
	return Check{"no failover", func(e Evidence) Verdict {
		n, holders := judge.Failovers(e.Records, e.Window), judge.Holders(e.Records, e.Window)
		return verdict(n == 0 && len(holders) <= 1, "%d promotions, leader key: %s", n, strings.Join(holders, ", "))
	}}
}

// NoSecondPrimary demands that never two nodes were writable at once.
func NoSecondPrimary() Check {
	return Check{"no second writable primary", func(e Evidence) Verdict {
		spans := judge.SecondPrimary(e.Records, e.Window)
		return verdict(len(spans) == 0, "%s", secondPrimary(e, spans))
	}}
}

// SecondPrimary demands that two nodes were writable at once: the harm of F02.
func SecondPrimary() Check {
	return Check{"a second writable primary", func(e Evidence) Verdict {
		spans := judge.SecondPrimary(e.Records, e.Window)
		return verdict(len(spans) > 0, "%s", secondPrimary(e, spans))
	}}
}

func secondPrimary(e Evidence, spans []judge.Span) string {
	if len(spans) == 0 {
		return "none"
	}
	return fmt.Sprintf("two at +%s, for %s", round(spans[0].From.Sub(e.Fault)), round(judge.Total(spans)))
}

// SamePostmaster demands that PostgreSQL on the leader was never restarted.
func SamePostmaster() Check {
	return Check{"same postmaster on the leader", func(e Evidence) Verdict {
		n := len(judge.Postmasters(e.Records, e.Window, e.Leader))
		return verdict(n == 1, "%d postmasters", n)
	}}
}

// PatroniReplacedWithin demands that systemd shows exactly one new life of Patroni on the leader, active within
// limit of the fault.
func PatroniReplacedWithin(limit time.Duration) Check {
	return Check{"Patroni replaced within " + limit.String(), func(e Evidence) Verdict {
		lives := judge.Invocations(e.Records, e.Window, e.Leader, patroniUnit)
		if len(lives) < 2 {
			return verdict(false, "never")
		}
		after := lives[1].FirstSeen.Sub(e.Fault)
		return verdict(after <= limit && len(lives) == 2, "at +%s, %d new lives", round(after), len(lives)-1)
	}}
}

// PatroniUntouched demands that Patroni's unit lives the same life on every node that is named.
func PatroniUntouched(nodes ...string) Check {
	return Check{"Patroni untouched on " + strings.Join(nodes, ", "), func(e Evidence) Verdict {
		for _, node := range nodes {
			if n := len(judge.Invocations(e.Records, e.Window, node, patroniUnit)); n != 1 {
				return verdict(false, "%d lives on %s", n, node)
			}
		}
		return verdict(true, "one life each")
	}}
}

// NoLostWrites demands that every acknowledged write is in the database at the end.
func NoLostWrites() Check {
	return Check{"no acknowledged write lost", func(e Evidence) Verdict {
		t := judge.Totals(e.Records)
		if t == nil || !t.Counted {
			return verdict(false, "not counted")
		}
		return verdict(t.Lost == 0, "%d of %d lost", t.Lost, t.Acknowledged)
	}}
}

// ProxyNeverDown demands that HAProxy always had a server.
func ProxyNeverDown() Check {
	return Check{"HAProxy never without a server", func(e Evidence) Verdict {
		d := judge.Total(judge.ProxyDown(e.Records, e.Window))
		return verdict(d == 0, "%s without", round(d))
	}}
}

// NoAction demands that no agent began anything.
func NoAction() Check {
	return Check{"not one action", func(e Evidence) Verdict {
		intents := judge.Intents(e.Records)
		if len(intents) == 0 {
			return verdict(true, "no intent in any journal")
		}
		return verdict(false, "%d intents, the first on %s: %.200s", len(intents), intents[0].Node, intents[0].Journal.Line)
	}}
}

// watched demands that the evidence is whole: a witness that was not heard must not pass for good news.
func watched(blind []string) Check {
	return Check{"every witness heard throughout", func(e Evidence) Verdict {
		var silent []string
		nodes := []string{"pg1", "pg2", "pg3", "hap1"}
		if e.Homelab {
			nodes = append(nodes, stack.TheEngine, stack.MBP, stack.JP1)
		}
		for _, node := range nodes {
			if slices.Contains(blind, node) {
				continue
			}
			for kind, pick := range witnesses(node) {
				if d := judge.Silence(e.Records, e.Window, pick); d > 2*judge.StateHolds {
					silent = append(silent, fmt.Sprintf("%s of %s for %s", kind, node, round(d)))
				}
			}
		}
		slices.Sort(silent)
		if len(silent) > 0 {
			return verdict(false, "silent: %s", strings.Join(silent, ", "))
		}
		return verdict(true, "yes")
	}}
}

func witnesses(node string) map[string]func(record.Record) bool {
	switch node {
	case stack.TheEngine, stack.MBP, stack.JP1:
		return map[string]func(record.Record) bool{
			"manager": func(r record.Record) bool { return r.Node == node && r.Unit != nil },
		}
	case "hap1":
		return map[string]func(record.Record) bool{
			"writer": func(r record.Record) bool { return r.Beat != nil },
		}
	}
	return map[string]func(record.Record) bool{
		"postgres": func(r record.Record) bool { return r.Node == node && r.PG != nil },
		"systemd":  func(r record.Record) bool { return r.Node == node && r.Unit != nil },
	}
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// replayed demands that every decision of every agent, made again from the inputs in its journal, is the same.
func replayed() Check {
	return Check{"every recorded decision can be made again", func(e Evidence) Verdict {
		same, trouble := replays(e)
		if trouble != "" {
			return verdict(false, "%s", trouble)
		}
		decided := slices.ContainsFunc(e.Records, func(r record.Record) bool {
			return r.Journal != nil && (r.Journal.Kind == "finding" || r.Journal.Kind == "intent")
		})
		return verdict(same > 0 || !decided, "%d decisions on %d nodes", same, len(e.Replays))
	}}
}

// replays counts the decisions that were made again with the same answer, and says what went wrong with others.
func replays(e Evidence) (same int, trouble string) {
	for _, node := range slices.Sorted(maps.Keys(e.Replays)) {
		var t struct {
			Identical int `json:"identical"`
			Different int `json:"different"`
			NoInputs  int `json:"no_inputs"`
		}
		if err := json.Unmarshal([]byte(e.Replays[node]), &t); err != nil {
			return same, fmt.Sprintf("%s says %.200q", node, e.Replays[node])
		}
		if t.Different+t.NoInputs > 0 {
			return same, fmt.Sprintf("%s: %d differ, %d without inputs: %.2000s", node, t.Different, t.NoInputs, e.Replays[node])
		}
		same += t.Identical
	}
	return same, ""
}
