package whynot

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
)

// leaderless is the test cluster after pg1 was lost: key and member key are gone.
func leaderless(c *node.Cluster) {
	c.Leader = nil
	c.Members = c.Members[1:]
}

func member(c *node.Cluster, name string) *node.Member {
	for i := range c.Members {
		if c.Members[i].Name == name {
			return &c.Members[i]
		}
	}
	panic("no member " + name)
}

func TestFailover(t *testing.T) {
	type change = func(*node.Cluster)
	pg2 := func(f func(*node.Member)) change { return func(c *node.Cluster) { f(member(c, "pg2")) } }
	both := func(f func(*node.Member)) change {
		return func(c *node.Cluster) { f(member(c, "pg2")); f(member(c, "pg3")) }
	}
	sync := func(c *node.Cluster) {
		c.Config.SynchronousMode, c.SyncLeader, c.SyncNames = true, "pg1", []string{"pg3"}
	}
	cases := map[string]struct {
		changes  []change
		alarms   []string
		pg2, pg3 string // chance, and codes that do not allow
		summary  string
	}{
		"leader lives":     {nil, nil, "yes", "yes", "pg1 leads, so nobody races; if it ended now, pg2 or pg3 could take the key."},
		"leader lost":      {[]change{leaderless}, nil, "yes", "yes", "There is no leader, pg2 or pg3 could take the key."},
		"lag at the limit": {[]change{leaderless, pg2(func(m *node.Member) { m.LSN = 0 }), func(c *node.Cluster) { c.Optime = 1 << 20; member(c, "pg3").LSN = 0 }}, nil, "yes", "yes", "pg2 or pg3"},
		"lag beyond":       {[]change{leaderless, func(c *node.Cluster) { c.Optime = 2000 + 1<<20 + 1 }}, nil, "no lag", "no lag", "There is no leader, nobody could take the key: not pg2 (lag), pg3 (lag)."},
		"lag unknown":      {[]change{leaderless, func(c *node.Cluster) { c.Optime = 0 }}, nil, "unknown lag", "unknown lag", "perhaps pg2 or pg3"},
		"no position":      {[]change{leaderless, pg2(func(m *node.Member) { m.HasLSN = false })}, nil, "unknown no-position", "yes", "pg3 could take the key; perhaps also pg2."},
		"nofailover":       {[]change{leaderless, both(func(m *node.Member) { m.NoFailover = true })}, nil, "no nofailover", "no nofailover", "nobody could take the key: not pg2 (nofailover), pg3 (nofailover)"},
		"not running":      {[]change{leaderless, pg2(func(m *node.Member) { m.State, m.HasLSN = "creating replica", false })}, nil, "no state", "yes", "pg3 could take the key; not pg2 (state)."},
		"old timeline":     {[]change{leaderless, func(c *node.Cluster) { c.History = []node.HistoryEntry{{Timeline: 5}} }}, nil, "unknown timeline", "unknown timeline", "perhaps"},
		"no timeline for a standby cluster": {[]change{leaderless, func(c *node.Cluster) {
			c.History, c.Config.StandbyCluster = []node.HistoryEntry{{Timeline: 5}}, true
		}}, nil, "yes", "yes", "could take the key"},
		"behind the leader's timeline": {[]change{pg2(func(m *node.Member) { m.Timeline = 4 })}, nil, "unknown timeline", "yes", "pg3 could take the key; perhaps also pg2"},
		"another is ahead":             {[]change{leaderless, func(c *node.Cluster) { member(c, "pg3").LSN += 7 }}, nil, "unknown ahead", "yes", "pg3 could take the key; perhaps also pg2"},
		"one that may not lead is ahead": {[]change{leaderless, func(c *node.Cluster) {
			member(c, "pg3").LSN, member(c, "pg3").NoFailover = 3000, true
		}}, nil, "yes", "no nofailover", "pg2 could take the key; not pg3"},
		"not in the sync key":         {[]change{leaderless, sync}, nil, "no sync", "yes", "pg3 could take the key; not pg2 (sync)."},
		"sync key not written yet":    {[]change{leaderless, sync, func(c *node.Cluster) { c.SyncLeader = "" }}, nil, "yes", "yes", "pg2 or pg3"},
		"async is ahead in sync mode": {[]change{leaderless, sync, func(c *node.Cluster) { member(c, "pg2").LSN += 7 }}, nil, "no sync", "yes", "pg3 could"},
		"sync mode is off":            {[]change{leaderless, sync, func(c *node.Cluster) { c.Config.SynchronousMode = false }}, nil, "yes", "yes", "pg2 or pg3"},
		"paused":                      {[]change{leaderless, func(c *node.Cluster) { c.Config.Pause = true }}, nil, "no paused", "no paused", "nobody could take the key: not pg2 (paused), pg3 (paused)"},
		"paused, failover to one": {[]change{leaderless, func(c *node.Cluster) {
			c.Config.Pause, c.Switchover = true, &node.Switchover{To: "pg2"}
		}}, nil, "yes", "no paused chosen", "pg2 could"},
		"paused, a primary runs":  {[]change{leaderless, func(c *node.Cluster) { c.Config.Pause = true; member(c, "pg2").Role = "primary" }}, nil, "yes", "no paused primary-alive", "pg2 could"},
		"NOSPACE":                 {[]change{leaderless}, []string{"NOSPACE"}, "yes", "yes", "There is no leader, nobody could take the key. etcd raises NOSPACE: it takes no writes"},
		"a primary still answers": {[]change{func(c *node.Cluster) { c.Leader = nil }}, nil, "no primary-alive", "no primary-alive", "pg1 could take the key; not pg2 (primary-alive), pg3 (primary-alive)."},
		"failover to one":         {[]change{leaderless, func(c *node.Cluster) { c.Switchover = &node.Switchover{From: "pg1", To: "pg3"} }}, nil, "no chosen", "yes", "pg3 could take the key"},
		"failover to one that lags": {[]change{leaderless, func(c *node.Cluster) {
			c.Switchover, c.Optime = &node.Switchover{To: "pg3"}, 1<<30
		}}, nil, "no chosen", "yes", "pg3 could take the key"},
		"failover to one that is down": {[]change{leaderless, func(c *node.Cluster) {
			c.Switchover, member(c, "pg3").State = &node.Switchover{To: "pg3"}, "stopped"
		}}, nil, "unknown chosen", "no state", "perhaps pg2"},
		"failover from one": {[]change{leaderless, func(c *node.Cluster) { c.Switchover = &node.Switchover{From: "pg2"} }}, nil, "no excluded", "yes", "pg3 could"},
		"a key of somebody": {[]change{leaderless, func(c *node.Cluster) { c.LeaderUnknown = true }}, nil, "yes", "yes", "somebody leads"},
		"nobody is left":    {[]change{func(c *node.Cluster) { c.Leader, c.Members = nil, nil }}, nil, "", "", "nobody could take the key. There is no member key"},
		"old primary is back": {[]change{leaderless, func(c *node.Cluster) {
			member(c, "pg2").Role, c.History = "primary", []node.HistoryEntry{{Timeline: 5}}
		}}, nil, "no timeline", "unknown timeline, no primary-alive", "nobody"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := nodetest.Snap(time.Hour, func(s *node.Snapshot) {
				for _, f := range tc.changes {
					f(&s.DCS.Cluster.Value)
				}
				s.DCS.Alarms.Value = tc.alarms
			})
			r := Failover(s.Now, s.DCS)
			if !strings.Contains(r.Summary, tc.summary) {
				t.Errorf("summary %q, want %q", r.Summary, tc.summary)
			}
			got := map[string]string{}
			for _, m := range r.Members {
				got[m.Name] = chances(m)
			}
			want := map[string]string{"pg2": tc.pg2, "pg3": tc.pg3}
			for n, w := range want {
				if diff := cmp.Diff(w, got[n]); diff != "" {
					t.Errorf("%s (-want +got):\n%s\n%+v", n, diff, r.Members)
				}
			}
		})
	}
}

// chances words a candidate: its chance and the codes that do not allow it, the chance of the code where it differs.
func chances(m Candidate) string {
	out := string(m.Can)
	same := true
	for _, v := range m.Reasons {
		if v.Speak != Yes && v.Speak != m.Can {
			same = false
		}
	}
	var parts []string
	for _, v := range m.Reasons {
		switch {
		case v.Speak == Yes:
		case same:
			parts = append(parts, string(v.Code))
		default:
			parts = append(parts, string(v.Speak)+" "+string(v.Code))
		}
	}
	if !same {
		return strings.Join(parts, ", ")
	}
	return strings.Join(append([]string{out}, parts...), " ")
}

func TestFailover_WhatIsNotKnown(t *testing.T) {
	s := nodetest.Snap(time.Hour)
	s.DCS.Cluster = node.Unseen[node.Cluster]("etcd", "no answer from 3 endpoints", s.Now)
	r := Failover(s.Now, s.DCS)
	if !strings.Contains(r.Summary, "no answer from 3 endpoints") || len(r.Members) != 0 || r.Common[0].Speak != Unknown {
		t.Errorf("%+v", r)
	}
	s = nodetest.Snap(time.Hour)
	s.DCS.Alarms = node.Unseen[[]string]("etcd", "permission denied", s.Now)
	s.DCS.LeaderLease.Value.ID = 7 // of an older key
	texts := ""
	for _, v := range Failover(s.Now.Add(time.Minute), s.DCS).Common {
		texts += string(v.Speak) + " " + v.Text + "\n"
	}
	for _, want := range []string{"unknown The keys were last read 1m0s ago", "unknown Whether etcd raises an alarm", "lease lives is unknown", "Not visible from here"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is not among\n%s", want, texts)
		}
	}
}

func TestFailover_SaysTheNumbers(t *testing.T) {
	s := nodetest.Snap(time.Hour, nodetest.WithCluster(func(c *node.Cluster) { c.Optime = 5000; c.Config.MaximumLagOnFailover = 100 }))
	r := Failover(s.Now.Add(time.Second), s.DCS)
	if got := r.Common[0].Text; got != "pg1 holds the leader key, and its lease lives 24s of 30s more: members race when it ends, not before." {
		t.Errorf("lease: %q", got)
	}
	if got := r.Members[1].Reasons[0].Text; got != "lags 3000 bytes, maximum_lag_on_failover allows 100" {
		t.Errorf("lag: %q", got)
	}
}
