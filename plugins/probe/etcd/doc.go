// Package etcd looks at one member of etcd from outside: at what it says of itself ([Member]), at who answers at an
// address, for the ends of a forwarder ([Who], [Peer]), and at the members that its cluster has ([Members]).
//
// It owns the reading of etcd's answers, of 3.4 to 3.7. It promises to ask only what changes nothing and, but for the list
// of members, needs no other member (a Status answers without a quorum), to follow no redirect and no proxy, to believe no text that does not keep
// to a grammar (FAULTS.md T2), and to take every answer of the member for a sign of life, also "permission denied". It
// deliberately does not say who should have answered: whoever knows the cluster compares identities.
package etcd
