package journal

import (
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// What is remembered of people's orders and of the agent's own starts. An hour of boot time and a few dozen entries are
// far more than anybody asks for.
const (
	maxApprovals = 32
	maxStarts    = 64
)

// start is one start of the agent.
type start struct {
	bootID  string
	at      node.Instant
	orderly bool // a stop followed
}

// Pause is the pause of this node as it was ordered.
type Pause struct {
	Hold   node.Hold
	BootID string
	At     node.Instant // of that boot
}

// addOrder keeps the last pause of this node until it is lifted, the newest approvals, the latest memory, and the latest loss of records. A kill switch is a file, and
// what reaches further than this node is kept in etcd: of these the journal only tells.
func (l *ledger) addOrder(r Record) {
	switch {
	case r.Kind == Carry:
		for _, o := range r.Orders {
			if !slices.ContainsFunc(l.orders, func(have Record) bool { return have.Seq == o.Seq }) {
				l.addOrder(o)
			}
		}
	case (r.Kind == Hold || r.Kind == Lift) && r.Hold != nil && r.Hold.Kind == node.HoldPause && r.Hold.Level == node.LevelNode:
		l.orders = slices.DeleteFunc(l.orders, func(o Record) bool { return o.Kind == Hold })
		if r.Kind == Hold {
			l.orders = append(l.orders, r)
		}
	case r.Kind == Memory && r.Kept != nil, r.Kind == Repair && r.Lost:
		l.orders = append(slices.DeleteFunc(l.orders, func(o Record) bool { return o.Kind == r.Kind }), r)
	case r.Kind == Approve && r.Approval != nil:
		l.orders = slices.DeleteFunc(l.orders, func(o Record) bool {
			return o.Kind == Approve && (o.BootID != r.BootID || r.At.Sub(o.At) > node.ApprovalLife)
		})
		if l.orders = append(l.orders, r); len(l.orders) > maxApprovals {
			i := slices.IndexFunc(l.orders, func(o Record) bool { return o.Kind == Approve })
			l.orders = slices.Delete(l.orders, i, i+1)
		}
	}
}

// addStart keeps whether every start was followed by a stop.
func (l *ledger) addStart(r Record) {
	switch n := len(l.starts); {
	case r.Kind == Start:
		l.starts = append(l.starts, start{bootID: r.BootID, at: r.At})
		if len(l.starts) > maxStarts {
			l.starts = slices.Delete(l.starts, 0, 1)
		}
	case r.Kind == Stop && n > 0:
		l.starts[n-1].orderly = true
	}
}

// Pause returns the pause of this node that was ordered last, unless it was lifted. Whether its time is over is for the
// caller to judge.
func (j *Journal) Pause() (Pause, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range j.ledger.orders {
		if o.Kind == Hold {
			return Pause{Hold: *o.Hold, BootID: o.BootID, At: o.At}, true
		}
	}
	return Pause{}, false
}

// Kept returns what was kept last, and whether it was in this boot. It is empty where a journal with records keeps nothing.
// The second result is false for a journal that had no record when it was opened: this agent has never run here.
func (j *Journal) Kept() (kept node.Kept, sameBoot, ran bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range j.ledger.orders {
		if o.Kind == Memory {
			return *o.Kept, o.BootID == j.deps.BootID, true
		}
	}
	return node.Kept{}, false, j.began > 0 || j.refuse != nil || j.lost() != nil
}

// Approvals returns the approvals of this boot that have not ended, oldest first.
func (j *Journal) Approvals() []node.Approval {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []node.Approval
	for _, o := range j.ledger.orders {
		if o.Kind == Approve && o.BootID == j.deps.BootID && j.deps.Now().Sub(o.At) <= node.ApprovalLife {
			out = append(out, node.Approval{ActionID: o.Approval.ActionID, Owner: o.Approval.Owner, At: o.At})
		}
	}
	return out
}

// Crashes returns how many starts of this boot within that time ended without a stop. The last start is that of the
// running agent and does not count.
func (j *Journal) Crashes(within time.Duration) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for i, s := range j.ledger.starts {
		last := i == len(j.ledger.starts)-1
		if !last && !s.orderly && s.bootID == j.deps.BootID && j.deps.Now().Sub(s.at) <= within {
			n++
		}
	}
	return n
}
