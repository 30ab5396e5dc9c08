package builtin

import (
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/patroni"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
	"github.com/pgpatrol/pgpatrol/plugins/proxy/haproxy"
)

// Proxy returns the way to speak with the HAProxy that has this runtime socket.
func Proxy(socket string) (proxy.Proxy, error) { return haproxy.New(socket) }

// Leader returns what asks Patroni's API at the address that its member's key names.
func Leader(url string) (probe.Prober[probe.PatroniAPI], error) {
	return patroni.NewAPI(patroni.APIConfig{URL: url}, patroni.APIDeps{})
}
