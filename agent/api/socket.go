package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner and the group of the agent ask it, and nobody else.
const socketMode = 0o660

// ErrInUse says that something answers on the socket already.
var ErrInUse = errors.New("another agent answers on this socket")

// listen opens the socket. Its folder must exist. A socket that an agent left behind when it was killed is removed; what
// is not a socket, or is one that answers, is left alone.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lc := net.ListenConfig{Control: restrict}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open api socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict api socket: %w", err), l.Close())
	}
	return l, nil
}

// restrict sets the mode before the socket gets its name, so that there is no moment at which others could connect.
// Only Linux passes the mode of the descriptor on to the name; elsewhere the call fails and the chmod after it counts.
func restrict(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), socketMode) })
}

// removeStale removes a socket that nobody listens on.
func removeStale(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("something that is not a socket is in the way (%s)", st.Mode().Type())
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(ErrInUse, conn.Close())
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("find out whether an agent answers there: %w", err)
	}
	return os.Remove(path)
}
