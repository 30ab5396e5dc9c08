// Command sim runs the real decision core, executor and coordination of several agents against models of Patroni,
// PostgreSQL, systemd and etcd, in simulated time and under random faults, and checks after every act what must hold
// (FAULTS.md §2). A seed gives one trace.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
