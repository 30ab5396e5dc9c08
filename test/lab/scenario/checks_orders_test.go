package scenario

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

func orderMark(at time.Duration, name, text string) record.Record {
	return record.Record{At: start.Add(at), Node: "lab", Mark: &record.Mark{Name: name, Text: text}}
}

func TestAnswered(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         bool
	}{
		{"as it should", "1 pgpatrol: approve: no such action", true},
		{"other code", "0 pgpatrol: approve: no such action", false},
		{"other words", "1 pgpatrol: panic", false},
		{"nothing printed", "1", false},
		{"never asked", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := evidence()
			if tt.answer != "" {
				e = e.with(orderMark(9*time.Second, "asked", tt.answer))
			}
			if v := Answered("asked", 1, "no such action").Test(e); v.OK != tt.want {
				t.Errorf("verdict %+v, want %v", v, tt.want)
			}
		})
	}
}

func TestNotBefore(t *testing.T) {
	intent := func(at time.Duration) record.Record {
		line, err := json.Marshal(map[string]any{"seq": 7, "kind": "intent", "wall": start.Add(at)})
		if err != nil {
			t.Fatal(err)
		}
		return record.Record{At: start.Add(at), Node: "pg1", Journal: &record.Journal{Kind: "intent", Line: line}}
	}
	life := func(at time.Duration) record.Record {
		return record.Record{At: start.Add(at), Node: "pg1", Unit: &record.Unit{Name: patroniUnit, ActiveState: "active", InvocationID: "new"}}
	}
	let := orderMark(10*time.Second, markMayAct, "pg1")
	for _, tt := range []struct {
		name string
		e    Evidence
		want bool
	}{
		{"nothing at all", evidence().with(let), true},
		{"done afterwards", evidence().with(let).with(intent(11 * time.Second)), true},
		{"begun before", evidence().with(let).with(intent(9 * time.Second)), false},
		{"another life before", evidence().with(let).with(life(9 * time.Second)), false},
		{"no mark", evidence(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v := NotBefore(markMayAct).Test(tt.e); v.OK != tt.want {
				t.Errorf("verdict %+v, want %v", v, tt.want)
			}
		})
	}
}

func TestRefusesSaying(t *testing.T) {
	const plan = `{"refused":[{"action":{"verb":"soft-kill","finding":"PATRONI_HUNG"},
		"verdicts":[{"guard":"pgpatrol-pause","text":"pause (node) by root: work, until 12:00"}]}]}`
	var s spoken
	if err := json.Unmarshal([]byte(plan), &s); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		guard node.Guard
		words string
		want  bool
	}{
		{node.GuardPause, "(node) work", true},
		{node.GuardPause, "(scope) work", false},
		{node.GuardKillSwitch, "work", false},
	} {
		if ok, text := refusesSaying(node.PatroniHung, tt.guard, strings.Fields(tt.words)...)(s); ok != tt.want {
			t.Errorf("%s %q: %v (%s)", tt.guard, tt.words, ok, text)
		}
	}
}
