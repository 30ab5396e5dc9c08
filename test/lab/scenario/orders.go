package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// orderScenarios are about what people order of pgpatrol itself: to keep still, or to go on with one action. The faults
// are those of F02 and F04, so that something would be done at once without the order.
func orderScenarios() []Scenario {
	return slices.Concat(holdScenarios(), askScenarios())
}

// Moments at which orderScenarios ask, and what they keep of the answers.
const (
	heldBack     = "held"           // the plan shows that an order holds the action back
	askedUnknown = "approve nobody" // an ID that no agent ever proposed
	askedAgain   = "approve again"  // the ID of an action whose moment is over
)

// unknownID looks like an action's ID and is that of a life of Patroni that never was.
const unknownID = "soft-kill/patroni/PATRONI_HUNG/00000000"

// holdScenarios are about orders to keep still.
func holdScenarios() []Scenario {
	return []Scenario{
		{
			ID: "PAUSE-node", Title: "Patroni hangs on the leader while pgpatrol is paused there, and resumed in time",
			Timings: heldTimings(),
			Fault:   hangWhilePaused,
			Observe: observeRelease,
			Harm:    []Check{SecondPrimary(), GapOver(2 * time.Second)},
			Heal: append(released(),
				saysAt(heldBack, theLeader, "paused by a person", refusesSaying(node.PatroniHung, node.GuardPause, "(node)", "work"))),
		},
		{
			ID: "PAUSE-scope", Title: "Patroni hangs on the leader while pgpatrol is paused for the cluster, from another node", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := order(ctx, r, r.Replicas[0], "pause", "--scope", "--reason", "work", "--for", "10m"); err != nil {
					return err
				}
				return hangForAWhile(ctx, r)
			},
			Observe: lookFor(18 * time.Second),
			Heal: append(kept(),
				Untouched(theLeader, theReplica, theSpare), SamePostmaster(), GapUnder(time.Second),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "paused by a person", refusesSaying(node.PatroniHung, node.GuardPause, "(scope)", "work"))),
		},
		{
			// A fence is held back like everything else: there are two primaries until a person ends one.
			ID: "KILL-file", Title: "a second primary, and somebody has touched the kill switch's file there", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := touchKillSwitch(ctx, r, r.Leader); err != nil {
					return err
				}
				return makeZombie(ctx, r)
			},
			// The second primary comes at most ttl + 3 s after the fault; it is fenced within 3 s of that.
			Observe: func(t stack.Timings) time.Duration { return seconds(t.TTL) + 15*time.Second },
			Heal: []Check{
				NoAction(), Promotions(1), SecondPrimary(), TwoPrimariesAtEnd(), Untouched(theLeader, theReplica, theSpare), SamePostmasters(),
				says(theLeader, "two primaries", finds("ZOMBIE_PRIMARY", "page", "")),
				says(theLeader, "held back", refusesSaying(node.ZombiePrimary, node.GuardKillSwitch, stack.AgentKillSwitch)),
			},
		},
		{
			ID: "UPGRADE", Title: "Patroni hangs on the leader while apt-get runs there", Timings: fastTimings(),
			Fault: func(ctx context.Context, r *Run) error {
				if err := runPackageManager(ctx, r, r.Leader); err != nil {
					return err
				}
				return hangForAWhile(ctx, r)
			},
			Observe: lookFor(18 * time.Second),
			Heal: append(kept(),
				Untouched(theLeader, theReplica, theSpare), SamePostmaster(), GapUnder(time.Second),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "left to the upgrade", refusesSaying(node.PatroniHung, node.GuardUpgrade, "apt-get"))),
		},
	}
}

// askScenarios are about policy ask.
func askScenarios() []Scenario {
	return []Scenario{
		{
			ID: "ASK-approved", Title: "Patroni hangs on the leader, policy ask, and a person approves the kill", Timings: heldTimings(),
			Policy:  map[string]string{"revive": "ask"},
			Fault:   hangUntilApproved,
			Observe: observeRelease,
			Harm:    []Check{SecondPrimary(), GapOver(2 * time.Second)},
			Heal: append(released(),
				saysAt(heldBack, theLeader, "waits for a person", refusesSaying(node.PatroniHung, node.GuardPolicy, "pgpatrol approve ")),
				Answered(askedAgain, 1, "not waiting for an approval", "carried out already")),
		},
		{
			ID: "ASK-ignored", Title: "Patroni hangs on the leader for a moment, policy ask, and nobody approves", Timings: fastTimings(),
			Policy:  map[string]string{"revive": "ask"},
			Fault:   hangUnapproved,
			Observe: lookFor(22 * time.Second),
			Heal: append(kept(),
				Untouched(theLeader, theReplica, theSpare), SamePostmaster(), GapUnder(time.Second),
				saysAt("hung", theLeader, "hung", finds("PATRONI_HUNG", "page", "")),
				saysAt("hung", theLeader, "waits for a person", refusesSaying(node.PatroniHung, node.GuardPolicy, "pgpatrol approve ")),
				Answered(askedUnknown, 1, "no such action was ever proposed here"),
				Answered(askedAgain, 1, "not waiting for an approval", "its condition is over")),
		},
	}
}

// released is what must hold where a person holds an action back for some seconds and then lets it go: it is done then and
// not before. A write gap is no failure here: Patroni is silent for 10 s and more, so HAProxy may miss three checks in a row,
// and two good ones, 3 s apart, bring the server back. That is the price of the order.
func released() []Check {
	return []Check{
		OneAction("soft-kill", "revive"), NotBefore(markMayAct), TargetReplacedWithin(6*time.Second, markMayAct), NewLivesOnLeader(1), OthersUntouched(),
		NoFailover(), NoSecondPrimary(), LeaseNeverEnded(), SamePostmasters(), NoLostWrites(),
	}
}

// observeRelease: the fault waits for a renewal, which takes up to loop_wait, and without pgpatrol the lease then ends.
func observeRelease(t stack.Timings) time.Duration { return seconds(t.TTL+t.LoopWait) + 10*time.Second }

// heldTimings: default only. Proof, the look at what is held back and the order take 8 s and more of the lease. Under the fast
// timings 9 s are left then, and on a busy machine a new Patroni takes as long to renew it.
func heldTimings() []string { return []string{"default"} }

// leaseForAct is what must be left of the lease when a person gives leave: guard lease-window wants 5 s at the kill, a look and
// its confirmation come before it, and a new Patroni takes some seconds on a busy machine. Usually 21 s are left.
const leaseForAct = 14 * time.Second

// stillHeld is how long one looks at an action that is held back; what is allowed comes with the next look, within a second.
// Longer looks are those of PAUSE-scope and ASK-ignored: here the lease runs out.
const stillHeld = 1500 * time.Millisecond

// hangWhilePaused hangs the leader's Patroni under a pause of the agent there, and ends the pause while the lease still
// gives time for the kill: 10 s of ttl are spent by then.
func hangWhilePaused(ctx context.Context, r *Run) error {
	if r.Agents {
		if err := order(ctx, r, r.Leader, "pause", "--reason", "work", "--for", "10m"); err != nil {
			return err
		}
	}
	if _, err := hangUntilHeld(ctx, r); err != nil || !r.Agents {
		return err
	}
	r.Mark(markMayAct, r.Leader.Name)
	return order(ctx, r, r.Leader, "resume")
}

// hangUntilApproved hangs the leader's Patroni and approves its kill while the lease still gives time for it.
func hangUntilApproved(ctx context.Context, r *Run) error {
	id, err := hangUntilHeld(ctx, r)
	if err != nil || !r.Agents {
		return err
	}
	r.Mark(markMayAct, r.Leader.Name)
	if err := order(ctx, r, r.Leader, "approve", id); err != nil {
		return err
	}
	if err := r.Sleep(ctx, 6*time.Second); err != nil {
		return err
	}
	return ask(ctx, r, r.Leader, askedAgain, "approve", id)
}

// hangUnapproved is hangForAWhile in which somebody approves the wrong thing, and the right one too late.
func hangUnapproved(ctx context.Context, r *Run) error {
	if err := hangForAWhile(ctx, r); err != nil {
		return err
	}
	id, err := heldAction(r, "hung")
	if err != nil {
		return err
	}
	if err := ask(ctx, r, r.Leader, askedUnknown, "approve", unknownID); err != nil {
		return err
	}
	// Patroni renews its lease within a loop, and the agent sees within a look that the hang is over.
	if err := r.Sleep(ctx, 4*time.Second); err != nil {
		return err
	}
	return ask(ctx, r, r.Leader, askedAgain, "approve", id)
}

// hangUntilHeld hangs the leader's Patroni right after a renewal of its lease, waits until the agent's plan shows that a kill
// is held back, and then some more. It returns the ID of the kill.
func hangUntilHeld(ctx context.Context, r *Run) (string, error) {
	if err := awaitRenewal(ctx, r); err != nil {
		return "", err
	}
	if err := hangLeader(ctx, r); err != nil || !r.Agents {
		return "", err
	}
	const wait = `for i in $(seq 50); do
  p=$(timeout 2 ` + stack.AgentBinary + ` plan --json 2>/dev/null)
  case $p in *soft-kill*) break;; esac
  sleep .2
done; printf %s "$p"`
	plan, err := r.Stack.Exec(ctx, r.Leader, wait)
	if err != nil {
		return "", fmt.Errorf("wait for a plan of %s: %w", r.Leader.Name, err)
	}
	r.collector.mark(planMark(heldBack, r.Leader.Name), plan)
	if err := r.Sleep(ctx, stillHeld); err != nil {
		return "", err
	}
	// With less the scenario would be about the lease window.
	if left, ok := leaseLeft(Evidence{Records: r.collector.records()}, time.Now()); !ok || left < leaseForAct {
		return "", fmt.Errorf("this machine is too busy: %s of the lease are left for a person, want %s", round(left), leaseForAct)
	}
	return heldAction(r, heldBack)
}

// heldAction returns the ID of the action that the leader's plan of that moment refuses.
func heldAction(r *Run, at string) (string, error) {
	_, text, _ := marked(Evidence{Records: r.collector.records()}, planMark(at, r.Leader.Name))
	var p struct {
		Refused []struct{ Action struct{ ID, Verb string } }
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return "", fmt.Errorf("read plan of %s: %w: %.200s", r.Leader.Name, err, text)
	}
	for _, f := range p.Refused {
		if f.Action.Verb == string(node.SoftKill) && f.Action.ID != "" {
			return f.Action.ID, nil
		}
	}
	return "", errors.New("the plan of " + r.Leader.Name + " holds no soft-kill back")
}

// order gives an agent an order as a person would, and fails where it is not accepted.
func order(ctx context.Context, r *Run, n stack.Node, args ...string) error {
	r.Mark("order", n.Name+": "+fmt.Sprint(args))
	if out, err := r.Stack.Exec(ctx, n, stack.AgentBinary+` "$@" 2>&1`, args...); err != nil {
		return fmt.Errorf("order %v on %s: %w: %s", args, n.Name, err, out)
	}
	return nil
}

// ask gives an agent an order and keeps the exit code and all that was printed under a mark.
func ask(ctx context.Context, r *Run, n stack.Node, mark string, args ...string) error {
	if !r.Agents {
		return nil
	}
	out, err := r.Stack.Exec(ctx, n, `out=$(`+stack.AgentBinary+` "$@" 2>&1); echo "$? $out"`, args...)
	if err != nil {
		return fmt.Errorf("ask %v on %s: %w", args, n.Name, err)
	}
	r.Mark(mark, out)
	return nil
}

// touchKillSwitch makes an empty file, as a person in a hurry does.
func touchKillSwitch(ctx context.Context, r *Run, n stack.Node) error {
	r.Mark("touch", stack.AgentKillSwitch+" on "+n.Name)
	if _, err := r.Stack.Exec(ctx, n, `touch `+stack.AgentKillSwitch); err != nil {
		return fmt.Errorf("touch kill switch of %s: %w", n.Name, err)
	}
	return nil
}

// runPackageManager runs a process of root that is called apt-get for a minute; settling ends it.
func runPackageManager(ctx context.Context, r *Run, n stack.Node) error {
	const run = `mkdir -p /run/lab /opt/lab && cp /bin/sleep /opt/lab/apt-get || exit
setsid /opt/lab/apt-get 60 >/dev/null 2>&1 </dev/null &
echo $! >> /run/lab/pids`
	r.Mark("apt-get", n.Name)
	if out, err := r.Stack.Exec(ctx, n, run); err != nil {
		return fmt.Errorf("run apt-get on %s: %w: %s", n.Name, err, out)
	}
	return nil
}
