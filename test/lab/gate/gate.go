// Package gate is a proxy before the API of a Docker engine that lets through the calls which pgpatrol's README lists, for
// the containers that it was told of, and refuses every other one.
//
// It stands for the filtering proxies that people put before the engine's socket, and is stricter than they are. It owns
// the list of what is let through and writes a line for every call that it refuses; it promises that a refused call never
// reaches the engine. It deliberately judges nothing: a scenario that reads its lines does.
package gate

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Config says what a gate lets through.
type Config struct {
	Engine     string          // the engine's unix socket
	Containers []string        // names whose state may be read, and that may be started and restarted
	Refuse     func() []string // orders that are refused although they are on the list, asked before every call; nil for none
	Log        io.Writer       // gets a line of JSON, a [Refusal], for every call that was refused
}

// Refusal is a call that was refused.
type Refusal struct {
	At     time.Time `json:"at"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Told   bool      `json:"told"` // the call is on the list, and this gate was told to refuse it
}

var (
	versioned = regexp.MustCompile(`^/v1\.[0-9]+(/.*)$`)
	container = regexp.MustCompile(`^/containers/([a-zA-Z0-9_.-]+)/(json|start|restart)$`)
)

// New returns the proxy.
func New(c Config) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.Engine)
		}},
		FlushInterval: -1, // events come one by one
	}
	var mu sync.Mutex // orders the lines
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ok, order := c.allows(r.Method, r.URL.Path)
		told := ok && c.Refuse != nil && slices.Contains(c.Refuse(), order)
		if ok && !told {
			proxy.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		_ = json.NewEncoder(c.Log).Encode(Refusal{At: time.Now().UTC(), Method: r.Method, Path: r.URL.Path, Told: told})
		mu.Unlock()
		http.Error(w, `{"message":"not let through"}`, http.StatusForbidden)
	})
}

// allows reports whether a call is on the list, and which order it is.
func (c Config) allows(method, path string) (ok bool, order string) {
	if m := versioned.FindStringSubmatch(path); m != nil {
		path = m[1]
	}
	if path == "/_ping" || path == "/events" {
		return method == http.MethodGet, ""
	}
	m := container.FindStringSubmatch(path)
	if m == nil || !slices.Contains(c.Containers, m[1]) {
		return false, ""
	}
	if m[2] == "json" {
		return method == http.MethodGet, ""
	}
	return method == http.MethodPost, m[2]
}
