package dcs_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// L31: a missed renewal shows in the time left of the lease and nowhere else.
func TestView_LeaseRunsOut(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		b.observe(dcs.Routine)
		b.woken()
		b.etcd.Advance(18 * time.Second)
		time.Sleep(2 * time.Second)
		d := b.observe(dcs.Routine)
		if b.woken() || d.MemberLease.Value.Remaining != 12*time.Second || d.MemberLease.At != b.now() {
			t.Fatalf("member lease = %+v", d.MemberLease)
		}
		if d.LeaderLease != d.MemberLease {
			t.Fatalf("leader lease = %+v", d.LeaderLease)
		}
		b.etcd.Advance(12 * time.Second)
		if !b.woken() {
			t.Fatal("the end of the leader key woke nobody")
		}
		d = b.observe(dcs.Alert)
		if d.Cluster.Value.Leader != nil || d.LeaderLease.Known || d.LeaderLease.Why == "" {
			t.Fatalf("leader = %+v, lease %+v", d.Cluster.Value.Leader, d.LeaderLease)
		}
		want := node.Lease{ID: b.lease}
		if !d.MemberLease.Known || d.MemberLease.Value != want {
			t.Fatalf("member lease = %+v", d.MemberLease)
		}
	})
}

func TestView_LeaderElsewhere(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		b.observe(dcs.Routine)
		other := b.etcd.Grant(30 * time.Second)
		b.etcd.Put(prefix+"leader", "pg2", other)
		synctest.Wait()
		d := b.observe(dcs.Routine) // nothing is due, but the lease is another
		if d.LeaderLease.Value.ID != other || d.LeaderLease.At != b.now() || d.MemberLease.Value.ID != b.lease {
			t.Fatalf("leases = %+v, %+v", d.LeaderLease, d.MemberLease)
		}
		asked := b.etcd.Requests("LeaseTimeToLive")
		for range 10 {
			time.Sleep(time.Second)
			d = b.observe(dcs.Routine)
		}
		if n := b.etcd.Requests("LeaseTimeToLive") - asked; n != 6 { // five of the own lease, one of the leader's
			t.Fatalf("%d requests in 10 s", n)
		}
		asked = b.etcd.Requests("LeaseTimeToLive")
		for range 10 {
			time.Sleep(time.Second)
			d = b.observe(dcs.Alert)
			if d.LeaderLease.At != b.now() || d.MemberLease.At != b.now() {
				t.Fatalf("leases = %+v, %+v", d.LeaderLease, d.MemberLease)
			}
		}
		if n := b.etcd.Requests("LeaseTimeToLive") - asked; n != 20 {
			t.Fatalf("%d requests in 10 s of alert", n)
		}
	})
}

func TestView_LeaseGarbage(t *testing.T) {
	tests := []struct {
		name         string
		ttl, granted int64
		want         node.Lease
		known        bool
	}{
		{"more than granted", 9223372036, 30, node.Lease{}, false},
		{"no grant", 20, 0, node.Lease{}, false},
		{"absurd grant", 20, 1 << 40, node.Lease{}, false},
		{"below minus one without grant", -2, 0, node.Lease{}, false},
		{"gone", -1, 0, node.Lease{ID: 0x7c01}, true},
		{"ran out, not revoked yet", -1, 30, node.Lease{ID: 0x7c01, Granted: 30 * time.Second, Exists: true}, true},
		{"good", 21, 30, node.Lease{ID: 0x7c01, Granted: 30 * time.Second, Remaining: 21 * time.Second, Exists: true}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, 1, func(t *testing.T, b *bench) {
				b.etcd.AnswerLease(func(int64) (int64, int64, bool) { return tt.ttl, tt.granted, true })
				d := b.observe(dcs.Routine)
				if d.MemberLease.Value != tt.want || d.MemberLease.Known != tt.known {
					t.Fatalf("lease = %+v", d.MemberLease)
				}
			})
		})
	}
	t.Run("keeps the last good answer with its age", func(t *testing.T) {
		run(t, 1, func(t *testing.T, b *bench) {
			first := b.observe(dcs.Routine).MemberLease
			b.etcd.AnswerLease(func(int64) (int64, int64, bool) { return 9223372036, 30, true })
			time.Sleep(3 * time.Second)
			got := b.observe(dcs.Routine).MemberLease
			if got.Value != first.Value || got.At != first.At || got.Why == "" {
				t.Fatalf("lease = %+v", got)
			}
		})
	})
}

func TestView_NoMember(t *testing.T) {
	for name, want := range map[string]string{"": "no member is configured", "pg9": "member pg9 has no key"} {
		t.Run("member "+name, func(t *testing.T) {
			run(t, 1, func(t *testing.T, b *bench) {
				d := b.observe(dcs.Routine)
				if d.MemberLease.Known || !strings.Contains(d.MemberLease.Why, want) || !d.LeaderLease.Known {
					t.Fatalf("leases = %+v, %+v", d.MemberLease, d.LeaderLease)
				}
			}, func(c *dcs.Config) { c.Member = name })
		})
	}
}

func TestView_WrongScopeIsEmpty(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		d := b.observe(dcs.Routine)
		wantFresh(t, b, d)
		if !d.Cluster.Value.Empty {
			t.Fatalf("cluster = %+v", d.Cluster.Value)
		}
	}, func(c *dcs.Config) { c.Scope = "dem" }) // a prefix of the real one
}

func TestLock_ContentionAndFencing(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		ctx := t.Context()
		first, err := b.view.Acquire(ctx, "heal", 30*time.Second, "hp1")
		if err != nil {
			t.Fatal(err)
		}
		if first.Key != "/pgpatrol/demo/lock/heal" || first.Until != b.now().Add(30*time.Second) {
			t.Fatalf("lock = %+v", first)
		}
		leases := b.etcd.Leases()
		var held *dcs.HeldError
		if _, err := b.view.Acquire(ctx, "heal", 30*time.Second, "hp2"); !errors.Is(err, dcs.ErrHeld) ||
			!errors.As(err, &held) || held.Holder != "hp1" {
			t.Fatalf("Acquire of a held lock: %v", err)
		}
		if n := b.etcd.Leases(); n != leases {
			t.Fatalf("%d leases, want %d: the loser left one behind", n, leases)
		}
		if err := b.view.Held(ctx, first); err != nil {
			t.Fatal(err)
		}
		b.etcd.Advance(31 * time.Second) // etcd's time is over before ours
		if err := b.view.Held(ctx, first); !errors.Is(err, dcs.ErrLost) {
			t.Fatalf("Held of an expired lock: %v", err)
		}
		second, err := b.view.Acquire(ctx, "heal", 30*time.Second, "hp2")
		if err != nil || second.Revision <= first.Revision {
			t.Fatalf("second lock %+v: %v", second, err)
		}
		if err := b.view.Release(ctx, first); !errors.Is(err, dcs.ErrLost) {
			t.Fatalf("Release of another's lock: %v", err)
		}
		if err := b.view.Held(ctx, second); err != nil {
			t.Fatalf("the old holder took the lock away: %v", err)
		}
		time.Sleep(30 * time.Second) // our time is over before etcd's
		if err := b.view.Held(ctx, second); !errors.Is(err, dcs.ErrLost) {
			t.Fatalf("Held after its time: %v", err)
		}
		if err := b.view.Release(ctx, second); err != nil {
			t.Fatal(err)
		}
		for _, key := range b.etcd.Keys() {
			if strings.HasPrefix(key, "/pgpatrol/") {
				t.Fatalf("left behind: %s", key)
			}
		}
	})
}

func TestLock_Unreachable(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		l, err := b.view.Acquire(t.Context(), "heal", 30*time.Second, "hp1")
		if err != nil {
			t.Fatal(err)
		}
		b.etcd.SetQuorum(false)
		if err := b.view.Held(t.Context(), l); err == nil || errors.Is(err, dcs.ErrLost) {
			t.Fatalf("Held without a quorum: %v", err)
		}
		if _, err := b.view.Acquire(t.Context(), "other", time.Second, "hp1"); err == nil || errors.Is(err, dcs.ErrHeld) {
			t.Fatalf("Acquire without a quorum: %v", err)
		}
		for _, bad := range []string{"", "a/b", "..", "x\x00"} {
			if _, err := b.view.Acquire(t.Context(), bad, time.Second, "hp1"); err == nil {
				t.Fatalf("name %q was accepted", bad)
			}
		}
	})
}

// Nothing but locks is ever written.
func TestView_WritesNothing(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		before := b.etcd.Revision()
		b.follow()
		for _, m := range []dcs.Mode{dcs.Routine, dcs.Alert, dcs.Confirm, dcs.Confirm} {
			b.observe(m)
			time.Sleep(2 * time.Second)
		}
		if after := b.etcd.Revision(); after != before {
			t.Fatalf("revision %d, was %d", after, before)
		}
		if n := b.etcd.Leases(); n != 2 {
			t.Fatalf("%d leases, want those of the members", n)
		}
	})
}

func TestNew_NamesEveryMistake(t *testing.T) {
	_, err := dcs.New(dcs.Config{
		Endpoints: []string{"http://root:hunter2@e1:2379", "ftp://e2:2379", "e3", "http://e4:2379/v3"},
		Namespace: "/pgpatrol/x", Scope: "a/b", Member: "x y", Username: "root",
	}, dcs.Deps{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"endpoints[0]", "endpoints[1]", "endpoints[2]", "endpoints[3]", "namespace", "scope", "member", "username",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("password in: %v", err)
	}
}
