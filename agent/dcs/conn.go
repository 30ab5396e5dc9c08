package dcs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	maxMessage = 16 << 20
	// bufferSize replaces gRPC's 32 KiB for reading and for writing: this runs on routers.
	bufferSize = 4 << 10
	// keepaliveTime is the least that gRPC's client accepts; etcd's servers accept 5 s. The watch's progress requests
	// and the reads notice a dead connection sooner.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// reauthEvery bounds how often a refusal makes the connector authenticate anew: every authentication costs the
	// server a bcrypt.
	reauthEvery = 10 * time.Second
)

// session is one connection to one endpoint, with the token it was given.
type session struct {
	conn    *grpc.ClientConn
	addr    string
	token   string
	retired chan struct{} // closed when another session takes over

	users int // guarded by connector.mu
}

// outgoing adds the session's token to the metadata of a request.
func (s *session) outgoing(ctx context.Context) context.Context {
	if s.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, s.token)
}

// connector keeps one session at a time and moves to the next endpoint when the present one does not do. A retired
// session is closed once nobody uses it any more, so that moving on ends no request that may still be answered.
type connector struct {
	cfg       Config
	endpoints []endpoint
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	requests  atomic.Uint64

	opening chan struct{} // holds one token; whoever has it may open a session

	mu       sync.Mutex // guards the rest
	current  *session
	index    int    // of the endpoint to use
	secret   string // the password last used, to keep it out of error texts
	refused  error  // why the last authentication was refused
	reauthAt time.Time
	closed   bool
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
		_ = s.conn.Close()
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
		_ = s.conn.Close()
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
		_ = s.conn.Close()
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
		_ = s.conn.Close()
	}
}

// open prepares a connection, which gRPC makes with the first request, and authenticates if there is a user.
func (c *connector) open(ctx context.Context, e endpoint) (*session, error) {
	creds := insecure.NewCredentials()
	if e.secure {
		conf := c.cfg.TLS.Clone()
		if conf == nil {
			conf = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		creds = credentials.NewTLS(conf)
	}
	conn, err := grpc.NewClient("passthrough:///"+e.addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(c.dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize), grpc.WithSharedWriteBuffer(true),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout,
			// Never without a stream: etcd's servers allow no pings then and end the connection (too_many_pings).
			PermitWithoutStream: false,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: c.cfg.DialTimeout,
		}),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("pgpatrol"),
	)
	if err != nil {
		return nil, &failure{causeUnreachable, "cannot use " + e.addr + ": " + redact(err.Error(), "")}
	}
	s := &session{conn: conn, addr: e.addr, retired: make(chan struct{})}
	if s.token, err = c.authenticate(ctx, s); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// authenticate returns a token for the configured user, "" if there is none or etcd wants none. A refusal is remembered
// for a while: asking again and again with the same wrong password helps nobody (FAULTS.md F52).
func (c *connector) authenticate(ctx context.Context, s *session) (string, error) {
	if c.cfg.Username == "" {
		return "", nil
	}
	c.mu.Lock()
	refused, again := c.refused, time.Since(c.reauthAt) >= reauthEvery
	c.mu.Unlock()
	if refused != nil && !again {
		return "", refused
	}
	password, err := c.cfg.Password()
	if err != nil {
		return "", &failure{causeCredentials, "credentials: read password: " + redact(err.Error(), "")}
	}
	c.mu.Lock()
	c.secret = password
	c.mu.Unlock()
	c.requests.Add(1)
	resp, err := pb.NewAuthClient(s.conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: c.cfg.Username, Password: password})
	if err == nil {
		c.remember(nil)
		return resp.GetToken(), nil
	}
	if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
		return "", nil
	}
	err = c.classify(ctx, err, s.addr)
	if causeOf(err) == causeCredentials {
		c.remember(err)
	} else {
		c.advance()
	}
	return "", err
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
		c.reauthAt = time.Now()
	}
}

// reauthenticate reports whether a request that was refused on s may find a fresh token: s is retired for it, or
// somebody else has done so already.
func (c *connector) reauthenticate(s *session) bool {
	c.mu.Lock()
	replaced := c.current != s
	allowed := c.cfg.Username != "" && time.Since(c.reauthAt) >= reauthEvery
	if !replaced && allowed {
		c.reauthAt = time.Now()
	}
	c.mu.Unlock()
	if !replaced && allowed {
		c.retire(s, false)
	}
	return replaced || allowed
}

func (c *connector) classify(ctx context.Context, err error, addr string) error {
	c.mu.Lock()
	secret := c.secret
	c.mu.Unlock()
	return classify(ctx, err, addr, secret)
}

// call makes one request under the configured timeout. A request that may be repeated is repeated once, on the next
// endpoint, if the first attempt ended early for a reason of the endpoint; a request that was refused for its
// credentials is repeated once with fresh ones, since a refused request had no effect.
func (c *connector) call(ctx context.Context, repeatable bool, f func(ctx context.Context, conn grpc.ClientConnInterface) error) error {
	limited, cancel := context.WithTimeout(ctx, c.cfg.ReadTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		s, err := c.acquire(limited)
		if err != nil {
			return c.classify(ctx, err, "etcd")
		}
		c.requests.Add(1)
		err = f(s.outgoing(limited), s.conn)
		if err == nil {
			c.release(s)
			return nil
		}
		err = c.classify(ctx, err, s.addr)
		again := false
		switch why := causeOf(err); {
		case why == causeCredentials:
			again = c.reauthenticate(s)
		case why.elsewhere() && ctx.Err() == nil:
			c.retire(s, true)
			again = repeatable
		}
		c.release(s)
		if !again || attempt > 1 || limited.Err() != nil {
			return err
		}
	}
}
