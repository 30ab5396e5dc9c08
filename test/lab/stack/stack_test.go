package stack

import (
	"archive/tar"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testStack() *Stack {
	s := New("unit", slog.New(slog.DiscardHandler))
	s.subnet = netip.MustParsePrefix("10.213.7.0/24")
	return s
}

// The backend must be the first user's own, word for word, but for the addresses.
func TestHAProxyConfig_IsTheUsers(t *testing.T) {
	const want = `frontend ft_postgres
    bind :5432
    default_backend bk_postgres_primary
backend bk_postgres_primary
    option httpchk GET /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
    server postgres-1 10.213.7.11:5432 check port 8008
    server postgres-2 10.213.7.12:5432 check port 8008
    server postgres-3 10.213.7.13:5432 check port 8008
`
	got, err := testStack().haproxyConfig()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(got), "frontend")
	if diff := cmp.Diff(want, "frontend"+text); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestPatroniConfig_NamesTheMember(t *testing.T) {
	s := testStack()
	got, err := s.patroniConfig(s.Of(Postgres)[1], AllTimings()[1], newSecrets())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: postgres-2\n", "ttl: 20\n", "loop_wait: 2\n", "connect_address: 10.213.7.12:8008\n", "- 10.213.7.23:2379\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("configuration lacks %q:\n%s", want, got)
		}
	}
}

func TestProblems(t *testing.T) {
	const (
		good   = `{"members":[{"name":"postgres-1","role":"leader","state":"running","timeline":2},{"name":"postgres-2","role":"replica","state":"streaming","timeline":2,"lag":0},{"name":"postgres-3","role":"replica","state":"streaming","timeline":2,"lag":"unknown"}]}`
		config = `{"ttl":30,"loop_wait":10,"retry_timeout":10}`
		head   = "# pxname,svname,status\nft_postgres,FRONTEND,OPEN\n"
		up1    = head + "bk,postgres-1,UP\nbk,postgres-2,DOWN\nbk,postgres-3,DOWN\n"
	)
	for _, tt := range []struct {
		name, cluster, config, stat string
		want                        []string
	}{
		{"healthy", good, config, up1, nil},
		{"nobody answers", "", "", up1, []string{"no Patroni answers"}},
		{"paused", good, `{"ttl":30,"loop_wait":10,"retry_timeout":10,"pause":true}`, up1, []string{"paused"}},
		{"a replica does not stream", strings.Replace(good, "streaming", "running", 1), config, up1, []string{"postgres-2 is running on timeline 2 (leader: 2)"}},
		{"a replica on an old timeline", strings.Replace(good, `"streaming","timeline":2`, `"streaming","timeline":1`, 1), config, up1, []string{"postgres-2 is streaming on timeline 1 (leader: 2)"}},
		{
			"HAProxy sees it differently", good, config, strings.Replace(up1, "postgres-2,DOWN", "postgres-2,UP", 1),
			[]string{`HAProxy says postgres-2 is "UP" while postgres-1 leads`},
		},
		{"no leader", strings.Replace(good, "leader", "replica", 1), config, up1, []string{"no leader that runs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := parseLook(tt.cluster, tt.config, tt.stat)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, l.problems()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArchive_KeepsOwnerAndMode(t *testing.T) {
	b, err := archive([]file{{Path: "/etc/patroni/config.yml", Mode: 0o640, Owner: "postgres", Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(b)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(r)
	if h.Name != "etc/patroni/config.yml" || h.Uname != "postgres" || h.Mode != 0o640 || string(data) != "x" {
		t.Errorf("header = %+v, data %q", h, data)
	}
}

// The agents of the homelab get the first user's examples, with nothing of theirs left in them.
func TestHomelabConfig_IsTheExample(t *testing.T) {
	s := testStack()
	s.Homelab = true
	for _, tt := range []struct{ node, want string }{
		{NAS, "manager: {docker: pgpatrol-unit-etcd-nas}\npolicy:\n  revive: \"auto\"\ndocker: {host: \"unix:///opt/engine/docker.sock\"}\n"},
		{MBP, "to: 127.0.0.1:2380\n    protocol: etcd-peer\n    manager: {systemd: etcd-socat-peer.service}\n"},
		{JP1, "manager: {openrc: etcd}\npolicy:\n  revive: \"auto\"\n"},
	} {
		got, err := s.homelabConfig(s.Must(tt.node), map[string]string{"revive": "auto"}, "../../..")
		if err != nil {
			t.Fatal(err)
		}
		if text := string(got); !strings.Contains(text, tt.want) || strings.Contains(text, "192.168") || strings.Contains(text, "launchd:") ||
			strings.Count(text, "10.213.7.2") < 5 {
			t.Errorf("configuration of %s:\n%s", tt.node, text)
		}
	}
}

func TestOverlaps(t *testing.T) {
	mine := netip.MustParsePrefix("10.213.0.0/24")
	for _, tt := range []struct {
		name, used string
		want       bool
	}{
		{"the same", "10.213.0.0/24", true},
		{"a wider network", "10.213.0.0/16", true},
		{"a neighbour", "10.213.1.0/24", false},
		{"the whole private range", "10.0.0.0/8", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := overlapsAny(mine, []netip.Prefix{netip.MustParsePrefix(tt.used)}); got != tt.want {
				t.Errorf("overlaps = %t, want %t", got, tt.want)
			}
		})
	}
}

func FuzzParseLook(f *testing.F) {
	f.Add(`{"members":[{"name":"a","role":"leader","lag":"unknown"}]}`, `{"ttl":30}`, "# pxname,svname,status\n")
	f.Fuzz(func(_ *testing.T, cluster, config, stat string) {
		if l, err := parseLook(cluster, config, stat); err == nil {
			l.problems()
		}
	})
}
