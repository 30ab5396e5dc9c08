package planted

import "maps"

// services are the bugs of what is done to services other than Patroni.
var services = map[string]string{
	"engine/backend-is-forwarder":     "a forwarder is blamed for what is dead behind it",
	"engine/etcd-waits-is-hung":       "a member of etcd that waits for a quorum counts as hung",
	"engine/removed-is-crashed":       "a member of etcd that was removed counts as crashed",
	"engine/stale-service-streaks":    "a new run of a service is blamed for its predecessor",
	"engine/starting-etcd-is-hung":    "a member of etcd that has just started counts as hung after 30 s",
	"engine/unknown-unit-runs":        "a unit of which its manager says nothing counts as running",
	"guard/quorum-of-one":             "a member of etcd is spare if one other is healthy",
	"guard/unknown-member-is-healthy": "a member of etcd of which nothing is known counts as healthy",
}

// Outside returns the bugs that the simulation cannot find, with the reason. Unit tests find them.
func Outside() map[string]string {
	out := make(map[string]string, len(services))
	for bug := range services {
		out[bug] = "the simulation has no services but Patroni: agents look after no member of etcd and no forwarder there"
	}
	return out
}

// List returns every bug that can be planted, by name, with what it breaks. Each of the guards can be switched off, and
// where a guard would hide a bug of the engine, the bug sits in both.
func List[G ~string](guards []G) map[string]string {
	all := maps.Clone(bugs)
	maps.Copy(all, services)
	for _, g := range guards {
		all["guard/"+string(g)] = "the guard " + string(g) + " allows everything"
	}
	return all
}

var bugs = map[string]string{
	"coordinator/lock-for-an-hour":        "the lock of the cluster outlives a crash of its holder by an hour",
	"coordinator/two-slots":               "an action takes two slots of the cluster's budget",
	"engine/empty-is-leaderless-takeover": "a scope without a single key counts as a cluster without a leader, whose old leader is here",
	"engine/forget-disturbance":           "a clock that jumped and a machine that slept leave no trace",
	"engine/forget-etcd-loss":             "a lease that could not be renewed, because etcd did not answer, proves a hang",
	"engine/forget-job":                   "a job of somebody that has just ended is forgotten",
	"engine/forget-leader-change":         "a change of the leader is not noticed",
	"engine/forget-pause":                 "a pause is forgotten as soon as it cannot be seen",
	"engine/forget-starts":                "starts of Patroni are not counted",
	"engine/killmode-ignored":             "a kill that stops PostgreSQL too passes for one that spares it",
	"engine/lease-ignored":                "a silent API alone proves a hang, whatever the lease says",
	"engine/one-probe":                    "one observation proves anything",
	"engine/replica-as-fast-as-leader":    "a replica is judged as hastily as a leader",
	"engine/restart-is-fine":              "a heal that restarted PostgreSQL counts as one that did not",
	"engine/stale-streaks":                "a condition that ended, and a main process that did, count on",
	"engine/restart-forgets":              "an agent that was restarted remembers nothing",
	"engine/starved-is-dead":              "an API that times out under a renewed lease is a reason to kill",
	"engine/storms-are-many-faults":       "a cluster that is sick as a whole is not noticed",
	"engine/unknown-is-down":              "an API that was not asked counts as one that did not answer",
	"engine/unstable-id":                  "the same condition gives an action another ID each time",
	"engine/verify-always":                "every heal counts as verified at once",
	"engine/wall-clock":                   "how long a condition has held is measured by the wall clock",
	"engine/young-is-old":                 "a Patroni that is still starting counts as one that runs for an hour",
	"engine/zombie-by-one-read":           "one read of etcd proves a second primary",
	"engine/zombie-on-stale-view":         "an old view of etcd proves a second primary, and allows ending it",
	"executor/act-before-intent":          "an act is carried out before its intent is durable",
	"executor/forget-result":              "the result of an act is not recorded",
	"executor/intent-means-execute":       "an intent without a result is carried out after a crash",
	"executor/nobody-is-asked":            "people are not asked again right before the act",
	"executor/nothing-is-claimed":         "an action takes nothing of the cluster's budget",
	"executor/resolve-nothing":            "what an earlier run began stays unresolved",
	"guard/approval-any":                  "an approval of any action fits every action",
	"guard/approval-forever":              "an approval neither ends nor is used up",
	"guard/boot-blind":                    "no attempt counts, of this boot or another",
	"guard/confirm-is-routine":            "facts right before an act may be as old as those of a first look",
	"guard/diverged-candidate":            "a member that differs from its leader counts as redundancy",
	"guard/executed-is-over":              "an action whose effect is still open is not in flight",
	"guard/failures-forgotten":            "actions in vain count as successes",
	"guard/fence-unguarded":               "no guard is asked about a fence",
	"guard/forget-other-runs":             "attempts before the last start of the agent do not count",
	"guard/lagging-candidate":             "a member that lags counts as redundancy",
	"guard/no-drain":                      "a leader without key is killed while clients still write there",
	"guard/no-start-reserve":              "the last start that the manager allows may be used up",
	"guard/no-window":                     "a lease that is about to end is long enough for a kill",
	"guard/pause-only-node-level":         "a pause of the scope or of everything is not obeyed",
	"guard/shared-unknown-is-empty":       "what other agents do is nothing while it is unknown",
	"guard/unknown-hold-is-none":          "a hold of a kind that is not understood is not in force",
	"guard/unknown-lease-is-known":        "an old or unknown lease counts as fresh",
	"guard/unreadable-is-unset":           "a kill switch that cannot be read counts as not set",
}
