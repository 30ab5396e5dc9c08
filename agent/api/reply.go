// Package api serves what the agent knows over a unix socket, takes the orders of people there, and is the client of it.
//
// It owns the paths, the form of requests and replies, and the socket. It promises that reading changes nothing, that a
// request which is not understood is refused with a reason, that no request can hold the agent up, and that its replies
// within /v1 only ever gain members. It deliberately offers no way to make the agent act: an order holds it back, ends
// that, or agrees to what it proposes itself and still has to find right when it acts. Whoever may use the socket may
// give orders: its owner and its group. It listens on no network address and keeps nothing itself: every reply comes
// from a [Source], every order goes to an [Orderer] (FAULTS.md T9).
//
//	GET /v1/status    GET /v1/plan    GET /v1/history?limit=N&kind=KIND,...    GET /v1/version
//	GET /v1/record?seq=N    GET /v1/records?after=N&limit=N    GET /v1/question
//	POST /v1/hold    POST /v1/lift    POST /v1/approve
package api

import (
	"context"
	"errors"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/route"
)

// DefaultSocket is where an agent answers unless its configuration says otherwise.
const DefaultSocket = "/run/pgpatrol/pgpatrol.sock"

// Source is whoever knows the answers. Its methods are called concurrently and must not block for long. An error that
// wraps ErrNotReady is shown as such; any other is shown as a failure of the agent, with its text.
type Source interface {
	Status(ctx context.Context) (Status, error)
	Plan(ctx context.Context) (PlanReply, error)
	History(ctx context.Context, q HistoryQuery) (History, error)
}

// ErrNotReady says that the agent has started and has not decided anything yet.
var ErrNotReady = errors.New("the agent has not decided anything yet, ask again in a moment")

// Status is everything that the agent knows now.
type Status struct {
	Version       string         `json:"version"`
	Node          string         `json:"node"`
	Scope         string         `json:"scope"`
	Now           node.Instant   `json:"now"`  // to tell ages: all instants are of this clock
	Wall          time.Time      `json:"wall"` // the same moment, for people
	StartedAgo    time.Duration  `json:"started_ago"`
	Policy        node.Policy    `json:"policy"`
	Spec          *node.Spec     `json:"spec,omitempty"`     // what the agent was told, with the policy of every service
	Snapshot      *node.Snapshot `json:"snapshot,omitempty"` // absent until the first look
	Plan          *node.Plan     `json:"plan,omitempty"`     // absent until the first decision
	ConfigProblem string         `json:"config_problem,omitempty"`
	Managers      []Manager      `json:"managers,omitempty"` // those that the configuration names
	Routes        []route.Report `json:"routes,omitempty"`   // of every proxy here
}

// Manager is a service manager that the configuration names, and whether this machine shows signs of it.
type Manager struct {
	Name     string `json:"name"`
	Found    bool   `json:"found"`
	Evidence string `json:"evidence"` // for it, or what there is instead
}

// PlanReply is the latest decision, and the moment at which it was asked for.
type PlanReply struct {
	Now node.Instant `json:"now"`
	node.Plan
}

// HistoryQuery selects records of the journal.
type HistoryQuery struct {
	Limit int      // the newest this many, 1 to MaxHistory
	Kinds []string // only these kinds, all if empty
}

// Limits of a HistoryQuery.
const (
	DefaultHistory = 20
	MaxHistory     = 1000
)

// Kinds returns the kinds of records that can be asked for.
func Kinds() []string {
	return []string{"start", "stop", "finding", "cleared", "plan", "intent", "result", "config", "repair", "hold", "lift", "approve", "route"}
}

// History is records of the journal, oldest first.
type History struct {
	Records []Record `json:"records"`
}

// Record is one record of the journal. Which of the pointers is set depends on its kind.
type Record struct {
	Seq     uint64        `json:"seq"`
	Wall    time.Time     `json:"wall"`
	BootID  string        `json:"boot_id"`
	At      node.Instant  `json:"at"`
	Kind    string        `json:"kind"`
	Finding *node.Finding `json:"finding,omitempty"`
	Plan    *node.Plan    `json:"plan,omitempty"`
	Action  *node.Action  `json:"action,omitempty"`
	Result  *Outcome      `json:"result,omitempty"`
	Text    string        `json:"text,omitempty"`
	// Hold is what was ordered or lifted, Approval what a person agreed to.
	Hold     *node.Hold     `json:"hold,omitempty"`
	Approval *node.Approval `json:"approval,omitempty"`
	// Decision is the number of the plan that a finding or its end belongs to.
	Decision uint64 `json:"decision,omitempty"`
	// Question is all inputs of the decision; /v1/history leaves it out, as it is large.
	Question *node.Question `json:"question,omitempty"`
	Program  string         `json:"program,omitempty"` // version of pgpatrol that answered it
}

// Outcome is how the intent with that sequence number ended.
type Outcome struct {
	Intent   uint64             `json:"intent"`
	ActionID string             `json:"action_id"`
	Result   node.AttemptResult `json:"result"`
	Error    string             `json:"error,omitempty"`
	Evidence map[string]string  `json:"evidence,omitempty"`
}

// Version names the program that answers.
type Version struct {
	Version string `json:"version"`
}

// Problem is the reply to a request that was not answered.
type Problem struct {
	Error string `json:"error"`
}
