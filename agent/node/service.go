package node

import (
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// Kind is what a service is.
type Kind string

// Kinds of services. The zero value in an action or in an older record means KindPatroni.
const (
	KindPatroni   Kind = "patroni"
	KindEtcd      Kind = "etcd"
	KindForwarder Kind = "forwarder"
	KindHAProxy   Kind = "haproxy" // leads clients to the members of the cluster
	KindGeneric   Kind = "generic"
	// KindMachine is a virtual machine, or an engine in one, that other services of this machine run in (colima): the last
	// hop of what is behind a forwarder.
	KindMachine Kind = "machine"
)

// Kinds returns every kind.
func Kinds() []Kind {
	return []Kind{KindPatroni, KindEtcd, KindForwarder, KindHAProxy, KindGeneric, KindMachine}
}

// Verbs returns the verbs that may be used on services of this kind. A restart of Patroni would stop PostgreSQL, and what a
// restart of anything else than those below would heal is not known.
func (k Kind) Verbs() []Verb {
	switch k {
	case KindPatroni:
		return []Verb{SoftKill, StartFailed}
	case KindEtcd, KindForwarder, KindMachine:
		return []Verb{StartFailed, Restart}
	case KindGeneric, KindHAProxy:
	}
	return []Verb{StartFailed}
}

// ServiceSpec is a service of this machine that is not a Patroni.
type ServiceSpec struct {
	Service string `json:"service"` // name in the configuration
	Kind    Kind   `json:"kind"`
	Unit    string `json:"unit"`    // what its manager calls it
	Manager string `json:"manager"` // systemd, docker, openrc, ...
	Policy  Policy `json:"policy"`  // the node's policy with the service's own on top
	// Identity is who must answer behind a forwarder, or which member of etcd this is, as "cluster/member" in hexadecimal;
	// empty: any member of the cluster that answered first.
	Identity string `json:"identity,omitempty"`
	// Behind are the services of this machine that a forwarder's backend consists of, nearest first.
	Behind []string `json:"behind,omitempty"`
}

// Stranger reports whether an identity is not the one that must answer: the configured one, or without it one of the same
// cluster as the one that is known from before. A member that was replaced is another one of the same cluster.
func (s ServiceSpec) Stranger(known, seen string) bool {
	switch {
	case seen == "":
		return false
	case s.Identity != "":
		return seen != s.Identity
	}
	is, _, _ := strings.Cut(seen, "/")
	was, _, _ := strings.Cut(known, "/")
	return known != "" && is != was
}

// ServiceFacts are the facts about one service that is not a Patroni.
type ServiceFacts struct {
	Service string                 `json:"service"`
	Unit    Fact[service.Status]   `json:"unit"`
	Limits  Fact[string]           `json:"limits,omitzero"`  // what its manager does not let this agent do, "" if nothing
	Polled  time.Duration          `json:"polled,omitempty"` // how often its manager is looked at for changes, 0: it tells of them
	Process Fact[probe.Process]    `json:"process,omitzero"` // where this machine's process table shows it
	Member  Fact[probe.EtcdMember] `json:"member,omitzero"`  // kind etcd: the member on this machine
	Others  []Peer                 `json:"others,omitempty"` // kind etcd: the other members
	Through Fact[probe.Hop]        `json:"through,omitzero"` // kind forwarder: asked through it
	Past    Fact[probe.Hop]        `json:"past,omitzero"`    // kind forwarder: asked at the end that it forwards to
	Check   Fact[probe.Check]      `json:"check,omitzero"`   // kinds haproxy, generic and machine
}

// Peer is another member of etcd as this machine reaches it.
type Peer struct {
	URL    string                 `json:"url"`
	Member Fact[probe.EtcdMember] `json:"member"`
}
