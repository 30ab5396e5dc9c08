package scenario

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/judge"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

var start = time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)

// evidence is a leader pg1 that is healthy for 40 s, seen by every witness.
func evidence() Evidence {
	e := Evidence{Window: judge.Window{From: start, To: start.Add(40 * time.Second)}, Fault: start, Leader: "pg1", Agents: true}
	for i := range 41 {
		at := start.Add(time.Duration(i) * time.Second)
		for _, node := range []string{"pg1", "pg2", "pg3"} {
			e.Records = append(e.Records,
				record.Record{At: at, Node: node, PG: &record.PG{Answered: true, Recovery: node != "pg1", Timeline: 1, Started: start}},
				record.Record{At: at, Node: node, Unit: &record.Unit{Name: patroniUnit, ActiveState: "active", InvocationID: "old"}})
		}
		e.Records = append(e.Records, record.Record{At: at, Node: "hap1", Beat: &record.Beat{Acknowledged: int64(i)}})
	}
	e.Records = append(e.Records, record.Record{At: start.Add(41 * time.Second), Node: "hap1", Totals: &record.Totals{Acknowledged: 40, Counted: true}})
	return e
}

func (e Evidence) with(r record.Record) Evidence {
	e.Records = append(e.Records[:len(e.Records):len(e.Records)], r)
	return e
}

func TestJudge_F02(t *testing.T) {
	f02, err := Find("f02")
	if err != nil {
		t.Fatal(err)
	}
	healed := evidence().with(record.Record{At: start.Add(11 * time.Second), Node: "pg1", Unit: &record.Unit{Name: patroniUnit, ActiveState: "active", InvocationID: "new", NRestarts: 1}})
	for i := range healed.Records {
		if u := healed.Records[i].Unit; u != nil && healed.Records[i].Node == "pg1" && healed.Records[i].At.After(start.Add(11*time.Second)) {
			healed.Records[i].Unit = &record.Unit{Name: patroniUnit, ActiveState: "active", InvocationID: "new", NRestarts: 1}
		}
	}
	second := record.Record{At: start.Add(25 * time.Second), Node: "pg2", PG: &record.PG{Answered: true, Timeline: 2, Started: start}}
	gap := record.Record{At: start.Add(20 * time.Second), Node: "hap1", Gap: &record.Gap{From: start.Add(18 * time.Second), To: start.Add(20 * time.Second)}}
	lost := record.Record{At: start.Add(42 * time.Second), Node: "hap1", Totals: &record.Totals{Acknowledged: 40, Counted: true, Lost: 1}}
	without := func(e Evidence) Evidence { e.Agents = false; return e }
	for _, tt := range []struct {
		name string
		e    Evidence
		want string // the check that does not hold, "" for pass
	}{
		{"healed", healed, ""},
		{"never healed", evidence(), "Patroni replaced"},
		{"a second primary", healed.with(second), "no second writable primary"},
		{"a long gap", healed.with(gap), "longest write gap under"},
		{"a lost write", healed.with(lost), "no acknowledged write lost"},
		{"without pgpatrol, no harm", without(evidence()), "a second writable primary"},
		{"without pgpatrol, harm", without(evidence().with(second).with(gap)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Result
			r.judge(f02, tt.e)
			var failed []string
			for _, c := range r.Checks {
				if !c.OK {
					failed = append(failed, c.Name+": "+c.Detail)
				}
			}
			all := strings.Join(failed, "; ")
			if r.Passed() != (tt.want == "") || !strings.Contains(all, tt.want) {
				t.Errorf("failed checks: %q, want %q", all, tt.want)
			}
		})
	}
}

func TestWatched_SilenceIsNotGoodNews(t *testing.T) {
	e := evidence()
	var heard []record.Record
	for _, r := range e.Records {
		if r.Node != "pg3" || r.At.Before(start.Add(20*time.Second)) {
			heard = append(heard, r)
		}
	}
	e.Records = heard
	if v := watched(nil).Test(e); v.OK || !strings.Contains(v.Detail, "pg3") {
		t.Errorf("verdict = %+v, want pg3 silent", v)
	}
	if v := watched([]string{"pg3"}).Test(e); !v.OK {
		t.Errorf("verdict with pg3 blind = %+v", v)
	}
}

func TestJournalRecords_UnreadableLinesCountAsIntents(t *testing.T) {
	text := "{\"kind\":\"finding\"}\n{\"kind\":\"intent\",\"id\":1}\n{\"kind\":\"res"
	recs := journalRecords("pg1", []byte(text), start)
	if got := len(judge.Intents(recs)); len(recs) != 3 || got != 2 {
		t.Errorf("%d records with %d intents, want 3 with 2", len(recs), got)
	}
}

func TestAll_EveryScenarioIsComplete(t *testing.T) {
	for _, s := range All() {
		if s.ID == "" || s.Title == "" || s.Fault == nil || s.Observe == nil || len(s.Heal) == 0 {
			t.Errorf("scenario %q is incomplete", s.ID)
		}
		heals := slices.ContainsFunc(s.Heal, func(c Check) bool {
			return strings.HasPrefix(c.Name, "one action") || strings.Contains(c.Name, "lives again within") || strings.HasPrefix(c.Name, "Patroni replaced")
		})
		if heals && len(s.Harm) == 0 {
			t.Errorf("scenario %s must be healed, and names no harm without pgpatrol", s.ID)
		}
		for _, name := range s.Timings {
			if _, err := stack.FindTimings(name); err != nil {
				t.Errorf("scenario %s: %v", s.ID, err)
			}
		}
	}
}
