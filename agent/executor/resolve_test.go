package executor

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

func TestJudge(t *testing.T) {
	killed := node.Baseline{InvocationID: "a1", MainPID: 7}
	failed := node.Baseline{InvocationID: "a1"}
	st := func(state service.State, invocation string, pid int) service.Status {
		return service.Status{State: state, InvocationID: invocation, MainPID: pid}
	}
	cases := map[string]struct {
		before node.Baseline
		now    service.Status
		want   node.AttemptResult
	}{
		"same process":                     {killed, st(service.StateRunning, "a1", 7), node.ResultNotExecuted},
		"same process, being stopped":      {killed, st(service.StateStopping, "a1", 7), node.ResultNotExecuted},
		"another run":                      {killed, st(service.StateRunning, "b2", 9), node.ResultExecuted},
		"another run, same pid by chance":  {killed, st(service.StateRunning, "b2", 7), node.ResultExecuted},
		"killed, not yet back":             {killed, st(service.StateRestarting, "a1", 0), node.ResultExecuted},
		"gone":                             {killed, st(service.StateStopped, "", 0), node.ResultExecuted},
		"still failed":                     {failed, st(service.StateFailed, "a1", 0), node.ResultNotExecuted},
		"started":                          {failed, st(service.StateRunning, "b2", 9), node.ResultExecuted},
		"started and failed again":         {failed, st(service.StateFailed, "b2", 0), node.ResultExecuted},
		"nothing known of the unit":        {killed, st(service.StateUnknown, "", 0), ""},
		"nothing recorded of the baseline": {node.Baseline{}, st(service.StateRunning, "b2", 9), ""},
		"a manager without invocations":    {node.Baseline{MainPID: 7}, st(service.StateRunning, "", 9), node.ResultExecuted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Judge(tc.before, tc.now); got != tc.want {
				t.Errorf("Judge = %q, want %q", got, tc.want)
			}
		})
	}
}

// FAULTS.md F101 and S28: at every point at which the process can die, the next one finds out what happened and does not
// do it again.
func TestResolve_AfterACrashAtEveryPoint(t *testing.T) {
	die := func() { panic(crash{}) }
	dieErr := func() error { panic(crash{}) }
	cases := map[string]crashCase{
		"before the intent is durable":     {func(r *rig) { r.journal.before = map[string]func(){"intent": die} }, 0, ""},
		"after the intent, before the act": {func(r *rig) { r.journal.after = map[string]func(){"intent": die} }, 0, node.ResultNotExecuted},
		"at the kill, before it":           {func(r *rig) { r.manager.before = map[string]func() error{"kill": dieErr} }, 0, node.ResultNotExecuted},
		"at the kill, after it":            {func(r *rig) { r.manager.after = map[string]func() error{"kill": dieErr} }, 1, node.ResultExecuted},
		"while waiting": {func(r *rig) {
			r.manager.before = map[string]func() error{"status": func() error {
				if r.manager.statusCalls == 4 {
					die()
				}
				return nil
			}}
		}, 1, node.ResultExecuted},
		"after the act, before the record":    {func(r *rig) { r.journal.before = map[string]func(){"result:executed": die} }, 1, node.ResultExecuted},
		"after the record":                    {func(r *rig) { r.journal.after = map[string]func(){"result:executed": die} }, 1, ""},
		"the disk fills up before the record": {func(r *rig) { r.journal.resultErr = errStub }, 1, node.ResultExecuted},
	}
	for name, tc := range cases {
		for _, down := range []time.Duration{0, 5 * time.Second} {
			t.Run(fmt.Sprintf("%s, agent back after %s", name, down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { tc.check(t, down) })
			})
		}
	}
}

// crashCase is one point at which the process dies, how often the kill had taken effect by then, and what is found out
// afterwards: "" if there is nothing to resolve.
type crashCase struct {
	set   func(r *rig)
	kills int
	want  node.AttemptResult
}

func (tc crashCase) check(t *testing.T, down time.Duration) {
	r := newRig(t, always)
	a := r.action(node.SoftKill)
	tc.set(r)
	mayCrash(func() { _, _ = r.exec.Execute(t.Context(), a) })
	r.manager.before, r.manager.after, r.journal.before, r.journal.after = nil, nil, nil, nil
	r.journal.resultErr = nil
	time.Sleep(down)

	r.restart()
	*r.steps = nil
	resolved, err := r.exec.Resolve(t.Context(), r.journal.unresolved())
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	switch {
	case tc.want == "" && len(resolved) != 0:
		t.Errorf("resolved %v", resolved)
	case tc.want != "" && (len(resolved) != 1 || resolved[0].Result != tc.want || !resolved[0].Done):
		t.Errorf("resolved %+v, want %s", resolved, tc.want)
	case tc.want != "" && r.said() != "result:"+string(tc.want):
		t.Errorf("Resolve did %q", r.said())
	}
	if len(r.journal.unresolved()) != 0 {
		t.Error("something is still unresolved")
	}
	// The same action again, as a caller that forgot everything would: it rests on the old baseline.
	time.Sleep(5 * time.Second)
	result, _ := r.exec.Execute(t.Context(), a)
	if want := max(tc.kills, 1); r.kills() != want {
		t.Errorf("%d kills, want %d (second Execute: %s)", r.kills(), want, result)
	}
}

func TestResolve_Unknown(t *testing.T) {
	cases := map[string]func(r *rig, a *node.Attempt){
		"manager unavailable": func(r *rig, _ *node.Attempt) { r.t.Cleanup(r.fake.Disconnect(r.t, false)) },
		"manager silent":      func(r *rig, _ *node.Attempt) { r.t.Cleanup(r.fake.Disconnect(r.t, true)) },
		"state unknown": func(r *rig, _ *node.Attempt) {
			r.fake.Set(unitName, func(s *service.Status) { s.State = service.StateUnknown })
		},
		"service not configured any more": func(_ *rig, a *node.Attempt) { a.Service = "gone" },
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, always)
				a, err := r.journal.Intent(r.action(node.SoftKill))
				if err != nil {
					t.Fatal(err)
				}
				*r.steps = nil
				set(r, &a)
				resolved, err := r.exec.Resolve(t.Context(), []node.Attempt{a})
				if len(resolved) != 0 || !errors.Is(err, ErrUnresolved) || r.said() != "" {
					t.Errorf("Resolve = %v, %v after %q", resolved, err, r.said())
				}
			})
		})
	}
}

func TestResolve_OtherBoot(t *testing.T) {
	r := newRig(t, always)
	if _, err := r.journal.Intent(r.action(node.SoftKill)); err != nil {
		t.Fatal(err)
	}
	r.journal.boot = "boot-2"
	r.restart()
	t.Cleanup(r.fake.Disconnect(t, false)) // the manager is not even asked
	resolved, err := r.exec.Resolve(t.Context(), r.journal.unresolved())
	if err != nil || len(resolved) != 1 || resolved[0].Result != node.ResultNotExecuted {
		t.Errorf("Resolve = %+v, %v", resolved, err)
	}
}

func TestResolve_OneFailureDoesNotHoldUpTheOthers(t *testing.T) {
	r := newRig(t, always)
	gone := r.action(node.SoftKill)
	gone.Service, gone.ID = "gone", "act-0"
	for _, a := range []node.Action{gone, r.action(node.SoftKill)} {
		if _, err := r.journal.Intent(a); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	resolved, err := r.exec.Resolve(t.Context(), r.journal.unresolved())
	if len(resolved) != 1 || resolved[0].ActionID != "act-1" || !errors.Is(err, ErrUnresolved) {
		t.Errorf("Resolve = %+v, %v", resolved, err)
	}
	if r.count(servicetest.MethodKillMain) != 0 {
		t.Error("Resolve acted")
	}
}
