package main

import (
	"context"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/executor"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/coordinator"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// steps numbers what the executor of one agent asks of the world: every request to etcd, every record of the journal, every
// call of the service manager, every wait, and the last question before the act. Each has a step before it, one after it,
// and, if it changes anything, one in between: the agent dies, and what it asked for happens all the same. Numbers begin
// with 1 in each life of the agent. A nil *steps numbers nothing.
type steps struct {
	agent string
	kills []kill     // how the agent's lives end, in order
	seen  [][]string // the steps, by life
	// recovery is how many of them were taken before the first act of that life began: to find out what the life before had
	// begun, and what came of it.
	recovery []int
	lock     lockWatch
}

// kill ends a life of the agent.
type kill struct {
	step int
	back comeback
}

// comeback is how an agent starts again.
type comeback struct {
	name   string
	after  time.Duration
	reboot bool // its machine was restarted
}

// around begins a life of the agent: it numbers what its executor works with.
func (s *steps) around(a *agent, d executor.Deps) executor.Deps {
	if s == nil || s.agent != a.m.name {
		return d
	}
	s.seen, s.recovery = append(s.seen, nil), append(s.recovery, -1)
	d.Managers = map[string]service.Manager{"patroni": &stepHands{s, a, d.Managers["patroni"]}}
	d.Journal = &stepJournal{s, a, d.Journal}
	permit, wait := d.Permit, d.Wait
	d.Permit = func(action node.Action) (err error) {
		s.read(a, "is it permitted", func() { err = permit(action) })
		return err
	}
	d.Wait = func(ctx context.Context, span time.Duration) (err error) {
		s.read(a, "wait", func() { err = wait(ctx, span) })
		return err
	}
	return d
}

// kv numbers requests to etcd.
func (s *steps) kv(a *agent, kv coordinator.KV) coordinator.KV {
	if s == nil || s.agent != a.m.name {
		return kv
	}
	return &stepKV{s, a, kv}
}

// begins ends the recovery of the agent's life.
func (s *steps) begins(a *agent) {
	if s == nil || s.agent != a.m.name {
		return
	}
	if life := len(s.seen) - 1; s.recovery[life] < 0 {
		s.recovery[life] = len(s.seen[life])
	}
}

// recovered returns how many steps a life took for its recovery.
func (s *steps) recovered(life int) int {
	if s.recovery[life] < 0 {
		return len(s.seen[life])
	}
	return s.recovery[life]
}

// read is something that changes nothing.
func (s *steps) read(a *agent, what string, do func()) {
	s.at(a, what+": before", nil)
	do()
	s.at(a, what+": after", nil)
}

// change is something that changes the world. A remote one is on its way even if the machine dies too.
func (s *steps) change(ctx context.Context, a *agent, what string, remote bool, do func(context.Context)) {
	s.at(a, what+": before", nil)
	arrives := func() { do(context.WithoutCancel(ctx)) }
	if end, ends := s.end(); ends && end.back.reboot && !remote {
		arrives = nil
	}
	s.at(a, what+": on its way", arrives)
	do(ctx)
	s.at(a, what+": after", nil)
}

// end returns how the present life ends, and whether it does.
func (s *steps) end() (kill, bool) {
	if life := len(s.seen) - 1; life < len(s.kills) {
		return s.kills[life], true
	}
	return kill{}, false
}

// at numbers a step. If the agent is to be killed there, it does not return.
func (s *steps) at(a *agent, step string, arrives func()) {
	w, life := a.m.w, len(s.seen)-1
	s.seen[life] = append(s.seen[life], step)
	w.say("%s: step %d of life %d: %s", a.m.name, len(s.seen[life]), life+1, step)
	end, ends := s.end()
	if !ends || end.step != len(s.seen[life]) {
		return
	}
	if arrives != nil {
		w.spawn(nil, func(*process) { arrives() }) // whether the machine is up or not
	}
	w.after(0, nil, func() {
		if end.back.reboot {
			a.m.reboot(end.back.after)
			return
		}
		a.crash()
		w.after(end.back.after, a.m, a.start)
	})
	w.current.sleep(time.Hour)
}

type stepKV struct {
	s  *steps
	a  *agent
	kv coordinator.KV
}

func (k *stepKV) Grant(ctx context.Context, ttl time.Duration) (id int64, granted time.Duration, err error) {
	k.s.change(ctx, k.a, "etcd: grant a lease for "+ttl.String(), true, func(ctx context.Context) {
		id, granted, err = k.kv.Grant(ctx, ttl)
	})
	return id, granted, err
}

func (k *stepKV) Create(ctx context.Context, key, value string, lease int64) (revision int64, holder string, err error) {
	k.s.change(ctx, k.a, "etcd: create "+key, true, func(ctx context.Context) {
		revision, holder, err = k.kv.Create(ctx, key, value, lease)
	})
	return revision, holder, err
}

func (k *stepKV) Has(ctx context.Context, key string, created int64) (has bool, err error) {
	k.s.read(k.a, "etcd: read "+key, func() { has, err = k.kv.Has(ctx, key, created) })
	return has, err
}

func (k *stepKV) Delete(ctx context.Context, key string, created int64) (was bool, err error) {
	k.s.change(ctx, k.a, "etcd: delete "+key, true, func(ctx context.Context) { was, err = k.kv.Delete(ctx, key, created) })
	return was, err
}

func (k *stepKV) Revoke(ctx context.Context, lease int64) {
	k.s.change(ctx, k.a, "etcd: revoke a lease", true, func(ctx context.Context) { k.kv.Revoke(ctx, lease) })
}

type stepJournal struct {
	s *steps
	a *agent
	j executor.Journal
}

func (j *stepJournal) Intent(action node.Action) (at node.Attempt, err error) {
	j.s.change(context.Background(), j.a, "journal: intent", false, func(context.Context) { at, err = j.j.Intent(action) })
	return at, err
}

func (j *stepJournal) Result(at node.Attempt, r node.AttemptResult, text string, evidence map[string]string) (err error) {
	j.s.change(context.Background(), j.a, "journal: "+string(r), false, func(context.Context) { err = j.j.Result(at, r, text, evidence) })
	return err
}

type stepHands struct {
	s *steps
	a *agent
	m service.Manager
}

func (h *stepHands) Status(ctx context.Context, unit string) (now service.Status, err error) {
	h.s.read(h.a, "systemd: status", func() { now, err = h.m.Status(ctx, unit) })
	return now, err
}

func (h *stepHands) KillMain(ctx context.Context, unit string, want service.Status) (err error) {
	h.s.change(ctx, h.a, "systemd: kill", false, func(ctx context.Context) { err = h.m.KillMain(ctx, unit, want) })
	return err
}

func (h *stepHands) Start(ctx context.Context, unit string) (err error) {
	h.s.change(ctx, h.a, "systemd: start", false, func(ctx context.Context) { err = h.m.Start(ctx, unit) })
	return err
}
