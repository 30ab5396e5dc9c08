package dcs_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/dcs/dcstest"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const (
	prefix = "/patroni/demo/"
	config = `{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576}`
)

// bench is a view on a fake etcd inside a synctest bubble, where time is fake and sleeping exact.
type bench struct {
	t     testing.TB
	etcd  *dcstest.Cluster
	view  *dcs.View
	logs  *logs
	start time.Time
	lease int64 // of pg1, which leads
}

// never is what clientv3's watches take for the Done channel of a context that never ends.
//
//go:linkname never go.etcd.io/etcd/client/v3.valCtxCh
var never chan struct{}

// TestMain lets clientv3's watches run in bubbles. Each of them waits on a channel that the library made when the program
// started, outside of every bubble, and while somebody waits on such a channel a bubble's time stands still. Nil means
// the same, by the contract of context.Context, and nobody waits. The tests of dcstest watch with the library as it is.
func TestMain(m *testing.M) {
	never = nil
	m.Run()
}

// run runs f in a bubble with a cluster that pg1 leads and that this machine's pg1 belongs to.
func run(t *testing.T, members int, f func(t *testing.T, b *bench), opts ...func(*dcs.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, etcd: dcstest.New(members), logs: &logs{}, start: time.Now()}
		t.Cleanup(b.etcd.Close)
		b.lease = b.etcd.Grant(30 * time.Second)
		b.etcd.Put(prefix+"initialize", "7386438653867520001", 0)
		b.etcd.Put(prefix+"config", config, 0)
		b.etcd.Put(prefix+"leader", "pg1", b.lease)
		b.etcd.Put(prefix+"members/pg1", memberJSON("pg1", "primary"), b.lease)
		b.etcd.Put(prefix+"members/pg2", memberJSON("pg2", "replica"), b.etcd.Grant(30*time.Second))
		cfg := dcs.Config{Endpoints: b.etcd.Endpoints(), Namespace: "/patroni", Scope: "demo", Member: "pg1"}
		for _, o := range opts {
			o(&cfg)
		}
		v, err := dcs.New(cfg, dcs.Deps{Logger: slog.New(slog.NewTextHandler(b.logs, nil)), Now: b.now, Dial: b.etcd.Dial})
		if err != nil {
			t.Fatal(err)
		}
		b.view = v
		t.Cleanup(v.Close)
		f(t, b)
	})
}

func memberJSON(name, role string) string {
	return `{"conn_url":"postgres://` + name + `:5432/postgres","api_url":"http://` + name + `:8008/patroni",` +
		`"state":"running","role":"` + role + `","version":"4.0.7","xlog_location":67108864,"timeline":1}`
}

func (b *bench) now() node.Instant { return node.Instant(time.Hour + time.Since(b.start)) }

// follow starts Run and returns once the watch is established.
func (b *bench) follow() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.view.Run(ctx); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(func() { cancel(); wg.Wait() })
	synctest.Wait()
}

func (b *bench) observe(m dcs.Mode) node.DCS {
	b.t.Helper()
	return b.view.Observe(b.t.Context(), m)
}

// woken reports whether the view has woken its reader, and takes the wake-up.
func (b *bench) woken() bool {
	synctest.Wait()
	select {
	case <-b.view.Changed():
		return true
	default:
		return false
	}
}

// logs counts lines.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) lines(with string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func wantFresh(t *testing.T, b *bench, d node.DCS) {
	t.Helper()
	if !d.Cluster.Known || d.Cluster.At != b.now() || d.Since != 0 {
		t.Fatalf("view is not fresh: known %v, age %v, since %v, why %q", d.Cluster.Known, d.Cluster.Age(b.now()), d.Since, d.Cluster.Why)
	}
}

func TestView_ListAndWatch(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.follow()
		d := b.observe(dcs.Routine)
		wantFresh(t, b, d)
		c := d.Cluster.Value
		if c.LeaderName() != "pg1" || len(c.Members) != 2 || c.Initialize == "" || !c.Config.Present {
			t.Fatalf("cluster = %+v", c)
		}
		want := node.Lease{ID: b.lease, Granted: 30 * time.Second, Remaining: 30 * time.Second, Exists: true}
		if d.MemberLease.Value != want || d.LeaderLease.Value != want || d.MemberLease.Source != "etcd lease 7c01" {
			t.Fatalf("leases = %+v, %+v", d.MemberLease, d.LeaderLease)
		}
		if !d.Alarms.Known || len(d.Alarms.Value) != 0 || d.Writable.Known {
			t.Fatalf("alarms = %+v, writable = %+v", d.Alarms, d.Writable)
		}
		if !b.woken() {
			t.Fatal("first list woke nobody")
		}
		b.etcd.Put(prefix+"status", `{"optime":67108999}`, 0)
		if b.woken() {
			t.Fatal("a WAL position woke the reader")
		}
		b.etcd.Put(prefix+"leader", "pg2", 0)
		if !b.woken() {
			t.Fatal("a change of the leader woke nobody")
		}
		if got := b.observe(dcs.Routine).Cluster.Value; got.LeaderName() != "pg2" || got.Optime != 67108999 {
			t.Fatalf("leader %q, optime %d", got.LeaderName(), got.Optime)
		}
	})
}
