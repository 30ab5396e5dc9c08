//go:build unix

package service

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// isolate puts cmd into a process group of its own, which is killed as a whole when its context ends, and lets it run
// as name. It returns the home directory of the user that cmd will run as.
func isolate(cmd *exec.Cmd, name string) (string, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.EPERM) && cmd.SysProcAttr.Credential != nil {
			err = killAs(cmd.SysProcAttr.Credential, cmd.Process.Pid)
		}
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	if name == "" {
		return ownHome(), nil
	}
	id, err := lookupIdentity(name)
	if err != nil {
		var unknown user.UnknownUserError
		if errors.As(err, &unknown) {
			return "", errors.New("no such user")
		}
		return "", err
	}
	euid := os.Geteuid()
	if strconv.Itoa(euid) == strconv.FormatUint(uint64(id.uid), 10) {
		return id.home, nil
	}
	if euid != 0 {
		return "", fmt.Errorf("switch user: %w", ErrPermission)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: id.groups}
	return id.home, nil
}

// killAs ends a process group as the user that it runs as. The agent's unit has no CAP_KILL, so root itself may not
// signal another user's process, and a command that hangs would be waited for as long as it likes.
func killAs(who *syscall.Credential, group int) error {
	path, err := lookPath("kill")
	if err != nil {
		return fmt.Errorf("find kill: %w", err)
	}
	kill := exec.Command(path, "-KILL", "--", strconv.Itoa(-group))
	kill.Dir, kill.Env = "/", []string{"PATH=" + searchPath}
	kill.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	if err := kill.Run(); err != nil {
		return fmt.Errorf("kill process group as its user: %w", err)
	}
	return nil
}

// exitCode gives 128+n for death by signal n, as shells do, so that it cannot be mistaken for an exit code of -1.
func exitCode(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}
