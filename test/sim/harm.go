package main

import (
	"slices"
	"time"
)

// outcome is what the clients of a world had of it.
type outcome struct {
	down  time.Duration // no writes through HAProxy, or to a primary whose key another member holds
	apart time.Duration // none because the network, or a starved API, kept HAProxy from the leader
	lost  float64       // acknowledged writes that were discarded
}

// tolerated is by how much a world with agents may be worse: a second without writes (FAULTS.md S40) and one interval of
// HAProxy's checks, whose phase is luck; and of acknowledged writes what the one client writes in five seconds that goes to
// every primary that it finds, past HAProxy and past Patroni: ending a second primary or a leaderless one costs some of those.
var tolerated = outcome{down: time.Second + checkEvery, lost: 5 * directRate}

// worse compares with a world without agents, or with fewer acts. Who leads there may be the one that HAProxy cannot reach:
// no act is to blame for not having that leader.
func (o outcome) worse(than outcome) bool {
	return o.down > than.down+than.apart+tolerated.down || o.lost > than.lost+tolerated.lost
}

func (c *clients) outcome() outcome { return outcome{c.down, c.apart, c.lost} }

// part is a seed that is played with something left out.
type part struct {
	seed   uint64
	only   excerpt
	agents bool
	stopAt int     // the act right before which all agents end, 0: none
	until  instant // faults that strike later are left out, 0: none is
	length time.Duration
}

func (p part) play() outcome {
	w := newWorld(p.seed, p.agents, nil)
	w.only, w.stopAt, w.until, w.least = p.only, p.stopAt, p.until, p.length
	play(w)
	return w.clients.outcome()
}

// harmless: S40, agents do no harm. While no fault of the stack strikes after the first act, the world with agents is
// compared with the same one without. Once an act has healed something, a later fault strikes what would otherwise be dead
// already, and the two cannot be compared any more. So each act is judged by itself then: the world in which all agents
// end right after it against the one in which they end right before it, both without the faults that were still to come.
//
// A replica that is revived may be elected. What Patroni then loses is within what people allow it to lose, so such an act
// is judged by the time without writes alone. And no look could have seen a fault that struck right before the act.
func (w *world) harmless(without outcome, script []fault) {
	with := w.clients.outcome()
	t := &w.facts
	switch {
	case with.worse(without):
		t.Worse++
	case without.worse(with):
		t.Better++
	}
	t.Down.With += with.down
	t.Down.Without += without.down
	t.Lost.With += with.lost
	t.Lost.Without += without.lost
	acts := w.check.acts
	later := slices.ContainsFunc(script, func(f fault) bool {
		return len(acts) > 0 && (f.stack() && f.at > acts[0].at || slices.Contains(recurring, f.kind))
	})
	surprised := func(a act) bool {
		return slices.ContainsFunc(script, func(f fault) bool { return f.stack() && f.at <= a.at && a.at-f.at < unseen })
	}
	if !later && len(w.met) == 0 && !slices.ContainsFunc(acts, surprised) {
		if slices.ContainsFunc(acts, func(a act) bool { return a.replica || w.costly(script, a.at) }) {
			with.lost = min(with.lost, without.lost)
		}
		if slices.ContainsFunc(acts, w.elected) {
			without.down += (checkRise - 1) * checkEvery
		}
		w.harm(with, without, "the agents")
		return
	}
	for i, a := range acts {
		if surprised(a) || a.met(w.met) {
			continue
		}
		p := part{seed: w.seed, only: w.only, agents: true, until: a.at, length: a.at + settleDown}
		p.stopAt = i + 1
		before := p.play()
		p.stopAt = i + 2
		after := p.play()
		if a.replica || w.costly(script, a.at) {
			after.lost = min(after.lost, before.lost)
		}
		if w.elected(a) {
			before.down += (checkRise - 1) * checkEvery
		}
		w.harm(after, before, a.m.name+"'s "+a.action.ID)
	}
}

// elected reports whether a replica led after an act on it, instead of a leader that might have come back. HAProxy takes two
// checks to see a new one; one of them is in what is tolerated already.
func (w *world) elected(a act) bool {
	return a.replica && slices.ContainsFunc(w.holders, func(h heldFrom) bool { return h.name == a.m.name && h.at > a.at })
}

// costly reports whether whoever takes the key next costs writes, whatever an agent did: a person had just deleted Patroni's
// keys, and its leader goes on telling HAProxy that it leads until the lease is over that it renewed last; or replicas lag, by
// as much as people allow them to or by what nobody has published.
func (w *world) costly(script []fault, at instant) bool {
	return slices.ContainsFunc(script, func(f fault) bool {
		return f.at < at && (f.kind == "replicas-lag" || f.kind == "keys-deleted" && at-f.at < w.timing.TTL+w.timing.LoopWait)
	})
}

// met reports whether something that waited for an action struck its machine within four seconds of the act: what comes of
// two things that meet there is luck, and no look could have told.
func (a act) met(strikes []strike) bool {
	return a.woken || slices.ContainsFunc(strikes, func(s strike) bool {
		return s.m == a.m && max(s.at-a.at, a.at-s.at) <= 4*time.Second
	})
}

// strike is the moment at which something laid in wait for an action met it.
type strike struct {
	at instant
	m  *machine
}

// unseen is how long before an act its last look may have begun.
const unseen = time.Second

func (w *world) harm(with, without outcome, whose string) {
	if with.worse(without) {
		w.check.broken(w.machines[0].agent, "S40", "with %s no writes for %s and %.0f acknowledged ones lost, without for %s and %.0f",
			whose, with.down.Round(time.Millisecond), with.lost, without.down.Round(time.Millisecond), without.lost)
	}
}

// endAgents ends all agents for good, at once and wherever they are. The process that is at work calls it last.
func (w *world) endAgents() {
	for _, m := range w.machines {
		m.agent.ended = true
		w.after(0, nil, m.agent.crash)
	}
	panic(killed{})
}
