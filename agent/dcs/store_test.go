package dcs

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// However lists and events interleave, repeat and arrive late, the store ends up with what the last complete word says.
func TestStore_ConvergesWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const prefix = "/patroni/demo/"
		s := store{prefix: prefix, deleted: map[string]int64{}}
		truth := map[string]KV{}
		revision := int64(1)
		var past []event
		var lists []struct {
			revision int64
			kvs      []KV
		}
		keep := func() {
			var kvs []KV
			for _, kv := range truth {
				kvs = append(kvs, kv)
			}
			lists = append(lists, struct {
				revision int64
				kvs      []KV
			}{revision, kvs})
		}
		keep()
		s.list(revision, nil)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := prefix + "members/" + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // a change, seen by the watch
				revision++
				e := event{kv: KV{Key: key, ModRevision: revision, CreateRevision: revision, Value: fmt.Append(nil, revision)}}
				if e.deleted = rapid.Bool().Draw(t, "deleted"); e.deleted {
					delete(truth, key)
				} else {
					truth[key] = e.kv
				}
				past = append(past, e)
				s.apply([]event{e})
				keep()
			case 2: // an event of the past
				if len(past) > 0 {
					s.apply([]event{past[rapid.IntRange(0, len(past)-1).Draw(t, "past")]})
				}
			case 3: // a list, perhaps one that arrives late
				l := lists[rapid.IntRange(0, len(lists)-1).Draw(t, "list")]
				s.list(l.revision, l.kvs)
			case 4: // a change that the watch misses, and the next list
				revision++
				kv := KV{Key: key, ModRevision: revision, CreateRevision: revision}
				truth[key] = kv
				keep()
				s.list(revision, lists[len(lists)-1].kvs)
			}
		}
		if len(s.kvs) != len(truth) || s.revision != revision {
			t.Fatalf("store at %d has %v, truth at %d is %v", s.revision, s.kvs, revision, truth)
		}
		for key, kv := range truth {
			if s.kvs[key].ModRevision != kv.ModRevision {
				t.Fatalf("%s is at %d, want %d", key, s.kvs[key].ModRevision, kv.ModRevision)
			}
		}
	})
}
