package router

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/route"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

// stack is a cluster and a proxy without checks of its own.
type stack struct {
	mu      sync.Mutex
	leader  string
	primary string // who says so
	up      map[string]bool
	told    []string
	broken  error // of the journal
	held    *node.Verdict
	mode    node.Mode
	began   time.Time
}

func (s *stack) now() node.Instant { return node.Instant(time.Hour + time.Since(s.began)) }

func (s *stack) Cluster() node.Fact[node.Cluster] {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := node.Cluster{Scope: "main", Config: node.DynamicConfig{Present: true}}
	if s.leader != "" {
		c.Leader = &node.LeaderKey{Name: s.leader}
	}
	for _, m := range []string{"a", "b"} {
		c.Members = append(c.Members, node.Member{Name: m, APIURL: "http://" + m + ":8008"})
	}
	return node.Seen(c, "etcd", s.now())
}

func (s *stack) Leader(context.Context) node.Fact[node.Cluster] { return s.Cluster() }

func (s *stack) Table(context.Context, ...string) (proxy.Table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var t proxy.Table
	for _, m := range []string{"a", "b"} {
		t.Servers = append(t.Servers, proxy.Server{ID: proxy.ID{Backend: "bk", Server: m}, Up: s.up[m]})
	}
	return t, nil
}

func (s *stack) Mark(_ context.Context, dead, alive []proxy.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range dead {
		s.up[id.Server] = false
		s.told = append(s.told, "-"+id.Server)
	}
	for _, id := range alive {
		s.up[id.Server] = true
		s.told = append(s.told, "+"+id.Server)
	}
	return nil
}

func (s *stack) Drop(context.Context, []proxy.ID) error { return nil }

func (s *stack) Probe(context.Context) (probe.PatroniAPI, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	role := "replica"
	if s.primary == s.leader {
		role = "primary"
	}
	return probe.PatroniAPI{Outcome: probe.OutcomeAnswered, Name: s.leader, Scope: "main", Role: role, State: "running"}, nil
}

func (s *stack) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *stack) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.told)
}

// run lets a router follow a stack in the time of a bubble, and ends it.
func run(t *testing.T, test func(s *stack, r *Router)) {
	synctest.Test(t, func(t *testing.T) {
		s := &stack{leader: "a", primary: "a", up: map[string]bool{"a": true}, mode: node.ModeAuto, began: time.Now()}
		r := New(Deps{
			Spec: route.Spec{Service: "haproxy", Scope: "main", Backend: "bk"}, Socket: "127.0.0.1:9999", Proxy: s, Etcd: s,
			Leader: func(string) (probe.Prober[probe.PatroniAPI], error) { return s, nil },
			Mode:   func() node.Mode { s.mu.Lock(); defer s.mu.Unlock(); return s.mode },
			Held:   func() *node.Verdict { s.mu.Lock(); defer s.mu.Unlock(); return s.held },
			Intend: func(route.Answer) error { return s.broken }, Told: func(Told) {}, Now: s.now, Logger: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		test(s, r)
		cancel()
		<-done
	})
}

// A new leader is asked again and again until it is writable, and the proxy is told in that moment.
func TestRouter_Switchover(t *testing.T) {
	run(t, func(s *stack, r *Router) {
		time.Sleep(time.Minute)
		s.set(func() { s.leader = "b" })
		r.Wake()
		time.Sleep(2500 * time.Millisecond)
		if told := s.said(); len(told) > 0 {
			t.Errorf("told %v before the leader was writable", told)
		}
		s.set(func() { s.primary = "b" })
		time.Sleep(askEvery + time.Millisecond)
		if told := s.said(); !slices.Equal(told, []string{"-a", "+b"}) {
			t.Errorf("told %v", told)
		}
		if got := r.Report().Answer; got.State != route.Agreed {
			t.Errorf("%s: %s", got.State, got.Text)
		}
	})
}

// What a proxy's checks undo, because they lag behind, is told again.
func TestRouter_TellsAgain(t *testing.T) {
	run(t, func(s *stack, _ *Router) {
		time.Sleep(time.Second)
		for range 3 {
			s.set(func() { s.up["b"] = true })
			time.Sleep(2 * tick)
		}
		if told := s.said(); !slices.Equal(told, []string{"-b", "-b", "-b"}) {
			t.Errorf("told %v", told)
		}
	})
}

// A proxy whose checks ask something else than Patroni is not fought for ever: its checks are in charge.
func TestRouter_GivesUp(t *testing.T) {
	run(t, func(s *stack, r *Router) {
		for range 300 {
			s.set(func() { s.up["b"] = true })
			time.Sleep(tick)
		}
		if told := s.said(); len(told) != stubborn {
			t.Errorf("told %d times", len(told))
		}
		if got := r.Report().Answer; !strings.Contains(got.Refuse, "told 5 times, and the proxy's own checks say otherwise") || got.Guard != node.GuardBreaker {
			t.Errorf("%q refused: %q", got.Guard, got.Refuse)
		}
		s.set(func() { s.leader, s.primary = "b", "b" })
		r.Wake()
		time.Sleep(tick)
		if told := s.said(); !slices.Equal(told[stubborn:], []string{"-a"}) {
			t.Errorf("a new leader: told %v", told[stubborn:])
		}
	})
}

// A leader that never becomes writable, a key that is gone, a hold, another policy and a journal that cannot be written: the
// proxy is left to its checks.
func TestRouter_TellsNothing(t *testing.T) {
	for name, change := range map[string]func(*stack){
		"not writable": func(s *stack) { s.leader = "b" },
		"nobody leads": func(s *stack) { s.leader = "" },
		"held": func(s *stack) {
			s.leader, s.primary, s.held = "b", "b", &node.Verdict{Guard: node.GuardPause, Text: "a pause"}
		},
		"observe":      func(s *stack) { s.leader, s.primary, s.mode = "b", "b", node.ModeObserve },
		"not recorded": func(s *stack) { s.leader, s.primary, s.broken = "b", "b", errors.New("no space") },
		"all is well":  func(*stack) {},
		// FAULTS.md F94: its own checks have had their time.
		"taken for dead": func(s *stack) { s.up = map[string]bool{} },
		"leads already":  func(s *stack) { s.leader, s.primary, s.up = "b", "b", map[string]bool{"b": true} },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *stack, r *Router) {
				s.set(func() { change(s) })
				r.Wake()
				time.Sleep(time.Minute)
				if told := s.said(); len(told) > 0 {
					t.Errorf("told %v", told)
				}
			})
		})
	}
}
