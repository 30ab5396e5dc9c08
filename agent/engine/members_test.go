package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

func members(f func([]node.Member) []node.Member) nodetest.Change {
	return nodetest.WithCluster(func(c *node.Cluster) { c.Members = f(c.Members) })
}

func TestStep_Storm(t *testing.T) {
	gone := func(n int) nodetest.Change {
		return members(func(m []node.Member) []node.Member { return m[:len(m)-n] })
	}
	starting := func(n int) nodetest.Change {
		return members(func(m []node.Member) []node.Member {
			for i := range n {
				m[len(m)-1-i].State = "starting"
			}
			return m
		})
	}
	two := members(func(m []node.Member) []node.Member { return m[:2] })
	for _, tt := range []struct {
		name          string
		before, after []nodetest.Change
		storm         bool
	}{
		{"all is well", nil, nil, false},
		{"one of three gone", nil, []nodetest.Change{gone(1)}, false},
		{"two of three gone", nil, []nodetest.Change{gone(2)}, true},
		{"two of three start", nil, []nodetest.Change{starting(2)}, true},
		{"one gone, one starts", nil, []nodetest.Change{starting(2), gone(1)}, true},
		{"every key gone", nil, []nodetest.Change{gone(3)}, true},
		{"one of two gone", []nodetest.Change{two}, []nodetest.Change{two, gone(1)}, false},
		{"two of two start", []nodetest.Change{two}, []nodetest.Change{two, starting(2)}, true},
		{"nobody was ever there", []nodetest.Change{gone(3)}, []nodetest.Change{gone(3)}, false},
		{"etcd is silent", nil, []nodetest.Change{gone(2), func(s *node.Snapshot) { s.DCS.Cluster.At = node.Instant(start - time.Hour) }}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(8, func(i int) []nodetest.Change {
				if i < 5 {
					return tt.before
				}
				return tt.after
			})
			want := -1
			if tt.storm {
				want = 5
			}
			if got := r.firstFinding(node.Storm); got != want {
				t.Errorf("storm found at %d s, want %d", got, want)
			}
			if (r.mem.StormSeen != 0) != tt.storm {
				t.Errorf("storm remembered at %s", r.mem.StormSeen)
			}
		})
	}
}

// TestStep_StormPasses: the finding lasts as long as the freeze.
func TestStep_StormPasses(t *testing.T) {
	r := run(70, func(i int) []nodetest.Change {
		if i == 5 {
			return []nodetest.Change{members(func(m []node.Member) []node.Member { return m[:1] })}
		}
		return nil
	})
	for i, o := range r.outputs {
		found := len(o.Findings) > 0 && o.Findings[0].Code == node.Storm
		if want := i >= 5 && i < 65; found != want {
			t.Errorf("storm at %d s: %t", i, found)
		}
	}
	if f := r.outputs[5].Findings[0]; !strings.Contains(f.Text, "pg2 is gone, pg3 is gone") {
		t.Errorf("%q names no members", f.Text)
	}
}

func TestStep_ForgetsMembersThatWereRemoved(t *testing.T) {
	r := run(610, func(i int) []nodetest.Change {
		if i < 5 {
			return nil
		}
		return []nodetest.Change{members(func(m []node.Member) []node.Member { return m[:2] })}
	})
	if _, ok := r.mem.Members[nodetest.Third]; ok || len(r.mem.Members) != 2 {
		t.Errorf("remembered: %v", r.mem.Members)
	}
}

func TestStep_LeaderFlaps(t *testing.T) {
	r := run(400, func(i int) []nodetest.Change {
		if i/100%2 == 0 {
			return nil
		}
		return []nodetest.Change{nodetest.Led(nodetest.Other, false)}
	})
	if got := r.firstFinding(node.Flapping); got != 300 {
		t.Errorf("flapping found at %d s, want 300", got)
	}
	many := run(40, func(i int) []nodetest.Change {
		return []nodetest.Change{nodetest.Led([]string{nodetest.Other, nodetest.Third}[i%2], false)}
	})
	if n := len(many.mem.Leaders); n != rememberLeaders {
		t.Errorf("%d changes remembered, want %d", n, rememberLeaders)
	}
}

func TestStep_ServiceFlaps(t *testing.T) {
	r := run(60, func(i int) []nodetest.Change {
		return []nodetest.Change{nodetest.WithUnit(func(s *service.Status) { s.InvocationID = "inv" + string(rune('a'+i/10)) })}
	})
	if got := r.firstFinding(node.Flapping); got != 40 {
		t.Errorf("flapping found at %d s, want 40", got)
	}
}

// TestStep_WatchesEveryReplica: another member that its leader never catches up with has diverged (FAULTS.md F105).
func TestStep_WatchesEveryReplica(t *testing.T) {
	jump := func(at int, then func(i int) []nodetest.Change) func(int) []nodetest.Change {
		return func(i int) []nodetest.Change {
			c := members(func(m []node.Member) []node.Member {
				if i == at {
					m[2].LSN = 9000
				}
				return m
			})
			return append(then(i), c, lease(i%10))
		}
	}
	none := func(int) []nodetest.Change { return nil }
	third := func(f func(*node.Member)) func(int) []nodetest.Change {
		return func(i int) []nodetest.Change {
			if i < 40 {
				return nil
			}
			return []nodetest.Change{members(func(m []node.Member) []node.Member { f(&m[2]); return m })}
		}
	}
	for _, tt := range []struct {
		name string
		tell func(int) []nodetest.Change
		want bool
	}{
		{"ahead once, and the leader never gets there", jump(3, none), true},
		{"the leader gets there", jump(3, func(i int) []nodetest.Change {
			return []nodetest.Change{members(func(m []node.Member) []node.Member { m[0].LSN = uint64(2000 + 1000*i); return m })}
		}), false},
		{"copied afresh", jump(3, third(func(m *node.Member) { m.State = "creating replica" })), false},
		{"on another timeline", jump(3, third(func(m *node.Member) { m.Timeline = 6 })), false},
		{"another leader", jump(3, func(i int) []nodetest.Change {
			if i < 40 {
				return nil
			}
			return []nodetest.Change{nodetest.Led(nodetest.Other, false)}
		}), false},
		{"nobody leads for a while", jump(3, func(i int) []nodetest.Change {
			if i < 40 {
				return nil
			}
			return []nodetest.Change{nodetest.WithCluster(func(c *node.Cluster) { c.Leader = nil })}
		}), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(50, tt.tell)
			if got := r.mem.Members[nodetest.Third].Diverged; got != tt.want {
				t.Errorf("diverged: %t, want %t; %+v", got, tt.want, r.mem.Members[nodetest.Third])
			}
			if r.mem.Members[nodetest.Other].Diverged {
				t.Error("the other replica is blamed")
			}
		})
	}
}
