package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

const vm = "colima"

// chained is the machine of nodetest.Services with a chain: the forwarder leads to the member of etcd, in a machine.
func chained(sec int, changes ...nodetest.Change) node.Question {
	q := servicesAt(node.Memory{}, sec)
	q.Spec.Services[1].Behind = []string{nodetest.Etcd, vm}
	q.Spec.Services = append(q.Spec.Services, node.ServiceSpec{Service: vm, Kind: node.KindMachine, Unit: vm, Manager: "launchd", Policy: q.Spec.Policy})
	at := q.Snapshot.Now
	q.Snapshot.Services = append(q.Snapshot.Services, node.ServiceFacts{
		Service: vm, Unit: node.Seen(nodetest.Run(vm), "launchd", at), Check: node.Seen(probe.Check{Outcome: probe.OutcomeAnswered, OK: true}, "check", at),
	})
	for _, c := range changes {
		c(&q.Snapshot)
	}
	return q
}

func runChain(seconds int, changes ...nodetest.Change) ran {
	r := ran{mem: nodetest.Memory(start)}
	for i := -10; i < seconds; i++ {
		var now []nodetest.Change
		if i >= 0 {
			now = changes
		}
		q := chained(i, now...)
		q.Memory = r.mem
		out := Step(q)
		if r.mem = out.Memory; i >= 0 {
			r.outputs = append(r.outputs, out)
		}
	}
	return r
}

func checkFails() nodetest.Change {
	return nodetest.Of(vm, func(f *node.ServiceFacts) { f.Check.Value = probe.Check{Outcome: probe.OutcomeTimeout} })
}

// stuck is a machine that hangs with all that is in it: Docker does not answer, and nothing gets through.
func stuck() nodetest.Change {
	return func(s *node.Snapshot) {
		unitUnknown(nodetest.Etcd)(s)
		nodetest.EtcdSilent()(s)
		nodetest.Through(probe.OutcomeBroken)(s)
		nodetest.Past(probe.OutcomeTimeout)(s)
		checkFails()(s)
	}
}

// unitKnown is a manager that answers again, and whose unit runs.
func unitKnown(name string) nodetest.Change {
	return nodetest.Of(name, func(f *node.ServiceFacts) { f.Unit = node.Seen(nodetest.Run(name), "docker", f.Member.At) })
}

// TestChain_MachineIsLast: FAULTS.md F77. The machine is restarted when its own check fails and everything in it is out of
// sight, and for nothing less; nothing else is touched meanwhile.
func TestChain_MachineIsLast(t *testing.T) {
	never := when{-1, -1}
	for _, tt := range []struct {
		name    string
		changes []nodetest.Change
		act     when
	}{
		{"the machine hangs", []nodetest.Change{stuck()}, when{30, 30}},
		{"Docker answers, and the container is stopped", []nodetest.Change{stuck(), unitKnown(nodetest.Etcd), stoppedBy(nodetest.Etcd, func(*service.Status) {})}, never},
		{"Docker answers, and the container runs", []nodetest.Change{stuck(), unitKnown(nodetest.Etcd)}, never},
		{"the member answers past Docker", []nodetest.Change{stuck(), nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member.Value = nodetest.Member(nodetest.EtcdMe) })}, never},
		{"something gets through", []nodetest.Change{stuck(), nodetest.Past(probe.OutcomeAnswered)}, never},
		{"nothing is known of what gets through", []nodetest.Change{stuck(), nodetest.Of(nodetest.Forwarder, func(f *node.ServiceFacts) { f.Past = node.Fact[probe.Hop]{} })}, never},
		{"its check passes", []nodetest.Change{stuck(), nodetest.Of(vm, func(f *node.ServiceFacts) { f.Check.Value.OK = true })}, never},
		{"its check is unknown", []nodetest.Change{stuck(), nodetest.Of(vm, func(f *node.ServiceFacts) { f.Check = node.Fact[probe.Check]{} })}, never},
		{"only its check fails", []nodetest.Change{checkFails()}, never},
		{"its manager does not answer", []nodetest.Change{stuck(), unitUnknown(vm)}, never},
		{"a person stopped it", []nodetest.Change{stuck(), stoppedBy(vm, func(*service.Status) {})}, never},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := -1
			for i, o := range runChain(60, tt.changes...).outputs {
				for _, a := range o.Actions {
					if a.Service != vm {
						continue
					}
					if first < 0 {
						first = i
					}
					if a.Verb != node.Restart || a.Class != node.ClassDisrupt || a.Settle != 120*time.Second || len(o.Actions) > 1 {
						t.Fatalf("at %d s: %+v", i, o.Actions)
					}
				}
			}
			if first < tt.act.from || first > tt.act.to {
				t.Errorf("first proposed at %d s, want %v", first, tt.act)
			}
		})
	}
	if got := runChain(60, nodetest.Crashed(vm, "signal")).firstAction(node.StartFailed); got != 0 {
		t.Errorf("a machine that crashed is started at %d s", got)
	}
	q := servicesAt(node.Memory{}, 0) // a machine that no forwarder leads into
	q.Spec.Services = append(q.Spec.Services, node.ServiceSpec{Service: vm, Kind: node.KindMachine, Unit: vm})
	one, _ := newStep(q).glance(q.Spec.Services[0])
	one.spec = q.Spec.Services[3]
	if one.allBehindLost() {
		t.Error("lost, with nothing behind it")
	}
}

// TestChain_FirstBrokenHop: the finding about what is behind a forwarder names the first broken hop, from the foundation on.
func TestChain_FirstBrokenHop(t *testing.T) {
	dead := func(s *node.Snapshot) {
		nodetest.Through(probe.OutcomeBroken)(s)
		nodetest.Past(probe.OutcomeRefused)(s)
	}
	for name, tt := range map[string]struct {
		change nodetest.Change
		want   string
	}{
		"the machine hangs":      {stuck(), "The first broken hop is colima: it runs and does not answer."},
		"the machine is stopped": {stoppedBy(vm, func(*service.Status) {}), "The first broken hop is colima: colima is stopped."},
		"the container crashed":  {nodetest.Crashed(nodetest.Etcd, "signal"), "The first broken hop is etcd: etcd is failed."},
		"the member hangs":       {nodetest.EtcdSilent(), "The first broken hop is etcd: it runs and does not answer."},
		"the published port":     {func(*node.Snapshot) {}, "Everything behind it works by itself: the first broken hop is the address that it forwards to."},
		"Docker is gone": {func(s *node.Snapshot) {
			unitUnknown(nodetest.Etcd)(s)
			nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member = node.Fact[probe.EtcdMember]{} })(s)
		}, "No hop is known to be broken, and nothing is known of etcd."},
	} {
		t.Run(name, func(t *testing.T) {
			f := runChain(8, dead, tt.change).finding(t, node.ForwarderBroken)
			if !strings.HasSuffix(f.Text, tt.want) {
				t.Errorf("%q, want %q", f.Text, tt.want)
			}
		})
	}
}
