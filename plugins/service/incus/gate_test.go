package incus

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync"
	"testing"
	"time"
)

// documented are the calls of the package comment, with the only parameters that they may have.
var documented = []struct {
	method string
	path   *regexp.Regexp
	query  []string
}{
	{http.MethodGet, regexp.MustCompile(`^/1\.0/instances/[A-Za-z0-9-]+(/state)?$`), nil},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/operations$`), []string{"recursion"}},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/operations/[0-9a-f-]{36}/wait$`), nil},
	{http.MethodGet, regexp.MustCompile(`^/1\.0/events$`), []string{"type"}},
	{http.MethodPut, regexp.MustCompile(`^/1\.0/instances/[A-Za-z0-9-]+/state$`), nil},
}

func isDocumented(r *http.Request) bool {
	for _, d := range documented {
		if r.Method != d.method || !d.path.MatchString(r.URL.Path) {
			continue
		}
		query := r.URL.Query()
		for _, name := range append(d.query, "project") {
			query.Del(name)
		}
		return len(query) == 0
	}
	return false
}

// gate is a filtering proxy on a unix socket before a daemon on another one. It lets documented calls through, and can
// refuse more, hang, or go away.
type gate struct {
	path, target string

	mu      sync.Mutex // guards below
	refuse  func(*http.Request) bool
	hung    chan struct{} // not nil: nothing is answered until it is closed
	refused []string
	server  *http.Server
	conns   map[net.Conn]bool // also those that were upgraded, which the server does not close
}

func newGate(t testing.TB, path, target string) *gate {
	t.Helper()
	g := &gate{path: path, target: target, conns: map[net.Conn]bool{}}
	g.open(t)
	t.Cleanup(g.close)
	return g
}

func (g *gate) open(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", g.path)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "incus"})
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.Transport = &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", g.target)
	}}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := &http.Server{ReadHeaderTimeout: time.Minute, ConnState: g.track, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		hung, refuse := g.hung, !isDocumented(r) || g.refuse != nil && g.refuse(r)
		if refuse {
			g.refused = append(g.refused, r.Method+" "+r.URL.Path)
		}
		g.mu.Unlock()
		if hung != nil {
			<-hung
			return
		}
		if refuse {
			http.Error(w, "<html>forbidden</html>", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	g.mu.Lock()
	g.server = server
	g.mu.Unlock()
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
}

func (g *gate) track(c net.Conn, s http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns[c] = true; s == http.StateClosed {
		delete(g.conns, c)
	}
}

func (g *gate) close() {
	g.mu.Lock()
	server, conns := g.server, g.conns
	g.conns = map[net.Conn]bool{}
	g.mu.Unlock()
	_ = server.Close()
	for c := range conns {
		_ = c.Close()
	}
}

// behindGate returns a Manager that reaches daemon through a gate.
func behindGate(t testing.TB, daemon http.Handler) (*Manager, *gate) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/daemon")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: daemon}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	g := newGate(t, dir+"/gate", dir+"/daemon")
	m, err := New(Config{Socket: g.path, Project: "default"}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, g
}
