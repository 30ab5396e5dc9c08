package dcs

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// forbiddenFor is how long pgpatrol's own keys are left out of reads after etcd refused them.
const forbiddenFor = 30 * time.Second

// own is what is known of pgpatrol's own keys. It is guarded by View.mu.
type own struct {
	store   store
	refused error        // why etcd does not give them
	again   node.Instant // when to try again
}

// ranges are the requests for pgpatrol's own keys: those of this scope and those for every scope.
func (v *View) ranges() []clientv3.Op {
	bounded := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(maxOwn)}
	return []clientv3.Op{
		clientv3.OpGet(node.ScopeKeys(v.cfg.Scope), bounded...), clientv3.OpGet(node.ScopeKeys(node.AllScopes), bounded...),
	}
}

// get reads a range of Patroni's keys, and pgpatrol's own in the same transaction, so that both are of one revision and
// cost one request. Where etcd refuses its own keys, Patroni's are read without them. own is nil then.
func (v *View) get(ctx context.Context, etcd *clientv3.Client, key string, opts []clientv3.OpOption) (*clientv3.GetResponse, []KV, error) {
	v.mu.Lock()
	whole := v.own.refused == nil || v.now() >= v.own.again
	v.mu.Unlock()
	if whole {
		// The branches read: etcd answers a transaction that reads something linearizably.
		resp, err := etcd.Txn(ctx).Then(append([]clientv3.Op{clientv3.OpGet(key, opts...)}, v.ranges()...)...).Commit()
		if err == nil {
			return v.split(resp)
		}
		if !refusesOwn(err) {
			return nil, nil, err
		}
		plain, plainErr := etcd.Get(ctx, key, opts...)
		if plainErr == nil {
			v.refuseOwn(err)
		}
		return plain, nil, plainErr
	}
	plain, err := etcd.Get(ctx, key, opts...)
	return plain, nil, err
}

// split takes the answers of a transaction apart.
func (v *View) split(resp *clientv3.TxnResponse) (*clientv3.GetResponse, []KV, error) {
	if len(resp.Responses) != 1+len(v.ranges()) || resp.Responses[0].GetResponseRange() == nil {
		return nil, nil, &failure{causeRefused, "etcd's answer to a transaction makes no sense"}
	}
	first := (*clientv3.GetResponse)(resp.Responses[0].GetResponseRange())
	first.Header = resp.Header
	kvs := []KV{}
	for _, r := range resp.Responses[1:] {
		for _, kv := range r.GetResponseRange().GetKvs() {
			kvs = append(kvs, keyValue(kv))
		}
	}
	return first, kvs, nil
}

// refusesOwn reports whether a read may work without pgpatrol's own keys.
func refusesOwn(err error) bool {
	known := rpctypes.Error(err)
	if errors.Is(known, rpctypes.ErrPermissionDenied) || errors.Is(known, rpctypes.ErrPermissionNotGranted) {
		return true
	}
	_, text := codeOf(err)
	return strings.Contains(text, "larger than max")
}

// refuseOwn remembers that etcd does not give pgpatrol's own keys. What was known of them is not believed any more: a
// hold that was set since could not be seen.
func (v *View) refuseOwn(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, text := codeOf(err)
	v.own.refused, v.own.again = &failure{causeDenied, "etcd gives no keys below " + node.KeyRoot + ": " + redact(text, "")}, v.now().Add(forbiddenFor)
	v.own.store = newOwnStore()
}

func newOwnStore() store { return store{prefix: node.KeyRoot, deleted: map[string]int64{}, all: true} }

// takeOwn makes a complete read the view of pgpatrol's own keys, and reports whether that is worth waking somebody. It
// is called with mu.
func (v *View) takeOwn(revision int64, kvs []KV) (wake bool) {
	if kvs == nil {
		return false
	}
	v.own.refused = nil
	_, wake = v.own.store.list(revision, kvs)
	return wake
}

// ownEvents keeps the events that concern this scope.
func (v *View) ownEvents(events []event) []event {
	var out []event
	for _, e := range events {
		if strings.HasPrefix(e.kv.Key, node.ScopeKeys(v.cfg.Scope)) || strings.HasPrefix(e.kv.Key, node.ScopeKeys(node.AllScopes)) {
			out = append(out, e)
		}
	}
	return out
}

// shared returns what is known of pgpatrol's own keys, given what is known of Patroni's. It is called with mu.
func (v *View) shared(c node.Fact[node.Cluster]) node.Fact[node.Coordination] {
	switch {
	case !c.Known:
		return node.Unseen[node.Coordination](sourceKeys, c.Why, c.At)
	case v.own.refused != nil:
		return node.Unseen[node.Coordination](sourceKeys, v.own.refused.Error(), c.At)
	}
	kvs := make([]KV, 0, len(v.own.store.kvs))
	for _, kv := range v.own.store.kvs {
		kvs = append(kvs, kv)
	}
	f := node.Seen(ParseShared(v.cfg.Scope, kvs), sourceKeys, c.At)
	f.Why = c.Why
	return f
}

// SharedHolds returns the holds in etcd that are known now, without asking for them.
func (v *View) SharedHolds() []node.Hold {
	v.mu.Lock()
	defer v.mu.Unlock()
	kvs := make([]KV, 0, len(v.own.store.kvs))
	for _, kv := range v.own.store.kvs {
		kvs = append(kvs, kv)
	}
	return ParseShared(v.cfg.Scope, kvs).Holds
}
