// Package launchd is the service manager contract on macOS's launchd, through launchctl.
//
// launchctl's output is made for people and is, as its manual says, no interface. So of "launchctl print" only few lines are
// read, each of them where it has stood in every version seen, whatever else is there is skipped, and what is missing or
// stands there twice makes the status unknown: never a guess.
//
//	state                     State        besides
//	running, with a pid       running
//	spawning, xpcproxy        starting     the process is about to become the service
//	SIGTERMed, SIGKILLed      stopping     job "stop"
//	spawn scheduled           restarting   launchd waits for the throttle interval, 10 s by default
//	not running, waiting or   failed       ended by a signal, or with an exit code that is not 0
//	exited                    restarting   the same, and the job is to be kept alive: launchd is given the throttle interval
//	                          stopped      never ran, ended with 0, or by SIGTERM
//	not loaded                stopped      a person has booted it out; not found if there is no plist of that name either
//
// "launchctl disable" shows in print-disabled. Loading a job again is left to whoever unloaded it.
//
// It promises that nothing is started with -k, which would kill what runs, and that no line of launchctl's is ever logged or
// becomes part of an error: they hold the job's environment. It deliberately listens to no events, for launchctl offers
// none; how often it looks is declared.
package launchd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Config says how launchd is reached. The zero value is not valid; start from [Default].
type Config struct {
	Launchctl string        // the program launchctl
	Domain    string        // of a label that is given without one: system, or gui/ or user/ and a numeric user id
	Plists    []string      // folders with the definitions of jobs, named after their labels
	Every     time.Duration // how often Watch looks
}

// Default is the domain of this process's own user, which is the whole system's for root.
func Default() Config {
	c := Config{Launchctl: "/bin/launchctl", Domain: "system", Plists: []string{"/Library/LaunchDaemons"}, Every: 2 * time.Second}
	if uid := os.Geteuid(); uid != 0 {
		c.Domain, c.Plists = fmt.Sprintf("gui/%d", uid), []string{"/Library/LaunchAgents"}
		if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
			c.Plists = append(c.Plists, filepath.Join(home, "Library", "LaunchAgents"))
		}
	}
	return c
}

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	var errs []error
	for _, path := range append([]string{c.Launchctl}, c.Plists...) {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%q is not an absolute path", path))
		}
	}
	if _, err := parseDomain(c.Domain); err != nil {
		errs = append(errs, err)
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

// Runner runs launchctl.
type Runner interface {
	Run(ctx context.Context, c service.Command) (service.Output, error)
}

// Manager is launchd. Make one with [New].
type Manager struct {
	config Config
	run    Runner
	log    *slog.Logger
	uid    int

	mu    sync.Mutex // guards below
	down  map[target]end
	plist map[target]string // where a job that was loaded had its definition
}

// end is when a run of a job was first seen to be over.
type end struct {
	run int
	at  time.Time
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
		return nil, fmt.Errorf("configure launchd: %w", err)
	}
	if deps.Runner == nil {
		deps.Runner = service.Runner{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		config: config, run: deps.Runner, log: deps.Logger, uid: os.Geteuid(),
		down: map[target]end{}, plist: map[target]string{},
	}, nil
}

// Status implements service.Manager. A unit is a label, or a domain and a label: gui/501/com.example.forward.
func (m *Manager) Status(ctx context.Context, unit string) (service.Status, error) {
	t, err := m.target(unit)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status: %w", err)
	}
	st, err := m.read(ctx, unit, t)
	if err != nil {
		return service.Status{}, fmt.Errorf("read status of %q: %w", unit, err)
	}
	return st, nil
}

// read asks launchd about the job, and whether it is disabled.
func (m *Manager) read(ctx context.Context, unit string, t target) (service.Status, error) {
	out, err := m.launchctl(ctx, "print", t.String())
	var code codeError
	loaded := !errors.As(err, &code) || !code.absent()
	if err != nil && loaded {
		return service.Status{}, err
	}
	var st service.Status
	if loaded {
		j := parse(out)
		st = j.status(unit, m.downFor(t, j))
		m.remember(t, st.UnitFile)
	} else if st, err = m.unloaded(unit, t); err != nil {
		return service.Status{}, err
	}
	out, err = m.launchctl(ctx, "print-disabled", t.domain)
	if err != nil {
		return service.Status{}, err
	}
	disabled, err := parseDisabled(out, t.label)
	if err != nil {
		return service.Status{}, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	st.Enablement = "enabled"
	if disabled {
		st.Enablement = "disabled"
	}
	return st, nil
}

// downFor returns for how long a run has been seen to be over.
func (m *Manager) downFor(t target, j job) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !j.over() {
		delete(m.down, t)
		return 0
	}
	now := time.Now()
	if e, ok := m.down[t]; ok && e.run == j.runs {
		return now.Sub(e.at)
	}
	m.down[t] = end{run: j.runs, at: now}
	return 0
}

func (m *Manager) remember(t target, plist string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if plist != "" {
		m.plist[t] = plist
	}
}

// unloaded is the status of a job that launchd does not know. It may be loaded again if there is a definition of it, which
// is looked for where it was when it was loaded, and under the label's name.
func (m *Manager) unloaded(unit string, t target) (service.Status, error) {
	m.mu.Lock()
	paths := []string{m.plist[t]}
	delete(m.down, t)
	m.mu.Unlock()
	for _, dir := range m.config.Plists {
		paths = append(paths, filepath.Join(dir, t.label+".plist"))
	}
	for _, path := range paths {
		if info, err := os.Stat(path); path != "" && err == nil && info.Mode().IsRegular() {
			return service.Status{
				Unit: unit, State: service.StateStopped, Detail: notLoaded, UnitFile: path,
			}, nil
		}
	}
	return service.Status{}, fmt.Errorf("%w: not loaded, and no %s.plist in %q", service.ErrNotFound, t.label, m.config.Plists)
}

// Start implements service.Manager. A job that is not loaded was unloaded by somebody: errors.ErrUnsupported.
func (m *Manager) Start(ctx context.Context, unit string) error {
	if err := m.start(ctx, unit); err != nil {
		return fmt.Errorf("start %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) start(ctx context.Context, unit string) error {
	t, err := m.target(unit)
	if err != nil {
		return err
	}
	st, err := m.read(ctx, unit, t)
	switch {
	case err != nil:
		return err
	case st.State == service.StateRunning:
		return nil
	case st.Job != "":
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	case st.State == service.StateUnknown:
		return fmt.Errorf("whether it runs is unknown: %s", st.Detail)
	case st.State == service.StateStarting:
		return m.settle(ctx, unit, t, st)
	}
	if err := m.mayOrder(t); err != nil {
		return err
	}
	switch {
	case st.Detail == notLoaded:
		return fmt.Errorf("%w: it is not loaded, which a person has to do (launchctl bootstrap)", errors.ErrUnsupported)
	case st.LoadError != "":
		return errors.New("its definition cannot be started: " + st.LoadError)
	}
	if err := m.kickstart(ctx, t); err != nil {
		return err
	}
	return m.settle(ctx, unit, t, st)
}

// kickstart starts a job, and with -k also ends it before.
func (m *Manager) kickstart(ctx context.Context, t target, flags ...string) error {
	_, err := m.launchctl(ctx, append(append([]string{"kickstart"}, flags...), t.String())...)
	var code codeError
	switch {
	case errors.As(err, &code) && code.code == alreadyRunning:
		return nil
	case errors.As(err, &code) && code.absent():
		return fmt.Errorf("%w: it is not loaded any more: %w", service.ErrChanged, err)
	}
	return err
}

// pause is how often a job is looked at while its start is waited for.
const pause = 200 * time.Millisecond

// settle waits until launchd has begun another run than before, for which the throttle interval may have to pass.
func (m *Manager) settle(ctx context.Context, unit string, t target, before service.Status) error {
	for {
		now, err := m.read(ctx, unit, t)
		switch {
		case err != nil:
			return err
		case now.InvocationID != before.InvocationID && now.State != service.StateStarting, before.State == service.StateStarting && now.State == service.StateRunning:
			return nil
		case now.Detail == notLoaded:
			return fmt.Errorf("%w: it was unloaded", service.ErrChanged)
		case now.State == service.StateUnknown:
			return fmt.Errorf("whether it runs is unknown: %s", now.Detail)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for launchd: %w", ctx.Err())
		}
	}
}

// KillMain implements service.Manager. launchd signals its own child. It also ends what is left of the job's process group.
func (m *Manager) KillMain(ctx context.Context, unit string, want service.Status) error {
	if err := m.killMain(ctx, unit, want); err != nil {
		return fmt.Errorf("kill main process of %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) killMain(ctx context.Context, unit string, want service.Status) error {
	t, err := m.target(unit)
	if err != nil {
		return err
	}
	if _, err := m.same(ctx, unit, t, want); err != nil {
		return err
	}
	_, err = m.launchctl(ctx, "kill", "SIGKILL", t.String())
	var code codeError
	if errors.As(err, &code) && code.absent() {
		return fmt.Errorf("%w: %w", service.ErrChanged, err)
	}
	return err
}

// Restart implements service.Restarter: SIGTERM, SIGKILL after the job's exit timeout, another run.
func (m *Manager) Restart(ctx context.Context, unit string, want service.Status) error {
	if err := m.restart(ctx, unit, want); err != nil {
		return fmt.Errorf("restart %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) restart(ctx context.Context, unit string, want service.Status) error {
	t, err := m.target(unit)
	if err != nil {
		return err
	}
	st, err := m.same(ctx, unit, t, want)
	if err != nil {
		return err
	}
	if err := m.kickstart(ctx, t, "-k"); err != nil {
		return err
	}
	return m.settle(ctx, unit, t, st)
}

// same reads the job, which nobody may be at work with, and which has to be the one of want.
func (m *Manager) same(ctx context.Context, unit string, t target, want service.Status) (service.Status, error) {
	st, err := m.read(ctx, unit, t)
	switch {
	case err != nil:
		return st, err
	case st.Job != "":
		return st, fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	}
	if err := service.Same(want, st); err != nil {
		return st, err
	}
	return st, m.mayOrder(t)
}

// Limits implements service.Limited.
func (m *Manager) Limits(ctx context.Context, unit string) error {
	t, err := m.target(unit)
	if err != nil {
		return fmt.Errorf("find out the limits: %w", err)
	}
	if _, err := m.read(ctx, unit, t); err != nil {
		return fmt.Errorf("find out the limits for %q: %w", unit, err)
	}
	if err := m.mayOrder(t); err != nil {
		return fmt.Errorf("orders that may not be given on %q: start, restart, kill: %w", unit, err)
	}
	return nil
}

// mayOrder finds out whether launchd takes orders in a domain from this user: from root, and from the domain's own user.
func (m *Manager) mayOrder(t target) error {
	if m.uid == 0 || t.user != noUser && t.user == m.uid {
		return nil
	}
	return fmt.Errorf("%w: user %d in the domain %s", service.ErrPermission, m.uid, t.domain)
}

// Every implements service.Polled.
func (m *Manager) Every() time.Duration { return m.config.Every }

// Watch implements service.Watcher by looking.
func (m *Manager) Watch(ctx context.Context, units []string, wake func()) error {
	for _, unit := range units {
		if _, err := m.target(unit); err != nil {
			return fmt.Errorf("watch units: %w", err)
		}
	}
	return service.Poll(ctx, m, m.config.Every, units, wake)
}

// codeError is what launchctl ended with instead of 0: an error number of the system, or one of launchd's own.
type codeError struct{ code int }

func (e codeError) Error() string { return fmt.Sprintf("launchctl ended with exit code %d", e.code) }

// Exit codes. 113 is "Could not find service", 3 is ESRCH, with which older versions say the same; 112 and 125 speak of the
// domain, of which nothing follows for a job.
const (
	noSuchProcess  = 3
	noSuchService  = 113
	notPermitted   = 1
	accessDenied   = 13
	sipDenied      = 150
	alreadyRunning = 37
)

func (e codeError) absent() bool { return e.code == noSuchProcess || e.code == noSuchService }

// launchctl runs launchctl and returns its output.
func (m *Manager) launchctl(ctx context.Context, args ...string) ([]byte, error) {
	out, err := m.run.Run(ctx, service.Command{Path: m.config.Launchctl, Args: args})
	m.log.Debug("ran launchctl", "args", args, "exit_code", out.ExitCode, "err", err)
	switch {
	case errors.Is(err, context.Canceled):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	case out.Dropped > 0:
		return nil, fmt.Errorf("%w: an answer of more than %d bytes", service.ErrUnavailable, len(out.Stdout))
	}
	code := codeError{out.ExitCode}
	switch {
	case code.code == 0:
		return out.Stdout, nil
	case code.code == notPermitted, code.code == accessDenied, code.code == sipDenied:
		return nil, fmt.Errorf("%w: %w", service.ErrPermission, code)
	case code.absent(), code.code == alreadyRunning:
		return nil, code
	case args[0] == "print" || args[0] == "print-disabled":
		return nil, fmt.Errorf("%w: %w", service.ErrUnavailable, code)
	}
	return nil, code
}
