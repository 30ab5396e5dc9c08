package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestParseStat(t *testing.T) {
	filler := " 0 0 0 0 0 0 0 0 0 7 5 0 0 0 0 0 0 99 0"
	for name, c := range map[string]struct {
		in   string
		want stat
		bad  bool
	}{
		"postmaster, captured": {
			in:   string(testdata(t, "stat-postmaster")),
			want: stat{pid: 843, comm: "postgres", state: "S", parent: 1, cpuTicks: 5, startTick: 209213},
		},
		"patroni, captured": {
			in:   string(testdata(t, "stat-patroni")),
			want: stat{pid: 185, comm: "patroni", state: "S", parent: 1, cpuTicks: 321, startTick: 126050},
		},
		"name with parentheses and spaces": {
			in:   "9 (a) R 1 (b) D 3" + filler,
			want: stat{pid: 9, comm: "a) R 1 (b", state: "D", parent: 3, cpuTicks: 12, startTick: 99},
		},
		"name with a line break":  {in: "9 (a\nb) T 3" + filler, want: stat{pid: 9, comm: "a?b", state: "T", parent: 3, cpuTicks: 12, startTick: 99}},
		"empty":                   {in: "", bad: true},
		"cut":                     {in: "9 (a) S 1 2 3", bad: true},
		"parentheses turned":      {in: "9 )a( S 1" + filler, bad: true},
		"pid is no number":        {in: "x (a) S 1" + filler, bad: true},
		"start tick is no number": {in: "9 (a) S 1" + strings.Replace(filler, "99", "-1", 1), bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(c.in))
			if (err != nil) != c.bad {
				t.Fatalf("got error %v, want one: %v", err, c.bad)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(stat{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseUnit(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"docker on a hybrid host, captured": {string(testdata(t, "cgroup-docker-hybrid")), "patroni.service"},
		"version 2":                         {"0::/system.slice/patroni.service\n", "patroni.service"},
		"version 1":                         {"3:cpu:/x.service\n1:name=systemd:/system.slice/postgresql@17-main.service\n", "postgresql@17-main.service"},
		"incus container":                   {"0::/lxc.payload.postgres-1/system.slice/patroni.service", "patroni.service"},
		"delegated group below a service":   {"0::/system.slice/patroni.service/child/grandchild\n", "patroni.service"},
		"docker scope of the host, both": {
			"1:name=systemd:/system.slice/docker-12.scope\n0::/system.slice/docker-12.scope/system.slice/patroni.service\n", "patroni.service",
		},
		"session":       {"0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"},
		"no unit":       {"0::/\n", ""},
		"only a slice":  {"0::/system.slice\n", ""},
		"empty":         {"", ""},
		"no path":       {"0:\n", ""},
		"hostile bytes": {"0::/a\x1b[2J.service\n", "a?[2J.service"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseUnit([]byte(c.in)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	captured := testdata(t, "status-postmaster")
	if got, err := parseTracer(captured); got != 0 || err != nil {
		t.Errorf("tracer: got %d, %v", got, err)
	}
	if got := parseNamespaces(captured); got != 1 {
		t.Errorf("namespaces: got %d", got)
	}
	if got, err := parseTracer([]byte("Name:\tx\nTracerPid:\t42\n")); got != 42 || err != nil {
		t.Errorf("traced: got %d, %v", got, err)
	}
	if got := parseNamespaces([]byte("NSpid:\t4242\t17\n")); got != 2 {
		t.Errorf("contained: got %d", got)
	}
	for _, in := range []string{"", "Name:\tx\n", "TracerPid:\tx\n", "TracerPid:\t-3\n"} {
		if _, err := parseTracer([]byte(in)); err == nil {
			t.Errorf("parseTracer(%q) gives no error", in)
		}
	}
}

func TestBaseName(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/lib/postgresql/17/bin/postgres":           "postgres",
		"/usr/lib/postgresql/17/bin/postgres (deleted)": "postgres",
		"": "",
	} {
		if got := baseName(in); got != want {
			t.Errorf("baseName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestServerMode(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		want mode
	}{
		"started by Patroni":           {"/usr/lib/postgresql/17/bin/postgres -D /d --config-file=/d/postgresql.conf --port=5432", modePostmaster},
		"started by hand":              {"postgres", modePostmaster},
		"checkpointer of a dead one":   {"postgres: main: checkpointer ", modeOther},
		"single user":                  {"/usr/lib/postgresql/17/bin/postgres --single -D /d template1", modeSingle},
		"bootstrap":                    {"postgres --boot -x0", modeOther},
		"version":                      {"postgres --version", modeOther},
		"question for a setting":       {"postgres -D /d -C data_directory", modeOther},
		"setting on the command line":  {"postgres -D /d -c shared_buffers=1GB", modePostmaster},
		"no arguments: it is a zombie": {"", modeOther},
	} {
		t.Run(name, func(t *testing.T) {
			sep := " "
			if strings.Contains(c.args, ": ") {
				sep = "\x00"
			}
			raw := strings.ReplaceAll(c.args, sep, "\x00") + "\x00"
			if got := serverMode(parseArgs([]byte(raw))); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"stat-postmaster", "stat-patroni", "status-postmaster", "cgroup-docker-hybrid"} {
		f.Add(testdata(f, name))
	}
	f.Add([]byte("0::/a.service"))
	f.Add([]byte("postgres\x00--single\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && (s.pid <= 0 || len(s.state) != 1 || printable(s.comm) != s.comm) {
			t.Errorf("parseStat(%q) = %+v", b, s)
		}
		if pid, err := parseTracer(b); err == nil && pid < 0 {
			t.Errorf("parseTracer(%q) = %d", b, pid)
		}
		if u := parseUnit(b); strings.ContainsAny(u, "/\n\x00") {
			t.Errorf("parseUnit(%q) = %q", b, u)
		}
		parseNamespaces(b)
		mayBeRoot(b)
		upgrades(parseArgs(b))
		serverMode(parseArgs(b))
	})
}
