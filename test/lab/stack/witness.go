package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
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
	for _, n := range append(s.AgentNodes(), s.Of(Engine)...) {
		if n.Kind == Agent {
			continue // made anew for every run
		}
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

// build makes a static Linux binary of a package of this module, in a folder of its own that the caller removes.
func build(ctx context.Context, pkg, name string, flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "pgpatrol-lab-build-")
	if err != nil {
		return "", fmt.Errorf("make build folder: %w", err)
	}
	bin := filepath.Join(dir, name)
	if err := binary.Build(ctx, pkg, binary.Platform{OS: "linux"}, bin, flags...); err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	return bin, nil
}
