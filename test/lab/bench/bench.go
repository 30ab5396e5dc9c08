// Package bench measures what agents cost a stack that is healthy and idle: memory and CPU of the agents, the work they
// give to others (etcd, systemd, the bus, Patroni), the growth of the journal, and the size of the binary.
//
// Every figure is a difference between two looks at the kernel's or etcd's own counters, taken without agents and then
// with them; nothing is asked of the agent itself. The package makes a stack of its own and removes it.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/binary"
	"github.com/pgpatrol/pgpatrol/test/lab/session"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// Bounds that the product promises. A megabyte is 10^6 bytes.
const (
	MaxResident = 30_000_000 // bytes, of each agent
	MaxCPU      = 0.5        // per cent of one core, of each agent with the programs that it runs
	MaxBinary   = 25_000_000 // bytes, stripped, for each platform
)

// platforms are what the product claims to build for.
func platforms() []binary.Platform {
	return []binary.Platform{
		{OS: "linux", Arch: "amd64"},
		{OS: "linux", Arch: "arm64"},
		{OS: "linux", Arch: "arm", ARM: "7"},
		{OS: "darwin", Arch: "arm64"},
	}
}

// Config says what is measured for how long.
type Config struct {
	Stack  string
	WarmUp time.Duration // between the start of the agents and the measurement
	Window time.Duration // that is measured
	Keep   bool          // leave the stack up
	JSON   bool
	Log    *slog.Logger
}

// Run measures and prints. It returns an error where a bound is exceeded.
func Run(ctx context.Context, w io.Writer, c Config) error {
	if err := session.Ready(ctx); err != nil {
		return err
	}
	release, err := session.Claim(c.Stack)
	if err != nil {
		return err
	}
	defer release()
	r, err := measure(ctx, c)
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	} else {
		r.print(w)
	}
	if over := r.over(); len(over) > 0 {
		return errors.Join(err, fmt.Errorf("over the bounds: %s", strings.Join(over, "; ")))
	}
	return err
}

func measure(ctx context.Context, c Config) (r Report, err error) {
	dir, removeDir, err := session.Temp(c.Stack)
	if err != nil {
		return r, err
	}
	defer removeDir()
	if r.Binaries, err = sizes(ctx, c.Log, dir); err != nil {
		return r, err
	}
	s := stack.New(c.Stack, c.Log)
	defer func() {
		if !c.Keep || err != nil {
			err = errors.Join(err, session.Remove(ctx, s))
		}
	}()
	if err := s.Up(ctx, stack.AllTimings()[0]); err != nil {
		return r, err
	}
	r.Window = c.Window
	c.Log.Info("let the stack come to rest", "for", c.WarmUp)
	if err := sleep(ctx, c.WarmUp); err != nil {
		return r, err
	}
	c.Log.Info("measure without agents", "for", c.Window)
	if r.without, err = look(ctx, s, c.Window); err != nil {
		return r, err
	}
	agent := filepath.Join(dir, "agent")
	if err := binary.Build(ctx, "./cmd/pgpatrol", binary.Platform{OS: "linux"}, agent); err != nil {
		return r, err
	}
	if err := s.InstallAgents(ctx, stack.AgentOptions{Binary: agent}); err != nil {
		return r, err
	}
	c.Log.Info("let the agents warm up", "for", c.WarmUp)
	if err := sleep(ctx, c.WarmUp); err != nil {
		return r, err
	}
	c.Log.Info("measure with agents", "for", c.Window)
	if r.with, err = look(ctx, s, c.Window); err != nil {
		return r, err
	}
	r.fill()
	return r, nil
}

// sizes builds the agent for every platform and returns the sizes in bytes.
func sizes(ctx context.Context, log *slog.Logger, dir string) ([]Binary, error) {
	var out []Binary
	for _, p := range platforms() {
		log.Info("build", "platform", p)
		path := filepath.Join(dir, "pgpatrol")
		if err := binary.Build(ctx, "./cmd/pgpatrol", p, path); err != nil {
			return nil, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("look at binary: %w", err)
		}
		out = append(out, Binary{p.String(), info.Size()})
	}
	return out, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
