//go:build planted

package main

// hang are the kinds of faults that let a Patroni hang, which is what most actions heal.
var hang = []string{"patroni-stopped", "loop-stuck", "rest-refused", "hangs-again"}

// hints are the kinds of faults that bring a bug out: one of each line.
var hints = map[string][][]string{
	"engine/forget-etcd-loss":       {{"overloaded"}},
	"engine/forget-pause":           {{"paused-then-config-key-broken"}, hang},
	"engine/restart-is-fine":        {{"postmaster-killed-after-action"}, hang},
	"engine/stale-streaks":          {{"hangs-again", "crashes-then-hangs", "replaced-in-action"}, hang},
	"engine/unknown-is-down":        {{"probe-blind", "probes-blind", "probe-flickers"}, hang},
	"engine/zombie-on-stale-view":   {{"isolated", "cut-from-etcd", "probe-blind"}, {"loop-stuck", "patroni-stopped"}},
	"executor/nobody-is-asked":      {{"held-in-action"}, hang},
	"guard/approval-forever":        {{"approves-and-holds"}, hang},
	"guard/boot-grace":              {{"hangs-after-boot"}},
	"guard/cluster-budget":          {{"probe-blind", "probes-blind", "probe-flickers"}, hang},
	"guard/confirm-is-routine":      {{"probe-blind", "probes-blind", "probe-flickers"}, hang},
	"guard/shared-unknown-is-empty": {{"probe-blind", "probes-blind", "probe-flickers"}, hang},
	"guard/dcs-writable":            {{"etcd-nospace", "etcd-without-quorum"}, hang},
	"guard/diverged-candidate":      {{"replicas-diverged"}, hang},
	"guard/executed-is-over":        {{"hangs-again", "crashes-then-hangs"}},
	"guard/in-flight":               {{"hangs-again", "crashes-then-hangs"}},
	"guard/lagging-candidate":       {{"replicas-lag"}, hang},
	"guard/leader-safety":           {{"loop-stuck"}},
	"guard/no-dcs":                  {{"isolated", "cut-from-etcd", "etcd-without-quorum"}, hang},
	"guard/no-drain":                {{"loop-stuck"}},
	"guard/no-start-reserve":        {{"crashes-then-hangs"}},
	"guard/unknown-lease-is-known":  {{"probe-blind", "probes-blind", "probe-flickers"}, hang},
	"guard/redundancy":              {{"replicas-lag", "replicas-nofailover", "replicas-diverged"}, hang},
}

// byHarm are the bugs whose harm only shows beside a world without agents.
var byHarm = map[string]bool{"guard/leader-safety": true, "guard/no-drain": true}

// byCrash are the bugs that break what is promised of crashes: the crash points show them before seeds are tried.
var byCrash = map[string]bool{
	"coordinator/lock-for-an-hour": true, "coordinator/two-slots": true, "executor/forget-result": true,
	"executor/intent-means-execute": true, "executor/nothing-is-claimed": true, "executor/resolve-nothing": true,
	"guard/cluster-lock": true,
}
