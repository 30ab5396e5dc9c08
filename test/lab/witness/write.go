package witness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// limits of the writer, as the measurements in FACTS.md §10 were made with them.
const (
	writeEvery   = 5 * time.Millisecond
	writeTimeout = time.Second
	gapThreshold = 200 * time.Millisecond
	countWithin  = 30 * time.Second
)

// WriteConfig says where the writer writes.
type WriteConfig struct {
	DSN string // without a password: that comes from the password file
	Run string // distinguishes the rows of this run
}

// writer is one client that commits one row after the other on one session.
type writer struct {
	cfg  WriteConfig
	out  *Output
	conn *pgx.Conn

	seq       int64
	acked     []int64
	errors    int64
	lastAck   time.Time
	beat      beat[bool]
	connected bool // a table exists
}

// Write commits one row every 5 ms until the context ends, and then counts which acknowledged rows are missing. It
// returns only errors of its output: errors of the database are what it is there to record.
func Write(ctx context.Context, cfg WriteConfig, out *Output) error {
	w := &writer{cfg: cfg, out: out}
	ticks(ctx.Done(), writeEvery, func() { w.step(ctx) })
	w.finish()
	return out.Err()
}

func (w *writer) step(ctx context.Context) {
	step, err := w.write(ctx)
	now := time.Now()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.errors++
		w.out.Put(record.Record{At: now, Error: describe(step, err)})
		w.drop()
	}
	if w.beat.due(now, err == nil) {
		w.out.Put(record.Record{At: now, Beat: &record.Beat{Acknowledged: int64(len(w.acked))}})
	}
}

func (w *writer) write(parent context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(parent, writeTimeout)
	defer cancel()
	if w.conn == nil {
		if err := w.open(ctx); err != nil {
			return "connect", err
		}
		// The write has its own second.
		cancel()
		ctx, cancel = context.WithTimeout(parent, writeTimeout)
		defer cancel()
	}
	w.seq++
	if _, err := w.conn.Exec(ctx, `INSERT INTO witness (run, seq) VALUES ($1, $2)`, w.cfg.Run, w.seq); err != nil {
		return "write", err
	}
	w.acknowledge(time.Now())
	return "", nil
}

func (w *writer) acknowledge(now time.Time) {
	w.acked = append(w.acked, w.seq)
	if !w.lastAck.IsZero() && now.Sub(w.lastAck) > gapThreshold {
		w.gap(now, false)
	}
	w.lastAck = now
}

func (w *writer) gap(to time.Time, open bool) {
	w.out.Put(record.Record{At: to, Gap: &record.Gap{From: w.lastAck.UTC(), To: to.UTC(), Open: open, Length: to.Sub(w.lastAck)}})
}

func (w *writer) open(ctx context.Context) error {
	conn, err := connect(ctx, w.cfg.DSN)
	if err != nil {
		return err
	}
	if !w.connected {
		const table = `CREATE TABLE IF NOT EXISTS witness (run text, seq bigint, at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (run, seq))`
		if _, err := conn.Exec(ctx, table); err != nil {
			closeConn(conn)
			return err
		}
		w.connected = true
	}
	w.conn = conn
	return nil
}

func (w *writer) drop() {
	if w.conn != nil {
		closeConn(w.conn)
		w.conn = nil
	}
}

// finish says how many acknowledged rows the database no longer has.
func (w *writer) finish() {
	w.drop()
	now := time.Now()
	if !w.lastAck.IsZero() && now.Sub(w.lastAck) > gapThreshold {
		w.gap(now, true)
	}
	t := &record.Totals{Acknowledged: int64(len(w.acked)), Errors: w.errors}
	ctx, cancel := context.WithTimeout(context.Background(), countWithin)
	defer cancel()
	for ctx.Err() == nil {
		present, err := w.present(ctx)
		if err == nil {
			t.Counted = true
			t.Lost, t.LostExamples = missing(w.acked, present)
			break
		}
		w.out.Put(record.Record{Error: describe("count", err)})
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	w.out.Put(record.Record{Totals: t})
}

func (w *writer) present(ctx context.Context) (map[int64]bool, error) {
	conn, err := connect(ctx, w.cfg.DSN)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	rows, err := conn.Query(ctx, `SELECT seq FROM witness WHERE run = $1`, w.cfg.Run)
	if err != nil {
		return nil, err
	}
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	have := make(map[int64]bool, len(seqs))
	for _, s := range seqs {
		have[s] = true
	}
	return have, nil
}

func missing(acked []int64, present map[int64]bool) (int64, []int64) {
	var n int64
	var examples []int64
	for _, s := range acked {
		if present[s] {
			continue
		}
		if n++; len(examples) < 10 {
			examples = append(examples, s)
		}
	}
	return n, examples
}

func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("parse dsn: %w", err)
	}
	cfg.ConnectTimeout = writeTimeout
	cfg.RuntimeParams["statement_timeout"] = "1000"
	cfg.RuntimeParams["application_name"] = "lab-witness"
	return pgx.ConnectConfig(ctx, cfg)
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

func describe(step string, err error) *record.Error {
	e := &record.Error{Step: step, Text: err.Error()}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		e.SQLState = pgErr.Code
	}
	if len(e.Text) > 200 {
		e.Text = e.Text[:200]
	}
	return e
}
