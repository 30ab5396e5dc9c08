package dcs_test

import (
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

func TestKV_CreateHasDelete(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		ctx, key := t.Context(), node.LockKey("demo", node.LockCluster)
		lease, granted, err := b.view.Grant(ctx, 29500*time.Millisecond)
		if err != nil || granted != 30*time.Second {
			t.Fatalf("Grant: %s, %v", granted, err)
		}
		first, _, err := b.view.Create(ctx, key, "hp1", lease)
		if err != nil || first == 0 {
			t.Fatalf("Create: %d, %v", first, err)
		}
		if again, holder, err := b.view.Create(ctx, key, "hp2", lease); again != 0 || holder != "hp1" || err != nil {
			t.Fatalf("Create of a key that exists: %d, %q, %v", again, holder, err)
		}
		if has, err := b.view.Has(ctx, key, first); !has || err != nil {
			t.Fatalf("Has: %v, %v", has, err)
		}
		b.etcd.Advance(31 * time.Second)
		if has, err := b.view.Has(ctx, key, first); has || err != nil {
			t.Fatalf("Has of a key that ended: %v, %v", has, err)
		}
		b.etcd.Put(key, "hp2", 0)
		if was, err := b.view.Delete(ctx, key, first); was || err != nil {
			t.Fatalf("Delete of another's key: %v, %v", was, err)
		}
		if value, was, err := b.view.Remove(ctx, key); value != "hp2" || !was || err != nil {
			t.Fatalf("Remove: %q, %v, %v", value, was, err)
		}
		if _, was, err := b.view.Remove(ctx, key); was || err != nil {
			t.Fatalf("Remove of nothing: %v, %v", was, err)
		}
		if err := b.view.Put(ctx, key, "hp3", 0); err != nil {
			t.Fatal(err)
		}
		b.etcd.SetQuorum(false)
		if has, err := b.view.Has(ctx, key, first); has || err == nil {
			t.Fatalf("Has without a quorum: %v, %v", has, err)
		}
	})
}

// Patroni's keys are never written, whatever asks.
func TestKV_WritesItsOwnKeysOnly(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		ctx, before := t.Context(), b.etcd.Revision()
		for _, key := range []string{"", "/", prefix + "leader", "/pgpatrol", "/pgpatrol/", "/pgpatrolx/y", "/pgpatrol/\x00"} {
			_, _, err1 := b.view.Create(ctx, key, "x", 0)
			_, err2 := b.view.Delete(ctx, key, 1)
			_, _, err3 := b.view.Remove(ctx, key)
			if err4 := b.view.Put(ctx, key, "x", 0); err1 == nil || err2 == nil || err3 == nil || err4 == nil {
				t.Errorf("%q was written: %v, %v, %v, %v", key, err1, err2, err3, err4)
			}
		}
		if after := b.etcd.Revision(); after != before {
			t.Errorf("revision %d, was %d", after, before)
		}
	})
}

// Looking writes nothing.
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
