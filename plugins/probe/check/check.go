// Package check looks whether a service does what it is for, as its operator says: an address takes a connection, a URL
// answers, a command succeeds.
//
// It promises to follow no redirect and no proxy, to run no shell, and to repeat nothing that an answer or a command
// says, which may be a secret. A command that could not be run, or did not come to its own end, has found out nothing:
// that is an error, never "not OK".
package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

var _ probe.Prober[probe.Check] = (*Check)(nil)

// Defaults of how long a check may take.
const (
	DefaultTimeout        = 2 * time.Second  // of a connection or a request
	DefaultCommandTimeout = 10 * time.Second // of a command
)

// Runner runs a command to its end; service.Runner is one.
type Runner interface {
	Run(ctx context.Context, c service.Command) (service.Output, error)
}

// Config says what to check. Exactly one of the first three is set.
type Config struct {
	TCP     string        // host:port
	HTTP    string        // URL
	Command []string      // program and arguments
	Timeout time.Duration // DefaultTimeout or DefaultCommandTimeout if 0
}

// Validate reports every reason why this is no check. It does not repeat the URL or the command, which may hold a
// secret.
func (c Config) Validate() error {
	_, err := New(c, Deps{Runner: service.Runner{}})
	return err
}

// Deps is what a Check needs.
type Deps struct {
	Runner Runner      // for a command
	TLS    *tls.Config // for an https URL; nil for the system's roots and no client certificate
}

// Check is one check of a service.
type Check struct {
	endpoint *probe.Endpoint // nil for a command
	path     string          // of a URL, with its query; empty for a mere connection
	command  []string
	timeout  time.Duration // of the command
	runner   Runner
}

// New returns a prober for a check.
func New(c Config, d Deps) (*Check, error) {
	p, err := build(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure check: %w", err)
	}
	return p, nil
}

func build(c Config, d Deps) (*Check, error) {
	kinds := 0
	for _, set := range []bool{c.TCP != "", c.HTTP != "", len(c.Command) > 0} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, fmt.Errorf("%d of tcp, http and command are set instead of one", kinds)
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
		if len(c.Command) > 0 {
			timeout = DefaultCommandTimeout
		}
	}
	switch {
	case c.TCP != "":
		e, err := probe.NewEndpoint("http://"+c.TCP, timeout, nil)
		if err != nil {
			return nil, fmt.Errorf("tcp: %w", err)
		}
		return &Check{endpoint: e}, nil
	case c.HTTP != "":
		return buildHTTP(c.HTTP, timeout, d.TLS)
	}
	if name := c.Command[0]; !filepath.IsAbs(name) && (name != filepath.Base(name) || name == "." || name == "..") {
		return nil, errors.New("command: the program is neither an absolute path nor a bare name")
	}
	if timeout < 0 || d.Runner == nil {
		return nil, errors.New("command: needs a timeout and a runner")
	}
	return &Check{command: c.Command, timeout: timeout, runner: d.Runner}, nil
}

// buildHTTP splits a URL into what NewEndpoint wants and the path.
func buildHTTP(rawURL string, timeout time.Duration, t *tls.Config) (*Check, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("http: url is not one") // the cause quotes it
	}
	path := u.RequestURI()
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("http: url has no path")
	}
	u.Path, u.RawPath, u.RawQuery, u.ForceQuery = "", "", "", false
	if port := map[string]string{"http": "80", "https": "443"}[u.Scheme]; u.Port() == "" && port != "" && u.Hostname() != "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	e, err := probe.NewEndpoint(u.String(), timeout, t)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	return &Check{endpoint: e.Speaking("http/1.1"), path: path}, nil
}

// Probe implements probe.Prober.
func (c *Check) Probe(ctx context.Context) (probe.Check, error) {
	switch {
	case c.endpoint == nil:
		return c.run(ctx)
	case c.path == "":
		outcome, detail, err := c.endpoint.Ask(ctx, func(context.Context, net.Conn) error { return nil })
		return probe.Check{Outcome: outcome, OK: outcome == probe.OutcomeAnswered, Detail: detail}, err
	}
	r, err := c.endpoint.Get(ctx, c.path, 0)
	if err != nil {
		return probe.Check{}, err
	}
	if r.Outcome != probe.OutcomeAnswered {
		return probe.Check{Outcome: r.Outcome, Detail: r.Detail}, nil
	}
	return probe.Check{Outcome: r.Outcome, OK: r.Status < 400, Detail: "status " + strconv.Itoa(r.Status)}, nil
}

// run runs the command as the agent's own user.
func (c *Check) run(ctx context.Context) (probe.Check, error) {
	if err := ctx.Err(); err != nil {
		return probe.Check{}, err
	}
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	out, err := c.runner.Run(limited, service.Command{Path: c.command[0], Args: c.command[1:], Limit: 1})
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return probe.Check{}, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return probe.Check{Outcome: probe.OutcomeTimeout, Detail: "the command did not end within the limit"}, nil
	case err != nil:
		return probe.Check{}, fmt.Errorf("run check: %w", err)
	}
	return judge(out.ExitCode)
}

// judge says what an exit code means. Shells and the runner give 126 and 127 to a program that could not be started, and
// 128+n to one that died of signal n: the check is broken then, and says nothing of the service.
func judge(code int) (probe.Check, error) {
	const lastSignal = 64
	if code == 126 || code == 127 || (code > 128 && code <= 128+lastSignal) || code < 0 {
		return probe.Check{}, fmt.Errorf("run check: the command ended with code %d: it did not run to its own end", code)
	}
	return probe.Check{Outcome: probe.OutcomeAnswered, OK: code == 0, Detail: "exit code " + strconv.Itoa(code)}, nil
}
