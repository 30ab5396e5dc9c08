package stack

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// AgentNodes lists the nodes that an agent runs on.
func (s *Stack) AgentNodes() []Node { return append(s.Of(Postgres), s.Proxy()) }

// StopAgents stops the agents that are installed. Nodes without one are left alone.
func (s *Stack) StopAgents(ctx context.Context) error {
	return s.eachAgent(ctx, "stop", `[ ! -e /etc/pgpatrol/pgpatrol.yaml ] || systemctl stop pgpatrol.service`)
}

func (s *Stack) eachAgent(ctx context.Context, verb, script string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.AgentNodes() {
		g.Go(func() error {
			if _, err := s.Exec(ctx, n, script); err != nil {
				return fmt.Errorf("%s agent on %s: %w", verb, n.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
