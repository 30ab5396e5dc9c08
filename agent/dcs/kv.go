package dcs

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Grant asks for a lease of at least ttl, rounded up to seconds, and returns it with how long etcd lets it live, at most
// as long as was asked for. ErrReadOnly says that etcd refuses writes.
func (v *View) Grant(ctx context.Context, ttl time.Duration) (lease int64, granted time.Duration, err error) {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	if seconds <= 0 {
		return 0, 0, fmt.Errorf("grant lease of %s: too short", ttl)
	}
	l, err := v.grant(ctx, seconds, v.mark())
	if err != nil {
		return 0, 0, fmt.Errorf("grant lease: %w", err)
	}
	return int64(l.ID), time.Duration(min(seconds, l.TTL)) * time.Second, nil
}

// Create writes a key that does not exist and returns the revision at which that happened. If the key exists it returns
// revision 0 and what the key holds, and changes nothing. After an error the key may exist for as long as the lease.
func (v *View) Create(ctx context.Context, key, value string, lease int64) (revision int64, holder string, err error) {
	if err := ownKey(key); err != nil {
		return 0, "", err
	}
	put := clientv3.OpPut(key, value, clientv3.WithLease(clientv3.LeaseID(lease)))
	resp, err := v.txn(ctx, key, 0, put, v.mark())
	switch {
	case err != nil:
		return 0, "", fmt.Errorf("create %s: %w", key, err)
	case !resp.Succeeded:
		return 0, printable(found(resp), maxOwnValue), nil
	}
	return resp.Header.GetRevision(), "", nil
}

// Has reports, by a linearizable transaction, whether the key still is the one that was created at that revision.
func (v *View) Has(ctx context.Context, key string, created int64) (bool, error) {
	// The branches read: etcd answers a transaction without operations from local state, not linearizably.
	resp, err := v.txn(ctx, key, created, clientv3.OpGet(key), v.mark())
	if err != nil {
		return false, fmt.Errorf("check %s: %w", key, err)
	}
	return resp.Succeeded, nil
}

// Delete deletes the key if it still is the one that was created at that revision, and reports whether it was.
func (v *View) Delete(ctx context.Context, key string, created int64) (bool, error) {
	if err := ownKey(key); err != nil {
		return false, err
	}
	resp, err := v.txn(ctx, key, created, clientv3.OpDelete(key), v.mark())
	if err != nil {
		return false, fmt.Errorf("delete %s: %w", key, err)
	}
	return resp.Succeeded, nil
}

// Revoke ends a lease, and with it whatever key it may hold, even if the caller's context has ended. A lease that cannot
// be revoked ends by itself.
func (v *View) Revoke(ctx context.Context, lease int64) { v.abandon(ctx, clientv3.LeaseID(lease)) }

// Put writes a key, whether it exists or not. After an error it may have been written.
func (v *View) Put(ctx context.Context, key, value string, lease int64) error {
	if err := ownKey(key); err != nil {
		return err
	}
	m := v.mark()
	err := v.conn.call(ctx, false, func(ctx context.Context, etcd *clientv3.Client) error {
		resp, err := etcd.Txn(ctx).Then(clientv3.OpPut(key, value, clientv3.WithLease(clientv3.LeaseID(lease)))).Commit()
		if err != nil {
			return err
		}
		return v.admit(resp.Header, m)
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// Remove deletes a key and returns what it held, and whether there was one.
func (v *View) Remove(ctx context.Context, key string) (value string, was bool, err error) {
	if err := ownKey(key); err != nil {
		return "", false, err
	}
	var resp *clientv3.TxnResponse
	m := v.mark()
	err = v.conn.call(ctx, false, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		if resp, err = etcd.Txn(ctx).Then(clientv3.OpGet(key), clientv3.OpDelete(key)).Commit(); err != nil {
			return err
		}
		return v.admit(resp.Header, m)
	})
	if err != nil {
		return "", false, fmt.Errorf("delete %s: %w", key, err)
	}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			return string(kv.GetValue()), true, nil
		}
	}
	return "", false, nil
}

// ownKey refuses every key that is not pgpatrol's own: whatever asks, Patroni's keys are never written.
func ownKey(key string) error {
	if rest, ok := strings.CutPrefix(key, node.KeyRoot); !ok || rest == "" || printable(rest, len(rest)) != rest {
		return fmt.Errorf("write %s: it is not below %s", printable(key, 150), node.KeyRoot)
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

// abandon revokes a lease, even if the caller's context has ended.
func (v *View) abandon(ctx context.Context, lease clientv3.LeaseID) {
	_ = v.conn.call(context.WithoutCancel(ctx), false, func(ctx context.Context, etcd *clientv3.Client) error {
		_, err := etcd.Revoke(ctx, lease)
		return err
	})
}

// found returns what a failed transaction read.
func found(resp *clientv3.TxnResponse) string {
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			return string(kv.GetValue())
		}
	}
	return ""
}
