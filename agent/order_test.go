package agent

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/journal"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/orders"
)

// stillHost is a machine whose clock stands still.
type stillHost struct{}

func (stillHost) Now() node.Instant              { return node.Instant(time.Hour) }
func (stillHost) BootID() (string, error)        { return "boot-1", nil }
func (stillHost) Uptime() (time.Duration, error) { return time.Hour, nil }

// memoryHolds are shared holds without an etcd.
type memoryHolds struct{ set []node.Hold }

func (m *memoryHolds) Hold(_ context.Context, h node.Hold) error {
	m.set = append(m.set, h)
	return nil
}
func (m *memoryHolds) Known() []node.Hold { return m.set }
func (m *memoryHolds) Lift(context.Context, node.Level, node.HoldKind) (node.Hold, error) {
	if len(m.set) == 0 {
		return node.Hold{}, orders.ErrNotSet
	}
	h := m.set[0]
	m.set = m.set[1:]
	return h, nil
}

// ordered returns an agent that takes orders and does nothing else.
func ordered(t *testing.T) (*Agent, *memoryHolds) {
	t.Helper()
	dir := t.TempDir()
	a := &Agent{o: Options{ConfigPath: filepath.Join(dir, "pgpatrol.yaml"), Host: stillHost{}}, wake: make(chan struct{}, 1)}
	a.cfg = config.Config{Node: "n1", StateDir: filepath.Join(dir, "state"), Policy: config.Policy{Revive: node.ModeAsk}}
	j, err := journal.Open(a.cfg.StateDir, journal.Deps{Now: stillHost{}.Now, Wall: time.Now, BootID: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	a.journal, a.orders = j, a.newKeeper(a.cfg, j, "boot-1")
	m := &memoryHolds{}
	s := sharedHolds(m)
	a.shared.Store(&s)
	return a, m
}

func (a *Agent) kinds(t *testing.T) (out []journal.Kind) {
	t.Helper()
	records, err := a.journal.Records(journal.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		out = append(out, r.Kind)
	}
	return out
}

func woken(a *Agent) bool {
	select {
	case <-a.wake:
		return true
	default:
		return false
	}
}

// Every order holds back, wakes the loop, stands in the journal, and is lifted again; all of it at every level.
func TestAgent_HoldAndLift(t *testing.T) {
	for _, kind := range []node.HoldKind{node.HoldPause, node.HoldKill} {
		for _, level := range []node.Level{node.LevelNode, node.LevelScope, node.LevelAll} {
			t.Run(string(kind)+" "+string(level), func(t *testing.T) {
				a, _ := ordered(t)
				ctx, peer := t.Context(), api.Peer{Name: "root"}
				act := node.Action{Verb: node.SoftKill, Service: "patroni"}
				if err := a.permit(act); err != nil {
					t.Fatal(err)
				}
				h, err := a.Hold(ctx, api.HoldRequest{Level: level, Kind: kind, Owner: "ann", Reason: "r", For: "2h"}, peer)
				if err != nil || h.Until.Sub(h.Since) != 2*time.Hour || !woken(a) || a.permit(act) == nil {
					t.Fatalf("hold %+v, %v, permitted: %v", h, err, a.permit(act))
				}
				if _, err := a.Lift(ctx, api.LiftRequest{Level: level, Kind: kind, Owner: "bob"}, peer); err != nil || !woken(a) || a.permit(act) != nil {
					t.Fatalf("lift: %v, permitted: %v", err, a.permit(act))
				}
				if diff := cmp.Diff([]journal.Kind{journal.Hold, journal.Lift}, a.kinds(t)); diff != "" {
					t.Errorf("journal (-want +got)\n%s", diff)
				}
				_, err = a.Lift(ctx, api.LiftRequest{Level: level, Kind: kind, Owner: "bob"}, peer)
				wantRefusal(t, a, err, http.StatusConflict, 2)
			})
		}
	}
}

func wantRefusal(t *testing.T, a *Agent, err error, status, records int) {
	t.Helper()
	if r, ok := errors.AsType[*api.Refusal](err); !ok || r.Status != status {
		t.Errorf("error %v, want a refusal with %d", err, status)
	}
	if n := len(a.kinds(t)); n != records {
		t.Errorf("%d records, want %d", n, records)
	}
}

func TestAgent_HoldRefused(t *testing.T) {
	good := api.HoldRequest{Level: node.LevelNode, Kind: node.HoldPause, Owner: "ann", Reason: "r", For: "2h"}
	for name, change := range map[string]func(*api.HoldRequest){
		"no reason":     func(q *api.HoldRequest) { q.Reason = "" },
		"no owner":      func(q *api.HoldRequest) { q.Owner = "" },
		"no length":     func(q *api.HoldRequest) { q.For = "" },
		"zero":          func(q *api.HoldRequest) { q.For = "0s" },
		"in the past":   func(q *api.HoldRequest) { q.For = "-1h" },
		"too long":      func(q *api.HoldRequest) { q.For = "721h" },
		"unknown level": func(q *api.HoldRequest) { q.Level = "world" },
		"unknown kind":  func(q *api.HoldRequest) { q.Kind = "stop" },
	} {
		t.Run(name, func(t *testing.T) {
			a, m := ordered(t)
			q := good
			change(&q)
			_, err := a.Hold(t.Context(), q, api.Peer{})
			wantRefusal(t, a, err, http.StatusBadRequest, 0)
			if len(m.set) > 0 {
				t.Errorf("set: %+v", m.set)
			}
		})
	}
}

// The file beside the configuration holds back, and only who put it there lifts it.
func TestAgent_KillSwitchBesideTheConfiguration(t *testing.T) {
	a, _ := ordered(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(a.o.ConfigPath), killSwitchName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.permit(node.Action{}); err == nil {
		t.Error("permitted")
	}
	_, err := a.Lift(t.Context(), api.LiftRequest{Level: node.LevelNode, Kind: node.HoldKill, Owner: "bob"}, api.Peer{})
	wantRefusal(t, a, err, http.StatusBadRequest, 0)
}

func TestAgent_Approve(t *testing.T) {
	a, _ := ordered(t)
	if _, err := a.Approve(t.Context(), api.ApproveRequest{ID: "a1", Owner: "ann"}, api.Peer{}); !errors.Is(err, api.ErrNotReady) {
		t.Fatalf("before the first plan: %v", err)
	}
	refusedPlan := func(id string) node.Plan {
		return node.Plan{Refused: []node.Refusal{{Action: node.Action{ID: id, Class: node.ClassRevive, Finding: node.PatroniHung}}}}
	}
	old := refusedPlan("old")
	a.note(journal.Record{Kind: journal.Plan, Plan: &old})
	a.view.Store(&published{plan: refusedPlan("a1")})
	for id, status := range map[string]int{"old": http.StatusConflict, "foreign": http.StatusNotFound} {
		_, err := a.Approve(t.Context(), api.ApproveRequest{ID: id, Owner: "ann"}, api.Peer{})
		wantRefusal(t, a, err, status, 1)
	}
	if _, err := a.Approve(t.Context(), api.ApproveRequest{ID: "a1", Owner: "ann"}, api.Peer{Name: "root"}); err != nil || !woken(a) {
		t.Fatal(err)
	}
	got := a.orders.Orders(stillHost{}.Now()).Approvals
	if diff := cmp.Diff([]node.Approval{{ActionID: "a1", Owner: "ann", At: stillHost{}.Now()}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
