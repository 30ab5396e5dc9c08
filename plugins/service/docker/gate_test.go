package docker

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
	{http.MethodGet, regexp.MustCompile(`^/_ping$`), nil},
	{http.MethodGet, regexp.MustCompile(`^/v1\.[0-9]+/containers/[A-Za-z0-9_.-]+/json$`), nil},
	{http.MethodGet, regexp.MustCompile(`^/v1\.[0-9]+/events$`), []string{"since", "until", "filters"}},
	{http.MethodPost, regexp.MustCompile(`^/v1\.[0-9]+/containers/[A-Za-z0-9_.-]+/(start|restart)$`), nil},
}

func isDocumented(r *http.Request) bool {
	for _, d := range documented {
		if r.Method != d.method || !d.path.MatchString(r.URL.Path) || r.ContentLength != 0 {
			continue
		}
		query := r.URL.Query()
		for _, name := range d.query {
			query.Del(name)
		}
		return len(query) == 0
	}
	return false
}

// gate is a filtering proxy on a unix socket before an engine on another one. It lets documented calls through, and can
// refuse more, hang, or go away.
type gate struct {
	path, target string

	mu      sync.Mutex // guards below
	refuse  func(*http.Request) bool
	hung    chan struct{} // not nil: nothing is answered until it is closed
	refused []string
	server  *http.Server
}

func newGate(t testing.TB, path, target string) *gate {
	t.Helper()
	g := &gate{path: path, target: target}
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
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.Transport = &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", g.target)
	}}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.server.Close()
}

// behindGate returns a Manager that reaches engine through a gate.
func behindGate(t testing.TB, engine http.Handler) (*Manager, *gate) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/engine")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: engine}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	g := newGate(t, dir+"/gate", dir+"/engine")
	m, err := New(Config{Socket: g.path}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, g
}
