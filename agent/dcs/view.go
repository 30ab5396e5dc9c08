package dcs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// ErrReadOnly says that etcd refuses writes because its space is exhausted (NOSPACE).
var ErrReadOnly = errors.New("etcd refuses writes")

// Mode says how much an observation may cost.
type Mode uint8

// Modes. The zero value is Routine.
const (
	Routine Mode = iota // nothing is wrong: what is due
	Alert               // something may be wrong: the leader key and both leases every time
	Confirm             // right before an action: everything, and whether etcd accepts writes
)

// String returns the mode's name.
func (m Mode) String() string {
	switch m {
	case Routine:
		return "routine"
	case Alert:
		return "alert"
	case Confirm:
		return "confirm"
	}
	return "invalid"
}

// View keeps what is known from etcd about one scope.
//
// Run keeps it current; Observe works without Run too, by listing. All methods are safe for concurrent use.
type View struct {
	cfg     Config
	prefix  string // "/<namespace>/<scope>/"
	log     *slog.Logger
	now     func() node.Instant
	conn    *connector
	changed chan struct{}

	observing chan struct{} // holds one token; whoever has it may observe and touch last
	last      history

	mu      sync.Mutex // guards the rest
	store   store
	own     own // pgpatrol's own keys
	parsed  node.Cluster
	dirty   bool // the store changed since it was parsed
	known   bool // at least one list succeeded
	proved  node.Instant
	since   node.Instant // linearizable reads have been failing since; 0 if they do not
	problem error        // of the latest linearizable read
	foreign error        // another etcd cluster answered, and the right one has not answered since
	id      uint64       // the etcd cluster that is believed, 0 before the first list
	term    uint64       // greatest raft term of a linearizable read
	heard   node.Instant // when the watch last showed life
	live    bool         // a watch is established
}

// New checks the configuration and returns a View that has not contacted etcd yet and starts nothing. Its error names
// everything that is wrong.
func New(cfg Config, deps Deps) (*View, error) {
	cfg = cfg.withDefaults()
	endpoints, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("configure etcd view: %w", err)
	}
	if deps.Logger == nil || deps.Now == nil {
		return nil, errors.New("configure etcd view: logger and clock are needed")
	}
	prefix := cfg.Namespace + "/" + cfg.Scope + "/"
	return &View{
		cfg: cfg, prefix: prefix, log: deps.Logger, now: deps.Now,
		conn:      newConnector(cfg, endpoints, deps.Dial),
		changed:   make(chan struct{}, 1),
		observing: make(chan struct{}, 1),
		store:     store{prefix: prefix, deleted: map[string]int64{}},
		own:       own{store: newOwnStore()},
	}, nil
}

// Changed returns the channel on which the view wakes its reader: one pending wake-up at most, no content. Changes of
// WAL positions alone wake nobody.
func (v *View) Changed() <-chan struct{} { return v.changed }

// Requests returns how many requests and watches were sent to etcd so far.
func (v *View) Requests() uint64 { return v.conn.requests.Load() }

// Close releases the connection. Facts stay as they are, and every later read fails. Run closes when it returns; Close
// is for those who never call Run. It is idempotent.
func (v *View) Close() { v.conn.close() }

func (v *View) wake() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// mark is what a response must not fall behind: a linearizable read that began now sees at least this.
type mark struct {
	term     uint64
	revision int64
}

func (v *View) mark() mark {
	v.mu.Lock()
	defer v.mu.Unlock()
	return mark{term: v.term, revision: v.store.revision}
}

// admit says whether a response may be believed: the same etcd cluster as ever, and no raft term from the past, which
// would be a member that was left behind (FAULTS.md F47, F58). An answer without a header says nothing of either: etcd
// 3.4 lists alarms like that.
func (v *View) admit(h *pb.ResponseHeader, m mark) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case h.GetClusterId() == 0:
		return nil
	case v.id != 0 && h.GetClusterId() != v.id:
		return &failure{causeForeign, fmt.Sprintf("another etcd cluster answers: id %x, expected %x", h.GetClusterId(), v.id)}
	case h.GetRaftTerm() < m.term:
		return &failure{causeBackwards, fmt.Sprintf("raft term went backwards: %d after %d", h.GetRaftTerm(), m.term)}
	}
	return nil
}

// admitRead is admit for linearizable reads of keys, whose revision never goes back either, and which alone teach the
// term: a member that stands for election without success shows a term that nobody else will reach.
func (v *View) admitRead(h *pb.ResponseHeader, m mark) error {
	if h.GetClusterId() == 0 {
		return &failure{causeRefused, "answer without a cluster id"}
	}
	if err := v.admit(h, m); err != nil {
		return err
	}
	if h.GetRevision() < m.revision {
		return &failure{causeBackwards, fmt.Sprintf("revision went backwards: %d after %d", h.GetRevision(), m.revision)}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.id = h.GetClusterId()
	v.term = max(v.term, h.GetRaftTerm())
	return nil
}

// linear makes one linearizable range read, of pgpatrol's own keys as well, and keeps account of whether such reads work.
func (v *View) linear(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, node.Instant, error) {
	began, m := v.now(), v.mark()
	var resp *clientv3.GetResponse
	var shared []KV
	err := v.conn.call(ctx, true, func(ctx context.Context, etcd *clientv3.Client) (err error) {
		if resp, shared, err = v.get(ctx, etcd, key, opts); err != nil {
			return err
		}
		return v.admitRead(resp.Header, m)
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.since, v.problem, v.foreign = 0, nil, nil
		if v.takeOwn(resp.Header.GetRevision(), shared) {
			v.wake()
		}
	case causeOf(err) == causeStopped: // says nothing about etcd
	default:
		v.problem = err
		if causeOf(err) == causeForeign {
			v.foreign = err
		}
		if v.since == 0 {
			v.since = max(began, 1)
		}
	}
	return resp, began, err
}

// list reads everything and makes it the view. It returns the revision from which a watch must start.
func (v *View) list(ctx context.Context) (int64, error) {
	resp, began, err := v.linear(ctx, v.prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, fmt.Errorf("list keys: %w", err)
	}
	kvs := make([]KV, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		kvs = append(kvs, keyValue(kv))
	}
	v.mu.Lock()
	changed, wake := v.store.list(resp.Header.GetRevision(), kvs)
	v.dirty = v.dirty || changed
	v.known = true
	v.proved = max(v.proved, began)
	from := v.store.floor + 1
	v.mu.Unlock()
	if wake {
		v.wake()
	}
	return from, nil
}

// prove reads the leader key. If the view shows the same, and a live watch feeds it, the view is current as of the
// moment at which the read began. Otherwise everything is listed anew.
func (v *View) prove(ctx context.Context) error {
	key := v.prefix + "leader"
	resp, began, err := v.linear(ctx, key)
	if err != nil {
		return fmt.Errorf("read leader key: %w", err)
	}
	v.mu.Lock()
	current := v.watching() && v.agrees(key, resp)
	if current {
		v.proved = max(v.proved, began)
	}
	v.mu.Unlock()
	if current {
		return nil
	}
	_, err = v.list(ctx)
	return err
}

// agrees reports whether the view shows the key as the response does, or already something newer. It is called with mu.
func (v *View) agrees(key string, resp *clientv3.GetResponse) bool {
	if v.store.last(key) > resp.Header.GetRevision() {
		return true
	}
	have, ok := v.store.kvs[key]
	if len(resp.Kvs) == 0 {
		return !ok
	}
	kv := resp.Kvs[0]
	return ok && have.ModRevision == kv.GetModRevision() && have.CreateRevision == kv.GetCreateRevision() &&
		have.Lease == kv.GetLease()
}

// watching reports whether a watch feeds the view. It is called with mu.
func (v *View) watching() bool { return v.live && v.now().Sub(v.heard) <= stallAfter }

// cluster returns the parsed view. It is called with mu. The value is never modified afterwards.
func (v *View) cluster() node.Cluster {
	if v.dirty || v.parsed.Scope == "" {
		kvs := make([]KV, 0, len(v.store.kvs))
		for _, kv := range v.store.kvs {
			kvs = append(kvs, kv)
		}
		v.parsed = ParseCluster(v.cfg.Scope, v.prefix, v.store.revision, v.id, kvs)
		v.dirty = false
	}
	v.parsed.Revision = v.store.revision
	return v.parsed
}

func keyValue(kv *mvccpb.KeyValue) KV {
	return KV{
		Key: string(kv.GetKey()), Value: kv.GetValue(),
		CreateRevision: kv.GetCreateRevision(), ModRevision: kv.GetModRevision(), Lease: kv.GetLease(),
	}
}
