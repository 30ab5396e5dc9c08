package etcd

import (
	"context"
	"errors"
	"net"
	"regexp"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// askStatus asks a member for its Status, which it answers on its own, without a quorum and without a token. A server
// that says no is a member that lives: the identity is missing then, and Detail has its words.
func askStatus(ctx context.Context, e *probe.Endpoint) (probe.EtcdMember, error) {
	var seen probe.EtcdMember
	outcome, detail, err := e.Ask(ctx, func(_ context.Context, conn net.Conn) error {
		r, err := call(conn, e, question{method: etcdserverpb.Maintenance_Status_FullMethodName})
		if err != nil {
			return err
		}
		seen, err = understand(r)
		return err
	})
	if err != nil {
		return probe.EtcdMember{}, err
	}
	if outcome != probe.OutcomeAnswered {
		return probe.EtcdMember{Outcome: outcome, Detail: detail}, nil
	}
	seen.Outcome = outcome
	return seen, nil
}

// understand returns what a reply says of a member. Only a server that does not know the call is none.
func understand(r reply) (probe.EtcdMember, error) {
	switch r.code {
	case codes.OK:
		seen, err := parseStatus(r.message)
		if err != nil {
			return probe.EtcdMember{}, probe.NonsenseError("the answer is not etcd's: " + err.Error())
		}
		return seen, nil
	case codes.Unimplemented:
		return probe.EtcdMember{}, probe.NonsenseError("the answer is not etcd's: it knows no Status")
	default:
		return probe.EtcdMember{Detail: r.code.String() + ": " + r.text}, nil
	}
}

var (
	versionForm = regexp.MustCompile(`^[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}[0-9A-Za-z.+~-]{0,31}$`)
	// alarmForm finds the alarms among a Status' errors: "memberID:10276657743932975437 alarm:NOSPACE ".
	alarmForm = regexp.MustCompile(`\balarm:\s*([A-Z]{1,20})\b`)
)

// parseStatus parses a StatusResponse. Its errors name the field, never the contents.
func parseStatus(b []byte) (probe.EtcdMember, error) {
	var s etcdserverpb.StatusResponse
	if err := proto.Unmarshal(b, &s); err != nil {
		return probe.EtcdMember{}, errors.New("no StatusResponse")
	}
	switch h := s.GetHeader(); {
	case h.GetClusterId() == 0 || h.GetMemberId() == 0:
		return probe.EtcdMember{}, errors.New("no cluster or no member")
	case !versionForm.MatchString(s.GetVersion()):
		return probe.EtcdMember{}, errors.New("version is none")
	case s.GetDbSize() < 0 || s.GetDbSizeInUse() < 0 || s.GetDbSizeQuota() < 0:
		return probe.EtcdMember{}, errors.New("a size is negative")
	}
	return probe.EtcdMember{
		ClusterID: identifier(s.GetHeader().GetClusterId()),
		MemberID:  identifier(s.GetHeader().GetMemberId()),
		LeaderID:  identifier(s.GetLeader()),
		RaftTerm:  s.GetRaftTerm(),
		RaftIndex: s.GetRaftIndex(),
		Version:   s.GetVersion(),
		DBSize:    s.GetDbSize(),
		DBInUse:   s.GetDbSizeInUse(),
		DBQuota:   s.GetDbSizeQuota(),
		Learner:   s.GetIsLearner(),
		Alarms:    alarms(s.GetErrors()),
	}, nil
}

// identifier writes an ID as etcdctl does. There is none that is 0.
func identifier(id uint64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(id, 16)
}

// alarms returns the kinds of alarms, whichever member raised them: they concern the whole cluster.
func alarms(errs []string) []string {
	var kinds []string
	for _, e := range errs {
		if m := alarmForm.FindStringSubmatch(e); m != nil {
			kinds = append(kinds, m[1])
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
