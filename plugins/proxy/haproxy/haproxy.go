// Package haproxy speaks with HAProxy over its runtime socket (FACTS.md §6.1; HAProxy 2.0 to 3.2).
//
// It owns the commands and the reading of the answers. It promises bounded time and memory for every exchange, that no
// name outside a strict grammar reaches a command line, and that it never sends a command that outlives HAProxy's own
// checks: no "state maint" or "drain", no agent check, no address. It deliberately decides nothing.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

var _ proxy.Proxy = (*Runtime)(nil)

const (
	maxReply     = 4 << 20         // bytes of one answer
	defaultLimit = 2 * time.Second // for one exchange
)

// Runtime is the runtime socket of one HAProxy. Every exchange is a connection of its own: HAProxy closes it after the
// answer. It is safe for concurrent use.
type Runtime struct {
	network, address string
	limit            time.Duration
}

// New returns the runtime socket at an absolute path, or at host:port. Nothing is asked yet.
func New(socket string) (*Runtime, error) {
	r := &Runtime{network: "unix", address: socket, limit: defaultLimit}
	if !strings.HasPrefix(socket, "/") {
		r.network = "tcp"
		if _, _, err := net.SplitHostPort(socket); err != nil {
			return nil, fmt.Errorf("runtime socket %q: must be an absolute path or host:port", socket)
		}
	}
	return r, nil
}

// ErrNotAllowed says that the socket does not allow a command: it is not of level admin.
var ErrNotAllowed = fmt.Errorf("%w: it does not allow this; it needs `level admin`", proxy.ErrNotUsable)

// Table implements proxy.Proxy.
func (r *Runtime) Table(ctx context.Context, backends ...string) (proxy.Table, error) {
	var t proxy.Table
	for _, b := range backends {
		if !proxy.ValidName(b) {
			return proxy.Table{}, proxy.ID{Backend: b, Server: "-"}.Check()
		}
		text, err := r.ask(ctx, "show servers state "+b)
		if err != nil {
			return proxy.Table{}, err
		}
		servers, err := parseState(text)
		if err != nil {
			return proxy.Table{}, fmt.Errorf("show servers state %s: %w", b, err)
		}
		t.Servers = append(t.Servers, servers...)
	}
	text, err := r.ask(ctx, "show stat")
	if err != nil {
		return proxy.Table{}, err
	}
	sessions, err := parseSessions(text)
	if err != nil {
		return proxy.Table{}, fmt.Errorf("show stat: %w", err)
	}
	for i, s := range t.Servers {
		t.Servers[i].Sessions = sessions[s.ID]
	}
	return t, nil
}

// Mark implements proxy.Proxy. The dead come first: their sessions end before new traffic begins (FACTS.md §6.7).
func (r *Runtime) Mark(ctx context.Context, dead, alive []proxy.ID) error {
	var commands []string
	for _, id := range dead {
		commands = append(commands, "set server "+id.String()+" health down")
	}
	for _, id := range alive {
		commands = append(commands, "set server "+id.String()+" health up")
	}
	return r.tell(ctx, append(append([]proxy.ID{}, dead...), alive...), commands)
}

// Drop implements proxy.Proxy.
func (r *Runtime) Drop(ctx context.Context, servers []proxy.ID) error {
	var commands []string
	for _, id := range servers {
		commands = append(commands, "shutdown sessions server "+id.String())
	}
	return r.tell(ctx, servers, commands)
}

// tell sends commands on one line and wants no answer but empty ones.
func (r *Runtime) tell(ctx context.Context, about []proxy.ID, commands []string) error {
	if len(commands) == 0 {
		return nil
	}
	for _, id := range about {
		if err := id.Check(); err != nil {
			return err
		}
	}
	line := strings.Join(commands, "; ")
	text, err := r.ask(ctx, line)
	if err != nil {
		return err
	}
	if said := strings.TrimSpace(text); said != "" {
		return fmt.Errorf("HAProxy answers %q to %q: %w", printable(said), line, refusal(said))
	}
	return nil
}

var errRefused = errors.New("refused")

func refusal(said string) error {
	if strings.Contains(said, "Permission denied") {
		return ErrNotAllowed
	}
	return errRefused
}

// ask sends one line and reads the whole answer.
func (r *Runtime) ask(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, r.network, r.address)
	if err != nil {
		return "", fmt.Errorf("runtime socket: %w", reason(err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", fmt.Errorf("runtime socket: send: %w", reason(err))
	}
	b, err := io.ReadAll(io.LimitReader(conn, maxReply+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("runtime socket: read: %w", reason(err))
	case len(b) > maxReply:
		return "", fmt.Errorf("runtime socket: the answer is longer than %d bytes", maxReply)
	}
	return string(b), nil
}

// Kinds of trouble with the socket that mean different things to an operator (FAULTS.md F87, F89).
var (
	ErrNoSocket  = errors.New("there is no socket; `stats socket` in HAProxy's configuration makes one")
	ErrNobody    = errors.New("nobody listens on the socket")
	ErrForbidden = errors.New("this agent must not use the socket")
)

func reason(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w (%w)", proxy.ErrNotUsable, ErrNoSocket, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (%w)", ErrNobody, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w (%w)", proxy.ErrNotUsable, ErrForbidden, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w (%w)", proxy.ErrSilent, err)
	}
	return err
}
