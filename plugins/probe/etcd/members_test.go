package etcd

import (
	"errors"
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

// lister waits for long: that a busy machine answers late is no finding of these tests.
func lister(t testing.TB, addr, username string, password func() (string, error)) *Members {
	t.Helper()
	m, err := NewMembers(Config{URL: "http://" + addr, Timeout: 30 * time.Second, Username: username}, Deps{Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMembers(t *testing.T) {
	lists := func(l *etcdserverpb.MemberListResponse, err error) string {
		return etcdtest.Serve(t, etcdtest.Config{Members: func(string) (*etcdserverpb.MemberListResponse, error) { return l, err }}).Addr
	}
	unknown := func(o probe.Outcome, detail string) probe.EtcdMembers {
		return probe.EtcdMembers{Outcome: o, Detail: detail}
	}
	foreign := etcdtest.Lists(0xa1)
	foreign.Header.ClusterId = 0
	for name, c := range map[string]struct {
		addr string
		want probe.EtcdMembers
	}{
		"three": {
			lists(etcdtest.Lists(0xa3, 0xa1, 0xffffffffffffffff), nil),
			probe.EtcdMembers{Outcome: probe.OutcomeAnswered, ClusterID: "c1", MemberID: "a1", IDs: []string{"a1", "a3", "ffffffffffffffff"}},
		},
		"no quorum":      {lists(nil, status.Error(codes.Unavailable, "etcdserver: no leader")), unknown(probe.OutcomeAnswered, "Unavailable: etcdserver: no leader")},
		"permission":     {lists(nil, status.Error(codes.PermissionDenied, "etcdserver: permission denied")), unknown(probe.OutcomeAnswered, "PermissionDenied: etcdserver: permission denied")},
		"empty list":     {lists(etcdtest.Lists(), nil), unknown(probe.OutcomeBroken, "the answer is not etcd's: the member that answers does not list itself")},
		"without itself": {lists(etcdtest.Lists(0xa2), nil), unknown(probe.OutcomeBroken, "the answer is not etcd's: the member that answers does not list itself")},
		"no ID":          {lists(etcdtest.Lists(0xa1, 0), nil), unknown(probe.OutcomeBroken, "the answer is not etcd's: a member has no ID")},
		"no identity":    {lists(foreign, nil), unknown(probe.OutcomeBroken, "the answer is not etcd's: no cluster or no member")},
		"too long":       {lists(etcdtest.Lists(make([]uint64, maxMessage)...), nil), unknown(probe.OutcomeBroken, "the message is too long")},
		"nobody listens": {closedPort(t), unknown(probe.OutcomeRefused, "connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			m := lister(t, c.addr, "", nil)
			got, err := m.Probe(t.Context())
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
			probetest.Run(t, m)
		})
	}
}

func TestMembers_Silent(t *testing.T) {
	got, err := probetest.RunHanging(t, lister(t, silent(t), "", nil))
	if diff := cmp.Diff(probe.EtcdMembers{Outcome: probe.OutcomeTimeout, Detail: "no answer within the limit"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// guarded is a member that answers only those who are logged in, and counts the logins.
type guarded struct {
	token  string
	logins int
}

func (g *guarded) members(token string) (*etcdserverpb.MemberListResponse, error) {
	switch token {
	case "":
		return nil, status.Error(codes.InvalidArgument, "etcdserver: user name is empty")
	case g.token:
		return etcdtest.Lists(0xa1, 0xa2), nil
	}
	return nil, status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
}

func (g *guarded) login(name, password string) (string, error) {
	g.logins++
	if name != "pgpatrol" || password != "hunter2" {
		return "", status.Error(codes.InvalidArgument, "etcdserver: authentication failed for "+password)
	}
	return g.token, nil
}

// TestMembers_LogsInWhenItMust: FAULTS.md F53. One login serves until the member forgets it, and the password is in no text.
func TestMembers_LogsInWhenItMust(t *testing.T) {
	g := &guarded{token: "t1"}
	addr := etcdtest.Serve(t, etcdtest.Config{Members: g.members, Login: g.login}).Addr
	says := func(password string) func() (string, error) { return func() (string, error) { return password, nil } }
	look := func(m *Members, want string, logins int) {
		t.Helper()
		got, err := m.Probe(t.Context())
		if text := strings.Join(got.IDs, " ") + got.Detail; err != nil || text != want || g.logins != logins {
			t.Errorf("%q after %d logins, want %q after %d: %v", text, g.logins, want, logins, err)
		}
	}
	m := lister(t, addr, "pgpatrol", says("hunter2"))
	look(m, "a1 a2", 1)
	look(m, "a1 a2", 1)
	g.token = "t2"
	look(m, "a1 a2", 2)
	look(lister(t, addr, "", nil), "InvalidArgument: etcdserver: user name is empty", 2)
	look(lister(t, addr, "pgpatrol", says("hunter3")), "login: InvalidArgument", 3)

	unread := errors.New("no such file")
	if got, err := lister(t, addr, "pgpatrol", func() (string, error) { return "", unread }).Probe(t.Context()); !errors.Is(err, unread) || len(got.IDs) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	open := etcdtest.Serve(t, etcdtest.Config{Login: func(string, string) (string, error) { t.Error("logged in for nothing"); return "", nil }})
	look(lister(t, open.Addr, "pgpatrol", says("hunter2")), "a1", 3)
	if _, err := NewMembers(Config{URL: "http://x:1", Username: "u"}, Deps{}); err == nil {
		t.Error("a user without a password is taken")
	}
}
