package dcs

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

const (
	minBackoff    = 500 * time.Millisecond
	maxBackoff    = 10 * time.Second
	progressEvery = 5 * time.Second
	stallAfter    = 15 * time.Second // FAULTS.md F46
)

// Run lists and watches the scope until ctx ends, reconnecting with backoff whatever happens, and then releases the
// connection. It returns nil once ctx has ended, and an error if the view was closed meanwhile; it is called once.
func (v *View) Run(ctx context.Context) error {
	defer v.conn.close()
	out := outage{log: v.log, now: v.now}
	delay := minBackoff
	for {
		began := v.now()
		err := v.follow(ctx, &out)
		v.setLive(false)
		if ctx.Err() != nil {
			return nil
		}
		if causeOf(err) == causeStopped {
			return err
		}
		out.note(err)
		if v.now().Sub(began) >= maxBackoff {
			delay = minBackoff // it worked for a while
		}
		if !sleep(ctx, jitter(delay)) {
			return nil
		}
		delay = min(2*delay, maxBackoff)
	}
}

// follow makes one list and one watch, and returns why the watch ended.
func (v *View) follow(ctx context.Context, out *outage) error {
	from, err := v.list(ctx)
	if err != nil {
		return err
	}
	s, err := v.conn.acquire(ctx)
	if err != nil {
		return fmt.Errorf("watch keys: %w", err)
	}
	defer v.conn.release(s)
	err = v.watch(ctx, s, from, out)
	err = v.conn.classify(ctx, err, s.addr)
	switch why := causeOf(err); {
	case why == causeCredentials:
		v.conn.reauthenticate(s)
	case why.elsewhere():
		v.conn.retire(s, true)
	}
	return fmt.Errorf("watch keys: %w", err)
}

// watch feeds the store from one watch stream until it ends, stalls, or says something that cannot be believed. All its
// goroutines have ended when it returns.
func (v *View) watch(ctx context.Context, s *session, from int64, out *outage) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// Without it a watch on a member that lost its leader is silently stuck (FACTS.md §7.1).
	leaderOnly := metadata.AppendToOutgoingContext(s.outgoing(ctx), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	v.conn.requests.Add(1)
	stream, err := pb.NewWatchClient(s.conn).Watch(leaderOnly)
	if err != nil {
		return err
	}
	if err := stream.Send(createRequest(v.prefix, from)); err != nil {
		_, err = stream.Recv() // the reason why it could not be sent
		return err
	}
	responses, ended := make(chan *pb.WatchResponse), make(chan error, 1)
	wg.Go(func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case responses <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	heard := v.now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-s.retired:
			return &failure{causeReplaced, "the connection to " + s.addr + " was given up"}
		case r := <-responses:
			if err := v.take(r); err != nil {
				return err
			}
			if heard = v.now(); !r.GetCreated() {
				out.end()
			}
		case <-tick.C:
			if v.now().Sub(heard) > stallAfter {
				return &failure{causeStalled, fmt.Sprintf("watch on %s shows no life for %s", s.addr, stallAfter)}
			}
			_ = stream.Send(progressRequest()) // a broken stream shows in what it receives
		}
	}
}

// take brings one response of the watch into the view.
func (v *View) take(r *pb.WatchResponse) error {
	if err := v.admit(r.GetHeader(), v.mark()); err != nil {
		return err
	}
	if r.GetCanceled() {
		if r.GetCompactRevision() > 0 {
			return &failure{causeCompacted, fmt.Sprintf("watch: revision %d and older are compacted", r.GetCompactRevision())}
		}
		return canceled(r.GetCancelReason())
	}
	events := make([]event, 0, len(r.GetEvents()))
	for _, e := range r.GetEvents() {
		events = append(events, event{kv: keyValue(e.GetKv()), deleted: e.GetType() == mvccpb.Event_DELETE})
	}
	v.mu.Lock()
	changed, wake := v.store.apply(events)
	v.dirty = v.dirty || changed
	v.live, v.heard = true, v.now()
	v.mu.Unlock()
	if wake {
		v.wake()
	}
	return nil
}

// canceled turns the reason that a server gives for ending a watch into a failure. Lost permission comes this way, not
// as an error of the stream.
func canceled(reason string) error {
	switch reason {
	case rpctypes.ErrGRPCPermissionDenied.Error(), rpctypes.ErrPermissionDenied.Error(),
		rpctypes.ErrGRPCInvalidAuthToken.Error(), rpctypes.ErrInvalidAuthToken.Error():
		return &failure{causeCredentials, "credentials: watch refused"}
	case rpctypes.ErrGRPCNoLeader.Error(), rpctypes.ErrNoLeader.Error():
		return &failure{causeNoQuorum, "watch: no etcd leader"}
	}
	return &failure{causeRefused, "watch canceled: " + redact(reason, "")}
}

func (v *View) setLive(live bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.live = live
}

func createRequest(prefix string, from int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(prefixEnd(prefix)), StartRevision: from, ProgressNotify: true, Fragment: true,
	}}}
}

func progressRequest() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

// outage logs when the view is interrupted, for every new cause once, and when it is whole again.
type outage struct {
	log   *slog.Logger
	now   func() node.Instant
	since node.Instant
	seen  map[cause]bool
}

func (o *outage) note(err error) {
	if o.seen == nil {
		o.since, o.seen = o.now(), map[cause]bool{}
	}
	if why := causeOf(err); !o.seen[why] {
		o.seen[why] = true
		o.log.Warn("etcd view interrupted", "reason", string(why), "err", err)
	}
}

func (o *outage) end() {
	if o.seen != nil {
		o.log.Info("etcd view restored", "duration", o.now().Sub(o.since))
		o.seen = nil
	}
}

// jitter spreads a delay over its upper half, so that agents that lost etcd together do not return together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
