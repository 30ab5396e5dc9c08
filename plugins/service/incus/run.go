package incus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Run runs a command in an instance to its end, under the contract of [service.Runner.Run]: its user is one of the instance's,
// and its environment is what Incus gives. It cannot survive its context: Incus ends it with the connection.
func (m *Manager) Run(ctx context.Context, instance string, c service.Command) (service.Output, error) {
	out, err := m.run(ctx, instance, c)
	if err != nil {
		return out, fmt.Errorf("run %q in %q: %w", c.Path, instance, err)
	}
	return out, nil
}

func (m *Manager) run(ctx context.Context, instance string, c service.Command) (service.Output, error) {
	if c.Survives || c.Dir != "" {
		return service.Output{}, fmt.Errorf("a command that survives, or in a folder of its own: %w", errors.ErrUnsupported)
	}
	o := execOrder{Command: append([]string{c.Path}, c.Args...), Environment: map[string]string{"LANG": "C.UTF-8"}}
	if c.User != "" {
		o.Command = append([]string{"runuser", "-u", c.User, "--"}, o.Command...)
	}
	for _, e := range c.Env {
		key, value, _ := strings.Cut(e, "=")
		o.Environment[key] = value
	}
	limit := c.Limit
	if limit <= 0 {
		limit = service.DefaultLimit
	}
	s, err := m.exec(ctx, instance, o, limit)
	if err != nil {
		return service.Output{}, err
	}
	defer func() { _ = s.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	var out service.Output
	buf := make([]byte, 32<<10)
	for {
		n, err := s.out.Read(buf)
		kept := min(n, limit-len(out.Stdout))
		out.Stdout = append(out.Stdout, buf[:kept]...)
		out.Dropped += int64(n - kept)
		if err != nil {
			break // how it ended is what the operation says
		}
	}
	body, err := m.get(ctx, "/1.0/operations/"+s.id+"/wait", nil)
	if err != nil {
		return out, err
	}
	op, err := parseOperation(body)
	if err != nil {
		return out, err
	}
	if err := op.failure(); err != nil {
		return out, err
	}
	<-s.drained
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Stderr, out.ExitCode, out.Dropped = s.said, op.exit, out.Dropped+s.dropped
	return out, nil
}

// Process returns the first process of an instance that runs and on which nobody works, as the daemon's machine numbers it.
// Its number is another one in every run of the instance.
func (m *Manager) Process(ctx context.Context, instance string) (int, error) {
	_, st, err := m.look(ctx, instance)
	switch {
	case err != nil:
		return 0, fmt.Errorf("find the first process of %q: %w", instance, err)
	case st.State != service.StateRunning || st.Job != "" || st.MainPID == 0:
		return 0, fmt.Errorf("find the first process of %q: %w: the instance is %s", instance, service.ErrUnavailable, st.Detail)
	}
	return st.MainPID, nil
}
