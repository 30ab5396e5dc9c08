package main

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// checker compares every act with the true world. It shares no code with engine and guard.
type checker struct {
	w       *world
	acts    []act
	intents map[string]int    // acts by intent and verb
	ids     map[string]string // of actions, by agent, verb, finding and invocation
	ambush  int               // milliseconds after the next act at which its agent is killed, 0: not
}

// inFlight is how long an order to the service manager is on its way. A machine that falls asleep in that time carries it
// out when it wakes, and nobody can call it back.
const inFlight = 10 * time.Millisecond

// act is one thing that an agent did to its machine.
type act struct {
	woken      bool // its machine slept while the order was on its way
	at         instant
	m          *machine
	boot       int // of its machine
	action     node.Action
	replica    bool   // PostgreSQL there did not accept writes, or was to follow another when it runs again
	intent     string // boot and instant of the intent
	led        bool   // its target held the leader key
	spared     bool   // PostgreSQL was to run on
	postmaster int
	settled    instant // of a disrupting one, 0 until it is
}

func (c *checker) broken(a *agent, invariant, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.w.say("VIOLATION %s by %s: %s", invariant, a.m.name, text)
	c.w.facts.Violations = append(c.w.facts.Violations, violation{invariant, c.w.seed, a.m.name + ": " + text})
}

// act is called right before an agent does something.
func (c *checker) act(a *agent, verb node.Verb) {
	action := a.journal.current
	if action == nil {
		c.broken(a, "S28", "%s without an intent", verb)
		return
	}
	if c.w.stopAt > 0 && len(c.acts)+1 >= c.w.stopAt && verb == action.Verb {
		c.w.endAgents()
	}
	c.w.say("%s: ACT %s for %s", a.m.name, verb, action.ID)
	c.once(a, verb)
	if verb == node.StartFailed && action.Verb == node.SoftKill {
		return // it brings back what it killed
	}
	woken := a.m.woke > 0 && c.w.now-a.m.woke < inFlight
	if !woken {
		c.people(a, *action)
		c.truth(a, *action)
		c.identity(a, *action)
		c.debounce(a, *action)
		c.target(a, *action)
		c.job(a, *action)
		c.redundancy(a, *action)
		c.evidence(a, *action)
		c.fitness(a, *action)
	}
	c.calm(a, *action)
	c.isolated(a, *action)
	c.sequence(a, *action)
	if !woken {
		c.together(a, *action)
	}
	c.budget(a, *action)
	m, holder := a.m, c.w.etcd.value(prefix+"leader")
	follows := !m.primary || !m.running && holder != "" && holder != m.name
	c.acts = append(c.acts, act{
		woken: woken, at: c.w.now, m: m, boot: m.boots, action: *action, replica: follows, intent: a.journal.last,
		led: holder == m.name, postmaster: m.postmaster,
		spared: m.running && !action.Fence && (action.Verb == node.StartFailed || m.unit.killMode == "process"),
	})
	if c.ambush > 0 {
		c.w.after(time.Duration(c.ambush)*time.Millisecond, a.m, func() {
			if a.alive {
				a.crash()
				c.w.after(time.Second, a.m, a.start)
			}
		})
		c.ambush = 0
	}
}

// once: S28, an intent is carried out at most once, whenever its agent ends; S27, the same action at most twice.
func (c *checker) once(a *agent, verb node.Verb) {
	key := fmt.Sprintf("%s %d %s", a.m.name, a.journal.intents, verb)
	if c.intents[key]++; c.intents[key] > 1 {
		c.broken(a, "S28", "%s a second time for one intent", verb)
	}
	id := fmt.Sprintf("%s %s", a.m.name, a.journal.current.ID)
	if verb != a.journal.current.Verb {
		return
	}
	if c.intents[id]++; c.intents[id] > 1 {
		c.broken(a, "S27", "%s a second time although its first one changed the invocation", a.journal.current.ID)
	}
}

// people: what people ordered holds from when an agent can know it.
func (c *checker) people(a *agent, action node.Action) {
	m, now := a.m, c.w.now
	// S21: stopped, masked, disabled, a job at work, or a package manager: not ours. What a person orders within a second
	// before the act meets it on its way.
	s := m.unit.status()
	if now-m.unit.orderedAt <= unseen {
		s = service.Status{State: service.StateRunning}
	}
	if s.Masked || s.Job != "" || s.State == service.StateStopping || s.State == service.StateStopped || s.Enablement == "disabled" && s.State != service.StateRunning {
		c.broken(a, "S21", "%s while a person wants the unit %s", action.Verb, s.Intent())
	}
	if m.upgrading && now-m.upgradeFrom > 2*time.Second {
		c.broken(a, "S21", "%s while a package manager works", action.Verb)
	}
	// S22: Patroni's pause, seen by the look right before the act.
	if c.w.paused && now-c.w.pausedAt > 2*time.Second {
		c.broken(a, "S22", "%s in a paused cluster", action.Verb)
	}
	// S23: no action later than a second after a hold, on agents that can be reached.
	c.held(a, action)
	c.allowed(a, action)
}

// truth: the world as it is supports the action.
func (c *checker) truth(a *agent, action node.Action) {
	m, now, e := a.m, c.w.now, c.w.etcd
	proof := 2500 * time.Millisecond
	if action.Fence {
		proof = time.Second
	}
	if action.Verb == node.StartFailed {
		// S13: what is started has failed.
		if m.unit.state != service.StateFailed && now-m.unit.orderedAt > unseen {
			c.broken(a, "S13", "start of a unit that is %s", m.unit.state)
		}
	} else {
		// S6, S13, S14: Patroni does not do its work, and has not for as long as a proof takes. An old lease is no excuse:
		// a Patroni that has just got etcd back renews it in its next loop.
		if !m.sick || now-m.sickSince < proof {
			c.broken(a, "S6", "kill of a Patroni that works, or did %s ago", now-m.sickSince)
		}
		c.softKill(a, action)
	}
	// S7: nothing is started into a broken configuration.
	if m.badConfig && now-m.configAt > 2*time.Second {
		c.broken(a, "S7", "%s with a broken configuration", action.Verb)
	}
	// S11: etcd takes writes, or could five seconds ago.
	if !e.answers(m) && m.w.now-a.look.dcs.Cluster.At.Sub(node.Instant(m.uptime)) > 5*time.Second || e.nospace && a.look.dcs.Writable.Age(a.now()) > 5*time.Second {
		c.broken(a, "S11", "%s while etcd takes no writes", action.Verb)
	}
	c.grace(a, action)
}

// softKill: S7, what a kill needs; S8, PostgreSQL is only stopped in class disrupt.
func (c *checker) softKill(a *agent, action node.Action) {
	u := &a.m.unit
	if action.Class == node.ClassRevive && u.killMode != "process" {
		c.broken(a, "S8", "a kill that stops PostgreSQL passes for one that does not")
	}
	if u.used() > startLimit-2 {
		c.broken(a, "S7", "%d of %d starts are used up", u.used(), startLimit)
	}
	if a.m.busy != "" && a.m.busy != "promoting" && c.w.now-a.m.busySince > unseen {
		c.broken(a, "S7", "kill while PostgreSQL is %s", a.m.busy)
	}
	if l := c.w.etcd.leases[a.m.lease]; action.Leader && l != nil && l.expires-c.w.now < 3*time.Second && c.w.etcd.value(prefix+"leader") == a.m.name {
		c.broken(a, "S7", "the leader's lease ends in %s", l.expires-c.w.now)
	}
}

// grace: S30, nothing but what is urgent right after power-on and right after a change of the leader, however often the
// agent was restarted since. A leader that is sick, and truly has not renewed its lease for longer than
// loop_wait since it leads, would lose it while the grace lasts (S40): it may be healed where that spares PostgreSQL.
func (c *checker) grace(a *agent, action node.Action) {
	if action.Fence || action.Verb == node.StartFailed {
		return
	}
	m := a.m
	if up := c.w.now - m.booted; m.boots > 0 && up < 2*time.Minute && m.unit.invocation == m.firstRun && (m.stopped || m.refused) && m.sickSince-m.readyAt < time.Second {
		c.broken(a, "S30", "%s %s after power-on of a Patroni that has not worked since", action.Verb, up)
	}
	l := c.w.etcd.leases[a.m.lease]
	leads := c.w.etcd.value(prefix+"leader") == a.m.name && action.Class == node.ClassRevive && a.m.sick && l != nil
	for _, at := range c.w.changes {
		if c.w.garbled.on() && c.w.garbled.since < at+3*time.Second {
			continue // nobody could tell that it changed
		}
		if leads && c.w.now-max(at, l.renewed) > c.w.timing.LoopWait {
			continue
		}
		if c.w.now-at > 3*time.Second && c.w.now-at < c.w.timing.TTL+2*c.w.timing.LoopWait-3*time.Second {
			c.broken(a, "S30", "%s %s after a change of the leader", action.Verb, c.w.now-at)
		}
	}
}

// together: S1, S2, one disruption per cluster at a time, until it is settled or for two minutes.
func (c *checker) together(a *agent, action node.Action) {
	if action.Class != node.ClassDisrupt {
		return
	}
	for _, o := range c.acts {
		if o.action.Class == node.ClassDisrupt && o.settled == 0 && c.w.now-o.at < 2*time.Minute {
			c.broken(a, "S1", "a second disruption %s after one of %s", c.w.now-o.at, o.m.name)
		}
	}
	if holder := c.w.etcd.value(node.LockKey(scope, node.LockCluster)); holder != a.m.name {
		c.broken(a, "S2", "a disruption while %q holds the lock", holder)
	}
}

// budget: S26, one action per unit and minute, three per hour, as long as the machine is up, four per hour in the cluster,
// one disruption in it.
func (c *checker) budget(a *agent, action node.Action) {
	mine, disrupt := 0, 0
	for _, o := range c.acts {
		if o.action.Class == node.ClassDisrupt {
			disrupt++
		}
		if o.m != a.m || o.boot != a.m.boots {
			continue
		}
		mine++
		if c.w.now-o.at < time.Minute {
			c.broken(a, "S26", "%s %s after the one before", action.Verb, c.w.now-o.at)
		}
	}
	if mine >= 3 || len(c.acts) >= 4 || action.Class == node.ClassDisrupt && disrupt >= 1 {
		c.broken(a, "S26", "action %d here, %d in the cluster", mine+1, len(c.acts)+1)
	}
}

// ended: S29, every act ends by its deadline; looks after it and the release of the lock may take their own.
func (c *checker) ended(a *agent, action node.Action, began instant) {
	if took := c.w.now - began; took > action.Deadline+6*time.Second && a.m.asleepUntil < began {
		c.broken(a, "S29", "%s took %s", action.ID, took)
	}
}

func (c *checker) settled(a *agent, at node.Attempt) {
	if at.Class == node.ClassDisrupt {
		c.released(a, at)
	}
	for i := range c.acts {
		if c.acts[i].m == a.m && c.acts[i].settled == 0 {
			c.acts[i].settled = c.w.now
		}
	}
}
