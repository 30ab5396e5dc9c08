// Package procd is the service manager contract on OpenWrt's procd, through ubus and the init scripts.
//
// What procd keeps of a service is its instances, each one process:
//
//	service    instance                        State       meaning
//	known      runs                            running
//	known      does not run, respawn           restarting  procd starts it again after the respawn timeout
//	known      does not run, no respawn        failed      crashed, and procd gave up or was never to restart it
//	known      the same, exit code 0           stopped     ended by itself, or by SIGTERM: unexplained
//	known      none                            stopped     its script starts nothing, as configured
//	not known  -                               stopped     somebody ran "/etc/init.d/x stop", which takes it from procd
//
// So a stop by a person and a crash are never alike: the one removes the instance, the other leaves it with its exit code.
// A service without a link in /etc/rc.d ("/etc/init.d/x disable") is disabled.
//
// It promises that a signal reaches exactly the process that procd itself knows as its child. It deliberately does not
// listen to procd's events: "ubus listen" is a program that never ends, and one look costs a few milliseconds. How often
// it looks is declared.
package procd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Config says where procd is. The zero value is not valid; start from [Default].
type Config struct {
	Ubus    string        // the program ubus
	Scripts string        // folder of the init scripts
	Links   string        // folder of the links that start scripts at boot
	Every   time.Duration // how often Watch looks
}

// Default returns the places of OpenWrt.
func Default() Config {
	return Config{Ubus: "/bin/ubus", Scripts: "/etc/init.d", Links: "/etc/rc.d", Every: 2 * time.Second}
}

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct{ key, path string }{{"ubus", c.Ubus}, {"scripts", c.Scripts}, {"links", c.Links}} {
		if !filepath.IsAbs(f.path) {
			errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", f.key, f.path))
		}
	}
	if c.Every <= 0 {
		errs = append(errs, fmt.Errorf("every: %v is no interval", c.Every))
	}
	return errors.Join(errs...)
}

// Deps are what a Manager needs from outside.
type Deps struct {
	Runner Runner       // nil for service.Runner
	Logger *slog.Logger // nil discards
}

// Runner runs ubus and the init scripts.
type Runner interface {
	Run(ctx context.Context, c service.Command) (service.Output, error)
}

// Manager is procd. Make one with [New].
type Manager struct {
	config Config
	run    Runner
	log    *slog.Logger

	mu   sync.Mutex // guards last
	last map[string]string
}

var (
	_ service.Manager   = (*Manager)(nil)
	_ service.Restarter = (*Manager)(nil)
	_ service.Limited   = (*Manager)(nil)
	_ service.Watcher   = (*Manager)(nil)
	_ service.Polled    = (*Manager)(nil)
)

// New returns a Manager without running anything.
func New(config Config, deps Deps) (*Manager, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure procd: %w", err)
	}
	if deps.Runner == nil {
		deps.Runner = service.Runner{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{config: config, run: deps.Runner, log: deps.Logger, last: map[string]string{}}, nil
}

// Status implements service.Manager. ErrNotFound is returned for a service without an init script even while procd runs it:
// it could not be started again.
func (m *Manager) Status(ctx context.Context, unit string) (service.Status, error) {
	st, _, err := m.read(ctx, unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	return st, nil
}

// read returns the status of a service, and the name of its instance if it has exactly one.
func (m *Manager) read(ctx context.Context, unit string) (service.Status, string, error) {
	if err := checkName(unit); err != nil {
		return service.Status{}, "", err
	}
	out, err := m.ubus(ctx, "list", map[string]any{"name": unit})
	if err != nil {
		return service.Status{}, "", err
	}
	known, err := parse(out, unit)
	if err != nil {
		return service.Status{}, "", fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	script := filepath.Join(m.config.Scripts, unit)
	info, err := os.Stat(script)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return service.Status{}, "", fmt.Errorf("%w: %w", service.ErrNotFound, err)
	case err != nil:
		return service.Status{}, "", fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	st := known.status(unit)
	st.UnitFile = script
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		st.LoadError = "not executable"
	}
	// The same that "/etc/init.d/x enabled" finds out, without a shell each time.
	st.Enablement = "disabled"
	if links, err := filepath.Glob(filepath.Join(m.config.Links, "S[0-9][0-9]"+unit)); err == nil && len(links) > 0 {
		st.Enablement = "enabled"
	}
	m.name(&st, known)
	return st, known.only(), nil
}

// name gives a run its id: the pids of the instances, which procd keeps only as long as they run. After that the id is the
// last one that was seen, so that it changes with a start and not with an end. A manager that has just begun to look does
// not know it.
func (m *Manager) name(st *service.Status, known answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id := known.run(); id != "" {
		m.last[st.Unit] = id
	}
	if len(known) == 0 {
		delete(m.last, st.Unit)
		return
	}
	st.InvocationID = m.last[st.Unit]
	if st.InvocationID == "" {
		st.InvocationID = "unseen"
	}
}

// Start implements service.Manager. A script that is told to start what runs restarts it if its configuration was changed,
// so nothing is done then.
func (m *Manager) Start(ctx context.Context, unit string) error {
	if err := m.start(ctx, unit); err != nil {
		return fmt.Errorf("start %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) start(ctx context.Context, unit string) error {
	st, _, err := m.read(ctx, unit)
	switch {
	case err != nil:
		return err
	case st.State == service.StateRunning:
		return nil
	case st.LoadError != "":
		return errors.New("its init script is " + st.LoadError)
	case st.State == service.StateUnknown:
		return fmt.Errorf("whether it runs is unknown: %s", st.Detail)
	}
	code, err := m.script(ctx, unit, "start")
	if err != nil {
		return err
	}
	now, _, err := m.read(ctx, unit)
	switch {
	case err != nil:
		return err
	case code != 0:
		return fmt.Errorf("its init script ended with exit code %d, the service is %q", code, now.Detail)
	case now.State == service.StateStopped && now.Result == "":
		return fmt.Errorf("its init script started nothing, the service is %q", now.Detail)
	}
	return nil
}

// KillMain implements service.Manager. procd signals its own child, whose number cannot go to another process before procd
// has noticed its end.
func (m *Manager) KillMain(ctx context.Context, unit string, want service.Status) error {
	if err := m.killMain(ctx, unit, want); err != nil {
		return fmt.Errorf("kill main process of %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) killMain(ctx context.Context, unit string, want service.Status) error {
	instance, err := m.same(ctx, unit, want)
	if err != nil {
		return err
	}
	const sigkill = 9
	_, err = m.ubus(ctx, "signal", map[string]any{"name": unit, "instance": instance, "signal": sigkill})
	var code codeError
	if errors.As(err, &code) && code.code == statusNotFound {
		return fmt.Errorf("%w: %w", service.ErrChanged, err)
	}
	return err
}

// same reads the service and returns its one instance if it is still the one of want.
func (m *Manager) same(ctx context.Context, unit string, want service.Status) (instance string, err error) {
	st, instance, err := m.read(ctx, unit)
	if err != nil {
		return "", err
	}
	return instance, service.Same(want, st)
}

// pause is how often a restart is looked at while it is waited for. The script returns before the old process has ended.
const pause = 200 * time.Millisecond

// Restart implements service.Restarter: SIGTERM, SIGKILL after the instance's term_timeout (5 s by default), a new process.
func (m *Manager) Restart(ctx context.Context, unit string, want service.Status) error {
	if err := m.restart(ctx, unit, want); err != nil {
		return fmt.Errorf("restart %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) restart(ctx context.Context, unit string, want service.Status) error {
	if _, err := m.same(ctx, unit, want); err != nil {
		return err
	}
	code, err := m.script(ctx, unit, "restart")
	if err != nil {
		return err
	}
	for {
		now, _, err := m.read(ctx, unit)
		switch {
		case err != nil:
			return err
		case now.State == service.StateRunning && now.InvocationID != want.InvocationID:
			return nil
		case now.State != service.StateRunning && now.InvocationID != want.InvocationID, code != 0:
			return fmt.Errorf("its init script ended with exit code %d, the service is %q", code, now.Detail)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for procd: %w", ctx.Err())
		}
	}
}

// Limits implements service.Limited. Signal 0 is the one order that does nothing.
func (m *Manager) Limits(ctx context.Context, unit string) error {
	if _, _, err := m.read(ctx, unit); err != nil {
		return fmt.Errorf("find out the limits for %q: %w", unit, err)
	}
	if err := m.mayOrder(ctx, unit); err != nil {
		return fmt.Errorf("orders that may not be given on %q: start, restart, kill: %w", unit, err)
	}
	return nil
}

// mayOrder finds out whether procd takes orders from this user. ubus refuses before procd is asked.
func (m *Manager) mayOrder(ctx context.Context, unit string) error {
	_, err := m.ubus(ctx, "signal", map[string]any{"name": unit, "signal": 0})
	if errors.Is(err, service.ErrPermission) {
		return err
	}
	return nil
}

// Every implements service.Polled.
func (m *Manager) Every() time.Duration { return m.config.Every }

// Watch implements service.Watcher by looking.
func (m *Manager) Watch(ctx context.Context, units []string, wake func()) error {
	for _, unit := range units {
		if err := checkName(unit); err != nil {
			return fmt.Errorf("watch units: %w", err)
		}
	}
	return service.Poll(ctx, m, m.config.Every, units, wake)
}

// script runs an init script with one word. It goes on when ctx or this program ends. A user who may not give orders does
// not learn it from the script: its exit code is not that of its call to procd.
func (m *Manager) script(ctx context.Context, unit, word string) (code int, err error) {
	if err := m.mayOrder(ctx, unit); err != nil {
		return 0, err
	}
	out, err := m.run.Run(ctx, service.Command{Path: filepath.Join(m.config.Scripts, unit), Args: []string{word}, Survives: true})
	m.log.Debug("ran init script", "unit", unit, "word", word, "exit_code", out.ExitCode, "err", err)
	return out.ExitCode, err
}

// Exit codes of ubus, which are the bus's own.
const (
	statusNotFound   = 4
	statusPermission = 6
)

// codeError is a call that ubus did not carry out.
type codeError struct{ code int }

func (e codeError) Error() string { return "ubus ended with exit code " + strconv.Itoa(e.code) }

// ubus calls a method of procd's object "service" and returns its answer.
func (m *Manager) ubus(ctx context.Context, method string, args map[string]any) ([]byte, error) {
	b, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	out, err := m.run.Run(ctx, service.Command{Path: m.config.Ubus, Args: []string{"-t", "5", "call", "service", method, string(b)}})
	switch {
	case errors.Is(err, context.Canceled):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	case out.Dropped > 0:
		return nil, fmt.Errorf("%w: an answer of more than %d bytes", service.ErrUnavailable, len(out.Stdout))
	}
	switch out.ExitCode {
	case 0:
		return out.Stdout, nil
	case statusPermission:
		return nil, fmt.Errorf("%w: %w", service.ErrPermission, codeError{out.ExitCode})
	case statusNotFound:
		if method != "list" { // of the service or instance; the object itself answered before
			return nil, codeError{out.ExitCode}
		}
	}
	return nil, fmt.Errorf("%w: %w", service.ErrUnavailable, codeError{out.ExitCode})
}
