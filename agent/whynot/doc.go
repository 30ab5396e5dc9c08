// Package whynot explains what does not happen: why no member takes the leader key, and why an action is not taken.
//
// It owns two recomputations. [Failover] goes through Patroni's own rules for the leader race, member by member.
// [Action] asks the real engine and the real guards, and lists what would have to be seen before they act. It promises
// that the same facts give the same answer, and that what pgpatrol cannot see is said to be unknown instead of guessed.
// It deliberately predicts nothing: a race is decided by the members themselves, with positions that are newer than
// those in etcd.
package whynot
