package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
)

// Locks is one agent's part in the lock and the budget of its cluster. All methods are safe for concurrent use.
type Locks struct {
	kv     KV
	now    func() node.Instant
	scope  string
	holder string

	mu   sync.Mutex // guards held
	held held
}

// held is a lock that was acquired. It is never renewed: it must outlast what is done under it.
type held struct {
	lease    int64
	revision int64        // fencing token: grows with every holder, 0 if the lock is not held
	until    node.Instant // counted from before the lease was granted
}

// New returns the locks of the agent called holder. It asks nothing yet.
func New(kv KV, now func() node.Instant, scope, holder string) *Locks {
	return &Locks{kv: kv, now: now, scope: scope, holder: holder}
}

// Acquire takes the lock of the cluster for at most LockTTL, if nobody holds it. It does not wait: a lock that is taken
// gives ErrHeld with the holder's name. The key holds the agent's name and nothing else: what it is doing stands in its
// own journal, and whoever reads the key accepts names only. After any other error the lock may be taken for up to
// LockTTL, but nobody believes to hold it.
func (l *Locks) Acquire(ctx context.Context, _ string) error {
	began := l.now()
	ttl := LockTTL
	if planted.On("coordinator/lock-for-an-hour") {
		ttl = BudgetSpan
	}
	lease, granted, err := l.kv.Grant(ctx, ttl)
	if err != nil {
		return fmt.Errorf("acquire the cluster's lock: %w", err)
	}
	revision, holder, err := l.kv.Create(ctx, l.key(), l.holder, lease)
	if err == nil && revision == 0 {
		err = fmt.Errorf("%w by %s", ErrHeld, nameOr(holder))
	}
	if err != nil {
		l.kv.Revoke(ctx, lease)
		return fmt.Errorf("acquire the cluster's lock: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held{lease: lease, revision: revision, until: began.Add(min(granted, LockTTL))}
	return nil
}

func (l *Locks) key() string { return node.LockKey(l.scope, node.LockCluster) }

func (l *Locks) current() held {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// Held returns nil if the lock is still held by the last acquisition, as the store shows, and has time left on this
// machine's clock; ErrLost if not. Any other error means that it could not be found out.
func (l *Locks) Held(ctx context.Context) error {
	h := l.current()
	if h.revision == 0 || l.now() >= h.until {
		return fmt.Errorf("check the cluster's lock: its time is over: %w", ErrLost)
	}
	has, err := l.kv.Has(ctx, l.key(), h.revision)
	switch {
	case err != nil:
		return fmt.Errorf("check the cluster's lock: %w", err)
	case !has:
		return fmt.Errorf("check the cluster's lock: %w", ErrLost)
	case l.now() >= h.until:
		return fmt.Errorf("check the cluster's lock: its time ran out meanwhile: %w", ErrLost)
	}
	return nil
}

// Release gives the lock back if it is still held by the last acquisition, and returns ErrLost if it is not. Releasing a
// lock that was not acquired does nothing. After another error it ends with its lease.
func (l *Locks) Release(ctx context.Context) error {
	l.mu.Lock()
	h := l.held
	l.held = held{}
	l.mu.Unlock()
	if h.revision == 0 {
		return nil
	}
	was, err := l.kv.Delete(ctx, l.key(), h.revision)
	l.kv.Revoke(ctx, h.lease)
	switch {
	case err != nil:
		return fmt.Errorf("release the cluster's lock: %w", err)
	case !was:
		return fmt.Errorf("release the cluster's lock: %w", ErrLost)
	}
	return nil
}

// Claim takes what the action costs of the cluster's budget, before anything else of it happens. What is taken is never
// given back: an action that is not carried out in the end has spent its slot. ErrSpent names who spent the others.
// After any other error a slot may be taken, and the action must not be carried out.
func (l *Locks) Claim(ctx context.Context, a node.Action) error {
	value, err := json.Marshal(node.Spent{Node: l.holder, Class: a.Class})
	if err != nil {
		return fmt.Errorf("claim the cluster's budget: %w", err)
	}
	lease, _, err := l.kv.Grant(ctx, BudgetSpan)
	if err != nil {
		return fmt.Errorf("claim the cluster's budget: %w", err)
	}
	if a.Class == node.ClassDisrupt { // first, because it is the one that is refused sooner
		err = l.take(ctx, node.SpentDisruptKey, node.ClusterDisruptions, string(value), lease)
	}
	if err == nil && planted.On("coordinator/two-slots") {
		_ = l.take(ctx, node.SpentKey, node.ClusterActions, string(value), lease)
	}
	if err == nil {
		err = l.take(ctx, node.SpentKey, node.ClusterActions, string(value), lease)
	}
	if err != nil {
		l.kv.Revoke(ctx, lease)
		return fmt.Errorf("claim the cluster's budget for a %s action: %w", a.Class, err)
	}
	return nil
}

// take creates one of n keys.
func (l *Locks) take(ctx context.Context, key func(scope string, n int) string, n int, value string, lease int64) error {
	var by []string
	for i := 1; i <= n; i++ {
		revision, holder, err := l.kv.Create(ctx, key(l.scope, i), value, lease)
		if err != nil {
			return err
		}
		if revision != 0 {
			return nil
		}
		by = append(by, spender(holder))
	}
	slices.Sort(by)
	return fmt.Errorf("%w: %d of %d within the hour, by %s", ErrSpent, n, n, strings.Join(slices.Compact(by), ", "))
}

// spender returns the node in the value of a slot.
func spender(value string) string {
	var s node.Spent
	if json.Unmarshal([]byte(value), &s) != nil {
		return node.Unknown
	}
	return nameOr(s.Node)
}
