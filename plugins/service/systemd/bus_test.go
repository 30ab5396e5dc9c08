package systemd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const owner = ":1.0" // of systemd on the fake bus

// answer is what the fake bus says to one method: a body, or a D-Bus error, or nothing at all.
type answer struct {
	body   []any
	err    string
	silent bool
	after  []dbus.Message // signals that follow, as signal builds them
}

// bus is a bus daemon with systemd behind it, for one unit, over a real socket.
type bus struct {
	path string

	mu       sync.Mutex // guards below
	answers  map[string]answer
	calls    []string
	conns    []net.Conn
	dials    int
	listener net.Listener
}

// newBus listens and answers with the captured properties of name.
func newBus(t *testing.T, name string) *bus {
	t.Helper()
	props := map[string]dbus.Variant{}
	for key, v := range captured(t, name) {
		switch key {
		case "Job":
			job := v.([]any)
			props[key] = dbus.MakeVariant(struct {
				ID   uint32
				Path dbus.ObjectPath
			}{job[0].(uint32), job[1].(dbus.ObjectPath)})
		case "LoadError":
		default:
			props[key] = dbus.MakeVariant(v)
		}
	}
	b := &bus{path: filepath.Join(t.TempDir(), "bus"), answers: map[string]answer{
		"Hello":           {body: []any{":1.7"}},
		"GetNameOwner":    {body: []any{owner}},
		"AddMatch":        {},
		"Subscribe":       {},
		"GetAll":          {body: []any{props}},
		"Get":             {body: []any{dbus.MakeVariant("x.service")}},
		"LoadUnit":        {body: []any{unitPath("x.service")}},
		"KillUnit":        {},
		"ResetFailedUnit": {},
		"StartUnit":       {body: []any{dbus.ObjectPath("/job/1")}, after: []dbus.Message{jobEnd(owner, "/job/1", "done")}},
		"TryRestartUnit":  {body: []any{dbus.ObjectPath("/job/1")}, after: []dbus.Message{jobEnd(owner, "/job/1", "done")}},
	}}
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.listener = l
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, c)
			b.dials++
			b.mu.Unlock()
			wg.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.cut()
		wg.Wait()
	})
	return b
}

// cut closes all connections.
func (b *bus) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		_ = c.Close()
	}
	b.conns = nil
}

func (b *bus) set(method string, a answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[method] = a
}

// seen returns the methods called on systemd that change something.
func (b *bus) seen() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.calls, " ")
}

func (b *bus) serve(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		reply := "REJECTED EXTERNAL\r\n"
		switch {
		case strings.HasPrefix(line, "BEGIN"):
			b.talk(c, in)
			return
		case strings.Contains(line, "EXTERNAL"):
			reply = "OK 1234\r\n"
		}
		if _, err := c.Write([]byte(reply)); err != nil {
			return
		}
	}
}

func (b *bus) talk(c net.Conn, in *bufio.Reader) {
	for {
		msg, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		member, _ := msg.Headers[dbus.FieldMember].Value().(string)
		b.mu.Lock()
		a, ok := b.answers[member]
		switch member {
		case "StartUnit", "TryRestartUnit", "KillUnit", "ResetFailedUnit":
			b.calls = append(b.calls, member)
			for _, arg := range msg.Body {
				if s, ok := arg.(string); ok {
					b.calls = append(b.calls, s)
				}
			}
		}
		b.mu.Unlock()
		if a.silent || msg.Flags&dbus.FlagNoReplyExpected != 0 {
			continue
		}
		reply := dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{}, Body: a.body}
		if a.err != "" || !ok {
			reply.Type = dbus.TypeError
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(a.err)
			reply.Body = []any{"told so"}
		}
		reply.Headers[dbus.FieldReplySerial] = dbus.MakeVariant(msg.Serial())
		for _, m := range append([]dbus.Message{reply}, a.after...) {
			if !send(c, m) {
				return
			}
		}
	}
}

// emit sends a signal to everybody.
func (b *bus) emit(m dbus.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		send(c, m)
	}
}

func send(c net.Conn, m dbus.Message) bool {
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	return m.EncodeTo(c, binary.LittleEndian) == nil
}

func signal(sender string, path dbus.ObjectPath, iface, member string, body ...any) dbus.Message {
	return dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldSender: dbus.MakeVariant(sender), dbus.FieldPath: dbus.MakeVariant(path),
		dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
	}}
}

func jobEnd(sender string, job dbus.ObjectPath, result string) dbus.Message {
	return signal(sender, managerPath, managerIface, "JobRemoved", uint32(1), job, "x.service", result)
}

// manager returns a Manager on b. Its context ends after two seconds, so that nothing can hang.
func manager(t *testing.T, b *bus) (*Manager, context.Context) {
	t.Helper()
	m, err := New(Config{Bus: b.path}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return m, ctx
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestStatus_JobType(t *testing.T) {
	b := newBus(t, "restart-job")
	m, ctx := manager(t, b)
	b.set("Get", answer{body: []any{dbus.MakeVariant("restart")}})
	if st, err := m.Status(ctx, "x.service"); err != nil || st.Job != "restart" {
		t.Errorf("got %+v, %v", st, err)
	}
	b.set("Get", answer{err: "org.freedesktop.DBus.Error.UnknownObject"})
	if st, err := m.Status(ctx, "x.service"); err != nil || st.Job != jobUnknown || st.Intent() != service.IntentBusy {
		t.Errorf("of a job that vanished: got %+v, %v", st, err)
	}
}

func TestStart_Sequence(t *testing.T) {
	for _, tc := range []struct{ unit, want string }{
		{"stopped", "StartUnit x.service fail"},
		{"auto-restart", "StartUnit x.service fail"},
		{"start-limit", "ResetFailedUnit x.service StartUnit x.service fail"},
	} {
		t.Run(tc.unit, func(t *testing.T) {
			b := newBus(t, tc.unit)
			m, ctx := manager(t, b)
			if err := m.Start(ctx, "x.service"); err != nil {
				t.Fatal(err)
			}
			if got := b.seen(); got != tc.want {
				t.Errorf("got calls %q, want %q", got, tc.want)
			}
		})
	}
}

func TestStart_BusySendsNothing(t *testing.T) {
	b := newBus(t, "restart-job")
	m, ctx := manager(t, b)
	b.set("Get", answer{body: []any{dbus.MakeVariant("restart")}})
	wantErr(t, m.Start(ctx, "x.service"), service.ErrBusy)
	if got := b.seen(); got != "" {
		t.Errorf("got calls %q", got)
	}
}

func TestStart_JobResults(t *testing.T) {
	b := newBus(t, "stopped")
	m, ctx := manager(t, b)
	start := func(after ...dbus.Message) error {
		b.set("StartUnit", answer{body: []any{dbus.ObjectPath("/job/1")}, after: after})
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		return m.Start(short, "x.service")
	}
	if err := start(jobEnd(owner, "/job/9", "failed"), jobEnd(owner, "/job/1", "done")); err != nil {
		t.Errorf("another job's end was taken for ours: %v", err)
	}
	if err := start(jobEnd(owner, "/job/1", "dependency")); err == nil || !strings.Contains(err.Error(), `"dependency"`) {
		t.Errorf("got %v", err)
	}
	// Any user of the bus can send this.
	wantErr(t, start(jobEnd(":1.66", "/job/1", "done")), context.DeadlineExceeded)
	if err := start(signal(owner, managerPath, managerIface, "JobRemoved", "odd"), jobEnd(owner, "/job/1", "done")); err != nil {
		t.Errorf("an odd signal: %v", err)
	}
}

func TestKillMain_OnlyMain(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	st, err := m.Status(ctx, "x.service")
	if err != nil {
		t.Fatal(err)
	}
	other := st
	other.InvocationID = strings.Repeat("0", 32)
	wantErr(t, m.KillMain(ctx, "x.service", other), service.ErrChanged)
	if got := b.seen(); got != "" {
		t.Errorf("got calls %q", got)
	}
	if err := m.KillMain(ctx, "x.service", st); err != nil {
		t.Fatal(err)
	}
	if got := b.seen(); got != "KillUnit x.service main" {
		t.Errorf("got calls %q", got)
	}
	b.set("KillUnit", answer{err: "org.freedesktop.systemd1.NoSuchProcess"})
	wantErr(t, m.KillMain(ctx, "x.service", st), service.ErrChanged)
}

func TestRestart_OnlyWhatRuns(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	st, err := m.Status(ctx, "x.service")
	if err != nil {
		t.Fatal(err)
	}
	other := st
	other.MainPID++
	wantErr(t, m.Restart(ctx, "x.service", other), service.ErrChanged)
	wantErr(t, m.Restart(ctx, "x.service", service.Status{}), service.ErrChanged)
	if got := b.seen(); got != "" {
		t.Errorf("got calls %q", got)
	}
	if err := m.Restart(ctx, "x.service", st); err != nil {
		t.Fatal(err)
	}
	if got := b.seen(); got != "TryRestartUnit x.service fail" {
		t.Errorf("got calls %q", got)
	}
	b.set("TryRestartUnit", answer{err: "org.freedesktop.systemd1.TransactionIsDestructive"})
	wantErr(t, m.Restart(ctx, "x.service", st), service.ErrBusy)
}

func TestRestart_BusySendsNothing(t *testing.T) {
	b := newBus(t, "restart-job")
	m, ctx := manager(t, b)
	st, err := m.Status(ctx, "x.service")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, m.Restart(ctx, "x.service", st), service.ErrBusy)
	if got := b.seen(); got != "" {
		t.Errorf("got calls %q", got)
	}
}

func TestLimits(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	m.euid = func() int { return 0 }
	if err := m.Limits(ctx, "x.service"); err != nil || b.seen() != "" {
		t.Errorf("root: got %v after calls %q", err, b.seen())
	}
	m.euid = func() int { return 65534 }
	for name, want := range map[string]error{
		"org.freedesktop.systemd1.NoSuchProcess":                      nil,
		"org.freedesktop.DBus.Error.AccessDenied":                     service.ErrPermission,
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": service.ErrPermission,
		"org.freedesktop.systemd1.NoSuchUnit":                         service.ErrNotFound,
		"org.freedesktop.DBus.Error.NoReply":                          service.ErrUnavailable,
	} {
		b.set("KillUnit", answer{err: name})
		wantErr(t, m.Limits(ctx, "x.service"), want)
	}
	if got := b.seen(); strings.Count(got, "KillUnit x.service control") != 5 || strings.Count(got, " ") != 14 {
		t.Errorf("got calls %q", got)
	}
}

func TestErrors(t *testing.T) {
	b := newBus(t, "stopped")
	m, ctx := manager(t, b)
	for name, sentinel := range sentinels {
		b.set("StartUnit", answer{err: name})
		wantErr(t, m.Start(ctx, "x.service"), sentinel)
	}
	b.set("StartUnit", answer{err: "org.freedesktop.systemd1.UnitMasked"})
	if err := m.Start(ctx, "x.service"); err == nil || !strings.Contains(err.Error(), "UnitMasked") || !strings.Contains(err.Error(), "told so") {
		t.Errorf("got %v", err)
	}
	b.set("StartUnit", answer{body: []any{uint32(1)}})
	wantErr(t, m.Start(ctx, "x.service"), service.ErrUnavailable)
}

func TestConnect_Absent(t *testing.T) {
	m, err := New(Config{Bus: filepath.Join(t.TempDir(), "absent")}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Status(t.Context(), "x.service")
	wantErr(t, err, service.ErrUnavailable)
	if err := m.Watch(t.Context(), []string{"x.service"}, func() {}); !errors.Is(err, service.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// Each step of the handshake, and a call after it, with a bus that says nothing any more.
func TestConnect_SilentBus(t *testing.T) {
	for _, step := range []string{"Hello", "GetNameOwner", "AddMatch", "GetAll"} {
		t.Run(step, func(t *testing.T) {
			b := newBus(t, "running")
			b.set(step, answer{silent: true})
			m, ctx := manager(t, b)
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			_, err := m.Status(short, "x.service")
			wantErr(t, err, service.ErrUnavailable)
			wantErr(t, err, context.DeadlineExceeded)
		})
	}
	t.Run("authentication", func(t *testing.T) {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "bus"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		m, ctx := manager(t, &bus{path: l.Addr().String()})
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err = m.Status(short, "x.service")
		wantErr(t, err, context.DeadlineExceeded)
	})
}

func TestConnect_OnceForAll(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	for round := 1; round <= 2; round++ {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := m.Status(ctx, "x.service"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.mu.Lock()
		if b.dials != round {
			t.Errorf("got %d connections, want %d", b.dials, round)
		}
		b.mu.Unlock()
		c, err := m.current()
		if err != nil {
			t.Fatal(err)
		}
		b.cut()
		<-c.done()
	}
}

// TestConnect_AfterBreak: the call after the one that a broken connection failed has a new connection, however late godbus
// notices.
func TestConnect_AfterBreak(t *testing.T) {
	b := newBus(t, "running")
	var deaf *halfOpen
	m, err := New(Default(), Deps{Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", b.path)
		if err != nil || deaf != nil {
			return c, err
		}
		deaf = &halfOpen{Conn: c}
		return deaf, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.Close()
		_ = deaf.Conn.Close()
	})
	status := func() error {
		_, err := m.Status(t.Context(), "x.service")
		return err
	}
	if err := status(); err != nil {
		t.Fatal(err)
	}
	deaf.cut.Store(true)
	wantErr(t, status(), service.ErrUnavailable)
	if err := status(); err != nil {
		t.Error(err)
	}
	// The first call after a break may be the one that finds it.
	for range 300 {
		b.cut()
		if err := status(); err != nil {
			wantErr(t, err, service.ErrUnavailable)
		}
		if err := status(); err != nil {
			t.Fatal(err)
		}
	}
}

// halfOpen is a connection of which, once cut, only writes fail.
type halfOpen struct {
	net.Conn
	cut atomic.Bool
}

func (h *halfOpen) Write(p []byte) (int, error) {
	if h.cut.Load() {
		return 0, syscall.EPIPE
	}
	return h.Conn.Write(p)
}

func (h *halfOpen) Close() error { return nil }

func TestClose_IsFinal(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	if _, err := m.Status(ctx, "x.service"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := m.Status(ctx, "x.service")
	wantErr(t, err, service.ErrUnavailable)
}

func TestWatch_Signals(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	b.set("Subscribe", answer{err: "org.freedesktop.systemd1.AlreadySubscribed"})
	woken, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- m.Watch(ctx, []string{"x.service"}, func() { woken <- struct{}{} }) }()
	<-woken
	changed := func(unit string) dbus.Message {
		return signal(owner, unitPath(unit), propertiesIface, "PropertiesChanged", unitIface, map[string]dbus.Variant{}, []string{})
	}
	job := func(unit string) dbus.Message {
		return signal(owner, managerPath, managerIface, "JobNew", uint32(1), dbus.ObjectPath("/job/1"), unit)
	}
	for _, m := range []dbus.Message{changed("y.service"), job("y.service"), signal(":1.66", unitPath("x.service"), propertiesIface, "PropertiesChanged"), signal(owner, managerPath, managerIface, "JobNew")} {
		b.emit(m)
	}
	relevant := []dbus.Message{changed("x.service"), job("x.service"), jobEnd(owner, "/job/1", "done"), signal(owner, managerPath, managerIface, "UnitFilesChanged"), signal(owner, managerPath, managerIface, "Reloading", false)}
	for _, m := range relevant {
		b.emit(m)
		<-woken
	}
	// systemd came back under a new name: whoever watches has to subscribe again.
	b.emit(signal(busIface, "/org/freedesktop/DBus", busIface, "NameOwnerChanged", systemdName, owner, ":1.99"))
	wantErr(t, <-ended, service.ErrUnavailable)
	if n := len(woken); n != 0 {
		t.Errorf("woken %d times too often", n)
	}
}

func TestWatch_Refuses(t *testing.T) {
	b := newBus(t, "running")
	m, ctx := manager(t, b)
	if err := m.Watch(ctx, []string{"x.service", "a b"}, func() {}); err == nil {
		t.Error("a hostile name was accepted")
	}
	if err := m.Watch(ctx, make([]string, maxWatched+1), func() {}); err == nil {
		t.Error("too many units were accepted")
	}
}

func TestConfig(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	_, err := New(Config{Bus: "tcp:host=x", Direct: "y"}, Deps{})
	if err == nil || !strings.Contains(err.Error(), "bus:") || !strings.Contains(err.Error(), "direct:") {
		t.Errorf("got %v", err)
	}
}

// TestDial: another machine's bus is reached as its caller says, as root there, and this machine's sockets stay out of it.
func TestDial(t *testing.T) {
	b := newBus(t, "running")
	dials := 0
	m, err := New(Config{Bus: "/absent"}, Deps{Dial: func(ctx context.Context) (net.Conn, error) {
		dials++
		var d net.Dialer
		return d.DialContext(ctx, "unix", b.path)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	for range 2 {
		if st, err := m.Status(t.Context(), "x.service"); err != nil || st.State != service.StateRunning {
			t.Errorf("got %+v, %v", st, err)
		}
	}
	if err := m.Limits(t.Context(), "x.service"); err != nil || dials != 1 {
		t.Errorf("got %v after %d dials", err, dials)
	}
	for _, want := range []error{service.ErrPermission, service.ErrNotFound, service.ErrUnavailable} {
		m, err := New(Default(), Deps{Dial: func(context.Context) (net.Conn, error) { return nil, want }})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Status(t.Context(), "x.service")
		if !errors.Is(err, want) || errors.Is(err, service.ErrUnavailable) != errors.Is(want, service.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
}
