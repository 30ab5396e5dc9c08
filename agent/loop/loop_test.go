package loop

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/decision"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/node/nodetest"
	"github.com/pgpatrol/pgpatrol/agent/observer"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// world is what the loop under test sees: a story by the second, and a target that a kill heals.
type world struct {
	tell func(sec int, depth observer.Depth) []nodetest.Change

	mu       sync.Mutex // guards the rest
	attempts []node.Attempt
	executed []node.Action
	settled  []node.AttemptResult
	plans    []node.Plan
	kept     []node.Kept
	unkept   error // why nothing can be kept
	healed   bool
	mute     bool // the executor does not heal
}

// epoch keeps instants away from zero, which means "never".
const epoch = time.Hour

type clock struct{ start time.Time }

func (c clock) Now() node.Instant              { return node.Instant(epoch + time.Since(c.start)) }
func (c clock) BootID() (string, error)        { return nodetest.BootID, nil }
func (c clock) Uptime() (time.Duration, error) { return epoch, nil }

func (w *world) Execute(_ context.Context, a node.Action) (node.AttemptResult, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.executed = append(w.executed, a)
	w.healed = !w.mute
	w.attempts = append(w.attempts, node.Attempt{
		ActionID: a.ID, Verb: a.Verb, Class: a.Class, Service: a.Service, Finding: a.Finding, BootID: nodetest.BootID,
		At: node.Instant(epoch + time.Since(began)), Done: true, Result: node.ResultExecuted, Before: a.Before, Expect: a.Expect, Settle: a.Settle,
	})
	return node.ResultExecuted, nil
}

func (w *world) Settle(_ context.Context, a node.Attempt, r node.AttemptResult, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.attempts {
		if w.attempts[i].At == a.At {
			w.attempts[i].Result = r
		}
	}
	w.settled = append(w.settled, r)
	return nil
}

// began is the start of the bubble's clock: synctest starts every bubble at the same moment.
var began = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// runLoop runs the loop for d of fake time.
func runLoop(t *testing.T, w *world, mode node.Mode, d time.Duration, change func(*Loop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := clock{start: began}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		l := New(Deps{
			Observe: func(_ context.Context, depth observer.Depth) node.Snapshot {
				w.mu.Lock()
				defer w.mu.Unlock()
				changes := []nodetest.Change{nodetest.LeaseLeft(29 * time.Second)}
				if !w.healed {
					changes = w.tell(int(time.Since(began).Seconds()), depth)
				} else {
					changes = append(changes, nodetest.WithUnit(func(s *service.Status) { s.InvocationID, s.MainPID = "new", 501 }),
						nodetest.With(func(p *node.PatroniFacts) { p.Process.Value.PID = 501 }))
				}
				s := nodetest.Snap(time.Duration(c.Now()), changes...)
				s.Confirm = depth == observer.Confirm
				if s.Confirm {
					s.DCS.Writable = node.Seen(true, "etcd", s.Now)
				}
				return s
			},
			Attempts: func() []node.Attempt {
				w.mu.Lock()
				defer w.mu.Unlock()
				return append([]node.Attempt(nil), w.attempts...)
			},
			Healthy: func() error { return nil }, Crashes: func() int { return 0 },
			Record: func(Entry) uint64 { return 1 },
			Keep: func(k node.Kept) error {
				if len(w.executed) > 0 && len(w.kept) == 0 {
					t.Error("something was done before anything was kept")
				}
				w.kept = append(w.kept, k)
				return w.unkept
			},
			Publish: func(_ node.Question, p node.Plan) { w.plans = append(w.plans, p) },
			Alive:   func() {}, Executor: w, Host: c, Started: c.Now(), Problem: func() string { return "" },
			Wake: make(chan struct{}, 1), Logger: slog.New(slog.DiscardHandler),
		}, nodetest.Spec(mode), node.Memory{})
		if change != nil {
			change(l)
		}
		if err := l.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("loop ended with %v", err)
		}
	})
}

// hungFrom is a leader whose Patroni is stopped from that second on.
func hungFrom(sec int) func(int, observer.Depth) []nodetest.Change {
	return func(i int, _ observer.Depth) []nodetest.Change {
		if i < sec {
			return []nodetest.Change{nodetest.LeaseLeft(27 * time.Second)}
		}
		return []nodetest.Change{nodetest.Stopped(), nodetest.LeaseLeft(max(0, time.Duration(24-(i-sec))*time.Second))}
	}
}

func TestLoop_HealsOnceAndVerifies(t *testing.T) {
	w := &world{tell: hungFrom(10)}
	runLoop(t, w, node.ModeAuto, 2*time.Minute, nil)
	if len(w.executed) != 1 {
		t.Fatalf("%d actions, want 1", len(w.executed))
	}
	if len(w.settled) != 1 || w.settled[0] != node.ResultVerified {
		t.Errorf("settled as %v, want verified once", w.settled)
	}
}

func TestLoop_ObservesByDefault(t *testing.T) {
	w := &world{tell: hungFrom(10)}
	runLoop(t, w, node.ModeObserve, time.Minute, nil)
	if len(w.executed) != 0 {
		t.Errorf("%d actions under observe", len(w.executed))
	}
	if last := w.plans[len(w.plans)-1]; len(last.Refused) == 0 {
		t.Errorf("the plan does not say what would have been done: %s", last.Summary)
	}
}

// What the first look allows and the second, fresh one does not, is not done.
func TestLoop_ConfirmsWithFreshFacts(t *testing.T) {
	hung := hungFrom(0)
	w := &world{tell: func(i int, d observer.Depth) []nodetest.Change {
		if d == observer.Confirm {
			return []nodetest.Change{nodetest.LeaseLeft(29 * time.Second)} // it has come back meanwhile
		}
		return hung(i, d)
	}}
	runLoop(t, w, node.ModeAuto, 20*time.Second, nil)
	if len(w.executed) != 0 {
		t.Errorf("%d actions although the confirming look saw a healthy Patroni", len(w.executed))
	}
}

// A heal that does not work is not repeated blindly, and is judged as what it is.
func TestLoop_UnverifiedIsNotRepeated(t *testing.T) {
	w := &world{tell: hungFrom(10), mute: true}
	runLoop(t, w, node.ModeAuto, 90*time.Second, nil)
	if len(w.executed) != 1 {
		t.Errorf("%d actions, want 1", len(w.executed))
	}
	if len(w.settled) != 1 || w.settled[0] != node.ResultUnverified {
		t.Errorf("settled as %v, want unverified once", w.settled)
	}
}

func TestLoop_BrokenJournalOnlyObserves(t *testing.T) {
	w := &world{tell: hungFrom(10)}
	runLoop(t, w, node.ModeAuto, time.Minute, func(l *Loop) { l.d.Healthy = func() error { return errors.New("no space left") } })
	if len(w.executed) != 0 {
		t.Errorf("%d actions without a journal", len(w.executed))
	}
}

// TestLoop_KeepsWhatMustOutliveIt: once, until something happens, and again if it could not be kept; not at all while the
// journal is known to be broken.
func TestLoop_KeepsWhatMustOutliveIt(t *testing.T) {
	calm := func(int, observer.Depth) []nodetest.Change {
		return []nodetest.Change{nodetest.LeaseLeft(29 * time.Second)}
	}
	changed := func(sec int, _ observer.Depth) []nodetest.Change {
		if sec < 20 {
			return []nodetest.Change{nodetest.LeaseLeft(29 * time.Second)}
		}
		return []nodetest.Change{nodetest.LeaseLeft(29 * time.Second), nodetest.Led(nodetest.Other, false)}
	}
	for _, tt := range []struct {
		name     string
		tell     func(int, observer.Depth) []nodetest.Change
		healthy  error // what the journal says of itself
		unkept   error
		min, max int
	}{
		{"calm", calm, nil, nil, 1, 1},
		{"the leader changes", changed, nil, nil, 2, 2},
		{"it cannot be kept", calm, nil, errors.New("EIO"), 10, 20},
		{"the journal is broken", calm, errors.New("EIO"), nil, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{tell: tt.tell, unkept: tt.unkept}
			runLoop(t, w, node.ModeAuto, 31*time.Second, func(l *Loop) { l.d.Healthy = func() error { return tt.healthy } })
			if n := len(w.kept); n < tt.min || n > tt.max {
				t.Errorf("kept %d times, want %d to %d", n, tt.min, tt.max)
			}
		})
	}
}

// A policy that is switched to auto acts on what was already proved.
func TestLoop_PolicySwappedInPlace(t *testing.T) {
	w := &world{tell: hungFrom(0)}
	runLoop(t, w, node.ModeObserve, 30*time.Second, func(l *Loop) {
		alive := 0
		l.d.Alive = func() {
			if alive++; alive == 10 {
				l.SetSpec(nodetest.Spec(node.ModeAuto))
			}
		}
	})
	if len(w.executed) != 1 {
		t.Errorf("%d actions after the policy was switched to auto, want 1", len(w.executed))
	}
}

// What a second primary wrote is recorded when it becomes known, and as it stands when the second primary is ended.
func TestChanges_DivergenceIsRecordedBeforeTheFence(t *testing.T) {
	bytes := func(n uint64) *uint64 { return &n }
	zombie := func(n *uint64) node.Finding {
		return node.Finding{Code: node.ZombiePrimary, Severity: node.Page, Subject: "patroni", DivergentBytes: n}
	}
	fence := []node.Action{{ID: "1", Verb: node.SoftKill, Service: "patroni", Finding: node.ZombiePrimary, Fence: true}}
	refused := node.Plan{Refused: []node.Refusal{{Action: fence[0], Verdicts: []node.Verdict{{Guard: node.GuardPolicy}}}}}
	for _, tt := range []struct {
		name string
		old  node.Plan
		seen *uint64 // at the look before, by the finding that is open
		plan node.Plan
		want int
	}{
		{"known at last", refused, nil, node.Plan{Findings: []node.Finding{zombie(bytes(0))}, Refused: refused.Refused}, 1},
		{"growing", refused, bytes(0), node.Plan{Findings: []node.Finding{zombie(bytes(800))}, Refused: refused.Refused}, 0},
		{"about to be ended", refused, bytes(800), node.Plan{Findings: []node.Finding{zombie(bytes(800))}, Allowed: fence}, 1},
		{"the fresh look knows more", node.Plan{Allowed: fence}, bytes(0), node.Plan{Findings: []node.Finding{zombie(bytes(800))}, Allowed: fence}, 1},
		{"being ended", node.Plan{Allowed: fence}, bytes(800), node.Plan{Findings: []node.Finding{zombie(bytes(800))}, Allowed: fence}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			open := zombie(tt.seen)
			before := map[string]node.Finding{open.Key(): open}
			q, a := node.Question{Memory: node.Memory{Open: before}}, decision.Answer{Memory: node.Memory{Open: before}, Plan: tt.plan}
			if got := changes(q, a, tt.old); len(got.Opened) != tt.want {
				t.Errorf("%d findings recorded, want %d", len(got.Opened), tt.want)
			}
		})
	}
}
