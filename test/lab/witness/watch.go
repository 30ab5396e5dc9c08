package witness

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/jackc/pgx/v5"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

const (
	askPostgresEvery = 200 * time.Millisecond
	askUnitEvery     = 500 * time.Millisecond
	askRESTEvery     = 500 * time.Millisecond
	askTimeout       = time.Second
)

// WatchConfig says what a watcher looks at.
type WatchConfig struct {
	DSN   string   // of the node's own PostgreSQL, over its unix socket
	Units []string // systemd units
	REST  string   // URL of Patroni's /liveness; empty: it is not asked
}

// Watch asks PostgreSQL five times, systemd and Patroni's REST API twice a second until the context ends.
func Watch(ctx context.Context, cfg WatchConfig, out *Output) error {
	var all sync.WaitGroup
	all.Go(func() {
		p := &pgWatcher{dsn: cfg.DSN, out: out}
		ticks(ctx.Done(), askPostgresEvery, func() { p.ask(ctx) })
		p.drop()
	})
	all.Go(func() {
		u := &unitWatcher{units: cfg.Units, out: out, beats: map[string]*beat[record.Unit]{}}
		ticks(ctx.Done(), askUnitEvery, func() { u.ask(ctx) })
		u.drop()
	})
	if cfg.REST != "" {
		all.Go(func() {
			r := &restWatcher{url: cfg.REST, out: out}
			ticks(ctx.Done(), askRESTEvery, func() { r.ask(ctx) })
		})
	}
	all.Wait()
	return out.Err()
}

type pgWatcher struct {
	dsn  string
	out  *Output
	conn *pgx.Conn
	beat beat[record.PG]
}

// The timeline of a primary comes from the WAL it writes: the control file follows only at the next checkpoint.
const askPostgres = `
SELECT r, pg_postmaster_start_time(),
       coalesce(CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text, ''),
       CASE WHEN r THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
FROM (SELECT pg_is_in_recovery() AS r) AS s`

func (p *pgWatcher) ask(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, askTimeout)
	defer cancel()
	got, err := p.read(ctx)
	if parent.Err() != nil {
		return
	}
	if err != nil {
		p.drop()
		got = record.PG{Text: describe("", err).Text}
	}
	now := time.Now()
	// The position moves all the time; a line for every move would say nothing new.
	key := got
	key.LSN, key.Text = "", ""
	if p.beat.due(now, key) {
		p.out.Put(record.Record{At: now, PG: &got})
	}
}

func (p *pgWatcher) read(ctx context.Context) (record.PG, error) {
	if p.conn == nil {
		conn, err := connect(ctx, p.dsn)
		if err != nil {
			return record.PG{}, err
		}
		p.conn = conn
	}
	got := record.PG{Answered: true}
	err := p.conn.QueryRow(ctx, askPostgres).Scan(&got.Recovery, &got.Started, &got.LSN, &got.Timeline)
	got.Started = got.Started.UTC()
	return got, err
}

func (p *pgWatcher) drop() {
	if p.conn != nil {
		closeConn(p.conn)
		p.conn = nil
	}
}

type restWatcher struct {
	url  string
	out  *Output
	beat beat[int]
}

func (r *restWatcher) ask(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, askTimeout)
	defer cancel()
	got := record.REST{}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, http.NoBody)
	if err == nil {
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			got.Status = resp.StatusCode
			_ = resp.Body.Close()
		}
	}
	if parent.Err() != nil {
		return
	}
	if err != nil {
		got.Text = err.Error()
	}
	if now := time.Now(); r.beat.due(now, got.Status) {
		r.out.Put(record.Record{At: now, REST: &got})
	}
}

type unitWatcher struct {
	units []string
	out   *Output
	conn  *dbus.Conn
	beats map[string]*beat[record.Unit]
}

func (u *unitWatcher) ask(parent context.Context) {
	for _, name := range u.units {
		ctx, cancel := context.WithTimeout(parent, askTimeout)
		got, err := u.read(ctx, name)
		cancel()
		if parent.Err() != nil {
			return
		}
		if err != nil {
			u.drop()
			got = record.Unit{Name: name, Text: err.Error()}
		}
		if u.beats[name] == nil {
			u.beats[name] = &beat[record.Unit]{}
		}
		if now := time.Now(); u.beats[name].due(now, got) {
			u.out.Put(record.Record{At: now, Unit: &got})
		}
	}
}

// read asks for six properties one by one: GetAll would make systemd read the unit's control group each time.
func (u *unitWatcher) read(ctx context.Context, name string) (record.Unit, error) {
	if u.conn == nil {
		conn, err := dbus.ConnectSystemBus()
		if err != nil { // as root, systemd answers on a socket of its own as well
			conn, err = direct(err)
		}
		if err != nil {
			return record.Unit{}, fmt.Errorf("connect to the system bus: %w", err)
		}
		u.conn = conn
	}
	const (
		bus     = "org.freedesktop.systemd1"
		unit    = bus + ".Unit"
		service = bus + ".Service"
	)
	var path dbus.ObjectPath
	manager := u.conn.Object(bus, "/org/freedesktop/systemd1")
	if err := manager.CallWithContext(ctx, bus+".Manager.LoadUnit", 0, name).Store(&path); err != nil {
		return record.Unit{}, fmt.Errorf("load unit %s: %w", name, err)
	}
	got := record.Unit{Name: name}
	var invocation []byte
	object := u.conn.Object(bus, path)
	for _, p := range []struct {
		iface, name string
		into        any
	}{
		{unit, "ActiveState", &got.ActiveState},
		{unit, "SubState", &got.SubState},
		{unit, "InvocationID", &invocation},
		{service, "Result", &got.Result},
		{service, "NRestarts", &got.NRestarts},
		{service, "MainPID", &got.MainPID},
	} {
		var v dbus.Variant
		err := object.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, p.iface, p.name).Store(&v)
		if err == nil {
			err = v.Store(p.into)
		}
		if err != nil {
			return record.Unit{}, fmt.Errorf("read %s of %s: %w", p.name, name, err)
		}
	}
	got.InvocationID = hex.EncodeToString(invocation)
	return got, nil
}

// direct connects to systemd without a bus, or returns why there is no bus.
func direct(noBus error) (*dbus.Conn, error) {
	conn, err := dbus.Dial("unix:path=/run/systemd/private")
	if err != nil {
		return nil, errors.Join(noBus, err)
	}
	if err := conn.Auth(nil); err != nil {
		_ = conn.Close()
		return nil, errors.Join(noBus, err)
	}
	return conn, nil
}

func (u *unitWatcher) drop() {
	if u.conn != nil {
		_ = u.conn.Close()
		u.conn = nil
	}
}
