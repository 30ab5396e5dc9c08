package patroni

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// DefaultTimeout is how long an answer of the API may take.
const DefaultTimeout = 1500 * time.Millisecond

// APIConfig says where the API is.
type APIConfig struct {
	URL     string        // scheme, host and port: "http://10.100.2.5:8008"
	Timeout time.Duration // DefaultTimeout if 0
}

// Validate reports every reason why this cannot be the address of an API.
func (c APIConfig) Validate() error {
	var errs []error
	if c.Timeout < 0 {
		errs = append(errs, errors.New("timeout is negative"))
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return errors.Join(append(errs, errors.New("url is not one"))...) // the cause quotes it, with a password if it has one
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, errors.New("url is neither http nor https"))
	}
	if u.Hostname() == "" || u.Port() == "" {
		errs = append(errs, errors.New("url has no host and port"))
	}
	if u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		errs = append(errs, errors.New("url has more than scheme, host and port"))
	}
	return errors.Join(errs...)
}

// APIDeps is what probes of the API need.
type APIDeps struct {
	TLS *tls.Config // for https; nil for the system's roots and no client certificate
}

// client asks one API. Every request has a connection of its own: one that is kept open would not notice that nobody
// listens any more. http.Transport is not used: it dials in the background, keeps goroutines, follows the environment,
// and writes what it does not expect to the standard logger.
type client struct {
	host    string      // with port
	tls     *tls.Config // nil for plain HTTP
	timeout time.Duration
}

func newClient(c APIConfig, d APIDeps) (*client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("url is not one")
	}
	cl := &client{host: u.Host, timeout: c.Timeout}
	if cl.timeout == 0 {
		cl.timeout = DefaultTimeout
	}
	if u.Scheme == "https" {
		cl.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if d.TLS != nil {
			cl.tls = d.TLS.Clone()
		}
		if cl.tls.ServerName == "" {
			cl.tls.ServerName = u.Hostname()
		}
	}
	return cl, nil
}

// maxHeader bounds the header of an answer.
const maxHeader = 64 << 10

// answer is how a request ended.
type answer struct {
	outcome probe.Outcome
	detail  string
	status  int
	body    []byte // at most one byte more than the limit
}

// get asks for a path and reads up to limit bytes of the answer. An error means that nothing was observed.
//
// What is not known to be the API's doing is such an error: no route, no address for a name, no file descriptor left, a
// certificate that is not trusted. An observation can end in a restart.
func (c *client) get(ctx context.Context, path string, limit int64) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, err
	}
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	a, err := c.exchange(limited, path, limit)
	if errors.Is(ctx.Err(), context.Canceled) {
		return answer{}, ctx.Err()
	}
	if err == nil {
		return a, nil
	}
	var network net.Error
	switch {
	case errors.Is(err, errNotHTTP):
		return answer{outcome: probe.OutcomeBroken, detail: errNotHTTP.Error()}, nil
	case errors.As(err, new(*net.DNSError)): // a name server that is silent is not a Patroni that is
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return answer{outcome: probe.OutcomeTimeout, detail: "no answer within the limit"}, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return answer{outcome: probe.OutcomeRefused, detail: "connection refused"}, nil
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return answer{outcome: probe.OutcomeBroken, detail: "the connection ended early"}, nil
	}
	return answer{}, fmt.Errorf("ask %s: %w", path, err)
}

var (
	errNotHTTP = errors.New("the answer is not HTTP")
	errTLS     = errors.New("the server speaks TLS, the url says http")
)

// exchange sends one request over a connection of its own and reads the answer.
func (c *client) exchange(ctx context.Context, path string, limit int64) (answer, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.host)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close() // nothing is left to be lost
	if c.tls != nil {
		secure := tls.Client(conn, c.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return answer{}, err
		}
		conn = secure
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // closed then
	defer stop()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.host+path, nil)
	if err != nil {
		return answer{}, err
	}
	request.Close = true
	request.Header.Set("User-Agent", "pgpatrol")
	if err := request.Write(conn); err != nil {
		return answer{}, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxHeader+limit+1))
	first, err := r.Peek(2)
	if err != nil {
		return answer{}, err
	}
	if first[0] == 0x15 && first[1] == 0x03 { // a TLS alert
		return answer{}, errTLS
	}
	response, err := http.ReadResponse(r, request)
	if err != nil {
		return answer{}, notHTTP(ctx, err)
	}
	defer response.Body.Close()
	a := answer{outcome: probe.OutcomeAnswered, status: response.StatusCode}
	if limit == 0 {
		return a, nil
	}
	if a.body, err = io.ReadAll(io.LimitReader(response.Body, limit+1)); err != nil {
		return answer{}, notHTTP(ctx, err)
	}
	return a, nil
}

// notHTTP keeps the failure of a connection and replaces every other error: the network worked, so it is the answer
// that makes no sense, and the error's text quotes what anybody may have written. The parser takes half a line that a
// deadline cut off for a whole one, so the context is asked first.
func notHTTP(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errNotHTTP
}
