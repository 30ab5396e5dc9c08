package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// store is a linearizable store with a clock of its own.
type store struct {
	mu       sync.Mutex
	clock    time.Duration
	revision int64
	leases   map[int64]time.Duration // when each ends
	keys     map[string]entry
	fails    error // of every request from now on
}

type entry struct {
	value   string
	lease   int64
	created int64
}

var _ Writer = (*store)(nil)

func newStore() *store {
	return &store{revision: 10, leases: map[int64]time.Duration{}, keys: map[string]entry{}}
}

// advance moves the store's clock and ends what is due.
func (s *store) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock += d
	for key, e := range s.keys {
		if end, ok := s.leases[e.lease]; e.lease != 0 && (!ok || s.clock >= end) {
			delete(s.keys, key)
		}
	}
}

func (s *store) Grant(_ context.Context, ttl time.Duration) (int64, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return 0, 0, s.fails
	}
	id := int64(len(s.leases) + 1)
	s.leases[id] = s.clock + ttl
	return id, ttl, nil
}

func (s *store) Create(_ context.Context, key, value string, lease int64) (int64, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.keys[key]; s.fails != nil || ok {
		return 0, e.value, s.fails
	}
	s.revision++
	s.keys[key] = entry{value, lease, s.revision}
	return s.revision, "", nil
}

func (s *store) Has(_ context.Context, key string, created int64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key].created == created, s.fails
}

func (s *store) Delete(_ context.Context, key string, created int64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil || s.keys[key].created != created {
		return false, s.fails
	}
	delete(s.keys, key)
	return true, nil
}

func (s *store) Revoke(_ context.Context, lease int64) {
	s.mu.Lock()
	s.leases[lease] = 0
	s.mu.Unlock()
	s.advance(0)
}

func (s *store) Put(_ context.Context, key, value string, lease int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	s.keys[key] = entry{value, lease, s.revision}
	return s.fails
}

func (s *store) Remove(_ context.Context, key string) (string, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.keys[key]
	delete(s.keys, key)
	return e.value, ok, s.fails
}

// list returns every key with its value.
func (s *store) list() []string {
	var out []string
	for key, e := range s.keys {
		out = append(out, key+" = "+e.value)
	}
	slices.Sort(out)
	return out
}

// machine is one agent with a clock of its own.
type machine struct {
	*Locks
	now node.Instant
}

func newMachine(kv KV, name string) *machine {
	m := &machine{now: node.Instant(time.Hour)}
	m.Locks = New(kv, func() node.Instant { return m.now }, "demo", name)
	return m
}

func TestLock_ContentionAndFencing(t *testing.T) {
	s, ctx := newStore(), t.Context()
	first, second := newMachine(s, "hp1"), newMachine(s, "hp2")
	if err := first.Held(ctx); !errors.Is(err, ErrLost) {
		t.Fatalf("Held before Acquire: %v", err)
	}
	if err := first.Acquire(ctx, "heal"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/pgpatrol/demo/lock/cluster = hp1"}, s.list()); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	if err := second.Acquire(ctx, "heal"); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "by hp1") {
		t.Fatalf("Acquire of a held lock: %v", err)
	}
	if err := first.Held(ctx); err != nil {
		t.Fatal(err)
	}
	s.advance(LockTTL) // the store's time is over before ours
	if err := first.Held(ctx); !errors.Is(err, ErrLost) {
		t.Fatalf("Held of a lock that ended: %v", err)
	}
	if err := second.Acquire(ctx, "heal"); err != nil {
		t.Fatal(err)
	}
	if err := first.Release(ctx); !errors.Is(err, ErrLost) {
		t.Fatalf("Release of another's lock: %v", err)
	}
	if err := second.Held(ctx); err != nil {
		t.Fatalf("the old holder took the lock away: %v", err)
	}
	second.now = second.now.Add(LockTTL) // our time is over before the store's
	if err := second.Held(ctx); !errors.Is(err, ErrLost) {
		t.Fatalf("Held after its time: %v", err)
	}
	if err := errors.Join(second.Release(ctx), second.Release(ctx)); err != nil {
		t.Fatal(err)
	}
	if left := s.list(); left != nil {
		t.Fatalf("left behind: %v", left)
	}
}

// A lease that is granted late counts from before it was asked for.
func TestLock_CountsFromBeforeTheGrant(t *testing.T) {
	s := newStore()
	m := newMachine(s, "hp1")
	slow := slowKV{s, func() { m.now = m.now.Add(90 * time.Second) }}
	m.kv = slow
	if err := m.Acquire(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	m.now = m.now.Add(LockTTL - 90*time.Second)
	if err := m.Held(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("Held: %v", err)
	}
}

type slowKV struct {
	*store
	pass func()
}

func (s slowKV) Grant(ctx context.Context, ttl time.Duration) (int64, time.Duration, error) {
	s.pass()
	return s.store.Grant(ctx, ttl)
}

func TestLock_Unreachable(t *testing.T) {
	s, ctx := newStore(), t.Context()
	m := newMachine(s, "hp1")
	if err := m.Acquire(ctx, ""); err != nil {
		t.Fatal(err)
	}
	s.fails = errors.New("no quorum")
	for name, err := range map[string]error{
		"Held": m.Held(ctx), "Acquire": newMachine(s, "hp2").Acquire(ctx, ""),
		"Claim": m.Claim(ctx, node.Action{Class: node.ClassRevive}), "Release": m.Release(ctx),
	} {
		if !errors.Is(err, s.fails) || errors.Is(err, ErrLost) || errors.Is(err, ErrHeld) || errors.Is(err, ErrSpent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClaim_Budget(t *testing.T) {
	s, ctx := newStore(), t.Context()
	claim := func(name string, c node.Class) error { return newMachine(s, name).Claim(ctx, node.Action{Class: c}) }
	if err := claim("hp1", node.ClassDisrupt); err != nil {
		t.Fatal(err)
	}
	if err := claim("kr1", node.ClassDisrupt); !errors.Is(err, ErrSpent) || !strings.Contains(err.Error(), "1 of 1 within the hour, by hp1") {
		t.Fatalf("second disruption: %v", err)
	}
	for range 3 {
		if err := claim("kr2", node.ClassRevive); err != nil {
			t.Fatal(err)
		}
	}
	if err := claim("kr1", node.ClassRevive); !errors.Is(err, ErrSpent) || !strings.Contains(err.Error(), "4 of 4 within the hour, by hp1, kr2") {
		t.Fatalf("fifth action: %v", err)
	}
	want := []string{
		`/pgpatrol/demo/spent-disrupt/1 = {"node":"hp1","class":"disrupt"}`,
		`/pgpatrol/demo/spent/1 = {"node":"hp1","class":"disrupt"}`,
		`/pgpatrol/demo/spent/2 = {"node":"kr2","class":"revive"}`,
		`/pgpatrol/demo/spent/3 = {"node":"kr2","class":"revive"}`,
		`/pgpatrol/demo/spent/4 = {"node":"kr2","class":"revive"}`,
	}
	if diff := cmp.Diff(want, s.list()); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	s.advance(BudgetSpan)
	if err := claim("kr1", node.ClassDisrupt); err != nil {
		t.Fatalf("an hour later: %v", err)
	}
}

// However many agents claim at the same time, no more than the budget is taken, and a refused disruption takes nothing.
func TestClaim_Race(t *testing.T) {
	s := newStore()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[node.Class]int{}
	for i := range 40 {
		class := node.ClassRevive
		if i%2 == 0 {
			class = node.ClassDisrupt
		}
		wg.Go(func() {
			if newMachine(s, fmt.Sprintf("n%d", i)).Claim(context.Background(), node.Action{Class: class}) == nil {
				mu.Lock()
				got[class]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if n := got[node.ClassRevive] + got[node.ClassDisrupt]; n != node.ClusterActions || got[node.ClassDisrupt] > node.ClusterDisruptions {
		t.Errorf("claimed: %v", got)
	}
}

func TestHoldAndLift(t *testing.T) {
	s, ctx := newStore(), t.Context()
	since := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	h := node.Hold{Kind: node.HoldPause, Level: node.LevelScope, Owner: "ann", Reason: "r", Since: since, Until: since.Add(time.Hour)}
	all := h
	all.Kind, all.Level = node.HoldKill, node.LevelAll
	longer := h
	longer.Reason, longer.Until = "longer", since.Add(2*time.Hour)
	if err := errors.Join(Hold(ctx, s, "demo", h), Hold(ctx, s, "demo", all), Hold(ctx, s, "demo", longer)); err != nil {
		t.Fatal(err)
	}
	s.advance(time.Hour)
	if got := s.list(); len(got) != 1 || !strings.HasPrefix(got[0], "/pgpatrol/demo/hold/pause = ") {
		t.Fatalf("after an hour: %v", got)
	}
	if got, err := Lift(ctx, s, "demo", node.LevelScope, node.HoldPause); err != nil || !cmp.Equal(got, longer) {
		t.Fatalf("Lift: %+v, %v", got, err)
	}
	if _, err := Lift(ctx, s, "demo", node.LevelScope, node.HoldPause); !errors.Is(err, ErrNotSet) {
		t.Fatalf("Lift of nothing: %v", err)
	}
	if err := s.Put(ctx, "/pgpatrol/everything/hold/kill-switch", "\x00", 0); err != nil {
		t.Fatal(err)
	}
	if got, err := Lift(ctx, s, "demo", node.LevelAll, node.HoldKill); err != nil || got.Owner != node.Unknown {
		t.Fatalf("Lift of garbage: %+v, %v", got, err)
	}
}

func TestHold_Refused(t *testing.T) {
	since := time.Date(2026, 4, 8, 12, 0, 0, 0, time.UTC)
	good := node.Hold{Kind: node.HoldPause, Level: node.LevelScope, Owner: "ann", Reason: "r", Since: since, Until: since.Add(time.Hour)}
	for name, change := range map[string]func(*node.Hold){
		"of the node": func(h *node.Hold) { h.Level = node.LevelNode },
		"no end":      func(h *node.Hold) { h.Until = time.Time{} },
		"too long":    func(h *node.Hold) { h.Until = since.Add(node.MaxHold + time.Second) },
		"no owner":    func(h *node.Hold) { h.Owner = "" },
	} {
		s, h := newStore(), good
		change(&h)
		if err := Hold(t.Context(), s, "demo", h); err == nil || len(s.list()) > 0 {
			t.Errorf("%s: %v, %v", name, err, s.list())
		}
	}
}

// Whatever stands in the keys, an error is fit to be shown.
func FuzzHolders(f *testing.F) {
	f.Add("hp1", `{"node":"hp1","class":"disrupt"}`)
	f.Add("\x1b[31m", `{"node":"\u001b[31m"}`)
	f.Add("", `[]`)
	f.Fuzz(func(t *testing.T, lock, spent string) {
		s, ctx := newStore(), t.Context()
		m := newMachine(s, "pg1")
		for i := range node.ClusterActions {
			if err := s.Put(ctx, node.SpentKey("demo", i+1), spent, 0); err != nil {
				t.Fatal(err)
			}
		}
		err1, err2 := s.Put(ctx, node.LockKey("demo", node.LockCluster), lock, 0), m.Acquire(ctx, "")
		err3 := m.Claim(ctx, node.Action{Class: node.ClassRevive})
		if err1 != nil || !errors.Is(err2, ErrHeld) || !errors.Is(err3, ErrSpent) {
			t.Fatalf("%v, %v, %v", err1, err2, err3)
		}
		if text := err2.Error() + err3.Error(); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 400 {
			t.Fatalf("not fit to be shown: %q", text)
		}
	})
}
