package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// jobRemoved is the match for the end of any job. systemd tells of it without a subscription as long as the caller
// who enqueued the job is connected.
const jobRemoved = "type='signal',sender='" + systemdName + "',interface='" + managerIface + "',member='JobRemoved'"

// sentinels maps the names of D-Bus errors.
var sentinels = map[string]error{
	"org.freedesktop.DBus.Error.AccessDenied":                     service.ErrPermission,
	"org.freedesktop.DBus.Error.AuthFailed":                       service.ErrPermission,
	"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": service.ErrPermission,
	"org.freedesktop.DBus.Error.UnknownObject":                    service.ErrNotFound,
	"org.freedesktop.systemd1.NoSuchUnit":                         service.ErrNotFound,
	"org.freedesktop.DBus.Error.Disconnected":                     service.ErrUnavailable,
	"org.freedesktop.DBus.Error.NameHasNoOwner":                   service.ErrUnavailable,
	"org.freedesktop.DBus.Error.NoReply":                          service.ErrUnavailable,
	"org.freedesktop.DBus.Error.ServiceUnknown":                   service.ErrUnavailable,
	"org.freedesktop.DBus.Error.Timeout":                          service.ErrUnavailable,
	"org.freedesktop.systemd1.ShuttingDown":                       service.ErrUnavailable,
	"org.freedesktop.systemd1.TransactionIsDestructive":           service.ErrBusy,
	"org.freedesktop.systemd1.NoSuchProcess":                      service.ErrChanged,
}

// jobWait collects the jobs that ended since it was registered, because a job may end before the answer with its path
// was read. It is registered for the length of one job and holds a handful of jobs.
type jobWait struct {
	results map[dbus.ObjectPath]string
	more    chan struct{} // buffered one: results has grown
}

func (c *conn) expectJob(ctx context.Context) (*jobWait, error) {
	w := &jobWait{results: map[dbus.ObjectPath]string{}, more: make(chan struct{}, 1)}
	c.mu.Lock()
	c.jobs[w] = struct{}{}
	c.mu.Unlock()
	if err := c.addMatch(ctx, jobRemoved); err != nil {
		c.forgetJob(w)
		return nil, err
	}
	return w, nil
}

func (c *conn) forgetJob(w *jobWait) {
	c.mu.Lock()
	delete(c.jobs, w)
	c.mu.Unlock()
	c.removeMatch(jobRemoved)
}

// awaitJob returns the result of a job: done, canceled, timeout, failed, dependency, skipped, ...
func (c *conn) awaitJob(ctx context.Context, w *jobWait, job dbus.ObjectPath) (string, error) {
	for {
		c.mu.Lock()
		result, ok := w.results[job]
		c.mu.Unlock()
		if ok {
			return result, nil
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the job: %w", ctx.Err())
		case <-c.done():
			return "", fmt.Errorf("wait for the job: %w: connection lost", service.ErrUnavailable)
		}
	}
}

// DeliverSignal implements dbus.SignalHandler. It runs on the reading goroutine of the connection, queues nothing and
// never blocks.
func (c *conn) DeliverSignal(_, _ string, s *dbus.Signal) {
	if s.Sender == busIface && s.Name == busIface+".NameOwnerChanged" {
		var name, before, after string
		if dbus.Store(s.Body, &name, &before, &after) == nil && name == systemdName && before != "" {
			c.close() // systemd came anew: its subscriptions are gone, start over
		}
		return
	}
	c.mu.Lock()
	if !c.direct && s.Sender != c.owner {
		c.mu.Unlock()
		return
	}
	if s.Name == managerIface+".JobRemoved" {
		c.recordJob(s.Body)
	}
	var wakes []func()
	for w := range c.watches {
		if w.concerns(s) {
			wakes = append(wakes, w.wake)
		}
	}
	c.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

// recordJob notes the end of a job for everybody who waits for one. The caller holds c.mu.
func (c *conn) recordJob(body []any) {
	var (
		id           uint32
		job          dbus.ObjectPath
		unit, result string
	)
	if len(c.jobs) == 0 || dbus.Store(body, &id, &job, &unit, &result) != nil {
		return
	}
	for w := range c.jobs {
		w.results[job] = result
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}
