// Package image builds the lab's container images and says under which names they are found: the node, for everything of
// the stack, a machine that OpenRC runs, and a machine that runs Incus.
//
// The tag is a hash of the recipe, so an image is built once and any change to the recipe makes a new one. The
// package never removes an image. Where no registry can be reached it makes the base itself with mmdebstrap.
package image

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/docker"
)

//go:embed Dockerfile
var node string

//go:embed Dockerfile.openrc
var openrc string

//go:embed Dockerfile.incus
var incus string

const base = "debian:trixie-slim"

// Tag returns the name under which the node's image is stored.
func Tag() string { return tagOf("node", node) }

func tagOf(name, recipe string) string {
	sum := sha256.Sum256([]byte(recipe))
	return "pgpatrol-lab-" + name + ":" + hex.EncodeToString(sum[:6])
}

// Ensure builds the node's image where it is not present and returns its tag.
func Ensure(ctx context.Context, d docker.Client, log *slog.Logger) (string, error) {
	return ensure(ctx, d, log, "node", node)
}

// EnsureOpenRC does the same for the machine that OpenRC runs.
func EnsureOpenRC(ctx context.Context, d docker.Client, log *slog.Logger) (string, error) {
	return ensure(ctx, d, log, "openrc", openrc)
}

// EnsureIncus does the same for the machine that runs Incus.
func EnsureIncus(ctx context.Context, d docker.Client, log *slog.Logger) (string, error) {
	return ensure(ctx, d, log, "incus", incus)
}

func ensure(ctx context.Context, d docker.Client, log *slog.Logger, name, recipe string) (string, error) {
	tag := tagOf(name, recipe)
	if present(ctx, d, tag) {
		return tag, nil
	}
	if err := ensureBase(ctx, d, log); err != nil {
		return "", fmt.Errorf("provide %s: %w", base, err)
	}
	log.Info("build an image (once; up to two minutes)", "tag", tag)
	began := time.Now()
	// DOCKER_BUILDKIT is left alone: the recipe needs nothing of it, and engines without buildx have only the old builder.
	if _, err := d.Input(ctx, strings.NewReader(recipe), "build", "-t", tag, "-"); err != nil {
		return "", fmt.Errorf("build image %s: %w", tag, err)
	}
	log.Info("image built", "tag", tag, "duration", time.Since(began).Round(time.Second))
	return tag, nil
}

func present(ctx context.Context, d docker.Client, tag string) bool {
	_, err := d.Output(ctx, "image", "inspect", "--format", "{{.Id}}", tag)
	return err == nil
}

func ensureBase(ctx context.Context, d docker.Client, log *slog.Logger) error {
	if present(ctx, d, base) {
		return nil
	}
	log.Info("pull the base image", "image", base)
	pull, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err := d.Output(pull, "pull", "-q", base)
	if err == nil {
		return nil
	}
	log.Warn("base image cannot be pulled, making it from Debian packages instead", "err", err)
	return bootstrap(ctx, d, log)
}

// bootstrap makes a minimal trixie and imports it under the name that the registry would have given it, so that
// one recipe serves both cases.
func bootstrap(ctx context.Context, d docker.Client, log *slog.Logger) error {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		if err := installMmdebstrap(ctx, log); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "pgpatrol-lab-base-")
	if err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	tar := filepath.Join(dir, "base.tar")
	if err := command(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "trixie", tar); err != nil {
		return err
	}
	if _, err := d.Output(ctx, "import", tar, base); err != nil {
		return fmt.Errorf("import base image: %w", err)
	}
	return nil
}

func installMmdebstrap(ctx context.Context, log *slog.Logger) error {
	_, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("no registry, and mmdebstrap is missing: install it (Debian, Ubuntu: apt-get install mmdebstrap) or provide %s", base)
	}
	log.Info("install mmdebstrap with apt-get")
	if err := command(ctx, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	return command(ctx, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap", "debian-archive-keyring")
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		text := strings.TrimSpace(string(out))
		if len(text) > 600 {
			text = "..." + text[len(text)-600:]
		}
		return fmt.Errorf("run %s: %w: %s", name, err, text)
	}
	return nil
}
