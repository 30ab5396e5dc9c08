package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClient_RoundTrip(t *testing.T) {
	src := filled()
	c, ctx := NewClient(run(t, src)), t.Context()
	status, err1 := c.Status(ctx)
	plan, err2 := c.Plan(ctx)
	history, err3 := c.History(ctx, HistoryQuery{Limit: 7, Kinds: []string{"intent", "result"}})
	version, err4 := c.Version(ctx)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for name, diff := range map[string]string{
		"status":  cmp.Diff(src.status, status),
		"plan":    cmp.Diff(src.plan, plan),
		"history": cmp.Diff(src.history, history),
		"version": cmp.Diff(Version{Version: "1.2.3"}, version),
		"query":   cmp.Diff(HistoryQuery{Limit: 7, Kinds: []string{"intent", "result"}}, src.asked),
	} {
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestClient_NoAgent(t *testing.T) {
	left := leftBehind(t)
	for name, socket := range map[string]string{"no socket": filepath.Join(t.TempDir(), "s"), "left behind": left} {
		_, err := NewClient(socket).Status(t.Context())
		if !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), "no agent answers on "+socket+": is pgpatrol.service running?") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClient_Answers(t *testing.T) {
	cases := map[string]struct {
		status int
		body   string
		want   string
		is     error
	}{
		"not ready":          {503, `{"error":"` + ErrNotReady.Error() + `"}`, "", ErrNotReady},
		"a reason":           {500, `{"error":"journal gone"}`, "journal gone", nil},
		"no reason":          {502, `<html>`, "HTTP status 502", nil},
		"not JSON":           {200, `<html>`, "understand reply", nil},
		"another form":       {200, `{"now":"noon"}`, "understand reply", nil},
		"cut short":          {200, `{"now":1,`, "understand reply", nil},
		"more than one":      {200, `{}{}`, "understand reply", nil},
		"redirected":         {302, ``, "HTTP status 302", nil},
		"too long by a byte": {200, strings.Repeat(" ", maxReply+1), "longer than", nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := decode[Status](tc.status, strings.NewReader(tc.body))
			if err == nil || !strings.Contains(err.Error(), tc.want) || (tc.is != nil && !errors.Is(err, tc.is)) {
				t.Errorf("decode = %v, want %q", err, tc.want)
			}
		})
	}
	if r, err := decode[Version](200, strings.NewReader(`{"version":"9","later":{"x":1}}`)); err != nil || r.Version != "9" {
		t.Errorf("a newer agent's reply: %+v, %v", r, err)
	}
}

func TestClient_SilentAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(socket).Plan(ctx); !errors.Is(err, ErrSilent) {
		t.Errorf("Plan = %v, want ErrSilent", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(200, `{"now":1,"plan":{"findings":[{"code":"X"}]}}`)
	f.Add(503, `{"error":"x"}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		_, err1 := decode[Status](status, strings.NewReader(body))
		_, err2 := decode[PlanReply](status, strings.NewReader(body))
		_, err3 := decode[History](status, strings.NewReader(body))
		if status != http.StatusOK && (err1 == nil || err2 == nil || err3 == nil) {
			t.Fatal("a refusal was taken for an answer")
		}
	})
}

// leftBehind returns a socket that nobody listens on any more.
func leftBehind(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return socket
}

func TestListen(t *testing.T) {
	t.Run("mode", func(t *testing.T) {
		st, err := os.Stat(run(t, filled()))
		if err != nil || st.Mode().Perm() != socketMode {
			t.Errorf("mode = %o, %v", st.Mode().Perm(), err)
		}
	})
	t.Run("a socket left behind is replaced", func(t *testing.T) {
		l, err := listen(t.Context(), leftBehind(t))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	})
	t.Run("a living one is not", func(t *testing.T) {
		socket := run(t, filled())
		s := NewServer(filled(), Config{Socket: socket}, slog.New(slog.DiscardHandler))
		if err := s.Run(t.Context()); !errors.Is(err, ErrInUse) {
			t.Errorf("Run = %v, want ErrInUse", err)
		}
		if _, err := NewClient(socket).Version(t.Context()); err != nil {
			t.Errorf("the first agent: %v", err)
		}
	})
	t.Run("other files are left alone", func(t *testing.T) {
		dir := t.TempDir()
		file, link, socket := filepath.Join(dir, "file"), filepath.Join(dir, "link"), leftBehind(t)
		if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Symlink(socket, link)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{file, link, dir} {
			if _, err := listen(t.Context(), path); err == nil {
				t.Errorf("%s: accepted", path)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("the folder must exist", func(t *testing.T) {
		if _, err := listen(t.Context(), filepath.Join(t.TempDir(), "no", "s")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("listen = %v", err)
		}
	})
	t.Run("the socket goes with the server", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "s")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := NewServer(filled(), Config{Socket: socket}, slog.New(slog.DiscardHandler)).Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		if _, err := os.Lstat(socket); err == nil {
			t.Error("it is still there")
		}
	})
}

// A client that sends its request byte by byte, or not at all, must not keep others waiting.
func TestServer_SlowClients(t *testing.T) {
	socket := run(t, filled())
	for range 3 * maxRequests {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET /v1/status HTTP/1.1\r\nHo")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewClient(socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
}
