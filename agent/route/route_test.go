package route

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

const (
	now     = node.Instant(time.Hour)
	backend = "bk"
	system  = "7400000000000000001"
)

func id(server string) proxy.ID { return proxy.ID{Backend: backend, Server: server} }

// switched is a cluster whose leader is b now, a proxy that still leads to a, and everything that is needed to say so.
func switched(changes ...func(*Question)) Question {
	server := func(name, address string, up bool) proxy.Server {
		return proxy.Server{ID: id(name), Address: address, Port: 5432, Up: up}
	}
	c := node.Cluster{Scope: "main", Initialize: system, Config: node.DynamicConfig{Present: true}, Leader: &node.LeaderKey{Name: "b", Lease: 1}}
	for _, m := range []string{"a", "b", "c"} {
		c.Members = append(c.Members, node.Member{Name: m, Host: "10.0.0." + string('1'+m[0]-'a'), APIURL: "http://" + m + ":8008"})
	}
	q := Question{
		Now: now, Spec: Spec{Service: "haproxy", Scope: "main", Backend: backend, Mode: node.ModeAuto}, Moved: true,
		Cluster: node.Seen(c, "etcd", now-1),
		Proof: node.Seen(probe.PatroniAPI{
			Outcome: probe.OutcomeAnswered, Name: "b", Scope: "main", SystemID: system, Role: "primary", State: "running",
		}, "api", now-1),
		Table: node.Seen(proxy.Table{Servers: []proxy.Server{
			server("a", "10.0.0.1", true), server("b", "10.0.0.2", false), server("c", "10.0.0.3", false), {ID: proxy.ID{Backend: "web", Server: "a"}, Up: true},
		}}, "socket", now-1),
	}
	for _, change := range changes {
		change(&q)
	}
	return q
}

func server(name string, change func(*proxy.Server)) func(*Question) {
	return func(q *Question) {
		t := &q.Table.Value
		t.Servers = append([]proxy.Server{}, t.Servers...)
		for i := range t.Servers {
			if t.Servers[i].ID == id(name) {
				change(&t.Servers[i])
			}
		}
	}
}

func up(v bool) func(*proxy.Server) { return func(s *proxy.Server) { s.Up = v } }

func cluster(change func(*node.Cluster)) func(*Question) {
	return func(q *Question) { change(&q.Cluster.Value) }
}

func proof(change func(*probe.PatroniAPI)) func(*Question) {
	return func(q *Question) { change(&q.Proof.Value) }
}

func TestDecide_Tells(t *testing.T) {
	for name, tt := range map[string]struct {
		q           Question
		dead, alive []proxy.ID
		drop        []proxy.ID
	}{
		"a switchover":            {q: switched(), dead: []proxy.ID{id("a")}, alive: []proxy.ID{id("b")}},
		"Patroni before 4":        {q: switched(proof(func(p *probe.PatroniAPI) { p.Role = "master" })), dead: []proxy.ID{id("a")}, alive: []proxy.ID{id("b")}},
		"a reload":                {q: switched(server("b", up(true)), server("c", up(true))), dead: []proxy.ID{id("a"), id("c")}},
		"nobody is up":            {q: switched(server("a", up(false))), alive: []proxy.ID{id("b")}},
		"the old one is drained":  {q: switched(server("a", func(s *proxy.Server) { s.Admin = 8 })), alive: []proxy.ID{id("b")}},
		"a server of no member":   {q: switched(cluster(func(c *node.Cluster) { c.Members = c.Members[1:] })), alive: []proxy.ID{id("b")}},
		"an address that is none": {q: switched(server("b", func(s *proxy.Server) { s.Address = "db2.example" })), dead: []proxy.ID{id("a")}, alive: []proxy.ID{id("b")}},
		"a member that a person has named": {
			q:    switched(func(q *Question) { q.Spec.Members = map[string]string{"a": "b", "b": "a"} }, server("a", up(false)), server("b", up(true))),
			dead: []proxy.ID{id("b")}, alive: []proxy.ID{id("a")},
		},
		"sessions that stay": {
			q: switched(server("a", up(false)), server("b", up(true)), server("a", func(s *proxy.Server) { s.Sessions = 3 }),
				func(q *Question) { q.Strays = map[proxy.ID]node.Instant{id("a"): now.Add(-Pinned)} }),
			drop: []proxy.ID{id("a")},
		},
	} {
		a := Decide(tt.q)
		if a.State != Differs || a.Refuse != "" {
			t.Errorf("%s: %s: %s %s", name, a.State, a.Text, a.Refuse)
		}
		if d := cmp.Diff([][]proxy.ID{tt.dead, tt.alive, tt.drop}, [][]proxy.ID{a.Dead, a.Alive, a.Drop}); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// For each thing that is told there is more for which nothing is (FACTS.md §6.7, "Never").
func TestDecide_TellsNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		q     Question
		state State
		text  string
	}{
		"all is well":              {switched(server("a", up(false)), server("b", up(true))), Agreed, "led to b"},
		"etcd is not known":        {switched(func(q *Question) { q.Cluster = node.Unseen[node.Cluster]("etcd", "no leader", now) }), Unknown, "no leader"},
		"etcd was read long ago":   {switched(func(q *Question) { q.Cluster.At = now.Add(-Fresh - 1) }), Unknown, "too old"},
		"the proxy is silent":      {switched(func(q *Question) { q.Table = node.Unseen[proxy.Table]("s", "no socket", now) }), Unknown, "no socket"},
		"an old table":             {switched(func(q *Question) { q.Table.At = now.Add(-Fresh - 1) }), Unknown, "too old"},
		"the leader is gone":       {switched(cluster(func(c *node.Cluster) { c.Leader = nil })), Waits, "Nobody holds"},
		"a key that names nobody":  {switched(cluster(func(c *node.Cluster) { c.Leader, c.LeaderUnknown = nil, true })), Unknown, "not intelligible"},
		"paused":                   {switched(cluster(func(c *node.Cluster) { c.Config.Pause = true })), Hands, "paused"},
		"whether paused":           {switched(cluster(func(c *node.Cluster) { c.Config.Present = false })), Unknown, "pause cannot be ruled out"},
		"a standby cluster":        {switched(cluster(func(c *node.Cluster) { c.Config.StandbyCluster = true })), Hands, "standby"},
		"not asked":                {switched(func(q *Question) { q.Proof = node.Fact[probe.PatroniAPI]{} }), Waits, "not asked yet"},
		"asked before":             {switched(func(q *Question) { q.Proof.At = now.Add(-Fresh - 1) }), Waits, "too old"},
		"it does not answer":       {switched(proof(func(p *probe.PatroniAPI) { p.Outcome = probe.OutcomeTimeout })), Waits, "does not answer"},
		"a reply that is none":     {switched(proof(func(p *probe.PatroniAPI) { p.Problem = "status 404" })), Waits, "does not answer"},
		"still a replica":          {switched(proof(func(p *probe.PatroniAPI) { p.Role = "replica" })), Waits, "its role is replica"},
		"still starting":           {switched(proof(func(p *probe.PatroniAPI) { p.State = "starting" })), Waits, "its state is starting"},
		"another member answers":   {switched(proof(func(p *probe.PatroniAPI) { p.Name = "a" })), Waits, "answers a of scope main"},
		"another cluster answers":  {switched(proof(func(p *probe.PatroniAPI) { p.Scope = "other" })), Waits, "of scope other"},
		"another database answers": {switched(proof(func(p *probe.PatroniAPI) { p.SystemID = "7" })), Waits, "another PostgreSQL system"},
		"no server for the leader": {switched(cluster(func(c *node.Cluster) { c.Leader = &node.LeaderKey{Name: "d"} })), Unknown, "erver of bk stands for d"},
		"a server led elsewhere":   {switched(server("b", func(s *proxy.Server) { s.Address = "10.0.0.9" })), Unknown, "leads to 10.0.0.9"},
		"two servers for one":      {switched(func(q *Question) { q.Spec.Members = map[string]string{"c": "b"} }), Unknown, "both stand for member b"},
		"the new one in maint":     {switched(server("b", func(s *proxy.Server) { s.Admin = 1 })), Hands, "set its server to maint"},
		"sessions that came just now": {switched(server("a", up(false)), server("b", up(true)), server("a", func(s *proxy.Server) { s.Sessions = 3 }),
			func(q *Question) { q.Strays = map[proxy.ID]node.Instant{id("a"): now.Add(-Pinned + 1)} }), Agreed, "led to b"},
	} {
		a := Decide(tt.q)
		if a.State != tt.state || !strings.Contains(a.Text, tt.text) || !a.Empty() || (a.Guard == "") != (a.State == Agreed) {
			t.Errorf("%s: %s by %q: %q, dead %v, alive %v, drop %v; want %s: ...%s...", name, a.State, a.Guard, a.Text, a.Dead, a.Alive, a.Drop, tt.state, tt.text)
		}
	}
}

// A leader that leads on, and that the proxy's own checks take for dead, is not forced on it (FAULTS.md F94). Nor are the others
// marked dead then: clients that only read may be content with them.
func TestDecide_ChecksAreBelieved(t *testing.T) {
	leadsOn := func(q *Question) { q.Moved = false }
	if a := Decide(switched(leadsOn)); a.State != Blocked || !a.Empty() || a.Guard != node.GuardLeaderSafety {
		t.Errorf("%s, %s: %s; dead %v, alive %v", a.State, a.Guard, a.Text, a.Dead, a.Alive)
	}
	a := Decide(switched(leadsOn, server("b", up(true)))) // a reload: all are up
	if d := cmp.Diff([]proxy.ID{id("a")}, a.Dead); d != "" || len(a.Alive) > 0 {
		t.Errorf("%s: alive %v, dead: %s", a.State, a.Alive, d)
	}
}

// Whatever is not told has the guard that keeps it from being told.
func TestDecide_Refuses(t *testing.T) {
	for name, tt := range map[string]struct {
		q     Question
		guard node.Guard
		want  string
	}{
		"policy observe": {switched(func(q *Question) { q.Spec.Mode = node.ModeObserve }), node.GuardPolicy, `"observe"`},
		"policy ask":     {switched(func(q *Question) { q.Spec.Mode = node.ModeAsk }), node.GuardPolicy, `"ask"`},
		"a hold": {
			switched(func(q *Question) { q.Held = &node.Verdict{Guard: node.GuardPause, Text: "held back by a pause"} }),
			node.GuardPause, "held back by a pause",
		},
	} {
		if a := Decide(tt.q); a.State != Differs || a.Guard != tt.guard || !strings.Contains(a.Refuse, tt.want) {
			t.Errorf("%s: %s, refused by %q: %q", name, a.State, a.Guard, a.Refuse)
		}
	}
	if a := Decide(switched(server("a", up(false)), server("b", up(true)), func(q *Question) { q.Spec.Mode = node.ModeOff })); a.Guard != "" {
		t.Errorf("nothing is to be told, and %s refuses it: %s", a.Guard, a.Refuse)
	}
}

func TestStray(t *testing.T) {
	sessions := func(n int) func(*proxy.Server) { return func(s *proxy.Server) { s.Sessions = n } }
	first := Stray(switched(server("a", sessions(2)), server("b", sessions(5))), nil)
	if d := cmp.Diff(map[proxy.ID]node.Instant{id("a"): now}, first); d != "" {
		t.Fatal(d)
	}
	later := switched(server("a", sessions(1)))
	later.Now = now.Add(time.Second)
	if got := Stray(later, first); got[id("a")] != now {
		t.Errorf("began at %v", got)
	}
	if got := Stray(switched(), first); len(got) > 0 {
		t.Errorf("without sessions: %v", got)
	}
	if got := Stray(switched(func(q *Question) { q.Table.Known = false }), first); len(got) != 1 {
		t.Errorf("unseen: %v", got)
	}
}
