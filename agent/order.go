package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/dcs"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/agent/orders"
	"github.com/pgpatrol/pgpatrol/coordinator"
)

var _ api.Orderer = (*Agent)(nil)

// killSwitchName is the file that holds everything back, in the state directory and beside the configuration file.
const killSwitchName = "kill-switch"

// sharedHolds are the holds that reach further than this node.
type sharedHolds interface {
	Hold(ctx context.Context, h node.Hold) error
	// Lift returns an error that wraps orders.ErrNotSet if there is nothing to lift.
	Lift(ctx context.Context, l node.Level, k node.HoldKind) (node.Hold, error)
	// Known returns those that are in force, as far as is known now.
	Known() []node.Hold
}

// newKeeper returns what keeps the orders of this node.
func (a *Agent) newKeeper(cfg config.Config, j *journal.Journal, boot string) *orders.Keeper {
	d := orders.Deps{
		Pause: func() (node.Hold, string, node.Instant, bool) {
			p, ok := j.Pause()
			return p.Hold, p.BootID, p.At, ok
		},
		Approvals: j.Approvals, Now: a.o.Host.Now, Wall: time.Now, BootID: boot,
		Record: func(e orders.Entry) error {
			_, err := j.Append(entryRecord(e))
			return err
		},
		File: filepath.Join(cfg.StateDir, killSwitchName),
	}
	if beside := filepath.Join(filepath.Dir(a.o.ConfigPath), killSwitchName); beside != d.File {
		d.Watched = []string{beside}
	}
	return orders.New(d)
}

func entryRecord(e orders.Entry) journal.Record {
	r := journal.Record{Kind: journal.Hold, Hold: e.Hold, Approval: e.Approval, Text: e.Text}
	switch {
	case e.Approval != nil:
		r.Kind = journal.Approve
	case e.Lift:
		r.Kind = journal.Lift
	}
	return r
}

// Hold implements api.Orderer.
func (a *Agent) Hold(ctx context.Context, q api.HoldRequest, from api.Peer) (node.Hold, error) {
	d, err := time.ParseDuration(q.For)
	if err != nil {
		return node.Hold{}, refused(fmt.Errorf("%w: for must be a duration such as 2h or 1h30m", orders.ErrInvalid))
	}
	h, err := orders.NewHold(q.Kind, q.Level, q.Owner, q.Reason, d, time.Now())
	if err != nil {
		return node.Hold{}, refused(err)
	}
	defer poke(a.wake)
	if h.Level == node.LevelNode {
		return h, refused(a.orders.Hold(h, from.String()))
	}
	shared, err := a.sharedHolds()
	if err == nil {
		err = shared.Hold(ctx, h)
	}
	if err != nil {
		return node.Hold{}, refused(err)
	}
	a.note(journal.Record{Kind: journal.Hold, Hold: &h, Text: from.String()})
	return h, nil
}

// Lift implements api.Orderer.
func (a *Agent) Lift(ctx context.Context, q api.LiftRequest, from api.Peer) (node.Hold, error) {
	// The same words are wanted as for a hold, and lifting gives no others.
	if _, err := orders.NewHold(q.Kind, q.Level, q.Owner, "lift", time.Second, time.Now()); err != nil {
		return node.Hold{}, refused(err)
	}
	defer poke(a.wake)
	if q.Level == node.LevelNode {
		h, err := a.orders.Lift(q.Kind, q.Owner, from.String())
		return h, refused(err)
	}
	shared, err := a.sharedHolds()
	var h node.Hold
	if err == nil {
		h, err = shared.Lift(ctx, q.Level, q.Kind)
	}
	if err != nil {
		return node.Hold{}, refused(err)
	}
	a.note(journal.Record{Kind: journal.Lift, Hold: &h, Text: "lifted by " + q.Owner + " " + from.String()})
	return h, nil
}

// Approve implements api.Orderer.
func (a *Agent) Approve(_ context.Context, q api.ApproveRequest, from api.Peer) (node.Approval, error) {
	v := a.view.Load()
	if v == nil {
		return node.Approval{}, api.ErrNotReady
	}
	defer poke(a.wake)
	approval, err := a.orders.Approve(q.ID, q.Owner, from.String(), orders.Waiting{
		Plan: v.plan, Spec: a.config().Spec(), Attempts: a.journal.Attempts(), Proposed: a.proposed,
	})
	return approval, refused(err)
}

// proposed reports whether a plan in the journal names the action.
func (a *Agent) proposed(id string) bool {
	var after uint64
	for {
		page, err := a.journal.Page(after, api.MaxHistory, pageBytes)
		if err != nil || len(page) == 0 {
			return false
		}
		if slices.ContainsFunc(page, func(r journal.Record) bool { return r.Plan != nil && names(*r.Plan, id) }) {
			return true
		}
		after = page[len(page)-1].Seq
	}
}

func names(p node.Plan, id string) bool {
	return slices.ContainsFunc(p.Allowed, func(a node.Action) bool { return a.ID == id }) ||
		slices.ContainsFunc(p.Refused, func(r node.Refusal) bool { return r.Action.ID == id })
}

// refused makes errors that are the asker's a refusal.
func refused(err error) error {
	for _, e := range []struct {
		err    error
		status int
	}{
		{orders.ErrInvalid, http.StatusBadRequest},
		{orders.ErrForeign, http.StatusNotFound},
		{orders.ErrNotSet, http.StatusConflict},
		{orders.ErrNotWaiting, http.StatusConflict},
	} {
		if errors.Is(err, e.err) {
			return &api.Refusal{Status: e.status, Err: err}
		}
	}
	return err
}

func (a *Agent) sharedHolds() (sharedHolds, error) {
	if s := a.shared.Load(); s != nil {
		return *s, nil
	}
	return nil, errors.New("etcd is not in use yet; try again in a moment")
}

// withOrders adds what people want of this agent to every snapshot.
func (a *Agent) withOrders(look func(context.Context, observer.Depth) node.Snapshot) func(context.Context, observer.Depth) node.Snapshot {
	return func(ctx context.Context, d observer.Depth) node.Snapshot {
		s := look(ctx, d)
		// As late as possible: an order that came during the look counts.
		s.Orders = a.orders.Orders(a.o.Host.Now())
		return s
	}
}

// etcdHolds are the holds that agents share through etcd.
type etcdHolds struct {
	view  *dcs.View
	scope string
}

// Hold implements sharedHolds.
func (e *etcdHolds) Hold(ctx context.Context, h node.Hold) error {
	return coordinator.Hold(ctx, e.view, e.scope, h)
}

// Lift implements sharedHolds.
func (e *etcdHolds) Lift(ctx context.Context, l node.Level, k node.HoldKind) (node.Hold, error) {
	h, err := coordinator.Lift(ctx, e.view, e.scope, l, k)
	if errors.Is(err, coordinator.ErrNotSet) {
		err = fmt.Errorf("%s of %s: %w", k, l, orders.ErrNotSet)
	}
	return h, err
}

// Known returns the holds that are known without asking.
func (e *etcdHolds) Known() []node.Hold { return e.view.SharedHolds() }

// permit returns why the action must not be carried out now, by the orders of people, or nil. It asks nobody: a hold in
// etcd is known as soon as etcd tells of it.
func (a *Agent) permit(action node.Action) error {
	if err := a.orders.Permit(action); err != nil {
		return err
	}
	shared, err := a.sharedHolds()
	if err != nil {
		return err
	}
	for _, h := range shared.Known() {
		return fmt.Errorf("%s of %s is held back by %s", action.Verb, action.Service, h)
	}
	return nil
}

// crashes returns how often the agent began anew without having stopped, as a sign of a crash loop (FAULTS.md F102).
func (a *Agent) crashes() int { return a.journal.Crashes(node.CrashWindow) }
