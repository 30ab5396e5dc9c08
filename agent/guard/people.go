package guard

import (
	"slices"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/agent/planted"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

// The guards in this file obey people: what they forbade, allowed, stopped, or are at work on.

// killSwitch: it dominates everything, fences too. A switch that cannot be read, and a hold that is not understood, count
// as set (FAULTS.md S23).
func killSwitch(c *check) string {
	if why := c.in.Snapshot.Orders.Unreadable; why != "" && !planted.On("guard/unreadable-is-unset") {
		return refuse("this machine's kill switch cannot be read, which counts as set: %s", why)
	}
	return held(c, func(h node.Hold) bool {
		return h.Kind == node.HoldKill || h.Kind != node.HoldPause && !planted.On("guard/unknown-hold-is-none")
	})
}

// pause: somebody works here and wants pgpatrol to do nothing for a while, fences included (DESIGN.md §1.3).
func pause(c *check) string {
	return held(c, func(h node.Hold) bool {
		return h.Kind == node.HoldPause && (h.Level == node.LevelNode || !planted.On("guard/pause-only-node-level"))
	})
}

// held returns the words of the first hold that matters. Holds of etcd stay in force when the view of it has become old.
func held(c *check, matters func(node.Hold) bool) string {
	holds := c.in.Snapshot.Orders.Holds
	if i := slices.IndexFunc(holds, matters); i >= 0 {
		return holds[i].String()
	}
	shared := c.in.Snapshot.DCS.Shared
	if !shared.Known {
		return ""
	}
	if i := slices.IndexFunc(shared.Value.Holds, matters); i >= 0 {
		return shared.Value.Holds[i].String()
	}
	return ""
}

// policy: acting is opt-in per class and finding (DESIGN.md §1.6). Under "ask" a person approves each action once.
func policy(c *check) string {
	switch mode := c.mode(); mode {
	case node.ModeAuto:
		return ""
	case node.ModeAsk:
		if c.approved() {
			return ""
		}
		return refuse("waits for a person: pgpatrol approve %s", c.a.ID)
	default:
		return refuse("policy for class %s is %q: this would have been done under \"auto\"", c.a.Class, mode)
	}
}

// approved reports whether a person consented to exactly this action, lately, and no attempt has used that up.
func (c *check) approved() bool {
	return slices.ContainsFunc(c.in.Snapshot.Orders.Approvals, func(ap node.Approval) bool {
		age := c.now.Sub(ap.At)
		fits := ap.ActionID == c.a.ID || planted.On("guard/approval-any")
		lasts := age >= 0 && age <= node.ApprovalLife || planted.On("guard/approval-forever")
		return fits && lasts && !c.usedUp(ap)
	})
}

func (c *check) usedUp(ap node.Approval) bool {
	if planted.On("guard/approval-forever") {
		return false
	}
	return slices.ContainsFunc(c.in.Attempts, func(a node.Attempt) bool {
		return a.ActionID == ap.ActionID && a.BootID == c.in.Snapshot.BootID && a.At >= ap.At
	})
}

// operatorIntent: a service stopped, masked, disabled, debugged or about to be switched over is a person's (FAULTS.md
// S21, FACTS.md §1.7).
func operatorIntent(c *check) string {
	u := c.unit.Value
	switch u.Intent() {
	case service.IntentStopped, service.IntentDisabled, service.IntentMasked:
		return refuse("a person wants %s %s", c.a.Unit, u.Intent())
	case service.IntentUnknown:
		return refuse("it is unknown whether a person stopped %s", c.a.Unit)
	case service.IntentRun, service.IntentBusy:
	}
	if c.proc.Known && c.proc.Value.TracerPID != 0 {
		return refuse("a debugger (pid %d) is attached to it", c.proc.Value.TracerPID)
	}
	if sw := c.cluster().Switchover; sw != nil && !c.a.Fence && c.kind == node.KindPatroni {
		if at, err := time.Parse(time.RFC3339, sw.Scheduled); err == nil && at.Sub(c.in.Snapshot.Wall) > switchoverSoon {
			return ""
		}
		return refuse("a switchover from %s to %s is in progress or due", nameOr(sw.From, "the leader"), nameOr(sw.To, "the best candidate"))
	}
	return ""
}

// operatorJob: somebody's job on the unit runs or has just ended (FAULTS.md F09).
func operatorJob(c *check) string {
	u := c.unit.Value
	if u.Job != "" || u.State == service.StateStopping || u.State == service.StateStarting {
		return refuse("%s is busy: %s, job %s", c.a.Unit, u.State, nameOr(u.Job, "none"))
	}
	if c.m.JobEnded != 0 && c.now.Sub(c.m.JobEnded) < jobGrace {
		return refuse("somebody's job on %s ended %s ago; %s are left to it", c.a.Unit, c.now.Sub(c.m.JobEnded).Round(time.Second), jobGrace)
	}
	return ""
}

// upgrade: while a package manager works on this machine it stops and starts units itself, and what runs may not match
// what is installed (FAULTS.md S21, F104j). Members of different versions are a rolling upgrade: no moment to stop
// anything that runs.
func upgrade(c *check) string {
	if names := c.in.Snapshot.Upgrades(); len(names) > 0 {
		return refuse("a package manager is at work on this machine: %s", strings.Join(names, ", "))
	}
	if at := c.in.Memory.UpgradeSeen; at != 0 && c.now.Sub(at) < node.UpgradeGrace {
		return refuse("a package manager was at work on this machine %s ago; %s are left to what it started", c.now.Sub(at).Round(time.Second), node.UpgradeGrace)
	}
	if c.a.Class != node.ClassDisrupt {
		return ""
	}
	version := ""
	for _, m := range c.cluster().Members {
		if version != "" && m.Version != "" && m.Version != version {
			return refuse("a rolling upgrade is in progress: members run Patroni %s and %s", version, m.Version)
		}
		version = nameOr(m.Version, version)
	}
	return ""
}

// patroniPause: pause is obeyed, and its last known state outlives the loss of etcd by a ttl (FAULTS.md F11, S22). It is about
// Patroni and PostgreSQL: what is done to a member of etcd or to a forwarder, pgpatrol's own pause holds back.
func patroniPause(c *check) string {
	if c.cluster().Config.Pause {
		return refuse("the cluster is paused")
	}
	if c.in.Memory.PauseSeen != 0 && c.now.Sub(c.in.Memory.PauseSeen) < c.timing.TTL {
		return refuse("the cluster was paused %s ago", c.now.Sub(c.in.Memory.PauseSeen).Round(time.Second))
	}
	if !c.cluster().Config.Present && !planted.On("engine/empty-is-leaderless-takeover") && !planted.On("engine/forget-pause") {
		return refuse("the cluster's configuration key is missing or unintelligible, so a pause cannot be ruled out")
	}
	return ""
}
