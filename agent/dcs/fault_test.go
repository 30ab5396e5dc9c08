package dcs_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

func TestView_CompactionListsAgain(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		b.woken()
		b.etcd.Mute(0, true)
		b.etcd.Put(prefix+"leader", "pg2", 0)
		b.etcd.Delete(prefix + "members/pg1")
		b.etcd.Compact()
		b.etcd.Mute(0, false)
		synctest.Wait()
		if b.woken() {
			t.Fatal("the interrupted watch made up an event")
		}
		time.Sleep(time.Second) // of backoff
		if !b.woken() {
			t.Fatal("no list after compaction")
		}
		c := b.observe(dcs.Routine).Cluster.Value
		if c.LeaderName() != "pg2" || len(c.Members) != 1 {
			t.Fatalf("cluster = %+v", c)
		}
		b.etcd.Put(prefix+"leader", "pg1", 0)
		if !b.woken() {
			t.Fatal("no watch after compaction")
		}
		if n := b.logs.lines("compacted"); n != 1 {
			t.Fatalf("%d log lines:\n%s", n, b.logs)
		}
	})
}

// F46: the watch is stuck, everything else answers.
func TestView_StalledWatchMovesToAnotherEndpoint(t *testing.T) {
	run(t, 2, func(t *testing.T, b *bench) {
		b.follow()
		b.woken()
		b.etcd.Mute(0, true)
		time.Sleep(4 * time.Second)
		b.etcd.Put(prefix+"leader", "pg2", 0)
		if b.woken() {
			t.Fatal("a muted watch told something")
		}
		d := b.observe(dcs.Routine) // the leader key differs from the view
		wantFresh(t, b, d)
		if d.Cluster.Value.LeaderName() != "pg2" {
			t.Fatalf("leader = %q", d.Cluster.Value.LeaderName())
		}
		b.woken()
		time.Sleep(20 * time.Second)
		b.etcd.Put(prefix+"leader", "pg1", 0)
		if !b.woken() {
			t.Fatalf("no new watch 24 s after the stall:\n%s", b.logs)
		}
		if b.logs.lines("stalled") != 1 || b.logs.lines("restored") != 1 {
			t.Fatalf("logs:\n%s", b.logs)
		}
	})
}

func TestView_EndpointLost(t *testing.T) {
	tests := []struct {
		name   string
		harm   func(b *bench)
		within time.Duration
	}{
		{"connections end and are refused", func(b *bench) { b.etcd.Cut(0, true) }, time.Second},
		{"requests are not answered", func(b *bench) { b.etcd.Hang(0, true) }, 4 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, b *bench) {
				b.follow()
				b.observe(dcs.Routine)
				b.woken()
				began := b.now()
				tt.harm(b)
				for {
					time.Sleep(2 * time.Second)
					if d := b.observe(dcs.Routine); d.Cluster.At > began && d.Since == 0 {
						break
					}
					if b.now().Sub(began) > 2*time.Second+tt.within {
						t.Fatalf("not fresh after %s", b.now().Sub(began))
					}
				}
				time.Sleep(2 * time.Second)
				b.woken()
				b.etcd.Put(prefix+"leader", "pg2", 0)
				if !b.woken() {
					t.Fatalf("no watch on another endpoint:\n%s", b.logs)
				}
			})
		})
	}
}

// F40: without a quorum the view grows old and says since when; nothing changes in it.
func TestView_QuorumLost(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.follow()
		before := b.observe(dcs.Confirm)
		time.Sleep(2 * time.Second)
		lost := b.now()
		b.etcd.SetQuorum(false)
		var d node.DCS
		for b.now().Sub(lost) < 20*time.Second {
			d = b.observe(dcs.Routine)
			time.Sleep(time.Second)
		}
		if !d.Cluster.Known || d.Cluster.At != before.Cluster.At || d.Since != lost {
			t.Fatalf("at %v (was %v), since %v (want %v)", d.Cluster.At, before.Cluster.At, d.Since, lost)
		}
		if diff := cmp.Diff(before.Cluster.Value, d.Cluster.Value); diff != "" {
			t.Fatalf("the view changed:\n%s", diff)
		}
		if !d.MemberLease.Known || d.MemberLease.At != before.MemberLease.At || d.MemberLease.Why == "" {
			t.Fatalf("member lease = %+v", d.MemberLease)
		}
		d = b.observe(dcs.Confirm)
		if d.Writable.Known || d.Alarms.At != before.Alarms.At {
			t.Fatalf("writable = %+v, alarms = %+v", d.Writable, d.Alarms)
		}
		b.etcd.SetQuorum(true)
		time.Sleep(2 * time.Second)
		wantFresh(t, b, b.observe(dcs.Routine))
	})
}

// F41: a leader lives on under NOSPACE, but nothing may be disrupted.
func TestView_NoSpace(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.follow()
		if d := b.observe(dcs.Confirm); !d.Writable.Known || !d.Writable.Value {
			t.Fatalf("writable = %+v", d.Writable)
		}
		b.etcd.Alarm(pb.AlarmType_NOSPACE, true)
		time.Sleep(15 * time.Second)
		d := b.observe(dcs.Routine)
		wantFresh(t, b, d)
		if diff := cmp.Diff([]string{"NOSPACE"}, d.Alarms.Value); diff != "" {
			t.Fatal(diff)
		}
		if !d.Writable.Value {
			t.Fatalf("writable changed without being asked for: %+v", d.Writable)
		}
		if d = b.observe(dcs.Confirm); !d.Writable.Known || d.Writable.Value || d.Writable.At != b.now() {
			t.Fatalf("writable = %+v", d.Writable)
		}
		if _, _, err := b.view.Grant(t.Context(), time.Minute); !errors.Is(err, dcs.ErrReadOnly) {
			t.Fatalf("Acquire: %v", err)
		}
		if n := b.etcd.Leases(); n != 2 {
			t.Fatalf("%d leases, want those of the members", n)
		}
	})
}

// F47, F48: a member that was left behind answers, with an older term.
func TestView_StaleMemberIsNotBelieved(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.etcd.Freeze(1)
		b.etcd.Elect()
		b.etcd.Put(prefix+"leader", "pg2", 0)
		b.follow()
		b.observe(dcs.Routine)
		b.etcd.Cut(0, true)
		for range 10 {
			time.Sleep(2 * time.Second)
			d := b.observe(dcs.Routine)
			wantFresh(t, b, d)
			if d.Cluster.Value.LeaderName() != "pg2" {
				t.Fatalf("the view went back to %q", d.Cluster.Value.LeaderName())
			}
		}
		b.etcd.Cut(2, true) // only the stale one is left
		time.Sleep(2 * time.Second)
		d := b.observe(dcs.Confirm)
		if d.Since == 0 || d.Cluster.Value.LeaderName() != "pg2" || d.Writable.Known || d.MemberLease.At == b.now() {
			t.Fatalf("since %v, leader %q, writable %+v", d.Since, d.Cluster.Value.LeaderName(), d.Writable)
		}
	})
}

func TestView_RevisionWentBackwards(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		restore := b.etcd.Snapshot()
		b.etcd.Put(prefix+"leader", "pg2", 0)
		b.observe(dcs.Routine)
		restore()
		time.Sleep(2 * time.Second)
		d := b.observe(dcs.Routine)
		if d.Since == 0 || d.Cluster.Value.LeaderName() != "pg2" || !strings.Contains(d.Cluster.Why, "revision went backwards") {
			t.Fatalf("since %v, leader %q, why %q", d.Since, d.Cluster.Value.LeaderName(), d.Cluster.Why)
		}
	})
}

// F47: events of the past, repeated.
func TestView_OldEventsAreDropped(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		old := b.etcd.Revision()
		b.etcd.Put(prefix+"leader", "pg2", 0)
		b.etcd.Delete(prefix + "members/pg2")
		synctest.Wait()
		before := b.observe(dcs.Routine).Cluster.Value
		b.woken()
		b.etcd.Replay(prefix+"leader", "pg1", old, false)
		b.etcd.Replay(prefix+"leader", "", old, true)
		b.etcd.Replay(prefix+"members/pg2", memberJSON("pg2", "primary"), old, false)
		if b.woken() {
			t.Fatal("an old event woke the reader")
		}
		if diff := cmp.Diff(before, b.observe(dcs.Routine).Cluster.Value); diff != "" {
			t.Fatalf("an old event changed the view:\n%s", diff)
		}
	})
}

// F58: etcd is lost and made anew.
func TestView_AnotherCluster(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		b.observe(dcs.Confirm)
		restore := b.etcd.Snapshot()
		b.etcd.Recreate()
		for range 5 {
			time.Sleep(2 * time.Second)
			d := b.observe(dcs.Routine)
			if d.Cluster.Known || d.Since == 0 || !strings.Contains(d.Cluster.Why, "another etcd cluster") {
				t.Fatalf("cluster = %+v, since %v", d.Cluster, d.Since)
			}
			if d.MemberLease.Known || d.LeaderLease.Known || d.Alarms.Known || d.Writable.Known {
				t.Fatalf("leases of another cluster: %+v, %+v", d.MemberLease, d.LeaderLease)
			}
		}
		b.etcd.Hang(0, true) // it stays unknown while nobody answers
		time.Sleep(2 * time.Second)
		if d := b.observe(dcs.Routine); d.Cluster.Known || !strings.Contains(d.Cluster.Why, "another etcd cluster") {
			t.Fatalf("cluster = %+v", d.Cluster)
		}
		b.etcd.Hang(0, false)
		restore()
		time.Sleep(2 * time.Second)
		wantFresh(t, b, b.observe(dcs.Routine))
	})
}

// An agent whose etcd never answers starts, says unknown, and does not spin.
func TestView_NeverAnswers(t *testing.T) {
	tests := []struct {
		name  string
		harm  func(b *bench, i int)
		limit uint64 // requests in ten minutes
	}{
		{"hangs", func(b *bench, i int) { b.etcd.Hang(i, true) }, 900},
		{"refuses", func(b *bench, i int) { b.etcd.Cut(i, true) }, 1200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, b *bench) {
				for i := range 3 {
					tt.harm(b, i)
				}
				began := b.now()
				b.follow()
				for b.now().Sub(began) < 10*time.Minute {
					d := b.observe(dcs.Alert)
					if d.Cluster.Known || d.Cluster.Why == "" || d.Since == 0 || d.MemberLease.Known || d.Alarms.Known {
						t.Fatalf("dcs = %+v", d)
					}
					time.Sleep(500 * time.Millisecond)
				}
				if n := b.view.Requests(); n > tt.limit {
					t.Errorf("%d requests in 10 min, want at most %d", n, tt.limit)
				}
				if n := b.logs.lines("interrupted"); n != 1 {
					t.Errorf("%d log lines:\n%s", n, b.logs)
				}
			})
		})
	}
}

// A healthy cluster costs few requests.
func TestView_RequestsWhenHealthy(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.follow()
		time.Sleep(time.Second)
		before := b.view.Requests()
		for range 120 {
			b.etcd.Renew(b.lease)
			d := b.observe(dcs.Routine)
			if d.Cluster.Age(b.now()) > 2*time.Second {
				t.Fatalf("age %v", d.Cluster.Age(b.now()))
			}
			time.Sleep(500 * time.Millisecond)
		}
		// 30 of the leader key, 30 of the lease, 4 of the alarms, 2 of them all.
		if n := b.view.Requests() - before; n > 68 {
			t.Fatalf("%d requests per minute", n)
		}
		if b.logs.String() != "" {
			t.Fatalf("a healthy view logged:\n%s", b.logs)
		}
	})
}

func TestView_Credentials(t *testing.T) {
	password := "correct horse"
	user := func(c *dcs.Config) {
		c.Username, c.Password = "pgpatrol", func() (string, error) { return password, nil }
	}
	t.Run("token expires", func(t *testing.T) {
		run(t, 1, func(t *testing.T, b *bench) {
			b.etcd.RequireAuth("pgpatrol", "correct horse")
			b.follow()
			wantFresh(t, b, b.observe(dcs.Routine))
			time.Sleep(time.Minute)
			b.etcd.ExpireTokens()
			wantFresh(t, b, b.observe(dcs.Routine))
		}, user)
	})
	t.Run("permission denied is not a deleted key", func(t *testing.T) {
		run(t, 1, func(t *testing.T, b *bench) {
			b.etcd.RequireAuth("pgpatrol", "correct horse")
			b.follow()
			b.observe(dcs.Routine)
			b.etcd.Deny(true)
			for range 30 {
				time.Sleep(2 * time.Second)
				d := b.observe(dcs.Routine)
				if d.Cluster.Value.LeaderName() != "pg1" || d.Since == 0 || !strings.Contains(d.Cluster.Why, "credentials") {
					t.Fatalf("cluster = %+v", d.Cluster)
				}
			}
			if n := b.etcd.Requests("Authenticate"); n > 12 {
				t.Fatalf("%d authentications in a minute", n)
			}
		}, user)
	})
	t.Run("wrong password", func(t *testing.T) {
		run(t, 3, func(t *testing.T, b *bench) {
			b.etcd.RequireAuth("pgpatrol", "another one")
			b.follow()
			for range 30 {
				if d := b.observe(dcs.Alert); d.Cluster.Known || !strings.Contains(d.Cluster.Why, "credentials") ||
					strings.Contains(d.Cluster.Why, password) {
					t.Fatalf("cluster = %+v", d.Cluster)
				}
				time.Sleep(2 * time.Second)
			}
			if n := b.etcd.Requests("Authenticate"); n > 7 {
				t.Fatalf("%d authentications in a minute", n)
			}
			if strings.Contains(b.logs.String(), password) {
				t.Fatal("password in the log")
			}
			b.etcd.RequireAuth("pgpatrol", password) // rotated on the server
			time.Sleep(10 * time.Second)
			wantFresh(t, b, b.observe(dcs.Routine))
		}, user)
	})
	t.Run("no user where one is needed", func(t *testing.T) {
		run(t, 1, func(t *testing.T, b *bench) {
			b.etcd.RequireAuth("root", "x")
			if d := b.observe(dcs.Routine); d.Cluster.Known || !strings.Contains(d.Cluster.Why, "credentials") {
				t.Fatalf("cluster = %+v", d.Cluster)
			}
		})
	})
}

func TestView_HostileValues(t *testing.T) {
	secret := "\x1b[2J" + "hunter2"
	tests := []struct {
		name, key, value string
		problem          string
	}{
		{"control characters in the leader key", "leader", secret, "control characters"},
		{"10 MB member", "members/pg2", `{"state":"` + strings.Repeat("hunter2", 1500000) + `"}`, "larger than 1 MiB"},
		{"half JSON", "config", `{"ttl":30,"hunter2":`, "not a JSON object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, 1, func(t *testing.T, b *bench) {
				b.follow()
				b.etcd.Put(prefix+tt.key, tt.value, 0) // through the watch
				synctest.Wait()
				watched := b.observe(dcs.Routine)
				listed := b.observe(dcs.Confirm)
				wantFresh(t, b, listed)
				if diff := cmp.Diff(watched.Cluster.Value, listed.Cluster.Value); diff != "" {
					t.Fatalf("watch and list disagree:\n%s", diff)
				}
				got := listed.Cluster.Value.Problems
				if len(got) != 1 || got[0].Key != prefix+tt.key || !strings.Contains(got[0].Reason, tt.problem) {
					t.Fatalf("problems = %+v", got)
				}
				if strings.Contains(b.logs.String()+got[0].Reason, "hunter2") {
					t.Fatal("the value was repeated")
				}
			})
		})
	}
	t.Run("more than a message can hold", func(t *testing.T) {
		run(t, 1, func(t *testing.T, b *bench) {
			b.observe(dcs.Routine)
			b.etcd.Put(prefix+"leader", strings.Repeat("x", 17<<20), 0)
			time.Sleep(2 * time.Second)
			d := b.observe(dcs.Routine)
			if d.Since == 0 || d.Cluster.Value.LeaderName() != "pg1" || !strings.Contains(d.Cluster.Why, "larger than 16 MiB") {
				t.Fatalf("since %v, why %q", d.Since, d.Cluster.Why)
			}
		})
	})
}
