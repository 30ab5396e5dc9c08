package api

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// fakeSource answers with what a test gave it.
type fakeSource struct {
	status  Status
	plan    PlanReply
	history History
	err     error
	asked   HistoryQuery
}

func (f *fakeSource) Status(context.Context) (Status, error)  { return f.status, f.err }
func (f *fakeSource) Plan(context.Context) (PlanReply, error) { return f.plan, f.err }
func (f *fakeSource) History(_ context.Context, q HistoryQuery) (History, error) {
	f.asked = q
	return f.history, f.err
}

func filled() *fakeSource {
	now := node.Instant(90 * time.Minute)
	wall := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	bytes := uint64(4096)
	finding := node.Finding{
		Code: node.PatroniHung, Severity: node.Page, Subject: "patroni", Text: "Patroni does nothing.", Advice: "Nothing is to be done.",
		Evidence: []node.Evidence{{Subject: "patroni.service", Value: "running", Source: "systemd", At: now, Known: true}},
		Since:    now.Add(-time.Minute), DivergentBytes: &bytes,
	}
	action := node.Action{
		ID: "act-1", Verb: node.SoftKill, Service: "patroni", Unit: "patroni.service", Class: node.ClassRevive,
		Finding: node.PatroniHung, Reason: "it is hung", Leader: true, Expect: node.Expectation{NewInvocation: true},
		Before: node.Baseline{InvocationID: "a1", MainPID: 7}, Deadline: 10 * time.Second, Settle: 20 * time.Second,
	}
	plan := node.Plan{
		At: now, Wall: wall, Findings: []node.Finding{finding}, Allowed: []node.Action{action},
		Refused: []node.Refusal{{Action: action, Verdicts: []node.Verdict{{Guard: node.GuardBudget, Text: "3 of 3 in the last hour"}}}},
		Summary: "one action is allowed", Rests: finding.Evidence,
	}
	return &fakeSource{
		status: Status{
			Version: "1.2.3", Node: "n1", Scope: "demo", Now: now, Wall: wall, StartedAgo: time.Hour, Policy: node.DefaultPolicy(),
			Snapshot: &node.Snapshot{Node: "n1", Scope: "demo", Now: now, Wall: wall, BootID: "boot-1"}, Plan: &plan, ConfigProblem: "line 3",
		},
		plan: PlanReply{Now: now.Add(time.Second), Plan: plan},
		history: History{Records: []Record{
			{Seq: 1, Wall: wall, BootID: "boot-1", At: now, Kind: "finding", Finding: &finding},
			{Seq: 2, Wall: wall, BootID: "boot-1", At: now, Kind: "intent", Action: &action},
			{Seq: 3, Wall: wall, BootID: "boot-1", At: now, Kind: "result", Result: &Outcome{
				Intent: 2, ActionID: "act-1", Result: node.ResultExecuted, Error: "late", Evidence: map[string]string{"gap": "1s"},
			}},
			{Seq: 4, Wall: wall, BootID: "boot-1", At: now, Kind: "config", Text: "in force"},
		}},
	}
}

// run starts a server and returns its socket. It ends with the test, which fails if it does not end well.
func run(t *testing.T, src Source) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	s := NewServer(src, Config{Socket: socket, Version: "1.2.3"}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for range 200 {
		if _, err := NewClient(socket).Version(ctx); err == nil {
			return socket
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the server does not come up")
	return ""
}
