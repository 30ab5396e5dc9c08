package builtin

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/docker"
	"github.com/pgpatrol/pgpatrol/plugins/service/launchd"
	"github.com/pgpatrol/pgpatrol/plugins/service/openrc"
	"github.com/pgpatrol/pgpatrol/plugins/service/procd"
	"github.com/pgpatrol/pgpatrol/plugins/service/systemd"
)

// ManagerConfig is what a manager of this machine's services has to be told.
type ManagerConfig struct {
	DockerHost   string // unix:///path or http://host:port of a filtering proxy; empty: the socket is looked for
	IncusSocket  string
	IncusProject string
	Logger       *slog.Logger
}

// Manager returns the service manager of that name. It connects to nothing yet. The error wraps errors.ErrUnsupported for a
// name that is not compiled in.
func Manager(name string, c ManagerConfig) (service.Manager, error) {
	switch name {
	case "systemd":
		return systemd.New(systemd.Default(), systemd.Deps{Logger: c.Logger})
	case "docker":
		return dockerManager(c)
	case "openrc":
		return openrc.New(openrc.Default(), openrc.Deps{Logger: c.Logger})
	case "launchd":
		return launchd.New(launchd.Default(), launchd.Deps{Logger: c.Logger})
	case "procd":
		return procd.New(procd.Default(), procd.Deps{Logger: c.Logger})
	case "incus":
		return incusManager(c)
	}
	return nil, fmt.Errorf("set up service manager %q: %w", name, errors.ErrUnsupported)
}

func dockerManager(c ManagerConfig) (service.Manager, error) {
	cfg := docker.Default()
	switch path, unix := strings.CutPrefix(c.DockerHost, "unix://"); {
	case unix:
		cfg.Socket = path
	case c.DockerHost != "":
		cfg = docker.Config{Proxy: c.DockerHost}
	default:
		socket, evidence := docker.Find(docker.Environment{Getenv: os.Getenv, IsSocket: isSocket})
		if socket != "" {
			cfg.Socket = socket
		}
		c.Logger.Info("found the Docker engine", "socket", cfg.Socket, "evidence", evidence)
	}
	if w := cfg.Warning(); w != "" {
		c.Logger.Warn("the way to the Docker engine is not safe", "reason", w)
	}
	return docker.New(cfg, docker.Deps{Logger: c.Logger})
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}
