package openrc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// jobLimit bounds a job that nobody waits for any more. OpenRC itself gives up waiting for another service after a minute.
const jobLimit = 10 * time.Minute

// killWait is how long a process may take to end after SIGKILL.
const killWait = 5 * time.Second

// libexec are the folders with OpenRC's own tools, which are in nobody's PATH.
var libexec = []string{"/usr/libexec/rc/sbin", "/lib/rc/sbin", "/libexec/rc/sbin"}

// Start implements service.Manager.
//
// A crashed service is still started to OpenRC, so that "start" does nothing. What brings it back is "zap start":
//
//   - "restart", also with --ifcrashed, stops first. That stops what needs the service, signals whatever process has the
//     number in the stale pidfile by now (OpenRC compares nothing), and in the end starts every other service that was
//     started before and is not now, also one that a person has just stopped. It starts the service without a lock, and it
//     starts what a person stopped between the question and the command.
//   - "zap" runs none of the script and signals nothing, and the "start" after it takes the service's lock, so that a stop by
//     a person during the start is refused with a message. Being one command, it cannot end half way with this program. It
//     is what OpenRC itself does with a crashed service when it enters a runlevel (rc_crashed_start).
//
// zap alone asks for no lock, and would wipe out a stop that a person has just begun. So this program takes the service's
// lock as OpenRC's own programs do, sees under it that the service is still crashed, and holds it until the zap has removed
// it. Of 500 stops by hand around the moment of a heal, OpenRC (0.56) said done and was overrun: 9 times by "restart", 12
// times by "stop start", 0 and 1 times in two series by "zap start" alone, never by "zap start" under the lock.
//
// --nodeps leaves all other services alone: what the service needs was started before it. A start that fails would look like
// a stop by a person, so the service is then marked failed, as OpenRC does at boot.
func (m *Manager) Start(ctx context.Context, unit string) error {
	if err := m.start(ctx, unit); err != nil {
		return fmt.Errorf("start %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) start(ctx context.Context, unit string) error {
	before, err := m.read(ctx, unit)
	if err != nil {
		return err
	}
	now, err := m.settled(ctx, unit)
	if err != nil {
		return err
	}
	switch {
	case now.mark == markStarted && !now.crashed() && now.doubt == "":
		return nil
	case now.mark == markStopping:
		return fmt.Errorf("%w: stop", service.ErrBusy)
	case now.mark != before.mark:
		return fmt.Errorf("the start in progress ended with %q", m.status(unit, now).Detail)
	case now.doubt != "":
		return fmt.Errorf("whether it runs is unknown: %s", now.doubt)
	case !now.executable:
		return errors.New("its init script is not executable")
	}
	if err := m.mayOrder(); err != nil {
		return err
	}
	return m.job(ctx, func(ctx context.Context) error { return m.launch(ctx, unit, now) })
}

// launch starts a service that is not running.
func (m *Manager) launch(ctx context.Context, unit string, before record) error {
	code, err := m.order(ctx, unit, before)
	if err != nil {
		return err
	}
	now, err := m.settled(ctx, unit)
	switch {
	case err != nil:
		return err
	case now.mark == markStopping:
		return fmt.Errorf("%w: stop", service.ErrBusy)
	case now.mark == markStarted && now.run != before.run:
		return nil // by this command, or by somebody's who was faster
	case now.mark == markNone && code != 0:
		return errors.Join(fmt.Errorf("rc-service ended with exit code %d", code), m.markFailed(ctx, unit))
	case code != 0:
		return fmt.Errorf("rc-service ended with exit code %d, the service is %q", code, m.status(unit, now).Detail)
	}
	return fmt.Errorf("%w: OpenRC did nothing, the service is %q", service.ErrBusy, m.status(unit, now).Detail)
}

// order gives the command for a start, under the service's lock if the service is crashed.
func (m *Manager) order(ctx context.Context, unit string, before record) (code int, err error) {
	if !before.crashed() {
		return m.rcService(ctx, []string{"--", unit, "start"})
	}
	unlock, err := m.lock(unit)
	if err != nil {
		return 0, err
	}
	defer unlock()
	now, err := m.read(ctx, unit)
	if err != nil {
		return 0, err
	}
	if now != before {
		return 0, fmt.Errorf("%w: the service is %q now", service.ErrBusy, m.status(unit, now).Detail)
	}
	return m.rcService(ctx, []string{"--nodeps", "--ifcrashed", "--ifstarted", "--", unit, "--ifstarted", "zap", "start"})
}

// lock takes the lock under which OpenRC's programs start and stop a service, or gives ErrBusy. The file stays: the next
// change of the service's state removes it, and an unlocked one means nothing.
func (m *Manager) lock(unit string) (unlock func(), err error) {
	f, err := os.OpenFile(m.state("exclusive", unit), os.O_WRONLY|os.O_CREATE, 0o664)
	if err != nil {
		return nil, fmt.Errorf("lock the service: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: the service is locked", service.ErrBusy)
		}
		return nil, fmt.Errorf("lock the service: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// Restart implements service.Restarter. The init script's own retry schedule says how long a stop may take (5 s by default);
// after that OpenRC gives up, and the main process gets SIGKILL. --nodeps leaves the services alone that need this one.
//
// A daemon of start-stop-daemon is stopped and started by one command, which cannot end half way with this program. One of
// supervise-daemon takes two: its supervisor goes away also if the daemon refuses to, which must be killed in between.
func (m *Manager) Restart(ctx context.Context, unit string, want service.Status) error {
	if err := m.restart(ctx, unit, want); err != nil {
		return fmt.Errorf("restart %q: %w", unit, err)
	}
	return nil
}

func (m *Manager) restart(ctx context.Context, unit string, want service.Status) error {
	rec, err := m.read(ctx, unit)
	if err != nil {
		return err
	}
	switch st := m.status(unit, rec); {
	case st.Job != "":
		return fmt.Errorf("%w: %s", service.ErrBusy, st.Job)
	case !rec.executable:
		return errors.New("its init script is not executable")
	}
	old, err := m.hold(unit, rec, want)
	if err != nil {
		return err
	}
	if err := m.mayOrder(); err != nil {
		old.close()
		return err
	}
	return m.job(ctx, func(ctx context.Context) error {
		defer old.close()
		return m.replace(ctx, unit, rec, old)
	})
}

// replace ends the run that rec is of, whose main process is old, and begins another.
func (m *Manager) replace(ctx context.Context, unit string, rec record, old *handle) error {
	args := []string{"--nodeps", "--ifstarted", "--", unit, "--ifstarted", "stop"}
	if !rec.supervised {
		args = append(args, "start")
	}
	code, err := m.rcService(ctx, args)
	if err != nil {
		return err
	}
	now, err := m.settled(ctx, unit)
	switch {
	case err != nil:
		return err
	case now.mark == markStopping:
		return fmt.Errorf("%w: stop", service.ErrBusy)
	case now.mark == markStarted && now.run == rec.run && code == 0:
		return fmt.Errorf("%w: OpenRC did nothing", service.ErrBusy)
	case now.mark == markStarted && now.run != rec.run:
		return nil
	case now.mark == markNone && !rec.supervised && code == 0:
		return fmt.Errorf("%w: it was stopped meanwhile", service.ErrBusy)
	case now.mark == markNone && !rec.supervised:
		return errors.Join(fmt.Errorf("rc-service ended with exit code %d", code), m.markFailed(ctx, unit))
	}
	// OpenRC gave up (the service is started still), or its supervisor is gone.
	if err := m.end(ctx, old); err != nil {
		return err
	}
	if now, err = m.read(ctx, unit); err != nil {
		return err
	}
	if now.mark != markNone && !(now.crashed() && now.run == rec.run) {
		return fmt.Errorf("%w: the service is %q after its main process ended", service.ErrBusy, m.status(unit, now).Detail)
	}
	return m.launch(ctx, unit, now)
}

// end kills a process that refused to stop, and waits for its end.
func (m *Manager) end(ctx context.Context, old *handle) error {
	if err := old.kill(); err != nil && !errors.Is(err, service.ErrChanged) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	if err := old.wait(ctx); err != nil {
		return fmt.Errorf("wait for the end of the main process after SIGKILL: %w", err)
	}
	return nil
}

// job runs fn to its end, and waits for it as long as ctx allows. fn's context ends after jobLimit.
func (m *Manager) job(ctx context.Context, fn func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobLimit)
		defer cancel()
		ended <- fn(ctx)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for OpenRC: %w", ctx.Err())
	}
}

// rcService runs rc-service, whose exit code is not an error here. It goes on if this program ends meanwhile.
func (m *Manager) rcService(ctx context.Context, args []string) (int, error) {
	out, err := m.run.Run(ctx, service.Command{Path: "rc-service", Args: args, Survives: true})
	m.log.Debug("ran rc-service", "args", args, "exit_code", out.ExitCode, "err", err)
	return out.ExitCode, err
}

// markFailed gives a stopped service the mark of one that should run and does not.
func (m *Manager) markFailed(ctx context.Context, unit string) error {
	var last error
	for _, dir := range libexec {
		out, err := m.run.Run(ctx, service.Command{Path: filepath.Join(dir, "mark_service_failed"), Args: []string{unit}})
		if err == nil && out.ExitCode != 0 {
			err = fmt.Errorf("exit code %d", out.ExitCode)
		}
		if err == nil {
			return nil
		}
		last = err
	}
	return fmt.Errorf("mark the service as failed: %w", last)
}
