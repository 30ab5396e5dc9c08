// Command sim runs the real decision core, executor and coordination of several agents against models of Patroni,
// PostgreSQL, systemd and etcd, in simulated time and under random faults, and checks after every act what must hold
// (FAULTS.md §2). A seed gives one trace.
package main

import (
	"os"
	"runtime/debug"
)

func main() {
	debug.SetGCPercent(4000) // what lives is a few worlds, and all the rest is garbage: a third of the time went to collecting it
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
