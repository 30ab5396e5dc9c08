// Package incus is the service manager contract on the instances of an Incus daemon, through its API on a unix socket.
//
// A unit is an instance's name, or INSTANCE/MANAGER/UNIT: a unit of the service manager that runs inside the instance, which is
// reached through a command in there ([Manager.Exec]). The package owns no process: the daemon runs the instances, and [service.Status.MainPID] is
// an instance's first process as the daemon's machine numbers it. It promises that nothing is polled, that every method
// obeys its context even while the daemon hangs, that an instance which a person stopped is told from one which should run
// wherever Incus shows it and called unexplained where it does not, and that nothing is asked of the daemon but this, each
// for the configured project:
//
//	GET  /1.0/instances/NAME        the instance: whether it runs, and what is meant to become of it
//	GET  /1.0/instances/NAME/state  its first process
//	GET  /1.0/operations            whether somebody has begun something with it (recursion=1)
//	GET  /1.0/operations/ID/wait    the end of an order
//	GET  /1.0/events                that something happens, and who asked for it (type=lifecycle; a websocket)
//	PUT  /1.0/instances/NAME/state  Start and Restart
//
// and for units inside, which need Exec and nothing of the last one:
//
//	POST /1.0/instances/NAME/exec        the way to the manager inside
//	GET  /1.0/operations/ID/websocket    its input, output and errors
//
// It deliberately does not create, stop, freeze, update or remove anything, and it does not run the incus command.
//
// # Who ended an instance
//
// Incus does not keep why an instance ended. Its event of the end has a requestor if somebody asked the daemon to stop it,
// by instance-shutdown as well as, by force, by instance-stopped; a shutdown from inside (poweroff) and the death of the
// first process are one and the same event without a requestor. What survives is volatile.last_state.power: STOPPED after
// any end that the daemon saw. (Read in Incus 6.0.4 and 6.18, internal/server/instance/drivers/driver_lxc.go, Shutdown, Stop
// and onStop; seen with 6.0.4.) The first line that fits an instance which does not run decides:
//
//	never started                                    stopped  by who made it
//	last power state RUNNING: the daemon did not see the end, or ended it itself when it shut down:
//	    the daemon answers for less than a minute    unknown  it may be about to start it
//	    otherwise                                    failed   it was meant to go on
//	the event of its end has a requestor             stopped  by a person, or a program through the API
//	the event has none, boot.autorestart             failed   Incus gave up after 10 restarts in a minute
//	no event was seen, boot.autorestart:
//	    it was seen down for less than 10 s          restarting
//	    otherwise                                    stopped  Incus restarts what ends by itself
//	otherwise                                        unknown  nothing may be done
//
// So an instance that its own first process ended is never started by machine: nobody can say that it was no poweroff. What
// crashed inside an instance that runs is another matter. boot.autostart=false is a person's order not to start the instance
// by machine: it is disabled.
//
// # Inside an instance
//
// What the manager inside says of its unit is the unit's status, and its orders are that manager's own, while the instance
// runs and nobody works on it. Otherwise the unit has no state of its own: it is busy with what is done to the instance,
// stopped with an instance that a person stopped, and unexplained with every other one that does not run. No order to a
// unit inside ever starts, stops or restarts the instance. The main process of such a unit is numbered as inside.
//
// # Why it does not kill
//
// Incus has no order for it: a stop by force is a stop by a person to it, and to this package as well. KillMain gives
// errors.ErrUnsupported, and Restart is the order for an instance that hangs.
package incus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Config says where the daemon is reached. The zero value is not valid; start from [Default].
type Config struct {
	Socket  string // unix socket of the daemon
	Project string // project of the instances
}

// Default returns the daemon's usual socket and project.
func Default() Config {
	return Config{Socket: "/var/lib/incus/unix.socket", Project: "default"}
}

var projectGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Socket) {
		errs = append(errs, fmt.Errorf("socket: %q is not an absolute path", c.Socket))
	}
	if !projectGrammar.MatchString(c.Project) {
		errs = append(errs, fmt.Errorf("project: %q is not the name of a project", c.Project))
	}
	return errors.Join(errs...)
}

// Deps are what a Manager needs from outside.
type Deps struct {
	Logger *slog.Logger // nil discards
	Inside Inside       // nil for units that are instances only
}

// Manager is an Incus daemon. Make one with [New].
type Manager struct {
	config Config
	log    *slog.Logger
	inside Inside
	http   *http.Client

	mu    sync.Mutex      // guards below
	since time.Time       // since when the daemon answers, zero while it does not
	seen  map[string]end  // events of ends, by instance
	down  map[string]down // first looks at instances that do not run
	inner map[place]service.Manager
}

var (
	_ service.Manager   = (*Manager)(nil)
	_ service.Restarter = (*Manager)(nil)
	_ service.Limited   = (*Manager)(nil)
	_ service.Watcher   = (*Manager)(nil)
)

// New returns a Manager without connecting.
func New(config Config, deps Deps) (*Manager, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure incus: %w", err)
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		config: config, log: deps.Logger, inside: deps.Inside, http: newClient(config.Socket),
		seen: map[string]end{}, down: map[string]down{}, inner: map[place]service.Manager{},
	}, nil
}

// Close ends the connections that are not in use, and the managers inside. It is idempotent.
func (m *Manager) Close() error {
	m.mu.Lock()
	var errs []error
	for _, inner := range m.inner {
		if c, ok := inner.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	m.mu.Unlock()
	m.http.CloseIdleConnections()
	return errors.Join(errs...)
}

// answered notes that the daemon answers.
func (m *Manager) answered() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		m.since = time.Now()
	}
}

// forget notes that the daemon does not answer.
func (m *Manager) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = time.Time{}
}

// path returns the path of a call about an instance whose name was checked.
func path(name string, more ...string) string {
	return strings.Join(append([]string{"/1.0/instances", name}, more...), "/")
}

// Status implements service.Manager.
func (m *Manager) Status(ctx context.Context, unit string) (service.Status, error) {
	st, err := m.status(ctx, unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	return st, nil
}

// Start implements service.Manager. Incus does not wait until the instance says that it is up. Nothing is asked for an
// instance that runs, nor for one that Incus is about to restart.
func (m *Manager) Start(ctx context.Context, unit string) error {
	if err := m.start(ctx, unit); err != nil {
		return fmt.Errorf("start unit %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) start(ctx context.Context, unit string) error {
	if isInside(unit) {
		return m.startInside(ctx, unit)
	}
	_, st, err := m.look(ctx, unit)
	switch {
	case err != nil:
		return err
	case st.Job == "start":
		return m.join(ctx, unit)
	case st.Job != "":
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	case st.State == service.StateRunning, st.State == service.StateRestarting:
		return nil
	case st.State != service.StateFailed && st.State != service.StateStopped:
		return fmt.Errorf("%w: it is %s", service.ErrBusy, st.Detail)
	}
	err = m.put(ctx, unit, stateOrder{Action: "start", Timeout: -1})
	if err == nil || ctx.Err() != nil || errors.Is(err, service.ErrUnavailable) || errors.Is(err, service.ErrPermission) {
		return err
	}
	// Somebody else's start may have been faster, and is then waited for.
	if _, st, lookErr := m.look(ctx, unit); lookErr == nil {
		switch {
		case st.State == service.StateRunning:
			return nil
		case st.Job == "start":
			return m.join(ctx, unit)
		}
	}
	return err
}

// join waits for a start in progress, of which the daemon tells only those who may read it that it ended.
func (m *Manager) join(ctx context.Context, unit string) error {
	op, err := m.running(ctx, unit)
	if err != nil {
		return err
	}
	if op.job == "start" {
		if err := m.wait(ctx, op.id); err != nil && !errors.Is(err, service.ErrNotFound) {
			return fmt.Errorf("wait for the start in progress: %w", err)
		}
	}
	_, st, err := m.look(ctx, unit)
	if err == nil && st.State != service.StateRunning {
		err = fmt.Errorf("the start in progress left it %s", st.Detail)
	}
	return err
}

// stateOrder is the body of PUT /1.0/instances/NAME/state.
type stateOrder struct {
	Action  string `json:"action"`
	Timeout int    `json:"timeout"` // seconds for a stop, -1 for the daemon's own limit
	Force   bool   `json:"force"`
}

// put gives an order and waits until it was carried out. When ctx ends first, the daemon goes on.
func (m *Manager) put(ctx context.Context, unit string, o stateOrder) error {
	op, err := m.order(ctx, http.MethodPut, path(unit, "state"), o)
	if err != nil {
		return err
	}
	return m.wait(ctx, op.id)
}

// KillMain implements service.Manager: it gives errors.ErrUnsupported for an instance.
func (m *Manager) KillMain(ctx context.Context, unit string, want service.Status) error {
	if isInside(unit) {
		if err := m.killInside(ctx, unit, want); err != nil {
			return fmt.Errorf("kill main process of %q: %w", unit, err)
		}
		return nil
	}
	return fmt.Errorf("kill main process of %q: to Incus a stop by force is a stop by a person: %w", unit, errors.ErrUnsupported)
}

// jobLimit bounds what an order may take that nobody waits for any more.
const jobLimit = 10 * time.Minute

// Restart implements service.Restarter. The instance's boot.host_shutdown_timeout (30 s if it has none) bounds the stop; then
// it is restarted by force. Between the comparison and the order lies one call; an instance that begins another run in that
// moment is restarted in place of the one observed. Incus refuses to restart what does not run.
func (m *Manager) Restart(ctx context.Context, unit string, want service.Status) error {
	if err := m.restart(ctx, unit, want); err != nil {
		return fmt.Errorf("restart unit %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) restart(ctx context.Context, unit string, want service.Status) error {
	if isInside(unit) {
		return m.restartInside(ctx, unit, want)
	}
	i, err := m.unchanged(ctx, unit, want)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobLimit)
		defer cancel()
		err := m.put(ctx, unit, stateOrder{Action: "restart", Timeout: int(i.stopLimit.Seconds())})
		if err != nil && !errors.Is(err, service.ErrBusy) && !errors.Is(err, service.ErrPermission) && !errors.Is(err, service.ErrUnavailable) {
			// It did not stop in time. Whoever stopped or restarted it meanwhile is not overruled.
			if _, changed := m.unchanged(ctx, unit, want); changed == nil {
				err = m.put(ctx, unit, stateOrder{Action: "restart", Force: true})
			}
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for Incus: %w", ctx.Err())
	}
}

// unchanged returns the instance, or an error unless it is in the run that was observed and nobody works on it.
func (m *Manager) unchanged(ctx context.Context, unit string, want service.Status) (instance, error) {
	i, st, err := m.look(ctx, unit)
	switch {
	case err != nil:
		return i, err
	case st.Job != "":
		return i, fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	}
	return i, service.Same(want, st)
}

// nobody is a name that no instance can have.
const nobody = "-pgpatrol"

// Limits implements service.Limited. The order is given to an instance that cannot exist: the daemon does not find it, and a
// proxy that would refuse the order refuses it. Whoever may open the daemon's own socket may do everything.
func (m *Manager) Limits(ctx context.Context, unit string) error {
	if err := m.limits(ctx, unit); err != nil {
		return fmt.Errorf("find limits on %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) limits(ctx context.Context, unit string) error {
	if isInside(unit) {
		return m.limitsInside(ctx, unit)
	}
	if _, _, err := m.look(ctx, unit); err != nil {
		return err
	}
	_, err := m.order(ctx, http.MethodPut, path(nobody, "state"), stateOrder{Action: "start"})
	if errors.Is(err, service.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = errors.New("an order to an instance that cannot exist was accepted")
	}
	return err
}
