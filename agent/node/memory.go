package node

import (
	"fmt"
	"time"
)

// Memory is what one decision hands to the next: how long conditions have held, and what was seen before. It is a value:
// a step returns a new one. Losing it (a restart of the agent) makes the agent slower, never bolder; what must survive a
// restart lies in the journal, as attempts and as Kept.
type Memory struct {
	Streaks map[string]Streak  `json:"streaks,omitempty"` // by condition and subject
	Open    map[string]Finding `json:"open,omitempty"`    // findings of the previous step by Key

	Leader        string        `json:"leader,omitempty"`         // last holder of the leader key seen
	LeaderCreated int64         `json:"leader_created,omitempty"` // revision at which its key was created
	LeaderSeen    bool          `json:"leader_seen,omitempty"`    // a holder has been seen, or there is somebody to ask: another one is a change
	LeaderHidden  bool          `json:"leader_hidden,omitempty"`  // there has been a leader key since then that names nobody
	LeaderChanged Instant       `json:"leader_changed,omitempty"` // when the holder was seen to change, 0 if never
	PauseSeen     Instant       `json:"pause_seen,omitempty"`     // when the cluster was last seen paused, 0 if never
	Disturbed     Instant       `json:"disturbed,omitempty"`      // when a clock jump or a suspend was last noticed, 0 if never
	ClusterTTL    time.Duration `json:"cluster_ttl,omitempty"`    // last ttl seen
	EtcdSince     Instant       `json:"etcd_since,omitempty"`     // since when etcd has answered and granted leases without a break, 0 if it does not
	EtcdSeen      Instant       `json:"etcd_seen,omitempty"`      // when it last answered

	Services map[string]ServiceMemory `json:"services,omitempty"`

	Members     map[string]MemberMemory `json:"members,omitempty"`      // of the cluster, by name
	Leaders     []Instant               `json:"leaders,omitempty"`      // when the holder of the leader key changed, the last 8
	StormSeen   Instant                 `json:"storm_seen,omitempty"`   // when too much was last seen sick, 0 if never
	UpgradeSeen Instant                 `json:"upgrade_seen,omitempty"` // when a package manager was last seen at work, 0 if never
}

// LeaseDue returns how much of its life a lease would have left whose owner renewed it as late as it may have had to: as
// soon as etcd could be reached. While it cannot, as far as this machine knows, nobody is late. What an agent does not
// know of the time before its start speaks for nobody's hang either (FACTS.md §3.3 G_dcs).
func (m Memory) LeaseDue(left, ttl time.Duration, now Instant) time.Duration {
	if m.EtcdSince == 0 {
		return ttl
	}
	return max(left, ttl-now.Sub(m.EtcdSince))
}

// LeaseExcuse says why a lease with that much left cannot be held against its owner in full, "" if it can.
func (m Memory) LeaseExcuse(left, ttl time.Duration, now Instant) string {
	switch {
	case m.EtcdSince == 0:
		return "etcd has not answered and granted leases without a break"
	case m.LeaseDue(left, ttl, now) > left:
		return fmt.Sprintf("etcd has answered for %s only", now.Sub(m.EtcdSince).Round(time.Second))
	}
	return ""
}

// MemberMemory is what is remembered of one member of the cluster.
type MemberMemory struct {
	Seen     Instant `json:"seen"`               // when its key was last there
	Ahead    Ahead   `json:"ahead,omitzero"`     // first position seen ahead of the leader's
	Diverged bool    `json:"diverged,omitempty"` // its content is not the leader's (FAULTS.md F105)
}

// ServiceMemory is what is remembered of one service.
type ServiceMemory struct {
	InvocationID string    `json:"invocation_id,omitempty"`
	MainPID      int       `json:"main_pid,omitempty"` // process that the streaks belong to
	Restarts     int       `json:"restarts,omitempty"`
	Starts       []Instant `json:"starts,omitempty"` // new invocations seen, the last 16
	Job          string    `json:"job,omitempty"`
	JobEnded     Instant   `json:"job_ended,omitempty"` // when a job of somebody ended, 0 if none was seen
	GoodPolls    int       `json:"good_polls,omitempty"`
	Settled      bool      `json:"settled,omitempty"`      // seen healthy three times in a row since this machine or agent started
	Identity     bool      `json:"identity,omitempty"`     // its API has named itself as the configured member and scope
	Ahead        Ahead     `json:"ahead,omitzero"`         // first position seen ahead of the leader's
	DivergedDir  string    `json:"diverged_dir,omitempty"` // data directory whose content is not the leader's
	Answerer     string    `json:"answerer,omitempty"`     // identity of who answered last as this member, or behind this forwarder
	Stranger     string    `json:"stranger,omitempty"`     // identity of who has answered there instead since then
	RunSeen      Instant   `json:"run_seen,omitempty"`     // when the present run was first seen, 0: before this agent started
	Heard        bool      `json:"heard,omitempty"`        // it has answered in the present run
	Orphaned     Instant   `json:"orphaned,omitempty"`     // since when nobody has led and PostgreSQL here accepts writes, 0: it is not so
}

// Ahead is a position of a replica that its leader had not reached when it was seen.
type Ahead struct {
	Leader   string  `json:"leader"`
	Timeline int64   `json:"timeline"`
	Dir      string  `json:"dir"` // identity of the data directory
	LSN      uint64  `json:"lsn"`
	Since    Instant `json:"since"`
}

// Streak is a condition that has held without interruption.
type Streak struct {
	Since Instant `json:"since"` // first observation
	Last  Instant `json:"last"`  // latest distinct observation
	Count int     `json:"count"` // distinct observations
}

// Held returns for how long the condition has been observed.
func (s Streak) Held() time.Duration { return s.Last.Sub(s.Since) }

// Timing is what Patroni's dynamic configuration means for patience.
type Timing struct {
	TTL, LoopWait, RetryTimeout time.Duration
}

// TimingOf returns the timing of a cluster, Patroni's defaults where its configuration is unknown.
func TimingOf(c DynamicConfig) Timing {
	d := DefaultDynamicConfig()
	t := Timing{TTL: c.TTL, LoopWait: c.LoopWait, RetryTimeout: c.RetryTimeout}
	if t.TTL <= 0 || t.LoopWait <= 0 || t.RetryTimeout <= 0 {
		return Timing{TTL: d.TTL, LoopWait: d.LoopWait, RetryTimeout: d.RetryTimeout}
	}
	return t
}

// RenewalSlack is the tolerance on a lease renewal (FAULTS.md L31).
const RenewalSlack = 2 * time.Second

// Missed is the remaining life of a lease below which a renewal has been missed: a live Patroni renews once per
// loop_wait (FAULTS.md L31). A third of the ttl must have passed in any case: with a short loop_wait a loop that is merely
// starved is later than that.
func (t Timing) Missed() time.Duration { return min(t.TTL-t.LoopWait-RenewalSlack, t.TTL*2/3) }

// Overdue is the remaining life below which even a loop that had to retry would have renewed (FACTS.md §2.6), and not
// before half of the ttl has passed.
func (t Timing) Overdue() time.Duration { return min(t.TTL-t.LoopWait-t.RetryTimeout, t.TTL/2) }

// LeaseLeft returns how long a lease will live at now, given when it was read.
func LeaseLeft(f Fact[Lease], now Instant) time.Duration {
	left := f.Value.Remaining - f.Age(now)
	if !f.Value.Exists || left < 0 {
		return 0
	}
	return left
}

// Limits of the agent's own fitness (FAULTS.md S3, F82).
const (
	// DisturbedGrace is how long after a clock jump or a suspend the agent only observes.
	DisturbedGrace = 60 * time.Second
	// LoopDelayLimit is how late the agent's own loop may be before it takes itself for the sick one.
	LoopDelayLimit = 4 * time.Second
	// CrashWindow and CrashLimit tell a crash loop of the agent (FAULTS.md F102): so many crashes within so long, and the
	// agent only observes.
	CrashWindow = 10 * time.Minute
	CrashLimit  = 5
)

// Limits of what the whole cluster may go through before everything is left alone (FAULTS.md S16, DESIGN.md §5).
const (
	// MemberMemorySpan is how long a member is remembered after its key was last seen.
	MemberMemorySpan = 10 * time.Minute
	// StormFreeze is how long after a storm was last seen nothing is done.
	StormFreeze = 60 * time.Second
	// UpgradeGrace is how long after a package manager was last seen at work nothing is done (FAULTS.md F104j).
	UpgradeGrace = 30 * time.Second
	// FlapWindow, FlapLeaders and FlapStarts tell flapping: so many changes of the leader, or starts of one service, within
	// so long.
	FlapWindow  = 10 * time.Minute
	FlapLeaders = 3
	FlapStarts  = 4
)

// Within counts the instants of the last span before now.
func Within(instants []Instant, now Instant, span time.Duration) int {
	n := 0
	for _, at := range instants {
		if now.Sub(at) <= span {
			n++
		}
	}
	return n
}

// BusyState reports whether a state of PostgreSQL, as Patroni names it, is work in progress that must not be disturbed
// (FACTS.md §2.5).
func BusyState(state string) bool {
	switch state {
	case "initializing new cluster", "running custom bootstrap script", "creating replica",
		"starting after custom bootstrap", "starting", "restarting", "stopping":
		return true
	}
	return false
}

// Question is everything that one decision rests on. The journal keeps it with the answer, so that the same code gives
// the same answer again.
type Question struct {
	Spec     Spec      `json:"spec"`
	Memory   Memory    `json:"memory"`
	Snapshot Snapshot  `json:"snapshot"`
	Attempts []Attempt `json:"attempts,omitempty"`
}
