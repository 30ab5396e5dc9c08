package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.EtcdMember] = (*Member)(nil)

// DefaultTimeout is how long each answer may take, from the connect on (FAULTS.md F72).
const DefaultTimeout = 2 * time.Second

// Config says where a member is.
type Config struct {
	URL      string        // scheme, host and port: "http://192.168.9.100:2379"
	Timeout  time.Duration // DefaultTimeout if 0
	Username string        // of etcd's authentication, which only Members needs; empty: none
	Quota    bool          // Member looks for the quota among the metrics where the member's Status does not have it
}

// Validate reports every reason why this cannot be the address of a member.
func (c Config) Validate() error {
	_, err := newEndpoint(c, Deps{})
	return err
}

// Deps is what probes of a member need.
type Deps struct {
	TLS      *tls.Config            // for https; nil for the system's roots and no client certificate
	Password func() (string, error) // of the user; nil without one
}

func newEndpoint(c Config, d Deps) (*probe.Endpoint, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	return probe.NewEndpoint(c.URL, c.Timeout, d.TLS)
}

// Member asks one member what it knows of itself, by gRPC and by HTTP at the same time. Each question has a connection
// of its own, so that what is seen is what a client sees that comes now.
type Member struct {
	grpc  *probe.Endpoint
	http  *probe.Endpoint
	quota *quota // nil: not asked for
}

// NewMember returns a prober for the member at a client URL.
func NewMember(c Config, d Deps) (*Member, error) {
	e, err := newEndpoint(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure etcd probe: %w", err)
	}
	m := &Member{grpc: e.Speaking("h2"), http: e.Speaking("http/1.1")}
	if c.Quota {
		m.quota = &quota{http: m.http}
	}
	return m, nil
}

// Probe implements probe.Prober. It is an error if either question could not be asked.
func (m *Member) Probe(ctx context.Context) (probe.EtcdMember, error) {
	var health probe.EtcdMember
	var healthErr error
	var wg sync.WaitGroup
	wg.Go(func() { health, healthErr = askHealth(ctx, m.http) })
	began := time.Now()
	seen, err := askStatus(ctx, m.grpc)
	if seen.Outcome == probe.OutcomeAnswered {
		seen.Took = time.Since(began)
	}
	wg.Wait()
	if err := errors.Join(err, healthErr); err != nil {
		return probe.EtcdMember{}, err
	}
	seen.Health, seen.Healthy, seen.Reason = health.Health, health.Healthy, health.Reason
	if seen.Detail == "" {
		seen.Detail = health.Detail
	}
	switch {
	case m.quota == nil || seen.DBQuota > 0:
	case seen.MemberID == "":
		m.quota.forget()
	default:
		seen.DBQuota = m.quota.of(ctx)
	}
	return seen, nil
}
