package decision

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/guard"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
)

// hung is the question of the sec-th second of a hung leader.
func hung(mem node.Memory, sec int) node.Question {
	lease := nodetest.LeaseLeft(max(0, 26*time.Second-time.Duration(sec)*time.Second))
	return node.Question{
		Spec: nodetest.Spec(node.ModeAuto), Memory: mem,
		Snapshot: nodetest.Snap(time.Hour+time.Duration(sec)*time.Second, nodetest.Stopped(), lease, nodetest.Confirmed()),
	}
}

func TestDecide_HealsAHungLeader(t *testing.T) {
	var mem node.Memory
	for sec := range 6 {
		a := Decide(hung(mem, sec))
		if a.Broken != "" {
			t.Fatal(a.Broken)
		}
		if len(a.Plan.Allowed) == 1 && a.Plan.Summary != "" && len(a.Plan.Rests) > 0 {
			return
		}
		mem = a.Memory
	}
	t.Error("a hung leader is not healed within 6 s")
}

// TestJudge_IsDecideWithoutWords runs both on the same questions.
func TestJudge_IsDecideWithoutWords(t *testing.T) {
	var mem node.Memory
	for sec := range 20 {
		q := hung(mem, sec)
		full, bare := Decide(q), Judge(q)
		if bare.Plan.Summary != "" || bare.Plan.Rests != nil {
			t.Fatal("Judge speaks")
		}
		full.Plan.Summary, full.Plan.Rests = "", nil
		if d := cmp.Diff(full, bare); d != "" {
			t.Fatalf("at %d s (-Decide +Judge):\n%s", sec, d)
		}
		mem = full.Memory
	}
}

func TestChecked_EmptiesABrokenPlan(t *testing.T) {
	q := hung(node.Memory{}, 0)
	q.Snapshot.Orders.Holds = []node.Hold{{Kind: node.HoldKill}}
	act := node.Action{ID: "x", Verb: node.SoftKill, Service: nodetest.Service, Unit: nodetest.Unit, Class: node.ClassRevive}
	a := checked(guard.Input{Spec: q.Spec, Snapshot: q.Snapshot}, Answer{Plan: node.Plan{Allowed: []node.Action{act}}})
	if len(a.Plan.Allowed) != 0 || len(a.Plan.Refused) != 1 || !strings.Contains(a.Broken, "holds") {
		t.Errorf("allowed %v, refused %v, broken %q", a.Plan.Allowed, a.Plan.Refused, a.Broken)
	}
}

func BenchmarkJudge(b *testing.B) {
	q := node.Question{Spec: nodetest.Spec(node.ModeAuto), Snapshot: nodetest.Snap(time.Hour)}
	for b.Loop() {
		q.Memory = Judge(q).Memory
	}
}

// TestDecide_LeaderWithoutKeyWaitsForHAProxy: seeds 147 and 504 of the simulation. A leader whose loop is stuck has lost
// its key, and its API answers: it is killed once HAProxy has let go of it, and not as soon as nobody leads.
func TestDecide_LeaderWithoutKeyWaitsForHAProxy(t *testing.T) {
	mem := nodetest.Memory(time.Hour)
	const keyGone = 5
	for sec := range 30 {
		s := nodetest.Snap(time.Hour+time.Duration(sec)*time.Second, nodetest.Confirmed(), nodetest.LeaseLeft(max(0, keyGone-time.Duration(sec))*time.Second))
		if sec >= keyGone {
			s.DCS.Cluster.Value.Leader = nil
		}
		a := Decide(node.Question{Spec: nodetest.Spec(node.ModeAuto), Memory: mem, Snapshot: s})
		mem = a.Memory
		if len(a.Plan.Allowed) == 0 {
			continue
		}
		if act := a.Plan.Allowed[0]; sec != keyGone+10 || act.Verb != node.SoftKill || !act.Fence {
			t.Errorf("%s %s (fence %t) after %d s, want a kill as a fence 10 s after the key was gone at %d", act.Verb, act.Finding, act.Fence, sec, keyGone)
		}
		return
	}
	t.Error("it is never killed")
}
