package dcs_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

const goodHold = `{"owner":"ann","reason":"move"}`

func TestParseShared(t *testing.T) {
	kill := func(l node.Level, key string) node.Hold {
		return node.Hold{Kind: node.HoldKill, Level: l, Owner: node.Unknown, Reason: "the key " + key + " is not intelligible"}
	}
	many := map[string]string{}
	for i := range 64 {
		many[fmt.Sprintf("/pgpatrol/everything/x/%d", i)] = ""
	}
	for name, tc := range map[string]struct {
		keys map[string]string
		want node.Coordination
	}{
		"nothing": {},
		"everything there is": {map[string]string{
			"/pgpatrol/demo/hold/pause":             goodHold,
			"/pgpatrol/everything/hold/kill-switch": goodHold,
			"/pgpatrol/demo/lock/cluster":           "hp1",
			"/pgpatrol/demo/spent/1":                `{"node":"hp1","class":"disrupt"}`,
			"/pgpatrol/demo/spent/2":                `{"node":"kr1","class":"revive"}`,
			"/pgpatrol/demo/spent-disrupt/1":        `{"node":"hp1","class":"disrupt"}`,
		}, node.Coordination{
			Holds: []node.Hold{
				{Kind: node.HoldPause, Level: node.LevelScope, Owner: "ann", Reason: "move"},
				{Kind: node.HoldKill, Level: node.LevelAll, Owner: "ann", Reason: "move"},
			},
			Lock:  "hp1",
			Spent: []node.Spent{{Node: "hp1", Class: node.ClassDisrupt}, {Node: "kr1", Class: node.ClassRevive}},
		}},
		"of others": {keys: map[string]string{
			"/pgpatrol/demo2/hold/pause": goodHold, "/pgpatrol/demo/lock/other": "x", "/pgpatrol/everything/lock/cluster": "x",
			"/pgpatrol/demo/spent/0": "{}", "/pgpatrol/demo/spent/5": "{}", "/pgpatrol/demo/spent/01": "{}", "/pgpatrol/demo/else": "",
		}},
		"not intelligible": {map[string]string{
			"/pgpatrol/demo/hold/pause":             "?",
			"/pgpatrol/demo/hold/kill-switch":       goodHold + "x",
			"/pgpatrol/everything/hold/pause":       `{"owner":"","reason":"r"}`,
			"/pgpatrol/everything/hold/kill-switch": strings.Repeat(" ", 1<<20),
			"/pgpatrol/everything/hold/new":         goodHold,
			"/pgpatrol/demo/lock/cluster":           "\x1b[31m",
			"/pgpatrol/demo/spent/1":                "x",
			"/pgpatrol/demo/spent/2":                `{"node":"a b","class":"revive"}`,
			"/pgpatrol/demo/spent-disrupt/1":        "y",
		}, node.Coordination{
			Holds: []node.Hold{
				kill(node.LevelScope, "/pgpatrol/demo/hold/kill-switch"), kill(node.LevelScope, "/pgpatrol/demo/hold/pause"),
				kill(node.LevelAll, "/pgpatrol/everything/hold/kill-switch"), kill(node.LevelAll, "/pgpatrol/everything/hold/new"),
				kill(node.LevelAll, "/pgpatrol/everything/hold/pause"),
			},
			Lock:  node.Unknown,
			Spent: []node.Spent{{Node: node.Unknown, Class: node.ClassDisrupt}, {Node: node.Unknown, Class: node.ClassRevive}},
		}},
		"too many": {many, node.Coordination{Holds: []node.Hold{{
			Kind: node.HoldKill, Level: node.LevelScope, Owner: node.Unknown,
			Reason: "64 keys or more are below /pgpatrol/everything/: too many to read",
		}}}},
	} {
		t.Run(name, func(t *testing.T) {
			var kvs []dcs.KV
			for k, v := range tc.keys {
				kvs = append(kvs, dcs.KV{Key: k, Value: []byte(v)})
			}
			if diff := cmp.Diff(tc.want, dcs.ParseShared("demo", kvs)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func FuzzParseShared(f *testing.F) {
	f.Add("demo/hold/pause", []byte(goodHold))
	f.Add("everything/hold/kill-switch", []byte("{}"))
	f.Add("demo/lock/cluster", []byte("hp1"))
	f.Add("demo/spent/1", []byte(`{"node":"hp1","class":"disrupt"}`))
	f.Add("demo/spent-disrupt/1", []byte(`{}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		c := dcs.ParseShared("demo", []dcs.KV{{Key: node.KeyRoot + key, Value: value}})
		if strings.HasPrefix(key, "demo/hold/") != (len(c.Holds) == 1 && c.Holds[0].Level == node.LevelScope) {
			t.Fatalf("holds of %q: %+v", key, c.Holds)
		}
		for _, h := range c.Holds {
			if _, err := node.HoldText(h); err != nil {
				t.Fatalf("%+v is not fit to be shown: %v", h, err)
			}
		}
		if (key == "demo/lock/cluster") != (c.Lock != "") || len(c.Spent) > 1 {
			t.Fatalf("lock %q, spent %+v", c.Lock, c.Spent)
		}
	})
}

// An order of a person is known at once, and costs no request more.
func TestView_HoldWakes(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		b.observe(dcs.Routine)
		b.woken()
		asked := b.etcd.Requests("")
		b.etcd.Put("/pgpatrol/other/hold/pause", goodHold, 0)
		if b.woken() {
			t.Error("an order for another scope woke the reader")
		}
		for _, key := range []string{"/pgpatrol/demo/hold/pause", "/pgpatrol/everything/hold/kill-switch"} {
			b.etcd.Put(key, goodHold, 0)
			if !b.woken() {
				t.Errorf("%s woke nobody", key)
			}
		}
		d := b.observe(dcs.Routine)
		if n := b.etcd.Requests("") - asked; n != 0 {
			t.Errorf("%d requests", n)
		}
		if len(d.Shared.Value.Holds) != 2 || len(b.view.SharedHolds()) != 2 || d.Shared.At != d.Cluster.At {
			t.Errorf("shared = %+v", d.Shared)
		}
		b.etcd.Delete("/pgpatrol/demo/hold/pause")
		if !b.woken() {
			t.Error("the end of a hold woke nobody")
		}
		if d = b.observe(dcs.Confirm); len(d.Shared.Value.Holds) != 1 || d.Shared.At != b.now() {
			t.Errorf("shared = %+v", d.Shared)
		}
	})
}

// Both kinds of keys are of one request, and shared facts age with those of the cluster.
func TestView_SharedInTheSameRead(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.etcd.Put("/pgpatrol/demo/lock/cluster", "hp1", 0)
		d := b.observe(dcs.Confirm)
		if d.Shared.Value.Lock != "hp1" || !d.Shared.Known || d.Shared.At != d.Cluster.At || b.etcd.Requests("Txn") != 1 || b.etcd.Requests("Range") != 0 {
			t.Errorf("shared = %+v, %d transactions, %d ranges", d.Shared, b.etcd.Requests("Txn"), b.etcd.Requests("Range"))
		}
		b.etcd.SetQuorum(false)
		time.Sleep(5 * time.Second)
		if d = b.observe(dcs.Routine); !d.Shared.Known || d.Shared.At != d.Cluster.At || d.Shared.Why == "" {
			t.Errorf("without a quorum: %+v", d.Shared)
		}
	})
}

// A role that may read Patroni's keys only is no reason not to look at them.
func TestView_OwnKeysForbidden(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.etcd.Forbid(node.KeyRoot)
		b.etcd.Put("/pgpatrol/demo/hold/pause", goodHold, 0)
		b.follow()
		for range 10 {
			d := b.observe(dcs.Routine)
			wantFresh(t, b, d)
			if d.Shared.Known || !strings.Contains(d.Shared.Why, "/pgpatrol/") || !strings.Contains(d.Shared.Why, "permission denied") {
				t.Fatalf("shared = %+v", d.Shared)
			}
			time.Sleep(2 * time.Second)
		}
		b.woken()
		b.etcd.Put(prefix+"leader", "pg2", 0)
		if !b.woken() {
			t.Error("no watch of Patroni's keys")
		}
		if n := b.etcd.Requests("Txn"); n > 2 {
			t.Errorf("%d attempts within 20 s", n)
		}
		b.etcd.Forbid("")
		time.Sleep(30 * time.Second)
		if d := b.observe(dcs.Routine); len(d.Shared.Value.Holds) != 1 {
			t.Errorf("permitted again: %+v", d.Shared)
		}
	})
}

// Permission that is taken away is noticed, and what was known is not believed any more.
func TestView_OwnKeysForbiddenLater(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		b.follow()
		if d := b.observe(dcs.Routine); !d.Shared.Known {
			t.Fatalf("shared = %+v", d.Shared)
		}
		b.etcd.Forbid(node.KeyRoot)
		time.Sleep(2 * time.Second)
		d := b.observe(dcs.Routine)
		wantFresh(t, b, d)
		if d.Shared.Known {
			t.Errorf("shared = %+v", d.Shared)
		}
		synctest.Wait()
	})
}
