package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// WitnessPath is where InstallWitness puts the witness inside a node.
const WitnessPath = "/usr/local/bin/lab-witness"

// InstallWitness builds the witness and copies it into every node that one runs on.
func (s *Stack) InstallWitness(ctx context.Context) error {
	bin, err := build(ctx, "./test/lab/witness/cmd", "lab-witness")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(bin)) }()
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range s.AgentNodes() {
		g.Go(func() error { return s.copyTo(gctx, n, bin, WitnessPath) })
	}
	return g.Wait()
}

func (s *Stack) copyTo(ctx context.Context, n Node, from, to string) error {
	if _, err := s.docker.Output(ctx, "cp", from, s.Container(n)+":"+to); err != nil {
		return fmt.Errorf("copy %s to %s: %w", filepath.Base(to), n.Name, err)
	}
	return nil
}

// moduleRoot returns the folder of this module, from wherever inside it the lab was started.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err != nil || mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("find the module (run the lab inside its checkout): %w", err)
	}
	return filepath.Dir(mod), nil
}

// build makes a static Linux binary of a package of this module, in a folder of its own that the caller removes.
func build(ctx context.Context, pkg, name string, flags ...string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "pgpatrol-lab-build-")
	if err != nil {
		return "", fmt.Errorf("make build folder: %w", err)
	}
	bin := filepath.Join(dir, name)
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", bin}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return bin, nil
}
