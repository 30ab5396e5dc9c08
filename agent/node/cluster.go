package node

import "time"

// Cluster is one Patroni cluster as its keys in etcd describe it at one revision (FACTS.md §1). Every string in it has
// passed the strict grammar of its key; what did not is listed in Problems and is absent here.
type Cluster struct {
	Scope         string         `json:"scope"`
	Revision      int64          `json:"revision"`             // etcd revision that this view is complete for
	ClusterID     uint64         `json:"cluster_id,omitempty"` // identity of the etcd cluster that answered
	Empty         bool           `json:"empty,omitempty"`      // not one key below the scope's prefix
	Initialize    string         `json:"initialize,omitempty"` // system identifier; empty while absent or bootstrapping
	Config        DynamicConfig  `json:"config"`
	Leader        *LeaderKey     `json:"leader,omitempty"`
	LeaderUnknown bool           `json:"leader_unknown,omitempty"` // there is a leader key, and it does not name a member: somebody may lead
	Members       []Member       `json:"members,omitempty"`        // sorted by name
	Switchover    *Switchover    `json:"switchover,omitempty"`
	SyncLeader    string         `json:"sync_leader,omitempty"`
	SyncNames     []string       `json:"sync_names,omitempty"`
	History       []HistoryEntry `json:"history,omitempty"`
	Optime        uint64         `json:"optime,omitempty"`
	Problems      []KeyProblem   `json:"problems,omitempty"`
}

// Member returns the member with that name.
func (c Cluster) Member(name string) (Member, bool) {
	for _, m := range c.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// LeaderName returns the holder of the leader key, or "" without one.
func (c Cluster) LeaderName() string {
	if c.Leader == nil {
		return ""
	}
	return c.Leader.Name
}

// LeaderKey is the key that holds the lease of the leader.
type LeaderKey struct {
	Name           string `json:"name"`
	Lease          int64  `json:"lease"`
	CreateRevision int64  `json:"create_revision"`
	ModRevision    int64  `json:"mod_revision"`
}

// DynamicConfig is the part of Patroni's dynamic configuration that decisions rest on, with Patroni's defaults filled
// in (FACTS.md §1.3).
type DynamicConfig struct {
	Present              bool          `json:"present"` // the key exists and is intelligible
	TTL                  time.Duration `json:"ttl"`
	LoopWait             time.Duration `json:"loop_wait"`
	RetryTimeout         time.Duration `json:"retry_timeout"`
	PrimaryStartTimeout  time.Duration `json:"primary_start_timeout"`
	MaximumLagOnFailover uint64        `json:"maximum_lag_on_failover"` // bytes
	Pause                bool          `json:"pause,omitempty"`
	StandbyCluster       bool          `json:"standby_cluster,omitempty"`
	SynchronousMode      bool          `json:"synchronous_mode,omitempty"`
	FailsafeMode         bool          `json:"failsafe_mode,omitempty"`
	ModRevision          int64         `json:"mod_revision,omitempty"`
}

// DefaultDynamicConfig returns Patroni's defaults.
func DefaultDynamicConfig() DynamicConfig {
	return DynamicConfig{
		TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second,
		PrimaryStartTimeout: 300 * time.Second, MaximumLagOnFailover: 1 << 20,
	}
}

// Member is one member key (FACTS.md §1.2).
type Member struct {
	Name             string `json:"name"`
	Host             string `json:"host,omitempty"` // of conn_url
	Port             int    `json:"port,omitempty"`
	APIURL           string `json:"api_url,omitempty"` // scheme://host:port of the REST API, no path, no credentials
	State            string `json:"state,omitempty"`
	Role             string `json:"role,omitempty"`
	Version          string `json:"version,omitempty"`
	Timeline         int64  `json:"timeline,omitempty"`
	HasLSN           bool   `json:"has_lsn"` // positions are absent while PostgreSQL is not running; that is not lag
	LSN              uint64 `json:"lsn,omitempty"`
	ReplicationState string `json:"replication_state,omitempty"`
	NoFailover       bool   `json:"nofailover,omitempty"`
	Paused           bool   `json:"pause,omitempty"`
	PendingRestart   bool   `json:"pending_restart,omitempty"`
	ScheduledRestart bool   `json:"scheduled_restart,omitempty"`
	Lease            int64  `json:"lease,omitempty"`
	ModRevision      int64  `json:"mod_revision,omitempty"`
}

// Switchover is a non-empty failover key: an operator's switchover in progress or scheduled.
type Switchover struct {
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Scheduled string `json:"scheduled,omitempty"` // as written, RFC 3339
}

// HistoryEntry says where a timeline ended.
type HistoryEntry struct {
	Timeline  int64  `json:"timeline"`
	LSN       uint64 `json:"lsn"`
	Reason    string `json:"reason,omitempty"`
	At        string `json:"at,omitempty"`
	NewLeader string `json:"new_leader,omitempty"`
}

// KeyProblem names a key whose value did not pass the grammar, without repeating the value.
type KeyProblem struct {
	Key    string `json:"key"` // printable, bounded
	Reason string `json:"reason"`
}

// Lease is what etcd says of a lease. Remaining was true at the fact's own instant.
type Lease struct {
	ID        int64         `json:"id"`
	Granted   time.Duration `json:"granted"`
	Remaining time.Duration `json:"remaining"` // 0 when expired or revoked
	Exists    bool          `json:"exists"`
}

// DCS is everything that is known from etcd for one scope.
type DCS struct {
	Cluster     Fact[Cluster]      `json:"cluster"`      // At: the last moment at which the view was proved current by a linearizable read
	LeaderLease Fact[Lease]        `json:"leader_lease"` // of the leader key's lease
	MemberLease Fact[Lease]        `json:"member_lease"` // of this machine's own member key's lease
	Alarms      Fact[[]string]     `json:"alarms"`       // NOSPACE, CORRUPT
	Shared      Fact[Coordination] `json:"shared"`       // At: as of the view of the cluster
	Writable    Fact[bool]         `json:"writable"`     // a lease was granted just now; asked only before an action
	Since       Instant            `json:"since"`        // since when the linearizable read has been failing, 0 if it does not
}
