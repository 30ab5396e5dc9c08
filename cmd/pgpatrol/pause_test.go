package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/api"
	"github.com/pgpatrol/pgpatrol/agent/node"
)

// held is a status with every order there can be.
func held() api.Status {
	s := healthy()
	since := time.Date(2026, 4, 8, 12, 0, 0, 0, time.Local)
	s.Snapshot.Orders = node.Orders{
		Holds: []node.Hold{
			{Kind: node.HoldPause, Level: node.LevelNode, Owner: "ann", Reason: "disk swap \x1b[31m", Since: since, Until: since.Add(2 * time.Hour)},
			{Kind: node.HoldKill, Level: node.LevelNode, Owner: node.Unknown, Reason: "/etc/pgpatrol/kill-switch is there"},
		},
		Unreadable: "/var/lib/pgpatrol/kill-switch is there and not intelligible",
	}
	s.Snapshot.DCS.Shared.Value.Holds = []node.Hold{{Kind: node.HoldPause, Level: node.LevelAll, Owner: "bob", Reason: "move", Until: since}}
	s.Snapshot.DCS.Shared.Why = "not refreshed: permission denied"
	return s
}

func orderRecords() []api.Record {
	wall := time.Date(2026, 4, 8, 12, 0, 0, 0, time.Local)
	h := node.Hold{Kind: node.HoldPause, Level: node.LevelNode, Owner: "ann", Reason: "disk swap", Until: time.Date(2026, 4, 8, 14, 0, 0, 0, time.UTC)}
	return []api.Record{
		{Seq: 1, Wall: wall, Kind: "hold", Hold: &h, Text: "asked on the socket by root"},
		{Seq: 2, Wall: wall, Kind: "lift", Hold: &h, Text: "lifted by bob asked on the socket by root"},
		{Seq: 3, Wall: wall, Kind: "approve", Approval: &node.Approval{ActionID: "a1", Owner: "ann"}, Text: "asked on the socket by root"},
	}
}

// orderer takes every order and remembers it.
type orderer struct {
	api.Source
	got []any
	err error
}

func (o *orderer) Hold(_ context.Context, q api.HoldRequest, _ api.Peer) (node.Hold, error) {
	o.got = append(o.got, q)
	return node.Hold{Kind: q.Kind, Level: q.Level, Owner: q.Owner, Reason: q.Reason}, o.err
}

func (o *orderer) Lift(_ context.Context, q api.LiftRequest, _ api.Peer) (node.Hold, error) {
	o.got = append(o.got, q)
	return node.Hold{Kind: q.Kind, Level: q.Level, Owner: "ann", Reason: "r"}, o.err
}

func (o *orderer) Approve(_ context.Context, q api.ApproveRequest, _ api.Peer) (node.Approval, error) {
	o.got = append(o.got, q)
	return node.Approval{ActionID: q.ID, Owner: q.Owner}, o.err
}

// serve answers on a socket until the test ends.
func serve(t *testing.T, o *orderer) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- api.NewServer(o, api.Config{Socket: socket}, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for range 200 {
		if _, err := api.NewClient(socket).Version(ctx); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return socket
}

func TestOrders_Commands(t *testing.T) {
	for line, tc := range map[string]struct {
		want any
		err  error
		code int
		says string
	}{
		"pause --reason r --for 2h --owner ann":                     {api.HoldRequest{Level: node.LevelNode, Kind: node.HoldPause, Owner: "ann", Reason: "r", For: "2h0m0s"}, nil, 0, "pause of this machine until a person lifts it, by ann: r"},
		"pause --reason r --for 7d --owner ann --scope":             {api.HoldRequest{Level: node.LevelScope, Kind: node.HoldPause, Owner: "ann", Reason: "r", For: "168h0m0s"}, nil, 0, "of this Patroni cluster"},
		"kill-switch on --everything --reason r --for 1h --owner a": {api.HoldRequest{Level: node.LevelAll, Kind: node.HoldKill, Owner: "a", Reason: "r", For: "1h0m0s"}, nil, 0, "kill-switch of everything"},
		"resume --owner ann":                                        {api.LiftRequest{Level: node.LevelNode, Kind: node.HoldPause, Owner: "ann"}, nil, 0, "lifted: pause of this machine"},
		"kill-switch off --scope --owner ann":                       {api.LiftRequest{Level: node.LevelScope, Kind: node.HoldKill, Owner: "ann"}, nil, 0, "lifted: kill-switch of this Patroni cluster"},
		"approve a1 --owner ann":                                    {api.ApproveRequest{ID: "a1", Owner: "ann"}, nil, 0, "a1 is approved by ann for 2 min 0 s"},
		"approve a1 --owner ann --json":                             {api.ApproveRequest{ID: "a1", Owner: "ann"}, nil, 0, `"action_id": "a1"`},
		"approve a2 --owner ann":                                    {api.ApproveRequest{ID: "a2", Owner: "ann"}, &api.Refusal{Status: 404, Err: errors.New("never proposed")}, 1, "never proposed"},
		"approve":                                                   {nil, nil, 2, "give the ID"},
		"pause --for 2h":                                            {nil, nil, 2, "--reason is missing"},
		"pause --reason r":                                          {nil, nil, 2, "--for is missing"},
		"pause --reason r --for 31d":                                {nil, nil, 2, "from 1s to 30d"},
		"pause --reason r --for -2h":                                {nil, nil, 2, "from 1s to 30d"},
		"pause --reason r --for 2h --scope --everything":            {nil, nil, 2, "exclude each other"},
		"resume --everything --scope":                               {nil, nil, 2, "exclude each other"},
		"kill-switch":                                               {nil, nil, 2, "on or off"},
		"kill-switch of":                                            {nil, nil, 2, "on or off"},
		"kill-switch off --for 2h":                                  {nil, nil, 2, "go with on"},
		"resume now":                                                {nil, nil, 2, `unexpected argument "now"`},
	} {
		t.Run(line, func(t *testing.T) {
			o := &orderer{err: tc.err}
			var out, errs bytes.Buffer
			code := run(t.Context(), &env{out: &out, err: &errs}, append(strings.Fields(line), "--socket", serve(t, o)))
			if all := out.String() + errs.String(); code != tc.code || !strings.Contains(all, tc.says) {
				t.Errorf("exit code %d, want %d, with %q: %s", code, tc.code, tc.says, all)
			}
			var want []any
			if tc.want != nil {
				want = []any{tc.want}
			}
			if diff := cmp.Diff(want, o.got); diff != "" {
				t.Errorf("orders (-want +got)\n%s", diff)
			}
		})
	}
}
