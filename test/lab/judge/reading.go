package judge

import (
	"cmp"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/test/conformance"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// Readings says in the words of package conformance what the witnesses saw from a moment on, in the order of time. Of what
// was seen before, the newest stands for the state at that moment. member gives the node of a Patroni member.
func Readings(recs []record.Record, since time.Time, member func(string) string) []conformance.Reading {
	out := writer(recs, since)
	lives := postmasters{}
	for _, r := range sorted(recs) {
		if reading, ok := reading(r, lives, member); ok {
			reading.At = r.At.Sub(since).Round(10 * time.Millisecond)
			out = append(out, reading)
		}
	}
	slices.SortStableFunc(out, func(a, b conformance.Reading) int { return cmp.Compare(a.At, b.At) })
	return changes(out)
}

// reading says what one record says of one thing.
func reading(r record.Record, lives postmasters, member func(string) string) (conformance.Reading, bool) {
	out := conformance.Reading{Node: r.Node}
	switch {
	case r.PG != nil:
		out.Kind, out.State = conformance.Postgres, conformance.None
		if r.PG.Answered {
			out.State, out.Life = conformance.Follows, lives.number(r.Node, r.PG.Started)
		}
		if r.PG.Writable() {
			out.State = conformance.Primary
		}
	case r.REST != nil:
		out.Kind, out.State = conformance.API, conformance.Down
		if r.REST.Status != 0 {
			out.State = conformance.Up
		}
	case r.Life != nil:
		out.Kind, out.State = conformance.Unit, r.Life.What
	case r.Lock != nil && r.Lock.Answered:
		out.Kind, out.Node, out.State = conformance.Key, "-", conformance.Nobody
		if r.Lock.Holder != "" {
			out.State = member(r.Lock.Holder)
		}
	default:
		return out, false
	}
	return out, true
}

// writer says when the writer wrote and when it waited: a gap is recorded at its end.
func writer(recs []record.Record, since time.Time) []conformance.Reading {
	say := func(at time.Time, state string) conformance.Reading {
		return conformance.Reading{At: at.Sub(since).Round(10 * time.Millisecond), Kind: conformance.Writer, Node: "-", State: state}
	}
	out := []conformance.Reading{say(since.Add(-time.Hour), conformance.Writes)}
	for _, r := range recs {
		if r.Gap == nil {
			continue
		}
		out = append(out, say(r.Gap.From, conformance.Waits))
		if !r.Gap.Open {
			out = append(out, say(r.Gap.To, conformance.Writes))
		}
	}
	return out
}

// changes leaves out what says the same as before of one thing, and all but the newest of what was said before time 0.
func changes(list []conformance.Reading) []conformance.Reading {
	type thing struct {
		kind conformance.Kind
		node string
	}
	last := map[thing]conformance.Reading{}
	var out []conformance.Reading
	for _, r := range list {
		t := thing{r.Kind, r.Node}
		was := last[t]
		last[t] = r
		if r.At >= 0 && (r.Kind == conformance.Unit || was.State != r.State || was.Life != r.Life) {
			out = append(out, r)
		}
		if r.At < 0 && r.Kind != conformance.Unit {
			out = append(slices.DeleteFunc(out, func(o conformance.Reading) bool { return o.Kind == r.Kind && o.Node == r.Node }), r)
		}
	}
	for i := range out {
		out[i].At = max(0, out[i].At)
	}
	return out
}

// postmasters are the starts of PostgreSQL that were seen, by node.
type postmasters map[string][]time.Time

// number numbers the postmasters of a node, the first seen 1.
func (p postmasters) number(node string, started time.Time) int {
	i := slices.IndexFunc(p[node], started.Equal)
	if i < 0 {
		i = len(p[node])
		p[node] = append(p[node], started)
	}
	return i + 1
}
