package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/dcs/dcstest"
	"github.com/pgpatrol/pgpatrol/agent/executor"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/orders"
	"github.com/pgpatrol/pgpatrol/coordinator"
)

var _ executor.Locker = (*coordinator.Locks)(nil)

// view returns a view of the fake etcd.
func view(t *testing.T, etcd *dcstest.Cluster) *dcs.View {
	t.Helper()
	start := time.Now()
	v, err := dcs.New(dcs.Config{Endpoints: etcd.Endpoints(), Scope: "main"}, dcs.Deps{
		Logger: slog.New(slog.DiscardHandler), Dial: etcd.Dial,
		Now: func() node.Instant { return node.Instant(time.Hour + time.Since(start)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// The lab found that no disruptive action could ever begin (F02-killmode): what one agent writes must be what the others
// read.
func TestLocks_OneAgentSeesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := dcstest.New(1)
		t.Cleanup(etcd.Close)
		v, ctx := view(t, etcd), t.Context()
		locks := func(name string) *coordinator.Locks {
			return coordinator.New(view(t, etcd), func() node.Instant { return node.Instant(time.Hour) }, "main", name)
		}
		one, other := locks("pg1"), locks("pg2")
		disrupt := node.Action{Class: node.ClassDisrupt}
		if err := errors.Join(one.Claim(ctx, disrupt), one.Acquire(ctx, ""), one.Held(ctx)); err != nil {
			t.Fatal(err)
		}
		if err := other.Acquire(ctx, ""); !errors.Is(err, coordinator.ErrHeld) || !strings.Contains(err.Error(), "by pg1") {
			t.Errorf("the other acquires: %v", err)
		}
		if err := other.Claim(ctx, disrupt); !errors.Is(err, coordinator.ErrSpent) || !strings.Contains(err.Error(), "by pg1") {
			t.Errorf("the other claims: %v", err)
		}
		c := v.Observe(ctx, dcs.Confirm).Shared.Value
		if c.Lock != "pg1" || len(c.Spent) != 1 || c.Spent[0] != (node.Spent{Node: "pg1", Class: node.ClassDisrupt}) {
			t.Errorf("the view shows %+v", c)
		}
		if err := errors.Join(one.Release(ctx), other.Acquire(ctx, "")); err != nil {
			t.Errorf("after the release: %v", err)
		}
	})
}

// A hold of the scope or of everything is what every agent reads, and stops its acts.
func TestEtcdHolds_OneAgentSeesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := dcstest.New(1)
		t.Cleanup(etcd.Close)
		ctx := t.Context()
		one, other := &etcdHolds{view(t, etcd), "main"}, &etcdHolds{view(t, etcd), "main"}
		for _, l := range []node.Level{node.LevelScope, node.LevelAll} {
			h, err := orders.NewHold(node.HoldPause, l, "ann", "move", time.Hour, time.Now())
			if err == nil {
				err = one.Hold(ctx, h)
			}
			if err != nil {
				t.Fatal(err)
			}
			other.view.Observe(ctx, dcs.Confirm)
			if got := other.Known(); len(got) != 1 || got[0] != h {
				t.Errorf("%s: the other knows %+v, want %+v", l, got, h)
			}
			if got, err := other.Lift(ctx, l, node.HoldPause); err != nil || got != h {
				t.Errorf("%s: the other lifts %+v, %v", l, got, err)
			}
			if _, err := one.Lift(ctx, l, node.HoldPause); !errors.Is(err, orders.ErrNotSet) {
				t.Errorf("%s: lifted twice: %v", l, err)
			}
		}
	})
}
