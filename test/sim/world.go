package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

const (
	scope    = "main"
	prefix   = "/service/" + scope + "/"
	systemID = "7400000000000000001"
	unitName = "patroni.service"
)

// world is everything of one seed: machines, etcd, clients, people, and what is wrong.
type world struct {
	clock
	seed     uint64
	timing   node.Timing
	etcd     *etcdModel
	net      *network
	proxy    *haproxy
	machines []*machine
	agents   bool // whether there are any
	only     excerpt
	steps    *steps
	stopAt   int // as in part
	until    instant
	least    time.Duration // how long it is played at least
	paused   bool          // patronictl pause
	pausedAt instant
	leader   string // holder of the leader key
	changes  []instant
	clients  clients
	check    *checker
	facts    tally
	forks    []float64        // where each timeline after the first began
	trace    *strings.Builder // nil: nobody reads it
	wall     time.Time

	traps           []func(*machine)   // what happens to the machine of the next action
	met             []strike           // what of that has happened
	sharedHeld      map[string]instant // since when a hold in etcd is there, by key
	garbled         spell              // agents do not understand the leader key
	holders         []heldFrom         // of the leader key, as it changed
	initializeSince instant            // when the key initialize last changed

	// A switchover that a person has asked for, when it is due, when it was asked for, and when the last was done.
	switchover                      *node.Switchover
	switchAt, switchAsked, switched instant
}

// sizes are how many machines a cluster has.
var sizes = []int{3, 3, 3, 3, 3, 3, 4, 5, 6, 7}

func newWorld(seed uint64, agents bool, trace *strings.Builder) *world {
	w := &world{seed: seed, agents: agents, trace: trace, wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.facts, w.forks, w.sharedHeld = newTally(), []float64{0}, map[string]instant{}
	r := w.rand("topology")
	w.timing = node.Timing{TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second}
	if r.IntN(4) == 0 {
		w.timing = node.Timing{TTL: 20 * time.Second, LoopWait: time.Second, RetryTimeout: 3 * time.Second}
	}
	size := sizes[r.IntN(len(sizes))]
	w.net = newNetwork(size + etcdMembers + 1)
	w.etcd = newEtcd(w, host(size))
	w.etcd.changed = w.keyChanged
	w.check = &checker{w: w, intents: map[string]int{}, ids: map[string]string{}}
	group := r.IntN(4) == 0
	up := 10 * time.Minute
	if r.IntN(8) == 0 {
		up = 5 * time.Second
	}
	for i := range size {
		w.machines = append(w.machines, newMachine(w, i, up, group))
	}
	w.proxy = newHAProxy(w, host(size+etcdMembers))
	w.etcd.put(prefix+"initialize", systemID, 0)
	w.setConfig()
	for i, m := range w.machines {
		w.after(time.Duration(i)*10*time.Millisecond, m, m.boot)
	}
	if agents {
		for _, m := range w.machines {
			w.after(time.Duration(m.rnd.IntN(2000))*time.Millisecond, m, m.agent.start)
		}
	}
	return w
}

// rand returns the random numbers of one entity, so that one more drawn by it changes nobody else's luck.
func (w *world) rand(entity string) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, b := range []byte(entity) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(w.seed, h))
}

func (w *world) say(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%9.3fs  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

func (w *world) machine(name string) *machine {
	for _, m := range w.machines {
		if m.name == name {
			return m
		}
	}
	return nil
}

// keyChanged lets those who watch etcd know.
func (w *world) keyChanged(key string) {
	if key == prefix+"initialize" {
		w.initializeSince = w.now
	}
	if key == prefix+"leader" {
		holder := w.etcd.value(key)
		w.say("etcd: leader key: %q", holder)
		w.holders = append(w.holders, heldFrom{w.now, holder})
		if holder != "" && holder != w.leader {
			if w.leader != "" {
				w.changes = append(w.changes, w.now)
			}
			w.leader = holder
		}
		for _, m := range w.machines {
			m.leaderKeyChanged(holder)
		}
	}
	if name, ok := strings.CutPrefix(key, prefix+"members/"); ok && w.etcd.keys[key] == nil {
		w.machine(name).keyGone = w.now
	}
	if !w.agents || strings.Contains(key, "/members/") {
		return
	}
	for _, m := range w.machines {
		if e := &m.agent.etcd; m.agent.alive && e.live && w.etcd.serves(e.member(), m.host) && !m.deaf {
			w.after(watchDelay+w.net.link(e.member().host, m.host).delay, m, m.agent.wake)
		}
	}
}

// optime is the position that the leader last put into etcd.
func (w *world) optime() float64 {
	if l := w.machine(w.leader); l != nil {
		return float64(l.published.LSN)
	}
	return 0
}

// changed brings the books of the clients up to date. Everything that changes who can write calls it, before and after.
func (w *world) changed() { w.clients.account(w) }

// clients model writers: those that HAProxy leads to the leader, and one that stays with the primary it knows.
type clients struct {
	last    instant
	down    time.Duration // nobody could write through HAProxy
	apart   time.Duration // nobody could either, because a fault cut the leader from HAProxy: no member's health changes that
	lost    float64       // acknowledged writes that were discarded
	written float64
}

const (
	routedRate = 100 // writes per second through HAProxy
	directRate = 1   // writes per second of a client that goes to every primary it can find
)

// account adds what happened since the last change: nothing changed in between.
func (c *clients) account(w *world) {
	span := w.now - c.last
	if span <= 0 {
		return
	}
	routed := w.proxy.routed()
	switch holder := w.machine(w.etcd.value(prefix + "leader")); {
	case routed != nil && holder != nil && holder != routed: // a second primary: what it acknowledges will be discarded
		c.down += span
		routed.lsn += routedRate * span.Seconds()
	case routed == nil && holder != nil && holder.writable() && w.proxy.parted(holder):
		c.apart += span
	case routed == nil:
		c.down += span
	default:
		routed.lsn += routedRate * span.Seconds()
		c.written += routedRate * span.Seconds()
	}
	for _, m := range w.machines {
		if m.writable() {
			m.wrote = true
			// What he writes to a second primary that no agent is left to end says nothing of an act.
			if w.until == 0 || w.now <= w.until {
				m.lsn += directRate * span.Seconds()
			}
		}
	}
	for _, m := range w.machines {
		m.follow()
	}
	c.last = w.now
}
