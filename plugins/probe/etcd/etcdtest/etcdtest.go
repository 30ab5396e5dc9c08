// Package etcdtest is one member of etcd for tests, as far as probes ask it: Status, MemberList and Authenticate by gRPC,
// /health and /version by HTTP, all at one address. It keeps no data and has no peers.
package etcdtest

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Config says how a member answers. The zero value is a healthy member of version 3.6.
type Config struct {
	Status  func() (*etcdserverpb.StatusResponse, error)
	Members func(token string) (*etcdserverpb.MemberListResponse, error)
	Login   func(name, password string) (token string, err error) // nil: authentication is off
	Health  http.HandlerFunc
	Version http.HandlerFunc
	Metrics http.HandlerFunc // nil: there are none
	TLS     *tls.Config      // nil: plain
}

// Healthy is what a healthy member says of itself.
func Healthy() *etcdserverpb.StatusResponse {
	return &etcdserverpb.StatusResponse{
		Header:  &etcdserverpb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xa1, Revision: 7, RaftTerm: 3},
		Version: "3.6.16", DbSize: 20480, DbSizeInUse: 16384, DbSizeQuota: 2 << 30,
		Leader: 0xa1, RaftIndex: 12, RaftAppliedIndex: 12, RaftTerm: 3,
	}
}

// Lists is what a healthy member says when it is asked for the members.
func Lists(ids ...uint64) *etcdserverpb.MemberListResponse {
	l := &etcdserverpb.MemberListResponse{Header: Healthy().GetHeader()}
	for _, id := range ids {
		l.Members = append(l.Members, &etcdserverpb.Member{ID: id})
	}
	return l
}

// Says returns a handler that answers with a status and a body.
func Says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// Member is a member that runs until it is closed, or the test ends.
type Member struct {
	Addr   string // host:port
	server *http.Server
}

// Serve runs a member on a port of its own.
func Serve(tb testing.TB, c Config) *Member {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if c.Status == nil {
		c.Status = func() (*etcdserverpb.StatusResponse, error) { return Healthy(), nil }
	}
	if c.Members == nil {
		c.Members = func(string) (*etcdserverpb.MemberListResponse, error) { return Lists(0xa1), nil }
	}
	if c.Login == nil {
		c.Login = func(string, string) (string, error) {
			return "", status.Error(codes.FailedPrecondition, "etcdserver: authentication is not enabled")
		}
	}
	if c.Health == nil {
		c.Health = Says(http.StatusOK, `{"health":"true","reason":""}`)
	}
	if c.Version == nil {
		c.Version = Says(http.StatusOK, `{"etcdserver":"3.6.16","etcdcluster":"3.6.0","storage":"3.6.0"}`)
	}
	byGRPC := grpc.NewServer()
	etcdserverpb.RegisterMaintenanceServer(byGRPC, maintenance{status: c.Status})
	etcdserverpb.RegisterClusterServer(byGRPC, cluster{members: c.Members})
	etcdserverpb.RegisterAuthServer(byGRPC, auth{login: c.Login})
	byHTTP := http.NewServeMux()
	byHTTP.Handle("GET /health", c.Health)
	byHTTP.Handle("GET /version", c.Version)
	if c.Metrics != nil {
		byHTTP.Handle("GET /metrics", c.Metrics)
	}

	m := &Member{Addr: l.Addr().String(), server: &http.Server{
		TLSConfig: c.TLS, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				byGRPC.ServeHTTP(w, r)
				return
			}
			byHTTP.ServeHTTP(w, r)
		}),
	}}
	m.server.Protocols.SetHTTP1(true)
	m.server.Protocols.SetHTTP2(true)
	m.server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.TLS != nil {
			_ = m.server.ServeTLS(l, "", "") // ends when it is closed, and so below
		} else {
			_ = m.server.Serve(l)
		}
	}()
	tb.Cleanup(func() { m.Close(); byGRPC.Stop(); <-done })
	return m
}

// Close ends the member and its connections. Nobody listens then.
func (m *Member) Close() { _ = m.server.Close() }

type maintenance struct {
	etcdserverpb.UnimplementedMaintenanceServer
	status func() (*etcdserverpb.StatusResponse, error)
}

// Status implements etcdserverpb.MaintenanceServer.
func (m maintenance) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	return m.status()
}

type cluster struct {
	etcdserverpb.UnimplementedClusterServer
	members func(token string) (*etcdserverpb.MemberListResponse, error)
}

// MemberList implements etcdserverpb.ClusterServer. It wants the question asked of a quorum.
func (c cluster) MemberList(ctx context.Context, q *etcdserverpb.MemberListRequest) (*etcdserverpb.MemberListResponse, error) {
	if !q.GetLinearizable() {
		return nil, status.Error(codes.Internal, "a list that nobody stands behind")
	}
	token := ""
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md["token"]) == 1 {
		token = md["token"][0]
	}
	return c.members(token)
}

type auth struct {
	etcdserverpb.UnimplementedAuthServer
	login func(name, password string) (string, error)
}

// Authenticate implements etcdserverpb.AuthServer.
func (a auth) Authenticate(_ context.Context, q *etcdserverpb.AuthenticateRequest) (*etcdserverpb.AuthenticateResponse, error) {
	token, err := a.login(q.GetName(), q.GetPassword())
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.AuthenticateResponse{Header: Healthy().GetHeader(), Token: token}, nil
}
