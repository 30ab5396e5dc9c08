package patroni

import (
	"crypto/tls"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// DefaultTimeout is how long an answer of the API may take.
const DefaultTimeout = 1500 * time.Millisecond

// APIConfig says where the API is.
type APIConfig struct {
	URL     string        // scheme, host and port: "http://10.100.2.5:8008"
	Timeout time.Duration // DefaultTimeout if 0
}

// Validate reports every reason why this cannot be the address of an API.
func (c APIConfig) Validate() error {
	_, err := newEndpoint(c, APIDeps{})
	return err
}

// APIDeps is what probes of the API need.
type APIDeps struct {
	TLS *tls.Config // for https; nil for the system's roots and no client certificate
}

func newEndpoint(c APIConfig, d APIDeps) (*probe.Endpoint, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	return probe.NewEndpoint(c.URL, c.Timeout, d.TLS)
}
