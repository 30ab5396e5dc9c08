package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

var _ probe.Prober[probe.Hop] = (*Hop)(nil)

// DefaultTimeout is how long an answer may take, from the connect on (FAULTS.md F72).
const DefaultTimeout = 2 * time.Second

// Config says where one end of a forwarder is and what it speaks.
type Config struct {
	Address  string // host:port
	Protocol probe.Protocol
	Timeout  time.Duration // DefaultTimeout if 0
}

// Validate reports every reason why this cannot be asked.
func (c Config) Validate() error {
	_, err := NewHop(c, Deps{})
	return err
}

// Deps is what a Hop needs.
type Deps struct {
	TLS *tls.Config // nil: plain. PostgreSQL negotiates TLS on its own and takes none
}

// Hop asks one end of a forwarder, over a connection of its own.
type Hop struct {
	endpoint *probe.Endpoint
	protocol probe.Protocol
}

// NewHop returns a prober for one end.
func NewHop(c Config, d Deps) (*Hop, error) {
	var errs []error
	if !slices.Contains([]probe.Protocol{probe.ProtocolHTTP, probe.ProtocolPostgres, probe.ProtocolTCP}, c.Protocol) {
		errs = append(errs, fmt.Errorf("protocol %q is not spoken here", c.Protocol))
	}
	if c.Protocol == probe.ProtocolPostgres && d.TLS != nil {
		errs = append(errs, errors.New("PostgreSQL negotiates TLS on its own"))
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	scheme := "http://"
	if d.TLS != nil {
		scheme = "https://"
	}
	e, err := probe.NewEndpoint(scheme+c.Address, c.Timeout, d.TLS)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("configure hop: %w", err)
	}
	if c.Protocol == probe.ProtocolHTTP {
		e = e.Speaking("http/1.1")
	}
	return &Hop{endpoint: e, protocol: c.Protocol}, nil
}

// Probe implements probe.Prober. None of these protocols says who answers.
func (h *Hop) Probe(ctx context.Context) (probe.Hop, error) {
	if h.protocol == probe.ProtocolHTTP {
		r, err := h.endpoint.Get(ctx, "/", 0)
		return probe.Hop{Outcome: r.Outcome, Detail: r.Detail}, err
	}
	talk := connect
	if h.protocol == probe.ProtocolPostgres {
		talk = postgres
	}
	outcome, detail, err := h.endpoint.Ask(ctx, talk)
	return probe.Hop{Outcome: outcome, Detail: detail}, err
}

// connect is content with the connection.
func connect(context.Context, net.Conn) error { return nil }

// sslRequest asks whether the server speaks TLS: a length of 8, and 80877103, a number that is no version.
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// postgres asks PostgreSQL, or a pooler, whether it speaks TLS. That is before any login, and every answer will do, also
// an error that there is no room.
func postgres(ctx context.Context, conn net.Conn) error {
	if _, err := io.WriteString(conn, sslRequest); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		leave(ctx, conn)
	case 'N', 'E':
	default:
		return probe.NonsenseError("the answer is not PostgreSQL's")
	}
	return nil
}

// leave lets a server that expects TLS have it before the connection ends: without, it logs "could not accept SSL
// connection" each time. Who it is does not matter, and neither does whether it works: the server has answered.
func leave(ctx context.Context, conn net.Conn) {
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if secure.HandshakeContext(ctx) == nil {
		_ = secure.Close()
	}
}
