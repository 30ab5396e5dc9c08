package servicetest

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Gate is a filtering proxy on a unix socket before a manager's API on another one. It lets through what Allow allows, also
// what goes on as something else than HTTP, and it can hang or go away.
type Gate struct {
	Path   string                     // of its socket
	Target string                     // of the manager's
	Allow  func(r *http.Request) bool // called from several goroutines

	mu      sync.Mutex    // guards below
	hung    chan struct{} // not nil: nothing is answered until it is closed
	refused []string
	server  *http.Server
	conns   map[net.Conn]bool // also those that were upgraded, which the server does not close
}

// Open makes the gate listen, until Close or the end of t.
func (g *Gate) Open(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", g.Path)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "manager"})
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.Transport = &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", g.Target)
	}}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := &http.Server{ReadHeaderTimeout: time.Minute, ConnState: g.track, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowed := g.Allow(r)
		g.mu.Lock()
		hung := g.hung
		if !allowed {
			g.refused = append(g.refused, r.Method+" "+r.URL.Path)
		}
		g.mu.Unlock()
		if hung != nil {
			<-hung
			return
		}
		if !allowed {
			http.Error(w, "<html>forbidden</html>", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	g.mu.Lock()
	g.server, g.conns = server, map[net.Conn]bool{}
	g.mu.Unlock()
	t.Cleanup(g.Close)
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
}

func (g *Gate) track(c net.Conn, s http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s == http.StateClosed {
		delete(g.conns, c)
	} else {
		g.conns[c] = true
	}
}

// Close makes the gate go away, with every connection through it. It can be opened again.
func (g *Gate) Close() {
	g.mu.Lock()
	server, conns := g.server, g.conns
	g.conns = map[net.Conn]bool{}
	g.mu.Unlock()
	_ = server.Close()
	for c := range conns {
		_ = c.Close()
	}
}

// Hang makes the gate answer no new request until restore is called.
func (g *Gate) Hang() (restore func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	hung := make(chan struct{})
	g.hung = hung
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.hung = nil
		close(hung)
	}
}

// Refused returns what was not let through.
func (g *Gate) Refused() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}
