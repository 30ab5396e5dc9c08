package main

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// basis is what an agent's last decision to act rested on, on the clock of the world.
type basis struct {
	at    instant
	late  time.Duration // by how much its loop was
	found [senses]instant
}

// rest notes what the decision rests on that an act follows from.
func (a *agent) rest() {
	a.basis = basis{at: a.m.w.now, late: a.late, found: a.m.found}
}

// forget forgets what an earlier process of the agent had found out.
func (s *senseModel) forget() {
	for i := range s.found {
		s.found[i] = -time.Hour
	}
}

const (
	freshAct  = 3 * time.Second  // right before an act
	freshScan = 30 * time.Second // scans of processes, alarms
	tooOld    = 10 * time.Second // when the act is carried out
	tolerance = 50 * time.Millisecond
)

// evidence: S14, every fact that an act rests on was found out by the acting process of the agent at most three seconds
// before the decision (FAULTS.md asks that of DCS facts, and ten seconds of the others), scans thirty; and at most ten
// seconds before the act. S13: silence counts only where somebody asked: the probe of a kill's own target is among them.
func (c *checker) evidence(a *agent, action node.Action) {
	need := map[sense]time.Duration{seeUnit: freshAct, seePostgres: freshAct, seeKeys: freshAct, seeShared: freshAct, seeMachine: freshScan, seeAlarms: freshScan}
	if action.Verb == node.SoftKill {
		need[seeProcess], need[seeLiveness] = freshAct, freshAct
		if action.Leader {
			need[seeLease] = freshAct
		}
	}
	b := &a.basis
	for s := range senses {
		limit, needed := need[s]
		if age := b.at - b.found[s]; needed && age > limit+tolerance {
			c.broken(a, "S14", "%s rests on %s, found out %s before the decision", action.Verb, s, age)
		}
		if age := c.w.now - b.found[s]; needed && limit == freshAct && age > tooOld {
			c.broken(a, "S14", "%s rests on %s, found out %s ago", action.Verb, s, age)
		}
	}
}

// debounce: S15, a condition has held for as long as its proof takes, by the true world: 3 s for a process that is stopped,
// 6 s for one that is silent, 15 s for a REST API without a listener, and 20 s for a replica, whose hang harms nobody; and
// another member has held the leader key for the second that lies between two reads before a second primary is ended. Each
// less the time of a look.
func (c *checker) debounce(a *agent, action node.Action) {
	m, now := a.m, c.w.now
	if action.Finding == node.ZombiePrimary {
		if since, ok := c.w.foreign(m); !ok || now-since < 950*time.Millisecond {
			c.broken(a, "S15", "a second primary is ended, and another member has led for %s", now-since)
		}
	}
	if action.Verb != node.SoftKill || action.Fence {
		return
	}
	replica := !m.primary && c.w.etcd.value(prefix+"leader") != m.name
	proof := 2500 * time.Millisecond
	switch {
	case replica && action.Finding != node.PatroniAPIDead:
		proof = 19 * time.Second
	case action.Finding == node.PatroniAPIDead:
		proof = 14 * time.Second
	case action.Finding == node.PatroniHung && m.frozen != "":
		proof = 5500 * time.Millisecond
	}
	held := now - m.sickSince
	if m.starvedEnd > m.sickSince { // it was silent before it hung
		held = now - min(m.sickSince, m.starvedSince)
	}
	if held < proof {
		c.broken(a, "S15", "%s for %s after %s, its proof takes %s", action.Verb, action.Finding, held, proof)
	}
}

// foreign returns since when the leader key has named others than a machine's member. Short gaps between two holders count.
func (w *world) foreign(m *machine) (since instant, ok bool) {
	for i := len(w.holders) - 1; i >= 0; i-- {
		h := w.holders[i]
		switch {
		case h.name == m.name:
			return since, ok
		case h.name == "" && w.now-h.at > 3*time.Second && !ok:
			return 0, false
		case h.name != "":
			since, ok = h.at, true
		}
	}
	return since, ok
}

// heldFrom is who held the leader key from a moment on, "" for nobody.
type heldFrom struct {
	at   instant
	name string
}

// identity: S20, what answers, what the keys say and what the agent was told is one and the same Patroni; S18, a scope
// without keys, or with a leader that cannot be understood, is unknown and no reason for anything. Each is known to every
// look that began after it came to be.
func (c *checker) identity(a *agent, action node.Action) {
	m, now := a.m, c.w.now
	for _, x := range []struct {
		wrong     bool
		since     instant
		invariant string
		what      string
	}{
		{m.otherEtcd.on(), m.otherEtcd.since, "S20", "etcd is that of another cluster"},
		{c.w.etcd.value(prefix+"initialize") != systemID, c.w.initializeSince, "S20", "the key initialize does not name this cluster"},
		{m.otherAPI.on() && m.found[seeAPI] >= m.otherAPI.since, m.otherAPI.since, "S20", "another Patroni answers"},
		{a.member != m.name, a.memberSince, "S20", "the agent was told another member's name"},
		{m.wrongPlace.on(), m.wrongPlace.since, "S18", "the agent looks where no keys are"},
		{c.w.garbled.on() && c.w.etcd.value(prefix+"leader") != "", max(c.w.garbled.since, c.w.holders[len(c.w.holders)-1].at), "S18", "the leader key is not intelligible"},
		{len(c.w.etcd.under(prefix)) == 0, c.w.holders[len(c.w.holders)-1].at, "S18", "the scope has no keys"},
	} {
		if x.wrong && now-x.since > freshAct {
			c.broken(a, x.invariant, "%s although %s", action.Verb, x.what)
		}
	}
}

// target: S7, the verb does what it says: the manager starts again what is killed, the process can die, nobody debugs it
// (S21), no watchdog resets the machine meanwhile (FAULTS.md asks for ten seconds), and it has had a minute to come up where
// its API or its loop is what is missing.
func (c *checker) target(a *agent, action node.Action) {
	m, now := a.m, c.w.now
	if action.Verb != node.SoftKill {
		return
	}
	switch {
	case m.unit.restart == "no" && now-m.unit.restartSince > freshAct:
		c.broken(a, "S7", "kill although the unit has Restart=no")
	case m.frozen == "D" && now-m.sickSince > freshAct:
		c.broken(a, "S7", "kill of a process that sleeps in the kernel")
	case m.frozen == "t" && now-m.sickSince > freshAct:
		c.broken(a, "S21", "kill of a process that a person debugs")
	case m.armed && m.watchdogTime()-(now-m.petted) <= 10*time.Second:
		c.broken(a, "S7", "kill with %s left until the watchdog resets the machine", m.watchdogTime()-(now-m.petted))
	case !m.ready && m.patroni:
		c.broken(a, "S7", "kill of a Patroni that starts")
	case (action.Finding == node.PatroniAPIDead || action.Finding == node.PatroniLoopStuck) && now-m.born < 59*time.Second:
		c.broken(a, "S7", "kill for %s of a Patroni that is %s old", action.Finding, now-m.born)
	}
}

// fitness: S3, an agent whose machine slept or whose clock jumped rests on nothing from before, and only observes for a
// minute; F82, F102: nor does one act whose own loop is late, or that ends again and again. As far as this process of the
// agent has lived through it.
func (c *checker) fitness(a *agent, action node.Action) {
	m, now := a.m, c.w.now
	grace := node.DisturbedGrace - 2*time.Second
	switch {
	case m.woke > a.basis.at:
		c.broken(a, "S3", "%s, decided before the machine slept", action.Verb)
	case m.woke > a.born && m.nap > 2500*time.Millisecond && now-m.woke < grace && now-m.woke > time.Second:
		c.broken(a, "S3", "%s %s after the machine slept", action.Verb, now-m.woke)
	case m.jumped > a.born && now-m.jumped < grace && now-m.jumped > time.Second:
		c.broken(a, "S3", "%s %s after the clock jumped", action.Verb, now-m.jumped)
	}
	if a.basis.late > node.LoopDelayLimit+tolerance {
		c.broken(a, "F82", "%s although the agent's loop was %s late", action.Verb, a.basis.late)
	}
	n := 0
	for _, at := range a.crashes {
		if now-at < node.CrashWindow-time.Second {
			n++
		}
	}
	if n >= node.CrashLimit {
		c.broken(a, "F102", "%s although the agent ended %d times", action.Verb, n)
	}
}

// job: S21, F09, a person who has just restarted or started the unit is left to it for half a minute. It counts for an
// agent that saw the job, and for a unit that has not crashed since: what the manager does about that looks like jobs too.
func (c *checker) job(a *agent, action node.Action) {
	ended := a.m.unit.jobEnded
	if crashed := a.m.unit.crashedAt; crashed > 0 && crashed <= ended && ended-crashed < 5*time.Second {
		return
	}
	seen := a.shown.job > 0 && ended >= a.shown.job && ended-a.shown.job < 5*time.Second
	if since := c.w.now - ended; seen && since < 29*time.Second && since > unseen && a.m.unit.restarts == 0 && action.Verb == node.SoftKill {
		c.broken(a, "S21", "%s %s after somebody's job on the unit", action.Verb, since)
	}
}
