package engine

import (
	"slices"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// Keep returns the part of a memory that must outlive the process. It changes only when something happens: what moves on
// all the while is reduced to whether it is in force at now.
func Keep(m node.Memory, now node.Instant) node.Kept {
	k := node.Kept{
		Leader: m.Leader, LeaderCreated: m.LeaderCreated, LeaderChanged: m.LeaderChanged, Leaders: slices.Clone(m.Leaders),
		Disturbed: m.Disturbed,
		Storm:     m.StormSeen != 0 && now.Sub(m.StormSeen) < node.StormFreeze,
		Upgrade:   m.UpgradeSeen != 0 && now.Sub(m.UpgradeSeen) < node.UpgradeGrace,
		Members:   make(map[string]node.KeptMember, len(m.Members)), Services: make(map[string]node.KeptService, len(m.Services)),
	}
	for name, mem := range m.Members {
		kept := node.KeptMember{Diverged: mem.Diverged}
		if mem.Diverged {
			kept.Leader, kept.Timeline = mem.Ahead.Leader, mem.Ahead.Timeline
		}
		k.Members[name] = kept
	}
	for name, s := range m.Services {
		k.Services[name] = node.KeptService{
			InvocationID: s.InvocationID, Restarts: s.Restarts, Starts: slices.Clone(s.Starts), Job: s.Job, JobEnded: s.JobEnded,
			DivergedDir: s.DivergedDir, Answerer: s.Answerer, Stranger: s.Stranger, Heard: s.Heard,
		}
	}
	return k
}

// Recall returns the memory with which an agent begins that was restarted at now: what was kept, and for the time in
// between the worst that is consistent with it. A leader key that is not the one that was kept, and any where none was
// kept, counts as changed when it is first seen (FAULTS.md S30); a storm or a package manager counts as just seen. No wall
// clock is asked (FAULTS.md S39). After a reboot instants of the boot before say nothing but that they came before this
// one began, which has a grace of its own.
func Recall(k node.Kept, sameBoot bool, now node.Instant) node.Memory {
	if planted.On("engine/restart-forgets") {
		return node.Memory{}
	}
	m := node.Memory{
		Leader: k.Leader, LeaderCreated: k.LeaderCreated, LeaderSeen: true,
		Members: make(map[string]node.MemberMemory, len(k.Members)), Services: make(map[string]node.ServiceMemory, len(k.Services)),
	}
	switch {
	case sameBoot:
		m.LeaderChanged, m.Disturbed = min(k.LeaderChanged, now), min(k.Disturbed, now)
		m.Leaders = past(k.Leaders, now)
	case k.LeaderChanged != 0:
		m.LeaderChanged = bootBegan
	}
	if k.Storm {
		m.StormSeen = now
	}
	if k.Upgrade {
		m.UpgradeSeen = now
	}
	for name, kept := range k.Members {
		mem := node.MemberMemory{Seen: now, Diverged: kept.Diverged}
		if kept.Diverged {
			mem.Ahead = node.Ahead{Leader: kept.Leader, Timeline: kept.Timeline, Since: now}
		}
		m.Members[name] = mem
	}
	for name, kept := range k.Services {
		m.Services[name] = recallService(kept, sameBoot, now)
	}
	return m
}

// bootBegan is the first instant of this boot: 0 would mean never.
const bootBegan node.Instant = 1

func recallService(k node.KeptService, sameBoot bool, now node.Instant) node.ServiceMemory {
	s := node.ServiceMemory{DivergedDir: k.DivergedDir, Answerer: k.Answerer, Stranger: k.Stranger}
	if sameBoot {
		s.InvocationID, s.Restarts, s.Job, s.Heard = k.InvocationID, k.Restarts, k.Job, k.Heard
		s.Starts, s.JobEnded = past(k.Starts, now), min(k.JobEnded, now)
	}
	return s
}

// past returns instants of which none lies ahead.
func past(at []node.Instant, now node.Instant) []node.Instant {
	out := slices.Clone(at)
	for i := range out {
		out[i] = min(out[i], now)
	}
	return out
}
