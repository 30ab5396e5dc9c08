package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Sentinel errors of a client. Compare with errors.Is.
var (
	// ErrNoAgent says that nothing listens on the socket.
	ErrNoAgent = errors.New("no agent answers")
	// ErrForbidden says that this user may not use the socket.
	ErrForbidden = errors.New("not permitted")
	// ErrSilent says that something listens and did not answer in time.
	ErrSilent = errors.New("the agent does not answer in time")
)

const (
	askLimit = 10 * time.Second
	maxReply = 64 << 20
)

// Client asks the agent of this machine. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the agent on that socket. It connects to nothing yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{
		Timeout:       askLimit,
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Status asks for everything the agent knows. Errors wrap ErrNoAgent, ErrForbidden, ErrSilent or ErrNotReady where one
// fits; so do those of the other methods.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "/v1/status")
}

// Plan asks for the latest decision.
func (c *Client) Plan(ctx context.Context) (PlanReply, error) {
	return ask[PlanReply](ctx, c, "/v1/plan")
}

// History asks for records of the journal.
func (c *Client) History(ctx context.Context, q HistoryQuery) (History, error) {
	return ask[History](ctx, c, "/v1/history?"+q.encode())
}

// Version asks which version the agent is.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return ask[Version](ctx, c, "/v1/version")
}

func ask[R any](ctx context.Context, c *Client, path string) (R, error) {
	var none R
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pgpatrol"+path, http.NoBody)
	if err != nil {
		return none, fmt.Errorf("ask the agent: %w", err)
	}
	return answer[R](c, req)
}

// answer sends a request and reads the reply.
func answer[R any](c *Client, req *http.Request) (R, error) {
	var none R
	resp, err := c.http.Do(req)
	if err != nil {
		return none, c.explain(err)
	}
	defer resp.Body.Close()
	r, err := decode[R](resp.StatusCode, resp.Body)
	if err != nil {
		return none, fmt.Errorf("ask the agent on %s: %w", c.socket, err)
	}
	return r, nil
}

// explain turns an error of the connection into what a person can do about it.
func (c *Client) explain(err error) error {
	ne, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: is pgpatrol.service running?  (systemctl status pgpatrol)", ErrNoAgent, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w to use %s: run this as root or as a member of the socket's group  (ls -l %s)", ErrForbidden, c.socket, c.socket)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("ask the agent on %s: %w", c.socket, context.Canceled)
	case isNet && ne.Timeout():
		return fmt.Errorf("%w on %s: it may be starved or stopped  (systemctl status pgpatrol)", ErrSilent, c.socket)
	}
	return fmt.Errorf("ask the agent on %s: %w", c.socket, err)
}

// decode reads a reply. Members that this version does not know are ignored: the agent may be newer.
func decode[R any](status int, body io.Reader) (R, error) {
	var r, none R
	b, err := io.ReadAll(io.LimitReader(body, maxReply+1))
	switch {
	case err != nil:
		return none, fmt.Errorf("read reply: %w", err)
	case len(b) > maxReply:
		return none, fmt.Errorf("read reply: longer than %d bytes", maxReply)
	case status == http.StatusOK:
		if err := json.Unmarshal(b, &r); err != nil {
			return none, fmt.Errorf("understand reply: %w", err)
		}
		return r, nil
	}
	var p Problem
	if err := json.Unmarshal(b, &p); err != nil || p.Error == "" {
		return none, fmt.Errorf("it answers with HTTP status %d and no reason; is it a pgpatrol agent?", status)
	}
	if status == http.StatusServiceUnavailable && p.Error == ErrNotReady.Error() {
		return none, ErrNotReady
	}
	return none, errors.New(p.Error)
}
