package scenario

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

func after(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

func mark(s float64, name, text string) record.Record {
	return record.Record{At: after(s), Node: "lab", Mark: &record.Mark{Name: name, Text: text}}
}

func lock(s float64, holder string, left int64) record.Record {
	return record.Record{At: after(s), Node: "hap1", Lock: &record.Lock{Answered: true, Holder: holder, Left: left}}
}

func unit(s float64, node, id, state string) record.Record {
	u := &record.Unit{Name: patroniUnit, ActiveState: state, InvocationID: id}
	if state == "active" {
		u.MainPID = 42
	}
	return record.Record{At: after(s), Node: node, Unit: u}
}

func line(node string, text string, args ...any) record.Record {
	text = fmt.Sprintf(text, args...)
	var head struct{ Kind string }
	_ = json.Unmarshal([]byte(text), &head)
	return record.Record{At: after(40), Node: node, Journal: &record.Journal{Kind: head.Kind, Line: json.RawMessage(text)}}
}

func intent(seq int, node string, s float64) record.Record {
	return line(node, `{"seq":%d,"kind":"intent","wall":%q,"action":{"verb":"soft-kill","class":"revive"}}`, seq, after(s).Format(time.RFC3339Nano))
}

func result(seq, of int, node, how string) record.Record {
	return line(node, `{"seq":%d,"kind":"result","result":{"intent":%d,"result":%q}}`, seq, of, how)
}

func finding(node, code, advice string, divergent int) record.Record {
	return line(node, `{"seq":9,"kind":"finding","finding":{"code":%q,"advice":%q,"divergent_wal_bytes":%d}}`, code, advice, divergent)
}

func TestChecks_Heal(t *testing.T) {
	const refused = `{"refused":[{"action":{"verb":"soft-kill"},"verdicts":[{"guard":"policy","text":"observe"}]}]}`
	kill := OneAction("soft-kill", "revive")
	proof, lives := ActedAfterLeaseProof(), NewLivesOnLeader(1)
	replaced, readOnly := TargetReplacedWithin(3*time.Second, markLastKill), LeaderReadOnlyWithin(5*time.Second, markMayAct)
	for _, tt := range []struct {
		name  string
		check Check
		recs  []record.Record
		want  bool
	}{
		{"one intent", kill, []record.Record{intent(1, "pg1", 9)}, true},
		{"no intent", kill, nil, false},
		{"two intents", kill, []record.Record{intent(1, "pg1", 9), intent(2, "pg1", 20)}, false},
		{"another node acts", kill, []record.Record{intent(1, "pg2", 9)}, false},
		{"another node acts too", kill, []record.Record{intent(1, "pg1", 9), intent(1, "pg3", 9)}, false},
		{"another class", OneAction("soft-kill", "disrupt"), []record.Record{intent(1, "pg1", 9)}, false},
		{"the broken replica is acted on", kill, []record.Record{mark(0, markTarget, "pg3"), intent(1, "pg3", 9)}, true},
		{"an unreadable line beside it", kill, []record.Record{intent(1, "pg1", 9), {Node: "pg2", Journal: &record.Journal{Kind: "intent", Line: json.RawMessage(`"unreadable"`)}}}, false},

		{"acted below the proof", proof, []record.Record{lock(10, "postgres-1", 17), intent(1, "pg1", 10.5)}, true},
		{"acted before the proof", proof, []record.Record{lock(8, "postgres-1", 21), intent(1, "pg1", 9)}, false},
		{"acted after the lease", proof, []record.Record{lock(8, "postgres-1", 2), intent(1, "pg1", 11)}, false},
		{"lease never seen", proof, []record.Record{intent(1, "pg1", 9)}, false},

		{"key always there", LeaseNeverEnded(), []record.Record{lock(1, "postgres-1", 29), lock(20, "postgres-1", 12)}, true},
		{"key gone", LeaseNeverEnded(), []record.Record{lock(1, "postgres-1", 29), lock(31, "", 0)}, false},
		{"etcd not heard", LeaseNeverEnded(), nil, false},
		{"the harm of a key gone", LeaseEnded(), []record.Record{lock(1, "postgres-1", 29), lock(31, "", 0)}, true},

		{"a new timeline in place", NoOtherPrimary(), []record.Record{lock(1, "postgres-1", 29), {At: after(20), Node: "pg1", PG: &record.PG{Answered: true, Timeline: 2}}}, true},
		{"another primary", NoOtherPrimary(), []record.Record{lock(1, "postgres-1", 29), {At: after(20), Node: "pg2", PG: &record.PG{Answered: true, Timeline: 2}}}, false},
		{"another holder", NoOtherPrimary(), []record.Record{lock(1, "postgres-1", 29), lock(21, "postgres-2", 29)}, false},

		{"started in time", replaced, []record.Record{mark(10, markLastKill, "pg2"), unit(12, "pg2", "new", "active"), unit(39.9, "pg2", "new", "active")}, true},
		{"started late", replaced, []record.Record{mark(10, markLastKill, "pg2"), unit(15, "pg2", "new", "active"), unit(39.9, "pg2", "new", "active"), unit(40, "pg2", "new", "active")}, false},
		{"failed at the end", replaced, []record.Record{mark(10, markLastKill, "pg2"), unit(12, "pg2", "new", "active"), unit(40, "pg2", "new", "failed")}, false},
		{"never failed", replaced, []record.Record{mark(10, markLastKill, "pg2"), unit(0, "pg2", "old", "active"), unit(40, "pg2", "old", "active")}, false},

		{"one new life", lives, []record.Record{unit(11, "pg1", "new", "active"), unit(40, "pg1", "new", "active")}, true},
		{"two new lives", lives, []record.Record{unit(11, "pg1", "new", "active"), unit(21, "pg1", "newer", "active")}, false},
		{"no new life", lives, nil, false},

		{"read-only in time", readOnly, []record.Record{mark(36, markMayAct, "pg1")}, true}, // writable until 40
		{"read-only too late", readOnly, []record.Record{mark(34, markMayAct, "pg1")}, false},
		{"no leave to act", readOnly, nil, false},

		{"two primaries at the end", TwoPrimariesAtEnd(), []record.Record{{At: after(39), Node: "pg2", PG: &record.PG{Answered: true, Timeline: 2, Started: start}}, {At: after(40), Node: "pg2", PG: &record.PG{Answered: true, Timeline: 2, Started: start}}}, true},
		{"one primary at the end", OnePrimaryAtEnd(), nil, true},
		{"no second primary at the end", TwoPrimariesAtEnd(), nil, false},

		{"divergence", DivergenceRecorded(), []record.Record{mark(30, markZombie, "1000"), finding("pg1", "ZOMBIE_PRIMARY", "", 1200)}, true},
		{"too little divergence", DivergenceRecorded(), []record.Record{mark(30, markZombie, "1000"), finding("pg1", "ZOMBIE_PRIMARY", "", 900)}, false},
		{"divergence of another node", DivergenceRecorded(), []record.Record{mark(30, markZombie, "1000"), finding("pg2", "ZOMBIE_PRIMARY", "", 1200)}, false},

		{"advice names the line", FindingSays("PATRONI_HUNG", "KillMode"), []record.Record{finding("pg1", "PATRONI_HUNG", "Put KillMode=process", 0)}, true},
		{"advice is silent", FindingSays("PATRONI_HUNG", "KillMode"), []record.Record{finding("pg1", "PATRONI_HUNG", "Look at its log.", 0)}, false},

		{"refused by policy", RefusedBy("soft-kill", "policy"), []record.Record{mark(9, markPlan, refused)}, true},
		{"refused by another guard", RefusedBy("soft-kill", "lease-window"), []record.Record{mark(9, markPlan, refused)}, false},
		{"no plan", RefusedBy("soft-kill", "policy"), nil, false},

		{"resolved and decided afresh", Resolved("not-executed", "verified"), []record.Record{
			intent(1, "pg1", 9), result(2, 1, "pg1", "not-executed"), intent(3, "pg1", 20), result(4, 3, "pg1", "executed"), result(5, 3, "pg1", "verified"),
		}, true},
		{"never resolved", Resolved("not-executed"), []record.Record{intent(1, "pg1", 9)}, false},
		{"repeated", Resolved("verified"), []record.Record{intent(1, "pg1", 9), result(2, 1, "pg1", "verified"), intent(3, "pg1", 20), result(4, 3, "pg1", "verified")}, false},

		{"member key expired", MemberKeyGone(), []record.Record{mark(30, markMemberKey, "absent")}, true},
		{"member key there", MemberKeyGone(), []record.Record{mark(30, markMemberKey, "present")}, false},
		{"other postmasters", SamePostmasters(), []record.Record{{At: after(20), Node: "pg3", PG: &record.PG{Answered: true, Recovery: true, Started: after(19)}}}, false},
		{"same postmasters", SamePostmasters(), nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := evidence()
			e.Timings, _ = stack.FindTimings("default")
			for _, r := range tt.recs {
				if r.Unit != nil { // what the node said otherwise would contradict it
					e.Records = without(e.Records, r.Node, tt.recs[0].At)
				}
			}
			e.Records = append(e.Records, tt.recs...)
			if v := tt.check.Test(e); v.OK != tt.want || strings.TrimSpace(v.Detail) == "" {
				t.Errorf("%s: %+v, want %t", tt.check.Name, v, tt.want)
			}
		})
	}
}

// without drops what systemd said of a node from a moment on.
func without(recs []record.Record, node string, from time.Time) []record.Record {
	var kept []record.Record
	for _, r := range recs {
		if r.Unit == nil || r.Node != node || r.At.Before(from) {
			kept = append(kept, r)
		}
	}
	return kept
}
