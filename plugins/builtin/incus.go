package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/incus"
	"github.com/pgpatrol/pgpatrol/plugins/service/systemd"
)

// bridge is systemd's own way from a pipe to the bus of the machine that it runs on.
const bridge = "systemd-stdio-bridge"

func incusManager(c ManagerConfig) (service.Manager, error) {
	inside := func(manager string, dial incus.Dial) (service.Manager, error) {
		if manager != "systemd" {
			return nil, fmt.Errorf("set up service manager %q inside an instance: %w", manager, errors.ErrUnsupported)
		}
		return systemd.New(systemd.Default(), systemd.Deps{Logger: c.Logger, Dial: func(ctx context.Context) (net.Conn, error) {
			return dial(ctx, []string{bridge})
		}})
	}
	return incus.New(incus.Config{Socket: c.IncusSocket, Project: c.IncusProject}, incus.Deps{Logger: c.Logger, Inside: inside})
}
