package probe

import "context"

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
