package patroni

import (
	"context"
	"fmt"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.Liveness] = (*Liveness)(nil)

// Liveness asks whether Patroni's loop runs. It is the only question that Patroni answers without asking PostgreSQL, so
// a slow server does not make it slow (FACTS.md §0.2).
type Liveness struct{ endpoint *probe.Endpoint }

// NewLiveness returns a prober for the loop behind an API.
func NewLiveness(c APIConfig, d APIDeps) (*Liveness, error) {
	endpoint, err := newEndpoint(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure liveness probe: %w", err)
	}
	return &Liveness{endpoint: endpoint}, nil
}

// Probe implements probe.Prober. The status alone is the answer.
func (l *Liveness) Probe(ctx context.Context) (probe.Liveness, error) {
	a, err := l.endpoint.Get(ctx, "/liveness", 0)
	if err != nil {
		return probe.Liveness{}, err
	}
	return probe.Liveness{Outcome: a.Outcome, Status: a.Status, Detail: a.Detail}, nil
}
