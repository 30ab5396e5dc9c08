// Package coordinator is what the agents of a cluster agree on through etcd: who disrupts, how much the cluster has
// spent, and what people forbade to all of them.
//
// It owns the lock, the budget and the holds below /pgpatrol/. It promises that at most one agent of a scope believes to
// hold the lock, also when a lease ends while its holder sleeps: a lock is believed only until a moment on the holder's
// own clock that was counted from before the lease was granted, and is proved by its create revision directly before an
// act (FAULTS.md F103, S1); that no more than the budget is taken in any hour by however many agents, since a slot is a
// key that only one can create and that etcd ends after an hour (S26); and that nothing here renews or outlives its
// lease. It deliberately has no state of its own besides the lock that it holds, and decides nothing: what a hold, a lock
// or a spent budget means for an action is for the guards. When etcd cannot be asked, the answer is an error and never
// consent.
//
//	lock     create-if-absent, lease of LockTTL        --> Held before the act --> Release after its verification
//	budget   create-if-absent, 1 of n keys, lease 1 h      never given back
//	hold     put, lease of the hold's length               Lift deletes
package coordinator

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Sentinel errors. Compare with errors.Is.
var (
	// ErrHeld says that somebody else holds the lock.
	ErrHeld = errors.New("lock is held")
	// ErrLost says that the lock is not held any more: it expired, was released, or is another's.
	ErrLost = errors.New("lock is lost")
	// ErrSpent says that the cluster's budget is used up.
	ErrSpent = errors.New("the cluster's budget is spent")
	// ErrNotSet says that there is no hold to lift.
	ErrNotSet = errors.New("not set")
)

const (
	// LockTTL outlasts the longest action and its verification, so that the lock needs no renewal.
	LockTTL = 2 * time.Minute
	// BudgetSpan is how long a slot of the budget stays taken.
	BudgetSpan = time.Hour
)

// KV is a linearizable store of keys that end with their leases. After an error what was asked for may have happened.
type KV interface {
	// Grant returns a lease and how long it lives.
	Grant(ctx context.Context, ttl time.Duration) (lease int64, granted time.Duration, err error)
	// Create writes a key that does not exist and returns its revision, which is greater than those of all keys before.
	// If the key exists it returns 0 and what that holds.
	Create(ctx context.Context, key, value string, lease int64) (revision int64, holder string, err error)
	// Has reports whether the key is the one that was created at that revision.
	Has(ctx context.Context, key string, createRevision int64) (bool, error)
	// Delete deletes the key if it is the one that was created at that revision, and reports whether it was.
	Delete(ctx context.Context, key string, createRevision int64) (bool, error)
	// Revoke ends a lease and its keys, if it can, even if ctx has ended.
	Revoke(ctx context.Context, lease int64)
}

// Writer is a KV that can also overwrite, for the orders of people.
type Writer interface {
	KV
	// Put writes a key, whether it exists or not.
	Put(ctx context.Context, key, value string, lease int64) error
	// Remove deletes a key and returns what it held.
	Remove(ctx context.Context, key string) (value string, was bool, err error)
}

var nameGrammar = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,63}$`)

// nameOr returns the name that a key holds, node.Unknown if what it holds is none and not fit to be shown.
func nameOr(s string) string {
	if !nameGrammar.MatchString(s) {
		return node.Unknown
	}
	return s
}
