package openrc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fsnotify/fsnotify"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Watch implements service.Watcher: inotify on OpenRC's folders, on those of the init scripts and of the runlevels, and a
// pidfd on each daemon and its supervisor, whose end nothing else announces. wake is called once when all of it stands. The
// error wraps service.ErrUnavailable when OpenRC's state went away.
func (m *Manager) Watch(ctx context.Context, units []string, wake func()) error {
	if err := m.watch(ctx, units, wake); err != nil {
		return fmt.Errorf("watch services: %w", err)
	}
	return nil
}

func (m *Manager) watch(ctx context.Context, units []string, wake func()) error {
	var errs []error
	for _, unit := range units {
		errs = append(errs, checkName(unit))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	defer notify.Close()
	w := &watch{m: m, notify: notify, units: units, ends: make(chan struct{}, 1), armed: map[string][]guarded{}}
	defer w.disarm()
	if err := w.subscribe(); err != nil {
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	for {
		// Whatever ends from here on is announced, and whatever ended before is seen by whom this wakes.
		for _, unit := range units {
			w.arm(ctx, unit)
		}
		wake()
		if err := w.next(ctx); err != nil {
			return err
		}
	}
}

// watch is one call of Watch.
type watch struct {
	m      *Manager
	notify *fsnotify.Watcher
	units  []string
	ends   chan struct{} // a process has ended
	armed  map[string][]guarded
	wait   sync.WaitGroup
}

// guarded is a process whose end is waited for.
type guarded struct {
	process
	stop context.CancelFunc
}

// subscribe adds every folder in which something may change.
func (w *watch) subscribe() error {
	m := w.m
	dirs := []string{m.config.State, m.config.Scripts, m.config.Runlevels, m.state("daemons"), m.state("options")}
	for _, k := range linked {
		dirs = append(dirs, m.state(string(k)))
	}
	for _, dir := range dirs {
		if err := w.notify.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	runlevels, err := os.ReadDir(m.config.Runlevels)
	if err != nil {
		return err
	}
	for _, r := range runlevels {
		if err := w.notify.Add(filepath.Join(m.config.Runlevels, r.Name())); err != nil {
			return fmt.Errorf("watch runlevel %s: %w", r.Name(), err)
		}
	}
	return nil
}

// arm waits for the end of the processes that a unit has now. supervise-daemon announces a new child in the service's own
// folder, which exists only while the service is started.
func (w *watch) arm(ctx context.Context, unit string) {
	_ = w.notify.Add(w.m.state("options", unit))
	rec, err := w.m.read(ctx, unit)
	var want []process
	if err == nil {
		want = slices.DeleteFunc([]process{rec.main, rec.supervisor}, func(p process) bool { return p.pid == 0 })
	}
	w.armed[unit] = slices.DeleteFunc(w.armed[unit], func(g guarded) bool {
		if slices.Contains(want, g.process) {
			return false
		}
		g.stop()
		return true
	})
	for _, p := range want {
		if !slices.ContainsFunc(w.armed[unit], func(g guarded) bool { return g.process == p }) {
			w.guard(ctx, unit, p)
		}
	}
}

// guard waits for the end of one process.
func (w *watch) guard(ctx context.Context, unit string, p process) {
	h, err := open(w.m.proc, p)
	if errors.Is(err, os.ErrProcessDone) {
		w.ended()
		return
	}
	if err != nil {
		w.m.log.Warn("the end of a daemon will not be noticed at once", "unit", unit, "pid", p.pid, "err", err)
		return
	}
	ctx, stop := context.WithCancel(ctx)
	w.armed[unit] = append(w.armed[unit], guarded{p, stop})
	w.wait.Go(func() {
		defer h.close()
		if h.wait(ctx) == nil {
			w.ended()
		}
	})
}

func (w *watch) ended() {
	select {
	case w.ends <- struct{}{}:
	default:
	}
}

// disarm ends every wait.
func (w *watch) disarm() {
	for _, gs := range w.armed {
		for _, g := range gs {
			g.stop()
		}
	}
	w.wait.Wait()
}

// next waits until something happened to one of the units.
func (w *watch) next(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ends:
			return nil
		case e, ok := <-w.notify.Events:
			switch {
			case !ok:
				return fmt.Errorf("%w: the watch ended", service.ErrUnavailable)
			case e.Name == w.m.config.State && e.Op&(fsnotify.Remove|fsnotify.Rename) != 0:
				return fmt.Errorf("%w: %s is gone", service.ErrUnavailable, e.Name)
			case w.concerns(e.Name):
				return nil
			}
		case err := <-w.notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
			}
			return nil // some were lost: look at everything
		}
	}
}

// concerns reports whether a file is one of a unit's: its script, its link, its folder, or a file in that folder.
func (w *watch) concerns(path string) bool {
	dir, name := filepath.Split(path)
	return slices.Contains(w.units, name) ||
		filepath.Dir(filepath.Clean(dir)) == w.m.state("options") && slices.Contains(w.units, filepath.Base(dir))
}
