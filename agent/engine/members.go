package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// The rules in this file look at all members of the cluster together.

// rememberMembers brings the memory of every member up to date, and forgets one whose key has been gone for long: it was
// removed on purpose, or has become somebody's business already.
func (s *step) rememberMembers() {
	for name, m := range s.mem.Members {
		if s.now.Sub(m.Seen) > node.MemberMemorySpan {
			delete(s.mem.Members, name)
		}
	}
	lead, led := s.cluster.Member(s.cluster.LeaderName())
	for _, m := range s.cluster.Members {
		mem := s.mem.Members[m.Name]
		mem.Seen = s.now
		if led && m.Name != lead.Name {
			mem = s.watchMember(mem, m, lead)
		}
		s.mem.Members[m.Name] = mem
	}
}

// watchMember tells by positions alone whether another member's content is the leader's (FAULTS.md F105, L32). A fresh
// copy, another timeline or another leader ends the suspicion.
func (s *step) watchMember(mem node.MemberMemory, m, lead node.Member) node.MemberMemory {
	if m.State == "creating replica" || mem.Ahead.Leader != lead.Name || m.Timeline != 0 && mem.Ahead.Timeline != m.Timeline {
		mem.Ahead, mem.Diverged = node.Ahead{}, false
	}
	if mem.Diverged || m.State == "creating replica" {
		return mem
	}
	mem.Ahead, mem.Diverged = s.ahead(mem.Ahead, m, lead, "")
	return mem
}

// ahead follows the first position at which a replica was seen ahead of the leader on the same timeline. For a moment that
// is nothing: the two keys are written at different times. Two loops later the leader's key is younger than the position,
// and a leader that still has not got there never wrote it.
func (s *step) ahead(old node.Ahead, m, lead node.Member, dir string) (node.Ahead, bool) {
	if !m.HasLSN || !lead.HasLSN || m.Timeline != lead.Timeline || m.Timeline == 0 {
		return old, false
	}
	mark := node.Ahead{Leader: lead.Name, Timeline: m.Timeline, Dir: dir, LSN: m.LSN, Since: s.now}
	if old.Leader == mark.Leader && old.Timeline == mark.Timeline && old.Dir == mark.Dir {
		mark = old
	}
	if lead.LSN >= mark.LSN {
		return node.Ahead{}, false
	}
	renewed := s.in.Snapshot.DCS.LeaderLease
	long := s.now.Sub(mark.Since) >= 2*s.timing.LoopWait+aheadSlack
	return mark, long && renewed.Fresh(s.now, 2*FreshDCS) && node.LeaseLeft(renewed, s.now) >= s.timing.Missed()
}

// aheadSlack is added to two loops of the leader before a replica that is ahead of it counts as diverged.
const aheadSlack = 5 * time.Second

// stormy: most of the cluster is sick at once. That is seldom many faults, and always a reason to keep still (FAULTS.md S16).
// Where etcd gives no fresh view nothing is known of other members, and no-dcs keeps still anyway.
func (s *step) stormy() {
	bad := s.badMembers()
	known := len(s.mem.Members)
	if s.fresh && len(bad) >= 2 && 2*len(bad) > known && !planted.On("engine/storms-are-many-faults") {
		s.mem.StormSeen = s.now
	}
	if s.mem.StormSeen == 0 || s.now.Sub(s.mem.StormSeen) >= node.StormFreeze {
		return
	}
	s.attention = true
	now := "Last seen " + s.now.Sub(s.mem.StormSeen).Round(time.Second).String() + " ago"
	if s.mem.StormSeen == s.now {
		now = "Sick now: " + strings.Join(bad, ", ")
	}
	s.find(node.Finding{
		Code: node.Storm, Severity: node.Page, Subject: s.in.Spec.Scope,
		Text:     fmt.Sprintf("More than half of the %d members that were seen within %s are or were sick at once. %s. The cause is probably something that they share.", known, node.MemberMemorySpan, now),
		Advice:   "Look at network, storage, etcd and whatever was rolled out last. pgpatrol stops nothing until this has been over for " + node.StormFreeze.String() + ".",
		Evidence: []node.Evidence{s.dcsEvidence()},
	})
}

// badMembers lists the remembered members that are gone or do not run, in the order of their names.
func (s *step) badMembers() []string {
	var bad []string
	for name := range s.mem.Members {
		m, ok := s.cluster.Member(name)
		switch {
		case !ok:
			bad = append(bad, name+" is gone")
		case m.State != "running" && m.State != "streaming":
			bad = append(bad, fmt.Sprintf("%s is %q", name, m.State))
		}
	}
	slices.Sort(bad)
	return bad
}

// leaderFlaps: a leader that changes again and again (DESIGN.md §5).
func (s *step) leaderFlaps() {
	n := node.Within(s.mem.Leaders, s.now, node.FlapWindow)
	if n < node.FlapLeaders {
		return
	}
	s.find(node.Finding{
		Code: node.Flapping, Severity: node.Warn, Subject: s.in.Spec.Scope,
		Text:     fmt.Sprintf("The leader changed %d times within %s. Only a second primary would be ended now.", n, node.FlapWindow),
		Advice:   "Patroni's logs of the last leaders say why each gave up: look for a slow disk, a slow etcd or a ttl that is too short.",
		Evidence: []node.Evidence{s.dcsEvidence()},
	})
}

// flaps: Patroni here is started again and again.
func (v *view) flaps() {
	n := node.Within(v.m.Starts, v.now, node.FlapWindow)
	if n < node.FlapStarts {
		return
	}
	v.find(node.Finding{
		Code: node.Flapping, Severity: node.Warn, Subject: v.spec.Service,
		Text:     fmt.Sprintf("Patroni was started %d times within %s: it is not killed once more.", n, node.FlapWindow),
		Advice:   "`journalctl -u " + v.spec.Unit + "` shows who or what ends it.",
		Evidence: []node.Evidence{v.unitEvidence()},
	})
}
