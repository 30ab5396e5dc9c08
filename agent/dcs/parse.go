package dcs

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// KV is one key of etcd as it was read.
type KV struct {
	Key            string
	Value          []byte
	CreateRevision int64
	ModRevision    int64
	Lease          int64 // 0 if the key hangs on none
}

const (
	maxHistory  = 64  // entries kept, the latest
	maxProblems = 64  // reported per view
	maxKeyShown = 120 // characters of a key in a problem
)

// ParseCluster turns the keys below prefix, "/<namespace>/<scope>/", into a view that is complete for revision.
//
// It is pure and never panics. What does not follow Patroni's grammar is absent from the view and named in Problems,
// without its value. Where absence would read as permission, the view errs on the other side: an unintelligible leader
// key is a leader about whom nothing is known, an unintelligible failover key is a switchover about which nothing is
// known, an unintelligible field of the dynamic configuration makes the configuration not Present, an unintelligible
// nofailover tag counts as set. Keys that Patroni does not use, the groups of Citus, and the failsafe key are ignored.
func ParseCluster(scope, prefix string, revision int64, clusterID uint64, kvs []KV) node.Cluster {
	p := parser{prefix: prefix, c: node.Cluster{
		Scope: scope, Revision: revision, ClusterID: clusterID, Empty: true, Config: node.DefaultDynamicConfig(),
	}}
	for _, kv := range slices.SortedFunc(slices.Values(kvs), func(a, b KV) int { return strings.Compare(a.Key, b.Key) }) {
		rel, ok := strings.CutPrefix(kv.Key, prefix)
		if !ok {
			continue
		}
		p.c.Empty = false
		parse := p.parserOf(rel)
		if parse == nil {
			continue
		}
		if reason := checkText(kv.Value); reason != "" {
			p.problem(kv.Key, reason)
			p.distrust(rel)
			continue
		}
		parse(rel, kv)
	}
	if !p.hasStatus {
		p.c.Optime = p.legacyOptime
	}
	if p.unreported > 0 {
		p.c.Problems = append(p.c.Problems, node.KeyProblem{
			Key: printable(prefix, maxKeyShown), Reason: fmt.Sprintf("%d more problems", p.unreported),
		})
	}
	return p.c
}

// parser collects the view and the problems of one call of ParseCluster.
type parser struct {
	prefix       string
	c            node.Cluster
	hasStatus    bool
	legacyOptime uint64
	unreported   int
}

// parserOf returns what parses the key with that name below the prefix, nil if the view does not use it.
func (p *parser) parserOf(rel string) func(rel string, kv KV) {
	switch rel {
	case "initialize":
		return p.initialize
	case "config":
		return p.config
	case "leader":
		return p.leader
	case "failover":
		return p.failover
	case "sync":
		return p.sync
	case "history":
		return p.history
	case "status":
		return p.status
	case "optime/leader":
		return p.optime
	}
	if strings.HasPrefix(rel, "members/") {
		return p.member
	}
	return nil
}

// problem notes that a key, or a part of it, did not pass. The reason never repeats the value.
func (p *parser) problem(key, reason string) {
	if len(p.c.Problems) >= maxProblems {
		p.unreported++
		return
	}
	p.c.Problems = append(p.c.Problems, node.KeyProblem{Key: printable(key, maxKeyShown), Reason: reason})
}

// distrust is called for a key that exists and says nothing intelligible at all.
func (p *parser) distrust(rel string) {
	switch rel {
	case "leader":
		p.c.LeaderUnknown = true
	case "failover":
		p.c.Switchover = &node.Switchover{}
	case "config":
		p.c.Config = node.DefaultDynamicConfig()
	}
}

func (p *parser) initialize(_ string, kv KV) {
	if len(kv.Value) == 0 { // bootstrap in progress (FACTS.md §1.1)
		return
	}
	if !systemRE.Match(kv.Value) {
		p.problem(kv.Key, "not a system identifier")
		return
	}
	p.c.Initialize = string(kv.Value)
}

func (p *parser) leader(rel string, kv KV) {
	name := string(kv.Value)
	if !validName(name) {
		p.problem(kv.Key, "not a member name")
		p.distrust(rel)
		return
	}
	if kv.Lease == 0 {
		// Patroni always writes it with its lease; one without it never expires and blocks every failover.
		p.problem(kv.Key, "no lease is attached to the leader key")
	}
	p.c.Leader = &node.LeaderKey{
		Name: name, Lease: kv.Lease, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
	}
}

func (p *parser) failover(rel string, kv KV) {
	obj, ok := parseObject(kv.Value)
	if !ok {
		p.legacyFailover(rel, kv)
		return
	}
	f := fields{p: p, key: kv.Key, obj: obj}
	s := node.Switchover{From: f.name("leader"), To: f.name("member"), Scheduled: f.time("scheduled_at")}
	if s != (node.Switchover{}) || f.bad {
		p.c.Switchover = &s
	}
}

// legacyFailover reads "leader:candidate", which Patroni still accepts (Failover.from_node).
func (p *parser) legacyFailover(rel string, kv KV) {
	text := strings.TrimSpace(string(kv.Value))
	if text == "" {
		return
	}
	from, to, _ := strings.Cut(text, ":")
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if (from != "" && !validName(from)) || (to != "" && !validName(to)) || from+to == "" {
		p.problem(kv.Key, "not a JSON object")
		p.distrust(rel)
		return
	}
	p.c.Switchover = &node.Switchover{From: from, To: to}
}

func (p *parser) sync(_ string, kv KV) {
	if len(kv.Value) == 0 {
		return
	}
	obj, ok := parseObject(kv.Value)
	if !ok {
		p.problem(kv.Key, "not a JSON object")
		return
	}
	f := fields{p: p, key: kv.Key, obj: obj}
	p.c.SyncLeader = f.name("leader")
	list, ok := f.text("sync_standby", maxValue)
	if !ok || list == "" {
		return
	}
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); !validName(name) {
			f.reject("sync_standby", "holds something that is not a member name")
			p.c.SyncNames = nil
			return
		}
		p.c.SyncNames = append(p.c.SyncNames, name)
	}
}

func (p *parser) history(_ string, kv KV) {
	if len(kv.Value) == 0 {
		return
	}
	lines, ok := parseList(kv.Value)
	if !ok {
		p.problem(kv.Key, "not a JSON array")
		return
	}
	bad := 0
	for _, raw := range lines[max(0, len(lines)-maxHistory):] {
		if e, ok := parseHistoryEntry(raw); ok {
			p.c.History = append(p.c.History, e)
		} else {
			bad++
		}
	}
	if bad > 0 {
		p.problem(kv.Key, fmt.Sprintf("%d entries are not [timeline, lsn, reason, time, leader]", bad))
	}
}

// parseHistoryEntry decodes [timeline, lsn, reason, time, leader]; Patroni leaves the last two out where it does not
// know them.
func parseHistoryEntry(raw []byte) (node.HistoryEntry, bool) {
	parts, ok := parseList(raw)
	if !ok || len(parts) < 2 || len(parts) > 16 {
		return node.HistoryEntry{}, false
	}
	var e node.HistoryEntry
	var okTimeline, okLSN bool
	e.Timeline, okTimeline = parseInteger(parts[0], 1, math.MaxUint32)
	lsn, okLSN := parseInteger(parts[1], 0, math.MaxInt64)
	if !okTimeline || !okLSN {
		return node.HistoryEntry{}, false
	}
	e.LSN = uint64(lsn)
	if len(parts) > 2 && !isNull(parts[2]) {
		if e.Reason, ok = parseText(parts[2], 256); !ok {
			return node.HistoryEntry{}, false
		}
	}
	if len(parts) > 3 && !isNull(parts[3]) {
		if e.At, ok = parseTime(parts[3]); !ok {
			return node.HistoryEntry{}, false
		}
	}
	if len(parts) > 4 && !isNull(parts[4]) {
		if e.NewLeader, ok = parseString(parts[4]); !ok || !validName(e.NewLeader) {
			return node.HistoryEntry{}, false
		}
	}
	return e, true
}

func (p *parser) status(_ string, kv KV) {
	if len(kv.Value) == 0 {
		return
	}
	obj, ok := parseObject(kv.Value)
	if !ok {
		p.problem(kv.Key, "not a JSON object")
		return
	}
	f := fields{p: p, key: kv.Key, obj: obj}
	if n, ok := f.integer("optime", 0, math.MaxInt64); ok {
		p.c.Optime, p.hasStatus = uint64(n), true
	}
}

func (p *parser) optime(_ string, kv KV) {
	n, ok := parseInteger(kv.Value, 0, math.MaxInt64)
	if !ok {
		p.problem(kv.Key, "not a WAL position")
		return
	}
	p.legacyOptime = uint64(n)
}
