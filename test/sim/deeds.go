package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/coordinator"
)

// deed is a kind of action that the product carries out, and the faults of the leader that lead to it.
type deed struct {
	name    string
	verb    node.Verb
	finding node.Code
	class   node.Class
	faults  []string
	replica bool // they strike a replica
}

// deeds are all of them. To be a second primary, the leader is cut from etcd until another member has become it.
var deeds = []deed{
	{"hung-revive", node.SoftKill, node.PatroniHung, node.ClassRevive, []string{"patroni-stopped"}, false},
	{"hung-disrupt", node.SoftKill, node.PatroniHung, node.ClassDisrupt, []string{"patroni-stopped"}, false},
	{"loop-revive", node.SoftKill, node.PatroniLoopStuck, node.ClassRevive, []string{"loop-stuck"}, false},
	{"loop-disrupt", node.SoftKill, node.PatroniLoopStuck, node.ClassDisrupt, []string{"loop-stuck"}, false},
	{"api-revive", node.SoftKill, node.PatroniAPIDead, node.ClassRevive, []string{"rest-refused"}, false},
	{"api-disrupt", node.SoftKill, node.PatroniAPIDead, node.ClassDisrupt, []string{"rest-refused"}, true},
	{"zombie-revive", node.SoftKill, node.ZombiePrimary, node.ClassRevive, []string{"cut-from-etcd", "patroni-stopped"}, false},
	{"zombie-disrupt", node.SoftKill, node.ZombiePrimary, node.ClassDisrupt, []string{"cut-from-etcd", "patroni-stopped"}, false},
	{"failed-start", node.StartFailed, node.PatroniFailed, node.ClassRevive, []string{"start-limit"}, false},
	{"zombie-start", node.StartFailed, node.ZombiePrimary, node.ClassRevive, []string{"cut-from-etcd", "start-limit"}, false},
}

const (
	struck = 20 * time.Second // when the faults strike
	cutFor = 50 * time.Second // longer than a leader key lives
	// patience is how long after the act without a crash a world goes on at most. That is enough for an agent that comes back,
	// finds its own lock, waits until that has ended, and acts.
	patience = 30*time.Second + coordinator.LockTTL + 2*time.Minute
	// calm is how long an agent must have lived in a world that is well again, and it ends: longer than a unit is left alone
	// after an act, so that a second act would be seen.
	calm = 90 * time.Second
	// busy is how many steps nobody needs in one life: a recovery and two actions have half as many.
	busy = 200
	// stages is how many seeds are tried as the stage of a deed.
	stages = 200
)

// comebacks are how a killed agent starts again, by name.
var comebacks = []comeback{
	{name: "1s", after: time.Second},
	{name: "30s", after: 30 * time.Second},
	{name: "reboot", after: 30 * time.Second, reboot: true},
}

// stage is the world of a deed, the same every time but for the crashes.
type stage struct {
	deed
	seed  uint64
	agent string // whose deed it is
	until instant
	steps []string // of the life without a crash
}

// set finds the first seed that, with three machines, leads to the deed and to nothing else.
func (d deed) set() (stage, error) {
	for seed := uint64(1); seed <= stages; seed++ {
		w := d.world(seed, nil)
		w.run(struck + cutFor + settleDown)
		w.end()
		if acts := w.check.acts; len(acts) == 1 && d.is(acts[0].action) && acts[0].m.unwell() == "" && len(w.facts.Violations) == 0 && len(w.machines) == 3 {
			s := stage{deed: d, seed: seed, agent: acts[0].m.name, until: acts[0].at + patience}
			s.steps = s.play(nil, nil).steps.seen[0]
			return s, nil
		}
	}
	return stage{}, fmt.Errorf("none of %d seeds leads to %s", stages, d)
}

func (d deed) String() string { return fmt.Sprintf("%s %s (%s)", d.verb, d.finding, d.class) }

func (d deed) is(a node.Action) bool {
	return a.Verb == d.verb && a.Finding == d.finding && a.Class == d.class
}

// world is a world in which agents may do everything and the faults of the deed strike.
func (d deed) world(seed uint64, trace *strings.Builder) *world {
	w := newWorld(seed, true, trace)
	for _, m := range w.machines {
		m.agent.policy.Disrupt = node.ModeAuto
		m.unit.killMode = "process"
		if d.class == node.ClassDisrupt {
			m.unit.killMode = "control-group"
		}
	}
	for i, kind := range d.faults {
		f := fault{number: i + 1, at: struck + time.Duration(i)*100*time.Millisecond, kind: kind, leader: !d.replica, lasts: cutFor}
		w.after(f.at, nil, func() { w.strike(f) })
	}
	return w
}

// play plays the stage with crashes until all is well again, or patience is at its end.
func (s stage) play(kills []kill, trace *strings.Builder) *world {
	w := s.world(s.seed, trace)
	w.steps = &steps{agent: s.agent, kills: kills}
	a := w.machine(s.agent).agent
	for w.now < s.until {
		w.run(w.now + 10*time.Second)
		w.steps.lock.look(w)
		if len(w.steps.seen) > len(kills) && a.alive && w.now-a.born > calm && w.now > struck+cutFor && len(w.leftovers(a)) == 0 && a.m.unwell() == "" {
			break
		}
	}
	w.changed()
	w.end()
	return w
}

// end ends all processes of a world that is over.
func (w *world) end() {
	for _, m := range w.machines {
		for _, p := range m.agent.procs {
			p.kill()
		}
	}
}
