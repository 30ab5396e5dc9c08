// Package docker is the service manager contract on containers, through the API of a Docker engine.
//
// A unit is a container's name. The package owns no process: the engine runs the containers, and it may run on another
// machine than the agent (Colima's virtual machine), so [service.Status.MainPID] is a pid there. It promises that nothing
// is polled, that every method obeys its context even while the engine hangs, that a container which a person stopped is
// told from one which crashed wherever the engine shows it and called unexplained where it does not, and that nothing is
// asked of the engine but this:
//
//	GET  /_ping                     which version of the API both sides know, and the engine's clock
//	GET  /containers/NAME/json      the container
//	GET  /events                    what happened to it (since=, until=), and that something happens
//	POST /containers/NAME/start     Start
//	POST /containers/NAME/restart   Restart
//
// A proxy that lets exactly these through, for the names of the agent's containers, is all that it needs. Without /events
// it works, but sees less; without a POST, only that order is refused, and [Manager.Limits] says so at start. It
// deliberately does not create, stop, kill, pause, update or remove anything, and it does not run the docker command.
//
// # Who ended a container
//
// The engine knows whether a person stopped a container (HasBeenManuallyStopped) but does not tell. It follows from what
// the engine did and did not do. The first line that fits a container which does not run decides:
//
//	never started                                               stopped  by who made it
//	last start failed (State.Error)                             failed   somebody or the engine wanted it to run
//	was waiting for a restart, which never came                 stopped  only a stop or a kill takes it out of there
//	a stop, or a kill before the end, among its events          stopped  by a person, or a program through the API
//	its policy covers the end, yet it was not restarted:
//	    another signal was sent to it through the API           unknown  docker kill -s HUP ends the policy as well
//	    the engine answers for less than a minute               unknown  it may be about to start it
//	    otherwise                                               stopped  the engine restarts what nobody stopped
//	all its events from start to end are there, or from when it
//	was seen to run, without a kill                             failed   a crash
//	otherwise                                                   unknown  nothing may be done
//
// So a container with restart=no that crashed may be started again if the engine still has its events, of which it keeps the
// last 256 of all containers until it restarts, or if Watch has heard them since the container was seen to run; one that was
// stopped never is. What was once seen of a run is remembered as long as the agent lives. A run that ended well counts as stopped, as with every manager.
//
// One stop cannot be seen: `docker kill` of a container under on-failure:N that waits for its very last restart, unless
// the wait was seen. It looks like a container that used up its restarts.
//
// # Why it does not kill
//
// A kill through the API is a stop by a person to the engine: it does not restart the container, under no policy. It would
// be one to this package as well, and an agent that dies between the kill and the start would find a container that a
// person stopped, for ever. So KillMain gives errors.ErrUnsupported, and Restart, which the engine carries out to its end
// whatever becomes of the caller, is the order for a container that hangs. In a container nothing survives its main process
// anyhow.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Config says where the engine is reached. The zero value is not valid; start from [Default] or [Find].
type Config struct {
	Socket string // unix socket of the engine, or of a proxy before it
	Proxy  string // http://host:port of a filtering proxy, in place of the socket; empty for none
}

// Default returns the engine's usual socket.
func Default() Config { return Config{Socket: usualSocket} }

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	if c.Proxy == "" {
		if !filepath.IsAbs(c.Socket) {
			return fmt.Errorf("socket: %q is not an absolute path", c.Socket)
		}
		return nil
	}
	u, err := url.Parse(c.Proxy)
	if err != nil {
		return errors.New("proxy: not a URL")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if u.Scheme != "http" || u.Hostname() == "" || err != nil || port == 0 || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) {
		return fmt.Errorf("proxy: %q is not http://host:port", u.Redacted())
	}
	return nil
}

// Warning returns what a person should know about this way to the engine, empty if there is nothing.
func (c Config) Warning() string {
	if c.Proxy == "" {
		return ""
	}
	return "the Docker API at " + c.Proxy + " asks nobody who they are: let it be a proxy that passes on only what pgpatrol needs, " +
		"on an address that only this machine reaches; an engine itself there would give root to whoever reaches it"
}

// Deps are what a Manager needs from outside.
type Deps struct {
	Logger *slog.Logger // nil discards
}

// Manager is a Docker engine. Make one with [New].
type Manager struct {
	log  *slog.Logger
	base string // scheme and host of every URL
	http *http.Client

	mu      sync.Mutex          // guards below
	version string              // of the API, empty until both sides agreed
	since   time.Time           // since when the engine answers, zero while it does not
	seen    map[string]trace    // by unit
	heard   map[string]*hearing // by unit that is watched now
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
		return nil, fmt.Errorf("configure docker: %w", err)
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	base, client := newClient(config)
	return &Manager{log: deps.Logger, base: base, http: client, seen: map[string]trace{}, heard: map[string]*hearing{}}, nil
}

// Close ends the connections that are not in use. It is idempotent.
func (m *Manager) Close() error {
	m.http.CloseIdleConnections()
	return nil
}

// Status implements service.Manager. A stop in progress is its Job: the engine goes on calling the container running.
func (m *Manager) Status(ctx context.Context, unit string) (service.Status, error) {
	st, err := m.status(ctx, unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	return st, nil
}

// Start implements service.Manager. Nothing is asked for a container that runs, nor for one that waits for its restart: the
// engine cannot be made to hurry.
func (m *Manager) Start(ctx context.Context, unit string) error {
	if err := m.start(ctx, unit); err != nil {
		return fmt.Errorf("start unit %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) start(ctx context.Context, unit string) error {
	st, err := m.status(ctx, unit)
	switch {
	case err != nil:
		return err
	case st.Job != "":
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	case st.State == service.StateRunning, st.State == service.StateRestarting:
		return nil
	}
	return m.post(ctx, containerPath(unit, "start"))
}

// KillMain implements service.Manager: it gives errors.ErrUnsupported.
func (m *Manager) KillMain(_ context.Context, unit string, _ service.Status) error {
	return fmt.Errorf("kill main process of %q: to Docker a kill is a stop by a person: %w", unit, errors.ErrUnsupported)
}

// Restart implements service.Restarter. The container's own stop signal and stop timeout apply (10 s if it has none), then
// SIGKILL. Between the comparison and the order lies one call; a container that is replaced in that moment is restarted in
// place of the one observed, and one that a person begins to stop in that moment is started.
func (m *Manager) Restart(ctx context.Context, unit string, want service.Status) error {
	if err := m.restart(ctx, unit, want); err != nil {
		return fmt.Errorf("restart unit %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) restart(ctx context.Context, unit string, want service.Status) error {
	st, err := m.status(ctx, unit)
	switch {
	case err != nil:
		return err
	case st.Job != "":
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	}
	if err := service.Same(want, st); err != nil {
		return err
	}
	return m.post(ctx, containerPath(unit, "restart"))
}

// nobody is a name that no container can have, since they begin with a letter or a digit, and no id either.
const nobody = "_pgpatrol"

// Limits implements service.Limited. The orders are given to a container that cannot exist: the engine does not find it,
// and a proxy that would refuse the order refuses it. A proxy that does not even let such a name be read lets only certain
// names through; then the orders cannot be tried.
func (m *Manager) Limits(ctx context.Context, unit string) error {
	if err := m.limits(ctx, unit); err != nil {
		return fmt.Errorf("find limits on %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) limits(ctx context.Context, unit string) error {
	c, err := m.inspect(ctx, unit)
	if err != nil && !errors.Is(err, service.ErrPermission) {
		return err
	}
	refused := []error{err}
	if err == nil {
		_, err = m.story(ctx, c)
		refused = append(refused, err)
	}
	switch _, err := m.get(ctx, containerPath(nobody, "json"), nil); {
	case errors.Is(err, service.ErrPermission):
	case errors.Is(err, service.ErrNotFound):
		for _, order := range []string{"start", "restart"} {
			if err := m.post(ctx, containerPath(nobody, order)); !errors.Is(err, service.ErrNotFound) {
				refused = append(refused, err)
			}
		}
	default:
		refused = append(refused, err)
	}
	return errors.Join(refused...)
}
