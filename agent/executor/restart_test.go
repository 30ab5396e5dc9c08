package executor

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

// onlyManager hides what a manager can do besides.
type onlyManager struct{ service.Manager }

func TestExecute_Restart(t *testing.T) {
	for name, tc := range map[string]struct {
		set    func(r *rig)
		result node.AttemptResult
		err    error  // nil: none
		said   string // without looks at the unit
		runs   bool   // anew
	}{
		"it runs anew": {result: node.ResultExecuted, said: "intent restart result:executed", runs: true},
		"the manager denies it": {
			set:    func(r *rig) { r.fake.Fail(servicetest.MethodRestart, service.ErrPermission) },
			result: node.ResultFailed, err: service.ErrPermission, said: "intent restart result:failed",
		},
		"it changes between the look and the restart": {
			set:    func(r *rig) { r.fake.Fail(servicetest.MethodRestart, service.ErrChanged) },
			result: node.ResultNotExecuted, err: ErrChanged, said: "intent restart result:not-executed",
		},
		"the manager's answer is lost": {
			set: func(r *rig) {
				r.manager.after = map[string]func() error{"restart": func() error { return service.ErrUnavailable }}
			},
			result: node.ResultExecuted, err: service.ErrUnavailable, said: "intent restart result:executed", runs: true,
		},
		"the manager cannot restart": {
			set: func(r *rig) {
				r.exec.d.Managers = map[string]service.Manager{"patroni": onlyManager{r.manager}}
			},
			result: node.ResultNotExecuted, err: errors.ErrUnsupported, said: "intent result:not-executed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, never)
				a := r.restartOf(node.KindForwarder)
				if tc.set != nil {
					tc.set(r)
				}
				result, err := r.exec.Execute(t.Context(), a)
				if result != tc.result || !errors.Is(err, tc.err) || r.said() != tc.said {
					t.Errorf("Execute = %s, %v after %q; want %s, %v after %q", result, err, r.said(), tc.result, tc.err, tc.said)
				}
				if now := r.status(); now.State != service.StateRunning || (now.InvocationID != a.Before.InvocationID) != tc.runs {
					t.Errorf("the unit is %s in run %s, was in %s", now.State, now.InvocationID, a.Before.InvocationID)
				}
			})
		})
	}
}

// TestExecute_NoRestartOfPatroni: whatever the kind is not said to be may be a Patroni (FAULTS.md L3).
func TestExecute_NoRestartOfPatroni(t *testing.T) {
	for _, kind := range []node.Kind{"", node.KindPatroni} {
		r := newRig(t, always)
		if result, err := r.exec.Execute(t.Context(), r.restartOf(kind)); result != node.ResultNotExecuted || !errors.Is(err, ErrInvalid) || len(*r.steps) != 0 {
			t.Errorf("kind %q: %s, %v after %q", kind, result, err, *r.steps)
		}
	}
}

// TestResolve_RestartAfterACrashAtEveryPoint: FAULTS.md F101. Wherever the agent dies, the next one finds out whether the
// service was restarted, and it is not restarted twice.
func TestResolve_RestartAfterACrashAtEveryPoint(t *testing.T) {
	die := func() { panic(crash{}) }
	dieErr := func() error { panic(crash{}) }
	for name, tc := range map[string]struct {
		set      func(r *rig)
		restarts int                // that had taken effect by then
		want     node.AttemptResult // "": nothing to resolve
	}{
		"before the intent is durable":     {func(r *rig) { r.journal.before = map[string]func(){"intent": die} }, 0, ""},
		"after the intent, before the act": {func(r *rig) { r.journal.after = map[string]func(){"intent": die} }, 0, node.ResultNotExecuted},
		"at the restart, before it":        {func(r *rig) { r.manager.before = map[string]func() error{"restart": dieErr} }, 0, node.ResultNotExecuted},
		"at the restart, after it":         {func(r *rig) { r.manager.after = map[string]func() error{"restart": dieErr} }, 1, node.ResultExecuted},
		"after the act, before the record": {func(r *rig) { r.journal.before = map[string]func(){"result:executed": die} }, 1, node.ResultExecuted},
		"after the record":                 {func(r *rig) { r.journal.after = map[string]func(){"result:executed": die} }, 1, ""},
		"when half of it is done": {func(r *rig) {
			r.manager.before = map[string]func() error{"restart": func() error {
				r.fake.Crash(r.t, unitName) // stopped, and the agent dies with the manager's client before the start
				panic(crash{})
			}}
		}, 0, node.ResultExecuted},
	} {
		for _, kind := range []node.Kind{node.KindEtcd, node.KindForwarder, node.KindMachine} {
			t.Run(fmt.Sprintf("%s, %s", name, kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, never)
					a := r.restartOf(kind)
					tc.set(r)
					mayCrash(func() { _, _ = r.exec.Execute(t.Context(), a) })
					r.manager.before, r.manager.after, r.journal.before, r.journal.after = nil, nil, nil, nil
					time.Sleep(5 * time.Second)

					r.restart()
					*r.steps = nil
					resolved, err := r.exec.Resolve(t.Context(), r.journal.unresolved())
					switch {
					case err != nil:
						t.Fatalf("Resolve: %v", err)
					case tc.want == "" && len(resolved) != 0, tc.want != "" && (len(resolved) != 1 || resolved[0].Result != tc.want || !resolved[0].Done):
						t.Errorf("resolved %+v, want %q", resolved, tc.want)
					case tc.want != "" && r.said() != "result:"+string(tc.want):
						t.Errorf("Resolve did %q", r.said())
					}
					if n := r.count(servicetest.MethodRestart); n != tc.restarts {
						t.Errorf("%d restarts, want %d", n, tc.restarts)
					}
					// The same action again, as a caller that forgot everything would: it rests on the old baseline.
					before := r.status()
					result, err := r.exec.Execute(context.Background(), a)
					if again := r.count(servicetest.MethodRestart); tc.want == node.ResultExecuted && (again != tc.restarts || !errors.Is(err, ErrChanged)) || again > 1 {
						t.Errorf("%d restarts after a second Execute: %s, %v, unit was %s", again, result, err, before.State)
					}
				})
			})
		}
	}
}
