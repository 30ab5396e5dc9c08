package main

import (
	"math/rand/v2"
	"time"
)

// host is an end of links: a machine, a member of etcd, or the proxy.
type host int

// link models one direction between two hosts. Faults overlap, so cuts are counted.
type link struct {
	cut   int
	delay time.Duration
	loss  float64 // of packets
}

// network models which packets arrive between hosts, each direction for itself, and how late.
type network struct {
	hosts int
	links []link // from*hosts + to
}

func newNetwork(hosts int) *network {
	return &network{hosts: hosts, links: make([]link, hosts*hosts)}
}

func (n *network) link(from, to host) *link { return &n.links[int(from)*n.hosts+int(to)] }

// reach reports whether two hosts can talk: nothing on the way there or back is cut.
func (n *network) reach(a, b host) bool {
	return a == b || n.link(a, b).cut == 0 && n.link(b, a).cut == 0
}

// cut cuts, or mends with -1, one direction.
func (n *network) cut(from, to host, by int) { n.link(from, to).cut += by }

// part cuts, or mends, both directions between two hosts.
func (n *network) part(a, b host, by int) {
	n.cut(a, b, by)
	n.cut(b, a, by)
}

// trip is how long a request and its answer take, and whether both arrive in time. A packet that is lost is sent again
// after 200 ms, 400 ms and so on, as TCP does.
func (n *network) trip(r *rand.Rand, a, b host, limit time.Duration) (time.Duration, bool) {
	if !n.reach(a, b) {
		return limit, false
	}
	d := time.Duration(1+r.IntN(8)) * time.Millisecond
	for _, l := range []*link{n.link(a, b), n.link(b, a)} {
		d += l.delay
		for again := 200 * time.Millisecond; l.loss > 0 && r.Float64() < l.loss && d < limit; again *= 2 {
			d += again
		}
	}
	if d >= limit {
		return limit, false
	}
	return d, true
}
