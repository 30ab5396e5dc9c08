// Package nodetest builds snapshots for tests: a healthy three-member cluster seen from one of its nodes, and the ways
// in which it breaks. It models what is seen, not how Patroni behaves.
package nodetest

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Names used in every snapshot.
const (
	Scope    = "demo"
	SystemID = "7300000000000000001"
	Me       = "pg1"
	Other    = "pg2"
	Third    = "pg3"
	Service  = "patroni"
	Unit     = "patroni.service"
	BootID   = "boot-1"
)

// Change alters a snapshot.
type Change func(*node.Snapshot)

// Spec returns what the agent of pg1 was told, with the given mode for every class but expedite.
func Spec(mode node.Mode) node.Spec {
	p := node.Policy{Adjust: mode, Revive: mode, Disrupt: mode, Expedite: node.ModeOff}
	return node.Spec{
		Node: "host1", Scope: Scope, Policy: p,
		Patroni: []node.PatroniSpec{{Service: Service, Member: Me, Unit: Unit, Policy: p}},
	}
}

// Snap returns a snapshot at now in which pg1 leads and everything is well, with the changes applied in order.
func Snap(now time.Duration, changes ...Change) node.Snapshot {
	at := node.Instant(now)
	s := node.Snapshot{
		Node: "host1", Scope: Scope, Now: at, Wall: time.Unix(1700000000, 0).Add(now), BootID: BootID, Uptime: time.Hour,
		Self: node.Self{StartedAgo: time.Minute},
		DCS: node.DCS{
			Cluster:     node.Seen(Cluster(Me), "etcd linearizable", at),
			LeaderLease: node.Seen(node.Lease{ID: 101, Granted: 30 * time.Second, Remaining: 25 * time.Second, Exists: true}, "etcd lease", at),
			MemberLease: node.Seen(node.Lease{ID: 101, Granted: 30 * time.Second, Remaining: 25 * time.Second, Exists: true}, "etcd lease", at),
			Alarms:      node.Seen([]string(nil), "etcd", at),
			Shared:      node.Seen(node.Coordination{}, "etcd linearizable", at),
		},
		Patroni: []node.PatroniFacts{{
			Service:  Service,
			Unit:     node.Seen(Status(), "systemd", at),
			Process:  node.Seen(probe.Process{Exists: true, PID: 500, State: "S", StartTick: 100}, "proc", at),
			Liveness: node.Seen(probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 200}, "api", at),
			API:      node.Seen(probe.PatroniAPI{Outcome: probe.OutcomeAnswered, Name: Me, Scope: Scope, State: "running", Role: "primary", Timeline: 5, SystemID: SystemID}, "api", at),
			Postgres: node.Seen(Postgres(probe.ControlInProduction), "files", at),
			Machine:  node.Seen(probe.Machine{Postmasters: []probe.Postmaster{{PID: 600, Unit: Unit}}}, "proc", at),
			Config:   node.Seen(probe.ConfigCheck{File: "/etc/patroni/config.yml", FileID: "1", Valid: true, Name: Me, Scope: Scope}, "validate", at),
		}},
	}
	for _, c := range changes {
		c(&s)
	}
	return s
}

// Memory is that of an agent that has seen etcd answer for ten minutes, as it decides at now.
func Memory(now time.Duration) node.Memory {
	return node.Memory{EtcdSince: node.Instant(now - 10*time.Minute), EtcdSeen: node.Instant(now - time.Second)}
}

// Status is a healthy unit as the distribution writes it.
func Status() service.Status {
	return service.Status{
		Unit: Unit, State: service.StateRunning, Detail: "active/running", Result: "success", Enablement: "enabled",
		MainPID: 500, InvocationID: "aaaaaaaa11111111", KillMode: "process", Restart: "on-failure",
		StartLimit: 5, StartLimitSpan: 10 * time.Second, UnitFile: "/usr/lib/systemd/system/patroni.service",
	}
}

// Postgres is a running server in the given control state.
func Postgres(state string) probe.Postgres {
	return probe.Postgres{
		DataDir: "/data", Initialized: true, DataDirID: "dir1", SystemID: SystemID, ControlState: state, Timeline: 5,
		CheckpointLSN: 1000, Running: true, PostmasterPID: 600, PostmasterTick: 90, CGroupUnit: Unit,
	}
}

// Cluster is a healthy cluster led by the named member.
func Cluster(leader string) node.Cluster {
	c := node.Cluster{Scope: Scope, Revision: 50, ClusterID: 9, Initialize: SystemID, Config: node.DefaultDynamicConfig(), Optime: 2000}
	c.Config.Present = true
	for i, name := range []string{Me, Other, Third} {
		m := node.Member{
			Name: name, Host: "10.0.0.1", Port: 5432, State: "running", Role: "replica", Timeline: 5, HasLSN: true, LSN: 2000,
			ReplicationState: "streaming", Lease: int64(101 + i), ModRevision: int64(40 + i),
		}
		if name == leader {
			m.Role, m.ReplicationState = "primary", ""
			c.Leader = &node.LeaderKey{Name: name, Lease: m.Lease, CreateRevision: 10, ModRevision: 10}
		}
		c.Members = append(c.Members, m)
	}
	return c
}

// With applies a change to the facts about the one Patroni.
func With(f func(*node.PatroniFacts)) Change {
	return func(s *node.Snapshot) { f(&s.Patroni[0]) }
}

// WithUnit changes the unit's status.
func WithUnit(f func(*service.Status)) Change {
	return With(func(p *node.PatroniFacts) { f(&p.Unit.Value) })
}

// WithCluster changes the view of etcd.
func WithCluster(f func(*node.Cluster)) Change {
	return func(s *node.Snapshot) { f(&s.DCS.Cluster.Value) }
}

// Confirmed makes the snapshot one that was taken right before an act.
func Confirmed() Change {
	return func(s *node.Snapshot) {
		s.Confirm = true
		s.DCS.Writable = node.Seen(true, "etcd", s.Now)
	}
}

// Stopped is a main process stopped by a signal, with an API that accepts and never answers (FAULTS.md F02).
func Stopped() Change {
	return With(func(p *node.PatroniFacts) {
		p.Process.Value.State = "T"
		p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeTimeout}
	})
}

// Silent is an API that accepts and never answers while the process looks alive.
func Silent() Change {
	return With(func(p *node.PatroniFacts) { p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeTimeout} })
}

// Refused is an API on which nobody listens.
func Refused() Change {
	return With(func(p *node.PatroniFacts) { p.Liveness.Value = probe.Liveness{Outcome: probe.OutcomeRefused} })
}

// LeaseLeft sets the remaining life of this member's lease, in both keys.
func LeaseLeft(d time.Duration) Change {
	return func(s *node.Snapshot) {
		s.DCS.LeaderLease.Value.Remaining = d
		s.DCS.MemberLease.Value.Remaining = d
	}
}

// Led makes the named member the leader; without writable the PostgreSQL here is a replica.
func Led(name string, writable bool) Change {
	return func(s *node.Snapshot) {
		s.DCS.Cluster.Value = Cluster(name)
		if name != Me {
			s.DCS.LeaderLease.Value.ID = 102
		}
		if !writable {
			s.Patroni[0].Postgres.Value.ControlState = "in archive recovery"
			s.Patroni[0].API.Value.Role = "replica"
		}
	}
}

// Failed is a unit at its start limit with PostgreSQL orphaned (FAULTS.md F05).
func Failed(result string) Change {
	return func(s *node.Snapshot) {
		u := &s.Patroni[0].Unit.Value
		u.State, u.Detail, u.Result, u.Restarts, u.MainPID = service.StateFailed, "failed/failed", result, 6, 0
		s.Patroni[0].Process = node.Unseen[probe.Process]("proc", "no main process", s.Now)
		s.Patroni[0].Liveness.Value = probe.Liveness{Outcome: probe.OutcomeRefused}
	}
}
