package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// D-Bus names.
const (
	systemdName     = "org.freedesktop.systemd1"
	managerPath     = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface    = "org.freedesktop.systemd1.Manager"
	unitIface       = "org.freedesktop.systemd1.Unit"
	jobIface        = "org.freedesktop.systemd1.Job"
	propertiesIface = "org.freedesktop.DBus.Properties"
	busIface        = "org.freedesktop.DBus"
)

// writeTimeout bounds a write to a bus that does not read. Messages are small, a healthy bus takes them at once.
const writeTimeout = 5 * time.Second

// nudgeAfter is how long an answer to the first message on systemd's own socket may take before another one is sent.
const nudgeAfter = 50 * time.Millisecond

// conn is one authenticated connection. godbus owns two goroutines per connection, one of which reads and delivers
// signals to DeliverSignal; both end with close.
type conn struct {
	bus    *dbus.Conn
	socket *socket
	uid    int    // that the calls are made as
	direct bool   // systemd's own socket: no bus daemon, no match rules, every signal arrives
	owner  string // unique name of systemd on the bus

	mu      sync.Mutex // guards the maps and what they hold
	jobs    map[*jobWait]struct{}
	watches map[*watch]struct{}
}

// open connects to the bus, or to systemd itself if that fails for root.
func (m *Manager) open(ctx context.Context) (*conn, error) {
	if m.far != nil {
		nc, err := m.far(ctx)
		if err != nil {
			return nil, err
		}
		return m.begin(ctx, nc, "bus", false)
	}
	c, err := m.dial(ctx, m.config.Bus, false)
	if err == nil || m.euid() != 0 || m.config.Direct == "" || ctx.Err() != nil {
		return c, err
	}
	c, directErr := m.dial(ctx, m.config.Direct, true)
	if directErr != nil {
		return nil, errors.Join(err, directErr)
	}
	return c, nil
}

func (m *Manager) dial(ctx context.Context, path string, direct bool) (*conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return m.begin(ctx, nc, path, direct)
}

// begin greets the bus on a connection, which it closes if that fails.
func (m *Manager) begin(ctx context.Context, nc net.Conn, path string, direct bool) (*conn, error) {
	s := &socket{Conn: nc, in: bufio.NewReader(nc)}
	c := &conn{socket: s, direct: direct, uid: m.euid(), jobs: map[*jobWait]struct{}{}, watches: map[*watch]struct{}{}}
	// The handshake of godbus knows no context: a deadline in the past wakes it up when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err := c.handshake(ctx)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		c.close()
		_ = nc.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return c, nil
}

func (c *conn) handshake(ctx context.Context) error {
	bus, err := dbus.NewConn(c.socket, dbus.WithSignalHandler(c))
	if err != nil {
		return err
	}
	c.bus = bus
	// Only EXTERNAL, and with the number: looking up the user's name may need cgo.
	if err := bus.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(c.uid))}); err != nil {
		return err
	}
	if c.direct {
		return c.nudge(ctx)
	}
	if err := bus.Hello(); err != nil {
		return err
	}
	// Any user may send a signal to any connection of the system bus. Only those of systemd's owner count.
	var owner string
	if err := c.callBus(ctx, "GetNameOwner", []any{&owner}, systemdName); err != nil {
		return err
	}
	c.mu.Lock()
	c.owner = owner
	c.mu.Unlock()
	return c.addMatch(ctx, "type='signal',sender='"+busIface+"',interface='"+busIface+"',member='NameOwnerChanged',arg0='"+systemdName+"'")
}

// nudge makes sure that systemd listens. When its own socket delivers the end of the authentication together with the
// first message, systemd (257) reads both at once and then waits for more to come before it looks at the message.
// Any further message frees it.
func (c *conn) nudge(ctx context.Context) error {
	answered := make(chan *dbus.Call, 1)
	for {
		c.bus.Object(systemdName, managerPath).Go("org.freedesktop.DBus.Peer.Ping", 0, answered)
		select {
		case call := <-answered:
			return call.Err
		case <-time.After(nudgeAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *conn) close() {
	if c.bus != nil {
		_ = c.bus.Close()
	}
}

// stands returns whether the connection can be used. godbus alone says so for a moment longer: it fails calls as soon as
// the socket does, and counts as connected until the goroutine that reads has ended.
func (c *conn) stands() bool { return !c.socket.broken.Load() && c.bus.Connected() }

// done is closed when the connection has ended.
func (c *conn) done() <-chan struct{} { return c.bus.Context().Done() }

// call calls a method of systemd and stores its results. The error wraps a sentinel of package service if one fits.
func (c *conn) call(ctx context.Context, path dbus.ObjectPath, method string, results []any, args ...any) error {
	return wrap(c.bus.Object(systemdName, path).CallWithContext(ctx, method, 0, args...).Store(results...))
}

// callBus calls a method of the bus daemon.
func (c *conn) callBus(ctx context.Context, method string, results []any, args ...any) error {
	return wrap(c.bus.BusObject().CallWithContext(ctx, busIface+"."+method, 0, args...).Store(results...))
}

func (c *conn) addMatch(ctx context.Context, rule string) error {
	if c.direct {
		return nil
	}
	return c.callBus(ctx, "AddMatch", nil, rule)
}

// removeMatch does not wait for an answer: it runs when a context has already ended.
func (c *conn) removeMatch(rule string) {
	if !c.direct {
		c.bus.BusObject().Go(busIface+".RemoveMatch", dbus.FlagNoReplyExpected, nil, rule)
	}
}

// properties reads the properties of all interfaces of an object. systemd loads the unit if it has to.
func (c *conn) properties(ctx context.Context, path dbus.ObjectPath) (map[string]any, error) {
	var props map[string]dbus.Variant
	if err := c.call(ctx, path, propertiesIface+".GetAll", []any{&props}, ""); err != nil {
		return nil, err
	}
	values := make(map[string]any, len(props))
	for name, v := range props {
		values[name] = v.Value()
	}
	return values, nil
}

// socket buffers what godbus reads in small pieces and bounds what it writes.
type socket struct {
	net.Conn
	in     *bufio.Reader
	broken atomic.Bool // a read or a write failed
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if err != nil {
		s.broken.Store(true)
	}
	return n, err
}

// Write closes the socket when it fails: half a message may have been sent.
func (s *socket) Write(p []byte) (int, error) {
	if err := s.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		s.broken.Store(true)
		return 0, err
	}
	n, err := s.Conn.Write(p)
	if err != nil {
		s.broken.Store(true)
		_ = s.Close()
	}
	return n, err
}

// wrap adds the sentinel that fits an error of a D-Bus call.
func wrap(err error) error {
	var de dbus.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &de):
		if sentinel := sentinels[de.Name]; sentinel != nil {
			return fmt.Errorf("%w: %w", sentinel, err)
		}
		return fmt.Errorf("%s: %w", de.Name, err)
	case errors.Is(err, os.ErrPermission) && !errors.Is(err, service.ErrPermission):
		return fmt.Errorf("%w: %w", service.ErrPermission, err)
	case errors.Is(err, service.ErrUnavailable), errors.Is(err, service.ErrPermission), errors.Is(err, service.ErrNotFound):
		return err
	}
	// Deadlines, refused connections, broken connections, nonsense: nobody answered.
	return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
}
