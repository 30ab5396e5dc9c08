// Package dcstest is an etcd for tests: a stateful fake that speaks etcd's gRPC API.
//
// It owns keys with revisions and history, watches, leases on a clock that the test moves, alarms, users and tokens, and
// the faults that a real cluster shows only when it is hurt: members that hang, refuse connections, have no quorum, feed
// a watch nothing, or answer from the past. It promises that every state is reached at a call of the test and never by
// the passing of time, and that all of it works inside a testing/synctest bubble over [Cluster.Dial].
//
// It deliberately has no raft, no persistence, and only the requests that pgpatrol makes.
package dcstest

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Cluster is a fake etcd cluster. All methods are safe for concurrent use.
type Cluster struct {
	mu       sync.Mutex // guards everything, also of members
	state    state
	members  []*member
	changed  chan struct{} // closed and replaced at every change
	quorum   bool
	alarms   map[pb.AlarmType]bool
	clock    time.Duration
	leases   map[int64]*lease
	lastID   int64
	garbage  func(id int64) (ttl, granted int64, ok bool)
	auth     auth
	requests map[string]int
	replay   []*mvccpb.Event
}

// state is what a snapshot of a member holds.
type state struct {
	cluster   uint64
	term      uint64
	revision  int64
	compacted int64
	kvs       map[string]*mvccpb.KeyValue
	log       []*mvccpb.Event // in order of revision
}

type lease struct {
	granted time.Duration
	expires time.Duration // on the cluster's clock
}

type auth struct {
	on       bool
	user     string
	password string
	tokens   map[string]bool
	issued   int
	denied   bool
	without  string // prefix of the keys that are refused, "" for none
	distrust bool
}

// New returns a cluster of that many members, with a quorum and without a key. The caller must Close it.
func New(members int) *Cluster {
	c := &Cluster{
		state:   state{cluster: 0xc1, term: 2, revision: 1, kvs: map[string]*mvccpb.KeyValue{}},
		changed: make(chan struct{}), quorum: true, alarms: map[pb.AlarmType]bool{},
		leases: map[int64]*lease{}, lastID: 0x7c00, requests: map[string]int{},
	}
	for i := range members {
		c.members = append(c.members, newMember(c, i))
	}
	return c
}

// Close ends all members and every connection.
func (c *Cluster) Close() {
	for _, m := range c.members {
		m.close()
	}
}

// wake lets every watch and every hanging request look again. It is called with mu.
func (c *Cluster) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// do changes something and wakes everybody.
func (c *Cluster) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.wake()
}

// Put writes a key and returns the new revision. Lease 0 means none.
func (c *Cluster) Put(key, value string, lease int64) int64 {
	c.do(func() { c.state.revision++; c.put(key, []byte(value), lease) })
	return c.Revision()
}

// put writes a key at the present revision. It is called with mu.
func (c *Cluster) put(key string, value []byte, lease int64) {
	kv := &mvccpb.KeyValue{
		Key: []byte(key), Value: value, Lease: lease, Version: 1,
		CreateRevision: c.state.revision, ModRevision: c.state.revision,
	}
	if old := c.state.kvs[key]; old != nil {
		kv.CreateRevision, kv.Version = old.GetCreateRevision(), old.GetVersion()+1
	}
	c.state.kvs[key] = kv
	c.state.log = append(c.state.log, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
}

// Delete removes a key.
func (c *Cluster) Delete(key string) {
	c.do(func() { c.state.revision++; c.remove(key) })
}

// remove deletes a key at the present revision and returns whether there was one. It is called with mu.
func (c *Cluster) remove(key string) bool {
	if c.state.kvs[key] == nil {
		return false
	}
	delete(c.state.kvs, key)
	c.state.log = append(c.state.log, &mvccpb.Event{
		Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: c.state.revision},
	})
	return true
}

// Value returns the value of a key and whether it exists.
func (c *Cluster) Value(key string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kv := c.state.kvs[key]
	return string(kv.GetValue()), kv != nil
}

// Keys returns all keys, sorted.
func (c *Cluster) Keys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.state.kvs))
}

// Revision returns the present revision.
func (c *Cluster) Revision() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.revision
}

// Grant creates a lease and returns its id.
func (c *Cluster) Grant(ttl time.Duration) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.grant(ttl)
}

func (c *Cluster) grant(ttl time.Duration) int64 {
	c.lastID++
	c.leases[c.lastID] = &lease{granted: ttl, expires: c.clock + ttl}
	return c.lastID
}

// Renew gives a lease its full time again.
func (c *Cluster) Renew(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.leases[id]; l != nil {
		l.expires = c.clock + l.granted
	}
}

// Leases returns how many leases exist.
func (c *Cluster) Leases() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.leases)
}

// Advance moves the clock of the leases. Those that run out are revoked, and their keys deleted.
func (c *Cluster) Advance(d time.Duration) {
	c.do(func() {
		c.clock += d
		for _, id := range slices.Sorted(maps.Keys(c.leases)) {
			if c.leases[id].expires <= c.clock {
				c.revoke(id)
			}
		}
	})
}

// revoke ends a lease with its keys and reports whether it existed. It is called with mu.
func (c *Cluster) revoke(id int64) bool {
	if c.leases[id] == nil {
		return false
	}
	delete(c.leases, id)
	var keys []string
	for key, kv := range c.state.kvs {
		if kv.GetLease() == id {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		c.state.revision++
	}
	for _, key := range slices.Sorted(slices.Values(keys)) {
		c.remove(key)
	}
	return true
}

// AnswerLease makes requests for the time left of a lease answer what f says where it says ok; nil ends that.
func (c *Cluster) AnswerLease(f func(id int64) (ttl, granted int64, ok bool)) {
	c.do(func() { c.garbage = f })
}

// Compact forgets the history up to the present revision.
func (c *Cluster) Compact() {
	c.do(func() { c.state.compacted, c.state.log = c.state.revision, nil })
}

// Replay sends to every present watch that the key was put, or deleted, at a revision of the past (FAULTS.md F47).
func (c *Cluster) Replay(key, value string, revision int64, deleted bool) {
	e := &mvccpb.Event{Kv: &mvccpb.KeyValue{
		Key: []byte(key), Value: []byte(value), CreateRevision: revision, ModRevision: revision, Version: 1,
	}}
	if deleted {
		e.Type = mvccpb.Event_DELETE
	}
	c.do(func() { c.replay = append(c.replay, e) })
}

func (c *Cluster) replays() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.replay)
}

// Alarm raises or clears an alarm. NOSPACE refuses puts and grants from then on, as etcd does.
func (c *Cluster) Alarm(a pb.AlarmType, raised bool) {
	c.do(func() {
		if delete(c.alarms, a); raised {
			c.alarms[a] = true
		}
	})
}

// SetQuorum takes the quorum away or gives it back. Without it linearizable requests hang and watches that require a
// leader end.
func (c *Cluster) SetQuorum(has bool) { c.do(func() { c.quorum = has }) }

// Elect starts another raft term.
func (c *Cluster) Elect() { c.do(func() { c.state.term++ }) }

// Recreate replaces the cluster by an empty one with another id.
func (c *Cluster) Recreate() {
	c.do(func() {
		c.state = state{cluster: c.state.cluster + 1, term: 2, revision: 1, kvs: map[string]*mvccpb.KeyValue{}}
		c.leases = map[int64]*lease{}
	})
}

// Snapshot returns a function that restores keys, history, term and cluster id as they are now.
func (c *Cluster) Snapshot() (restore func()) {
	c.mu.Lock()
	saved := c.state.clone()
	c.mu.Unlock()
	return func() { c.do(func() { c.state = saved.clone() }) }
}

func (s state) clone() state {
	s.kvs, s.log = maps.Clone(s.kvs), slices.Clone(s.log)
	return s
}

// RequireAuth makes every request need a token of this user.
func (c *Cluster) RequireAuth(user, password string) {
	c.do(func() {
		c.auth = auth{on: true, user: user, password: password, tokens: map[string]bool{}, issued: c.auth.issued}
	})
}

// ExpireTokens makes all tokens given so far invalid.
func (c *Cluster) ExpireTokens() { c.do(func() { clear(c.auth.tokens) }) }

// RefuseTokens makes every token invalid as soon as it is given, as members whose clocks disagree do.
func (c *Cluster) RefuseTokens(refused bool) { c.do(func() { c.auth.distrust = refused }) }

// Deny refuses every key to everybody, as a role without permissions does.
func (c *Cluster) Deny(denied bool) { c.do(func() { c.auth.denied = denied }) }

// Forbid refuses the keys below a prefix to everybody, as a role for other keys does; "" ends that.
func (c *Cluster) Forbid(prefix string) { c.do(func() { c.auth.without = prefix }) }

func (a *auth) forbidden(key []byte) bool {
	return a.without != "" && bytes.HasPrefix(key, []byte(a.without))
}

// forbids reports whether a transaction touches a forbidden key. It is called with mu.
func (c *Cluster) forbids(r *pb.TxnRequest) bool {
	for _, op := range append(r.GetSuccess(), r.GetFailure()...) {
		if c.auth.forbidden(op.GetRequestRange().GetKey()) || c.auth.forbidden(op.GetRequestPut().GetKey()) {
			return true
		}
	}
	return false
}

// Requests returns how many requests of a method arrived, or all of them for "".
func (c *Cluster) Requests(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if method != "" {
		return c.requests[method]
	}
	n := 0
	for _, k := range c.requests {
		n += k
	}
	return n
}

// inRange returns the keys of a range, sorted.
func (s state) inRange(key, end []byte) []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for _, kv := range s.kvs {
		if matches(kv.GetKey(), key, end) {
			kvs = append(kvs, kv)
		}
	}
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.GetKey(), b.GetKey()) })
	return kvs
}

func matches(k, key, end []byte) bool {
	if len(end) == 0 {
		return bytes.Equal(k, key)
	}
	return bytes.Compare(k, key) >= 0 && (bytes.Equal(end, []byte{0}) || bytes.Compare(k, end) < 0)
}

// compare evaluates one comparison of a transaction.
func (s state) compare(cp *pb.Compare) bool {
	kv := s.kvs[string(cp.GetKey())]
	var n int
	switch cp.GetTarget() {
	case pb.Compare_CREATE:
		n = cmp.Compare(kv.GetCreateRevision(), cp.GetCreateRevision())
	case pb.Compare_MOD:
		n = cmp.Compare(kv.GetModRevision(), cp.GetModRevision())
	case pb.Compare_VERSION:
		n = cmp.Compare(kv.GetVersion(), cp.GetVersion())
	case pb.Compare_LEASE:
		n = cmp.Compare(kv.GetLease(), cp.GetLease())
	case pb.Compare_VALUE:
		n = bytes.Compare(kv.GetValue(), cp.GetValue())
	}
	switch cp.GetResult() {
	case pb.Compare_EQUAL:
		return n == 0
	case pb.Compare_NOT_EQUAL:
		return n != 0
	case pb.Compare_GREATER:
		return n > 0
	case pb.Compare_LESS:
		return n < 0
	}
	return false
}
