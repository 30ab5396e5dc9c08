// Package systemd is the service manager contract on systemd, through D-Bus.
//
// It owns one connection, to the system bus or, for root where no bus runs, to systemd's own socket. It is opened on
// first use, shared by calls and signals, and opened again by the next call after it broke; how often to try is up to
// the caller. It promises that nothing is polled, that every method obeys its context even while the bus or systemd
// hangs, that no job of an operator is ever replaced, that a kill reaches the main process only, and that a restart is
// asked for a unit that runs. It deliberately does not enable, unmask or only stop anything, and it does not run systemctl.
//
// Root may do everything. Another user needs polkit's action org.freedesktop.systemd1.manage-units with the verbs "start",
// "reset-failed" (a start after a failure), "kill" and "try-restart", on its units and no others: packaging/polkit.
//
// The connection is godbus's and not go-systemd's: that one opens two sockets per client, ties their life to the
// context they were dialled with, and waits without a deadline while it installs its matches.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/godbus/dbus/v5"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Config says where systemd is reached. The zero value is not valid; start from [Default].
type Config struct {
	Bus    string // unix socket of the system bus
	Direct string // systemd's own socket, tried by root if the bus cannot be used; empty for never
}

// Default returns the sockets of every distribution known.
func Default() Config {
	return Config{Bus: "/run/dbus/system_bus_socket", Direct: "/run/systemd/private"}
}

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Bus) {
		errs = append(errs, fmt.Errorf("bus: %q is not an absolute path", c.Bus))
	}
	if c.Direct != "" && !filepath.IsAbs(c.Direct) {
		errs = append(errs, fmt.Errorf("direct: %q is not an absolute path", c.Direct))
	}
	return errors.Join(errs...)
}

// Deps are what a Manager needs from outside.
type Deps struct {
	Logger *slog.Logger // nil discards
	// Dial opens a connection to the bus of another machine, on which calls are those of root there; the sockets of Config
	// are not used then. nil for this machine.
	Dial func(context.Context) (net.Conn, error)
}

// Manager is systemd. Make one with [New].
type Manager struct {
	config Config
	log    *slog.Logger
	euid   func() int // on the machine of the bus
	far    func(context.Context) (net.Conn, error)

	// dialing holds a token while a connection is being opened: at most one attempt at a time.
	dialing chan struct{}

	mu     sync.Mutex // guards conn and closed
	conn   *conn
	closed bool
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
		return nil, fmt.Errorf("configure systemd: %w", err)
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{config: config, log: deps.Logger, euid: os.Geteuid, far: deps.Dial, dialing: make(chan struct{}, 1)}
	if m.far != nil {
		m.euid = func() int { return 0 }
	}
	return m, nil
}

// Close ends the connection, which fails whatever is in progress with service.ErrUnavailable. It is idempotent; no
// method connects again afterwards.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.conn != nil {
		m.conn.close()
		m.conn = nil
	}
	return nil
}

// current returns the connection if it still stands.
func (m *Manager) current() (*conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fmt.Errorf("%w: closed", service.ErrUnavailable)
	}
	if m.conn != nil && m.conn.stands() {
		return m.conn, nil
	}
	m.conn = nil
	return nil, nil
}

// connect returns the connection and opens one if there is none. Callers that come while another one is connecting
// wait for it.
func (m *Manager) connect(ctx context.Context) (*conn, error) {
	if c, err := m.current(); c != nil || err != nil {
		return c, err
	}
	select {
	case m.dialing <- struct{}{}:
		defer func() { <-m.dialing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to systemd: %w", wrap(ctx.Err()))
	}
	if c, err := m.current(); c != nil || err != nil {
		return c, err
	}
	c, err := m.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", wrap(err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		c.close()
		return nil, fmt.Errorf("%w: closed", service.ErrUnavailable)
	}
	m.conn = c
	m.log.Debug("connected to systemd", "direct", c.direct)
	return c, nil
}

// Status implements service.Manager. ErrNotFound is returned for a unit without a file even while it still runs: it
// could not be started again.
func (m *Manager) Status(ctx context.Context, unit string) (service.Status, error) {
	c, err := m.prepare(ctx, unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	st, err := c.status(ctx, unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	return st, nil
}

// Start implements service.Manager. The job is enqueued with mode "fail": the default, "replace", would cancel the job
// of an operator (FAULTS.md F09). A unit that waits for its automatic restart is started at once.
func (m *Manager) Start(ctx context.Context, unit string) error {
	c, err := m.prepare(ctx, unit)
	if err != nil {
		return fmt.Errorf("start unit %q: %w", unit, err)
	}
	if err := c.start(ctx, unit); err != nil {
		return fmt.Errorf("start unit %q: %w", unit, err)
	}
	return nil
}

// KillMain implements service.Manager. systemd resolves the main process itself, so that a reused pid cannot be hit
// (FAULTS.md T15). Between the comparison and the kill lies one call; a main process that is replaced in that moment
// is killed in place of the one observed.
func (m *Manager) KillMain(ctx context.Context, unit string, want service.Status) error {
	c, err := m.prepare(ctx, unit)
	if err != nil {
		return fmt.Errorf("kill main process of %q: %w", unit, err)
	}
	if err := c.killMain(ctx, unit, want); err != nil {
		return fmt.Errorf("kill main process of %q: %w", unit, err)
	}
	return nil
}

// Restart implements service.Restarter. The job is enqueued with mode "fail", as in Start, and as TryRestartUnit, which
// does not start what was stopped after the comparison; a run that was replaced in that moment is restarted in place of the
// one observed. The unit's own TimeoutStopSec bounds the stop.
//
// Of Patroni this stops PostgreSQL: Patroni shuts it down when it is asked to stop, and on the leader that ends every
// session and brings a failover (FACTS.md §3.1). One that hangs is killed in the end, and PostgreSQL with it unless KillMode
// says otherwise. KillMain is what spares PostgreSQL.
func (m *Manager) Restart(ctx context.Context, unit string, want service.Status) error {
	c, err := m.prepare(ctx, unit)
	if err != nil {
		return fmt.Errorf("restart unit %q: %w", unit, err)
	}
	if err := c.restart(ctx, unit, want); err != nil {
		return fmt.Errorf("restart unit %q: %w", unit, err)
	}
	return nil
}

// Limits implements service.Limited. Root has none. For another user systemd asks polkit, which answers only root and
// systemd itself what a rule for one unit or one verb would say. So systemd is asked to send SIGURG to the unit's control
// process, which it does not do without having asked polkit about this unit and the verb "kill". There is a control
// process only while ExecStartPre= and the like run, and SIGURG does nothing to a process that did not ask for it. The
// other verbs cannot be tried without doing them: a rule that forgets one of them is not found out.
func (m *Manager) Limits(ctx context.Context, unit string) error {
	if m.euid() == 0 {
		return nil
	}
	c, err := m.prepare(ctx, unit)
	if err == nil {
		err = c.call(ctx, managerPath, managerIface+".KillUnit", nil, unit, "control", int32(syscall.SIGURG))
	}
	if errors.Is(err, service.ErrChanged) { // no such process: it was allowed
		return nil
	}
	if err != nil {
		return fmt.Errorf("find limits on %q: %w", unit, err)
	}
	return nil
}

// prepare checks the name before anything is sent and returns the connection.
func (m *Manager) prepare(ctx context.Context, unit string) (*conn, error) {
	if err := checkName(unit); err != nil {
		return nil, err
	}
	return m.connect(ctx)
}

// status reads all properties in one call. Only if a job is pending, its type costs another one.
func (c *conn) status(ctx context.Context, unit string) (service.Status, error) {
	props, err := c.properties(ctx, unitPath(unit))
	if err != nil {
		return service.Status{}, err
	}
	st, err := parse(unit, props)
	if err != nil || st.Job == "" {
		return st, err
	}
	var kind dbus.Variant
	err = c.call(ctx, jobPath(props), propertiesIface+".Get", []any{&kind}, jobIface, "JobType")
	if err != nil {
		if ctx.Err() != nil {
			return service.Status{}, err
		}
		// The job ended in between. What it did is not in these properties yet, so the unit still counts as busy.
		return st, nil
	}
	if s, ok := kind.Value().(string); ok && s != "" {
		st.Job = s
	}
	return st, nil
}

func (c *conn) start(ctx context.Context, unit string) error {
	st, err := c.status(ctx, unit)
	if err != nil {
		return err
	}
	if st.Job != "" && st.Job != "start" {
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	}
	if st.State == service.StateFailed {
		// A start limit is the only reason why this is needed, but it cannot be told from the properties: Result
		// stays what the last run ended with (FAULTS.md L7).
		if err := c.call(ctx, managerPath, managerIface+".ResetFailedUnit", nil, unit); err != nil {
			return err
		}
	}
	return c.runJob(ctx, "StartUnit", unit)
}

func (c *conn) restart(ctx context.Context, unit string, want service.Status) error {
	st, err := c.status(ctx, unit)
	if err != nil {
		return err
	}
	if st.Job != "" {
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	}
	if err := service.Same(want, st); err != nil {
		return err
	}
	return c.runJob(ctx, "TryRestartUnit", unit)
}

// runJob enqueues a job and waits for its end. Mode "fail" refuses it where it would replace a job of somebody else.
func (c *conn) runJob(ctx context.Context, method, unit string) error {
	w, err := c.expectJob(ctx)
	if err != nil {
		return err
	}
	defer c.forgetJob(w)
	var job dbus.ObjectPath
	if err := c.call(ctx, managerPath, managerIface+"."+method, []any{&job}, unit, "fail"); err != nil {
		return err
	}
	if !job.IsValid() {
		return fmt.Errorf("%w: the answer names no job", service.ErrUnavailable)
	}
	result, err := c.awaitJob(ctx, w, job)
	if err != nil {
		return err
	}
	if result != "done" {
		return fmt.Errorf("the job ended with %q", result)
	}
	return nil
}

func (c *conn) killMain(ctx context.Context, unit string, want service.Status) error {
	st, err := c.status(ctx, unit)
	if err != nil {
		return err
	}
	if err := service.Same(want, st); err != nil {
		return err
	}
	// "main", never "all": the children are PostgreSQL (FACTS.md §3.1).
	return c.call(ctx, managerPath, managerIface+".KillUnit", nil, unit, "main", int32(syscall.SIGKILL))
}
