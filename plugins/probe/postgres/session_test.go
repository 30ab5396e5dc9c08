package postgres

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

// serve listens on a socket as PostgreSQL names it and runs handle for every connection. It returns a DSN.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() // a test's server
				handle(c)
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return "host=" + dir + " port=5432 user=postgres dbname=postgres password=s3cr3t"
}

// server speaks just enough of the protocol to let a client in and answer one query.
func server(t *testing.T, params *map[string]string, row ...string) func(net.Conn) {
	return func(c net.Conn) {
		b := pgproto3.NewBackend(c, c)
		m, err := b.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if s, ok := m.(*pgproto3.StartupMessage); ok && params != nil {
			*params = s.Parameters
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		for {
			m, err := b.Receive()
			if _, quit := m.(*pgproto3.Terminate); quit || err != nil {
				return
			}
			d, f := pgproto3.DataRow{}, pgproto3.RowDescription{}
			for range row {
				f.Fields = append(f.Fields, pgproto3.FieldDescription{Name: []byte("x"), DataTypeOID: 25})
			}
			for _, v := range row {
				d.Values = append(d.Values, []byte(v))
			}
			b.Send(&f)
			b.Send(&d)
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if err := b.Flush(); err != nil {
				t.Log(err)
				return
			}
		}
	}
}

func session(t *testing.T, dsn string, d SessionDeps) *Session {
	t.Helper()
	s, err := NewSession(SessionConfig{DSN: dsn}, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSession(t *testing.T) {
	var params map[string]string
	dsn := serve(t, server(t, &params, "f", "0/3000060", "5", "7711178803854868682", "2026-11-23T01:52:07.189724Z", "off"))
	s := session(t, dsn, SessionDeps{})
	got, err := s.Probe(t.Context())
	want := probe.Session{
		LSN: 0x3000060, Timeline: 5, SystemID: "7711178803854868682", PostmasterStart: "2026-11-23T01:52:07.189724Z",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if params["application_name"] != "pgpatrol" || params["statement_timeout"] != "2000" {
		t.Errorf("startup parameters: %v", params)
	}
}

func TestSession_KeepsTheContract(t *testing.T) {
	dsn := serve(t, server(t, nil, "t", "0/3000060", "5", "7711178803854868682", "2026-11-23T01:52:07.189724Z", "on"))
	probetest.Run(t, session(t, dsn, SessionDeps{}))
}

func TestSession_Hangs(t *testing.T) {
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	for name, handle := range map[string]func(net.Conn){
		"before the handshake": func(net.Conn) { <-quit },
		"before the answer": func(c net.Conn) {
			b := pgproto3.NewBackend(c, c)
			if _, err := b.ReceiveStartupMessage(); err != nil {
				return
			}
			b.Send(&pgproto3.AuthenticationOk{})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			_ = b.Flush()
			<-quit
		},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := serve(t, handle)
			s, err := NewSession(SessionConfig{DSN: dsn, Timeout: 100 * time.Millisecond}, SessionDeps{})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = s.Probe(t.Context()) // a context that has ended already would be another error
			var failed *probe.SessionError
			if !errors.As(err, &failed) || failed.Outcome != probe.OutcomeTimeout {
				t.Errorf("got %v, want a timeout", err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v: the library cleans up in the background", took)
			}
		})
	}
}

func TestSession_Refusals(t *testing.T) {
	no := func(code, message string) func(net.Conn) {
		return func(c net.Conn) {
			b := pgproto3.NewBackend(c, c)
			if _, err := b.ReceiveStartupMessage(); err != nil {
				return
			}
			b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: message})
			_ = b.Flush()
		}
	}
	for name, c := range map[string]struct {
		handle func(net.Conn)
		want   probe.SessionError
	}{
		"starting up": {
			no("57P03", "the database system is starting up"),
			probe.SessionError{Outcome: probe.OutcomeAnswered, SQLState: "57P03", Detail: "the database system is starting up"},
		},
		"no such role": {
			no("28000", "role \"x\nERROR: y\" does not exist"),
			probe.SessionError{Outcome: probe.OutcomeAnswered, SQLState: "28000", Detail: "role \"x?ERROR: y\" does not exist"},
		},
		"hangs up": {func(net.Conn) {}, probe.SessionError{Outcome: probe.OutcomeBroken, Detail: "the server hung up"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := session(t, serve(t, c.handle), SessionDeps{}).Probe(t.Context())
			var got *probe.SessionError
			if !errors.As(err, &got) {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(c.want, *got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestSession_NobodyThere(t *testing.T) {
	for name, dsn := range map[string]string{
		"no socket":  "host=" + t.TempDir() + " user=postgres password=s3cr3t",
		"no service": "host=127.0.0.1 port=1 user=postgres password=s3cr3t sslmode=prefer",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := session(t, dsn, SessionDeps{}).Probe(t.Context())
			var got *probe.SessionError
			if !errors.As(err, &got) || got.Outcome != probe.OutcomeRefused || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSession_Password(t *testing.T) {
	missing := errors.New("no such file")
	s := session(t, "host=/nowhere user=postgres", SessionDeps{Password: func() (string, error) { return "", missing }})
	if _, err := s.Probe(t.Context()); !errors.Is(err, missing) {
		t.Errorf("got %v", err)
	}
}

func TestSessionConfig_Validate(t *testing.T) {
	for name, c := range map[string]SessionConfig{
		"empty":            {},
		"no string":        {DSN: "s3cr3t"},
		"broken url":       {DSN: "postgres://postgres:s3cr3t@[::1/x"},
		"bad port":         {DSN: "host=/run port=x password=s3cr3t"},
		"several servers":  {DSN: "postgres://postgres:s3cr3t@10.0.0.1,10.0.0.2/postgres"},
		"negative timeout": {DSN: "host=/run user=x", Timeout: -1},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.Validate()
			if err == nil || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, dsn := range []string{"host=/run/postgresql user=postgres", "postgres://postgres@127.0.0.1/postgres?sslmode=prefer"} {
		if err := (SessionConfig{DSN: dsn}).Validate(); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestParseRow_Unintelligible(t *testing.T) {
	good := []string{"t", "0/1", "5", "77", "2026-11-23T01:52:07.189724Z", "on"}
	if _, err := parseRow(good); err != nil {
		t.Fatal(err)
	}
	for i, bad := range []string{"", "", "-1", "x", "yesterday", "maybe"} {
		row := append([]string(nil), good...)
		row[i] = bad
		if got, err := parseRow(row); err == nil {
			t.Errorf("column %d %q: got %+v", i, bad, got)
		}
	}
	for i, zero := range map[int]string{2: "0", 3: "0"} {
		row := append([]string(nil), good...)
		row[i] = zero
		if got, err := parseRow(row); err == nil {
			t.Errorf("column %d zero: got %+v", i, got)
		}
	}
}

func FuzzParseRow(f *testing.F) {
	f.Add("f", "0/3000060", "5", "7711178803854868682", "2026-11-23T01:52:07.189724Z", "off")
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g string) {
		s, err := parseRow([]string{a, b, c, d, e, g})
		if err == nil && (s.Timeline == 0 || s.SystemID == "" || s.PostmasterStart == "") {
			t.Errorf("got %+v", s)
		}
	})
}
