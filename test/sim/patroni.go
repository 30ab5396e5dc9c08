package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// machine models one node: its clock, its way to etcd, systemd's unit of Patroni, Patroni, and PostgreSQL.
type machine struct {
	w           *world
	host        host
	name        string
	key         string // of the member
	rnd         *rand.Rand
	uptime      time.Duration // at the beginning
	asleepUntil instant
	sleeping    bool
	deaf        bool // what it watches tells it nothing, requests are answered (FAULTS.md F46)
	jump        time.Duration
	upgrading   bool
	upgradeFrom instant
	unit        unit
	agent       *agent
	boots       int
	booted      instant // last, 0: long ago
	senseModel
	otherEtcd    spell         // its agent is led to the etcd of another cluster
	wrongPlace   spell         // its agent looks where no keys are
	otherAPI     spell         // its agent is led to the API of another Patroni
	slept        time.Duration // in all
	woke         instant
	nap          time.Duration // how long it slept last
	jumped       instant       // when its wall clock last did
	keyGone      instant       // when the key of its member last went
	renewed      instant       // when its Patroni last renewed its lease
	postmasterAt instant       // when it last began or ended

	// Patroni
	patroni                  bool   // the main process exists
	ready                    bool   // REST is open, the loop has begun
	stopped                  bool   // SIGSTOP, or frozen
	frozen                   string // why it does not run where that is no signal: the state of the process
	starved                  int    // faults that keep REST from answering in time, while the loop runs
	starvedSince, starvedEnd instant
	exits                    bool          // it ends with an error right after it has begun
	relapses                 int           // how often it will hang again
	relapse                  time.Duration // how long after it has come up
	relapseEnd               instant
	stuck                    bool    // the loop only
	refused                  bool    // REST has no listener
	sickSince                instant // recoveries too short for a look to see do not count
	recovered                instant // when it last was not any more, 0: never
	sick                     bool
	born                     instant
	phase                    time.Duration // of the loop's fixed grid
	lease                    int64
	lost                     instant // since when etcd has not answered the loop
	failing                  bool
	lastLoop                 instant
	badConfig                bool
	configAt                 instant // of its last change
	leadUntil                instant // as Patroni counts it
	fresh                    bool    // it found no PostgreSQL when it began, and has not seen one since
	waits                    bool    // its loop waits for a PostgreSQL that stops
	wrote                    bool    // it took writes of its own since it last followed somebody
	published                node.Member
	sayings                  []saying // what it published, as far as a look that began within unseen could have read it

	// PostgreSQL
	running    bool
	primary    bool
	busy       string // starting, stopping, rewinding
	busySince  instant
	work       int // counts what PostgreSQL is told, so that an older order ends nothing newer
	timeline   uint32
	lsn        float64
	postmaster int
	postTick   uint64
	source     string // member that it streams from
	nofailover bool
	lagging    bool // it replays nothing
	diverged   bool // its content is not its leader's, although it streams (FAULTS.md F105)
	divergedAt instant
	version    string  // of Patroni
	readyAt    instant // when the first Patroni of this boot was, 0: none yet
	firstRun   string  // its invocation
	yields     instant // it does not race for the key until then
	watchdog   bool    // there is a device
	armed      bool    // it resets the machine unless Patroni's loop comes around
	petted     instant
}

func newMachine(w *world, i int, up time.Duration, group bool) *machine {
	m := &machine{w: w, host: host(i), name: fmt.Sprintf("n%d", i+1), uptime: up, version: "4.0.7"}
	m.key = prefix + "members/" + m.name
	m.rnd = w.rand(m.name)
	m.phase = time.Duration(m.rnd.Int64N(int64(w.timing.LoopWait)))
	m.unit = newUnit(m, group)
	m.running, m.primary, m.timeline, m.lsn = true, i == 0, 1, 1000
	m.postmaster, m.postTick = 500+i, m.ticks()-400
	m.agent = newAgent(m)
	if i > 0 {
		m.source = "n1"
	}
	return m
}

// ticks is the time since boot as the kernel counts it.
func (m *machine) ticks() uint64 { return uint64((m.w.now + m.uptime) / (10 * time.Millisecond)) }

// boot finds a cluster that has run for a while.
func (m *machine) boot() {
	m.unit.run()
	m.born = m.w.now - m.uptime
	m.ready = true
	m.loop()
	m.grid()
}

// grid runs Patroni's loop at fixed moments of the machine, so that a restart does not change anybody's luck.
func (m *machine) grid() {
	next := m.phase + (m.w.now-m.phase+m.w.timing.LoopWait)/m.w.timing.LoopWait*m.w.timing.LoopWait
	if next <= m.w.now {
		next += m.w.timing.LoopWait
	}
	m.w.after(next-m.w.now, m, func() {
		m.loop()
		m.grid()
	})
}

// asleep reports whether the machine is suspended.
func (m *machine) asleep() bool { return m.sleeping }

// works reports whether Patroni's loop runs.
func (m *machine) works() bool {
	return m.patroni && m.ready && !m.stopped && !m.stuck && !m.waits && !m.asleep()
}

// answers reports whether Patroni's REST API does.
func (m *machine) answers() bool {
	return m.patroni && m.ready && !m.stopped && !m.refused && m.starved == 0 && !m.asleep()
}

// mute reports whether Patroni's REST API takes requests and answers none.
func (m *machine) mute() bool {
	return m.asleep() || m.patroni && m.ready && (m.stopped || m.starved > 0)
}

// saysPrimary is what GET /primary answers: whether this member holds the leader key, as far as Patroni knows, whatever its
// loop does meanwhile and PostgreSQL is (FACTS.md §2.1).
func (m *machine) saysPrimary() bool { return m.w.now < m.leadUntil }

// trouble notes since when Patroni has not done what it should.
func (m *machine) trouble() {
	sick := m.stopped || m.stuck || m.refused
	switch {
	case m.sick && !sick:
		m.recovered = m.w.now
	case sick && !m.sick && (m.recovered == 0 || m.w.now-m.recovered >= unseen):
		m.sickSince = m.w.now
	}
	m.sick = sick
}

// start is Patroni's main process beginning to live.
func (m *machine) start() {
	m.w.changed()
	m.patroni, m.ready, m.stopped, m.stuck, m.refused, m.frozen = true, false, false, false, false, ""
	m.failing, m.born, m.leadUntil = false, m.w.now, 0
	m.fresh, m.waits = !m.running, false
	m.trouble()
	life := m.unit.invocation
	if m.badConfig || m.exits {
		m.w.after(400*time.Millisecond, m, func() {
			if m.patroni && m.unit.invocation == life {
				m.unit.died("exit-code", 1)
			}
		})
		return
	}
	m.w.after(time.Second, m, func() {
		if !m.patroni || m.unit.invocation != life || m.ready {
			return
		}
		m.w.changed()
		m.ready = true
		if m.readyAt == 0 {
			m.readyAt, m.firstRun = m.w.now, life
		}
		m.loop()
		m.fallIll()
	})
}

// gone is Patroni's main process having ended.
func (m *machine) gone() {
	m.w.changed()
	m.patroni, m.ready, m.stopped, m.stuck, m.refused, m.frozen = false, false, false, false, false, ""
	m.trouble()
	m.recovered = 0 // whoever comes next begins anew
	m.w.proxy.died(m)
}

// leaderKeyChanged wakes a loop that watches the leader key.
func (m *machine) leaderKeyChanged(holder string) {
	if holder == "" && !m.primary {
		m.w.after(100*time.Millisecond+m.phase/100, m, m.loop)
	}
}

// loop is one turn of Patroni's HA loop.
func (m *machine) loop() {
	if !m.works() {
		return
	}
	if !m.w.etcd.answers(m) {
		m.withoutEtcd()
		return
	}
	m.w.changed()
	m.failing, m.lastLoop = false, m.w.now
	m.fresh = m.fresh && !m.running
	if !m.touch() {
		return
	}
	key := m.w.etcd.value(prefix + "leader")
	m.leadUntil = 0
	switch {
	case key == m.name:
		m.lead()
	case key != "":
		m.followLeader(key)
	case m.mayLead():
		m.w.etcd.put(prefix+"leader", m.name, m.lease)
		m.lead()
	case m.primary && m.running && m.busy == "" && !m.w.paused:
		m.demote() // it cannot take the key
	case !m.running && m.busy == "" && !m.w.paused:
		m.tell("starting", 3*time.Second, func() { m.startPostgres(false) }) // and race for the key then
	}
	m.touch()
}

// withoutEtcd: a primary demotes itself when etcd has not answered for retry_timeout, unless the cluster is paused.
func (m *machine) withoutEtcd() {
	if m.failing {
		return
	}
	m.failing, m.lost = true, m.w.now
	m.retry()
}

func (m *machine) retry() {
	life := m.unit.invocation
	m.w.after(500*time.Millisecond, m, func() {
		switch {
		case m.unit.invocation != life || !m.failing:
		case !m.works():
			m.failing = false // once it goes on, its loop finds out anew
		case m.w.etcd.answers(m):
			m.loop()
		case m.w.now-m.lost < m.w.timing.RetryTimeout:
			m.retry()
		case m.primary && m.running && m.busy == "" && !m.w.paused:
			m.demote()
			m.failing = false
		default:
			m.failing = false
		}
	})
}

// touch renews the lease and the member key and reports whether there is one.
func (m *machine) touch() bool {
	e := m.w.etcd
	if kv := e.keys[m.key]; m.lease == 0 && kv != nil {
		m.lease = kv.Lease
	}
	if m.lease == 0 || !e.keep(m.lease) {
		m.lease = 0
		if e.nospace {
			return false
		}
		m.lease = e.grant(m.w.timing.TTL)
	}
	if !e.nospace {
		m.publish()
		e.put(m.key, m.member(), m.lease)
	}
	m.renewed = m.w.now
	return true
}

// mayLead reports whether this member wins the race for the key that nobody holds. It asks every other member that it can
// reach; one that is silent counts for nothing (FACTS.md §2.6).
func (m *machine) mayLead() bool {
	if !m.running || m.busy != "" || m.w.etcd.nospace || m.nofailover || m.w.now < m.yields {
		return false
	}
	if m.w.paused {
		return m.primary
	}
	if m.primary {
		return m.newest()
	}
	if m.w.optime() > m.lsn+maximumLag {
		return false
	}
	for _, o := range m.w.machines {
		if o == m || !m.w.net.reach(m.host, o.host) || !o.answers() || !o.running || o.nofailover {
			continue
		}
		if o.timeline >= m.timeline && (o.lsn > m.lsn+0.5 || o.primary && o.timeline == m.timeline) {
			return false
		}
	}
	return m.newest()
}

// maximumLag is maximum_lag_on_failover, in writes: of ten seconds.
const maximumLag = 1000

// newest reports whether no member ever led a later timeline.
func (m *machine) newest() bool {
	for _, o := range m.w.machines {
		if o.timeline > m.timeline {
			return false
		}
	}
	return true
}

// lead: this member holds the key.
func (m *machine) lead() {
	m.leadUntil = m.w.now + m.w.timing.TTL
	m.pet()
	m.switchOverDue()
	switch {
	case m.busy != "":
	case !m.running:
		// A Patroni that did not know it as a primary starts a replica, and promotes it in the next turn (lab, hang-leader-group).
		m.tell("starting", 3*time.Second, func() { m.startPostgres(!m.fresh) })
	case !m.primary:
		m.tell("promoting", 200*time.Millisecond, func() {
			if m.w.etcd.value(prefix+"leader") != m.name || !m.running {
				return
			}
			m.primary, m.source = true, ""
			m.timeline++
			m.w.forks = append(m.w.forks, m.lsn)
			m.w.say("%s: promoted, timeline %d", m.name, m.timeline)
		})
	}
}

// followLeader: another member holds the key.
func (m *machine) followLeader(key string) {
	lead := m.w.machine(key)
	switch {
	case m.busy != "" || m.w.paused && m.primary:
	case m.running && m.primary:
		m.demote()
	case !m.running && m.astray() == 0:
		m.tell("starting", time.Second, func() { m.startPostgres(false) }) // and follow whoever leads in the next turn
	case !lead.primary || m.running && m.timeline == lead.timeline && m.source == key:
	case m.astray() > 0:
		if m.running {
			m.stopPostgres("for pg_rewind")
		}
		m.tell("rewinding", 4*time.Second, func() { m.join(lead) })
	default:
		m.join(lead) // a reload of its configuration
	}
}

// publish is what Patroni says of its member.
func (m *machine) publish() {
	mem := node.Member{
		Name: m.name, State: m.stateWord(), Role: "replica", Version: m.version, HasLSN: true, NoFailover: m.nofailover,
		Timeline: int64(m.timeline), LSN: uint64(m.lsn),
	}
	if m.primary {
		mem.Role = "primary"
	} else if mem.State == "running" && m.streams() {
		mem.ReplicationState = "streaming"
	}
	m.published = mem
	m.sayings = append(m.sayings, saying{m.w.now, mem})
	for len(m.sayings) > 1 && m.w.now-m.sayings[1].at >= unseen {
		m.sayings = m.sayings[1:]
	}
}

// saying is what a member published, from a moment on.
type saying struct {
	at instant
	node.Member
}

// member is the value of the member key: it changes when what Patroni says of its member does.
func (m *machine) member() string {
	p := &m.published
	return fmt.Sprintf("%s %s %s %d %d", p.State, p.Role, p.ReplicationState, p.Timeline, p.LSN)
}

func (m *machine) stateWord() string {
	switch {
	case m.busy == "starting":
		return "starting"
	case m.busy == "stopping":
		return "stopping"
	case m.busy == "rewinding":
		return "running"
	case !m.running:
		return "stopped"
	}
	return "running"
}
