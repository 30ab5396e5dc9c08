package main

import (
	"container/heap"
	"iter"
	"time"
)

// instant is simulated time since the world began.
type instant = time.Duration

// event is something that happens at a moment. Events of one moment happen in the order in which they were planned.
type event struct {
	at   instant
	seq  uint64
	on   *machine // asleep machines postpone their events; nil: of the world
	what func()
}

type events []event

func (e events) Len() int { return len(e) }

func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].seq < e[j].seq
}

func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

func (e *events) Push(x any) { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// clock is the only source of time and order of one world.
type clock struct {
	now    instant
	seq    uint64
	events events
	// current is the process that runs.
	current *process
}

// after plans something of a machine, or of the world if on is nil.
func (c *clock) after(d time.Duration, on *machine, what func()) {
	c.seq++
	heap.Push(&c.events, event{c.now + max(d, 0), c.seq, on, what})
}

// run lets everything happen until a moment.
func (c *clock) run(until instant) {
	for len(c.events) > 0 && c.events[0].at <= until {
		e := heap.Pop(&c.events).(event)
		c.now = e.at
		if e.on != nil && e.on.asleepUntil > c.now {
			c.after(e.on.asleepUntil-c.now, e.on, e.what)
			continue
		}
		e.what()
	}
	c.now = until
}

// process is code that takes simulated time: it runs until it sleeps, and goes on when the clock has got there.
type process struct {
	clock *clock
	on    *machine
	yield func(time.Duration) bool
	next  func() (time.Duration, bool)
	stop  func()
	woken int // counts sleeps, so that one that was cut short does not end the next
	idle  bool
	dead  bool
}

// killed unwinds a process that was killed. Nothing of it happens any more but its deferred calls.
type killed struct{}

// spawn starts a process on a machine.
func (c *clock) spawn(on *machine, code func(*process)) *process {
	p := &process{clock: c, on: on}
	p.next, p.stop = iter.Pull(func(yield func(time.Duration) bool) {
		defer func() {
			if v := recover(); v != nil && v != (killed{}) {
				panic(v)
			}
		}()
		p.yield = yield
		code(p)
	})
	c.after(0, on, p.resume)
	return p
}

func (p *process) resume() {
	if p.dead {
		return
	}
	before := p.clock.current
	p.clock.current = p
	d, more := p.next()
	p.clock.current = before
	if !more {
		p.dead = true
		return
	}
	p.woken++
	turn := p.woken
	p.clock.after(d, p.on, func() {
		if turn == p.woken {
			p.idle = false
			p.resume()
		}
	})
}

// sleep lets simulated time pass.
func (p *process) sleep(d time.Duration) {
	if p.dead || !p.yield(d) {
		panic(killed{})
	}
}

// rest is a sleep that wake may cut short.
func (p *process) rest(d time.Duration) {
	p.idle = true
	p.sleep(d)
}

// wake ends a rest a little later.
func (p *process) wake(quiet time.Duration) {
	if p.dead || !p.idle {
		return
	}
	p.idle = false
	p.woken++
	p.clock.after(quiet, p.on, p.resume)
}

// kill ends a process wherever it is. It must not be called from within.
func (p *process) kill() {
	if !p.dead {
		p.dead = true
		p.stop()
	}
}
