package dcs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// How often Observe asks what.
const (
	proveEvery       = 2 * time.Second
	listEvery        = 30 * time.Second
	leaseEvery       = 2 * time.Second // a missed renewal shows within one loop_wait (FAULTS.md L31)
	remoteLeaseEvery = 10 * time.Second
	alarmsEvery      = 15 * time.Second
	alarmsAlert      = 5 * time.Second
	probeTTL         = 10 // seconds that the lease of a write probe lives if it cannot be revoked
)

const (
	sourceKeys   = "etcd linearizable"
	sourceAlarms = "etcd alarm list"
	sourceWrite  = "etcd lease grant"
)

// history is what Observe remembers between calls; whoever holds the observing token owns it.
type history struct {
	asked       map[string]node.Instant // when each kind of read last began
	memberLease int64                   // last lease seen at the own member key
	leaderLease int64                   // lease of the leader key
	member      node.Fact[node.Lease]
	leader      node.Fact[node.Lease]
	alarms      node.Fact[[]string]
	writable    node.Fact[bool]
}

// due reports whether a kind of read is to be made now, and if so notes it.
func (h *history) due(kind string, every time.Duration, now node.Instant) bool {
	last, ok := h.asked[kind]
	if ok && now.Sub(last) < every {
		return false
	}
	if h.asked == nil {
		h.asked = map[string]node.Instant{}
	}
	h.asked[kind] = now
	return true
}

// Observe makes the reads that are due in this mode, at the same time where they do not depend on each other, and
// returns everything that is known. It returns within two of the configured read timeouts, or when ctx ends. Calls take
// turns.
//
// A fact whose read failed keeps its last value with its old instant and says why in Why; one that was never read is
// unknown. While linearizable reads fail, Alert asks no more often than Routine: that would only add load to an etcd
// that struggles. Callers must not modify what they get.
func (v *View) Observe(ctx context.Context, mode Mode) node.DCS {
	select {
	case v.observing <- struct{}{}:
		defer func() { <-v.observing }()
	case <-ctx.Done():
		return v.unobserved()
	}
	now := v.now()
	if mode == Alert && v.failing() {
		mode = Routine
	}
	h := &v.last
	var wg sync.WaitGroup
	what := v.readDue(mode, now)
	wg.Go(func() { v.refresh(ctx, what) })
	v.askLeases(ctx, &wg, mode, now)
	if h.due("alarms", pick(mode, alarmsEvery, alarmsAlert, 0), now) {
		wg.Go(func() { h.alarms = v.readAlarms(ctx, h.alarms) })
	}
	if mode == Confirm {
		wg.Go(func() { h.writable = v.probeWrite(ctx) })
	}
	wg.Wait()
	if v.learnLeases() { // the view shows other leases than those just asked for
		v.askLeases(ctx, &wg, mode, v.now())
		wg.Wait()
	}
	return v.result()
}

// pick returns the value for the mode.
func pick[T any](mode Mode, routine, alert, confirm T) T {
	switch mode {
	case Alert:
		return alert
	case Confirm:
		return confirm
	case Routine:
	}
	return routine
}

func (v *View) failing() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.since != 0
}

// read is how the view is to be made current.
type read uint8

const (
	readNothing read = iota
	readLeader
	readAll
)

// readDue decides which linearizable read is due. Without a live watch the leader key proves nothing, so everything is
// read at the pace of the leader key.
func (v *View) readDue(mode Mode, now node.Instant) read {
	v.mu.Lock()
	whole := mode == Confirm || !v.known || !v.watching()
	v.mu.Unlock()
	h := &v.last
	if !h.due("leader", pick(mode, proveEvery, 0, 0), now) {
		return readNothing
	}
	if h.due("list", listEvery, now) || whole {
		h.asked["list"] = now
		return readAll
	}
	return readLeader
}

// refresh makes the read. Its failure is in the account that linear keeps.
func (v *View) refresh(ctx context.Context, what read) {
	switch what {
	case readLeader:
		_ = v.prove(ctx)
	case readAll:
		_, _ = v.list(ctx)
	case readNothing:
	}
}

// askLeases starts the lease reads that are due. When this member leads, its lease is the leader's.
func (v *View) askLeases(ctx context.Context, wg *sync.WaitGroup, mode Mode, now node.Instant) {
	h := &v.last
	member, leader := h.memberLease, h.leaderLease
	if member != 0 && h.due("lease "+hex(member), pick(mode, leaseEvery, 0, 0), now) {
		wg.Go(func() {
			h.member = v.readLease(ctx, member, h.member)
			if leader == member {
				h.leader = h.member
			}
		})
	}
	if leader != 0 && leader != member && h.due("lease "+hex(leader), pick(mode, remoteLeaseEvery, 0, 0), now) {
		wg.Go(func() { h.leader = v.readLease(ctx, leader, h.leader) })
	}
}

// learnLeases takes the lease ids from the view and reports whether one is new. The id of a member key that is gone is
// kept, so that etcd can say that the lease is gone too; a leader key that is gone has no lease.
func (v *View) learnLeases() bool {
	v.mu.Lock()
	known, c := v.known, v.cluster()
	v.mu.Unlock()
	if !known {
		return false
	}
	h := &v.last
	before := [2]int64{h.memberLease, h.leaderLease}
	if m, ok := c.Member(v.cfg.Member); ok && m.Lease != 0 {
		h.memberLease = m.Lease
	}
	h.leaderLease = 0
	if c.Leader != nil {
		h.leaderLease = c.Leader.Lease
	}
	if h.memberLease != before[0] {
		h.member = node.Fact[node.Lease]{}
	}
	if h.leaderLease != before[1] {
		h.leader = node.Fact[node.Lease]{}
		if h.leaderLease == h.memberLease && h.leaderLease != 0 {
			h.leader = h.member
		}
	}
	if before == [2]int64{h.memberLease, h.leaderLease} {
		return false
	}
	for kind := range h.asked { // leases that nobody holds any more
		if len(kind) > 6 && kind[:6] == "lease " && kind != "lease "+hex(h.memberLease) && kind != "lease "+hex(h.leaderLease) {
			delete(h.asked, kind)
		}
	}
	return true
}

// readLease asks how long a lease has left.
func (v *View) readLease(ctx context.Context, id int64, old node.Fact[node.Lease]) node.Fact[node.Lease] {
	began, m := v.now(), v.mark()
	source := "etcd lease " + hex(id)
	var resp *clientv3.LeaseTimeToLiveResponse
	err := v.conn.call(ctx, true, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		if resp, err = etcd.TimeToLive(ctx, clientv3.LeaseID(id)); err != nil {
			return err
		}
		return v.admit(resp.ResponseHeader, m)
	})
	if err != nil {
		return stale(old, source, began, err)
	}
	lease, err := parseLease(id, resp.TTL, resp.GrantedTTL)
	if err != nil {
		return stale(old, source, began, err)
	}
	return node.Seen(lease, source, began)
}

// parseLease checks what etcd says of a lease. A lease that etcd does not know comes as ttl -1 without a granted ttl; a
// lease that ran out and is not revoked yet has a ttl below zero. Around a change of the etcd leader old versions answer
// garbage like 9223372036 (FACTS.md §7.2), so that more than was granted is not believed.
func parseLease(id, ttl, granted int64) (node.Lease, error) {
	switch {
	case ttl == -1 && granted == 0:
		return node.Lease{ID: id}, nil
	case granted <= 0 || granted > maxSeconds || ttl > granted || ttl < -maxSeconds:
		return node.Lease{}, &failure{causeRefused, "etcd's answer about the lease makes no sense"}
	}
	return node.Lease{
		ID: id, Exists: true,
		Granted:   time.Duration(granted) * time.Second,
		Remaining: time.Duration(max(ttl, 0)) * time.Second,
	}, nil
}

// readAlarms asks for the alarms of all members.
func (v *View) readAlarms(ctx context.Context, old node.Fact[[]string]) node.Fact[[]string] {
	began, m := v.now(), v.mark()
	var resp *clientv3.AlarmResponse
	err := v.conn.call(ctx, true, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		if resp, err = etcd.AlarmList(ctx); err != nil {
			return err
		}
		return v.admit(resp.Header, m)
	})
	if err != nil {
		return stale(old, sourceAlarms, began, err)
	}
	names := []string{}
	for _, a := range resp.Alarms {
		if a.GetAlarm() != pb.AlarmType_NONE {
			names = append(names, a.GetAlarm().String())
		}
	}
	slices.Sort(names)
	return node.Seen(slices.Compact(names), sourceAlarms, began)
}

// probeWrite finds out whether etcd accepts writes by granting a lease and revoking it: NOSPACE refuses grants
// (FACTS.md §3.2 I), and no key is touched. Its failure is unknown, not the last value: it is asked only for an action
// that happens now.
func (v *View) probeWrite(ctx context.Context) node.Fact[bool] {
	began, m := v.now(), v.mark()
	lease, err := v.grant(ctx, probeTTL, m)
	if causeOf(err) == causeReadOnly {
		return node.Fact[bool]{Known: true, Source: sourceWrite, At: began, Why: err.Error()}
	}
	if err != nil {
		return node.Unseen[bool](sourceWrite, err.Error(), began)
	}
	v.abandon(ctx, lease.ID)
	return node.Seen(true, sourceWrite, began)
}

// stale keeps a fact whose read failed, and says why. Answers of another etcd cluster void it: what was known is not
// about this one.
func stale[T any](old node.Fact[T], source string, began node.Instant, err error) node.Fact[T] {
	if !old.Known || causeOf(err) == causeForeign {
		return node.Unseen[T](source, err.Error(), began)
	}
	old.Why = "not refreshed: " + err.Error()
	return old
}

// result puts the facts together.
func (v *View) result() node.DCS {
	h := &v.last
	d := node.DCS{LeaderLease: h.leader, MemberLease: h.member, Alarms: h.alarms, Writable: h.writable}
	v.mu.Lock()
	defer v.mu.Unlock()
	d.Since = v.since
	d.Cluster = v.keys()
	if v.foreign != nil {
		d.Alarms = node.Unseen[[]string](sourceAlarms, v.foreign.Error(), v.proved)
		d.Writable = node.Unseen[bool](sourceWrite, v.foreign.Error(), v.proved)
	}
	d.Shared = v.shared(d.Cluster)
	d.LeaderLease = explain(d.LeaderLease, "etcd lease", d.Cluster, absentLeader(d.Cluster.Value))
	d.MemberLease = explain(d.MemberLease, "etcd lease", d.Cluster, cmp.Or(v.absentMember(), "not read yet"))
	if d.Alarms.Source == "" {
		d.Alarms = node.Unseen[[]string](sourceAlarms, "not read yet", 0)
	}
	if d.Writable.Source == "" {
		d.Writable = node.Unseen[bool](sourceWrite, "asked only before an action", 0)
	}
	return d
}

// keys is what is known of Patroni's keys, and as of when. It is called with mu.
func (v *View) keys() node.Fact[node.Cluster] {
	switch {
	case !v.known && v.problem == nil:
		return node.Unseen[node.Cluster](sourceKeys, "not read yet", 0)
	case v.foreign != nil:
		return node.Unseen[node.Cluster](sourceKeys, v.foreign.Error(), v.proved)
	case !v.known:
		return node.Unseen[node.Cluster](sourceKeys, v.problem.Error(), 0)
	}
	f := node.Seen(v.cluster(), sourceKeys, v.proved)
	if v.problem != nil {
		f.Why = "not refreshed: " + v.problem.Error()
	}
	return f
}

// Cluster returns what is known of Patroni's keys now, and asks nobody.
func (v *View) Cluster() node.Fact[node.Cluster] {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.keys()
}

// Leader proves by a linearizable read of the leader key what is known, and returns it: current as of the moment at which
// that read began, or as old as it was where the read failed.
func (v *View) Leader(ctx context.Context) node.Fact[node.Cluster] {
	_ = v.prove(ctx) // the fact says so
	return v.Cluster()
}

// absentLeader says why there is no lease of the leader to ask for.
func absentLeader(c node.Cluster) string {
	if c.LeaderUnknown {
		return "the leader key is not intelligible"
	}
	return "there is no leader key with a lease"
}

// absentMember says why there is no lease of the own member to ask for.
func (v *View) absentMember() string {
	if v.cfg.Member == "" {
		return "no member is configured"
	}
	return fmt.Sprintf("member %s has no key with a lease", v.cfg.Member)
}

// explain fills in why a lease is unknown, and voids what is known of leases while the view itself is unknown.
func explain(f node.Fact[node.Lease], source string, c node.Fact[node.Cluster], absent string) node.Fact[node.Lease] {
	switch {
	case !c.Known:
		return node.Unseen[node.Lease](source, c.Why, c.At)
	case f.Source == "":
		return node.Unseen[node.Lease](source, absent, c.At)
	}
	return f
}

// unobserved is the answer to a caller whose context ended before its turn: nothing was read, and what others know is
// not waited for.
func (v *View) unobserved() node.DCS {
	const why = "no time to observe"
	v.mu.Lock()
	defer v.mu.Unlock()
	return node.DCS{
		Cluster:     node.Unseen[node.Cluster](sourceKeys, why, 0),
		LeaderLease: node.Unseen[node.Lease]("etcd lease", why, 0),
		MemberLease: node.Unseen[node.Lease]("etcd lease", why, 0),
		Alarms:      node.Unseen[[]string](sourceAlarms, why, 0),
		Shared:      node.Unseen[node.Coordination](sourceKeys, why, 0),
		Writable:    node.Unseen[bool](sourceWrite, why, 0),
		Since:       v.since,
	}
}

// hex prints a lease id the way etcdctl does.
func hex(id int64) string { return fmt.Sprintf("%x", uint64(id)) }
