package docker

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
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Versions of the API: the oldest and the newest whose changes were read for the calls of this package. Engines refuse a
// version that is newer than their own, and since Docker 29 also old ones, so the newest that both know is used.
const (
	oldestMinor = 24
	newestMinor = 55
)

const (
	maxReply   = 4 << 20  // bytes of a container; one with many mounts and labels has some 100 kB
	maxMessage = 16 << 10 // bytes of an error's body
)

// newClient returns the first part of every URL, and a client that goes nowhere but to the engine: no proxy of the
// environment, no redirect.
func newClient(config Config) (string, *http.Client) {
	transport := &http.Transport{DisableCompression: true, MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second}
	base := config.Proxy
	if base == "" {
		base = "http://docker"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", config.Socket)
		}
	}
	return base, &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// containerPath returns the path of a call about a container whose name was checked.
func containerPath(name, what string) string { return "/containers/" + name + "/" + what }

// reply is a complete answer.
type reply struct {
	body []byte
	date time.Time // the engine's clock when it answered, to the second below; zero if it did not say
}

// get reads the whole answer to a question.
func (m *Manager) get(ctx context.Context, path string, query url.Values) (reply, error) {
	resp, err := m.call(ctx, http.MethodGet, path, query)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := readAll(resp.Body, maxReply)
	if err != nil {
		return reply{}, m.lost(ctx, "GET "+path, err)
	}
	return reply{body: body, date: date(resp)}, nil
}

// post gives an order.
func (m *Manager) post(ctx context.Context, path string) error {
	resp, err := m.call(ctx, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// call sends a request in the version of the API that both sides know, and returns an answer of success.
func (m *Manager) call(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	version, err := m.negotiate(ctx)
	if err != nil {
		return nil, err
	}
	target := "/v" + version + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	resp, err := m.send(ctx, method, target)
	if err != nil {
		return nil, m.lost(ctx, method+" "+path, err)
	}
	if ok := resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusNotModified; ok {
		return resp, nil
	}
	defer resp.Body.Close()
	err = refusal(resp)
	if errors.Is(err, service.ErrUnavailable) { // no engine behind the proxy, or another one than before
		m.forget()
	}
	return nil, fmt.Errorf("%s %s: %w", method, path, err)
}

// negotiate returns the version of the API, after a question to the engine if none was asked yet.
func (m *Manager) negotiate(ctx context.Context) (string, error) {
	m.mu.Lock()
	version := m.version
	m.mu.Unlock()
	if version != "" {
		return version, nil
	}
	version, _, err := m.ping(ctx)
	return version, err
}

// ping asks the engine for its version of the API and its clock, remembers the newest version that both sides know, and
// returns both.
func (m *Manager) ping(ctx context.Context) (string, time.Time, error) {
	const call = "GET /_ping"
	resp, err := m.send(ctx, http.MethodGet, "/_ping")
	if err != nil {
		return "", time.Time{}, m.lost(ctx, call, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", time.Time{}, fmt.Errorf("%s: %w", call, refusal(resp))
	}
	if _, err := readAll(resp.Body, maxMessage); err != nil {
		return "", time.Time{}, m.lost(ctx, call, err)
	}
	version, err := choose(resp.Header.Get("Api-Version"))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%s: %w: %w", call, service.ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.version == "" {
		m.log.Debug("connected to docker", "api_version", version)
	}
	m.version = version
	if m.since.IsZero() {
		m.since = time.Now()
	}
	return version, date(resp), nil
}

// choose returns the newest version that both sides know.
func choose(engine string) (string, error) {
	digits, ok := strings.CutPrefix(engine, "1.")
	minor, err := strconv.ParseUint(digits, 10, 16)
	switch {
	case engine == "":
		return "", errors.New("no version of the Docker API in the answer")
	case !ok || err != nil:
		return "", fmt.Errorf("version %.20q of the Docker API is unknown", engine)
	case minor < oldestMinor:
		return "", fmt.Errorf("version %s of the Docker API is older than 1.%d", engine, oldestMinor)
	}
	return "1." + strconv.FormatUint(min(minor, newestMinor), 10), nil
}

func (m *Manager) send(ctx context.Context, method, target string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+target, http.NoBody)
	if err != nil {
		return nil, err
	}
	return m.http.Do(req)
}

// lost wraps the error of a call that got no whole answer, and forgets the engine.
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
		return fmt.Errorf("%s: %w: %w", call, service.ErrPermission, err)
	default:
		m.forget()
	}
	return fmt.Errorf("%s: %w: %w", call, service.ErrUnavailable, err)
}

// forget makes the next call begin anew.
func (m *Manager) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version, m.since = "", time.Time{}
}

// refusal returns what an answer other than success means. Everything that Docker itself says is JSON with a message.
func refusal(resp *http.Response) error {
	body, err := readAll(resp.Body, maxMessage)
	var said struct{ Message string }
	docker := err == nil && json.Unmarshal(body, &said) == nil && said.Message != ""
	text := fmt.Sprintf("%d", resp.StatusCode)
	if docker {
		text += ", " + oneLine(said.Message)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		return fmt.Errorf("%w: refused (%s)", service.ErrPermission, text)
	case code/100 == 3, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %s", service.ErrUnavailable, text)
	case !docker:
		return fmt.Errorf("%w: %s, and not in Docker's words", service.ErrUnavailable, text)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %s", service.ErrNotFound, text)
	case code == http.StatusConflict:
		return fmt.Errorf("%w: %s", service.ErrBusy, text)
	case code == http.StatusBadRequest && strings.Contains(said.Message, "client version"):
		return fmt.Errorf("%w: %s", service.ErrUnavailable, text)
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

// date returns the engine's clock.
func date(resp *http.Response) time.Time {
	t, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// oneLine makes foreign text fit for a log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "..."
	}
	return s
}
