package forward

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/probe/probetest"
)

func hop(t *testing.T, p probe.Protocol, addr string) *Hop {
	t.Helper()
	h, err := NewHop(Config{Address: addr, Protocol: p, Timeout: 300 * time.Millisecond}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// listen runs handle for every connection to an address. Without a handle the kernel takes connections and nobody
// answers, as with a stopped process.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if handle == nil {
		return l.Addr().String()
	}
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
	return l.Addr().String()
}

// closedPort is where nobody listens: a port that a connection holds, so that no other test gets it meanwhile.
func closedPort(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("tcp", listen(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

// postgresServer answers an SSLRequest, and fails the test for anything else.
func postgresServer(t *testing.T, answer string) string {
	t.Helper()
	return listen(t, func(c net.Conn) {
		var b [len(sslRequest)]byte
		if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != sslRequest {
			t.Errorf("got %q, %v", b, err)
		}
		_, _ = io.WriteString(c, answer)
		if n, err := c.Read(b[:]); err == nil && (answer != "S" || b[0] != 0x16) {
			t.Errorf("got %q after the answer", b[:n])
		}
	})
}

func TestHop(t *testing.T) {
	web := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	answered := probe.Hop{Outcome: probe.OutcomeAnswered}
	broken := probe.Hop{Outcome: probe.OutcomeBroken, Detail: "the connection ended early"}
	type testCase struct {
		protocol probe.Protocol
		addr     string
		want     probe.Hop
	}
	cases := map[string]testCase{
		"http":            {probe.ProtocolHTTP, web(func(http.ResponseWriter, *http.Request) {}), answered},
		"http, no":        {probe.ProtocolHTTP, web(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }), answered},
		"http, elsewhere": {probe.ProtocolHTTP, web(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }), answered},
		"http, nonsense": {
			probe.ProtocolHTTP, listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 secret ESMTP\r\n"); _, _ = c.Read(make([]byte, 999)) }),
			probe.Hop{Outcome: probe.OutcomeBroken, Detail: "the answer is not HTTP"},
		},
		"postgres without TLS": {probe.ProtocolPostgres, postgresServer(t, "N"), answered},
		"postgres with TLS":    {probe.ProtocolPostgres, postgresServer(t, "S"), answered},
		"postgres, no room":    {probe.ProtocolPostgres, postgresServer(t, "E\x00\x00\x00\x0cSFATAL\x00"), answered},
		"postgres, nonsense":   {probe.ProtocolPostgres, postgresServer(t, "secret"), probe.Hop{Outcome: probe.OutcomeBroken, Detail: "the answer is not PostgreSQL's"}},
		"tcp, silent":          {probe.ProtocolTCP, listen(t, nil), answered},
	}
	for _, p := range []probe.Protocol{probe.ProtocolHTTP, probe.ProtocolPostgres} {
		cases[string(p)+", silent"] = testCase{p, listen(t, nil), probe.Hop{Outcome: probe.OutcomeTimeout, Detail: "no answer within the limit"}}
		cases[string(p)+", hangs up"] = testCase{p, listen(t, func(net.Conn) {}), broken}
	}
	for _, p := range []probe.Protocol{probe.ProtocolHTTP, probe.ProtocolPostgres, probe.ProtocolTCP} {
		cases[string(p)+", refused"] = testCase{p, closedPort(t), probe.Hop{Outcome: probe.OutcomeRefused, Detail: "connection refused"}}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			got, err := hop(t, c.protocol, c.addr).Probe(t.Context())
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

func TestHop_TLS(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, p := range []probe.Protocol{probe.ProtocolHTTP, probe.ProtocolTCP} {
		h, err := NewHop(Config{Address: s.Listener.Addr().String(), Protocol: p}, Deps{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Probe(t.Context()); err != nil || got.Outcome != probe.OutcomeAnswered {
			t.Errorf("%s: got %+v, %v", p, got, err)
		}
	}
}

func TestHop_KeepsTheContract(t *testing.T) {
	for _, p := range []probe.Protocol{probe.ProtocolHTTP, probe.ProtocolPostgres, probe.ProtocolTCP} {
		t.Run(string(p), func(t *testing.T) {
			probetest.Run(t, hop(t, p, closedPort(t)))
			if got, err := probetest.RunHanging(t, hop(t, p, listen(t, nil))); err != nil || (got.Outcome != probe.OutcomeTimeout && p != probe.ProtocolTCP) {
				t.Errorf("got %+v, %v", got, err)
			}
			if got, err := hop(t, p, "not..a.name:1").Probe(t.Context()); err == nil || got != (probe.Hop{}) {
				t.Errorf("got %+v, %v, want an error: nobody was asked", got, err)
			}
		})
	}
}

func TestConfig_Validate(t *testing.T) {
	for _, c := range []Config{{Address: "127.0.0.1:5432", Protocol: probe.ProtocolPostgres}, {Address: "[::1]:80", Protocol: probe.ProtocolHTTP}, {Address: "nas:1", Protocol: probe.ProtocolTCP}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []Config{
		{},
		{Address: "x:1"},
		{Address: "x:1", Protocol: probe.ProtocolEtcd},
		{Address: "x:1", Protocol: probe.ProtocolEtcdPeer},
		{Address: "x", Protocol: probe.ProtocolTCP},
		{Address: "http://x:1", Protocol: probe.ProtocolTCP},
		{Address: "u:secret@x:1", Protocol: probe.ProtocolTCP},
		{Address: "x:1", Protocol: probe.ProtocolTCP, Timeout: -1},
	} {
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := NewHop(Config{Address: "x:1", Protocol: probe.ProtocolPostgres}, Deps{TLS: new(tls.Config)}); err == nil {
		t.Error("PostgreSQL takes a TLS configuration")
	}
}
