package agent

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/dcs/dcstest"
)

// The lab found that no disruptive action could ever begin (F02-killmode): etcd's view takes only names for holders.
func TestClusterLock_OneHolderAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := dcstest.New(1)
		t.Cleanup(etcd.Close)
		lock := func(node string) *clusterLock {
			v, err := dcs.New(dcs.Config{Endpoints: etcd.Endpoints(), Scope: "main"},
				dcs.Deps{Logger: slog.New(slog.DiscardHandler), Now: clock{start: began}.Now, Dial: etcd.Dial})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(v.Close)
			return &clusterLock{view: v, holder: node}
		}
		one, other := lock("pg1"), lock("pg2")
		if err := one.Acquire(t.Context(), "soft-kill patroni: PATRONI_HUNG"); err != nil {
			t.Fatalf("acquire: %v", err)
		}
		if err := one.Held(t.Context()); err != nil {
			t.Errorf("held: %v", err)
		}
		err := other.Acquire(t.Context(), "soft-kill patroni: PATRONI_HUNG")
		if held, ok := errors.AsType[*dcs.HeldError](err); !ok || held.Holder != "pg1" {
			t.Errorf("the other acquires: %v, want held by pg1", err)
		}
		if err := one.Release(t.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		if err := other.Acquire(t.Context(), "soft-kill patroni: PATRONI_HUNG"); err != nil {
			t.Errorf("acquire after the release: %v", err)
		}
	})
}
