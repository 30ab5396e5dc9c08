package dcs

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// FuzzParseCluster feeds one value to every key at once.
func FuzzParseCluster(f *testing.F) {
	for _, s := range []string{
		realPrimary, realReplica41, realReplica40, realCreating, realConfig, realHistory, "pg1", "7386438653867520001", "",
		"{}", "[]", "null", `{"leader":"pg1","member":"pg2","scheduled_at":"2026-08-01T03:00:00+00:00"}`, "pg1:pg2",
		`{"leader":"pg1","quorum":0,"sync_standby":"pg2,pg3"}`, `{"optime":67109200,"slots":{"pg2":67109000}}`, "\x00\xff",
		strings.Repeat("[", 20000), realPrimary[:90], `{"api_url":"http://[::1%25eth0]:8008/"}`, `{"ttl":1e9}`,
	} {
		f.Add("members/pg1", []byte(s))
	}
	f.Add("members/\x1b", []byte(realPrimary))
	f.Fuzz(func(t *testing.T, rel string, value []byte) {
		kvs := []KV{{Key: testPrefix + rel, Value: value, Lease: math.MinInt64}}
		for _, known := range []string{
			"initialize", "config", "leader", "failover", "sync", "history", "status", "optime/leader", "failsafe", "members/x",
		} {
			kvs = append(kvs, KV{Key: testPrefix + known, Value: value, ModRevision: math.MaxInt64})
		}
		checkCluster(t, ParseCluster("demo", testPrefix, 1, 1, kvs))
	})
}

// checkCluster checks what a view promises whatever was in the keys.
func checkCluster(t *testing.T, c node.Cluster) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	var collect func(v any)
	collect = func(v any) {
		switch v := v.(type) {
		case string:
			words = append(words, v)
		case []any:
			for _, e := range v {
				collect(e)
			}
		case map[string]any:
			for _, e := range v {
				collect(e)
			}
		}
	}
	var decoded any
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	collect(decoded)
	for _, w := range words {
		if len(w) > 4*maxKeyShown && len(w) > 256 {
			t.Errorf("%d bytes in %.40q", len(w), w)
		}
		for _, r := range w {
			if !unicode.IsPrint(r) {
				t.Errorf("%q is not printable", w)
			}
		}
	}
	if len(c.History) > maxHistory || len(c.Problems) > maxProblems+1 {
		t.Errorf("%d history entries, %d problems", len(c.History), len(c.Problems))
	}
	if c.Config.LoopWait+2*c.Config.RetryTimeout > c.Config.TTL || c.Config.LoopWait <= 0 || c.Config.TTL <= 0 {
		t.Errorf("config = %+v", c.Config)
	}
	for _, m := range c.Members {
		if !validName(m.Name) || m.Port < 0 || m.Port > 65535 || (m.Host != "" && !validHost(m.Host)) {
			t.Errorf("member = %+v", m)
		}
	}
}

func FuzzParseAPIURL(f *testing.F) {
	for _, s := range []string{
		"http://10.0.0.1:8008/patroni", "https://[fd00::1]:8008/", "http://u:p@h:1/", "http://h:1/patroni?x#y", "http://h:0", "//h:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseAPIURL(s)
		if !ok {
			return
		}
		if again, ok := parseAPIURL(got); !ok || again != got {
			t.Fatalf("%q gives %q, which gives %q, %v", s, got, again, ok)
		}
		if strings.ContainsAny(got, "@?# \t\r\n\"'`$;") || strings.Count(got, "/") != 2 {
			t.Fatalf("%q gives %q", s, got)
		}
	})
}

func FuzzParseConnURL(f *testing.F) {
	for _, s := range []string{"postgres://10.0.0.1:5432/postgres", "postgresql://u:p@h:5432", "postgres://h,i:5432/x", "postgres://:5432"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if host, port, ok := parseConnURL(s); ok && (!validHost(host) || port < 1 || port > 65535) {
			t.Fatalf("%q gives %q, %d", s, host, port)
		}
	})
}

func FuzzParseFields(f *testing.F) {
	for _, s := range []string{`1`, `-9223372036854775808`, `"on"`, `true`, `"running"`, `"2026-08-01T03:00:00Z"`, `"\u202e"`, `[1,2,"x"]`, `{}`, `"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if n, ok := parseInteger(raw, -5, 5); ok && (n < -5 || n > 5) {
			t.Fatalf("integer %d", n)
		}
		if s, ok := parseText(raw, 20); ok && (len(s) > 20 || strings.ContainsFunc(s, unicode.IsControl)) {
			t.Fatalf("text %q", s)
		}
		if s, ok := parseTime(raw); ok && len(s) > 40 {
			t.Fatalf("time %q", s)
		}
		if s, ok := parseWord(raw, states); ok && len(s) > 64 {
			t.Fatalf("word %q", s)
		}
		parseBool(raw)
		parseHistoryEntry(raw)
	})
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{"http://10.0.0.1:2379", "e1:2379", "https://[::1]:2379/", "http://u:p@h:1", "unix:///x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEndpoint(s, false)
		if err == nil && (e.addr == "" || strings.ContainsAny(e.addr, "/@ \x00")) {
			t.Fatalf("%q gives %q", s, e.addr)
		}
	})
}

func FuzzParseLease(f *testing.F) {
	f.Add(int64(1), int64(21), int64(30))
	f.Add(int64(1), int64(-1), int64(0))
	f.Add(int64(1), int64(9223372036), int64(30))
	f.Fuzz(func(t *testing.T, id, ttl, granted int64) {
		l, err := parseLease(id, ttl, granted)
		if err == nil && (l.Remaining < 0 || l.Remaining > l.Granted || (!l.Exists && l.Granted != 0)) {
			t.Fatalf("lease = %+v", l)
		}
	})
}
