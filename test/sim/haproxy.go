package main

import "time"

// HAProxy's backend as the first user has it (ENVIRONMENT.md), and its default: the check's time limit is its interval.
const (
	checkEvery = 3 * time.Second
	checkFall  = 3
	checkRise  = 2
)

// haproxy models the proxy through which clients write: a server per member, checked by GET /primary.
type haproxy struct {
	w       *world
	host    host
	servers []*server
}

// server is one line of the backend, with HAProxy's own counter: up from checkRise on (FACTS.md §6.2).
type server struct {
	m      *machine
	up     bool
	health int
	apart  bool // the last check did not get there, or was starved there
	asked  int  // the check that waits for its answer, by number; 0: none does
	checks int
}

// newHAProxy finds the backend as it is when the cluster has run for a while.
func newHAProxy(w *world, h host) *haproxy {
	p := &haproxy{w: w, host: h}
	r := w.rand("haproxy")
	for i, m := range w.machines {
		s := &server{m: m, up: i == 0}
		if s.up {
			s.health = checkRise + checkFall - 1
		}
		p.servers = append(p.servers, s)
		w.after(time.Duration(r.Int64N(int64(checkEvery))), nil, func() { p.check(s) })
	}
	return p
}

// check asks one server, and plans the next check for an interval after the answer, or after the time limit.
func (p *haproxy) check(s *server) {
	s.apart = s.apart && !s.up
	away := !p.w.net.reach(p.host, s.m.host) || s.m.starved > 0
	if !away && !s.m.mute() {
		ok := s.m.answers() && s.m.saysPrimary()
		s.apart = s.apart && ok // it was found again, and does not lead
		p.answered(s, ok)
		p.w.after(checkEvery, nil, func() { p.check(s) })
		return
	}
	s.apart = s.apart || away
	s.checks++
	turn := s.checks
	s.asked = turn
	p.w.after(checkEvery, nil, func() { p.unanswered(s, turn) })
}

// unanswered ends a check that waits: its time is over, or whom it asked has died.
func (p *haproxy) unanswered(s *server, turn int) {
	if s.asked == 0 || s.asked != turn {
		return
	}
	s.asked = 0
	p.answered(s, false)
	p.w.after(checkEvery, nil, func() { p.check(s) })
}

// died ends the check that a process was to answer.
func (p *haproxy) died(m *machine) {
	for _, s := range p.servers {
		if s.m == m && p.w.net.reach(p.host, m.host) {
			p.unanswered(s, s.asked)
		}
	}
}

// answered counts a check that passed or failed.
func (p *haproxy) answered(s *server, ok bool) {
	const best = checkRise + checkFall - 1
	switch {
	case ok && s.up:
		s.health = best
	case ok:
		if s.health++; s.health >= checkRise {
			p.set(s, true)
		}
	case s.up:
		if s.health--; s.health < checkRise {
			p.set(s, false)
		}
	default:
		s.health = 0
	}
}

func (p *haproxy) set(s *server, up bool) {
	p.w.changed()
	s.up, s.health = up, 0
	if up {
		s.health = checkRise + checkFall - 1
	}
	p.w.say("haproxy: %s up %t", s.m.name, up)
}

// parted reports whether a machine is not routed to because it was cut from the proxy, or its API starved, and was not
// found again yet.
func (p *haproxy) parted(m *machine) bool {
	for _, s := range p.servers {
		if s.m == m {
			return !s.up && s.apart || !p.w.net.reach(p.host, m.host)
		}
	}
	return false
}

// routed returns the machine to which a writer gets through, nil if there is none. A writer that meets a server which
// does not write tries again and gets another.
func (p *haproxy) routed() *machine {
	for _, s := range p.servers {
		if s.up && s.m.writable() && p.w.net.reach(p.host, s.m.host) {
			return s.m
		}
	}
	return nil
}
