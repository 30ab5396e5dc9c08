package dcstest

import (
	"context"
	"fmt"
	"net"
	"path"
	"sync"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// member is one endpoint of the cluster. Its fields are guarded by the cluster's mutex.
type member struct {
	c      *Cluster
	index  int
	server *grpc.Server
	pipe   *pipeListener
	cut    bool
	hung   bool
	muted  bool   // watches are fed nothing, not even progress
	frozen *state // answers from this past
}

func newMember(c *Cluster, index int) *member {
	m := &member{c: c, index: index, pipe: &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}}
	m.server = grpc.NewServer(grpc.UnaryInterceptor(m.unary), grpc.StreamInterceptor(m.stream),
		// As etcd does by default: pings at most every 5 s, and none without a stream.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
	s := &services{m: m}
	pb.RegisterKVServer(m.server, s)
	pb.RegisterWatchServer(m.server, s)
	pb.RegisterLeaseServer(m.server, s)
	pb.RegisterMaintenanceServer(m.server, s)
	pb.RegisterAuthServer(m.server, s)
	m.pipe.wg.Go(func() { _ = m.server.Serve(m.pipe) })
	return m
}

func (m *member) close() {
	m.server.Stop()
	m.pipe.wg.Wait()
}

// Serve serves a member on a listener too, until the cluster is closed.
func (c *Cluster) Serve(i int, l net.Listener) {
	m := c.members[i]
	m.pipe.wg.Go(func() { _ = m.server.Serve(l) })
}

// Endpoints returns the client URLs that Dial understands: http://e1:2379 and so on.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for i := range c.members {
		urls = append(urls, fmt.Sprintf("http://e%d:2379", i+1))
	}
	return urls
}

// Dial connects to a member in memory.
func (c *Cluster) Dial(ctx context.Context, addr string) (net.Conn, error) {
	for i, m := range c.members {
		if addr != fmt.Sprintf("e%d:2379", i+1) {
			continue
		}
		c.mu.Lock()
		cut := m.cut
		c.mu.Unlock()
		if cut {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		return m.pipe.dial(ctx)
	}
	return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
}

// Cut refuses connections to a member and ends those that exist, or lets it be reached again.
func (c *Cluster) Cut(i int, cut bool) {
	c.do(func() { c.members[i].cut = cut })
	if cut {
		c.members[i].pipe.closeConns()
	}
}

// Hang lets a member accept connections and requests and answer nothing.
func (c *Cluster) Hang(i int, hung bool) { c.do(func() { c.members[i].hung = hung }) }

// Mute lets a member feed watches nothing at all while it answers everything else: a watch that is silently stuck.
func (c *Cluster) Mute(i int, muted bool) { c.do(func() { c.members[i].muted = muted }) }

// Freeze lets a member answer from the state as it is now, forever: one that was left behind and does not know.
func (c *Cluster) Freeze(i int) {
	c.do(func() { s := c.state.clone(); c.members[i].frozen = &s })
}

// Thaw ends Freeze.
func (c *Cluster) Thaw(i int) { c.do(func() { c.members[i].frozen = nil }) }

// view returns the state that the member answers from. It is called with mu.
func (m *member) view() *state {
	if m.frozen != nil {
		return m.frozen
	}
	return &m.c.state
}

// header returns the header of a response. It is called with mu.
func (m *member) header() *pb.ResponseHeader {
	s := m.view()
	return &pb.ResponseHeader{
		ClusterId: s.cluster, MemberId: uint64(m.index + 1), Revision: s.revision, RaftTerm: s.term,
	}
}

// wait blocks a request while its member hangs, or while it needs a quorum and there is none.
func (m *member) wait(ctx context.Context, quorum bool) error {
	for {
		m.c.mu.Lock()
		blocked, changed := m.hung || (quorum && !m.c.quorum && m.frozen == nil), m.c.changed
		m.c.mu.Unlock()
		if !blocked {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// allowed checks the token of a request. It is called with mu.
func (c *Cluster) allowed(ctx context.Context) error {
	if !c.auth.on {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	tokens := md.Get(rpctypes.TokenFieldNameGRPC)
	switch {
	case len(tokens) == 0:
		return rpctypes.ErrGRPCUserEmpty
	case !c.auth.tokens[tokens[0]] || c.auth.distrust:
		return rpctypes.ErrGRPCInvalidAuthToken
	}
	return nil
}

func (m *member) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	m.count(info.FullMethod)
	serializable := false
	if r, ok := req.(*pb.RangeRequest); ok {
		serializable = r.GetSerializable()
	}
	if err := m.wait(ctx, !serializable); err != nil {
		return nil, err
	}
	if _, ok := req.(*pb.AuthenticateRequest); !ok {
		m.c.mu.Lock()
		err := m.c.allowed(ctx)
		m.c.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

func (m *member) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	m.count(info.FullMethod)
	return next(srv, ss)
}

func (m *member) count(method string) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.requests[path.Base(method)]++
}

// pipeListener accepts in-memory connections.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup // the server

	mu   sync.Mutex // guards open
	open []net.Conn
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, server)
	return client, nil
}

func (l *pipeListener) closeConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close()
	}
	l.open = nil
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
