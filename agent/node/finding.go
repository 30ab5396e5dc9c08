package node

// Code is the stable name of a finding. Operators grep for it; it never changes its meaning.
type Code string

// Findings. What each means, what pgpatrol does and what a person should do stands in FAULTS.md at the ids given.
const (
	PatroniHung         Code = "PATRONI_HUNG"          // F02, F03: the process lives and does nothing
	PatroniLoopStuck    Code = "PATRONI_LOOP_STUCK"    // F18: the REST API answers, the lease is not renewed
	PatroniAPIDead      Code = "PATRONI_API_DEAD"      // F17: the lease is renewed, the REST API does not answer
	PatroniAPIInvalid   Code = "PATRONI_API_INVALID"   // something answers on Patroni's address that is not this Patroni
	PatroniFailed       Code = "PATRONI_FAILED"        // F05, F14, F22: the unit failed and its manager gave up
	PatroniCrashing     Code = "PATRONI_CRASHING"      // F06: crash after crash below the start limit
	PatroniStopped      Code = "PATRONI_STOPPED"       // F07, F08: stopped, disabled or masked by a person
	PatroniConfigBroken Code = "PATRONI_CONFIG_BROKEN" // F13: the next restart would fail
	ZombiePrimary       Code = "ZOMBIE_PRIMARY"        // F04: writable here while another member holds the leader key
	RivalPostmaster     Code = "RIVAL_POSTMASTER"      // F25, F26: a postmaster that Patroni did not start
	ReplicaDiverged     Code = "REPLICA_DIVERGED"      // F105: streaming, but its content is not the leader's
	Leaderless          Code = "LEADERLESS"            // F33: no leader key for longer than a failover takes
	DCSUnreachable      Code = "DCS_UNREACHABLE"       // F40, F59, F62: no linearizable read
	DCSReadOnly         Code = "DCS_READ_ONLY"         // F41: NOSPACE; a leader that stops now has no successor
	DCSKeyInvalid       Code = "DCS_KEY_INVALID"       // a key that does not follow Patroni's grammar
	ScopeUnknown        Code = "SCOPE_UNKNOWN"         // etcd answers and has nothing below the scope's prefix
	MemberUnknown       Code = "MEMBER_UNKNOWN"        // this machine's member has no key though its Patroni runs
	Paused              Code = "PAUSED"                // F11, F12: the cluster is paused
	HealFailed          Code = "HEAL_FAILED"           // an action was taken and did not have the effect it must have
	AgentDegraded       Code = "AGENT_DEGRADED"        // the agent itself may only observe: journal, clock, starvation
	AgentConfigBroken   Code = "AGENT_CONFIG_BROKEN"   // a new configuration file of the agent is not usable; the old one is in force
	AgentAssertion      Code = "AGENT_ASSERTION"       // the agent caught itself breaking a rule of its own: it observes until it is restarted
	AgentCrashLoop      Code = "AGENT_CRASH_LOOP"      // F102: the agent was killed or crashed again and again: it observes
	ActingHeld          Code = "ACTING_HELD"           // a pgpatrol pause or kill switch is in force here
	Storm               Code = "STORM"                 // F60, F61: too much of the cluster is sick at once for it to be many faults
	Flapping            Code = "FLAPPING"              // the leader, or Patroni here, changes again and again
	UpgradeRunning      Code = "UPGRADE_RUNNING"       // F104j: a package manager works on this machine

	EtcdCrashed        Code = "ETCD_CRASHED"         // F38, F40: the member of this machine ended and nobody starts it
	EtcdHung           Code = "ETCD_HUNG"            // F39: the member of this machine runs and answers nothing
	EtcdQuorumLost     Code = "ETCD_QUORUM_LOST"     // F40: a member has no leader: no majority is left
	EtcdRedundancyLost Code = "ETCD_REDUNDANCY_LOST" // F38, F63, F78: one more loss ends the quorum
	EtcdNoSpace        Code = "ETCD_NOSPACE"         // F41: a member raises NOSPACE
	EtcdCorrupt        Code = "ETCD_CORRUPT"         // F51: a member raises CORRUPT
	EtcdQuotaNear      Code = "ETCD_QUOTA_NEAR"      // F42: the database nears its quota
	EtcdVersionSkew    Code = "ETCD_VERSION_SKEW"    // members of different minor versions
	EtcdWrongCluster   Code = "ETCD_WRONG_CLUSTER"   // S20: who answers is not the member that it was
	EtcdRemoved        Code = "ETCD_REMOVED"         // F56: the other members do not list the member of this machine any more
	EtcdLeaderFar      Code = "ETCD_LEADER_FAR"      // F44: the raft leader is far from a majority of the members
	ForwarderDead      Code = "FORWARDER_DEAD"       // F71, F74: nothing listens where the forwarder should
	ForwarderHung      Code = "FORWARDER_HUNG"       // F72: it takes connections and carries nothing
	ForwarderBroken    Code = "FORWARDER_BACKEND"    // F73: what is behind the forwarder does not answer
	ServiceCrashed     Code = "SERVICE_CRASHED"      // a service of kind generic ended and nobody starts it
	ServiceStopped     Code = "SERVICE_STOPPED"      // F07, F08, F88: stopped, disabled or masked by a person
	ServiceCrashing    Code = "SERVICE_CRASHING"     // F79: crash after crash, restarted by its manager
	ServiceFails       Code = "SERVICE_FAILS"        // it runs and its check fails
	ManagerUnavailable Code = "MANAGER_UNAVAILABLE"  // F104o: the service manager does not answer
	ManagerForbids     Code = "MANAGER_FORBIDS"      // the service manager does not let this agent act
)

// Codes returns every code, in the order in which they are documented.
func Codes() []Code {
	return []Code{
		PatroniHung, PatroniLoopStuck, PatroniAPIDead, PatroniAPIInvalid, PatroniFailed, PatroniCrashing, PatroniStopped,
		PatroniConfigBroken, ZombiePrimary, RivalPostmaster, ReplicaDiverged, Leaderless, DCSUnreachable, DCSReadOnly,
		DCSKeyInvalid, ScopeUnknown, MemberUnknown, Paused, HealFailed, Storm, Flapping, UpgradeRunning, ActingHeld,
		AgentDegraded, AgentConfigBroken, AgentAssertion, AgentCrashLoop, EtcdCrashed, EtcdHung, EtcdQuorumLost,
		EtcdRedundancyLost, EtcdNoSpace, EtcdCorrupt, EtcdQuotaNear, EtcdVersionSkew, EtcdWrongCluster, EtcdRemoved,
		EtcdLeaderFar, ForwarderDead, ForwarderHung, ForwarderBroken, ServiceCrashed, ServiceStopped, ServiceCrashing,
		ServiceFails, ManagerUnavailable, ManagerForbids,
	}
}

// Severity says who should look.
type Severity string

// Severities, lowest first.
const (
	Info Severity = "info" // worth knowing
	Warn Severity = "warn" // someone should look today
	Page Severity = "page" // someone must look now
)

// Finding is a diagnosed condition.
type Finding struct {
	Code     Code       `json:"code"`
	Severity Severity   `json:"severity"`
	Subject  string     `json:"subject"` // service or scope that it is about
	Text     string     `json:"text"`    // one or two sentences an operator understands
	Advice   string     `json:"advice,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
	Since    Instant    `json:"since"`
	// DivergentBytes is, for ZOMBIE_PRIMARY, the WAL written here after the timeline that the leader follows branched
	// off; nil while it is not known.
	DivergentBytes *uint64 `json:"divergent_wal_bytes,omitempty"`
}

// Key identifies a finding over time.
func (f Finding) Key() string { return string(f.Code) + " " + f.Subject }
