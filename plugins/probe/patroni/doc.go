// Package patroni looks at one Patroni from outside: at its HTTP API ([Liveness], [API]), at its configuration file
// through Patroni's own validator ([ConfigCheck]), and at what its log says of the data directory ([LogMark]).
//
// It owns the reading of Patroni's answers and texts, of 4.0 and 4.1. It promises to ask only what changes nothing, to
// follow no redirect and no proxy, to believe no text that does not keep to a grammar (FAULTS.md T2), and to let no
// secret of the configuration file out. It deliberately does not decide whether Patroni hangs: a silent API alone proves
// nothing (FACTS.md §2.6).
package patroni
