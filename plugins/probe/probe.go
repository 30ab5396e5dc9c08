// Package probe is the contract between pgpatrol and whatever looks at a service from outside: its HTTP API, its
// processes, its files, its SQL.
//
// It owns the values that probes return. A probe reports what it saw and nothing else: it never retries, never keeps a
// history, never decides, and reads no clock (whoever runs it stamps the result). A value that a probe could not find
// out is an error, never a zero that looks like an answer: unknown is not down.
//
// It also owns what several probers need to keep that promise: a [Gate] for work that cannot be interrupted, and an
// [Endpoint] for questions over the network.
package probe

import (
	"context"
	"time"
)

// Prober looks once and returns what it saw.
//
// Probe obeys the context's deadline, is safe for concurrent use, changes nothing on the machine, and returns an error
// only when it could not find out (permission, a missing file that must exist, unintelligible data). "Connection
// refused" from an API is an observation, not an error.
type Prober[T any] interface {
	Probe(ctx context.Context) (T, error)
}

// Outcome is how an HTTP request to a local API ended.
type Outcome string

// Outcomes of a request. The zero value means that none was made.
const (
	OutcomeAnswered Outcome = "answered" // an HTTP response arrived; Status has its code
	OutcomeRefused  Outcome = "refused"  // nobody listens
	OutcomeTimeout  Outcome = "timeout"  // no answer within the probe's limit
	OutcomeBroken   Outcome = "broken"   // the connection ended early, or what came was not HTTP
)

// Liveness is the answer of Patroni's /liveness, the only endpoint that runs no SQL (FACTS.md §0.2, §2.1).
type Liveness struct {
	Outcome Outcome `json:"outcome"`
	Status  int     `json:"status,omitempty"` // HTTP status code when answered
	Detail  string  `json:"detail,omitempty"` // redacted text of the failure
}

// Alive reports whether Patroni says that its loop is running.
func (l Liveness) Alive() bool { return l.Outcome == OutcomeAnswered && l.Status == 200 }

// Dead reports whether nothing intelligible answered at all.
func (l Liveness) Dead() bool { return l.Outcome != OutcomeAnswered && l.Outcome != "" }

// PatroniAPI is what GET /patroni says (FACTS.md §2.4), checked against a strict grammar.
type PatroniAPI struct {
	Outcome         Outcome `json:"outcome"`
	Detail          string  `json:"detail,omitempty"`
	Problem         string  `json:"problem,omitempty"` // answered, but not by a Patroni that can be understood
	Name            string  `json:"name,omitempty"`
	Scope           string  `json:"scope,omitempty"`
	Version         string  `json:"version,omitempty"`
	State           string  `json:"state,omitempty"` // running, starting, creating replica, ... (FACTS.md §2.5)
	Role            string  `json:"role,omitempty"`  // primary, replica, standby_leader, ...
	Timeline        int64   `json:"timeline,omitempty"`
	ServerVersion   int     `json:"server_version,omitempty"`
	SystemID        string  `json:"system_id,omitempty"`
	PostmasterStart string  `json:"postmaster_start,omitempty"` // in the notation of [StartLayout]
	Paused          bool    `json:"paused,omitempty"`
	Unlocked        bool    `json:"unlocked,omitempty"`
	PendingRestart  bool    `json:"pending_restart,omitempty"`
	Location        uint64  `json:"location,omitempty"` // WAL position: current on a primary, replayed on a replica; 0 if not said
}

// Process is the main process of a unit as the kernel shows it.
type Process struct {
	Exists    bool   `json:"exists"`
	PID       int    `json:"pid"`
	State     string `json:"state,omitempty"`      // R S D T t Z X I, as in /proc/PID/stat
	StartTick uint64 `json:"start_tick,omitempty"` // with PID, the identity of the process
	CPUTicks  uint64 `json:"cpu_ticks"`            // user and system time so far
	TracerPID int    `json:"tracer_pid,omitempty"` // a debugger holds it
	Watchdog  bool   `json:"watchdog,omitempty"`   // it holds a watchdog device open
	Command   string `json:"command,omitempty"`    // comm, not the argument list: arguments may hold secrets
	ParentPID int    `json:"parent_pid,omitempty"` // 1 or another reaper for an orphan
	Exe       string `json:"exe,omitempty"`        // base name of the executable, empty if the kernel does not show it to us
	WorkDir   string `json:"work_dir,omitempty"`   // working directory, empty if the kernel does not show it to us
	Unit      string `json:"unit,omitempty"`       // unit whose control group holds it, empty if none
}

// Stopped reports whether the process is stopped by a signal: it cannot run until somebody continues it.
func (p Process) Stopped() bool { return p.Exists && p.State == "T" }

// Postgres is the server on a data directory as its files and processes show it, without a session.
type Postgres struct {
	DataDir        string `json:"data_dir"`
	Initialized    bool   `json:"initialized"` // global/pg_control exists
	DataDirID      string `json:"data_dir_id"` // changes when the directory is created anew (device, inode and change time of PG_VERSION)
	SystemID       string `json:"system_id,omitempty"`
	ControlState   string `json:"control_state,omitempty"` // "in production", "in archive recovery", ... as pg_controldata words it
	Timeline       uint32 `json:"timeline,omitempty"`      // of the latest checkpoint
	CheckpointLSN  uint64 `json:"checkpoint_lsn,omitempty"`
	Running        bool   `json:"running"` // a postmaster lives on this directory
	PostmasterPID  int    `json:"postmaster_pid,omitempty"`
	PostmasterTick uint64 `json:"postmaster_tick,omitempty"` // start of the process; with the pid its identity
	ProcessState   string `json:"process_state,omitempty"`   // of the postmaster, as in /proc/PID/stat
	Standby        bool   `json:"standby,omitempty"`         // standby.signal or recovery.signal is present
	Port           int    `json:"port,omitempty"`
	ServerStatus   string `json:"server_status,omitempty"` // as its lock file says: starting, ready, standby, stopping
	CGroupUnit     string `json:"cgroup_unit,omitempty"`   // the unit whose control group holds the postmaster
}

// Writable reports whether this server accepts writes: a postmaster lives on the directory and its control file says
// "in production". A standby or a server in crash recovery does not show that state, with one exception that the status
// in the lock file uncovers: a server that was killed as a primary leaves it behind, and the next one changes it only
// after it has synced the whole data directory, which can take minutes.
func (p Postgres) Writable() bool {
	return p.Running && p.ControlState == ControlInProduction &&
		p.ServerStatus != ServerStarting && p.ServerStatus != ServerStandby
}

// Starting reports whether a postmaster lives on the directory and lets nobody in yet: it recovers, or is about to.
func (p Postgres) Starting() bool { return p.Running && p.ServerStatus == ServerStarting }

// Values of ServerStatus. The first two exclude writes.
const (
	ServerStarting = "starting" // does not accept sessions yet
	ServerStandby  = "standby"  // in recovery, and hot_standby is off
	ServerStopping = "stopping" // does not accept sessions any more; those of a smart shutdown may write on
)

// ControlInProduction is pg_controldata's wording for a server that has left recovery.
const ControlInProduction = "in production"

// Session is what a new SQL session saw. A session that could not be had is a [SessionError].
type Session struct {
	InRecovery      bool   `json:"in_recovery"`
	LSN             uint64 `json:"lsn"`      // current on a primary, last replayed on a standby
	Timeline        uint32 `json:"timeline"` // being written on a primary, being followed on a standby
	SystemID        string `json:"system_id"`
	PostmasterStart string `json:"postmaster_start"`    // UTC, in the notation of [StartLayout]
	ReadOnly        bool   `json:"read_only,omitempty"` // sessions refuse writes by default; always so in recovery
}

// StartLayout is how probes write the start time of a postmaster, whatever time zone the server prints it in. It is an
// identity to compare, not a time to calculate with.
const StartLayout = "2006-01-02T15:04:05.000000Z"

// SessionError says how a new session failed. It tells a server that hangs (OutcomeTimeout: it accepts connections and
// does not answer, FAULTS.md F20) from one that is not there (OutcomeRefused), one that says no (OutcomeAnswered, with
// the SQLSTATE) and one that hangs up (OutcomeBroken).
type SessionError struct {
	Outcome  Outcome
	SQLState string // of the server's refusal: 57P03 starting up or shutting down, 53300 too many clients, 28... no access
	Detail   string // redacted
}

// Error implements error.
func (e *SessionError) Error() string {
	s := "open session: " + string(e.Outcome)
	if e.SQLState != "" {
		s += " " + e.SQLState
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Machine is what runs on this machine besides the unit, as far as PostgreSQL is concerned.
type Machine struct {
	Postmasters []Postmaster `json:"postmasters,omitempty"` // every postmaster, whatever it serves
	Jobs        []string     `json:"jobs,omitempty"`        // pg_basebackup, pg_rewind, initdb, "postgres --single" in the unit's control group
	Upgrades    []string     `json:"upgrades,omitempty"`    // package managers at work on this machine: apt-get, dpkg, rpm, ...
}

// Postmaster is one postmaster on the machine.
type Postmaster struct {
	PID       int    `json:"pid"`
	Unit      string `json:"unit,omitempty"`      // unit that holds it, empty if none
	DataDir   string `json:"data_dir,omitempty"`  // its working directory, empty if the kernel does not show it to us
	Contained bool   `json:"contained,omitempty"` // lives in a container: Unit and DataDir are that container's
}

// ConfigCheck is the verdict of Patroni's own validator on the configuration file.
type ConfigCheck struct {
	File     string   `json:"file"`
	FileID   string   `json:"file_id"`         // changes when the file changes
	Name     string   `json:"name,omitempty"`  // the file's own top-level "name", empty if it has none
	Scope    string   `json:"scope,omitempty"` // the file's own top-level "scope", empty if it has none
	Valid    bool     `json:"valid"`
	Problems []string `json:"problems,omitempty"` // the validator's lines, redacted and bounded
	// Unreachable holds the validator's complaints about a DCS that it could not connect to: no fault of the file.
	Unreachable []string `json:"unreachable,omitempty"`
}

// LogMark is what Patroni's own log says of how this data directory came to be (FAULTS.md L32).
type LogMark struct {
	DataDirID        string `json:"data_dir_id"`
	SingleUserOnCopy bool   `json:"single_user_on_copy"` // crash recovery in single-user mode on a fresh copy of the leader
	Line             string `json:"line,omitempty"`
}

// EtcdMember is what one member of etcd says of itself: by gRPC (Status) and by HTTP (/health), never by a mere connect
// (FAULTS.md L25, L26). Identifiers are in hexadecimal, as etcdctl prints them.
type EtcdMember struct {
	Outcome Outcome `json:"outcome"` // of the gRPC request
	// Took is how long an answer to the gRPC request took, from the connect on: two round trips and next to nothing besides.
	Took      time.Duration `json:"took,omitempty"`
	Detail    string        `json:"detail,omitempty"` // redacted text of its failure or refusal, or of /health's failure
	Health    Outcome       `json:"health"`           // of GET /health
	Healthy   bool          `json:"healthy"`          // /health said true: it has a leader, and no alarm
	Reason    string        `json:"reason,omitempty"` // what /health said instead, e.g. RAFT NO LEADER, ALARM NOSPACE; 3.4 may not say
	ClusterID string        `json:"cluster_id,omitempty"`
	MemberID  string        `json:"member_id,omitempty"`
	LeaderID  string        `json:"leader_id,omitempty"` // empty: it has none
	RaftTerm  uint64        `json:"raft_term,omitempty"`
	RaftIndex uint64        `json:"raft_index,omitempty"`
	Version   string        `json:"version,omitempty"`
	DBSize    int64         `json:"db_size,omitempty"` // bytes on disk
	DBInUse   int64         `json:"db_in_use,omitempty"`
	DBQuota   int64         `json:"db_quota,omitempty"` // 0: not known
	Learner   bool          `json:"learner,omitempty"`
	Alarms    []string      `json:"alarms,omitempty"` // NOSPACE, CORRUPT
	// Members are the members of its cluster, learners too, by their MemberID; empty: it was not asked, or does not say. They
	// are asked for by [EtcdMembers].
	Members []string `json:"members,omitempty"`
}

// EtcdMembers are the members of a cluster of etcd as a quorum of it knows them, told by one of them. Identifiers are in
// hexadecimal.
type EtcdMembers struct {
	Outcome   Outcome
	Detail    string // redacted text of its failure or refusal
	ClusterID string
	MemberID  string   // of the one that answered
	IDs       []string // sorted, learners too; empty without an answer
}

// Alive reports whether this member answers anything at all, healthy or not.
func (m EtcdMember) Alive() bool {
	return m.Outcome == OutcomeAnswered || m.Health == OutcomeAnswered
}

// Leaderless reports whether this member says that it has no leader. One that refuses to speak of itself does not say so.
func (m EtcdMember) Leaderless() bool {
	return m.Outcome == OutcomeAnswered && m.MemberID != "" && m.LeaderID == ""
}

// Serves reports whether this member answers and has a leader, so that it can serve writes unless an alarm forbids them.
func (m EtcdMember) Serves() bool {
	return m.Outcome == OutcomeAnswered && (m.LeaderID != "" || m.MemberID == "" && m.Healthy)
}

// Identity returns which member of which cluster answered, as "cluster/member", "" if it does not say.
func (m EtcdMember) Identity() string {
	if m.ClusterID == "" || m.MemberID == "" {
		return ""
	}
	return m.ClusterID + "/" + m.MemberID
}

// Silent reports whether something takes connections there and answers nothing, by either way of asking.
func (m EtcdMember) Silent() bool { return m.Outcome == OutcomeTimeout && m.Health == OutcomeTimeout }

// Hop is one end of a chain of forwarders, asked with the protocol that the chain carries.
type Hop struct {
	Outcome  Outcome `json:"outcome"`
	Detail   string  `json:"detail,omitempty"`
	Identity string  `json:"identity,omitempty"` // who answered, where the protocol tells: etcd's cluster and member
}

// Check is whether a service does what it is for.
type Check struct {
	Outcome Outcome `json:"outcome"`
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail,omitempty"` // what was answered, or how it failed; redacted
}
