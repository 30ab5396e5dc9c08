// Package binary builds programs of this module for the lab.
//
// It promises static, stripped binaries for any platform and leaves no file behind that its caller did not ask for. It
// deliberately does not cache: Go's own build cache does.
package binary

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Platform is what a binary is built for.
type Platform struct {
	OS   string
	Arch string // empty for that of this machine
	ARM  string // GOARM, empty for the default
}

func (p Platform) String() string {
	switch {
	case p.Arch == "":
		return p.OS
	case p.ARM != "":
		return p.OS + "/" + p.Arch + "v" + p.ARM
	default:
		return p.OS + "/" + p.Arch
	}
}

func (p Platform) env() []string {
	env := []string{"CGO_ENABLED=0", "GOOS=" + p.OS}
	if p.Arch != "" {
		env = append(env, "GOARCH="+p.Arch)
	}
	if p.ARM != "" {
		env = append(env, "GOARM="+p.ARM)
	}
	return env
}

// Root returns the folder of this module, from wherever inside it the lab was started.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err != nil || mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("find the module (run the lab inside its checkout): %w", err)
	}
	return filepath.Dir(mod), nil
}

// Build writes the static, stripped program of a package of this module ("./cmd/pgpatrol") to the given path.
func Build(ctx context.Context, pkg string, p Platform, path string, flags ...string) error {
	root, err := Root(ctx)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), p.env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w: %s", pkg, p, err, strings.TrimSpace(string(out)))
	}
	return nil
}
