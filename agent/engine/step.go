// Package engine turns what is seen into what is wrong and what would help: findings and proposed actions.
//
// It owns the decision tables of FACTS.md §3.3 and §3.4 and FAULTS.md §0. [Step] is a pure function of specification,
// memory, snapshot and past attempts; the clock is in the snapshot. It promises the same output for the same input, and
// that a fact which is unknown never speaks for an action. It deliberately does not ask whether an action is allowed:
// it proposes what the evidence calls for, and package guard refuses with reasons.
//
//	unit failed ----------------------------------------------> PATRONI_FAILED ----> start-failed
//	unit running, process silent or stopped, lease overdue ---> PATRONI_HUNG ------> soft-kill
//	unit running, REST answers, lease overdue ----------------> PATRONI_LOOP_STUCK -> soft-kill
//	unit running, REST refused, lease renewed ----------------> PATRONI_API_DEAD --> soft-kill
//	PostgreSQL writable here, key names another --------------> ZOMBIE_PRIMARY ----> soft-kill or start-failed, as a fence
//	another service, unit failed -----------------------------> *_CRASHED, FORWARDER_DEAD -> start-failed
//	etcd running, silent, another member has a leader --------> ETCD_HUNG ---------> restart
//	forwarder running, carries nothing, backend answers ------> FORWARDER_HUNG, FORWARDER_DEAD -> restart
//	anything else --------------------------------------------> a finding that says why nothing is done
package engine

import (
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// Limits of patience. They are constants because a wrong value makes things worse; what depends on the cluster is
// computed from its own ttl, loop_wait and retry_timeout (node.Timing).
const (
	// FreshDCS is the age up to which the view of etcd may support a finding.
	FreshDCS = 10 * time.Second
	// FreshLocal is the age up to which a local fact may support a finding.
	FreshLocal = 10 * time.Second

	stoppedProof     = 3 * time.Second  // a main process in state T cannot answer, renew, or come back by itself (FAULTS.md S15)
	hangProof        = 6 * time.Second  // three silent probes this far apart (FAULTS.md F17)
	hangProofReplica = 20 * time.Second // a replica's hang harms nobody: be slow (FAULTS.md F03)
	minObservations  = 3
	freshZombie      = 3 * time.Second  // age of the linearizable read that names another leader
	zombieProof      = time.Second      // two linearizable reads this far apart (FAULTS.md F04)
	refusedProof     = 15 * time.Second // REST listener gone while the lease is renewed (FAULTS.md F17)
	startUp          = 60 * time.Second // a Patroni younger than this may still be opening its API
	dcsSilence       = 5 * time.Second  // failing reads before etcd counts as unreachable
	neverSeen        = 10 * time.Second // patience with an etcd that has not answered since the agent started
	crashWindow      = 10 * time.Minute // window of PATRONI_CRASHING
	crashCount       = 3
	memberPatience   = 30 * time.Second // a running Patroni without a member key
	settledPolls     = 3
	rememberStarts   = 16
	rememberLeaders  = 8
	jumpLimit        = 2 * time.Second // clock jump or suspend that voids what was observed (FAULTS.md S3)
)

// Output is what follows from a question.
type Output struct {
	Memory   node.Memory
	Findings []node.Finding // most severe first
	Actions  []node.Action  // proposed, fences first
	// Attention asks for the next snapshot soon: something is suspicious and not yet proved.
	Attention bool
}

// Step decides. It does not modify its input.
func Step(in node.Question) Output {
	s := newStep(in)
	s.remember()
	s.clusterRules()
	s.stormy()
	s.leaderFlaps()
	for i := range in.Spec.Patroni {
		if v, ok := s.view(in.Spec.Patroni[i]); ok {
			v.rules()
			s.forbidden(v.spec.Service, v.spec.Unit, "its manager", v.f.Limits)
			s.mem.Services[v.spec.Service] = *v.m
		}
	}
	s.services()
	s.selfRules()
	s.heldBack()
	s.upgrading()
	return s.output()
}

// step is one decision in the making.
type step struct {
	in      node.Question
	mem     node.Memory
	now     node.Instant
	cluster node.Cluster
	fresh   bool // the view of etcd may support a finding
	timing  node.Timing

	findings  []node.Finding
	actions   []node.Action
	attention bool
}

func newStep(in node.Question) *step {
	mem := in.Memory
	mem.Streaks = maps.Clone(mem.Streaks)
	if mem.Streaks == nil {
		mem.Streaks = map[string]node.Streak{}
	}
	services := make(map[string]node.ServiceMemory, len(mem.Services))
	for k, v := range mem.Services {
		v.Starts = slices.Clone(v.Starts)
		services[k] = v
	}
	mem.Services = services
	mem.Members = maps.Clone(mem.Members)
	if mem.Members == nil {
		mem.Members = map[string]node.MemberMemory{}
	}
	mem.Leaders = slices.Clone(mem.Leaders)
	snap := &in.Snapshot
	s := &step{in: in, mem: mem, now: snap.Now, cluster: snap.DCS.Cluster.Value}
	s.fresh = snap.DCS.Cluster.Fresh(s.now, FreshDCS)
	s.timing = node.TimingOf(s.cluster.Config)
	return s
}

// remember carries over what the cluster's keys say between steps. After a jump of the clock or a sleep nothing that was
// observed before counts any more.
func (s *step) remember() {
	if s.disturbed() {
		s.mem.Disturbed = s.now
		clear(s.mem.Streaks)
	}
	s.rememberEtcd()
	if len(s.in.Snapshot.Upgrades()) > 0 {
		s.mem.UpgradeSeen = s.now
	}
	if !s.fresh {
		return
	}
	if s.cluster.Config.Pause && !planted.On("engine/forget-pause") {
		s.mem.PauseSeen = s.now
	} else if s.cluster.Config.Present {
		s.mem.PauseSeen = 0
	}
	s.mem.ClusterTTL = s.timing.TTL
	s.rememberLeader()
	s.rememberMembers()
}

// rememberEtcd keeps since when etcd has answered this machine without a break, and granted leases: under NOSPACE a Patroni
// that lost its lease gets no other, and renews in its first loop after it (FAULTS.md L8, found by the simulation). An agent that did not look for longer than
// a view may be old, because it starved or slept, does not know whether there was one.
func (s *step) rememberEtcd() {
	dcs := &s.in.Snapshot.DCS
	at := dcs.Cluster.At
	switch {
	case planted.On("engine/forget-etcd-loss"):
		s.mem.EtcdSince = 1
	case !s.fresh || dcs.Since != 0 || s.disturbed() || dcs.Alarms.Known && slices.Contains(dcs.Alarms.Value, "NOSPACE"):
		s.mem.EtcdSince = 0
	case s.mem.EtcdSince == 0 || at.Sub(s.mem.EtcdSeen) > FreshDCS:
		s.mem.EtcdSince = at
	}
	if s.fresh {
		s.mem.EtcdSeen = at
	}
}

func (s *step) disturbed() bool {
	if planted.On("engine/forget-disturbance") || planted.On("engine/wall-clock") {
		return false
	}
	self := &s.in.Snapshot.Self
	return self.Suspended > jumpLimit || self.ClockJump > jumpLimit || self.ClockJump < -jumpLimit
}

// rememberLeader notices a change of the leader: another name, or, after a time in which etcd was out of sight or the key
// named nobody, a key of the same name that was created anew. Others may have led meanwhile.
func (s *step) rememberLeader() {
	key := s.cluster.Leader
	if key == nil {
		s.mem.LeaderHidden = s.mem.LeaderHidden || s.cluster.LeaderUnknown
		return
	}
	blind := s.in.Memory.EtcdSince == 0 || s.mem.EtcdSince != s.in.Memory.EtcdSince || s.mem.LeaderHidden
	other := key.Name != s.mem.Leader || blind && key.CreateRevision != s.mem.LeaderCreated
	if other && s.mem.LeaderSeen && !planted.On("engine/forget-leader-change") {
		s.mem.LeaderChanged = s.now
		s.mem.Leaders = append(s.mem.Leaders, s.now)
		s.mem.Leaders = s.mem.Leaders[max(0, len(s.mem.Leaders)-rememberLeaders):]
	}
	s.mem.Leader, s.mem.LeaderCreated, s.mem.LeaderSeen, s.mem.LeaderHidden = key.Name, key.CreateRevision, true, false
}

// streak records one observation of a condition and returns how long it has held. An observation that is not new
// counts nothing; a condition that does not hold forgets its past.
func (s *step) streak(key string, holds bool, at node.Instant) node.Streak {
	if !holds {
		if !planted.On("engine/stale-streaks") {
			delete(s.mem.Streaks, key)
		}
		return node.Streak{}
	}
	if planted.On("engine/wall-clock") {
		at = node.Instant(s.in.Snapshot.Wall.UnixNano())
	}
	st, ok := s.mem.Streaks[key]
	switch {
	case !ok:
		st = node.Streak{Since: at, Last: at, Count: 1}
	case at > st.Last:
		st.Last = at
		st.Count++
	}
	s.mem.Streaks[key] = st
	return st
}

func (s *step) find(f node.Finding) {
	f.Since = s.now
	if old, ok := s.in.Memory.Open[f.Key()]; ok {
		f.Since = old.Since
	}
	s.findings = append(s.findings, f)
}

func (s *step) output() Output {
	sort.SliceStable(s.findings, func(i, j int) bool {
		return rank(s.findings[i].Severity) > rank(s.findings[j].Severity)
	})
	sort.SliceStable(s.actions, func(i, j int) bool { return s.actions[i].Fence && !s.actions[j].Fence })
	s.mem.Open = make(map[string]node.Finding, len(s.findings))
	for _, f := range s.findings {
		s.mem.Open[f.Key()] = f
	}
	return Output{Memory: s.mem, Findings: s.findings, Actions: s.actions, Attention: s.attention || len(s.actions) > 0}
}

func rank(s node.Severity) int {
	switch s {
	case node.Page:
		return 2
	case node.Warn:
		return 1
	case node.Info:
	}
	return 0
}
