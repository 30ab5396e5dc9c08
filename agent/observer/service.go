package observer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// How old facts about services other than Patroni may become, by depth. They stay below what the engine accepts (10 s).
// Asking the other members of etcd is everybody's load, so it is done less often.
var (
	everyCheck  = [...]time.Duration{Routine: 5 * time.Second, Alert: 0, Confirm: 0}
	everyPeer   = [...]time.Duration{Routine: 7 * time.Second, Alert: 3 * time.Second, Confirm: 0}
	everyLimits = 10 * time.Minute
)

// checkTimeout is how long a service may take to show that it works: FAULTS.md F72 budgets two seconds.
const checkTimeout = 2 * time.Second

// Service is where the facts about one service come from that is not a Patroni. Only the probes of its kind are set.
type Service struct {
	Spec      node.ServiceSpec
	Units     service.Manager
	Process   func(ctx context.Context, pid int) (probe.Process, error) // nil: its processes are not this machine's
	Etcd      probe.EtcdProbes
	PeerURLs  []string // of Etcd.Others, for the facts' source
	Forwarder probe.ForwarderProbes
	Check     probe.Prober[probe.Check]
}

// target keeps the facts about one such service.
type target struct {
	Service

	mu      sync.Mutex // guards the rest
	facts   node.ServiceFacts
	unitDue bool
}

func newTarget(s Service) *target {
	t := &target{Service: s, facts: node.ServiceFacts{Service: s.Spec.Service}}
	if p, ok := s.Units.(service.Polled); ok {
		t.facts.Polled = p.Every()
	}
	for _, url := range s.PeerURLs {
		t.facts.Others = append(t.facts.Others, node.Peer{URL: url})
	}
	return t
}

// snapshot returns a copy: what was handed out never changes.
func (t *target) snapshot() node.ServiceFacts {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.facts
	f.Others = append([]node.Peer(nil), t.facts.Others...)
	return f
}

// observe looks at what is due, at the same time where nothing depends on each other.
func (t *target) observe(ctx context.Context, depth Depth, now func() node.Instant) {
	f := t.snapshot()
	t.mu.Lock()
	due := t.unitDue
	t.unitDue = false
	t.mu.Unlock()
	var wg sync.WaitGroup
	missing := missing(f)
	wg.Go(func() { t.observeUnit(ctx, &f, due || stale(f.Unit, now(), everyUnit[depth]), now) })
	switch t.Spec.Kind {
	case node.KindEtcd:
		t.observeEtcd(ctx, &wg, &f, depth, missing, now)
	case node.KindForwarder:
		if at := now(); stale(f.Through, at, everyCheck[depth]) {
			wg.Go(func() { f.Through = look(ctx, f.Through, t.Forwarder.Through, checkTimeout, "through it", at) })
			wg.Go(func() { f.Past = look(ctx, f.Past, t.Forwarder.Past, checkTimeout, "past it", at) })
		}
	case node.KindHAProxy, node.KindGeneric, node.KindMachine, node.KindPatroni:
		if at := now(); stale(f.Check, at, everyCheck[depth]) {
			wg.Go(func() { f.Check = look(ctx, f.Check, t.Check, checkTimeout, "its check", at) })
		}
	}
	wg.Wait()
	t.mu.Lock()
	t.facts = f
	t.mu.Unlock()
}

// observeUnit asks the manager, looks at the process where there is one here, and now and then at what the manager would
// refuse.
func (t *target) observeUnit(ctx context.Context, f *node.ServiceFacts, due bool, now func() node.Instant) {
	if at := now(); due {
		c, cancel := context.WithTimeout(ctx, unitTimeout)
		st, err := t.Units.Status(c, t.Spec.Unit)
		cancel()
		f.Unit = update(f.Unit, st, err, t.Spec.Manager, at)
	}
	if pid := f.Unit.Value.MainPID; t.Process != nil && f.Unit.Known && pid != 0 {
		at := now()
		c, cancel := context.WithTimeout(ctx, unitTimeout)
		v, err := t.Process(c, pid)
		cancel()
		f.Process = update(f.Process, v, err, "process table", at)
	}
	f.Limits = limits(ctx, f.Limits, t.Units, t.Spec.Unit, t.Spec.Manager, now())
}

// limits asks now and then what a manager would refuse.
func limits(ctx context.Context, old node.Fact[string], m service.Manager, unit, source string, at node.Instant) node.Fact[string] {
	limited, ok := m.(service.Limited)
	if !ok || !stale(old, at, everyLimits) {
		return old
	}
	c, cancel := context.WithTimeout(ctx, unitTimeout)
	defer cancel()
	err := limited.Limits(c, unit)
	switch {
	case err == nil:
		return node.Seen("", source, at)
	case errors.Is(err, service.ErrPermission):
		return node.Seen(err.Error(), source, at)
	}
	return node.Unseen[string](source, err.Error(), at)
}

// missing reports whether the member of this machine was not seen to run and answer: the others are asked then whether it is
// one of theirs. Its last answer may be older than its end, and it must not be started on the word of a list that is older
// than its removal (FAULTS.md F56).
func missing(f node.ServiceFacts) bool {
	return !f.Member.Known || f.Member.Value.Outcome != probe.OutcomeAnswered || f.Unit.Known && f.Unit.Value.State != service.StateRunning
}

// observeEtcd asks the member of this machine and the others. While the one here is missing, the others are also asked
// which members there are: one that an operator has removed ends by itself, and is not to be started (FAULTS.md F56). While
// it answers it is a member, and nobody is bothered; and nobody is who has no leader, because no list can be had there.
func (t *target) observeEtcd(ctx context.Context, wg *sync.WaitGroup, f *node.ServiceFacts, depth Depth, missing bool, now func() node.Instant) {
	if at := now(); stale(f.Member, at, everyCheck[depth]) {
		wg.Go(func() { f.Member = look(ctx, f.Member, t.Etcd.Member, checkTimeout, "this member", at) })
	}
	for i := range f.Others {
		o := &f.Others[i]
		if at := now(); stale(o.Member, at, everyPeer[depth]) {
			wg.Go(func() {
				o.Member = look(ctx, o.Member, t.Etcd.Others[i], checkTimeout, o.URL, at)
				if missing && o.Member.At == at && o.Member.Value.Serves() {
					o.Member.Value = withMembers(ctx, o.Member.Value, t.Etcd.Lists[i])
				}
			})
		}
	}
}

// withMembers adds the members that a peer lists, if it says so as the member of the cluster that it has just said it is.
func withMembers(ctx context.Context, m probe.EtcdMember, list probe.Prober[probe.EtcdMembers]) probe.EtcdMember {
	c, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	got, err := list.Probe(c)
	switch {
	case err != nil:
		m.Detail = "its list of members: " + err.Error()
	case len(got.IDs) == 0:
		m.Detail = "its list of members: " + got.Detail
	case got.ClusterID == m.ClusterID && got.MemberID == m.MemberID:
		m.Members = got.IDs
	}
	return m
}
