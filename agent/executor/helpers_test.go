package executor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

const unitName = "patroni.service"

// rig is an executor over a fake manager, a journal in memory and a lock, all of which write what happens into one list.
type rig struct {
	t       *testing.T
	fake    *servicetest.Fake
	manager *stubManager
	journal *memJournal
	lock    *memLock
	steps   *[]string
	exec    *Executor
	began   time.Time
}

func newRig(t *testing.T, s servicetest.Service) *rig {
	t.Helper()
	steps := &[]string{}
	r := &rig{t: t, fake: servicetest.NewFake(), steps: steps, began: time.Now()}
	r.fake.Add(unitName, s)
	r.fake.Operate(t, servicetest.Start, unitName)
	r.manager = &stubManager{Manager: r.fake, steps: steps}
	r.journal = &memJournal{steps: steps, boot: "boot-1", now: r.now}
	r.lock = &memLock{steps: steps}
	r.restart()
	return r
}

// restart makes a new executor over the same world, as a new process would.
func (r *rig) restart() {
	r.exec = New(Deps{
		Managers: map[string]service.Manager{"patroni": r.manager},
		Units:    map[string]string{"patroni": unitName},
		Journal:  r.journal, Locker: r.lock, Logger: slog.New(slog.DiscardHandler), Now: r.now, BootID: r.journal.boot,
	})
}

func (r *rig) now() node.Instant { return node.Instant(time.Since(r.began) + time.Hour) }

func (r *rig) status() service.Status {
	r.t.Helper()
	s, err := r.fake.Status(context.Background(), unitName)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) action(verb node.Verb) node.Action {
	s := r.status()
	return node.Action{
		ID: "act-1", Verb: verb, Service: "patroni", Unit: unitName, Class: node.ClassRevive, Finding: node.PatroniHung,
		Before: node.Baseline{InvocationID: s.InvocationID, MainPID: s.MainPID}, Deadline: 10 * time.Second, Settle: 20 * time.Second,
	}
}

// restartOf is a restart of the unit as a service of that kind.
func (r *rig) restartOf(kind node.Kind) node.Action {
	a := r.action(node.Restart)
	a.Kind, a.Finding = kind, node.ForwarderHung
	return a
}

// kills counts the kills that were carried out.
func (r *rig) kills() int { return r.count(servicetest.MethodKillMain) }

func (r *rig) count(m servicetest.Method) int {
	n := 0
	for _, e := range r.fake.Effects() {
		if e.Method == m && e.Err == nil {
			n++
		}
	}
	return n
}

// said returns what was done, without the looks at the unit.
func (r *rig) said() string {
	return strings.Join(slices.DeleteFunc(slices.Clone(*r.steps), func(s string) bool { return s == "status" }), " ")
}

// crash is what a stub panics with in the place of the death of the process.
type crash struct{}

func mayCrash(fn func()) (crashed bool) {
	defer func() {
		if v := recover(); v != nil {
			if _, ok := v.(crash); !ok {
				panic(v)
			}
			crashed = true
		}
	}()
	fn()
	return false
}

// stubManager lets a test fail or end the process around single calls.
type stubManager struct {
	service.Manager
	steps        *[]string
	before       map[string]func() error // by step; an error is returned in the place of the call
	after        map[string]func() error
	statusCalls  int
	statusErrors map[int]error // by call, from 1
}

func (m *stubManager) around(step string, call func() error) error {
	*m.steps = append(*m.steps, step)
	if fn := m.before[step]; fn != nil {
		if err := fn(); err != nil {
			return err
		}
	}
	err := call()
	if fn := m.after[step]; fn != nil {
		if e := fn(); e != nil {
			return e
		}
	}
	return err
}

func (m *stubManager) Status(ctx context.Context, unit string) (s service.Status, err error) {
	m.statusCalls++
	if err := m.statusErrors[m.statusCalls]; err != nil {
		return service.Status{}, err
	}
	err = m.around("status", func() (err error) { s, err = m.Manager.Status(ctx, unit); return err })
	return s, err
}

func (m *stubManager) Start(ctx context.Context, unit string) error {
	return m.around("start", func() error { return m.Manager.Start(ctx, unit) })
}

func (m *stubManager) KillMain(ctx context.Context, unit string, want service.Status) error {
	return m.around("kill", func() error { return m.Manager.KillMain(ctx, unit, want) })
}

// Restart implements service.Restarter.
func (m *stubManager) Restart(ctx context.Context, unit string, want service.Status) error {
	return m.around("restart", func() error { return m.Manager.(service.Restarter).Restart(ctx, unit, want) })
}

// entry is one attempt as the journal in memory keeps it.
type entry struct {
	node.Attempt
	text     string
	evidence map[string]string
}

type memJournal struct {
	steps                *[]string
	boot                 string
	now                  func() node.Instant
	entries              []entry
	intentErr, resultErr error
	before, after        map[string]func()
}

func (j *memJournal) step(name string) func() {
	*j.steps = append(*j.steps, name)
	if fn := j.before[name]; fn != nil {
		fn()
	}
	return func() {
		if fn := j.after[name]; fn != nil {
			fn()
		}
	}
}

func (j *memJournal) Intent(a node.Action) (node.Attempt, error) {
	defer j.step("intent")()
	if j.intentErr != nil {
		return node.Attempt{}, j.intentErr
	}
	e := entry{Attempt: node.Attempt{
		ActionID: a.ID, Verb: a.Verb, Class: a.Class, Service: a.Service, BootID: j.boot, At: j.now(), Before: a.Before,
	}}
	j.entries = append(j.entries, e)
	return e.Attempt, nil
}

func (j *memJournal) Result(a node.Attempt, r node.AttemptResult, text string, evidence map[string]string) error {
	defer j.step("result:" + string(r))()
	if j.resultErr != nil {
		return j.resultErr
	}
	for i := range j.entries {
		if e := &j.entries[i]; e.ActionID == a.ActionID && e.At == a.At {
			e.Done, e.Attempt.Result, e.text, e.evidence = true, r, text, evidence
			return nil
		}
	}
	return errors.New("unknown attempt")
}

func (j *memJournal) unresolved() []node.Attempt {
	var out []node.Attempt
	for _, e := range j.entries {
		if !e.Done {
			out = append(out, e.Attempt)
		}
	}
	return out
}

type memLock struct {
	steps                           *[]string
	acquireErr, heldErr, releaseErr error
	claimErr                        error
	claims                          int
}

// Claim is counted and not among the steps: it comes before every intent.
func (l *memLock) Claim(context.Context, node.Action) error {
	l.claims++
	return l.claimErr
}

func (l *memLock) Acquire(context.Context, string) error {
	*l.steps = append(*l.steps, "acquire")
	return l.acquireErr
}

func (l *memLock) Held(context.Context) error {
	*l.steps = append(*l.steps, "held")
	return l.heldErr
}

func (l *memLock) Release(context.Context) error {
	*l.steps = append(*l.steps, "release")
	return l.releaseErr
}
