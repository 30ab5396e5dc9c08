package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgpatrol/pgpatrol/agent"
	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/journal"
)

// chronicle is where records come from: the agent that writes them, or a directory that they were copied to.
type chronicle interface {
	// one returns a record with the inputs of its decision.
	one(ctx context.Context, seq uint64) (api.Record, error)
	// acts returns the newest intents and results, oldest first; an agent tells at most api.MaxHistory.
	acts(ctx context.Context) ([]api.Record, error)
	// each calls fn for every record with its inputs, oldest first.
	each(ctx context.Context, fn func(api.Record)) error
	// damage lists what could not be read.
	damage() []journal.Damage
}

// chronicleOf opens the journal in a directory, or asks the agent if none is named.
func chronicleOf(e *env, dir string) (chronicle, error) {
	if dir == "" {
		return living{api.NewClient(e.socket)}, nil
	}
	c, err := journal.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	return copied{c}, nil
}

type living struct{ c *api.Client }

func (l living) one(ctx context.Context, seq uint64) (api.Record, error) { return l.c.Record(ctx, seq) }

func (l living) acts(ctx context.Context) ([]api.Record, error) {
	h, err := l.c.History(ctx, api.HistoryQuery{Limit: api.MaxHistory, Kinds: []string{string(journal.Intent), string(journal.Result)}})
	return h.Records, err
}

// each asks page by page, and gives up on an agent that repeats itself.
func (l living) each(ctx context.Context, fn func(api.Record)) error {
	var last uint64
	for {
		page, err := l.c.Records(ctx, api.RecordsQuery{After: last, Limit: api.MaxHistory})
		if err != nil || len(page.Records) == 0 {
			return err
		}
		for _, r := range page.Records {
			if r.Seq <= last {
				return errors.New("the agent's records are not in order")
			}
			last = r.Seq
			fn(r)
		}
	}
}

func (living) damage() []journal.Damage { return nil }

type copied struct{ c journal.Copy }

func (c copied) one(_ context.Context, seq uint64) (api.Record, error) {
	for _, r := range c.c.Records {
		if r.Seq == seq {
			return agent.Shown(r), nil
		}
	}
	if len(c.c.Records) == 0 {
		return api.Record{}, fmt.Errorf("record %d: %w: not one could be read", seq, api.ErrNoRecord)
	}
	return api.Record{}, fmt.Errorf("record %d: %w: it holds %d to %d", seq, api.ErrNoRecord, c.c.Records[0].Seq, c.c.Records[len(c.c.Records)-1].Seq)
}

func (c copied) acts(context.Context) ([]api.Record, error) {
	var out []api.Record
	for _, r := range c.c.Records {
		if r.Kind == journal.Intent || r.Kind == journal.Result {
			out = append(out, agent.Shown(r))
		}
	}
	return out, nil
}

func (c copied) each(_ context.Context, fn func(api.Record)) error {
	for _, r := range c.c.Records {
		if !r.Kind.Internal() {
			fn(agent.Shown(r))
		}
	}
	return nil
}

func (c copied) damage() []journal.Damage { return c.c.Damaged }
