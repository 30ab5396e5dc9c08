package docker

import (
	"time"
)

// hearing is what one Watch heard of the containers that it watches. An engine keeps the last 256 events of all its
// containers, and every check of health is three of them: what happened at the beginning of a long run is soon forgotten. A
// Watch that was there when a run was seen misses nothing of its end.
type hearing struct {
	events []event
	died   time.Time // when an end was last heard of, by this machine's clock
	lost   bool      // too much was heard to be kept
}

// maxHeard is how many events are kept. A container that has more between its start and its end is a case for a person.
const maxHeard = 1024

// afterEnd is how long the engine may take to say "stop" after the end that a stop brought.
const afterEnd = 2 * time.Second

// hear notes an event.
func (m *Manager) hear(h *hearing, e event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Action == "start" { // a new run: what was before it explains nothing any more
		kept := h.events[:0]
		for _, old := range h.events {
			if old.Actor.ID != e.Actor.ID {
				kept = append(kept, old)
			}
		}
		h.events = kept
	}
	if len(h.events) >= maxHeard {
		h.lost = true
		return
	}
	if e.Action == "die" {
		h.died = time.Now()
	}
	h.events = append(h.events, e)
}

// listen makes h what is heard of units, and returns what ends that.
func (m *Manager) listen(units []string, h *hearing) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, unit := range units {
		m.heard[unit] = h
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, unit := range units {
			if m.heard[unit] == h {
				delete(m.heard, unit)
			}
		}
	}
}

// listening returns what hears of a unit now, nil for nothing.
func (m *Manager) listening(unit string) *hearing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard[unit]
}

// overhear completes what the engine's own memory says of the end of a run, from what was heard since the run was seen. h is
// what listened before c was read, if the engine's memory could be read after it: then no order to end the run got lost
// between the two. The caller holds mu.
func (m *Manager) overhear(unit string, c container, t *trace, s story, h *hearing) story {
	if h == nil || h != m.heard[unit] || h.lost {
		t.witness = nil
		return s
	}
	switch {
	case c.status == "running" && s.stopping:
		t.witness = nil
	case c.status == "running":
		t.witness = h
	case c.status == "exited" && t.witness == h && !s.stopped && !s.crashed && time.Since(h.died) >= afterEnd:
		return tell(c.since(h.events), c)
	}
	return s
}

// since returns the events of this run, with its start, which was before anything was heard of it if it is not among them.
func (c container) since(all []event) []event {
	begin := event{Action: "start", TimeNano: c.startedAt.UnixNano()}
	begin.Actor.ID = c.id
	events := []event{begin}
	for _, e := range all {
		if e.Actor.ID == c.id && e.TimeNano >= begin.TimeNano && e.Action != "start" {
			events = append(events, e)
		}
	}
	return events
}
