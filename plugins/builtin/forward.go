package builtin

import (
	"fmt"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/etcd"
	"github.com/pgpatrol/pgpatrol/plugins/probe/forward"
)

// Forwarder returns the ways to ask through a forwarder and past it.
func Forwarder(t probe.ForwarderTarget) (probe.ForwarderProbes, error) {
	through, err := hop(t.Listen, t)
	if err != nil {
		return probe.ForwarderProbes{}, fmt.Errorf("listen: %w", err)
	}
	past, err := hop(t.To, t)
	if err != nil {
		return probe.ForwarderProbes{}, fmt.Errorf("to: %w", err)
	}
	return probe.ForwarderProbes{Through: through, Past: past}, nil
}

// hop returns the way to ask one end of a forwarder.
func hop(address string, t probe.ForwarderTarget) (probe.Prober[probe.Hop], error) {
	member := etcd.Config{URL: "http://" + address}
	if t.TLS != nil {
		member.URL = "https://" + address
	}
	switch t.Protocol {
	case probe.ProtocolEtcd:
		return etcd.NewWho(member, etcd.Deps{TLS: t.TLS})
	case probe.ProtocolEtcdPeer:
		return etcd.NewPeer(member, etcd.Deps{TLS: t.TLS})
	default:
		return forward.NewHop(forward.Config{Address: address, Protocol: t.Protocol}, forward.Deps{TLS: t.TLS})
	}
}
