package incus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const (
	maxReply   = 4 << 20  // bytes of an answer; an instance with many devices has some 20 kB
	maxMessage = 16 << 10 // bytes of an error's body
)

// base is the first part of every URL. The host means nothing: it is always the socket that is called.
const base = "http://incus"

// newClient returns a client that goes nowhere but to the daemon's socket: no proxy of the environment, no redirect.
func newClient(socket string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableCompression: true, MaxIdleConns: 4,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get asks a question and returns what the answer is about.
func (m *Manager) get(ctx context.Context, path string, query url.Values) (json.RawMessage, error) {
	r, err := m.call(ctx, http.MethodGet, path, query, nil)
	return r.Metadata, err
}

// order gives an order and returns the operation that carries it out, as it was when it began.
func (m *Manager) order(ctx context.Context, method, path string, body any) (operation, error) {
	r, err := m.call(ctx, method, path, nil, body)
	if err != nil {
		return operation{}, err
	}
	op, err := parseOperation(r.Metadata)
	if err != nil {
		return operation{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return op, nil
}

// wait returns when an operation has ended, with its error. When ctx ends first, the operation goes on.
func (m *Manager) wait(ctx context.Context, id string) error {
	path := "/1.0/operations/" + id + "/wait"
	body, err := m.get(ctx, path, nil)
	if err != nil {
		return err
	}
	op, err := parseOperation(body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return op.failure()
}

// reply is the envelope of every answer.
type reply struct {
	Type     string          `json:"type"` // sync, async or error
	Metadata json.RawMessage `json:"metadata"`
	Error    string          `json:"error"`
}

func parseReply(body []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		return reply{}, fmt.Errorf("%w: the answer is not Incus's: %w", service.ErrUnavailable, err)
	}
	switch r.Type {
	case "sync", "async", "error":
		return r, nil
	}
	return reply{}, fmt.Errorf("%w: the answer is not Incus's: type %.20q", service.ErrUnavailable, r.Type)
}

// call sends a request for the configured project and returns an answer of success.
func (m *Manager) call(ctx context.Context, method, path string, query url.Values, body any) (reply, error) {
	call := method + " " + path
	var send io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return reply{}, fmt.Errorf("%s: %w", call, err)
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.url(path, query), send)
	if err != nil {
		return reply{}, fmt.Errorf("%s: %w", call, err)
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return reply{}, m.lost(ctx, call, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return reply{}, fmt.Errorf("%s: %w", call, refusal(resp))
	}
	text, err := readAll(resp.Body, maxReply)
	if err != nil {
		return reply{}, m.lost(ctx, call, err)
	}
	r, err := parseReply(text)
	if err == nil && r.Type == "error" {
		err = errors.New(oneLine(r.Error))
	}
	if err != nil {
		return reply{}, fmt.Errorf("%s: %w", call, err)
	}
	m.answered()
	return r, nil
}

// url returns the address of a call. Names in the path were checked.
func (m *Manager) url(path string, query url.Values) string {
	all := url.Values{"project": {m.config.Project}}
	for k, v := range query {
		all[k] = v
	}
	return base + path + "?" + all.Encode()
}

// lost wraps the error of a call that got no whole answer, and forgets the daemon.
func (m *Manager) lost(ctx context.Context, call string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which call says better
	}
	switch ctxErr := ctx.Err(); {
	case errors.Is(ctxErr, context.Canceled):
		return fmt.Errorf("%s: %w", call, ctxErr)
	case ctxErr != nil:
		err = ctxErr
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w: %w: root, or a member of the socket's group, may", call, service.ErrPermission, err)
	default:
		m.forget()
	}
	return fmt.Errorf("%s: %w: %w", call, service.ErrUnavailable, err)
}

// refusal returns what an answer other than success means. Everything that Incus itself says is JSON of type error.
func refusal(resp *http.Response) error {
	body, err := readAll(resp.Body, maxMessage)
	text := fmt.Sprintf("%d", resp.StatusCode)
	r, parseErr := parseReply(body)
	incus := err == nil && parseErr == nil && r.Type == "error"
	if incus {
		text += ", " + oneLine(r.Error)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		return fmt.Errorf("%w: refused (%s)", service.ErrPermission, text)
	case code/100 == 3, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %s", service.ErrUnavailable, text) // 503 is what a daemon says that starts or shuts down
	case !incus:
		return fmt.Errorf("%w: %s, and not in Incus's words", service.ErrUnavailable, text)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %s", service.ErrNotFound, text)
	}
	return errors.New(text)
}

// readAll reads at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("the answer has more than %d bytes", limit)
	}
	return b.Bytes(), err
}

// oneLine makes foreign text fit for a log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "..."
	}
	return s
}
