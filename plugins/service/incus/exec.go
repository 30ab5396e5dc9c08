package incus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// execOrder is the body of POST /1.0/instances/NAME/exec. The command runs as root of the instance, without a shell.
type execOrder struct {
	Command     []string          `json:"command"`
	WaitForWS   bool              `json:"wait-for-websocket"`
	Interactive bool              `json:"interactive"`
	Environment map[string]string `json:"environment"`
}

// Exec starts a command in an instance and returns its standard input and output as one connection. Closing the connection
// ends the command: Incus kills one whose output nobody takes any more. What the command says on its standard error is part
// of the error of a Read that finds it ended. ErrNotFound is returned for an instance that does not exist.
func (m *Manager) Exec(ctx context.Context, instance string, command []string) (net.Conn, error) {
	c, err := m.exec(ctx, instance, execOrder{Command: command}, maxMessage)
	if err != nil {
		return nil, fmt.Errorf("run %q in %q: %w", command[0], instance, err)
	}
	return c, nil
}

// exec starts a command, of whose standard error it keeps the first bytes.
func (m *Manager) exec(ctx context.Context, instance string, o execOrder, keep int) (*stream, error) {
	if err := checkName(instance); err != nil {
		return nil, err
	}
	o.WaitForWS = true
	op, err := m.order(ctx, http.MethodPost, path(instance, "exec"), o)
	if err != nil {
		return nil, err
	}
	s := &stream{
		name: o.Command[0] + " in " + instance, id: op.id, keep: keep,
		ended: func() string { return m.outcome(op.id) }, drained: make(chan struct{}),
	}
	// Incus begins once all three are connected, and gives up after 10 s.
	for fd := range s.ws {
		secret := op.fds[string(rune('0'+fd))]
		if secret == "" {
			s.closeAll()
			return nil, fmt.Errorf("%w: the answer has no stream %d", service.ErrUnavailable, fd)
		}
		if s.ws[fd], err = m.socket(ctx, "/1.0/operations/"+op.id+"/websocket", url.Values{"secret": {secret}}); err != nil {
			s.closeAll()
			return nil, err
		}
		s.ws[fd].SetReadLimit(maxReply)
	}
	life, end := context.WithCancel(context.Background())
	s.end = end
	s.in = websocket.NetConn(life, s.ws[stdin], websocket.MessageBinary)
	s.out = websocket.NetConn(life, s.ws[stdout], websocket.MessageBinary)
	s.ws[stdin].CloseRead(life) // answers pings
	go s.drain(life)
	return s, nil
}

const stdin, stdout, stderr = 0, 1, 2

// stream is a command's standard input and output. It owns a goroutine that reads its standard error and one of the
// library's; both end with Close, or with the command.
type stream struct {
	name    string
	id      string // of its operation
	keep    int
	ended   func() string // how the command ended
	ws      [3]*websocket.Conn
	in, out net.Conn
	end     context.CancelFunc
	drained chan struct{} // closed when standard error has ended

	mu      sync.Mutex // guards below
	said    []byte     // beginning of standard error
	dropped int64      // bytes of it that were not kept
}

func (s *stream) closeAll() {
	for _, ws := range s.ws {
		if ws != nil {
			_ = ws.CloseNow()
		}
	}
}

func (s *stream) drain(ctx context.Context) {
	defer close(s.drained)
	for {
		_, b, err := s.ws[stderr].Read(ctx)
		if err != nil {
			return
		}
		s.mu.Lock()
		n := min(len(b), s.keep-len(s.said))
		s.said = append(s.said, b[:n]...)
		s.dropped += int64(len(b) - n)
		s.mu.Unlock()
	}
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if err == nil {
		return n, nil
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return n, err
	}
	select {
	case <-s.drained:
	case <-time.After(100 * time.Millisecond):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text := oneLine(string(bytes.TrimSpace(s.said)))
	if text == "" {
		text = s.ended()
	}
	// How the library words the end of a stream says nothing.
	return n, fmt.Errorf("%w: %s has ended: %s", service.ErrUnavailable, s.name, text)
}

// outcome tells how a command ended that Incus still knows, as it does for 5 s.
func (m *Manager) outcome(id string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	body, err := m.get(ctx, "/1.0/operations/"+id+"/wait", nil)
	if err != nil {
		return "it said nothing"
	}
	op, err := parseOperation(body)
	switch {
	case err != nil:
		return "it said nothing"
	case op.err != "":
		return op.err
	}
	return fmt.Sprintf("exit code %d", op.exit)
}

// Write implements net.Conn.
func (s *stream) Write(p []byte) (int, error) { return s.in.Write(p) }

// Close implements net.Conn. It is idempotent.
func (s *stream) Close() error {
	s.end()
	s.closeAll()
	return nil
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.out.LocalAddr() }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.out.RemoteAddr() }

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.in.SetDeadline(t), s.out.SetDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error { return s.out.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.in.SetWriteDeadline(t) }
