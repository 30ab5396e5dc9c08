package dcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	v.conn.blame(s, err, false)
	return fmt.Errorf("watch keys: %w", err)
}

// watch feeds the store from one watch until it ends, stalls, or says something that cannot be believed.
func (v *View) watch(ctx context.Context, s *session, from int64, out *outage) error {
	// Without a leader a watch would be silently stuck on a member that lost it (FACTS.md §7.1).
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	w := clientv3.NewWatcher(s.client)
	defer func() { _ = w.Close() }()
	defer cancel()
	late := time.AfterFunc(v.cfg.ReadTimeout, cancel)
	how := []clientv3.OpOption{
		clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment(),
	}
	responses := w.Watch(ctx, v.prefix, how...)
	shared := v.watchOwn(ctx, w, how)
	if !late.Stop() {
		return &failure{causeTimeout, "no answer from " + s.addr + " in time"}
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	heard := v.now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.retired:
			return &failure{causeReplaced, "the connection to " + s.addr + " was given up"}
		case r, ok := <-responses:
			if !ok && ctx.Err() != nil {
				return ctx.Err()
			}
			if !ok { // the library keeps the reason for itself; the next list may meet it too
				return &failure{causeRefused, s.addr + " ended the watch"}
			}
			if err := v.take(r, &v.store); err != nil {
				return err
			}
			if heard = v.now(); !r.Created {
				out.end()
			}
		case r, ok := <-shared:
			switch {
			case !ok && ctx.Err() != nil:
				return ctx.Err()
			case !ok || r.Canceled && refusesOwn(ended(r.Err())):
				shared = nil // those keys are read every few seconds all the same
			default:
				if err := v.take(r, &v.own.store); err != nil {
					return err
				}
			}
		case <-tick.C:
			if v.now().Sub(heard) > stallAfter {
				return &failure{causeStalled, fmt.Sprintf("watch on %s shows no life for %s", s.addr, stallAfter)}
			}
			askProgress(ctx, w, v.cfg.ReadTimeout)
		}
	}
}

// askProgress makes the server show that the watch lives. That it could not be asked shows in the watch.
func askProgress(ctx context.Context, w clientv3.Watcher, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = w.RequestProgress(ctx)
}

// watchOwn adds a watch of pgpatrol's own keys to the same stream, so that an order of people wakes the reader at once. It
// returns nil if etcd does not give these keys.
func (v *View) watchOwn(ctx context.Context, w clientv3.Watcher, how []clientv3.OpOption) clientv3.WatchChan {
	v.mu.Lock()
	refused := v.own.refused != nil
	v.mu.Unlock()
	if refused {
		return nil
	}
	return w.Watch(ctx, node.KeyRoot, how...)
}

// take brings one response of a watch into the store of its keys.
func (v *View) take(r clientv3.WatchResponse, into *store) error {
	if err := v.admit(r.Header, v.mark()); err != nil {
		return err
	}
	if r.CompactRevision > 0 {
		return &failure{causeCompacted, fmt.Sprintf("watch: revision %d and older are compacted", r.CompactRevision)}
	}
	if err := r.Err(); err != nil {
		return ended(err)
	}
	events := make([]event, 0, len(r.Events))
	for _, e := range r.Events {
		events = append(events, event{kv: keyValue(e.GetKv()), deleted: e.GetType() == clientv3.EventTypeDelete})
	}
	v.mu.Lock()
	if into.all {
		events = v.ownEvents(events)
	}
	changed, wake := into.apply(events)
	v.dirty = v.dirty || changed
	if !into.all { // only the watch of Patroni's keys vouches for the view of them
		v.live, v.heard = true, v.now()
	}
	v.mu.Unlock()
	if wake {
		v.wake()
	}
	return nil
}

// ended turns the reason of the server for ending a watch into a failure, and leaves an error of the stream as it is.
// Lost permission comes the first way, as a text (FAULTS.md F52).
func ended(err error) error {
	if _, ok := errors.AsType[rpctypes.EtcdError](err); ok || errors.Is(err, io.EOF) || status.Code(err) != codes.Unknown {
		return err
	}
	switch err.Error() {
	case rpctypes.ErrGRPCPermissionDenied.Error():
		return rpctypes.ErrPermissionDenied
	case rpctypes.ErrGRPCInvalidAuthToken.Error():
		return rpctypes.ErrInvalidAuthToken
	case rpctypes.ErrGRPCNoLeader.Error():
		return rpctypes.ErrNoLeader
	}
	return &failure{causeRefused, "watch canceled: " + redact(err.Error(), "")}
}

func (v *View) setLive(live bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.live = live
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
