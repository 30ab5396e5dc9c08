package decision

import (
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// TestDecide_Services tells engine and guards together what happens to services other than Patroni, and wants the second at
// which an action is allowed, or the guards that refuse it to the end.
func TestDecide_Services(t *testing.T) {
	silent := nodetest.EtcdSilent()
	unknown := nodetest.WithOther(1, func(m *node.Fact[probe.EtcdMember]) { *m = node.Unseen[probe.EtcdMember]("etcd", "no route", m.At) })
	paused := nodetest.WithCluster(func(c *node.Cluster) { c.Config.Pause = true })
	mute := nodetest.Through(probe.OutcomeTimeout)
	stranger := nodetest.Of(nodetest.Etcd, func(f *node.ServiceFacts) { f.Member.Value.MemberID = "m9" })
	const never = -1
	for _, tt := range []struct {
		name    string
		seconds int
		tell    func(sec int) []nodetest.Change
		allowed int    // second, or never
		refused string // by these guards in the end
	}{
		{"nothing happens", 60, func(int) []nodetest.Change { return nil }, never, ""},
		{"F38 etcd crashed", 5, func(int) []nodetest.Change { return []nodetest.Change{nodetest.Crashed(nodetest.Etcd, "signal")} }, 0, ""},
		{"F39 etcd hangs", 40, func(int) []nodetest.Change { return []nodetest.Change{silent} }, 30, ""},
		{"F39 etcd hangs, another member is unknown", 60, func(int) []nodetest.Change { return []nodetest.Change{silent, unknown} }, never, "freshness redundancy"},
		{"F39 etcd hangs, another member is silent", 60, func(int) []nodetest.Change { return []nodetest.Change{silent, nodetest.OtherSilent(0)} }, never, "redundancy"},
		{"F39 etcd hangs, Patroni is paused", 40, func(int) []nodetest.Change { return []nodetest.Change{silent, paused} }, 30, ""},
		{"F39 a person paused the container", 60, func(int) []nodetest.Change {
			return []nodetest.Change{silent, nodetest.UnitOf(nodetest.Etcd, func(u *service.Status) { u.Job = "pause" })}
		}, never, "operator-job-running"},
		{"F40 no quorum, etcd crashed", 5, func(int) []nodetest.Change {
			return []nodetest.Change{nodetest.Crashed(nodetest.Etcd, "signal"), nodetest.OtherSilent(0), nodetest.OtherSilent(1), nodetest.Blind()}
		}, 0, ""},
		{"F39 etcd hangs, and there is no view of etcd", 60, func(int) []nodetest.Change { return []nodetest.Change{silent, nodetest.Blind()} }, never, "no-dcs dcs-writable cluster-lock cluster-budget"},
		{"S20 a stranger answered, and is silent", 60, func(i int) []nodetest.Change {
			if i < 3 {
				return []nodetest.Change{stranger}
			}
			return []nodetest.Change{silent}
		}, never, "identity"},
		{"F72 the forwarder hangs", 5, func(int) []nodetest.Change { return []nodetest.Change{mute} }, 2, ""},
		{"F72 the forwarder hangs, no etcd", 5, func(int) []nodetest.Change { return []nodetest.Change{mute, nodetest.Blind()} }, 2, ""},
		{"F73 what is behind it is dead", 60, func(int) []nodetest.Change { return []nodetest.Change{mute, nodetest.Past(probe.OutcomeRefused)} }, never, ""},
		{"F79 it hangs, after its fourth start", 60, func(i int) []nodetest.Change {
			run := nodetest.UnitOf(nodetest.Forwarder, func(u *service.Status) { u.InvocationID = "run" + string(rune('a'+min(i, 4))) })
			if i < 4 {
				return []nodetest.Change{run}
			}
			return []nodetest.Change{run, mute}
		}, never, "flap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := nodetest.Memory(time.Hour)
			refused := ""
			for i := -10; i < tt.seconds; i++ {
				var changes []nodetest.Change
				if i >= 0 {
					changes = tt.tell(i)
				}
				changes = append(changes, func(s *node.Snapshot) {
					if s.DCS.Cluster.Known {
						nodetest.Confirmed()(s)
					}
				})
				a := Decide(node.Question{Spec: nodetest.Services(node.ModeAuto), Memory: mem, Snapshot: nodetest.SnapServices(time.Hour+time.Duration(i)*time.Second, changes...)})
				mem = a.Memory
				if a.Broken != "" {
					t.Fatal(a.Broken)
				}
				refused = guards(a.Plan)
				if len(a.Plan.Allowed) == 0 {
					continue
				}
				if i != tt.allowed || len(a.Plan.Allowed) > 1 {
					t.Fatalf("allowed at %d s, want %d: %s", i, tt.allowed, a.Plan.Summary)
				}
				return
			}
			if tt.allowed != never || refused != tt.refused {
				t.Errorf("not allowed, refused by %q, want %q", refused, tt.refused)
			}
		})
	}
}

// guards names the guards that refuse something.
func guards(p node.Plan) string {
	var out []string
	for _, r := range p.Refused {
		for _, v := range r.Verdicts {
			out = append(out, string(v.Guard))
		}
	}
	return strings.Join(out, " ")
}
