package incus

import (
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service/incus/incustest"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// behind returns a Manager that reaches the daemon at socket through a gate which lets through the documented calls that
// refuse does not want to refuse.
func behind(t testing.TB, socket string, refuse func(*http.Request) bool) (*Manager, *servicetest.Gate) {
	t.Helper()
	g := &servicetest.Gate{Path: filepath.Join(t.TempDir(), "gate"), Target: socket, Allow: func(r *http.Request) bool {
		return incustest.Documented(r) && (refuse == nil || !refuse(r))
	}}
	g.Open(t)
	return through(t, g), g
}

// through returns a Manager behind that gate.
func through(t testing.TB, g *servicetest.Gate) *Manager {
	t.Helper()
	m, err := New(Config{Socket: g.Path, Project: "default"}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// behindGate does so for a daemon that is played by a handler.
func behindGate(t testing.TB, daemon http.Handler, refuse func(*http.Request) bool) (*Manager, *servicetest.Gate) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "daemon")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: daemon}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return behind(t, socket, refuse)
}
