package incus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// maxName is Incus's limit, that of a host name.
const maxName = 63

// checkName accepts what Incus accepts as the name of an instance: letters, digits and hyphens, a letter first and no
// hyphen last.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("instance name of %d bytes, not 1 to %d", len(name), maxName)
	}
	for i, b := range []byte(name) {
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		other := b >= '0' && b <= '9' || b == '-'
		if !letter && (!other || i == 0 || b == '-' && i == len(name)-1) {
			return fmt.Errorf("instance name %q contains %q in place %d", name, b, i+1)
		}
	}
	return nil
}

// instance is what this package reads of the daemon's answer. Unknown fields are none of its business.
type instance struct {
	status      string    // the daemon's word, of states
	lastPower   string    // RUNNING or STOPPED, as the daemon last wrote it down; empty if it never ran
	lastUsed    time.Time // when its present or last run began; before firstUse if it never ran
	autostart   string    // boot.autostart: true, false, last-state or empty, which is the same as last-state
	autorestart bool      // boot.autorestart
	stopLimit   time.Duration
	run         string // InvocationID of the present or last run, empty if it never ran
}

// states maps the daemon's words (shared/api/status_code.go). A frozen instance runs, with a job of somebody who has to end
// it. Error says that LXC does not answer for it: nothing is known.
var states = map[string]service.State{
	"Running":  service.StateRunning,
	"Ready":    service.StateRunning,
	"Thawed":   service.StateRunning,
	"Frozen":   service.StateRunning,
	"Freezing": service.StateRunning,
	"Starting": service.StateStarting,
	"Stopping": service.StateStopping,
	"Aborting": service.StateStopping,
	"Stopped":  service.StateFailed, // judge knows better
	"Error":    service.StateUnknown,
}

// firstUse is before any use of an instance, and after the zero of Unix time, which stands for none.
var firstUse = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// shutdownLimit is how long an instance may take to stop, if it has no boot.host_shutdown_timeout.
const shutdownLimit = 30 * time.Second

// parse reads the answer to GET /1.0/instances/NAME.
func parse(name string, body []byte) (instance, error) {
	var in struct {
		Name       string
		Status     string
		LastUsedAt time.Time         `json:"last_used_at"`
		Config     map[string]string `json:"expanded_config"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return instance{}, fmt.Errorf("%w: the answer is not an instance: %w", service.ErrUnavailable, err)
	}
	if _, ok := states[in.Status]; !ok || in.Name != name {
		return instance{}, fmt.Errorf("%w: the answer is not the instance: name %.80q, status %.20q", service.ErrUnavailable, in.Name, in.Status)
	}
	i := instance{
		status: in.Status, lastUsed: in.LastUsedAt, lastPower: in.Config["volatile.last_state.power"],
		autostart: in.Config["boot.autostart"], autorestart: truth(in.Config["boot.autorestart"]), stopLimit: shutdownLimit,
	}
	if n, err := strconv.ParseUint(in.Config["boot.host_shutdown_timeout"], 10, 16); err == nil && n > 0 {
		i.stopLimit = time.Duration(n) * time.Second
	}
	if i.lastUsed.After(firstUse) {
		i.run = service.Invocation(in.Config["volatile.uuid"], in.Config["volatile.uuid.generation"], i.lastUsed.UTC().Format(time.RFC3339Nano))
	}
	return i, nil
}

// truth reads a boolean as Incus does.
func truth(s string) bool {
	switch s {
	case "true", "1", "yes", "on", "True", "TRUE", "Yes", "YES", "On", "ON":
		return true
	}
	return false
}

// parsePID reads the answer to GET /1.0/instances/NAME/state: the first process of the instance, 0 if there is none.
func parsePID(body []byte) (int, error) {
	var in struct {
		Status string
		PID    *int `json:"pid"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return 0, fmt.Errorf("%w: the answer is not a state: %w", service.ErrUnavailable, err)
	}
	if in.PID == nil || in.Status == "" {
		return 0, fmt.Errorf("%w: the answer is not a state: no pid or no status", service.ErrUnavailable)
	}
	return max(*in.PID, 0), nil // it is 0 or -1 without one
}

// live reports whether the instance has processes.
func (i instance) live() bool {
	return states[i.status] == service.StateRunning
}

// judge returns the status of an instance, given the job in progress, what was seen of the end of its run, and whether
// the daemon answers for long enough to have started what it should.
func (i instance) judge(name string, pid int, job string, e end, settled bool) service.Status {
	st := service.Status{
		Unit: name, State: states[i.status], Detail: i.status, Job: job, InvocationID: i.run, Enablement: "enabled",
		KillMode: "control-group", KillIsStop: true, Restart: "no",
	}
	if i.autostart != "" && i.autostart != "last-state" && !truth(i.autostart) {
		st.Enablement = "disabled"
	}
	if i.autorestart {
		st.Restart = "always"
	}
	switch {
	case i.live() && pid != 0:
		st.MainPID = pid
		if st.Job == "" && (i.status == "Frozen" || i.status == "Freezing") {
			st.Job = "freeze"
		}
	case i.live() && job == "start":
		st.State = service.StateStarting
	case i.live() && job == "" && i.autorestart:
		st.State = service.StateRestarting
	case i.live():
		st.State = service.StateStopping // its end is being cleaned up, which takes half a second
	case i.status != "Stopped":
	case job == "start":
		st.State = service.StateStarting
	case job != "":
		st.State = service.StateStopping
	default:
		i.judgeStopped(&st, e, settled)
	}
	return st
}

// judgeStopped is the table of the package comment.
func (i instance) judgeStopped(st *service.Status, e end, settled bool) {
	switch {
	case i.run == "":
		st.State = service.StateStopped
	case i.lastPower == "RUNNING" && !(i.autorestart && e.fresh):
		st.Unexplained = !settled || e.fresh
	case e.by == endOrdered:
		st.State = service.StateStopped
	case e.by == endInside && i.autorestart:
		st.Result = "start-limit-hit"
	case e.by == endUnseen && i.autorestart && e.fresh:
		st.State = service.StateRestarting
	case e.by == endUnseen && i.autorestart:
		st.State = service.StateStopped
	default:
		st.Unexplained = true
	}
}

// settling is how long a daemon may take until it has started what it should run.
const settling = time.Minute

// attempts is how often an instance is read to find it the same before and after its first process was.
const attempts = 8

// look reads an instance and returns its status.
func (m *Manager) look(ctx context.Context, name string) (instance, service.Status, error) {
	if err := checkName(name); err != nil {
		return instance{}, service.Status{}, err
	}
	for range attempts {
		// The job first: one that ended before the instance was read shows in the instance.
		op, err := m.running(ctx, name)
		if err != nil {
			return instance{}, service.Status{}, err
		}
		i, err := m.read(ctx, name)
		if err != nil {
			return instance{}, service.Status{}, err
		}
		pid, again := 0, i
		if i.live() {
			if pid, err = m.pid(ctx, name); err == nil {
				again, err = m.read(ctx, name)
			}
			if err != nil {
				return instance{}, service.Status{}, err
			}
		}
		if again == i {
			e, settled := m.recall(name, i)
			return i, i.judge(name, pid, op.job, e, settled), nil
		}
	}
	return instance{}, service.Status{}, fmt.Errorf("%w: the instance changes while it is read", service.ErrUnavailable)
}

func (m *Manager) read(ctx context.Context, name string) (instance, error) {
	body, err := m.get(ctx, path(name), nil)
	if err != nil {
		return instance{}, err
	}
	return parse(name, body)
}

// pid reads the first process of an instance that runs, 0 if it has none: while it starts or ends, Incus gives an error or
// no number.
func (m *Manager) pid(ctx context.Context, name string) (int, error) {
	body, err := m.get(ctx, path(name, "state"), nil)
	if err == nil {
		return parsePID(body)
	}
	for _, sentinel := range []error{service.ErrUnavailable, service.ErrPermission, service.ErrNotFound, context.Canceled} {
		if errors.Is(err, sentinel) {
			return 0, err
		}
	}
	m.log.Debug("first process of an instance is not known", "unit", name, "err", err)
	return 0, nil
}
