package guard

import (
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// selfHealth: an agent that cannot record, that slept, whose clock jumped, whose loop starves, that crashes again and again
// or broke a rule of its own only observes (FAULTS.md S3, F82, F102, F104k).
func selfHealth(c *check) string {
	self := &c.in.Snapshot.Self
	switch {
	case self.Assertion != "":
		return refuse("this agent caught itself breaking a rule of its own, and only observes until it is restarted: %s", self.Assertion)
	case self.Crashes >= node.CrashLimit:
		return refuse("this agent ended without an orderly stop %d times within %s, limit %d", self.Crashes, node.CrashWindow, node.CrashLimit)
	case self.JournalBroken != "":
		return refuse("the journal cannot be relied on: %s", self.JournalBroken)
	case c.in.Memory.Disturbed != 0 && c.now.Sub(c.in.Memory.Disturbed) < node.DisturbedGrace:
		return refuse("the clock jumped or the machine slept %s ago", c.now.Sub(c.in.Memory.Disturbed).Round(time.Second))
	case self.LoopDelay > node.LoopDelayLimit:
		return refuse("this agent's own loop is %s late", self.LoopDelay.Round(time.Millisecond))
	}
	return ""
}

// freshness: no action rests on a fact that is unknown or old (FAULTS.md S13, S14). The view of etcd as a whole is noDCS's
// business, and a leader that cannot be named is this one's.
func freshness(c *check) string {
	if c.kind != node.KindPatroni {
		if bad := c.serviceFreshness(); len(bad) > 0 {
			return refuse("unknown or older than %s: %s", c.limit(), strings.Join(bad, ", "))
		}
		return ""
	}
	type item struct {
		name string
		ok   bool
	}
	f, limit := &c.f, c.limit()
	items := []item{
		{"the unit's state", f.Unit.Fresh(c.now, limit)},
		{"PostgreSQL's state", f.Postgres.Fresh(c.now, limit)},
		{"the process table", f.Machine.Fresh(c.now, FreshScan)},
	}
	if c.a.Verb == node.SoftKill {
		items = append(items,
			item{"the main process", f.Process.Fresh(c.now, limit)},
			item{"Patroni's API", f.Liveness.Fresh(c.now, limit) || planted.On("engine/unknown-is-down")})
	}
	var bad []string
	for _, it := range items {
		if !it.ok {
			bad = append(bad, it.name)
		}
	}
	if c.cluster().LeaderUnknown {
		return refuse("the leader key names no member that could be understood, so somebody may lead")
	}
	if len(bad) == 0 {
		return ""
	}
	return refuse("unknown or older than %s: %s", limit, strings.Join(bad, ", "))
}

// identity: the keys, the API, the files and the configuration must speak of one and the same Patroni (FAULTS.md S20). A
// wrong member name would otherwise make a healthy leader look like a second primary.
func identity(c *check) string {
	if c.kind != node.KindPatroni {
		return c.serviceIdentity()
	}
	init, pg := c.cluster().Initialize, c.f.Postgres.Value
	switch {
	case c.cluster().Empty && planted.On("engine/empty-is-leaderless-takeover"):
	case init == "":
		return refuse("etcd has no system identifier for this scope (key initialize)")
	case pg.SystemID == "" || pg.SystemID != init:
		return refuse("the data directory's system identifier %s is not the cluster's %s", nameOr(pg.SystemID, "(unknown)"), init)
	}
	if api := c.f.API; api.Known && api.Value.Outcome == probe.OutcomeAnswered {
		if api.Value.Problem != "" {
			return refuse("what answers on Patroni's address is not Patroni: %s", api.Value.Problem)
		}
		if api.Value.Name != c.spec.Member || api.Value.Scope != c.in.Spec.Scope {
			return refuse("the Patroni here is %s of %s, not %s of %s", api.Value.Name, api.Value.Scope, c.spec.Member, c.in.Spec.Scope)
		}
		return ""
	}
	if c.m.Identity {
		return ""
	}
	if cfg := c.f.Config; cfg.Known && cfg.Value.Name == c.spec.Member && cfg.Value.Scope == c.in.Spec.Scope {
		return ""
	}
	return refuse("neither Patroni's API nor its configuration file has confirmed that this is %s of %s", c.spec.Member, c.in.Spec.Scope)
}

// dcsWritable: a Patroni that starts needs a new lease; under NOSPACE etcd refuses it (FAULTS.md L8, L9, S11). Nothing
// that runs is stopped while the cluster could not fail over, whatever it is.
func dcsWritable(c *check) string {
	dcs := &c.in.Snapshot.DCS
	switch {
	case c.kind == node.KindEtcd && c.corrupt():
		return refuse("a member of etcd raises CORRUPT: which one is wrong is for a person to find out")
	case c.kind != node.KindPatroni && c.a.Class != node.ClassDisrupt:
		return ""
	case !dcs.Alarms.Fresh(c.now, FreshScan):
		return refuse("etcd's alarms are unknown")
	case len(dcs.Alarms.Value) > 0:
		return refuse("etcd raises %s: a Patroni that is restarted could not get a lease", strings.Join(dcs.Alarms.Value, ", "))
	case c.in.Snapshot.Confirm && (!dcs.Writable.Fresh(c.now, FreshConfirm) || !dcs.Writable.Value):
		return refuse("etcd did not just grant a test lease (%s)", nameOr(dcs.Writable.Why, "refused"))
	}
	return ""
}

// urgent are the actions that neither power-on nor a leader change delays: they end a second primary, or take an orphaned
// PostgreSQL back under Patroni before it becomes one (FAULTS.md S30).
func (c *check) urgent() bool { return c.a.Fence || c.a.Verb == node.StartFailed }

// bootGraceOver: right after power-on everything looks broken (FAULTS.md F81, S30).
func bootGraceOver(c *check) string {
	if up := c.in.Snapshot.Uptime; !c.urgent() && up < bootGrace && !c.m.Settled {
		return refuse("this machine started %s ago and %s has not been seen healthy since", up.Round(time.Second), c.a.Service)
	}
	return ""
}

// leaderChange: while a new leader establishes itself, nothing but what is urgent (FAULTS.md S30), and one thing more: the
// new leader itself, once its own lease proves that it has not done its work since it leads. What only looks sick after a
// change, replicas that rewind and a leader that is being promoted, renews its lease all the while. To wait for the end of
// the grace instead would let the lease run out: another failover, a second primary, and acknowledged writes lost, which
// is what the grace is to prevent (FAULTS.md S40, found by the simulation). Where the kill stops PostgreSQL the grace holds.
func leaderChange(c *check) string {
	grace := c.timing.TTL + 2*c.timing.LoopWait
	at := c.in.Memory.LeaderChanged
	if age := c.now.Sub(at); !c.urgent() && at != 0 && age < grace && !c.hangsSince(at) {
		return refuse("the leader changed %s ago; %s are left to it", age.Round(time.Second), grace)
	}
	return ""
}

// hangsSince reports whether the lease of the leader, which is the target of a kill that spares PostgreSQL, has missed a
// renewal that was due since then.
func (c *check) hangsSince(at node.Instant) bool {
	left, known := c.lease()
	due := max(c.due(left), c.timing.TTL-c.now.Sub(at))
	return c.a.Leader && c.a.Class == node.ClassRevive && known && due < c.timing.Missed()
}

// drainTime is how long HAProxy may take to see that /primary has turned 503 and to end the sessions here: three checks,
// three seconds apart (FACTS.md §10), and a second more.
const drainTime = 10 * time.Second

// leaderSafety: what answers, renews and runs is not killed, whatever the engine thought (FAULTS.md S6). In failsafe mode
// any restart can demote the primary (FACTS.md §0.4).
//
// A leader that lost its key while its API answers is the only primary still: its API says so to the other members, none
// of them takes the key (Patroni #2388), and HAProxy leads clients here until its checks have seen the 503. Killed in that
// time, it makes way: another member may take the key before a fresh Patroni is back, and what was acknowledged here
// meanwhile is lost (FAULTS.md S40, found by the simulation). Once HAProxy has let go there is nothing left to lose, and a
// kill ends the outage, whoever wins the key. Where the API is silent nothing holds the others back, and the sooner
// PostgreSQL here is demoted the less is lost.
func leaderSafety(c *check) string {
	if c.a.Verb != node.SoftKill {
		return ""
	}
	left, known := c.lease()
	if c.f.Liveness.Value.Alive() && (!known || c.due(left) >= c.timing.Overdue()) {
		return refuse("Patroni answers that its loop runs, and its lease has %s left%s", left.Round(time.Second), c.excused(left))
	}
	orphaned := c.now.Sub(c.m.Orphaned)
	if c.m.Orphaned != 0 && orphaned < drainTime && c.f.Liveness.Value.Outcome == probe.OutcomeAnswered && !planted.On("guard/no-drain") {
		return refuse("nobody has held the leader key for %s, and clients that HAProxy led here can still write: %s are left to its checks, because another member may take the key as soon as Patroni's API here is gone", orphaned.Round(100*time.Millisecond), drainTime)
	}
	if c.cluster().Config.FailsafeMode && c.a.Finding == node.PatroniLoopStuck {
		return refuse("failsafe_mode is on: a primary may lawfully outlive its lease")
	}
	return ""
}

func (c *check) lease() (time.Duration, bool) {
	f := c.in.Snapshot.DCS.MemberLease
	if c.a.Leader {
		f = c.in.Snapshot.DCS.LeaderLease
	}
	return node.LeaseLeft(f, c.now), f.Fresh(c.now, c.limit()) || planted.On("guard/unknown-lease-is-known")
}

// due is what a lease has left for the purpose of blaming its owner, see node.Memory.LeaseDue.
func (c *check) due(left time.Duration) time.Duration {
	return c.in.Memory.LeaseDue(left, c.timing.TTL, c.now)
}

// excused adds why a lease does not count in full to the words about it.
func (c *check) excused(left time.Duration) string {
	if why := c.in.Memory.LeaseExcuse(left, c.timing.TTL, c.now); why != "" {
		return ", and " + why
	}
	return ""
}

// leaseWindow: a kill of the leader's Patroni must end, with the lease renewed, well before the lease does; and where the
// kill takes PostgreSQL along, the lease must have proved the hang first (FAULTS.md S7).
func leaseWindow(c *check) string {
	if c.a.Verb != node.SoftKill || !c.a.Leader {
		return ""
	}
	left, known := c.lease()
	window := windowRevive
	if c.a.Class == node.ClassDisrupt {
		window = windowDisrupt
	}
	if planted.On("guard/no-window") {
		window = 0
	}
	switch {
	case !known:
		return refuse("the life left of the leader's lease is unknown")
	case left < window:
		return refuse("the leader's lease ends in %s; a fresh Patroni needs up to %s", left.Round(100*time.Millisecond), window)
	case c.a.Class == node.ClassDisrupt && c.due(left) >= c.timing.Missed():
		return refuse("the hang is not proved by the lease yet: %s left, proof is below %s%s (without KillMode=process the kill stops PostgreSQL too)", left.Round(100*time.Millisecond), c.timing.Missed(), c.excused(left))
	}
	return ""
}

// configValid: never restart into a broken configuration (FAULTS.md F13, F14).
func configValid(c *check) string {
	cfg := c.f.Config
	if !cfg.Known {
		return refuse("it is unknown whether Patroni's configuration is valid: %s", nameOr(cfg.Why, "not checked yet"))
	}
	if !cfg.Value.Valid {
		return refuse("Patroni's configuration %s is broken, so it could not start: %s", cfg.Value.File, nameOr(strings.Join(cfg.Value.Problems[:min(1, len(cfg.Value.Problems))], ""), "invalid"))
	}
	return ""
}

// unitSafety: the unit and the process must be such that the verb does what it says (FAULTS.md S7).
func unitSafety(c *check) string {
	if c.kind != node.KindPatroni {
		return c.serviceUnit()
	}
	u, p := c.f.Unit.Value, c.f.Process
	if c.a.Verb == node.Restart {
		return refuse("a restart of Patroni stops PostgreSQL (FAULTS.md L3): it is never done")
	}
	if c.a.Verb == node.StartFailed {
		switch pg := c.f.Postgres.Value; {
		case u.State != service.StateFailed:
			return refuse("%s is %s, not failed", c.a.Unit, u.State)
		case !pg.Initialized:
			return refuse("the data directory %s is empty or not mounted: a starting Patroni would clone or initialise it", pg.DataDir)
		}
		return ""
	}
	switch {
	case u.State != service.StateRunning:
		return refuse("%s is %s", c.a.Unit, u.State)
	case !p.Value.Exists || p.Value.PID != u.MainPID:
		return refuse("the main process %d of %s was not found", u.MainPID, c.a.Unit)
	case p.Value.State == "D":
		return refuse("the main process sleeps uninterruptibly in the kernel (state D): SIGKILL would have no effect until its I/O returns")
	case !u.RestartsOnKill():
		return refuse("%s has Restart=%s: nothing would start Patroni again; set Restart=on-failure", c.a.Unit, nameOr(u.Restart, "no"))
	case c.a.Class == node.ClassRevive && !u.SparesChildren() && !planted.On("engine/killmode-ignored"):
		return refuse("%s has KillMode=%s: the kill would stop PostgreSQL", c.a.Unit, nameOr(u.KillMode, "control-group"))
	}
	return startLimit(c, u)
}

// startLimit keeps two starts in reserve, or the kill would leave Patroni down (FAULTS.md L7).
func startLimit(c *check, u service.Status) string {
	if u.StartLimit <= 0 {
		return ""
	}
	used := 0
	for _, at := range c.m.Starts {
		if c.now.Sub(at) <= u.StartLimitSpan {
			used++
		}
	}
	// An agent that is younger than the span has not seen them all. Those that the manager made by itself it has counted.
	if c.in.Snapshot.Self.StartedAgo < u.StartLimitSpan {
		used = max(used, u.Restarts+1)
	}
	reserve := 2
	if planted.On("guard/no-start-reserve") {
		reserve = 0
	}
	if used > u.StartLimit-reserve {
		return refuse("%d of %d starts per %s are used up", used, u.StartLimit, u.StartLimitSpan)
	}
	return ""
}

// busyWork: bootstrap, rewind, recovery, a shutdown and their tools are not interrupted (FACTS.md §0.10, G_state,
// G_nochild). What Patroni says of PostgreSQL may be old, or not be heard at all; the lock file of PostgreSQL is here, and
// as new as the rest of what is known of it.
func busyWork(c *check) string {
	switch pg := c.f.Postgres.Value; {
	case c.f.Postgres.Known && pg.Running && pg.ServerStatus == probe.ServerStopping:
		return refuse("PostgreSQL here is stopping, which can take minutes")
	case c.f.Postgres.Known && pg.Starting() && c.a.Verb == node.SoftKill:
		return refuse("PostgreSQL here is starting, which can take minutes")
	}
	if api := c.f.API; api.Fresh(c.now, FreshScan) && node.BusyState(api.Value.State) {
		return refuse("Patroni says %q", api.Value.State)
	}
	if m, ok := c.cluster().Member(c.spec.Member); ok && node.BusyState(m.State) {
		return refuse("the member key says %q", m.State)
	}
	if jobs := c.f.Machine.Value.Jobs; len(jobs) > 0 {
		return refuse("in progress here: %s", strings.Join(jobs, ", "))
	}
	return ""
}

// watchdog: a kill leaves the device armed; the machine would be reset (FACTS.md §3.1).
func watchdog(c *check) string {
	if c.a.Verb == node.SoftKill && c.f.Process.Value.Watchdog {
		return refuse("Patroni holds a watchdog device, which resets this machine if Patroni hangs")
	}
	return ""
}
