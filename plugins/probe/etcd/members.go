package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.EtcdMembers] = (*Members)(nil)

// Members asks one member which members its cluster has. It wants an answer that a quorum stands behind: a member that is cut
// off does not know of one that was added since, and would make it look removed. Without a quorum there is no such answer, and
// nothing is known.
//
// With etcd's authentication on, the question needs a user since 3.4.42, 3.5.28 and 3.6.9 (FACTS.md §1.3, FAULTS.md F53). The
// user logs in only when the member has refused to answer without, because that costs every member a record of the log.
type Members struct {
	endpoint *probe.Endpoint
	username string
	password func() (string, error)

	mu    sync.Mutex // guards token
	token string     // of the last login, "" if there was none
}

// NewMembers returns a prober for the list of members that the member at a client URL gives.
func NewMembers(c Config, d Deps) (*Members, error) {
	e, err := newEndpoint(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure etcd member list: %w", err)
	}
	if c.Username != "" && d.Password == nil {
		return nil, errors.New("configure etcd member list: a user without a password")
	}
	return &Members{endpoint: e.Speaking("h2"), username: c.Username, password: d.Password}, nil
}

// Probe implements probe.Prober. A member that says no has no IDs, and Detail has its words.
func (m *Members) Probe(ctx context.Context) (probe.EtcdMembers, error) {
	m.mu.Lock()
	token := m.token
	m.mu.Unlock()
	seen, denied, err := m.list(ctx, token)
	if err != nil || !denied || m.username == "" {
		return seen, err
	}
	token, refusal, err := m.login(ctx)
	if err != nil || token == "" {
		return refusal, err
	}
	m.mu.Lock()
	m.token = token
	m.mu.Unlock()
	seen, _, err = m.list(ctx, token)
	return seen, err
}

// list asks once, and reports whether the answer could be another one to somebody who is logged in.
func (m *Members) list(ctx context.Context, token string) (seen probe.EtcdMembers, denied bool, err error) {
	body, err := proto.Marshal(&etcdserverpb.MemberListRequest{Linearizable: true})
	if err != nil {
		return probe.EtcdMembers{}, false, fmt.Errorf("encode question: %w", err)
	}
	r, seen, err := m.ask(ctx, question{method: etcdserverpb.Cluster_MemberList_FullMethodName, message: body, token: token})
	if err != nil || seen.Outcome != probe.OutcomeAnswered {
		return seen, false, err
	}
	if r.code != codes.OK {
		return seen, r.code == codes.Unauthenticated || r.code == codes.InvalidArgument || r.code == codes.PermissionDenied, nil
	}
	if seen, err = parseMembers(r.message); err != nil {
		return probe.EtcdMembers{Outcome: probe.OutcomeBroken, Detail: "the answer is not etcd's: " + err.Error()}, false, nil
	}
	return seen, false, nil
}

// login returns a token, or how it was refused.
func (m *Members) login(ctx context.Context) (string, probe.EtcdMembers, error) {
	password, err := m.password()
	if err != nil {
		return "", probe.EtcdMembers{}, fmt.Errorf("read password for etcd: %w", err)
	}
	body, err := proto.Marshal(&etcdserverpb.AuthenticateRequest{Name: m.username, Password: password})
	if err != nil {
		return "", probe.EtcdMembers{}, errors.New("encode login for etcd: the name or the password is not UTF-8")
	}
	r, seen, err := m.ask(ctx, question{method: etcdserverpb.Auth_Authenticate_FullMethodName, message: body})
	if err == nil && seen.Outcome == probe.OutcomeAnswered && r.code != codes.OK {
		seen.Detail = "login: " + r.code.String() // the server has read the password: its words are not repeated
	}
	if err != nil || seen.Outcome != probe.OutcomeAnswered || r.code != codes.OK {
		return "", seen, err
	}
	var a etcdserverpb.AuthenticateResponse
	if err := proto.Unmarshal(r.message, &a); err != nil || a.GetToken() == "" {
		return "", probe.EtcdMembers{Outcome: probe.OutcomeBroken, Detail: "the answer is not etcd's: no token"}, nil
	}
	return a.GetToken(), probe.EtcdMembers{}, nil
}

// ask asks one question on a connection of its own.
func (m *Members) ask(ctx context.Context, q question) (reply, probe.EtcdMembers, error) {
	var r reply
	outcome, detail, err := m.endpoint.Ask(ctx, func(_ context.Context, conn net.Conn) (err error) {
		r, err = call(conn, m.endpoint, q)
		return err
	})
	if err != nil {
		return reply{}, probe.EtcdMembers{}, err
	}
	if outcome == probe.OutcomeAnswered && r.code != codes.OK {
		detail = r.code.String() + ": " + r.text
	}
	return r, probe.EtcdMembers{Outcome: outcome, Detail: detail}, nil
}

// parseMembers parses a MemberListResponse. Its errors name the field, never the contents.
func parseMembers(b []byte) (probe.EtcdMembers, error) {
	var l etcdserverpb.MemberListResponse
	if err := proto.Unmarshal(b, &l); err != nil {
		return probe.EtcdMembers{}, errors.New("no MemberListResponse")
	}
	seen := probe.EtcdMembers{
		Outcome: probe.OutcomeAnswered, ClusterID: identifier(l.GetHeader().GetClusterId()), MemberID: identifier(l.GetHeader().GetMemberId()),
	}
	if seen.ClusterID == "" || seen.MemberID == "" {
		return probe.EtcdMembers{}, errors.New("no cluster or no member")
	}
	for _, m := range l.GetMembers() {
		if m.GetID() == 0 {
			return probe.EtcdMembers{}, errors.New("a member has no ID")
		}
		seen.IDs = append(seen.IDs, identifier(m.GetID()))
	}
	if slices.Sort(seen.IDs); !slices.Contains(seen.IDs, seen.MemberID) {
		return probe.EtcdMembers{}, errors.New("the member that answers does not list itself")
	}
	return seen, nil
}
