package dcs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

const testPrefix = "/patroni/demo/"

// Values as Patroni 4.0.7 and 4.1.4 write them.
const (
	realPrimary = `{"conn_url":"postgres://10.100.2.5:5432/postgres","api_url":"http://10.100.2.5:8008/patroni",` +
		`"state":"running","role":"primary","version":"4.0.7","xlog_location":67109200,"timeline":3}`
	realReplica41 = `{"conn_url":"postgres://pg2.lan:5432/postgres","api_url":"https://pg2.lan:8008/patroni","state":"running",` +
		`"role":"replica","version":"4.1.4","tags":{"nofailover":true,"clonefrom":true},"pending_restart":true,` +
		`"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},"xlog_location":67109200,` +
		`"replay_lsn":67109000,"receive_lsn":67109200,"replication_state":"streaming","timeline":3,"pause":true,` +
		`"scheduled_restart":{"schedule":"2026-08-01T03:00:00+00:00","postmaster_start_time":"2026-07-01 10:00:00.000+00"}}`
	realReplica40 = `{"conn_url":"postgres://[fd00::7]:5432/postgres","api_url":"http://[fd00::7]:8008/patroni","state":"running",` +
		`"role":"replica","version":"4.0.7","xlog_location":67109100,"replication_state":"in archive recovery","timeline":3}`
	realCreating = `{"conn_url":"postgres://10.100.2.8:5432/postgres","api_url":"http://10.100.2.8:8008/patroni",` +
		`"state":"creating replica","role":"uninitialized","version":"4.0.7"}`
	realConfig = `{"ttl":20,"loop_wait":2,"retry_timeout":3,"maximum_lag_on_failover":2097152,"failsafe_mode":true,` +
		`"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":100}}}`
	realHistory = `[[1,25623960,"no recovery target specified","2026-07-24T10:12:29.123456+00:00","pg2"],` +
		`[2,67108864,"no recovery target specified","2026-07-25T10:12:29+00:00","pg1"]]`
)

func put(rel, value string) KV {
	return KV{Key: testPrefix + rel, Value: []byte(value), CreateRevision: 5, ModRevision: 9, Lease: 0x7c01}
}

func parse(kvs ...KV) node.Cluster { return ParseCluster("demo", testPrefix, 42, 0xc1, kvs) }

func TestParseCluster_WholeCluster(t *testing.T) {
	got := parse(
		put("members/pg3", realReplica40), put("members/pg1", realPrimary), put("members/pg2", realReplica41),
		put("members/pg4", realCreating), put("initialize", "7386438653867520001"), put("config", realConfig),
		put("leader", "pg1"), put("failover", `{"leader":"pg1","member":"pg2","scheduled_at":"2026-08-01T03:00:00+00:00"}`),
		put("sync", `{"leader":"pg1","quorum":0,"sync_standby":"pg2,pg3"}`), put("history", realHistory),
		put("status", `{"optime":67109200,"slots":{"pg2":67109000},"retain_slots":["pg2"]}`), put("optime/leader", "1"),
		put("failsafe", "not looked at \x00"), put("0/leader", "citus"), put("unknown", "\x00"),
		KV{Key: "/patroni/demo2/leader", Value: []byte("pgX")},
	)
	want := node.Cluster{
		Scope: "demo", Revision: 42, ClusterID: 0xc1, Initialize: "7386438653867520001",
		Config: node.DynamicConfig{
			Present: true, TTL: 20 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 3 * time.Second,
			PrimaryStartTimeout: 300 * time.Second, MaximumLagOnFailover: 2 << 20, FailsafeMode: true, ModRevision: 9,
		},
		Leader: &node.LeaderKey{Name: "pg1", Lease: 0x7c01, CreateRevision: 5, ModRevision: 9},
		Members: []node.Member{
			{
				Name: "pg1", Host: "10.100.2.5", Port: 5432, APIURL: "http://10.100.2.5:8008", State: "running", Role: "primary",
				Version: "4.0.7", Timeline: 3, HasLSN: true, LSN: 67109200, Lease: 0x7c01, ModRevision: 9,
			},
			{
				Name: "pg2", Host: "pg2.lan", Port: 5432, APIURL: "https://pg2.lan:8008", State: "running", Role: "replica",
				Version: "4.1.4", Timeline: 3, HasLSN: true, LSN: 67109000, ReplicationState: "streaming", NoFailover: true,
				Paused: true, PendingRestart: true, ScheduledRestart: true, Lease: 0x7c01, ModRevision: 9,
			},
			{
				Name: "pg3", Host: "fd00::7", Port: 5432, APIURL: "http://[fd00::7]:8008", State: "running", Role: "replica",
				Version: "4.0.7", Timeline: 3, HasLSN: true, LSN: 67109100, ReplicationState: "in archive recovery",
				Lease: 0x7c01, ModRevision: 9,
			},
			{
				Name: "pg4", Host: "10.100.2.8", Port: 5432, APIURL: "http://10.100.2.8:8008", State: "creating replica",
				Role: "uninitialized", Version: "4.0.7", Lease: 0x7c01, ModRevision: 9,
			},
		},
		Switchover: &node.Switchover{From: "pg1", To: "pg2", Scheduled: "2026-08-01T03:00:00+00:00"},
		SyncLeader: "pg1", SyncNames: []string{"pg2", "pg3"},
		History: []node.HistoryEntry{
			{Timeline: 1, LSN: 25623960, Reason: "no recovery target specified", At: "2026-07-24T10:12:29.123456+00:00", NewLeader: "pg2"},
			{Timeline: 2, LSN: 67108864, Reason: "no recovery target specified", At: "2026-07-25T10:12:29+00:00", NewLeader: "pg1"},
		},
		Optime: 67109200,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestParseCluster_Empty(t *testing.T) {
	got := parse(KV{Key: "/patroni/demo2/leader", Value: []byte("pg1")})
	want := node.Cluster{Scope: "demo", Revision: 42, ClusterID: 0xc1, Empty: true, Config: node.DefaultDynamicConfig()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// A leader key that cannot be read is not the absence of a leader.
func TestParseCluster_LeaderUnknown(t *testing.T) {
	tests := []struct {
		name string
		kvs  []KV
		want bool
	}{
		{"no key", nil, false},
		{"a member", []KV{put("leader", "pg1")}, false},
		{"empty", []KV{put("leader", "")}, true},
		{"not a name", []KV{put("leader", "../x")}, true},
		{"not UTF-8", []KV{put("leader", "pg\xff")}, true},
		{"too large", []KV{put("leader", strings.Repeat("x", 2<<20))}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(tt.kvs...)
			if c.LeaderUnknown != tt.want || (tt.want && c.Leader != nil) {
				t.Fatalf("leader unknown %v, leader %+v", c.LeaderUnknown, c.Leader)
			}
		})
	}
}

// One key at a time: what it says, and which part of it is a problem.
func TestParseCluster_Keys(t *testing.T) {
	noLease := put("leader", "pg1")
	noLease.Lease = 0
	none := func(c node.Cluster) any { return c.Switchover }
	leader := func(c node.Cluster) any { return c.LeaderName() }
	tests := []struct {
		name    string
		kv      KV
		look    func(c node.Cluster) any
		want    any
		problem string // "" for none
	}{
		{"leader", put("leader", "pg1"), leader, "pg1", ""},
		{"leader without lease", noLease, leader, "pg1", "no lease"},
		{"leader empty", put("leader", ""), leader, "", "not a member name"},
		{"leader is a path", put("leader", "../x"), leader, "", "not a member name"},
		{"leader with line break", put("leader", "pg1\n"), leader, "", "not a member name"},
		{"leader not UTF-8", put("leader", "pg\xff"), leader, "", "UTF-8"},
		{"initialize while bootstrapping", put("initialize", ""), func(c node.Cluster) any { return c.Initialize }, "", ""},
		{"initialize odd", put("initialize", "7x"), func(c node.Cluster) any { return c.Initialize }, "", "system identifier"},
		{"failover none", put("failover", "{}"), none, (*node.Switchover)(nil), ""},
		{"failover nulls", put("failover", `{"leader":null,"member":"","scheduled_at":null}`), none, (*node.Switchover)(nil), ""},
		{"failover empty value", put("failover", ""), none, (*node.Switchover)(nil), ""},
		{"failover legacy", put("failover", "pg1: pg2"), none, &node.Switchover{From: "pg1", To: "pg2"}, ""},
		{"failover half JSON", put("failover", `{"leader":"pg1"`), none, &node.Switchover{}, "not a JSON object"},
		{"failover odd name", put("failover", `{"leader":"pg1","member":7}`), none, &node.Switchover{From: "pg1"}, "field member"},
		{"failover odd time", put("failover", `{"scheduled_at":"tomorrow"}`), none, &node.Switchover{}, "field scheduled_at"},
		{"failover control characters", put("failover", "{\x00}"), none, &node.Switchover{}, "control characters"},
		{"sync none", put("sync", `{"leader":"pg1","sync_standby":null}`), func(c node.Cluster) any { return c.SyncNames }, []string(nil), ""},
		{"sync odd", put("sync", `{"leader":"pg1","sync_standby":"pg2,*"}`), func(c node.Cluster) any { return c.SyncNames }, []string(nil), "sync_standby"},
		{"sync not JSON", put("sync", `pg1`), func(c node.Cluster) any { return c.SyncLeader }, "", "not a JSON object"},
		{"status odd", put("status", `{"optime":-1}`), func(c node.Cluster) any { return c.Optime }, uint64(0), "field optime"},
		{"optime legacy", put("optime/leader", "67109200"), func(c node.Cluster) any { return c.Optime }, uint64(67109200), ""},
		{"optime odd", put("optime/leader", "many"), func(c node.Cluster) any { return c.Optime }, uint64(0), "WAL position"},
		{"history none", put("history", "[]"), func(c node.Cluster) any { return len(c.History) }, 0, ""},
		{"history short entries", put("history", `[[1,5,"x"],[2,6]]`), func(c node.Cluster) any { return len(c.History) }, 2, ""},
		{"history odd entries", put("history", `[[1,5,"x"],"y",[0,1],[1,5,"\u001b[2J"]]`), func(c node.Cluster) any { return len(c.History) }, 1, "3 entries"},
		{"history long", put("history", "["+strings.Repeat(`[1,5,"x"],`, 999)+`[9,5,"x"]]`), func(c node.Cluster) any {
			return []int64{int64(len(c.History)), c.History[63].Timeline}
		}, []int64{64, 9}, ""},
		{"history too large", put("history", "["+strings.Repeat(`[1,5,"x"],`, 200000)+`[9,5,"x"]]`), func(c node.Cluster) any { return len(c.History) }, 0, "1 MiB"},
		{"member name odd", put("members/a b", realPrimary), func(c node.Cluster) any { return len(c.Members) }, 0, "member name in the key"},
		{"member half JSON", put("members/pg1", realPrimary[:100]), func(c node.Cluster) any { return len(c.Members) }, 0, "not a JSON object"},
		{"member null", put("members/pg1", "null"), func(c node.Cluster) any { return len(c.Members) }, 0, "not a JSON object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(tt.kv)
			if diff := cmp.Diff(tt.want, tt.look(c)); diff != "" {
				t.Error(diff)
			}
			checkProblem(t, c, tt.problem)
		})
	}
}

func checkProblem(t *testing.T, c node.Cluster, want string) {
	t.Helper()
	switch {
	case want == "" && len(c.Problems) > 0:
		t.Errorf("problems = %+v", c.Problems)
	case want != "" && (len(c.Problems) != 1 || !strings.Contains(c.Problems[0].Reason, want)):
		t.Errorf("problems = %+v, want one with %q", c.Problems, want)
	}
}

func TestParseCluster_Config(t *testing.T) {
	def := node.DefaultDynamicConfig()
	def.Present, def.ModRevision = true, 9
	tests := []struct {
		name, value string
		want        func(c *node.DynamicConfig)
		problem     string
	}{
		{"empty object is all defaults", `{}`, func(*node.DynamicConfig) {}, ""},
		{"digits in quotes", `{"ttl":"40"}`, func(c *node.DynamicConfig) { c.TTL = 40 * time.Second }, ""},
		{"names are matched exactly", `{"TTL":40,"Pause":true}`, func(*node.DynamicConfig) {}, ""},
		{"pause", `{"pause":true}`, func(c *node.DynamicConfig) { c.Pause = true }, ""},
		{"pause in words", `{"pause":"On"}`, func(c *node.DynamicConfig) { c.Pause = true }, ""},
		{"pause null", `{"pause":null}`, func(*node.DynamicConfig) {}, ""},
		{"pause odd", `{"pause":"maybe"}`, func(c *node.DynamicConfig) { c.Present = false }, "field pause"},
		{"ttl odd", `{"ttl":"soon","pause":true}`, func(c *node.DynamicConfig) { c.Present, c.Pause = false, true }, "field ttl"},
		{"ttl fraction", `{"ttl":30.5}`, func(c *node.DynamicConfig) { c.Present = false }, "field ttl"},
		{"ttl huge", `{"ttl":9223372036854775807}`, func(c *node.DynamicConfig) { c.Present = false }, "field ttl"},
		{"below the minima", `{"ttl":5,"loop_wait":0,"retry_timeout":-1}`, func(c *node.DynamicConfig) {
			c.TTL, c.LoopWait, c.RetryTimeout = 20*time.Second, time.Second, 3*time.Second
		}, ""},
		{"loop_wait gives way", `{"ttl":25}`, func(c *node.DynamicConfig) { c.TTL, c.LoopWait = 25*time.Second, 5*time.Second }, ""},
		{"retry_timeout gives way", `{"ttl":20}`, func(c *node.DynamicConfig) {
			c.TTL, c.LoopWait, c.RetryTimeout = 20*time.Second, time.Second, 9*time.Second
		}, ""},
		{"legacy start timeout", `{"master_start_timeout":0}`, func(c *node.DynamicConfig) { c.PrimaryStartTimeout = 0 }, ""},
		{"quorum mode", `{"synchronous_mode":"quorum"}`, func(c *node.DynamicConfig) { c.SynchronousMode = true }, ""},
		{"standby cluster", `{"standby_cluster":{"host":"x"},"synchronous_mode":true}`, func(c *node.DynamicConfig) { c.StandbyCluster = true }, ""},
		{"standby cluster none", `{"standby_cluster":null}`, func(*node.DynamicConfig) {}, ""},
		{"standby cluster odd", `{"standby_cluster":"x"}`, func(c *node.DynamicConfig) { c.Present = false }, "field standby_cluster"},
		{"negative lag", `{"maximum_lag_on_failover":-5}`, func(c *node.DynamicConfig) { c.Present = false }, "maximum_lag_on_failover"},
		{"half JSON", `{"ttl":`, func(c *node.DynamicConfig) { *c = node.DefaultDynamicConfig() }, "not a JSON object"},
		{"NaN", `{"ttl":NaN}`, func(c *node.DynamicConfig) { *c = node.DefaultDynamicConfig() }, "not a JSON object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := def
			tt.want(&want)
			c := parse(put("config", tt.value))
			if diff := cmp.Diff(want, c.Config); diff != "" {
				t.Error(diff)
			}
			checkProblem(t, c, tt.problem)
		})
	}
}

func TestParseCluster_MemberFields(t *testing.T) {
	tests := []struct {
		name, value string
		want        node.Member // besides name, lease and revision
		problem     string
	}{
		{"nothing known", `{}`, node.Member{}, ""},
		{"state odd", `{"state":"dancing","role":"replica"}`, node.Member{Role: "replica"}, "field state"},
		{"role is a number", `{"role":1}`, node.Member{}, "field role"},
		{"nofailover in words", `{"tags":{"nofailover":"true"}}`, node.Member{NoFailover: true}, ""},
		{"nofailover off", `{"tags":{"nofailover":false,"failover_priority":0}}`, node.Member{}, ""},
		{"nofailover odd", `{"tags":{"nofailover":[]}}`, node.Member{NoFailover: true}, "field nofailover"},
		{"tags odd", `{"tags":[1]}`, node.Member{NoFailover: true}, "field tags"},
		{"priority zero", `{"tags":{"failover_priority":0}}`, node.Member{NoFailover: true}, ""},
		{"priority two", `{"tags":{"failover_priority":2}}`, node.Member{}, ""},
		{"priority odd", `{"tags":{"failover_priority":"x"}}`, node.Member{NoFailover: true}, "field failover_priority"},
		{"lsn negative", `{"xlog_location":-1}`, node.Member{}, "field xlog_location"},
		{"lsn too large", `{"xlog_location":99999999999999999999}`, node.Member{}, "field xlog_location"},
		{"lsn zero", `{"xlog_location":0}`, node.Member{HasLSN: true}, ""},
		{"timeline null", `{"timeline":null}`, node.Member{}, ""},
		{"api with credentials", `{"api_url":"http://u:hunter2@h:8008/patroni"}`, node.Member{}, "field api_url"},
		{"api with another path", `{"api_url":"http://h:8008/x"}`, node.Member{}, "field api_url"},
		{"api with a query", `{"api_url":"http://h:8008/patroni?x=hunter2"}`, node.Member{}, "field api_url"},
		{"api without port", `{"api_url":"http://h/patroni"}`, node.Member{}, "field api_url"},
		{"api is a file", `{"api_url":"file:///etc/passwd"}`, node.Member{}, "field api_url"},
		{"api host odd", `{"api_url":"http://a;b:8008/patroni"}`, node.Member{}, "field api_url"},
		{"api with escapes", `{"api_url":"http://h\u001b:8008/patroni"}`, node.Member{}, "field api_url"},
		{"conn with password", `{"conn_url":"postgres://u:hunter2@h:5432/postgres"}`, node.Member{Host: "h", Port: 5432}, ""},
		{"conn port odd", `{"conn_url":"postgres://h:99999/postgres"}`, node.Member{}, "field conn_url"},
		{"version odd", `{"version":"4.1; rm"}`, node.Member{}, "field version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(put("members/pg1", tt.value))
			tt.want.Name, tt.want.Lease, tt.want.ModRevision = "pg1", 0x7c01, 9
			if diff := cmp.Diff([]node.Member{tt.want}, c.Members); diff != "" {
				t.Error(diff)
			}
			checkProblem(t, c, tt.problem)
			if strings.Contains(fmt.Sprint(c), "hunter2") {
				t.Error("a secret got through")
			}
		})
	}
}

func TestParseCluster_ProblemsAreBounded(t *testing.T) {
	var kvs []KV
	for i := range 500 {
		kvs = append(kvs, put(fmt.Sprintf("members/pg%d\x1b%s", i, strings.Repeat("x", 500)), "{}"))
	}
	c := parse(kvs...)
	if len(c.Problems) != maxProblems+1 || c.Problems[maxProblems].Reason != "436 more problems" {
		t.Fatalf("%d problems, last %+v", len(c.Problems), c.Problems[len(c.Problems)-1])
	}
	if key := c.Problems[0].Key; strings.ContainsRune(key, 0x1b) || len(key) > maxKeyShown+3 {
		t.Fatalf("key = %q", key)
	}
}

func TestRedact(t *testing.T) {
	got := redact("dial http://root:hunter2@e1:2379: hunter2 \x1b[2J refused", "hunter2")
	if want := "dial http://<redacted>@e1:2379: <redacted> ?[2J refused"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}
