package agent

import (
	"context"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
)

var _ api.Source = (*Agent)(nil)

// Status implements api.Source.
func (a *Agent) Status(context.Context) (api.Status, error) {
	cfg, now := a.config(), a.o.Host.Now()
	spec := cfg.Spec()
	st := api.Status{
		Version: a.o.Version, Node: cfg.Node, Scope: cfg.Scope, Now: now, Wall: time.Now(), StartedAgo: now.Sub(a.started),
		Policy: spec.Policy, Spec: &spec, ConfigProblem: a.configProblem(),
	}
	a.mu.Lock()
	st.Managers = a.managers
	for _, r := range a.routers {
		st.Routes = append(st.Routes, r.Report())
	}
	a.mu.Unlock()
	if v := a.view.Load(); v != nil {
		st.Snapshot, st.Plan = &v.question.Snapshot, &v.plan
	}
	return st, nil
}

// Plan implements api.Source.
func (a *Agent) Plan(context.Context) (api.PlanReply, error) {
	v := a.view.Load()
	if v == nil {
		return api.PlanReply{}, api.ErrNotReady
	}
	return api.PlanReply{Now: a.o.Host.Now(), Plan: v.plan}, nil
}

// History implements api.Source.
func (a *Agent) History(_ context.Context, q api.HistoryQuery) (api.History, error) {
	kinds := make([]journal.Kind, len(q.Kinds))
	for i, k := range q.Kinds {
		kinds[i] = journal.Kind(k)
	}
	records, err := a.journal.Records(journal.Query{Limit: q.Limit, Kinds: kinds})
	if err != nil {
		return api.History{}, err
	}
	out := api.History{Records: make([]api.Record, 0, len(records))}
	for _, r := range records {
		r.Question = nil // large, and no line of a history shows it
		out.Records = append(out.Records, Shown(r))
	}
	return out, nil
}
