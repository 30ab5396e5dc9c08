package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

var errNoAnswer = errors.New("the model of etcd does not answer")

// etcdModel models a cluster of etcd: one linearizable store with keys and leases, and members that elect a leader, lose
// it, and may be down, hung or cut off. What a member answers linearizably is always right; what a watch tells is late.
type etcdModel struct {
	w        *world
	rnd      *rand.Rand
	revision int64
	keys     map[string]*dcs.KV // never iterated in an order that matters
	leases   map[int64]*lease
	lastID   int64
	members  []*etcdMember
	leader   *etcdMember // of raft, nil: none is elected
	term     int
	electing bool
	nospace  bool
	okSince  instant // since when writes are possible
	// changed is told of every key that was written or is gone.
	changed func(key string)

	views  []viewed          // Patroni's keys as they were, oldest first
	shared node.Coordination // pgpatrol's keys, as they are
}

// etcdMember is one member, on a host of its own.
type etcdMember struct {
	host host
	down int // how many faults keep it down
	hung int // how many faults keep it from doing anything
}

func (e *etcdMember) works() bool { return e.down == 0 && e.hung == 0 }

// viewed is what Patroni's keys said from a moment on.
type viewed struct {
	at      instant
	cluster *node.Cluster
}

type lease struct {
	id      int64
	ttl     time.Duration
	expires instant
	renewed instant
	gone    bool
}

func newEtcd(w *world, first host) *etcdModel {
	e := &etcdModel{w: w, rnd: w.rand("etcd"), keys: map[string]*dcs.KV{}, leases: map[int64]*lease{}}
	for i := range etcdMembers {
		e.members = append(e.members, &etcdMember{host: first + host(i)})
	}
	e.leader = e.members[0]
	return e
}

const etcdMembers = 3

// electionTimeout is how long a quorum is without a leader before it elects one, at least; and at most twice of it.
const electionTimeout = time.Second

// led reports whether a member leads a majority now.
func (e *etcdModel) led(by *etcdMember) bool {
	if by == nil || !by.works() {
		return false
	}
	n := 0
	for _, o := range e.members {
		if o.works() && e.w.net.reach(by.host, o.host) {
			n++
		}
	}
	return n > len(e.members)/2
}

// settle is called whenever a member or a link has changed: a leader that lost its majority steps down, and an election
// begins. Whoever wins it gives every lease its whole life again (FACTS.md §7.2).
func (e *etcdModel) settle() {
	if e.leader != nil && !e.led(e.leader) {
		e.leader = nil
		e.w.say("etcd: no leader")
	}
	if e.leader != nil || e.electing {
		return
	}
	e.electing = true
	wait := electionTimeout + time.Duration(e.rnd.Int64N(int64(electionTimeout)))
	e.w.after(wait, nil, func() {
		e.electing = false
		i := slices.IndexFunc(e.members, e.led)
		if i < 0 {
			return // the next change tries again
		}
		e.w.changed()
		e.leader, e.okSince = e.members[i], e.w.now
		e.term++
		e.w.say("etcd: member %d leads in term %d", i+1, e.term)
		for _, l := range e.sorted() {
			l.expires = e.w.now + l.ttl
			e.watch(l)
		}
	})
}

// serves reports whether a member answers a host linearizably.
func (e *etcdModel) serves(by *etcdMember, from host) bool {
	net := e.w.net
	return by.works() && e.leader != nil && net.reach(from, by.host) && net.reach(by.host, e.leader.host)
}

// answers reports whether a machine gets linearizable answers, from whichever member.
func (e *etcdModel) answers(m *machine) bool {
	return slices.ContainsFunc(e.members, func(by *etcdMember) bool { return e.serves(by, m.host) })
}

func (e *etcdModel) writable() bool { return e.leader != nil && !e.nospace }

func (e *etcdModel) setNospace(on bool) {
	if !on {
		e.okSince = e.w.now
	}
	e.nospace = on
}

func (e *etcdModel) sorted() []*lease {
	var out []*lease
	for _, l := range e.leases {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *lease) int { return int(a.id - b.id) })
	return out
}

func (e *etcdModel) grant(ttl time.Duration) int64 {
	e.lastID++
	l := &lease{id: e.lastID, ttl: ttl, expires: e.w.now + ttl, renewed: e.w.now}
	e.leases[l.id] = l
	e.watch(l)
	return l.id
}

// keep renews a lease and reports whether it still exists.
func (e *etcdModel) keep(id int64) bool {
	l := e.leases[id]
	if l == nil {
		return false
	}
	l.expires, l.renewed = e.w.now+l.ttl, e.w.now
	return true
}

// watch plans the look at whether a lease has ended. Without a quorum no lease ends.
func (e *etcdModel) watch(l *lease) {
	e.w.after(l.expires-e.w.now, nil, func() {
		switch {
		case l.gone:
		case e.w.now < l.expires:
			e.watch(l)
		case e.leader != nil:
			e.revoke(l.id)
		}
	})
}

func (e *etcdModel) revoke(id int64) {
	l := e.leases[id]
	if l == nil {
		return
	}
	l.gone = true
	delete(e.leases, id)
	for _, k := range e.under("") {
		if k.Lease == id {
			e.remove(k.Key)
		}
	}
}

// under returns the keys of a prefix in order.
func (e *etcdModel) under(prefix string) []dcs.KV {
	var out []dcs.KV
	for k, kv := range e.keys {
		if strings.HasPrefix(k, prefix) {
			out = append(out, *kv)
		}
	}
	slices.SortFunc(out, func(a, b dcs.KV) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (e *etcdModel) put(key, value string, lease int64) {
	e.revision++
	kv := e.keys[key]
	if kv == nil {
		kv = &dcs.KV{Key: key, CreateRevision: e.revision}
		e.keys[key] = kv
	}
	fresh := string(kv.Value) != value
	kv.Value, kv.Lease, kv.ModRevision = []byte(value), lease, e.revision
	e.remember(key)
	if fresh {
		e.changed(key)
	}
}

func (e *etcdModel) remove(key string) {
	if e.keys[key] == nil {
		return
	}
	e.revision++
	delete(e.keys, key)
	e.remember(key)
	e.changed(key)
}

// remember keeps what the keys say from now on, for those who watch them late.
func (e *etcdModel) remember(key string) {
	if strings.HasPrefix(key, node.KeyRoot) {
		e.shared = dcs.ParseShared(scope, e.under(node.KeyRoot))
		return
	}
	v := viewed{e.w.now, e.w.cluster()}
	if n := len(e.views); n > 0 && e.views[n-1].at == e.w.now {
		e.views[n-1] = v
		return
	}
	if len(e.views) >= rememberViews {
		e.views = append(e.views[:0], e.views[rememberViews/2:]...)
	}
	e.views = append(e.views, v)
}

const rememberViews = 128

// seen returns what the keys said at a moment, or as long ago as is remembered.
func (e *etcdModel) seen(at instant) *node.Cluster {
	for i := len(e.views) - 1; i > 0; i-- {
		if e.views[i].at <= at {
			return e.views[i].cluster
		}
	}
	return e.views[0].cluster
}

func (e *etcdModel) value(key string) string {
	if kv := e.keys[key]; kv != nil {
		return string(kv.Value)
	}
	return ""
}

// endpoint is the member of etcd that an agent talks to, and watches. The next one is tried when it does not answer.
type endpoint struct {
	e       *etcdModel
	a       *agent
	pin     int
	since   instant // of the watch
	live    bool    // the watch is established
	heard   instant // when the watch last showed life, or would have
	stalled bool    // it shows none since then
}

const (
	requestLimit = time.Second // as the agent's read timeout
	watchDelay   = 10 * time.Millisecond
	watchStall   = 15 * time.Second // as agent/dcs: a watch without life for so long is given up (FAULTS.md F46)
	watchRetry   = time.Second
	noLeader     = 3 * time.Second // a watch on a member without a leader is ended by then
)

func (p *endpoint) member() *etcdMember { return p.e.members[p.pin] }

// request is how long a request takes, and whether it is answered. One that is not makes the next go elsewhere, and ends
// the watch, which shares the connection.
func (p *endpoint) request() (time.Duration, bool) {
	takes, ok := p.e.w.net.trip(p.a.rnd, p.a.m.host, p.member().host, requestLimit)
	if ok && p.e.serves(p.member(), p.a.m.host) {
		return takes, true
	}
	if p.member().down > 0 && p.e.w.net.reach(p.a.m.host, p.member().host) {
		takes = 2 * time.Millisecond // refused
	} else {
		takes = requestLimit
	}
	p.a.failed = p.e.w.now
	p.pin = (p.pin + 1) % len(p.e.members)
	p.live = false
	return takes, false
}

// watched returns the moment whose keys the watch has told of, and whether there is a watch. It is called at every look.
func (p *endpoint) watched() (instant, bool) {
	now := p.e.w.now
	if !p.live {
		if now-p.since >= watchRetry && p.e.serves(p.member(), p.a.m.host) {
			p.live, p.stalled, p.since, p.heard = true, false, now, now
			return now, true // it begins with a list
		}
		return 0, false
	}
	if p.e.serves(p.member(), p.a.m.host) && !p.a.m.deaf {
		p.heard, p.stalled = now, false
		return now - watchDelay - p.e.w.net.link(p.member().host, p.a.m.host).delay, true
	}
	p.stalled = true
	limit := watchStall
	if p.member().works() && p.e.leader == nil {
		limit = noLeader
	}
	if now-p.heard > limit {
		p.live, p.since = false, now
		return 0, false
	}
	return p.heard, true
}

// client is coordinator.KV for one agent, whose process waits for the answers.
type client struct {
	a *agent
	e *etcdModel
}

// ask takes the time of a request, on the way there and back.
func (c *client) ask(ctx context.Context, write bool, do func()) error {
	takes, ok := c.a.etcd.request()
	c.e.w.current.sleep(takes / 2)
	if err := ctx.Err(); err != nil {
		return err
	}
	if !ok || !c.e.serves(c.a.etcd.member(), c.a.m.host) {
		c.e.w.current.sleep(takes - takes/2)
		return errNoAnswer
	}
	if write && c.e.nospace {
		return errors.New("the model of etcd has no space")
	}
	do()
	c.e.w.current.sleep(takes - takes/2)
	if !c.e.serves(c.a.etcd.member(), c.a.m.host) {
		return errNoAnswer
	}
	return nil
}

func (c *client) Grant(ctx context.Context, ttl time.Duration) (id int64, granted time.Duration, err error) {
	err = c.ask(ctx, true, func() { id = c.e.grant(ttl) })
	return id, ttl, err
}

func (c *client) Create(ctx context.Context, key, value string, lease int64) (revision int64, holder string, err error) {
	c.e.w.check.foreignKey(c.a, key)
	err = c.ask(ctx, true, func() {
		if kv := c.e.keys[key]; kv != nil {
			holder = string(kv.Value)
			return
		}
		if c.e.leases[lease] == nil {
			return
		}
		c.e.put(key, value, lease)
		revision = c.e.revision
	})
	if err != nil {
		return 0, "", err
	}
	return revision, holder, nil
}

func (c *client) Has(ctx context.Context, key string, created int64) (has bool, err error) {
	err = c.ask(ctx, false, func() { kv := c.e.keys[key]; has = kv != nil && kv.CreateRevision == created })
	return has, err
}

func (c *client) Delete(ctx context.Context, key string, created int64) (was bool, err error) {
	c.e.w.check.foreignKey(c.a, key)
	err = c.ask(ctx, false, func() {
		if kv := c.e.keys[key]; kv != nil && kv.CreateRevision == created {
			was = true
			c.e.remove(key)
		}
	})
	return was, err
}

func (c *client) Revoke(ctx context.Context, lease int64) {
	_ = c.ask(context.WithoutCancel(ctx), false, func() { c.e.revoke(lease) }) // it ends by itself otherwise
}
