package node

import "time"

// Class says how disruptive an action is (DESIGN.md §4).
type Class string

// Classes, least disruptive first.
const (
	ClassAdjust   Class = "adjust"
	ClassRevive   Class = "revive"
	ClassDisrupt  Class = "disrupt"
	ClassExpedite Class = "expedite"
)

// Classes returns the classes that a policy has a mode for.
func Classes() []Class { return []Class{ClassAdjust, ClassRevive, ClassDisrupt, ClassExpedite} }

// Verb is what an action does.
type Verb string

// Verbs.
const (
	// SoftKill sends SIGKILL to the main process of the unit; its manager starts it again. PostgreSQL runs on when the
	// unit's KillMode spares children (FACTS.md §3.2 A, D3).
	SoftKill Verb = "soft-kill"
	// StartFailed clears the start limit and starts a failed unit once (FAULTS.md F05).
	StartFailed Verb = "start-failed"
	// Restart ends the unit's run and starts another (FAULTS.md F39, F72). It is never used on Patroni, whose restart stops
	// PostgreSQL (FAULTS.md L3).
	Restart Verb = "restart"
)

// Verbs returns every verb.
func Verbs() []Verb { return []Verb{SoftKill, StartFailed, Restart} }

// Action is a proposed step with what it rests on and how its success is recognised.
type Action struct {
	ID       string        `json:"id"` // stable while the condition and its target stay the same
	Verb     Verb          `json:"verb"`
	Service  string        `json:"service"`
	Kind     Kind          `json:"kind,omitempty"` // of the service; empty for a Patroni
	Unit     string        `json:"unit"`
	Class    Class         `json:"class"`
	Finding  Code          `json:"finding"`
	Reason   string        `json:"reason"`
	Fence    bool          `json:"fence,omitempty"`  // ends a second primary: allowed in grace and right after a leader change (FAULTS.md S30)
	Leader   bool          `json:"leader,omitempty"` // the target holds the leader key
	Expect   Expectation   `json:"expect"`
	Before   Baseline      `json:"before"`
	Decision uint64        `json:"decision,omitempty"` // sequence number of the plan in the journal that allowed it
	Deadline time.Duration `json:"deadline"`           // for the act itself
	Settle   time.Duration `json:"settle"`             // within which the effect must be seen
}

// Shared reports whether the action counts against what all agents of the cluster may do in an hour: whatever stops
// something that runs, and everything that is done to Patroni.
func (a Action) Shared() bool {
	return a.Class == ClassDisrupt || a.Class == ClassExpedite || a.Kind == "" || a.Kind == KindPatroni
}

// Baseline is the target as it was when the action was decided. An action is void once the target differs from it.
type Baseline struct {
	InvocationID   string `json:"invocation_id"`
	MainPID        int    `json:"main_pid"`
	StartTick      uint64 `json:"start_tick,omitempty"`
	PostmasterPID  int    `json:"postmaster_pid,omitempty"`
	PostmasterTick uint64 `json:"postmaster_tick,omitempty"`
	LeaderName     string `json:"leader_name,omitempty"`
	LeaderRevision int64  `json:"leader_revision,omitempty"`
	SystemID       string `json:"system_id,omitempty"`
	LSN            uint64 `json:"lsn,omitempty"`      // last WAL position known here
	Timeline       uint32 `json:"timeline,omitempty"` // of PostgreSQL here
}

// Expectation is how the success of an action is recognised.
type Expectation struct {
	NewInvocation  bool `json:"new_invocation"`  // the unit runs in another invocation
	LeaseRenewed   bool `json:"lease_renewed"`   // this member's lease is younger than the action
	SamePostmaster bool `json:"same_postmaster"` // PostgreSQL was not restarted
	ReadOnly       bool `json:"read_only"`       // PostgreSQL here does not accept writes any more
	Works          bool `json:"works,omitempty"` // the service does what it is for: its own check passes
}

// Guard is the stable name of a rule that allows or refuses an action.
type Guard string

// Guards (DESIGN.md §5).
const (
	GuardPolicy         Guard = "policy"
	GuardOperatorIntent Guard = "operator-intent"
	GuardOperatorJob    Guard = "operator-job-running"
	GuardPatroniPause   Guard = "patroni-pause"
	GuardBootGrace      Guard = "boot-grace"
	GuardFreshness      Guard = "freshness"
	GuardDCSWritable    Guard = "dcs-writable"
	GuardIdentity       Guard = "identity"
	GuardBudget         Guard = "budget"
	GuardBackoff        Guard = "backoff"
	GuardBreaker        Guard = "breaker"
	GuardInFlight       Guard = "in-flight"
	GuardLeaderChange   Guard = "leader-change"
	GuardLeaderSafety   Guard = "leader-safety"
	GuardLeaseWindow    Guard = "lease-window"
	GuardConfigValid    Guard = "config-valid"
	GuardUnitSafety     Guard = "unit-safety"
	GuardBusyWork       Guard = "busy-work"
	GuardWatchdog       Guard = "watchdog"
	GuardRedundancy     Guard = "redundancy"
	GuardClusterLock    Guard = "cluster-lock"
	GuardSelfHealth     Guard = "self-health"
	GuardKillSwitch     Guard = "kill-switch"
	GuardPause          Guard = "pgpatrol-pause"
	GuardNoDCS          Guard = "no-dcs"
	GuardStorm          Guard = "storm"
	GuardFlap           Guard = "flap"
	GuardUpgrade        Guard = "upgrade-in-progress"
	GuardClusterBudget  Guard = "cluster-budget"
)

// Guards returns every guard, in the order in which an operator wants to read refusals: what people want first, then
// what is known, then what is safe, then how often.
func Guards() []Guard {
	return []Guard{
		GuardKillSwitch, GuardPause, GuardPolicy, GuardOperatorIntent, GuardOperatorJob, GuardUpgrade, GuardPatroniPause,
		GuardSelfHealth, GuardNoDCS, GuardFreshness, GuardIdentity, GuardDCSWritable, GuardBootGrace, GuardLeaderChange,
		GuardStorm, GuardFlap, GuardLeaderSafety, GuardLeaseWindow, GuardConfigValid, GuardUnitSafety, GuardBusyWork,
		GuardWatchdog, GuardRedundancy, GuardClusterLock, GuardInFlight, GuardBudget, GuardClusterBudget, GuardBackoff,
		GuardBreaker,
	}
}

// Verdict is one guard's answer on one action.
type Verdict struct {
	Guard Guard  `json:"guard"`
	Allow bool   `json:"allow"`
	Text  string `json:"text"` // the reason, with its numbers
}

// Refusal is an action that is not taken now, and every guard that refused it.
type Refusal struct {
	Action   Action    `json:"action"`
	Verdicts []Verdict `json:"verdicts"` // the refusing ones only
}

// Plan is the outcome of one decision: what is allowed now, what is not and why, and on what all of it rests.
type Plan struct {
	At       Instant    `json:"at"`
	Wall     time.Time  `json:"wall"`
	Findings []Finding  `json:"findings"`
	Allowed  []Action   `json:"allowed"`
	Refused  []Refusal  `json:"refused"`
	Summary  string     `json:"summary"` // one sentence: what is done or why nothing is
	Rests    []Evidence `json:"rests"`   // the facts behind the summary
}

// Attempt is one action of the past as guards need it: what, when, and how it ended. Attempts are read from the journal,
// so that restarting the agent spends nothing and forgets nothing (FAULTS.md S26).
type Attempt struct {
	ActionID string        `json:"action_id"`
	Verb     Verb          `json:"verb"`
	Class    Class         `json:"class"`
	Service  string        `json:"service"`
	Finding  Code          `json:"finding"`
	BootID   string        `json:"boot_id"`
	At       Instant       `json:"at"`
	Done     bool          `json:"done"`   // a result was recorded
	Result   AttemptResult `json:"result"` //
	Before   Baseline      `json:"before"`
	Expect   Expectation   `json:"expect"`
	Settle   time.Duration `json:"settle"`
}

// AttemptResult is how an attempt ended.
type AttemptResult string

// Results of attempts. The zero value means that it is still in flight.
const (
	ResultExecuted    AttemptResult = "executed"     // the act was carried out; its effect is being verified
	ResultVerified    AttemptResult = "verified"     // the effect was seen
	ResultUnverified  AttemptResult = "unverified"   // the effect was not seen in time
	ResultFailed      AttemptResult = "failed"       // the act itself returned an error
	ResultNotExecuted AttemptResult = "not-executed" // the agent ended, or the target changed, before the act
)
