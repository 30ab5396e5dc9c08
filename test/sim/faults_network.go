package main

import "time"

// The faults in this file are of the network and of etcd's members. They last, and overlap.
var networkKinds = []kind{
	{"etcd-member-killed", 2, true, func(w *world, _ *machine, f fault) { w.downFor(f, w.etcd.members[f.pick%etcdMembers]) }},
	{"etcd-leader-killed", 2, true, func(w *world, _ *machine, f fault) {
		if l := w.etcd.leader; l != nil {
			w.downFor(f, l)
		}
	}},
	{"etcd-without-quorum", 2, true, func(w *world, _ *machine, f fault) {
		w.downFor(f, w.etcd.members[f.pick%etcdMembers], w.etcd.members[(f.pick+1)%etcdMembers])
	}},
	{"etcd-leader-hung", 2, true, func(w *world, _ *machine, f fault) {
		if l := w.etcd.leader; l != nil {
			w.during(f.lasts, func(by int) { l.hung += by })
		}
	}},
	{"etcd-leader-cut-from-members", 1, true, func(w *world, _ *machine, f fault) {
		l := w.etcd.leader
		if l == nil {
			return
		}
		w.during(f.lasts, func(by int) {
			for _, o := range w.etcd.members {
				if o != l {
					w.net.part(l.host, o.host, by)
				}
			}
		})
	}},
	{"cut-from-etcd", 2, true, func(w *world, m *machine, f fault) {
		w.during(f.lasts, func(by int) { w.partEtcd(m, by) })
	}},
	{"cut-from-etcd-member", 1, true, func(w *world, m *machine, f fault) {
		w.during(f.lasts, func(by int) { w.net.part(m.host, w.etcd.members[f.pick%etcdMembers].host, by) })
	}},
	{"cut-from-peers", 1, true, func(w *world, m *machine, f fault) {
		w.during(f.lasts, func(by int) { w.partPeers(m, by) })
	}},
	{"isolated", 2, true, func(w *world, m *machine, f fault) {
		w.during(f.lasts, func(by int) {
			w.partEtcd(m, by)
			w.partPeers(m, by)
			w.net.part(m.host, w.proxy.host, by)
		})
	}},
	{"cut-one-way", 2, true, func(w *world, m *machine, f fault) {
		o := host(f.pick % w.net.hosts)
		w.during(f.lasts, func(by int) {
			if f.pick%2 == 0 {
				w.net.cut(m.host, o, by)
			} else {
				w.net.cut(o, m.host, by)
			}
		})
	}},
	{"cut-from-proxy", 1, true, func(w *world, m *machine, f fault) {
		w.during(f.lasts, func(by int) { w.net.part(m.host, w.proxy.host, by) })
	}},
	{"slow-network", 2, false, func(w *world, m *machine, f fault) {
		delay, loss := time.Duration(f.pick%450)*time.Millisecond/2, float64(f.pick%7)*0.05
		w.during(f.lasts, func(by int) {
			for o := range host(w.net.hosts) {
				for _, l := range []*link{w.net.link(m.host, o), w.net.link(o, m.host)} {
					l.delay += time.Duration(by) * delay
					l.loss = max(0, min(0.5, l.loss+float64(by)*loss))
				}
			}
		})
	}},
	{"watch-stalled", 1, false, func(w *world, m *machine, f fault) {
		m.deaf = true
		w.after(f.lasts, nil, func() { m.deaf = false })
	}},
}

// during changes something of network or etcd by 1, and by -1 when that time is over.
func (w *world) during(lasts time.Duration, change func(by int)) {
	set := func(by int) {
		w.changed()
		change(by)
		w.etcd.settle()
	}
	set(1)
	w.after(lasts, nil, func() { set(-1) })
}

func (w *world) downFor(f fault, members ...*etcdMember) {
	w.during(f.lasts, func(by int) {
		for _, m := range members {
			m.down += by
		}
	})
}

func (w *world) partEtcd(m *machine, by int) {
	for _, e := range w.etcd.members {
		w.net.part(m.host, e.host, by)
	}
}

func (w *world) partPeers(m *machine, by int) {
	for _, o := range w.machines {
		if o != m {
			w.net.part(m.host, o.host, by)
		}
	}
}
