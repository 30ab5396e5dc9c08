package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// maxName bounds names. Docker has no limit, but a name is also a host name in its networks.
const maxName = 255

// checkName accepts what Docker accepts as a name, and nothing that would mean something in a path. An id is no name: what
// it stands for is another container after every update.
func checkName(unit string) error {
	if len(unit) < 2 || len(unit) > maxName {
		return fmt.Errorf("container name of %d bytes, not 2 to %d", len(unit), maxName)
	}
	for i, b := range []byte(unit) {
		alnum := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !alnum && (i == 0 || b != '_' && b != '.' && b != '-') {
			return fmt.Errorf("container name %q contains %q", unit, b)
		}
	}
	return nil
}

// container is what this package reads of an engine's answer. Unknown fields are none of its business.
type container struct {
	id           string
	status       string // created, running, paused, restarting, removing, exited, dead
	pid          int
	exitCode     int
	oomKilled    bool
	failure      string // why the last start failed
	startedAt    time.Time
	restarts     int
	policy       string // no, always, unless-stopped, on-failure
	maxRestarts  int    // of on-failure, 0 for no limit
	stopSignal   string // empty for SIGTERM
	engineClock  time.Time
	invocationID string
}

// parse reads the answer to GET /containers/NAME/json. The engine also takes ids and their beginnings for names, so the name
// in the answer has to be the one that was asked for: otherwise there is no such container, ErrNotFound.
func parse(unit string, body []byte) (container, error) {
	var in struct {
		ID           string `json:"Id"`
		Name         string
		RestartCount int
		State        *struct {
			Status, Error, StartedAt string
			Pid, ExitCode            int
			OOMKilled                bool
		}
		HostConfig *struct {
			RestartPolicy struct {
				Name              string
				MaximumRetryCount int
			}
		}
		Config struct{ StopSignal string }
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return container{}, fmt.Errorf("%w: the answer is not a container: %w", service.ErrUnavailable, err)
	}
	lacks := func(what string) (container, error) {
		return container{}, fmt.Errorf("%w: the answer is not a container: %s", service.ErrUnavailable, what)
	}
	switch {
	case !isID(in.ID):
		return lacks("no Id")
	case in.State == nil || in.HostConfig == nil:
		return lacks("no State or no HostConfig")
	case in.State.Pid < 0 || in.RestartCount < 0:
		return lacks("a number below zero")
	case in.Name != "/"+unit:
		return container{}, fmt.Errorf("%w: %.80q is the id of container %.80q", service.ErrNotFound, unit, in.Name)
	}
	started, err := time.Parse(time.RFC3339Nano, in.State.StartedAt)
	if err != nil {
		return lacks("no time in StartedAt")
	}
	c := container{
		id: in.ID, status: in.State.Status, pid: in.State.Pid, exitCode: in.State.ExitCode, oomKilled: in.State.OOMKilled,
		failure: oneLine(in.State.Error), startedAt: started, restarts: in.RestartCount,
		policy: in.HostConfig.RestartPolicy.Name, maxRestarts: in.HostConfig.RestartPolicy.MaximumRetryCount,
		stopSignal: in.Config.StopSignal,
	}
	switch c.policy {
	case "always", "unless-stopped", "on-failure":
	case "", "no":
		c.policy = "no"
	default:
		return lacks("restart policy " + strconv.Quote(oneLine(c.policy)))
	}
	if _, ok := states[c.status]; !ok {
		return lacks("status " + strconv.Quote(oneLine(c.status)))
	}
	if c.ran() {
		c.invocationID = service.Invocation(c.id, in.State.StartedAt)
	}
	return c, nil
}

func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// states maps the engine's words. A paused container runs, with a job of somebody who has to end it; one that is dead was
// removed, but for what the engine could not remove.
var states = map[string]service.State{
	"created":    service.StateStopped,
	"running":    service.StateRunning,
	"paused":     service.StateRunning,
	"restarting": service.StateRestarting,
	"removing":   service.StateStopping,
	"exited":     service.StateFailed,
	"dead":       service.StateStopped,
}

// ran reports whether the container was ever started.
func (c container) ran() bool { return c.startedAt.Year() > 1 }

// restartsNow reports whether the policy makes the engine restart the container after the end that it shows, unless
// somebody stopped it.
func (c container) restartsNow() bool {
	switch c.policy {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return c.exitCode != 0 && (c.maxRestarts == 0 || c.restarts < c.maxRestarts)
	}
	return false
}

// result returns how the last run ended in systemd's words, with the exit code or the number of the signal. An engine that
// learns of the end before it learns of the lack of memory may never say oom-kill (20.10): it is a signal then.
func (c container) result() (string, int) {
	const bySignal, sigkill = 128, 9 // a shell's convention, which the engine keeps for its main processes
	switch {
	case c.failure != "":
		return "resources", c.exitCode
	case c.exitCode == 0:
		return "success", 0
	case c.oomKilled && c.exitCode == bySignal+sigkill:
		return "oom-kill", sigkill
	case c.exitCode > bySignal && c.exitCode <= bySignal+64:
		return "signal", c.exitCode - bySignal
	}
	return "exit-code", c.exitCode
}

// trace is what was seen of the latest run of a container, and is true of it for ever.
type trace struct {
	run     string // InvocationID
	waiting bool   // the engine was about to restart it after this run
	stopped bool   // a person ended it
	crashed bool   // nobody ended it

	witness *hearing // what was listening when the run was seen, nobody telling it to end, and has listened since; nil for none
}

// judge returns the status of a container, given what is known of its run and of the engine.
func (c container) judge(unit string, s story, t trace, settled bool) service.Status {
	st := service.Status{
		Unit: unit, State: states[c.status], Detail: c.status, MainPID: c.pid, InvocationID: c.invocationID, Restarts: c.restarts,
		KillMode: "control-group", KillIsStop: true, Restart: c.policy,
	}
	if c.policy == "unless-stopped" {
		st.Restart = "always"
	}
	if c.policy != "no" {
		st.Enablement = "enabled"
	}
	if c.status != "running" && c.status != "paused" && c.ran() {
		st.Result, st.ExitStatus = c.result()
	}
	switch c.status {
	case "paused":
		st.Job = "pause"
	case "removing":
		st.Job = "remove"
	case "running":
		if s.stopping {
			st.Job = "stop"
		}
	case "exited":
		if c.failure != "" {
			st.Detail += ": " + c.failure
			break
		}
		if c.exitCode == 0 {
			st.State = service.StateStopped
		}
		st.Halted, st.Unexplained = c.ended(s, t, settled)
	}
	return st
}

// ended is the table of the package comment, for a container that exited and whose last start did not fail.
func (c container) ended(s story, t trace, settled bool) (halted, unexplained bool) {
	switch {
	case t.waiting, t.stopped:
		return true, false
	case c.restartsNow():
		unexplained = s.signalled || !settled
		return !unexplained, unexplained
	case t.crashed, c.exitCode == 0:
		return false, false
	}
	return false, true
}

// settling is how long an engine may take until it has started what it should run.
const settling = time.Minute

// inspect reads a container.
func (m *Manager) inspect(ctx context.Context, unit string) (container, error) {
	if err := checkName(unit); err != nil {
		return container{}, err
	}
	r, err := m.get(ctx, containerPath(unit, "json"), nil)
	if err != nil {
		return container{}, err
	}
	c, err := parse(unit, r.body)
	c.engineClock = r.date
	return c, err
}

// status reads a container and, where they may change what is thought of it, its events. An engine or a proxy that does not
// give events leaves less known, and no more.
func (m *Manager) status(ctx context.Context, unit string) (service.Status, error) {
	h := m.listening(unit)
	c, err := m.inspect(ctx, unit)
	if err != nil {
		return service.Status{}, err
	}
	t := m.recall(unit, c)
	var s story
	if c.status == "running" || c.status == "exited" && !t.stopped && !t.waiting {
		if s, err = m.story(ctx, c); err != nil {
			if ctx.Err() != nil {
				return service.Status{}, err
			}
			m.log.Debug("events of a container are not known", "unit", unit, "err", err)
		}
		if err != nil {
			h = nil
		}
	}
	s, t, settled := m.remember(unit, c, t, s, h)
	return c.judge(unit, s, t, settled), nil
}

// recall returns what was seen of the run that c shows.
func (m *Manager) recall(unit string, c container) trace {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.seen[unit]
	if t.run != c.invocationID {
		t = trace{run: c.invocationID}
	}
	t.waiting = t.waiting || c.status == "restarting"
	return t
}

// remember adds what was heard to what the engine tells and both to what was seen of a run, and reports whether the engine
// answers for long enough to have done its part.
func (m *Manager) remember(unit string, c container, t trace, s story, h *hearing) (story, trace, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s = m.overhear(unit, c, &t, s, h)
	t.stopped = t.stopped || s.stopped
	t.crashed = t.crashed || s.crashed
	m.seen[unit] = t
	return s, t, !m.since.IsZero() && time.Since(m.since) >= settling
}
