package etcd

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd/etcdtest"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

// healthy is what a probe sees of etcdtest's member.
func healthy() probe.EtcdMember {
	return probe.EtcdMember{
		Outcome: probe.OutcomeAnswered, Health: probe.OutcomeAnswered, Healthy: true,
		ClusterID: "c1", MemberID: "a1", LeaderID: "a1", RaftTerm: 3, RaftIndex: 12,
		Version: "3.6.16", DBSize: 20480, DBInUse: 16384, DBQuota: 2 << 30,
	}
}

// patience is long enough for an answer on a busy machine, and short enough for those that never come.
const patience = 1500 * time.Millisecond

func member(t testing.TB, addr string) *Member {
	t.Helper()
	m, err := NewMember(Config{URL: "http://" + addr, Timeout: patience}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// listen runs handle for every connection to an address.
func listen(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() // a test's server
				handle(c)
			}()
		}
	}()
	return l.Addr().String()
}

// silent is an address where the kernel takes connections and nobody answers, as with a stopped process.
func silent(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// closedPort is where nobody listens: a port that a connection holds, so that no other test gets it meanwhile.
func closedPort(t testing.TB) string {
	t.Helper()
	c, err := net.Dial("tcp", silent(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

func TestMember(t *testing.T) {
	serve := func(c etcdtest.Config) string { return etcdtest.Serve(t, c).Addr }
	says := func(change func(*etcdserverpb.StatusResponse)) func() (*etcdserverpb.StatusResponse, error) {
		return func() (*etcdserverpb.StatusResponse, error) {
			s := etcdtest.Healthy()
			change(s)
			return s, nil
		}
	}
	refuses := func(code codes.Code, text string) func() (*etcdserverpb.StatusResponse, error) {
		return func() (*etcdserverpb.StatusResponse, error) { return nil, status.Error(code, text) }
	}
	with := func(change func(*probe.EtcdMember)) probe.EtcdMember {
		m := healthy()
		change(&m)
		return m
	}
	unknown := func(outcome probe.Outcome, detail string) probe.EtcdMember {
		return probe.EtcdMember{Outcome: outcome, Detail: detail, Health: probe.OutcomeAnswered, Healthy: true}
	}
	both := func(outcome probe.Outcome, detail string) probe.EtcdMember {
		return probe.EtcdMember{Outcome: outcome, Detail: detail, Health: outcome}
	}
	for name, c := range map[string]struct {
		addr string
		want probe.EtcdMember
	}{
		"healthy": {serve(etcdtest.Config{}), healthy()},
		"no leader": {
			serve(etcdtest.Config{
				Status: says(func(s *etcdserverpb.StatusResponse) { s.Leader, s.Errors = 0, []string{"etcdserver: no leader"} }),
				Health: etcdtest.Says(503, `{"health":"false","reason":"RAFT NO LEADER"}`),
			}),
			with(func(m *probe.EtcdMember) { m.LeaderID, m.Healthy, m.Reason = "", false, "RAFT NO LEADER" }),
		},
		"permission denied is alive": {
			serve(etcdtest.Config{Status: refuses(codes.PermissionDenied, "etcdserver: permission denied")}),
			unknown(probe.OutcomeAnswered, "PermissionDenied: etcdserver: permission denied"),
		},
		"no token is alive": {
			serve(etcdtest.Config{Status: refuses(codes.InvalidArgument, "etcdserver: user name is empty")}),
			unknown(probe.OutcomeAnswered, "InvalidArgument: etcdserver: user name is empty"),
		},
		"words are made printable": {
			serve(etcdtest.Config{Status: refuses(codes.Unknown, "a\x1b[2Jb\n"+strings.Repeat("ä", 300))}),
			unknown(probe.OutcomeAnswered, "Unknown: a?[2Jb?"+strings.Repeat("ä", 193)),
		},
		"knows no Status": {
			serve(etcdtest.Config{Status: refuses(codes.Unimplemented, "secret")}),
			unknown(probe.OutcomeBroken, "the answer is not etcd's: it knows no Status"),
		},
		"no identity": {
			serve(etcdtest.Config{Status: says(func(s *etcdserverpb.StatusResponse) { s.Header.MemberId = 0 })}),
			unknown(probe.OutcomeBroken, "the answer is not etcd's: no cluster or no member"),
		},
		"message too long": {
			serve(etcdtest.Config{Status: says(func(s *etcdserverpb.StatusResponse) { s.StorageVersion = strings.Repeat("x", maxMessage) })}),
			unknown(probe.OutcomeBroken, "the message is too long"),
		},
		"health is not etcd's": {
			serve(etcdtest.Config{Health: etcdtest.Says(200, "<html>secret</html>")}),
			with(func(m *probe.EtcdMember) {
				m.Health, m.Healthy, m.Detail = probe.OutcomeBroken, false, "the answer to /health is not etcd's: it is no JSON object"
			}),
		},
		"health redirects": {
			serve(etcdtest.Config{Health: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/version", http.StatusFound) }}),
			with(func(m *probe.EtcdMember) {
				m.Health, m.Healthy, m.Detail = probe.OutcomeBroken, false, "the answer to /health is not etcd's: status 302"
			}),
		},
		"health is silent": {
			serve(etcdtest.Config{Health: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}),
			with(func(m *probe.EtcdMember) {
				m.Health, m.Healthy, m.Detail = probe.OutcomeTimeout, false, "no answer within the limit"
			}),
		},
		"HTTP, but no etcd": {
			strings.TrimPrefix(serveHTTP(t, etcdtest.Says(404, "secret")), "http://"),
			probe.EtcdMember{
				Outcome: probe.OutcomeBroken, Detail: "the answer is not gRPC",
				Health: probe.OutcomeBroken,
			},
		},
		"nobody listens": {closedPort(t), both(probe.OutcomeRefused, "connection refused")},
		"silent":         {silent(t), both(probe.OutcomeTimeout, "no answer within the limit")},
		"hangs up":       {listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }), both(probe.OutcomeBroken, "the connection ended early")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			got, err := member(t, c.addr).Probe(t.Context())
			if answered := got.Outcome == probe.OutcomeAnswered; (got.Took > 0) != answered {
				t.Errorf("took %s", got.Took)
			}
			got.Took = 0
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
			if alive := c.want.Outcome == probe.OutcomeAnswered || c.want.Health == probe.OutcomeAnswered; got.Alive() != alive {
				t.Errorf("Alive() = %v", got.Alive())
			}
		})
	}
}

func serveHTTP(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestMember_TLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	t.Cleanup(s.Close)
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	addr := etcdtest.Serve(t, etcdtest.Config{TLS: &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12}}).Addr
	m, err := NewMember(Config{URL: "https://" + addr}, Deps{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Probe(t.Context())
	got.Took = 0
	if diff := cmp.Diff(healthy(), got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	untrusted, err := NewMember(Config{URL: "https://" + addr}, Deps{TLS: &tls.Config{RootCAs: nil, MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := untrusted.Probe(t.Context()); err == nil {
		t.Errorf("got %+v, want an error: a certificate that is not trusted is not the member's doing", got)
	}
}

func TestMember_KeepsTheContract(t *testing.T) {
	probetest.Run(t, member(t, closedPort(t)))
	probetest.Run(t, member(t, listen(t, canned(t))))
	m, err := NewMember(Config{URL: "http://" + silent(t)}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if got, err := m.Probe(ctx); err != nil || !got.Silent() {
			t.Errorf("got %+v, %v", got, err)
		}
		cancel()
	}
	never, err := NewMember(Config{URL: "http://not..a.name:2379"}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := never.Probe(t.Context()); err == nil {
		t.Errorf("got %+v, want an error: nobody was asked", got)
	}
}

func TestHops(t *testing.T) {
	addr := etcdtest.Serve(t, etcdtest.Config{}).Addr
	denied := etcdtest.Serve(t, etcdtest.Config{
		Status:  func() (*etcdserverpb.StatusResponse, error) { return nil, status.Error(codes.Unauthenticated, "x") },
		Version: etcdtest.Says(200, `{"etcdserver":"secret"}`),
	}).Addr
	who := func(addr string) probe.Prober[probe.Hop] {
		w, err := NewWho(Config{URL: "http://" + addr, Timeout: patience}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	peer := func(addr string) probe.Prober[probe.Hop] {
		p, err := NewPeer(Config{URL: "http://" + addr, Timeout: patience}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]struct {
		prober probe.Prober[probe.Hop]
		want   probe.Hop
	}{
		"member":      {who(addr), probe.Hop{Outcome: probe.OutcomeAnswered, Identity: "c1/a1"}},
		"denied":      {who(denied), probe.Hop{Outcome: probe.OutcomeAnswered, Detail: "Unauthenticated: x"}},
		"dead":        {who(closedPort(t)), probe.Hop{Outcome: probe.OutcomeRefused, Detail: "connection refused"}},
		"peer":        {peer(addr), probe.Hop{Outcome: probe.OutcomeAnswered}},
		"no peer":     {peer(denied), probe.Hop{Outcome: probe.OutcomeBroken, Detail: "the answer to /version is not etcd's: no versions"}},
		"silent peer": {peer(silent(t)), probe.Hop{Outcome: probe.OutcomeTimeout, Detail: "no answer within the limit"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.prober.Probe(t.Context())
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
			probetest.Run(t, c.prober)
		})
	}
}

func TestConfig_Validate(t *testing.T) {
	if err := (Config{URL: "http://192.168.9.100:2379"}).Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []Config{{}, {URL: "192.168.9.100:2379"}, {URL: "http://u:secret@x:1"}, {URL: "http://x:1", Timeout: -1}} {
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
		_, member := NewMember(c, Deps{})
		_, who := NewWho(c, Deps{})
		_, peer := NewPeer(c, Deps{})
		if member == nil || who == nil || peer == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// canned answers as a healthy member does, from bytes that one has sent, and allocates next to nothing.
func canned(t testing.TB) func(net.Conn) {
	t.Helper()
	s := etcdtest.Serve(t, etcdtest.Config{})
	m := member(t, s.Addr)
	var said []byte
	if _, _, err := m.grpc.Ask(t.Context(), func(_ context.Context, conn net.Conn) error {
		if _, err := conn.Write(request(m.grpc, question{method: etcdserverpb.Maintenance_Status_FullMethodName})); err != nil {
			return err
		}
		_, err := readReply(io.Discard, io.TeeReader(conn, writer(func(b []byte) { said = append(said, b...) })))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	health := []byte("HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n" + `{"health":"true","reason":""}`)
	return func(c net.Conn) {
		var b [1024]byte
		if n, err := c.Read(b[:]); err != nil || n < 3 {
			return
		}
		if b[0] == 'P' {
			_, _ = c.Write(said)
		} else {
			_, _ = c.Write(health)
		}
		_, _ = c.Read(b[:]) // until the client hangs up
		_, _ = c.Read(b[:])
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// BenchmarkMember measures one look at a member: two connections, both answers read and parsed.
func BenchmarkMember(b *testing.B) {
	m := member(b, listen(b, canned(b)))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := m.Probe(b.Context()); err != nil || !got.Healthy || got.MemberID != "a1" {
			b.Fatal(got, err)
		}
	}
}
