package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/config"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

// What forbids telling a proxy anything has the name of its guard, and nothing is told before it is known.
func TestAgent_HeldBack(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, a *Agent, shared *memoryHolds)
		want   node.Guard
		words  string
	}{
		"nothing": {func(*testing.T, *Agent, *memoryHolds) {}, "", ""},
		"a pause of this machine": {func(t *testing.T, a *Agent, _ *memoryHolds) {
			if _, err := a.Hold(t.Context(), api.HoldRequest{Kind: node.HoldPause, Level: node.LevelNode, Owner: "ana", Reason: "work", For: "1h"}, api.Peer{}); err != nil {
				t.Fatal(err)
			}
		}, node.GuardPause, "ana"},
		"a pause of the scope": {func(_ *testing.T, _ *Agent, m *memoryHolds) {
			m.set = []node.Hold{{Kind: node.HoldPause, Level: node.LevelScope, Owner: "ben", Reason: "work"}}
		}, node.GuardPause, "ben"},
		"the kill switch": {func(t *testing.T, a *Agent, _ *memoryHolds) {
			if err := os.WriteFile(filepath.Join(a.cfg.StateDir, killSwitchName), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, node.GuardKillSwitch, ""},
		"a hold of a kind that is not known": {func(_ *testing.T, _ *Agent, m *memoryHolds) {
			m.set = []node.Hold{{Kind: "freeze", Level: node.LevelAll, Owner: "cem", Reason: "work"}}
		}, node.GuardKillSwitch, "cem"},
		"etcd is not in use yet": {func(_ *testing.T, a *Agent, _ *memoryHolds) { a.shared.Store(nil) }, node.GuardFreshness, "etcd"},
		"a journal that is closed": {func(_ *testing.T, a *Agent, _ *memoryHolds) {
			if err := a.journal.Close(); err != nil {
				t.Fatal(err)
			}
		}, node.GuardSelfHealth, "journal"},
		"an assertion failed": {func(_ *testing.T, a *Agent, _ *memoryHolds) {
			v := &published{}
			v.question.Snapshot.Self.Assertion = "two plans at once"
			a.view.Store(v)
		}, node.GuardSelfHealth, "two plans at once"},
	} {
		t.Run(name, func(t *testing.T) {
			a, shared := ordered(t)
			tt.change(t, a, shared)
			got := a.heldBack()
			switch {
			case tt.want == "" && got != nil:
				t.Errorf("held back by %s: %s", got.Guard, got.Text)
			case tt.want != "" && (got == nil || got.Guard != tt.want || !strings.Contains(got.Text, tt.words)):
				t.Errorf("got %+v, want %s: ...%s...", got, tt.want, tt.words)
			}
		})
	}
}

// A reload of policy alone makes no new router: the mode is that of the configuration in force.
func TestAgent_Adjusts(t *testing.T) {
	a, _ := ordered(t)
	a.cfg.Policy.Adjust = node.ModeObserve
	a.cfg.Services = []config.Service{{Name: "haproxy", Kind: string(node.KindHAProxy), Policy: config.Policy{Adjust: node.ModeAuto}}, {Name: "other", Kind: string(node.KindHAProxy)}}
	for service, want := range map[string]node.Mode{"haproxy": node.ModeAuto, "other": node.ModeObserve, "gone": node.ModeOff} {
		if got := a.adjusts(service); got != want {
			t.Errorf("%s: %s, want %s", service, got, want)
		}
	}
}

// brokenProxy is a proxy that answers with an error.
type brokenProxy struct {
	proxy.Proxy
	err error
}

func (p brokenProxy) Table(context.Context, ...string) (proxy.Table, error) {
	return proxy.Table{}, p.err
}

// A socket that this agent must not use says nothing of whether HAProxy works (FAULTS.md F89); one that is silent does (F87).
func TestAnswering(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		unknown bool
		want    probe.Outcome
	}{
		"it answers":   {nil, false, probe.OutcomeAnswered},
		"no socket":    {fmt.Errorf("%w: no socket", proxy.ErrNotUsable), true, ""},
		"it is silent": {fmt.Errorf("runtime socket: %w", proxy.ErrSilent), false, probe.OutcomeTimeout},
		"nonsense":     {errors.New("not format version 1"), false, probe.OutcomeBroken},
	} {
		got, err := answering{brokenProxy{err: tt.err}, "bk"}.Probe(t.Context())
		if (err != nil) != tt.unknown || got.Outcome != tt.want || got.OK != (tt.err == nil) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
