package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// Endpoint is one address that can be asked. Every question has a connection of its own: one that is kept open would
// not notice that nobody listens any more, nor that a forwarder has died which hands each connection to a child of its
// own, as socat does. It is safe for concurrent use.
type Endpoint struct {
	host    string      // with port
	tls     *tls.Config // nil for plain
	timeout time.Duration
}

// NewEndpoint returns what a URL of scheme, host and port names ("http://10.100.2.5:8008"). A question may take timeout
// from the connect to the last byte of the answer. t is used for https, nil for the system's roots and no client
// certificate. The error has every reason why there is no such endpoint and never repeats the URL.
func NewEndpoint(rawURL string, timeout time.Duration, t *tls.Config) (*Endpoint, error) {
	var errs []error
	if timeout <= 0 {
		errs = append(errs, errors.New("timeout is not positive"))
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.Join(append(errs, errors.New("url is not one"))...) // the cause quotes it, with a password if it has one
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, errors.New("url is neither http nor https"))
	}
	host, port, err := net.SplitHostPort(u.Host)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
		errs = append(errs, errors.New("url has no host and port"))
	}
	if u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		errs = append(errs, errors.New("url has more than scheme, host and port"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	e := &Endpoint{host: u.Host, timeout: timeout}
	if u.Scheme == "https" {
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if t != nil {
			e.tls = t.Clone()
		}
		if e.tls.ServerName == "" {
			e.tls.ServerName = u.Hostname()
		}
	}
	return e, nil
}

// Host returns host and port.
func (e *Endpoint) Host() string { return e.host }

// Scheme returns https if the endpoint speaks TLS, else http.
func (e *Endpoint) Scheme() string {
	if e.tls != nil {
		return "https"
	}
	return "http"
}

// Speaking returns the same endpoint that, if it speaks TLS, agrees on this application protocol (ALPN).
func (e *Endpoint) Speaking(protocol string) *Endpoint {
	out := *e
	if out.tls != nil {
		out.tls = out.tls.Clone()
		out.tls.NextProtos = []string{protocol}
	}
	return &out
}

// NonsenseError is for an answer that came and makes no sense: the network worked, so it is what the other side does
// (OutcomeBroken). Its text must not quote what came.
type NonsenseError string

// Error implements error.
func (e NonsenseError) Error() string { return string(e) }

// Nonsense keeps an error of the connection. It replaces every other one, of a parser that may quote what it did not
// like, by a NonsenseError that says what.
func Nonsense(err error, what string) error {
	if errors.Is(err, errTLS) || errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return NonsenseError(what)
}

// Ask opens a connection, lets talk have its conversation on it, closes it and says how that ended, with a detail for
// everything but an answer. The connection obeys the context that talk is given.
//
// An error means that nothing was observed. What is not known to be the other side's doing is such an error: no route,
// no address for a name, no file descriptor left, a certificate that is not trusted. An observation can end in a
// restart.
func (e *Endpoint) Ask(ctx context.Context, talk func(context.Context, net.Conn) error) (Outcome, string, error) {
	if err := ctx.Err(); err != nil {
		return "", "", err
	}
	limited, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	err := e.converse(limited, talk)
	if errors.Is(ctx.Err(), context.Canceled) {
		return "", "", ctx.Err()
	}
	if err == nil {
		return OutcomeAnswered, "", nil
	}
	var network net.Error
	var nonsense NonsenseError
	switch {
	case limited.Err() == nil && errors.As(err, &nonsense): // a parser takes half an answer that the limit cut off for a whole one
		return OutcomeBroken, nonsense.Error(), nil
	case errors.As(err, new(*net.DNSError)): // a name server that is silent is not a service that is
	case errors.Is(err, syscall.ECONNREFUSED):
		return OutcomeRefused, "connection refused", nil
	case limited.Err() != nil, errors.As(err, &network) && network.Timeout():
		return OutcomeTimeout, "no answer within the limit", nil
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return OutcomeBroken, "the connection ended early", nil
	}
	return "", "", fmt.Errorf("ask %s: %w", e.host, err)
}

// converse holds one conversation over a connection of its own.
func (e *Endpoint) converse(ctx context.Context, talk func(context.Context, net.Conn) error) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.host)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is left to be lost
	if e.tls == nil {
		conn = &plain{Conn: conn}
	} else {
		secure := tls.Client(conn, e.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // closed then
	defer stop()
	return talk(ctx, conn)
}

var errTLS = errors.New("the server speaks TLS, the url says http")

// plain is a connection without TLS that knows an alert of TLS when one comes first.
type plain struct {
	net.Conn
	begun bool
}

// Read implements io.Reader.
func (p *plain) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if !p.begun && n >= 2 && b[0] == 0x15 && b[1] == 0x03 {
		return 0, errTLS
	}
	p.begun = p.begun || n > 0
	return n, err
}
