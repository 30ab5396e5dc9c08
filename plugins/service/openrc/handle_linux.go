package openrc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// handle refers to one process, also when its number has gone to another one.
type handle struct{ file *os.File }

// open returns a handle on exactly the process p, or os.ErrProcessDone if it has ended.
func open(proc string, p process) (*handle, error) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("open pidfd of process %d: %w", p.pid, err)
	}
	// Not blocking, so that Go's own poller waits for it.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up pidfd of process %d: %w", p.pid, err)
	}
	h := &handle{os.NewFile(uintptr(fd), "pidfd")}
	// The handle is on whatever has the number now: it is the process that was observed if that one still lives.
	now, err := lookup(proc, p.pid)
	if err == nil && now.start != p.start {
		err = os.ErrProcessDone
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *handle) close() { _ = h.file.Close() }

func (h *handle) kill() error { return h.signal(unix.SIGKILL) }

// mayKill finds out whether kill would be allowed.
func (h *handle) mayKill() error { return h.signal(0) }

func (h *handle) signal(sig syscall.Signal) error {
	conn, err := h.file.SyscallConn() // Fd would make it blocking
	if err != nil {
		return err
	}
	controlErr := conn.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	switch {
	case controlErr != nil:
		return controlErr
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("%w: the process has just ended", service.ErrChanged)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: signal process: %w", service.ErrPermission, err)
	case err != nil:
		return fmt.Errorf("signal process: %w", err)
	}
	return nil
}

// wait returns nil when the process has ended, at once and without polling: a pidfd becomes readable then.
func (h *handle) wait(ctx context.Context) error {
	conn, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = h.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
