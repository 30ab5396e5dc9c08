package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
	"github.com/pgpatrol/pgpatrol/test/lab/docker"
	"github.com/pgpatrol/pgpatrol/test/lab/image"
	"github.com/pgpatrol/pgpatrol/test/lab/incus"
)

// place is where a test program runs.
type place interface {
	// absent returns why there is no such place here, empty if there is one.
	absent(context.Context) string
	// run returns what the program wrote. That a test failed is no error.
	run(ctx context.Context, program string, env, args []string) ([]byte, error)
}

// build compiles a manager's test program, for any machine with this kernel and processor.
func build(ctx context.Context, dir string, m manager) (string, error) {
	root, err := binary.Root(ctx)
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, m.name+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "e2e", "-o", program, "./plugins/"+m.pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return program, nil
}

// test2json turns what a test program wrote into Go's test events, one JSON object a line.
func test2json(ctx context.Context, out []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin = bytes.NewReader(out)
	return cmd.Output()
}

// here is this machine.
type here struct{ needs func(context.Context) string }

func (h here) absent(ctx context.Context) string {
	if h.needs == nil {
		return ""
	}
	return h.needs(ctx)
}

func (h here) run(ctx context.Context, program string, env, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = append(os.Environ(), env...)
	// An interrupt lets the test clean up; the test's own time limit ends one that hangs.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if ctx.Err() == nil && errors.As(err, &exit) {
		err = nil
	}
	return out, err
}

const engineSocket = "/var/run/docker.sock"

// engineHere: the test looks at the processes of containers from outside.
func engineHere(context.Context) string {
	if info, err := os.Stat(engineSocket); err != nil || info.Mode()&os.ModeSocket == 0 {
		return engineSocket + " is not a socket"
	}
	if os.Geteuid() != 0 {
		return "it needs root, to kill and freeze the main processes of containers from outside"
	}
	return ""
}

// container is a container of its own with an init system as its first process.
type container struct {
	image func(context.Context) (string, error)        // returns the image's tag, and builds it where it is not there
	init  string                                       // its first process
	ready []string                                     // a command in it that succeeds once the init system is there
	incus bool                                         // it runs instances of its own
	give  func(ctx context.Context, name string) error // gives it what the test wants; nil for nothing
}

// node is the lab's image, with systemd.
func node(ctx context.Context) (string, error) {
	return image.Ensure(ctx, docker.Client{}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// openrcImage is the lab's image of a machine that OpenRC runs.
func openrcImage(ctx context.Context) (string, error) {
	return image.EnsureOpenRC(ctx, docker.Client{}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// incusImage is the lab's image of a machine that runs Incus.
func incusImage(ctx context.Context) (string, error) {
	return image.EnsureIncus(ctx, docker.Client{}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// incusAlias is what the node's image is called in an Incus.
const incusAlias = "node"

// giveNode gives an Incus the lab's image with systemd.
func giveNode(ctx context.Context, name string) error {
	tag, err := node(ctx)
	if err != nil {
		return err
	}
	return incus.Import(ctx, docker.Client{}, name, tag, incusAlias)
}

func (c container) absent(ctx context.Context) string {
	if _, err := (docker.Client{}).Output(ctx, "version", "--format", "{{.Server.Version}}"); err != nil {
		return "there is no Docker engine for its container"
	}
	return ""
}

// within is where a test program lies in a container: any user can execute it there.
const within = "/usr/local/bin/conformance.test"

func (c container) run(ctx context.Context, program string, env, args []string) ([]byte, error) {
	d := docker.Client{}
	tag, err := c.image(ctx)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("pgpatrol-managers-%d", os.Getpid())
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, _ = d.Output(clean, "rm", "-f", "-v", name)
	}()
	if err := c.start(ctx, d, name, tag); err != nil {
		return nil, err
	}
	if c.give != nil {
		if err := c.give(ctx, name); err != nil {
			return nil, err
		}
	}
	if _, err := d.Output(ctx, "cp", program, name+":"+within); err != nil {
		return nil, err
	}
	call := []string{"exec"}
	for _, e := range env {
		call = append(call, "-e", e)
	}
	out, err := d.Output(ctx, append(append(call, name, within), args...)...)
	if ctx.Err() == nil && docker.ExitCode(err) == 1 {
		err = nil
	}
	return []byte(out), err
}

// options are those of the container on an engine of which info says what it is.
func (c container) options(info string) []string {
	apparmor := strings.Contains(info, "name=apparmor")
	if c.incus {
		return incus.Options(apparmor)
	}
	out := []string{
		"--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
		"--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-e", "container=docker",
	}
	if apparmor {
		out = append(out, "--security-opt", "apparmor=unconfined")
	}
	return out
}

// start starts the container and waits until its init system is there.
func (c container) start(ctx context.Context, d docker.Client, name, tag string) error {
	info, err := d.Output(ctx, "info", "--format", "{{.CgroupVersion}} {{.SecurityOptions}}")
	if err != nil {
		return err
	}
	args := append([]string{"run", "-d", "--name", name, "--network", "none"}, c.options(info)...)
	if strings.HasPrefix(info, "2") && !c.incus {
		// As in the lab: on version 2 the engine mounts the control groups read-only, and an init system wants to write there.
		args = append(args, "--cgroupns", "private", tag, "sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec "+c.init)
	} else {
		args = append(args, tag, c.init)
	}
	if _, err := d.Output(ctx, args...); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err := d.Output(ctx, append([]string{"exec", name}, c.ready...)...)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after a minute: %w", c.init, err)
		}
	}
}
