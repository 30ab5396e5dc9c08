package main

import (
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// The faults in this file are of what etcd holds, and of agents that look for it, or for Patroni, in the wrong place.
var keyKinds = []kind{
	{"keys-deleted", 1, true, func(w *world, _ *machine, _ fault) {
		if !w.etcd.writable() {
			return
		}
		for _, kv := range w.etcd.under(prefix) {
			w.etcd.remove(kv.Key)
		}
		w.after(10*time.Second, nil, func() { // Patroni's leader writes what it knows
			w.etcd.put(prefix+"initialize", systemID, 0)
			w.setConfig()
		})
	}},
	{"initialize-deleted", 2, false, func(w *world, _ *machine, f fault) {
		w.etcd.remove(prefix + "initialize")
		w.after(f.lasts, nil, func() { w.etcd.put(prefix+"initialize", systemID, 0) })
	}},
	{"config-key-broken", 2, false, func(w *world, _ *machine, f fault) {
		w.etcd.put(prefix+"config", "}", 0)
		w.after(f.lasts, nil, w.setConfig)
	}},
	{"paused-then-config-key-broken", 2, true, func(w *world, _ *machine, f fault) {
		w.setPause(true)
		w.after(time.Duration(f.pick)*10*time.Millisecond, nil, func() { w.etcd.put(prefix+"config", "}", 0) })
		w.after(f.lasts, nil, func() { w.setPause(false) })
	}},
	{"leader-key-unintelligible", 2, false, func(w *world, _ *machine, f fault) {
		w.spell(&w.garbled, f.lasts)
		w.etcd.remember(prefix + "leader")
		w.after(f.lasts, nil, func() { w.etcd.remember(prefix + "leader") })
	}},
	{"other-etcd", 2, false, func(w *world, m *machine, f fault) { w.spell(&m.otherEtcd, f.lasts) }},
	{"wrong-namespace", 2, false, func(w *world, m *machine, f fault) { w.spell(&m.wrongPlace, f.lasts) }},
	{"wrong-member", 2, false, func(w *world, m *machine, f fault) {
		a := m.agent
		a.member, a.memberSince = w.machines[f.pick%len(w.machines)].name, w.now
		if f.pick%3 == 0 {
			a.member = "nobody"
		}
		w.after(f.lasts, nil, func() { a.member = m.name })
	}},
	{"other-patroni-answers", 2, false, func(w *world, m *machine, f fault) { w.spell(&m.otherAPI, f.lasts) }},
}

// setConfig writes the dynamic configuration as Patroni knows it.
func (w *world) setConfig() {
	text := "pause false"
	if w.paused {
		text = "pause true"
	}
	w.etcd.put(prefix+"config", text, 0)
}

// dynamic is the dynamic configuration as its key says it.
func (w *world) dynamic() node.DynamicConfig {
	text := w.etcd.value(prefix + "config")
	if text == "" || text == "}" {
		return node.DefaultDynamicConfig()
	}
	return node.DynamicConfig{
		Present: true, TTL: w.timing.TTL, LoopWait: w.timing.LoopWait, RetryTimeout: w.timing.RetryTimeout,
		PrimaryStartTimeout: 300 * time.Second, MaximumLagOnFailover: maximumLag, Pause: w.paused,
	}
}

// mistaken is what an agent takes Patroni's keys for that looks for them in the wrong place.
func (m *machine) mistaken(c node.Cluster) node.Cluster {
	if m.otherEtcd.on() {
		c.Initialize = "7499999999999999999"
	}
	if m.wrongPlace.on() {
		return node.Cluster{Scope: c.Scope, Revision: c.Revision, ClusterID: c.ClusterID, Empty: true, Config: node.DefaultDynamicConfig()}
	}
	return c
}
