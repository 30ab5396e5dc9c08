package scenario

import (
	"slices"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/gate"
	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

// onHomelab is a minute in which etcd on the NAS dies at +2 s and lives again from +5 s on, where it does; another member
// is well all the time.
func onHomelab(back bool) Evidence {
	e := Evidence{Fault: start, Homelab: true, Agents: true}
	e.Window.From, e.Window.To = start, start.Add(time.Minute)
	e.Records = append(e.Records, record.Record{At: start.Add(2 * time.Second), Node: "lab", Mark: &record.Mark{Name: markBroken}})
	for i := range 61 {
		at := start.Add(time.Duration(i) * time.Second)
		nas := record.Unit{Name: string(etcdNAS), ActiveState: "active", InvocationID: "1"}
		member := record.Etcd{Name: string(etcdNAS), Answered: true, Healthy: true, Index: uint64(100 + i)}
		switch {
		case i >= 2 && (i < 5 || !back):
			nas.ActiveState, member = "exited", record.Etcd{Name: string(etcdNAS)}
		case i >= 5:
			nas.InvocationID = "2"
			member.Healthy = i >= 8
		}
		e.Records = append(
			e.Records,
			record.Record{At: at, Node: "engine", Unit: &nas}, record.Record{At: at, Node: "engine", Etcd: &member},
			record.Record{At: at, Node: "engine", Unit: &record.Unit{Name: string(etcdMBP), ActiveState: "active", InvocationID: "1"}},
			record.Record{At: at, Node: "mbp", Etcd: &record.Etcd{Name: string(etcdMBP), Answered: true, Healthy: true, Index: uint64(100 + i)}},
			record.Record{At: at, Node: "engine", Memory: &record.Memory{Name: "nas", Resident: 20 << 20, Anonymous: 6 << 20, Peak: 23 << 20}})
	}
	return e
}

func TestHomelabChecks(t *testing.T) {
	healed, dead := onHomelab(true), onHomelab(false)
	twice := onHomelab(true).with(record.Record{At: start.Add(50 * time.Second), Node: "engine", Unit: &record.Unit{Name: string(etcdNAS), ActiveState: "active", InvocationID: "3"}})
	behind := onHomelab(true)
	behind.Records[len(behind.Records)-4].Etcd.Index = 90
	// quiet is e after a witness fell silent: no word of anybody after +40 s but those of managers, or none of anybody.
	quiet := func(e Evidence, managers bool) Evidence {
		e.Records = slices.DeleteFunc(e.Records, func(r record.Record) bool {
			return r.At.After(start.Add(40*time.Second)) && (r.Etcd != nil || !managers)
		})
		return e
	}
	refused := func(r gate.Refusal) Evidence { return Evidence{Refused: []gate.Refusal{r}} }
	const s = time.Second
	for _, tt := range []struct {
		name  string
		check Check
		e     Evidence
		want  bool
	}{
		{"back in time", ThingReplacedWithin(etcdNAS, 3*s, markBroken), healed, true},
		{"back too late", ThingReplacedWithin(etcdNAS, 2*s, markBroken), healed, false},
		{"never back", ThingReplacedWithin(etcdNAS, 3*s, markBroken), dead, false},
		{"back twice", ThingReplacedWithin(etcdNAS, 3*s, markBroken), twice, false},
		{"stays down", ThingStaysDown(etcdNAS), dead, true},
		{"does not stay down", ThingStaysDown(etcdNAS), healed, false},
		{"never heard", ThingStaysDown(socat), dead, false},
		{"untouched", ThingsUntouched(etcdMBP), healed, true},
		{"replaced", ThingsUntouched(etcdMBP, etcdNAS), healed, false},
		{"gone is not untouched", ThingsUntouched(etcdNAS), dead, false},
		{"lived once more", Lived(etcdNAS, 1, 1), healed, true},
		{"lived twice more", Lived(etcdNAS, 1, 1), twice, false},
		{"caught up", CaughtUpWithin(etcdNAS, 6*s, markBroken), healed, true},
		{"caught up too late", CaughtUpWithin(etcdNAS, 5*s, markBroken), healed, false},
		{"never caught up", CaughtUpWithin(etcdNAS, 6*s, markBroken), behind, false},
		{"never came back", CaughtUpWithin(etcdNAS, 6*s, markBroken), dead, false},
		{"was never sick", CaughtUpWithin(etcdMBP, 6*s, markBroken), healed, false},
		{"left to itself", ThingNotReplacedBefore(etcdNAS, 3*s, markBroken), healed, true},
		{"not left to itself", ThingNotReplacedBefore(etcdNAS, 4*s, markBroken), healed, false},
		{"never replaced", ThingNotReplacedBefore(etcdMBP, 4*s, markBroken), healed, true},
		{"never seen", ThingNotReplacedBefore(socat, 4*s, markBroken), healed, false},
		{"down, and then silence", ThingStaysDown(etcdNAS), quiet(onHomelab(false), false), false},
		{"untouched, and then silence", ThingsUntouched(etcdMBP), quiet(onHomelab(true), false), false},
		{"caught up, and then silence", CaughtUpWithin(etcdNAS, 6*s, markBroken), quiet(onHomelab(true), true), false},
		{"sick, and then silence", MemberSickAtEnd(etcdNAS), quiet(onHomelab(false), true), false},
		{"healthy, and then silence", MembersHealthy(etcdMBP), quiet(onHomelab(true), true), false},
		{"healed is well at the end", MemberWellAtEnd(etcdNAS), healed, true},
		{"dead is not well at the end", MemberWellAtEnd(etcdNAS), dead, false},
		{"well, and then silence", MemberWellAtEnd(etcdNAS), quiet(onHomelab(true), true), false},
		{"sick at the end", MemberSickAtEnd(etcdNAS), dead, true},
		{"well at the end", MemberSickAtEnd(etcdNAS), healed, false},
		{"healthy throughout", MembersHealthy(etcdMBP), healed, true},
		{"not healthy throughout", MembersHealthy(etcdMBP, etcdNAS), healed, false},
		{"small enough", AgentUnder(24 << 20), healed, true},
		{"too large", AgentUnder(22 << 20), healed, false},
		{"not measured", AgentUnder(24 << 20), Evidence{}, false},
		{"a call that is not on the list", NothingRefused(), refused(gate.Refusal{Method: "POST", Path: "/containers/x/kill"}), false},
		{"a refusal that was wanted", NothingRefused(), refused(gate.Refusal{Method: "POST", Path: "/containers/x/start", Told: true}), true},
		{"one order refused", OrderRefused(1), refused(gate.Refusal{Path: "/containers/x/start", Told: true}), true},
		{"an order too many", OrderRefused(0), refused(gate.Refusal{Path: "/containers/x/start", Told: true}), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v := tt.check.Test(tt.e); v.OK != tt.want {
				t.Errorf("%s: %t (%s), want %t", tt.check.Name, v.OK, v.Detail, tt.want)
			}
		})
	}
}
