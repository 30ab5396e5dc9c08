package patroni

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestParseReply_Captured(t *testing.T) {
	about := probe.PatroniAPI{Name: "node-1", Scope: "demo", Version: "4.0.7"}
	with := func(change func(*probe.PatroniAPI)) probe.PatroniAPI {
		a := about
		change(&a)
		return a
	}
	const id = "7711181060522340547"
	for name, want := range map[string]probe.PatroniAPI{
		"stopped-4.0.7": with(func(a *probe.PatroniAPI) { a.State, a.Role, a.Unlocked = "stopped", "uninitialized", true }),
		"initializing-4.0.7": with(func(a *probe.PatroniAPI) {
			a.State, a.Role, a.Unlocked = "initializing new cluster", "uninitialized", true
		}),
		"leader-4.0.7": with(func(a *probe.PatroniAPI) {
			a.State, a.Role, a.Timeline, a.ServerVersion, a.SystemID = "running", "primary", 1, 170012, id
			a.PostmasterStart, a.Location = "2026-11-23T02:00:52.627945Z", 50331648
		}),
		"leader-paused-4.0.7": with(func(a *probe.PatroniAPI) {
			a.State, a.Role, a.Timeline, a.ServerVersion, a.SystemID = "running", "primary", 1, 170012, id
			a.PostmasterStart, a.Location, a.Paused = "2026-11-23T02:00:52.627945Z", 50331744, true
		}),
		"creating-replica-4.0.7": with(func(a *probe.PatroniAPI) { a.Name, a.State, a.Role = "node-2", "creating replica", "uninitialized" }),
		"starting-4.0.7":         with(func(a *probe.PatroniAPI) { a.Name, a.State, a.Role, a.SystemID = "node-2", "starting", "replica", id }),
		"restarting-4.0.7":       with(func(a *probe.PatroniAPI) { a.Name, a.State, a.Role, a.SystemID = "node-2", "restarting", "replica", id }),
		"unknown-paused-4.0.7": with(func(a *probe.PatroniAPI) {
			a.Name, a.State, a.Role, a.SystemID, a.Paused = "node-2", "unknown", "replica", id, true
		}),
		"replica-4.0.7": with(func(a *probe.PatroniAPI) {
			a.Name, a.State, a.Role, a.Timeline, a.ServerVersion, a.SystemID = "node-2", "running", "replica", 1, 170012, id
			a.PostmasterStart, a.Location = "2026-11-23T02:01:04.505749Z", 50331648
		}),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseReply(testdata(t, "api/"+name+".json"))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

// TestParseReply_All reads every captured reply, and every one of them cut off at every place.
func TestParseReply_All(t *testing.T) {
	names, err := filepath.Glob("testdata/api/*.json")
	if err != nil || len(names) < 15 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseReply(b); err != nil || got.Name == "" || got.State == "" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		b = bytes.TrimSpace(b)
		for i := range b {
			if got, err := parseReply(b[:i]); err == nil {
				t.Errorf("%s cut at %d: got %+v, want an error", name, i, got)
			}
		}
	}
}

func TestParseReply_Unintelligible(t *testing.T) {
	good := testdata(t, "api/leader-4.0.7.json")
	change := func(field string, value any) string {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		target := m
		if _, rest, nested := strings.Cut(field, "."); nested {
			target, field = m[strings.TrimSuffix(field, "."+rest)].(map[string]any), rest
		}
		target[field] = value
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, in := range map[string]string{
		"empty":                  "",
		"html":                   "<html><body>secret</body></html>",
		"null":                   "null",
		"list":                   "[]",
		"empty object":           "{}",
		"two objects":            string(good) + string(good),
		"stray brace":            string(good) + "}",
		"other case":             strings.Replace(string(good), `"state"`, `"STATE"`, 1),
		"name with a line break": change("patroni.name", "a\nb"),
		"name with a separator":  change("patroni.name", "a;secret"),
		"name too long":          change("patroni.name", strings.Repeat("a", 64)),
		"empty name":             change("patroni.name", ""),
		"scope is a number":      change("patroni.scope", 7),
		"patroni is a text":      change("patroni", "secret"),
		"xlog is a list":         change("xlog", []int{1}),
		"state is null":          change("state", nil),
		"state with escape":      change("state", "running\x1b[2J"),
		"role is an object":      change("role", map[string]int{}),
		"version with markup":    change("patroni.version", "<b>"),
		"timeline negative":      change("timeline", -1),
		"timeline fraction":      change("timeline", 1.5),
		"timeline huge":          change("timeline", 1e30),
		"timeline a text":        change("timeline", "1"),
		"location huge":          change("xlog.location", 1e19),
		"pause is a text":        change("pause", "true"),
		"system id is a number":  change("database_system_identifier", 77),
		"start is no time":       change("postmaster_start_time", "secret"),
		"too long":               change("state", strings.Repeat("a", maxReply)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseReply([]byte(in))
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if strings.Contains(err.Error(), "secret") || len(err.Error()) > 200 {
				t.Errorf("the error repeats the contents: %v", err)
			}
		})
	}
}

func TestParseReply_TolerantOfNews(t *testing.T) {
	in := strings.Replace(string(testdata(t, "api/leader-4.0.7.json")), `{"state"`, `{"news": [{"a": null}], "timeline": null, "state"`, 1)
	in = strings.Replace(in, `"timeline": 1, `, "", 1)
	if got, err := parseReply([]byte(in)); err != nil || got.State != "running" || got.Timeline != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzParseReply(f *testing.F) {
	names, err := filepath.Glob("testdata/api/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseReply(b)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("long error: %v", err)
			}
			return
		}
		for _, s := range []string{got.Name, got.Scope, got.Version, got.State, got.Role} {
			if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q got through", s)
			}
		}
		if got.Timeline < 0 || got.ServerVersion < 0 {
			t.Errorf("got %+v", got)
		}
	})
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// listen runs handle for every connection to an address.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() // a test's server
				handle(c)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // only its number is wanted
	return "http://" + l.Addr().String()
}

func liveness(t *testing.T, url string, d APIDeps) *Liveness {
	t.Helper()
	l, err := NewLiveness(APIConfig{URL: url, Timeout: 500 * time.Millisecond}, d)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLiveness(t *testing.T) {
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	request := func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }
	for name, c := range map[string]struct {
		url  string
		want probe.Liveness
	}{
		"alive": {
			serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/liveness" || r.Method != http.MethodGet || !r.Close {
					w.WriteHeader(http.StatusTeapot)
				}
			}),
			probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 200},
		},
		"loop late": {
			serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }),
			probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 503},
		},
		"redirect is not followed": {
			serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }),
			probe.Liveness{Outcome: probe.OutcomeAnswered, Status: 302},
		},
		"nobody listens": {closedPort(t), probe.Liveness{Outcome: probe.OutcomeRefused, Detail: "connection refused"}},
		"silent":         {listen(t, func(net.Conn) { <-quit }), probe.Liveness{Outcome: probe.OutcomeTimeout, Detail: "no answer within the limit"}},
		"trickles": {
			listen(t, func(c net.Conn) {
				for _, b := range []byte("HTTP/1.0 200 OK\r\n") {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}),
			probe.Liveness{Outcome: probe.OutcomeTimeout, Detail: "no answer within the limit"},
		},
		"hangs up":         {listen(t, request), probe.Liveness{Outcome: probe.OutcomeBroken, Detail: "the connection ended early"}},
		"speaks otherwise": {listen(t, func(c net.Conn) { _, _ = c.Write([]byte("220 secret ESMTP\r\n")); request(c) }), probe.Liveness{Outcome: probe.OutcomeBroken, Detail: "the answer is not HTTP"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			got, err := liveness(t, c.url, APIDeps{}).Probe(t.Context())
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

// TestLiveness_NotTheAPIsDoing: what is wrong on this side must not look like a dead Patroni.
func TestLiveness_NotTheAPIsDoing(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	for name, url := range map[string]string{
		"no such name":            "http://not..aname:8008", // refused before any name server is asked
		"certificate not trusted": secure.URL,
		"https to a plain server": strings.Replace(plain, "http:", "https:", 1),
		"alert from a TLS server": listen(t, func(c net.Conn) { _, _ = c.Write([]byte("\x15\x03\x01\x00\x02\x02\x46")) }),
	} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLiveness(APIConfig{URL: url, Timeout: 10 * time.Second}, APIDeps{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := l.Probe(t.Context()); err == nil {
				t.Errorf("got %+v, want an error", got)
			}
		})
	}
	t.Run("certificate trusted", func(t *testing.T) {
		roots := secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		l, err := NewLiveness(APIConfig{URL: secure.URL, Timeout: 10 * time.Second},
			APIDeps{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.Probe(t.Context())
		if err != nil || got.Status != http.StatusNotFound {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestLiveness_NoticesAStoppedListener(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	l := liveness(t, s.URL, APIDeps{})
	if got, err := l.Probe(t.Context()); err != nil || !got.Alive() {
		t.Fatalf("got %+v, %v", got, err)
	}
	s.Close()
	if got, err := l.Probe(t.Context()); err != nil || got.Outcome != probe.OutcomeRefused {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestLiveness_KeepsTheContract(t *testing.T) {
	probetest.Run(t, liveness(t, listen(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
	}), APIDeps{}))
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	l, err := NewLiveness(APIConfig{URL: listen(t, func(net.Conn) { <-quit })}, APIDeps{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := l.Probe(deadline(t)); err != nil || got.Outcome != probe.OutcomeTimeout {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestAPI(t *testing.T) {
	leader := testdata(t, "api/leader-4.0.7.json")
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    probe.PatroniAPI
	}{
		"no patroni": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>secret</html>")) },
			probe.PatroniAPI{Outcome: probe.OutcomeAnswered, Problem: "reply is not a JSON object"},
		},
		"status": {
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
			probe.PatroniAPI{Outcome: probe.OutcomeAnswered, Problem: "status 403 instead of 200"},
		},
		"too long": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxReply+10)) },
			probe.PatroniAPI{Outcome: probe.OutcomeAnswered, Problem: "reply is longer than 1 MiB"},
		},
		"cut": {
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "5000")
				_, _ = w.Write(leader)
			},
			probe.PatroniAPI{Outcome: probe.OutcomeBroken, Detail: "the connection ended early"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewAPI(APIConfig{URL: serve(t, c.handler)}, APIDeps{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Probe(t.Context())
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
	p, err := NewAPI(APIConfig{URL: serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(leader) })}, APIDeps{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Probe(t.Context()); err != nil || got.Outcome != probe.OutcomeAnswered || got.Role != "primary" {
		t.Errorf("leader: got %+v, %v", got, err)
	}
}

func TestAPIConfig_Validate(t *testing.T) {
	for _, url := range []string{"http://10.0.0.1:8008", "https://node.example:8008/", "http://[fd00::1]:8008"} {
		if err := (APIConfig{URL: url}).Validate(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{
		"", "10.0.0.1:8008", "ftp://x:1", "http://x", "http://:8008", "http://u:s3cr3t@x:1", "http://x:1/path", "http://x:1?q", "http://x:1#f", "http://u:s3cr3t@[x:1",
	} {
		if err := (APIConfig{URL: url}).Validate(); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: got %v", url, err)
		}
	}
	if _, err := NewLiveness(APIConfig{URL: "http://x:1", Timeout: -1}, APIDeps{}); err == nil {
		t.Error("a negative timeout is valid")
	}
}
