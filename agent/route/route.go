// Package route decides where a proxy should lead clients, as a pure function of what is known.
//
// It owns the rules by which a change of the leader is told to a proxy (FACTS.md §6.7). It promises that nothing is said on
// a guess: only a leader that etcd names in a fresh linearizable read, and that has itself just said that it is a primary
// which runs, is marked alive, and only servers that are known to belong to other members are marked dead. It deliberately
// does not act, and knows no proxy.
package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

// Spec is what the configuration says of one proxy.
type Spec struct {
	Service string
	Scope   string
	Backend string            // whose servers are to lead to the primary
	Members map[string]string // member of a server, by the server's name; others are members of the same name
	Mode    node.Mode         // of class adjust, at the moment of the question
}

// Limits of what a decision may rest on.
const (
	// Fresh is how old a look at the leader and at the proxy may be, and one at etcd where something is to be told.
	Fresh = time.Second
	// Recent is how old a look at etcd may be where nothing is.
	Recent = 5 * time.Second
	// Pinned is how long a server that does not lead may have sessions before they are dropped: those that HAProxy ends by
	// itself are gone by then (FAULTS.md F97).
	Pinned = 3 * time.Second
)

// Question is everything that one decision rests on.
type Question struct {
	Now     node.Instant
	Spec    Spec
	Cluster node.Fact[node.Cluster]     // by a linearizable read
	Proof   node.Fact[probe.PatroniAPI] // what the API of the leader's key says, asked after the key was seen
	Table   node.Fact[proxy.Table]
	Strays  map[proxy.ID]node.Instant // since when a server that does not lead has had sessions
	Held    *node.Verdict             // what holds every action back, nil if nothing does
	// Moved says that another member led before, and that the proxy has not followed for good since. Otherwise its own checks
	// have had their time, and a leader that they take for dead is none that clients can reach (FAULTS.md F94).
	Moved bool
}

// State says in one word how a proxy and etcd stand to each other.
type State string

// States.
const (
	Agreed  State = "agreed"    // clients are led to the leader, and nowhere else
	Differs State = "differs"   // they are not, and it is known what to tell the proxy
	Waits   State = "waits"     // there is a leader, and it is no primary yet
	Blocked State = "blocked"   // the proxy's own checks take the leader for dead, and are believed
	Unknown State = "unknown"   // too little is known for saying anything
	Hands   State = "hands off" // what people have arranged is left alone
)

// Answer is what is to be told to a proxy, and why.
type Answer struct {
	State  State      `json:"state"`
	Text   string     `json:"text"`             // one sentence for people
	Leader string     `json:"leader,omitempty"` // member that leads
	Dead   []proxy.ID `json:"dead,omitempty"`   // servers to be marked dead
	Alive  []proxy.ID `json:"alive,omitempty"`  // servers to be marked alive
	Drop   []proxy.ID `json:"drop,omitempty"`   // servers whose sessions are to be dropped
	// Guard is the rule that keeps anything from being told, "" if none does, and Refuse its reason where Text does not say it.
	Guard  node.Guard `json:"guard,omitempty"`
	Refuse string     `json:"refuse,omitempty"`
}

// Refused returns the answer with a guard that refuses it.
func (a Answer) Refused(g node.Guard, format string, args ...any) Answer {
	a.Guard, a.Refuse = g, fmt.Sprintf(format, args...)
	return a
}

// Empty reports whether there is nothing to tell.
func (a Answer) Empty() bool { return len(a.Dead)+len(a.Alive)+len(a.Drop) == 0 }

// Decide answers a question.
func Decide(q Question) Answer {
	d := decision{Question: q}
	a := d.answer()
	if a.Empty() {
		return a
	}
	switch {
	case q.Held != nil:
		return a.Refused(q.Held.Guard, "%s", q.Held.Text)
	case q.Spec.Mode != node.ModeAuto:
		return a.Refused(node.GuardPolicy, "policy for class adjust is %q: this would have been told under \"auto\"", q.Spec.Mode)
	}
	return a
}

type decision struct {
	Question
	members map[string]string // member by server
}

func (d *decision) answer() Answer {
	c := d.Cluster.Value
	switch {
	case !d.Cluster.Fresh(d.Now, Recent):
		return unknown(node.GuardFreshness, "etcd is not known: "+why(d.Cluster))
	case !d.Table.Fresh(d.Now, Fresh):
		return unknown(node.GuardFreshness, "what the proxy does is not known: "+why(d.Table))
	case c.LeaderUnknown:
		return unknown(node.GuardFreshness, "the leader key is not intelligible")
	case !c.Config.Present:
		return unknown(node.GuardPatroniPause, "Patroni's configuration key is missing or unintelligible, so a pause cannot be ruled out")
	case c.Config.StandbyCluster:
		return Answer{State: Hands, Guard: node.GuardOperatorIntent, Text: "This is a standby cluster: none of its members is a primary."}
	case c.Config.Pause:
		return Answer{State: Hands, Guard: node.GuardPatroniPause, Text: "The cluster is paused: who leads is a person's business."}
	case c.Leader == nil:
		return Answer{State: Waits, Guard: node.GuardLeaderSafety, Text: "Nobody holds the leader key. Nothing is marked dead: the old leader may take it again."}
	}
	servers := d.Table.Value.Of(d.Spec.Backend)
	if why := d.assign(servers); why != "" {
		return unknown(node.GuardIdentity, why)
	}
	return d.compare(servers, c.Leader.Name)
}

// assign finds which member each server leads to. A name that belongs to two servers is a reason to say nothing.
func (d *decision) assign(servers []proxy.Server) string {
	d.members = map[string]string{}
	taken := map[string]string{}
	for _, s := range servers {
		m, ok := d.Spec.Members[s.Server]
		if !ok {
			m = s.Server
		}
		if other, ok := taken[m]; ok {
			return fmt.Sprintf("servers %s and %s of %s both stand for member %s", other, s.Server, d.Spec.Backend, m)
		}
		taken[m], d.members[s.Server] = s.Server, m
	}
	return ""
}

// compare finds what is to be told.
func (d *decision) compare(servers []proxy.Server, leader string) Answer {
	a := Answer{State: Agreed, Leader: leader}
	var target *proxy.Server
	var notes []string
	for i := range servers {
		s := &servers[i]
		member := d.members[s.Server]
		switch {
		case member == leader:
			target = s
		case s.Admin != 0:
			notes = append(notes, fmt.Sprintf("%s is in %s by a person", s.Server, s.Admin.Words()))
		case !d.known(member):
			notes = append(notes, fmt.Sprintf("%s stands for no member that Patroni has", s.Server))
		default:
			if s.Up {
				a.Dead = append(a.Dead, s.ID)
			}
			if since, ok := d.Strays[s.ID]; ok && s.Sessions > 0 && d.Now.Sub(since) >= Pinned {
				a.Drop = append(a.Drop, s.ID)
			}
		}
	}
	switch {
	case target == nil:
		return unknown(node.GuardIdentity, fmt.Sprintf("no server of %s stands for %s, which leads", d.Spec.Backend, leader))
	case target.Admin != 0:
		return Answer{
			State: Hands, Guard: node.GuardOperatorIntent, Leader: leader,
			Text: fmt.Sprintf("%s leads, and a person has set its server to %s.", leader, target.Admin.Words()),
		}
	}
	if why := d.elsewhere(target); why != "" {
		return unknown(node.GuardIdentity, why)
	}
	switch {
	case !target.Up && !d.Moved:
		return Answer{
			State: Blocked, Guard: node.GuardLeaderSafety, Leader: leader,
			Text: fmt.Sprintf("%s leads, and the proxy's own checks take its server for dead. They are believed: look at the way from here to %s's API and database.", leader, leader),
		}
	case !target.Up:
		a.Alive = append(a.Alive, target.ID)
	case a.Empty():
		a.Text = fmt.Sprintf("Clients are led to %s, which leads.", leader)
		return a.with(notes)
	}
	if why := d.unproved(); why != "" {
		return Answer{
			State: Waits, Guard: node.GuardLeaderSafety, Leader: leader,
			Text: fmt.Sprintf("%s holds the leader key, and is not proved to be a writable primary: %s.", leader, why),
		}
	}
	if !d.Cluster.Fresh(d.Now, Fresh) {
		return unknown(node.GuardFreshness, "etcd is not known: "+why(d.Cluster))
	}
	a.State, a.Text = Differs, a.sentence()
	return a.with(notes)
}

func (a Answer) with(notes []string) Answer {
	if len(notes) > 0 {
		slices.Sort(notes)
		a.Text += " Left alone: " + strings.Join(notes, "; ") + "."
	}
	return a
}

func (a Answer) sentence() string {
	parts := []string{}
	for _, p := range []struct {
		verb string
		ids  []proxy.ID
	}{{"still led to", a.Dead}, {"not yet led to", a.Alive}, {"pinned to", a.Drop}} {
		if len(p.ids) > 0 {
			parts = append(parts, p.verb+" "+list(p.ids))
		}
	}
	return fmt.Sprintf("%s leads, and clients are %s.", a.Leader, strings.Join(parts, ", and "))
}

func list(ids []proxy.ID) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.Server
	}
	return strings.Join(out, ", ")
}

// known reports whether Patroni has a member of that name now.
func (d *decision) known(member string) bool {
	_, ok := d.Cluster.Value.Member(member)
	return ok
}

// elsewhere says why the leader's server does not lead to the leader, "" if nothing speaks against it. Names, and addresses
// seen through a router, cannot be compared; a person who has named the member of a server knows its address.
func (d *decision) elsewhere(s *proxy.Server) string {
	m, _ := d.Cluster.Value.Member(d.members[s.Server])
	if _, named := d.Spec.Members[s.Server]; named {
		return ""
	}
	there, err1 := netip.ParseAddr(s.Address)
	here, err2 := netip.ParseAddr(m.Host)
	if err1 != nil || err2 != nil || there == here {
		return ""
	}
	return fmt.Sprintf("server %s leads to %s, and member %s is at %s: name the member of the server if that is right", s.Server, there, m.Name, here)
}

// unproved says why the leader is not proved to be a primary that takes writes, "" if it is (FACTS.md §6.7.2).
func (d *decision) unproved() string {
	p, c := d.Proof.Value, d.Cluster.Value
	switch {
	case !d.Proof.Fresh(d.Now, Fresh):
		return why(d.Proof)
	case p.Outcome != probe.OutcomeAnswered || p.Problem != "":
		return "its API does not answer"
	case p.Name != c.Leader.Name || p.Scope != d.Spec.Scope:
		return fmt.Sprintf("at its address answers %s of scope %s", p.Name, p.Scope)
	case c.Initialize != "" && p.SystemID != "" && p.SystemID != c.Initialize:
		return "at its address answers another PostgreSQL system"
	case p.Role != "primary" && p.Role != "master": // before Patroni 4
		return "its role is " + p.Role
	case p.State != "running":
		return "its state is " + p.State
	}
	return ""
}

func unknown(g node.Guard, text string) Answer {
	return Answer{State: Unknown, Guard: g, Text: strings.ToUpper(text[:1]) + text[1:] + "."}
}

func why[T any](f node.Fact[T]) string {
	switch {
	case !f.Known && f.Why != "":
		return f.Why
	case !f.Known:
		return "not asked yet"
	case f.Why != "":
		return f.Why
	}
	return "what is known is too old"
}

// Stray returns since when servers that do not stand for the leader have had sessions, given what was known of that before.
func Stray(q Question, before map[proxy.ID]node.Instant) map[proxy.ID]node.Instant {
	if !q.Table.Known || !q.Cluster.Known || q.Cluster.Value.Leader == nil {
		return before
	}
	after := map[proxy.ID]node.Instant{}
	for _, s := range q.Table.Value.Of(q.Spec.Backend) {
		m, ok := q.Spec.Members[s.Server]
		if !ok {
			m = s.Server
		}
		if m == q.Cluster.Value.Leader.Name || s.Sessions == 0 {
			continue
		}
		after[s.ID] = q.Now
		if since, ok := before[s.ID]; ok {
			after[s.ID] = since
		}
	}
	return after
}

// Report is what was found last of one proxy.
type Report struct {
	Service string                 `json:"service"`
	Backend string                 `json:"backend"`
	At      node.Instant           `json:"at"`
	Since   node.Instant           `json:"since"` // when the state began
	Answer  Answer                 `json:"answer"`
	Table   node.Fact[proxy.Table] `json:"table"`
}
