package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/user"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// fakeOrderer remembers what it was ordered.
type fakeOrderer struct {
	fakeSource
	got  []any
	from Peer
	err  error
}

func (f *fakeOrderer) take(q any, p Peer) error {
	f.got, f.from = append(f.got, q), p
	return f.err
}

func (f *fakeOrderer) Hold(_ context.Context, q HoldRequest, p Peer) (node.Hold, error) {
	return node.Hold{Kind: q.Kind, Level: q.Level, Owner: q.Owner, Reason: q.Reason}, f.take(q, p)
}

func (f *fakeOrderer) Lift(_ context.Context, q LiftRequest, p Peer) (node.Hold, error) {
	return node.Hold{Kind: q.Kind, Level: q.Level}, f.take(q, p)
}

func (f *fakeOrderer) Approve(_ context.Context, q ApproveRequest, p Peer) (node.Approval, error) {
	return node.Approval{ActionID: q.ID, Owner: q.Owner}, f.take(q, p)
}

// The kernel tells who asks, and that name stands where none is given.
func TestOrders_RoundTrip(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	f := &fakeOrderer{}
	c, ctx := NewClient(run(t, f)), t.Context()
	h, err1 := c.Hold(ctx, HoldRequest{Level: node.LevelNode, Kind: node.HoldPause, Reason: "r", For: "2h"})
	l, err2 := c.Lift(ctx, LiftRequest{Level: node.LevelScope, Kind: node.HoldKill, Owner: "ann"})
	a, err3 := c.Approve(ctx, ApproveRequest{ID: "a1"})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	want := []any{
		HoldRequest{Level: node.LevelNode, Kind: node.HoldPause, Owner: me.Username, Reason: "r", For: "2h"},
		LiftRequest{Level: node.LevelScope, Kind: node.HoldKill, Owner: "ann"},
		ApproveRequest{ID: "a1", Owner: me.Username},
	}
	if diff := cmp.Diff(want, f.got); diff != "" {
		t.Errorf("orders (-want +got)\n%s", diff)
	}
	if f.from.Name != me.Username || h.Owner != me.Username || l.Level != node.LevelScope || a.ActionID != "a1" {
		t.Errorf("from %+v: %+v, %+v, %+v", f.from, h, l, a)
	}
}

func TestOrders_Refusals(t *testing.T) {
	const good = `{"level":"node","kind":"pause","reason":"r","for":"2h"}`
	for name, tc := range map[string]struct {
		method, target, content, body string
		err                           error
		status                        int
		text                          string
		reached                       bool
	}{
		"fine":            {"POST", "/v1/hold", "application/json", good, nil, 200, "pause", true},
		"charset":         {"POST", "/v1/hold", "application/json; charset=utf-8", good, nil, 200, "pause", true},
		"reading":         {"GET", "/v1/hold", "", "", nil, 405, "takes orders", false},
		"form":            {"POST", "/v1/hold", "application/x-www-form-urlencoded", good, nil, 415, "application/json", false},
		"text":            {"POST", "/v1/lift", "text/plain", good, nil, 415, "application/json", false},
		"no type":         {"POST", "/v1/approve", "", good, nil, 415, "application/json", false},
		"parameter":       {"POST", "/v1/hold?x=1", "application/json", good, nil, 400, "unknown parameter", false},
		"unknown field":   {"POST", "/v1/hold", "application/json", `{"levl":"node"}`, nil, 400, "levl", false},
		"nothing":         {"POST", "/v1/hold", "application/json", ``, nil, 400, "not an order", false},
		"a list":          {"POST", "/v1/hold", "application/json", `[]`, nil, 400, "not an order", false},
		"two":             {"POST", "/v1/hold", "application/json", good + good, nil, 400, "something follows", false},
		"other type":      {"POST", "/v1/approve", "application/json", `{"id":7}`, nil, 400, "not an order", false},
		"too long":        {"POST", "/v1/hold", "application/json", `{"reason":"` + strings.Repeat("x", maxBody) + `"}`, nil, 413, "4096 bytes", false},
		"refused":         {"POST", "/v1/approve", "application/json", `{"id":"x"}`, &Refusal{409, errors.New("already done")}, 409, "already done", true},
		"not ready":       {"POST", "/v1/approve", "application/json", `{"id":"x"}`, ErrNotReady, 503, "not decided", true},
		"failed":          {"POST", "/v1/hold", "application/json", good, errors.New("disk full"), 500, "disk full", true},
		"control":         {"POST", "/v1/hold", "application/json", "{\"\x1b[31m\":1}", nil, 400, "not an order", false},
		"reading history": {"POST", "/v1/history", "application/json", "{}", nil, 405, "only reads", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, w := &fakeOrderer{err: tc.err}, httptest.NewRecorder()
			r := httptest.NewRequest(tc.method, tc.target, strings.NewReader(tc.body))
			if tc.content != "" {
				r.Header.Set("Content-Type", tc.content)
			}
			handler(f).ServeHTTP(w, r)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.text) || strings.ContainsRune(w.Body.String(), '\x1b') {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, tc.status, tc.text)
			}
			if reached := len(f.got) > 0; reached != tc.reached {
				t.Errorf("order reached the agent: %v", reached)
			}
		})
	}
}

func TestOrders_SourceTakesNone(t *testing.T) {
	if w := request(filled(), http.MethodPost, "/v1/hold", "{}"); w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
}

func FuzzParseOrder(f *testing.F) {
	f.Add("application/json", `{"level":"node","kind":"pause","owner":"ann","reason":"r","for":"2h"}`)
	f.Add("application/json; charset=utf-8", `{}`)
	f.Add("text/plain", `{"for":1}`)
	f.Fuzz(func(t *testing.T, content, body string) {
		fake, w := &fakeOrderer{}, httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/v1/hold", strings.NewReader(body))
		r.Header.Set("Content-Type", content)
		NewServer(fake, Config{}, slog.New(slog.DiscardHandler)).Handler().ServeHTTP(w, r)
		if (w.Code == http.StatusOK) != (len(fake.got) == 1) || w.Code >= http.StatusInternalServerError {
			t.Fatalf("%d orders, answer %d %s", len(fake.got), w.Code, w.Body)
		}
	})
}
