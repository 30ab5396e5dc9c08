//go:build unix

package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string) Command { return Command{Path: "/bin/sh", Args: []string{"-c", script}} }

func TestRun_Output(t *testing.T) {
	for _, tc := range []struct {
		name           string
		cmd            Command
		stdout, stderr string
		dropped        int64
		code           int
	}{
		{name: "streams apart", cmd: sh("echo out; echo err >&2"), stdout: "out\n", stderr: "err\n"},
		{name: "exit code is no error", cmd: sh("exit 32"), code: 32},
		{name: "signal", cmd: sh("kill -9 $$"), code: 137},
		{name: "bare name", cmd: Command{Path: "echo", Args: []string{"a b", "$HOME;id"}}, stdout: "a b $HOME;id\n"},
		{name: "stdin is empty", cmd: Command{Path: "cat"}},
		{name: "root directory", cmd: sh("pwd"), stdout: "/\n"},
		{name: "directory", cmd: Command{Path: "pwd", Dir: "/usr"}, stdout: "/usr\n"},
		{name: "capped and drained", cmd: Command{Path: "/bin/sh", Args: []string{"-c", "head -c 300000 /dev/zero; echo e >&2"}, Limit: 10}, stdout: strings.Repeat("\x00", 10), stderr: "e\n", dropped: 299990},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Runner{}.Run(t.Context(), tc.cmd)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Stdout) != tc.stdout || string(got.Stderr) != tc.stderr || got.Dropped != tc.dropped || got.ExitCode != tc.code {
				t.Errorf("got %q, %q, dropped %d, code %d", got.Stdout, got.Stderr, got.Dropped, got.ExitCode)
			}
		})
	}
}

func TestRun_EnvironmentIsMinimal(t *testing.T) {
	t.Setenv("PGPASSWORD", "canary")
	got, err := Runner{}.Run(t.Context(), Command{Path: "env", Env: []string{"A=1"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "PATH=" + searchPath + "\nLANG=C.UTF-8\nHOME=" + ownHome() + "\nA=1\n"
	// os/exec adds PWD when a directory is set.
	if text := strings.Replace(string(got.Stdout), "PWD=/\n", "", 1); text != want {
		t.Errorf("got environment %q, want %q", text, want)
	}
}

func TestRun_RefusedPaths(t *testing.T) {
	for _, path := range []string{"", ".", "..", "./x", "a/b", "no-such-program-here", "/no/such/program"} {
		if _, err := (Runner{}).Run(t.Context(), Command{Path: path}); err == nil {
			t.Errorf("path %q was run", path)
		}
	}
	if _, err := (Runner{}).Run(t.Context(), Command{Path: "no-such-program-here"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestRun_ErrorsHideArguments(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Runner{}.Run(ctx, Command{Path: "sleep", Args: []string{"60", "0.0000001"}})
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "60") {
		t.Errorf("got %v", err)
	}
}

func TestRun_DeadlineKillsWholeGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	out, err := Runner{}.Run(ctx, sh("sleep 60 & echo $!; wait"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(began); took > waitDelay {
		t.Errorf("took %v", took)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out.Stdout)))
	if err != nil {
		t.Fatal(err)
	}
	// The orphan is reaped by whoever adopts it; until then it is a zombie without a command line.
	if line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); len(line) > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("child %d outlived the command", pid)
	}
}

func TestRun_DaemonLeftBehindIsNoError(t *testing.T) {
	out, err := Runner{}.Run(t.Context(), sh("sleep 10 & echo $!"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out.Stdout)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the daemon was killed with its parent: %v", err)
	}
}

// A job of a service manager that is in progress must not be cut in half, neither by a deadline nor by a closed pipe.
func TestRun_Survives(t *testing.T) {
	dir := t.TempDir()
	long := sh("sleep 0.5; echo a line && echo done > " + dir + "/done")
	long.Survives = true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := (Runner{}).Run(ctx, long); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(began); took > 400*time.Millisecond {
		t.Errorf("took %v", took)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if b, _ := os.ReadFile(dir + "/done"); string(b) == "done\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command did not go on")
		}
	}
	short := sh("echo lost; exit 3")
	short.Survives = true
	if out, err := (Runner{}).Run(t.Context(), short); err != nil || out.ExitCode != 3 || len(out.Stdout) > 0 {
		t.Errorf("got %+v, %v", out, err)
	}
	if _, err := (Runner{}).Run(ctx, short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that has ended: got %v", err)
	}
}

func TestRun_User(t *testing.T) {
	if _, err := (Runner{}).Run(t.Context(), Command{Path: "id", User: "no-such-user"}); err == nil {
		t.Error("an unknown user was accepted")
	}
	if os.Geteuid() != 0 {
		_, err := Runner{}.Run(t.Context(), Command{Path: "id", User: "root"})
		if !errors.Is(err, ErrPermission) {
			t.Errorf("got %v, want ErrPermission", err)
		}
		return
	}
	got, err := Runner{}.Run(t.Context(), Command{Path: "/bin/sh", Args: []string{"-c", "id -un; id -G; echo $HOME"}, User: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := lookupIdentity("nobody")
	if err != nil {
		t.Fatal(err)
	}
	want := "nobody\n" + strconv.Itoa(int(id.gid)) + "\n" + id.home + "\n"
	if string(got.Stdout) != want {
		t.Errorf("got %q, want %q", got.Stdout, want)
	}
}

// The agent's unit takes CAP_KILL away from it: what it started as another user ends by that user's own hand (found by
// the lab's F04-late, where a validator that hung could not be ended).
func TestKillAs_EndsAnotherUsersGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 60 & wait")
	if _, err := isolate(cmd, "nobody"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := killAs(cmd.SysProcAttr.Credential, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := exitCode(cmd.ProcessState); code != 137 {
		t.Errorf("exit code %d, want death by SIGKILL", code)
	}
	if err := killAs(&syscall.Credential{Uid: 65534, Gid: 65534}, os.Getpid()); err == nil {
		t.Error("nobody killed a process of root's")
	}
}
