package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.Session] = (*Session)(nil)

// DefaultTimeout is how long a session may take to open and answer.
const DefaultTimeout = 2 * time.Second

// applicationName is how these sessions show in pg_stat_activity.
const applicationName = "pgpatrol"

// sessionQuery asks everything in one round trip, so that the answers belong together.
//
// On a primary the timeline is that of the write-ahead log being written: the control file's is old from a promotion
// until the first checkpoint. A standby's is the newest of what it has restarted from, must replay, and receives.
// received_tli is null without pg_read_all_stats; greatest() leaves it out then.
const sessionQuery = `
select pg_catalog.pg_is_in_recovery(),
  case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
       else pg_catalog.pg_current_wal_lsn() end,
  case when pg_catalog.pg_is_in_recovery()
       then greatest(c.timeline_id, r.min_recovery_end_timeline, (select received_tli from pg_catalog.pg_stat_wal_receiver))
       else ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::bigint end,
  s.system_identifier,
  to_char(pg_catalog.pg_postmaster_start_time() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  pg_catalog.current_setting('transaction_read_only')
from pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r, pg_catalog.pg_control_system() s`

// SessionConfig says where to open sessions.
type SessionConfig struct {
	DSN     string        // connection string or URL of this server alone, best through its unix socket
	Timeout time.Duration // for opening and answering together; DefaultTimeout if 0
}

// Validate reports whether sessions can be opened with this. It does not repeat the DSN, which may hold a password.
func (c SessionConfig) Validate() error {
	_, err := c.parse()
	return err
}

func (c SessionConfig) parse() (*pgconn.Config, error) {
	if c.Timeout < 0 {
		return nil, errors.New("timeout is negative")
	}
	if c.DSN == "" {
		return nil, errors.New("dsn is empty")
	}
	p, err := pgconn.ParseConfig(c.DSN)
	if err != nil {
		return nil, errors.New("dsn is not a connection string") // the cause quotes the string
	}
	for _, f := range p.Fallbacks {
		if f.Host != p.Host || f.Port != p.Port {
			return nil, errors.New("dsn names several servers: the answer of one must not be taken for another's")
		}
	}
	return p, nil
}

// SessionDeps is what a Session needs.
type SessionDeps struct {
	Password func() (string, error) // read for every session; nil to use what the DSN says
}

// Session opens a new session every time and asks the server what it is.
//
// Only a new session sees a server that holds its lock, serves old sessions, answers all of Patroni's checks and lets
// nobody in (FAULTS.md L18, F20).
type Session struct {
	config   *pgconn.Config
	timeout  time.Duration
	password func() (string, error)
}

// NewSession returns a prober for sessions of one server.
func NewSession(c SessionConfig, d SessionDeps) (*Session, error) {
	p, err := c.parse()
	if err != nil {
		return nil, fmt.Errorf("configure session probe: %w", err)
	}
	s := &Session{config: p, timeout: c.Timeout, password: d.Password}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	p.RuntimeParams = maps.Clone(p.RuntimeParams)
	if p.RuntimeParams == nil {
		p.RuntimeParams = make(map[string]string)
	}
	p.RuntimeParams["application_name"] = applicationName
	// The server gives up on its own what nobody waits for any more.
	p.RuntimeParams["statement_timeout"] = strconv.FormatInt(s.timeout.Milliseconds(), 10)
	return s, nil
}

// Probe implements probe.Prober. A session that could not be had is a *probe.SessionError; other errors mean that the
// attempt itself could not be made (no access to the socket, no address for a name, no password).
func (s *Session) Probe(ctx context.Context) (probe.Session, error) {
	if err := ctx.Err(); err != nil {
		return probe.Session{}, err
	}
	config := s.config.Copy()
	if s.password != nil {
		password, err := s.password()
		if err != nil {
			return probe.Session{}, fmt.Errorf("read password for session: %w", err)
		}
		config.Password = password
	}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	row, err := ask(limited, config)
	if errors.Is(ctx.Err(), context.Canceled) {
		return probe.Session{}, ctx.Err()
	}
	if err != nil {
		return probe.Session{}, classify(err)
	}
	return parseRow(row)
}

// ask opens a session, runs the query and closes the session, whatever happens, before it returns.
func ask(ctx context.Context, config *pgconn.Config) ([]string, error) {
	d := &dialer{dial: config.DialFunc}
	config.DialFunc = d.Dial
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		d.close()
		return nil, err
	}
	defer func() {
		// After a failure the library would go on for up to 15 s in the background, asking the server to cancel what
		// it does over another connection. A server that hangs would not answer that either.
		if err == nil {
			_ = conn.Close(ctx) // the answer is here
		}
		d.close()
		if conn.IsClosed() {
			<-conn.CleanupDone()
		}
	}()
	var results []*pgconn.Result
	results, err = conn.Exec(ctx, sessionQuery).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, errors.New("ask server: not exactly one row")
	}
	row := make([]string, len(results[0].Rows[0]))
	for i, v := range results[0].Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// dialer opens connections until it is closed, which closes them too.
type dialer struct {
	dial pgconn.DialFunc

	mu     sync.Mutex // guards what follows
	closed bool
	conns  []net.Conn
}

// Dial implements pgconn.DialFunc.
func (d *dialer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, conn)
	return conn, nil
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, c := range d.conns {
		_ = c.Close() // often closed already
	}
}

// classify turns the failure of a session into what was observed, or leaves it an error if nothing was. The library's
// errors name the user, the database and the address, never the password.
func classify(err error) error {
	seen := func(o probe.Outcome, detail string) error { return &probe.SessionError{Outcome: o, Detail: detail} }
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal):
		return &probe.SessionError{Outcome: probe.OutcomeAnswered, SQLState: clean(refusal.Code), Detail: clean(refusal.Message)}
	case errors.Is(err, syscall.EAGAIN):
		// A unix socket's queue is full: the server accepts nobody, which over TCP would look like silence.
		return seen(probe.OutcomeTimeout, "the queue of sessions that wait to be accepted is full")
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err), isTimeout(err):
		return seen(probe.OutcomeTimeout, "no answer within the limit")
	case errors.Is(err, syscall.ECONNREFUSED):
		return seen(probe.OutcomeRefused, "connection refused")
	case errors.Is(err, fs.ErrNotExist):
		return seen(probe.OutcomeRefused, "no socket")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF):
		return seen(probe.OutcomeBroken, "the server hung up")
	}
	return fmt.Errorf("open session: %w", err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// clean makes a server's message fit for logs and pages: one line, bounded, printable.
func clean(s string) string {
	const limit = 200
	out := make([]rune, 0, min(len(s), limit))
	for _, r := range s {
		if len(out) == limit {
			break
		}
		if !strconv.IsPrint(r) {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

// parseRow turns the query's row, in text format, into a value.
func parseRow(row []string) (probe.Session, error) {
	if len(row) != 6 {
		return probe.Session{}, fmt.Errorf("parse session: %d columns", len(row))
	}
	var s probe.Session
	var errs [5]error
	s.InRecovery, errs[0] = parseBool(row[0], "t", "f")
	s.LSN, errs[1] = ParseLSN(row[1])
	timeline, err := strconv.ParseUint(row[2], 10, 32)
	s.Timeline, errs[2] = uint32(timeline), err
	// SQL has no unsigned numbers: from 2038 on it shows the identifier as negative, unlike pg_controldata.
	id, err := strconv.ParseInt(row[3], 10, 64)
	s.SystemID, errs[3] = strconv.FormatUint(uint64(id), 10), err
	s.ReadOnly, errs[4] = parseBool(row[5], "on", "off")
	if err := errors.Join(errs[:]...); err != nil {
		return probe.Session{}, fmt.Errorf("parse session: %w", err)
	}
	if _, err := time.Parse(probe.StartLayout, row[4]); err != nil {
		return probe.Session{}, fmt.Errorf("parse session: start time %.40q", row[4])
	}
	s.PostmasterStart = row[4]
	if s.Timeline == 0 || s.SystemID == "0" {
		return probe.Session{}, errors.New("parse session: no timeline or no system identifier")
	}
	return s, nil
}

func parseBool(s, yes, no string) (bool, error) {
	switch s {
	case yes:
		return true, nil
	case no:
		return false, nil
	}
	return false, fmt.Errorf("%.10q is neither %s nor %s", s, yes, no)
}
