package dcs

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Sentinel errors of locks. Compare with errors.Is.
var (
	// ErrHeld says that somebody else holds the lock. The error is a *HeldError.
	ErrHeld = errors.New("lock is held")
	// ErrLost says that the lock is not held any more: it expired, was released, or is another's.
	ErrLost = errors.New("lock is lost")
)

// HeldError names who holds a lock.
type HeldError struct {
	Name   string
	Holder string // "" if what the key holds is not a name
}

// Error implements error.
func (e *HeldError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("lock %q is held by somebody unknown", e.Name)
	}
	return fmt.Sprintf("lock %q is held by %s", e.Name, e.Holder)
}

// Unwrap makes the error an ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

// Lock is a lock that was acquired. It is never renewed: it must outlast what is done under it.
type Lock struct {
	Name     string       `json:"name"`
	Key      string       `json:"key"`
	Holder   string       `json:"holder"`
	Lease    int64        `json:"lease"`
	Revision int64        `json:"revision"` // fencing token: grows with every holder
	Until    node.Instant `json:"until"`    // on this machine's clock, counted from before the lease was granted
}

// Acquire takes the lock called name for at most ttl, which is rounded up to seconds, if nobody holds it. It does not
// wait: a lock that is taken gives ErrHeld with the holder's name. ErrReadOnly says that etcd refuses writes. After any
// other error the lock may be taken for up to ttl, but nobody believes to hold it.
func (v *View) Acquire(ctx context.Context, name string, ttl time.Duration, holder string) (Lock, error) {
	if !validName(name) || !validName(holder) || ttl <= 0 {
		return Lock{}, fmt.Errorf("acquire lock %q: name, holder or ttl is not valid", printable(name, 63))
	}
	began, m := v.now(), v.mark()
	seconds := int64((ttl + time.Second - 1) / time.Second)
	lease, err := v.grant(ctx, seconds, m)
	if err != nil {
		return Lock{}, fmt.Errorf("acquire lock %q: %w", name, err)
	}
	l := Lock{
		Name: name, Key: v.lockKey(name), Holder: holder, Lease: int64(lease.ID),
		Until: began.Add(time.Duration(min(seconds, lease.TTL)) * time.Second),
	}
	if l.Revision, err = v.put(ctx, l, m); err != nil {
		v.abandon(ctx, clientv3.LeaseID(l.Lease))
		return Lock{}, fmt.Errorf("acquire lock %q: %w", name, err)
	}
	return l, nil
}

// put writes the lock's key if it does not exist and returns its revision.
func (v *View) put(ctx context.Context, l Lock, m mark) (int64, error) {
	put := clientv3.OpPut(l.Key, l.Holder, clientv3.WithLease(clientv3.LeaseID(l.Lease)))
	resp, err := v.txn(ctx, l.Key, 0, put, m)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, &HeldError{Name: l.Name, Holder: holderOf(resp)}
	}
	return resp.Header.GetRevision(), nil
}

// Held returns nil if the lock is still held by this acquisition, as a linearizable transaction shows, and has time left
// on this machine's clock; ErrLost if not. Any other error means that it could not be found out.
func (v *View) Held(ctx context.Context, l Lock) error {
	if v.now() >= l.Until {
		return fmt.Errorf("check lock %q: its time is over: %w", l.Name, ErrLost)
	}
	// The branches read: etcd answers a transaction without operations from local state, not linearizably.
	resp, err := v.txn(ctx, l.Key, l.Revision, clientv3.OpGet(l.Key), v.mark())
	switch {
	case err != nil:
		return fmt.Errorf("check lock %q: %w", l.Name, err)
	case !resp.Succeeded:
		return fmt.Errorf("check lock %q: %w", l.Name, ErrLost)
	case v.now() >= l.Until:
		return fmt.Errorf("check lock %q: its time ran out meanwhile: %w", l.Name, ErrLost)
	}
	return nil
}

// Release gives the lock back if it is still held by this acquisition, and returns ErrLost if it is not. After another
// error it ends with its ttl.
func (v *View) Release(ctx context.Context, l Lock) error {
	resp, err := v.txn(ctx, l.Key, l.Revision, clientv3.OpDelete(l.Key), v.mark())
	v.abandon(ctx, clientv3.LeaseID(l.Lease))
	switch {
	case err != nil:
		return fmt.Errorf("release lock %q: %w", l.Name, err)
	case !resp.Succeeded:
		return fmt.Errorf("release lock %q: %w", l.Name, ErrLost)
	}
	return nil
}

// txn does something if the key was created at that revision, 0 for a key that does not exist, and otherwise reads it.
func (v *View) txn(ctx context.Context, key string, created int64, then clientv3.Op, m mark) (*clientv3.TxnResponse, error) {
	var resp *clientv3.TxnResponse
	err := v.conn.call(ctx, false, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		asCreated := clientv3.Compare(clientv3.CreateRevision(key), "=", created)
		if resp, err = etcd.Txn(ctx).If(asCreated).Then(then).Else(clientv3.OpGet(key)).Commit(); err != nil {
			return err
		}
		return v.admit(resp.Header, m)
	})
	return resp, err
}

// grant asks for a lease of that many seconds.
func (v *View) grant(ctx context.Context, seconds int64, m mark) (*clientv3.LeaseGrantResponse, error) {
	var lease *clientv3.LeaseGrantResponse
	err := v.conn.call(ctx, false, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		if lease, err = etcd.Grant(ctx, seconds); err != nil {
			return err
		}
		return v.admit(lease.ResponseHeader, m)
	})
	return lease, err
}

// abandon revokes a lease, and with it whatever key it may hold, even if the caller's context has ended. A lease that
// cannot be revoked ends by itself.
func (v *View) abandon(ctx context.Context, lease clientv3.LeaseID) {
	_ = v.conn.call(context.WithoutCancel(ctx), false, func(ctx context.Context, etcd *clientv3.Client) error {
		_, err := etcd.Revoke(ctx, lease)
		return err
	})
}

func (v *View) lockKey(name string) string { return lockRoot + "/" + v.cfg.Scope + "/lock/" + name }

// holderOf returns the name in the key that a failed transaction read, "" if it is not one.
func holderOf(resp *clientv3.TxnResponse) string {
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			if s := string(kv.GetValue()); validName(s) {
				return s
			}
		}
	}
	return ""
}
