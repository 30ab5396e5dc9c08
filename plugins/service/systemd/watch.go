package systemd

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// maxWatched bounds the match rules of one connection: three per unit, of the 512 that a bus allows.
const maxWatched = 128

// watch is one call of Watch.
type watch struct {
	paths map[dbus.ObjectPath]bool
	names map[string]bool
	wake  func()
}

// Watch implements service.Watcher. Besides the properties of the units and their jobs it listens for changes of unit
// files (enable, disable, mask), which change no property that systemd announces, and for reloads of systemd. wake is
// called once when the subscription stands, so that nothing is lost before it; it must not call the Manager. The
// error wraps service.ErrUnavailable when the connection broke.
func (m *Manager) Watch(ctx context.Context, units []string, wake func()) error {
	if err := m.watch(ctx, units, wake); err != nil {
		return fmt.Errorf("watch units: %w", err)
	}
	return nil
}

func (m *Manager) watch(ctx context.Context, units []string, wake func()) error {
	if len(units) > maxWatched {
		return fmt.Errorf("%d units are more than %d", len(units), maxWatched)
	}
	var errs []error
	for _, unit := range units {
		errs = append(errs, checkName(unit))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c, err := m.connect(ctx)
	if err != nil {
		return err
	}
	w := &watch{paths: map[dbus.ObjectPath]bool{}, names: map[string]bool{}, wake: wake}
	for _, unit := range units {
		if err := c.resolve(ctx, unit, w); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.watches[w] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watches, w)
		c.mu.Unlock()
	}()
	rules := w.rules()
	for _, rule := range rules {
		if err := c.addMatch(ctx, rule); err != nil {
			return err
		}
		defer c.removeMatch(rule)
	}
	if err := c.subscribe(ctx); err != nil {
		return err
	}
	wake()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done():
		return fmt.Errorf("%w: connection lost", service.ErrUnavailable)
	}
}

// resolve adds the object and the proper name of a unit: signals carry those, also if the unit was asked for by an
// alias. A unit without a file has them as well, and is announced when it appears.
func (c *conn) resolve(ctx context.Context, unit string, w *watch) error {
	var path dbus.ObjectPath
	if err := c.call(ctx, managerPath, managerIface+".LoadUnit", []any{&path}, unit); err != nil {
		return fmt.Errorf("load %q: %w", unit, err)
	}
	var id dbus.Variant
	if err := c.call(ctx, path, propertiesIface+".Get", []any{&id}, unitIface, "Id"); err != nil {
		return fmt.Errorf("read id of %q: %w", unit, err)
	}
	name, _ := id.Value().(string)
	if err := checkName(name); err != nil {
		return fmt.Errorf("read id of %q: %w", unit, err)
	}
	w.paths[path], w.names[name] = true, true
	return nil
}

// subscribe makes systemd send its signals. That another watch did so before is fine; it ends with the connection.
func (c *conn) subscribe(ctx context.Context) error {
	err := c.call(ctx, managerPath, managerIface+".Subscribe", nil)
	var de dbus.Error
	if errors.As(err, &de) && de.Name == "org.freedesktop.systemd1.AlreadySubscribed" {
		return nil
	}
	return err
}

// rules returns the match rules, which let the bus wake this process for these units only.
func (w *watch) rules() []string {
	const from = "type='signal',sender='" + systemdName + "',interface='"
	rules := []string{
		from + managerIface + "',member='UnitFilesChanged'",
		from + managerIface + "',member='Reloading'",
	}
	for path := range w.paths {
		rules = append(rules, from+propertiesIface+"',member='PropertiesChanged',path='"+string(path)+"'")
	}
	for name := range w.names {
		rules = append(rules,
			from+managerIface+"',member='JobNew',arg2='"+name+"'",
			from+managerIface+"',member='JobRemoved',arg2='"+name+"'")
	}
	return rules
}

// concerns filters again: without a bus daemon, and while a Start listens for jobs, others' signals arrive as well.
func (w *watch) concerns(s *dbus.Signal) bool {
	switch s.Name {
	case propertiesIface + ".PropertiesChanged":
		return w.paths[s.Path]
	case managerIface + ".UnitFilesChanged", managerIface + ".Reloading":
		return true
	case managerIface + ".JobNew", managerIface + ".JobRemoved":
		if len(s.Body) < 3 {
			return false
		}
		name, _ := s.Body[2].(string)
		return w.names[name]
	}
	return false
}
