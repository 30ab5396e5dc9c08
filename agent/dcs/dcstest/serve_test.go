package dcstest_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/dcs/dcstest"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// A view follows the fake over a real connection and in real time, with nothing of the library replaced.
func TestServe_ViewFollows(t *testing.T) {
	const leader = "/patroni/demo/leader"
	etcd := dcstest.New(1)
	defer etcd.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	etcd.Serve(0, l)
	etcd.Put(leader, "pg1", etcd.Grant(time.Minute))
	start := time.Now()
	v, err := dcs.New(
		dcs.Config{Endpoints: []string{"http://" + l.Addr().String()}, Namespace: "/patroni", Scope: "demo"},
		dcs.Deps{
			Logger: slog.New(slog.DiscardHandler),
			Now:    func() node.Instant { return node.Instant(time.Hour + time.Since(start)) },
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	for _, name := range []string{"pg1", "pg2", "pg1"} {
		etcd.Put(leader, name, 0)
		for v.Observe(ctx, dcs.Routine).Cluster.Value.LeaderName() != name {
			select {
			case <-v.Changed():
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing was heard of %s", name)
			}
		}
	}
}
