package dcs

import (
	"maps"
	"strings"
)

// store is the keys below one prefix at one revision, fed by lists and by events that may repeat or come from the past
// (FAULTS.md F47). It is a plain value with one owner.
type store struct {
	prefix   string
	all      bool // every key counts, but none is large
	kvs      map[string]KV
	deleted  map[string]int64 // revision at which a key was deleted, for those after floor
	floor    int64            // revision of the latest list: nothing up to it is news
	revision int64            // the view is complete for it
}

// event is a change of one key; KV.Value is meaningless if it was deleted.
type event struct {
	kv      KV
	deleted bool
}

// used reports whether the view looks into the key's value.
func (s *store) used(key string) bool {
	if s.all {
		return true
	}
	rel, ok := strings.CutPrefix(key, s.prefix)
	return ok && (&parser{}).parserOf(rel) != nil
}

// noisy reports whether the key changes all the time without changing what is decided.
func (s *store) noisy(key string) bool {
	switch strings.TrimPrefix(key, s.prefix) {
	case "status", "optime/leader", "history":
		return true
	}
	return !s.used(key)
}

// trim drops what the view never looks at, so that a foreign 10 MB value is not kept.
func (s *store) trim(kv KV) KV {
	most := maxValue
	if s.all {
		most = maxOwnValue
	}
	switch {
	case !s.used(kv.Key):
		kv.Value = nil
	case len(kv.Value) > most:
		kv.Value = append([]byte(nil), kv.Value[:most+1]...) // still too large for whoever parses it, as it must be
	}
	return kv
}

// last returns the revision of the latest change of the key that is known.
func (s *store) last(key string) int64 {
	if kv, ok := s.kvs[key]; ok {
		return max(s.floor, kv.ModRevision)
	}
	return max(s.floor, s.deleted[key])
}

// list replaces the view with a complete one at revision, except for keys about which events already told something
// newer. It reports whether anything changed and whether that is worth waking somebody.
func (s *store) list(revision int64, listed []KV) (changed, wake bool) {
	if s.kvs != nil && revision < s.floor {
		return false, false // an older list that arrived late
	}
	next := make(map[string]KV, len(listed))
	for key, kv := range s.kvs {
		if kv.ModRevision > revision {
			next[key] = kv
		}
	}
	for _, kv := range listed {
		if s.last(kv.Key) <= revision {
			next[kv.Key] = s.trim(kv)
		}
	}
	first := s.kvs == nil
	changed, wake = s.differs(next)
	maps.DeleteFunc(s.deleted, func(_ string, r int64) bool { return r <= revision })
	s.kvs, s.floor, s.revision = next, revision, max(s.revision, revision)
	return changed || first, wake || first
}

func (s *store) differs(next map[string]KV) (changed, wake bool) {
	note := func(key string) {
		changed = true
		wake = wake || !s.noisy(key)
	}
	for key, kv := range next {
		if old, ok := s.kvs[key]; !ok || old.ModRevision != kv.ModRevision || old.CreateRevision != kv.CreateRevision {
			note(key)
		}
	}
	for key := range s.kvs {
		if _, ok := next[key]; !ok {
			note(key)
		}
	}
	return changed, wake
}

// apply takes the events of one response, in order. Events that are not news are dropped.
func (s *store) apply(events []event) (changed, wake bool) {
	for _, e := range events {
		key, revision := e.kv.Key, e.kv.ModRevision
		if !strings.HasPrefix(key, s.prefix) || revision <= s.last(key) {
			continue
		}
		if e.deleted {
			delete(s.kvs, key)
			s.deleted[key] = revision
		} else {
			s.kvs[key] = s.trim(e.kv)
			delete(s.deleted, key)
		}
		s.revision = max(s.revision, revision)
		changed = true
		wake = wake || !s.noisy(key)
	}
	return changed, wake
}
