package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// remembering is an agent with a journal that holds one decision with its inputs.
func remembering(t *testing.T) *Agent {
	t.Helper()
	j, err := journal.Open(t.TempDir(), journal.Deps{
		Now: func() node.Instant { return 0 }, Wall: time.Now, BootID: "boot-1", Program: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	q := node.Question{Memory: node.Memory{Leader: "pg1", Streaks: map[string]node.Streak{"silent/patroni": {Count: 3}}}}
	if _, err := j.Append(journal.Record{Kind: journal.Plan, Plan: &node.Plan{}, Question: &q}); err != nil {
		t.Fatal(err)
	}
	return &Agent{journal: j}
}

func TestWitness_HistoryLeavesTheInputsOut(t *testing.T) {
	a := remembering(t)
	h, err := a.History(t.Context(), api.HistoryQuery{Limit: 10})
	if err != nil || len(h.Records) != 1 || h.Records[0].Question != nil {
		t.Fatalf("history: %+v, %v", h, err)
	}
	r, err := a.Record(t.Context(), 1)
	if err != nil || r.Question == nil || r.Question.Memory.Leader != "pg1" || r.Program != "1.2.3" {
		t.Errorf("record: %+v, %v", r, err)
	}
	page, err := a.Records(t.Context(), api.RecordsQuery{Limit: 10})
	if err != nil || len(page.Records) != 1 || page.Records[0].Question == nil {
		t.Errorf("page: %+v, %v", page, err)
	}
	if _, err := a.Record(t.Context(), 7); !errors.Is(err, api.ErrNoRecord) {
		t.Errorf("no such record: %v", err)
	}
}

func TestWitness_QuestionBeforeTheFirstDecision(t *testing.T) {
	if _, err := remembering(t).Question(t.Context()); !errors.Is(err, api.ErrNotReady) {
		t.Errorf("Question = %v", err)
	}
}
