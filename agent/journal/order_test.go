package journal

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

func pause(reason string) *node.Hold {
	return &node.Hold{Kind: node.HoldPause, Level: node.LevelNode, Owner: "ann", Reason: reason}
}

func order(t testing.TB, j *Journal, r Record) {
	t.Helper()
	if _, err := j.Append(r); err != nil {
		t.Fatalf("Append: %v", err)
	}
}

func TestPause_OutlivesRestartBootAndRotation(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	d := w.deps()
	d.MaxBytes, d.Keep = 4<<10, 1
	j := open(t, dir, d)
	order(t, j, Record{Kind: Hold, Hold: pause("first")})
	order(t, j, Record{Kind: Hold, Hold: pause("second")})
	order(t, j, Record{Kind: Hold, Hold: &node.Hold{Kind: node.HoldKill, Level: node.LevelNode, Owner: "bob", Reason: "a file"}})
	order(t, j, Record{Kind: Lift, Hold: &node.Hold{Kind: node.HoldPause, Level: node.LevelScope, Owner: "bob", Reason: "elsewhere"}})
	for range 100 {
		say(t, j, "some text that fills the files until they are rotated several times over")
	}
	for _, boot := range []string{"boot-1", "boot-2"} {
		closeJournal(t, j)
		w.boot, d.BootID = boot, boot
		j = open(t, dir, d)
		p, ok := j.Pause()
		if !ok || p.Hold.Reason != "second" || p.BootID != "boot-1" || p.At == 0 {
			t.Fatalf("%s: %+v, %v", boot, p, ok)
		}
	}
	order(t, j, Record{Kind: Lift, Hold: pause("second")})
	closeJournal(t, j)
	if p, ok := open(t, dir, d).Pause(); ok {
		t.Fatalf("lifted, and still there: %+v", p)
	}
}

func TestApprovals(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	j := open(t, dir, w.deps())
	for _, id := range []string{"a", "b"} {
		order(t, j, Record{Kind: Approve, Approval: &node.Approval{ActionID: id, Owner: "ann"}})
		w.sleep(node.ApprovalLife / 2)
	}
	ids := func(j *Journal) []string {
		var out []string
		for _, a := range j.Approvals() {
			out = append(out, a.ActionID+" of "+a.Owner)
		}
		return out
	}
	closeJournal(t, j)
	j = open(t, dir, w.deps())
	if diff := cmp.Diff([]string{"b of ann"}, ids(j)); diff != "" {
		t.Errorf("after a minute each (-want +got)\n%s", diff)
	}
	for range 3 * maxApprovals {
		order(t, j, Record{Kind: Approve, Approval: &node.Approval{ActionID: "c", Owner: "ann"}})
	}
	if n := len(j.Approvals()); n != maxApprovals {
		t.Errorf("%d approvals are kept, want %d", n, maxApprovals)
	}
	closeJournal(t, j)
	w.boot = "boot-2"
	if got := ids(open(t, dir, w.deps())); got != nil {
		t.Errorf("in another boot: %v", got)
	}
}

// TestKept_OutlivesRestartBootAndRotation: only the latest is kept, and whoever finds a journal without any knows that an
// agent ran here before.
func TestKept_OutlivesRestartBootAndRotation(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	d := w.deps()
	d.MaxBytes, d.Keep = 4<<10, 1
	j := open(t, dir, d)
	say(t, j, "a first run")
	if k, _, ran := j.Kept(); ran {
		t.Errorf("a journal that was just made kept %+v", k)
	}
	closeJournal(t, j)
	j = open(t, dir, d)
	if k, same, ran := j.Kept(); !ran || same || k.Leader != "" {
		t.Errorf("nothing was kept: %+v, %t, %t", k, same, ran)
	}
	for _, leader := range []string{"pg1", "pg2"} {
		order(t, j, Record{Kind: Memory, Kept: &node.Kept{Leader: leader, LeaderCreated: 7}})
	}
	for range 100 {
		say(t, j, "some text that fills the files until they are rotated several times over")
	}
	for _, boot := range []string{"boot-1", "boot-2"} {
		closeJournal(t, j)
		w.boot, d.BootID = boot, boot
		j = open(t, dir, d)
		k, same, ran := j.Kept()
		if k.Leader != "pg2" || k.LeaderCreated != 7 || same != (boot == "boot-1") || !ran {
			t.Errorf("%s: %+v, same boot %t, ran %t", boot, k, same, ran)
		}
	}
	if n := len(j.ledger.orders); n != 1 {
		t.Errorf("%d records are carried, want the latest memory alone", n)
	}
	if rs := records(t, j, Query{}); len(rs) == 0 || rs[len(rs)-1].Kind == Memory {
		t.Errorf("people are shown what is for the agent: %v", texts(rs))
	}
}

func TestOrders_NamelessAreRefused(t *testing.T) {
	j := open(t, stateDir(t), newWorld().deps())
	for _, k := range []Kind{Hold, Lift, Approve, Memory} {
		if _, err := j.Append(Record{Kind: k}); err == nil {
			t.Errorf("%s without what it is about was accepted", k)
		}
	}
}

func TestCrashes(t *testing.T) {
	w, dir := newWorld(), stateDir(t)
	run := func(orderly bool) int {
		j := open(t, dir, w.deps())
		order(t, j, Record{Kind: Start})
		n := j.Crashes(10 * time.Minute)
		if orderly {
			order(t, j, Record{Kind: Stop})
		}
		closeJournal(t, j)
		w.sleep(time.Minute)
		return n
	}
	for i, tc := range []struct {
		orderly bool
		want    int
	}{{true, 0}, {false, 0}, {false, 1}, {false, 2}, {true, 3}, {true, 3}} {
		if got := run(tc.orderly); got != tc.want {
			t.Errorf("start %d: %d crashes, want %d", i+1, got, tc.want)
		}
	}
	w.sleep(5 * time.Minute) // the first of the three is too long ago
	if got := run(true); got != 2 {
		t.Errorf("after a while: %d crashes, want 2", got)
	}
	w.boot = "boot-2"
	if got := run(true); got != 0 {
		t.Errorf("in another boot: %d crashes", got)
	}
}
