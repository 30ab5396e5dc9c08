package servicetest

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// TestMain runs more cases beside each other than there are processors: they wait, they do not compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// broken is a Fake in which one promise of the contract is not kept.
type broken struct {
	*Fake
	restart func(context.Context, string, service.Status) error
	limits  func(context.Context, string) error
	watch   func(context.Context, []string, func()) error
}

func (b broken) Restart(ctx context.Context, unit string, want service.Status) error {
	if b.restart == nil {
		return b.Fake.Restart(ctx, unit, want)
	}
	return b.restart(ctx, unit, want)
}

func (b broken) Limits(ctx context.Context, unit string) error {
	if b.limits == nil {
		return b.Fake.Limits(ctx, unit)
	}
	return b.limits(ctx, unit)
}

func (b broken) Watch(ctx context.Context, units []string, wake func()) error {
	if b.watch == nil {
		return b.Fake.Watch(ctx, units, wake)
	}
	return b.watch(ctx, units, wake)
}

// breaches are promises that are not kept, and the case that has to notice.
var breaches = []struct {
	name, noticed string
	open          func(t *testing.T, f *Fake) Harness
}{
	{"restart of whatever runs", "restart, changed", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, restart: func(ctx context.Context, unit string, _ service.Status) error {
			return f.Restart(ctx, unit, f.Units()[unit])
		}})
	}},
	{"restart starts what was stopped", "restart, not running", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, restart: func(ctx context.Context, unit string, _ service.Status) error {
			return f.Start(ctx, unit)
		}})
	}},
	{"restart over a job", "restart, job pending", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, restart: func(ctx context.Context, unit string, want service.Status) error {
			f.Set(unit, func(st *service.Status) { st.Job = "" })
			return f.Restart(ctx, unit, want)
		}})
	}},
	{"restart only stops", "restart", func(t *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, restart: func(_ context.Context, unit string, _ service.Status) error {
			f.Operate(t, Stop, unit)
			return nil
		}})
	}},
	{"restart waits without end", "deadline during restart", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, restart: func(ctx context.Context, unit string, want service.Status) error {
			return f.Restart(context.WithoutCancel(ctx), unit, want)
		}})
	}},
	{"restart for everybody", "restart, permission", func(_ *testing.T, f *Fake) Harness {
		return Harness{Manager: f, Unprivileged: f, Host: f}
	}},
	{"no limit is seen", "limits, found", func(_ *testing.T, f *Fake) Harness {
		return Harness{Manager: f, Unprivileged: f, Host: f}
	}},
	{"limits are tried out", "limits, none", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, limits: f.Start})
	}},
	{"a new agent takes a stop for a crash", "stopped by operator, never a crash to a new agent", func(_ *testing.T, f *Fake) Harness {
		h := trusted(f, f)
		h.Again = func(*testing.T) service.Manager { return forgetful{f} }
		return h
	}},
	{"a new agent takes a crash for a stop", "crashed, told to a new agent", func(_ *testing.T, f *Fake) Harness {
		h := trusted(f, f)
		h.Again = func(*testing.T) service.Manager { return suspicious{f} }
		return h
	}},
	{"a new agent takes a crash loop for a stop", "crash loop", func(_ *testing.T, f *Fake) Harness {
		h := trusted(f, f)
		h.Again = func(*testing.T) service.Manager { return suspicious{f} }
		return h
	}},
	{"an order that it lacks succeeds", "orders that it lacks", func(_ *testing.T, f *Fake) Harness {
		h := trusted(f, f)
		h.Lacks = map[string]string{caseRestart: "says who"}
		return h
	}},
	{"events come late", "watch wakes in time", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, broken{Fake: f, watch: func(ctx context.Context, units []string, wake func()) error {
			return f.Watch(ctx, units, func() { time.AfterFunc(wakeLimit+wakeLimit/2, wake) })
		}})
	}},
	{"it looks less often than it says", "watch wakes in time", func(_ *testing.T, f *Fake) Harness {
		return trusted(f, polled{f, 10 * time.Millisecond, 3 * time.Second})
	}},
}

func trusted(f *Fake, m service.Manager) Harness {
	return Harness{Manager: m, Unprivileged: f.Unprivileged(), Host: f, Patience: 3 * time.Second, Again: func(*testing.T) service.Manager { return m }}
}

// forgetful takes what does not run for crashed.
type forgetful struct{ *Fake }

func (f forgetful) Status(ctx context.Context, unit string) (service.Status, error) {
	st, err := f.Fake.Status(ctx, unit)
	if st.State == service.StateStopped {
		st.State, st.Result = service.StateFailed, "exit-code"
	}
	st.Halted = false
	return st, err
}

// suspicious takes what does not run for stopped.
type suspicious struct{ *Fake }

func (f suspicious) Status(ctx context.Context, unit string) (service.Status, error) {
	st, err := f.Fake.Status(ctx, unit)
	if st.State == service.StateFailed || st.State == service.StateRestarting {
		st.State = service.StateStopped
	}
	return st, err
}

const breachVariable = "PGPATROL_TEST_BREACH"

// TestConformance_Notices runs the suite on managers that break the contract, each in a process of its own.
func TestConformance_Notices(t *testing.T) {
	if name := os.Getenv(breachVariable); name != "" {
		for _, b := range breaches {
			if b.name == name {
				Conformance(t, func(t *testing.T) Harness { return b.open(t, NewFake()) })
			}
		}
		return
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			name := strings.ReplaceAll(b.noticed, " ", "_")
			out, err := service.Runner{}.Run(t.Context(), service.Command{
				Path: self, Args: []string{"-test.run", "^TestConformance_Notices$/^" + name + "$"}, Env: []string{breachVariable + "=" + b.name},
			})
			if err != nil || out.ExitCode != 1 || !strings.Contains(string(out.Stdout), "--- FAIL: TestConformance_Notices/"+name) {
				t.Errorf("%q did not notice: exit code %d, %v\n%s", b.noticed, out.ExitCode, err, out.Stdout)
			}
		})
	}
}
