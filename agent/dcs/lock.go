package dcs

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

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
	var grant *pb.LeaseGrantResponse
	err := v.conn.call(ctx, false, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		if grant, err = pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds}); err != nil {
			return err
		}
		return v.admit(grant.GetHeader(), m)
	})
	if err != nil {
		return Lock{}, fmt.Errorf("acquire lock %q: %w", name, err)
	}
	l := Lock{
		Name: name, Key: v.lockKey(name), Holder: holder, Lease: grant.GetID(),
		Until: began.Add(time.Duration(min(seconds, grant.GetTTL())) * time.Second),
	}
	if l.Revision, err = v.put(ctx, l, m); err != nil {
		v.abandon(ctx, l.Lease)
		return Lock{}, fmt.Errorf("acquire lock %q: %w", name, err)
	}
	return l, nil
}

// put writes the lock's key if it does not exist and returns its revision.
func (v *View) put(ctx context.Context, l Lock, m mark) (int64, error) {
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
		Key: []byte(l.Key), Value: []byte(l.Holder), Lease: l.Lease,
	}}}
	resp, err := v.txn(ctx, l.Key, 0, put, getOp(l.Key), m)
	if err != nil {
		return 0, err
	}
	if !resp.GetSucceeded() {
		return 0, &HeldError{Name: l.Name, Holder: holderOf(resp)}
	}
	return resp.GetHeader().GetRevision(), nil
}

// Held returns nil if the lock is still held by this acquisition, as a linearizable transaction shows, and has time left
// on this machine's clock; ErrLost if not. Any other error means that it could not be found out.
func (v *View) Held(ctx context.Context, l Lock) error {
	if v.now() >= l.Until {
		return fmt.Errorf("check lock %q: its time is over: %w", l.Name, ErrLost)
	}
	// The branches read: etcd answers a transaction without operations from local state, not linearizably.
	resp, err := v.txn(ctx, l.Key, l.Revision, getOp(l.Key), getOp(l.Key), v.mark())
	switch {
	case err != nil:
		return fmt.Errorf("check lock %q: %w", l.Name, err)
	case !resp.GetSucceeded():
		return fmt.Errorf("check lock %q: %w", l.Name, ErrLost)
	case v.now() >= l.Until:
		return fmt.Errorf("check lock %q: its time ran out meanwhile: %w", l.Name, ErrLost)
	}
	return nil
}

// Release gives the lock back if it is still held by this acquisition, and returns ErrLost if it is not. After another
// error it ends with its ttl.
func (v *View) Release(ctx context.Context, l Lock) error {
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(l.Key)}}}
	resp, err := v.txn(ctx, l.Key, l.Revision, del, getOp(l.Key), v.mark())
	v.abandon(ctx, l.Lease)
	switch {
	case err != nil:
		return fmt.Errorf("release lock %q: %w", l.Name, err)
	case !resp.GetSucceeded():
		return fmt.Errorf("release lock %q: %w", l.Name, ErrLost)
	}
	return nil
}

// txn does one of two operations, depending on the revision at which the key was created; 0 means that it does not exist.
func (v *View) txn(ctx context.Context, key string, created int64, then, otherwise *pb.RequestOp, m mark) (*pb.TxnResponse, error) {
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: []byte(key), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_CreateRevision{CreateRevision: created},
		}},
		Success: []*pb.RequestOp{then}, Failure: []*pb.RequestOp{otherwise},
	}
	var resp *pb.TxnResponse
	err := v.conn.call(ctx, false, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		if resp, err = pb.NewKVClient(conn).Txn(ctx, req); err != nil {
			return err
		}
		return v.admit(resp.GetHeader(), m)
	})
	return resp, err
}

// abandon revokes a lease, and with it whatever key it may hold, even if the caller's context has ended. A lease that
// cannot be revoked ends by itself.
func (v *View) abandon(ctx context.Context, lease int64) {
	_ = v.revoke(context.WithoutCancel(ctx), lease)
}

func (v *View) lockKey(name string) string { return lockRoot + "/" + v.cfg.Scope + "/lock/" + name }

func getOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

// holderOf returns the name in the key that a failed transaction read, "" if it is not one.
func holderOf(resp *pb.TxnResponse) string {
	for _, r := range resp.GetResponses() {
		for _, kv := range r.GetResponseRange().GetKvs() {
			if s := string(kv.GetValue()); validName(s) {
				return s
			}
		}
	}
	return ""
}
