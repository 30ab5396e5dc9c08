// Package openrc is the service manager contract on OpenRC.
//
// It owns the reading of OpenRC's state, which is files below /run/openrc and nothing else: there is no daemon to ask.
//
//	link of the service in      State        besides
//	stopping                    stopping     job "stop"
//	starting                    starting     job "start"
//	inactive                    starting     started, waits for something outside
//	started, daemon lives       running
//	started, respawning         restarting   supervise-daemon lives, its child does not
//	started, daemon dead        failed       OpenRC calls it crashed; nothing announces it but the end of the process
//	failed                      failed       supervise-daemon gave up, or OpenRC could not start it at boot
//	scheduled/*                 starting     job "start", waits for another service
//	none                        stopped      a person stopped it, or zapped it, or never started it
//
// A service in no runlevel (rc-update del) is disabled. A stop goes through stopping before any process is signalled, so
// that a dead daemon without that link was not stopped by rc-service. The file is read until it is the same twice, because
// OpenRC moves links one after the other.
//
// It promises that nothing is polled, that a process is only signalled through a pidfd, after it was compared with the one
// that was observed, and that a command of OpenRC's is never cut short: half a job leaves its link in starting for ever. It
// deliberately does not enable or disable anything, runs no init script to learn something, and knows only what OpenRC
// keeps: not why a daemon died.
package openrc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Config says where OpenRC is. The zero value is not valid; start from [Default].
type Config struct {
	State     string // folder of OpenRC's state
	Scripts   string // folder of the init scripts
	Runlevels string // folder of the runlevels, one folder each
}

// Default returns the folders of every distribution known.
func Default() Config {
	return Config{State: "/run/openrc", Scripts: "/etc/init.d", Runlevels: "/etc/runlevels"}
}

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct{ key, path string }{{"state", c.State}, {"scripts", c.Scripts}, {"runlevels", c.Runlevels}} {
		if !filepath.IsAbs(f.path) {
			errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", f.key, f.path))
		}
	}
	return errors.Join(errs...)
}

// Deps are what a Manager needs from outside.
type Deps struct {
	Runner Runner       // nil for service.Runner
	Logger *slog.Logger // nil discards
}

// Runner runs the commands of OpenRC.
type Runner interface {
	Run(ctx context.Context, c service.Command) (service.Output, error)
}

// Manager is OpenRC. Make one with [New].
type Manager struct {
	config Config
	run    Runner
	log    *slog.Logger
	proc   string // the process table

	mu   sync.Mutex // guards seen
	seen map[string]sighting
}

// sighting is the main process that was seen first in a run of a service.
type sighting struct {
	run  uint64
	main process
}

var (
	_ service.Manager   = (*Manager)(nil)
	_ service.Restarter = (*Manager)(nil)
	_ service.Limited   = (*Manager)(nil)
	_ service.Watcher   = (*Manager)(nil)
)

// New returns a Manager without looking at anything.
func New(config Config, deps Deps) (*Manager, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure openrc: %w", err)
	}
	if deps.Runner == nil {
		deps.Runner = service.Runner{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{config: config, run: deps.Runner, log: deps.Logger, proc: "/proc", seen: map[string]sighting{}}, nil
}

// Status implements service.Manager. It runs no command. ErrNotFound is returned for a service without an init script even
// while it still runs: it could not be started again.
func (m *Manager) Status(ctx context.Context, unit string) (service.Status, error) {
	rec, err := m.read(ctx, unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	return m.status(unit, rec), nil
}

func (m *Manager) status(unit string, rec record) service.Status {
	return rec.status(unit, filepath.Join(m.config.Scripts, unit))
}

// KillMain implements service.Manager. Nothing restarts the daemon afterwards unless supervise-daemon looks after it.
func (m *Manager) KillMain(ctx context.Context, unit string, want service.Status) error {
	if err := m.killMain(ctx, unit, want); err != nil {
		return fmt.Errorf("kill main process of %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) killMain(ctx context.Context, unit string, want service.Status) error {
	rec, err := m.read(ctx, unit)
	if err != nil {
		return err
	}
	h, err := m.hold(unit, rec, want)
	if err != nil {
		return err
	}
	defer h.close()
	return h.kill()
}

// hold returns a handle on the main process of rec, which must be the one of want.
func (m *Manager) hold(unit string, rec record, want service.Status) (*handle, error) {
	if err := service.Same(want, m.status(unit, rec)); err != nil {
		return nil, err
	}
	h, err := open(m.proc, rec.main)
	if errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%w: main process %d has just ended", service.ErrChanged, rec.main.pid)
	}
	return h, err
}

// Limits implements service.Limited.
func (m *Manager) Limits(ctx context.Context, unit string) error {
	rec, err := m.read(ctx, unit)
	if err != nil {
		return fmt.Errorf("find out the limits for %q: %w", unit, err)
	}
	var errs []error
	if err := m.mayOrder(); err != nil {
		errs = append(errs, fmt.Errorf("start, restart: %w", err))
	}
	if rec.main.pid != 0 {
		errs = append(errs, m.mayKill(rec.main))
	} else if rec.mark == markStarted && rec.untracked {
		errs = append(errs, fmt.Errorf("kill: its init script starts no daemon that OpenRC keeps track of: %w", errors.ErrUnsupported))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("orders that may not be given on %q: %w", unit, err)
	}
	return nil
}

// mayOrder finds out whether rc-service would work: it writes OpenRC's state, which belongs to root.
func (m *Manager) mayOrder() error {
	if err := unix.Access(filepath.Join(m.config.State, string(markStarted)), unix.W_OK); err != nil {
		return fmt.Errorf("%w: OpenRC takes orders from root only", service.ErrPermission)
	}
	return nil
}

func (m *Manager) mayKill(p process) error {
	h, err := open(m.proc, p)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err == nil {
		defer h.close()
		err = h.mayKill()
	}
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	return nil
}

// patience is how often a job of somebody else is looked at while it is waited for.
const patience = 50 * time.Millisecond

// settled returns the service when no start of it is in progress.
func (m *Manager) settled(ctx context.Context, unit string) (record, error) {
	for {
		rec, err := m.read(ctx, unit)
		if err != nil || rec.mark != markStarting && rec.mark != markInactive && rec.mark != markScheduled && !rec.respawning() {
			return rec, err
		}
		t := time.NewTimer(patience)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return rec, fmt.Errorf("wait for the start in progress: %w", ctx.Err())
		}
	}
}
