package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
)

var errNoAnswer = errors.New("the model of etcd does not answer")

// etcdModel models a cluster of etcd as one linearizable store: with keys, leases, quorum, NOSPACE and a network per
// machine. It does not model its members.
type etcdModel struct {
	w        *world
	revision int64
	keys     map[string]*dcs.KV // never iterated in an order that matters
	leases   map[int64]*lease
	lastID   int64
	quorum   bool
	nospace  bool
	// changed is told of every key that was written or is gone.
	changed func(key string)
	okSince instant // since when writes are possible
}

type lease struct {
	id      int64
	ttl     time.Duration
	expires instant
	renewed instant
	gone    bool
}

func newEtcd(w *world) *etcdModel {
	return &etcdModel{w: w, keys: map[string]*dcs.KV{}, leases: map[int64]*lease{}, quorum: true}
}

// answers reports whether a machine gets linearizable answers.
func (e *etcdModel) answers(m *machine) bool { return e.quorum && !m.cut }

func (e *etcdModel) writable() bool { return e.quorum && !e.nospace }

// setQuorum: the leader of a new quorum gives every lease its whole life again.
func (e *etcdModel) setQuorum(on bool) {
	if on && !e.quorum {
		e.okSince = e.w.now
		for _, l := range e.sorted() {
			l.expires = e.w.now + l.ttl
			e.watch(l)
		}
	}
	e.quorum = on
}

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
		case e.quorum:
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
	e.changed(key)
}

func (e *etcdModel) value(key string) string {
	if kv := e.keys[key]; kv != nil {
		return string(kv.Value)
	}
	return ""
}

// client is coordinator.KV for one agent, whose process waits for the answers.
type client struct {
	e *etcdModel
	m *machine
	p func() *process // that asks
}

// ask takes the time of a request, on the way there and back.
func (c *client) ask(ctx context.Context, write bool, do func()) error {
	c.p().sleep(c.m.latency())
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.e.answers(c.m) {
		c.p().sleep(time.Second)
		return errNoAnswer
	}
	if write && c.e.nospace {
		return errors.New("the model of etcd has no space")
	}
	do()
	c.p().sleep(c.m.latency())
	if !c.e.answers(c.m) {
		return errNoAnswer
	}
	return nil
}

func (c *client) Grant(ctx context.Context, ttl time.Duration) (id int64, granted time.Duration, err error) {
	err = c.ask(ctx, true, func() { id = c.e.grant(ttl) })
	return id, ttl, err
}

func (c *client) Create(ctx context.Context, key, value string, lease int64) (revision int64, holder string, err error) {
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
