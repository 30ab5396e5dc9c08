package engine

import (
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// when is a span of seconds; never is -1, -1.
type when struct{ from, to int }

// story is told to the engine, which must find and propose what it says, in time.
type story struct {
	name    string
	seconds int
	tell    func(sec int) []nodetest.Change
	finding node.Code
	found   when
	verb    node.Verb
	act     when
}

// etcdSilentFrom is an etcd that has not answered since that second of the story.
func etcdSilentFrom(sec int) nodetest.Change {
	return func(s *node.Snapshot) {
		s.DCS.Since = node.Instant(start + time.Duration(sec)*time.Second)
		s.DCS.Cluster.At = s.DCS.Since - 1
	}
}

func stories() []story {
	replica := nodetest.Led(nodetest.Other, false)
	cl, un, pf := nodetest.WithCluster, nodetest.WithUnit, nodetest.With
	never := when{-1, -1}
	return []story{
		{
			name: "F02 leader stopped, KillMode=process", seconds: 20, finding: node.PatroniHung, found: when{3, 4}, verb: node.SoftKill, act: when{3, 4},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Stopped(), lease(4 + i)} },
		},
		{
			name: "F02 leader silent but not stopped waits for the lease", seconds: 30, finding: node.PatroniHung, found: when{9, 12}, verb: node.SoftKill, act: when{9, 12},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Silent(), lease(4 + i)} },
		},
		{
			name: "saturated API, lease renewed", seconds: 120, finding: node.PatroniAPIDead, found: when{6, 8}, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Silent(), lease(i % 10)} },
		},
		{
			name: "an API that was never understood proves nothing", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{lease(4 + i), pf(func(p *node.PatroniFacts) {
					p.API.Known = false
					p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeBroken}
				})}
			},
		},
		{
			name: "F17 listener gone, lease renewed", seconds: 60, finding: node.PatroniAPIDead, found: when{6, 8}, verb: node.SoftKill, act: when{15, 17},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Refused(), lease(i % 10)} },
		},
		{
			name: "starting Patroni without lease is left alone", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change { return []nodetest.Change{nodetest.Refused(), lease(40)} },
		},
		{
			name: "F03 replica stopped", seconds: 60, finding: node.PatroniHung, found: when{20, 30}, verb: node.SoftKill, act: when{20, 30},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Stopped(), lease(4 + i), replica} },
		},
		{
			name: "F03 replica stopped, its lease renewed by a lie", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change { return []nodetest.Change{nodetest.Stopped(), lease(i % 10), replica} },
		},
		{
			name: "F18 loop stuck", seconds: 30, finding: node.PatroniLoopStuck, found: when{17, 20}, verb: node.SoftKill, act: when{17, 20},
			tell: func(i int) []nodetest.Change { return []nodetest.Change{lease(4 + i)} },
		},
		{
			name: "seed 1046: etcd is back, and Patroni waits for its next loop", seconds: 40, finding: node.PatroniLoopStuck, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				switch {
				case i < 12:
					return []nodetest.Change{etcdSilentFrom(0)}
				case i < 21:
					return []nodetest.Change{lease(9 + i)}
				}
				return []nodetest.Change{lease(i - 21)}
			},
		},
		{
			name: "F18 loop stuck since before etcd was lost", seconds: 50, finding: node.PatroniLoopStuck, found: when{33, 34}, verb: node.SoftKill, act: when{33, 34},
			tell: func(i int) []nodetest.Change {
				if i < 12 {
					return []nodetest.Change{etcdSilentFrom(0)}
				}
				return []nodetest.Change{lease(25)}
			},
		},
		{
			name: "F02 silent, and one read of etcd fails", seconds: 30, finding: node.PatroniHung, found: when{20, 21}, verb: node.SoftKill, act: when{20, 21},
			tell: func(i int) []nodetest.Change {
				failed := func(s *node.Snapshot) {
					if i == 6 {
						s.DCS.Since = s.Now
					}
				}
				return []nodetest.Change{nodetest.Silent(), lease(4 + i), failed}
			},
		},
		{
			name: "F62 back from isolation, waiting for PostgreSQL to stop", seconds: 60, finding: node.PatroniLoopStuck, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{lease(40), replica, pf(func(p *node.PatroniFacts) {
					p.API.Value.State = "stopping"
					p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 503}
				})}
			},
		},
		{
			name: "F05 start limit", seconds: 3, finding: node.PatroniFailed, found: when{0, 0}, verb: node.StartFailed, act: when{0, 0},
			tell: func(int) []nodetest.Change { return []nodetest.Change{nodetest.Failed("signal")} },
		},
		{
			name: "F04 zombie with a stopped Patroni", seconds: 5, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: when{1, 2},
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Stopped(), nodetest.Led(nodetest.Other, true)}
			},
		},
		{
			name: "F04 zombie with a failed unit", seconds: 5, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.StartFailed, act: when{1, 2},
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Failed("signal"), nodetest.Led(nodetest.Other, true)}
			},
		},
		{
			name: "an old primary whose Patroni answers demotes by itself", seconds: 30, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change { return []nodetest.Change{nodetest.Led(nodetest.Other, true)} },
		},
		{
			name: "F26 a silent old primary that missed a renewal", seconds: 5, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: when{1, 2},
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Silent(), nodetest.Led(nodetest.Other, true), lease(20)}
			},
		},
		{
			name: "a silent old primary that renews its lease demotes by itself", seconds: 30, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Silent(), nodetest.Led(nodetest.Other, true), lease(8)}
			},
		},
		{
			name: "a silent old primary that has just got etcd back is left a loop to demote in", seconds: 30, finding: node.ZombiePrimary, found: when{12, 14}, verb: node.SoftKill, act: when{24, 26},
			tell: func(i int) []nodetest.Change {
				if i < 12 {
					return []nodetest.Change{nodetest.Silent(), etcdSilentFrom(0)}
				}
				return []nodetest.Change{nodetest.Silent(), nodetest.Led(nodetest.Other, true), lease(40)}
			},
		},
		{
			name: "a paused second primary is a person's", seconds: 30, finding: node.ZombiePrimary, found: when{1, 2}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Stopped(), nodetest.Led(nodetest.Other, true), cl(func(c *node.Cluster) { c.Config.Pause = true })}
			},
		},
		{
			name: "F07 stopped by a person", seconds: 60, finding: node.PatroniStopped, found: when{0, 0}, verb: node.StartFailed, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Refused(), un(func(s *service.Status) { s.State, s.MainPID = service.StateStopped, 0 })}
			},
		},
		{
			name: "F08 masked", seconds: 60, finding: node.PatroniStopped, found: when{0, 0}, verb: node.StartFailed, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{un(func(s *service.Status) { s.State, s.MainPID, s.Masked = service.StateStopped, 0, true })}
			},
		},
		{
			name: "F06 crash loop below the limit", seconds: 60, finding: node.PatroniCrashing, found: when{40, 50}, verb: node.StartFailed, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{un(func(s *service.Status) { s.InvocationID, s.Restarts = "inv"+string(rune('a'+i/15)), 1+i/15 })}
			},
		},
		{
			name: "F13 broken configuration", seconds: 10, finding: node.PatroniConfigBroken, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{pf(func(p *node.PatroniFacts) { p.Config.Value.Valid = false })}
			},
		},
		{
			name: "F32 leader key gone for a second", seconds: 30, finding: node.Leaderless, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) {
					if i == 5 {
						c.Leader = nil
					}
				})}
			},
		},
		{
			name: "F33 leaderless", seconds: 60, finding: node.Leaderless, found: when{40, 41}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) { c.Leader = nil }), lease(5)}
			},
		},
		{
			name: "F40 etcd silent: no judgement on a hung Patroni", seconds: 60, finding: node.PatroniHung, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{nodetest.Silent(), func(s *node.Snapshot) { s.DCS.Cluster.At = node.Instant(start - time.Minute) }}
			},
		},
		{
			name: "F40 etcd silent", seconds: 20, finding: node.DCSUnreachable, found: when{5, 6}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{func(s *node.Snapshot) { s.DCS.Since = node.Instant(start) }}
			},
		},
		{
			name: "a Patroni that got no lease under NOSPACE is left a loop to renew in", seconds: 40, finding: node.PatroniHung, found: when{26, 30}, verb: node.SoftKill, act: when{26, 30},
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{nodetest.Silent(), lease(40), func(s *node.Snapshot) {
					if i < 14 {
						s.DCS.Alarms.Value = []string{"NOSPACE"}
					}
				}}
			},
		},
		{
			name: "F41 NOSPACE", seconds: 5, finding: node.DCSReadOnly, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{func(s *node.Snapshot) { s.DCS.Alarms.Value = []string{"NOSPACE"} }}
			},
		},
		{
			name: "F25 rival unit owns the postmaster", seconds: 5, finding: node.RivalPostmaster, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, pf(func(p *node.PatroniFacts) { p.Postgres.Value.CGroupUnit = "postgresql@17-main.service" })}
			},
		},
		{
			name: "F105 single-user recovery on a fresh copy", seconds: 5, finding: node.ReplicaDiverged, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, pf(func(p *node.PatroniFacts) {
					p.LogMark = node.Seen(probe.LogMark{DataDirID: "dir1", SingleUserOnCopy: true}, "log", 0)
				})}
			},
		},
		{
			name: "F105 ahead of the leader for a moment, and the leader never gets there", seconds: 60, finding: node.ReplicaDiverged, found: when{28, 29}, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{replica, cl(func(c *node.Cluster) {
					if i == 3 {
						c.Members[0].LSN = 9000
					}
				})}
			},
		},
		{
			name: "ahead of the leader's key until its next loop", seconds: 60, finding: node.ReplicaDiverged, found: never, verb: node.SoftKill, act: never,
			tell: func(i int) []nodetest.Change {
				return []nodetest.Change{replica, cl(func(c *node.Cluster) {
					c.Members[0].LSN = uint64(2000 + i*100)
					c.Members[1].LSN = uint64(2000 + i/10*1000)
				})}
			},
		},
		{
			name: "the mark of an older data directory is forgotten", seconds: 5, finding: node.ReplicaDiverged, found: never, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, pf(func(p *node.PatroniFacts) {
					p.LogMark = node.Seen(probe.LogMark{DataDirID: "dir0", SingleUserOnCopy: true}, "log", 0)
				})}
			},
		},
		{
			name: "another member's API", seconds: 5, finding: node.PatroniAPIInvalid, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{pf(func(p *node.PatroniFacts) { p.API.Value.Name = "pg9" })}
			},
		},
		{
			name: "a member that etcd does not know", seconds: 60, finding: node.MemberUnknown, found: when{30, 31}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{replica, cl(func(c *node.Cluster) { c.Members = c.Members[1:] })}
			},
		},
		{
			name: "a wrong scope", seconds: 5, finding: node.ScopeUnknown, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) { *c = node.Cluster{Scope: nodetest.Scope, Empty: true} })}
			},
		},
		{
			name: "hostile keys", seconds: 5, finding: node.DCSKeyInvalid, found: when{0, 0}, verb: node.SoftKill, act: never,
			tell: func(int) []nodetest.Change {
				return []nodetest.Change{cl(func(c *node.Cluster) {
					c.Problems = []node.KeyProblem{{Key: "members/x", Reason: "control characters"}}
				})}
			},
		},
	}
}

func TestStep_Stories(t *testing.T) {
	for _, tt := range stories() {
		t.Run(tt.name, func(t *testing.T) {
			r := run(tt.seconds, tt.tell)
			if got := r.firstFinding(tt.finding); got < tt.found.from || got > tt.found.to {
				t.Errorf("%s first found at %d s, want %v", tt.finding, got, tt.found)
			}
			if got := r.firstAction(tt.verb); got < tt.act.from || got > tt.act.to {
				t.Errorf("%s first proposed at %d s, want %v", tt.verb, got, tt.act)
			}
		})
	}
}
