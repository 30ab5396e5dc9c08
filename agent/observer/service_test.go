package observer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// said is a subject that says what it is told, and counts how often it was asked.
type said[T any] struct {
	mu    sync.Mutex // guards the rest
	value T
	err   error
	asked int
}

// Probe implements probe.Prober.
func (s *said[T]) Probe(context.Context) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.value, s.err
}

func (s *said[T]) say(v T, err error) { s.value, s.err = v, err }

// times returns how often it was asked since the last call.
func (s *said[T]) times() int {
	n := s.asked
	s.asked = 0
	return n
}

// clock is the time since boot, as the test moves it.
type clock struct{ at node.Instant }

func (c *clock) now() node.Instant { return c.at }

func (c *clock) sleep(d time.Duration) { c.at = c.at.Add(d) }

func (c *clock) look(t *testing.T, one *target, d Depth) node.ServiceFacts {
	t.Helper()
	one.observe(t.Context(), d, c.now)
	return one.snapshot()
}

func started() *clock { return &clock{at: node.Instant(time.Hour)} }

// running is a fake manager that runs one unit.
func running(t *testing.T) (*servicetest.Fake, string) {
	t.Helper()
	f := servicetest.NewFake()
	unit := f.Install(t, servicetest.Service{})
	if err := f.Start(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	return f, unit
}

func member(id string) probe.EtcdMember {
	return probe.EtcdMember{Outcome: probe.OutcomeAnswered, Health: probe.OutcomeAnswered, Healthy: true, ClusterID: "c1", MemberID: id, LeaderID: "a2"}
}

func refused() probe.EtcdMember {
	return probe.EtcdMember{Outcome: probe.OutcomeRefused, Health: probe.OutcomeRefused}
}

func lists(by string, ids ...string) probe.EtcdMembers {
	return probe.EtcdMembers{Outcome: probe.OutcomeAnswered, ClusterID: "c1", MemberID: by, IDs: ids}
}

// etcdBench is a member of etcd with two others, as the observer sees them.
type etcdBench struct {
	*clock
	fake   *servicetest.Fake
	one    *target
	me     *said[probe.EtcdMember]
	others [2]*said[probe.EtcdMember]
	lists  [2]*said[probe.EtcdMembers]
}

func newEtcdBench(t *testing.T) *etcdBench {
	f, unit := running(t)
	b := &etcdBench{clock: started(), fake: f, me: &said[probe.EtcdMember]{value: member("a1")}}
	s := Service{Spec: node.ServiceSpec{Service: "etcd", Kind: node.KindEtcd, Unit: unit, Manager: "fake"}, Units: f, PeerURLs: []string{"http://two", "http://three"}}
	s.Etcd.Member = b.me
	for i, id := range []string{"a2", "a3"} {
		b.others[i] = &said[probe.EtcdMember]{value: member(id)}
		b.lists[i] = &said[probe.EtcdMembers]{value: lists(id, "a1", "a2", "a3")}
		s.Etcd.Others = append(s.Etcd.Others, b.others[i])
		s.Etcd.Lists = append(s.Etcd.Lists, b.lists[i])
	}
	b.one = newTarget(s)
	return b
}

// TestEtcd_MembersAreAskedForWhenOneIsMissing: FAULTS.md F56. Nobody is asked for the list of members while the one of this
// machine answers; while it does not, everybody is who answers, and what they say counts only if they are who they were.
func TestEtcd_MembersAreAskedForWhenOneIsMissing(t *testing.T) {
	b := newEtcdBench(t)
	b.look(t, b.one, Routine) // nothing is known yet, so the first look asks
	b.lists[0].times()
	b.lists[1].times()
	for range 20 {
		b.sleep(2 * time.Second)
		b.look(t, b.one, Alert)
	}
	if n := b.lists[0].times() + b.lists[1].times(); n != 0 {
		t.Errorf("the list was asked for %d times while the member here answers", n)
	}

	b.me.say(refused(), nil)
	b.others[1].say(refused(), nil)
	b.lists[0].say(lists("a2", "a2", "a3"), nil)
	b.sleep(10 * time.Second)
	b.look(t, b.one, Confirm)
	f := b.look(t, b.one, Confirm)
	if n, m := b.lists[0].times(), b.lists[1].times(); n != 1 || m != 0 {
		t.Errorf("asked %d times the one that answers, and %d times the one that does not", n, m)
	}
	want := member("a2")
	want.Members = []string{"a2", "a3"}
	if diff := cmp.Diff(want, f.Others[0].Member.Value); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	alone := member("a2")
	alone.LeaderID, alone.Healthy = "", false
	b.others[0].say(alone, nil)
	if b.look(t, b.one, Confirm); b.lists[0].times() != 0 {
		t.Error("one that has no leader was asked for the list")
	}
	b.others[0].say(member("a2"), nil)

	for name, c := range map[string]struct {
		list   probe.EtcdMembers
		err    error
		detail string
	}{
		"another cluster": {probe.EtcdMembers{Outcome: probe.OutcomeAnswered, ClusterID: "c2", MemberID: "a2", IDs: []string{"a2"}}, nil, ""},
		"another member":  {lists("a3", "a2", "a3"), nil, ""},
		"no quorum":       {probe.EtcdMembers{Outcome: probe.OutcomeAnswered, Detail: "Unavailable: no leader"}, nil, "its list of members: Unavailable: no leader"},
		"no way":          {probe.EtcdMembers{}, errors.New("no route to host"), "its list of members: no route to host"},
	} {
		b.lists[0].say(c.list, c.err)
		if got := b.look(t, b.one, Confirm).Others[0].Member; len(got.Value.Members) > 0 || got.Value.Detail != c.detail || !got.Known {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestEtcd_MembersAreAskedForBeforeAStart: FAULTS.md F56, found in the lab. A member that was removed ends at once: its last
// answer, and the lists of the others, are older than that when its manager tells of its end.
func TestEtcd_MembersAreAskedForBeforeAStart(t *testing.T) {
	b := newEtcdBench(t)
	b.look(t, b.one, Routine)
	b.sleep(10 * time.Second)
	b.look(t, b.one, Routine)
	b.lists[0].times()

	b.fake.Crash(t, b.one.Spec.Unit)
	b.lists[0].say(lists("a2", "a2", "a3"), nil)
	b.sleep(time.Second)
	(&Observer{targets: []*target{b.one}}).TouchUnits()
	if f := b.look(t, b.one, Routine); f.Unit.Value.State != service.StateFailed || f.Member.Value.Outcome != probe.OutcomeAnswered {
		t.Fatalf("the end was told by its manager alone: %+v", f)
	}
	f := b.look(t, b.one, Confirm)
	if n := b.lists[0].times(); n != 1 || !cmp.Equal(f.Others[0].Member.Value.Members, []string{"a2", "a3"}) {
		t.Errorf("before the start the list was asked for %d times: %v", n, f.Others[0].Member.Value.Members)
	}
}

// TestEtcd_OthersAreAskedLess: the other members are everybody's, so a healthy machine asks them less often.
func TestEtcd_OthersAreAskedLess(t *testing.T) {
	b := newEtcdBench(t)
	for range 30 {
		b.look(t, b.one, Routine)
		b.sleep(2 * time.Second)
	}
	if me, other := b.me.times(), b.others[0].times(); me > 10 || other > 8 || other < 6 {
		t.Errorf("in a minute the one here was asked %d times, another %d times", me, other)
	}
}

// TestForwarder_BothEndsAtOnce: what comes through is compared with what answers past it, so both are asked together.
func TestForwarder_BothEndsAtOnce(t *testing.T) {
	f, unit := running(t)
	c, hop := started(), probe.Hop{Outcome: probe.OutcomeAnswered, Identity: "c1/a1"}
	through, past := &said[probe.Hop]{value: hop}, &said[probe.Hop]{value: hop}
	one := newTarget(Service{
		Spec: node.ServiceSpec{Service: "socat", Kind: node.KindForwarder, Unit: unit, Manager: "fake"}, Units: f,
		Forwarder: probe.ForwarderProbes{Through: through, Past: past},
	})
	got := c.look(t, one, Routine)
	if !got.Unit.Known || got.Unit.Value.State != service.StateRunning || got.Through.Value != hop || got.Past.Value != hop {
		t.Fatalf("%+v", got)
	}
	through.say(probe.Hop{Outcome: probe.OutcomeTimeout}, nil)
	past.say(probe.Hop{}, errors.New("no route to host"))
	c.sleep(6 * time.Second)
	got = c.look(t, one, Routine)
	if got.Through.At != c.at || got.Past.At == c.at || got.Past.Value != hop || got.Past.Why != "no route to host" {
		t.Errorf("an end that could not be asked: %+v", got.Past)
	}
}

// TestGeneric_CheckAndUnit follows one service through a crash and a manager that is gone.
func TestGeneric_CheckAndUnit(t *testing.T) {
	f, unit := running(t)
	c, check := started(), &said[probe.Check]{value: probe.Check{Outcome: probe.OutcomeAnswered, OK: true}}
	var pids []int
	one := newTarget(Service{
		Spec: node.ServiceSpec{Service: "pooler", Kind: node.KindGeneric, Unit: unit, Manager: "fake"}, Units: f, Check: check,
		Process: func(_ context.Context, pid int) (probe.Process, error) {
			pids = append(pids, pid)
			return probe.Process{Exists: true, PID: pid}, nil
		},
	})
	got := c.look(t, one, Routine)
	if pid := got.Unit.Value.MainPID; len(pids) != 1 || pid == 0 || got.Process.Value.PID != pid || !got.Check.Value.OK {
		t.Fatalf("%+v, processes %v", got, pids)
	}

	// Nothing is due, until the manager tells of a change.
	f.Crash(t, unit)
	c.sleep(time.Second)
	if got := c.look(t, one, Routine); got.Unit.Value.State != service.StateRunning || check.times() != 1 {
		t.Errorf("looked before its time: %+v", got.Unit)
	}
	(&Observer{targets: []*target{one}}).TouchUnits()
	pids = nil
	if got := c.look(t, one, Routine); got.Unit.Value.State != service.StateFailed || got.Unit.At != c.at || len(pids) > 0 {
		t.Errorf("after the wake-up: %+v, processes %v", got.Unit, pids)
	}

	// The older fact stays with its older time, and says why there is no newer.
	at := c.at
	restore := f.Disconnect(t, false)
	c.sleep(20 * time.Second)
	if got := c.look(t, one, Alert); got.Unit.At != at || got.Unit.Why == "" {
		t.Errorf("with the manager gone: %+v", got.Unit)
	}
	restore()
	if got := c.look(t, one, Alert); got.Unit.At != c.at || got.Unit.Why != "" {
		t.Errorf("with the manager back: %+v", got.Unit)
	}
}

// TestLimits_AreFoundAtStart: issue 4: whatever the agent may not do shows in its first look, not when it matters.
func TestLimits_AreFoundAtStart(t *testing.T) {
	f, unit := running(t)
	c, check := started(), &said[probe.Check]{}
	one := func(m service.Manager) *target {
		return newTarget(Service{Spec: node.ServiceSpec{Service: "pooler", Kind: node.KindGeneric, Unit: unit, Manager: "fake"}, Units: m, Check: check})
	}
	if got := c.look(t, one(f), Routine).Limits; !got.Known || got.Value != "" {
		t.Errorf("with every right: %+v", got)
	}
	if got := c.look(t, one(f.Unprivileged()), Routine).Limits; !got.Known || got.Value == "" {
		t.Errorf("without rights: %+v", got)
	}
	f.Fail(servicetest.MethodLimits, service.ErrUnavailable)
	if got := c.look(t, one(f), Routine).Limits; got.Known || got.Why == "" {
		t.Errorf("a manager that does not say: %+v", got)
	}
}
