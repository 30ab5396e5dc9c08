package whynot

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// services asks about a machine of other services that has been seen well for ten seconds, and then so for that many more.
func services(seconds int, changes ...nodetest.Change) node.Question {
	q := node.Question{Spec: nodetest.Services(node.ModeAuto), Memory: nodetest.Memory(time.Hour)}
	for i := range 10 + seconds {
		now := time.Hour + time.Duration(i)*time.Second
		if i < 10 {
			q.Snapshot = nodetest.SnapServices(now)
		} else {
			q.Snapshot = nodetest.SnapServices(now, changes...)
		}
		if i < 9+seconds {
			q.Memory = engine.Step(q).Memory
		}
	}
	return q
}

func TestAction_ServiceNotCalledFor(t *testing.T) {
	a, ok := Action(services(3), node.Restart, nodetest.Etcd)
	if !ok || a.Proposed || a.Action.Class != node.ClassDisrupt || a.Action.Kind != node.KindEtcd {
		t.Fatalf("%+v", a)
	}
	all := strings.Join(seen(t, a, node.EtcdHung), "\n")
	if want := "it answers neither gRPC nor HTTP, seen 3 times over 30s | gRPC answered, /health answered"; all != want {
		t.Errorf("not met:\n%s\nwant\n%s", all, want)
	}
	if !strings.Contains(a.Summary, "not called for") || !strings.Contains(a.Summary, "no guard would refuse it") {
		t.Errorf("summary %q", a.Summary)
	}
}

// TestAction_Machine: FAULTS.md F77. What is asked for a restart of a machine is what the engine asks.
func TestAction_Machine(t *testing.T) {
	hangs := func(s *node.Snapshot) {
		nodetest.EtcdSilent()(s)
		nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Unit.Known = false })(s)
		nodetest.Through(probe.OutcomeBroken)(s)
		nodetest.Past(probe.OutcomeTimeout)(s)
		nodetest.Of("vm", func(f *node.ServiceFacts) { f.Check.Value.OK = false })(s)
	}
	answers := nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member.Value = nodetest.Member(nodetest.EtcdMe) })
	docker := nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Unit.Known = true })
	for name, tt := range map[string]struct {
		seconds int
		changes []nodetest.Change
		want    string // what is missing
	}{
		"it hangs":        {40, []nodetest.Change{hangs}, ""},
		"not for long":    {20, []nodetest.Change{hangs}, "its check fails, seen 3 times over 30s | its check passed: false (seen 20 times over 19s)"},
		"Docker answers":  {40, []nodetest.Change{hangs, docker}, "nothing gets through the forwarders that lead into it, and no hop before it answers, nor its manager | etcd is running"},
		"etcd answers":    {40, []nodetest.Change{hangs, answers}, "nothing gets through the forwarders that lead into it, and no hop before it answers, nor its manager | etcd answers"},
		"it gets through": {40, []nodetest.Change{hangs, nodetest.Past(probe.OutcomeAnswered)}, "nothing gets through the forwarders that lead into it, and no hop before it answers, nor its manager | socat: past it: answered"},
	} {
		t.Run(name, func(t *testing.T) {
			q := node.Question{Memory: nodetest.Memory(time.Hour)}
			for i := range 10 + tt.seconds {
				q.Spec = nodetest.Services(node.ModeAuto)
				q.Spec.Services[1].Behind = []string{nodetest.Etcd, "vm"}
				q.Spec.Services = append(q.Spec.Services, node.ServiceSpec{Service: "vm", Kind: node.KindMachine, Unit: "vm", Policy: q.Spec.Policy})
				changes := []nodetest.Change{func(s *node.Snapshot) {
					s.Services = append(s.Services, node.ServiceFacts{Service: "vm", Unit: node.Seen(nodetest.Run("vm"), "launchd", s.Now), Check: node.Seen(probe.Check{OK: true}, "check", s.Now)})
				}}
				if i >= 10 {
					changes = append(changes, tt.changes...)
				}
				q.Snapshot = nodetest.SnapServices(time.Hour+time.Duration(i)*time.Second, changes...)
				if i < 9+tt.seconds {
					q.Memory = engine.Step(q).Memory
				}
			}
			a, ok := Action(q, node.Restart, "vm")
			if !ok || a.Proposed != (tt.want == "") || a.Action.Class != node.ClassDisrupt {
				t.Fatalf("%+v", a)
			}
			if tt.want != "" && strings.Join(seen(t, a, node.ServiceFails), "\n") != tt.want {
				t.Errorf("missing %q, want %q", seen(t, a, node.ServiceFails), tt.want)
			}
		})
	}
}

func TestAction_ServiceWords(t *testing.T) {
	removed := nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) { m.Value.Members = []string{nodetest.EtcdSecond} })
	newRun := nodetest.UnitOf(nodetest.Etcd, func(u *service.Status) { u.InvocationID = "c" })
	for _, tt := range []struct {
		name    string
		q       node.Question
		verb    node.Verb
		service string
		want    string // among what is not seen, or in the summary
	}{
		{"removed", services(3, nodetest.Crashed(nodetest.Etcd, "signal"), removed), node.StartFailed, nodetest.Etcd, "http://two:2379 does not list m1"},
		{"still starting", services(40, nodetest.EtcdSilent(), newRun), node.Restart, nodetest.Etcd, "may still be starting"},
		{"no quorum", services(40, nodetest.EtcdSilent(), nodetest.OtherSilent(0), nodetest.OtherSilent(1)), node.Restart, nodetest.Etcd, "none is seen to have one"},
		{"masked", services(3, nodetest.Crashed(nodetest.Generic, "signal"), nodetest.UnitOf(nodetest.Generic, func(u *service.Status) { u.Masked = true })), node.StartFailed, nodetest.Generic, "it is masked"},
		{"backend dead", services(9, nodetest.Through(probe.OutcomeBroken), nodetest.Past(probe.OutcomeRefused)), node.Restart, nodetest.Forwarder, "past it: refused"},
		{"a restart of a generic service", services(3), node.Restart, nodetest.Generic, "restart of proxy is never done"},
		{"a soft-kill of etcd", services(3), node.SoftKill, nodetest.Etcd, "What heals a service of kind etcd that does nothing is restart"},
		{"refused", services(40, nodetest.EtcdSilent(), nodetest.OtherSilent(1)), node.Restart, nodetest.Etcd, "would heal ETCD_HUNG, and is refused by redundancy"},
	} {
		a, ok := Action(tt.q, tt.verb, tt.service)
		text := a.Summary
		for _, p := range a.Paths {
			for _, c := range p.Conditions {
				if !c.Met {
					text += "\n" + c.Need + " | " + c.Seen
				}
			}
		}
		if !ok || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %q lacks %q", tt.name, text, tt.want)
		}
	}
}

func TestFitting_Services(t *testing.T) {
	for _, tt := range []struct {
		q       node.Question
		service string
		want    node.Verb
	}{
		{services(3), nodetest.Etcd, node.Restart},
		{services(3), nodetest.Forwarder, node.Restart},
		{services(3), nodetest.Generic, node.StartFailed},
		{services(3, nodetest.Crashed(nodetest.Etcd, "signal")), nodetest.Etcd, node.StartFailed},
		{services(3, nodetest.Crashed(nodetest.Forwarder, "signal"), nodetest.UnitOf(nodetest.Forwarder, func(u *service.Status) { u.Masked = true })), nodetest.Forwarder, node.StartFailed},
	} {
		if got := Fitting(tt.q, tt.service); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.service, got, tt.want)
		}
	}
}

// serviceChanges are the ways in which the snapshots of the property below differ.
func serviceChanges() map[string]nodetest.Change {
	out := map[string]nodetest.Change{
		"etcd silent": nodetest.EtcdSilent(), "second silent": nodetest.OtherSilent(0), "third silent": nodetest.OtherSilent(1),
		"etcd stopped by a signal": nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Process.Value.State = "T" }),
		"removed":                  nodetest.WithOther(0, func(m *node.Fact[probe.EtcdMember]) { m.Value.Members = []string{nodetest.EtcdSecond} }),
		"another answers": nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) {
			if f.Member.Value.MemberID != "" {
				f.Member.Value.MemberID = "m9"
			}
		}),
		"through timeout": nodetest.Through(probe.OutcomeTimeout), "through refused": nodetest.Through(probe.OutcomeRefused),
		"past refused":   nodetest.Past(probe.OutcomeRefused),
		"past unknown":   nodetest.Of(nodetest.Forwarder, func(f *node.ServiceFacts) { f.Past = node.Fact[probe.Hop]{} }),
		"member unknown": nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member = node.Fact[probe.EtcdMember]{} }),
	}
	for _, name := range []string{nodetest.Etcd, nodetest.Forwarder, nodetest.Generic} {
		out[name+" crashed"] = nodetest.Crashed(name, "signal")
		out[name+" masked"] = nodetest.UnitOf(name, func(u *service.Status) { u.Masked = true })
		out[name+" stops"] = nodetest.UnitOf(name, func(u *service.Status) { u.State = service.StateStopping })
		out[name+" unknown"] = nodetest.Of(name, func(f *node.ServiceFacts) { f.Unit = node.Fact[service.Status]{} })
		out[name+" new run"] = nodetest.UnitOf(name, func(u *service.Status) { u.InvocationID, u.MainPID = "c", 700 })
	}
	return out
}

// What is shown as the way to an action on a service of another kind is the engine's own, too.
func TestPaths_OfServicesAgreeWithTheEngine(t *testing.T) {
	all := serviceChanges()
	var names []string
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	rapid.Check(t, func(rt *rapid.T) {
		w := serviceWatch{t: rt, now: time.Hour, mem: nodetest.Memory(time.Hour), all: all, proposed: map[node.Code]int{}}
		for range rapid.IntRange(1, 6).Draw(rt, "phases") {
			picked := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 4, rapid.ID[string]).Draw(rt, "changes")
			for range rapid.IntRange(1, 12).Draw(rt, "looks") {
				w.look(rapid.SampledFrom([]int{600, 1000, 4000, 60000}).Draw(rt, "pause"), picked...)
			}
		}
	})
}

// Every finding about such a service that calls for an action does so in one of these, on every step of the way there.
func TestPaths_OfServicesLeadToEveryAction(t *testing.T) {
	for code, picked := range map[node.Code][]string{
		node.EtcdCrashed: {"etcd crashed"}, node.EtcdHung: {"etcd silent"}, node.ForwarderHung: {"through timeout"},
		node.ForwarderDead: {"through refused"}, node.ServiceCrashed: {"proxy crashed"},
	} {
		w := serviceWatch{t: t, now: time.Hour, mem: nodetest.Memory(time.Hour), all: serviceChanges(), proposed: map[node.Code]int{}}
		for range 5 {
			w.look(1000)
		}
		for range 35 {
			w.look(1000, picked...)
		}
		if w.proposed[code] == 0 {
			t.Errorf("%s never called for anything: %v", code, w.proposed)
		}
	}
}

// serviceWatch looks at one machine of other services again and again.
type serviceWatch struct {
	t        rapid.TB
	now      time.Duration
	mem      node.Memory
	all      map[string]nodetest.Change
	proposed map[node.Code]int
}

func (w *serviceWatch) look(ms int, picked ...string) {
	w.now += time.Duration(ms) * time.Millisecond
	s := nodetest.SnapServices(w.now)
	for _, n := range picked {
		w.all[n](&s)
	}
	q := node.Question{Spec: nodetest.Services(node.ModeAuto), Memory: w.mem, Snapshot: s}
	out := engine.Step(q)
	for _, spec := range q.Spec.Services {
		agree(w.t, q, out, spec.Service, spec.Kind, w.proposed)
	}
	w.mem = out.Memory
}
