// Package judge says what records prove: pure functions of records and a window of time.
//
// It believes witnesses (the writer, the databases, systemd, HAProxy, etcd) and nothing that pgpatrol says of itself,
// with one exception: a journal that shows an intent proves that something was begun. Silence proves nothing: where
// a witness was not heard the functions assume neither up nor down, and Silence says for how long.
package judge

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// StateHolds is how long an observation is taken to hold while no newer one follows. Witnesses repeat themselves
// every second or so.
const StateHolds = 2500 * time.Millisecond

// Window is the time that is judged.
type Window struct{ From, To time.Time }

func (w Window) holds(t time.Time) bool { return !t.Before(w.From) && !t.After(w.To) }

// Span is a stretch of time.
type Span struct{ From, To time.Time }

// Length returns how long the span is, never less than zero.
func (s Span) Length() time.Duration { return max(0, s.To.Sub(s.From)) }

func (s Span) clip(w Window) Span {
	if s.From.Before(w.From) {
		s.From = w.From
	}
	if s.To.After(w.To) {
		s.To = w.To
	}
	return s
}

// LongestGap returns the longest time within the window in which no write was acknowledged. Gaps below the writer's
// threshold (200 ms) are not recorded and count as zero.
func LongestGap(recs []record.Record, w Window) Span {
	var longest Span
	for _, r := range recs {
		if r.Gap == nil {
			continue
		}
		if s := (Span{r.Gap.From, r.Gap.To}).clip(w); s.Length() > longest.Length() {
			longest = s
		}
	}
	return longest
}

// Errors counts the writer's errors within the window by SQLSTATE; errors without one are counted by the step that
// failed ("connect", "write").
func Errors(recs []record.Record, w Window) map[string]int {
	n := map[string]int{}
	for _, r := range recs {
		if r.Error == nil || !w.holds(r.At) || r.Error.Step == "count" {
			continue
		}
		key := r.Error.SQLState
		if key == "" {
			key = r.Error.Step
		}
		n[key]++
	}
	return n
}

// Writable returns for every node the spans within the window in which it was seen to be a writable primary.
func Writable(recs []record.Record, w Window) map[string][]Span {
	spans := map[string][]Span{}
	for node, list := range byNode(recs, func(r record.Record) bool { return r.PG != nil }) {
		for i, r := range list {
			if !r.PG.Writable() {
				continue
			}
			end := r.At.Add(StateHolds)
			if i+1 < len(list) && list[i+1].At.Before(end) {
				end = list[i+1].At
			} else if i+1 == len(list) {
				end = r.At // nothing is known after the last word
			}
			spans[node] = extend(spans[node], Span{r.At, end}.clip(w))
		}
	}
	return spans
}

func extend(spans []Span, s Span) []Span {
	if s.To.Before(s.From) {
		return spans
	}
	if n := len(spans); n > 0 && !spans[n-1].To.Before(s.From) {
		spans[n-1].To = s.To
		return spans
	}
	return append(spans, s)
}

// SecondPrimary returns the spans within the window in which two or more nodes were writable at once.
func SecondPrimary(recs []record.Record, w Window) []Span {
	type edge struct {
		at    time.Time
		delta int
	}
	var edges []edge
	for _, spans := range Writable(recs, w) {
		for _, s := range spans {
			edges = append(edges, edge{s.From, 1}, edge{s.To, -1})
		}
	}
	// At the same instant an end comes before a beginning: touching is not overlapping.
	slices.SortFunc(edges, func(a, b edge) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.delta - b.delta
	})
	var out []Span
	count := 0
	for _, e := range edges {
		before := count
		count += e.delta
		switch {
		case before < 2 && count >= 2:
			out = append(out, Span{From: e.at})
		case before >= 2 && count < 2:
			out[len(out)-1].To = e.at
		}
	}
	return slices.DeleteFunc(out, func(s Span) bool { return s.Length() == 0 })
}

// Total adds the lengths of spans.
func Total(spans []Span) time.Duration {
	var d time.Duration
	for _, s := range spans {
		d += s.Length()
	}
	return d
}

// Failovers counts the promotions that were seen: each time a writable node showed a higher timeline than any before.
func Failovers(recs []record.Record, w Window) int {
	n, highest := 0, 0
	for _, r := range sorted(recs) {
		if r.PG == nil || !r.PG.Writable() || r.At.After(w.To) {
			continue
		}
		if r.PG.Timeline > highest {
			if highest > 0 && w.holds(r.At) {
				n++
			}
			highest = r.PG.Timeline
		}
	}
	return n
}

// Holders returns the sequence of members that held the leader key within the window, without repetitions.
func Holders(recs []record.Record, w Window) []string {
	var out []string
	for _, r := range sorted(recs) {
		if r.Lock == nil || r.Lock.Holder == "" || !w.holds(r.At) {
			continue
		}
		if len(out) == 0 || out[len(out)-1] != r.Lock.Holder {
			out = append(out, r.Lock.Holder)
		}
	}
	return out
}

// Postmasters returns the start times of the postmasters that answered on a node within the window, in order. One
// means that PostgreSQL was never restarted there.
func Postmasters(recs []record.Record, w Window, node string) []time.Time {
	var out []time.Time
	for _, r := range sorted(recs) {
		if r.PG == nil || r.Node != node || !r.PG.Answered || !w.holds(r.At) {
			continue
		}
		if !slices.ContainsFunc(out, r.PG.Started.Equal) {
			out = append(out, r.PG.Started)
		}
	}
	return out
}

// Invocation is one life of a unit.
type Invocation struct {
	ID        string
	FirstSeen time.Time // active with this id
}

// Invocations returns the lives of a unit that were seen within the window, in order; the first is the one that was
// there when the window opened. A unit that is not active has no new life.
func Invocations(recs []record.Record, w Window, node, unit string) []Invocation {
	var out []Invocation
	for _, r := range sorted(recs) {
		if r.Unit == nil || r.Node != node || r.Unit.Name != unit || r.Unit.InvocationID == "" || !w.holds(r.At) {
			continue
		}
		if !slices.ContainsFunc(out, func(i Invocation) bool { return i.ID == r.Unit.InvocationID }) {
			out = append(out, Invocation{r.Unit.InvocationID, r.At})
		}
	}
	return out
}

// Restarts returns by how much NRestarts of a unit rose within the window.
func Restarts(recs []record.Record, w Window, node, unit string) int {
	first, highest := -1, -1
	for _, r := range sorted(recs) {
		if r.Unit == nil || r.Node != node || r.Unit.Name != unit || r.Unit.ActiveState == "" || !w.holds(r.At) {
			continue
		}
		if first < 0 {
			first = int(r.Unit.NRestarts)
		}
		highest = max(highest, int(r.Unit.NRestarts))
	}
	return highest - first
}

// ProxyDown returns the spans within the window in which HAProxy had no server up.
func ProxyDown(recs []record.Record, w Window) []Span {
	var out []Span
	var since time.Time
	for _, r := range sorted(recs) {
		if r.Proxy == nil || r.Proxy.Text != "" {
			continue
		}
		up := false
		for _, status := range r.Proxy.Servers {
			// "UP 1/3" is up as well, on its way down.
			up = up || len(status) >= 2 && status[:2] == "UP"
		}
		switch {
		case !up && since.IsZero():
			since = r.At
		case up && !since.IsZero():
			out = extend(out, Span{since, r.At}.clip(w))
			since = time.Time{}
		}
	}
	if !since.IsZero() {
		out = extend(out, Span{since, w.To}.clip(w))
	}
	return out
}

// Totals returns what the writer knew at its end, or nil where it never said.
func Totals(recs []record.Record) *record.Totals {
	for _, r := range slices.Backward(recs) {
		if r.Totals != nil {
			return r.Totals
		}
	}
	return nil
}

// Intents returns the journal lines of all agents that say an action was begun.
func Intents(recs []record.Record) []record.Record {
	var out []record.Record
	for _, r := range recs {
		if r.Journal != nil && r.Journal.Kind == "intent" {
			out = append(out, r)
		}
	}
	return out
}

// Silence returns the longest time within the window in which nothing was heard from the witness that writes records
// which pick accepts. No record at all is silence for the whole window.
func Silence(recs []record.Record, w Window, pick func(record.Record) bool) time.Duration {
	last, longest := w.From, time.Duration(0)
	for _, r := range sorted(recs) {
		if !pick(r) || !w.holds(r.At) {
			continue
		}
		longest = max(longest, r.At.Sub(last))
		last = r.At
	}
	return max(longest, w.To.Sub(last))
}

func byNode(recs []record.Record, pick func(record.Record) bool) map[string][]record.Record {
	m := map[string][]record.Record{}
	for _, r := range sorted(recs) {
		if pick(r) {
			m[r.Node] = append(m[r.Node], r)
		}
	}
	return m
}

// sorted returns the records in the order of their times: they come from several streams.
func sorted(recs []record.Record) []record.Record {
	byTime := func(a, b record.Record) int { return a.At.Compare(b.At) }
	if slices.IsSortedFunc(recs, byTime) {
		return recs
	}
	out := slices.Clone(recs)
	slices.SortStableFunc(out, byTime)
	return out
}
