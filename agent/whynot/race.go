package whynot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Chance says whether a member could take the leader key.
type Chance string

// Chances.
const (
	Yes     Chance = "yes"
	No      Chance = "no"
	Unknown Chance = "unknown" // what decides it cannot be seen from here
)

// Code names what keeps a member, or everybody, out of the race. It never changes its meaning.
type Code string

// What bears on a race. Sources are Patroni 4.1, patroni/ha.py, is_healthiest_node and _is_healthiest_node.
const (
	Leads        Code = "leads"           // it holds the leader key
	Lag          Code = "lag"             // maximum_lag_on_failover
	Timeline     Code = "timeline"        // check_timeline
	NoFailover   Code = "nofailover"      // the tag, or a failover_priority of 0
	State        Code = "state"           // PostgreSQL does not run there
	NoPosition   Code = "no-position"     // its key names no WAL position
	Sync         Code = "sync"            // not in the sync key
	Ahead        Code = "ahead"           // another member has more WAL
	PrimaryAlive Code = "primary-alive"   // another member still runs as a primary
	Chosen       Code = "chosen"          // the failover key names another member
	Excluded     Code = "excluded"        // the failover key takes it out
	Pause        Code = "paused"          // nobody races in pause
	Alarm        Code = "alarm"           // etcd takes no writes
	LeaseAlive   Code = "lease-alive"     // there is a leader
	NoView       Code = "no-view"         // etcd could not be read
	Standby      Code = "standby-cluster" // the winner becomes standby_leader
	Failsafe     Code = "failsafe"        // failsafe_mode
	Initialize   Code = "not-initialized" // the cluster has no identity yet
	NoMembers    Code = "no-members"      // no member key
	Hidden       Code = "hidden"          // something that decides and that pgpatrol does not see
	Stale        Code = "stale"           // what is known of etcd is old
	Unreadable   Code = "unreadable-keys" // keys that do not follow Patroni's grammar
	SyncPending  Code = "sync-not-active" // synchronous_mode is on, and the sync key names no leader yet
)

// Reason is one rule and what it says here.
type Reason struct {
	Code  Code   `json:"code"`
	Speak Chance `json:"allows"` // yes: only worth knowing, no: it keeps out, unknown: it may
	Text  string `json:"text"`
}

// Candidate is one member in the race.
type Candidate struct {
	Name    string   `json:"name"`
	Can     Chance   `json:"candidate"`
	Reasons []Reason `json:"reasons"`
}

// Race is the leader race as it would be run now.
type Race struct {
	On      bool        `json:"on"`      // there is no leader, so members race now
	Summary string      `json:"summary"` // one sentence
	Common  []Reason    `json:"common"`  // what holds for every member
	Members []Candidate `json:"members"`
}

// freshView is the age up to which the view of etcd is taken for the present.
const freshView = 10 * time.Second

// Failover recomputes the leader race from what is known of etcd. With a leader in place it says who could follow it.
func Failover(now node.Instant, d node.DCS) Race {
	c := d.Cluster.Value
	r := race{now: now, d: d, c: c}
	if !d.Cluster.Known {
		why := cmp.Or(d.Cluster.Why, "not observed yet")
		return Race{
			Summary: "Unknown: the keys of the cluster could not be read from etcd (" + why + ").",
			Common:  []Reason{{NoView, Unknown, "No linearizable read of etcd: " + why + ". While members cannot read it either, nobody can take the leader key."}},
			Members: []Candidate{},
		}
	}
	out := Race{Members: []Candidate{}}
	out.On = c.Leader == nil && !c.LeaderUnknown
	out.Common = r.common()
	for _, m := range c.Members {
		out.Members = append(out.Members, r.candidate(m))
	}
	out.Summary = r.summary(out)
	return out
}

// race is one race in the making.
type race struct {
	now node.Instant
	d   node.DCS
	c   node.Cluster
}

// common lists what holds for every member.
func (r race) common() []Reason {
	var out []Reason
	add := func(c Code, allows Chance, format string, args ...any) {
		out = append(out, Reason{c, allows, fmt.Sprintf(format, args...)})
	}
	r.leaderReasons(add)
	switch alarms := r.d.Alarms; {
	case !alarms.Known:
		add(Alarm, Unknown, "Whether etcd raises an alarm is unknown (%s). Under NOSPACE nobody could take the key.", cmp.Or(alarms.Why, "not observed yet"))
	case len(alarms.Value) > 0:
		add(Alarm, No, "etcd raises %s: it takes no writes, so nobody can take the key. A leader that lives keeps its lease.", strings.Join(alarms.Value, ", "))
	}
	cfg := r.c.Config
	if !cfg.Present {
		add(Hidden, Unknown, "The dynamic configuration is missing or unreadable: Patroni's defaults are assumed.")
	}
	if cfg.Pause {
		add(Pause, Yes, "The cluster is paused: no replica takes the key by itself. A running primary takes it back, and an immediate failover to a member that a person names is carried out.")
	}
	if cfg.StandbyCluster {
		add(Standby, Yes, "This is a standby cluster: whoever takes the key becomes standby_leader, follows the other cluster, and no timeline is compared.")
	}
	if cfg.FailsafeMode {
		add(Failsafe, Unknown, "failsafe_mode is on: a member that the failsafe key does not name may not race. pgpatrol does not read that key.")
	}
	if cfg.SynchronousMode && r.c.SyncLeader == "" {
		add(SyncPending, Yes, "synchronous_mode is on and the sync key names no leader, so the sync list does not count yet.")
	}
	if r.c.Initialize == "" {
		add(Initialize, Unknown, "The cluster has no system identifier yet: members bootstrap instead of racing.")
	}
	if len(r.c.Members) == 0 {
		add(NoMembers, No, "There is no member key: no Patroni of this scope is alive.")
	}
	if n := len(r.c.Problems); n > 0 {
		add(Unreadable, Unknown, "%d keys do not follow Patroni's grammar and are left out, %s among them.", n, r.c.Problems[0].Key)
	}
	add(Hidden, Unknown, "Not visible from here: whether a watchdog that is required works, different failover_priority at equal positions, check_timeline, and what members see of each other's REST API.")
	return out
}

// leaderReasons says what of the leader key and its lease there is.
func (r race) leaderReasons(add func(Code, Chance, string, ...any)) {
	if age := r.d.Cluster.Age(r.now); age > freshView {
		add(Stale, Unknown, "The keys were last read %s ago; what follows held then.", age.Round(time.Second))
	}
	lease := r.d.LeaderLease
	switch {
	case r.c.LeaderUnknown:
		add(LeaseAlive, Unknown, "There is a leader key, and it does not name a member: somebody may lead.")
	case r.c.Leader == nil:
	case !lease.Known || lease.Value.ID != r.c.Leader.Lease:
		add(LeaseAlive, No, "%s holds the leader key. How long its lease lives is unknown (%s).", r.c.Leader.Name, cmp.Or(lease.Why, "not observed yet"))
	default:
		add(LeaseAlive, No, "%s holds the leader key, and its lease lives %s of %s more: members race when it ends, not before.",
			r.c.Leader.Name, node.LeaseLeft(lease, r.now).Round(time.Second), lease.Value.Granted.Round(time.Second))
	}
}

// candidate goes through the rules for one member.
func (r race) candidate(m node.Member) Candidate {
	out := Candidate{Name: m.Name, Can: Yes, Reasons: []Reason{}}
	for _, rule := range []func(node.Member) *Reason{
		r.leads, r.pause, r.state, r.nofailover, r.position, r.lag, r.timeline, r.sync, r.switchover, r.ahead, r.primaryAlive,
	} {
		v := rule(m)
		if v == nil {
			continue
		}
		out.Reasons = append(out.Reasons, *v)
		if v.Speak == No || out.Can == Yes {
			out.Can = v.Speak
		}
	}
	return out
}

func says(c Code, allows Chance, format string, args ...any) *Reason {
	return &Reason{c, allows, fmt.Sprintf(format, args...)}
}

// running reports whether PostgreSQL runs on a member, as its key has it. Patroni 4 puts "streaming" into its own replies
// only; keys say "running".
func running(m node.Member) bool { return m.State == "running" || m.State == "streaming" }

func primary(m node.Member) bool {
	return running(m) && (m.Role == "primary" || m.Role == "master" || m.Role == "promoted")
}

func (r race) leads(m node.Member) *Reason {
	if m.Name != r.c.LeaderName() {
		return nil
	}
	return says(Leads, Yes, "holds the leader key now; it may take it again if it comes back as a primary on the latest timeline")
}

func (r race) pause(m node.Member) *Reason {
	s := r.c.Switchover
	if !r.c.Config.Pause || primary(m) || s != nil && s.To == m.Name && s.Scheduled == "" {
		return nil
	}
	return says(Pause, No, "the cluster is paused, and it is no primary")
}

func (r race) state(m node.Member) *Reason {
	if running(m) {
		return nil
	}
	return says(State, No, "its PostgreSQL is %q, not running", cmp.Or(m.State, "unknown"))
}

func (r race) nofailover(m node.Member) *Reason {
	if !m.NoFailover {
		return nil
	}
	return says(NoFailover, No, "it is tagged nofailover, or its failover_priority is 0")
}

// position: without one Patroni takes 0, which is behind everything.
func (r race) position(m node.Member) *Reason {
	if m.HasLSN || !running(m) || primary(m) {
		return nil
	}
	return says(NoPosition, Unknown, "its key names no WAL position, so its lag is unknown")
}

func (r race) lag(m node.Member) *Reason {
	limit := r.c.Config.MaximumLagOnFailover
	switch {
	case !m.HasLSN || primary(m):
		return nil
	case r.c.Optime == 0:
		return says(Lag, Unknown, "the leader's last position is not known, so its lag cannot be told")
	case m.LSN >= r.c.Optime:
		return says(Lag, Yes, "lags 0 bytes, %d are allowed", limit)
	case r.c.Optime-m.LSN <= limit:
		return says(Lag, Yes, "lags %d bytes, %d are allowed", r.c.Optime-m.LSN, limit)
	case r.c.Switchover != nil:
		return says(Lag, Yes, "lags %d bytes; maximum_lag_on_failover (%d) does not count while the failover key is there", r.c.Optime-m.LSN, limit)
	}
	return says(Lag, No, "lags %d bytes, maximum_lag_on_failover allows %d", r.c.Optime-m.LSN, limit)
}

// latest returns the timeline that the cluster is on: one more than the last that ended, or that of the leader.
func (r race) latest() int64 {
	var t int64
	for _, h := range r.c.History {
		t = max(t, h.Timeline+1)
	}
	if lead, ok := r.c.Member(r.c.LeaderName()); ok {
		t = max(t, lead.Timeline)
	}
	return t
}

func (r race) timeline(m node.Member) *Reason {
	latest := r.latest()
	switch {
	case m.Timeline == 0 || latest == 0 || m.Timeline >= latest || r.c.Config.StandbyCluster:
		return nil
	case primary(m):
		return says(Timeline, No, "it is a primary on timeline %d, and the cluster is on %d", m.Timeline, latest)
	}
	return says(Timeline, Unknown, "it is on timeline %d, and the cluster is on %d: that keeps it out if check_timeline is on, which pgpatrol does not see", m.Timeline, latest)
}

// active reports whether the sync key counts: the mode is on, and a leader has written the key.
func (r race) active() bool { return r.c.Config.SynchronousMode && r.c.SyncLeader != "" }

func (r race) inSync(name string) bool {
	return strings.EqualFold(name, r.c.SyncLeader) || slices.ContainsFunc(r.c.SyncNames, func(s string) bool { return strings.EqualFold(s, name) })
}

func (r race) sync(m node.Member) *Reason {
	switch {
	case !r.active():
		return nil
	case r.inSync(m.Name):
		return says(Sync, Yes, "the sync key names it (leader %s, synchronous %s)", r.c.SyncLeader, cmp.Or(strings.Join(r.c.SyncNames, ", "), "nobody"))
	}
	return says(Sync, No, "the sync key does not name it (leader %s, synchronous %s); only with synchronous_mode: quorum could it still win enough votes",
		r.c.SyncLeader, cmp.Or(strings.Join(r.c.SyncNames, ", "), "nobody"))
}

// switchover: a failover key restricts the race to whom it names.
func (r race) switchover(m node.Member) *Reason {
	s := r.c.Switchover
	switch {
	case s == nil:
		return nil
	case s.To == m.Name:
		return says(Chosen, Yes, "the failover key names it")
	case s.From == m.Name:
		return says(Excluded, No, "the failover key takes the leadership from it; it takes it back only if nobody else can")
	case s.To == "":
		return nil
	}
	if to, ok := r.c.Member(s.To); ok && running(to) && !to.NoFailover {
		return says(Chosen, No, "the failover key names %s, and %s is healthy", s.To, s.To)
	}
	return says(Chosen, Unknown, "the failover key names %s; the others may race only if it is not healthy", s.To)
}

// compared reports whether other members look at this one's position.
func (r race) compared(m, other node.Member) bool {
	if other.Name == m.Name || !running(other) || other.NoFailover || other.Name == r.c.LeaderName() {
		return false
	}
	if r.active() && (!r.inSync(other.Name) || strings.EqualFold(other.Name, r.c.SyncLeader)) {
		return false // in synchronous mode the former leader may be ahead (patroni/ha.py)
	}
	return r.c.Switchover == nil || r.c.Switchover.From != other.Name
}

func (r race) ahead(m node.Member) *Reason {
	if !m.HasLSN || primary(m) || r.c.Switchover != nil && r.c.Switchover.To == m.Name {
		return nil
	}
	for _, other := range r.c.Members {
		if r.compared(m, other) && !primary(other) && other.HasLSN && other.LSN > m.LSN {
			return says(Ahead, Unknown, "%s is %d bytes ahead as of its key: this one yields to it while that lasts and %s answers", other.Name, other.LSN-m.LSN, other.Name)
		}
	}
	return nil
}

// primaryAlive: replicas do not race while a member's REST API says that its PostgreSQL is no standby.
func (r race) primaryAlive(m node.Member) *Reason {
	if primary(m) || r.c.Leader != nil || r.c.LeaderUnknown {
		return nil
	}
	for _, other := range r.c.Members {
		if r.compared(m, other) && primary(other) {
			return says(PrimaryAlive, No, "%s says that it still is a primary: while its REST API answers so, all others wait", other.Name)
		}
	}
	return nil
}

// summary words the race in one sentence.
func (r race) summary(out Race) string {
	var able, maybe, not []string
	for _, m := range out.Members {
		switch {
		case m.Name == r.c.LeaderName():
		case m.Can == Yes:
			able = append(able, m.Name)
		case m.Can == Unknown:
			maybe = append(maybe, m.Name)
		default:
			not = append(not, m.Name+" ("+barring(m)+")")
		}
	}
	bars := slices.IndexFunc(out.Common, func(c Reason) bool { return c.Speak == No && c.Code != LeaseAlive })
	lead := "There is no leader"
	if !out.On {
		lead = cmp.Or(r.c.LeaderName(), "somebody") + " leads, so nobody races; if it ended now"
	}
	switch {
	case bars >= 0:
		return lead + ", nobody could take the key. " + out.Common[bars].Text
	case len(able) > 0:
		return lead + ", " + list(able) + " could take the key" + also("; perhaps also ", maybe) + also("; not ", not) + "."
	case len(maybe) > 0:
		return lead + ", perhaps " + list(maybe) + " could take the key" + also("; not ", not) + "."
	}
	return lead + ", nobody could take the key" + also(": not ", not) + "."
}

func barring(m Candidate) string {
	var codes []string
	for _, v := range m.Reasons {
		if v.Speak == No {
			codes = append(codes, string(v.Code))
		}
	}
	return strings.Join(codes, ", ")
}

func list(names []string) string { return strings.Join(names, " or ") }

func also(words string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return words + strings.Join(names, ", ")
}
