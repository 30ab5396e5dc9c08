package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// created makes the leader key one that was created at that revision.
func created(revision int64) nodetest.Change {
	return nodetest.WithCluster(func(c *node.Cluster) { c.Leader.CreateRevision = revision })
}

// TestRecall_LeaderChange: seed 5517 of the simulation. What an agent knows of changes of the leader survives a restart, and
// what happened while it was away counts from when it is seen. An agent that finds what it left waits for nothing.
func TestRecall_LeaderChange(t *testing.T) {
	led := func(name string, revision int64) []nodetest.Change {
		return []nodetest.Change{nodetest.Led(name, name == nodetest.Me), created(revision)}
	}
	calm := func(int) []nodetest.Change { return led(nodetest.Me, 10) }
	changed := func(i int) []nodetest.Change {
		if i < 5 {
			return led(nodetest.Me, 10)
		}
		return led(nodetest.Other, 20)
	}
	kept := func(tell func(int) []nodetest.Change) node.Kept {
		return Keep(run(10, tell).mem, node.Instant(start+9*time.Second))
	}
	const back = 20 * time.Second // after the story began the agent is there again
	for _, tt := range []struct {
		name     string
		kept     node.Kept
		sameBoot bool
		found    []nodetest.Change
		want     node.Instant
	}{
		{"nothing happened", kept(calm), true, led(nodetest.Me, 10), 0},
		{"it changed before the restart", kept(changed), true, led(nodetest.Other, 20), node.Instant(start + 5*time.Second)},
		{"it changed meanwhile", kept(calm), true, led(nodetest.Other, 20), node.Instant(start + back)},
		{"it changed meanwhile and back", kept(calm), true, led(nodetest.Me, 30), node.Instant(start + back)},
		{"nothing was kept", node.Kept{}, true, led(nodetest.Me, 10), node.Instant(start + back)},
		{"it changed before the reboot", kept(changed), false, led(nodetest.Other, 20), bootBegan},
		{"it changed over the reboot", kept(calm), false, led(nodetest.Other, 20), node.Instant(start + back)},
		{"nothing happened over the reboot", kept(calm), false, led(nodetest.Me, 10), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := Recall(tt.kept, tt.sameBoot, node.Instant(start+back))
			snap := nodetest.Snap(start+back, tt.found...)
			got := Step(node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: mem, Snapshot: snap}).Memory
			if got.LeaderChanged != tt.want {
				t.Errorf("changed at %s, want %s", got.LeaderChanged, tt.want)
			}
		})
	}
}

// TestStep_KeyOfTheSameName: a key that its holder took anew within sight is no change (FAULTS.md L24); one that was created
// while etcd was out of sight, or while the key named nobody (seed 6197 of the simulation), may have been another's meanwhile.
func TestStep_KeyOfTheSameName(t *testing.T) {
	for _, tt := range []struct {
		name      string
		meanwhile nodetest.Change
		want      bool
	}{
		{"in sight", created(10), false},
		{"etcd out of sight", etcdSilentFrom(2), true},
		{"a key that names nobody", nodetest.WithCluster(func(c *node.Cluster) { c.Leader, c.LeaderUnknown = nil, true }), true},
	} {
		r := run(20, func(i int) []nodetest.Change {
			if i >= 2 && i < 14 {
				return []nodetest.Change{tt.meanwhile}
			}
			return []nodetest.Change{created(int64(10 + i/14))}
		})
		if got := r.mem.LeaderChanged != 0; got != tt.want {
			t.Errorf("%s: changed %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestRecall_KeepsWhatMakesCareful: a restart forgets neither a storm, nor a package manager, nor starts, jobs and members
// that differ from their leader.
func TestRecall_KeepsWhatMakesCareful(t *testing.T) {
	now := node.Instant(start)
	mem := node.Memory{
		Disturbed: now - 10, StormSeen: now - 9, UpgradeSeen: now - 8, Leaders: []node.Instant{now - 7},
		Members: map[string]node.MemberMemory{
			"pg2": {Seen: now, Diverged: true, Ahead: node.Ahead{Leader: "pg1", Timeline: 5, LSN: 9, Since: now - 60}},
			"pg3": {Seen: now - 5, Ahead: node.Ahead{Leader: "pg1", Timeline: 5, LSN: 9, Since: now}},
		},
		Services: map[string]node.ServiceMemory{"patroni": {
			InvocationID: "a", Restarts: 2, Starts: []node.Instant{now - 30, now - 20}, Job: "restart", JobEnded: now - 6, DivergedDir: "d",
			GoodPolls: 3, Settled: true, MainPID: 7,
		}},
	}
	later := now.Add(2 * time.Second)
	got := Recall(Keep(mem, now), true, later)
	want := node.Memory{
		LeaderSeen: true, Disturbed: now - 10, StormSeen: later, UpgradeSeen: later, Leaders: []node.Instant{now - 7},
		Members: map[string]node.MemberMemory{
			"pg2": {Seen: later, Diverged: true, Ahead: node.Ahead{Leader: "pg1", Timeline: 5, Since: later}},
			"pg3": {Seen: later},
		},
		Services: map[string]node.ServiceMemory{"patroni": {
			InvocationID: "a", Restarts: 2, Starts: []node.Instant{now - 30, now - 20}, Job: "restart", JobEnded: now - 6, DivergedDir: "d",
		}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	reboot := Recall(Keep(mem, now), false, 5)
	if s := reboot.Services["patroni"]; len(s.Starts) > 0 || s.JobEnded != 0 || s.DivergedDir != "d" || len(reboot.Leaders) > 0 || reboot.Disturbed != 0 {
		t.Errorf("instants of another boot were taken over: %+v", reboot)
	}
}

// TestRecall_ForgetsNothingNew: no instant of a memory lies ahead, whatever was kept.
func TestRecall_ForgetsNothingNew(t *testing.T) {
	ahead := node.Instant(start + time.Hour)
	k := node.Kept{
		LeaderChanged: ahead, Leaders: []node.Instant{ahead}, Disturbed: ahead,
		Services: map[string]node.KeptService{"patroni": {Starts: []node.Instant{ahead}, JobEnded: ahead}},
	}
	now := node.Instant(start)
	m := Recall(k, true, now)
	s := m.Services["patroni"]
	for _, at := range []node.Instant{m.LeaderChanged, m.Leaders[0], m.Disturbed, s.Starts[0], s.JobEnded} {
		if at != now {
			t.Errorf("%s, want %s", at, now)
		}
	}
}

// TestKeep_ChangesOnlyWhenSomethingHappens: every change costs a record that is synced to the disk.
func TestKeep_ChangesOnlyWhenSomethingHappens(t *testing.T) {
	count := func(tell func(int) []nodetest.Change) int {
		n, last := 0, node.Kept{}
		for i, o := range run(300, tell).outputs {
			if k := Keep(o.Memory, node.Instant(start+time.Duration(i)*time.Second)); i == 0 || !reflect.DeepEqual(k, last) {
				n, last = n+1, k
			}
		}
		return n
	}
	for _, tt := range []struct {
		name string
		tell func(int) []nodetest.Change
		want int
	}{
		{"calm", func(i int) []nodetest.Change { return []nodetest.Change{lease(i % 10)} }, 1},
		{"a storm of 100 s", func(i int) []nodetest.Change {
			return []nodetest.Change{lease(i % 10), nodetest.WithCluster(func(c *node.Cluster) {
				if i > 9 && i < 110 {
					c.Members[1].State, c.Members[2].State = "stopped", "stopped"
				}
			})}
		}, 3},
		{"a package manager for 100 s", func(i int) []nodetest.Change {
			return []nodetest.Change{lease(i % 10), nodetest.With(func(p *node.PatroniFacts) {
				if i > 9 && i < 110 {
					p.Machine.Value.Upgrades = []string{"dpkg"}
				}
			})}
		}, 3},
		{"five starts", func(i int) []nodetest.Change {
			return []nodetest.Change{lease(i % 10), nodetest.WithUnit(func(s *service.Status) { s.InvocationID = string(rune('a' + i/50)) })}
		}, 6},
	} {
		if got := count(tt.tell); got != tt.want {
			t.Errorf("%s: kept %d times, want %d", tt.name, got, tt.want)
		}
	}
}
