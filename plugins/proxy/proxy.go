// Package proxy says what pgpatrol can ask of, and tell, a program that leads clients to the members of a cluster.
//
// It owns the contract and its values. It promises that nothing in it outlives the agent: what is told is a hint that the
// proxy's own checks correct. It deliberately knows no proxy and no rule about when something is told.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// ID names a server of a backend.
type ID struct {
	Backend string `json:"backend"`
	Server  string `json:"server"`
}

// String prints the name as HAProxy's command line takes it.
func (id ID) String() string { return id.Backend + "/" + id.Server }

// grammar is what a name may hold: HAProxy allows more ('/' and ':' apart, FACTS.md §6.1), and nothing else may ever reach
// its command line.
var grammar = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$`)

// ValidName reports whether a name of a backend or of a server can be used.
func ValidName(s string) bool { return grammar.MatchString(s) }

// Check returns an error if a name must not reach a command line.
func (id ID) Check() error {
	if !ValidName(id.Backend) || !ValidName(id.Server) {
		return fmt.Errorf("server %q of backend %q: a name may hold letters, digits, '_', '.', ':' and '-' only", clip(id.Server), clip(id.Backend))
	}
	return nil
}

func clip(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// Admin is what people, or the configuration, have set on a server (FACTS.md §6.1).
type Admin uint

// Words returns what is set, "" for nothing.
func (a Admin) Words() string {
	const maint, drain = 1 | 2 | 4 | 0x20 | 0x40, 8 | 0x10
	switch {
	case a&maint != 0:
		return "maint"
	case a&drain != 0:
		return "drain"
	case a != 0:
		return fmt.Sprintf("administrative state %d", uint(a))
	}
	return ""
}

// Server is what a proxy says of one server.
type Server struct {
	ID
	Address  string        `json:"address"`            // host that it leads to
	Port     int           `json:"port"`               //
	Up       bool          `json:"up"`                 // clients are led there
	Admin    Admin         `json:"admin,omitempty"`    // 0: the proxy's checks decide
	Sessions int           `json:"sessions,omitempty"` // that are open now
	Since    time.Duration `json:"since"`              // since its state changed, whole seconds
}

// Table is what a proxy says of the servers of its backends, in its own order.
type Table struct {
	Servers []Server `json:"servers"`
}

// Of returns the servers of a backend.
func (t Table) Of(backend string) []Server {
	var out []Server
	for _, s := range t.Servers {
		if s.Backend == backend {
			out = append(out, s)
		}
	}
	return out
}

// ErrNotUsable says that a proxy cannot be spoken to for a reason that lies not in it: there is no socket, or this agent must
// not use it. It tells nothing of whether the proxy works (FAULTS.md F89).
var ErrNotUsable = errors.New("its runtime socket cannot be used")

// ErrSilent says that a proxy took a connection, or had the time to, and gave no answer in time (FAULTS.md F87).
var ErrSilent = errors.New("no answer in time")

// Proxy is one running proxy. Its methods are safe for concurrent use, and return when ctx ends.
type Proxy interface {
	// Table asks for the servers of these backends. A backend that does not exist is an error.
	Table(ctx context.Context, backends ...string) (Table, error)
	// Mark makes the proxy take servers for dead, and then others for alive, until its own checks say otherwise. All of it
	// is told at once.
	Mark(ctx context.Context, dead, alive []ID) error
	// Drop ends the sessions on servers.
	Drop(ctx context.Context, servers []ID) error
}
