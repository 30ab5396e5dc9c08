// Package router makes one proxy follow the leader: it looks, lets agent/route decide, and tells the proxy.
//
// It owns when a proxy is looked at, and the chase of a new leader until that is writable (FACTS.md §6.7). It promises to be
// done within a few milliseconds of that moment, to tell nothing that is not in the journal, and to leave nothing behind: the
// proxy's own checks correct what was told, whatever becomes of the agent. It deliberately holds no rule of its own.
package router

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/route"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

const (
	tick = time.Second // less than rise times inter of any sane check: what is told again stays told (FACTS.md §6.7.5)
	// calm is the tick while proxy and etcd have agreed for a while. A reload and a change of the leader wake the router.
	calm      = 2 * time.Second
	settled   = 30 * time.Second
	askEvery  = 10 * time.Millisecond // how often a new leader is asked
	askLimit  = 250 * time.Millisecond
	chaseEnds = 10 * time.Second // a leader that is not writable by then is looked at with every tick
	tellLimit = time.Second
	// stubborn is how often one is told before the proxy's checks are believed, which say otherwise each time: somebody made
	// them ask something else than Patroni.
	stubborn = 5
)

// Etcd is what a router knows of Patroni's keys.
type Etcd interface {
	// Cluster returns what is known now, without asking.
	Cluster() node.Fact[node.Cluster]
	// Leader proves what is known by a linearizable read.
	Leader(ctx context.Context) node.Fact[node.Cluster]
}

// Told is one thing that was told to a proxy, as the journal keeps it.
type Told struct {
	Answer route.Answer
	Took   time.Duration // since the leader was last seen not to take writes, or since it was first seen that the proxy differs
	Err    error
}

// Deps is what a router works with.
type Deps struct {
	Spec   route.Spec
	Socket string // path of the proxy's socket, watched for a reload; or host:port
	Proxy  proxy.Proxy
	Etcd   Etcd
	// Leader returns what asks the API at a member's address, which comes from its key.
	Leader func(url string) (probe.Prober[probe.PatroniAPI], error)
	Mode   func() node.Mode         // of class adjust, now
	Held   func() *node.Verdict     // what holds every action back now, nil if nothing does
	Intend func(route.Answer) error // records what is about to be told; nothing is told if it fails
	Told   func(Told)               // records what was told, and what became of it
	Now    func() node.Instant
	Logger *slog.Logger
}

// Router follows the leader with one proxy. Run is called once; the other methods are safe for concurrent use.
type Router struct {
	d    Deps
	wake chan struct{}

	asked   map[string]probe.Prober[probe.PatroniAPI] // by URL: one at most
	strays  map[proxy.ID]node.Instant
	said    string       // last state and text, to log what is new
	refused string       // last refusal that was recorded
	noticed node.Instant // when the present difference was first seen
	leader  string       // who led last
	moved   bool         // another led before, and the proxy has not agreed for a while since
	tries   int          // how often it was told since then

	mu   sync.Mutex
	last route.Report
}

// New returns a router that has looked at nothing yet.
func New(d Deps) *Router {
	return &Router{d: d, wake: make(chan struct{}, 1)}
}

// Wake makes the router look now.
func (r *Router) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Report returns what was found last.
func (r *Router) Report() route.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// Run follows the leader until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	reloads := r.watchSocket(ctx)
	for ctx.Err() == nil {
		pause := r.follow(ctx)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-r.wake:
		case <-reloads:
		}
		t.Stop()
	}
	return ctx.Err()
}

// watchSocket tells when the proxy's socket is made anew, as a reload does: for some seconds after it every server counts as
// alive (FACTS.md §6.3). Without a watch the tick finds that too.
func (r *Router) watchSocket(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	if !strings.HasPrefix(r.d.Socket, "/") {
		return out
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(filepath.Dir(r.d.Socket))
	}
	if err != nil {
		r.d.Logger.Warn("socket not watched, a reload is found on a timer", "socket", r.d.Socket, "err", err)
		return out
	}
	go func() {
		defer w.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if e.Name == r.d.Socket && e.Op&(fsnotify.Create|fsnotify.Rename) != 0 {
					select {
					case out <- struct{}{}:
					default:
					}
				}
			case err, ok := <-w.Errors: // an overflow at most, and the tick is there
				if !ok {
					return
				}
				r.d.Logger.Debug("watch of the socket", "socket", r.d.Socket, "err", err)
			}
		}
	}()
	return out
}

// follow looks, and tells the proxy what follows from it. It returns after how long to look again.
func (r *Router) follow(ctx context.Context) time.Duration {
	began := r.d.Now()
	q := r.look(ctx)
	a := route.Decide(q)
	for chasing(a) && r.d.Now().Sub(began) < chaseEnds && ctx.Err() == nil {
		r.report(q, a)
		q = r.prove(ctx, q)
		if a = route.Decide(q); a.State == route.Differs {
			break
		}
		if !sleep(ctx, askEvery) {
			return tick
		}
		if c := r.d.Etcd.Cluster(); c.Value.LeaderName() != q.Cluster.Value.LeaderName() {
			r.take(&q, c)
		}
		if r.d.Now().Sub(q.Table.At) > route.Fresh/2 {
			q.Table = r.table(ctx)
		}
	}
	if a.State == route.Differs && ctx.Err() == nil {
		q, a = r.tell(ctx, q, a)
	}
	r.report(q, a)
	if a.State == route.Agreed && r.d.Now().Sub(r.Report().Since) > settled {
		r.moved, r.tries = false, 0
		return calm
	}
	return tick
}

// chasing reports whether a leader is on its way: its own word is all that lacks.
func chasing(a route.Answer) bool { return a.State == route.Waits && a.Leader != "" }

// look asks the proxy, takes what is known of etcd, and asks nobody else.
func (r *Router) look(ctx context.Context) route.Question {
	q := route.Question{Spec: r.d.Spec, Held: r.d.Held()}
	q.Spec.Mode = r.d.Mode()
	q.Table = r.table(ctx)
	r.take(&q, r.d.Etcd.Cluster())
	if !q.Cluster.Fresh(q.Now, route.Recent) {
		r.take(&q, r.d.Etcd.Leader(ctx))
	}
	r.strays = route.Stray(q, r.strays)
	q.Strays = r.strays
	return q
}

// take makes what is known of etcd part of a question, and notices another leader. The first that is seen is none.
func (r *Router) take(q *route.Question, c node.Fact[node.Cluster]) {
	q.Cluster, q.Now = c, r.d.Now()
	if name := c.Value.LeaderName(); name != "" && name != r.leader {
		r.moved, r.tries = r.leader != "", 0
		r.leader = name
	}
	q.Moved = r.moved
}

func (r *Router) table(ctx context.Context) node.Fact[proxy.Table] {
	at := r.d.Now()
	t, err := r.d.Proxy.Table(ctx, r.d.Spec.Backend)
	if err != nil {
		return node.Unseen[proxy.Table](r.d.Socket, err.Error(), at)
	}
	return node.Seen(t, r.d.Socket, at)
}

// prove asks the leader whether it is a primary that takes writes.
func (r *Router) prove(ctx context.Context, q route.Question) route.Question {
	at := r.d.Now()
	m, _ := q.Cluster.Value.Member(q.Cluster.Value.LeaderName())
	q.Proof = node.Unseen[probe.PatroniAPI](m.APIURL, "its key names no API", at)
	if m.APIURL != "" {
		q.Proof = r.ask(ctx, m.APIURL, at)
	}
	q.Now = r.d.Now()
	if !q.Cluster.Fresh(q.Now, route.Fresh/2) {
		r.take(&q, r.d.Etcd.Leader(ctx))
	}
	return q
}

func (r *Router) ask(ctx context.Context, url string, at node.Instant) node.Fact[probe.PatroniAPI] {
	p := r.asked[url]
	if p == nil {
		var err error
		if p, err = r.d.Leader(url); err != nil {
			return node.Unseen[probe.PatroniAPI](url, err.Error(), at)
		}
		r.asked = map[string]probe.Prober[probe.PatroniAPI]{url: p}
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	v, err := p.Probe(ctx)
	if err != nil {
		return node.Unseen[probe.PatroniAPI](url, err.Error(), at)
	}
	return node.Seen(v, url, at)
}

// tell proves once more by a linearizable read that the leader is the one that was asked, and tells the proxy.
func (r *Router) tell(ctx context.Context, q route.Question, a route.Answer) (route.Question, route.Answer) {
	if r.noticed == 0 {
		r.noticed = q.Now
	}
	if r.tries >= stubborn && a.Guard == "" {
		a = a.Refused(node.GuardBreaker, "told %d times, and the proxy's own checks say otherwise each time: do they ask for Patroni's /primary?", r.tries)
	}
	if a.Guard != "" {
		if a.Refuse != r.refused {
			r.refused = a.Refuse
			r.d.Told(Told{Answer: a})
		}
		return q, a
	}
	r.refused = ""
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	r.take(&q, r.d.Etcd.Leader(ctx))
	q.Held, q.Spec.Mode = r.d.Held(), r.d.Mode()
	if a = route.Decide(q); a.State != route.Differs || a.Guard != "" {
		return q, a
	}
	if err := r.d.Intend(a); err != nil {
		return q, a.Refused(node.GuardSelfHealth, "it cannot be recorded: %v", err)
	}
	r.tries++
	err := r.d.Proxy.Mark(ctx, a.Dead, a.Alive)
	if err == nil {
		err = r.d.Proxy.Drop(ctx, a.Drop)
	}
	r.d.Told(Told{Answer: a, Took: r.d.Now().Sub(r.noticed), Err: err})
	if err != nil {
		a.Text += " It could not be told: " + err.Error() + "."
		return q, a
	}
	q.Table = r.table(ctx)
	q.Now = r.d.Now()
	for _, id := range a.Drop {
		delete(r.strays, id)
	}
	q.Strays = r.strays
	return q, route.Decide(q)
}

// report shows what was found, and logs it where it is new.
func (r *Router) report(q route.Question, a route.Answer) {
	if a.State != route.Differs {
		r.noticed = 0
	}
	if a.State == route.Waits && a.Leader != "" {
		r.noticed = q.Now
	}
	said := string(a.State) + " " + a.Text
	r.mu.Lock()
	since := r.last.Since
	if a.State != r.last.Answer.State || a.Leader != r.last.Answer.Leader {
		since = q.Now
	}
	r.last = route.Report{Service: r.d.Spec.Service, Backend: r.d.Spec.Backend, At: q.Now, Since: since, Answer: a, Table: q.Table}
	r.mu.Unlock()
	if said != r.said {
		r.d.Logger.Info("route", "service", r.d.Spec.Service, "state", string(a.State), "text", a.Text)
		r.said = said
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Text says what was told, for a record.
func (t Told) Text() string {
	var parts []string
	for _, p := range []struct {
		verb string
		ids  []proxy.ID
	}{{"dead", t.Answer.Dead}, {"alive", t.Answer.Alive}, {"sessions dropped", t.Answer.Drop}} {
		if len(p.ids) > 0 {
			names := make([]string, len(p.ids))
			for i, id := range p.ids {
				names[i] = id.String()
			}
			slices.Sort(names)
			parts = append(parts, p.verb+": "+strings.Join(names, ", "))
		}
	}
	text := strings.Join(parts, "; ")
	switch {
	case t.Answer.Guard != "":
		return fmt.Sprintf("not told, %s refuses (%s): %s", t.Answer.Guard, t.Answer.Refuse, text)
	case t.Err != nil:
		return fmt.Sprintf("could not be told (%v): %s", t.Err, text)
	}
	return fmt.Sprintf("told within %s: %s", t.Took.Round(time.Millisecond), text)
}
