package incus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Dial runs a command in an instance and returns its standard input and output.
type Dial func(ctx context.Context, command []string) (net.Conn, error)

// Inside makes the manager that runs the units inside an instance, by its name: it has to reach it through dial. It gives
// errors.ErrUnsupported for a manager that cannot be reached so.
type Inside func(manager string, dial Dial) (service.Manager, error)

// place is what a unit's text says. unit and manager are empty for an instance.
type place struct{ instance, manager, unit string }

func (p place) String() string {
	if p.unit == "" {
		return p.instance
	}
	return p.instance + "/" + p.manager + "/" + p.unit
}

// isInside reports whether a unit's text speaks of a unit inside an instance.
func isInside(unit string) bool { return strings.Contains(unit, "/") }

// parseUnit reads a unit's text. What the unit inside may be called is the manager's knowledge inside, which checks it; a
// unit with another slash is none anywhere.
func (m *Manager) parseUnit(unit string) (place, error) {
	if !isInside(unit) {
		return place{instance: unit}, checkName(unit)
	}
	parts := strings.Split(unit, "/")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return place{}, fmt.Errorf("unit %q is not INSTANCE or INSTANCE/MANAGER/UNIT", unit)
	}
	return place{parts[0], parts[1], parts[2]}, checkName(parts[0])
}

// managerAt returns the manager inside an instance, which is made once.
func (m *Manager) managerAt(p place) (service.Manager, error) {
	at := place{instance: p.instance, manager: p.manager}
	m.mu.Lock()
	defer m.mu.Unlock()
	if inner := m.inner[at]; inner != nil {
		return inner, nil
	}
	if m.inside == nil {
		return nil, fmt.Errorf("manager %q inside an instance: %w", p.manager, errors.ErrUnsupported)
	}
	inner, err := m.inside(p.manager, func(ctx context.Context, command []string) (net.Conn, error) {
		return m.Exec(ctx, p.instance, command)
	})
	if err != nil {
		return nil, fmt.Errorf("manager %q inside an instance: %w", p.manager, err)
	}
	m.inner[at] = inner
	return inner, nil
}

// status returns the status of any unit.
func (m *Manager) status(ctx context.Context, unit string) (service.Status, error) {
	p, err := m.parseUnit(unit)
	if err != nil {
		return service.Status{}, err
	}
	_, host, err := m.look(ctx, p.instance)
	if err != nil || p.unit == "" {
		return host, err
	}
	if host.State != service.StateRunning || host.Job != "" {
		return with(p, host), nil
	}
	inner, err := m.managerAt(p)
	if err != nil {
		return service.Status{}, err
	}
	st, err := inner.Status(ctx, p.unit)
	if err != nil {
		return service.Status{}, m.inInstance(ctx, p, err)
	}
	st.Unit = unit
	return st, nil
}

// with returns the status of a unit inside an instance that does not run, or on which somebody works.
func with(p place, host service.Status) service.Status {
	st := service.Status{Unit: p.String(), Detail: "the instance is " + host.Detail}
	switch {
	case host.Job != "":
		st.Job = "instance " + host.Job
	case host.State == service.StateStarting, host.State == service.StateStopping, host.State == service.StateRestarting:
		st.Job = "instance " + host.State.String()
	case host.Intent() == service.IntentStopped, host.Intent() == service.IntentDisabled:
		st.State = service.StateStopped
	default:
		st.State, st.Unexplained = service.StateStopped, true
	}
	return st
}

// inInstance adds to an error of the manager inside that its instance does not run any more, if that is so.
func (m *Manager) inInstance(ctx context.Context, p place, err error) error {
	if !errors.Is(err, service.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if _, host, lookErr := m.look(ctx, p.instance); lookErr == nil && (host.State != service.StateRunning || host.Job != "") {
		return fmt.Errorf("%w: %w: %s", service.ErrUnavailable, err, with(p, host).Detail)
	}
	return err
}

// reach returns the manager inside, or why no order may be given there now.
func (m *Manager) reach(ctx context.Context, unit string, absent error) (place, service.Manager, error) {
	p, err := m.parseUnit(unit)
	if err != nil {
		return p, nil, err
	}
	_, host, err := m.look(ctx, p.instance)
	switch {
	case err != nil:
		return p, nil, err
	case host.Job != "":
		return p, nil, fmt.Errorf("%w: instance %s", service.ErrBusy, host.Job)
	case host.State != service.StateRunning:
		return p, nil, fmt.Errorf("%w: the instance is %s", absent, host.Detail)
	}
	inner, err := m.managerAt(p)
	return p, inner, err
}

var errNoInstance = errors.New("the instance does not run, and is not started for what is inside")

func (m *Manager) startInside(ctx context.Context, unit string) error {
	p, inner, err := m.reach(ctx, unit, errNoInstance)
	if err != nil {
		return err
	}
	return inner.Start(ctx, p.unit)
}

func (m *Manager) killInside(ctx context.Context, unit string, want service.Status) error {
	p, inner, err := m.reach(ctx, unit, service.ErrChanged)
	if err != nil {
		return err
	}
	return inner.KillMain(ctx, p.unit, want)
}

func (m *Manager) restartInside(ctx context.Context, unit string, want service.Status) error {
	p, inner, err := m.reach(ctx, unit, service.ErrChanged)
	if err != nil {
		return err
	}
	r, ok := inner.(service.Restarter)
	if !ok {
		return fmt.Errorf("%s inside an instance: %w", p.manager, errors.ErrUnsupported)
	}
	return r.Restart(ctx, p.unit, want)
}

// limitsInside tries the way inside on an instance that cannot exist, and asks the manager inside if the instance runs.
func (m *Manager) limitsInside(ctx context.Context, unit string) error {
	p, err := m.parseUnit(unit)
	if err != nil {
		return err
	}
	_, host, err := m.look(ctx, p.instance)
	if err != nil {
		return err
	}
	_, err = m.order(ctx, "POST", path(nobody, "exec"), execOrder{Command: []string{"true"}, WaitForWS: true})
	switch {
	case err == nil:
		return errors.New("an order to an instance that cannot exist was accepted")
	case !errors.Is(err, service.ErrNotFound):
		return err
	case host.State != service.StateRunning || host.Job != "":
		return nil
	}
	inner, err := m.managerAt(p)
	if err != nil {
		return err
	}
	if l, ok := inner.(service.Limited); ok {
		return l.Limits(ctx, p.unit)
	}
	return nil
}

// group is the units of one watch that one manager inside runs.
type group struct {
	place   place
	units   []string
	changed chan struct{} // buffered one: something happened to the instance
}

func (g *group) poke() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// again is the pause before the manager inside an instance that runs is asked again for its events: it may be booting.
const again = 2 * time.Second

// idle is the same for an instance of which nothing was heard.
const idle = time.Minute

// watchInside keeps a subscription to a manager inside until ctx ends, for as long and as often as the instance runs.
func (m *Manager) watchInside(ctx context.Context, g *group, wake func()) error {
	inner, err := m.managerAt(g.place)
	if err != nil {
		return err
	}
	w, ok := inner.(service.Watcher)
	if !ok {
		return nil
	}
	for {
		pause := idle
		if _, host, err := m.look(ctx, g.place.instance); err == nil && host.State == service.StateRunning && host.Job == "" {
			pause = again
			err := w.Watch(ctx, g.units, wake)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.log.Debug("manager inside an instance not watched", "instance", g.place.instance, "manager", g.place.manager, "err", err)
			wake()
		}
		t := time.NewTimer(pause)
		select {
		case <-g.changed:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		t.Stop()
	}
}

var _ io.Closer = (*Manager)(nil)
