package dcs

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxMessage = 16 << 20
	// bufferSize replaces gRPC's 32 KiB for reading and for writing: this runs on routers.
	bufferSize = 4 << 10
	// keepaliveTime is the least that gRPC's client accepts; etcd's servers accept 5 s. The watch's progress requests
	// and the reads notice a dead connection sooner.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// reauthEvery bounds how often a user that was refused is presented again: every authentication costs the server a
	// bcrypt.
	reauthEvery = 10 * time.Second
)

// session is one client of one endpoint.
type session struct {
	client  *clientv3.Client
	cancel  context.CancelFunc // of the context that the client lives in
	addr    string
	retired chan struct{} // closed when another session takes over

	users int // guarded by connector.mu
}

func (s *session) close() {
	s.cancel()
	_ = s.client.Close()
}

// connector keeps one session at a time and moves to the next endpoint when the present one does not do. A retired
// session is closed once nobody uses it any more, so that moving on ends no request that may still be answered.
type connector struct {
	cfg       Config
	endpoints []endpoint
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	requests  atomic.Uint64

	opening chan struct{} // holds one token; whoever has it may open a session

	mu        sync.Mutex // guards the rest
	current   *session
	index     int    // of the endpoint to use
	secret    string // the password last used, to keep it out of error texts
	refused   error  // why the user was refused last
	refusedAt time.Time
	closed    bool
}

func newConnector(cfg Config, endpoints []endpoint, dial func(context.Context, string) (net.Conn, error)) *connector {
	if dial == nil {
		d := net.Dialer{Timeout: cfg.DialTimeout}
		dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	return &connector{cfg: cfg, endpoints: endpoints, dial: dial, opening: make(chan struct{}, 1)}
}

// acquire returns the current session, opening one if there is none. The caller must release it.
func (c *connector) acquire(ctx context.Context) (*session, error) {
	select {
	case c.opening <- struct{}{}:
		defer func() { <-c.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	s, e, closed := c.current, c.endpoints[c.index], c.closed
	if s != nil && !closed {
		s.users++
		c.mu.Unlock()
		return s, nil
	}
	c.mu.Unlock()
	if closed {
		return nil, &failure{causeStopped, "the view is closed"}
	}
	s, err := c.open(ctx, e)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.close()
		return nil, &failure{causeStopped, "the view is closed"}
	}
	s.users++
	c.current = s
	return s, nil
}

func (c *connector) release(s *session) {
	c.mu.Lock()
	s.users--
	idle := s.users == 0 && c.current != s
	c.mu.Unlock()
	if idle {
		s.close()
	}
}

// retire ends the use of s, if it is still the current session, and moves on to the next endpoint if asked.
func (c *connector) retire(s *session, next bool) {
	c.mu.Lock()
	if c.current != s {
		c.mu.Unlock()
		return
	}
	c.current = nil
	if next {
		c.index = (c.index + 1) % len(c.endpoints)
	}
	idle := s.users == 0
	close(s.retired)
	c.mu.Unlock()
	if idle {
		s.close()
	}
}

// close ends the session, whoever uses it, and lets no other be opened.
func (c *connector) close() {
	c.mu.Lock()
	s := c.current
	c.current, c.closed = nil, true
	c.mu.Unlock()
	if s != nil {
		close(s.retired)
		s.close()
	}
}

// open makes a client, which connects with its first request: that for a token if there is a user.
func (c *connector) open(ctx context.Context, e endpoint) (*session, error) {
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background()) // the client outlives the request that it is made for,
	stop := context.AfterFunc(ctx, cancel)                   // but asks for its token within that request's time
	client, err := clientv3.New(c.clientConfig(life, e, password))
	if !stop() && err == nil {
		_ = client.Close()
		err = ctx.Err()
	}
	if err == nil {
		c.remember(nil)
		return &session{client: client, cancel: cancel, addr: e.addr, retired: make(chan struct{})}, nil
	}
	cancel()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	err = c.classify(ctx, err, e.addr)
	switch causeOf(err) {
	case causeCredentials, causeToken, causeDenied:
		c.remember(err)
	case causeStopped:
	default:
		c.advance()
	}
	return nil, err
}

// clientConfig gives the client one endpoint only, so that its balancer sends no request to a member that hangs, and
// one attempt for each request, so that what to do after a failure is decided here.
func (c *connector) clientConfig(life context.Context, e endpoint, password string) clientv3.Config {
	u := url.URL{Scheme: "http", Host: e.addr}
	cfg := clientv3.Config{
		Context: life, Logger: zap.NewNop(), Username: c.cfg.Username, Password: password,
		DialTimeout: c.cfg.DialTimeout, MaxCallRecvMsgSize: maxMessage, MaxUnaryRetries: 1,
		// PermitWithoutStream stays off: etcd's servers allow no pings then and end the connection (too_many_pings).
		DialKeepAliveTime: keepaliveTime, DialKeepAliveTimeout: keepaliveTimeout,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(c.dial),
			grpc.WithChainUnaryInterceptor(c.unary), grpc.WithChainStreamInterceptor(c.stream),
			grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff},
				MinConnectTimeout: c.cfg.DialTimeout,
			}),
			grpc.WithUserAgent("pgpatrol"),
		},
	}
	if e.secure {
		u.Scheme, cfg.TLS = "https", c.cfg.TLS.Clone()
		if cfg.TLS == nil {
			cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	cfg.Endpoints = []string{u.String()}
	return cfg
}

// unary counts a request, and lets it fail at once where there is no connection: the library would wait for one until
// the deadline, and no time would be left for another endpoint.
func (c *connector) unary(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	c.requests.Add(1)
	return final(next(ctx, method, req, reply, conn, append(slices.Clip(opts), grpc.WaitForReady(false))...))
}

// stream does the same for a watch.
func (c *connector) stream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	c.requests.Add(1)
	s, err := next(ctx, desc, conn, method, append(slices.Clip(opts), grpc.WaitForReady(false))...)
	if err != nil {
		return nil, final(err)
	}
	return finalStream{s}, nil
}

// finalStream is a stream whose end the library does not mend.
type finalStream struct{ grpc.ClientStream }

// RecvMsg implements grpc.ClientStream.
func (s finalStream) RecvMsg(m any) error { return final(s.ClientStream.RecvMsg(m)) }

// final gives an error a code that the library reports. After Unavailable and Internal its watcher would connect to the
// same endpoint again without end, ten times a second, each time with a new token, and tell nobody.
func final(err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal:
		return status.Error(codes.Aborted, status.Convert(err).Message())
	}
	return err
}

// password returns the password for the configured user, "" if there is none. A refusal is remembered for a while:
// asking again and again with the same wrong password helps nobody (FAULTS.md F52).
func (c *connector) password() (string, error) {
	if c.cfg.Username == "" {
		return "", nil
	}
	c.mu.Lock()
	refused, again := c.refused, time.Since(c.refusedAt) >= reauthEvery
	c.mu.Unlock()
	if refused != nil && !again {
		return "", refused
	}
	password, err := c.cfg.Password()
	switch {
	case err != nil:
		return "", &failure{causeCredentials, "credentials: read password: " + redact(err.Error(), "")}
	case password == "": // the library would ask without a user
		return "", &failure{causeCredentials, "credentials: the password is empty"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secret = password
	return password, nil
}

// advance moves to the next endpoint while there is no session.
func (c *connector) advance() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = (c.index + 1) % len(c.endpoints)
}

func (c *connector) remember(refused error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = refused
	if refused != nil {
		c.refusedAt = time.Now()
	}
}

func (c *connector) classify(ctx context.Context, err error, addr string) error {
	c.mu.Lock()
	secret := c.secret
	c.mu.Unlock()
	return classify(ctx, err, addr, secret)
}

// call makes one request under the configured timeout. A request that may be repeated is repeated once, on the next
// endpoint, if the first attempt ended early for a reason of the endpoint; a request that was refused for its token or
// its user is repeated once, since a refused request had no effect.
func (c *connector) call(ctx context.Context, repeatable bool, f func(ctx context.Context, etcd *clientv3.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, c.cfg.ReadTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		s, err := c.acquire(limited)
		if err != nil {
			return c.classify(ctx, err, "etcd")
		}
		if err = f(limited, s.client); err == nil {
			c.release(s)
			return nil
		}
		err = c.classify(ctx, err, s.addr)
		again := c.blame(s, err, attempt > 1)
		if causeOf(err).elsewhere() {
			again = repeatable && ctx.Err() == nil
		}
		c.release(s)
		if !again || attempt > 1 || limited.Err() != nil {
			return err
		}
	}
}

// blame draws the consequences of a failure for the session that met it, and reports whether the same request may have
// better luck now because of another token or client.
func (c *connector) blame(s *session, err error, repeated bool) bool {
	switch why := causeOf(err); {
	case why == causeToken && c.cfg.Username != "":
		if repeated { // the library fetched a new token, which was refused too
			c.remember(err)
			c.retire(s, false)
		}
		return true
	case why == causeCredentials && c.cfg.Username != "": // the password may have been changed
		c.retire(s, false)
		return true
	case why.elsewhere():
		c.retire(s, true)
	}
	return false
}
