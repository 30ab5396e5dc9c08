package executor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

var (
	errStub = errors.New("stub")

	always  = servicetest.Service{Restart: "always", RestartDelay: time.Second, KillMode: "process"}
	never   = servicetest.Service{Restart: "no", KillMode: "process"}
	limited = servicetest.Service{Restart: "always", RestartDelay: time.Second, StartLimit: 1, StartLimitSpan: time.Minute}
)

// softKillCase is one way in which a soft-kill can go.
type softKillCase struct {
	unit   servicetest.Service
	set    func(r *rig)
	result node.AttemptResult
	err    error  // nil: none
	said   string // without looks at the unit
}

func softKillCases() map[string]softKillCase {
	return map[string]softKillCase{
		"the manager restarts it": {
			unit: always, result: node.ResultExecuted, said: "intent kill result:executed",
		},
		"the manager does not restart it": {
			unit: never, result: node.ResultExecuted, said: "intent kill start result:executed",
		},
		"the manager's start limit is hit by the kill": {
			unit: limited, result: node.ResultExecuted, said: "intent kill start result:executed",
		},
		"it is disabled, but ran": {
			unit: never, set: func(r *rig) { r.fake.Operate(r.t, servicetest.Disable, unitName) },
			result: node.ResultExecuted, said: "intent kill start result:executed",
		},
		"somebody stops it right after the kill": {
			unit: servicetest.Service{Restart: "always", RestartDelay: 3 * time.Second},
			set: func(r *rig) {
				r.manager.after = map[string]func() error{"kill": func() error {
					r.fake.Operate(r.t, servicetest.Stop, unitName)
					return nil
				}}
			},
			result: node.ResultExecuted, err: context.DeadlineExceeded, said: "intent kill result:executed",
		},
		"it does not come back in time": {
			unit:   servicetest.Service{Restart: "always", RestartDelay: time.Minute},
			result: node.ResultExecuted, err: context.DeadlineExceeded, said: "intent kill result:executed",
		},
		"bringing it back fails": {
			unit: never, set: func(r *rig) { r.fake.Fail(servicetest.MethodStart, errStub) },
			result: node.ResultExecuted, err: errStub, said: "intent kill start result:executed",
		},
		"the manager denies the kill": {
			unit: always, set: func(r *rig) { r.fake.Fail(servicetest.MethodKillMain, service.ErrPermission) },
			result: node.ResultFailed, err: service.ErrPermission, said: "intent kill result:failed",
		},
		"it changes between the look and the kill": {
			unit: always, set: func(r *rig) { r.fake.Fail(servicetest.MethodKillMain, service.ErrChanged) },
			result: node.ResultNotExecuted, err: ErrChanged, said: "intent kill result:not-executed",
		},
		"the manager's answer to the kill is lost": {
			unit: always, set: func(r *rig) {
				r.manager.after = map[string]func() error{"kill": func() error { return service.ErrUnavailable }}
			},
			result: node.ResultExecuted, err: service.ErrUnavailable, said: "intent kill result:executed",
		},
		"the manager falls silent for a while after the kill": {
			unit: always, set: func(r *rig) {
				r.manager.statusErrors = map[int]error{2: service.ErrUnavailable, 3: service.ErrUnavailable}
			},
			result: node.ResultExecuted, said: "intent kill result:executed",
		},
		"it cannot be read before": {
			unit: always, set: func(r *rig) { r.fake.Fail(servicetest.MethodStatus, service.ErrUnavailable) },
			result: node.ResultNotExecuted, err: service.ErrUnavailable,
		},
		"the intent cannot be recorded": {
			unit: always, set: func(r *rig) { r.journal.intentErr = errStub },
			result: node.ResultNotExecuted, err: errStub, said: "intent",
		},
		"the result cannot be recorded": {
			unit: always, set: func(r *rig) { r.journal.resultErr = errStub },
			result: node.ResultExecuted, err: errStub, said: "intent kill result:executed",
		},
	}
}

func TestExecute_SoftKill(t *testing.T) {
	for name, tc := range softKillCases() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tc.unit)
				a := r.action(node.SoftKill)
				if tc.set != nil {
					tc.set(r)
				}
				began := time.Now()
				result, err := r.exec.Execute(t.Context(), a)
				if result != tc.result || !errors.Is(err, tc.err) {
					t.Errorf("Execute = %s, %v; want %s, %v", result, err, tc.result, tc.err)
				}
				if got := r.said(); got != tc.said {
					t.Errorf("steps = %q, want %q", got, tc.said)
				}
				if took := time.Since(began); took > a.Deadline+recheckLimit {
					t.Errorf("took %s, the deadline is %s", took, a.Deadline)
				}
			})
		})
	}
}

func TestExecute_Evidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, never)
		a := r.action(node.SoftKill)
		if _, err := r.exec.Execute(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		got := r.journal.entries[0].evidence
		after := r.status()
		if got["invocation_before"] != a.Before.InvocationID || got["invocation_after"] != after.InvocationID ||
			got["started_by_agent"] != "true" || got["gap"] == "" || got["duration"] == "" {
			t.Errorf("evidence = %v", got)
		}
	})
}

func TestExecute_StartFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, limited)
		r.fake.Crash(t, unitName)
		time.Sleep(2 * time.Second)
		a := r.action(node.StartFailed)
		result, err := r.exec.Execute(t.Context(), a)
		if result != node.ResultExecuted || err != nil {
			t.Fatalf("Execute = %s, %v", result, err)
		}
		if s := r.status(); s.State != service.StateRunning || r.count(servicetest.MethodClearLimit) != 1 || r.count(servicetest.MethodStart) != 1 {
			t.Errorf("unit is %s after %v", s.State, r.fake.Effects())
		}
	})
}

func TestExecute_StartFailedErrors(t *testing.T) {
	cases := map[string]struct {
		start  error
		after  bool // the error comes after the start took effect
		result node.AttemptResult
	}{
		"denied":            {service.ErrPermission, false, node.ResultFailed},
		"somebody's job":    {service.ErrBusy, false, node.ResultNotExecuted},
		"answer lost":       {service.ErrUnavailable, true, node.ResultExecuted},
		"manager is silent": {service.ErrUnavailable, false, node.ResultFailed},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, never)
				r.fake.Crash(t, unitName)
				fail := map[string]func() error{"start": func() error { return tc.start }}
				if tc.after {
					r.manager.after = fail
				} else {
					r.manager.before = fail
				}
				result, err := r.exec.Execute(t.Context(), r.action(node.StartFailed))
				if result != tc.result || !errors.Is(err, tc.start) {
					t.Errorf("Execute = %s, %v; want %s, %v", result, err, tc.result, tc.start)
				}
			})
		})
	}
}

// Between decision and act the operator, the manager or a crash may have come first.
func TestExecute_TargetChanged(t *testing.T) {
	cases := map[string]struct {
		verb   node.Verb
		change func(r *rig)
	}{
		"it was restarted": {node.SoftKill, func(r *rig) {
			r.fake.Operate(r.t, servicetest.Stop, unitName)
			r.fake.Operate(r.t, servicetest.Start, unitName)
		}},
		"it was stopped":               {node.SoftKill, func(r *rig) { r.fake.Operate(r.t, servicetest.Stop, unitName) }},
		"it was masked":                {node.SoftKill, func(r *rig) { r.fake.Operate(r.t, servicetest.Mask, unitName) }},
		"it crashed":                   {node.SoftKill, func(r *rig) { r.fake.Crash(r.t, unitName) }},
		"a job is running":             {node.SoftKill, func(r *rig) { r.fake.Set(unitName, func(s *service.Status) { s.Job = "reload" }) }},
		"its definition broke":         {node.SoftKill, func(r *rig) { r.fake.Set(unitName, func(s *service.Status) { s.LoadError = "bad-setting" }) }},
		"it has another main process":  {node.SoftKill, func(r *rig) { r.fake.Set(unitName, func(s *service.Status) { s.MainPID++ }) }},
		"it has not failed":            {node.StartFailed, func(*rig) {}},
		"somebody started it":          {node.StartFailed, func(r *rig) { r.fake.Crash(r.t, unitName); r.fake.Operate(r.t, servicetest.Start, unitName) }},
		"it was never meant to be run": {node.StartFailed, func(r *rig) { r.fake.Crash(r.t, unitName); r.fake.Operate(r.t, servicetest.Disable, unitName) }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, never)
				a := r.action(tc.verb)
				tc.change(r)
				before := len(r.fake.Effects())
				result, err := r.exec.Execute(t.Context(), a)
				if result != node.ResultNotExecuted || !errors.Is(err, ErrChanged) {
					t.Errorf("Execute = %s, %v; want not-executed, ErrChanged", result, err)
				}
				if r.said() != "" || len(r.fake.Effects()) != before {
					t.Errorf("steps %q, effects %v", r.said(), r.fake.Effects())
				}
			})
		})
	}
}

func TestExecute_InvalidAction(t *testing.T) {
	cases := map[string]func(a *node.Action){
		"unknown service": func(a *node.Action) { a.Service = "etcd" },
		"unknown verb":    func(a *node.Action) { a.Verb = "restart" },
		"no verb":         func(a *node.Action) { a.Verb = "" },
		"no deadline":     func(a *node.Action) { a.Deadline = 0 },
		"no unit":         func(a *node.Action) { a.Unit = "" },
		"no id":           func(a *node.Action) { a.ID = "" },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, always)
			a := r.action(node.SoftKill)
			spoil(&a)
			result, err := r.exec.Execute(t.Context(), a)
			if result != node.ResultNotExecuted || !errors.Is(err, ErrInvalid) || len(*r.steps) != 0 {
				t.Errorf("Execute = %s, %v after %q", result, err, *r.steps)
			}
		})
	}
}

func TestExecute_OneInFlightPerService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, always)
		a := r.action(node.SoftKill)
		done := make(chan error)
		go func() {
			_, err := r.exec.Execute(t.Context(), a)
			done <- err
		}()
		time.Sleep(500 * time.Millisecond)
		if result, err := r.exec.Execute(t.Context(), a); result != node.ResultNotExecuted || !errors.Is(err, ErrInFlight) {
			t.Errorf("second Execute = %s, %v", result, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if r.kills() != 1 {
			t.Errorf("%d kills", r.kills())
		}
		if _, err := r.exec.Execute(t.Context(), r.action(node.SoftKill)); err != nil {
			t.Errorf("after the first ended: %v", err)
		}
	})
}

func TestExecute_Cancelled(t *testing.T) {
	cases := map[string]struct {
		unit  servicetest.Service
		state service.State
		said  string
		err   error
	}{
		// The manager brings it back whether the agent waits or not.
		"under a manager that restarts": {always, service.StateRestarting, "intent kill result:executed", context.Canceled},
		// Leaving now would leave the unit dead by the agent's hand.
		"under one that does not": {never, service.StateRunning, "intent kill start result:executed", nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tc.unit)
				ctx, cancel := context.WithCancel(t.Context())
				r.manager.after = map[string]func() error{"kill": func() error { cancel(); return nil }}
				result, err := r.exec.Execute(ctx, r.action(node.SoftKill))
				if result != node.ResultExecuted || !errors.Is(err, tc.err) {
					t.Errorf("Execute = %s, %v", result, err)
				}
				if s := r.status(); s.State != tc.state || r.said() != tc.said {
					t.Errorf("unit is %s after %q", s.State, r.said())
				}
			})
		})
	}
	t.Run("before the intent", func(t *testing.T) {
		r := newRig(t, always)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if result, err := r.exec.Execute(ctx, r.action(node.SoftKill)); result != node.ResultNotExecuted || !errors.Is(err, context.Canceled) || r.said() != "" {
			t.Errorf("Execute = %s, %v after %q", result, err, r.said())
		}
	})
}

func TestExecute_SilentManagerEndsByTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, always)
		a := r.action(node.SoftKill)
		r.manager.after = map[string]func() error{"kill": func() error { t.Cleanup(r.fake.Disconnect(t, true)); return nil }}
		began := time.Now()
		result, err := r.exec.Execute(t.Context(), a)
		if result != node.ResultExecuted || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Execute = %s, %v", result, err)
		}
		if took := time.Since(began); took != a.Deadline {
			t.Errorf("took %s", took)
		}
	})
}

func TestExecute_ClusterLock(t *testing.T) {
	cases := map[string]struct {
		set    func(r *rig)
		result node.AttemptResult
		said   string
	}{
		"held to the end":    {func(*rig) {}, node.ResultExecuted, "acquire intent held kill result:executed"},
		"another has it":     {func(r *rig) { r.lock.acquireErr = errStub }, node.ResultNotExecuted, "acquire release"},
		"lost at the intent": {func(r *rig) { r.lock.heldErr = errStub }, node.ResultNotExecuted, "acquire intent held result:not-executed release"},
		"the act fails": {
			func(r *rig) { r.fake.Fail(servicetest.MethodKillMain, service.ErrPermission) },
			node.ResultFailed, "acquire intent held kill result:failed release",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, always)
				tc.set(r)
				a := r.action(node.SoftKill)
				a.Class = node.ClassDisrupt
				result, err := r.exec.Execute(t.Context(), a)
				if result != tc.result || (err == nil) != (result == node.ResultExecuted) || r.said() != tc.said {
					t.Errorf("Execute = %s, %v after %q, want %s after %q", result, err, r.said(), tc.result, tc.said)
				}
				if result != node.ResultExecuted {
					return
				}
				b := r.action(node.SoftKill)
				b.ID, b.Class = "act-2", node.ClassDisrupt
				if _, err := r.exec.Execute(t.Context(), b); !errors.Is(err, ErrInFlight) {
					t.Errorf("second disruption before the first settled: %v", err)
				}
				if err := r.exec.Settle(t.Context(), r.journal.entries[0].Attempt, node.ResultVerified, ""); err != nil {
					t.Error(err)
				}
				if !strings.HasSuffix(r.said(), "result:verified release") {
					t.Errorf("steps = %q", r.said())
				}
				if _, err := r.exec.Execute(t.Context(), b); err != nil {
					t.Errorf("after settling: %v", err)
				}
			})
		})
	}
}

func TestSettle_OnlyJudgements(t *testing.T) {
	r := newRig(t, always)
	if err := r.exec.Settle(t.Context(), node.Attempt{}, node.ResultExecuted, ""); !errors.Is(err, ErrInvalid) || len(*r.steps) != 0 {
		t.Errorf("Settle = %v after %q", err, *r.steps)
	}
}

// What the cluster has no budget left for, and what people forbid at the last moment, is not done.
func TestExecute_ClaimAndPermitStandBeforeTheAct(t *testing.T) {
	spent := errors.New("spent")
	for _, tt := range []struct {
		name    string
		prepare func(*rig)
		intents int
	}{
		{"the budget is spent", func(r *rig) { r.lock.claimErr = spent }, 0},
		{"people forbid it", func(r *rig) { r.exec.d.Permit = func(node.Action) error { return spent } }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, servicetest.Service{})
			tt.prepare(r)
			result, err := r.exec.Execute(t.Context(), r.action(node.SoftKill))
			if result != node.ResultNotExecuted || !errors.Is(err, spent) || r.kills() != 0 || r.lock.claims != 1 {
				t.Errorf("%s, %v, %d kills, %d claims", result, err, r.kills(), r.lock.claims)
			}
			if n := strings.Count(r.said(), "intent"); n != tt.intents {
				t.Errorf("%d intents, want %d: %s", n, tt.intents, r.said())
			}
		})
	}
}

// A machine that slept between the decision and the act rests on what it saw before (FAULTS.md S3, F57).
func TestExecute_TooLate(t *testing.T) {
	r := newRig(t, servicetest.Service{})
	r.journal.after = map[string]func(){"intent": func() { r.began = r.began.Add(-actWithin - time.Second) }}
	result, err := r.exec.Execute(t.Context(), r.action(node.SoftKill))
	if result != node.ResultNotExecuted || !errors.Is(err, ErrChanged) || r.kills() != 0 {
		t.Errorf("%s, %v, %d kills", result, err, r.kills())
	}
}
