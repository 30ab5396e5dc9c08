package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const answered = probe.OutcomeAnswered

// Limits of patience with etcd.
const (
	etcdHangProof  = 30 * time.Second // a member that is merely slow answers by then (FAULTS.md F39, F43)
	etcdStartProof = 10 * time.Minute // one that has just started reads its log and catches up before it answers
	lossProof      = 5 * time.Second  // before a member that one look did not find counts as lost
	quotaWarn      = 0.8              // of the quota (FAULTS.md F42)
	quotaDefault   = int64(2) << 30   // etcd's own, where that of the member is not known

	farProof = 60 * time.Second      // F44: D 60
	farTook  = 20 * time.Millisecond // a member that answers sooner is near enough, wherever it is
	farTimes = 4                     // so many times as long as the near ones is far
)

// etcdRules finds what is wrong with the member of this machine, and what its peers show of the cluster (FAULTS.md F38 to
// F44). Other members are never touched from here.
func (t *target) etcdRules() {
	t.identityRule()
	t.etcdHung()
	t.etcdQuorum()
	t.etcdAlarms()
	t.etcdQuota()
	t.etcdVersions()
	t.etcdLeaderFar()
}

// etcdHung: the process runs and answers neither gRPC nor HTTP, for long (FAULTS.md F39). A member that is refused is
// starting or has another address; one that answers by either way lives. One without a quorum is silent too, until there is
// one, and so is one that has just started until it has caught up: its port takes connections all the while.
func (t *target) etcdHung() {
	m := t.f.Member
	st := t.streak("silent/"+t.spec.Service, t.running() && m.Fresh(t.now, FreshLocal) && m.Value.Silent(), m.At)
	if st.Count == 0 {
		return
	}
	t.attention = true
	if !enough(st, minObservations, t.patience()) || !t.quorumElsewhere() {
		return
	}
	t.find(node.Finding{
		Code: node.EtcdHung, Severity: node.Page, Subject: t.spec.Service,
		Text:     fmt.Sprintf("The member of etcd on this machine runs and has answered neither gRPC nor HTTP for %s.", st.Held().Round(time.Second)),
		Advice:   "It is restarted only while every other member is healthy, one member of the cluster at a time.",
		Evidence: []node.Evidence{t.unitEvidence(), t.memberEvidence()},
	})
	t.propose(node.Restart, node.EtcdHung, node.ClassDisrupt, "it answers nothing; a fresh one catches up from the others, whose quorum stands without it")
}

// patience is how long a member may be silent. One that was heard in this run, or that a signal has stopped, does not start
// any more.
func (t *target) patience() time.Duration {
	p := t.f.Process
	stopped := p.Fresh(t.now, FreshLocal) && p.Value.PID == t.unit.MainPID && p.Value.Stopped()
	if t.m.Heard || stopped || planted.On("engine/starting-etcd-is-hung") {
		return etcdHangProof
	}
	return etcdStartProof
}

// quorumElsewhere reports whether another member is seen to have a leader: what is silent then does not wait for a quorum.
func (t *target) quorumElsewhere() bool {
	return planted.On("engine/etcd-waits-is-hung") || slices.ContainsFunc(t.f.Others, func(o node.Peer) bool {
		return o.Member.Fresh(t.now, FreshLocal) && o.Member.Value.Serves()
	})
}

// etcdRemoved: another member answers and does not list the one of this machine. Its exit is no crash, and a start would
// only make it exit again (FAULTS.md F56). It reports whether it is so.
func (t *target) etcdRemoved() bool {
	by := t.removedBy()
	if by == "" || t.unitKnown && t.unit.State != service.StateRunning && unwanted(t.unit.Intent()) || planted.On("engine/removed-is-crashed") {
		return false
	}
	t.find(node.Finding{
		Code: node.EtcdRemoved, Severity: node.Warn, Subject: t.spec.Service,
		Text:     fmt.Sprintf("%s does not list the member of this machine (%s): it was removed from the cluster. It is not started.", by, cmp.Or(t.m.Answerer, t.spec.Identity)),
		Advice:   "Take the service out of pgpatrol's file, or add the member again with an empty data directory.",
		Evidence: append([]node.Evidence{t.unitEvidence()}, t.membersEvidence()...),
	})
	return true
}

// removedBy is the member that answers and whose list lacks this machine's member, "" if there is none.
func (t *target) removedBy() string {
	cluster, me, ok := strings.Cut(cmp.Or(t.m.Answerer, t.spec.Identity), "/")
	for _, o := range t.f.Others {
		m := o.Member.Value
		if ok && o.Member.Fresh(t.now, FreshLocal) && m.Outcome == answered && m.ClusterID == cluster && len(m.Members) > 0 && !slices.Contains(m.Members, me) {
			return o.URL
		}
	}
	return ""
}

// identityRule: who answers as this member, or behind this forwarder, is another member or of another cluster (FAULTS.md
// S20), or the forwarder leads to somebody else than it should.
func (t *target) identityRule() {
	text := ""
	switch through, past := t.f.Through.Value.Identity, t.f.Past.Value.Identity; {
	case t.m.Stranger != "":
		should := t.spec.Identity
		if should == "" {
			should = "of the cluster of " + t.m.Answerer
		}
		text = fmt.Sprintf("Who answers there is %s, and should be %s.", t.m.Stranger, should)
	case t.f.Through.Fresh(t.now, FreshLocal) && t.f.Past.Fresh(t.now, FreshLocal) && through != "" && past != "" && through != past:
		text = fmt.Sprintf("Through the forwarder %s answers, and past it %s: it leads to somebody else.", through, past)
	default:
		return
	}
	evidence := t.membersEvidence()
	if t.spec.Kind == node.KindForwarder {
		evidence = t.hopEvidence()
	}
	t.find(node.Finding{
		Code: node.EtcdWrongCluster, Severity: node.Page, Subject: t.spec.Service, Text: text,
		Advice:   "A member that was replaced on purpose has a new identity: put that into `identity`. Otherwise an address or a data directory is another's.",
		Evidence: evidence,
	})
}

// lost lists the members that do not work, as far as this machine can see, and those of which nothing is known, and says when
// they were last looked at.
func (t *target) lost() (sick, unknown []string, at node.Instant) {
	look := func(name string, m node.Fact[probe.EtcdMember]) {
		at = max(at, m.At)
		switch {
		case !m.Fresh(t.now, FreshLocal):
			unknown = append(unknown, name)
		case !m.Value.Serves():
			sick = append(sick, name)
		}
	}
	look("the one here", t.f.Member)
	for _, o := range t.f.Others {
		look(o.URL, o.Member)
	}
	return sick, unknown, at
}

// etcdQuorum: a member that answers and has no leader proves that there is no quorum where it is; one that does not answer
// this machine proves only that the reserve is smaller than it should be, as seen from here (FAULTS.md F40, F63).
func (t *target) etcdQuorum() {
	m := t.f.Member
	leaderless := t.streak("leaderless/"+t.spec.Service, m.Fresh(t.now, FreshLocal) && m.Value.Leaderless(), m.At)
	sick, unknown, at := t.lost()
	reduced := t.streak("reduced/"+t.spec.Service, len(sick) > 0, at)
	if leaderless.Count > 0 || reduced.Count > 0 {
		t.attention = true
	}
	switch {
	case enough(leaderless, 2, lossProof):
		t.find(node.Finding{
			Code: node.EtcdQuorumLost, Severity: node.Page, Subject: t.spec.Service,
			Text:     fmt.Sprintf("The member of etcd on this machine has had no leader for %s: there is no quorum here. Patroni makes PostgreSQL read-only until there is one.", leaderless.Held().Round(time.Second)),
			Advice:   "Bring the other members back. Do not restart Patroni, and do not use force-new-cluster.",
			Evidence: t.membersEvidence(),
		})
	case enough(reduced, 2, lossProof):
		members, not := len(t.f.Others)+1, "not "+strings.Join(sick, ", ")
		if len(unknown) > 0 {
			not += ", and nothing is known of " + strings.Join(unknown, ", ")
		}
		t.find(node.Finding{
			Code: node.EtcdRedundancyLost, Severity: node.Warn, Subject: t.spec.Service,
			Text: fmt.Sprintf("%d of %d members of etcd work, as seen from here; %s. %s", members-len(sick)-len(unknown), members, not,
				reserve(members, len(sick)+len(unknown))),
			Advice:   "Nothing that runs is stopped meanwhile.",
			Evidence: t.membersEvidence(),
		})
	}
}

// reserve says how many members more may be lost.
func reserve(members, lost int) string {
	if left := members - lost - (members/2 + 1); left >= 0 {
		return fmt.Sprintf("%d more may be lost before the quorum is.", left)
	}
	return "A quorum is not seen from here."
}

// etcdAlarms: what a member raises holds for the whole cluster (FAULTS.md F41, F51).
func (t *target) etcdAlarms() {
	m := t.f.Member
	if !m.Fresh(t.now, FreshLocal) {
		return
	}
	if slices.Contains(m.Value.Alarms, "NOSPACE") {
		t.find(node.Finding{
			Code: node.EtcdNoSpace, Severity: node.Page, Subject: t.spec.Service,
			Text:     "etcd raises NOSPACE: it refuses new leases and writes. The running leader keeps its lease, but no failover is possible.",
			Advice:   "Stop and restart nothing. Compact to the current revision, defragment one member at a time (raft leader last), then `etcdctl alarm disarm`.",
			Evidence: []node.Evidence{t.memberEvidence()},
		})
	}
	if slices.Contains(m.Value.Alarms, "CORRUPT") {
		t.find(node.Finding{
			Code: node.EtcdCorrupt, Severity: node.Page, Subject: t.spec.Service,
			Text:     "etcd raises CORRUPT: the members' data differ.",
			Advice:   "Restart nothing. Find the member whose hash differs (etcd's guide on data corruption), and replace that one by hand.",
			Evidence: []node.Evidence{t.memberEvidence()},
		})
	}
}

// etcdQuota: the database nears the size at which etcd refuses writes (FAULTS.md F42).
func (t *target) etcdQuota() {
	m := t.f.Member
	quota := m.Value.DBQuota
	if quota <= 0 {
		quota = quotaDefault
	}
	if !m.Fresh(t.now, FreshLocal) || float64(m.Value.DBSize) < quotaWarn*float64(quota) {
		return
	}
	t.find(node.Finding{
		Code: node.EtcdQuotaNear, Severity: node.Warn, Subject: t.spec.Service,
		Text: fmt.Sprintf("etcd's database has %d MiB of %d MiB (%d MiB in use): at the limit it refuses writes, and no failover is possible.",
			m.Value.DBSize>>20, quota>>20, m.Value.DBInUse>>20),
		Advice:   "Compact, defragment one member at a time, and set --auto-compaction-retention.",
		Evidence: []node.Evidence{t.memberEvidence()},
	})
}

// etcdVersions: members of different minor versions are meant for the time of an upgrade only (FACTS.md §7.5).
func (t *target) etcdVersions() {
	if !t.f.Member.Fresh(t.now, FreshLocal) {
		return
	}
	mine := minor(t.f.Member.Value.Version)
	for _, o := range t.f.Others {
		if !o.Member.Fresh(t.now, 2*FreshLocal) {
			continue
		}
		if other := minor(o.Member.Value.Version); mine != "" && other != "" && other != mine {
			t.find(node.Finding{
				Code: node.EtcdVersionSkew, Severity: node.Info, Subject: t.spec.Service,
				Text:     fmt.Sprintf("This member of etcd is version %s, and %s is %s.", t.f.Member.Value.Version, o.URL, o.Member.Value.Version),
				Advice:   "Finish the upgrade: one minor version at a time, one member at a time.",
				Evidence: t.membersEvidence(),
			})
			return
		}
	}
}

// etcdLeaderFar: the raft leader is across a wide area while a majority is close together. Every write waits for it, the
// renewal of every lease of Patroni included (FAULTS.md F44). Which member leads is a person's decision.
func (t *target) etcdLeaderFar() {
	leader, near := t.farLeader()
	st := t.streak("far/"+t.spec.Service, leader.URL != "", leader.Member.At)
	if !enough(st, minObservations, farProof) {
		return
	}
	took := leader.Member.Value.Took.Round(time.Millisecond)
	t.find(node.Finding{
		Code: node.EtcdLeaderFar, Severity: node.Warn, Subject: t.spec.Service,
		Text: fmt.Sprintf("The raft leader is %s, which takes %s to answer from here, while %d of %d members are close together here. Every write to etcd waits for it, and so does every renewal of a lease of Patroni.",
			leader.URL, took, near, len(t.f.Others)+1),
		Advice:   "`etcdctl move-leader` hands the leadership to a member that is near; nothing is stopped by it.",
		Evidence: append(t.membersEvidence(), node.Show("time to answer of "+leader.URL, leader.Member, "%s", took)),
	})
}

// farLeader is the raft leader if it is far from a majority of the members, with how many are close together here. There is
// none while anything of that is unknown.
func (t *target) farLeader() (leader node.Peer, near int) {
	m := t.f.Member
	if !m.Fresh(t.now, FreshLocal) || m.Value.LeaderID == "" || m.Value.LeaderID == m.Value.MemberID {
		return node.Peer{}, 0
	}
	i := slices.IndexFunc(t.f.Others, func(o node.Peer) bool {
		return o.Member.Fresh(t.now, FreshLocal) && o.Member.Value.MemberID == m.Value.LeaderID
	})
	if i < 0 || t.f.Others[i].Member.Value.Took < farTook {
		return node.Peer{}, 0
	}
	leader, near = t.f.Others[i], 1
	for _, o := range t.f.Others {
		v := o.Member.Value
		if o.Member.Fresh(t.now, FreshLocal) && v.Outcome == answered && v.Took > 0 && v.Took*farTimes <= leader.Member.Value.Took {
			near++
		}
	}
	if 2*near <= len(t.f.Others)+1 {
		return node.Peer{}, 0
	}
	return leader, near
}

// minor is the first two numbers of a version, "" if it has none.
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 3 {
		return ""
	}
	return parts[0] + "." + parts[1]
}

func (t *target) memberEvidence() node.Evidence {
	m := t.f.Member
	return node.Show("this member", m, "gRPC %s, /health %s %s, leader %s, %s", m.Value.Outcome, m.Value.Health, m.Value.Reason, orNone(m.Value.LeaderID), orNone(m.Value.Version))
}

func (t *target) membersEvidence() []node.Evidence {
	out := []node.Evidence{t.memberEvidence()}
	for _, o := range t.f.Others {
		out = append(out, node.Show(o.URL, o.Member, "gRPC %s, healthy %t, leader %s", o.Member.Value.Outcome, o.Member.Value.Healthy, orNone(o.Member.Value.LeaderID)))
	}
	return out
}
