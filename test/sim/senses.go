package main

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// sense is one thing that an agent can find out, or not.
type sense int

const (
	seeUnit sense = iota
	seeProcess
	seeLiveness
	seeAPI
	seePostgres
	seeSession
	seeMachine
	seeConfig
	seeKeys // Patroni's, by a linearizable read
	seeShared
	seeLease
	seeAlarms
	senses
)

func (s sense) String() string {
	return [...]string{
		"the unit", "the main process", "liveness", "the API", "PostgreSQL's files", "a session", "the machine's processes",
		"the configuration", "the leader key", "what agents share", "the lease", "the alarms",
	}[s]
}

// spell is something that is so while a fault lasts, and since when. Faults overlap.
type spell struct {
	faults int
	since  instant
	ended  instant // when it last did
}

func (s *spell) on() bool { return s.faults > 0 }

// spell lets something be so for a while.
func (w *world) spell(s *spell, lasts time.Duration) {
	if s.faults++; s.faults == 1 {
		s.since = w.now
	}
	w.after(lasts, nil, func() { s.faults--; s.ended = w.now })
}

// senseModel models which probes of one machine find nothing out, and keeps when each of its agent's last did, on the clock
// of the world: what an act rests on is judged by that, and not by what the agent says of it.
type senseModel struct {
	blind [senses]instant // until when
	found [senses]instant
}

// finds reports whether a probe of a running agent finds out what it looks for, and remembers that it did.
func (a *agent) finds(s sense) bool {
	if a.m.w.now < a.m.blind[s] {
		return false
	}
	a.m.found[s] = a.m.w.now
	return true
}

// see is observer.update: what a probe that found nothing out leaves is what was known, with its age and the reason.
func see[T any](a *agent, s sense, old node.Fact[T], v T, source string, at node.Instant) node.Fact[T] {
	if a.finds(s) {
		return node.Seen(v, source, at)
	}
	if old.Known {
		old.Why = "the probe failed"
		return old
	}
	return node.Unseen[T](source, "the probe failed", at)
}

// The faults in this file are of what agents see: probes that do not find out.
var senseKinds = []kind{
	{"probe-blind", 3, false, func(_ *world, m *machine, f fault) {
		m.blindFor(f.lasts, sense(f.pick%int(senses)))
	}},
	{"probes-blind", 1, false, func(_ *world, m *machine, f fault) {
		for s := range senses {
			if f.pick>>(s%10)&1 == 0 {
				m.blindFor(f.lasts, s)
			}
		}
	}},
	{"probe-flickers", 2, false, func(w *world, m *machine, f fault) {
		s := sense(f.pick % int(senses))
		for t := time.Duration(0); t < f.lasts; t += 3*time.Second + time.Duration(f.pick)*10*time.Millisecond {
			w.after(t, nil, func() { m.blindFor(3*time.Second+time.Duration(f.pick)*8*time.Millisecond, s) })
		}
	}},
}

// blindFor makes a probe of a machine find nothing out for a while.
func (m *machine) blindFor(d time.Duration, s sense) {
	m.blind[s] = max(m.blind[s], m.w.now+d)
}
