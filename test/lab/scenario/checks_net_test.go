package scenario

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// looked adds what look writes of every node: at the fault and 20 s later.
func looked(e Evidence, last string) Evidence {
	for _, n := range []string{"pg1", "pg2", "pg3", "hap1"} {
		e = e.with(record.Record{At: start, Node: "lab", Mark: &record.Mark{Name: "agent", Text: n + " life 0 77 3+4 24000 1 2"}})
		e = e.with(record.Record{At: start.Add(20 * time.Second), Node: "lab", Mark: &record.Mark{Name: "agent", Text: n + " " + last}})
	}
	return e
}

func TestAgents_LivedAndCalm(t *testing.T) {
	for _, tt := range []struct {
		name, last  string
		lived, calm bool
	}{
		{"the same process, at rest", "life 0 77 10+12 24000 4 9", true, true},
		{"another invocation", "next 0 77 10+12 24000 4 9", false, true},
		{"another process", "life 1 78 1+1 24000 4 9", false, true},
		{"not running", "life 0 0 + 24000 4 9", false, false},
		{"spins", "life 0 77 900+100 24000 4 9", true, false},
		{"chatters", "life 0 77 10+12 24000 400 9", true, false},
		{"connects all the time", "life 0 77 10+12 24000 4 90", true, false},
		{"has given up", "life 0 77 10+12 24000 4 2", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := looked(evidence(), tt.last)
			if v := AgentsLived().Test(e); v.OK != tt.lived {
				t.Errorf("lived: %+v, want %t", v, tt.lived)
			}
			if v := AgentsCalm(0.02, 12).Test(e); v.OK != tt.calm {
				t.Errorf("calm: %+v, want %t", v, tt.calm)
			}
		})
	}
	if v := AgentsLived().Test(evidence()); v.OK {
		t.Errorf("lived without a look: %+v", v)
	}
}

func TestPlanChecks(t *testing.T) {
	e := evidence()
	refused := `{"findings":[{"code":"PATRONI_LOOP_STUCK"}],"refused":[{"action":{"finding":"PATRONI_LOOP_STUCK"},"verdicts":[{"guard":"%s","text":"no"}]}]}`
	e.Plans = map[string]string{"pg1": fmt.Sprintf(refused, "busy-work"), "pg2": `{"summary":"well"}`, "pg3": "no agent"}
	for _, tt := range []struct {
		name string
		c    Check
		ok   bool
	}{
		{"says", Says(node.PatroniLoopStuck, onLeader()), true},
		{"says not", SaysNot(node.PatroniLoopStuck, onLeader()), false},
		{"refused", Refuses(node.GuardBusyWork, node.PatroniLoopStuck, onLeader()), true},
		{"refused by another", Refuses(node.GuardIdentity, node.PatroniLoopStuck, onLeader()), false},
		{"whatever is refused", WhateverRefusedBy(node.GuardBusyWork, onLeader()), true},
		{"whatever is refused by another", WhateverRefusedBy(node.GuardIdentity, onLeader()), false},
		{"no plan is not silence", SaysNot(node.PatroniLoopStuck, onOthers()), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v := tt.c.Test(e); v.OK != tt.ok {
				t.Errorf("%s: %+v, want %t", tt.c.Name, v, tt.ok)
			}
		})
	}
}

func TestFailedOverOnce(t *testing.T) {
	e := evidence()
	for i, holder := range []string{"postgres-1", "", "postgres-2"} {
		e = e.with(record.Record{At: start.Add(time.Duration(i) * time.Second), Node: "hap1", Lock: &record.Lock{Answered: true, Holder: holder}})
	}
	if v := FailedOverOnce().Test(e); v.OK {
		t.Errorf("without a promotion: %+v", v)
	}
	e = e.with(record.Record{At: start.Add(30 * time.Second), Node: "pg2", PG: &record.PG{Answered: true, Timeline: 2, Started: start}})
	if v := FailedOverOnce().Test(e); !v.OK {
		t.Errorf("with one: %+v", v)
	}
}

func TestNeverShown(t *testing.T) {
	e := evidence()
	e.Plans = map[string]string{"pg1": "api_url http://user:hunter2@x"}
	if v := NeverShown("hunter2").Test(e); v.OK {
		t.Errorf("a secret in a plan passed: %+v", v)
	}
}

func TestDeadEndpoints(t *testing.T) {
	n := stack.Node{Name: "pg1", Addr: netip.MustParseAddr("10.213.7.11")}
	got := deadEndpoints(n, "etcd:\n  endpoints:\n    - http://10.213.7.21:2379\n    - http://10.213.7.22:2379\n    - http://10.213.7.23:2379\n")
	if strings.Contains(got, "10.213.7.2:") || strings.Contains(got, "10.213.7.21") || !strings.Contains(got, "- http://10.213.7.250:2379\n") {
		t.Errorf("endpoints:\n%s", got)
	}
}
