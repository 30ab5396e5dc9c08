package probe_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

func endpoint(t *testing.T, addr string) *probe.Endpoint {
	t.Helper()
	e, err := probe.NewEndpoint("http://"+addr, 200*time.Millisecond, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// listener is where the kernel takes connections. Nobody answers unless the test accepts them.
func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestEndpoint_Ask(t *testing.T) {
	l := listener(t)
	gone := listener(t)
	_ = gone.Close()
	read := func(_ context.Context, conn net.Conn) error {
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	fails := func(err error) func(context.Context, net.Conn) error {
		return func(context.Context, net.Conn) error { return err }
	}
	for name, c := range map[string]struct {
		addr   string
		talk   func(context.Context, net.Conn) error
		want   probe.Outcome
		detail string
	}{
		"answered": {l.Addr().String(), fails(nil), probe.OutcomeAnswered, ""},
		"refused":  {gone.Addr().String(), fails(nil), probe.OutcomeRefused, "connection refused"},
		"silent":   {l.Addr().String(), read, probe.OutcomeTimeout, "no answer within the limit"},
		"nonsense": {l.Addr().String(), fails(probe.NonsenseError("not ours")), probe.OutcomeBroken, "not ours"},
		"nonsense because the limit cut it off": {
			l.Addr().String(),
			func(ctx context.Context, _ net.Conn) error { <-ctx.Done(); return probe.NonsenseError("half") },
			probe.OutcomeTimeout, "no answer within the limit",
		},
		"ended":         {l.Addr().String(), fails(io.ErrUnexpectedEOF), probe.OutcomeBroken, "the connection ended early"},
		"anything else": {l.Addr().String(), fails(errors.New("ours")), "", ""},
		"no such name":  {"not..a.name:1", fails(nil), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, detail, err := endpoint(t, c.addr).Ask(t.Context(), c.talk)
			if got != c.want || detail != c.detail || (err != nil) != (c.want == "") {
				t.Errorf("got %q, %q, %v", got, detail, err)
			}
		})
	}
}

// TestEndpoint_Cancelled: a caller that gives up has observed nothing.
func TestEndpoint_Cancelled(t *testing.T) {
	l := listener(t)
	ctx, cancel := context.WithCancel(t.Context())
	got, _, err := endpoint(t, l.Addr().String()).Ask(ctx, func(_ context.Context, conn net.Conn) error {
		cancel()
		_, err := conn.Read(make([]byte, 1))
		return err
	})
	if got != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestEndpoint_BoundsTheAnswer(t *testing.T) {
	l := listener(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close() // the client hangs up first
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
		for err == nil {
			_, err = io.WriteString(conn, strings.Repeat("x", 4096))
		}
	}()
	e, err := probe.NewEndpoint("http://"+l.Addr().String(), 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Get(t.Context(), "/", 10); err != nil || got.Outcome != probe.OutcomeBroken {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEndpoint_Speaking(t *testing.T) {
	e, err := probe.NewEndpoint("https://db.example:2379", time.Second, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	h2 := e.Speaking("h2")
	if h2 == e || h2.Host() != "db.example:2379" || h2.Scheme() != "https" || endpoint(t, "x:1").Speaking("h2").Scheme() != "http" {
		t.Errorf("got %+v", h2)
	}
}

func TestNewEndpoint_Refuses(t *testing.T) {
	for _, url := range []string{"http://x:0", "http://x:65536", "http://x:http", "http://]:1", "http://[::1:1", "http://:1", "http://x"} {
		if e, err := probe.NewEndpoint(url, time.Second, nil); err == nil {
			t.Errorf("%s: got %+v", url, e)
		}
	}
}
