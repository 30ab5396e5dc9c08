package main

import (
	"fmt"
	"io"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/test/conformance"
)

// How a script of package conformance is run in the model.
const (
	conformSeeds = 8                     // runs of a script: phases of loops and checks differ
	lookEvery    = 50 * time.Millisecond // at what can be seen from outside
	before       = 60 * time.Second      // before a script begins
)

// conform compares the model with what the lab recorded in a folder, prints a report and returns the exit code: 1 where a
// script does not agree or was not recorded.
func conform(dir string, w io.Writer) int {
	var all []conformance.Comparison
	missing := 0
	for _, s := range conformance.Scripts() {
		rec, err := conformance.Load(dir, s)
		if err != nil {
			fmt.Fprintf(w, "%-26s %-5s %s\n", s.Name, s.Fault, err)
			missing++
			continue
		}
		all = append(all, conformance.Compare(s, rec.Runs, modelRuns(s)))
	}
	if conformance.Report(w, all) > 0 || missing > 0 {
		return 1
	}
	return 0
}

func modelRuns(s conformance.Script) []conformance.Run {
	var runs []conformance.Run
	for seed := uint64(1); len(runs) < conformSeeds; seed++ {
		if w := newWorld(seed, false, nil); len(w.machines) == 3 {
			runs = append(runs, w.perform(s))
		}
	}
	return runs
}

// perform runs a script in a world that has not begun, and watches it from outside.
func (w *world) perform(s conformance.Script) conformance.Run {
	w.furnish(s)
	leader, replica := w.machines[0], w.machines[1]
	begin := leader.nextLoop(before) + 50*time.Millisecond
	run := conformance.Run{Leader: leader.name, Replica: replica.name}
	e := &eye{w: w, began: begin, put: func(r conformance.Reading) { run.Readings = append(run.Readings, r) }}
	w.after(begin-lookEvery, nil, e.look)
	for _, st := range s.Steps {
		m := leader
		if st.On == conformance.Replica {
			m = replica
		}
		w.after(begin+st.At, nil, func() { w.carryOut(st, m) })
	}
	w.run(begin + s.Look)
	for _, m := range w.machines {
		for _, p := range m.agent.procs {
			p.kill()
		}
	}
	return run
}

// furnish gives a world the timings, the unit and the agents that a script is meant for.
func (w *world) furnish(s conformance.Script) {
	// As test/lab/stack has them.
	w.timing = node.Timing{TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second}
	if s.Timings == "fast" {
		w.timing = node.Timing{TTL: 20 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 3 * time.Second}
	}
	w.agents = s.Agents != conformance.NoAgents
	for i, m := range w.machines {
		m.phase = time.Duration(m.rnd.Int64N(int64(w.timing.LoopWait)))
		m.uptime = 10 * time.Minute
		m.unit.killMode = "process"
		m.agent.policy = node.Policy{Adjust: node.ModeObserve, Revive: node.ModeAuto, Disrupt: node.ModeObserve, Expedite: node.ModeOff}
		if s.KillMode != "" {
			m.agent.policy.Disrupt = node.ModeAuto
			if i == 0 {
				m.unit.killMode = s.KillMode
			}
		}
		if w.agents && !(i == 0 && s.Agents == conformance.LateLeader) {
			w.after(time.Duration(m.rnd.IntN(2000))*time.Millisecond, m, m.agent.start)
		}
	}
}

// nextLoop is the first turn of Patroni's loop after a moment.
func (m *machine) nextLoop(after instant) instant {
	wait := m.w.timing.LoopWait
	return m.phase + (after-m.phase+wait)/wait*wait
}

// carryOut does one step of a script.
func (w *world) carryOut(st conformance.Step, m *machine) {
	lasts := st.For
	if lasts == 0 {
		lasts = time.Hour
	}
	switch st.Do {
	case conformance.HangPatroni:
		m.sicken(&m.stopped)
		w.after(lasts, m, m.carryOn)
	case conformance.CrashUntilFailed:
		m.crashUntilFailed()
	case conformance.StartAgent:
		m.agent.start()
	default:
		w.inflict(map[conformance.Verb]string{
			conformance.KillPatroni:    "patroni-killed",
			conformance.StopUnit:       "operator-stop",
			conformance.RestartUnit:    "operator-restart",
			conformance.RefuseREST:     "rest-refused",
			conformance.StickLoop:      "loop-stuck",
			conformance.KillPostmaster: "postmaster-killed",
			conformance.PauseCluster:   "patronictl-pause",
			conformance.LoseQuorum:     "etcd-without-quorum",
			conformance.RaiseNoSpace:   "etcd-nospace",
			conformance.CutFromEtcd:    "cut-from-etcd",
			conformance.Isolate:        "isolated",
		}[st.Do], m, lasts)
	}
}

// inflict lets a kind of fault happen to a machine.
func (w *world) inflict(kind string, m *machine, lasts time.Duration) {
	for _, k := range kinds {
		if k.name == kind {
			k.do(w, m, fault{kind: kind, lasts: lasts})
			return
		}
	}
	panic("no such kind of fault: " + kind)
}

// carryOn is SIGCONT: what the loop slept for is long over.
func (m *machine) carryOn() {
	if m.stopped {
		m.w.changed()
		m.stopped = false
		m.trouble()
		m.loop()
	}
}

// crashUntilFailed kills Patroni as soon as it lives, until its manager gives up.
func (m *machine) crashUntilFailed() {
	if m.unit.state != service.StateFailed {
		m.unit.kill()
		m.w.after(170*time.Millisecond, m, m.crashUntilFailed) // systemd restarts it after 100
	}
}

// eye looks at what can be seen of the model from outside, again and again.
type eye struct {
	w     *world
	began instant
	put   func(conformance.Reading)
	last  map[string]conformance.Reading
	pids  map[string]int
}

func (e *eye) look() {
	if e.last == nil {
		e.last, e.pids = map[string]conformance.Reading{}, map[string]int{}
	}
	w := e.w
	w.changed()
	for _, m := range w.machines {
		e.unit(m)
		e.see(conformance.API, m.name, pick(m.answers(), conformance.Up, conformance.Down), 0)
		switch {
		case !m.running || m.busy == "stopping" || m.asleep():
			e.see(conformance.Postgres, m.name, conformance.None, 0)
		default:
			e.see(conformance.Postgres, m.name, pick(m.primary, conformance.Primary, conformance.Follows), m.postmaster)
		}
	}
	e.see(conformance.Writer, "-", pick(w.proxy.routed() != nil, conformance.Writes, conformance.Waits), 0)
	if w.etcd.leader != nil {
		holder := w.etcd.value(prefix + "leader")
		e.see(conformance.Key, "-", pick(holder != "", holder, conformance.Nobody), 0)
	}
	w.after(lookEvery, nil, e.look)
}

func pick(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// unit sees what systemd would tell. Of a crash it sees both, the end and the new life: systemd waits 100 ms between them.
func (e *eye) unit(m *machine) {
	u := &m.unit
	was, known := e.pids[m.name]
	e.pids[m.name] = u.pid
	switch {
	case !known || was == u.pid:
	case u.pid != 0:
		if was != 0 { // a crash would take until the next look
			e.moment(m, conformance.Stopped)
		}
		e.moment(m, conformance.Lives)
	case u.state == service.StateStopped:
		e.moment(m, conformance.Stopped)
	default:
		e.moment(m, conformance.Died)
	}
	if failed := u.state == service.StateFailed; failed != (e.last["failed "+m.name].State != "") {
		if failed {
			e.moment(m, conformance.GivenUp)
		}
		e.last["failed "+m.name] = conformance.Reading{State: pick(failed, "yes", "")}
	}
}

func (e *eye) moment(m *machine, what string) {
	e.put(conformance.Reading{At: e.w.now - e.began, Kind: conformance.Unit, Node: m.name, State: what})
}

// see notes a state that is not what it was.
func (e *eye) see(kind conformance.Kind, name, state string, life int) {
	r := conformance.Reading{At: e.w.now - e.began, Kind: kind, Node: name, State: state, Life: life}
	if was := e.last[string(kind)+" "+name]; was.State != r.State || was.Life != r.Life {
		e.last[string(kind)+" "+name] = r
		e.put(r)
	}
}
