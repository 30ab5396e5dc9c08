package probe

import (
	"context"
	"crypto/tls"
)

// PatroniTarget says where one Patroni of this machine is to be looked at.
type PatroniTarget struct {
	API        string                 // base URL of its REST API
	DataDir    string                 // PGDATA
	ConfigFile string                 // Patroni's configuration file
	Executable string                 // Patroni's program; empty: found on the usual paths
	LogFile    string                 // Patroni's own log file; empty: it logs to the system journal
	Unit       string                 // unit whose processes and log are Patroni's
	DSN        string                 // how to open a SQL session; empty: not at all
	Password   func() (string, error) // password for the session; nil: none
}

// PatroniProbes are the ways to look at one Patroni. Session is nil without a DSN.
type PatroniProbes struct {
	Liveness Prober[Liveness]
	API      Prober[PatroniAPI]
	Files    Prober[Postgres]
	Session  Prober[Session]
	Machine  Prober[Machine]
	Config   Prober[ConfigCheck]
	LogMark  Prober[LogMark]
	Process  func(ctx context.Context, pid int) (Process, error)
	ConfigID func() (string, error) // changes when the configuration file changes; cheap
}

// EtcdTarget says where the member of etcd of this machine is to be looked at, and the others.
type EtcdTarget struct {
	URL      string                 // of the member on this machine
	Others   []string               // of the other members, as this machine reaches them
	TLS      *tls.Config            // nil: plain
	Username string                 // of etcd's own authentication; empty: none
	Password func() (string, error) // of that user; nil without one
}

// EtcdProbes are the ways to look at one member and its peers. Others and Lists, which asks the others for the members of
// their cluster, are in the order of the target.
type EtcdProbes struct {
	Member Prober[EtcdMember]
	Others []Prober[EtcdMember]
	Lists  []Prober[EtcdMembers]
}

// Protocol is what a forwarder carries: how its ends are asked.
type Protocol string

// Protocols.
const (
	ProtocolEtcd     Protocol = "etcd"      // Status by gRPC: cluster and member identify the end
	ProtocolEtcdPeer Protocol = "etcd-peer" // GET /version of the peer port
	ProtocolHTTP     Protocol = "http"      // any answer to GET / is one
	ProtocolPostgres Protocol = "postgres"  // the server's answer to an SSLRequest
	ProtocolTCP      Protocol = "tcp"       // a connect, which proves little (FAULTS.md L25)
)

// Protocols returns every protocol.
func Protocols() []Protocol {
	return []Protocol{ProtocolEtcd, ProtocolEtcdPeer, ProtocolHTTP, ProtocolPostgres, ProtocolTCP}
}

// ForwarderTarget says where both ends of a forwarder are.
type ForwarderTarget struct {
	Listen   string // host:port that it listens on
	To       string // host:port that it forwards to
	Protocol Protocol
	TLS      *tls.Config // nil: plain
}

// ForwarderProbes ask through the forwarder, and past it.
type ForwarderProbes struct {
	Through Prober[Hop]
	Past    Prober[Hop]
}

// CheckTarget says how a service shows that it does what it is for. Exactly one field is set.
type CheckTarget struct {
	TCP     string   // host:port that takes a connection
	HTTP    string   // URL that answers with a status below 400
	Command []string // program and arguments that end with exit code 0; no shell
}
