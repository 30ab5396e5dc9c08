package journal

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// What guards count reaches at most this far back. Attempts without a result are kept whatever their age.
const (
	attemptSpan = 24 * time.Hour
	maxAttempts = 1000
)

// ledger is what the agent has to remember: the attempts of the recent past, oldest first, orders that may be in force,
// and starts. It is a pure fold over records.
type ledger struct {
	entries []Carried
	orders  []Record // of people, and what was kept last, oldest first, see order.go
	starts  []start  // of this program, oldest first, see order.go
}

// add takes one record into account.
func (l *ledger) add(r Record) {
	l.addOrder(r)
	l.addStart(r)
	switch {
	case r.Kind == Intent && r.Action != nil:
		l.entries = append(l.entries, Carried{Intent: r.Seq, Wall: r.Wall, Attempt: attemptOf(r)})
	case r.Kind == Result && r.Result != nil:
		if e := l.find(r.Result.Intent); e != nil {
			e.Attempt.Done, e.Attempt.Result = true, r.Result.Result
		}
	case r.Kind == Carry:
		for _, c := range r.Carried {
			if l.find(c.Intent) == nil {
				l.entries = append(l.entries, c)
			}
		}
	}
}

// find returns the entry of that intent, or nil.
func (l *ledger) find(intent uint64) *Carried {
	for i := len(l.entries) - 1; i >= 0; i-- {
		if l.entries[i].Intent == intent {
			return &l.entries[i]
		}
	}
	return nil
}

// match returns the entry that recorded this attempt, or nil. Where two share an instant, the one without a result is
// meant, then the newer.
func (l *ledger) match(a node.Attempt) *Carried {
	var found *Carried
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := &l.entries[i]
		if e.Attempt.ActionID != a.ActionID || e.Attempt.BootID != a.BootID || e.Attempt.At != a.At {
			continue
		}
		if !e.Attempt.Done {
			return e
		}
		if found == nil {
			found = e
		}
	}
	return found
}

// trim forgets what no guard counts any more.
func (l *ledger) trim(bootID string, now node.Instant, wall time.Time) {
	kept := l.entries[:0]
	excess := len(l.entries) - maxAttempts
	for _, e := range l.entries {
		if e.Attempt.Done && (excess > 0 || old(e, bootID, now, wall)) {
			excess--
			continue
		}
		kept = append(kept, e)
	}
	clear(l.entries[len(kept):])
	l.entries = kept
}

// old tells the age of an attempt by the monotonic clock where it can: a wall clock that is set forward must not make
// the agent forget what it spent (FAULTS.md S39). Attempts of other boots have only their wall time.
func old(e Carried, bootID string, now node.Instant, wall time.Time) bool {
	if e.Attempt.BootID == bootID {
		return now.Sub(e.Attempt.At) > attemptSpan
	}
	return wall.Sub(e.Wall) > attemptSpan
}

// attempts returns the attempts, oldest first.
func (l *ledger) attempts(keep func(node.Attempt) bool) []node.Attempt {
	var out []node.Attempt
	for _, e := range l.entries {
		if keep(e.Attempt) {
			out = append(out, e.Attempt)
		}
	}
	return out
}

// attemptOf turns an intent record into the attempt that it began.
func attemptOf(r Record) node.Attempt {
	a := r.Action
	return node.Attempt{
		ActionID: a.ID, Verb: a.Verb, Class: a.Class, Service: a.Service, Finding: a.Finding,
		BootID: r.BootID, At: r.At, Before: a.Before, Expect: a.Expect, Settle: a.Settle,
	}
}
