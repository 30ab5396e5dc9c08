package decision

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The journal keeps questions as JSON. Whatever a decision rests on must survive that, or a replay gives another answer.
func TestDecide_SameAnswerAfterTheJournal(t *testing.T) {
	acted := 0
	rapid.Check(t, func(rt *rapid.T) {
		q := situation(rt)
		for range rapid.IntRange(0, 6).Draw(rt, "mutations") {
			v := reflect.ValueOf(&q).Elem()
			mutate(rt, v)
		}
		q = asRead(rt, q) // names that are no UTF-8 come from nowhere but here
		want, got := Decide(q), Decide(asRead(rt, q))
		if diff := cmp.Diff(encoded(rt, want.Plan), encoded(rt, got.Plan)); diff != "" {
			rt.Fatalf("plan (-asked +replayed):\n%s", diff)
		}
		if diff := cmp.Diff(encoded(rt, want.Memory), encoded(rt, got.Memory)); diff != "" {
			rt.Fatalf("memory (-asked +replayed):\n%s", diff)
		}
		acted += len(want.Plan.Allowed) + len(want.Plan.Refused)
	})
	if acted == 0 {
		t.Error("no question called for an action: the test is blind")
	}
}

// The first time, the question comes from memory and not from JSON.
func TestDecide_SameAnswerTheFirstTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		q := situation(rt)
		want, got := Decide(q), Decide(asRead(rt, q))
		if diff := cmp.Diff(encoded(rt, want.Plan), encoded(rt, got.Plan)); diff != "" {
			rt.Fatalf("plan (-asked +replayed):\n%s", diff)
		}
	})
}

func encoded(rt *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		rt.Fatalf("encode: %v", err)
	}
	return string(b)
}

func asRead(rt *rapid.T, q node.Question) node.Question {
	var out node.Question
	if err := json.Unmarshal([]byte(encoded(rt, q)), &out); err != nil {
		rt.Fatalf("decode: %v", err)
	}
	return out
}

// situation looks at a cluster in which something is wrong for a while.
func situation(rt *rapid.T) node.Question {
	ways := map[string]nodetest.Change{
		"stopped": nodetest.Stopped(), "silent": nodetest.Silent(), "refused": nodetest.Refused(), "failed": nodetest.Failed("signal"),
		"replica": nodetest.Led(nodetest.Other, false), "second primary": nodetest.Led(nodetest.Other, true), "confirmed": nodetest.Confirmed(),
		"lease":      nodetest.LeaseLeft(time.Duration(rapid.IntRange(0, 30).Draw(rt, "left")) * time.Second),
		"leaderless": nodetest.WithCluster(func(c *node.Cluster) { c.Leader = nil }),
		"paused":     nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true }),
		"blind":      func(s *node.Snapshot) { s.DCS.Cluster = node.Unseen[node.Cluster]("etcd", "no quorum", s.Now) },
		"alarm":      func(s *node.Snapshot) { s.DCS.Alarms.Value = []string{"NOSPACE"} },
		"mixed text": nodetest.With(func(p *node.PatroniFacts) { p.Config.Value.Problems = []string{"<a&b>\u2028", "\x1b[31m", "é"} }),
		"a rival": nodetest.With(func(p *node.PatroniFacts) {
			p.Machine.Value.Postmasters = append(p.Machine.Value.Postmasters, probe.Postmaster{PID: 9, DataDir: "/data"})
		}),
		"now": func(s *node.Snapshot) { s.Wall = time.Now() },
	}
	names := make([]string, 0, len(ways))
	for n := range ways {
		names = append(names, n)
	}
	slices.Sort(names)
	picked := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 4, rapid.ID[string]).Draw(rt, "ways")
	q := node.Question{Spec: nodetest.Spec(rapid.SampledFrom(node.Modes()).Draw(rt, "mode"))}
	if rapid.Bool().Draw(rt, "spent") {
		q.Attempts = []node.Attempt{{
			ActionID: "soft-kill/patroni/PATRONI_HUNG/aaaaaaaa", Verb: node.SoftKill, Class: node.ClassRevive, Service: nodetest.Service,
			BootID: nodetest.BootID, At: node.Instant(time.Hour), Done: true, Result: node.ResultUnverified,
		}}
	}
	for i := range rapid.IntRange(1, 12).Draw(rt, "looks") {
		if i > 0 {
			q.Memory = Decide(q).Memory
		}
		q.Snapshot = nodetest.Snap(time.Hour + time.Duration(i)*time.Second)
		for _, n := range picked {
			ways[n](&q.Snapshot)
		}
	}
	return q
}

var words = []string{"", "running", "pg2", "unknown", "a\x00b", "\xff\xfe", "é\u2028<&>", "2026-01-01T00:00:00Z", "off"}

// mutate changes one value somewhere below v.
func mutate(rt *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(rapid.Int64Range(0, 4e9).Draw(rt, "sec"), rapid.Int64Range(0, 1e9-1).Draw(rt, "nsec")).In(time.FixedZone("", 3600))))
			return
		}
		mutate(rt, v.Field(rapid.IntRange(0, v.NumField()-1).Draw(rt, "field")))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			return
		}
		mutate(rt, v.Elem())
	case reflect.Slice:
		switch {
		case v.Len() == 0 || rapid.IntRange(0, 4).Draw(rt, "grow") == 0:
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		default:
			v.Set(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, v.Len()), v)) // shared with nobody
			mutate(rt, v.Index(rapid.IntRange(0, v.Len()-1).Draw(rt, "index")))
		}
	case reflect.Map:
		mutateMap(rt, v)
	case reflect.String:
		v.SetString(rapid.SampledFrom(words).Draw(rt, "string"))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.SampledFrom([]int64{0, 1, -1, 7, int64(time.Hour), math.MaxInt64, math.MinInt64}).Draw(rt, "int"))
	case reflect.Uint8: // service.State
		v.SetUint(uint64(rapid.Uint8Range(0, uint8(service.StateFailed)).Draw(rt, "state")))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32().Draw(rt, "uint")))
	case reflect.Uint64:
		v.SetUint(rapid.SampledFrom([]uint64{0, 1, 1 << 53, math.MaxUint64}).Draw(rt, "uint"))
	default:
		rt.Fatalf("a question holds a %s, which this test does not know how to change", v.Type())
	}
}

// mutateMap changes one entry of a copy, or adds one.
func mutateMap(rt *rapid.T, v reflect.Value) {
	m := reflect.MakeMap(v.Type())
	for _, k := range v.MapKeys() {
		m.SetMapIndex(k, v.MapIndex(k))
	}
	key := reflect.New(v.Type().Key()).Elem()
	key.SetString(rapid.SampledFrom(append(words, "patroni", "silent/patroni", "PATRONI_HUNG")).Draw(rt, "key"))
	value := reflect.New(v.Type().Elem()).Elem()
	if old := v.MapIndex(key); old.IsValid() {
		value.Set(old)
	}
	mutate(rt, value)
	m.SetMapIndex(key, value)
	v.Set(m)
}
