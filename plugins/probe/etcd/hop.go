package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var (
	_ probe.Prober[probe.Hop] = (*Who)(nil)
	_ probe.Prober[probe.Hop] = (*Peer)(nil)
)

// Who asks which member answers at a client URL. That alone tells a forwarder that leads to the right member from one
// that leads to another, or to none (FAULTS.md L25).
type Who struct{ endpoint *probe.Endpoint }

// NewWho returns a prober for who answers at a client URL.
func NewWho(c Config, d Deps) (*Who, error) {
	e, err := newEndpoint(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure etcd hop: %w", err)
	}
	return &Who{endpoint: e.Speaking("h2")}, nil
}

// Probe implements probe.Prober. The identity is "cluster/member"; a member that says no has none.
func (w *Who) Probe(ctx context.Context) (probe.Hop, error) {
	m, err := askStatus(ctx, w.endpoint)
	if err != nil {
		return probe.Hop{}, err
	}
	hop := probe.Hop{Outcome: m.Outcome, Detail: m.Detail}
	if m.MemberID != "" {
		hop.Identity = m.ClusterID + "/" + m.MemberID
	}
	return hop, nil
}

// Peer asks whether a member of etcd answers at a peer URL. Which one it is does not say there.
type Peer struct{ endpoint *probe.Endpoint }

// NewPeer returns a prober for a peer URL.
func NewPeer(c Config, d Deps) (*Peer, error) {
	e, err := newEndpoint(c, d)
	if err != nil {
		return nil, fmt.Errorf("configure etcd peer hop: %w", err)
	}
	return &Peer{endpoint: e.Speaking("http/1.1")}, nil
}

// Probe implements probe.Prober.
func (p *Peer) Probe(ctx context.Context) (probe.Hop, error) {
	r, err := p.endpoint.Get(ctx, "/version", maxBody)
	if err != nil {
		return probe.Hop{}, err
	}
	if r.Outcome != probe.OutcomeAnswered {
		return probe.Hop{Outcome: r.Outcome, Detail: r.Detail}, nil
	}
	if err := parseVersion(r.Status, r.Body); err != nil {
		return probe.Hop{Outcome: probe.OutcomeBroken, Detail: "the answer to /version is not etcd's: " + err.Error()}, nil
	}
	return probe.Hop{Outcome: probe.OutcomeAnswered}, nil
}

// parseVersion checks the answer to /version: {"etcdserver":"3.5.16","etcdcluster":"3.5.0"}, and more since 3.6. A
// cluster has no version before its members have met.
func parseVersion(status int, body []byte) error {
	if status != http.StatusOK {
		return errors.New("status " + strconv.Itoa(status))
	}
	fields, err := parseTexts(body)
	if err != nil {
		return err
	}
	server, cluster := fields["etcdserver"], fields["etcdcluster"]
	if !versionForm.MatchString(server) || (cluster != "not_decided" && !versionForm.MatchString(cluster)) {
		return errors.New("no versions")
	}
	return nil
}
