package dcs

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// maxSeconds bounds the periods of the dynamic configuration.
const maxSeconds = 1_000_000

// fields reads the fields of one JSON object by their grammars and notes each that does not pass. A field that is
// absent or null is no problem.
type fields struct {
	p   *parser
	key string
	obj map[string]json.RawMessage
	bad bool // at least one field did not pass
}

func (f *fields) reject(field, reason string) {
	f.bad = true
	f.p.problem(f.key, fmt.Sprintf("field %s %s", field, reason))
}

func (f *fields) name(field string) string {
	if isNull(f.obj[field]) {
		return ""
	}
	s, ok := parseString(f.obj[field])
	if ok && s == "" {
		return ""
	}
	if !ok || !validName(s) {
		f.reject(field, "is not a member name")
		return ""
	}
	return s
}

func (f *fields) word(field string, words []string) string {
	if isNull(f.obj[field]) {
		return ""
	}
	s, ok := parseWord(f.obj[field], words)
	if !ok {
		f.reject(field, "is not one of Patroni's words")
	}
	return s
}

func (f *fields) text(field string, limit int) (string, bool) {
	if isNull(f.obj[field]) {
		return "", false
	}
	s, ok := parseText(f.obj[field], limit)
	if !ok {
		f.reject(field, "is not printable text")
	}
	return s, ok
}

func (f *fields) time(field string) string {
	if s, ok := parseString(f.obj[field]); isNull(f.obj[field]) || (ok && s == "") {
		return ""
	}
	s, ok := parseTime(f.obj[field])
	if !ok {
		f.reject(field, "is not an RFC 3339 time")
	}
	return s
}

func (f *fields) integer(field string, low, high int64) (int64, bool) {
	if isNull(f.obj[field]) {
		return 0, false
	}
	n, ok := parseInteger(f.obj[field], low, high)
	if !ok {
		f.reject(field, "is not an integer in its range")
	}
	return n, ok
}

// number is integer for the dynamic configuration, where Patroni also accepts digits in quotes.
func (f *fields) number(field string, low, high int64) (int64, bool) {
	if s, ok := parseString(f.obj[field]); ok {
		n, ok := parseInteger([]byte(strings.TrimSpace(s)), low, high)
		if !ok {
			f.reject(field, "is not an integer in its range")
		}
		return n, ok
	}
	return f.integer(field, low, high)
}

func (f *fields) seconds(field string, low int64, d *time.Duration) {
	if n, ok := f.number(field, -maxSeconds, maxSeconds); ok {
		*d = time.Duration(max(n, low)) * time.Second
	}
}

func (f *fields) truth(field string) bool {
	if isNull(f.obj[field]) {
		return false
	}
	v, ok := parseBool(f.obj[field])
	if !ok {
		f.reject(field, "is not a truth value")
	}
	return v
}

func (p *parser) member(rel string, kv KV) {
	name := strings.TrimPrefix(rel, "members/")
	if !validName(name) {
		p.problem(kv.Key, "not a member name in the key")
		return
	}
	obj, ok := parseObject(kv.Value)
	if !ok {
		p.problem(kv.Key, "not a JSON object")
		return
	}
	f := fields{p: p, key: kv.Key, obj: obj}
	m := node.Member{
		Name:             name,
		State:            f.word("state", states),
		Role:             f.word("role", roles),
		ReplicationState: f.word("replication_state", replicationStates),
		Paused:           f.truth("pause"),
		PendingRestart:   f.truth("pending_restart"),
		ScheduledRestart: !isNull(obj["scheduled_restart"]),
		NoFailover:       f.noFailover(),
		Lease:            kv.Lease,
		ModRevision:      kv.ModRevision,
	}
	m.Timeline, _ = f.integer("timeline", 0, math.MaxUint32)
	m.LSN, m.HasLSN = f.position(m.Role)
	f.addresses(&m)
	p.c.Members = append(p.c.Members, m) // keys are sorted, so members are sorted by name
}

// addresses reads where the member's PostgreSQL and REST API listen, and its Patroni's version.
func (f *fields) addresses(m *node.Member) {
	if raw := f.obj["version"]; !isNull(raw) {
		if s, ok := parseString(raw); ok && versionRE.MatchString(s) {
			m.Version = s
		} else {
			f.reject("version", "is not a version")
		}
	}
	if raw := f.obj["conn_url"]; !isNull(raw) {
		s, _ := parseString(raw)
		var ok bool
		if m.Host, m.Port, ok = parseConnURL(s); !ok {
			f.reject("conn_url", "is not postgres://host:port/...")
		}
	}
	if raw := f.obj["api_url"]; !isNull(raw) {
		s, _ := parseString(raw)
		var ok bool
		if m.APIURL, ok = parseAPIURL(s); !ok {
			f.reject("api_url", "is not http(s)://host:port/patroni")
		}
	}
}

// position returns the member's WAL position: what a primary wrote, what a standby replayed. Patroni before 4.1 tells
// only xlog_location, which for a standby is the greater of received and replayed (patroni/ha.py, touch_member).
func (f *fields) position(role string) (uint64, bool) {
	location, hasLocation := f.integer("xlog_location", 0, math.MaxInt64)
	replayed, hasReplayed := f.integer("replay_lsn", 0, math.MaxInt64)
	switch {
	case hasLocation && (role == "primary" || role == "master" || role == "promoted"):
		return uint64(location), true
	case hasReplayed:
		return uint64(replayed), true
	case hasLocation:
		return uint64(location), true
	}
	return 0, false
}

// noFailover follows patroni/tags.py: the tag itself, else a failover_priority of zero or less. What cannot be
// understood counts as set: such a member is not to be relied on as a candidate.
func (f *fields) noFailover() bool {
	raw := f.obj["tags"]
	if isNull(raw) {
		return false
	}
	tags, ok := parseObject(raw)
	if !ok {
		f.reject("tags", "is not a JSON object")
		return true
	}
	t := fields{p: f.p, key: f.key, obj: tags}
	if isNull(tags["nofailover"]) {
		priority, known := t.number("failover_priority", math.MinInt32, math.MaxInt32)
		return t.bad || (known && priority <= 0)
	}
	v := t.truth("nofailover")
	return v || t.bad
}

// config reads the dynamic configuration. The periods are those that Patroni works with: it raises them to minima and
// shortens loop_wait, then retry_timeout, until loop_wait + 2 * retry_timeout <= ttl (patroni/config.py,
// _validate_and_adjust_timeouts).
func (p *parser) config(_ string, kv KV) {
	obj, ok := parseObject(kv.Value)
	if !ok {
		p.problem(kv.Key, "not a JSON object")
		return
	}
	f := fields{p: p, key: kv.Key, obj: obj}
	c := node.DefaultDynamicConfig()
	f.seconds("ttl", 20, &c.TTL)
	f.seconds("loop_wait", 1, &c.LoopWait)
	f.seconds("retry_timeout", 3, &c.RetryTimeout)
	if time.Second+2*c.RetryTimeout > c.TTL {
		c.LoopWait = time.Second
		c.RetryTimeout = ((c.TTL - time.Second) / 2).Truncate(time.Second)
	} else if c.LoopWait+2*c.RetryTimeout > c.TTL {
		c.LoopWait = c.TTL - 2*c.RetryTimeout
	}
	start := "primary_start_timeout"
	if isNull(obj[start]) {
		start = "master_start_timeout" // before Patroni 4, still honoured
	}
	f.seconds(start, 0, &c.PrimaryStartTimeout)
	if n, ok := f.number("maximum_lag_on_failover", 0, math.MaxInt64); ok {
		c.MaximumLagOnFailover = uint64(n)
	}
	c.Pause = f.truth("pause")
	c.FailsafeMode = f.truth("failsafe_mode")
	c.StandbyCluster = f.standbyCluster()
	if s, _ := parseString(obj["synchronous_mode"]); strings.EqualFold(s, "quorum") {
		c.SynchronousMode = !c.StandbyCluster
	} else {
		c.SynchronousMode = f.truth("synchronous_mode") && !c.StandbyCluster
	}
	c.Present = !f.bad
	c.ModRevision = kv.ModRevision
	p.c.Config = c
}

// standbyCluster reports whether the cluster follows another one. Patroni takes an empty object for "no".
func (f *fields) standbyCluster() bool {
	raw := f.obj["standby_cluster"]
	if isNull(raw) {
		return false
	}
	obj, ok := parseObject(raw)
	if !ok {
		f.reject("standby_cluster", "is not a JSON object")
		return false
	}
	return len(obj) > 0
}
