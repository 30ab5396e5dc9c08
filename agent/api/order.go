package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Orderer is a [Source] that also takes orders of people. A server whose source is none refuses the paths that need one.
// An order that returns is durable. A *Refusal says that the order was not accepted and changed nothing.
type Orderer interface {
	Hold(ctx context.Context, q HoldRequest, from Peer) (node.Hold, error)
	// Lift returns the hold that it ended.
	Lift(ctx context.Context, q LiftRequest, from Peer) (node.Hold, error)
	Approve(ctx context.Context, q ApproveRequest, from Peer) (node.Approval, error)
}

// HoldRequest orders to do nothing for a while.
type HoldRequest struct {
	Level  node.Level    `json:"level"`
	Kind   node.HoldKind `json:"kind"`
	Owner  string        `json:"owner,omitempty"` // default: the user who asks
	Reason string        `json:"reason"`
	For    string        `json:"for"` // a duration such as 2h or 1h30m
}

// LiftRequest ends a hold.
type LiftRequest struct {
	Level node.Level    `json:"level"`
	Kind  node.HoldKind `json:"kind"`
	Owner string        `json:"owner,omitempty"` // who lifts it; default: the user who asks
}

// ApproveRequest agrees to one action.
type ApproveRequest struct {
	ID    string `json:"id"`
	Owner string `json:"owner,omitempty"` // who agrees; default: the user who asks
}

// Peer is the user who asks, as the kernel tells.
type Peer struct {
	Name string // "" if the kernel does not tell
}

// String names the peer for a record.
func (p Peer) String() string {
	if p.Name == "" {
		return "asked on the socket"
	}
	return "asked on the socket by " + p.Name
}

// Refusal is the error of an order that was not accepted.
type Refusal struct {
	Status int // of HTTP, 400 to 499
	Err    error
}

// Error implements error.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the reason.
func (r *Refusal) Unwrap() error { return r.Err }

// orders adds the paths that only an Orderer answers.
func (s *Server) orders(mux *http.ServeMux) {
	o, ok := s.source.(Orderer)
	if !ok {
		return
	}
	mux.HandleFunc("/v1/hold", post(s, func(ctx context.Context, q HoldRequest, p Peer) (node.Hold, error) {
		q.Owner = or(q.Owner, p.Name)
		return o.Hold(ctx, q, p)
	}))
	mux.HandleFunc("/v1/lift", post(s, func(ctx context.Context, q LiftRequest, p Peer) (node.Hold, error) {
		q.Owner = or(q.Owner, p.Name)
		return o.Lift(ctx, q, p)
	}))
	mux.HandleFunc("/v1/approve", post(s, func(ctx context.Context, q ApproveRequest, p Peer) (node.Approval, error) {
		q.Owner = or(q.Owner, p.Name)
		return o.Approve(ctx, q, p)
	}))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// post is the handler of one order: decode the body, order once, encode.
func post[Q, R any](s *Server, order func(context.Context, Q, Peer) (R, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			s.refuse(w, http.StatusMethodNotAllowed, fmt.Errorf("method %.20q is not allowed: this path takes orders", r.Method))
			return
		}
		q, err := parseOrder[Q](r)
		var reply R
		if err == nil {
			peer, _ := r.Context().Value(peerKey{}).(Peer)
			reply, err = order(r.Context(), q, peer)
		}
		refusal, refused := errors.AsType[*Refusal](err)
		switch {
		case refused:
			s.refuse(w, refusal.Status, err)
		case errors.Is(err, ErrNotReady):
			s.refuse(w, http.StatusServiceUnavailable, err)
		case err != nil:
			s.refuse(w, http.StatusInternalServerError, err)
		default:
			s.reply(w, http.StatusOK, reply)
		}
	}
}

// parseOrder reads an order. It accepts nothing that it does not understand: an order that is misspelt must not be
// carried out by half. A page in a browser cannot send this type of content to a foreign server unasked.
func parseOrder[Q any](r *http.Request) (Q, error) {
	var q, none Q
	if _, err := noParameters(r.URL.RawQuery); err != nil {
		return none, &Refusal{http.StatusBadRequest, err}
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return none, &Refusal{http.StatusUnsupportedMediaType, errors.New("the content must be application/json")}
	}
	body, err := io.ReadAll(r.Body)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return none, &Refusal{http.StatusRequestEntityTooLarge, fmt.Errorf("an order has at most %d bytes", maxBody)}
	}
	if err != nil {
		return none, &Refusal{http.StatusBadRequest, errors.New("the order did not arrive whole")}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return none, &Refusal{http.StatusBadRequest, fmt.Errorf("not an order: %.200q", err.Error())}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return none, &Refusal{http.StatusBadRequest, errors.New("not an order: something follows it")}
	}
	return q, nil
}

// peerKey finds the Peer of a connection in the context of its requests.
type peerKey struct{}

// withPeer remembers who opened a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(c))
}

// Hold orders to do nothing for a while. Besides the errors of Status it returns the agent's reason for a refusal.
func (c *Client) Hold(ctx context.Context, q HoldRequest) (node.Hold, error) {
	return send[node.Hold](ctx, c, "/v1/hold", q)
}

// Lift ends a hold and returns what it was.
func (c *Client) Lift(ctx context.Context, q LiftRequest) (node.Hold, error) {
	return send[node.Hold](ctx, c, "/v1/lift", q)
}

// Approve agrees to one action.
func (c *Client) Approve(ctx context.Context, q ApproveRequest) (node.Approval, error) {
	return send[node.Approval](ctx, c, "/v1/approve", q)
}

func send[R any](ctx context.Context, c *Client, path string, q any) (R, error) {
	var none R
	body, err := json.Marshal(q)
	if err != nil {
		return none, fmt.Errorf("encode order: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://pgpatrol"+path, bytes.NewReader(body))
	if err != nil {
		return none, fmt.Errorf("order the agent: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	return answer[R](c, req)
}
