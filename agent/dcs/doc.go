// Package dcs is pgpatrol's view of etcd: Patroni's keys of one scope as typed values, how long leases have left, what
// etcd says of itself, and pgpatrol's own keys: orders of people, the lock and the budget of a cluster.
//
// It owns [ParseCluster], the strict grammar of every key that Patroni writes, and [View], which keeps a scope's keys
// current and answers "what is known now, and since when".
//
// It promises:
//
//   - Every fact rests on a linearizable read (a lease's time left on the lease holder's answer) and carries the moment
//     at which that read began. Serializable reads are never used: a member without a quorum answers them with the past
//     (FAULTS.md F48, L26).
//   - A failure makes facts older, never different. A key that a read could not see is not a deleted key, and a
//     compacted or interrupted watch invents no deletions (F45).
//   - An etcd that is another cluster, or whose raft term or revision went backwards, is not believed (F47, F58). One
//     that was rebuilt on purpose is believed after a restart of the agent.
//   - Nothing that is read can crash it or reach a log unchecked: values are bounded, control characters and broken JSON
//     become a node.KeyProblem that does not repeat them.
//   - It writes below /pgpatrol/ and nowhere else, and only what package coordinator asks for, besides one lease that it
//     grants and revokes to learn whether etcd accepts writes.
//   - A cluster that struggles is not made to struggle more: one connection to one endpoint at a time, every request
//     under a deadline, reconnects with backoff.
//
// It deliberately does not decide anything, keep a history, write Patroni's keys, or follow the Citus
// groups of a scope.
//
// # How the view is kept current
//
//	    connect                                  stalled, cut, compacted, no leader, refused
//	       |                 +-------------------------------------------------------------------+
//	       v                 v                                                                   |
//	linearizable list --> watch from the next revision --> events wake, progress proves life ----+
//	       ^                                                                  backoff 0.5 s .. 10 s
//	       |
//	Observe: leader key every 2 s proves the view current; a difference, or no live watch, lists everything
//
// A watch alone is not enough: it is not linearizable, may stall without an error, and cannot see that a lease is not
// renewed (FACTS.md §7.1, FAULTS.md L31, F46).
//
// # What is left to clientv3, and what is not
//
// Every request, every watch, and every token is clientv3's. A client is given one endpoint, since its balancer would
// send every third read to a member that hangs; when an endpoint does not do, the client is closed and the next endpoint
// gets one. Three habits of the library are switched off, because each of them hides a failure that this package must
// see: calls wait for a connection until their deadline, requests are repeated a hundred times, and a broken watch is
// mended silently, ten times a second and with a new token each time.
package dcs
