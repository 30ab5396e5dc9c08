package scenario

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

func unitAt(sec int, node, state, result, invocation string, restarts uint32) record.Record {
	return record.Record{
		At: start.Add(time.Duration(sec) * time.Second), Node: node,
		Unit: &record.Unit{Name: patroniUnit, ActiveState: state, Result: result, InvocationID: invocation, NRestarts: restarts},
	}
}

// calm is a scenario of 20 s on the leader pg2, with what systemd showed on pg1.
func calm(recs ...record.Record) Evidence {
	e := Evidence{Fault: start, Leader: "pg2", Agents: true, Records: recs}
	e.Window.From, e.Window.To = start, start.Add(20*time.Second)
	return e
}

func TestPlace_Of(t *testing.T) {
	e := Evidence{Leader: "pg2"}
	if l, r, s := theLeader.of(e), theReplica.of(e), theSpare.of(e); l != "pg2" || r != "pg1" || s != "pg3" {
		t.Errorf("leader %s, replica %s, spare %s, want pg2, pg1, pg3", l, r, s)
	}
}

func TestCalmChecks(t *testing.T) {
	plan := `{"summary":"Nothing is done.","findings":[{"code":"PAUSED","severity":"info","text":"The cluster is paused."}],
		"refused":[{"action":{"verb":"soft-kill","finding":"PATRONI_HUNG"},"verdicts":[{"guard":"policy","text":"no"},{"guard":"patroni-pause","text":"paused"}]}]}`
	idle := `{"summary":"Nothing is to be done: patroni follows x.","findings":[],"refused":[]}`
	withPlan := func(text string) Evidence {
		e := calm()
		e.Plans = map[string]string{"pg2": text}
		return e
	}
	asked := calm(record.Record{At: start, Mark: &record.Mark{Name: planMark("before", "pg2"), Text: plan}})
	line, err := json.Marshal(map[string]any{"kind": "finding", "wall": start.Add(4 * time.Second), "finding": map[string]string{"code": "PAUSED"}})
	if err != nil {
		t.Fatal(err)
	}
	wrote := calm(record.Record{At: start, Node: "pg2", Journal: &record.Journal{Kind: "finding", Line: line}})
	// The kill comes half a second into the window, before the watcher has repeated itself.
	crashed := calm(unitAt(-1, "pg1", "active", "success", "a", 0), unitAt(1, "pg1", "active", "success", "b", 1))
	// Settling starts the unit again, after the observation.
	stopped := calm(unitAt(2, "pg1", "inactive", "success", "a", 0), unitAt(19, "pg1", "inactive", "success", "a", 0), unitAt(25, "pg1", "active", "success", "b", 0))
	silent := calm(
		record.Record{At: start.Add(time.Second), Node: "pg2", PG: &record.PG{}},
		record.Record{At: start.Add(4 * time.Second), Node: "pg2", PG: &record.PG{Answered: true}},
		record.Record{At: start.Add(9 * time.Second), Node: "pg2", PG: &record.PG{}},
		record.Record{At: start.Add(10 * time.Second), Node: "pg2", PG: &record.PG{Answered: true}})
	key := func(sec int, holder string, revision, left int64) record.Record {
		return record.Record{At: start.Add(time.Duration(sec) * time.Second), Node: "hap1", Lock: &record.Lock{Answered: true, Holder: holder, Revision: revision, Left: left}}
	}
	for _, tt := range []struct {
		name  string
		check Check
		e     Evidence
		ok    bool
	}{
		{"a finding is there", says(theLeader, "", finds("PAUSED", "info", "paused")), withPlan(plan), true},
		{"a finding of another severity", says(theLeader, "", finds("PAUSED", "page", "paused")), withPlan(plan), false},
		{"a finding with other words", says(theLeader, "", finds("PAUSED", "", "resume")), withPlan(plan), false},
		{"no finding", says(theLeader, "", finds("PAUSED", "", "")), withPlan(idle), false},
		{"a guard refuses", says(theLeader, "", refuses("PATRONI_HUNG", "patroni-pause")), withPlan(plan), true},
		{"another guard refuses", says(theLeader, "", refuses("PATRONI_HUNG", "config-valid")), withPlan(plan), false},
		{"an action for something else is refused", says(theLeader, "", refuses("PATRONI_FAILED", "patroni-pause")), withPlan(plan), false},
		{"nothing to say", says(theLeader, "", quiet("follows")), withPlan(idle), true},
		{"something to say", says(theLeader, "", quiet("Nothing")), withPlan(plan), false},
		{"no agent answered", says(theLeader, "", quiet("")), withPlan("no such container"), false},
		{"asked in the middle", saysAt("before", theLeader, "", finds("PAUSED", "", "")), asked, true},
		{"never asked in the middle", saysAt("after", theLeader, "", finds("PAUSED", "", "")), asked, false},
		{"found in time", FoundWithin(theLeader, "PAUSED", 5*time.Second), wrote, true},
		{"found late", FoundWithin(theLeader, "PAUSED", 3*time.Second), wrote, false},
		{"found elsewhere", FoundWithin(theReplica, "PAUSED", 5*time.Second), wrote, false},
		{"found although it must not", NeverFound("LEADERLESS", "PAUSED"), wrote, false},
		{"not found", NeverFound("LEADERLESS"), wrote, true},
		{"a life that ended at once counts", Lives(theReplica, 2, 1), crashed, true},
		{"one life too many", Lives(theReplica, 1, 0), crashed, false},
		{"a restarted unit is not untouched", Untouched(theReplica), crashed, false},
		{"what settling does is not looked at", UnitEnds(theReplica, "inactive success", 15*time.Second), stopped, true},
		{"not stopped for that long", UnitEnds(theReplica, "inactive success", 19*time.Second), stopped, false},
		{"silent for 4 s in all", Unanswered(theLeader, 4*time.Second), silent, true},
		{"not silent for 5 s", Unanswered(theLeader, 5*time.Second), silent, false},
		{"the key came back", LeaderKeyReplaced(), calm(key(-1, "x", 1, 9), key(1, "x", 2, 9)), true},
		{"the key was never gone", LeaderKeyReplaced(), calm(key(-1, "x", 1, 9), key(1, "x", 1, 9)), false},
		{"another took the key", LeaderKeyReplaced(), calm(key(1, "x", 1, 9), key(2, "y", 2, 9)), false},
		{"the lease held", LeaseNeverBelow(func(Evidence) int64 { return 8 }), calm(key(1, "x", 1, 9), key(2, "x", 1, 8)), true},
		{"the lease sank", LeaseNeverBelow(func(Evidence) int64 { return 8 }), calm(key(1, "x", 1, 9), key(2, "x", 1, 7)), false},
		{"the lease was never read", LeaseNeverBelow(func(Evidence) int64 { return 8 }), calm(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v := tt.check.Test(tt.e); v.OK != tt.ok {
				t.Errorf("%s: %t (%s), want %t", tt.check.Name, v.OK, v.Detail, tt.ok)
			}
		})
	}
}

func TestAll_IDsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All() {
		id := strings.ToLower(s.ID)
		if seen[id] {
			t.Errorf("scenario %s is listed twice", s.ID)
		}
		seen[id] = true
	}
}

func TestReplayed(t *testing.T) {
	decided := []record.Record{{Node: "pg1", Journal: &record.Journal{Kind: "finding"}}}
	for _, tt := range []struct {
		name    string
		records []record.Record
		said    string
		ok      bool
	}{
		{"all the same", decided, `{"identical": 3, "different": 0, "no_inputs": 0}`, true},
		{"nothing was decided", nil, `{"identical": 0}`, true},
		{"findings, and no decision recorded", decided, `{"identical": 0}`, false},
		{"one differs", decided, `{"identical": 3, "different": 1}`, false},
		{"one lacks its inputs", decided, `{"identical": 3, "no_inputs": 1}`, false},
		{"no answer", decided, `pgpatrol: cannot read`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := replayed().Test(Evidence{Records: tt.records, Replays: map[string]string{"pg1": tt.said}})
			if got.OK != tt.ok {
				t.Errorf("%+v, want %t", got, tt.ok)
			}
		})
	}
}
