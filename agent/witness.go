package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

var _ api.Witness = (*Agent)(nil)

// pageBytes bounds the lines of one page of records, well below what a client takes.
const pageBytes = 8 << 20

// Record implements api.Witness.
func (a *Agent) Record(_ context.Context, seq uint64) (api.Record, error) {
	r, err := a.journal.Record(seq)
	if errors.Is(err, journal.ErrNoRecord) {
		return api.Record{}, fmt.Errorf("%w: %w", api.ErrNoRecord, err)
	}
	if err != nil {
		return api.Record{}, err
	}
	return Shown(r), nil
}

// Records implements api.Witness.
func (a *Agent) Records(_ context.Context, q api.RecordsQuery) (api.History, error) {
	records, err := a.journal.Page(q.After, q.Limit, pageBytes)
	if err != nil {
		return api.History{}, err
	}
	out := api.History{Records: make([]api.Record, 0, len(records))}
	for _, r := range records {
		out.Records = append(out.Records, Shown(r))
	}
	return out, nil
}

// Shown returns a record of the journal as the API gives it.
func Shown(r journal.Record) api.Record {
	out := api.Record{
		Seq: r.Seq, Wall: r.Wall, BootID: r.BootID, At: r.At, Kind: string(r.Kind), Finding: r.Finding, Plan: r.Plan,
		Action: r.Action, Text: r.Text, Decision: r.Decision, Question: r.Question, Program: r.Program,
		Hold: r.Hold, Approval: r.Approval,
	}
	if r.Result != nil {
		o := api.Outcome(*r.Result)
		out.Result = &o
	}
	return out
}

// Question implements api.Witness.
func (a *Agent) Question(context.Context) (node.Question, error) {
	v := a.view.Load()
	if v == nil {
		return node.Question{}, api.ErrNotReady
	}
	return v.question, nil
}
