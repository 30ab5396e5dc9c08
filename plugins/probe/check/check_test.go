package check

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
	"github.com/pgpatrol/pgpatrol/plugins/service"
)

func newCheck(t *testing.T, c Config) *Check {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 300 * time.Millisecond
	}
	p, err := New(c, Deps{Runner: service.Runner{}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// silent is an address where the kernel takes connections and nobody answers, as with a stopped process.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// closedPort is where nobody listens: a port that a connection holds, so that no other test gets it meanwhile.
func closedPort(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("tcp", silent(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

func TestCheck(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.RequestURI {
		case "/health?full=1%20", "/":
		case "/elsewhere":
			http.Redirect(w, r, "/missing", http.StatusFound)
		case "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	answered := func(ok bool, detail string) probe.Check {
		return probe.Check{Outcome: probe.OutcomeAnswered, OK: ok, Detail: detail}
	}
	refused := probe.Check{Outcome: probe.OutcomeRefused, Detail: "connection refused"}
	timeout := probe.Check{Outcome: probe.OutcomeTimeout, Detail: "no answer within the limit"}
	for name, c := range map[string]struct {
		config Config
		want   probe.Check
	}{
		"tcp":                       {Config{TCP: silent(t)}, answered(true, "")},
		"tcp, refused":              {Config{TCP: closedPort(t)}, refused},
		"http":                      {Config{HTTP: s.URL}, answered(true, "status 200")},
		"http with path and query":  {Config{HTTP: s.URL + "/health?full=1%20"}, answered(true, "status 200")},
		"http, missing":             {Config{HTTP: s.URL + "/missing"}, answered(false, "status 404")},
		"http, down":                {Config{HTTP: s.URL + "/down"}, answered(false, "status 503")},
		"http redirect, not taken":  {Config{HTTP: s.URL + "/elsewhere"}, answered(true, "status 302")},
		"http, refused":             {Config{HTTP: "http://" + closedPort(t) + "/x"}, refused},
		"http, silent":              {Config{HTTP: "http://" + silent(t)}, timeout},
		"command":                   {Config{Command: []string{"true"}, Timeout: time.Minute}, answered(true, "exit code 0")},
		"command fails":             {Config{Command: []string{"/bin/sh", "-c", "echo secret; echo secret >&2; exit 3"}, Timeout: time.Minute}, answered(false, "exit code 3")},
		"command fails as ssh does": {Config{Command: []string{"/bin/sh", "-c", "exit 255"}, Timeout: time.Minute}, answered(false, "exit code 255")},
		"command gets no shell":     {Config{Command: []string{"test", "$HOME", "=", "$HOME;exit 1"}, Timeout: time.Minute}, answered(false, "exit code 1")},
		"command hangs":             {Config{Command: []string{"sleep", "60"}}, probe.Check{Outcome: probe.OutcomeTimeout, Detail: "the command did not end within the limit"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			got, err := newCheck(t, c.config).Probe(t.Context())
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

// runner is a command's end.
type runner struct {
	out service.Output
	err error
}

func (r runner) Run(context.Context, service.Command) (service.Output, error) { return r.out, r.err }

func TestCheck_FoundOutNothing(t *testing.T) {
	commands := map[string]runner{
		"no such program":  {err: fs.ErrNotExist},
		"not allowed":      {err: service.ErrPermission},
		"not executable":   {out: service.Output{ExitCode: 126}},
		"no such tool":     {out: service.Output{ExitCode: 127}},
		"killed":           {out: service.Output{ExitCode: 137}},
		"no code":          {out: service.Output{ExitCode: -1}},
		"the last signal":  {out: service.Output{ExitCode: 192}},
		"the first signal": {out: service.Output{ExitCode: 129}},
	}
	for name, r := range commands {
		t.Run(name, func(t *testing.T) {
			p, err := New(Config{Command: []string{"x", "secret"}}, Deps{Runner: r})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.Probe(t.Context()); err == nil || got != (probe.Check{}) || (r.err != nil && !errors.Is(err, r.err)) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	for _, c := range []Config{{TCP: "not..a.name:1"}, {HTTP: "http://not..a.name/"}} {
		if got, err := newCheck(t, c).Probe(t.Context()); err == nil || got != (probe.Check{}) {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
	}
}

func TestCheck_KeepsTheContract(t *testing.T) {
	for name, c := range map[string][2]Config{
		"http":    {{HTTP: "http://" + closedPort(t)}, {HTTP: "http://" + silent(t), Timeout: time.Minute}},
		"command": {{Command: []string{"true"}}, {Command: []string{"sleep", "60"}, Timeout: time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			probetest.Run(t, newCheck(t, c[0]))
			if got, err := probetest.RunHanging(t, newCheck(t, c[1])); err != nil || got.Outcome != probe.OutcomeTimeout {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	probetest.Run(t, newCheck(t, Config{TCP: closedPort(t)}))
}

func TestConfig_Validate(t *testing.T) {
	for _, c := range []Config{
		{TCP: "[::1]:25"},
		{HTTP: "http://nas"},
		{HTTP: "https://nas/x?y"},
		{HTTP: "http://[::1]/"},
		{HTTP: "http://nas:8080/x"},
		{Command: []string{"true"}},
		{Command: []string{"/usr/local/bin/check", "a b"}},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []Config{
		{},
		{TCP: "x:1", HTTP: "http://x"},
		{TCP: "x:1", Command: []string{"true"}},
		{TCP: "x"},
		{TCP: "x:1/secret"},
		{TCP: ":1"},
		{HTTP: "nas:80/secret"},
		{HTTP: "ftp://nas/secret"},
		{HTTP: "http:///secret"},
		{HTTP: "http://u:secret@nas/"},
		{HTTP: "http://nas/#secret"},
		{HTTP: "http://secret@[nas/"},
		{HTTP: "mailto:secret"},
		{Command: []string{""}},
		{Command: []string{"./secret"}},
		{Command: []string{".."}},
		{Command: []string{"true"}, Timeout: -1},
		{TCP: "x:1", Timeout: -1},
	} {
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := New(Config{Command: []string{"true"}}, Deps{}); err == nil {
		t.Error("a command needs no runner")
	}
}

func TestNew_DefaultPort(t *testing.T) {
	for url, want := range map[string]string{"http://nas/x": "nas:80", "https://nas": "nas:443", "http://[::1]/": "[::1]:80", "http://nas:8080": "nas:8080"} {
		if got := newCheck(t, Config{HTTP: url}).endpoint.Host(); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}

func FuzzNew(f *testing.F) {
	for _, s := range []string{"http://nas/x?y=1#z", "https://[::1]:443", "nas:1", "http://u:p@nas", "http:opaque", "//nas", "http://nas/%zz\r\nX: y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range []Config{{TCP: s}, {HTTP: s}} {
			p, err := New(c, Deps{})
			if err != nil {
				continue
			}
			if strings.ContainsFunc(p.path, func(r rune) bool { return r <= ' ' || r == 0x7f }) || (p.path != "") != (c.HTTP != "") {
				t.Errorf("%q: path %q", s, p.path)
			}
			if _, _, err := net.SplitHostPort(p.endpoint.Host()); err != nil {
				t.Errorf("%q: host %q", s, p.endpoint.Host())
			}
		}
	})
}
