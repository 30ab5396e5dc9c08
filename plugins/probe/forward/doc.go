// Package forward looks at one end of a forwarder (socat, a published port) with the protocol that it carries: HTTP,
// PostgreSQL's, or TCP alone.
//
// A connect says "fine" in two of three faults, for the kernel takes it also for a process that is stopped, and a
// forwarder takes it before it finds its backend dead. An answer tells them apart (FAULTS.md L25): refused is a dead
// forwarder, silence a hung one, a connection that ends without an answer a dead backend. It promises to log in nowhere
// and to leave no error in a server's log. It deliberately does not compare the two ends, and does not speak etcd's
// protocols: package etcd does.
package forward
