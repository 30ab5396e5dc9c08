package node

import (
	"fmt"
	"time"
)

// HoldKind is how strongly a person forbids acting.
type HoldKind string

// Kinds of holds.
const (
	// HoldPause stops every action for a while: somebody works here (DESIGN.md §1.3).
	HoldPause HoldKind = "pause"
	// HoldKill is the kill switch: it dominates everything, and whatever cannot be read or understood counts as set
	// (FAULTS.md S23).
	HoldKill HoldKind = "kill-switch"
)

// Level is how far a hold reaches.
type Level string

// Levels of holds.
const (
	LevelNode  Level = "node"       // this agent; kept on this machine
	LevelScope Level = "scope"      // every agent of one Patroni cluster; kept in etcd
	LevelAll   Level = "everything" // every agent that uses this etcd, whatever its scope; kept in etcd
)

// Hold is a person's order to do nothing. Those who keep it end it: while one is in a snapshot, it is in force.
type Hold struct {
	Kind   HoldKind  `json:"kind"`
	Level  Level     `json:"level"`
	Owner  string    `json:"owner"` // who ordered it; "unknown" if what was found does not say
	Reason string    `json:"reason"`
	Since  time.Time `json:"since,omitzero"` // for people
	Until  time.Time `json:"until,omitzero"` // for people; zero: until a person lifts it
}

// String says what is held back, by whom, why and until when.
func (h Hold) String() string {
	level, owner, reason, until := string(h.Level), h.Owner, h.Reason, "until a person lifts it"
	if level == "" {
		level = "unknown level"
	}
	if owner == "" {
		owner = "unknown"
	}
	if reason == "" {
		reason = "no reason given"
	}
	if !h.Until.IsZero() {
		until = "until " + h.Until.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s (%s) by %s: %s, %s", h.Kind, level, owner, reason, until)
}

// Approval is a person's consent to one action that policy "ask" holds back. It ends by itself, and one attempt uses it up.
type Approval struct {
	ActionID string  `json:"action_id"`
	Owner    string  `json:"owner"`
	At       Instant `json:"at"`
}

// ApprovalLife is how long an approval lasts: long enough for the next look, and too short for another situation.
const ApprovalLife = 2 * time.Minute

// Orders are what people want of this agent now, as far as it is kept on this machine.
type Orders struct {
	Holds      []Hold     `json:"holds,omitempty"`
	Unreadable string     `json:"unreadable,omitempty"` // why the local kill switch could not be read: it counts as set
	Approvals  []Approval `json:"approvals,omitempty"`  // of this boot, not older than ApprovalLife
}

// Coordination is what agents share through etcd below /pgpatrol/, read together with the cluster's keys.
type Coordination struct {
	Holds []Hold  `json:"holds,omitempty"`
	Lock  string  `json:"lock,omitempty"`  // node that holds the cluster lock, "unknown" if the key is not intelligible
	Spent []Spent `json:"spent,omitempty"` // actions of the last hour in the whole cluster
}

// Spent is one action that some agent of the cluster took within the last hour.
type Spent struct {
	Node  string `json:"node"`
	Class Class  `json:"class"`
}
