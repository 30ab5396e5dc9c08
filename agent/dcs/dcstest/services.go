package dcstest

import (
	"context"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// services implements etcd's API for one member.
type services struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedAuthServer
	m *member
}

// Range implements pb.KVServer.
func (s *services) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth.denied {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	if c.alarms[pb.AlarmType_CORRUPT] {
		return nil, rpctypes.ErrGRPCCorrupt
	}
	kvs := s.m.view().inRange(r.GetKey(), r.GetRangeEnd())
	return &pb.RangeResponse{Header: s.m.header(), Kvs: kvs, Count: int64(len(kvs))}, nil
}

// Txn implements pb.KVServer.
func (s *services) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth.denied {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	if c.forbids(r) {
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	if c.alarms[pb.AlarmType_CORRUPT] {
		return nil, rpctypes.ErrGRPCCorrupt
	}
	resp := &pb.TxnResponse{Succeeded: true}
	for _, cp := range r.GetCompare() {
		resp.Succeeded = resp.Succeeded && c.state.compare(cp)
	}
	ops := r.GetFailure()
	if resp.Succeeded {
		ops = r.GetSuccess()
	}
	writes := slices.ContainsFunc(ops, func(op *pb.RequestOp) bool { return op.GetRequestRange() == nil })
	for _, op := range ops {
		p := op.GetRequestPut()
		if p == nil {
			continue
		}
		if c.alarms[pb.AlarmType_NOSPACE] {
			return nil, rpctypes.ErrGRPCNoSpace
		}
		if p.GetLease() != 0 && c.leases[p.GetLease()] == nil {
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
	}
	if writes {
		c.state.revision++
	}
	for _, op := range ops {
		resp.Responses = append(resp.Responses, s.apply(op))
	}
	if writes {
		c.wake()
	}
	resp.Header = s.m.header()
	return resp, nil
}

// apply carries out one operation of a transaction. It is called with mu.
func (s *services) apply(op *pb.RequestOp) *pb.ResponseOp {
	c := s.m.c
	if p := op.GetRequestPut(); p != nil {
		c.put(string(p.GetKey()), p.GetValue(), p.GetLease())
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}
	}
	if d := op.GetRequestDeleteRange(); d != nil {
		var n int64
		for _, kv := range c.state.inRange(d.GetKey(), d.GetRangeEnd()) {
			if c.remove(string(kv.GetKey())) {
				n++
			}
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Deleted: n}}}
	}
	r := op.GetRequestRange()
	kvs := s.m.view().inRange(r.GetKey(), r.GetRangeEnd())
	if n := r.GetLimit(); n > 0 && int64(len(kvs)) > n {
		kvs = kvs[:n]
	}
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
		ResponseRange: &pb.RangeResponse{Kvs: kvs, Count: int64(len(kvs))},
	}}
}

// LeaseGrant implements pb.LeaseServer.
func (s *services) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alarms[pb.AlarmType_NOSPACE] {
		return nil, rpctypes.ErrGRPCNoSpace
	}
	id := c.grant(time.Duration(r.GetTTL()) * time.Second)
	return &pb.LeaseGrantResponse{Header: s.m.header(), ID: id, TTL: r.GetTTL()}, nil
}

// LeaseRevoke implements pb.LeaseServer.
func (s *services) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.revoke(r.GetID()) {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	c.wake()
	return &pb.LeaseRevokeResponse{Header: s.m.header()}, nil
}

// LeaseTimeToLive implements pb.LeaseServer.
func (s *services) LeaseTimeToLive(_ context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &pb.LeaseTimeToLiveResponse{Header: s.m.header(), ID: r.GetID(), TTL: -1}
	if c.garbage != nil {
		if ttl, granted, ok := c.garbage(r.GetID()); ok {
			resp.TTL, resp.GrantedTTL = ttl, granted
			return resp, nil
		}
	}
	if l := c.leases[r.GetID()]; l != nil {
		resp.TTL, resp.GrantedTTL = int64((l.expires-c.clock)/time.Second), int64(l.granted/time.Second)
	}
	return resp, nil
}

// Alarm implements pb.MaintenanceServer.
func (s *services) Alarm(_ context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &pb.AlarmResponse{} // without a header, as etcd 3.4 answers
	if r.GetAction() != pb.AlarmRequest_GET {
		return nil, rpctypes.ErrGRPCNotCapable
	}
	for a := range c.alarms {
		for i := range c.members { // etcd lists an alarm for each member that raised it
			resp.Alarms = append(resp.Alarms, &pb.AlarmMember{MemberID: uint64(i + 1), Alarm: a})
		}
	}
	return resp, nil
}

// Authenticate implements pb.AuthServer.
func (s *services) Authenticate(_ context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.auth.on {
		return nil, rpctypes.ErrGRPCAuthNotEnabled
	}
	if r.GetName() != c.auth.user || r.GetPassword() != c.auth.password {
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	c.auth.issued++
	token := fmt.Sprintf("token.%d", c.auth.issued)
	c.auth.tokens[token] = true
	return &pb.AuthenticateResponse{Header: s.m.header(), Token: token}, nil
}

// watcher is one watch of one stream.
type watcher struct {
	id       int64
	key, end []byte
	next     int64 // revision of the next event to send
}

// watches are those of one stream.
type watches struct {
	list          []*watcher
	replayed      int // events of Cluster.replay that were sent or are older than the stream
	requireLeader bool
}

// Watch implements pb.WatchServer.
func (s *services) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	ctx := stream.Context()
	requests := make(chan *pb.WatchRequest)
	go func() { // ends with the stream, which gRPC waits for
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	md, _ := metadata.FromIncomingContext(ctx)
	requireLeader := len(md.Get(rpctypes.MetadataRequireLeaderKey)) > 0
	w := watches{requireLeader: requireLeader, replayed: s.m.c.replays()}
	for {
		if err := s.m.wait(ctx, false); err != nil {
			return err
		}
		out, changed, err := s.step(&w)
		if err != nil {
			return err
		}
		for _, r := range out {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			if err := s.m.wait(ctx, false); err != nil {
				return err
			}
			if r := s.answer(ctx, r, &w); r != nil {
				if err := stream.Send(r); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// step collects what the watches have to be told.
func (s *services) step(ws *watches) ([]*pb.WatchResponse, <-chan struct{}, error) {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if ws.requireLeader && !c.quorum {
		return nil, nil, rpctypes.ErrGRPCNoLeader
	}
	if s.m.muted {
		return nil, c.changed, nil
	}
	var out []*pb.WatchResponse
	state := s.m.view()
	ws.list = slices.DeleteFunc(ws.list, func(w *watcher) bool {
		if w.next <= state.compacted {
			out = append(out, &pb.WatchResponse{
				Header: s.m.header(), WatchId: w.id, Canceled: true, CompactRevision: state.compacted,
				CancelReason: rpctypes.ErrGRPCCompacted.Error(),
			})
			return true
		}
		var events []*mvccpb.Event
		for _, e := range state.log {
			if e.GetKv().GetModRevision() >= w.next && matches(e.GetKv().GetKey(), w.key, w.end) {
				events = append(events, e)
			}
		}
		w.next = max(w.next, state.revision+1)
		if len(events) > 0 {
			out = append(out, &pb.WatchResponse{Header: s.m.header(), WatchId: w.id, Events: events})
		}
		return false
	})
	if old := c.replay[ws.replayed:]; len(old) > 0 && len(ws.list) > 0 {
		out = append(out, &pb.WatchResponse{Header: s.m.header(), WatchId: ws.list[0].id, Events: old})
		ws.replayed = len(c.replay)
	}
	return out, c.changed, nil
}

// answer handles one request of a watch stream.
func (s *services) answer(ctx context.Context, r *pb.WatchRequest, ws *watches) *pb.WatchResponse {
	c := s.m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.GetProgressRequest() != nil {
		if s.m.muted {
			return nil
		}
		return &pb.WatchResponse{Header: s.m.header(), WatchId: -1}
	}
	create := r.GetCreateRequest()
	if create == nil {
		return nil
	}
	resp := &pb.WatchResponse{Header: s.m.header(), WatchId: int64(len(ws.list)), Created: true}
	err := c.allowed(ctx)
	if err == nil && (c.auth.denied || c.auth.forbidden(create.GetKey())) {
		err = rpctypes.ErrGRPCPermissionDenied
	}
	if err != nil {
		resp.WatchId, resp.Canceled, resp.CancelReason = -1, true, err.Error()
		return resp
	}
	next := create.GetStartRevision()
	if next == 0 {
		next = s.m.view().revision + 1
	}
	ws.list = append(ws.list, &watcher{id: resp.GetWatchId(), key: create.GetKey(), end: create.GetRangeEnd(), next: next})
	return resp
}
