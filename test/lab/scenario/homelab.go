package scenario

import (
	"context"
	"slices"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

// homelabScenarios are about etcd as the first user runs it: in Docker on a NAS, behind two forwarders on a Mac, and under
// OpenRC in Tokyo. PostgreSQL must not notice any of them. With the fast timings it may: Patroni then gives etcd three seconds,
// and takes longer on a busy machine to find another member in place of the one that it was connected to.
func homelabScenarios() []Scenario {
	all := slices.Concat(memberScenarios(), quorumScenarios(), forwarderScenarios(), machineScenarios(), wishScenarios(), gateScenarios())
	for i := range all {
		all[i].Homelab = true
	}
	return all
}

// agentMemory is what the agent on the NAS may have: 30 MB.
const agentMemory = 30 << 20

// healsWithin is how long a dead thing stays dead: it is noticed by an event, and started with the next look.
const healsWithin = 10 * time.Second

// undisturbed is what must hold of PostgreSQL where etcd keeps its quorum.
func undisturbed() []Check {
	return []Check{NoFailover(), NoSecondPrimary(), Untouched(theLeader, theReplica, theSpare), GapUnder(time.Second), NoLostWrites(), NothingRefused()}
}

// started is what must hold where one dead member of etcd is started on its own machine.
func started(node string, t thing) []Check {
	return append(undisturbed(), Acted("start-failed", "revive", node), ThingReplacedWithin(t, healsWithin, markBroken), CaughtUpWithin(t, 2*healsWithin, markBroken),
		ThingsUntouched(except(t)...), MembersHealthy(members(t)...))
}

// members lists the members of etcd without one.
func members(without thing) []thing {
	return slices.DeleteFunc([]thing{etcdNAS, etcdMBP, etcdJP1}, func(t thing) bool { return t == without })
}

// memberScenarios are about members of etcd that crash or hang.
func memberScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F38-nas", Title: "etcd on the NAS crashes, restart=no; the agent is a container behind a filtering proxy",
			Setup:   restartPolicy("no", stack.EtcdNAS),
			Fault:   crash(etcdNAS),
			Observe: lookFor(22 * time.Second),
			Harm:    []Check{ThingStaysDown(etcdNAS), MemberSickAtEnd(etcdNAS)},
			Heal:    append(started(stack.NAS, etcdNAS), AgentUnder(agentMemory), saysOn(stack.NAS, "well", quiet("runs, answers, and has a leader"))),
		},
		{
			ID: "F38-mbp", Title: "etcd crashes behind the two forwarders, restart=no",
			Setup:   restartPolicy("no", stack.EtcdMBP),
			Fault:   crash(etcdMBP),
			Observe: lookFor(22 * time.Second),
			Harm:    []Check{ThingStaysDown(etcdMBP), MemberSickAtEnd(etcdMBP)},
			Heal:    started(stack.MBP, etcdMBP),
		},
		{
			ID: "F38-jp1", Title: "SIGKILL to etcd under OpenRC, which does not notice",
			Fault:   crash(etcdJP1),
			Observe: lookFor(22 * time.Second),
			Harm:    []Check{ThingStaysDown(etcdJP1), MemberSickAtEnd(etcdJP1)},
			Heal:    started(stack.JP1, etcdJP1),
		},
		{
			ID: "F38-policy", Title: "etcd on the NAS crashes, restart=always: Docker is faster",
			Fault:   crash(etcdNAS),
			Observe: lookFor(16 * time.Second),
			Heal:    append(undisturbed(), NoAction(), Lived(etcdNAS, 1, 1), MemberWellAtEnd(etcdNAS), ThingsUntouched(except(etcdNAS)...), NeverFound("ETCD_CRASHED")),
		},
		{
			ID: "F39-nas", Title: "etcd hangs on the NAS while every other member is healthy",
			Policy: map[string]string{"disrupt": "auto"},
			Fault:  hangs(etcdNAS),
			// 30 s prove the hang, and Docker gives a container 10 s to stop.
			Observe: lookFor(84 * time.Second),
			Harm:    []Check{MemberSickAtEnd(etcdNAS)},
			Heal:    hangEnded(stack.NAS, etcdNAS),
		},
		{
			ID: "F39-jp1", Title: "etcd hangs under OpenRC while every other member is healthy",
			Policy:  map[string]string{"disrupt": "auto"},
			Fault:   hangs(etcdJP1),
			Observe: lookFor(84 * time.Second),
			Harm:    []Check{MemberSickAtEnd(etcdJP1)},
			Heal:    hangEnded(stack.JP1, etcdJP1),
		},
		{
			ID: "F79", Title: "etcd on the NAS crashes again and again, restart=always",
			Fault:   crashLoop(etcdNAS, 20*time.Second),
			Observe: lookFor(26 * time.Second),
			// Docker waits longer before every restart.
			Heal: append(undisturbed(), NoAction(), Lived(etcdNAS, 3, 20), ThingsUntouched(except(etcdNAS)...), FoundOn(stack.NAS, "SERVICE_CRASHING", 26*time.Second)),
		},
		{
			ID: "F79-jp1", Title: "etcd under OpenRC crashes again as soon as it was started",
			Fault:   crashLoop(etcdJP1, 24*time.Second),
			Observe: lookFor(28 * time.Second),
			Harm:    []Check{MemberSickAtEnd(etcdJP1)},
			Heal: append(undisturbed(), Acted("start-failed", "revive", stack.JP1), Lived(etcdJP1, 1, 1), MemberSickAtEnd(etcdJP1),
				ThingsUntouched(except(etcdJP1)...), saysOn(stack.JP1, "held back", refuses("ETCD_CRASHED", "backoff"))),
		},
	}
}

// hangProven is how long at least a member that has just hung is left to itself: it must have answered nothing for 30 s, and was
// asked every 5 s before.
const hangProven = 24 * time.Second

// hangEnded is what must hold where one hung member of etcd is restarted on its own machine.
func hangEnded(node string, t thing) []Check {
	return append(undisturbed(), Acted("restart", "disrupt", node), NotActedBefore(untilSeen+hangProven),
		ThingNotReplacedBefore(t, hangProven, markBroken), ThingReplacedWithin(t, 50*time.Second, markBroken), CaughtUpWithin(t, 60*time.Second, markBroken), ThingsUntouched(except(t)...), MembersHealthy(members(t)...))
}

// quorumScenarios are about what the members of etcd are to each other.
func quorumScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F39-two", Title: "etcd hangs on the NAS and in Tokyo: no quorum, so that nothing that runs may be stopped",
			Policy:  map[string]string{"disrupt": "auto"},
			Fault:   hangs(etcdNAS, etcdJP1),
			Observe: lookFor(64 * time.Second),
			Heal:    []Check{NoAction(), ThingsUntouched(things()...), Untouched(theLeader, theReplica, theSpare), NoSecondPrimary(), NoLostWrites(), NothingRefused()},
		},
		{
			ID: "F40-all", Title: "every member of etcd crashes at once, and every machine starts its own",
			Setup:   restartPolicy("no", stack.EtcdNAS, stack.EtcdMBP),
			Fault:   crash(etcdNAS, etcdMBP, etcdJP1),
			Observe: lookFor(40 * time.Second),
			Harm:    []Check{MemberSickAtEnd(etcdNAS), MemberSickAtEnd(etcdMBP), MemberSickAtEnd(etcdJP1), GapOver(10 * time.Second)},
			// Patroni makes PostgreSQL read-only while there is no etcd, and that is Patroni's business.
			Heal: []Check{
				Acted("start-failed", "revive", stack.NAS, stack.MBP, stack.JP1),
				ThingReplacedWithin(etcdNAS, healsWithin, markBroken), ThingReplacedWithin(etcdMBP, healsWithin, markBroken), ThingReplacedWithin(etcdJP1, healsWithin, markBroken),
				CaughtUpWithin(etcdNAS, 2*healsWithin, markBroken), CaughtUpWithin(etcdMBP, 2*healsWithin, markBroken), CaughtUpWithin(etcdJP1, 2*healsWithin, markBroken),
				ThingsUntouched(socat, socatPeer), Untouched(theLeader, theReplica, theSpare), NoSecondPrimary(), NoLostWrites(), NothingRefused(), AgentUnder(agentMemory),
			},
		},
		{
			ID: "F42", Title: "etcd's database fills 80 % of its quota",
			Fault:   fillEtcd,
			Observe: lookFor(30 * time.Second),
			Heal: append(undisturbed(), NoAction(), ThingsUntouched(things()...), FoundOn(stack.NAS, "ETCD_QUOTA_NEAR", 60*time.Second),
				FoundOn(stack.MBP, "ETCD_QUOTA_NEAR", 60*time.Second), FoundOn(stack.JP1, "ETCD_QUOTA_NEAR", 60*time.Second), NeverFound("ETCD_NOSPACE")),
		},
		{
			ID: "F56", Title: "the member in Tokyo is removed from the cluster, and ends",
			Fault:   removeMember,
			Observe: lookFor(22 * time.Second),
			Heal:    append(undisturbed(), NoAction(), ThingStaysDown(etcdJP1), ThingsUntouched(except(etcdJP1)...), saysOn(stack.JP1, "removed", finds("ETCD_REMOVED", "warn", "was removed from the cluster"))),
		},
		{
			ID: "F63", Title: "Tokyo is cut off",
			Policy:  map[string]string{"disrupt": "auto"},
			Fault:   cutOff,
			Observe: lookFor(50 * time.Second),
			Heal: append(undisturbed(), NoAction(), ThingsUntouched(things()...), FoundOn(stack.NAS, "ETCD_REDUNDANCY_LOST", 15*time.Second),
				FoundOn(stack.MBP, "ETCD_REDUNDANCY_LOST", 15*time.Second), saysOn(stack.JP1, "cut off", finds("ETCD_QUORUM_LOST", "page", ""))),
		},
	}
}

// forwarderScenarios are about the two hops before the member on mbp.
func forwarderScenarios() []Scenario {
	return []Scenario{
		{
			ID: "F71", Title: "the forwarder of etcd's clients dies",
			Fault:   crash(socat),
			Observe: lookFor(20 * time.Second),
			Harm:    []Check{ThingStaysDown(socat), MemberSickAtEnd(through)},
			Heal:    carried(socat, "start-failed"),
		},
		{
			ID: "F72", Title: "the forwarder of etcd's clients hangs: it takes connections and carries nothing",
			Fault:   signal("STOP", socat),
			Observe: lookFor(24 * time.Second),
			Harm:    []Check{ThingsUntouched(socat), MemberSickAtEnd(through)},
			Heal:    carried(socat, "restart"),
		},
		{
			ID: "F73", Title: "a person stops the etcd behind the forwarders",
			Fault:   engine("stop", stack.EtcdMBP),
			Observe: lookFor(24 * time.Second),
			Heal: append(undisturbed(), NoAction(), ThingStaysDown(etcdMBP), ThingsUntouched(except(etcdMBP)...), FoundOn(stack.MBP, "FORWARDER_BACKEND", 20*time.Second),
				saysOn(stack.MBP, "stopped", finds("SERVICE_STOPPED", "info", "was stopped on purpose"))),
		},
		{
			ID: "F74", Title: "the forwarder of etcd's peers dies, and that of its clients does not",
			Fault:   crash(socatPeer),
			Observe: lookFor(20 * time.Second),
			Harm:    []Check{ThingStaysDown(socatPeer)},
			Heal:    carried(socatPeer, "start-failed"),
		},
		{
			ID: "F75", Title: "a forwarder listens on an address that the machine does not have any more",
			Fault:   staleAddress,
			Observe: lookFor(34 * time.Second),
			Harm:    []Check{ThingsUntouched(etcdMBP), MemberSickAtEnd(through)},
			Heal: append(undisturbed(), Acted("restart", "revive", stack.MBP), ThingsUntouched(except(socat)...), MembersHealthy(etcdNAS, etcdMBP, etcdJP1),
				CaughtUpWithin(through, 20*time.Second, markBroken)),
		},
		{
			ID: "F79-socat", Title: "a forwarder crashes again and again until systemd gives up, and once more after it was started",
			Setup:   dropInRestart,
			Fault:   crashLoop(socat, 24*time.Second),
			Observe: lookFor(28 * time.Second),
			Harm:    []Check{MemberSickAtEnd(through)},
			Heal: append(undisturbed(), Acted("start-failed", "revive", stack.MBP), ThingsUntouched(except(socat)...), MemberSickAtEnd(through),
				saysOn(stack.MBP, "held back", refuses("FORWARDER_DEAD", "backoff"))),
		},
		{
			ID: "DBUS-gone", Title: "the forwarder of etcd's clients dies while there is no D-Bus",
			Setup: func(ctx context.Context, r *Run) error {
				return on(ctx, r, stack.MBP, `systemctl stop dbus.socket dbus.service`)
			},
			Fault:   crash(socat),
			Observe: lookFor(20 * time.Second),
			Harm:    []Check{ThingStaysDown(socat), MemberSickAtEnd(through)},
			Heal:    carried(socat, "start-failed"),
		},
	}
}

// carried is what must hold where one forwarder is brought back: what is behind it is not touched.
func carried(t thing, verb string) []Check {
	return append(undisturbed(), Acted(verb, "revive", stack.MBP), ThingReplacedWithin(t, healsWithin, markBroken), ThingsUntouched(except(t)...),
		MembersHealthy(etcdNAS, etcdMBP, etcdJP1))
}

// machineScenarios are about machines that go and come back as a whole: nothing is done, there or elsewhere, but to a virtual
// machine that the configuration names.
func machineScenarios() []Scenario {
	disrupt := map[string]string{"disrupt": "auto"}
	return []Scenario{
		{
			ID: "F77", Title: "the virtual machine stops that etcd and its engine run in, behind the forwarders", Policy: disrupt,
			Setup: restartPolicy("no", stack.EtcdMBP),
			Fault: func(ctx context.Context, r *Run) error {
				if err := engine("stop", stack.MBPDocker)(ctx, r); err != nil {
					return err
				}
				return crash(etcdMBP)(ctx, r)
			},
			Observe: lookFor(45 * time.Second),
			Heal: append(undisturbed(), NoAction(), ThingStaysDown(etcdMBP), ThingsUntouched(except(etcdMBP)...),
				FoundOn(stack.MBP, "MANAGER_UNAVAILABLE", 15*time.Second), FoundOn(stack.MBP, "FORWARDER_BACKEND", 20*time.Second)),
		},
		{
			ID: "F77-hang", Title: "the virtual machine hangs with etcd and its engine in it, and the configuration names it", Policy: disrupt,
			Agent:   behindVM,
			Setup:   setUpVM,
			Fault:   hangVM,
			Observe: lookFor(90 * time.Second),
			Harm:    []Check{MemberSickAtEnd(etcdMBP), MemberSickAtEnd(through), ThingsUntouched(vm, etcdMBP)},
			// 30 s prove the hang. The machine brings back what is in it, as restart=always does.
			Heal: append(undisturbed(), Acted("restart", "disrupt", stack.MBP), NotActedBefore(untilSeen+30*time.Second),
				ThingNotReplacedBefore(vm, hangProven, markBroken), ThingReplacedWithin(vm, 60*time.Second, markBroken),
				Lived(etcdMBP, 1, 1), CaughtUpWithin(etcdMBP, 80*time.Second, markBroken), CaughtUpWithin(through, 80*time.Second, markBroken),
				ThingsUntouched(except(etcdMBP)...), MembersHealthy(etcdNAS, etcdJP1), FoundOn(stack.MBP, "FORWARDER_BACKEND", untilSeen+20*time.Second)),
		},
		{
			ID: "F78", Title: "the NAS is off for a while", Policy: disrupt,
			Fault:   powerCut(20*time.Second, stack.EtcdNAS, stack.NASDocker, stack.NAS),
			Observe: lookFor(40 * time.Second),
			Heal: append(undisturbed(), NoAction(), Lived(etcdNAS, 1, 1), MemberWellAtEnd(etcdNAS), ThingsUntouched(except(etcdNAS)...), FoundOn(stack.JP1, "ETCD_REDUNDANCY_LOST", 20*time.Second),
				saysOn(stack.NAS, "well again", quiet("runs, answers, and has a leader"))),
		},
		{
			ID: "F80", Title: "the machine in Tokyo is off for a while", Policy: disrupt, Blind: []string{stack.JP1},
			Fault:   powerCut(20*time.Second, stack.JP1),
			Observe: lookFor(44 * time.Second),
			Heal: append(undisturbed(), NoAction(), Lived(etcdJP1, 1, 1), MemberWellAtEnd(etcdJP1), ThingsUntouched(except(etcdJP1)...), FoundOn(stack.NAS, "ETCD_REDUNDANCY_LOST", 15*time.Second),
				saysOn(stack.JP1, "well again", quiet("runs, answers, and has a leader"))),
		},
	}
}

// wishScenarios are about what people want: what they stopped is never started again.
func wishScenarios() []Scenario {
	return []Scenario{
		{
			ID: "STOP-docker", Title: "docker stop of etcd on the NAS, and a restart of the agent",
			Fault:   stopped(engine("stop", stack.EtcdNAS), stack.NAS, nil),
			Observe: lookFor(24 * time.Second),
			Heal:    leftStopped(stack.NAS, etcdNAS),
		},
		{
			ID: "STOP-docker-no", Title: "docker stop of etcd with restart=no, and a restart of the agent and its proxy",
			Setup: restartPolicy("no", stack.EtcdNAS),
			Fault: stopped(engine("stop", stack.EtcdNAS), stack.NAS, engine("restart", stack.NASDocker)),
			// A proxy that is new cannot have seen what came before, and the engine's events still tell.
			Observe: lookFor(30 * time.Second),
			Heal:    leftStopped(stack.NAS, etcdNAS),
		},
		{
			ID: "STOP-openrc", Title: "rc-service etcd stop in Tokyo, and a restart of the agent",
			Fault:   stopped(typed(stack.JP1, `rc-service -q etcd stop`), stack.JP1, nil),
			Observe: lookFor(24 * time.Second),
			Heal:    leftStopped(stack.JP1, etcdJP1),
		},
		{
			ID: "STOP-systemd", Title: "systemctl stop of a forwarder, and a restart of the agent",
			Fault:   stopped(typed(stack.MBP, `systemctl stop `+stack.Socat), stack.MBP, nil),
			Observe: lookFor(24 * time.Second),
			Heal:    leftStopped(stack.MBP, socat),
		},
		{
			ID: "OFF-openrc", Title: "rc-update del and stop of etcd in Tokyo, and a restart of the machine", Blind: []string{stack.JP1},
			Fault:   stopped(typed(stack.JP1, `rc-update -q del etcd default && rc-service -q etcd stop`), "", powerCut(time.Second, stack.JP1)),
			Observe: lookFor(40 * time.Second),
			Heal:    leftStopped(stack.JP1, etcdJP1),
		},
		{
			ID: "OFF-openrc-crash", Title: "rc-update del of etcd in Tokyo, which runs on and then crashes",
			Setup:   typed(stack.JP1, `rc-update -q del etcd default`),
			Fault:   crash(etcdJP1),
			Observe: lookFor(20 * time.Second),
			Heal:    leftStopped(stack.JP1, etcdJP1),
		},
		{
			ID: "OFF-systemd", Title: "one forwarder masked and one disabled, and a restart of the machine", Blind: []string{stack.MBP},
			Fault: stopped(typed(stack.MBP, `systemctl stop `+stack.Socat+` && systemctl mask -q `+stack.Socat+` && systemctl disable -q --now `+stack.SocatPeer), "",
				powerCut(time.Second, stack.MBP, stack.EtcdMBP)),
			Observe: lookFor(44 * time.Second),
			Heal: append(undisturbed(), NoAction(), ThingStaysDown(socat), ThingStaysDown(socatPeer), ThingsUntouched(etcdNAS, etcdJP1),
				saysOn(stack.MBP, "masked", finds("SERVICE_STOPPED", "info", "masked")), saysOn(stack.MBP, "disabled", findsBoth("SERVICE_STOPPED", "masked", "disabled"))),
		},
	}
}

// gateScenarios are about a Docker engine that lets the agent do less than it may have to.
func gateScenarios() []Scenario {
	return []Scenario{
		{
			ID: "DENIED", Title: "etcd on the NAS crashes, and the proxy before Docker refuses to start anything",
			Setup: func(ctx context.Context, r *Run) error {
				if err := restartPolicy("no", stack.EtcdNAS)(ctx, r); err != nil {
					return err
				}
				return on(ctx, r, stack.NASDocker, `echo start > `+stack.GateRefuses)
			},
			Fault:   crash(etcdNAS),
			Observe: lookFor(24 * time.Second),
			Heal: append(undisturbed(), ThingStaysDown(etcdNAS), ThingsUntouched(except(etcdNAS)...), OrderRefused(1),
				saysOn(stack.NAS, "said beforehand", finds("MANAGER_FORBIDS", "warn", "permission denied"))),
		},
	}
}

// leftStopped is what must hold where one thing was stopped on purpose.
func leftStopped(node string, t thing) []Check {
	return append(undisturbed(), NoAction(), ThingStaysDown(t), ThingsUntouched(except(t)...), saysOn(node, "stopped", finds("SERVICE_STOPPED", "info", "")))
}

// markBroken is the moment from which on something is broken.
const markBroken = "broken"
