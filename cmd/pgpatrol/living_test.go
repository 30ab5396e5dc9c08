package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent"
	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// fakeAgent answers from a journal directory and a question. Its pages hold two records.
type fakeAgent struct {
	c     journal.Copy
	q     node.Question
	ready bool
}

func (f fakeAgent) Status(context.Context) (api.Status, error) {
	s := api.Status{Now: f.q.Snapshot.Now, Spec: &f.q.Spec}
	if f.ready {
		s.Snapshot = &f.q.Snapshot
	} else {
		s.Spec = nil
	}
	return s, nil
}

func (f fakeAgent) Plan(context.Context) (api.PlanReply, error) { return api.PlanReply{}, nil }

func (f fakeAgent) History(_ context.Context, q api.HistoryQuery) (api.History, error) {
	h := api.History{Records: []api.Record{}}
	for _, r := range f.c.Records {
		if slices.Contains(q.Kinds, string(r.Kind)) {
			r.Question = nil
			h.Records = append(h.Records, agent.Shown(r))
		}
	}
	return h, nil
}

func (f fakeAgent) Record(ctx context.Context, seq uint64) (api.Record, error) {
	return copied{f.c}.one(ctx, seq)
}

func (f fakeAgent) Records(_ context.Context, q api.RecordsQuery) (api.History, error) {
	h := api.History{Records: []api.Record{}}
	for _, r := range f.c.Records {
		if r.Seq > q.After && len(h.Records) < 2 {
			h.Records = append(h.Records, agent.Shown(r))
		}
	}
	return h, nil
}

func (f fakeAgent) Question(context.Context) (node.Question, error) {
	if !f.ready {
		return node.Question{}, api.ErrNotReady
	}
	return f.q, nil
}

// answering runs an agent that knows what f knows and returns its socket.
func answering(t *testing.T, f fakeAgent) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(f, api.Config{Socket: socket, Version: "1"}, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for range 200 {
		if _, err := api.NewClient(socket).Version(ctx); err == nil {
			return socket
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the server does not come up")
	return ""
}

func TestWhy_AsksTheAgent(t *testing.T) {
	c, err := journal.ReadDir(written(t, "1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	ready := answering(t, fakeAgent{c: c, q: hungQuestion(node.ModeObserve), ready: true})
	starting := answering(t, fakeAgent{})
	none := filepath.Join(t.TempDir(), "none")
	cases := map[string]struct {
		socket string
		args   string
		code   int
		want   string
	}{
		"why":                   {ready, "why 6 --replay", 0, "replay: identical"},
		"why all":               {ready, "why all --replay", 0, "2 decisions replayed: 2 identical, 0 different"},
		"why, no such record":   {ready, "why 99", 1, "holds 1 to 9"},
		"why-not":               {ready, "why-not soft-kill patroni", 0, "soft-kill of patroni would heal PATRONI_HUNG, and is refused by policy"},
		"why-not heal":          {ready, "why-not heal patroni@host1 --json", 0, `"verb": "soft-kill"`},
		"why-not, no service":   {ready, "why-not heal patrony", 2, "did you mean patroni?"},
		"why-not, other node":   {ready, "why-not heal patroni@host9", 2, "only its own node host1"},
		"failover":              {ready, "why-not failover", 0, "pg1 leads, so nobody races; if it ended now, pg2 or pg3 could take the key."},
		"failover as JSON":      {ready, "why-not failover --json", 0, `"candidate": "yes"`},
		"policy":                {ready, "policy", 0, "patroni  observe*"},
		"starting, why-not":     {starting, "why-not heal patroni", 1, "not decided anything yet"},
		"starting, failover":    {starting, "why-not failover", 1, "not decided anything yet"},
		"old agent, policy":     {starting, "policy", 1, "is older than this program"},
		"no agent, why":         {none, "why 1", 3, "no agent answers"},
		"no agent, why all":     {none, "why all --replay", 3, "no agent answers"},
		"no agent, why-not":     {none, "why-not heal patroni", 3, "no agent answers"},
		"no agent, failover":    {none, "why-not failover", 3, "no agent answers"},
		"no agent, policy":      {none, "policy", 3, "no agent answers"},
		"an empty journal, why": {starting, "why all --replay", 0, "0 decisions replayed"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			code, out, errs := pgpatrol(append(strings.Fields(tc.args), "--socket", tc.socket)...)
			if code != tc.code || !strings.Contains(out+errs, tc.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s%s", code, tc.code, tc.want, out, errs)
			}
		})
	}
}
