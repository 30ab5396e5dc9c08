package whynot

import (
	"fmt"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/engine"
	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// What the engine takes for proof (agent/engine/step.go). They are repeated here to be shown; TestPaths_AgreeWithTheEngine
// fails when the two differ.
const (
	observations  = 3
	stoppedProof  = 3 * time.Second
	hangProof     = 6 * time.Second
	replicaProof  = 20 * time.Second
	renewalGap    = time.Second
	zombieProof   = time.Second
	refusedProof  = 15 * time.Second
	startUp       = 60 * time.Second
	etcdProof     = 30 * time.Second
	etcdStart     = 10 * time.Minute
	machineProof  = 30 * time.Second
	muteProof     = 2 * time.Second
	deafProof     = 6 * time.Second
	fewSightings  = 2 // of a sick Patroni next to a second primary, of a lease, and of a forwarder that carries nothing
	refusedSights = 3
)

func (s *sight) paths(verb node.Verb) []Path {
	if verb == node.StartFailed {
		return []Path{
			path(node.PatroniFailed, s.unitIs(service.StateFailed), s.noSecondPrimary()),
			path(node.ZombiePrimary, s.unitIs(service.StateFailed), s.secondPrimary(), s.notPaused()),
		}
	}
	running := s.unitIs(service.StateRunning)
	hung := []Condition{running, s.seen("silent", "Patroni's API does not answer", observations, 0, s.live()), s.hangProved()}
	stuck := []Condition{running, s.answers(), s.notBusy(), s.overdue(), s.grown()}
	if !s.leader && !s.orphaned {
		hung = append(hung, s.missed("since this member does not lead, its lease must have missed a renewal too", 1, 0))
		stuck = append(stuck, s.seen("loopdead", "since this member does not lead, Patroni itself must say that its loop is stuck (HTTP 503)", observations, replicaProof, s.live()))
	}
	return []Path{
		path(node.PatroniHung, append(hung, s.noSecondPrimary())...),
		path(node.PatroniLoopStuck, append(stuck, s.noSecondPrimary())...),
		path(node.PatroniAPIDead, running, s.seen("refused", "nobody listens on Patroni's API", refusedSights, refusedProof, s.live()),
			s.renewed(), s.grown(), s.noSecondPrimary()),
		path(node.ZombiePrimary, running, s.secondPrimary(), s.notPaused(), s.sick()),
	}
}

func path(f node.Code, cs ...Condition) Path {
	p := Path{Finding: f, Met: true, Conditions: cs}
	for _, c := range cs {
		p.Met = p.Met && c.Met
	}
	return p
}

func (s *sight) unitIs(want service.State) Condition {
	u := s.f.Unit
	return Condition{
		Met:  u.Fresh(s.now, engine.FreshLocal) && u.Value.State == want,
		Need: fmt.Sprintf("%s is %s", s.spec.Unit, want), Seen: s.unitState(),
	}
}

// seen asks for a streak.
func (s *sight) seen(name, what string, count int, held time.Duration, now string) Condition {
	return lasting(s.streak(name), what, count, held, now)
}

func lasting(st node.Streak, what string, count int, held time.Duration, now string) Condition {
	need := fmt.Sprintf("%s, seen %d times", what, count)
	if held > 0 {
		need += fmt.Sprintf(" over %s", held)
	}
	return Condition{Met: st.Count >= count && st.Held() >= held, Need: need, Seen: now + sightings(st)}
}

func sightings(st node.Streak) string {
	switch st.Count {
	case 0:
		return ""
	case 1:
		return " (seen once)"
	}
	return fmt.Sprintf(" (seen %d times over %s)", st.Count, st.Held().Round(100*time.Millisecond))
}

// hangProved: a stopped process, or a lease that a live Patroni would have renewed.
func (s *sight) hangProved() Condition {
	stopped, silent, missed := s.streak("stopped"), s.streak("silent"), s.streak("missed")
	needStopped, need := stoppedProof, hangProof
	if !s.leader && !s.orphaned {
		needStopped, need = replicaProof, replicaProof
	}
	byState := stopped.Count >= observations && stopped.Held() >= needStopped
	byLease := missed.Count >= fewSightings && missed.Held() >= renewalGap && silent.Held() >= need
	state := "the main process was not found"
	if p := s.f.Process; p.Known && p.Value.Exists {
		state = "the main process is in state " + p.Value.State
	}
	return Condition{
		Met: byState || byLease,
		Need: fmt.Sprintf("the main process is stopped (state T), seen %d times over %s; or the lease has less than %s left twice, %s apart, and the API is silent for %s",
			observations, needStopped, s.timing.Missed(), renewalGap, need),
		Seen: fmt.Sprintf("%s%s; %s%s", state, sightings(stopped), s.leaseWords(), sightings(missed)),
	}
}

func (s *sight) missed(why string, count int, held time.Duration) Condition {
	c := s.seen("missed", why, count, held, s.leaseWords())
	c.Need = fmt.Sprintf("%s: less than %s left", why, s.timing.Missed())
	return c
}

func (s *sight) overdue() Condition {
	return s.seen("overdue", fmt.Sprintf("the lease has less than %s left", s.timing.Overdue()), fewSightings, renewalGap, s.leaseWords())
}

func (s *sight) renewed() Condition {
	return Condition{
		Met:  s.leased && s.left >= s.timing.Missed(),
		Need: fmt.Sprintf("the lease is renewed: %s or more left", s.timing.Missed()), Seen: s.leaseWords(),
	}
}

func (s *sight) answers() Condition {
	l := s.f.Liveness
	return Condition{
		Met:  l.Fresh(s.now, engine.FreshLocal) && l.Value.Outcome == probe.OutcomeAnswered,
		Need: "Patroni's API answers", Seen: s.live(),
	}
}

func (s *sight) notBusy() Condition {
	api := s.f.API
	busy := api.Fresh(s.now, 2*engine.FreshLocal) && node.BusyState(api.Value.State)
	said := "Patroni says nothing of PostgreSQL's state"
	if api.Known && api.Value.State != "" {
		said = fmt.Sprintf("Patroni says %q", api.Value.State)
	}
	return Condition{Met: !busy, Need: "PostgreSQL is not starting, stopping or being cloned", Seen: said}
}

func (s *sight) grown() Condition {
	return Condition{
		Met:  s.age() >= startUp,
		Need: fmt.Sprintf("the main process is older than %s", startUp), Seen: fmt.Sprintf("it is %s old", s.age().Round(time.Second)),
	}
}

func (s *sight) noSecondPrimary() Condition {
	return Condition{Met: s.streak("zombie").Count == 0, Need: "PostgreSQL here is no second primary", Seen: s.primaryWords()}
}

func (s *sight) secondPrimary() Condition {
	st := s.streak("zombie")
	return Condition{
		Met:  st.Count > 0 && st.Held() >= zombieProof,
		Need: fmt.Sprintf("PostgreSQL here is writable while another member holds the leader key, seen over %s", zombieProof),
		Seen: s.primaryWords() + sightings(st),
	}
}

func (s *sight) primaryWords() string {
	pg := "whether PostgreSQL here is writable is unknown"
	switch {
	case s.writable():
		pg = "PostgreSQL here is writable"
	case s.f.Postgres.Known:
		pg = "PostgreSQL here is not writable"
	}
	switch name := s.cluster.LeaderName(); {
	case !s.fresh:
		return pg + ", and who leads is unknown"
	case name == "":
		return pg + ", and nobody holds the leader key"
	default:
		return pg + ", and " + name + " holds the leader key"
	}
}

func (s *sight) notPaused() Condition {
	seen := "it is not paused"
	if s.cluster.Config.Pause {
		seen = "it is paused"
	}
	return Condition{Met: !s.cluster.Config.Pause, Need: "the cluster is not paused", Seen: seen}
}

// sick: a Patroni that is well demotes PostgreSQL by itself.
func (s *sight) sick() Condition {
	silent, missed := s.streak("silent"), s.streak("missed")
	return Condition{
		Met: s.streak("stopped").Count >= fewSightings || s.streak("loopdead").Count >= fewSightings || silent.Count >= fewSightings && missed.Count > 0,
		Need: fmt.Sprintf("Patroni is stopped, or says that its loop is stuck, or does not answer and its lease has less than %s left; seen twice: else it demotes PostgreSQL itself",
			s.timing.Missed()),
		Seen: s.live() + sightings(silent) + "; " + s.leaseWords(),
	}
}
